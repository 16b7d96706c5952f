"""The development PKI for tests: in memory with software keys, or as a real process over a real token."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from certs import profiles
from certs.csr import assemble_csr, csr_to_be_signed
from certs.issuer import CitizenSubject, IssuedCertificate, RevocationReason, Subject
from certs.pki.service import PKI
from certs.pki.trust import write_trust_anchors
from certs.profiles import PublicAddresses
from documents.model import FetchKind, TrustMaterial
from domain.algorithms import KeyType
from domain.clock import Clock, SystemClock
from domain.errors import TimestampUnavailable
from hsm import ceremony
from hsm.keys import Inventory, SigningKey
from hsm.settings import TokenSettings

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
        self.addresses = PublicAddresses(IN_MEMORY_URL)
        self.pki = PKI.open(SoftwareToken(), "sqlite://", IN_MEMORY_URL, clock or SystemClock())
        self.authority, self.ocsp, self.tsa = self.pki.authority, self.pki.ocsp, self.pki.tsa
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


def a_csr(key: PrivateKey, subject: Subject = DEMO_CITIZEN) -> bytes:
    """A certification request, DER, signed by ``key``."""
    to_be_signed = csr_to_be_signed(subject, profiles.spki_of(key.public_key()))
    return assemble_csr(to_be_signed, sign_with(key, to_be_signed), key_type_of(key))


# --- as a process


START_SECONDS = 30
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class RunningPKI:
    """A development PKI that runs as its own process over a real SoftHSM token."""

    public_url: str
    issuer_socket: Path
    trust: Path
    """Folder with ``root.pem``, ``ca.pem``, ``root.crl`` and ``ca.crl``, as they were at start."""
    process: subprocess.Popen[bytes]
    log: Path

    def fetch(self, _kind: FetchKind, url: str, body: bytes | None) -> bytes:
        """A ``documents.model.Fetch`` over HTTP."""
        answer = httpx.request("GET" if body is None else "POST", url, content=body, trust_env=False)
        return answer.raise_for_status().content


def make_pki_token(folder: Path) -> TokenSettings:
    """A SoftHSM token with the PKI's keys; takes some seconds."""
    settings = TokenSettings(
        module=Path("/usr/lib/softhsm/libsofthsm2.so"),
        token_label="pki",
        pin_file=folder / "pki.pin",
        conf_path=folder / "softhsm2.conf",
    )
    ceremony.initialise_token(settings)
    ceremony.initialise(settings, Inventory.PKI)
    return settings


def write_pki_settings(folder: Path, token: TokenSettings, public_url: str, **others: object) -> Path:
    """Settings of a PKI that keeps everything in ``folder``, as a TOML file."""
    values = {
        "token_module": token.module,
        "token_label": token.token_label,
        "token_pin_file": token.pin_file,
        "softhsm2_conf": token.conf_path,
        "database_url": f"sqlite:///{folder / 'pki.sqlite'}",
        "public_url": public_url,
        "issuer_socket": folder / "issuer" / "issuer.sock",
        **others,
    }
    path = folder / "pki.toml"
    path.write_text("".join(f"{name} = {json.dumps(value, default=str)}\n" for name, value in values.items()))
    return path


@contextlib.contextmanager
def running_pki(folder: Path, token: TokenSettings, listening: socket.socket | None = None) -> Iterator[RunningPKI]:
    """Start the PKI's process, wait until it answers, and stop it at the end.

    Args:
        folder: For its store and socket; give the same one again to start it again.
        token: From ``make_pki_token``.
        listening: Where it is to be found; a free port by default.
    """
    with listening or socket.create_server(("127.0.0.1", 0)) as public:
        public_url = f"http://127.0.0.1:{public.getsockname()[1]}"
        config = write_pki_settings(folder, token, public_url, listen_fd=public.fileno(), log_level="debug")
        log = folder / "pki.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "rubrica", "pki", "--config", str(config)],
                pass_fds=[public.fileno()],
                stdout=output,
                stderr=output,
                cwd=PROJECT,
                env={name: value for name, value in os.environ.items() if not name.startswith("RUBRICA_")},
            )
        try:
            _wait_until_it_answers(process, public_url, log)
            write_trust_anchors(folder / "trust", public_url)
            yield RunningPKI(public_url, folder / "issuer" / "issuer.sock", folder / "trust", process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=START_SECONDS)


def _wait_until_it_answers(process: subprocess.Popen[bytes], public_url: str, log: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{public_url}/certs/root.crt", timeout=1, trust_env=False).is_success:
                return
    raise RuntimeError(f"the PKI does not answer: {log.read_text()[-2000:]}")
