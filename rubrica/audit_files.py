"""Entries of the log as JSON, CSV and lines for people, and the export folder."""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from audit.entries import Entry, Filter

EXPORT_FORMAT = "rubrica-audit-export/1"
COLUMNS = (
    "position",
    "id",
    "time",
    "type",
    "result",
    "pid",
    "agency",
    "agency_name",
    "approval",
    "item",
    "purpose",
    "format",
    "packaging",
    "algorithm",
    "proved_by",
    "digests",
    "certificate_serial",
    "evidence",
    "facts",
)
"""Members of an entry in JSON, columns in CSV; none is ever renamed."""
# What a spreadsheet would take for a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class FolderNotEmpty(Exception):
    """An export goes into a folder of its own."""


def as_json(entry: Entry) -> dict[str, Any]:
    """An entry as a JSON object: bytes in hexadecimal, times in ISO 8601 with milliseconds."""
    leaf = entry.leaf
    return {
        "position": entry.position,
        "id": leaf.id,
        "time": moment(leaf.time),
        "type": leaf.tag.value,
        "result": leaf.result.value,
        "pid": leaf.pid.hex() if leaf.pid is not None else None,
        "agency": entry.agency or None,
        "agency_name": entry.agency_name or None,
        "approval": leaf.text("cid") or None,
        "item": leaf.facts.get("item"),
        "purpose": entry.purpose or None,
        "format": entry.format or None,
        "packaging": entry.packaging or None,
        "algorithm": entry.algorithm or None,
        "proved_by": entry.proved_by or None,
        "digests": [f"{digest.algorithm.value}:{digest.value.hex()}" for digest in entry.digests],
        "certificate_serial": entry.certificate_serial or None,
        "evidence": entry.evidence.value if entry.evidence else None,
        "facts": {name: value.hex() if isinstance(value, bytes) else value for name, value in leaf.facts.items()},
    }


def as_row(entry: Entry) -> list[str]:
    """The same as cells of CSV."""
    cells = as_json(entry)
    cells["digests"] = " ".join(cells["digests"])
    cells["facts"] = json.dumps(cells["facts"], sort_keys=True, ensure_ascii=False)
    return [_cell(cells[name]) for name in COLUMNS]


def as_line(entry: Entry) -> str:
    """One line for people."""
    parts = [
        f"{entry.position:>8}",
        entry.leaf.id,
        moment(entry.leaf.time),
        f"{entry.leaf.tag.value:<11}",
        f"{entry.leaf.result.value:<7}",
        f"citizen {entry.leaf.pid.hex()[:12]}" if entry.leaf.pid is not None else "",
        f"agency {entry.agency}" if entry.agency else "",
        " ".join(part for part in (entry.format or entry.purpose, entry.packaging) if part),
        f"proved by {entry.proved_by}" if entry.proved_by else "",
        *(f"{digest.algorithm.value} {digest.value.hex()}" for digest in entry.digests),
        f"certificate {entry.certificate_serial}" if entry.certificate_serial else "",
        f"evidence {entry.evidence.value}" if entry.evidence else "",
    ]
    return "  ".join(part for part in parts if part)


def moment(time: datetime) -> str:
    """UTC with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_csv(file: IO[str], entries: Iterable[Entry], *, heading: bool = True) -> None:
    """Rows of CSV (RFC 4180), with a heading."""
    writer = csv.writer(file)
    if heading:
        writer.writerow(COLUMNS)
    writer.writerows(as_row(entry) for entry in entries)


class Export:
    """A folder that fills; what it holds is described by ``told`` once it is finished."""

    def __init__(self, folder: Path) -> None:
        self.told: dict[str, Any] = {}
        self._folder = folder
        self._leaves, self._table, self._objects = (
            (folder / name).open("x", encoding="utf-8", newline="")
            for name in ("leaves.hex", "entries.csv", "entries.json")
        )
        self._types: Counter[str] = Counter()
        self._results: Counter[str] = Counter()
        self._positions: list[int] = []
        write_csv(self._table, [])
        self._objects.write("[")

    def add(self, entries: Sequence[Entry]) -> None:
        """Write some more, in order of position."""
        for entry in entries:
            self._leaves.write(f"{entry.position} {entry.leaf.id} {entry.leaf.encoded.hex()}\n")
            self._objects.write(",\n" if self._positions else "\n")
            self._objects.write(json.dumps(as_json(entry), ensure_ascii=False))
            self._types[entry.leaf.tag.value] += 1
            self._results[entry.leaf.result.value] += 1
            self._positions = [*self._positions[:1], entry.position]
        write_csv(self._table, entries, heading=False)

    def finish(self, wanted: Filter, now: datetime) -> None:
        """Write ``export.json`` and see that all of it is on the disk."""
        self._objects.write("\n]\n")
        self.close()
        self.told = {
            "format": EXPORT_FORMAT,
            "made": moment(now),
            "filter": _filter(wanted),
            "entries": self._types.total(),
            "first_position": self._positions[0] if self._positions else None,
            "last_position": self._positions[-1] if self._positions else None,
            "by_type": dict(sorted(self._types.items())),
            "by_result": dict(sorted(self._results.items())),
            "files": {path.name: _described(path) for path in sorted(self._folder.iterdir())},
        }
        text = json.dumps(self.told, indent=2, ensure_ascii=False) + "\n"
        (self._folder / "export.json").write_text(text, encoding="utf-8")
        for path in (*self._folder.iterdir(), self._folder):
            _flush(path)

    def close(self) -> None:
        """Close the files."""
        for file in (self._leaves, self._table, self._objects):
            file.close()


@contextmanager
def exporting(folder: Path, wanted: Filter, now: datetime) -> Iterator[Export]:
    """An export into ``folder``: all of it appears there at the end, or nothing.

    Args:
        folder: Does not exist, or is empty.
        wanted: What is exported, for the record.
        now: UTC.

    Raises:
        FolderNotEmpty: There is something in the folder, or it is none.
        OSError: It cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise FolderNotEmpty(f"{folder} is not an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with closing(Export(unfinished)) as export:
            yield export
            export.finish(wanted, now)
        # Takes the place of an empty folder, and of nothing else.
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _flush(folder.parent)


def _filter(wanted: Filter) -> dict[str, Any]:
    return {
        "pid": wanted.pid.hex() or None,
        "agency": wanted.agency or None,
        "since": moment(wanted.since) if wanted.since else None,
        "until": moment(wanted.until) if wanted.until else None,
        "types": sorted(wanted.types),
        "results": sorted(wanted.results),
    }


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
