"""The sequencer: what is published is the log, wherever it dies and whoever else works; nothing else is signed."""

import asyncio
import shutil
from datetime import timedelta
from unittest import mock

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from audit.checkpoint import read_checkpoint
from audit.lag import Lag, LagLimits
from audit.log import Event, EventTag, log_pending, metadata
from audit.merkle import EMPTY_ROOT
from audit.mirror import LogBroken, Mirror
from audit.sequencer import LEASE, Memory, Sequencer, Superseded
from audit.tables import log_checkpoint, log_head, log_leaf
from audit.tiles import TileFolder, TileName
from domain.errors import LogUnavailable
from hsm.keys import SigningKey
from rubrica.database import make_engine
from tests.testkit.postgres import postgres
from tests.testkit.sequencing import ORIGIN, SHARD, Logging
from tests.testkit.time import FrozenClock
from tests.testkit.vault import FakeVault


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request, tmp_path_factory):
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('sequencer')}/core.db"
    else:
        with postgres() as url:
            yield url


@pytest.fixture
async def logging(tmp_path, database):
    engine = make_engine(database)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    yield Logging(engine, tmp_path, FrozenClock())
    await engine.dispose()


async def started(logging: Logging, name: str = "core-1") -> Sequencer:
    sequencer = logging.sequencer(name)
    assert await sequencer.take_over(name)
    return sequencer


async def shown(logging: Logging, name: str = "core-1"):
    spki = await logging.vault.public_key(SigningKey.LOG)
    return read_checkpoint((logging.files(name) / "checkpoint").read_bytes(), ORIGIN, spki)


async def forge(logging: Logging, *statements: sa.Update | sa.Delete) -> None:
    """What an administrator can do: take the triggers away, then change rows."""
    async with logging.engine.begin() as connection:
        on = connection.dialect.name == "postgresql"
        for table in ("log_pending", "log_leaf", "log_checkpoint"):
            for operation in ("update", "delete"):
                drop = f"DROP TRIGGER {table}_no_{operation}" + (f" ON {table}" if on else "")
                await connection.execute(sa.text(drop))
        for statement in statements:
            done = await connection.execute(statement)
            assert done.rowcount > 0, "nothing was changed, so nothing is shown"


async def test_what_is_committed_is_in_the_next_checkpoint(logging):
    sequencer = await started(logging)
    assert await sequencer.step() is None
    for leaves, size in ((1, 1), (3, 4), (600, 604), (0, 604), (2500, 3104)):
        if leaves:
            await logging.write(leaves)
        checkpoint = await sequencer.step()
        assert checkpoint is not None
        assert (checkpoint.size, checkpoint.root) == (size, await logging.root(size))
        assert await shown(logging) == checkpoint


async def test_the_files_hold_the_leaves_in_order(logging):
    sequencer = await started(logging)
    await logging.write(300)
    await sequencer.step()
    folder = TileFolder(logging.files())
    leaves = folder.read(TileName(None, 0)) + folder.read(TileName(None, 1, 44))
    async with logging.engine.connect() as connection:
        rows = await connection.execute(sa.select(log_pending.c.leaf).order_by(log_pending.c.position))
        assert leaves == list(rows.scalars())


async def test_with_nothing_new_nothing_is_signed_or_written(logging):
    sequencer = await started(logging)
    await logging.write(3)
    first = await sequencer.step()
    signed = logging.vault.calls["sign_with"]
    before = {path: path.stat().st_mtime_ns for path in logging.files().rglob("*")}
    assert await sequencer.step() == first
    assert logging.vault.calls["sign_with"] == signed
    assert {path: path.stat().st_mtime_ns for path in logging.files().rglob("*")} == before


async def test_of_two_sequencers_one_publishes_and_the_other_follows(logging):
    one, two = await started(logging), logging.sequencer("core-2")
    await logging.write(5)
    assert not await two.take_over("core-2")
    assert await two.follow() is None
    checkpoint = await one.step()
    assert await two.follow() == checkpoint == await shown(logging, "core-2")
    assert logging.vault.calls["sign_with"] == 1
    await logging.write(700)
    checkpoint = await one.step()
    assert await two.follow() == checkpoint == await shown(logging, "core-2")
    with pytest.raises(Superseded):
        await two.step()


async def test_a_silent_sequencer_is_replaced_and_can_do_nothing_more(logging):
    one, two = await started(logging), logging.sequencer("core-2")
    await logging.write(5)
    await one.step()
    logging.clock.advance(LEASE.total_seconds() - 1)
    assert not await two.take_over("core-2")
    logging.clock.advance(2)
    assert await two.take_over("core-2")
    await logging.write(5)
    with pytest.raises(Superseded):
        await one.step()
    checkpoint = await two.step()
    assert checkpoint is not None
    assert checkpoint.root == await logging.root(10)
    assert (await shown(logging)).size == 5
    assert await one.follow() == checkpoint == await shown(logging)


async def test_a_sequencer_that_works_is_not_replaced(logging):
    one, two = await started(logging), logging.sequencer("core-2")
    await logging.write(1)
    for _ in range(10):
        await one.step()
        logging.clock.advance(LEASE.total_seconds() / 2)
        assert not await two.take_over("core-2")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Mirror, "_write"),
        (Mirror, "_read_back"),
        (Sequencer, "_move"),
        (Sequencer, "_remember"),
        (FakeVault, "sign_with"),
        (Sequencer, "_show"),
        (Memory, "write"),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_death_at_any_point_loses_nothing_and_forks_nothing(logging, target, name, when):
    sequencer = await started(logging)
    await logging.write(250)
    first = await sequencer.step()
    await logging.write(350)
    done = getattr(target, name)

    def die(*arguments: object) -> None:
        if when == "after":
            done(*arguments)
        raise ConnectionError

    async def die_later(*arguments: object, **named: object) -> None:
        if when == "after":
            await done(*arguments, **named)
        raise ConnectionError

    dying = mock.patch.object(target, name, die_later if asyncio.iscoroutinefunction(done) else die)
    with dying, pytest.raises(ConnectionError):
        await sequencer.step()
    assert (await shown(logging)).size in {250, 600}
    again = await started(logging)
    checkpoint = await again.step()
    assert (checkpoint.size, checkpoint.root) == (600, await logging.root(600))
    async with logging.engine.connect() as connection:
        stored = await connection.execute(sa.select(log_checkpoint.c.size, log_checkpoint.c.root))
        assert {row.size: row.root for row in stored} == {250: first.root, 600: checkpoint.root}


async def test_a_leaf_changed_before_it_is_published_is_never_signed(logging):
    sequencer = await started(logging)
    await logging.write(10)
    with mock.patch.object(Mirror, "grow", side_effect=ConnectionError), pytest.raises(ConnectionError):
        await sequencer.step()
    await forge(logging, sa.update(log_pending).where(log_pending.c.position == 4).values(leaf=b"x"))
    for _ in range(2):
        with pytest.raises(LogBroken, match="was changed"):
            await (await started(logging)).step()
    assert not (logging.files() / "checkpoint").exists()


@pytest.mark.parametrize("path", ["tile/0/000.p/20", "tile/entries/000.p/20"])
async def test_a_file_changed_before_the_tree_grows_stops_it(logging, path):
    sequencer = await started(logging)
    await logging.write(20)
    await sequencer.step()
    file = logging.files() / path
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    await logging.write(400)
    if "entries" in path:
        # The old bundle is read by nobody: the new one is made from the rows.
        assert (await (await started(logging)).step()).root == await logging.root(420)
        return
    with pytest.raises(LogBroken):
        await sequencer.step()
    with pytest.raises(LogBroken):
        await (await started(logging)).step()
    assert not (logging.files() / "tile/0/000").exists()
    assert (await shown(logging)).size == 20


async def test_a_database_put_back_is_found_by_the_memory(logging):
    sequencer = await started(logging)
    await logging.write(5)
    await sequencer.step()
    async with logging.engine.connect() as connection:
        before = (await connection.execute(sa.select(log_head))).mappings().one()
    await logging.write(5)
    await sequencer.step()
    await forge(
        logging,
        sa.delete(log_checkpoint).where(log_checkpoint.c.size == 10),
        sa.delete(log_leaf).where(log_leaf.c.idx >= 5),
        sa.delete(log_pending).where(log_pending.c.position > before["position"]),
        sa.update(log_head).values(**before),
    )
    for _ in range(3):
        with pytest.raises(LogBroken, match="shorter than this core remembers"):
            await (await started(logging)).step()
        # Other history of the same length and longer is no way out.
        await logging.write(5)
    assert (await shown(logging)).size == 10


async def test_another_root_of_the_same_size_is_never_signed(logging):
    await logging.write(5)
    await (await started(logging)).step()
    signed = logging.vault.calls["sign_with"]
    await forge(
        logging,
        sa.update(log_pending).where(log_pending.c.position == 2).values(leaf=b"x"),
        sa.update(log_head).values(published=0, size=0, position=0, root=EMPTY_ROOT),
        sa.delete(log_leaf),
        sa.delete(log_checkpoint),
    )
    with pytest.raises(LogBroken):
        await (await started(logging)).step()
    shutil.rmtree(logging.files())
    with pytest.raises(LogBroken):
        await (await started(logging)).step()
    assert logging.vault.calls["sign_with"] == signed


async def test_a_stored_checkpoint_that_was_forged_is_not_shown(logging):
    await logging.write(5)
    await (await started(logging)).step()
    (logging.files() / "checkpoint").unlink()
    await forge(logging, sa.update(log_checkpoint).values(note=b"x"))
    with pytest.raises(LogBroken, match="not one of this log"):
        await (await started(logging)).step()
    with pytest.raises(LogBroken, match="not one of this log"):
        await logging.sequencer("core-2").follow()
    assert not (logging.files() / "checkpoint").exists()


@pytest.mark.parametrize("table", [log_pending, log_leaf, log_checkpoint])
async def test_rows_only_grow(logging, table):
    await logging.write(2)
    await (await started(logging)).step()
    for statement in (sa.delete(table), sa.update(table).values({list(table.c)[-1].name: b"x"})):
        with pytest.raises(sa.exc.DBAPIError, match="only grows"):
            async with logging.engine.begin() as connection:
                await connection.execute(statement)


async def test_behind_nothing_may_be_signed(logging):
    lag = Lag(logging.clock, SHARD, LagLimits(age=timedelta(seconds=60), leaves=10))

    async def ask():
        async with logging.engine.begin() as connection:
            await lag.refuse_if_behind(connection)

    await ask()
    await logging.write(10)
    await ask()
    await logging.write(1)
    with pytest.raises(LogUnavailable):
        await ask()
    sequencer = await started(logging)
    await sequencer.step()
    await ask()
    logging.clock.advance(3600)
    await ask()
    await logging.write(1)
    logging.clock.advance(60)
    await ask()
    logging.clock.advance(1)
    with pytest.raises(LogUnavailable):
        await ask()
    # To have an index is not enough: a checkpoint must cover it.
    with mock.patch.object(Mirror, "grow", side_effect=ConnectionError), pytest.raises(ConnectionError):
        await sequencer.step()
    with pytest.raises(LogUnavailable):
        await ask()
    await sequencer.step()
    await ask()


@pytest.mark.parametrize(("target", "name"), [(FakeVault, "sign_with"), (Sequencer, "_show")])
async def test_only_a_checkpoint_that_was_signed_and_shown_counts(logging, target, name):
    lag = Lag(logging.clock, SHARD, LagLimits())
    sequencer = await started(logging)
    await logging.write(5)
    with mock.patch.object(target, name, side_effect=OSError):
        for _ in range(3):
            with pytest.raises(OSError):  # noqa: PT011 - the disk's
                await sequencer.step()
            logging.clock.advance(40)
    with pytest.raises(LogUnavailable):
        async with logging.engine.begin() as connection:
            await lag.refuse_if_behind(connection)
    await sequencer.step()
    async with logging.engine.begin() as connection:
        await lag.refuse_if_behind(connection)


async def test_a_signature_that_does_not_hold_is_not_shown(logging):
    sequencer = await started(logging)
    await logging.write(5)
    with mock.patch.object(FakeVault, "sign_with", return_value=b"0"), pytest.raises(LogBroken):
        await sequencer.step()
    assert not (logging.files() / "checkpoint").exists()
    assert (await sequencer.step()) == await shown(logging)


async def test_who_follows_finds_a_database_put_back_too(logging):
    one, two = await started(logging), logging.sequencer("core-2")
    await logging.write(5)
    await one.step()
    async with logging.engine.connect() as connection:
        before = (await connection.execute(sa.select(log_head))).mappings().one()
    await logging.write(5)
    await one.step()
    await two.follow()
    await forge(
        logging,
        sa.delete(log_checkpoint).where(log_checkpoint.c.size == 10),
        sa.update(log_head).values(**before),
    )
    for follower in (two, logging.sequencer("core-2")):
        with pytest.raises(LogBroken, match="shorter than this core remembers"):
            await follower.follow()


@pytest.mark.parametrize("table", [log_pending, log_leaf, log_checkpoint])
async def test_no_row_is_replaced(logging, table):
    await logging.write(2)
    await (await started(logging)).step()
    async with logging.engine.connect() as connection:
        row = dict((await connection.execute(sa.select(table))).mappings().first())
        if connection.dialect.name == "sqlite":
            replacing = sa.insert(table).prefix_with("OR REPLACE").values(row)
        else:
            keys = list(table.primary_key)
            replacing = postgresql.insert(table).values(row).on_conflict_do_update(index_elements=keys, set_=row)
    with pytest.raises(sa.exc.DBAPIError, match="only grows"):
        async with logging.engine.begin() as connection:
            await connection.execute(replacing)


async def test_the_longest_leaf_is_published_and_no_longer_one_is_taken(logging):
    sequencer = await started(logging)

    async def write(octets):
        async with logging.engine.begin() as connection:
            await logging.log.append(connection, Event(tag=EventTag.ADMIN, facts={"filler": b"x" * octets}))

    await write(0)
    async with logging.engine.connect() as connection:
        empty = len(await connection.scalar(sa.select(log_pending.c.leaf)))
    await write(65_535 - empty - 2)
    await sequencer.step()
    with pytest.raises(ValueError, match="65 535"):
        await write(65_535 - empty - 1)
