"""The vault of the core: each operation one call to a worker of the pool."""

from collections.abc import Sequence
from typing import cast

from domain.algorithms import KeyType
from domain.canonical import Part, encode
from hsm.errors import HSMRefused
from hsm.keys import KeyPair, MACKey, SigningKey, TokenKey, WrappingKey
from hsm.pool import HSMPool
from hsm.vault import Priority, Vault

# RSA-3072 takes 0.3 s as a rule and 1.5 s in one of a hundred cases.
GENERATE_SECONDS = 30.0


class TokenVault(Vault):
    """``Vault`` over a pool; see there for what each method does."""

    def __init__(self, pool: HSMPool) -> None:
        self._pool = pool

    def current_version(self, key: TokenKey) -> int:
        """The newest version of ``key`` on the token."""
        try:
            return self._pool.versions[str(key)]
        except KeyError:
            raise HSMRefused(f"the token has no key {key}") from None

    async def mac(self, key: MACKey, *parts: Part, version: int | None = None) -> bytes:
        """HMAC-SHA256 over the canonical encoding of ``parts``."""
        return cast("bytes", await self._pool.call("mac", str(key), encode(*parts), version))

    async def random(self, size_bytes: int) -> bytes:
        """Random bytes from the token."""
        return cast("bytes", await self._pool.call("random", size_bytes))

    async def generate(self, kek: WrappingKey, key_type: KeyType) -> KeyPair:
        """Make a key pair and wrap it."""
        answer = await self._pool.call("generate", str(kek), str(key_type), deadline_seconds=GENERATE_SECONDS)
        wrapped, spki = answer
        return KeyPair(wrapped=wrapped, spki=spki)

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
        """Unwrap, sign each digest, destroy, verify."""
        arguments = (wrapped, spki, list(digests), kek_version)
        answer = await self._pool.call("sign", *arguments, priority=priority, deadline_seconds=deadline_seconds)
        return cast("list[bytes]", answer)

    async def sign_with(self, key: SigningKey, digest: bytes) -> bytes:
        """ECDSA by a key of the token."""
        return cast("bytes", await self._pool.call("sign_with", str(key), digest))

    async def public_key(self, key: SigningKey) -> bytes:
        """SubjectPublicKeyInfo of a key of the token."""
        return cast("bytes", await self._pool.call("public_key", str(key)))

    async def agree(self, wrapped: bytes, peer_point: bytes, *, kek_version: int) -> bytes:
        """ECDH with a wrapped SAP key."""
        return cast("bytes", await self._pool.call("agree", wrapped, peer_point, kek_version))

    async def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """AES-256-GCM inside the HSM."""
        return cast("bytes", await self._pool.call("seal", plaintext, associated_data))

    async def open(self, sealed: bytes, associated_data: bytes, *, version: int) -> bytes:
        """Undo ``seal``."""
        return cast("bytes", await self._pool.call("open", sealed, associated_data, version))
