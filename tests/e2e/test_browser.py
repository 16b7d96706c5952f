"""A citizen's life in a real browser against the running service, in both languages."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from rubrica.phone import Phone
from tests.testkit.browser import agency_site, violations
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


@pytest.mark.parametrize("locale", LANGUAGES)
def test_from_the_activation_code_to_a_validated_signature(service, visit, locale, tmp_path):
    person, code = service.register()
    phone = Phone(service.running.inbox, person.phone)
    visitor = visit(locale)
    page = visitor.page

    page.goto(service.running.gate)
    visitor.look("gate-home")
    otps = [activate(visitor, service, person, code, phone)]
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
    signed = downloaded(visitor, "section.card .button:not(.second)", tmp_path / "signed.pdf")
    assert signed.read_bytes().startswith(b"%PDF")
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

    assert visitor.sent.holds(person.nif)  # so the record does see what is typed
    assert [secret for secret in (person.password, code, code.lower(), *otps) if visitor.sent.holds(secret)] == []


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


def test_an_xml_document(service, visit, citizen, tmp_path):
    document = tmp_path / "expediente.xml"
    document.write_text("<expediente><asunto>Solicitud</asunto><importe>1.234,56</importe></expediente>")
    visitor = visit()
    page = visitor.page

    visitor.bring(service.running.edge, document)
    expect(page.locator(".text")).to_contain_text("  <asunto>Solicitud</asunto>")
    visitor.look("sign-2-review-xml")
    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, citizen.person.password)
    visitor.type_code(citizen.phone.code(visitor.reference()))
    page.wait_for_url("**/review/*")
    signed = downloaded(visitor, "section.card .button:not(.second)", tmp_path / "signed.xml")

    assert signed.read_bytes().startswith(b"<expediente><asunto>Solicitud</asunto>")
    check(visitor, service, signed, "good")
    broken = tmp_path / "broken.xml"
    broken.write_bytes(signed.read_bytes().replace(b"1.234,56", b"9.234,56"))
    check(visitor, service, broken, "bad")


def test_an_agency_asks_for_three_documents_and_one_approval(service, visit, citizen, tmp_path):
    visitor = visit()
    page = visitor.page
    documents = [PDF, TWO_PAGES, SIGNED_BEFORE]
    returns = []
    page.on("request", lambda request: returns.append(request.url) if "/return?" in request.url else None)

    with agency_site() as home, service.agency(home) as agency:
        transaction_id, review_url = service.submit(agency, citizen, documents, return_url=home)
        page.goto(review_url)
        expect(page.locator(".facts")).to_contain_text("Ayuntamiento de Pruebas")
        read_every_page(visitor, 4)
        expect(page.locator(".notice.warning")).to_have_count(1)  # the one that was signed before
        visitor.look("sign-2-review-agency")
        visitor.to_the_gate()
        expect(page.locator("[data-title]")).to_have_text([path.stem for path in documents])
        visitor.look("authorise-1-password-agency")
        visitor.type_password(citizen.person.nif, citizen.person.password)
        otp = visitor.type_code(citizen.phone.code(visitor.reference()))
        page.wait_for_url(f"{home}?result=*")
        first_result = page.url
        signed = service.collect(agency, transaction_id, documents, tmp_path)
        before = [path.read_bytes() for path in signed]

        # The return address again: the same answer, and nothing is signed a second time.
        (return_url,) = returns
        page.goto(return_url)
        page.wait_for_url(f"{home}?result=*")
        assert page.url == first_result
        again = service.collect(agency, transaction_id, documents, tmp_path)
        assert [path.read_bytes() for path in again] == before

    page.goto(review_url)
    visitor.look("sign-3-done-agency")
    check(visitor, service, signed[0], "good")
    assert [secret for secret in (citizen.person.password, otp) if visitor.sent.holds(secret)] == []
    # Another browser sees that it is signed, and gets nothing.
    stranger = visit("en-GB")
    stranger.page.goto(review_url)
    expect(stranger.page.locator("section.card")).to_have_count(0)
    stranger.look("sign-3-done-stranger")


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
    renewed = Activated(type(citizen.person)(**{**fields_of(citizen.person), "password": fresh}), citizen.phone)
    visitor.bring(service.running.edge, PDF)
    visitor.to_the_gate()
    visitor.type_password(renewed.person.nif, fresh)
    visitor.type_code(renewed.phone.code(visitor.reference()))
    page.wait_for_url("**/review/*")


def fields_of(person):
    return {name: getattr(person, name) for name in ("nif", "phone", "email", "password")}


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


def test_dark_colours_keep_their_contrast(service, visit, tmp_path):
    visitor = visit()
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
