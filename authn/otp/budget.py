"""How many codes a citizen may be sent and may get wrong, counted on the challenges themselves.

A try counts as wrong from the commit that reserves it, until its challenge is consumed: nothing has to be counted after
a test, so nothing is forgotten by a crash, and a challenge that is abandoned after two tries counts two.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from authn.otp.challenges import OTP_LIFE, OTP_TRIES, ChallengeState, OTPPurpose, otp_challenge
from authn.registration.citizens import citizen
from domain.clock import Clock
from domain.ids import CitizenId

WRONG_IN_A_ROW = 15
"""Tries without a right one between; then codes are blocked."""

PIN_LIFE_MINUTES = 10
PIN_LIFE = timedelta(minutes=PIN_LIFE_MINUTES)


@dataclass(frozen=True, slots=True)
class CodeRule:
    """Limits of one family of codes."""

    purposes: Collection[OTPPurpose]
    life: timedelta
    block: timedelta
    """How long codes are blocked after too many wrong ones, counted from the end of the last challenge."""
    messages: Collection[tuple[timedelta, int]]
    """At most so many messages to one citizen in so much time."""


SMS_MESSAGES = ((timedelta(minutes=15), 3), (timedelta(hours=1), 5), (timedelta(days=1), 10))
"""Default for codes that approve, activate or change."""


def rules(messages: Collection[tuple[timedelta, int]] = SMS_MESSAGES) -> Mapping[OTPPurpose, CodeRule]:
    """The rule of each purpose: approvals, activation and password change share one, for one phone gets them all."""
    shared = CodeRule(
        (OTPPurpose.SIGN, OTPPurpose.ACTIVATION, OTPPurpose.PASSWORD_CHANGE), OTP_LIFE, timedelta(hours=24), messages
    )
    pin = CodeRule(
        (OTPPurpose.PIN,),
        PIN_LIFE,
        timedelta(hours=1),
        ((timedelta(minutes=15), 3), (timedelta(days=1), 10)),
    )
    return {**dict.fromkeys(shared.purposes, shared), OTPPurpose.PIN: pin}


class CodeBudget:
    """Decides whether one more code may be sent."""

    def __init__(self, clock: Clock, rules: Mapping[OTPPurpose, CodeRule]) -> None:
        self._clock = clock
        self._rules = rules

    async def refusal(
        self, connection: AsyncConnection, citizen_id: CitizenId | None, purpose: OTPPurpose
    ) -> str | None:
        """Why no code may be sent, as a word for the log; ``None`` if one may.

        Asked in the transaction that stores the challenge, with the citizen's row locked, so that of two who ask at
        once the second sees the first. For nobody (``None``) the same is read, and found empty.
        """
        rule, now, wanted = self._rules[purpose], self._clock.now(), citizen_id or ""
        # The lock matters on PostgreSQL; SQLite took its own when the transaction began.
        await connection.execute(sa.select(citizen.c.id).where(citizen.c.id == wanted).with_for_update())
        longest = max((span for span, _ in rule.messages), default=timedelta(0))
        found = await connection.execute(
            sa.select(otp_challenge.c.expires, otp_challenge.c.left, otp_challenge.c.state)
            .where(
                otp_challenge.c.citizen_id == wanted,
                otp_challenge.c.purpose.in_([each.value for each in rule.purposes]),
                otp_challenge.c.real,
                otp_challenge.c.expires > now - max(longest, rule.block),
            )
            # Of two that end together the wrong one counts.
            .order_by(otp_challenge.c.expires.desc(), otp_challenge.c.state == ChallengeState.CONSUMED.value)
        )
        sent = found.all()
        for span, limit in rule.messages:
            if sum(row.expires > now + rule.life - span for row in sent) >= limit:
                return "messages"
        wrong = 0
        for row in sent:
            if row.state == ChallengeState.CONSUMED.value:
                break
            wrong += OTP_TRIES - row.left
        tried = [row for row in sent if row.left < OTP_TRIES]
        if wrong >= WRONG_IN_A_ROW and now < tried[0].expires + rule.block:
            return "blocked"
        return None
