"""The register of officers, and the check of what they sign: each action by its own statement, once, now.

An officer's key is a P-256 key of theirs alone; the core knows the public half. Two roles: a registrar acts, a
supervisor's second signature is needed where one person alone could take over a citizen (phone and code together).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.agencies import checked_key
from authn.columns import ColumnCipher
from authn.registration.citizens import CitizenRegister
from authn.registration.person import check_nif
from authn.tables import UTCDateTime, metadata
from domain.clock import Clock, to_epoch_seconds
from domain.errors import AlreadyRegistered, CallerRefused, MalformedRequest, NotFound, NotPermitted, RateLimited
from domain.statements import NONCE_SIZE_BYTES, OfficerAction, officer_statement
from hsm.keys import MACKey
from hsm.vault import Vault

ACTIONS_PER_HOUR = 60
STATEMENT_LIFE_SECONDS = 120
"""Between the officer's clock and the core's, either way."""

_OFFICER_ID = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_LONG_NUMBER = re.compile(r"\d{6}")
_HOUR = timedelta(hours=1)
_REFUSAL = "the officer's signature is not accepted: unknown, ended, wrong, over or used before"

officer = sa.Table(
    "officer",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("nif_index", sa.LargeBinary(32), nullable=False),
    sa.Column("index_version", sa.Integer, nullable=False, comment="of K_idx"),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("added", UTCDateTime, nullable=False),
    sa.Column("guard", sa.LargeBinary, nullable=False, comment="authenticates what the row says"),
)

officer_action = sa.Table(
    "officer_action",
    metadata,
    sa.Column("nonce_sha256", sa.LargeBinary(32), primary_key=True, comment="of officer and nonce: good once"),
    sa.Column("statement_sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("officer", sa.String(64), nullable=False, index=True),
    sa.Column("evidence", sa.LargeBinary, nullable=False, comment="statement and signature, sealed"),
    sa.Column("at", UTCDateTime, nullable=False),
)


class OfficerRole(StrEnum):
    """What an officer may sign."""

    REGISTRAR = "registrar"
    SUPERVISOR = "supervisor"


class OfficerState(StrEnum):
    """Nothing leads back from ENDED."""

    ACTIVE = "ACTIVE"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Officer:
    """One officer as the register holds them."""

    id: str
    role: OfficerRole
    state: OfficerState
    added: datetime
    nif_index: bytes = field(repr=False)
    public_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedStatement:
    """The officer's part of a request."""

    officer_id: str
    issued: int
    """Seconds since 1970, by the officer's clock."""
    nonce: bytes
    signature: bytes
    """ECDSA (DER) over SHA-256 of the statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A statement that held and is spent."""

    officer: Officer
    action: OfficerAction
    statement_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficerActivity:
    """An officer, and how busy."""

    officer: Officer
    actions_last_hour: int


def are_one(one: Officer, other: Officer) -> bool:
    """Whether two officers' signatures would be one person's."""
    return one.id == other.id or one.nif_index == other.nif_index or one.public_key == other.public_key


class Officers:
    """Adds, ends and lists officers, and accepts what they signed."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        vault: Vault,
        columns: ColumnCipher,
        register: CitizenRegister,
        clock: Clock,
        log: Log,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._columns = columns
        self._register = register
        self._clock = clock
        self._log = log

    async def add(self, *, officer_id: str, role: str, nif: str, public_key: bytes) -> None:
        """Enter an officer.

        Args:
            officer_id: Stands in the log and on papers, so it tells no name and no number of a person.
            role: One of ``OfficerRole``.
            nif: The officer's own; only its blind index is kept, so that nobody serves themselves.
            public_key: SubjectPublicKeyInfo, DER, P-256.

        Raises:
            MalformedRequest: A field is wrong.
            AlreadyRegistered: The id was given before, and an ended one is not given again; or this person or key is an
                officer under another id, for two ids would be two people where two are asked for.
            HSMError: The vault does not answer.
        """
        if _OFFICER_ID.fullmatch(officer_id) is None or _LONG_NUMBER.search(officer_id):
            raise MalformedRequest(
                "an officer's id has at most 64 lower-case letters, digits, points and hyphens, without long numbers"
            )
        if role not in set(OfficerRole):
            raise MalformedRequest(f"the role must be one of {', '.join(OfficerRole)}")
        row = {
            "id": officer_id,
            "role": role,
            "public_key": checked_key(public_key),
            "nif_index": await self._register.nif_index(check_nif(nif)),
            "index_version": self._vault.current_version(MACKey.INDEX),
            "state": OfficerState.ACTIVE.value,
            "added": self._clock.now().replace(microsecond=0),
        }
        facts = {"action": "officer_add", "officer": officer_id, "role": role}
        try:
            async with self._engine.begin() as connection:
                twin = sa.select(officer.c.id).where(
                    officer.c.id != officer_id,
                    officer.c.state == OfficerState.ACTIVE.value,
                    (officer.c.nif_index == row["nif_index"]) | (officer.c.public_key == row["public_key"]),
                )
                if await connection.scalar(twin) is not None:
                    raise AlreadyRegistered("this person or key is an officer under another id; end that one first")
                await connection.execute(sa.insert(officer).values(**row, guard=self._guard(row)))
                await self._log.append(connection, Event(tag=EventTag.ADMIN, facts=facts))
        except sa.exc.IntegrityError:
            raise AlreadyRegistered("an officer of this id is or was there already") from None

    async def end(self, officer_id: str) -> None:
        """Let nothing that this officer signs hold any more.

        Raises:
            NotFound: No such officer.
        """
        async with self._engine.begin() as connection:
            row = await self._row(connection, officer_id)
            if row is None:
                raise NotFound("there is no officer of this id")
            self._open(row)
            changed = {**row, "state": OfficerState.ENDED.value}
            await connection.execute(
                sa.update(officer)
                .where(officer.c.id == officer_id)
                .values(state=OfficerState.ENDED.value, guard=self._guard(changed))
            )
            facts = {"action": "officer_end", "officer": officer_id}
            await self._log.append(connection, Event(tag=EventTag.ADMIN, facts=facts))

    async def all(self) -> list[OfficerActivity]:
        """Every officer in order of their ids."""
        since = self._clock.now() - _HOUR
        async with self._engine.connect() as connection:
            rows = (await connection.execute(sa.select(officer).order_by(officer.c.id))).mappings().all()
            counted = await connection.execute(
                sa.select(officer_action.c.officer, sa.func.count())
                .where(officer_action.c.at > since)
                .group_by(officer_action.c.officer)
            )
            actions: dict[str, int] = {row[0]: row[1] for row in counted}
        return [OfficerActivity(officer=self._open(row), actions_last_hour=actions.get(row["id"], 0)) for row in rows]

    async def accept(
        self, signed: SignedStatement, action: OfficerAction, fields: Mapping[str, str], role: OfficerRole
    ) -> Accepted:
        """Verify a statement over exactly these fields and spend it: afterwards it counts, whatever becomes of it.

        Args:
            signed: What came with the request.
            action: What was asked.
            fields: Every field of the request, as it came.
            role: Who may sign this.

        Raises:
            CallerRefused: The signature does not hold, the statement is over or was used; one text for all.
            RateLimited: The officer has acted too often within an hour.
            NotPermitted: The officer has another role.
        """
        if signed.issued < 0:
            raise CallerRefused(_REFUSAL)
        now = self._clock.now()
        statement = officer_statement(signed.officer_id, action, signed.issued, signed.nonce, fields)
        async with self._engine.begin() as connection:
            row = await self._row(connection, signed.officer_id)
            known = None if row is None else self._open(row)
            refusal = _why_refused(known, signed, statement, now)
            if refusal is None and known is not None:
                await self._check_rate(connection, known.id, now)
                refusal = await self._spend(connection, known.id, signed, statement, now)
            if refusal is not None:
                await self._refused(connection, known, action, refusal)
        if refusal is not None or known is None:
            raise CallerRefused(_REFUSAL)
        accepted = Accepted(officer=known, action=action, statement_sha256=hashlib.sha256(statement).digest())
        if known.role is not role:
            raise await self.refuse(accepted, "role", f"this needs a {role.value}'s signature")
        return accepted

    async def refuse(self, accepted: Accepted, reason: str, detail: str) -> NotPermitted:
        """Log why an accepted statement leads to nothing; the error to raise."""
        async with self._engine.begin() as connection:
            await self._refused(connection, accepted.officer, accepted.action, reason)
        return NotPermitted(detail)

    async def _check_rate(self, connection: AsyncConnection, officer_id: str, now: datetime) -> None:
        mine = (officer_action.c.officer == officer_id) & (officer_action.c.at > now - _HOUR)
        found = await connection.execute(sa.select(officer_action.c.at).where(mine).order_by(officer_action.c.at))
        times = found.scalars().all()
        if len(times) >= ACTIONS_PER_HOUR:
            wait = times[-ACTIONS_PER_HOUR] + _HOUR - now
            raise RateLimited(
                f"an officer has {ACTIONS_PER_HOUR} actions within an hour",
                retry_after_seconds=max(1, int(wait.total_seconds())),
            )

    async def _spend(
        self, connection: AsyncConnection, officer_id: str, signed: SignedStatement, statement: bytes, now: datetime
    ) -> str | None:
        nonce_sha256 = hashlib.sha256(officer_id.encode() + b"\n" + signed.nonce).digest()
        used = await connection.scalar(
            sa.select(officer_action.c.officer).where(officer_action.c.nonce_sha256 == nonce_sha256)
        )
        if used is not None:
            return "replayed"
        evidence = f"{statement.hex()}.{signed.signature.hex()}"
        await connection.execute(
            sa.insert(officer_action).values(
                nonce_sha256=nonce_sha256,
                statement_sha256=hashlib.sha256(statement).digest(),
                officer=officer_id,
                evidence=self._columns.seal(evidence, "officer_action", "evidence", nonce_sha256.hex()),
                at=now,
            )
        )
        return None

    async def _refused(
        self, connection: AsyncConnection, known: Officer | None, action: OfficerAction, reason: str
    ) -> None:
        # An unknown id is whatever somebody typed, so it does not go into the log.
        facts = {"officer": None if known is None else known.id, "action": action.value, "reason": reason}
        await self._log.append(connection, Event(tag=EventTag.REFUSED, facts=facts))

    async def _row(self, connection: AsyncConnection, officer_id: str) -> sa.RowMapping | None:
        # Locked, so that two statements of one officer are counted and spent one after the other.
        found = await connection.execute(sa.select(officer).where(officer.c.id == officer_id).with_for_update())
        return found.mappings().one_or_none()

    def _open(self, row: sa.RowMapping) -> Officer:
        self._columns.check(row["guard"], *_guarded(row))
        return Officer(
            id=row["id"],
            role=OfficerRole(row["role"]),
            state=OfficerState(row["state"]),
            added=row["added"],
            nif_index=row["nif_index"],
            public_key=row["public_key"],
        )

    def _guard(self, row: Mapping[str, Any]) -> bytes:
        return self._columns.guard(*_guarded(row))


def _why_refused(known: Officer | None, signed: SignedStatement, statement: bytes, now: datetime) -> str | None:
    if known is None:
        return "unknown"
    if known.state is not OfficerState.ACTIVE:
        return "ended"
    key = load_der_public_key(known.public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(signed.nonce) != NONCE_SIZE_BYTES:
        return "signature"
    try:
        key.verify(signed.signature, statement, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return "signature"
    return None if abs(to_epoch_seconds(now) - signed.issued) <= STATEMENT_LIFE_SECONDS else "stale"


def _guarded(row: Mapping[str, Any] | sa.RowMapping) -> tuple[str, ...]:
    return (
        "officer",
        row["id"],
        row["role"],
        row["state"],
        row["public_key"].hex(),
        row["nif_index"].hex(),
        str(to_epoch_seconds(row["added"])),
    )
