import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from authn.messages.inbox.app import create_app
from authn.messages.inbox.store import InboxStore
from tests.testkit.time import FrozenClock

PHONE = "+34612345678"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "inbox.jsonl"


@pytest.fixture
def store(path: Path) -> Iterator[InboxStore]:
    store = InboxStore(path, FrozenClock())
    yield store
    store.close()


@pytest.fixture
async def http(store: InboxStore) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(store))
    async with httpx.AsyncClient(transport=transport, base_url="http://inbox") as client:
        yield client


async def post(http: httpx.AsyncClient, name: str = "m1", to: str = PHONE, text: str = "Codigo 1") -> int:
    return (await http.post("/messages", json={"id": name, "to": to, "text": text})).status_code


async def test_a_message_is_shown_as_page_and_json(http: httpx.AsyncClient) -> None:
    assert await post(http) == 201
    page = await http.get("/")
    assert PHONE in page.text
    assert "Codigo 1" in page.text
    assert (await http.get("/messages.json")).json() == [
        {"id": "m1", "to": PHONE, "text": "Codigo 1", "time": "2026-03-02T09:00:00+00:00"}
    ]


async def test_the_same_id_again_is_the_same_message(http: httpx.AsyncClient) -> None:
    assert [await post(http), await post(http), await post(http, text="other")] == [201, 200, 200]
    assert [message["text"] for message in (await http.get("/messages.json")).json()] == ["Codigo 1"]


async def test_messages_of_one_phone(http: httpx.AsyncClient) -> None:
    await post(http, "m1")
    await post(http, "m2", to="+34687654321")
    await post(http, "m3", text="Codigo 3")
    found = (await http.get("/messages.json", params={"to": PHONE})).json()
    assert [message["id"] for message in found] == ["m1", "m3"]
    assert (await http.get("/messages.json", params={"to": "+34600000000"})).json() == []


async def test_the_page_shows_the_newest_first_and_no_markup_of_senders(http: httpx.AsyncClient) -> None:
    await post(http, "m1", text="older")
    await post(http, "m2", text="<script>alert(1)</script>&\"'")
    page = await http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in page.text
    assert page.text.index("alert(1)") < page.text.index("older")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("asked", "language", "sentence"),
    [("en-GB,en;q=0.9,es;q=0.8", "en", "Nothing yet"), ("es-ES", "es", "Todavía"), ("", "es", "Todavía")],
)
async def test_an_empty_inbox_says_so(http: httpx.AsyncClient, asked: str, language: str, sentence: str) -> None:
    page = (await http.get("/", headers={"Accept-Language": asked})).text
    assert sentence in page
    assert f'<html lang="{language}">' in page


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "", "to": PHONE, "text": "x"},
        {"id": "m", "to": "612345678", "text": "x"},
        {"id": "m", "to": PHONE, "text": ""},
        {"id": "m", "to": PHONE, "text": "x" * 2001},
        {"id": "m", "to": PHONE, "text": "x", "more": 1},
        {"id": 1, "to": PHONE, "text": "x"},
    ],
)
async def test_a_wrong_message_is_refused(http: httpx.AsyncClient, body: dict[str, object]) -> None:
    assert (await http.post("/messages", json=body)).status_code == 422
    assert (await http.get("/messages.json")).json() == []


async def test_a_form_of_another_site_cannot_write(http: httpx.AsyncClient) -> None:
    body = b'{"id": "m1", "to": "+34612345678", "text": "x"}'
    answer = await http.post("/messages", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 422


def test_messages_outlive_the_process(store: InboxStore, path: Path) -> None:
    assert store.add("m1", PHONE, "Codigo 1")
    store.close()
    again = InboxStore(path, FrozenClock())
    assert [message.id for message in again.messages()] == ["m1"]
    assert not again.add("m1", PHONE, "twin")
    assert again.add("m2", PHONE, "a\nb")
    again.close()
    third = InboxStore(path, FrozenClock())
    assert [message.text for message in third.messages()] == ["Codigo 1", "a\nb"]
    third.close()
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("length", [1, 5, 20])
def test_a_line_that_a_crash_cut_off_is_dropped(store: InboxStore, path: Path, length: int) -> None:
    store.add("m1", PHONE, "Codigo 1")
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:length])
    again = InboxStore(path, FrozenClock())
    assert [message.id for message in again.messages()] == ["m1"]
    assert again.add("m2", PHONE, "x")
    again.close()
    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("content", [b"something else\n", b"something", b"{}\n", b"[]\n"])
def test_another_file_is_not_taken_for_an_inbox(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a message"):
        InboxStore(path, FrozenClock())
    assert path.read_bytes() == content


def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o644)
    InboxStore(path, FrozenClock()).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
