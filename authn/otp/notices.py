"""Tells a citizen once of each block of codes, in the background: the try that blocks costs no more than any other."""

from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Event, EventTag, Log
from authn.messages.outbox import Outbox
from authn.messages.texts import SMSTexts
from authn.otp.budget import CodeBudget
from authn.otp.rows import OTPPurpose
from authn.registration.citizens import CitizenRegister
from domain.clock import Clock, to_epoch_seconds


class CodeBlockNotices:
    """Finds blocks that nobody was told of, logs each and sends one SMS."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        register: CitizenRegister,
        budget: CodeBudget,
        outbox: Outbox,
        texts: SMSTexts,
        log: Log,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._register = register
        self._budget = budget
        self._outbox = outbox
        self._texts = texts
        self._log = log
        self._clock = clock

    async def tell(self) -> None:
        """One LOCK leaf and one SMS per block, all in one commit."""
        # SIGN stands for every code that approves, activates or changes: they share one rule.
        notices = {OTPPurpose.SIGN: self._texts.blocked, OTPPurpose.PIN: self._texts.pin_blocked}
        now = self._clock.now()
        async with self._engine.begin() as connection:
            for purpose, text in notices.items():
                for block in await self._budget.untold_blocks(connection, purpose):
                    citizen = await self._register.get(connection, block.citizen_id)
                    if citizen is None:
                        continue
                    await self._outbox.put(
                        connection,
                        message_id=f"{block.cid}-block",
                        phone=citizen.phone,
                        text=text(minutes=max(1, round((block.until - now).total_seconds() / 60))),
                        expires=block.until,
                    )
                    facts: dict[str, str | int] = {
                        "purpose": purpose.value,
                        "cid": block.cid,
                        "until": to_epoch_seconds(block.until),
                    }
                    await self._log.append(connection, Event(tag=EventTag.LOCK, pid=citizen.pid, facts=facts))
        self._outbox.wake()
