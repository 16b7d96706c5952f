"""What an officer signs: one action with all its fields, once, now. Both sides build these bytes, none parses them."""

from collections.abc import Mapping
from enum import StrEnum

from domain import canonical

NONCE_SIZE_BYTES = 16
CONDITIONS_VERSION = "2026-11"
"""The conditions of use that citizens accept today; their words are the press's template of that name."""


class OfficerAction(StrEnum):
    """Actions of officers; part of what is signed."""

    REGISTER = "register"
    RENEW = "renew"


def officer_statement(
    officer_id: str, action: OfficerAction, issued: int, nonce: bytes, fields: Mapping[str, str]
) -> bytes:
    """The octets that the officer's key signs (ECDSA P-256 over their SHA-256).

    Args:
        officer_id: Who signs.
        action: What is to be done.
        issued: Seconds since 1970 by the officer's clock.
        nonce: 16 random bytes, good once.
        fields: Everything that was typed, by the name of the field in the request.
    """
    pairs = [[name, value] for name, value in sorted(fields.items())]
    return canonical.encode("rubrica/1/officer", officer_id, action.value, issued, nonce, pairs)
