"""Revocation: the key is erased in the commit that revokes it; the issuer is told until it knows."""

import asyncio

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.otp.challenges import OTPChallenges
from authn.otp.grants import Grants
from authn.registration.citizens import CitizenRegister, normalise_nif
from authn.sessions import Sessions
from certs.issuer import Issuer, RevocationReason
from domain.errors import IssuerUnavailable, MalformedRequest, NotFound, StateConflict
from domain.ids import CitizenId
from signer.approvals import Approvals
from signer.credentials import Credential, Credentials

ATTEMPTS = 5
RETRY_SECONDS = 0.1
LOST_RACES = ("40P01", "40001")
"""PostgreSQL's deadlock_detected and serialization_failure: the transaction left nothing behind and may run again."""

log = structlog.get_logger()


class OpenWork:
    """Everything open of one citizen; ended in the commit that changes the generation (``GenerationListener``)."""

    def __init__(self, otp: OTPChallenges, grants: Grants, approvals: Approvals, sessions: Sessions) -> None:
        self._otp = otp
        self._grants = grants
        self._approvals = approvals
        self._sessions = sessions

    async def end_open_work(self, connection: AsyncConnection, citizen_id: CitizenId) -> None:
        """Kill challenges, grants, approvals and logins, and erase their capsules."""
        await self._otp.end(connection, citizen_id)
        await self._grants.end(connection, citizen_id)
        await self._approvals.end(connection, citizen_id)
        await self._sessions.end(connection, citizen_id)


class Revocation:
    """Revokes a citizen's certificates."""

    def __init__(
        self,
        engine: AsyncEngine,
        register: CitizenRegister,
        credentials: Credentials,
        open_work: OpenWork,
        issuer: Issuer,
        log: Log,
    ) -> None:
        self._engine = engine
        self._register = register
        self._credentials = credentials
        self._open_work = open_work
        self._issuer = issuer
        self._log = log

    async def revoke(self, nif: str, reason: str) -> list[str]:
        """Revoke all certificates of a citizen; after this commit nothing is signed with them.

        Returns:
            Serials, hexadecimal.

        Raises:
            MalformedRequest: No such reason.
            NotFound: No such citizen.
        """
        try:
            why = RevocationReason(reason)
        except ValueError:
            raise MalformedRequest(f"the reason must be one of {', '.join(RevocationReason)}") from None
        index = await self._register.nif_index(normalise_nif(nif))
        for left in reversed(range(ATTEMPTS)):
            try:
                ended = await self._end(index, why)
                break
            except (StateConflict, DBAPIError) as error:
                # A password or phone change of the same citizen runs at this moment: one of the two has to begin again,
                # and an operator who revokes must not be the one who is sent away.
                if left == 0 or not (isinstance(error, StateConflict) or _lost_a_race(error)):
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        await self.tell_issuer()
        return [credential.serial for credential in ended if credential.serial is not None]

    async def _end(self, index: bytes, why: RevocationReason) -> list[Credential]:
        async with self._engine.begin() as connection:
            citizen = await self._register.find(connection, index)
            if citizen is None:
                raise NotFound("there is no such citizen")
            # Credentials before approvals, as whoever signs locks them.
            ended = await self._credentials.revoke_all(connection, citizen.id, why)
            await self._register.bump_generation(connection, citizen.id)
            await self._open_work.end_open_work(connection, citizen.id)
            facts = {"reason": why.value, "certificates": len(ended)}
            await self._log.append(connection, Event(tag=EventTag.REVOKE, pid=citizen.pid, facts=facts))
        return ended

    async def tell_issuer(self) -> None:
        """Tell the issuer of every revocation that it does not know yet; what fails is told again later."""
        async with self._engine.connect() as connection:
            untold = await self._credentials.untold_revocations(connection)
        for credential_id, serial, reason in untold:
            try:
                await self._issuer.revoke(serial, reason)
            except IssuerUnavailable:
                log.warning("revocation_not_told", serial=f"{serial:x}")
                continue
            async with self._engine.begin() as connection:
                await self._credentials.mark_told(connection, credential_id)


def _lost_a_race(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in LOST_RACES
