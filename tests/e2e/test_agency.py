"""Agencies against the running service: three documents and one approval by each face, and the example of a site."""

import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from documents.validate import validate
from rubrica.demo import RETURN_URL
from rubrica_client import CitizenBrowser, JWSInvalid, NewDocument, RubricaProblem
from rubrica_client.grpc import GRPCAgencyClient
from tests.testkit.faces import FACES

SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "good"
DOCUMENTS = [SAMPLES / name for name in ("libreoffice.pdf", "poppler-pdfunite.pdf", "signed-before.pdf")]
ORDER = ["SUBMITTED", "REVIEWED", "APPROVED", "SIGNING", "DONE"]


def over(face, service, stack, return_url=RETURN_URL):
    """A registered agency's client for a face."""
    rest = stack.enter_context(service.agency(return_url))
    if face == "rest":
        return rest
    grpc = GRPCAgencyClient(service.running.grpc, rest._client_id, rest._key, audience=service.running.edge)
    return stack.enter_context(grpc)


def watch(agency, transaction_id):
    """Every state until nothing changes any more; over REST by asking."""
    if isinstance(agency, GRPCAgencyClient):
        return list(agency.watch(transaction_id))
    seen = []
    ends = time.monotonic() + 60
    while not seen or seen[-1]["state"] != "DONE" or any(each["state"] != "SIGNED" for each in seen[-1]["documents"]):
        assert time.monotonic() < ends, seen
        seen.append(agency.status(transaction_id))
        time.sleep(0.1)
    return seen


def verdict(path_or_bytes, trust, tmp_path):
    path = tmp_path / f"{secrets.token_hex(4)}.pdf"
    path.write_bytes(path_or_bytes)
    # In a thread of its own: a browser's driver keeps this one's event loop.
    with path.open("rb") as file, ThreadPoolExecutor(1) as thread:
        signature = thread.submit(validate, file, trust, datetime.now(UTC)).result().signatures[-1]
    return signature.indication, signature.level


@pytest.mark.parametrize("face", FACES)
def test_three_documents_and_one_approval(face, service, citizen, trust, tmp_path):
    nonce = secrets.token_hex(8)
    with ExitStack() as stack:
        agency = over(face, service, stack)
        sent = agency.send(
            [NewDocument(path.stem, path) for path in DOCUMENTS],
            citizen_nif=citizen.person.nif,
            return_url=RETURN_URL,
            nonce=nonce,
        )
        browser = stack.enter_context(CitizenBrowser(service.token_key))
        watching = stack.enter_context(ThreadPoolExecutor(1)).submit(watch, agency, sent.id)
        outcome = browser.follow(service.approve(browser, citizen, sent.review_url))
        states = [status["state"] for status in watching.result(120)]
        status = agency.status(sent.id)
        signed = [agency.collect(sent.id, number) for number in (1, 2, 3)]
        receipt = agency.receipt(sent.id)

        assert states[0] == "SUBMITTED"
        assert states[-1] == "DONE"
        assert sorted(states, key=ORDER.index) == states
        assert [each["level"] for each in status["documents"]] == ["B-LTA"] * 3
        assert [verdict(each, trust, tmp_path) for each in signed] == [("TOTAL-PASSED", "B-LTA")] * 3
        assert all(each.startswith(path.read_bytes()) for each, path in zip(signed, DOCUMENTS, strict=True))
        result = outcome.result_token
        assert result == status["result_token"]
        claims = agency.verify_result(result, service.token_key, nonce=nonce)
        assert claims["nonce"] == nonce
        assert agency.verify_receipt(receipt, service.token_key)
        # Forged ones: another nonce, another signature, for another agency.
        other = over(face, service, stack)
        for verifier, token, said in (
            (agency, result, "another nonce"),
            (agency, result[:-4] + ("AAAA" if result[-4:] != "AAAA" else "BBBB"), nonce),
            (other, result, nonce),
        ):
            with pytest.raises(JWSInvalid):
                verifier.verify_result(token, service.token_key, nonce=said)
        with pytest.raises(RubricaProblem, match="not_found"):
            other.status(sent.id)


def test_the_example_of_a_site(service, visit, citizen, trust, tmp_path):
    visitor, site = visit(), service.running.agency
    page = visitor.page
    page.goto(site)
    visitor.look("example-1-form")
    page.fill("#nif", citizen.person.nif)
    page.fill("#text", "Que se dé (por fin) una señal \\ 20 €")
    page.locator("button").click()
    page.wait_for_url(f"{service.running.edge}/review/*")
    expect(page.locator(".facts")).to_contain_text("Sede de ejemplo")
    # Nothing is signed yet, whatever the address says.
    stranger = visit()
    for forged in ("a.b.c", ""):
        answer = visitor.context.request.get(f"{site}/vuelta?result={forged}")
        assert (answer.status, "no lo ha firmado el servicio" in answer.text()) == (400, True)
    assert "comprobado" not in visitor.context.request.get(f"{site}/caso").text()
    assert visitor.context.request.get(f"{site}/firmado").status == 409

    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, citizen.person.password)
    visitor.type_code(citizen.phone.code(visitor.reference()))

    page.wait_for_url(f"{site}/caso")
    expect(page.locator("main")).to_contain_text("Firmado")
    expect(page.locator("main")).to_contain_text("comprobado")
    visitor.look("example-2-signed")
    with page.expect_download() as downloading:
        page.locator("a[href='/firmado']").click()
    downloading.value.save_as(tmp_path / "signed.pdf")
    content = (tmp_path / "signed.pdf").read_bytes()
    assert verdict(content, trust, tmp_path) == ("TOTAL-PASSED", "B-LTA")
    for path in ("caso", "firmado"):
        assert stranger.context.request.get(f"{site}/{path}").status == 404


def test_the_example_of_a_site_says_what_is_wrong(service, visit):
    visitor, site = visit(), service.running.agency
    visitor.page.goto(f"{site}/caso")
    visitor.look("example-3-nothing")
    visitor.page.goto(site)
    visitor.page.fill("#nif", "<b>")
    visitor.page.locator("button").click()
    expect(visitor.page.locator("main")).to_contain_text("malformed_request")
    visitor.look("example-4-refused")


@pytest.mark.parametrize("locale", ["es-ES", "en-GB"])
def test_the_inbox_brings_what_comes_without_a_reload(service, visit, locale):
    visitor, inbox = visit(locale), service.running.inbox
    page = visitor.page
    text = f"Codigo {secrets.token_hex(8)}"
    page.goto(inbox)
    page.evaluate("self.stayed = true")
    visitor.look("inbox-1")
    before = page.locator("ol > li").count()
    said = page.locator("[role=status]")
    expect(said).to_have_text("")

    sent = {"id": secrets.token_hex(8), "to": "+34612345678", "text": text}
    httpx.post(f"{inbox}/messages", json=sent, trust_env=False).raise_for_status()

    expect(page.locator("ol > li").first).to_contain_text(text, timeout=15_000)
    expect(said).to_have_text(re.compile(r"\w+ \w+: 1$"))
    expect(page.locator("ol > li")).to_have_count(before + 1)
    assert page.evaluate("self.stayed")
    visitor.look("inbox-2-more")
    # Without JavaScript, by hand.
    plain = visit(locale, script=False).page
    plain.goto(inbox)
    plain.locator("main a").click()
    expect(plain.locator("ol > li").first).to_contain_text(text)


def test_the_example_signs_an_upload_and_tells_refusals(service, citizen):
    with httpx.Client(base_url=service.running.agency, trust_env=False) as visitor:
        data = {"nif": citizen.person.nif}
        sent = visitor.post("/solicitud", data=data, files={"file": ("mi instancia.pdf", DOCUMENTS[0].read_bytes())})
        assert sent.status_code == 303
        with CitizenBrowser(service.token_key) as browser:
            review = browser.review(sent.headers["location"])
            assert [each.title for each in review.documents] == ["mi instancia"]
        broken = visitor.post("/solicitud", data=data, files={"file": ("x.pdf", b"<script>")})
        assert (broken.status_code, "unsupported_document" in broken.text) == (409, True)
        assert re.search("malformed_request.*NIF", visitor.post("/solicitud", data={"nif": "<b>"}).text)
        refused = visitor.get("/vuelta?error=%3Cscript%3E", headers={"cookie": "x=y"})
        assert "<script>" not in refused.text
