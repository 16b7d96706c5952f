"""How far the log is final: below that position nothing can appear any more."""

import asyncio

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.log import log_pending
from domain.errors import LogUnavailable

SETTLE_SECONDS = 5.0
SETTLE_PAUSE_SECONDS = 0.01


async def final_position(connection: AsyncConnection) -> int:
    """The highest position below which nothing can appear any more; 0 in an empty log.

    SQLite gives positions under its one write lock, so they are committed in order. PostgreSQL draws them from a
    sequence: a lower one may be committed after a higher one. Whoever drew a position holds a lock on the table from
    before until the end, so all who hold one now are waited for; nobody is kept from writing.

    Raises:
        LogUnavailable: A writer does not come to an end.
    """
    newest = await connection.scalar(sa.select(sa.func.max(log_pending.c.position)))
    if connection.dialect.name == "postgresql":
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                writing = await _writers(connection)
                while writing:
                    await asyncio.sleep(SETTLE_PAUSE_SECONDS)
                    writing &= await _writers(connection)
        except TimeoutError:
            raise LogUnavailable("the log is being written; try again", retry_after_seconds=2) from None
    return newest or 0


async def _writers(connection: AsyncConnection) -> set[str]:
    found = await connection.execute(
        sa.text(
            "SELECT virtualtransaction FROM pg_locks "
            "WHERE locktype = 'relation' AND relation = 'log_pending'::regclass "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND mode = 'RowExclusiveLock' AND granted"
        )
    )
    return set(found.scalars())
