"""Encrypted columns: personal data never lies in the clear in the core's database.

A value is sealed by AES-256-GCM under a data key that the HSM sealed (K_col) and the core holds in memory; table,
column and row are associated data, so that a value moved to another place does not open.

Sealed value: number of the data key (u32) ‖ nonce (12) ‖ ciphertext ‖ tag (16), raw concatenation.
"""

import secrets
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncEngine

from authn.tables import metadata
from domain import canonical
from domain.ids import Randomness
from hsm.keys import SealingKey
from hsm.vault import Vault

KEY_SIZE_BYTES = 32
KEY_NUMBER_SIZE_BYTES = 4
NONCE_SIZE_BYTES = 12
FIRST_KEY = 1

data_key = sa.Table(
    "data_key",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.Integer, nullable=False, comment="of K_col, by which it is sealed"),
)


class ColumnCipher:
    """AES-256-GCM with a data key that the HSM wraps (K_col) and the core holds in memory."""

    def __init__(self, keys: Mapping[int, bytes], randomness: Randomness = secrets.token_bytes) -> None:
        self._ciphers = {number: AESGCM(key) for number, key in keys.items()}
        self._newest = max(keys)
        self._randomness = randomness

    def __repr__(self) -> str:
        return f"ColumnCipher(data_keys={sorted(self._ciphers)})"

    @classmethod
    async def load(
        cls, engine: AsyncEngine, vault: Vault, randomness: Randomness = secrets.token_bytes
    ) -> "ColumnCipher":
        """Open the data keys; make, seal and store the first one where there is none.

        Two cores that start at once on an empty table both offer a first key under the same number: the database takes
        one of them, and both go on with that one.

        Raises:
            HSMError: The vault does not answer, or a stored key was changed.
        """
        rows = await _stored(engine)
        if not rows:
            # The HSM is asked before the transaction begins, never inside.
            version = vault.current_version(SealingKey.COLUMNS)
            sealed = await vault.seal(await vault.random(KEY_SIZE_BYTES), _key_context(FIRST_KEY))
            try:
                async with engine.begin() as connection:
                    await connection.execute(sa.insert(data_key).values(id=FIRST_KEY, sealed=sealed, version=version))
            except sa.exc.IntegrityError:
                pass  # Another core was faster; its key is read below.
            rows = await _stored(engine)
        keys = {row.id: await vault.open(row.sealed, _key_context(row.id), version=row.version) for row in rows}
        return cls(keys, randomness)

    def seal(self, plaintext: str, *context: str) -> bytes:
        """Encrypt a value for one place; ``context`` (table, column, row id) is associated data."""
        nonce = self._randomness(NONCE_SIZE_BYTES)
        number = self._newest
        ciphertext = self._ciphers[number].encrypt(nonce, plaintext.encode(), _value_context(number, context))
        return number.to_bytes(KEY_NUMBER_SIZE_BYTES, "big") + nonce + ciphertext

    def open(self, sealed: bytes, *context: str) -> str:
        """Undo ``seal``; ``cryptography.exceptions.InvalidTag`` if the value was changed or moved."""
        number = int.from_bytes(sealed[:KEY_NUMBER_SIZE_BYTES], "big")
        cipher = self._ciphers.get(number)
        start = KEY_NUMBER_SIZE_BYTES + NONCE_SIZE_BYTES
        if cipher is None or len(sealed) < start:
            raise InvalidTag
        nonce = sealed[KEY_NUMBER_SIZE_BYTES:start]
        return cipher.decrypt(nonce, sealed[start:], _value_context(number, context)).decode()

    def guard(self, *facts: str) -> bytes:
        """Authenticate what a row says in the clear (state, rights, counters): a tag that only a core can make."""
        return self.seal("", "guard", *facts)

    def check(self, guard: bytes, *facts: str) -> None:
        """Undo ``guard``; ``cryptography.exceptions.InvalidTag`` if the row was edited behind the core's back."""
        self.open(guard, "guard", *facts)


async def _stored(engine: AsyncEngine) -> list[sa.Row[Any, Any, Any]]:
    async with engine.connect() as connection:
        found = await connection.execute(sa.select(data_key.c.id, data_key.c.sealed, data_key.c.version))
        return list(found.all())


def _key_context(number: int) -> bytes:
    return canonical.encode("data_key", number)


def _value_context(number: int, context: tuple[str, ...]) -> bytes:
    return canonical.encode(number, context)
