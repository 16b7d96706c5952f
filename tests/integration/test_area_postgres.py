"""Sessions of the citizens' area on PostgreSQL, where the same browser comes back twice at once."""

import asyncio
from collections import Counter
from pathlib import Path

from api.web.sessions import LOGIN_COOKIE, SESSION_COOKIE, area_nonces, area_sessions
from tests.testkit.core import playing
from tests.testkit.postgres import postgres
from tests.unit.api.test_area_pages import a_place, come_back


async def test_a_nonce_is_good_once_for_all_who_come_at_once(tmp_path: Path) -> None:
    with postgres() as url:
        async with playing(tmp_path) as played, a_place(tmp_path, played, url) as place:
            await played.register()
            browser = place.browser()
            nonce = await place.nonce(browser)
            tokens = [await place.token(nonce) for _ in range(2)]
            twins = [place.browser() for _ in range(6)]
            for twin in twins:
                twin.cookies.set(LOGIN_COOKIE, browser.cookies[LOGIN_COOKIE])
            answers = await asyncio.gather(*(come_back(twin, tokens[number % 2]) for number, twin in enumerate(twins)))
            assert Counter(answer.status_code for answer in answers) == {303: 1, 403: 5}
            (winner,) = [twin for twin in twins if SESSION_COOKIE in twin.cookies]
            assert "María" in (await winner.get("/area")).text
            assert len(await place.rows(area_sessions)) == len(await place.rows(area_nonces)) == 1
            await winner.post("/area/leave")
            assert await place.rows(area_sessions) == []
