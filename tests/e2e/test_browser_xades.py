"""An agency's XML, signed by a citizen in a real browser, by each face."""

import secrets
from contextlib import ExitStack

import pytest
from playwright.sync_api import expect

from rubrica_client import NewDocument
from tests.e2e.test_agency import over
from tests.e2e.test_browser import DOWNLOAD, check, downloaded
from tests.testkit.browser import agency_site
from tests.testkit.faces import FACES

DOCUMENT = (
    b'<expediente xmlns="urn:example:e" n="27/b"><asunto clase="alta">Solicitud</asunto><plazo>3</plazo></expediente>'
)


@pytest.mark.parametrize(("face", "algorithm"), [*zip(FACES, ("ES256", "RS256"), strict=True)])
def test_an_agencys_xml_is_signed_in_a_browser(face, algorithm, service, court, visit, citizen, tmp_path):
    visitor = visit()
    page = visitor.page
    nonce = secrets.token_hex(8)
    signed = tmp_path / "signed.xml"

    with ExitStack() as stack:
        home = stack.enter_context(agency_site())
        agency = over(face, service, stack, home)
        sent = agency.send(
            [NewDocument("Expediente", DOCUMENT, "application/xml")],
            citizen_nif=citizen.person.nif,
            return_url=home,
            nonce=nonce,
            format="xades",
            level="B-B",
            algorithm=algorithm,
        )
        page.goto(sent.review_url)
        expect(page.locator(".text")).to_contain_text('<asunto clase="alta">Solicitud</asunto>')
        visitor.look_in_both("sign-2-review-agency-xml")
        visitor.to_the_gate()
        expect(page.locator("[data-title]")).to_have_text(["Expediente"])
        visitor.type_password(citizen.person.nif, citizen.person.password)
        visitor.type_code(citizen.phone.code(visitor.reference()))
        page.wait_for_url(f"{home}?result=*")
        assert agency.verify_result(page.url.partition("?result=")[2], service.token_key, nonce=nonce)
        status = agency.status(sent.id)
        assert (status["state"], status["format"], status["algorithm"]) == ("DONE", "xades", algorithm)
        signed.write_bytes(agency.collect(sent.id, 1))

    start = DOCUMENT.rindex(b"</expediente>")
    assert signed.read_bytes().startswith(DOCUMENT[:start])
    court.passes(f"agency-xml-{face}", signed, "XAdES-BASELINE-B")
    page.goto(sent.review_url)
    visitor.look_in_both("sign-3-done-agency-xml")
    got = downloaded(visitor, DOWNLOAD, tmp_path / "got.xml")
    assert got.read_bytes() == signed.read_bytes()
    check(visitor, service, got, "good")
