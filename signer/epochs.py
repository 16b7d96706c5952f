"""Each core process has an epoch, held by a lease; what a dead one had reserved goes back, its late work is void."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from domain.clock import Clock
from signer import tables
from signer.approvals import Approvals, Authorisation, ItemState

LEASE = timedelta(seconds=15)

log = structlog.get_logger()


class Epochs:
    """This core's epoch, and the fencing of others' whose lease ran out."""

    def __init__(self, engine: AsyncEngine, clock: Clock, approvals: Approvals, log: Log, instance: str) -> None:
        self._engine = engine
        self._clock = clock
        self._approvals = approvals
        self._log = log
        self._instance = instance
        self.current = 0

    async def open(self) -> None:
        """Begin a new epoch. Older ones of this instance are dead: its file lock is ours (see ``rubrica.core``)."""
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(tables.core_epoch)
                .where(tables.core_epoch.c.instance == self._instance)
                .values(lease_until=self._clock.now() - LEASE)
            )
            opened = await self._add(connection)
        self.current = opened
        await self.fence_dead()

    async def renew(self) -> None:
        """Prolong the lease; call it every few seconds.

        Where another core fenced this epoch, because this process was held up for longer than its lease or a namesake
        on another host began, a new one is opened: what the old one had reserved was given back by who fenced it.
        """
        async with self._engine.begin() as connection:
            renewed = await connection.execute(
                sa.update(tables.core_epoch)
                .where(tables.core_epoch.c.epoch == self.current, tables.core_epoch.c.fenced.is_(False))
                .values(lease_until=self._clock.now() + LEASE)
            )
            opened = self.current if renewed.rowcount else await self._add(connection)
        if opened != self.current:
            log.warning("epoch_was_fenced", epoch=self.current, opened=opened)
        self.current = opened

    async def is_live(self, connection: AsyncConnection, epoch: int) -> bool:
        """Whether nobody has fenced ``epoch``; asked in the transaction that releases a signature."""
        found = await connection.execute(
            sa.select(tables.core_epoch.c.fenced).where(tables.core_epoch.c.epoch == epoch).with_for_update(read=True)
        )
        return found.scalar_one_or_none() is False

    async def fence_dead(self) -> int:
        """Fence epochs without a lease and give back what they had reserved; their INTENTs end as ABORTED.

        Returns:
            How many reservations were given back.
        """
        async with self._engine.begin() as connection:
            fenced = await connection.execute(
                sa.update(tables.core_epoch)
                .where(tables.core_epoch.c.lease_until < self._clock.now(), tables.core_epoch.c.fenced.is_(False))
                .values(fenced=True)
                .returning(tables.core_epoch.c.epoch)
            )
            dead = list(fenced.scalars())
            if not dead:
                return 0
            left = await self._approvals.reserved_by(connection, dead)
            await self._give_back(connection, left, "crash")
            return len(left)

    async def give_back_own(self, rows: Iterable[Authorisation]) -> int:
        """Give back those of ``rows`` that a call of this very core reserved and left behind; their INTENTs end too.

        Args:
            rows: Of one approval, whose other calls the caller keeps out.

        Returns:
            How many were given back.
        """
        ended = (ItemState.RESERVED, ItemState.DEAD)
        left = [row for row in rows if row.state in ended and row.epoch == self.current]
        if left:
            async with self._engine.begin() as connection:
                await self._give_back(connection, left, "interrupted")
        return len(left)

    async def _add(self, connection: AsyncConnection) -> int:
        added = await connection.execute(
            sa.insert(tables.core_epoch)
            .values(instance=self._instance, lease_until=self._clock.now() + LEASE, fenced=False)
            .returning(tables.core_epoch.c.epoch)
        )
        epoch = int(added.scalar_one())
        await self._log.append(connection, Event(tag=EventTag.START, facts={"epoch": epoch}))
        return epoch

    async def _give_back(self, connection: AsyncConnection, left: Sequence[Authorisation], reason: str) -> None:
        events = [
            Event(
                tag=EventTag.ABORTED,
                facts={"cid": row.cid, "item": row.item, "intent": row.intent_id, "reason": reason},
            )
            for row in left
            if await self._approvals.give_back(connection, row.cid, row.item, epoch=row.epoch or 0, attempt=row.attempt)
        ]
        if events:
            await self._log.append(connection, *events)

    async def close(self) -> None:
        """End this epoch in good order."""
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(tables.core_epoch)
                .where(tables.core_epoch.c.epoch == self.current)
                .values(lease_until=self._clock.now() - LEASE)
            )
            await self._log.append(connection, Event(tag=EventTag.STOP, facts={"epoch": self.current}))
