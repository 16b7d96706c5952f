"""No log, no signature: how far the published tree may be behind what was committed."""

from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.log import log_pending
from audit.tables import log_checkpoint, log_leaf
from domain.clock import Clock
from domain.errors import LogUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class LagLimits:
    """What is too far behind."""

    age: timedelta = timedelta(seconds=60)
    """Of the oldest leaf that no checkpoint covers."""
    leaves: int = 10_000
    """That no checkpoint covers."""


class Lag:
    """Asked in the transaction that reserves a signature, before its INTENT is written."""

    def __init__(self, clock: Clock, shard: str, limits: LagLimits) -> None:
        self._clock = clock
        self._shard = shard
        self._limits = limits

    async def refuse_if_behind(self, connection: AsyncConnection) -> None:
        """Nothing, while checkpoints keep up.

        Raises:
            LogUnavailable: They do not: nothing may be signed.
        """
        # A checkpoint is stored when it has been signed and shown.
        covered = (
            sa.select(sa.func.coalesce(sa.func.max(log_checkpoint.c.size), 0))
            .where(log_checkpoint.c.shard == self._shard)
            .scalar_subquery()
        )
        last = (
            sa.select(sa.func.coalesce(sa.func.max(log_leaf.c.position), 0))
            .where(log_leaf.c.shard == self._shard, log_leaf.c.idx == covered - 1)
            .scalar_subquery()
        )
        oldest = (
            sa.select(log_pending.c.time)
            .where(log_pending.c.position > last)
            .order_by(log_pending.c.position)
            .limit(1)
            .scalar_subquery()
        )
        newest = sa.select(sa.func.coalesce(sa.func.max(log_pending.c.position), 0)).scalar_subquery()
        found = (await connection.execute(sa.select(oldest.label("oldest"), (newest - last).label("behind")))).one()
        too_old = found.oldest is not None and found.oldest + self._limits.age < self._clock.now()
        if too_old or found.behind > self._limits.leaves:
            raise LogUnavailable("the signing log is behind; nothing is signed until it has caught up")
