"""Budgets of PINs on PostgreSQL, where transactions run side by side."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from authn.otp.challenges import otp_challenge
from authn.sessions import login_session
from tests.testkit.core import playing
from tests.testkit.pin import PINVisitor
from tests.testkit.postgres import postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


async def test_a_login_and_those_who_ask_at_once(server: str, tmp_path: Path) -> None:
    async with playing(tmp_path, database_url=server) as played:
        await played.register()
        visitor = PINVisitor(played)
        assert await visitor.log_in()
        assert len(await played.rows(login_session)) == 1
        await asyncio.gather(*(visitor.begin() for _ in range(8)))
        # Three messages in a quarter of an hour, the first one among them.
        assert Counter(row["real"] for row in await played.rows(otp_challenge)) == {True: 3, False: 6}
