"""Keys of the PKI's token, in the shape that cryptography's builders sign with."""

import hashlib
from typing import NoReturn, Protocol, Self, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm.keys import SigningKey

Buffer: TypeAlias = "bytes | bytearray | memoryview[int]"


class Token(Protocol):
    """What the PKI needs of a token; called from one thread only."""

    def sign_with(self, key: SigningKey, digest: bytes) -> bytes:
        """ECDSA (DER) of a SHA-256 digest."""
        ...

    def public_key(self, key: SigningKey) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        ...

    def random(self, size_bytes: int) -> bytes:
        """Random bytes."""
        ...


class TokenKey(ec.EllipticCurvePrivateKey):
    """A P-256 key that stays on the token: it signs SHA-256 with ECDSA, and nothing else can be had of it."""

    def __init__(self, token: Token, name: SigningKey) -> None:
        public = load_der_public_key(token.public_key(name))
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise TypeError(f"the token's key {name} is not on P-256")
        self._token = token
        self._name = name
        self._public = public

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """ECDSA over the SHA-256 of ``data``; DER.

        Raises:
            ValueError: Another hash was asked for.
        """
        if not isinstance(signature_algorithm.algorithm, hashes.SHA256):
            raise ValueError("keys of the PKI sign SHA-256 only")  # noqa: TRY004 - the value, not the type, is refused
        return self.sign_sha256(data)

    def sign_sha256(self, data: Buffer) -> bytes:
        """ECDSA over the SHA-256 of ``data``; DER."""
        return self._token.sign_with(self._name, hashlib.sha256(data).digest())

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """In bits."""
        return self._public.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Not allowed by the key's attributes."""
        raise NotImplementedError("a signing key")

    def private_numbers(self) -> NoReturn:
        """They never leave the token."""
        raise NotImplementedError("the private half stays on the token")

    def private_bytes(self, encoding: object, format: object, encryption_algorithm: object) -> NoReturn:  # noqa: A002 - the base class's name
        """They never leave the token."""
        raise NotImplementedError("the private half stays on the token")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self
