"""How many codes a citizen may be sent and may get wrong, counted on the challenges themselves.

A try counts as wrong from the commit that reserves it, until its challenge is consumed: nothing has to be counted after
a test, so nothing is forgotten by a crash, and a challenge that is abandoned after two tries counts two.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from authn.otp.rows import OTP_LIFE, OTP_TRIES, ChallengeState, OTPPurpose, otp_challenge
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


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Codes of one family that a citizen may not be sent or try for a while."""

    citizen_id: CitizenId
    cid: str
    """The challenge that last had a wrong try."""
    until: datetime


SMS_MESSAGES = ((timedelta(minutes=15), 3), (timedelta(hours=1), 5), (timedelta(days=1), 10))
"""Default for codes that approve, activate or change."""


def rules(
    messages: Collection[tuple[timedelta, int]] = SMS_MESSAGES, life: timedelta = OTP_LIFE
) -> Mapping[OTPPurpose, CodeRule]:
    """The rule of each purpose: approvals, activation and password change share one, for one phone gets them all."""
    shared = CodeRule(
        (OTPPurpose.SIGN, OTPPurpose.ACTIVATION, OTPPurpose.PASSWORD_CHANGE), life, timedelta(hours=24), messages
    )
    pin = CodeRule(
        (OTPPurpose.PIN,),
        PIN_LIFE,
        timedelta(hours=1),
        ((timedelta(minutes=15), 3), (timedelta(days=1), 10)),
    )
    return {**dict.fromkeys(shared.purposes, shared), OTPPurpose.PIN: pin}


class CodeBudget:
    """Decides whether one more code may be sent, and one more tried.

    Asked in the transaction that stores the challenge or reserves the try. It locks the citizen's row first, so that
    of two who ask at once the second sees the first. For nobody (``None``) the same is read, and found empty.
    """

    def __init__(self, clock: Clock, rules: Mapping[OTPPurpose, CodeRule]) -> None:
        self._clock = clock
        self._rules = rules

    def life(self, purpose: OTPPurpose) -> timedelta:
        """How long a code is good."""
        return self._rules[purpose].life

    async def refusal(
        self, connection: AsyncConnection, citizen_id: CitizenId | None, purpose: OTPPurpose
    ) -> str | None:
        """Why no code may be sent, as a word for the log; ``None`` if one may."""
        rule = self._rules[purpose]
        sent = await self._sent(connection, citizen_id, rule)
        for span, limit in rule.messages:
            if sum(row.expires > self._clock.now() + rule.life - span for row in sent) >= limit:
                return "messages"
        return "blocked" if self._too_many_wrong(sent, rule) else None

    async def blocked(self, connection: AsyncConnection, citizen_id: CitizenId | None, purpose: OTPPurpose) -> bool:
        """Whether a code that was sent before may no longer be tried."""
        rule = self._rules[purpose]
        return self._too_many_wrong(await self._sent(connection, citizen_id, rule), rule)

    async def untold_blocks(self, connection: AsyncConnection, purpose: OTPPurpose) -> Sequence[CodeBlock]:
        """Blocks that now hold and of which the citizen was not told, and from now on counts as told."""
        rule, now = self._rules[purpose], self._clock.now()
        failing = await connection.execute(
            sa.select(otp_challenge.c.citizen_id)
            .distinct()
            .where(
                otp_challenge.c.citizen_id.is_not(None),
                otp_challenge.c.purpose.in_([each.value for each in rule.purposes]),
                otp_challenge.c.real,
                otp_challenge.c.left < OTP_TRIES,
                otp_challenge.c.expires > now - rule.block,
            )
            .order_by(otp_challenge.c.citizen_id)
        )
        blocks = []
        for citizen_id in failing.scalars().all():
            sent = await self._sent(connection, citizen_id, rule)
            # One that was told of stays the same block as long as it lasts, even where open challenges prolong it.
            told = any(row.block_told and row.expires + rule.block > now for row in sent)
            if told or not self._too_many_wrong(sent, rule):
                continue
            last = next(row for row in sent if row.left < OTP_TRIES)
            await connection.execute(
                sa.update(otp_challenge).where(otp_challenge.c.id == last.id).values(block_told=True)
            )
            blocks.append(CodeBlock(CitizenId(citizen_id), last.id, last.expires + rule.block))
        return blocks

    async def _sent(
        self, connection: AsyncConnection, citizen_id: CitizenId | None, rule: CodeRule
    ) -> Sequence[sa.Row[Any, Any, Any, Any, Any]]:
        wanted = citizen_id or ""
        # The lock matters on PostgreSQL; SQLite took its own when the transaction began.
        await connection.execute(sa.select(citizen.c.id).where(citizen.c.id == wanted).with_for_update())
        longest = max((span for span, _ in rule.messages), default=timedelta(0))
        found = await connection.execute(
            sa.select(
                otp_challenge.c.id,
                otp_challenge.c.expires,
                otp_challenge.c.left,
                otp_challenge.c.state,
                otp_challenge.c.block_told,
            )
            .where(
                otp_challenge.c.citizen_id == wanted,
                otp_challenge.c.purpose.in_([each.value for each in rule.purposes]),
                otp_challenge.c.real,
                otp_challenge.c.expires > self._clock.now() - max(longest, rule.block),
            )
            # Of two that end together the wrong one counts.
            .order_by(otp_challenge.c.expires.desc(), otp_challenge.c.state == ChallengeState.CONSUMED.value)
        )
        return found.all()

    def _too_many_wrong(self, sent: Sequence[sa.Row[Any, Any, Any, Any, Any]], rule: CodeRule) -> bool:
        wrong = 0
        for row in sent:
            if row.state == ChallengeState.CONSUMED.value:
                break
            wrong += OTP_TRIES - row.left
        tried = [row for row in sent if row.left < OTP_TRIES]
        return wrong >= WRONG_IN_A_ROW and self._clock.now() < tried[0].expires + rule.block
