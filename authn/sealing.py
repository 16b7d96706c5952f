"""Key derivation and authenticated encryption (docs/protocol.md, "Keys and sealed values")."""

import secrets
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from domain import canonical
from domain.canonical import Part

NONCE_SIZE_BYTES = 12
TAG_SIZE_BYTES = 16
OVERHEAD_BYTES = NONCE_SIZE_BYTES + TAG_SIZE_BYTES


class Label(StrEnum):
    """One label per use, so that no key is ever good for two."""

    PASSWORD = "pw"
    KEY = "key"
    OTP = "otp"
    CODE = "code"
    SAD = "sad"
    PARKED = "parked"
    ANSWER = "answer"
    ACTIVATION = "activation"


class SealBroken(Exception):
    """An AEAD tag did not verify: wrong secret, or something that was bound has changed."""

    def __init__(self, label: Label) -> None:
        super().__init__(f"the seal '{label}' does not open")
        self.label = label


def kdf(label: Label, *parts: Part) -> bytes:
    """HKDF-SHA256 with empty salt over the encoded parts; 32 bytes (RFC 5869)."""
    hkdf = HKDF(SHA256(), 32, salt=None, info=b"rubrica/1/" + label.encode())
    return hkdf.derive(canonical.encode(*parts))


def seal(key: bytes, plaintext: bytes, *associated: Part) -> bytes:
    """AES-256-GCM: nonce ‖ ciphertext ‖ tag."""
    nonce = secrets.token_bytes(NONCE_SIZE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, canonical.encode(*associated))


def unseal(label: Label, key: bytes, sealed: bytes, *associated: Part) -> bytes:
    """Undo ``seal``.

    Args:
        label: Which use this is, named in the error.
        key: 32 bytes.
        sealed: What ``seal`` gave.
        associated: The same parts as then.

    Raises:
        SealBroken: The tag does not verify.
    """
    try:
        nonce, ciphertext = sealed[:NONCE_SIZE_BYTES], sealed[NONCE_SIZE_BYTES:]
        return AESGCM(key).decrypt(nonce, ciphertext, canonical.encode(*associated))
    except (InvalidTag, ValueError):
        raise SealBroken(label) from None


def unopenable(plaintext_size_bytes: int) -> bytes:
    """Random bytes as long as a sealed value: parked where nothing may ever open."""
    return secrets.token_bytes(plaintext_size_bytes + OVERHEAD_BYTES)
