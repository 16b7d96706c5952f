"""Two edges over one PostgreSQL and one document store: what one does, the other neither repeats nor breaks."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from api.transactions.tables import metadata
from rubrica.database import make_engine
from tests.testkit.core_simulator import CoreSimulator
from tests.testkit.edge import PDF, Edge, an_edge, idempotent
from tests.testkit.postgres import postgres
from tests.testkit.time import FrozenClock


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
async def edges(server: str, tmp_path: Path) -> AsyncIterator[list[Edge]]:
    engine = make_engine(server)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
    await engine.dispose()
    clock = FrozenClock()
    core = CoreSimulator(clock)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "documents").mkdir()
    (folders[1] / "documents").symlink_to(folders[0] / "documents")
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(an_edge(folder, core=core, clock=clock, database_url=server))
            for folder in folders
        ]


async def test_one_post_at_two_edges_opens_one_transaction(edges: list[Edge]) -> None:
    for _ in range(5):
        once = idempotent()
        body = {"documents": [{"title": "x"}], "level": "B-B"}
        answers = await asyncio.gather(
            *(edge.browser().post("/v1/transactions", json=body, headers=once) for edge in edges * 4)
        )
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert len({answer.json()["link_token"] for answer in answers}) == 1


async def test_two_edges_that_sign_one_transaction_do_it_once(edges: list[Edge]) -> None:
    one, two = edges
    transaction_id, link = await one.own_transaction(*(PDF + str(number).encode() for number in range(6)))
    browser = one.browser()
    page = (await browser.get(f"/review/{link}")).json()
    at_the_other = two.browser()
    at_the_other.cookies = browser.cookies
    back = await two.approved(page)
    answers = await asyncio.gather(*(client.get(back) for client in (browser, at_the_other) * 3))
    assert {answer.status_code for answer in answers} == {200}
    assert (await two.status(transaction_id, link))["state"] == "DONE"
    assert one.core.calls["Redeem"] == one.core.calls["Sign"] == 1
    assert one.worker.finished + two.worker.finished == 6


async def test_what_one_edge_left_the_other_finishes(edges: list[Edge]) -> None:
    one, two = edges
    transaction_id, link = await one.own_transaction()
    browser = one.browser()
    page = (await browser.get(f"/review/{link}")).json()
    one.worker.tsa_down = two.worker.tsa_down = True
    assert (await browser.get(await one.approved(page))).json()["state"] == "DONE"
    two.worker.tsa_down = False
    one.clock.advance(2)
    assert sum(await asyncio.gather(one.signing.resume_due(), two.signing.resume_due())) >= 1
    one.worker.tsa_down = False
    one.clock.advance(3600)
    await two.signing.resume_due()
    (document,) = (await two.status(transaction_id, link))["documents"]
    assert (document["state"], document["level"]) == ("SIGNED", "B-T")


async def test_nothing_is_exchanged_behind_a_submission(edges: list[Edge]) -> None:
    one, two = edges
    created = (
        await one.browser().post(
            "/v1/transactions", json={"documents": [{"title": "x"}], "level": "B-B"}, headers=idempotent()
        )
    ).json()
    bearer = {"Authorization": f"Bearer {created['link_token']}"}
    url = f"/v1/transactions/{created['id']}"
    pdf = {"Content-Type": "application/pdf", **bearer}
    await one.browser().put(f"{url}/documents/1", content=PDF + b"first", headers=pdf)
    submitted, *uploads = await asyncio.gather(
        one.browser().post(f"{url}/submit", headers={**idempotent(), **bearer}),
        *(two.browser().put(f"{url}/documents/1", content=PDF + secrets.token_bytes(8), headers=pdf) for _ in range(6)),
    )
    assert submitted.status_code == 200
    told = submitted.json()["documents"][0]["sha256"]
    assert (await two.status(created["id"], created["link_token"]))["documents"][0]["sha256"] == told
    assert {upload.status_code for upload in uploads} <= {200, 409}
    original = await two.browser().get(f"{url}/documents/1/original", headers=bearer)
    assert original.status_code == 200
