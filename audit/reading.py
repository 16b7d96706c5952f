"""Reads the log for auditors, page by page: nothing is skipped and nothing comes twice while others write.

Agency, format and what proved the citizen come from the log itself. Document digests and certificate serials stand in
the signing core's rows; of those nothing is believed that the approval's leaf does not attest by its hash.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.entries import Entry, EvidenceState, Filter, Leaf, Page
from audit.horizon import final_position
from audit.log import EventTag, log_pending
from domain.digests import Digest
from domain.errors import NotFound

PAGE_LIMIT = 500
PAGE_LIMIT_BYTES = 1024 * 1024
"""Of leaves; a gRPC message has at most 4 MiB."""
CHUNK = 250
SCAN_LIMIT = 2000
"""Rows that one page looks at: with a rare filter a page may come back empty and not at the end."""
APPROVAL_WINDOW = timedelta(hours=2)
"""How long before a signature its approval may be; it lives an hour at most."""

_OF_ITEMS = frozenset({EventTag.INTENT, EventTag.COMPLETE, EventTag.ABORTED, EventTag.CERT_ISSUE})
_OF_APPROVALS = (EventTag.AUTH_OK.value, EventTag.OTP_SENT.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedItem:
    """One line of an approved list, as the core keeps it."""

    packaging: str
    algorithm: str
    digests: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedList:
    """What the core's rows say about one approval."""

    agency_name: str
    list_sha256: bytes
    """Of the whole list, as the citizen approved it; computed anew from the row."""
    items: Sequence[ApprovedItem]
    certificate_serial: str
    """Empty while there is no certificate."""


class Evidence(Protocol):
    """Port to the rows of approvals; the signing core implements it."""

    async def approved(self, connection: AsyncConnection, cids: Collection[str]) -> Mapping[str, ApprovedList]:
        """The approved lists of these approvals, as far as they are there."""
        ...


class LogReader:
    """Pages of entries."""

    def __init__(self, engine: AsyncEngine, evidence: Evidence) -> None:
        self._engine = engine
        self._evidence = evidence

    async def page(self, wanted: Filter, *, after: int, limit: int) -> Page:
        """The next entries behind position ``after`` that ``wanted`` takes.

        Args:
            wanted: Which entries.
            after: 0, or what the page before reached.
            limit: At most so many, and never more than ``PAGE_LIMIT``.

        Raises:
            LogUnavailable: A writer does not come to an end.
        """
        limit = max(1, min(limit, PAGE_LIMIT))
        found: list[Entry] = []
        scanned = size = 0
        async with self._engine.connect() as connection:
            horizon = await final_position(connection)
        while scanned < SCAN_LIMIT:
            # A connection for each chunk: with SQLite there is one, and citizens wait for it.
            async with self._engine.connect() as connection:
                rows = await _rows(connection, wanted, after, horizon)
                entries = await self._entries(connection, rows)
            for entry in entries:
                if _takes(wanted, entry):
                    if len(found) == limit or (found and size + len(entry.leaf.encoded) > PAGE_LIMIT_BYTES):
                        return Page(found, after, at_end=False)
                    found.append(entry)
                    size += len(entry.leaf.encoded)
                after = entry.position
            scanned += len(rows)
            if len(rows) < CHUNK:
                return Page(found, max(after, horizon), at_end=True)
        return Page(found, after, at_end=False)

    async def entry(self, leaf_id: str) -> Entry:
        """One entry.

        Raises:
            NotFound: No leaf has this id.
        """
        async with self._engine.connect() as connection:
            found = await connection.execute(
                sa.select(log_pending.c.position, log_pending.c.leaf).where(log_pending.c.id == leaf_id)
            )
            rows = [(row.position, Leaf.decode(row.leaf)) for row in found]
            if not rows:
                raise NotFound("no entry of the log has this id")
            (entry,) = await self._entries(connection, rows)
        return entry

    async def _entries(self, connection: AsyncConnection, rows: Sequence[tuple[int, Leaf]]) -> list[Entry]:
        leaves = [leaf for _, leaf in rows]
        intents = await _by_id(connection, {leaf.text("intent") for leaf in leaves} - {""})
        approvals = await _approvals(connection, [*leaves, *intents.values()])
        lists = await self._evidence.approved(connection, {leaf.text("cid") for leaf in leaves} - {""})
        return [_entry(position, leaf, intents, approvals, lists) for position, leaf in rows]


async def _rows(connection: AsyncConnection, wanted: Filter, after: int, horizon: int) -> list[tuple[int, Leaf]]:
    query = (
        sa.select(log_pending.c.position, log_pending.c.leaf)
        .where(log_pending.c.position > after, log_pending.c.position <= horizon)
        .order_by(log_pending.c.position)
        .limit(CHUNK)
    )
    if wanted.pid:
        query = query.where(log_pending.c.pid == wanted.pid)
    if wanted.since is not None:
        query = query.where(log_pending.c.time >= wanted.since)
    if wanted.until is not None:
        query = query.where(log_pending.c.time < wanted.until)
    if wanted.types:
        query = query.where(log_pending.c.tag.in_(tag.value for tag in wanted.types))
    return [(row.position, Leaf.decode(row.leaf)) for row in await connection.execute(query)]


async def _by_id(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Leaf]:
    if not ids:
        return {}
    found = await connection.execute(sa.select(log_pending.c.leaf).where(log_pending.c.id.in_(ids)))
    return {leaf.id: leaf for leaf in map(Leaf.decode, found.scalars())}


async def _approvals(connection: AsyncConnection, leaves: Iterable[Leaf]) -> dict[tuple[str, EventTag], Leaf]:
    """Leaves that tell of a code sent and a citizen proved, by challenge, for the citizens of ``leaves``."""
    concerned = [leaf for leaf in leaves if leaf.pid is not None and leaf.text("cid")]
    if not concerned:
        return {}
    times = [leaf.time for leaf in concerned]
    found = await connection.execute(
        sa.select(log_pending.c.leaf).where(
            log_pending.c.pid.in_({leaf.pid for leaf in concerned}),
            log_pending.c.tag.in_(_OF_APPROVALS),
            log_pending.c.time >= min(times) - APPROVAL_WINDOW,
            log_pending.c.time <= max(times) + timedelta(seconds=1),
        )
    )
    return {(leaf.text("cid"), leaf.tag): leaf for leaf in map(Leaf.decode, found.scalars())}


def _entry(
    position: int,
    leaf: Leaf,
    intents: Mapping[str, Leaf],
    approvals: Mapping[tuple[str, EventTag], Leaf],
    lists: Mapping[str, ApprovedList],
) -> Entry:
    cid = leaf.text("cid")
    intent = intents.get(leaf.text("intent"))
    # What a crash left behind is ended by the next core, which names no citizen: the intent does.
    owner = intent.pid if leaf.pid is None and intent else leaf.pid

    def before(tag: EventTag) -> Leaf | None:
        # A wrong code is not proved by the right one after it, nor anybody by another's.
        found = approvals.get((cid, tag))
        return found if found is not None and found.time <= leaf.time and found.pid == owner else None

    approval = leaf if leaf.tag is EventTag.AUTH_OK else before(EventTag.AUTH_OK)
    sent = before(EventTag.OTP_SENT)
    kin = [kin for kin in (leaf, intent, approval, sent) if kin is not None]
    approved = lists.get(cid)
    state = _state(leaf, approval, approved)
    shown = approved if state is EvidenceState.ATTESTED else None
    number = leaf.facts.get("item")
    item = shown.items[number] if shown and isinstance(number, int) and number < len(shown.items) else None
    return Entry(
        position=position,
        leaf=leaf,
        agency=_first(kin, "client"),
        agency_name=shown.agency_name if shown else "",
        purpose=_first(kin, "purpose"),
        format=_first(kin, "format"),
        proved_by=approval.text("factors") if approval else "",
        evidence=state,
        packaging=item.packaging if item else "",
        algorithm=item.algorithm if item else "",
        digests=item.digests if item else (),
        certificate_serial=shown.certificate_serial if shown else "",
    )


def _first(leaves: Iterable[Leaf], name: str) -> str:
    return next((leaf.text(name) for leaf in leaves if leaf.text(name)), "")


def _state(leaf: Leaf, approval: Leaf | None, approved: ApprovedList | None) -> EvidenceState | None:
    if leaf.tag not in _OF_ITEMS:
        return None
    if approved is None:
        return EvidenceState.ERASED
    attested = approval.facts.get("list") if approval else None
    if attested is None:
        return EvidenceState.UNATTESTED
    return EvidenceState.ATTESTED if attested == approved.list_sha256 else EvidenceState.DIFFERS


def _takes(wanted: Filter, entry: Entry) -> bool:
    return (not wanted.agency or entry.agency == wanted.agency) and (
        not wanted.results or entry.leaf.result in wanted.results
    )
