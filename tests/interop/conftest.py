"""One development PKI over a real token, and the judges."""

import asyncio
import contextlib
import logging
import secrets

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.http_issuer import HTTPIssuer
from certs.issuer import RevocationReason
from certs.profiles import PublicAddresses
from documents.model import TrustMaterial
from domain.algorithms import KeyType
from tests.testkit.dss import DSS
from tests.testkit.pki import DEMO_CITIZEN, Certified, RunningPKI, a_csr, make_pki_token, new_key, running_pki


class LivePKI:
    """A running development PKI, as ``tests.testkit.documents`` wants one."""

    def __init__(self, running: RunningPKI) -> None:
        self.running = running
        self.url = running.public_url
        self.folder = running.trust
        self.addresses = PublicAddresses(running.public_url)
        self.fetch = running.fetch

    @property
    def trust(self) -> TrustMaterial:
        def pem(name):
            return (self.folder / name).read_bytes()

        root, ca = (
            x509.load_pem_x509_certificate(pem(f"{name}.pem")).public_bytes(Encoding.DER) for name in ("root", "ca")
        )
        crls = (x509.load_pem_x509_crl(pem(f"{name}.crl")).public_bytes(Encoding.DER) for name in ("root", "ca"))
        return TrustMaterial((root,), (ca,), tuple(crls))

    def certify(self, key_type: KeyType = KeyType.P256) -> Certified:
        key = new_key(key_type)

        async def ask():
            async with contextlib.aclosing(Closing(self.running)) as issuer:
                return await issuer.issue(a_csr(key), DEMO_CITIZEN, idempotency_key=secrets.token_hex(8))

        return Certified(key, key_type, asyncio.run(ask()))

    def revoke(self, citizen: Certified, reason: RevocationReason = RevocationReason.KEY_COMPROMISE) -> None:
        async def ask():
            async with contextlib.aclosing(Closing(self.running)) as issuer:
                await issuer.revoke(citizen.certificate.serial_number, reason)

        asyncio.run(ask())


class Closing(HTTPIssuer):
    def __init__(self, running: RunningPKI) -> None:
        super().__init__(running.issuer_socket)

    aclose = HTTPIssuer.close


@pytest.fixture(scope="session")
def token(tmp_path_factory):
    return make_pki_token(tmp_path_factory.mktemp("token"))


@pytest.fixture(scope="session")
def pki(token, tmp_path_factory):
    with running_pki(tmp_path_factory.mktemp("pki"), token) as running:
        yield LivePKI(running)


@pytest.fixture(scope="session")
def dss():
    with DSS() as judge:
        yield judge


@pytest.fixture(scope="session")
def citizens(pki):
    """One for each algorithm."""
    return {"ES256": pki.certify(KeyType.P256), "RS256": pki.certify(KeyType.RSA3072)}


@pytest.fixture(autouse=True)
def _quiet_parsers():
    """pyHanko logs a traceback for every certificate it does not trust, and here many are not."""
    logging.getLogger("pyhanko").setLevel(logging.CRITICAL)
    logging.getLogger("pyhanko_certvalidator").setLevel(logging.CRITICAL)
