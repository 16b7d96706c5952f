"""What a browser or client seals and only the core opens: HPKE base mode (RFC 9180).

DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. The Diffie-Hellman step happens in the HSM; the key schedule here.
One message per context and no AAD: everything that binds stands in ``info``.
"""

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from domain import canonical
from domain.errors import MalformedRequest

POINT_SIZE_BYTES = 65
HASH_SIZE_BYTES = 32
KEM_SUITE = b"KEM" + (0x0010).to_bytes(2, "big")  # RFC 9180 §7.1: DHKEM(P-256, HKDF-SHA256)
HPKE_SUITE = b"HPKE" + b"".join(code.to_bytes(2, "big") for code in (0x0010, 0x0001, 0x0002))
MODE_BASE = b"\x00"


class EnvelopePurpose(StrEnum):
    """What the sealed secret is for (docs/protocol.md, "Envelope")."""

    SIGN_BEGIN = "sign-begin"
    SIGN_COMPLETE = "sign-complete"
    ACTIVATION_BEGIN = "activation-begin"
    ACTIVATION_COMPLETE = "activation-complete"
    ACTIVATION_SET = "activation-set"
    PASSWORD_CHANGE_BEGIN = "password-change-begin"
    PASSWORD_CHANGE_COMPLETE = "password-change-complete"
    PASSWORD_CHANGE_SET = "password-change-set"
    PIN_BEGIN = "pin-begin"
    PIN_COMPLETE = "pin-complete"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A sealed message as it travels."""

    sap_id: str
    nonce: bytes
    enc: bytes
    """The sender's ephemeral point, uncompressed, 65 bytes."""
    ciphertext: bytes

    def sha256(self) -> bytes:
        """Names this very envelope; of an envelope only its hash is ever stored."""
        return canonical.sha256(self.sap_id, self.nonce, self.enc, self.ciphertext)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeContext:
    """What a message is bound to; absent parts stay ``None``."""

    purpose: EnvelopePurpose
    subject: str | None = None
    list_sha256: bytes | None = None
    client_id: str | None = None
    channel: str = "sms"
    challenge_id: str | None = None

    def info(self, sap_id: str, nonce: bytes) -> bytes:
        """HPKE's ``info`` for a message sealed to ``sap_id`` under ``nonce``."""
        return canonical.encode(
            "rubrica/1",
            sap_id,
            nonce,
            self.purpose.value,
            self.subject,
            self.list_sha256,
            self.client_id,
            self.channel,
            self.challenge_id,
        )


@dataclass(frozen=True, slots=True, repr=False)
class OpenedEnvelope:
    """The two parts of a plaintext; never shown."""

    secret: bytes
    """Password, one-time code, activation code or new password."""
    companion: bytes
    """The browser's secret cs; the token when a password is set."""


def key_schedule(shared_secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and base nonce of the one message (RFC 9180 §5.1, mode base)."""
    psk_id_hash = _labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", b"")
    info_hash = _labeled_extract(HPKE_SUITE, b"", b"info_hash", info)
    context = MODE_BASE + psk_id_hash + info_hash
    secret = _labeled_extract(HPKE_SUITE, shared_secret, b"secret", b"")
    key = _labeled_expand(HPKE_SUITE, secret, b"key", context, 32)
    base_nonce = _labeled_expand(HPKE_SUITE, secret, b"base_nonce", context, 12)
    return key, base_nonce


def decapsulate(dh: bytes, enc: bytes, recipient: bytes) -> bytes:
    """The KEM's shared secret from the Diffie-Hellman value that the HSM gave (RFC 9180 §4.1)."""
    eae_prk = _labeled_extract(KEM_SUITE, b"", b"eae_prk", dh)
    return _labeled_expand(KEM_SUITE, eae_prk, b"shared_secret", enc + recipient, HASH_SIZE_BYTES)


def open_message(dh: bytes, envelope: Envelope, recipient: bytes, context: EnvelopeContext) -> OpenedEnvelope:
    """Open an envelope with the Diffie-Hellman value of its ``enc`` and the SAP key.

    Args:
        dh: 32 bytes, from the HSM.
        envelope: As received.
        recipient: The SAP key's uncompressed point.
        context: What the core expects the message to be bound to.

    Raises:
        MalformedRequest: Sealed for something else, changed, or not two parts.
    """
    shared_secret = decapsulate(dh, envelope.enc, recipient)
    key, nonce = key_schedule(shared_secret, context.info(envelope.sap_id, envelope.nonce))
    try:
        plaintext = AESGCM(key).decrypt(nonce, envelope.ciphertext, b"")
        secret, companion = canonical.decode(plaintext, 2)
    except (InvalidTag, ValueError):
        raise MalformedRequest("the sealed message does not belong to this step") from None
    if not secret or not companion:
        raise MalformedRequest("the sealed message lacks a part")
    return OpenedEnvelope(secret, companion)


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.new(salt or bytes(HASH_SIZE_BYTES), b"HPKE-v1" + suite + label + ikm, hashlib.sha256).digest()


def _labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size_bytes: int) -> bytes:
    labeled = size_bytes.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(SHA256(), size_bytes, labeled).derive(prk)
