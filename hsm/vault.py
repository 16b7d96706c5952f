"""What the core may ask of its token, each a single call to one worker of the pool."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

from domain.algorithms import KeyType
from domain.canonical import Part
from hsm.keys import KeyPair, MACKey, SigningKey, TokenKey, WrappingKey


class Priority(IntEnum):
    """Order in the queue: a citizen who waits goes before a batch."""

    INTERACTIVE = 0
    BATCH = 1


class Vault(Protocol):
    """Operations with keys that never leave the token. Every method may raise ``HSMError`` (see ``hsm.errors``).

    ``version`` is the key's; ``None`` means the newest, and ``current_version`` tells which that is, to be stored
    beside every value made with it.
    """

    def current_version(self, key: TokenKey) -> int:
        """The newest version of ``key`` on the token."""
        ...

    async def mac(self, key: MACKey, *parts: Part, version: int | None = None) -> bytes:
        """H(k, a, b, …): HMAC-SHA256 over the canonical encoding of ``parts``; 32 bytes."""
        ...

    async def random(self, size_bytes: int) -> bytes:
        """Random bytes from the token."""
        ...

    async def generate(self, kek: WrappingKey, key_type: KeyType) -> KeyPair:
        """Make a key pair, wrap the private half under the newest ``kek``, destroy it, all in one call."""
        ...

    async def sign(
        self,
        wrapped: bytes,
        spki: bytes,
        digests: Sequence[bytes],
        *,
        kek_version: int,
        priority: Priority = Priority.INTERACTIVE,
        deadline_seconds: float = 10.0,
    ) -> list[bytes]:
        """Unwrap a citizen's key, sign each SHA-256 digest, destroy the key, verify every signature.

        Returns:
            ECDSA as DER (RFC 3279), RSA as PKCS#1 v1.5 over DigestInfo; the key type is read from ``spki``.
        """
        ...

    async def sign_with(self, key: SigningKey, digest: bytes) -> bytes:
        """ECDSA (DER) of a SHA-256 digest by a key of the token, verified."""
        ...

    async def public_key(self, key: SigningKey) -> bytes:
        """SubjectPublicKeyInfo (DER) of a key of the token."""
        ...

    async def agree(self, wrapped: bytes, peer_point: bytes, *, kek_version: int) -> bytes:
        """ECDH on P-256 with a wrapped SAP key; 32 bytes.

        Raises:
            ValueError: ``peer_point`` is not an uncompressed point of the curve (checked before the HSM sees it).
        """
        ...

    async def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """AES-256-GCM inside the HSM under the newest ``K_col``: nonce (12) ‖ ciphertext ‖ tag (16)."""
        ...

    async def open(self, sealed: bytes, associated_data: bytes, *, version: int) -> bytes:
        """Undo ``seal``; ``HSMRefused`` if anything was changed."""
        ...
