"""Fresh key pairs for approvals that may need a certificate: P-256 on the spot, RSA from a small stock.

An RSA key takes the HSM a third of a second, at times more than one; nobody should wait for that after typing a
password. The stock holds wrapped keys only, in memory, and is kept full once RSA has been asked for.
"""

import asyncio
from collections import deque

from domain.algorithms import KeyType
from domain.errors import Busy
from hsm.keys import KeyPair, WrappingKey
from hsm.vault import Vault

STOCK = 3
MOST_WAITING = 4


class NewbornKeys:
    """Gives each key pair to one approval."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._stock: deque[tuple[int, KeyPair]] = deque()
        self._wanted = False
        self._one_by_one = asyncio.Lock()
        self._waiting = 0

    async def take(self, key_type: KeyType) -> tuple[int, KeyPair]:
        """A key pair nobody else has, and the version of the key that wraps it.

        Raises:
            Busy: The stock is empty and others wait already.
        """
        if key_type is KeyType.P256:
            return await self._make(key_type)
        self._wanted = True
        if not self._stock and self._waiting >= MOST_WAITING:
            raise Busy("many people are asking for a certificate at this moment; try again", retry_after_seconds=3)
        self._waiting += 1
        try:
            # One at a time, or strangers who ask for RSA would keep every worker of the HSM.
            async with self._one_by_one:
                while self._stock:
                    version, pair = self._stock.popleft()
                    if version == self._vault.current_version(WrappingKey.CITIZEN):
                        return version, pair
                return await self._make(key_type)
        finally:
            self._waiting -= 1

    async def refill(self) -> None:
        """Make one more for the stock, if it is wanted and not full."""
        if self._wanted and len(self._stock) < STOCK:
            async with self._one_by_one:
                self._stock.append(await self._make(KeyType.RSA3072))

    async def _make(self, key_type: KeyType) -> tuple[int, KeyPair]:
        version = self._vault.current_version(WrappingKey.CITIZEN)
        return version, await self._vault.generate(WrappingKey.CITIZEN, key_type)
