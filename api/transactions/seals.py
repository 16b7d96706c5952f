"""Sealing of what a stolen database of the edge must not tell: PKCE verifier, r, code, SAD, NIF, grant, link."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain import canonical
from domain.ids import Randomness

KEY_BYTES = 32
NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Sealer:
    """AES-256-GCM under a key that lies in a file, never in the database."""

    key: bytes = field(repr=False)
    randomness: Randomness = field(default=secrets.token_bytes, repr=False)

    def seal(self, label: str, row: str, plaintext: bytes) -> bytes:
        """Nonce, ciphertext and tag; bound to the column ``label`` and the ``row``, so neither can be exchanged."""
        nonce = self.randomness(NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, plaintext, canonical.encode("edge", label, row))

    def open(self, label: str, row: str, sealed: bytes) -> bytes:
        """The plaintext.

        Raises:
            cryptography.exceptions.InvalidTag: Another key, column or row, or changed.
        """
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        return AESGCM(self.key).decrypt(nonce, ciphertext, canonical.encode("edge", label, row))


def load_key(path: Path, *, create: bool) -> bytes:
    """The sealing key from its file.

    Args:
        path: 32 raw bytes, readable by the owner only.
        create: Draw one if there is no file (development).

    Raises:
        ValueError: Not 32 bytes, or others may read it.
        FileNotFoundError: No file, and none was to be made.
    """
    if create and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path} must be readable by its owner only (chmod 600)")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} must hold {KEY_BYTES} bytes")
    return key
