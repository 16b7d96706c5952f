from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Digest(_message.Message):
    __slots__ = ("algorithm", "value")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    value: bytes
    def __init__(self, algorithm: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Reference(_message.Message):
    __slots__ = ("uri", "type", "transforms", "digest")
    URI_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    uri: str
    type: str
    transforms: _containers.RepeatedScalarFieldContainer[str]
    digest: Digest
    def __init__(self, uri: _Optional[str] = ..., type: _Optional[str] = ..., transforms: _Optional[_Iterable[str]] = ..., digest: _Optional[_Union[Digest, _Mapping]] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("purpose", "format", "packaging", "algorithm", "digests", "title", "fields", "references")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PACKAGING_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    purpose: str
    format: str
    packaging: str
    algorithm: str
    digests: _containers.RepeatedCompositeFieldContainer[Digest]
    title: str
    fields: _containers.ScalarMap[str, str]
    references: _containers.RepeatedCompositeFieldContainer[Reference]
    def __init__(self, purpose: _Optional[str] = ..., format: _Optional[str] = ..., packaging: _Optional[str] = ..., algorithm: _Optional[str] = ..., digests: _Optional[_Iterable[_Union[Digest, _Mapping]]] = ..., title: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ..., references: _Optional[_Iterable[_Union[Reference, _Mapping]]] = ...) -> None: ...

class StageRequest(_message.Message):
    __slots__ = ("idempotency_key", "grant", "items", "pkce_challenge", "return_url", "citizen_nif", "client_nonce")
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PKCE_CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    RETURN_URL_FIELD_NUMBER: _ClassVar[int]
    CITIZEN_NIF_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NONCE_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    grant: str
    items: _containers.RepeatedCompositeFieldContainer[Item]
    pkce_challenge: bytes
    return_url: str
    citizen_nif: str
    client_nonce: str
    def __init__(self, idempotency_key: _Optional[str] = ..., grant: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., pkce_challenge: _Optional[bytes] = ..., return_url: _Optional[str] = ..., citizen_nif: _Optional[str] = ..., client_nonce: _Optional[str] = ...) -> None: ...

class StageAnswer(_message.Message):
    __slots__ = ("request_id", "expires")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    expires: int
    def __init__(self, request_id: _Optional[str] = ..., expires: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class DescribeAnswer(_message.Message):
    __slots__ = ("client_id", "client_name", "items", "expires", "citizen_named", "return_url", "approved")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    CITIZEN_NAMED_FIELD_NUMBER: _ClassVar[int]
    RETURN_URL_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    client_name: str
    items: _containers.RepeatedCompositeFieldContainer[Item]
    expires: int
    citizen_named: bool
    return_url: str
    approved: bool
    def __init__(self, client_id: _Optional[str] = ..., client_name: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., expires: _Optional[int] = ..., citizen_named: _Optional[bool] = ..., return_url: _Optional[str] = ..., approved: _Optional[bool] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ("request_id", "nif", "envelope")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NIF_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    nif: str
    envelope: Envelope
    def __init__(self, request_id: _Optional[str] = ..., nif: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

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

class BeginAnswer(_message.Message):
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

class ResendRequest(_message.Message):
    __slots__ = ("challenge_id",)
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    def __init__(self, challenge_id: _Optional[str] = ...) -> None: ...

class ResendAnswer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CompleteRequest(_message.Message):
    __slots__ = ("challenge_id", "envelope")
    CHALLENGE_ID_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    challenge_id: str
    envelope: Envelope
    def __init__(self, challenge_id: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class CompleteAnswer(_message.Message):
    __slots__ = ("redirect_url",)
    REDIRECT_URL_FIELD_NUMBER: _ClassVar[int]
    redirect_url: str
    def __init__(self, redirect_url: _Optional[str] = ...) -> None: ...

class RedeemRequest(_message.Message):
    __slots__ = ("request_id", "code", "pkce_verifier", "r")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    PKCE_VERIFIER_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    code: bytes
    pkce_verifier: bytes
    r: bytes
    def __init__(self, request_id: _Optional[str] = ..., code: _Optional[bytes] = ..., pkce_verifier: _Optional[bytes] = ..., r: _Optional[bytes] = ...) -> None: ...

class RedeemAnswer(_message.Message):
    __slots__ = ("sad", "expires")
    SAD_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    sad: bytes
    expires: int
    def __init__(self, sad: _Optional[bytes] = ..., expires: _Optional[int] = ...) -> None: ...

class SignRequest(_message.Message):
    __slots__ = ("sad", "item_numbers")
    SAD_FIELD_NUMBER: _ClassVar[int]
    ITEM_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    sad: bytes
    item_numbers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sad: _Optional[bytes] = ..., item_numbers: _Optional[_Iterable[int]] = ...) -> None: ...

class SignedItem(_message.Message):
    __slots__ = ("item_number", "state", "to_be_signed", "signature", "chain", "signed_properties")
    ITEM_NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TO_BE_SIGNED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    SIGNED_PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    item_number: int
    state: str
    to_be_signed: bytes
    signature: bytes
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    signed_properties: bytes
    def __init__(self, item_number: _Optional[int] = ..., state: _Optional[str] = ..., to_be_signed: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., chain: _Optional[_Iterable[bytes]] = ..., signed_properties: _Optional[bytes] = ...) -> None: ...

class SignAnswer(_message.Message):
    __slots__ = ("items", "result_token", "receipt")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    RESULT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[SignedItem]
    result_token: str
    receipt: str
    def __init__(self, items: _Optional[_Iterable[_Union[SignedItem, _Mapping]]] = ..., result_token: _Optional[str] = ..., receipt: _Optional[str] = ...) -> None: ...

class RequestStateRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class RequestStateAnswer(_message.Message):
    __slots__ = ("state", "item_states")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ITEM_STATES_FIELD_NUMBER: _ClassVar[int]
    state: str
    item_states: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[str] = ..., item_states: _Optional[_Iterable[str]] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("nif", "reason")
    NIF_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    nif: str
    reason: str
    def __init__(self, nif: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeAnswer(_message.Message):
    __slots__ = ("certificate_serials",)
    CERTIFICATE_SERIALS_FIELD_NUMBER: _ClassVar[int]
    certificate_serials: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, certificate_serials: _Optional[_Iterable[str]] = ...) -> None: ...
