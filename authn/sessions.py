"""Logins: the core's own record of each, and the identity token that is minted from that record and nothing else."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from authn.challenge import sign_jws
from authn.tables import UTCDateTime, metadata
from domain import canonical, identity
from domain.assurance import LoA
from domain.clock import Clock
from domain.identity import VerifiedIdentity
from domain.ids import ChallengeId, CitizenId, Randomness, new_id
from hsm.keys import MACKey
from hsm.vault import Vault

SESSION_LIFE = timedelta(hours=1)

login_session = sa.Table(
    "login_session",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("cid", sa.String(26), nullable=False, unique=True),  # the challenge that it came from
    sa.Column("citizen_id", sa.String(32), nullable=False, index=True),
    sa.Column("pid", sa.LargeBinary(32), nullable=False),
    sa.Column("audience", sa.String(64), nullable=False),
    sa.Column("loa", sa.String(16), nullable=False),
    sa.Column("methods", sa.String(64), nullable=False),
    sa.Column("authenticated", UTCDateTime, nullable=False),
    sa.Column("expires", UTCDateTime, nullable=False),
    sa.Column("ended", UTCDateTime),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationRecord:
    """Who a login would be, written when it begins and kept where only the right factors open it."""

    session_id: str
    citizen_id: CitizenId
    pid: bytes

    def encode(self) -> bytes:
        """The record as a capsule holds it: always ``RECORD_SIZE_BYTES``."""
        return canonical.encode(self.session_id, self.citizen_id, self.pid)

    @classmethod
    def decode(cls, encoded: bytes) -> "AuthenticationRecord":
        """Undo ``encode``.

        Raises:
            ValueError: Not a record.
        """
        session_id, citizen_id, pid = canonical.decode(encoded, 3)
        if session_id is None or citizen_id is None or pid is None:
            raise ValueError("a part of the record is missing")
        return cls(session_id=session_id.decode(), citizen_id=CitizenId(citizen_id.decode()), pid=pid)


_ANY = AuthenticationRecord(session_id="0" * 26, citizen_id=CitizenId("0" * 26), pid=bytes(32))
RECORD_SIZE_BYTES = len(_ANY.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One row: a citizen who logged in."""

    record: AuthenticationRecord
    cid: ChallengeId
    audience: str
    loa: LoA
    methods: tuple[str, ...]
    authenticated: datetime


class Sessions:
    """Repository of logins, and the mint of identity tokens."""

    def __init__(self, vault: Vault, clock: Clock, randomness: Randomness = secrets.token_bytes) -> None:
        self._vault = vault
        self._clock = clock
        self._randomness = randomness

    def record_for(self, citizen_id: CitizenId, pid: bytes) -> AuthenticationRecord:
        """A record for a login that begins; nothing is stored."""
        return AuthenticationRecord(session_id=new_id(self._randomness), citizen_id=citizen_id, pid=pid)

    async def token(self, login: Login, nonce: str) -> str:
        """Mint the identity token of a login; two HSM calls.

        Args:
            login: The core's own record.
            nonce: The asker's, given back.
        """
        # The same derivation as for result tokens, so that an audience knows a citizen by one pseudonym.
        pid = await self._vault.mac(MACKey.PSEUDONYM, "agency", login.audience, login.record.pid)
        told = VerifiedIdentity(
            session_id=login.record.session_id,
            pid=pid.hex(),
            loa=login.loa,
            methods=login.methods,
            authenticated=login.authenticated,
        )
        claims = identity.claims_of(told, audience=login.audience, nonce=nonce, now=self._clock.now())
        return await sign_jws(self._vault, {"typ": identity.TOKEN_TYPE}, claims)

    async def add(self, connection: AsyncConnection, login: Login) -> None:
        """Store a login, in the commit that spends its challenge."""
        await connection.execute(
            sa.insert(login_session).values(
                id=login.record.session_id,
                cid=login.cid,
                citizen_id=login.record.citizen_id,
                pid=login.record.pid,
                audience=login.audience,
                loa=login.loa.value,
                methods="+".join(login.methods),
                authenticated=login.authenticated,
                expires=login.authenticated + SESSION_LIFE,
            )
        )

    async def authenticated(self, connection: AsyncConnection, cid: str) -> datetime | None:
        """When the login of a challenge happened; ``None`` if it did not."""
        found = await connection.execute(sa.select(login_session.c.authenticated).where(login_session.c.cid == cid))
        moment: datetime | None = found.scalar_one_or_none()
        return moment

    async def end(self, connection: AsyncConnection, citizen_id: CitizenId) -> None:
        """End the citizen's logins, in the commit that changes the generation."""
        await connection.execute(
            sa.update(login_session)
            .where(login_session.c.citizen_id == citizen_id, login_session.c.ended.is_(None))
            .values(ended=self._clock.now())
        )

    async def erase_old(self, engine: AsyncEngine) -> None:
        """Delete logins a day after their end; the log keeps that they were."""
        async with engine.begin() as connection:
            await connection.execute(
                sa.delete(login_session).where(login_session.c.expires < self._clock.now() - timedelta(days=1))
            )
