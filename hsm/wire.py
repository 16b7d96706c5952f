"""What the pool and its workers say to each other: frames of u32 length and CBOR with plain values only.

A worker is asked ``[operation, argument, …]`` and answers ``["ok", value]`` or ``["failed", kind, message]``. Before
its first question it says ``["ok", {key: newest version}]`` or fails.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import cbor2

LENGTH_BYTES = 4

Value: TypeAlias = "int | str | bytes | Sequence[Value] | Mapping[str, Value] | None"


class Readable(Protocol):
    """A blocking stream."""

    def read(self, size: int, /) -> bytes:
        """Exactly ``size`` bytes, or fewer at the end."""
        ...


def to_frame(message: list[Value]) -> bytes:
    """Length and body, ready to be sent."""
    body = cbor2.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def from_body(body: bytes) -> list[Value]:
    """Undo ``to_frame``, less the length.

    Raises:
        ValueError: The body is not a list in CBOR.
    """
    try:
        message = cbor2.loads(body)
    except cbor2.CBORDecodeError as exc:
        raise ValueError("a message is not CBOR") from exc
    if not isinstance(message, list):
        raise ValueError("a message is a list")  # noqa: TRY004 - the value comes from another process
    return message


def read_message(stream: Readable) -> list[Value] | None:
    """The next message; ``None`` when the other side is gone."""
    length = stream.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    size = int.from_bytes(length, "big")
    body = stream.read(size)
    return from_body(body) if len(body) == size else None
