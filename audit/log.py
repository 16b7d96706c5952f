"""Leaves, committed in the same transaction as the state they speak of (docs/architecture.md, decision 8)."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import cbor2
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.types import UTCDateTime
from domain.clock import Clock
from domain.ids import EventId, Randomness, new_id

LEAF_VERSION = 1
LEAF_LIMIT_BYTES = (1 << 16) - 1
"""An entry bundle gives a leaf's length in two bytes."""

metadata = sa.MetaData()

log_pending = sa.Table(
    "log_pending",
    metadata,
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(26), nullable=False, unique=True),
    sa.Column("tag", sa.String(16), nullable=False),
    sa.Column("time", UTCDateTime, nullable=False),
    sa.Column("pid", sa.LargeBinary(32)),
    sa.Column("leaf", sa.LargeBinary, nullable=False),
    # For auditors, who look for a citizen's pseudonym or a time.
    sa.Index("log_pending_pid", "pid", "position"),
    sa.Index("log_pending_time", "time"),
    sqlite_autoincrement=True,
)
_REFUSE = {
    "sqlite": "BEGIN SELECT RAISE(ABORT, 'the log only grows'); END",
    "postgresql": "FOR EACH STATEMENT EXECUTE FUNCTION log_only_grows()",
}
_FUNCTION = """
CREATE OR REPLACE FUNCTION log_only_grows() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the log only grows'; END $$
"""


def only_grows(table: sa.Table) -> None:
    """Have the database refuse UPDATE and DELETE on ``table`` from its making on.

    A table's owner can take the triggers away: this stops mistakes, not administrators.
    """

    def after_create(dialect: str, statement: str) -> None:
        ddl = sa.DDL(statement)  # type: ignore[no-untyped-call]
        sa.event.listen(table, "after_create", ddl.execute_if(dialect=dialect))

    after_create("postgresql", _FUNCTION)
    for dialect, operations in (("sqlite", ("UPDATE", "DELETE")), ("postgresql", ("UPDATE", "DELETE", "TRUNCATE"))):
        for operation in operations:
            after_create(
                dialect,
                f"CREATE TRIGGER {table.name}_no_{operation.lower()} BEFORE {operation} ON {table.name} "
                f"{_REFUSE[dialect]}",
            )
    # INSERT OR REPLACE deletes without a word to the triggers of DELETE.
    keys = [[column.name for column in table.primary_key], *([column.name] for column in table.c if column.unique)]
    twin = " OR ".join("(" + " AND ".join(f"{name} = NEW.{name}" for name in key) + ")" for key in keys)
    after_create(
        "sqlite",
        f"CREATE TRIGGER {table.name}_no_replace BEFORE INSERT ON {table.name} "  # noqa: S608 - our own names
        f"WHEN EXISTS (SELECT 1 FROM {table.name} WHERE {twin}) {_REFUSE['sqlite']}",
    )


only_grows(log_pending)


class EventTag(StrEnum):
    """Types of leaves; never renamed."""

    INTENT = "INTENT"
    COMPLETE = "COMPLETE"
    ABORTED = "ABORTED"
    AUTH_OK = "AUTH_OK"
    AUTH_FAIL = "AUTH_FAIL"
    OTP_SENT = "OTP_SENT"
    ENROL = "ENROL"
    PHONE_CHANGE = "PHONE_CHANGE"
    PW_CHANGE = "PW_CHANGE"
    LOCK = "LOCK"
    UNLOCK = "UNLOCK"
    REDEEM = "REDEEM"
    REFUSED = "REFUSED"
    CERT_ISSUE = "CERT_ISSUE"
    REVOKE = "REVOKE"
    KEY_DESTROY = "KEY_DESTROY"
    ADMIN = "ADMIN"
    START = "START"
    STOP = "STOP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact for the log: pseudonymous ids, digests and codes only; never a name, NIF, phone, secret or file name."""

    tag: EventTag
    pid: bytes | None = None
    """The citizen's pseudonym; absent where there is none."""
    facts: Mapping[str, str | int | bytes | None] = field(default_factory=dict)


class Log:
    """Writes leaves; ``audit.reading`` reads them."""

    def __init__(self, clock: Clock, randomness: Randomness = secrets.token_bytes) -> None:
        self._clock = clock
        self._randomness = randomness

    async def append(self, connection: AsyncConnection, *events: Event) -> list[EventId]:
        """Add leaves within the caller's transaction.

        Returns:
            Their ids, in order.

        Raises:
            ValueError: A leaf over 65 535 bytes.
        """
        now = self._clock.now()
        rows = []
        ids: list[EventId] = []
        for event in events:
            event_id = EventId(new_id(self._randomness))
            ids.append(event_id)
            # Text keys only: then RFC 7049's canonical order is RFC 8949 §4.2's deterministic one.
            leaf = cbor2.dumps(
                {
                    "v": LEAF_VERSION,
                    "id": event_id,
                    "tag": event.tag.value,
                    "time": int(now.timestamp() * 1000),
                    "pid": event.pid,
                    "facts": dict(event.facts),
                },
                canonical=True,
            )
            if len(leaf) > LEAF_LIMIT_BYTES:
                raise ValueError("a leaf has at most 65 535 bytes")
            rows.append({"id": event_id, "tag": event.tag.value, "time": now, "pid": event.pid, "leaf": leaf})
        await connection.execute(sa.insert(log_pending), rows)
        return ids
