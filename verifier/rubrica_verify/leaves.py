"""Leaves: deterministic CBOR (RFC 8949 §4.2) of version 1, with ids, digests and codes, and no personal data."""

import re
from dataclasses import dataclass
from typing import Any

import cbor2

VERSION = 1
_MEMBERS = {"v", "id", "tag", "time", "pid", "facts"}
_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_TAG = re.compile(r"[A-Z_]{1,16}")
_PID_SIZE_BYTES = 32
_FACTS = (str, int, bytes, type(None))


class LeafRefused(Exception):
    """Not a leaf of this version's form."""


class UnknownVersion(Exception):
    """A leaf that a newer verifier has to read."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a leaf says."""

    id: str
    tag: str
    time: int
    """Milliseconds since 1970, UTC."""
    pid: bytes | None
    facts: dict[str, Any]


def is_id(text: str) -> bool:
    """Whether this could be a leaf's id."""
    return _ID.fullmatch(text) is not None


def read_leaf(encoded: bytes) -> Leaf:
    """Read a leaf.

    Types of events that this verifier does not know are read like all others: newer services write them.

    Raises:
        LeafRefused: Malformed, or not encoded deterministically.
        UnknownVersion: Its version is another.
    """
    try:
        content = cbor2.loads(
            encoded, max_depth=3, allow_indefinite=False, allow_duplicate_keys=False, strict_hashable_types=True
        )
        again = cbor2.dumps(content, canonical=True)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise LeafRefused("it is no CBOR") from error
    # Canonical as RFC 7049 §3.9 orders keys; for keys that are short texts RFC 8949 §4.2.1 orders them the same.
    if again != encoded:
        raise LeafRefused("its CBOR is not deterministic")
    if type(content) is not dict or type(content.get("v")) is not int:
        raise LeafRefused("it has no version")
    if content["v"] != VERSION:
        raise UnknownVersion(f"version {content['v']}")
    if content.keys() != _MEMBERS:
        raise LeafRefused("its members are others")
    leaf_id, tag, time, pid, facts = (content[name] for name in ("id", "tag", "time", "pid", "facts"))
    if (
        type(leaf_id) is not str
        or not _ID.fullmatch(leaf_id)
        or type(tag) is not str
        or not _TAG.fullmatch(tag)
        or type(time) is not int
        or not 0 <= time < 1 << 48
        or not (pid is None or (type(pid) is bytes and len(pid) == _PID_SIZE_BYTES))
    ):
        raise LeafRefused("id, tag, time or pid is malformed")
    if type(facts) is not dict:
        raise LeafRefused("its facts are none")
    for name, value in facts.items():
        if type(name) is not str or type(value) not in _FACTS:
            raise LeafRefused("a fact is neither text, number, octets nor nothing")
    return Leaf(leaf_id, tag, time, pid, facts)
