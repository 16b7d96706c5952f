"""Messages between an edge and the child that parses for it: JSON, read by the types of ``documents.model`` only.

The child has met hostile bytes, so nothing it says is unpickled or evaluated; every field is checked against its type.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from domain.errors import RubricaError

T = TypeVar("T")

HEADER_BYTES = 4
"""Every message begins with its length, u32 big-endian."""


class WireFault(Exception):
    """The other side sent something that is not a message of this protocol."""


def frame(message: Mapping[str, Any]) -> bytes:
    """``message`` as JSON behind its length."""
    body = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode()
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def message_of(body: bytes) -> dict[str, Any]:
    """The message without its length.

    Raises:
        WireFault: Not a JSON object.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireFault("not JSON") from error
    if not isinstance(found, dict):
        raise WireFault("not an object")
    return found


def to_plain(value: Any) -> Any:  # noqa: PLR0911 - one return per type
    """A value of the model as JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_plain(getattr(value, one.name)) for one in fields(value)}
    match value:
        case Enum():
            return value.value
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.isoformat()
        case tuple() | list():
            return [to_plain(one) for one in value]
        case Mapping():
            return {key: to_plain(one) for key, one in value.items()}
        case str() | int() | bool() | None:
            return value
        case _:
            raise TypeError(f"{type(value).__name__} does not travel")


def from_plain(kind: type[T], value: Any) -> T:
    """Read ``value`` back as ``kind``.

    Raises:
        WireFault: It is none.
    """
    try:
        found: T = _read(kind, value)
    except WireFault:
        raise
    except (ValueError, TypeError, RubricaError) as error:
        raise WireFault(f"not a {getattr(kind, '__name__', kind)}") from error
    return found


def _read(kind: Any, value: Any) -> Any:  # noqa: PLR0911 - one return per type
    origin = get_origin(kind)
    if origin is UnionType:
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        return None if value is None else _read(inner, value)
    if origin is tuple:
        inner, _ = get_args(kind)
        return tuple(_read(inner, one) for one in _exactly(list, value))
    if origin is not None and issubclass(origin, Mapping):
        _, inner = get_args(kind)
        return {_exactly(str, key): _read(inner, one) for key, one in _exactly(dict, value).items()}
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        given = _exactly(dict, value)
        if given.keys() != hints.keys():
            raise WireFault("other fields than expected")
        return kind(**{name: _read(hint, given[name]) for name, hint in hints.items()})  # type: ignore[operator]
    if issubclass(kind, Enum):
        return kind(_exactly(str, value))
    if kind is bytes:
        return base64.b64decode(_exactly(str, value), validate=True)
    if kind is datetime:
        return datetime.fromisoformat(_exactly(str, value))
    return _exactly(kind, value)


def _exactly(kind: Any, value: Any) -> Any:
    if type(value) is not kind:
        raise WireFault(f"not a {kind.__name__}")
    return value
