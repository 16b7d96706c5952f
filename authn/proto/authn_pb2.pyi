from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("sap_id", "nonce", "enc", "ciphertext")
    SAP_ID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    ENC_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    sap_id: str
    nonce: bytes
    enc: bytes
    ciphertext: bytes
    def __init__(self, sap_id: _Optional[str] = ..., nonce: _Optional[bytes] = ..., enc: _Optional[bytes] = ..., ciphertext: _Optional[bytes] = ...) -> None: ...

class ChallengeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChallengeAnswer(_message.Message):
    __slots__ = ("nonce", "expires", "sap_id", "sap_public_key", "statement")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    SAP_ID_FIELD_NUMBER: _ClassVar[int]
    SAP_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    expires: int
    sap_id: str
    sap_public_key: bytes
    statement: str
    def __init__(self, nonce: _Optional[bytes] = ..., expires: _Optional[int] = ..., sap_id: _Optional[str] = ..., sap_public_key: _Optional[bytes] = ..., statement: _Optional[str] = ...) -> None: ...

class ActivationBeginRequest(_message.Message):
    __slots__ = ("nif", "email", "envelope")
    NIF_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    nif: str
    email: str
    envelope: Envelope
    def __init__(self, nif: _Optional[str] = ..., email: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class OTPAnswer(_message.Message):
    __slots__ = ("challenge_id", "expires", "reference", "tries")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    TRIES_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    expires: int
    reference: str
    tries: int
    def __init__(self, challenge_id: _Optional[str] = ..., expires: _Optional[int] = ..., reference: _Optional[str] = ..., tries: _Optional[int] = ...) -> None: ...

class ActivationCompleteRequest(_message.Message):
    __slots__ = ("challenge_id", "envelope")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    envelope: Envelope
    def __init__(self, challenge_id: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class TokenAnswer(_message.Message):
    __slots__ = ("sealed_token", "expires")
    SEALED_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    sealed_token: bytes
    expires: int
    def __init__(self, sealed_token: _Optional[bytes] = ..., expires: _Optional[int] = ...) -> None: ...

class SetPasswordRequest(_message.Message):
    __slots__ = ("challenge_id", "envelope")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    envelope: Envelope
    def __init__(self, challenge_id: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class SetPasswordAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PasswordChangeBeginRequest(_message.Message):
    __slots__ = ("nif", "envelope")
    NIF_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    nif: str
    envelope: Envelope
    def __init__(self, nif: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class PinBeginRequest(_message.Message):
    __slots__ = ("nif", "email", "audience", "nonce", "envelope")
    NIF_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    nif: str
    email: str
    audience: str
    nonce: str
    envelope: Envelope
    def __init__(self, nif: _Optional[str] = ..., email: _Optional[str] = ..., audience: _Optional[str] = ..., nonce: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class PinCompleteRequest(_message.Message):
    __slots__ = ("challenge_id", "audience", "nonce", "envelope")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    audience: str
    nonce: str
    envelope: Envelope
    def __init__(self, challenge_id: _Optional[str] = ..., audience: _Optional[str] = ..., nonce: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class PinCompleteAnswer(_message.Message):
    __slots__ = ("sealed_token", "expires", "return_url")
    SEALED_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    RETURN_URL_FIELD_NUMBER: _ClassVar[int]
    sealed_token: bytes
    expires: int
    return_url: str
    def __init__(self, sealed_token: _Optional[bytes] = ..., expires: _Optional[int] = ..., return_url: _Optional[str] = ...) -> None: ...

class EnterAreaRequest(_message.Message):
    __slots__ = ("token", "nonce")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    token: str
    nonce: str
    def __init__(self, token: _Optional[str] = ..., nonce: _Optional[str] = ...) -> None: ...

class EnterAreaAnswer(_message.Message):
    __slots__ = ("key", "expires")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    expires: int
    def __init__(self, key: _Optional[bytes] = ..., expires: _Optional[int] = ...) -> None: ...

class ShowAreaRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    def __init__(self, key: _Optional[bytes] = ...) -> None: ...

class ShowAreaAnswer(_message.Message):
    __slots__ = ("name", "masked_nif", "level", "loa", "authenticated", "password", "blocked_until", "certificates", "uses")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MASKED_NIF_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LOA_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    name: str
    masked_nif: str
    level: str
    loa: str
    authenticated: int
    password: str
    blocked_until: int
    certificates: _containers.RepeatedCompositeFieldContainer[HeldCertificate]
    uses: _containers.RepeatedCompositeFieldContainer[KeyUse]
    def __init__(self, name: _Optional[str] = ..., masked_nif: _Optional[str] = ..., level: _Optional[str] = ..., loa: _Optional[str] = ..., authenticated: _Optional[int] = ..., password: _Optional[str] = ..., blocked_until: _Optional[int] = ..., certificates: _Optional[_Iterable[_Union[HeldCertificate, _Mapping]]] = ..., uses: _Optional[_Iterable[_Union[KeyUse, _Mapping]]] = ...) -> None: ...

class HeldCertificate(_message.Message):
    __slots__ = ("serial", "state", "not_after")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    serial: str
    state: str
    not_after: int
    def __init__(self, serial: _Optional[str] = ..., state: _Optional[str] = ..., not_after: _Optional[int] = ...) -> None: ...

class KeyUse(_message.Message):
    __slots__ = ("time", "agency", "documents", "titles")
    TIME_FIELD_NUMBER: _ClassVar[int]
    AGENCY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TITLES_FIELD_NUMBER: _ClassVar[int]
    time: int
    agency: str
    documents: int
    titles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, time: _Optional[int] = ..., agency: _Optional[str] = ..., documents: _Optional[int] = ..., titles: _Optional[_Iterable[str]] = ...) -> None: ...

class LeaveAreaRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    def __init__(self, key: _Optional[bytes] = ...) -> None: ...

class LeaveAreaAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuthenticateClientRequest(_message.Message):
    __slots__ = ("assertion", "transaction_id")
    ASSERTION_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    assertion: str
    transaction_id: str
    def __init__(self, assertion: _Optional[str] = ..., transaction_id: _Optional[str] = ...) -> None: ...

class AuthenticateClientAnswer(_message.Message):
    __slots__ = ("client_id", "client_name", "rights", "grant", "return_urls")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    RETURN_URLS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    client_name: str
    rights: _containers.RepeatedScalarFieldContainer[str]
    grant: str
    return_urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, client_id: _Optional[str] = ..., client_name: _Optional[str] = ..., rights: _Optional[_Iterable[str]] = ..., grant: _Optional[str] = ..., return_urls: _Optional[_Iterable[str]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("nif", "given_name", "first_surname", "second_surname", "phone", "email", "level", "proof", "language", "conditions", "statement")
    NIF_FIELD_NUMBER: _ClassVar[int]
    GIVEN_NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_SURNAME_FIELD_NUMBER: _ClassVar[int]
    SECOND_SURNAME_FIELD_NUMBER: _ClassVar[int]
    PHONE_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    nif: str
    given_name: str
    first_surname: str
    second_surname: str
    phone: str
    email: str
    level: str
    proof: str
    language: str
    conditions: str
    statement: OfficerStatement
    def __init__(self, nif: _Optional[str] = ..., given_name: _Optional[str] = ..., first_surname: _Optional[str] = ..., second_surname: _Optional[str] = ..., phone: _Optional[str] = ..., email: _Optional[str] = ..., level: _Optional[str] = ..., proof: _Optional[str] = ..., language: _Optional[str] = ..., conditions: _Optional[str] = ..., statement: _Optional[_Union[OfficerStatement, _Mapping]] = ...) -> None: ...

class RegisterAnswer(_message.Message):
    __slots__ = ("citizen_id", "activation_code", "receipt", "acceptance")
    CITIZEN_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_CODE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    citizen_id: str
    activation_code: str
    receipt: bytes
    acceptance: bytes
    def __init__(self, citizen_id: _Optional[str] = ..., activation_code: _Optional[str] = ..., receipt: _Optional[bytes] = ..., acceptance: _Optional[bytes] = ...) -> None: ...

class OfficerStatement(_message.Message):
    __slots__ = ("officer_id", "issued", "nonce", "signature")
    OFFICER_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    officer_id: str
    issued: int
    nonce: bytes
    signature: bytes
    def __init__(self, officer_id: _Optional[str] = ..., issued: _Optional[int] = ..., nonce: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RenewCodeRequest(_message.Message):
    __slots__ = ("nif", "phone", "proof", "language", "statement", "countersignature")
    NIF_FIELD_NUMBER: _ClassVar[int]
    PHONE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    COUNTERSIGNATURE_FIELD_NUMBER: _ClassVar[int]
    nif: str
    phone: str
    proof: str
    language: str
    statement: OfficerStatement
    countersignature: OfficerStatement
    def __init__(self, nif: _Optional[str] = ..., phone: _Optional[str] = ..., proof: _Optional[str] = ..., language: _Optional[str] = ..., statement: _Optional[_Union[OfficerStatement, _Mapping]] = ..., countersignature: _Optional[_Union[OfficerStatement, _Mapping]] = ...) -> None: ...

class RenewCodeAnswer(_message.Message):
    __slots__ = ("activation_code", "receipt")
    ACTIVATION_CODE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    activation_code: str
    receipt: bytes
    def __init__(self, activation_code: _Optional[str] = ..., receipt: _Optional[bytes] = ...) -> None: ...

class AddOfficerRequest(_message.Message):
    __slots__ = ("officer_id", "role", "nif", "public_key")
    OFFICER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NIF_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    officer_id: str
    role: str
    nif: str
    public_key: bytes
    def __init__(self, officer_id: _Optional[str] = ..., role: _Optional[str] = ..., nif: _Optional[str] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class AddOfficerAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EndOfficerRequest(_message.Message):
    __slots__ = ("officer_id",)
    OFFICER_ID_FIELD_NUMBER: _ClassVar[int]
    officer_id: str
    def __init__(self, officer_id: _Optional[str] = ...) -> None: ...

class EndOfficerAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListOfficersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListOfficersAnswer(_message.Message):
    __slots__ = ("officers",)
    OFFICERS_FIELD_NUMBER: _ClassVar[int]
    officers: _containers.RepeatedCompositeFieldContainer[ListedOfficer]
    def __init__(self, officers: _Optional[_Iterable[_Union[ListedOfficer, _Mapping]]] = ...) -> None: ...

class ListedOfficer(_message.Message):
    __slots__ = ("officer_id", "role", "state", "added", "actions_last_hour")
    OFFICER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_LAST_HOUR_FIELD_NUMBER: _ClassVar[int]
    officer_id: str
    role: str
    state: str
    added: int
    actions_last_hour: int
    def __init__(self, officer_id: _Optional[str] = ..., role: _Optional[str] = ..., state: _Optional[str] = ..., added: _Optional[int] = ..., actions_last_hour: _Optional[int] = ...) -> None: ...

class VerifyDocumentRequest(_message.Message):
    __slots__ = ("csv",)
    CSV_FIELD_NUMBER: _ClassVar[int]
    csv: str
    def __init__(self, csv: _Optional[str] = ...) -> None: ...

class VerifyDocumentAnswer(_message.Message):
    __slots__ = ("kind", "sha256", "made")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    MADE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    sha256: bytes
    made: int
    def __init__(self, kind: _Optional[str] = ..., sha256: _Optional[bytes] = ..., made: _Optional[int] = ...) -> None: ...

class ChangePhoneRequest(_message.Message):
    __slots__ = ("nif", "phone")
    NIF_FIELD_NUMBER: _ClassVar[int]
    PHONE_FIELD_NUMBER: _ClassVar[int]
    nif: str
    phone: str
    def __init__(self, nif: _Optional[str] = ..., phone: _Optional[str] = ...) -> None: ...

class ChangePhoneAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnlockRequest(_message.Message):
    __slots__ = ("nif",)
    NIF_FIELD_NUMBER: _ClassVar[int]
    nif: str
    def __init__(self, nif: _Optional[str] = ...) -> None: ...

class UnlockAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RegisterClientRequest(_message.Message):
    __slots__ = ("client_id", "name", "public_key", "rights", "return_urls", "certificate_chain")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    RETURN_URLS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    name: str
    public_key: bytes
    rights: _containers.RepeatedScalarFieldContainer[str]
    return_urls: _containers.RepeatedScalarFieldContainer[str]
    certificate_chain: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, client_id: _Optional[str] = ..., name: _Optional[str] = ..., public_key: _Optional[bytes] = ..., rights: _Optional[_Iterable[str]] = ..., return_urls: _Optional[_Iterable[str]] = ..., certificate_chain: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RegisterClientAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetClientStateRequest(_message.Message):
    __slots__ = ("client_id", "state")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    state: str
    def __init__(self, client_id: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class SetClientStateAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListClientsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListClientsAnswer(_message.Message):
    __slots__ = ("clients",)
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[ListedClient]
    def __init__(self, clients: _Optional[_Iterable[_Union[ListedClient, _Mapping]]] = ...) -> None: ...

class ListedClient(_message.Message):
    __slots__ = ("client_id", "name", "state", "proof", "rights")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    name: str
    state: str
    proof: str
    rights: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, client_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., proof: _Optional[str] = ..., rights: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenKeyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TokenKeyAnswer(_message.Message):
    __slots__ = ("public_key",)
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    def __init__(self, public_key: _Optional[bytes] = ...) -> None: ...
