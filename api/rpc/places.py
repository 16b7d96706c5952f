"""How many calls one caller may have under way: those without a proof by their network, then by their agency."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from api.whereabouts import network_of_peer
from domain.errors import Busy

CALLS_AT_ONCE = 1000
"""Of everybody together."""
CALLS_EACH = 100
"""Of one agency, or of one network before it has proved who it is."""


class Places:
    """Who holds how many calls; one network or agency must not take the places of all."""

    def __init__(self) -> None:
        self._holders: dict[grpc.aio.ServicerContext, str] = {}
        self._held: Counter[str] = Counter()

    @contextmanager
    def place(self, context: "grpc.aio.ServicerContext") -> Iterator[None]:
        """One call, from before its first message to its end.

        Raises:
            Busy: Its network has too many without a proof.
        """
        self._hold(context, f"network {network_of_peer(context.peer())}")
        try:
            yield
        finally:
            self._leave(context)

    def proved(self, context: "grpc.aio.ServicerContext", client_id: str) -> None:
        """The call is that of an agency, and counts as such from now on.

        Raises:
            Busy: It has too many.
        """
        self._leave(context)
        self._hold(context, f"client {client_id}")

    def _hold(self, context: "grpc.aio.ServicerContext", holder: str) -> None:
        if self._held[holder] >= CALLS_EACH:
            raise Busy("too many calls at once; wait for some to end", retry_after_seconds=2)
        self._held[holder] += 1
        self._holders[context] = holder

    def _leave(self, context: "grpc.aio.ServicerContext") -> None:
        holder = self._holders.pop(context, None)
        if holder is None:
            return
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]
