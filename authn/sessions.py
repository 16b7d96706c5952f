"""Logins: the core's own record of each, and the identity token that is minted from that record and nothing else."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from authn.challenge import sign_jws
from authn.columns import ColumnCipher
from authn.tables import UTCDateTime, metadata
from domain import canonical, identity
from domain.assurance import LoA
from domain.clock import Clock, to_epoch_seconds
from domain.errors import RequestExpired, RowEdited
from domain.identity import IdentityInvalid, VerifiedIdentity
from domain.ids import ChallengeId, CitizenId, Randomness, new_id
from hsm.keys import MACKey, SigningKey
from hsm.vault import Vault

SESSION_LIFE = timedelta(hours=1)
SESSION_KEY_SIZE_BYTES = 32

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
    sa.Column("key_sha256", sa.LargeBinary(32), unique=True),  # there once the token was exchanged
    sa.Column("guard", sa.LargeBinary, nullable=False, comment="authenticates everything before it but the end"),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A login whose token was exchanged, and which has not ended."""

    key: bytes = field(repr=False)
    login: Login
    expires: datetime


class Sessions:
    """Repository of logins, and the mint of identity tokens."""

    def __init__(
        self, vault: Vault, columns: ColumnCipher, clock: Clock, randomness: Randomness = secrets.token_bytes
    ) -> None:
        self._vault = vault
        self._columns = columns
        self._clock = clock
        self._randomness = randomness
        self._token_key: ec.EllipticCurvePublicKey | None = None

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
        row: dict[str, Any] = {
            "id": login.record.session_id,
            "cid": login.cid,
            "citizen_id": login.record.citizen_id,
            "pid": login.record.pid,
            "audience": login.audience,
            "loa": login.loa.value,
            "methods": "+".join(login.methods),
            # Whole seconds, as the guard has them.
            "authenticated": login.authenticated,
            "expires": login.authenticated + SESSION_LIFE,
            "key_sha256": None,
        }
        await connection.execute(sa.insert(login_session).values(**row, guard=self._columns.guard(*_guarded(row))))

    async def exchange(self, engine: AsyncEngine, token: str, *, audience: str, nonce: str) -> OpenSession:
        """Take an identity token of ours, once, and give the key with which that login is named from then on.

        The name of a login stands in its token and in the log, so it opens nothing; the key is known to who asked.

        Args:
            engine: Of the core's database.
            token: As it was minted here.
            audience: Who may present it.
            nonce: The asker's.

        Raises:
            RequestExpired: Not a token of ours for this audience and nonce, or over, or exchanged before, or its login
                has ended.
            RowEdited: The login's row was changed behind the core's back.
        """
        tok = await self.token_key()
        try:
            told = identity.verify(token, tok, audience=audience, nonce=nonce, now=self._clock.now())
        except IdentityInvalid:
            raise _over() from None
        key = self._randomness(SESSION_KEY_SIZE_BYTES)
        async with engine.begin() as connection:
            row = await self._living(connection, login_session.c.id == told.session_id)
            if row["audience"] != audience or row["key_sha256"] is not None:
                raise _over()
            row["key_sha256"] = hashlib.sha256(key).digest()
            done = await connection.execute(
                sa.update(login_session)
                .where(login_session.c.id == told.session_id, login_session.c.key_sha256.is_(None))
                .values(key_sha256=row["key_sha256"], guard=self._columns.guard(*_guarded(row)))
            )
            if done.rowcount != 1:
                raise _over()
        return OpenSession(key=key, login=_login(row), expires=row["expires"])

    async def opened_by(self, connection: AsyncConnection, key: bytes) -> OpenSession:
        """The login that this key names.

        Raises:
            RequestExpired: None, or it has ended.
            RowEdited: Its row was changed behind the core's back.
        """
        row = await self._living(connection, login_session.c.key_sha256 == hashlib.sha256(key).digest())
        return OpenSession(key=key, login=_login(row), expires=row["expires"])

    async def close(self, connection: AsyncConnection, key: bytes) -> None:
        """End the login that this key names, if there is one."""
        await connection.execute(
            sa.update(login_session)
            .where(login_session.c.key_sha256 == hashlib.sha256(key).digest(), login_session.c.ended.is_(None))
            .values(ended=self._clock.now())
        )

    async def token_key(self) -> ec.EllipticCurvePublicKey:
        """The public key TOK, with which tokens are checked; the HSM is asked once, for strangers may ask often."""
        if self._token_key is None:
            key = load_der_public_key(await self._vault.public_key(SigningKey.TOKENS))
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise TypeError("TOK is an elliptic curve key")
            self._token_key = key
        return self._token_key

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

    async def _living(self, connection: AsyncConnection, where: sa.ColumnElement[bool]) -> dict[str, Any]:
        found = await connection.execute(sa.select(login_session).where(where))
        row = found.mappings().one_or_none()
        if row is None or row["ended"] is not None or row["expires"] <= self._clock.now():
            raise _over()
        try:
            self._columns.check(row["guard"], *_guarded(row))
        except InvalidTag:
            raise RowEdited("a row of the core's database was changed behind its back; ask the operator") from None
        return dict(row)


def _login(row: Mapping[str, Any]) -> Login:
    record = AuthenticationRecord(session_id=row["id"], citizen_id=CitizenId(row["citizen_id"]), pid=row["pid"])
    return Login(
        record=record,
        cid=ChallengeId(row["cid"]),
        audience=row["audience"],
        loa=LoA(row["loa"]),
        methods=tuple(row["methods"].split("+")),
        authenticated=row["authenticated"],
    )


def _guarded(row: Mapping[str, Any] | sa.RowMapping) -> tuple[str, ...]:
    """What a row says in the clear, in one order."""
    return (
        "login_session",
        row["id"],
        row["cid"],
        row["citizen_id"],
        row["pid"].hex(),
        row["audience"],
        row["loa"],
        row["methods"],
        str(to_epoch_seconds(row["authenticated"])),
        str(to_epoch_seconds(row["expires"])),
        (row["key_sha256"] or b"").hex(),
    )


def _over() -> RequestExpired:
    """The same words for whatever is wrong with a token or a key."""
    return RequestExpired("this login is not known or over; log in again")
