"""Tells a citizen once of each block, in the background: the attempt that blocks costs no more than any other."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Event, EventTag, Log
from authn.lockout import FOREVER
from authn.messages.outbox import Outbox
from authn.messages.texts import SMSTexts
from authn.password.factor import password_factor
from authn.registration.citizens import CitizenRegister
from domain.clock import Clock, to_epoch_seconds
from domain.ids import CitizenId

NOTICE_LIFE = timedelta(hours=24)


class BlockNotices:
    """Finds blocks that nobody was told of, logs each and sends one SMS."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        register: CitizenRegister,
        outbox: Outbox,
        texts: SMSTexts,
        log: Log,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._register = register
        self._outbox = outbox
        self._texts = texts
        self._log = log
        self._clock = clock

    async def tell(self) -> None:
        """One LOCK leaf and one SMS per block, in one commit each; decoys have no phone and are passed over."""
        now = self._clock.now()
        blocked = password_factor.c.blocked_until > now
        async with self._engine.begin() as connection:
            found = await connection.execute(
                sa.select(password_factor).where(blocked, password_factor.c.id.not_like("decoy-%")).with_for_update()
            )
            for row in found.all():
                until = row.blocked_until
                citizen = await self._register.get(connection, CitizenId(row.id))
                if citizen is None or row.block_told == until:
                    continue
                minutes = None if until == FOREVER else max(1, round((until - now).total_seconds() / 60))
                await connection.execute(
                    sa.update(password_factor)
                    .where(password_factor.c.id == row.id)
                    .values(block_told=until, version=row.version + 1)
                )
                await self._outbox.put(
                    connection,
                    message_id=f"{row.id}-block-{to_epoch_seconds(until)}",
                    phone=citizen.phone,
                    text=self._texts.blocked(minutes=minutes),
                    expires=min(until, now + NOTICE_LIFE),
                )
                facts = {"until": to_epoch_seconds(until)}
                await self._log.append(connection, Event(tag=EventTag.LOCK, pid=citizen.pid, facts=facts))
        self._outbox.wake()
