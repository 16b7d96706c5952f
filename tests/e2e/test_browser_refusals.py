"""What goes wrong in a browser: each shows a sentence that says what to do, and nothing is signed."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import expect

from domain.assurance import RegistrationLevel
from tests.e2e.test_browser import LANGUAGES, PDF, read_every_page

REFUSED = Path(__file__).resolve().parents[1] / "samples" / "refused"


@pytest.mark.parametrize("locale", LANGUAGES)
def test_without_javascript_the_gate_says_what_is_needed(service, visit, locale):
    visitor = visit(locale, script=False)
    page = visitor.page

    visitor.bring(service.running.edge, PDF)  # the edge needs none
    expect(page.locator(".page img")).to_have_count(1)
    visitor.to_the_gate()

    expect(page.locator("noscript .notice")).to_contain_text("JavaScript")
    expect(page.locator("#password")).to_be_hidden()
    expect(page.locator("[data-title]")).to_have_text([PDF.stem])
    page.goto(f"{service.running.gate}/activate")
    expect(page.locator("noscript .notice")).to_contain_text("JavaScript")
    expect(page.locator("#code")).to_be_hidden()


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_wrong_code_and_then_the_right_one(service, visit, citizen, locale):
    visitor = visit(locale)
    page = visitor.page
    visitor.bring(service.running.edge, PDF)
    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, citizen.person.password)
    code = citizen.phone.code(visitor.reference())

    visitor.type_code(f"{(int(code) + 1) % 10**6:06d}")

    expect(page.locator("[data-step='code'] [data-errors]")).to_be_focused()
    expect(page.locator("[data-fill='tries']")).to_contain_text("2")
    visitor.look("authorise-3-wrong-code")
    visitor.type_code(f"{code[:3]} {code[3:]}")
    page.wait_for_url("**/review/*")
    expect(page.locator(".notice.good")).to_be_visible()


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_wrong_password_looks_right_until_three_codes_failed(service, visit, locale):
    citizen = service.citizen()
    visitor = visit(locale)
    page = visitor.page
    visitor.bring(service.running.edge, PDF)
    review_url = page.url
    visitor.to_the_gate()

    visitor.type_password(citizen.person.nif, "not the password at all")
    for _ in range(3):
        visitor.reference()
        visitor.type_code("123456")
        expect(page.locator("[data-errors]:visible")).to_be_focused()

    expect(page.locator("[data-step='password'] [data-list] li")).to_have_count(1)
    visitor.look("authorise-4-start-again")
    # Nothing is lost: the right password from here.
    visitor.type_password(citizen.person.nif, citizen.person.password)
    visitor.type_code(citizen.phone.code(visitor.reference()))
    page.wait_for_url(review_url)
    expect(page.locator(".notice.good")).to_be_visible()


def test_an_agencys_link_opened_by_another_citizen_signs_nothing(service, visit, citizen):
    other = service.citizen()
    visitor = visit()
    page = visitor.page
    with service.agency() as agency:
        transaction_id, review_url = service.submit(agency, citizen, [PDF])
        page.goto(review_url)
        visitor.to_the_gate()
        visitor.type_password(other.person.nif, other.person.password)
        visitor.reference()
        visitor.type_code("123456")
        expect(page.locator("[data-step='code'] [data-errors]")).to_be_focused()

        state = agency.status(transaction_id)

    assert (state["state"], state["documents"][0]["state"]) == ("REVIEWED", "PREPARED")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_addresses_that_lead_nowhere(service, visit, locale):
    visitor = visit(locale)
    page = visitor.page
    edge, gate = service.running.edge, service.running.gate

    for address in (f"{edge}/review/{'x' * 43}", f"{edge}/return?request=x&code={'x' * 43}", f"{edge}/nowhere"):
        answer = page.goto(address)
        assert answer is not None
        assert answer.status == 404
        expect(page.locator("h1")).to_be_visible()
    visitor.look("error-edge")
    for address in (f"{gate}/authorise/{'x' * 26}", f"{gate}/nowhere"):
        answer = page.goto(address)
        assert answer is not None
        assert answer.status == 404
    visitor.look("error-gate")


def test_pages_of_a_document_are_for_the_browser_that_opened_the_review(service, visit):
    visitor, stranger = visit(), visit()
    visitor.bring(service.running.edge, PDF)
    read_every_page(visitor, 1)
    picture = visitor.page.locator(".page img").get_attribute("src")

    answer = stranger.page.request.get(f"{service.running.edge}{picture}")

    assert answer.status == 404


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;</a>'
)


@pytest.mark.parametrize("locale", LANGUAGES)
def test_what_cannot_be_signed_is_told_at_once_and_the_rest_is_kept(service, visit, locale, tmp_path):
    visitor = visit(locale)
    page = visitor.page
    huge = tmp_path / "huge.pdf"
    with huge.open("wb") as file:
        file.write(b"%PDF-1.7\n")
        file.truncate(26 * 1024 * 1024)
    bomb = tmp_path / "bomb.xml"
    bomb.write_text(BOMB)
    plain = tmp_path / "plain.xml"
    plain.write_text("<a/>")

    said = []
    for document in (REFUSED / "needs-password.pdf", REFUSED / "truncated.pdf", REFUSED / "empty.pdf", huge, bomb):
        visitor.bring(service.running.edge, document)
        expect(page.locator("[role=alert] li")).to_have_count(1)
        said.append(page.locator("[role=alert] li").inner_text())
        expect(page.locator("#documents")).to_be_visible()
    assert len(set(said)) == len(said)
    visitor.look("sign-1-refused")

    visitor.bring(service.running.edge, PDF, plain)
    expect(page.locator("[role=alert] li")).to_have_count(1)
    visitor.bring(service.running.edge, PDF, REFUSED / "needs-password.pdf")
    expect(page.locator("[role=alert]")).to_contain_text("needs-password.pdf")
    visitor.look("sign-1-partly")
    page.locator(".actions .button").first.click()
    expect(page.locator("h2")).to_have_text([PDF.stem])


ADVANCED = {"es-ES": "avanzado", "en-GB": "advanced"}


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_basic_registration_is_told_how_to_rise(service, visit, locale):
    citizen = service.citizen(RegistrationLevel.BASIC)
    visitor = visit(locale)
    visitor.bring(service.running.edge, PDF)
    visitor.to_the_gate()

    visitor.type_password(citizen.person.nif, citizen.person.password)
    visitor.type_code(citizen.phone.code(visitor.reference()))
    expect(visitor.page.locator("[data-errors]:visible li")).to_contain_text(ADVANCED[locale])
    visitor.look("authorise-5-basic")


def test_a_form_from_another_site_is_refused(service, visit):
    visitor = visit()
    action = f"{service.running.edge}/sign"
    form = f'<form method="post" action="{action}" enctype="multipart/form-data"><button>x</button></form>'
    visitor.context.route("https://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    visitor.page.goto("https://evil.example/")

    with visitor.page.expect_navigation() as navigating:
        visitor.page.locator("button").click()

    assert navigating.value.status == 403


@contextlib.contextmanager
def standing_still(service, name):
    """One of the service's processes answers nobody, as a machine does that hangs."""
    pid = service.running.pids[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_core_that_hangs_loses_nothing(service, visit, citizen):
    visitor = visit()
    page = visitor.page
    visitor.bring(service.running.edge, PDF)
    visitor.to_the_gate()

    with standing_still(service, "core"):
        visitor.type_password(citizen.person.nif, citizen.person.password)
        expect(page.locator("[data-step='password'] [data-errors] li")).to_contain_text("no responde", timeout=60_000)
        visitor.look("authorise-6-core-away")

    # The password field was left as it was.
    page.locator("[data-step='password'] button[type=submit]").click()
    visitor.type_code(citizen.phone.code(visitor.reference()))
    page.wait_for_url("**/review/*")
    expect(page.locator(".notice.good")).to_be_visible()


def test_a_timestamp_authority_that_hangs_is_waited_for_without_the_citizen(service, visit, citizen):
    visitor = visit()
    page = visitor.page
    service.sign(citizen, [PDF], service.folder)  # so that a certificate is there
    visitor.bring(service.running.edge, PDF)
    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, citizen.person.password)
    code = citizen.phone.code(visitor.reference())

    with standing_still(service, "pki"):
        visitor.type_code(code)
        page.wait_for_url("**/review/*", timeout=90_000)
        expect(page.locator("h1")).to_be_visible()
        visitor.look("sign-3-late")

    for _ in range(60):
        if page.locator(".notice.good").count() and not page.locator(".notice.warning").count():
            break
        page.wait_for_timeout(1000)
        page.reload()
    expect(page.locator(".notice.good")).to_be_visible()
    page.locator("section.card .button.second").click()
    expect(page.locator(".facts")).to_contain_text("B-LTA")
