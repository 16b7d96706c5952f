"""One PKCS#11 session, in this process and this thread.

python-pkcs11 initialises the module without locking, so a process that holds a ``Token`` runs PKCS#11 in one thread
only: HSM workers and the PKI do, nobody else imports this module.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeAlias

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from pkcs11 import Attribute, GCMParams, Mechanism, ObjectClass
from pkcs11.constants import DEFAULT
from pkcs11.exceptions import PKCS11Error

from domain.algorithms import KeyType
from domain.canonical import Part, encode
from hsm.cryptoki import Cryptoki
from hsm.errors import FaultySignature, HSMRefused, InventoryMismatch, SessionLost
from hsm.inventory import (
    KEY_WRAP,
    OF_EARLIER_VERSION,
    P256_PARAMETERS,
    added_later,
    audit,
    keys_of,
    unwrap_template,
)
from hsm.keys import (
    WRAPPED_BYTES,
    Inventory,
    KeyPair,
    MACKey,
    SealingKey,
    SigningKey,
    TokenKey,
    WrappingKey,
)
from hsm.lock import token_lock
from hsm.session import log_in
from hsm.settings import TokenSettings

GCM_NONCE_BYTES = 12
GCM_TAG_BITS = 128
DIGEST_BYTES = 32
COORDINATE_BYTES = 32
RSA_BITS = 3072

_GENERATE_ATTEMPTS = 40

# DigestInfo of SHA-256, RFC 8017 section 9.2 note 1: the digest follows.
_SHA256_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
_SHA256 = Prehashed(hashes.SHA256())

# These say nothing about the input: the token, the session or the login is gone.
_SESSION_ERRORS = (
    pkcs11.DeviceError,
    pkcs11.DeviceMemory,
    pkcs11.DeviceRemoved,
    pkcs11.HostMemory,
    pkcs11.SessionClosed,
    pkcs11.SessionHandleInvalid,
    pkcs11.TokenNotPresent,
    pkcs11.UserNotLoggedIn,
)

# python-pkcs11 makes the class of an object from its attributes, beyond what types can say.
Key: TypeAlias = Any
CitizenKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class Token:
    """The operations of ``hsm.vault.Vault``, synchronously, for one thread."""

    def __init__(self, session: pkcs11.Session, cryptoki: Cryptoki, inventory: Inventory, module: Path) -> None:
        self._session = session
        self._cryptoki = cryptoki
        self._module = module
        self._inventory = inventory
        self._versions: dict[TokenKey, int] = {}
        self._keys: dict[tuple[str, ObjectClass], Key] = {}
        self._curve = session.create_domain_parameters(
            pkcs11.KeyType.EC, {Attribute.EC_PARAMS: P256_PARAMETERS}, local=True
        )

    @classmethod
    def connect(cls, settings: TokenSettings, inventory: Inventory) -> Self:
        """Log in and check every key of the token against the inventory.

        Start-ups on one token wait for one another. The PIN is tried once.

        Raises:
            TokenUnavailable: No such module, token or PIN file.
            PINRefused: The token refused the PIN.
            InventoryMismatch: A key or attribute is not as it must be.
        """
        with token_lock(settings.pin_file):
            session = log_in(settings)
            token = cls(session, Cryptoki(settings.module), inventory, settings.module)
            try:
                token.check()
            except BaseException:
                token.close()
                raise
        return token

    def close(self) -> None:
        """Log out and unload the module."""
        with suppress(PKCS11Error):
            self._session.close()
        pkcs11.unload(str(self._module))

    def check(self) -> None:
        """Audit every key, then prove what attributes only promise.

        Raises:
            InventoryMismatch: Names each key and attribute that is off.
        """
        specs = keys_of(self._inventory)
        findings = audit(self._session, self._cryptoki, specs)
        if findings:
            if added_later(self._session, self._cryptoki, self._inventory):
                findings.append(OF_EARLIER_VERSION)
            raise InventoryMismatch("; ".join(findings))
        self._versions = {spec.name: spec.version for spec in specs}
        classes = {spec.label: [item.object_class for item in spec.objects] for spec in specs}
        self._keys = {
            (label, object_class): self._session.get_key(label=label, object_class=object_class)
            for label, of_key in classes.items()
            for object_class in of_key
        }
        for spec in specs:
            match spec.name:
                case WrappingKey():
                    self._prove_unwrap_template(spec.name)
                case SigningKey():
                    self._prove_pair(spec.name)

    def current_version(self, key: TokenKey) -> int:
        """The newest version of ``key`` on the token.

        Raises:
            HSMRefused: This token has no such key.
        """
        try:
            return self._versions[key]
        except KeyError:
            raise HSMRefused(f"the token has no key {key}") from None

    def versions(self) -> dict[TokenKey, int]:
        """The newest version of each key."""
        return dict(self._versions)

    def mac(self, key: MACKey, *parts: Part, version: int | None = None) -> bytes:
        """H(k, a, b, …): HMAC-SHA256 over the canonical encoding of ``parts``; 32 bytes."""
        return self.mac_encoded(key, encode(*parts), version=version)

    def mac_encoded(self, key: MACKey, message: bytes, *, version: int | None = None) -> bytes:
        """HMAC-SHA256 over ``message`` as it is; 32 bytes."""
        handle = self._key(key, ObjectClass.SECRET_KEY, version)
        with _own_keys():
            return bytes(handle.sign(message, mechanism=Mechanism.SHA256_HMAC))

    def random(self, size_bytes: int) -> bytes:
        """Random bytes from the token."""
        with _own_keys():
            return self._session.generate_random(size_bytes * 8)

    def generate(self, kek: WrappingKey, key_type: KeyType) -> KeyPair:
        """Make a key pair, wrap the private half under the newest ``kek``, destroy it.

        A quarter of all RSA keys have a shorter encoding, because a number in them happens to be small. They are thrown
        away: the length of a blob must be that of its key type.

        Raises:
            HSMRefused: This token wraps keys to another length.
        """
        for _ in range(_GENERATE_ATTEMPTS):
            pair = self._generate(kek, key_type)
            if len(pair.wrapped) == WRAPPED_BYTES[key_type]:
                return pair
        raise HSMRefused(f"this token does not wrap {key_type} keys to {WRAPPED_BYTES[key_type]} bytes")

    def _generate(self, kek: WrappingKey, key_type: KeyType) -> KeyPair:
        wrapping_key = self._key(kek, ObjectClass.SECRET_KEY, None)
        private_template = {
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            # The first of the two exceptions to "not extractable": it must be, to be wrapped.
            Attribute.EXTRACTABLE: True,
            Attribute.SIGN: kek is WrappingKey.CITIZEN,
            Attribute.DERIVE: kek is WrappingKey.SAP,
            Attribute.DECRYPT: False,
            Attribute.UNWRAP: False,
            Attribute.SIGN_RECOVER: False,
            Attribute.COPYABLE: False,
            Attribute.MODIFIABLE: False,
        }
        with _own_keys():
            if key_type is KeyType.P256:
                public, private = self._curve.generate_keypair(store=False, private_template=private_template)
            else:
                public, private = self._session.generate_keypair(
                    pkcs11.KeyType.RSA, RSA_BITS, store=False, private_template=private_template
                )
        try:
            with _own_keys():
                wrapped = wrapping_key.wrap_key(private, mechanism=KEY_WRAP)
                return KeyPair(wrapped=bytes(wrapped), spki=_spki(public))
        finally:
            _destroy(private)
            _destroy(public)

    def sign(self, wrapped: bytes, spki: bytes, digests: Sequence[bytes], *, kek_version: int) -> list[bytes]:
        """Unwrap a citizen's key, sign each SHA-256 digest, destroy the key, verify every signature.

        Raises:
            HSMRefused: The blob was tampered with, belongs to another KEK or does not fit ``spki``.
            FaultySignature: A signature does not verify under ``spki``; none is returned.
            ValueError: ``spki`` is no P-256 or RSA-3072 key, or a digest is not 32 bytes long.
        """
        public_key = _citizen_key(spki)
        _require_digests(digests)
        key = self._unwrap(WrappingKey.CITIZEN, kek_version, wrapped, public_key)
        try:
            with _strangers_input("sign with this key"):
                signatures = [self._sign_raw(key, public_key, digest) for digest in digests]
        finally:
            _destroy(key)
        return [_verified(public_key, digest, signature) for digest, signature in zip(digests, signatures, strict=True)]

    def sign_with(self, key: SigningKey, digest: bytes) -> bytes:
        """ECDSA (DER) of a SHA-256 digest by a key of the token, verified.

        Raises:
            FaultySignature: The signature does not verify under the token's public key.
            ValueError: The digest is not 32 bytes long.
        """
        _require_digests([digest])
        handle = self._key(key, ObjectClass.PRIVATE_KEY, None)
        public_key = _citizen_key(self.public_key(key))
        with _own_keys():
            signature = self._sign_raw(handle, public_key, digest)
        return _verified(public_key, digest, signature)

    def public_key(self, key: SigningKey) -> bytes:
        """SubjectPublicKeyInfo (DER) of a key of the token."""
        handle = self._key(key, ObjectClass.PUBLIC_KEY, None)
        with _own_keys():
            return _spki(handle)

    def agree(self, wrapped: bytes, peer_point: bytes, *, kek_version: int) -> bytes:
        """ECDH on P-256 with a wrapped SAP key; 32 bytes.

        The secret is the second exception to "not extractable": a session value, read once and destroyed.

        Raises:
            HSMRefused: The blob was tampered with or belongs to another KEK.
            ValueError: ``peer_point`` is not an uncompressed point of the curve. SoftHSM answers the same general error
                to that as to its own faults, so it is checked here.
        """
        if len(peer_point) != 1 + 2 * COORDINATE_BYTES:
            raise ValueError("the peer's key must be an uncompressed point of P-256")
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), peer_point)
        key = self._unwrap(WrappingKey.SAP, kek_version, wrapped, peer)
        try:
            with _strangers_input("agree with this key"):
                secret = key.derive_key(
                    pkcs11.KeyType.GENERIC_SECRET,
                    COORDINATE_BYTES * 8,
                    mechanism=Mechanism.ECDH1_DERIVE,
                    mechanism_param=(pkcs11.KDF.NULL, None, peer_point),
                    template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, **_NO_USE},
                )
        finally:
            _destroy(key)
        try:
            with _own_keys():
                return bytes(secret[Attribute.VALUE])
        finally:
            _destroy(secret)

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """AES-256-GCM inside the HSM under the newest ``K_col``: nonce (12) ‖ ciphertext ‖ tag (16).

        Raises:
            ValueError: ``associated_data`` is empty; SoftHSM misbehaves without any.
        """
        nonce = self.random(GCM_NONCE_BYTES)
        parameters = _gcm(nonce, associated_data)
        handle = self._key(SealingKey.COLUMNS, ObjectClass.SECRET_KEY, None)
        with _own_keys():
            sealed = handle.encrypt(plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
        return nonce + bytes(sealed)

    def open(self, sealed: bytes, associated_data: bytes, *, version: int) -> bytes:
        """Undo ``seal``.

        Raises:
            HSMRefused: Anything was changed.
            ValueError: ``associated_data`` is empty.
        """
        parameters = _gcm(sealed[:GCM_NONCE_BYTES], associated_data)
        if len(sealed) < GCM_NONCE_BYTES + GCM_TAG_BITS // 8:
            raise HSMRefused("a sealed value is too short")
        handle = self._key(SealingKey.COLUMNS, ObjectClass.SECRET_KEY, version)
        with _strangers_input("open this value"):
            plaintext = handle.decrypt(
                sealed[GCM_NONCE_BYTES:], mechanism=Mechanism.AES_GCM, mechanism_param=parameters
            )
        return bytes(plaintext)

    def _key(self, name: TokenKey, object_class: ObjectClass, version: int | None) -> Key:
        label = f"{name}_{self.current_version(name) if version is None else version}"
        try:
            return self._keys[label, object_class]
        except KeyError:
            raise HSMRefused(f"the token has no key {label}") from None

    def _unwrap(self, kek: WrappingKey, version: int, wrapped: bytes, public_key: CitizenKey) -> Key:
        wrapping_key = self._key(kek, ObjectClass.SECRET_KEY, version)
        is_ec = isinstance(public_key, ec.EllipticCurvePublicKey)
        signing = Mechanism.ECDSA if is_ec else Mechanism.RSA_PKCS
        allowed = signing if kek is WrappingKey.CITIZEN else Mechanism.ECDH1_DERIVE
        template = {
            **unwrap_template(kek),
            Attribute.PRIVATE: True,
            # python-pkcs11 would add these, which no private key has.
            **dict.fromkeys((Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP), DEFAULT),
            Attribute.ALLOWED_MECHANISMS: (allowed,),
            Attribute.COPYABLE: False,
            Attribute.MODIFIABLE: False,
        }
        key_type = pkcs11.KeyType.EC if is_ec else pkcs11.KeyType.RSA
        try:
            return wrapping_key.unwrap_key(
                ObjectClass.PRIVATE_KEY, key_type, wrapped, mechanism=KEY_WRAP, template=template
            )
        except _SESSION_ERRORS as exc:
            raise SessionLost("the token is gone") from exc
        except PKCS11Error as exc:
            # A failed unwrap is only a general error: a MAC tells a tampered blob from a token that fails altogether.
            self.mac_encoded(MACKey.ROW, b"alive")
            raise HSMRefused("the token refused to unwrap the key") from exc

    def _sign_raw(self, key: Key, public_key: CitizenKey, digest: bytes) -> bytes:
        if isinstance(public_key, rsa.RSAPublicKey):
            return bytes(key.sign(_SHA256_DIGEST_INFO + digest, mechanism=Mechanism.RSA_PKCS))
        raw = bytes(key.sign(digest, mechanism=Mechanism.ECDSA))
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def _prove_unwrap_template(self, kek: WrappingKey) -> None:
        pair = self.generate(kek, KeyType.P256)
        label = f"{kek}_{self.current_version(kek)}"
        wrapping_key = self._key(kek, ObjectClass.SECRET_KEY, None)
        evil = {
            **unwrap_template(kek),
            Attribute.EXTRACTABLE: True,
            **dict.fromkeys((Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP), DEFAULT),
        }
        with suppress(pkcs11.TemplateInconsistent):
            key = wrapping_key.unwrap_key(
                ObjectClass.PRIVATE_KEY, pkcs11.KeyType.EC, pair.wrapped, mechanism=KEY_WRAP, template=evil
            )
            _destroy(key)
            raise InventoryMismatch(f"{label}: CKA_UNWRAP_TEMPLATE is not enforced, an unwrapped key may be read out")
        key = self._unwrap(kek, self.current_version(kek), pair.wrapped, _citizen_key(pair.spki))
        try:
            if not key[Attribute.SENSITIVE] or key[Attribute.EXTRACTABLE]:
                raise InventoryMismatch(f"{label}: an unwrapped key is not sensitive, or extractable")
        finally:
            _destroy(key)

    def _prove_pair(self, name: SigningKey) -> None:
        try:
            self.sign_with(name, self.random(DIGEST_BYTES))
        except FaultySignature as exc:
            raise InventoryMismatch(f"{name}: the public key is not that of the private key") from exc


_NO_USE = dict.fromkeys(
    (
        Attribute.ENCRYPT,
        Attribute.DECRYPT,
        Attribute.SIGN,
        Attribute.VERIFY,
        Attribute.WRAP,
        Attribute.UNWRAP,
        Attribute.DERIVE,
    ),
    False,
)


@contextmanager
def _own_keys() -> Iterator[None]:
    """Around operations that no stranger's input can make fail: what fails is the token."""
    try:
        yield
    except PKCS11Error as exc:
        raise SessionLost(f"the token failed ({type(exc).__name__})") from exc


@contextmanager
def _strangers_input(action: str) -> Iterator[None]:
    """Around operations that fail when the input is not what this token once made."""
    try:
        yield
    except _SESSION_ERRORS as exc:
        raise SessionLost(f"the token failed ({type(exc).__name__})") from exc
    except PKCS11Error as exc:
        raise HSMRefused(f"the token refused to {action}") from exc


def _destroy(key: Key) -> None:
    try:
        key.destroy()
    except PKCS11Error as exc:
        # Closing the session takes the key with it.
        raise SessionLost("a session key could not be destroyed") from exc


def _gcm(nonce: bytes, associated_data: bytes) -> GCMParams:
    if not associated_data:
        raise ValueError("associated data must always be given")
    return GCMParams(nonce, associated_data, GCM_TAG_BITS)


def _spki(public: Key) -> bytes:
    key: CitizenKey
    if public[Attribute.KEY_TYPE] is pkcs11.KeyType.EC:
        # CKA_EC_POINT is the point within an OCTET STRING (PKCS#11 v2.40, section 2.3.3): two bytes of header on P-256.
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public[Attribute.EC_POINT][2:])
    else:
        modulus, exponent = public[Attribute.MODULUS], public[Attribute.PUBLIC_EXPONENT]
        key = rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _citizen_key(spki: bytes) -> CitizenKey:
    key = serialization.load_der_public_key(spki)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == RSA_BITS:
        return key
    raise ValueError("only P-256 and RSA-3072 keys sign here")


def _require_digests(digests: Sequence[bytes]) -> None:
    if any(len(digest) != DIGEST_BYTES for digest in digests):
        raise ValueError(f"a SHA-256 digest has {DIGEST_BYTES} bytes")


def _verified(public_key: CitizenKey, digest: bytes, signature: bytes) -> bytes:
    try:
        if isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(signature, digest, padding.PKCS1v15(), _SHA256)
        else:
            public_key.verify(signature, digest, ec.ECDSA(_SHA256))
    except InvalidSignature as exc:
        raise FaultySignature("the token's signature does not verify; it is not released") from exc
    return signature
