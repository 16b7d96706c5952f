"""What a new password must be: the preset ``clave``."""

import unicodedata

from domain.errors import WeakPassword

SHORTEST = 8
SHORTEST_FREE = 16
LONGEST = 128
CLASSES_NEEDED = 3
SHORTEST_NAME = 3
"""Shorter names would forbid too much."""


def normalise(password: str) -> str:
    """NFKC, as page, client and core all do before sealing or stretching."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, personal: tuple[str, ...]) -> None:
    """Refuse a weak password.

    Args:
        password: NFKC-normalised.
        personal: Names, surnames and NIF; none may be part of it.

    Raises:
        WeakPassword: The detail names the rule.
    """
    if len(password) > LONGEST:
        raise WeakPassword(f"the password must have at most {LONGEST} characters")
    if len(password) < SHORTEST:
        raise WeakPassword(f"the password must have at least {SHORTEST} characters")
    if len(password) < SHORTEST_FREE and len({_kind(symbol) for symbol in password}) < CLASSES_NEEDED:
        raise WeakPassword(
            f"a password shorter than {SHORTEST_FREE} characters needs three of: lower case, upper case, digits, signs"
        )
    folded = _fold(password)
    for name in personal:
        if len(name) >= SHORTEST_NAME and _fold(name) in folded:
            raise WeakPassword("the password must not contain your name, surnames or NIF")


def _kind(symbol: str) -> str:
    if symbol.islower():
        return "lower"
    if symbol.isupper():
        return "upper"
    return "digit" if symbol.isdigit() else "sign"


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(symbol for symbol in decomposed if symbol.isalnum())
