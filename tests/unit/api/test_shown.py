"""What strangers may ask for costs once, and in turn: pictures, outlines, reports."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from api import storage
from api.storage import DocumentStore, StoredId
from api.transactions.model import Limits
from api.turns import MOST_WAITING, Turns
from api.web import check, shown
from api.web.services import Web, make_look
from documents.model import (
    AsyncFetch,
    Inspection,
    Outline,
    OutlinePage,
    PageImage,
    TrustMaterial,
    ValidationReport,
    XAdESOptions,
)
from domain.clock import SystemClock
from domain.digests import Digest
from domain.errors import Busy, DocumentTooLarge, NotFound, RubricaError, UnsupportedDocument
from tests.testkit.edge import EDGE_URL, PDF, TextWorker, an_edge, idempotent

PAGES = 3
OUTLINE = Outline(PAGES, (OutlinePage(595, 842, "Uno ñ"),) * PAGES, "", ())
PEOPLE = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
LINK, OTHER_LINK = "link one", "link other"


class Viewer:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_work = self.most_at_work = 0
        self.refuses: RubricaError | None = None
        self.holds: asyncio.Event | None = None

    async def _work(self, name: str) -> None:
        self.asked.append(name)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await (self.holds.wait() if self.holds else asyncio.sleep(0.01))
        finally:
            self.at_work -= 1
        if self.refuses is not None:
            raise self.refuses

    async def outline(self, path: Path) -> Outline:
        assert path.is_file()
        await self._work("outline")
        return OUTLINE

    async def preview(self, path: Path, number: int) -> PageImage:
        assert path.is_file()
        await self._work(f"page {number}")
        return PageImage(b"PNG %d" % number)

    async def validate(
        self, path: Path, trust: TrustMaterial, at: datetime, fetch: AsyncFetch | None, content: Digest | None
    ) -> ValidationReport:
        assert path.is_file()
        await self._work(f"validate {trust} {at} {fetch} {content}")
        return ValidationReport("INDETERMINATE", ())


async def of(octets: bytes) -> AsyncIterator[bytes]:
    yield octets


class Transactions:
    limits = Limits()


@pytest.fixture
def viewer() -> Viewer:
    return Viewer()


@pytest.fixture
def provided(tmp_path: Path, viewer: Viewer) -> Web:
    absent = cast("Any", None)
    fields: dict[str, Any] = {field.name: absent for field in dataclasses.fields(Web)}
    fields |= {"store": DocumentStore(tmp_path), "viewer": viewer, "turns": Turns()}
    return Web(**{**fields, "clock": SystemClock(), "transactions": Transactions()})


@pytest.fixture
async def stored(provided: Web) -> StoredId:
    return (await provided.store.write(of(b"%PDF"), limit_bytes=100)).stored_id


async def test_outline_and_picture_are_made_once(provided: Web, viewer: Viewer, stored: StoredId) -> None:
    for _ in range(3):
        assert await shown.outline(provided, stored, LINK) == OUTLINE
        assert await shown.picture(provided, stored, 2, LINK) == b"PNG 2"
    pictures = await asyncio.gather(*(shown.picture(provided, stored, 3, LINK) for _ in range(5)))
    assert pictures == [b"PNG 3"] * 5
    assert viewer.asked == ["outline", "page 2", "page 3"]


@pytest.mark.parametrize("refusal", [UnsupportedDocument("broken"), DocumentTooLarge("too slow")])
async def test_what_cannot_be_shown_is_not_tried_again(
    provided: Web, viewer: Viewer, stored: StoredId, refusal: RubricaError
) -> None:
    assert await shown.outline(provided, stored, LINK) == OUTLINE
    viewer.refuses = refusal
    for _ in range(3):
        with pytest.raises(NotFound):
            await shown.picture(provided, stored, 1, LINK)
        with pytest.raises(NotFound):
            await shown.picture(provided, stored, PAGES + 1, LINK)
    other = (await provided.store.write(of(b"%PDF"), limit_bytes=100)).stored_id
    assert [await shown.outline(provided, other, LINK) for _ in range(3)] == [None] * 3
    assert viewer.asked == ["outline", "page 1", "outline"]


async def test_a_busy_moment_is_not_remembered(provided: Web, viewer: Viewer, stored: StoredId) -> None:
    viewer.refuses = Busy("later")
    with pytest.raises(Busy):
        await shown.outline(provided, stored, LINK)
    viewer.refuses = None
    assert await shown.outline(provided, stored, LINK) == OUTLINE


async def test_pictures_go_with_their_document(provided: Web, tmp_path: Path, stored: StoredId) -> None:
    await shown.picture(provided, stored, 1, LINK)
    assert len(kept(tmp_path)) == 3
    await provided.store.delete(stored)
    assert kept(tmp_path) == []
    with pytest.raises(NotFound):
        await shown.picture(provided, stored, 1, LINK)
    await provided.store.keep_beside(stored, "page-1", b"too late")
    assert kept(tmp_path) == []


async def test_pictures_take_so_much_room_and_no_more(
    provided: Web, tmp_path: Path, viewer: Viewer, stored: StoredId, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shown.outline(provided, stored, LINK)
    room = sum(path.stat().st_size for path in kept(tmp_path) if path.parent.suffix)
    monkeypatch.setattr(storage, "BESIDE_BYTES", room + len(b"PNG 1"))
    for _ in range(2):
        assert await shown.picture(provided, stored, 1, LINK) == b"PNG 1"
        assert await shown.picture(provided, stored, 2, LINK) == b"PNG 2"
    assert viewer.asked == ["outline", "page 1", "page 2", "page 2"]


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_one_link_has_one_job_at_a_time_and_others_go_on(provided: Web, viewer: Viewer, stored: StoredId) -> None:
    other = (await provided.store.write(of(b"%PDF"), limit_bytes=100)).stored_id
    for each, asker in ((stored, LINK), (other, OTHER_LINK)):
        await shown.outline(provided, each, asker)
    viewer.holds = asyncio.Event()
    rows = [
        asyncio.create_task(shown.picture(provided, each, number, asker))
        for each, asker in ((stored, LINK), (other, OTHER_LINK))
        for number in range(1, PAGES + 1)
    ]
    await until(lambda: viewer.at_work == 2)
    await asyncio.sleep(0.05)
    assert viewer.most_at_work == 2
    viewer.holds.set()
    assert [await row for row in rows] == [b"PNG 1", b"PNG 2", b"PNG 3"] * 2


async def test_a_row_has_an_end() -> None:
    turns, done = Turns(), asyncio.Event()

    async def wait() -> None:
        async with turns.turn(LINK):
            await done.wait()

    waiting = [asyncio.create_task(wait()) for _ in range(1 + MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await wait()
    async with turns.turn(OTHER_LINK):
        done.set()
    await asyncio.gather(*waiting)
    await wait()
    assert turns._rows == {}, "nobody who is gone is remembered"


async def test_one_network_has_one_report_at_a_time_and_others_go_on(provided: Web, viewer: Viewer) -> None:
    app = FastAPI()
    app.include_router(check.router)
    app.state.look, app.state.web = make_look(), provided
    viewer.holds = asyncio.Event()

    async def ask(address: str) -> int:
        transport = httpx.ASGITransport(app, client=(address, 50000))
        async with httpx.AsyncClient(transport=transport, base_url="https://edge.test", headers=PEOPLE) as browser:
            return (await browser.post("/validate", files={"document": ("a.pdf", b"%PDF")})).status_code

    asked = [asyncio.create_task(ask(address)) for address in ("192.0.2.7", "192.0.2.7", "2001:db8::1", "2001:db8::2")]
    await until(lambda: viewer.at_work == 2)
    await asyncio.sleep(0.2)
    assert viewer.most_at_work == 2
    viewer.holds.set()
    assert await asyncio.gather(*asked) == [200] * 4
    assert viewer.most_at_work == 2


class SlowWorker(TextWorker):
    """Counts how many documents it tries at once."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer

    async def inspect(self, path: Path, options: XAdESOptions | None = None) -> Inspection:
        await self._viewer.outline(path)
        return await super().inspect(path, options)


@pytest.mark.parametrize(
    ("addresses", "most"), [(("192.0.2.7",) * 3, 1), (("192.0.2.7", "192.0.2.8", "2001:db8::1"), 3)]
)
async def test_documents_from_one_network_are_tried_one_after_the_other(
    viewer: Viewer, tmp_path: Path, addresses: tuple[str, ...], most: int
) -> None:
    viewer.holds = asyncio.Event()
    async with an_edge(tmp_path, worker=SlowWorker(viewer)) as edge:

        async def bring(address: str) -> str:
            transport = httpx.ASGITransport(edge.app, client=(address, 50000))
            async with httpx.AsyncClient(transport=transport, base_url=EDGE_URL) as system:
                new = {"documents": [{"title": "x"}], "level": "B-T"}
                made = (await system.post("/v1/transactions", json=new, headers=idempotent())).json()
                answer = await system.put(
                    f"/v1/transactions/{made['id']}/documents/1",
                    content=PDF,
                    headers={"Content-Type": "application/pdf", "Authorization": f"Bearer {made['link_token']}"},
                )
                return str(answer.json()["state"])

        brought = [asyncio.create_task(bring(address)) for address in addresses]
        await until(lambda: viewer.at_work == most)
        await asyncio.sleep(0.3)
        viewer.holds.set()
        assert await asyncio.gather(*brought) == ["RECEIVED"] * 3
    assert viewer.most_at_work == most


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)
