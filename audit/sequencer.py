"""Gives leaves their places, makes the tree durable, and only then has it signed.

One core's sequencer works, the others wait: whoever works holds the head's fence, and every step is conditional on it.
Order of a step (docs/adr/0011): rows have an index → tiles are on disk and read back → the head takes the new root, if
it is still ours → this core's own memory of the log takes it, outside the database → the HSM signs → the checkpoint is
shown → it is stored, and counts. A crash between two of them is healed by doing the step again.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.checkpoint import Checkpoint, CheckpointRefused, read_checkpoint
from audit.horizon import final_position
from audit.log import log_pending
from audit.merkle import EMPTY_ROOT, leaf_hash
from audit.mirror import LogBroken, Mirror
from audit.tables import log_checkpoint, log_head, log_leaf
from audit.tiles import write_durably
from domain.clock import Clock
from hsm.keys import SigningKey
from hsm.vault import Vault

BATCH = 1000
"""Leaves that get their index in one transaction; with SQLite citizens wait for it."""
LEASE = timedelta(seconds=10)
"""How long a sequencer that is silent is waited for."""
PACE_SECONDS = 1.0
CHECKPOINT_NAME = "checkpoint"

log = structlog.get_logger()


class Superseded(Exception):
    """Another sequencer has taken over."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The last tree that this core agreed to have signed, in a file of its own: it finds a database rolled back."""

    path: Path

    def read(self) -> tuple[int, bytes]:
        """Size and root; an empty tree's where nothing was ever signed.

        Raises:
            LogBroken: The file cannot be read as what it was written.
        """
        try:
            said = json.loads(self.path.read_text())
            return int(said["size"]), bytes.fromhex(said["root"])
        except FileNotFoundError:
            return 0, EMPTY_ROOT
        except (ValueError, KeyError, TypeError) as error:
            raise LogBroken("the memory of the last checkpoint cannot be read") from error

    def write(self, size: int, root: bytes) -> None:
        """Remember, durably.

        Raises:
            OSError: The disk does not take it.
        """
        write_durably(self.path, json.dumps({"size": size, "root": root.hex()}).encode())


class Sequencer:
    """One shard of the log, in one core."""

    def __init__(
        self, *, engine: AsyncEngine, vault: Vault, clock: Clock, folder: Path, memory: Memory, shard: str, origin: str
    ) -> None:
        """Take what the sequencer works with.

        Args:
            engine: The core's database.
            vault: Has the key LOG.
            clock: Tells the time of checkpoints and when a silent sequencer is given up.
            folder: Gets tiles and ``checkpoint``; auditors read it.
            memory: Last tree signed, outside the database and away from ``folder``.
            shard: Name of the shard in the database.
            origin: Name of the log in its checkpoints.
        """
        self._engine = engine
        self._vault = vault
        self._clock = clock
        self._folder = folder
        self._memory = memory
        self._shard = shard
        self._origin = origin
        self._mirror = Mirror(engine, folder, shard)
        self._fence = 0
        self._resumed = False
        self._shown: Checkpoint | None = None

    async def run(self, holder: str) -> None:
        """Work while it is this core's turn, follow while it is another's; ends only by cancellation.

        Args:
            holder: Name of this core.
        """
        while True:
            try:
                if self._fence or await self.take_over(holder):
                    await self.step()
                else:
                    await self.follow()
            except Superseded:
                log.warning("sequencer_superseded", fence=self._fence)
                self._fence = 0
            except LogBroken as error:
                # If it is this core's disk alone, another core goes on; if not, the lag grows until nobody signs.
                log.critical("log_broken", reason=str(error))
                self._fence = 0
                await asyncio.sleep(2 * LEASE.total_seconds())
            except Exception as error:  # noqa: BLE001 - a step that fails is done again; meanwhile the lag grows
                log.warning("sequencer_step_failed", error=type(error).__name__)
            await asyncio.sleep(PACE_SECONDS)

    async def take_over(self, holder: str) -> bool:
        """Take the head, if nobody has it, it was this core's, or its holder was silent for too long.

        Args:
            holder: Name of this core.

        Returns:
            Whether it is ours now.
        """
        now = self._clock.now()
        async with self._engine.begin() as connection:
            head = await self._head(connection)
            if head is None:
                empty = {"size": 0, "position": 0, "published": 0, "root": EMPTY_ROOT}
                await connection.execute(
                    sa.insert(log_head).values(shard=self._shard, **empty, fence=1, holder=holder, seen=now)
                )
                self._fence = 1
                return True
            if head.holder != holder and head.seen + LEASE > now:
                return False
            await connection.execute(
                sa.update(log_head)
                .where(log_head.c.shard == self._shard)
                .values(fence=head.fence + 1, holder=holder, seen=now)
            )
        self._fence = head.fence + 1
        return True

    async def step(self) -> Checkpoint | None:
        """Bring everything that is final into the tree, and show the tree; for whoever holds the head.

        Returns:
            The checkpoint that is shown now; ``None`` while the log is empty.

        Raises:
            Superseded: Another sequencer has taken over.
            LogBroken: Rows, files, memory or head contradict each other.
            LogUnavailable: A writer does not come to an end.
            OSError: The disk does not take it.
            HSMError: The key does not sign.
        """
        async with self._engine.connect() as connection:
            final = await final_position(connection)
        while await self._index(final):
            pass
        async with self._engine.begin() as connection:
            head = await self._held(connection)
            if self._shown is not None and self._shown.size == head.size:
                if head.seen + LEASE / 3 < self._clock.now():
                    await self._move(connection)
                return self._shown
        # What was published stays the beginning of what will be.
        if await self._known_size() > head.published:
            raise LogBroken("the log is shorter than this core remembers")
        await self._grow(head.published, head.root)
        root = await self._grow(head.size)
        async with self._engine.begin() as connection:
            await self._move(connection, published=head.size, root=root)
        if head.size == 0:
            return None
        await asyncio.to_thread(self._remember, head.size, root)
        checkpoint = Checkpoint(self._origin, head.size, root)
        await self._publish(checkpoint)
        self._shown = checkpoint
        return checkpoint

    async def follow(self) -> Checkpoint | None:
        """Keep up with another core's sequencer: its tree on this disk, its last checkpoint checked and shown.

        Returns:
            That checkpoint; ``None`` where there is none yet.

        Raises:
            LogBroken: It is of another tree than this core knows.
            OSError: The disk does not take it.
        """
        async with self._engine.connect() as connection:
            published = await connection.scalar(sa.select(log_head.c.published).where(log_head.c.shard == self._shard))
            found = await connection.execute(
                sa.select(log_checkpoint.c.size, log_checkpoint.c.note)
                .where(log_checkpoint.c.shard == self._shard)
                .order_by(log_checkpoint.c.size.desc())
                .limit(1)
            )
            newest = found.one_or_none()
        if await self._known_size() > (published or 0):
            raise LogBroken("the log is shorter than this core remembers")
        if newest is None:
            return None
        if self._shown is not None and self._shown.size == newest.size:
            return self._shown
        checkpoint = self._read(newest.note, await self._vault.public_key(SigningKey.LOG))
        await self._grow(checkpoint.size, checkpoint.root)
        if await self._known_size() > checkpoint.size:
            return checkpoint  # Known already; the next one is on its way.
        await asyncio.to_thread(self._remember, checkpoint.size, checkpoint.root)
        await asyncio.to_thread(self._show, newest.note)
        self._shown = checkpoint
        return checkpoint

    async def _index(self, final: int) -> int:
        """Give the next leaves their index; how many there were."""
        async with self._engine.begin() as connection:
            head = await self._held(connection)
            found = await connection.execute(
                sa.select(log_pending.c.position, log_pending.c.leaf)
                .where(log_pending.c.position > head.position, log_pending.c.position <= final)
                .order_by(log_pending.c.position)
                .limit(BATCH)
            )
            rows = found.all()
            if rows:
                places = [
                    {"shard": self._shard, "idx": index, "position": row.position, "hash": leaf_hash(row.leaf)}
                    for index, row in enumerate(rows, head.size)
                ]
                await connection.execute(sa.insert(log_leaf), places)
                await self._move(connection, size=head.size + len(rows), position=rows[-1].position)
        return len(rows)

    async def _known_size(self) -> int:
        """Leaves of the tree that this core remembers; its files are those of that tree, or of a larger one."""
        size, root = await asyncio.to_thread(self._memory.read)
        if not self._resumed:
            await asyncio.to_thread(self._mirror.resume, size, root)
            self._resumed = True
        return size

    async def _grow(self, size: int, root: bytes | None = None) -> bytes:
        """The root of the tree of ``size`` leaves, which is on disk then; it must be ``root`` where one is known."""
        await self._known_size()
        grown = await self._mirror.grow(size)
        if root is not None and grown != root:
            raise LogBroken("the log is not the one that was published")
        return grown

    async def _publish(self, checkpoint: Checkpoint) -> None:
        """Have the checkpoint signed, show it, and store what was shown; a stored one is shown again as it is."""
        async with self._engine.connect() as connection:
            found = await connection.execute(
                sa.select(log_checkpoint.c.note).where(
                    log_checkpoint.c.shard == self._shard, log_checkpoint.c.size == checkpoint.size
                )
            )
            stored = found.scalar_one_or_none()
        spki = await self._vault.public_key(SigningKey.LOG)
        note = stored or checkpoint.note(spki, await self._vault.sign_with(SigningKey.LOG, checkpoint.digest()))
        if self._read(note, spki) != checkpoint:
            raise LogBroken("the stored checkpoint is of another tree")
        await asyncio.to_thread(self._show, note)
        if stored is not None:
            return
        async with self._engine.begin() as connection:
            await self._held(connection)
            await connection.execute(
                sa.insert(log_checkpoint).values(
                    shard=self._shard, size=checkpoint.size, root=checkpoint.root, time=self._clock.now(), note=note
                )
            )

    def _read(self, note: bytes, spki: bytes) -> Checkpoint:
        try:
            return read_checkpoint(note, self._origin, spki)
        except CheckpointRefused as error:
            raise LogBroken("the stored checkpoint is not one of this log") from error

    def _remember(self, size: int, root: bytes) -> None:
        before, known = self._memory.read()
        if size < before or (size == before and root != known):
            raise LogBroken("the log is not the one that this core remembers")
        if size > before:
            self._memory.write(size, root)

    def _show(self, note: bytes) -> None:
        path = self._folder / CHECKPOINT_NAME
        if not path.exists() or path.read_bytes() != note:
            write_durably(path, note)

    async def _head(self, connection: AsyncConnection) -> sa.Row[Any] | None:
        found = await connection.execute(sa.select(log_head).where(log_head.c.shard == self._shard).with_for_update())
        return found.one_or_none()

    async def _held(self, connection: AsyncConnection) -> sa.Row[Any]:
        """The head, locked for this transaction, if it is ours."""
        head = await self._head(connection)
        if head is None or head.fence != self._fence:
            raise Superseded
        return head

    async def _move(self, connection: AsyncConnection, **values: int | bytes) -> None:
        moved = await connection.execute(
            sa.update(log_head)
            .where(log_head.c.shard == self._shard, log_head.c.fence == self._fence)
            .values(seen=self._clock.now(), **values)
        )
        if moved.rowcount != 1:
            raise Superseded
