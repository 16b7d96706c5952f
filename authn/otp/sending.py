"""A code on its way: challenge, message and leaf in one commit, the same rows whether it opens anything or not."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.log import Event, EventTag, Log
from authn.envelope import Envelope
from authn.messages.outbox import Outbox
from authn.otp.challenges import RESENDS, Begun, FreshCapsule, OTPChallenges, OTPPurpose
from authn.registration.citizens import Citizen
from domain.ids import RequestId


class CodeSender:
    """Writes what BEGIN ends with; the core itself hands the message over."""

    def __init__(self, otp: OTPChallenges, outbox: Outbox, log: Log) -> None:
        self._otp = otp
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
        factor_id: str | None = None,
        request_id: RequestId | None = None,
        resends: int = RESENDS,
    ) -> Begun:
        """Store the challenge, queue its message, log it; three rows in the caller's transaction. ``wake`` afterwards.

        Args:
            connection: The caller's transaction.
            fresh: The capsule; one that nothing opens where ``failure`` is given.
            purpose: What the code is for.
            envelope: The message that began this; its hash finds the answer again.
            citizen: ``None`` for a stranger.
            text: The SMS; written like any other, and never sent, where ``failure`` is given.
            failure: Why nothing opens, for the log; ``None`` where the code is good.
            facts: More for the log.
            factor_id: The password factor that failures count against.
            request_id: The staged request to be approved.
            resends: How often the message may be asked for again.
        """
        await self._otp.store(
            connection,
            fresh,
            purpose=purpose,
            generation=citizen.generation if citizen else 0,
            envelope_sha256=envelope.sha256(),
            citizen_id=citizen.id if citizen else None,
            factor_id=factor_id,
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
