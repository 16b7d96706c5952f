"""Paging on PostgreSQL, where a lower position may be committed after a higher one."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import audit.horizon
import audit.log
from audit.entries import Filter, Page
from audit.log import Event, EventTag, Log
from audit.reading import ApprovedList, LogReader
from domain.clock import SystemClock
from domain.errors import LogUnavailable
from rubrica.database import make_engine
from tests.testkit.postgres import postgres

LOG = Log(SystemClock())


class NoEvidence:
    """There are no approvals here."""

    async def approved(self, connection: AsyncConnection, cids: Collection[str]) -> Mapping[str, ApprovedList]:
        del connection, cids
        return {}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
async def engine(server: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(server)
    async with engine.begin() as connection:
        await connection.run_sync(audit.log.metadata.drop_all)
        await connection.run_sync(audit.log.metadata.create_all)
    yield engine
    await engine.dispose()


def numbered(number: int) -> Event:
    return Event(tag=EventTag.ADMIN, facts={"number": number})


def numbers(page: Page) -> list[object]:
    return [entry.leaf.facts["number"] for entry in page.entries]


async def test_a_late_commit_of_a_low_position_is_not_skipped(engine: AsyncEngine) -> None:
    reader = LogReader(engine, NoEvidence())
    async with engine.connect() as slow:
        await LOG.append(slow, numbered(1))
        async with engine.begin() as quick:
            await LOG.append(quick, numbered(2))
        reading = asyncio.create_task(reader.page(Filter(), after=0, limit=10))
        await asyncio.sleep(0.2)
        # The second is there, the first is not yet: whoever answered now would skip it for good.
        assert not reading.done()
        await slow.commit()
    page = await reading
    assert numbers(page) == [1, 2]
    assert [entry.position for entry in page.entries] == [1, 2]


async def test_a_writer_that_never_ends_is_told(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit.horizon, "SETTLE_SECONDS", 0.2)
    async with engine.connect() as stuck:
        await LOG.append(stuck, numbered(1))
        with pytest.raises(LogUnavailable):
            await LogReader(engine, NoEvidence()).page(Filter(), after=0, limit=10)
        await stuck.rollback()
    assert numbers(await LogReader(engine, NoEvidence()).page(Filter(), after=0, limit=10)) == []


async def test_nothing_is_skipped_or_doubled_while_many_write(engine: AsyncEngine) -> None:
    async def write(first: int) -> None:
        for number in range(first, first + 40):
            async with engine.begin() as connection:
                await LOG.append(connection, numbered(number))
                # Others draw and commit positions in between.
                await asyncio.sleep(number % 3 / 500)

    reader = LogReader(engine, NoEvidence())
    writing = asyncio.gather(*(write(100 * writer) for writer in range(4)))
    seen: list[object] = []
    after = 0
    while True:
        over = writing.done()
        page = await reader.page(Filter(), after=after, limit=9)
        seen += numbers(page)
        after = page.reached
        if over and page.at_end:
            break
    assert sorted(map(str, seen)) == sorted(str(100 * writer + n) for writer in range(4) for n in range(40))
