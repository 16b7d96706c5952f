"""A digest never travels without its algorithm."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from domain.errors import MalformedRequest


class DigestAlgorithm(StrEnum):
    """Hash functions in use (ETSI TS 119 312); SHA-1 is not among them."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    @property
    def size_bytes(self) -> int:
        """Length of a digest."""
        return hashlib.new(self.value).digest_size


@dataclass(frozen=True, slots=True)
class Digest:
    """A hash value with its algorithm: of a document, or of the data to be signed (EN 419 241-1: DTBS/R)."""

    algorithm: DigestAlgorithm
    value: bytes
    """Exactly ``algorithm.size_bytes`` long."""

    def __post_init__(self) -> None:
        if len(self.value) != self.algorithm.size_bytes:
            raise MalformedRequest(f"a {self.algorithm} digest has {self.algorithm.size_bytes} bytes")

    @classmethod
    def of(cls, data: bytes, algorithm: DigestAlgorithm = DigestAlgorithm.SHA256) -> "Digest":
        """Hash ``data``."""
        return cls(algorithm, hashlib.new(algorithm.value, data).digest())
