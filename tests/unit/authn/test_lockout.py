import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authn.lockout import FOREVER, Attempts
from authn.messages.outbox import MessageState, message
from tests.testkit.core import playing
from tests.testkit.time import FrozenClock

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def failed(count):
    attempts, now = Attempts(), NOW
    for _ in range(count):
        while attempts.is_blocked(now):
            now += timedelta(hours=1)
        attempts = attempts.reserve(now)
    return attempts, now


def test_the_fifth_failure_blocks_for_a_quarter_of_an_hour():
    attempts, _ = failed(4)
    assert not attempts.is_blocked(NOW)
    attempts = attempts.reserve(NOW)
    assert attempts.is_blocked(NOW + timedelta(minutes=14, seconds=59))
    assert not attempts.is_blocked(NOW + timedelta(minutes=15))
    with pytest.raises(ValueError, match="blocked"):
        attempts.reserve(NOW)


def test_blocks_grow_and_the_twentieth_failure_is_for_good():
    lengths = []
    for count in (5, 10, 15):
        attempts, now = failed(count)
        lengths.append(attempts.blocked_until - now)
    assert [timedelta(minutes=15), timedelta(hours=1), timedelta(hours=24)] == lengths
    attempts, now = failed(20)
    assert attempts.blocked_until == FOREVER
    assert attempts.is_blocked(now + timedelta(days=3650))


def test_a_right_fifth_attempt_unblocks():
    attempts, _ = failed(5)
    attempts = attempts.forgive(5)
    assert not attempts.is_blocked(NOW)
    assert attempts.failures == 0


def test_a_success_forgives_nothing_that_was_reserved_after_it():
    attempts, _ = failed(4)
    attempts = attempts.forgive(1)
    assert attempts.failures == 3
    attempts = attempts.reserve(NOW).reserve(NOW)
    assert attempts.is_blocked(NOW)


@given(st.lists(st.booleans(), max_size=60))
def test_never_more_than_five_untested_or_wrong_attempts_in_a_row(outcomes):
    attempts, tested = Attempts(), 0
    for right in outcomes:
        if attempts.is_blocked(NOW):
            break
        attempts = attempts.reserve(NOW)
        tested += 1
        if right:
            attempts, tested = attempts.forgive(attempts.reserved), 0
        assert tested <= 5


async def test_a_blocked_citizen_is_told_once_per_block(tmp_path):
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        for _ in range(7):
            await played.begin(await played.stage(), password="Equivocada-9")
        for _ in range(3):
            await played.core.notices.tell()
        (locked,) = await played.leaves("LOCK")
        assert locked["facts"]["until"] == int((clock.now() + timedelta(minutes=15)).timestamp())
        texts = await notices(played)
        assert ["15 min" in text for text in texts] == [True]
        for length in (3600, 86400, None):
            clock.advance(seconds=length or 86400)
            for _ in range(5):
                await played.begin(await played.stage(), password="Equivocada-9")
            await played.core.notices.tell()
        assert [
            next(word for word in ("15 min", "60 min", "1440 min", "oficina") if word in text)
            for text in await notices(played)
        ] == ["15 min", "60 min", "1440 min", "oficina"]
        # Only somebody else's word ends the last block; the key is still there.
        clock.advance(seconds=10**9)
        begun = await played.begin(await played.stage())
        with pytest.raises(AssertionError, match="no SMS"):
            await played.otp(begun.challenge_id)


async def notices(played):
    while MessageState.WAITING.value in {row["state"] for row in await played.rows(message)}:
        await asyncio.sleep(0.01)
    return [text for name, (_, text) in played.phone.messages.items() if "-block-" in name]
