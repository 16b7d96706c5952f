"""What an auditor sees of the log: a leaf, and what other leaves and the evidence rows say about it.

Nothing in here names a person: there is the citizen's pseudonym, and of a document its digest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import cbor2

from audit.log import EventTag
from domain.digests import Digest

PID_SIZE_BYTES = 32


class Result(StrEnum):
    """How what a leaf speaks of went."""

    BEGUN = "begun"
    """An intent, or a code on its way: another leaf tells the end."""
    DONE = "done"
    FAILED = "failed"
    """A factor was wrong, or a signature was not made."""
    REFUSED = "refused"
    """What was asked for is not allowed."""


class EvidenceState(StrEnum):
    """Whether the database's evidence about an approved list is what the log attests."""

    ATTESTED = "attested"
    """The list hashes to what the citizen's approval put into the log."""
    DIFFERS = "differs"
    """It does not: the row was changed. Nothing of it is shown."""
    UNATTESTED = "unattested"
    """There is no approval in the log. Nothing of the row is shown."""
    ERASED = "erased"
    """The row is gone."""


_RESULTS = {
    EventTag.INTENT: Result.BEGUN,
    EventTag.OTP_SENT: Result.BEGUN,
    EventTag.ABORTED: Result.FAILED,
    EventTag.AUTH_FAIL: Result.FAILED,
    EventTag.REFUSED: Result.REFUSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries; an empty part takes all."""

    pid: bytes = b""
    """The citizen's pseudonym, 32 bytes."""
    agency: str = ""
    """Client id of the calling system."""
    since: datetime | None = None
    """The earliest moment, included."""
    until: datetime | None = None
    """The end, not included."""
    types: frozenset[EventTag] = frozenset()
    results: frozenset[Result] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A leaf, decoded."""

    encoded: bytes
    """As it stands in the log: deterministic CBOR."""
    id: str
    tag: EventTag
    time: datetime
    """UTC, milliseconds."""
    pid: bytes | None
    facts: Mapping[str, str | int | bytes | None]

    @classmethod
    def decode(cls, encoded: bytes) -> "Leaf":
        """Read a leaf.

        Raises:
            ValueError: Not a leaf of this version.
        """
        try:
            content: Mapping[str, Any] = cbor2.loads(encoded)
            return cls(
                encoded=encoded,
                id=content["id"],
                tag=EventTag(content["tag"]),
                time=datetime.fromtimestamp(content["time"] / 1000, UTC),
                pid=content["pid"],
                facts=content["facts"],
            )
        except (cbor2.CBORDecodeError, KeyError, TypeError) as error:
            raise ValueError("not a leaf of the log") from error

    @property
    def result(self) -> Result:
        """How it went; an approval with both factors right may still have been refused."""
        if self.tag is EventTag.AUTH_OK and "refusal" in self.facts:
            return Result.REFUSED
        return _RESULTS.get(self.tag, Result.DONE)

    def text(self, name: str) -> str:
        """A fact that is text; empty where there is none."""
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A leaf with its place and what belongs to it."""

    position: int
    leaf: Leaf
    agency: str = ""
    """Client id, from the log."""
    agency_name: str = ""
    """As citizens were shown it; from the evidence."""
    purpose: str = ""
    """``sign`` or ``certificate``, from the log."""
    format: str = ""
    """From the log."""
    proved_by: str = ""
    """What proved the citizen, from the log: for example ``password+sms``."""
    evidence: EvidenceState | None = None
    """``None`` where no document is spoken of."""
    packaging: str = ""
    algorithm: str = ""
    digests: tuple[Digest, ...] = field(default=())
    """Of the document; from attested evidence alone."""
    certificate_serial: str = ""
    """Hexadecimal; from attested evidence alone."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries in order of position."""

    entries: Sequence[Entry]
    reached: int
    """Give it as ``after`` for the next page: everything up to here was looked at and is final."""
    at_end: bool
    """Nothing was there behind it at that moment."""


@dataclass(frozen=True, slots=True)
class LogDescription:
    """Which log this is."""

    origin: str
    """Its name in checkpoints."""
    spki: bytes
    """The key that signs them: SubjectPublicKeyInfo, DER. Whoever audits keeps it from before."""
    checkpoint: bytes
    """The newest one, a signed note; empty before the first."""
