"""The development PKI for tests: in memory with software keys, or as a real process over a real token."""

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from certs import profiles
from certs.csr import assemble_csr, csr_to_be_signed
from certs.issuer import CitizenSubject, IssuedCertificate, RevocationReason
from certs.pki.authority import Authority
from certs.pki.keys import TokenKey
from certs.pki.ocsp import OCSPResponder
from certs.pki.storage import Storage, open_engine
from certs.pki.tsa import TimestampAuthority
from certs.profiles import PublicAddresses
from documents.model import FetchKind, TrustMaterial
from domain.algorithms import KeyType
from domain.clock import Clock, SystemClock
from domain.errors import TimestampUnavailable
from hsm.keys import SigningKey

DEMO_CITIZEN = CitizenSubject(nif="12345678Z", given_name="Begoña", first_surname="García", second_surname="Núñez")
IN_MEMORY_URL = "http://pki.test"

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class SoftwareToken:
    """The PKI's four keys in memory."""

    def __init__(self) -> None:
        names = (SigningKey.PKI_ROOT, SigningKey.PKI_CA, SigningKey.PKI_OCSP, SigningKey.PKI_TSA)
        self._keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in names}

    def sign_with(self, key: SigningKey, digest: bytes) -> bytes:
        return self._keys[key].sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))

    def public_key(self, key: SigningKey) -> bytes:
        return profiles.spki_of(self._keys[key].public_key())

    def random(self, size_bytes: int) -> bytes:
        return secrets.token_bytes(size_bytes)


@dataclass(frozen=True, slots=True)
class Certified:
    """A citizen's software key with its certificate."""

    key: PrivateKey
    key_type: KeyType
    issued: IssuedCertificate

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.issued.certificate)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The citizen's certificate, then the issuing CA's; DER, as ``SignatureParts.chain``."""
        return (self.issued.certificate, *self.issued.chain)

    def sign(self, data: bytes) -> bytes:
        """SHA-256 of ``data`` signed: ECDSA as DER, or PKCS#1 v1.5."""
        return sign_with(self.key, data)


class InMemoryPKI:
    """The real PKI code over software keys and a database in memory; no sockets.

    ``fetch`` is a ``documents.model.Fetch``. ``offline`` takes kinds away, as if that service were down.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        token = SoftwareToken()
        storage = Storage(open_engine("sqlite://"))
        self.addresses = PublicAddresses(IN_MEMORY_URL)
        self.authority = Authority(token, storage, self.addresses, clock)
        self.ocsp = OCSPResponder(self.authority, TokenKey(token, SigningKey.PKI_OCSP), clock)
        self.tsa = TimestampAuthority(self.authority, TokenKey(token, SigningKey.PKI_TSA), storage, clock)
        self.offline: set[FetchKind] = set()
        self.fetched: list[tuple[FetchKind, str]] = []
        self._lock = threading.Lock()

    @property
    def root(self) -> bytes:
        """DER."""
        return self.authority.certificates.root.public_bytes(Encoding.DER)

    @property
    def ca(self) -> bytes:
        """DER."""
        return self.authority.certificates.ca.public_bytes(Encoding.DER)

    @property
    def trust(self) -> TrustMaterial:
        """Root, CA and their current CRLs."""
        return TrustMaterial((self.root,), (self.ca,), (self.authority.crl("root"), self.authority.crl("ca")))

    def certify(self, key_type: KeyType = KeyType.P256, subject: CitizenSubject = DEMO_CITIZEN) -> Certified:
        """A new key of ``key_type`` with its certificate."""
        key = new_key(key_type)
        with self._lock:
            issued = self.authority.issue(a_csr(key, subject), subject, secrets.token_hex(16))
        return Certified(key, key_type, issued)

    def revoke(self, citizen: Certified, reason: RevocationReason = RevocationReason.KEY_COMPROMISE) -> None:
        with self._lock:
            self.authority.revoke(citizen.certificate.serial_number, reason)

    def fetch(self, kind: FetchKind, url: str, body: bytes | None) -> bytes:
        """What the public face would answer."""
        with self._lock:
            self.fetched.append((kind, url))
            if kind in self.offline or not url.startswith(IN_MEMORY_URL):
                raise TimestampUnavailable(f"no answer from {url}")
            path = urlsplit(url).path
            if body is not None and path == "/tsa":
                return self.tsa.respond(body).response
            if body is not None and path == "/ocsp":
                return self.ocsp.respond(body)
            files: Mapping[str, bytes] = {
                "/certs/root.crt": self.root,
                "/certs/ca.crt": self.ca,
                "/crl/root.crl": self.authority.crl("root"),
                "/crl/ca.crl": self.authority.crl("ca"),
            }
            return files[path]


def new_key(key_type: KeyType) -> PrivateKey:
    if key_type is KeyType.P256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 3072)


def key_type_of(key: PrivateKey) -> KeyType:
    return KeyType.P256 if isinstance(key, ec.EllipticCurvePrivateKey) else KeyType.RSA3072


def sign_with(key: PrivateKey, data: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def a_csr(key: PrivateKey, subject: CitizenSubject = DEMO_CITIZEN) -> bytes:
    """A certification request, DER, signed by ``key``."""
    to_be_signed = csr_to_be_signed(subject, profiles.spki_of(key.public_key()))
    return assemble_csr(to_be_signed, sign_with(key, to_be_signed), key_type_of(key))
