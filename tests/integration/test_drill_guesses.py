"""A sample of the campaign of guesses, through the same functions."""

from pathlib import Path
from unittest import mock

import pytest

from authn.lockout import Attempts
from authn.otp.challenges import OTPChallenges
from tests.drill.guesses import codes, passwords


@pytest.mark.parametrize("options", [{"cores": 2}, {"seconds": 0.1}], ids=["two cores", "hanging up"])
async def test_three_codes_are_tested_then_the_right_one_is_refused(tmp_path: Path, options: dict[str, int]) -> None:
    result = await codes(tmp_path, 7, guesses=60, **options)
    assert result["held"], result


@pytest.mark.parametrize(
    "options",
    [{"cores": 2}, {"seconds": 0.3}, {"right_ones": 1}],
    ids=["two cores", "hanging up", "a right one among them"],
)
async def test_five_passwords_are_tested_and_then_the_right_one_sends_nothing(
    tmp_path: Path, options: dict[str, int]
) -> None:
    result = await passwords(tmp_path, 7, guesses=40, **options)
    assert result["held"], result


async def test_the_campaign_notices_a_core_that_tests_without_reserving(tmp_path: Path) -> None:
    async def never_less(*_: object) -> tuple[int, bool]:
        return 2, False

    with mock.patch.object(OTPChallenges, "_reserve", never_less):
        result = await codes(tmp_path, 7, guesses=20)
    assert not result["held"]
    assert result["tested"] > 3


async def test_the_campaign_notices_a_core_that_never_blocks(tmp_path: Path) -> None:
    with mock.patch.object(Attempts, "is_blocked", return_value=False):
        result = await passwords(tmp_path, 7, guesses=20)
    assert not result["held"]
    assert result["tested"] > 5
