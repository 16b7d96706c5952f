"""A block of codes is told once: a leaf in the log and an SMS, whoever caused it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authn.messages.outbox import message
from authn.otp.budget import WRONG_IN_A_ROW
from authn.otp.rows import OTP_TRIES
from domain.clock import to_epoch_seconds
from domain.errors import FactorMismatch
from tests.testkit.core import Played, playing
from tests.testkit.pin import PINVisitor
from tests.testkit.time import FrozenClock

ROUNDS = WRONG_IN_A_ROW // OTP_TRIES
OTHER = "87654321X"
PAUSE_SECONDS = 6 * 60
"""Between PINs, so that the budget of messages is not what stops them."""


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    async with playing(tmp_path, clock=FrozenClock()) as played:
        await played.register()
        yield played


@pytest.fixture
def clock(played: Played) -> FrozenClock:
    assert isinstance(played.core.clock, FrozenClock)
    return played.core.clock


async def fail(played: Played, clock: FrozenClock, rounds: int = ROUNDS) -> None:
    visitor = PINVisitor(played)
    for _ in range(rounds):
        begun = await visitor.begin()
        for _ in range(OTP_TRIES):
            with pytest.raises(FactorMismatch):
                await visitor.complete(begun, "222222")
        clock.advance(PAUSE_SECONDS)


async def notices(played: Played) -> list[str]:
    return [str(row["id"]) for row in await played.rows(message) if str(row["id"]).endswith("-block")]


async def test_a_block_is_told_once(played: Played, clock: FrozenClock) -> None:
    await fail(played, clock)
    for _ in range(3):
        await played.core.code_notices.tell()
    (leaf,) = await played.leaves("LOCK")
    (failed, *_) = await played.leaves("AUTH_FAIL")
    assert leaf["pid"] == failed["pid"]
    (notice,) = await notices(played)
    await played.handed_over(notice)
    phone, text = played.phone.messages[notice]
    assert phone == "+34612345678"
    # An hour from the end of the last PIN, which has ten minutes and was sent six minutes ago.
    assert "64 min" in text
    assert "#" not in text
    assert leaf["facts"] == {
        "purpose": "pin",
        "cid": notice.removesuffix("-block"),
        "until": to_epoch_seconds(clock.now()) + 64 * 60,
    }


async def test_fewer_failures_or_a_right_one_between_are_no_block(played: Played, clock: FrozenClock) -> None:
    await fail(played, clock, ROUNDS - 1)
    await played.core.code_notices.tell()
    await PINVisitor(played).log_in()
    await fail(played, clock, 1)
    await played.core.code_notices.tell()
    assert await played.leaves("LOCK") == []
    assert await notices(played) == []


async def test_who_asks_during_a_block_is_not_told_again_and_the_next_block_is(
    played: Played, clock: FrozenClock
) -> None:
    await fail(played, clock)
    await played.core.code_notices.tell()
    await fail(played, clock, 2)
    await played.core.code_notices.tell()
    assert len(await notices(played)) == 1
    clock.advance(70 * 60)
    await fail(played, clock, 1)
    await played.core.code_notices.tell()
    assert len(await notices(played)) == len(await played.leaves("LOCK")) == 2


async def test_a_pin_that_was_open_already_prolongs_the_same_block(played: Played, clock: FrozenClock) -> None:
    await fail(played, clock, ROUNDS - 1)
    visitor = PINVisitor(played)
    first, second = await visitor.begin(), await visitor.begin()
    for _ in range(OTP_TRIES):
        with pytest.raises(FactorMismatch):
            await visitor.complete(first, "222222")
    await played.core.code_notices.tell()
    clock.advance(60)
    with pytest.raises(FactorMismatch):
        await visitor.complete(second, "222222")
    await played.core.code_notices.tell()
    assert len(await notices(played)) == len(await played.leaves("LOCK")) == 1


async def test_a_block_of_codes_that_sign_is_told_too_and_is_no_block_of_pins(
    played: Played, clock: FrozenClock
) -> None:
    await played.activate(await played.register(nif=OTHER, phone="+34687654321"), nif=OTHER)
    staged = await played.stage()
    for _ in range(ROUNDS):
        clock.advance(10)
        begun = await played.begin(staged, nif=OTHER)
        right = await played.otp(begun.challenge_id)
        for _ in range(OTP_TRIES):
            with pytest.raises(FactorMismatch):
                await played.complete(staged, begun, f"{(int(right) + 1) % 10**6:06d}")
    for _ in range(3):
        await played.core.code_notices.tell()
    (leaf,) = await played.leaves("LOCK")
    (notice,) = await notices(played)
    assert leaf["facts"] == {
        "purpose": "sign",
        "cid": begun.challenge_id,
        "until": to_epoch_seconds(begun.expires) + 24 * 3600,
    }
    await played.handed_over(notice)
    phone, text = played.phone.messages[notice]
    assert phone == "+34687654321"
    assert "Su firma queda bloqueada 1445 min" in text
    assert await PINVisitor(played).log_in()
