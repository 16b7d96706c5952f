"""The log as files: C2SP tlog-tiles. Whoever made them is not trusted, so nothing is read that could not be a tile."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rubrica_verify.merkle import BLOCK, HASH_SIZE_BYTES, Node, tree_hash

LIMIT_BYTES = 64 * 1024
"""Of a note, a proof, a leaf, a key."""
_BUNDLE_LIMIT_BYTES = BLOCK * (2 + 65_535)
_TILE_LIMIT_BYTES = BLOCK * HASH_SIZE_BYTES
_WIDTH = re.compile(r"[1-9][0-9]{0,2}")
"""Other names, such as those of a write that a crash ended, are nobody's tiles."""


class Missing(Exception):
    """A file that the log must have is not there."""


class Malformed(Exception):
    """A file is there and cannot be what its name says."""


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a plain file, without waiting for anybody and without filling the memory.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a plain file, or larger than ``limit_bytes``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a plain file")
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError("too large")
    return data


def parse_bundle(data: bytes, most: int = BLOCK) -> list[bytes]:
    """Leaves of a bundle: each behind its length in two bytes, big-endian.

    Args:
        data: The file's bytes, or more than the leaves wanted.
        most: Leaves after which reading ends.

    Raises:
        Malformed: Cut short.
    """
    leaves: list[bytes] = []
    at = 0
    while at < len(data) and len(leaves) < most:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or at + 2 > len(data):
            raise Malformed("the bundle is cut short")
        leaves.append(data[at + 2 : end])
        at = end
    return leaves


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile by its place; ``level`` is ``None`` for the bundles of leaves."""

    level: int | None
    index: int

    @property
    def name(self) -> str:
        """Path of the full tile in the folder."""
        digits = f"{self.index:03}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        kind = "entries" if self.level is None else str(self.level)
        return "/".join(["tile", kind, *(f"x{group}" for group in groups[:-1]), groups[-1]])


class LogFolder:
    """The files of one log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self) -> bytes:
        """The checkpoint's note.

        Raises:
            Missing: There is none.
            Malformed: It is no file of a note's size.
            OSError: It cannot be read.
        """
        return self._read("checkpoint", LIMIT_BYTES)

    def copies(self, tile: Tile) -> Iterator[tuple[str, int, bytes]]:
        """Path, width and bytes of every file that is there for a tile: partial ones, and the full one.

        The full one is looked for last: where the log grows meanwhile it replaces the partial ones.

        Raises:
            Malformed: One is no file of a tile's size.
            OSError: One cannot be read.
        """
        limit = _BUNDLE_LIMIT_BYTES if tile.level is None else _TILE_LIMIT_BYTES
        try:
            names = [path.name for path in (self.folder / f"{tile.name}.p").iterdir() if _WIDTH.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            names = []
        widths = [(f"{tile.name}.p/{name}", int(name)) for name in sorted(names) if int(name) < BLOCK]
        for path, width in [*widths, (tile.name, BLOCK)]:
            try:
                data = self._read(path, limit)
            except Missing:
                continue
            yield path, width, data

    def hashes(self, level: int, index: int, width: int) -> bytes:
        """The first ``width`` hashes of a tile, from its partial file or the full one.

        Raises:
            Missing: Neither is there.
            Malformed: It is shorter.
            OSError: It cannot be read.
        """
        tile = Tile(level, index)
        names = [tile.name] if width == BLOCK else [f"{tile.name}.p/{width}", tile.name]
        for name in names:
            try:
                data = self._read(name, _TILE_LIMIT_BYTES)
            except Missing:
                continue
            if len(data) < width * HASH_SIZE_BYTES:
                raise Malformed(f"{name} is cut short")
            return data[: width * HASH_SIZE_BYTES]
        raise Missing(names[0])

    def bundle(self, index: int, width: int) -> bytes:
        """The bytes of a bundle, from its partial file or the full one.

        Raises:
            Missing: Neither is there.
            Malformed: It is no file of a bundle's size.
            OSError: It cannot be read.
        """
        name = Tile(None, index).name
        if width < BLOCK:
            try:
                return self._read(f"{name}.p/{width}", _BUNDLE_LIMIT_BYTES)
            except Missing:
                pass
        return self._read(name, _BUNDLE_LIMIT_BYTES)

    def node(self, size: int) -> Node:
        """Gives nodes of the tree of ``size`` leaves from its hash tiles; it raises what ``hashes`` raises."""

        def node(level: int, index: int) -> bytes:
            tile_level, inside = divmod(level, 8)
            tile, first = divmod(index << inside, BLOCK)
            width = min(BLOCK, (size >> 8 * tile_level) - tile * BLOCK)
            row = split(self.hashes(tile_level, tile, width))
            return tree_hash(row[first : first + (1 << inside)])

        return node

    def _read(self, name: str, limit_bytes: int) -> bytes:
        try:
            return read_regular(self.folder / name, limit_bytes)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(name) from None
        except (ValueError, IsADirectoryError):
            raise Malformed(f"{name} is no such file") from None


def split(hashes: bytes) -> list[bytes]:
    """The hashes of a tile, in order."""
    return [hashes[at : at + HASH_SIZE_BYTES] for at in range(0, len(hashes), HASH_SIZE_BYTES)]
