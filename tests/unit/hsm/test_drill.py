"""A sample of the long campaigns, through the same functions."""

from pathlib import Path

import pytest

from tests.drill.hsm import kill_under_load, sign_at_once, verifies
from tests.testkit.softhsm import core_token
from tests.testkit.token_acts import act


async def test_eight_clients_at_once(tmp_path: Path) -> None:
    result = await sign_at_once(core_token(tmp_path), seed=3, each=40)
    assert result["held"], result
    assert (result["right"], result["restarts"]) == (320, 0)


async def test_workers_killed_under_load(tmp_path: Path) -> None:
    result = await kill_under_load(core_token(tmp_path), seed=3, kills=5)
    assert result["held"], result


async def test_campaign_notices_a_token_that_is_not_right(tmp_path: Path) -> None:
    settings = core_token(tmp_path)
    act(settings, "destroy", "KEK_1")
    with pytest.raises(Exception, match="KEK_1"):
        await sign_at_once(settings, seed=3, each=1)


def test_campaign_does_not_take_any_bytes_for_a_signature(tmp_path: Path) -> None:
    outcome = act(core_token(tmp_path), "one_signature")
    spki, digest, signature = (bytes.fromhex(outcome[name]) for name in ("spki", "digest", "signature"))
    assert verifies(spki, digest, signature)
    assert not verifies(spki, digest[:-1] + bytes([digest[-1] ^ 1]), signature)
    assert not verifies(spki, digest, signature[:-1] + bytes([signature[-1] ^ 1]))
