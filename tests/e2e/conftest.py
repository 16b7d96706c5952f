from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from documents.model import TrustMaterial
from tests.testkit.agency_pki import AgencyPKI
from tests.testkit.browser import Visitor, chromium
from tests.testkit.desk import Desk
from tests.testkit.dss import DSS
from tests.testkit.judged import Court
from tests.testkit.service import service as run_service

SCREENSHOTS = Path(__file__).resolve().parents[2] / "var" / "screenshots"


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """One running service for all tests here: each brings its own citizens."""
    with run_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="session")
def agency_pki(service):
    """The authority of agencies' certificates, which the running core knows."""
    return AgencyPKI(service.agency_trust)


@pytest.fixture(scope="session")
def citizen(service):
    """A citizen whose certificate is issued by the first signature that needs it."""
    return service.citizen()


@pytest.fixture(scope="session")
def desk(service, tmp_path_factory):
    """A registration office with officers of both roles."""
    return Desk(service, tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="session")
def court(service):
    """EU DSS, started once for everything that is downloaded here."""
    with DSS() as dss:
        yield Court(dss, service)


@pytest.fixture(scope="module")
def browser():
    # For one file only: while it runs, the driver keeps this thread's event loop, which other tests need.
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def looked(request):
    """What the tests of one file looked at, by name; where all of them ran and passed, each name in both languages."""
    seen = {}
    yield seen
    options = request.config.option
    some = options.keyword or getattr(options, "lf", False) or any("::" in each for each in request.config.args)
    if not some and not request.session.testsfailed:
        # The example of an agency's site is Spanish, as that agency is.
        ours = {name: languages for name, languages in seen.items() if not name.startswith("example-")}
        assert {name: languages for name, languages in ours.items() if languages != {"es", "en"}} == {}


@pytest.fixture
def visit(browser, looked):
    """Opens browsers; no page of ours may have had an error in any of them, nor sent in clear what was typed."""
    opened = []

    def visiting(locale="es-ES", *, script=True):
        opened.append(Visitor(browser, locale, SCREENSHOTS, looked, script=script))
        return opened[-1]

    yield visiting
    for one in opened:
        one.context.close()
    assert [trouble for one in opened for trouble in one.trouble.found] == []
    assert [secret for one in opened for secret in one.typed if one.sent.holds(secret)] == []


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
