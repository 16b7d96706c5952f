"""A core whose checkpoints fall behind signs nothing, keeps the approval, and goes on when they have caught up."""

from datetime import timedelta

import pytest

from domain.errors import LogUnavailable
from tests.testkit.core import playing
from tests.testkit.time import FrozenClock


@pytest.mark.parametrize(
    "limits",
    [
        {"log_age_limit": timedelta(seconds=60), "log_backlog_limit": 10**9},
        {"log_age_limit": timedelta(days=1), "log_backlog_limit": 20},
    ],
)
async def test_no_log_no_signature(tmp_path, limits):
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock, **limits) as played:
        sequencer = played.core.sequencer
        assert await sequencer.take_over("core")
        await played.activate(await played.register())
        await sequencer.step()
        _, sad = await played.approved(1)
        await played.sign(sad, (0,))
        if limits["log_backlog_limit"] < 10**9:
            for _ in range(20):
                await played.stage()
                await played.begin(await played.stage())
        clock.advance(61)
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                await played.sign(sad, (1,))
        assert [leaf["facts"]["item"] for leaf in await played.leaves("INTENT")] == [0]
        await sequencer.step()
        await played.sign(sad, (1,))
        assert [leaf["facts"]["item"] for leaf in await played.leaves("COMPLETE")] == [1]
        checkpoint = await sequencer.step()
        assert checkpoint.size == len(await played.leaves())
