"""Messages on their way out: written in the transaction that needs them, handed over by a task that survives a crash."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncConnection

from authn.columns import ColumnCipher
from domain.clock import Clock


class MessageState(StrEnum):
    """Life of a message; only ``WAITING`` ones have a body."""

    WAITING = "WAITING"
    HANDED_OVER = "HANDED_OVER"
    EXPIRED = "EXPIRED"
    VOID = "VOID"
    """Never to be sent: written so that a wrong password costs the same rows as the right one."""


class Outbox:
    """Queues SMS; the body lies encrypted until it is handed over or expires, then it is erased."""

    def __init__(self, columns: ColumnCipher, clock: Clock) -> None:
        raise NotImplementedError

    async def put(
        self,
        connection: AsyncConnection,
        *,
        message_id: str,
        phone: str,
        text: str,
        expires: datetime,
        void: bool = False,
    ) -> None:
        """Queue one SMS in the caller's transaction; one row, of the same shape when ``void``."""
        raise NotImplementedError

    async def send_again(self, connection: AsyncConnection, message_id: str) -> bool:
        """Queue the stored message once more (same id: a gateway that keeps ids sends no twin); False if erased."""
        raise NotImplementedError
