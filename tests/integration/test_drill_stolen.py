"""Everything stolen while an approval is open: where each way of the attacker ends, by the name of the seal."""

from pathlib import Path

import pytest

from tests.drill.stolen import Phase, theft

HELD = {
    Phase.BEGUN: {"right code, cs guessed": "seal otp", "right code, cs of zeros": "seal otp"},
    Phase.COMPLETED: {
        "code with guessed": "seal code",
        "code with its stored hash": "seal code",
        "stored answer": "seal answer",
    },
    Phase.REDEEMED: {
        "parked with guessed": "seal parked",
        "parked with its stored hash": "seal parked",
        "stored answer": "seal answer",
    },
}
ALWAYS = {"unwrap every blob": "unwrap refused", "guess V": "seal key", "guess the password": "seal pw"}


@pytest.mark.parametrize("phase", Phase)
async def test_whoever_steals_everything_fails_at_a_named_seal(tmp_path: Path, phase: Phase) -> None:
    result = await theft(tmp_path, 5, phase, certified=phase is not Phase.COMPLETED)
    # Each way opens once its one missing secret is given: the attacker's arithmetic is right.
    assert set(result["controls"].values()) == {"signed"}
    assert {**ALWAYS, **HELD[phase]} == result["insider"]
    # The password makes him a real one; without the HSM not even that helps.
    assert {**ALWAYS, **HELD[phase], "the password": "signed"} == result["insider_with_password"]
    assert {**ALWAYS, **HELD[phase], "the password": "seal pw"} == result["database_thief_with_password"]
    assert result["held"]
