"""A code on its way: challenge, message and leaf in one commit, the same rows whether it opens anything or not."""

import secrets
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.log import Event, EventTag, Log
from authn.envelope import Envelope
from authn.messages.outbox import Outbox
from authn.otp.budget import CodeBudget
from authn.otp.challenges import Begun, FreshCapsule, OTPChallenges
from authn.otp.rows import RESENDS, OTPPurpose
from authn.registration.citizens import Citizen
from domain.ids import RequestId


class CodeSender:
    """Writes what BEGIN ends with; the core itself hands the message over."""

    def __init__(self, otp: OTPChallenges, budget: CodeBudget, outbox: Outbox, log: Log) -> None:
        self._otp = otp
        self._budget = budget
        self._outbox = outbox
        self._log = log

    async def send(
        self,
        connection: AsyncConnection,
        fresh: FreshCapsule,
        *,
        purpose: OTPPurpose,
        envelope: Envelope,
        citizen: Citizen | None,
        text: str,
        failure: Mapping[str, str | int] | None,
        facts: Mapping[str, str | int] | None = None,
        request_id: RequestId | None = None,
        resends: int = RESENDS,
    ) -> Begun:
        """Store the challenge, queue its message, log it; three rows in the caller's transaction. ``wake`` afterwards.

        Over budget nothing is sent and nothing opens, and the answer is the same.

        Args:
            connection: The caller's transaction.
            fresh: The capsule; one that nothing opens where ``failure`` is given.
            purpose: What the code is for.
            envelope: The message that began this; its hash finds the answer again.
            citizen: ``None`` for a stranger.
            text: The SMS; written like any other, and never sent, where ``failure`` is given.
            failure: Why nothing opens, for the log; ``None`` where the code is good.
            facts: More for the log.
            request_id: The staged request to be approved.
            resends: How often the message may be asked for again.
        """
        refusal = await self._budget.refusal(connection, citizen.id if citizen else None, purpose)
        if failure is None and refusal is not None:
            fresh, failure = replace(fresh, capsule=secrets.token_bytes(len(fresh.capsule))), {"reason": refusal}
        await self._otp.store(
            connection,
            fresh,
            purpose=purpose,
            generation=citizen.generation if citizen else 0,
            envelope_sha256=envelope.sha256(),
            citizen_id=citizen.id if citizen else None,
            real=failure is None,
            request_id=request_id,
            resends=resends,
        )
        await self._outbox.put(
            connection,
            message_id=fresh.cid,
            phone=citizen.phone if citizen else "",
            text=text,
            expires=fresh.expires,
            repeatable=resends > 0,
            void=failure is not None,
        )
        event = Event(
            tag=EventTag.OTP_SENT if failure is None else EventTag.AUTH_FAIL,
            pid=citizen.pid if citizen else None,
            facts={"purpose": purpose.value, "cid": fresh.cid, **(facts or {}), **(failure or {})},
        )
        await self._log.append(connection, event)
        return Begun(fresh.cid, fresh.expires, fresh.reference)

    def wake(self) -> None:
        """The commit is done: hand over now rather than at the next look."""
        self._outbox.wake()
