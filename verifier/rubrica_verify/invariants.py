"""What must be true of the leaves among each other (docs/auditor.md): I2 to I5, and ids that are used once.

I1, that every signature has its leaf, cannot be seen from the log. I4 and I2's clock need only the newest time so far;
the rest is decided per approval, in the end, when all its leaves are together (``Spill``).
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rubrica_verify.leaves import Leaf
from rubrica_verify.report import Fault, Report
from rubrica_verify.spill import Spill

GRACE_MS = 60_000
"""I2: how long an intent may be open before the newest leaf."""
BACKWARDS_MS = 2_000
"""I4: by how much a leaf may be older than one before it."""

_INTENT, _APPROVED, _ABORTED, _DONE = range(4)
_NOBODY = bytes(8)
_EVENT = struct.Struct(">16sBQQ16s8s8s")
"""Approval, kind, index, time, intent, item, citizen; names as the beginnings of their hashes."""
_NAME = struct.Struct(">26sQ")


@dataclass
class _Approval:
    """What is known of one approval so far."""

    citizen: bytes | None = None
    """Whose; ``None`` until the approval itself has come."""
    open: dict[bytes, tuple[bytes, int, int]] = field(default_factory=dict)
    """Item, index and time of each intent without an end, by its id."""
    ended: set[bytes] = field(default_factory=set)
    done: dict[bytes, int] = field(default_factory=dict)
    """Index of the end with a signature, by item."""


class Invariants:
    """Fed with every leaf in order; tells in the end."""

    def __init__(self, size: int, scratch: Path | None = None) -> None:
        """Begin.

        Args:
            size: Leaves that will come.
            scratch: Folder for files when they are many; ``None`` takes the system's.
        """
        self.tags: Counter[str] = Counter()
        self.first: int | None = None
        self.newest = 0
        self._names = Spill(size, scratch)
        self._events = Spill(size, scratch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._names.__exit__(kind, error, at)
        self._events.__exit__(kind, error, at)

    def add(self, index: int, leaf: Leaf, report: Report) -> None:
        """Take the next leaf.

        Raises:
            OSError: The scratch folder does not take it.
        """
        self.tags[leaf.tag] += 1
        if self.first is None:
            self.first = leaf.time
        if leaf.time + BACKWARDS_MS < self.newest:
            behind = (self.newest - leaf.time) / 1000
            report.add(Fault.I4, f"leaf {index}", f"it is {behind:.3f} s older than one before it")
        self.newest = max(self.newest, leaf.time)
        name = leaf.id.encode()
        self._names.add(name, _NAME.pack(name, index))
        kind = _kind(leaf)
        if kind is not None:
            facts, intent = leaf.facts, leaf.id if kind == _INTENT else leaf.facts.get("intent")
            cid, item = facts.get("cid"), facts.get("item")
            if type(cid) is not str or (kind != _APPROVED and (type(item) is not int or type(intent) is not str)):
                report.add(Fault.LEAF, f"leaf {index}", f"{leaf.tag} does not say which approval, item and intent")
                return
            approval = _short(str(cid), 16)
            citizen = _NOBODY if leaf.pid is None else leaf.pid[:8]
            record = _EVENT.pack(
                approval, kind, index, leaf.time, _short(str(intent), 16), _short(str(item), 8), citizen
            )
            self._events.add(approval, record)

    def conclude(self, report: Report) -> None:
        """Tell what is wrong among the leaves.

        Raises:
            OSError: The scratch folder cannot be read.
        """
        for bucket in self._names.buckets():
            known: dict[bytes, int] = {}
            for name, index in _NAME.iter_unpack(bucket):
                before = known.setdefault(name, index)
                if before != index:
                    report.add(Fault.DUPLICATE, f"leaf {index}", f"it has the id of leaf {before}")
        waiting = 0
        for bucket in self._events.buckets():
            approvals: dict[bytes, _Approval] = {}
            for record in _EVENT.iter_unpack(bucket):
                _take(approvals.setdefault(record[0], _Approval()), record[1:], report)
            waiting += sum(self._left(approvals.values(), report))
        report.facts["open_intents"] = waiting

    def _left(self, approvals: Iterable[_Approval], report: Report) -> Iterator[int]:
        """1 for every intent that may still wait; a finding for the others."""
        for approval in approvals:
            for _, index, time in approval.open.values():
                if time + GRACE_MS < self.newest:
                    seconds = (self.newest - time) // 1000
                    report.add(Fault.I2, f"leaf {index}", f"the intent has no end after {seconds} s")
                else:
                    yield 1


def _kind(leaf: Leaf) -> int | None:
    """What a leaf does to an approval; ``None`` where it does nothing."""
    match leaf.tag:
        case "INTENT":
            return _INTENT
        case "COMPLETE":
            return _DONE
        case "ABORTED":
            return _ABORTED
        # A first certificate is item 0 of an approval; the service's own seal gets its certificate without one.
        case "CERT_ISSUE" if "cid" in leaf.facts:
            return _DONE
        # Other proofs of a citizen, for a password or a login, approve no list; a refused one approves nothing.
        case "AUTH_OK" if "list" in leaf.facts and "refusal" not in leaf.facts:
            return _APPROVED
    return None


def _take(approval: _Approval, record: tuple[int, int, int, bytes, bytes, bytes], report: Report) -> None:
    kind, index, time, intent, item, citizen = record
    where = f"leaf {index}"
    if kind == _APPROVED:
        approval.citizen = citizen
        return
    if kind == _INTENT:
        approval.open[intent] = item, index, time
        return
    begun = approval.open.pop(intent, None)
    if begun is None:
        word = "another end" if intent in approval.ended else "no intent before it"
        report.add(Fault.I2, where, f"what it ends has {word}")
    elif begun[0] != item:
        report.add(Fault.I2, where, f"it ends another item than the intent, leaf {begun[1]}")
    approval.ended.add(intent)
    if kind == _DONE:
        before = approval.done.setdefault(item, index)
        if before != index:
            report.add(Fault.I3, where, f"this item of the approval was signed before, by leaf {before}")
        if approval.citizen is None:
            report.add(Fault.I5, where, "no approval of its list comes before it")
        elif approval.citizen != citizen:
            report.add(Fault.I5, where, "the approval before it is another citizen's")


def _short(text: str, size_bytes: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size_bytes).digest()
