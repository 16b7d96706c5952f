"""What a citizen approves: the canonical list (HL) of items, hashed alike by page, client and core.

Byte formats: ``docs/protocol.md``; vectors: ``items.json`` and ``references.json`` in ``tests/vectors/``.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from domain import canonical
from domain.algorithms import KeyType, SignatureAlgorithm
from domain.digests import Digest
from domain.errors import MalformedRequest

TITLE_LIMIT_CHARACTERS = 120


class Purpose(StrEnum):
    """What the key is used for."""

    CERTIFICATE = "certificate"
    SIGN = "sign"


class SignatureFormat(StrEnum):
    """Formats that the core builds."""

    PADES = "pades"
    XADES = "xades"


class Packaging(StrEnum):
    """Where the signature lies with respect to what it signs."""

    ENVELOPED = "enveloped"
    ENVELOPING = "enveloping"
    DETACHED = "detached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What an XML signature refers to (XML Signature 1.1 §4.4.3), less the reference to its own properties."""

    uri: str
    type: str = ""
    transforms: tuple[str, ...] = ()
    """Algorithm names, in the order in which they are applied."""
    digest: Digest

    def parts(self) -> tuple[canonical.Part, ...]:
        """The reference as canonical parts."""
        return (self.uri, self.type, self.transforms, self.digest.algorithm.value, self.digest.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of the list: one use of the key."""

    purpose: Purpose
    algorithm: str
    """A ``SignatureAlgorithm``; for a certificate the ``KeyType``."""
    format: str = ""
    packaging: str = ""
    digests: tuple[Digest, ...] = ()
    references: tuple[Reference, ...] = ()
    """In place of bare digests, where the format is XAdES."""
    title: str = ""
    """What the citizen is shown; at most 120 characters."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Signature fields from which the core builds what is signed; names from a closed list per format."""

    def __post_init__(self) -> None:
        if len(self.title) > TITLE_LIMIT_CHARACTERS:
            raise MalformedRequest(f"a title has at most {TITLE_LIMIT_CHARACTERS} characters")
        if self.digests and self.references:
            raise MalformedRequest("an item has digests or references, not both")

    @property
    def key_type(self) -> KeyType:
        """The key type that this item needs."""
        if self.purpose is Purpose.CERTIFICATE:
            return KeyType(self.algorithm)
        return SignatureAlgorithm(self.algorithm).key_type

    @property
    def document_digests(self) -> tuple[Digest, ...]:
        """What stands for the document, however it is referred to."""
        return self.digests or tuple(reference.digest for reference in self.references)

    def parts(self) -> tuple[canonical.Part, ...]:
        """The item as canonical parts."""
        return (
            self.purpose.value,
            self.format,
            self.packaging,
            self.algorithm,
            [
                *(part for digest in self.digests for part in (digest.algorithm.value, digest.value)),
                *(part for reference in self.references for part in reference.parts()),
            ],
            self.title,
            fields_sha256(self.fields),
        )


def certificate_item(key_type: KeyType) -> Item:
    """Item 0: a certificate, if the citizen has no valid one of this key type."""
    return Item(purpose=Purpose.CERTIFICATE, algorithm=key_type.value)


def fields_sha256(fields: Mapping[str, str]) -> bytes:
    """SHA-256 of the canonical signature fields: (name, value) pairs in order of name."""
    return canonical.sha256([part for name in sorted(fields) for part in (name, fields[name])])


def encode_list(items: Sequence[Item]) -> bytes:
    """HL: the count, then each item's parts."""
    return len(items).to_bytes(4, "big") + b"".join(canonical.encode(*item.parts()) for item in items)


def list_sha256(items: Sequence[Item]) -> bytes:
    """SHA-256(HL), the name of exactly this list."""
    return hashlib.sha256(encode_list(items)).digest()
