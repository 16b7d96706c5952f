"""What crosses the wire of the gate, as JSON; bytes are base64url without padding."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from authn.client import Challenge, Envelope, OTPChallenge, SealedLogin, SealedToken
from domain.items import Item, Reference
from signer.client import Description

NONCE_LIMIT_BYTES = 64
ENC_BYTES = 65
CIPHERTEXT_LIMIT_BYTES = 1024


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("must be base64url text")  # noqa: TRY004 - pydantic turns only ValueError into a refusal
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("must be base64url text") from None


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


Base64URL = Annotated[
    bytes,
    BeforeValidator(_decoded),
    PlainSerializer(_encoded, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]*$"}),
]
OutBytes = Annotated[
    bytes,
    PlainSerializer(_encoded, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]*$"}),
]
NIF = Annotated[str, Field(min_length=1, max_length=20, repr=False, description="As typed.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class EnvelopeBody(_Body):
    """A sealed secret: HPKE base mode (RFC 9180), ``docs/protocol.md``."""

    sap_id: str = Field(min_length=1, max_length=64)
    nonce: Base64URL = Field(min_length=1, max_length=NONCE_LIMIT_BYTES)
    enc: Base64URL = Field(min_length=ENC_BYTES, max_length=ENC_BYTES, repr=False)
    ciphertext: Base64URL = Field(min_length=1, max_length=CIPHERTEXT_LIMIT_BYTES, repr=False)

    def parsed(self) -> Envelope:
        """As the clients take it."""
        return Envelope(sap_id=self.sap_id, nonce=self.nonce, enc=self.enc, ciphertext=self.ciphertext)


class BeginBody(_Body):
    """NIF and sealed password."""

    nif: NIF
    envelope: EnvelopeBody


class CompleteBody(_Body):
    """Sealed one-time code."""

    envelope: EnvelopeBody


class ActivationBeginBody(_Body):
    """NIF, e-mail and sealed activation code."""

    nif: NIF
    email: str = Field(min_length=3, max_length=254, repr=False)
    envelope: EnvelopeBody


class PinBeginBody(_Body):
    """Who asks for a login, NIF, e-mail and sealed access code."""

    nif: NIF
    email: str = Field(min_length=3, max_length=254, repr=False)
    audience: str = Field(min_length=1, max_length=64, description="Who asks for the login; stands in the token.")
    nonce: str = Field(min_length=1, max_length=128, description="The asker's for this login; stands in the token.")
    envelope: EnvelopeBody


class PinCompleteBody(_Body):
    """Sealed access code and PIN, for the same asker."""

    challenge_id: str = Field(min_length=1, max_length=64)
    audience: str = Field(min_length=1, max_length=64)
    nonce: str = Field(min_length=1, max_length=128)
    envelope: EnvelopeBody


class ChallengeBody(_Body):
    """A sealed secret for a challenge under way."""

    challenge_id: str = Field(min_length=1, max_length=64)
    envelope: EnvelopeBody


class ChallengeView(BaseModel):
    """For sealing one secret."""

    nonce: OutBytes
    expires: datetime
    sap_id: str
    sap_public_key: OutBytes = Field(description="Uncompressed P-256 point.")
    statement: str = Field(description="ES256 JWS by the core over sap_id and key; check it against a pinned key.")

    @classmethod
    def of(cls, challenge: Challenge) -> "ChallengeView":
        """From the core's."""
        return cls(
            nonce=challenge.nonce,
            expires=challenge.expires,
            sap_id=challenge.sap_id,
            sap_public_key=challenge.sap_public_key,
            statement=challenge.statement,
        )


class DigestView(BaseModel):
    """A digest with its algorithm."""

    algorithm: str
    value: OutBytes


class ReferenceView(BaseModel):
    """What an XML signature refers to."""

    uri: str
    type: str
    transforms: list[str]
    digest: DigestView

    @classmethod
    def of(cls, reference: Reference) -> "ReferenceView":
        """From the domain's."""
        digest = DigestView(algorithm=reference.digest.algorithm.value, value=reference.digest.value)
        return cls(uri=reference.uri, type=reference.type, transforms=list(reference.transforms), digest=digest)


class ItemView(BaseModel):
    """One line of the list to approve, with every part that enters its hash."""

    purpose: str
    format: str
    packaging: str
    algorithm: str
    digests: list[DigestView]
    references: list[ReferenceView] = Field(description="In place of digests, where the format is xades.")
    title: str
    fields: dict[str, str]

    @classmethod
    def of(cls, item: Item) -> "ItemView":
        """From the domain's."""
        return cls(
            purpose=item.purpose.value,
            format=item.format,
            packaging=item.packaging,
            algorithm=item.algorithm,
            digests=[DigestView(algorithm=digest.algorithm.value, value=digest.value) for digest in item.digests],
            references=[ReferenceView.of(reference) for reference in item.references],
            title=item.title,
            fields=dict(item.fields),
        )


class RequestView(BaseModel):
    """Who asks for which signatures."""

    client_id: str
    client_name: str = Field(description="From the core's register.")
    items: list[ItemView]
    expires: datetime
    citizen_named: bool

    @classmethod
    def of(cls, description: Description) -> "RequestView":
        """From the core's."""
        return cls(
            client_id=description.client_id,
            client_name=description.client_name,
            items=[ItemView.of(item) for item in description.items],
            expires=description.expires,
            citizen_named=description.citizen_named,
        )


class OTPView(BaseModel):
    """A one-time code is on its way, or so it looks."""

    challenge_id: str
    expires: datetime
    reference: str = Field(description="Letters that stand in the SMS too.")
    tries: int

    @classmethod
    def of(cls, otp: OTPChallenge) -> "OTPView":
        """From the core's."""
        return cls(challenge_id=otp.challenge_id, expires=otp.expires, reference=otp.reference, tries=otp.tries)


class TokenView(BaseModel):
    """The token for the next step, sealed to the page's secret."""

    sealed_token: OutBytes
    expires: datetime

    @classmethod
    def of(cls, token: SealedToken) -> "TokenView":
        """From the core's."""
        return cls(sealed_token=token.sealed_token, expires=token.expires)


class LoginView(BaseModel):
    """The identity token, sealed to the page's secret."""

    sealed_token: OutBytes
    expires: datetime
    return_url: str = Field(description="Where the browser takes the token; fixed in the core's settings.")

    @classmethod
    def of(cls, login: SealedLogin) -> "LoginView":
        """From the core's."""
        return cls(sealed_token=login.sealed_token, expires=login.expires, return_url=login.return_url)


class RedirectView(BaseModel):
    """Where the browser goes on."""

    redirect_url: str


class Done(BaseModel):
    """It happened."""

    status: str = "ok"
