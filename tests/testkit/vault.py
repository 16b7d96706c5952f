"""A vault in memory for unit tests: same answers as the token's, none of its protection."""

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from domain import canonical
from domain.algorithms import KeyType
from domain.canonical import Part
from domain.ids import Randomness
from hsm.errors import HSMError, HSMRefused
from hsm.keys import WRAPPED_BYTES, KeyPair, MACKey, SealingKey, SigningKey, WrappingKey
from hsm.vault import Priority

NONCE_SIZE_BYTES = 12
_PREHASHED = Prehashed(hashes.SHA256())
# PKCS#8 of a P-256 key without its public half, as a token wraps it: what follows are the 32 bytes of the scalar.
_P256_PKCS8_PREFIX = bytes.fromhex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420")


def _new_key(key_type: KeyType) -> tuple[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, bytes]:
    """A private key, and the PKCS#8 that is wrapped."""
    match key_type:
        case KeyType.P256:
            curve_key = ec.generate_private_key(ec.SECP256R1())
            return curve_key, _P256_PKCS8_PREFIX + curve_key.private_numbers().private_value.to_bytes(32, "big")
        case KeyType.RSA3072:
            rsa_key = rsa.generate_private_key(65537, 3072)
            return rsa_key, rsa_key.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )


class FakeVault:
    """``hsm.vault.Vault`` without an HSM. Counts calls by method name; ``fault`` makes every call fail."""

    def __init__(self, randomness: Randomness = secrets.token_bytes) -> None:
        self.calls: Counter[str] = Counter()
        self.fault: HSMError | None = None
        self._randomness = randomness
        self._versions: defaultdict[str, int] = defaultdict(lambda: 1)
        self._keys: dict[tuple[str, int], bytes] = {}
        self._pairs: dict[tuple[str, int], ec.EllipticCurvePrivateKey] = {}

    def __repr__(self) -> str:
        return "FakeVault()"

    def rotate(self, key: MACKey | WrappingKey | SealingKey | SigningKey) -> int:
        """Add a version of ``key``, as a ceremony would."""
        self._versions[key] += 1
        return self._versions[key]

    def current_version(self, key: MACKey | WrappingKey | SealingKey | SigningKey) -> int:
        return self._versions[key]

    async def mac(self, key: MACKey, *parts: Part, version: int | None = None) -> bytes:
        self._called("mac")
        authenticator = hmac.HMAC(self._key(key, version), hashes.SHA256())
        authenticator.update(canonical.encode(*parts))
        return authenticator.finalize()

    async def random(self, size_bytes: int) -> bytes:
        self._called("random")
        return self._randomness(size_bytes)

    async def generate(self, kek: WrappingKey, key_type: KeyType) -> KeyPair:
        self._called("generate")
        while True:
            private, plain = _new_key(key_type)
            wrapped = aes_key_wrap_with_padding(self._key(kek, None), plain)
            # One RSA key in four is a little shorter; the token discards these too.
            if len(wrapped) == WRAPPED_BYTES[key_type]:
                return KeyPair(wrapped=wrapped, spki=_spki(private.public_key()))

    async def sign(
        self,
        wrapped: bytes,
        spki: bytes,
        digests: Sequence[bytes],
        *,
        kek_version: int,
        priority: Priority = Priority.INTERACTIVE,  # noqa: ARG002 - there is no queue
        deadline_seconds: float = 10.0,  # noqa: ARG002 - nothing takes time
    ) -> list[bytes]:
        self._called("sign")
        private = self._unwrap(WrappingKey.CITIZEN, wrapped, kek_version)
        if _spki(private.public_key()) != spki:
            raise HSMRefused("the key is not that of the public key given")
        if isinstance(private, rsa.RSAPrivateKey):
            return [private.sign(digest, padding.PKCS1v15(), _PREHASHED) for digest in digests]
        return [private.sign(digest, ec.ECDSA(_PREHASHED)) for digest in digests]

    async def sign_with(self, key: SigningKey, digest: bytes) -> bytes:
        self._called("sign_with")
        return self._pair(key).sign(digest, ec.ECDSA(_PREHASHED))

    async def public_key(self, key: SigningKey) -> bytes:
        self._called("public_key")
        return _spki(self._pair(key).public_key())

    async def agree(self, wrapped: bytes, peer_point: bytes, *, kek_version: int) -> bytes:
        if len(peer_point) != 65:  # an uncompressed point of P-256; the constructor below would take a compressed one
            raise ValueError("not an uncompressed point of P-256")
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), peer_point)
        self._called("agree")
        private = self._unwrap(WrappingKey.SAP, wrapped, kek_version)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return private.exchange(ec.ECDH(), peer)

    async def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        self._called("seal")
        nonce = self._randomness(NONCE_SIZE_BYTES)
        return nonce + AESGCM(self._key(SealingKey.COLUMNS, None)).encrypt(nonce, plaintext, associated_data)

    async def open(self, sealed: bytes, associated_data: bytes, *, version: int) -> bytes:
        self._called("open")
        cipher = AESGCM(self._key(SealingKey.COLUMNS, version))
        try:
            return cipher.decrypt(sealed[:NONCE_SIZE_BYTES], sealed[NONCE_SIZE_BYTES:], associated_data)
        except (InvalidTag, ValueError):
            raise HSMRefused("the sealed value does not open") from None

    def _called(self, method: str) -> None:
        self.calls[method] += 1
        if self.fault is not None:
            raise self.fault

    def _key(self, key: MACKey | WrappingKey | SealingKey, version: int | None) -> bytes:
        wanted = self._versions[key] if version is None else version
        if not 1 <= wanted <= self._versions[key]:
            raise HSMRefused(f"no version {wanted} of {key}")
        return self._keys.setdefault((key, wanted), secrets.token_bytes(32))

    def _pair(self, key: SigningKey) -> ec.EllipticCurvePrivateKey:
        place = (key, self._versions[key])
        if place not in self._pairs:
            self._pairs[place] = ec.generate_private_key(ec.SECP256R1())
        return self._pairs[place]

    def _unwrap(self, kek: WrappingKey, wrapped: bytes, version: int) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
        try:
            plain = aes_key_unwrap_with_padding(self._key(kek, version), wrapped)
        except (InvalidUnwrap, ValueError):
            raise HSMRefused("the blob does not unwrap") from None
        private = serialization.load_der_private_key(plain, None)
        assert isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        return private


def _spki(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class AllAtOnce(FakeVault):
    """Seals for nobody before so many have asked: whoever starts together has then seen the same."""

    def __init__(self, cores: int) -> None:
        super().__init__()
        self._all_here = asyncio.Barrier(cores)

    async def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        await self._all_here.wait()
        return await super().seal(plaintext, associated_data)
