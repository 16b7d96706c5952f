import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from documents.model import TrustMaterial
from tests.testkit.service import service as run_service


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """One running service for all tests here: each brings its own citizens."""
    with run_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="session")
def citizen(service):
    """A citizen whose certificate is issued by the first signature that needs it."""
    return service.citizen()


def der(path):
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


def der_crl(path):
    return x509.load_pem_x509_crl(path.read_bytes()).public_bytes(Encoding.DER)


@pytest.fixture(scope="session")
def trust(service):
    folder = service.running.trust
    return TrustMaterial(
        (der(folder / "root.pem"),),
        (der(folder / "ca.pem"),),
        (der_crl(folder / "root.crl"), der_crl(folder / "ca.crl")),
    )
