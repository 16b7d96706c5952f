"""How many PINs a citizen may be sent and may fail, counted on the challenges themselves.

A challenge whose tries are all reserved and that was never consumed has failed, from the commit that reserved the last
try. So nothing has to be counted after a test, and nothing is forgotten by a crash.
"""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from authn.otp.challenges import ChallengeState, OTPPurpose, otp_challenge
from authn.registration.citizens import citizen
from domain.clock import Clock
from domain.ids import CitizenId

PIN_LIFE_MINUTES = 10
PIN_LIFE = timedelta(minutes=PIN_LIFE_MINUTES)
FAILED_PINS_IN_A_ROW = 5
PIN_BLOCK = timedelta(hours=1)
MESSAGES = ((timedelta(minutes=15), 3), (timedelta(days=1), 10))
"""At most so many messages to one citizen in so much time."""


class PINBudget:
    """Decides whether one more PIN may be sent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def refusal(self, connection: AsyncConnection, citizen_id: CitizenId | None) -> str | None:
        """Why no PIN may be sent, as a code for the log; ``None`` if one may.

        Asked in the transaction that stores the challenge, with the citizen's row locked, so that of two who ask at
        once the second sees the first. For nobody (``None``) the same is read, and found empty.
        """
        wanted = citizen_id or ""
        # The lock matters on PostgreSQL; SQLite took its own when the transaction began.
        await connection.execute(sa.select(citizen.c.id).where(citizen.c.id == wanted).with_for_update())
        now = self._clock.now()
        longest = max(span for span, _ in MESSAGES)
        found = await connection.execute(
            sa.select(otp_challenge.c.expires, otp_challenge.c.left, otp_challenge.c.state)
            .where(
                otp_challenge.c.citizen_id == wanted,
                otp_challenge.c.purpose == OTPPurpose.PIN.value,
                otp_challenge.c.real,
                otp_challenge.c.expires > now + PIN_LIFE - longest,
            )
            .order_by(otp_challenge.c.expires.desc())
        )
        sent = found.all()
        if citizen_id is None:
            return "identification"
        for span, limit in MESSAGES:
            if sum(row.expires > now + PIN_LIFE - span for row in sent) >= limit:
                return "messages"
        tested = [row for row in sent if row.left == 0 or row.state == ChallengeState.CONSUMED.value]
        last = tested[:FAILED_PINS_IN_A_ROW]
        failed = [row for row in last if row.state != ChallengeState.CONSUMED.value]
        if len(failed) == FAILED_PINS_IN_A_ROW and now < failed[0].expires + PIN_BLOCK:
            return "blocked"
        return None
