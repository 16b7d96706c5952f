"""Key types and signature algorithms that a citizen's credential may have."""

from enum import StrEnum

from domain.digests import DigestAlgorithm
from domain.errors import AlgorithmNotAllowed


class KeyType(StrEnum):
    """P-256 by default; RSA-3072 where an agency's software needs RSA."""

    P256 = "P-256"
    RSA3072 = "RSA-3072"


class SignatureAlgorithm(StrEnum):
    """Named as in JOSE (RFC 7518)."""

    ES256 = "ES256"
    RS256 = "RS256"

    @property
    def key_type(self) -> KeyType:
        """The only key type that makes this signature here."""
        return {SignatureAlgorithm.ES256: KeyType.P256, SignatureAlgorithm.RS256: KeyType.RSA3072}[self]

    @property
    def digest_algorithm(self) -> DigestAlgorithm:
        """The hash that goes with it."""
        return DigestAlgorithm.SHA256

    @classmethod
    def parse(cls, name: str) -> "SignatureAlgorithm":
        """Read a name from outside.

        Raises:
            AlgorithmNotAllowed: Not one of ours.
        """
        try:
            return cls(name)
        except ValueError:
            raise AlgorithmNotAllowed(f"the algorithm must be one of {', '.join(cls)}") from None
