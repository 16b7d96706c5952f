"""One job at a time for whoever asks: nobody brings others to wait behind a row of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from api.whereabouts import network_of
from domain.errors import Busy

MOST_WAITING = 32
"""Of one asker: a browser asks for the pictures of some pages at once."""


@dataclass(slots=True)
class _Row:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    people: int = 0


class Turns:
    """Rows of those who wait, one for each asker, in this process."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    @asynccontextmanager
    async def turn(self, asker: str) -> AsyncIterator[None]:
        """Wait until nothing else is done for ``asker``: a link, or a network that a request comes from.

        Raises:
            Busy: ``MOST_WAITING`` do so already.
        """
        row = self._rows.setdefault(asker, _Row())
        if row.people > MOST_WAITING:
            raise Busy("too much is asked for at once; please try again in a moment", retry_after_seconds=2)
        row.people += 1
        try:
            async with row.lock:
                yield
        finally:
            row.people -= 1
            if not row.people:
                del self._rows[asker]


def asker_of(request: Request) -> str:
    """Whoever has no link is told apart by the network."""
    return f"network {network_of(request.client.host) if request.client else ''}"
