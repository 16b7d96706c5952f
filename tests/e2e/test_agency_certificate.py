"""An agency with a certificate against the running service, by each face: entered, believed, renewed, revoked."""

import os
import secrets
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from domain.jws import ASSERTION_LIMIT_CHARACTERS
from rubrica.demo import RETURN_URL
from rubrica_client import AgencyClient, CitizenBrowser, NewDocument, RubricaProblem
from rubrica_client.grpc import GRPCAgencyClient
from tests.testkit.agency_pki import AgencyPKI, agency_name, client_extensions, p256
from tests.testkit.faces import FACES

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "good" / "libreoffice.pdf"


def operate(service, *arguments: str):
    """As an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "rubrica", "client", *arguments],
        env={**os.environ, "RUBRICA_VAR": str(service.folder)},
        check=False,
        capture_output=True,
        text=True,
    )


def enter(service, client_id, certificates):
    said = f"--certificate {certificates} --return-url {RETURN_URL} --right sign --right name_citizen".split()
    return operate(service, "add", client_id, "--name", "Ayuntamiento con sello", *said)


@pytest.mark.parametrize("face", FACES)
def test_an_agency_with_a_certificate(face, service, agency_pki, citizen, tmp_path):
    client_id, subject = f"sello-{secrets.token_hex(4)}", agency_name(f"Sello {face}")
    pem = tmp_path / "sello.pem"

    def write(chain):
        pem.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))

    def client(key, chain):
        if face == "rest":
            made = AgencyClient(service.running.edge, client_id, key, certificate_chain=chain)
        else:
            running = service.running
            made = GRPCAgencyClient(running.grpc, client_id, key, audience=running.edge, certificate_chain=chain)
        return stack.enter_context(made)

    stranger = p256()
    strangers = AgencyPKI(tmp_path / "strangers").issue(stranger, subject)
    write(strangers)
    refused = enter(service, client_id, pem)
    assert (refused.returncode, "the certificate is not accepted" in refused.stderr) == (1, True), refused.stderr

    key = rsa.generate_private_key(65537, 3072) if face == "rest" else p256()
    chain = agency_pki.issue(key, subject)
    write(chain)
    entered = enter(service, client_id, pem)
    assert entered.returncode == 0, entered.stderr

    with ExitStack() as stack:
        agency = client(key, chain)
        sent = agency.send(
            [NewDocument("Con sello", SAMPLE)], citizen_nif=citizen.person.nif, level="B-B", return_url=RETURN_URL
        )
        with CitizenBrowser(service.token_key) as browser:
            outcome = browser.follow(service.approve(browser, citizen, sent.review_url))
        assert agency.verify_result(outcome.result_token, service.token_key)["aud"] == client_id
        assert agency.collect(sent.id, 1).startswith(SAMPLE.read_bytes())

        # The next certificate of the same agency by the same authority: another kind of key, and as long as may be.
        renewed = p256() if face == "rest" else rsa.generate_private_key(65537, 2048)
        padded = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.8"), bytes(5300)), False)]
        certificate = agency_pki.ca.certify(subject, renewed, extensions=client_extensions(others=padded))
        successor = client(renewed, agency_pki.chain(certificate))
        assert 11_300 < len(successor.assertion()) <= ASSERTION_LIMIT_CHARACTERS
        assert successor.status(sent.id)["state"] == "DONE"

        for forged in (
            client(stranger, agency_pki.issue(stranger, agency_name("Otro sello"))),
            client(stranger, strangers),
        ):
            with pytest.raises(RubricaProblem, match="caller_refused"):
                forged.status(sent.id)
        agency_pki.ca.revoked.append(chain[0].serial_number)
        agency_pki.publish()
        with pytest.raises(RubricaProblem, match="caller_refused"):
            agency.status(sent.id)
        assert successor.status(sent.id)["state"] == "DONE"

        for command, state in (("block", "BLOCKED"), ("unblock", "ACTIVE")):
            assert operate(service, command, client_id).returncode == 0
            shown = operate(service, "show").stdout.splitlines()
            assert f"{client_id}\t{state}\tcertificate\tname_citizen sign\tAyuntamiento con sello" in shown
            if state == "BLOCKED":
                with pytest.raises(RubricaProblem, match="caller_refused"):
                    successor.status(sent.id)
        assert successor.status(sent.id)["state"] == "DONE"
        unknown = operate(service, "block", "nobody")
        assert (unknown.returncode, "no such client" in unknown.stderr) == (1, True)
