"""Codes that people read from paper: activation codes, and the CSV under which a paper is found again."""

import secrets

from stdnum.exceptions import ValidationError
from stdnum.iso7064 import mod_37_36

from domain.ids import BASE32, Randomness, base32

CODE_ENTROPY_BYTES = 10
CODE_SYMBOLS = 17
"""16 that hold 80 bits, and the check symbol."""
_LOOK_ALIKES = str.maketrans("OIL", "011")
"""What no code has, and people read for what it has (Crockford's base 32)."""


def draw_code(randomness: Randomness = secrets.token_bytes) -> str:
    """80 bits in 16 symbols, and a check symbol (ISO/IEC 7064 mod 37,36 over our alphabet)."""
    symbols = base32(randomness(CODE_ENTROPY_BYTES))
    return symbols + str(mod_37_36.calc_check_digit(symbols, BASE32))


def grouped(code: str) -> str:
    """With hyphens, as printed."""
    return "-".join((code[:4], code[4:8], code[8:12], code[12:]))


def normalise_code(typed: str) -> str:
    """Upper case, without hyphens and spaces, and with O, I and L for the digits that they look like."""
    return "".join(symbol for symbol in typed.upper() if symbol.isalnum()).translate(_LOOK_ALIKES)


def is_code(normalised: str) -> bool:
    """Whether these are the symbols of a code, and its check symbol is right; says nothing about there being one."""
    try:
        mod_37_36.validate(normalised, BASE32)
    except (ValidationError, ValueError):
        return False
    return len(normalised) == CODE_SYMBOLS
