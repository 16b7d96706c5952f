"""Who works on a transaction owns it: nobody else's hold is renewed or given up, and what fails makes room."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from api.transactions.repository import TransactionRepository
from api.transactions.signing import HOLD
from domain.errors import MalformedRequest
from tests.testkit.edge import PDF, Edge, an_edge


async def released_at_b_b(edge: Edge, *documents: bytes) -> tuple[str, str]:
    """A transaction whose documents wait for a timestamp."""
    transaction_id, link = await edge.own_transaction(*documents)
    browser = edge.browser()
    page = (await browser.get(f"/review/{link}")).json()
    edge.worker.tsa_down = True
    assert (await browser.get(await edge.approved(page))).json()["state"] == "DONE"
    edge.worker.tsa_down = False
    return transaction_id, link


@pytest.mark.parametrize("fault", [ValueError("a bug"), MalformedRequest("no room"), OSError("no space left")])
async def test_a_document_that_cannot_be_extended_waits_and_starves_nobody(tmp_path: Path, fault: Exception) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await released_at_b_b(edge, PDF + b"a", PDF + b"b")
        edge.clock.advance(2)
        edge.worker.finish_fails = [fault]

        assert await edge.signing.resume_due() == 1

        documents = (await edge.status(transaction_id, link))["documents"]
        assert [document["state"] for document in documents] == ["PARTIAL", "SIGNED"]
        assert await edge.signing.resume_due() == 0, "it is tried again without a pause"
        edge.clock.advance(4)
        assert await edge.signing.resume_due() == 1
        documents = (await edge.status(transaction_id, link))["documents"]
        assert [document["state"] for document in documents] == ["SIGNED", "SIGNED"]


async def test_a_fault_while_signing_is_not_tried_again_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        back = await edge.approved((await browser.get(f"/review/{link}")).json())
        with monkeypatch.context() as patch:
            patch.setattr(edge.signing, "_sign", failing)
            assert (await browser.get(back)).status_code == 500

        assert await edge.signing.resume_due() == 0
        edge.clock.advance(2)
        assert await edge.signing.resume_due() == 1
        assert (await edge.status(transaction_id, link))["state"] == "DONE"


async def failing(_transaction_id: str) -> None:
    raise ValueError("a bug")


async def test_only_the_owner_renews_or_gives_up_its_hold(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, _ = await edge.own_transaction()
        now = edge.clock.now()
        async with edge.engine.begin() as connection:
            repository = TransactionRepository(connection)
            assert await repository.claim(transaction_id, "first", now=now, until=now + HOLD)
            later = now + 2 * HOLD
            assert await repository.claim(transaction_id, "second", now=later, until=later + HOLD)

            assert not await repository.hold(transaction_id, "first", until=later + 9 * HOLD)
            assert not await repository.release(transaction_id, "first")

            assert not await repository.claim(transaction_id, "third", now=later, until=later + HOLD)
            assert await repository.hold(transaction_id, "second", until=later + 2 * HOLD)
            assert await repository.release(transaction_id, "second")
            assert not await repository.release(transaction_id, "second")


async def taken_over(edge: Edge, transaction_id: str) -> None:
    """Somebody else claims it, as after a hold that ran out."""
    now = edge.clock.now() + 2 * HOLD
    async with edge.engine.begin() as connection:
        assert await TransactionRepository(connection).claim(transaction_id, "other", now=now, until=now + HOLD)


async def the_database_is_away(edge: Edge, _transaction_id: str) -> None:
    class Away:
        def begin(self) -> Any:
            edge.signing._engine = there
            raise OSError("the database is away")

    there = edge.signing._engine
    away: Any = Away()
    edge.signing._engine = away


@pytest.mark.parametrize(
    ("lose", "sentence"),
    [(taken_over, "another one took over"), (the_database_is_away, "the hold could not be renewed")],
)
async def test_who_loses_its_hold_stops_and_says_so(
    lose: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.transactions.signing.HEARTBEAT_SECONDS", 0.2)
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        back = await edge.approved((await browser.get(f"/review/{link}")).json())
        at_work, stopped = asyncio.Event(), asyncio.Event()

        async def stuck(*_arguments: Any, **_named: Any) -> None:
            at_work.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        monkeypatch.setattr(edge.worker, "finish", stuck)
        returning = asyncio.create_task(browser.get(back))
        await asyncio.wait_for(at_work.wait(), 5)

        with capture_logs() as told:
            await lose(edge, transaction_id)
            await asyncio.wait_for(stopped.wait(), 5)

        assert (await returning).json()["next_step"]["action"] == "wait"
        assert any(sentence in each["event"] for each in told)
        monkeypatch.undo()
        edge.clock.advance(1)
        # Who took over keeps it; who only could not renew has given it back.
        assert await edge.signing.resume_due() == (0 if lose is taken_over else 1)


async def test_a_stop_ends_the_work_and_gives_the_hold_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        back = await edge.approved((await browser.get(f"/review/{link}")).json())
        at_work = asyncio.Event()

        async def stuck(*_arguments: Any, **_named: Any) -> None:
            at_work.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(edge.worker, "finish", stuck)
            returning = asyncio.create_task(browser.get(back))
            await asyncio.wait_for(at_work.wait(), 5)
            task = edge.signing.start(transaction_id)
            task.cancel()
            await asyncio.wait([task, returning], timeout=5)
        assert task.cancelled()

        edge.clock.advance(1)
        assert await edge.signing.resume_due() == 1
        assert (await edge.status(transaction_id, link))["state"] == "DONE"
