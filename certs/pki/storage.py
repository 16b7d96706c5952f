"""The development PKI's own tables, on SQLite."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from certs.issuer import RevocationReason

metadata = sa.MetaData()

certificates = sa.Table(
    "pki_certificates",
    metadata,
    sa.Column("serial", sa.String(40), primary_key=True, comment="hexadecimal, lower case"),
    sa.Column("role", sa.String(8), nullable=False, comment="root, ca, ocsp, tsa, citizen or seal"),
    sa.Column("spki_sha256", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("idempotency_key", sa.String(200), unique=True),
    sa.Column("not_before", sa.Integer, nullable=False, comment="seconds since 1970"),
    sa.Column("certificate", sa.LargeBinary, nullable=False, comment="DER"),
    sa.Column("revoked_at", sa.Integer, comment="seconds since 1970"),
    sa.Column("reason", sa.String(24)),
)

crls = sa.Table(
    "pki_crls",
    metadata,
    sa.Column("authority", sa.String(8), primary_key=True, comment="root or ca"),
    sa.Column("this_update", sa.Integer, nullable=False),
    sa.Column("next_update", sa.Integer, nullable=False),
    sa.Column("crl", sa.LargeBinary, nullable=False, comment="DER"),
)

counters = sa.Table(
    "pki_counters",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("value", sa.Integer, nullable=False, comment="the last one given out"),
)

facts = sa.Table(
    "pki_facts",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("value", sa.String(400), nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One certificate that this PKI issued."""

    serial: int
    role: str
    certificate: bytes
    """DER."""
    revoked_at: datetime | None
    reason: RevocationReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCRL:
    """The newest list of one authority."""

    this_update: datetime
    next_update: datetime
    crl: bytes
    """DER."""


def open_engine(url: str) -> sa.Engine:
    """An engine for ``sqlite:///…`` with our tables in it; one connection, used from whichever thread owns the PKI."""
    engine = sa.create_engine(url, poolclass=sa.StaticPool, connect_args={"check_same_thread": False, "timeout": 10})

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    metadata.create_all(engine)
    return engine


class Storage:
    """Queries; every one runs inside a ``transaction``."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """All or nothing."""
        with self._engine.begin() as connection:
            yield Transaction(connection)


class Transaction:
    """What may be asked and changed between BEGIN and COMMIT."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add_certificate(
        self,
        *,
        serial: int,
        role: str,
        spki_sha256: bytes,
        not_before: datetime,
        certificate: bytes,
        idempotency_key: str | None = None,
    ) -> None:
        """Record a certificate; a serial or key that is there already is an ``IntegrityError``."""
        self._connection.execute(
            sa.insert(certificates).values(
                serial=_hex(serial),
                role=role,
                spki_sha256=spki_sha256,
                idempotency_key=idempotency_key,
                not_before=int(not_before.timestamp()),
                certificate=certificate,
            )
        )

    def by_serial(self, serial: int) -> Entry | None:
        """The certificate of this serial number."""
        return self._one(certificates.c.serial == _hex(serial))

    def by_key(self, spki_sha256: bytes) -> Entry | None:
        """The certificate of this key."""
        return self._one(certificates.c.spki_sha256 == spki_sha256)

    def by_idempotency_key(self, key: str) -> Entry | None:
        """The certificate that this request brought about."""
        return self._one(certificates.c.idempotency_key == key)

    def by_role(self, role: str) -> Entry | None:
        """The PKI's own certificate for ``role``."""
        return self._one(certificates.c.role == role)

    def revoke(self, serial: int, reason: RevocationReason, now: datetime) -> None:
        """Mark as revoked, unless it is already."""
        self._connection.execute(
            sa.update(certificates)
            .where(certificates.c.serial == _hex(serial), certificates.c.revoked_at.is_(None))
            .values(revoked_at=int(now.timestamp()), reason=reason.value)
        )

    def revoked(self) -> list[Entry]:
        """All revoked certificates, oldest revocation first."""
        query = (
            sa.select(certificates)
            .where(certificates.c.revoked_at.is_not(None))
            .order_by(certificates.c.revoked_at, certificates.c.serial)
        )
        return [_entry(row) for row in self._connection.execute(query)]

    def newest_not_before(self) -> datetime:
        """The latest beginning of validity of anything issued."""
        newest: int = self._connection.execute(sa.select(sa.func.max(certificates.c.not_before))).scalar_one()
        return _moment(newest)

    def crl(self, authority: str) -> StoredCRL | None:
        """The newest list of ``authority``."""
        row = self._connection.execute(sa.select(crls).where(crls.c.authority == authority)).one_or_none()
        if row is None:
            return None
        return StoredCRL(this_update=_moment(row.this_update), next_update=_moment(row.next_update), crl=row.crl)

    def put_crl(self, authority: str, stored: StoredCRL) -> None:
        """Let ``stored`` be the newest list of ``authority``."""
        values = {
            "this_update": int(stored.this_update.timestamp()),
            "next_update": int(stored.next_update.timestamp()),
            "crl": stored.crl,
        }
        self._connection.execute(
            insert(crls)
            .values(authority=authority, **values)
            .on_conflict_do_update(index_elements=["authority"], set_=values)
        )

    def count(self, name: str) -> int:
        """The next number of a counter, from 1; never given out twice, once committed."""
        statement = insert(counters).values(name=name, value=1)
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
        value: int = self._connection.execute(statement.returning(counters.c.value)).scalar_one()
        return value

    def fact(self, name: str, value: str) -> str:
        """The value written first under ``name``; ``value``, if this is the first time."""
        self._connection.execute(insert(facts).values(name=name, value=value).on_conflict_do_nothing())
        found: str = self._connection.execute(sa.select(facts.c.value).where(facts.c.name == name)).scalar_one()
        return found

    def _one(self, condition: sa.ColumnElement[bool]) -> Entry | None:
        row = self._connection.execute(sa.select(certificates).where(condition)).one_or_none()
        return None if row is None else _entry(row)


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(
        serial=int(row.serial, 16),
        role=row.role,
        certificate=row.certificate,
        revoked_at=None if row.revoked_at is None else _moment(row.revoked_at),
        reason=None if row.reason is None else RevocationReason(row.reason),
    )


def _hex(serial: int) -> str:
    return f"{serial:x}"


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
