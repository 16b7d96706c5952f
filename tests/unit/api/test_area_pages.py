"""My area at the edge, before a real core on its socket: which browser is let in, and what each forgery gets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import grpc
import httpx
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api.middleware import AccessLog
from api.transactions.seals import Sealer
from api.transactions.tables import metadata
from api.web import area
from api.web.services import Web, make_look
from api.web.sessions import (
    LOGIN_COOKIE,
    LOGIN_LIFE,
    SESSION_COOKIE,
    SESSION_LIFE,
    AreaSessions,
    area_nonces,
    area_sessions,
)
from authn.area_client import AreaClient
from authn.challenge import sign_jws
from authn.sessions import login_session
from domain import jws
from domain.clock import to_epoch_seconds
from domain.errors import DependencyUnavailable
from domain.identity import TOKEN_LIFE
from rubrica.core_sockets import listening
from rubrica.database import make_engine
from tests.testkit.core import NIF, Played, playing
from tests.testkit.edge import GATE_URL
from tests.testkit.pin import PINVisitor
from tests.testkit.time import FrozenClock

EDGE_URL = "https://edge.test"
PEOPLE = {"Accept": "text/html", "Accept-Language": "en"}


@dataclass
class Place:
    """An edge's area and the core behind it."""

    played: Played
    sessions: AreaSessions
    engine: AsyncEngine
    app: FastAPI
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def browser(self) -> httpx.AsyncClient:
        """Another one, with cookies of its own."""
        transport = httpx.ASGITransport(self.app)
        self.clients.append(httpx.AsyncClient(transport=transport, base_url=EDGE_URL, headers=PEOPLE))
        return self.clients[-1]

    async def nonce(self, browser: httpx.AsyncClient) -> str:
        """Begin a login; gives what the gate is told."""
        answer = await browser.get("/area/enter")
        assert answer.status_code == 303
        onward = urlsplit(answer.headers["location"])
        assert f"{onward.scheme}://{onward.netloc}{onward.path}" == f"{GATE_URL}/pin"
        (nonce,) = parse_qs(onward.query)["nonce"]
        return nonce

    async def token(self, nonce: str) -> str:
        """What a citizen brings back from the gate."""
        return await PINVisitor(self.played, nonce=nonce).log_in()

    async def logged_in(self) -> httpx.AsyncClient:
        """A browser with a session."""
        browser = self.browser()
        answer = await come_back(browser, await self.token(await self.nonce(browser)))
        assert (answer.status_code, answer.headers["location"]) == (303, "/area")
        return browser

    async def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]

    async def execute(self, statement: sa.sql.base.Executable) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(statement)


@asynccontextmanager
async def a_place(folder: Path, played: Played, database_url: str = "") -> AsyncIterator[Place]:
    socket = folder / "s" / "edge" / "core.sock"
    engine = make_engine(database_url or f"sqlite+aiosqlite:///{folder / 'edge.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with listening(folder / "s", played.core), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        sessions = AreaSessions(engine, Sealer(b"s" * 32), AreaClient(channel), played.core.clock)
        app, absent = FastAPI(), cast("Any", None)
        app.include_router(area.router)
        app.state.look = make_look()
        app.state.web = Web(
            transactions=absent,
            approvals=absent,
            store=absent,
            viewer=absent,
            trust=absent,
            fetch=absent,
            clock=played.core.clock,
            gate_url=GATE_URL,
            area=sessions,
            papers=absent,
            pace=absent,
            turns=absent,
        )
        app.add_middleware(AccessLog)
        place = Place(played, sessions, engine, app)
        yield place
        for client in place.clients:
            await client.aclose()
    await engine.dispose()


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    async with playing(tmp_path, clock=FrozenClock()) as played:
        await played.register()
        yield played


@pytest.fixture
async def place(tmp_path: Path, played: Played) -> AsyncIterator[Place]:
    async with a_place(tmp_path, played) as place:
        yield place


@pytest.fixture
def clock(played: Played) -> FrozenClock:
    assert isinstance(played.core.clock, FrozenClock)
    return played.core.clock


async def come_back(browser: httpx.AsyncClient, token: str) -> httpx.Response:
    return await browser.get("/area/return", params={"token": token})


async def is_outside(browser: httpx.AsyncClient) -> bool:
    answer = await browser.get("/area")
    return "/area/enter" in answer.text and "María" not in answer.text and "4567" not in answer.text


async def gets_nothing(place: Place, browser: httpx.AsyncClient, token: str) -> None:
    before = await place.rows(area_sessions)
    answer = await come_back(browser, token)
    assert answer.status_code == 403
    assert "You are not logged in" in answer.text
    assert SESSION_COOKIE not in browser.cookies
    assert await place.rows(area_sessions) == before
    assert await is_outside(browser)


async def test_a_citizen_comes_back_and_sees_their_own(place: Place) -> None:
    browser = await place.logged_in()
    answer = await browser.get("/area")
    assert "María Núñez Ibáñez" in answer.text
    assert "***4567**" in answer.text
    assert NIF not in answer.text
    assert "low security level" in answer.text
    assert list(browser.cookies) == [SESSION_COOKIE]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


async def test_cookies_are_for_this_host_only_and_no_script(place: Place) -> None:
    browser = place.browser()
    begun = await browser.get("/area/enter")
    token = await place.token(parse_qs(urlsplit(begun.headers["location"]).query)["nonce"][0])
    done = await come_back(browser, token)
    given = [value for answer in (begun, done) for value in answer.headers.get_list("set-cookie")]
    assert [value.split("=", 1)[0] for value in given] == [LOGIN_COOKIE, SESSION_COOKIE, LOGIN_COOKIE]
    for value in given:
        assert {"Path=/", "Secure", "HttpOnly", "SameSite=lax"} <= set(value.split("; "))
        assert "Domain" not in value
    assert "Max-Age=1200" in given[1]
    assert "Max-Age=0" in given[2]


async def test_the_gate_never_learns_what_the_cookie_holds(place: Place) -> None:
    browser = place.browser()
    nonce = await place.nonce(browser)
    assert nonce != browser.cookies[LOGIN_COOKIE]
    assert len({nonce, await place.nonce(browser), await place.nonce(place.browser())}) == 3


async def test_a_token_in_another_browser_gets_nothing(place: Place) -> None:
    browser, stranger, waiting = place.browser(), place.browser(), place.browser()
    token = await place.token(await place.nonce(browser))
    await place.nonce(waiting)
    await gets_nothing(place, stranger, token)
    await gets_nothing(place, waiting, token)
    # It was not used up by that.
    assert (await come_back(browser, token)).status_code == 303


async def forged(place: Place, token: str, header: dict[str, str] | None = None, **changes: object) -> str:
    """A token that the core really signs, with other claims."""
    claims, name = {**jws.unverified_claims(token), **changes}, {"typ": str(jws.unverified_header(token)["typ"])}
    return await sign_jws(place.played.vault, {**name, **(header or {})}, claims)


async def test_a_token_by_another_key_gets_nothing(place: Place) -> None:
    browser = place.browser()
    token = await place.token(await place.nonce(browser))
    signed = token.rpartition(".")[0].encode()
    stranger = ec.generate_private_key(ec.SECP256R1()).sign(signed, ec.ECDSA(hashes.SHA256()))
    for one in (jws.assemble(signed, stranger), f"{token}A", token[:-8], "x.y.z", "ñ", ""):
        await gets_nothing(place, browser, one)
    assert (await come_back(browser, token)).status_code == 303


async def test_a_token_of_the_core_for_something_else_gets_nothing(place: Place) -> None:
    browser = place.browser()
    nonce = await place.nonce(browser)
    token = await place.token(nonce)
    over = to_epoch_seconds(place.played.core.clock.now())
    for one in (
        await forged(place, token, aud="ayuntamiento"),
        await forged(place, token, nonce="nonce-of-a-stranger-2"),
        await forged(place, token, exp=over),
        await forged(place, token, iss="somebody"),
        await forged(place, token, header={"typ": "receipt+jwt"}),
    ):
        await gets_nothing(place, browser, one)
    assert await place.rows(area_nonces) == []
    assert (await come_back(browser, await forged(place, token))).status_code == 303


async def test_a_token_of_which_the_core_has_no_login_spends_the_nonce_and_gets_nothing(place: Place) -> None:
    browser = place.browser()
    token = await place.token(await place.nonce(browser))
    await place.played.execute(sa.delete(login_session))
    await gets_nothing(place, browser, token)
    assert len(await place.rows(area_nonces)) == 1


async def test_a_nonce_is_good_once(place: Place) -> None:
    browser = place.browser()
    nonce = await place.nonce(browser)
    cookie = browser.cookies[LOGIN_COOKIE]
    first, second = await place.token(nonce), await place.token(nonce)
    again = place.browser()
    again.cookies.set(LOGIN_COOKIE, cookie)
    assert (await come_back(browser, first)).status_code == 303
    for token in (first, second):
        await gets_nothing(place, again, token)
    assert "María" in (await browser.get("/area")).text


async def test_a_nonce_is_spent_before_the_core_is_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = place.browser()
    nonce = await place.nonce(browser)
    token = await place.token(nonce)

    async def gone(_client: AreaClient, _token: str, _nonce: str) -> None:
        assert [row["nonce"] for row in await place.rows(area_nonces)] == [nonce]
        raise DependencyUnavailable("the core went away")

    with monkeypatch.context() as patched:
        patched.setattr(AreaClient, "enter", gone)
        assert (await come_back(browser, token)).status_code == 503
    await gets_nothing(place, browser, token)


async def test_whoever_comes_too_late_gets_nothing(place: Place, clock: FrozenClock) -> None:
    browser = place.browser()
    token = await place.token(await place.nonce(browser))
    clock.advance(TOKEN_LIFE.total_seconds())
    await gets_nothing(place, browser, token)


async def test_a_session_is_over_after_its_time(place: Place, clock: FrozenClock) -> None:
    browser = await place.logged_in()
    clock.advance(SESSION_LIFE.total_seconds() - 1)
    assert "María" in (await browser.get("/area")).text
    clock.advance(1)
    answer = await browser.get("/area")
    assert "Your time here is over" in answer.text
    assert SESSION_COOKIE not in browser.cookies
    await place.sessions.purge()
    assert await place.rows(area_sessions) == []
    assert len(await place.rows(area_nonces)) == 1
    clock.advance(LOGIN_LIFE.total_seconds())
    await place.sessions.purge()
    assert await place.rows(area_nonces) == []


async def test_a_session_whose_login_the_core_has_no_more_is_over(place: Place) -> None:
    browser = await place.logged_in()
    await place.played.execute(sa.delete(login_session))
    assert await is_outside(browser)
    assert await place.rows(area_sessions) == []


async def test_what_the_edges_database_says_raises_nothing(place: Place) -> None:
    """No row there names a citizen or a level, and what it does name opens only in its own place."""
    mine, other = await place.logged_in(), await place.logged_in()
    first, second = await place.rows(area_sessions)
    assert set(first) == {"cookie_sha256", "key_sealed", "expires"}
    await place.execute(
        sa.update(area_sessions)
        .where(area_sessions.c.cookie_sha256 == first["cookie_sha256"])
        .values(key_sealed=second["key_sealed"])
    )
    answers = [(await browser.get("/area")).status_code for browser in (mine, other)]
    assert sorted(answers) == [200, 500]
    # Made longer there, it ends in the core all the same.
    await place.execute(sa.update(area_sessions).values(key_sealed=first["key_sealed"], expires=2**40))
    clock = place.played.core.clock
    assert isinstance(clock, FrozenClock)
    clock.advance(3600)
    for browser in (mine, other):
        assert "María" not in (await browser.get("/area")).text


async def test_a_cookie_that_somebody_made_up_opens_nothing(place: Place) -> None:
    session = (await place.logged_in()).cookies[SESSION_COOKIE]
    (row,) = await place.rows(area_sessions)
    for value in ("", "low", "substantial", session[:-1], f"{session}.substantial", row["cookie_sha256"].hex()):
        browser = place.browser()
        browser.cookies.set(SESSION_COOKIE, value)
        assert await is_outside(browser), value


async def test_leaving_ends_the_session_here_and_in_the_core(place: Place) -> None:
    browser = await place.logged_in()
    kept = browser.cookies[SESSION_COOKIE]
    answer = await browser.post("/area/leave", headers={"Sec-Fetch-Site": "same-origin"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/area?left=true")
    assert "You have left your area" in (await browser.get("/area?left=true")).text
    browser.cookies.set(SESSION_COOKIE, kept)
    assert await is_outside(browser)
    (row,) = await place.played.rows(login_session)
    assert row["ended"] is not None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_no_other_site_makes_anybody_leave(place: Place, site: str) -> None:
    browser = await place.logged_in()
    answer = await browser.post("/area/leave", headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 403
    assert "María" in (await browser.get("/area")).text


async def test_another_login_in_the_same_browser_ends_the_one_before(place: Place) -> None:
    browser = await place.logged_in()
    before = browser.cookies[SESSION_COOKIE]
    assert (await come_back(browser, await place.token(await place.nonce(browser)))).status_code == 303
    assert browser.cookies[SESSION_COOKIE] != before
    assert [row["ended"] is None for row in await place.played.rows(login_session)].count(True) == 1
    assert len(await place.rows(area_sessions)) == 1


async def test_neither_cookie_nor_key_nor_token_lies_in_the_edges_database_or_log(place: Place, tmp_path: Path) -> None:
    browser = place.browser()
    with capture_logs() as lines:
        nonce = await place.nonce(browser)
        login = browser.cookies[LOGIN_COOKIE]
        token = await place.token(nonce)
        await come_back(browser, token)
        await browser.get("/area")
    (row,) = await place.played.rows(login_session)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("edge.db*"))
    written = repr(lines)
    assert nonce.encode() in stored
    assert "/area/return" in written
    for secret in (login, browser.cookies[SESSION_COOKIE], token, token.split(".")[1], str(row["id"])):
        assert secret.encode() not in stored
        assert secret not in written
    assert nonce not in written
