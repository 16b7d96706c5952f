"""One at a time per name, within this process; across processes the database's conditional updates decide."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NamedLocks:
    """Locks that exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: dict[bytes | str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, name: bytes | str) -> AsyncIterator[None]:
        """Enter alone for ``name``."""
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)
