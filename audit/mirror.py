"""Puts the log on disk as tiles, and reads back what it wrote before anybody is told of it."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import log_pending
from audit.merkle import Frontier, leaf_hash, root_of
from audit.tables import log_leaf
from audit.tiles import TILE_HEIGHT, TILE_WIDTH, TileConflict, TileFolder, TileName, bundles_between, tiles_between

STEP = 4 * TILE_WIDTH
"""Leaves that are written and read back at a time."""


class LogBroken(Exception):
    """What lies in the database or on the disk is not what was put there: nothing more may be signed."""


class Mirror:
    """One shard's files in a folder, growing behind the database's rows."""

    def __init__(self, engine: AsyncEngine, folder: Path, shard: str) -> None:
        self._engine = engine
        self._tiles = TileFolder(folder)
        self._shard = shard
        self._frontier = Frontier()

    @property
    def size(self) -> int:
        """Leaves that are on disk and were read back by this process."""
        return self._frontier.size

    def resume(self, size: int, root: bytes) -> None:
        """Go on behind files of an earlier run.

        Raises:
            LogBroken: The files do not hold the tree of ``size`` leaves with this root.
        """
        if self._root(size) != root:
            raise LogBroken("the log's files hold another tree than was published")
        self._frontier = Frontier.of(self._tiles.reader(size), size)

    async def grow(self, size: int) -> bytes:
        """Make the tree of ``size`` leaves durable.

        Files that are there already, from an earlier run, are compared with the rows and never written again.

        Returns:
            Its root, computed from what was read back; of a tree that is on disk already, from its files.

        Raises:
            LogBroken: A row or file is not what it was, or a row is missing.
            OSError: The disk does not take it.
        """
        while self.size < size:
            old, end = self.size, min(size, (self.size // STEP + 1) * STEP)
            leaves = await self._leaves(old // TILE_WIDTH * TILE_WIDTH, end)
            try:
                await asyncio.to_thread(self._write, leaves, old, end)
                self._frontier = await asyncio.to_thread(self._read_back, old, end)
            except (TileConflict, ValueError, FileNotFoundError) as error:
                raise LogBroken("the log's files are not what was written") from error
        return await asyncio.to_thread(self._root, size)

    def _root(self, size: int) -> bytes:
        try:
            return root_of(self._tiles.reader(size), size)
        except (FileNotFoundError, ValueError) as error:
            raise LogBroken("the log's files do not hold what was published") from error

    async def _leaves(self, first: int, end: int) -> list[bytes]:
        async with self._engine.connect() as connection:
            found = await connection.execute(
                sa.select(log_leaf.c.idx, log_leaf.c.hash, log_pending.c.leaf)
                .join_from(log_leaf, log_pending, log_leaf.c.position == log_pending.c.position)
                .where(log_leaf.c.shard == self._shard, log_leaf.c.idx >= first, log_leaf.c.idx < end)
                .order_by(log_leaf.c.idx)
            )
            rows = found.all()
        if [row.idx for row in rows] != list(range(first, end)):
            raise LogBroken("a leaf of the log is missing")
        if any(leaf_hash(row.leaf) != row.hash for row in rows):
            raise LogBroken("a leaf of the log was changed")
        return [row.leaf for row in rows]

    def _write(self, leaves: Sequence[bytes], old: int, end: int) -> None:
        """Write the files that the tree of ``end`` leaves has and that of ``old`` had not."""
        if self._root(old) != self._frontier.root():
            raise LogBroken("the log's files hold another tree than was published")
        first = old // TILE_WIDTH * TILE_WIDTH
        for name in bundles_between(old, end):
            at = name.index * TILE_WIDTH - first
            self._tiles.write(name, leaves[at : at + name.width])
        _, grown = self._grown(leaves[old - first :])
        for name in tiles_between(old, end):
            self._tiles.write(name, self._row(name, old, grown))

    def _read_back(self, old: int, end: int) -> Frontier:
        """The new edge, hashed again from the leaves on disk; the hash tiles must hold the same tree."""
        leaves = [leaf for name in bundles_between(old, end) for leaf in self._tiles.read(name)]
        frontier, grown = self._grown(leaves[old % TILE_WIDTH :])
        for name in tiles_between(old, end):
            if self._tiles.read(name) != self._row(name, old, grown):
                raise LogBroken(f"{name.path} is not what was written")
        # The old part of a row was taken from the disk too: it must lead to the root that the edge was kept with.
        if root_of(self._tiles.reader(end), end) != frontier.root():
            raise LogBroken("the log's files hold another tree than was published")
        return frontier

    def _grown(self, leaves: Sequence[bytes]) -> tuple[Frontier, dict[int, list[bytes]]]:
        """The edge with more leaves, and the hashes that come with them, by tile level."""
        frontier, grown = self._frontier.copy(), defaultdict[int, list[bytes]](list)
        for leaf in leaves:
            for level, _, hashed in frontier.append(leaf_hash(leaf)):
                if level % TILE_HEIGHT == 0:
                    grown[level // TILE_HEIGHT].append(hashed)
        return frontier, grown

    def _row(self, name: TileName, old: int, grown: Mapping[int, Sequence[bytes]]) -> list[bytes]:
        """A tile's hashes: those that it had before, and the new ones."""
        level = name.level or 0
        had = (old >> (TILE_HEIGHT * level)) - name.index * TILE_WIDTH
        before = self._tiles.read(replace(name, width=had)) if had > 0 else []
        start = max(0, -had)
        return [*before, *grown[level][start : start + name.width - len(before)]]
