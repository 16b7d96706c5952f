"""PINs and what they lead to on PostgreSQL, where transactions run side by side."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from authn.otp.budget import WRONG_IN_A_ROW, CodeBudget, rules
from authn.otp.rows import OTP_TRIES, OTPPurpose, otp_challenge
from authn.registration.citizens import citizen
from authn.sessions import OpenSession, login_session
from domain.errors import RequestExpired
from domain.ids import CitizenId
from signer.requests import StagedRequest
from tests.testkit.core import Played, playing
from tests.testkit.pin import NONCE, PINVisitor
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
        await _one_token_opens_one_session(played)
        await _a_block_is_told_once_by_several(played)


async def _one_token_opens_one_session(played: Played) -> None:
    """Its citizen is another one, for the first has no messages left."""
    nif = "87654321X"
    await played.activate(await played.register(nif=nif, phone="+34687654321"), nif=nif)
    visitor = PINVisitor(played)
    begun = await visitor.begin(nif=nif)
    token = await visitor.complete(begun, await visitor.pin(begun))
    _, code = await _approved(played, nif)
    await played.sign(code)
    area = played.core.area
    outcomes = await asyncio.gather(*(area.enter(token, NONCE) for _ in range(6)), return_exceptions=True)
    (opened,) = [outcome for outcome in outcomes if isinstance(outcome, OpenSession)]
    assert [type(outcome) for outcome in outcomes].count(RequestExpired) == 5
    shown = await area.show(opened.key)
    assert shown.masked_nif == "***5432**"
    assert [(use.documents, use.titles) for use in shown.uses] == [(1, ["Solicitud 1"])]
    assert [held.state for held in shown.certificates] == ["ACTIVE"]


async def _approved(played: Played, nif: str) -> tuple[StagedRequest, bytes]:
    staged = await played.stage()
    begun = await played.begin(staged, nif=nif)
    return staged, await played.redeem(staged, await played.complete(staged, begun))


async def _a_block_is_told_once_by_several(played: Played) -> None:
    pins = [str(row["citizen_id"]) for row in await played.rows(otp_challenge) if row["purpose"] == "pin"]
    ((who, count),) = Counter(pins).most_common(1)
    assert OTP_TRIES * count >= WRONG_IN_A_ROW
    mine = sa.and_(otp_challenge.c.citizen_id == who, otp_challenge.c.purpose == "pin")
    # As if each had been sent and had three wrong tries.
    await played.execute(sa.update(otp_challenge).where(mine).values(real=True, left=0, state="DEAD"))
    await asyncio.gather(*(played.core.code_notices.tell() for _ in range(4)))
    assert len(await played.leaves("LOCK")) == 1


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
