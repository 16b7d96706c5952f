"""A sample of the campaign of mutations, and blind verifiers that the same judge must find out."""

from pathlib import Path
from unittest import mock

import pytest

from tests.drill.mutations import MUTATIONS, mutations

COUNT = 60


async def test_every_mutation_is_detected_and_nothing_else_is(tmp_path: Path) -> None:
    result = await mutations(tmp_path, 11, count=COUNT, bases=4)
    assert result["held"], result
    assert result["detected"] == result["mutations"] == COUNT
    assert len(result["by class"]) == len(MUTATIONS)
    assert result["sound logs"] >= 4
    # A history of good form is told from the known one by the checkpoint that was kept, not by its own faults.
    assert result["told as"]["fork: database"]["fork"] == result["by class"]["fork: database"]["tampered"]


@pytest.mark.parametrize(
    ("blind", "missed"),
    [
        ("rubrica_verify.full.FullVerification._compare_kept", ("fork", "database")),
        ("rubrica_verify.full.FullVerification._compare_tile", ("edit", "tiles")),
        ("rubrica_verify.note._check", ("wrong key", "checkpoint")),
    ],
)
async def test_the_judge_finds_out_a_verifier_that_looks_away(
    tmp_path: Path, blind: str, missed: tuple[str, str]
) -> None:
    with mock.patch(blind):
        result = await mutations(tmp_path, 12, count=12, bases=1, only={missed: MUTATIONS[missed]})
    assert not result["held"]
    assert result["false alarms"] == 0
    assert result["by class"][": ".join(missed)]["sound"] > 0
