"""Papers checked by their code at the edge, before a real core on its socket; and how often anybody may ask."""

import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from structlog.testing import capture_logs

from api.middleware import AccessLog, SecurityHeaders
from api.web import verify
from api.web.pace import PLACES_LIMIT, Pace
from api.web.services import Web, make_look
from authn.officer_client import PapersClient
from authn.registration.papers import Language, Paper, PaperKind, PreparedPaper, paper
from domain.clock import Clock
from domain.codes import BASE32, grouped, is_code, normalise_code
from domain.errors import RateLimited
from rubrica.core_sockets import listening
from tests.testkit.core import Played, playing
from tests.testkit.time import FrozenClock

PEOPLE = {"Accept": "text/html", "Accept-Language": "en"}
FIELDS = {"name": "María Núñez Ibáñez", "nif": "12345678Z", "activation_code": "7777-7777-7777-7777X"}
KNOWN, UNKNOWN = "This service has issued a paper", "has issued no paper"
MISTYPED, TOO_OFTEN = "not how it stands on the paper", "Too many codes were checked"


class Printer:
    """Keeps the code that it is told to print."""

    code = ""

    async def make(self, laid_out: Paper, at: datetime) -> bytes:
        self.code = laid_out.fields["csv"]
        return f"%PDF {dict(laid_out.fields)} {at}".encode()


class Edge:
    """The page alone, and the core behind it."""

    def __init__(self, played: Played, clock: Clock, channel: grpc.aio.Channel) -> None:
        self.played = played
        self.app = FastAPI()
        self.app.include_router(verify.router)
        self.app.state.look = make_look()
        absent = cast("Any", None)
        others = {field.name: absent for field in dataclasses.fields(Web)}
        self.app.state.web = Web(**{**others, "papers": PapersClient(channel), "pace": Pace(clock)})
        self.app.add_middleware(SecurityHeaders)
        self.app.add_middleware(AccessLog)

    async def issue(self, kind: PaperKind = PaperKind.RECEIPT) -> tuple[str, PreparedPaper]:
        """A paper, and the code on it."""
        papers, printer = self.played.core.papers, Printer()
        papers._printer = printer
        prepared = await papers.prepare(kind, Language.EN, FIELDS)
        async with self.played.core.engine.begin() as connection:
            await papers.store(connection, prepared)
        return printer.code, prepared

    async def ask(self, code: str, *, address: str = "192.0.2.7", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(address, 50000))
        async with httpx.AsyncClient(transport=transport, base_url="https://edge.test", headers=PEOPLE) as browser:
            return await browser.post("/verify", data={"code": code}, headers=headers)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def edge(tmp_path: Path, clock: FrozenClock) -> AsyncIterator[Edge]:
    socket = tmp_path / "s" / "edge" / "core.sock"
    async with (
        playing(tmp_path, clock=clock, sending=False) as played,
        listening(tmp_path / "s", played.core),
        grpc.aio.insecure_channel(f"unix:{socket}") as channel,
    ):
        yield Edge(played, clock, channel)


def not_issued(code: str) -> str:
    """Another code with the right check symbol."""
    plain = normalise_code(code)
    other = plain[:-2] + ("0" if plain[-2] != "0" else "1")
    (found,) = [other + symbol for symbol in BASE32 if is_code(other + symbol)]
    return grouped(found)


def plain_answer(answer: httpx.Response, typed: str) -> str:
    return answer.text.replace(typed, "")


@pytest.mark.parametrize(
    ("kind", "named"), [(PaperKind.RECEIPT, "Receipt of registration"), (PaperKind.ACCEPTANCE, "Acceptance of")]
)
async def test_a_paper_of_ours_is_told_by_kind_time_and_digest_alone(edge: Edge, kind: PaperKind, named: str) -> None:
    other, _ = await edge.issue()
    code, prepared = await edge.issue(kind)

    answer = await edge.ask(code)

    assert answer.status_code == 200
    assert KNOWN in answer.text
    assert named in answer.text
    assert "March 2, 2026" in answer.text
    assert prepared.row["sha256"].hex() in answer.text
    assert answer.headers["cache-control"] == "no-store"
    for hidden in (*FIELDS.values(), other, code):
        assert hidden not in answer.text


@pytest.mark.parametrize(
    "typed",
    [
        str.lower,
        lambda code: code.replace("-", ""),
        lambda code: f"  {code.replace('-', ' - ')} ",
        lambda code: code.replace("0", "O").replace("1", "I"),
        lambda code: code.replace("0", "o").replace("1", "l"),
    ],
)
async def test_a_code_is_read_as_people_type_it(edge: Edge, typed: Any) -> None:
    code, _ = await edge.issue()
    while not {"0", "1"} <= set(code):
        code, _ = await edge.issue()

    assert KNOWN in (await edge.ask(typed(code))).text


async def test_a_mistyped_code_is_said_at_once_and_asked_nowhere(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = await edge.issue()
    wrong = code[:-1] + ("0" if code[-1] != "0" else "1")
    monkeypatch.setattr(edge.app.state.web.papers, "verify", None)

    for typed in (wrong, code[:-1], code + "0", "ñ" * 17, "x" * 5000, "\x00", "'\"><script>"):
        answer = await edge.ask(typed)
        assert (answer.status_code, MISTYPED in answer.text, KNOWN in answer.text) == (422, True, False), typed
        assert "<script" not in answer.text
    assert (await edge.ask(" ")).status_code == 400


async def test_every_code_that_is_not_known_gets_one_answer(edge: Edge) -> None:
    code, _ = await edge.issue()
    _, ended = await edge.issue()
    await edge.played.execute(sa.delete(paper).where(paper.c.csv_index == ended.row["csv_index"]))
    guessed = [not_issued(code), grouped("0" * 17 if is_code("0" * 17) else not_issued("0" * 17))]

    answers = [(each, await edge.ask(each)) for each in guessed]

    assert {answer.status_code for _, answer in answers} == {404}
    assert len({plain_answer(answer, typed) for typed, answer in answers}) == 1
    assert all(UNKNOWN in answer.text for _, answer in answers)
    assert code not in answers[0][1].text


async def test_no_code_stands_in_an_address_or_a_log(edge: Edge) -> None:
    code, _ = await edge.issue()
    with capture_logs() as logs:
        known, unknown = await edge.ask(code), await edge.ask(not_issued(code))
        missed = await edge.ask(code[:-1])
        transport = httpx.ASGITransport(edge.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://edge.test", headers=PEOPLE) as browser:
            by_address = await browser.get("/verify", params={"code": code})

    assert [entry["route"] for entry in logs if entry["event"] == "served"] == ["/verify"] * 4
    assert code[:8] not in repr(logs)
    assert KNOWN not in by_address.text
    for answer in (known, unknown, missed):
        assert "?code" not in answer.text
        assert "location" not in answer.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_no_other_site_asks_with_our_visitors(edge: Edge, site: str) -> None:
    code, _ = await edge.issue()

    answer = await edge.ask(code, **{"Sec-Fetch-Site": site})

    assert (answer.status_code, KNOWN in answer.text) == (403, False)


async def test_the_eleventh_look_up_within_a_minute_waits(edge: Edge, clock: FrozenClock) -> None:
    code, _ = await edge.issue()
    for _ in range(20):
        # Nothing was looked up for these.
        assert (await edge.ask(code[:-1])).status_code == 422
    for each in (code, not_issued(code)) * 5:
        assert (await edge.ask(each)).status_code in {200, 404}
    clock.advance(20)

    answer = await edge.ask(code)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "40")
    assert TOO_OFTEN in answer.text
    assert KNOWN not in answer.text
    assert (await edge.ask(code, address="192.0.2.8")).status_code == 200
    clock.advance(40)
    assert (await edge.ask(code)).status_code == 200


def admitted(pace: Pace, address: str, times: int) -> int:
    for number in range(times):
        try:
            pace.admit(address)
        except RateLimited:
            return number
    return times


def test_two_hundred_a_day(clock: FrozenClock) -> None:
    pace = Pace(clock)
    for _ in range(20):
        assert admitted(pace, "192.0.2.7", 11) == 10
        clock.advance(60)

    with pytest.raises(RateLimited) as refused:
        pace.admit("192.0.2.7")

    assert refused.value.retry_after_seconds == 24 * 3600 - 20 * 60
    clock.advance(24 * 3600 - 20 * 60)
    assert admitted(pace, "192.0.2.7", 11) == 10


def test_what_is_refused_does_not_count(clock: FrozenClock) -> None:
    pace = Pace(clock)
    assert admitted(pace, "192.0.2.7", 11) == 10
    for _ in range(60):
        assert admitted(pace, "192.0.2.7", 1) == 0
        clock.advance(1)
    assert admitted(pace, "192.0.2.7", 11) == 10


def test_one_line_of_ipv6_is_one_place_and_a_site_has_sixty(clock: FrozenClock) -> None:
    pace = Pace(clock)
    assert sum(admitted(pace, f"2001:db8:1:1::{host:x}", 1) for host in range(30)) == 10
    assert sum(admitted(pace, f"2001:db8:1:{line:x}::1", 10) for line in range(2, 20)) == 50
    assert admitted(pace, "2001:db8:2::1", 11) == 10


def test_the_same_address_written_otherwise_is_the_same_place(clock: FrozenClock) -> None:
    pace = Pace(clock)
    assert admitted(pace, "192.0.2.7", 6) == 6
    assert admitted(pace, "::ffff:192.0.2.7", 6) == 4
    assert admitted(pace, "", 6) == 6
    assert admitted(pace, "unix", 6) == 4


def test_no_crowd_fills_the_memory(clock: FrozenClock) -> None:
    pace = Pace(clock)
    for number in range(PLACES_LIMIT + 10):
        pace.admit(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(pace._asked) == PLACES_LIMIT
