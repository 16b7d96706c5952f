"""Codes read from paper: what is taken for one, and what is not."""

import pytest

from domain.codes import CODE_SYMBOLS, draw_code, grouped, is_code, normalise_code
from domain.ids import BASE32


def test_look_alikes_are_read_as_what_codes_have() -> None:
    code = draw_code(lambda size: bytes(size - 1) + b"\x01")
    assert set("01") <= set(code)
    for typed in (code.replace("0", "O"), code.replace("1", "I"), code.replace("1", "l"), grouped(code).lower()):
        assert normalise_code(typed) == code


@pytest.mark.parametrize("place", range(CODE_SYMBOLS))
def test_any_one_symbol_changed_is_seen(place: int) -> None:
    code = draw_code()
    assert is_code(code)
    for symbol in set(BASE32) - {code[place]}:
        assert not is_code(code[:place] + symbol + code[place + 1 :])


@pytest.mark.parametrize("typed", ["", "0", "U" * 17, "ñ" * 17, "0" * 16, "0" * 18, "²" * 17])
def test_what_is_no_code(typed: str) -> None:
    assert not is_code(normalise_code(typed))
