"""A sample of the campaign of mutations, and blind verifiers that the same judge must find out."""

from pathlib import Path
from unittest import mock

import pytest

from rubrica_verify.full import FullVerification
from rubrica_verify.invariants import Invariants
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


@pytest.mark.parametrize("blind", ["_compare_kept", "_compare_tile", "_agreed_leaves"])
async def test_the_judge_finds_out_a_verifier_that_looks_away(tmp_path: Path, blind: str) -> None:
    sees = getattr(FullVerification, blind)

    def looks_away(self: FullVerification, *arguments: object) -> object:
        if blind != "_agreed_leaves":
            return None
        # Reads whatever is there and asks nobody whether it belongs there.
        with mock.patch.object(self.folder, "copies", side_effect=lambda _: iter(())):
            return sees(self, *arguments)

    with mock.patch.object(FullVerification, blind, looks_away), mock.patch.object(Invariants, "conclude"):
        result = await mutations(tmp_path, 12, count=2 * len(MUTATIONS), bases=2)
    assert not result["held"]
