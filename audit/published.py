"""What auditors get of the published tree: key and checkpoint, tiles, and proofs that are checked offline for ever."""

import asyncio
import base64
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.entries import LogDescription
from audit.log import log_pending
from audit.merkle import inclusion_proof
from audit.sequencer import CHECKPOINT_NAME
from audit.tables import log_checkpoint, log_leaf
from audit.tiles import TileFolder, TileName
from domain.errors import LogUnavailable, NotFound
from hsm.keys import SigningKey
from hsm.vault import Vault

FIRST_LINE = "c2sp.org/tlog-proof@v1"
SOON_SECONDS = 2


class Published:
    """Reads the tree from this core's disk."""

    def __init__(self, *, engine: AsyncEngine, vault: Vault, folder: Path, shard: str, origin: str) -> None:
        self._engine = engine
        self._vault = vault
        self._folder = folder
        self._tiles = TileFolder(folder)
        self._shard = shard
        self._origin = origin

    async def describe(self) -> LogDescription:
        """Name, key and the checkpoint that is shown now."""
        try:
            note = await asyncio.to_thread((self._folder / CHECKPOINT_NAME).read_bytes)
        except FileNotFoundError:
            note = b""
        return LogDescription(self._origin, await self._vault.public_key(SigningKey.LOG), note)

    async def file(self, path: str) -> bytes:
        """A tile or entry bundle as it is on disk.

        Raises:
            NotFound: The tree has none of this name; a partial one goes when the full one is there.
        """
        try:
            return await asyncio.to_thread((self._folder / TileName.parse(path).path).read_bytes)
        except (ValueError, FileNotFoundError):
            raise NotFound("the tree has no file of this name") from None

    async def proof(self, leaf_id: str) -> str:
        """That a leaf is in the log: the leaf, its place, the hashes up to the root, the newest checkpoint.

        Raises:
            NotFound: No leaf has this id.
            LogUnavailable: No checkpoint on this core's disk covers it yet.
        """
        async with self._engine.connect() as connection:
            found = await connection.execute(
                sa.select(log_pending.c.leaf, log_leaf.c.idx)
                .join_from(log_pending, log_leaf, log_leaf.c.position == log_pending.c.position, isouter=True)
                .where(log_pending.c.id == leaf_id)
            )
            leaf = found.one_or_none()
            if leaf is None:
                raise NotFound("no entry of the log has this id")
            found = await connection.execute(
                sa.select(log_checkpoint.c.size, log_checkpoint.c.note)
                .where(log_checkpoint.c.shard == self._shard)
                .order_by(log_checkpoint.c.size.desc())
                .limit(1)
            )
            checkpoint = found.one_or_none()
        if leaf.idx is None or checkpoint is None or checkpoint.size <= leaf.idx:
            raise LogUnavailable("no checkpoint covers this entry yet", retry_after_seconds=SOON_SECONDS)
        try:
            hashes = await asyncio.to_thread(
                inclusion_proof, self._tiles.reader(checkpoint.size), leaf.idx, checkpoint.size
            )
        except FileNotFoundError:
            raise LogUnavailable("the log's files are on their way", retry_after_seconds=SOON_SECONDS) from None
        lines = [
            FIRST_LINE,
            f"extra {base64.b64encode(leaf.leaf).decode()}",
            f"index {leaf.idx}",
            *(base64.b64encode(each).decode() for each in hashes),
        ]
        return "\n".join(lines) + "\n\n" + str(checkpoint.note, "utf-8")
