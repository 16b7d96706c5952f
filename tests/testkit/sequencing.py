"""A log with a sequencer or two, on any database, with nothing around it."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Event, EventTag, Log, log_pending
from audit.merkle import Frontier, leaf_hash
from audit.sequencer import Memory, Sequencer
from tests.testkit.time import FrozenClock
from tests.testkit.vault import FakeVault

SHARD = "2026h2"
ORIGIN = "firma.example/log/2026h2"


class Logging:
    """Writes leaves, and makes sequencers that work on them."""

    def __init__(self, engine: AsyncEngine, folder: Path, clock: FrozenClock) -> None:
        self.engine = engine
        self.folder = folder
        self.clock = clock
        self.vault = FakeVault()
        self.log = Log(clock)
        self.origin = ORIGIN

    async def write(self, leaves: int) -> None:
        """Append so many leaves in one commit."""
        async with self.engine.begin() as connection:
            await self.log.append(
                connection, *(Event(tag=EventTag.ADMIN, facts={"number": number}) for number in range(leaves))
            )

    def sequencer(self, name: str = "core-1") -> Sequencer:
        """A sequencer as a core has it after its start: files and memory of its own, by name."""
        return Sequencer(
            engine=self.engine,
            vault=self.vault,
            clock=self.clock,
            folder=self.files(name),
            memory=Memory(self.folder / f"{name}.memory"),
            shard=SHARD,
            origin=self.origin,
        )

    def files(self, name: str = "core-1") -> Path:
        """Where that core's tiles are."""
        return self.folder / name

    async def root(self, size: int) -> bytes:
        """Of the first leaves, computed from the rows alone."""
        async with self.engine.connect() as connection:
            found = await connection.execute(sa.select(log_pending.c.leaf).order_by(log_pending.c.position).limit(size))
            frontier = Frontier()
            for leaf in found.scalars():
                frontier.append(leaf_hash(leaf))
        assert frontier.size == size
        return frontier.root()
