"""What goes wrong, each really caused: a sentence says what to do, nothing is signed, nothing has to be sent twice.

The agency whose document it is sees a state and a next step meanwhile.
"""

import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from domain.assurance import RegistrationLevel
from rubrica.phone import NoMessage
from rubrica_client import NewDocument, RubricaProblem
from tests.e2e.test_browser import LANGUAGES, PDF, read_every_page
from tests.testkit.asked import TO_REVIEW, asked, told
from tests.testkit.desk import rubrica
from tests.testkit.outages import signatures

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
    visitor.look("noscript-authorise")
    for path, field in (("activate", "#code"), ("password", "#old")):
        page.goto(f"{service.running.gate}/{path}")
        expect(page.locator("noscript .notice")).to_contain_text("JavaScript")
        expect(page.locator(field)).to_be_hidden()
        visitor.look(f"noscript-{path}")


TYPE_AGAIN = {"es-ES": "escriba otra vez el código", "en-GB": "type the code again"}
START_AGAIN = {"es-ES": "empiece otra vez desde aquí", "en-GB": "start again from here"}


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_wrong_code_and_then_the_right_one(service, visit, citizen, locale):
    visitor = visit(locale)
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        visitor.type_password(citizen.person.nif, citizen.person.password)
        code = citizen.phone.code(visitor.reference())

        visitor.type_code(f"{(int(code) + 1) % 10**6:06d}")

        expect(visitor.page.locator("[data-step='code'] [data-errors]")).to_be_focused()
        assert TYPE_AGAIN[locale] in told(visitor)
        expect(visitor.page.locator("[data-fill='tries']")).to_contain_text("2")
        visitor.look("authorise-3-wrong-code")
        assert (case.seen, case.signed) == (TO_REVIEW, 0)
        case.ends_with_code(visitor, f"{code[:3]} {code[3:]}")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_wrong_password_looks_right_until_three_codes_failed(service, visit, locale):
    citizen = service.citizen()
    visitor = visit(locale)
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        visitor.type_password(citizen.person.nif, "not the password at all")
        three_codes_fail(visitor)
        expect(visitor.page.locator("[data-step='password']")).to_be_visible()
        assert START_AGAIN[locale] in told(visitor)
        visitor.look("authorise-4-start-again")
        assert (case.seen, case.signed) == (TO_REVIEW, 0)
        case.ends_well(visitor, citizen)


def three_codes_fail(visitor):
    for _ in range(3):
        visitor.reference()
        visitor.type_code("123456")
        expect(visitor.page.locator("[data-errors]:visible")).to_be_focused()


PERHAPS_WRONG = {"es-ES": "Quizá algún dato estaba mal", "en-GB": "something that you typed may have been wrong"}


@pytest.mark.parametrize("locale", LANGUAGES)
def test_too_many_wrong_passwords_block_and_the_citizen_is_told_by_sms(service, visit, locale):
    citizen = service.citizen()
    visitor = visit(locale)
    page = visitor.page
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        for attempt in range(5):
            visitor.type_password(citizen.person.nif, f"wrong for the {attempt}th time")
            visitor.reference()
            page.locator("[data-again]").click()
        # From here on even the right password opens nothing, and the page is the same as ever.
        visitor.type_password(citizen.person.nif, citizen.person.password)
        with pytest.raises(NoMessage):
            citizen.phone.code(visitor.reference(), wait_seconds=1)
        expect(page.get_by_text(PERHAPS_WRONG[locale])).to_be_visible()
        three_codes_fail(visitor)
        assert START_AGAIN[locale] in told(visitor)
        visitor.look("authorise-7-blocked")
        assert (case.seen, case.signed) == (TO_REVIEW, 0)
        # Whoever it was: the citizen alone learns of it, on the phone, and what to do.
        notice = message_with(service, citizen, "bloqueada")
        assert "15 min" in notice
        assert rubrica(service, "unlock", "--nif", citizen.person.nif).returncode == 0
        case.ends_well(visitor, citizen)


def message_with(service, citizen, word):
    ends = time.monotonic() + 20
    while True:
        found = httpx.get(
            f"{service.running.inbox}/messages.json", params={"to": citizen.person.phone}, trust_env=False
        ).json()
        texts = [message["text"] for message in found if word in message["text"]]
        if texts:
            return texts[-1]
        assert time.monotonic() < ends, "no such message came"
        time.sleep(0.2)


def test_an_agencys_link_opened_by_another_citizen_signs_nothing(service, visit, citizen):
    other = service.citizen()
    visitor = visit()
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        expect(visitor.page.get_by_text("Solo esa persona puede aprobarla")).to_be_visible()
        visitor.type_password(other.person.nif, other.person.password)
        with pytest.raises(NoMessage):
            other.phone.code(visitor.reference(), wait_seconds=1)
        three_codes_fail(visitor)

        assert (case.seen, case.signed) == (TO_REVIEW, 0)
        # For the citizen it waits as before, also in the browser in which somebody else tried.
        case.ends_well(visitor, citizen)


def test_a_strangers_link_opened_by_the_citizen_signs_nothing_of_the_stranger(service, visit, citizen):
    before = signatures(service)
    stranger, visitor = visit(), visit()
    stranger.bring(service.running.edge, PDF)
    review_url = stranger.page.url
    gate_url = stranger.page.locator(".sign a.button").get_attribute("href")
    assert gate_url is not None

    # The gate's address, sent to somebody who has not read the document: both factors right, and nothing comes of it.
    visitor.page.goto(gate_url)
    visitor.type_password(citizen.person.nif, citizen.person.password)
    visitor.type_code(citizen.phone.code(visitor.reference()))
    visitor.page.wait_for_url(f"{service.running.edge}/return?*")
    expect(visitor.page.locator("[role=alert]")).to_contain_text("Abra otra vez el enlace")
    visitor.look_in_both("error-return")
    visitor.page.reload()
    assert signatures(service) == before
    # The stranger has not gained anything either: the document still waits for an approval.
    stranger.page.goto(review_url)
    expect(stranger.page.locator(".sign a.button")).to_be_visible()
    assert stranger.page.request.get(f"{review_url}/documents/1/signed").status == 404

    # The link to the review: the citizen reads first, and gets a request that the stranger's browser cannot end.
    visitor.page.goto(review_url)
    visitor.page.locator("main form button").click()
    read_every_page(visitor, 1)
    visitor.to_the_gate()
    assert visitor.page.url.partition("?")[0] != gate_url.partition("?")[0]
    visitor.type_password(citizen.person.nif, citizen.person.password)
    code = citizen.phone.code(visitor.reference())
    stranger.page.goto(review_url)
    expect(stranger.page.locator("main form, .sign a.button")).to_have_count(0)
    visitor.type_code(code)
    visitor.page.wait_for_url(review_url)
    assert signatures(service) == before + 1
    # Nor has the stranger what the citizen signed.
    assert stranger.page.request.get(f"{review_url}/documents/1/signed").status == 404


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
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "boom">'
    + "".join(f'<!ENTITY e{level} "{10 * f"&e{level - 1};"}">' for level in range(1, 10))
    + "]><a>&e9;</a>"
)
"""A thousand million words in less than a thousand octets."""


def unsignable(folder, huge_bytes):
    """Files that nobody can sign, by what an agency reads about them."""
    huge = folder / "huge.pdf"
    with huge.open("wb") as file:
        file.write(b"%PDF-1.7\n")
        file.truncate(huge_bytes)
    bomb = folder / "bomb.xml"
    bomb.write_text(BOMB)
    return {
        REFUSED / "needs-password.pdf": "unsupported_document",
        REFUSED / "truncated.pdf": "unsupported_document",
        REFUSED / "empty.pdf": "unsupported_document",
        huge: "document_too_large",
        bomb: "unsupported_document",
    }


def test_an_agency_is_told_which_document_to_send_instead(service, citizen, tmp_path):
    with service.agency() as agency:
        for path, code in unsignable(tmp_path, 101 * 1024 * 1024).items():
            xml = path.suffix == ".xml"
            form, media_type = ("xades", "application/xml") if xml else ("pades", "application/pdf")
            good = b"<a/>" if xml else PDF.read_bytes()
            created = agency.create(
                [NewDocument("Anexo"), NewDocument("Solicitud")], citizen_nif=citizen.person.nif, format=form
            )
            agency.upload(created.id, 1, good, media_type=media_type)
            with pytest.raises(RubricaProblem) as refused:
                agency.upload(created.id, 2, path, media_type=media_type)
            assert (refused.value.code, refused.value.retry_after) == (code, None)
            assert refused.value.detail
            status = agency.status(created.id)
            assert (status["state"], [each["state"] for each in status["documents"]]) == (
                "OPEN",
                ["RECEIVED", "EXPECTED"],
            )
            assert (status["next_step"]["action"], status["next_step"]["documents"]) == ("upload", [2])
            # What was good stays; only the other one is sent again.
            agency.upload(created.id, 2, good, media_type=media_type)
            agency.submit(created.id)
            assert agency.status(created.id)["next_step"]["action"] == "review"


@pytest.mark.parametrize("locale", LANGUAGES)
def test_what_cannot_be_signed_is_told_at_once_and_the_rest_is_kept(service, visit, locale, tmp_path):
    visitor = visit(locale)
    page = visitor.page

    said = []
    for document in unsignable(tmp_path, 26 * 1024 * 1024):
        visitor.bring(service.running.edge, document)
        expect(page.locator("[role=alert] li")).to_have_count(1)
        said.append(page.locator("[role=alert] li").inner_text())
        expect(page.locator("#documents")).to_be_visible()
    assert len(set(said)) == len(said)
    visitor.look("sign-1-refused")

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
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        visitor.type_password(citizen.person.nif, citizen.person.password)
        visitor.type_code(citizen.phone.code(visitor.reference()))
        # Not where a code is asked for: there is none to wait for any more.
        expect(visitor.page.locator("[data-step='password']")).to_be_visible()
        assert ADVANCED[locale] in told(visitor)
        visitor.look("authorise-5-basic")
        assert (case.seen, case.signed) == (TO_REVIEW, 0)


@pytest.mark.parametrize("locale", LANGUAGES)
def test_what_is_over_and_what_cannot_be_checked_says_so(service, visit, citizen, locale, tmp_path):
    visitor = visit(locale)
    page = visitor.page
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        case.agency.cancel(case.transaction_id)
        visitor.type_password(citizen.person.nif, citizen.person.password)
        visitor.type_code(citizen.phone.code(visitor.reference()))
        page.wait_for_url(case.review_url)
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator(".sign a.button")).to_have_count(0)
        visitor.look("sign-3-over")
        status = case.agency.status(case.transaction_id)
        assert (status["state"], status["next_step"]["action"], case.signed) == ("CANCELLED", "none", 0)
    for document in unsignable(tmp_path, 101 * 1024 * 1024):
        page.goto(f"{service.running.edge}/validate")
        page.set_input_files("#document", document)
        page.locator("button[type=submit]").click()
        expect(page.locator("[role=alert], .notice.warning")).to_be_visible()
    visitor.look("check-1-refused")


def test_a_certificate_revoked_in_the_last_moment_signs_nothing(service, visit):
    citizen = service.citizen()
    service.sign(citizen, [PDF], service.folder)
    visitor = visit()
    page = visitor.page
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        visitor.type_password(citizen.person.nif, citizen.person.password)
        code = citizen.phone.code(visitor.reference())

        def revoke_first(route):
            revoked = rubrica(service, "revoke", "--nif", citizen.person.nif, "--reason", "keyCompromise")
            assert revoked.returncode == 0, revoked.stderr
            route.continue_()

        page.route("**/return?*", revoke_first, times=1)
        visitor.type_code(code)
        page.wait_for_url(f"{service.running.edge}/**")
        visitor.look_in_both("sign-3-revoked")
        assert case.signed == 0
        # The documents are still there: approved anew, they are signed with a new certificate.
        page.locator(".actions .button").first.click()
        expect(page).to_have_url(case.review_url)
        visitor.to_the_gate()
        case.ends_well(visitor, citizen)


def test_a_form_from_another_site_is_refused(service, visit):
    visitor = visit()
    action = f"{service.running.edge}/sign"
    form = f'<form method="post" action="{action}" enctype="multipart/form-data"><button>x</button></form>'
    visitor.context.route("https://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    visitor.page.goto("https://evil.example/")

    with visitor.page.expect_navigation() as navigating:
        visitor.page.locator("button").click()

    assert navigating.value.status == 403
