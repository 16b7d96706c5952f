"""The demo citizen's file: what is read from it, and that nothing is believed of a broken one."""

import json

import pytest

from rubrica.newcomer import Citizen, Newcomer

FIELDS = {
    "nif": "00000000T",
    "phone": "+34600000000",
    "email": "ana@example.org",
    "activation_code": "ABCD-EFGH",
    "officer": "demo-a",
    "registered": "2026-11-22T10:00:00+00:00",
}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "newcomer").mkdir()
    return tmp_path / "newcomer" / "citizen.json"


def test_the_same_citizen_comes_out_and_shows_nothing_by_accident(file, tmp_path):
    file.write_text(json.dumps(FIELDS))

    known = Newcomer.read(tmp_path)

    assert known == Newcomer(folder=tmp_path / "newcomer", **FIELDS)
    assert known.receipt == tmp_path / "newcomer" / "receipt.pdf"
    for name in ("nif", "phone", "email", "activation_code"):
        assert FIELDS[name] not in repr(known)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        json.dumps({name: value for name, value in FIELDS.items() if name != "officer"}),
        json.dumps({**FIELDS, "extra": 1}),
    ],
)
def test_a_broken_file_is_none(file, tmp_path, text):
    file.write_text(text)

    assert Newcomer.read(tmp_path) is None


def test_a_state_without_one_has_none(tmp_path):
    assert Newcomer.read(tmp_path) is None


def test_those_drawn_are_valid_and_differ():
    drawn = [Citizen.draw() for _ in range(200)]

    assert len({citizen.nif for citizen in drawn}) == len(drawn)
    for citizen in drawn:
        assert citizen.nif[8] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(citizen.nif[:8]) % 23]
        assert len(citizen.phone) == len("+34600000000")
