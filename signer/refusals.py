"""Refusals: the true reason goes into the log, the outside reads one text with the event's id."""

from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Event, EventTag, Log
from domain.errors import ActivationError
from signer.approvals import Approval


class Refusals:
    """Writes the leaf in a commit of its own and makes the error to raise."""

    def __init__(self, engine: AsyncEngine, log: Log) -> None:
        self._engine = engine
        self._log = log

    async def refuse(
        self, kind: type[ActivationError], approval: Approval | None = None, **facts: str | int
    ) -> ActivationError:
        """Log why, and give the error whose text tells nothing but where to look.

        Args:
            kind: The true reason.
            approval: Whose, where it is known.
            facts: More for the log; no personal data.
        """
        known: dict[str, str | int] = {"reason": kind.reason, **facts}
        if approval is not None:
            known |= {"cid": approval.cid, "request": approval.request_id}
        event = Event(tag=EventTag.REFUSED, pid=approval.pid if approval else None, facts=known)
        async with self._engine.begin() as connection:
            (event_id,) = await self._log.append(connection, event)
        return kind(f"the activation was refused; approve the document again (event {event_id})")
