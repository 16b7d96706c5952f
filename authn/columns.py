"""Encrypted columns and blind indexes: personal data never lies in the clear in the core's database."""

from sqlalchemy.ext.asyncio import AsyncEngine

from hsm.vault import Vault


class ColumnCipher:
    """AES-256-GCM with a data key that the HSM wraps (K_col) and the core holds in memory."""

    @classmethod
    async def load(cls, engine: AsyncEngine, vault: Vault) -> "ColumnCipher":
        """Open the newest data key, or make, seal and store the first one."""
        raise NotImplementedError

    def seal(self, plaintext: str, *context: str) -> bytes:
        """Encrypt a value for one place; ``context`` (table, column, row id) is associated data."""
        raise NotImplementedError

    def open(self, sealed: bytes, *context: str) -> str:
        """Undo ``seal``; ``cryptography.exceptions.InvalidTag`` if the value was changed or moved."""
        raise NotImplementedError
