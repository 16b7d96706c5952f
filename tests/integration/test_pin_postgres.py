"""Budgets of PINs on PostgreSQL, where transactions run side by side."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from authn.otp.budget import CodeBudget, rules
from authn.otp.rows import OTPPurpose, otp_challenge
from authn.registration.citizens import citizen
from authn.sessions import login_session
from domain.ids import CitizenId
from tests.testkit.core import Played, playing
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
        await _the_second_waits_for_the_first(played)


async def _the_second_waits_for_the_first(played: Played) -> None:
    (who,) = [row["id"] for row in await played.rows(citizen)]
    budget, engine = CodeBudget(played.core.clock, rules()), played.core.engine

    async def ask() -> str | None:
        async with engine.begin() as connection:
            return await budget.refusal(connection, CitizenId(str(who)), OTPPurpose.PIN)

    async with engine.begin() as first:
        assert await budget.refusal(first, CitizenId(str(who)), OTPPurpose.PIN) == "messages"
        second = asyncio.create_task(ask())
        await asyncio.sleep(0.3)
        # Whoever counted now would not see the message that the first one is about to store.
        assert not second.done()
    assert await second == "messages"
