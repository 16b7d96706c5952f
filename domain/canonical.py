"""The one byte encoding behind every hash, binding and associated data.

u32 big-endian length, then the bytes, for each part. Text is UTF-8 in NFC, an integer eight bytes big-endian, a list
its count (u32) and then its parts, an absent optional part the length 0xFFFFFFFF. Vectors:
``tests/vectors/canonical.json``.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

Part: TypeAlias = "bytes | str | int | Sequence[Part] | None"

ABSENT = b"\xff\xff\xff\xff"


def encode(*parts: Part) -> bytes:
    """Encode ``parts`` one after another; no two different sequences of parts give the same bytes of one shape.

    Raises:
        ValueError: An integer is negative or over 64 bits, or a part is too long for its length field.
    """
    return b"".join(_encode_part(part) for part in parts)


def sha256(*parts: Part) -> bytes:
    """SHA-256 of ``encode(*parts)``."""
    return hashlib.sha256(encode(*parts)).digest()


def decode(data: bytes, count: int) -> list[bytes | None]:
    """Split ``data`` into exactly ``count`` byte parts (``None`` for an absent one).

    Raises:
        ValueError: ``data`` is not exactly that many parts.
    """
    parts: list[bytes | None] = []
    offset = 0
    for _ in range(count):
        length = data[offset : offset + 4]
        if len(length) != 4:  # noqa: PLR2004 - a u32
            raise ValueError("the encoding ends early")
        offset += 4
        if length == ABSENT:
            parts.append(None)
            continue
        size = int.from_bytes(length, "big")
        if offset + size > len(data):
            raise ValueError("the encoding ends early")
        parts.append(data[offset : offset + size])
        offset += size
    if offset != len(data):
        raise ValueError("the encoding goes on after its last part")
    return parts


def _encode_part(part: Part) -> bytes:
    match part:
        case None:
            return ABSENT
        case bytes():
            return _length(len(part)) + part
        case str():
            text = unicodedata.normalize("NFC", part).encode()
            return _length(len(text)) + text
        case int():
            if not 0 <= part < 1 << 64:
                raise ValueError("an integer must fit eight bytes")
            return _length(8) + part.to_bytes(8, "big")
        case _:
            return len(part).to_bytes(4, "big") + b"".join(_encode_part(inner) for inner in part)


def _length(size: int) -> bytes:
    if size >= int.from_bytes(ABSENT, "big"):
        raise ValueError("a part must be shorter than the mark of an absent one")
    return size.to_bytes(4, "big")
