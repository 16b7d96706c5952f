"""Wrong codes count however they are spread over challenges, and messages are counted per citizen."""

import pytest

from authn.messages.outbox import message
from authn.otp.budget import SMS_MESSAGES, WRONG_IN_A_ROW
from domain.errors import FactorMismatch
from tests.testkit.core import playing
from tests.testkit.time import FrozenClock


@pytest.fixture
def clock():
    return FrozenClock()


async def guess(played, begun, staged, times):
    for _ in range(times):
        with pytest.raises(FactorMismatch):
            await played.complete(staged, begun, "000000")


async def sent(played, begun):
    (row,) = [row for row in await played.rows(message) if row["id"] == begun.challenge_id]
    return row["state"] != "VOID"


async def test_two_guesses_a_challenge_end_at_fifteen(tmp_path, clock):
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        tried = 0
        for _ in range(30):
            staged = await played.stage()
            begun = await played.begin(staged)
            if not await sent(played, begun):
                break
            await guess(played, begun, staged, 2)
            tried += 2
            clock.advance(60)
        assert WRONG_IN_A_ROW <= tried <= WRONG_IN_A_ROW + 1
        assert (await played.leaves("AUTH_FAIL"))[-1]["facts"]["reason"] == "blocked"
        # Whoever has the right password is told the same, and gets nowhere, for a day.
        staged = await played.stage()
        begun = await played.begin(staged)
        with pytest.raises(AssertionError, match="no SMS"):
            await played.otp(begun.challenge_id)
        clock.advance(24 * 3600 + 300)
        staged = await played.stage()
        await played.complete(staged, await played.begin(staged))


async def test_a_right_code_ends_the_run(tmp_path, clock):
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        for _ in range(3):
            for _ in range(7):
                staged = await played.stage()
                begun = await played.begin(staged)
                await guess(played, begun, staged, 2)
                clock.advance(60)
            staged = await played.stage()
            await played.complete(staged, await played.begin(staged))
            clock.advance(60)


async def test_whoever_finds_a_receipt_cannot_guess_for_ever_either(tmp_path, clock):
    async with playing(tmp_path, clock=clock) as played:
        code = await played.register()
        tried = 0
        for _ in range(30):
            begun = await played.activation_begin(code)
            if not await sent(played, begun):
                break
            for _ in range(2):
                with pytest.raises(FactorMismatch):
                    await played.activation_token(begun, otp="000000")
            tried += 2
            clock.advance(60)
        assert WRONG_IN_A_ROW <= tried <= WRONG_IN_A_ROW + 1


async def test_messages_are_counted_per_citizen(tmp_path, clock):
    async with playing(tmp_path, clock=clock, sms_budget=SMS_MESSAGES) as played:
        await played.activate(await played.register())  # one message
        clock.advance(86400)
        states = [await sent(played, await played.begin(await played.stage())) for _ in range(5)]
        assert states == [True, True, True, False, False]
        clock.advance(15 * 60)
        assert await sent(played, await played.begin(await played.stage()))
        # Another citizen has a budget of their own.
        await played.activate(await played.register(nif="87654321X", phone="+34687654321"), nif="87654321X")


async def test_over_budget_not_even_the_code_that_was_drawn_opens(tmp_path, clock, monkeypatch):
    async with playing(tmp_path, clock=clock, sms_budget=SMS_MESSAGES) as played:
        await played.activate(await played.register())
        drawn = []
        write = played.core.activation._texts.sign

        def spy(self, **said: str):
            del self
            drawn.append(said["otp"])
            return write(**said)

        monkeypatch.setattr(type(played.core.activation._texts), "sign", spy)
        clock.advance(86400)
        stagings = [await played.stage() for _ in range(4)]
        begun = [await played.begin(staged) for staged in stagings]
        with pytest.raises(FactorMismatch):
            await played.complete(stagings[3], begun[3], drawn[3])
        await played.complete(stagings[2], begun[2], drawn[2])


@pytest.mark.parametrize(("wrong", "opens"), [(WRONG_IN_A_ROW - 1, True), (WRONG_IN_A_ROW, False)])
async def test_codes_sent_before_the_block_are_not_tried_after_it(tmp_path, clock, wrong, opens):
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        open_before = []
        for _ in range(6):
            staged = await played.stage()
            open_before.append((staged, await played.begin(staged)))
        for staged, begun in [each for each in open_before[:5] for _ in range(3)][:wrong]:
            await guess(played, begun, staged, 1)
        staged, begun = open_before[5]
        if opens:
            await played.complete(staged, begun)
            return
        # The answer is that of a wrong code: whether the password was right stays unsaid.
        with pytest.raises(FactorMismatch, match="2 tries left"):
            await played.complete(staged, begun)
        assert (await played.leaves("AUTH_FAIL"))[-1]["facts"]["reason"] == "blocked"
        assert await played.leaves("SIGN") == []
