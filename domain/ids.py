"""Names of things. What people see is base32 without look-alikes (Crockford's); reference codes are letters only."""

import secrets
from collections.abc import Callable
from typing import NewType

RequestId = NewType("RequestId", str)
CitizenId = NewType("CitizenId", str)
CredentialId = NewType("CredentialId", str)
ChallengeId = NewType("ChallengeId", str)
ClientId = NewType("ClientId", str)
EventId = NewType("EventId", str)

BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's alphabet: no I, L, O, U."""

ID_SIZE_SYMBOLS = 26

REFERENCE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""24 letters; I and O are left out."""

Randomness = Callable[[int], bytes]
"""Gives that many random bytes."""


def new_id(randomness: Randomness = secrets.token_bytes) -> str:
    """128 random bits in 26 symbols that survive being read aloud."""
    return base32(randomness(16))


def is_id(text: str) -> bool:
    """Whether ``text`` could be one of ``new_id``'s: what strangers send is looked at before it reaches the log."""
    return len(text) == ID_SIZE_SYMBOLS and set(text) <= set(BASE32)


def base32(data: bytes) -> str:
    """Encode ``data`` in symbols of five bits each, most significant first, the last one padded with zero bits."""
    bits = len(data) * 8
    symbols = -(-bits // 5)
    number = int.from_bytes(data, "big") << (symbols * 5 - bits)
    return "".join(BASE32[number >> (5 * place) & 31] for place in reversed(range(symbols)))


def reference_code(binding: bytes) -> str:
    """Six letters from a binding: the same on the citizen's screen and in the SMS, so that both can be compared."""
    number = int.from_bytes(binding[:8], "big")
    letters = ""
    for _ in range(6):
        number, place = divmod(number, len(REFERENCE_LETTERS))
        letters += REFERENCE_LETTERS[place]
    return letters
