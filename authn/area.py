"""My area: what a citizen who logged in is shown of themselves. It is read-only, and a login of level low is enough.

Whoever asks names a login by the key that its token was exchanged for, never a citizen: whose data are told is what
the core's own row of that login says.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from authn.lockout import FOREVER
from authn.password.factor import PasswordFactors
from authn.registration.citizens import CitizenRegister
from authn.sessions import OpenSession, Sessions
from domain.assurance import LoA, RegistrationLevel
from domain.clock import Clock
from domain.errors import RequestExpired
from domain.ids import CitizenId

LAST_USES = 10
SHOWN_DIGITS = slice(3, 7)
"""Which digits of a NIF may be shown beside a name: the fourth to the seventh, as the Spanish data protection agency
has it for the seventh additional provision of Ley Orgánica 3/2018."""


class PasswordState(StrEnum):
    """Of the permanent password."""

    NONE = "none"
    ACTIVE = "active"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCertificate:
    """A certificate of the citizen."""

    serial: str
    """Hexadecimal."""
    state: str
    """As the signing core has it: ``ACTIVE``, ``SUSPENDED`` or ``REVOKED``."""
    not_after: datetime | None
    """Absent where it was never accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """One approval with which the citizen's key was used."""

    time: datetime
    """Of its last signature."""
    agency: str
    """Name from the register of callers."""
    documents: int
    titles: Sequence[str] = field(repr=False)
    """Of the signed documents; empty where the list is no longer kept."""


class KeyRecord(Protocol):
    """Port to the rows of keys and approvals; the signing core implements it."""

    async def certificates(self, connection: AsyncConnection, citizen_id: CitizenId) -> Sequence[HeldCertificate]:
        """Those of the citizen, newest first."""
        ...

    async def uses(self, connection: AsyncConnection, citizen_id: CitizenId, *, limit: int) -> Sequence[KeyUse]:
        """The last approvals with which something was signed, newest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the area shows."""

    name: str = field(repr=False)
    masked_nif: str = field(repr=False)
    level: RegistrationLevel
    loa: LoA
    """Of the login."""
    authenticated: datetime
    password: PasswordState
    blocked_until: datetime | None
    """Absent where the password is not blocked, or only a registration office ends it."""
    certificates: Sequence[HeldCertificate]
    uses: Sequence[KeyUse] = field(repr=False)


class Area:
    """From a token to a key, and from the key to what may be seen."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        clock: Clock,
        sessions: Sessions,
        register: CitizenRegister,
        factors: PasswordFactors,
        keys: KeyRecord,
        audience: str,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._sessions = sessions
        self._register = register
        self._factors = factors
        self._keys = keys
        self._audience = audience

    async def enter(self, token: str, nonce: str) -> OpenSession:
        """Exchange a token for the key of its login; each token once.

        Raises:
            RequestExpired: The token is of no use.
        """
        return await self._sessions.exchange(self._engine, token, audience=self._audience, nonce=nonce)

    async def show(self, key: bytes) -> Overview:
        """What the citizen of this login may see of themselves.

        Raises:
            RequestExpired: There is no such login, or it has ended.
        """
        async with self._engine.connect() as connection:
            login = (await self._sessions.opened_by(connection, key)).login
            citizen = await self._register.get(connection, login.record.citizen_id)
            if citizen is None or not secrets.compare_digest(citizen.pid, login.record.pid):
                raise RequestExpired("this login is not known or over; log in again")
            factor = await self._factors.find(connection, citizen.id)
            certificates = await self._keys.certificates(connection, citizen.id)
            uses = await self._keys.uses(connection, citizen.id, limit=LAST_USES)
        blocked = factor is not None and factor.attempts.is_blocked(self._clock.now())
        until = factor.attempts.blocked_until if factor is not None and blocked else None
        state = PasswordState.BLOCKED if blocked else PasswordState.ACTIVE if factor else PasswordState.NONE
        return Overview(
            name=" ".join(filter(None, (citizen.given_name, citizen.first_surname, citizen.second_surname))),
            masked_nif=masked(citizen.nif),
            level=citizen.level,
            loa=login.loa,
            authenticated=login.authenticated,
            password=state,
            blocked_until=None if until == FOREVER else until,
            certificates=certificates,
            uses=uses,
        )

    async def leave(self, key: bytes) -> None:
        """End the login; nothing happens where there is none."""
        async with self._engine.begin() as connection:
            await self._sessions.close(connection, key)


def masked(nif: str) -> str:
    """A NIF with four digits shown: ``***4567**`` for 12345678Z, ``****4567*`` for X1234567L."""
    digits = [place for place, symbol in enumerate(nif) if symbol.isdecimal()]
    shown = set(digits[SHOWN_DIGITS])
    return "".join(symbol if place in shown else "*" for place, symbol in enumerate(nif))
