"""Proofs that a leaf is in the log, to be checked offline for ever: C2SP tlog-proof, the leaf as its extra data."""

import asyncio
import base64
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import log_pending
from audit.merkle import inclusion_proof
from audit.tables import log_checkpoint, log_leaf
from audit.tiles import TileFolder
from domain.errors import LogUnavailable, NotFound

FIRST_LINE = "c2sp.org/tlog-proof@v1"
SOON_SECONDS = 2


class Proofs:
    """Makes proofs from this core's tiles."""

    def __init__(self, engine: AsyncEngine, folder: Path, shard: str) -> None:
        self._engine = engine
        self._tiles = TileFolder(folder)
        self._shard = shard

    async def proof(self, leaf_id: str) -> str:
        """The leaf, its place, the hashes from it up to the root, and the newest checkpoint.

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
