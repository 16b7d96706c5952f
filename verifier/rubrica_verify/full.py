"""The whole log: every leaf hashed again, every tile compared, every checkpoint kept elsewhere computed anew."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from rubrica_verify.files import LogFolder, Malformed, Missing, Tile, parse_bundle, split
from rubrica_verify.invariants import Invariants
from rubrica_verify.leaves import LeafRefused, UnknownVersion, read_leaf
from rubrica_verify.merkle import BLOCK, HASH_SIZE_BYTES, Blocks, leaf_hash
from rubrica_verify.note import Checkpoint, LogKey, NoteRefused, read_note
from rubrica_verify.progress import Progress
from rubrica_verify.report import Fault, Report, Unusable


class _Lost(Exception):
    """Neither leaves nor hashes are there: what comes after cannot be judged."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that was kept outside of the log's reach."""

    name: str
    checkpoint: Checkpoint


@dataclass
class FullVerification:
    """Of one folder."""

    folder: LogFolder
    key: LogKey
    kept: Sequence[Kept]
    report: Report
    origin: str = ""
    """What the log must call itself; where it is empty, what the checkpoints kept elsewhere say."""
    scratch: Path | None = None
    _blocks: Blocks = field(default_factory=Blocks)

    def run(self) -> None:
        """Verify, into the report.

        Raises:
            Unusable: There is nothing to verify.
            OSError: Files cannot be read, or the scratch folder takes no more.
        """
        checkpoint = find_checkpoint(self.folder, self.key, self.kept, self.origin, self.report)
        if checkpoint is None:
            return
        for kept in self.kept:
            if kept.checkpoint.size > checkpoint.size:
                words = f"it speaks of {kept.checkpoint.size} leaves, the folder's checkpoint of {checkpoint.size}"
                self.report.add(Fault.ROLLED_BACK, kept.name, words)
        progress = Progress(sys.stderr, checkpoint.size)
        with Invariants(checkpoint.size, self.scratch) as invariants:
            try:
                tail = self._walk(checkpoint.size, invariants, progress)
            except _Lost:
                self.report.add(Fault.ROOT, "checkpoint", "leaves and their hashes are missing")
            else:
                self._finish(checkpoint, tail)
            progress.end()
            invariants.conclude(self.report)
            self.report.facts["leaves"] = dict(sorted(invariants.tags.items()))
            if invariants.first is not None:
                self.report.facts["first_time"] = _moment(invariants.first)
                self.report.facts["newest_time"] = _moment(invariants.newest)

    def _walk(self, size: int, invariants: Invariants, progress: Progress) -> list[bytes]:
        """Everything but what ends with the tree; gives the leaf hashes behind the last full block."""
        waiting = sorted((kept for kept in self.kept if kept.checkpoint.size <= size), key=_size)
        by_block = {
            block: list(found)
            for block, found in groupby(waiting, key=lambda kept: max(0, kept.checkpoint.size - 1) // BLOCK)
        }
        if size == 0:
            self._compare_kept(by_block.get(0, []), 0, [])
        for index, start in enumerate(range(0, size, BLOCK)):
            width = min(BLOCK, size - start)
            leaves = self._bundle(index, width)
            hashes = [leaf_hash(leaf) for leaf in leaves] if leaves is not None else self._stored(index, width)
            self._tile(0, index, hashes)
            self._compare_kept(by_block.get(index, []), start, hashes)
            for at, leaf in enumerate(leaves or [], start):
                self._leaf(at, leaf, invariants)
            progress.at(start + width)
            if width < BLOCK:
                return hashes
            for level, number, row in self._blocks.add(hashes):
                self._tile(level, number, row)
        return []

    def _finish(self, checkpoint: Checkpoint, tail: list[bytes]) -> None:
        for level, index, row in self._blocks.unfinished():
            self._tile(level, index, row)
        if self._blocks.root(tail) != checkpoint.root:
            self.report.add(Fault.ROOT, "checkpoint", "the leaves lead to another root than the signed one")

    def _bundle(self, index: int, width: int) -> list[bytes] | None:
        """The leaves of a bundle; ``None`` and a finding where the files do not have them."""
        try:
            return self._agreed_leaves(index, width)
        except Missing:
            self.report.add(Fault.BUNDLE, Tile(None, index).name, "it is missing")
        except Malformed as error:
            self.report.add(Fault.BUNDLE, Tile(None, index).name, str(error))
        return None

    def _agreed_leaves(self, index: int, width: int) -> list[bytes]:
        """All files of one bundle must begin alike, also those of older checkpoints and of one to come."""
        most, longest, leaves = 0, b"", None
        for name, named_width, data in self.folder.copies(Tile(None, index)):
            read = parse_bundle(data, BLOCK + 1)
            if len(read) != named_width:
                raise Malformed(f"{name} has not {named_width} leaves")
            shorter, longer = (data, longest) if named_width < most else (longest, data)
            if not longer.startswith(shorter):
                raise Malformed(f"{name} differs from another file of the same leaves")
            most, longest = max(most, named_width), longer
            if named_width in (width, BLOCK):
                leaves = read[:width]
        if leaves is None:
            raise Missing
        return leaves

    def _stored(self, index: int, width: int) -> list[bytes]:
        """Leaf hashes as the tile has them, in place of leaves that are not there."""
        try:
            data = self.folder.hashes(0, index, width)
        except (Missing, Malformed):
            raise _Lost from None
        return split(data)

    def _tile(self, level: int, index: int, row: Sequence[bytes]) -> None:
        """Compare a tile with the hashes that it must hold."""
        tile = Tile(level, index)
        try:
            self._compare_tile(tile, b"".join(row), len(row))
        except Missing:
            self.report.add(Fault.TILE, tile.name, "it is missing")
        except Malformed as error:
            self.report.add(Fault.TILE, tile.name, str(error))

    def _compare_tile(self, tile: Tile, expected: bytes, wanted: int) -> None:
        """Every file of the tile, as far as the hashes reach."""
        found = False
        for name, width, data in self.folder.copies(tile):
            common = min(width, wanted) * HASH_SIZE_BYTES
            if len(data) != width * HASH_SIZE_BYTES or data[:common] != expected[:common]:
                raise Malformed(f"{name} is not what the leaves say")
            found = found or width in (wanted, BLOCK)
        if not found:
            raise Missing

    def _compare_kept(self, kept: Sequence[Kept], start: int, hashes: Sequence[bytes]) -> None:
        for one in kept:
            if self._blocks.root(hashes[: one.checkpoint.size - start]) != one.checkpoint.root:
                self.report.add(
                    Fault.FORK, one.name, f"the first {one.checkpoint.size} leaves have another root than it says"
                )

    def _leaf(self, index: int, encoded: bytes, invariants: Invariants) -> None:
        try:
            leaf = read_leaf(encoded)
        except LeafRefused as error:
            self.report.add(Fault.LEAF, f"leaf {index}", str(error))
        except UnknownVersion as error:
            self.report.unusable = self.report.unusable or f"leaf {index}: {error} needs a newer verifier"
        else:
            invariants.add(index, leaf, self.report)


def find_checkpoint(
    folder: LogFolder, key: LogKey, kept: Sequence[Kept], origin: str, report: Report
) -> Checkpoint | None:
    """The folder's checkpoint, told to the report; ``None`` and a finding where it cannot be believed.

    Raises:
        Unusable: The folder is no log, or the checkpoints kept elsewhere are of several logs.
        OSError: It cannot be read.
    """
    names = {one.checkpoint.origin for one in kept} | ({origin} if origin else set())
    if len(names) > 1:
        raise Unusable(f"the checkpoints are of several logs: {', '.join(sorted(names))}")
    if not folder.folder.is_dir():
        raise Unusable(f"{folder.folder}: there is no such folder")
    try:
        checkpoint = read_note(folder.note(), key)
    except Missing:
        if any(one.checkpoint.size for one in kept):
            report.add(Fault.CHECKPOINT, "checkpoint", "there is none, though the log had one")
            return None
        raise Unusable(f"{folder.folder}: there is no checkpoint, so this is no log") from None
    except (Malformed, NoteRefused) as error:
        report.add(Fault.CHECKPOINT, "checkpoint", str(error))
        return None
    if names and checkpoint.origin not in names:
        report.add(Fault.CHECKPOINT, "checkpoint", f"it is of another log, {checkpoint.origin}")
        return None
    report.facts.update(tell(checkpoint))
    return checkpoint


def tell(checkpoint: Checkpoint) -> dict[str, object]:
    """A checkpoint for a report."""
    return {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _size(kept: Kept) -> int:
    return kept.checkpoint.size
