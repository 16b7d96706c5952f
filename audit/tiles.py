"""The tree on disk as C2SP tlog-tiles lays it out: files that are written once, made durable, and served as they are.

A tile holds up to 256 hashes of one level, eight tree levels apart; an entry bundle holds up to 256 leaves. Partial
ones, ``….p/W``, go when the full one is there; nothing is ever changed or shortened.
"""

import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audit.merkle import HASH_SIZE_BYTES, ReadNode, node_hash

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
ENTRY_LIMIT_BYTES = (1 << 16) - 1
"""A bundle gives each leaf's length in two bytes."""

_TILE_PATH = re.compile(
    r"tile/(?P<level>entries|[0-5]?[0-9])/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]?|1[0-9]{2}|2[0-5][0-9]))?"
)


class TileConflict(Exception):
    """A file that is written once exists with other bytes: this is another history."""


@dataclass(frozen=True, slots=True)
class TileName:
    """Which tile: ``level`` is ``None`` for an entry bundle; ``width`` counts hashes or leaves, 256 when full."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Relative path, ``/`` between its parts."""
        groups = []
        rest = self.index
        while True:
            groups.append(f"{rest % 1000:03}")
            rest //= 1000
            if not rest:
                break
        groups[1:] = [f"x{group}" for group in groups[1:]]
        kind = "entries" if self.level is None else str(self.level)
        name = f"tile/{kind}/{'/'.join(reversed(groups))}"
        return name if self.width == TILE_WIDTH else f"{name}.p/{self.width}"

    @classmethod
    def parse(cls, path: str) -> "TileName":
        """The tile at this path.

        Raises:
            ValueError: No tile has this path.
        """
        found = _TILE_PATH.fullmatch(path)
        if found is None:
            raise ValueError("this is no tile's path")
        level = None if found["level"] == "entries" else int(found["level"])
        index = int(found["index"].replace("x", "").replace("/", ""))
        name = cls(level, index, int(found["width"] or TILE_WIDTH))
        if name.path != path:
            raise ValueError("this is no tile's path")
        return name


def tiles_between(old: int, new: int) -> Iterator[TileName]:
    """The hash tiles that a tree has after growing from ``old`` to ``new`` leaves, and had not before; leaves first."""
    level = 0
    while new:
        for index in range(old // TILE_WIDTH, -(-new // TILE_WIDTH)):
            yield TileName(level, index, min(TILE_WIDTH, new - index * TILE_WIDTH))
        old, new, level = old // TILE_WIDTH, new // TILE_WIDTH, level + 1
        if old == new:
            return


def bundles_between(old: int, new: int) -> Iterator[TileName]:
    """The entry bundles that a log has after growing from ``old`` to ``new`` leaves, and had not before."""
    for index in range(old // TILE_WIDTH, -(-new // TILE_WIDTH)):
        yield TileName(None, index, min(TILE_WIDTH, new - index * TILE_WIDTH))


def bundle(leaves: Iterable[bytes]) -> bytes:
    """Leaves as an entry bundle: each behind its length in two bytes, big-endian.

    Raises:
        ValueError: A leaf over 65 535 bytes.
    """
    parts = []
    for leaf in leaves:
        if len(leaf) > ENTRY_LIMIT_BYTES:
            raise ValueError("a leaf of the log has at most 65 535 bytes")
        parts += [len(leaf).to_bytes(2, "big"), leaf]
    return b"".join(parts)


def unbundle(data: bytes) -> list[bytes]:
    """The leaves of an entry bundle.

    Raises:
        ValueError: Cut short.
    """
    leaves, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or at + 2 > len(data):
            raise ValueError("the bundle is cut short")
        leaves.append(data[at + 2 : end])
        at = end
    return leaves


class TileFolder:
    """The files of one log. A partial tile whose full one is there is read from the full one, and needs no file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: TileName, parts: Sequence[bytes]) -> None:
        """Make hashes or leaves durable, or find them there; partial files that a full one replaces are removed.

        Raises:
            TileConflict: Others are there.
            OSError: The disk does not take it; nothing stays behind.
        """
        try:
            if self.read(name) != list(parts):
                raise TileConflict(f"{name.path} exists with other content")
        except FileNotFoundError:
            write_durably(self._folder / name.path, bundle(parts) if name.level is None else b"".join(parts))
        if name.width == TILE_WIDTH:
            partial = self._folder / f"{name.path}.p"
            for path in partial.glob("*"):
                path.unlink()
            if partial.exists():
                partial.rmdir()

    def read(self, name: TileName) -> list[bytes]:
        """The hashes or leaves of a tile.

        Raises:
            FileNotFoundError: It was never written.
            ValueError: It is shorter than its name says.
        """
        try:
            data = (self._folder / name.path).read_bytes()
        except FileNotFoundError:
            if name.width == TILE_WIDTH:
                raise
            data = (self._folder / replace(name, width=TILE_WIDTH).path).read_bytes()
        parts = unbundle(data) if name.level is None else split_hashes(data)
        if len(parts) < name.width:
            raise ValueError(f"{name.path} has not {name.width} parts")
        return parts[: name.width]

    def reader(self, size: int) -> ReadNode:
        """Reads the nodes of the tree of ``size`` leaves; one inside a tile is computed from the tile's row.

        The reader raises what ``read`` raises.
        """

        def node(level: int, index: int) -> bytes:
            tile_level, inside = divmod(level, TILE_HEIGHT)
            first = index << inside
            tile = first // TILE_WIDTH
            row = size >> (tile_level * TILE_HEIGHT)
            hashes = self.read(TileName(tile_level, tile, min(TILE_WIDTH, row - tile * TILE_WIDTH)))
            hashes = hashes[first % TILE_WIDTH :][: 1 << inside]
            while len(hashes) > 1:
                hashes = [node_hash(*hashes[at : at + 2]) for at in range(0, len(hashes), 2)]
            return hashes[0]

        return node


def split_hashes(data: bytes) -> list[bytes]:
    """The hashes of a tile, in order.

    Raises:
        ValueError: Cut short.
    """
    if len(data) % HASH_SIZE_BYTES:
        raise ValueError("the tile is cut short")
    return [data[at : at + HASH_SIZE_BYTES] for at in range(0, len(data), HASH_SIZE_BYTES)]


def write_durably(path: Path, data: bytes) -> None:
    """Put a whole file where none or an older one is, so that after a crash there is the old or the new, never a part.

    Raises:
        OSError: The disk does not take it; the old file stays.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's list of names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
