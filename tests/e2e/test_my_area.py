"""Login by PIN and the citizen's own area, in a real browser against the running service."""

import contextlib
import re
import sqlite3
from base64 import urlsafe_b64decode
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from playwright.sync_api import expect

from rubrica.phone import NoMessage
from tests.e2e.test_browser import LANGUAGES, PDF

WRONG_PIN = "222222"
ACCESS_CODE = "g4To"
OVER = {"es-ES": "Los diez minutos de este PIN han pasado", "en-GB": "The ten minutes of this PIN are over"}
SHORTEST_SEALED = 40
"""Characters; nonces, keys and what is sealed have more."""


def in_the_core(service, statement):
    """Behind the core's back."""
    with contextlib.closing(sqlite3.connect(service.running.state / "core" / "core.sqlite", timeout=20)) as database:
        database.execute(statement)
        database.commit()


def to_the_gate(visitor, service):
    visitor.page.goto(f"{service.running.edge}/area")
    visitor.page.locator("main a.button").click()
    visitor.page.wait_for_url(f"{service.running.gate}/pin?*")


def ask(visitor, person, access_code=ACCESS_CODE):
    """The gate's first step; gives the reference."""
    page = visitor.page
    page.fill("#nif", person.nif)
    page.fill("#email", person.email)
    page.fill("#chosen", access_code)
    page.locator("[data-step='begin'] button[type=submit]").click()
    expect(page.locator("#code-heading")).to_be_focused()
    return visitor.reference()


def answer(visitor, pin):
    visitor.page.fill("#pin", pin)
    visitor.page.locator("[data-step='code'] button[type=submit]").click()
    return pin


def enter(visitor, service, citizen):
    """All the way to the area; gives the PIN and the address that the gate sent the browser back to."""
    returns = []
    visitor.page.on("request", lambda request: returns.append(request.url) if "/area/return" in request.url else None)
    to_the_gate(visitor, service)
    pin = answer(visitor, citizen.phone.code(ask(visitor, citizen.person)))
    visitor.page.wait_for_url(f"{service.running.edge}/area")
    return pin, returns[0]


def see_inside(visitor, person):
    page = visitor.page
    main = page.locator("main")
    expect(main).to_contain_text(re.compile(r"\*{3,4}\d{4}\*+"))
    expect(main).to_contain_text("Ayuntamiento de Pruebas")
    expect(main).to_contain_text(PDF.stem)
    visitor.look("area-2-inside")
    shown = page.content()
    assert person.nif not in shown
    assert person.phone not in shown
    assert person.email not in shown


def leave(visitor, service):
    page = visitor.page
    page.locator("form button").click()
    page.wait_for_url("**/area?left=true")
    expect(page.locator("main [role=status]")).to_be_visible()
    visitor.look("area-3-left")
    page.goto(f"{service.running.edge}/area")
    expect(page.locator("main a[href='/area/enter']")).to_be_visible()


def went_out(visitor, secret):
    """Whether four letters left this browser as they are, or in base64url or hexadecimal digits.

    In long random words they stand by chance, so those are looked into: what they encode has no such chance.
    """
    sent = unquote("\n".join(raw.decode("latin-1") for raw in visitor.sent.raw))
    words = set(re.findall(r"[A-Za-z0-9_-]+", sent))
    plain = [word for word in words if len(word) < SHORTEST_SEALED and secret in word]
    coded = [
        word
        for word in words
        if len(word) % 4 != 1 and secret.encode() in urlsafe_b64decode(word + "=" * (-len(word) % 4))
    ]
    return bool(plain or coded or secret.encode().hex() in words)


def logs(service):
    return "".join(path.read_text(encoding="utf-8") for path in (service.running.state / "log").glob("*.log"))


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_citizen_sees_what_is_theirs(service, visit, locale, tmp_path):
    citizen = service.citizen()
    service.sign(citizen, [PDF], tmp_path)
    visitor = visit(locale)
    page = visitor.page
    returns = []
    page.on("request", lambda request: returns.append(request.url) if "/area/return" in request.url else None)

    page.goto(service.running.edge)
    page.locator("footer a[href='/area']").click()
    visitor.look("area-1-way-in")
    to_the_gate(visitor, service)
    visitor.look("pin-1-data")
    page.locator("[data-step='begin'] button[type=submit]").click()
    expect(page.locator("[data-step='begin'] [data-list] li")).to_have_count(3)
    visitor.look("pin-2-missing")
    page.fill("#nif", citizen.person.nif)
    page.fill("#email", citizen.person.email)
    page.fill("#chosen", "ñu1")
    page.locator("[data-step='begin'] button[type=submit]").click()
    expect(page.locator("#chosen-error")).not_to_be_empty()
    reference = ask(visitor, citizen.person)
    visitor.look("pin-3-pin")
    pin = citizen.phone.code(reference)
    answer(visitor, WRONG_PIN)
    expect(page.locator("[data-step='code'] [data-errors]")).to_be_focused()
    expect(page.locator("[data-fill='tries']")).to_contain_text("2")
    visitor.look("pin-4-wrong")
    page.reload()  # the access code is gone with the page, the way is not
    assert visitor.reference() == reference
    page.fill("#again", ACCESS_CODE)
    answer(visitor, pin.lower())
    page.wait_for_url(f"{service.running.edge}/area")

    see_inside(visitor, citizen.person)

    # So the record does see what is typed, and what is coded.
    assert went_out(visitor, citizen.person.nif)
    assert went_out(visitor, '"acr":"low"')
    assert [secret for secret in (ACCESS_CODE, ACCESS_CODE.upper()) if went_out(visitor, secret)] == []
    assert [secret for secret in (pin, pin.lower(), WRONG_PIN) if visitor.sent.holds(secret)] == []
    (token,) = parse_qs(urlsplit(returns[0]).query)["token"]
    cookies = [cookie["value"] for cookie in visitor.context.cookies() if cookie["name"].startswith("__Host-")]
    written = logs(service)
    assert "/area/return" in written
    assert [secret for secret in (token, token.split(".")[1], pin, *cookies) if secret in written] == []

    leave(visitor, service)


def test_the_cookies_are_for_this_host_and_no_script(service, visit):
    visitor = visit()
    enter(visitor, service, service.citizen())

    kept = {cookie["name"]: cookie for cookie in visitor.context.cookies() if cookie["name"].startswith("__Host-")}

    assert list(kept) == ["__Host-rubrica-area"]
    cookie = kept["__Host-rubrica-area"]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Lax", "/")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_the_return_address_is_good_once_and_in_one_browser(service, visit, locale):
    visitor, stranger = visit(), visit(locale)
    citizen = service.citizen()
    _, return_url = enter(visitor, service, citizen)

    for one in (visitor, stranger):
        one.page.goto(return_url)
        expect(one.page.locator(".notice.bad")).to_be_visible()
        expect(one.page.locator("main")).not_to_contain_text("Ayuntamiento")
    stranger.look("area-4-refused")
    # A stranger who began a login of their own gets nothing out of somebody else's token either.
    to_the_gate(stranger, service)
    stranger.page.goto(return_url)
    expect(stranger.page.locator(".notice.bad")).to_be_visible()
    stranger.page.goto(f"{service.running.edge}/area")
    expect(stranger.page.locator("main a[href='/area/enter']")).to_be_visible()


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_login_that_the_core_no_longer_has_shows_nothing(service, visit, locale):
    visitor = visit(locale)
    citizen = service.citizen()
    enter(visitor, service, citizen)

    in_the_core(service, "DELETE FROM login_session")
    visitor.page.reload()

    expect(visitor.page.locator("main a[href='/area/enter']")).to_be_visible()
    expect(visitor.page.locator("main")).not_to_contain_text("***")
    visitor.look("area-5-over")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_three_wrong_pins_end_this_one(service, visit, locale):
    citizen = service.citizen()
    visitor = visit(locale)
    page = visitor.page
    to_the_gate(visitor, service)
    first = citizen.phone.code(ask(visitor, citizen.person))

    for left in (2, 1):
        answer(visitor, WRONG_PIN)
        if left == 2:
            expect(page.locator("[data-fill='tries']")).to_contain_text("2")
        expect(page.locator("[data-step='code'] [data-errors]")).to_be_focused()
        expect(page.locator("#pin")).to_have_value("")
    answer(visitor, WRONG_PIN)
    expect(page.locator("[data-step='begin'] [data-errors]")).to_be_focused()
    visitor.look("pin-5-tries-over")
    reference = ask(visitor, citizen.person)
    answer(visitor, first)  # the PIN of the message before
    expect(page.locator("[data-step='code'] [data-errors]")).to_be_focused()
    answer(visitor, citizen.phone.code(reference))
    page.wait_for_url(f"{service.running.edge}/area")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_pin_whose_time_is_over_is_told_as_such(service, visit, locale):
    citizen = service.citizen()
    visitor = visit(locale)
    page = visitor.page
    to_the_gate(visitor, service)
    pin = citizen.phone.code(ask(visitor, citizen.person))

    in_the_core(service, "UPDATE otp_challenge SET expires = datetime('now', '-1 minute') || '.000000'")
    answer(visitor, pin)

    expect(page.locator("[data-step='begin'] [data-errors]")).to_be_focused()
    expect(page.locator("[data-step='begin'] [data-list]")).to_contain_text(OVER[locale])
    visitor.look("pin-6-expired")
    answer(visitor, citizen.phone.code(ask(visitor, citizen.person)))
    page.wait_for_url(f"{service.running.edge}/area")


def test_who_is_unknown_waits_for_an_sms_that_never_comes(service, visit):
    citizen = service.citizen()
    visitor = visit("en-GB")
    to_the_gate(visitor, service)
    page = visitor.page

    page.fill("#nif", citizen.person.nif)
    page.fill("#email", "somebody@else.example")
    page.fill("#chosen", ACCESS_CODE)
    page.locator("[data-step='begin'] button[type=submit]").click()
    reference = visitor.reference()

    with pytest.raises(NoMessage):
        citizen.phone.code(reference, wait_seconds=1)
    answer(visitor, WRONG_PIN)
    expect(page.locator("[data-fill='tries']")).to_contain_text("2")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_by_keyboard_alone(service, visit, locale):
    citizen = service.citizen()
    visitor = visit(locale)
    page, keyboard = visitor.page, visitor.page.keyboard

    page.goto(f"{service.running.edge}/area")
    page.locator("main a.button").focus()
    keyboard.press("Enter")
    page.wait_for_url(f"{service.running.gate}/pin?*")
    page.locator("#nif").focus()
    keyboard.type(citizen.person.nif)
    keyboard.press("Tab")
    keyboard.type(citizen.person.email)
    keyboard.press("Tab")
    keyboard.type(ACCESS_CODE)
    keyboard.press("Enter")
    pin = citizen.phone.code(visitor.reference())
    expect(page.locator("#code-heading")).to_be_focused()
    for place in ("#again", "[data-reveal='again']", "#pin"):
        keyboard.press("Tab")
        expect(page.locator(place)).to_be_focused()
    keyboard.type(pin)
    keyboard.press("Enter")
    page.wait_for_url(f"{service.running.edge}/area")
    expect(page.locator("main h1")).to_be_visible()
    # A citizen who never signed is told so, and what comes next.
    visitor.look("area-6-nothing-yet")
    page.locator("form button").focus()
    keyboard.press("Enter")
    page.wait_for_url("**/area?left=true")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_without_javascript_the_gate_says_what_is_needed(service, visit, locale):
    visitor = visit(locale, script=False)

    to_the_gate(visitor, service)

    expect(visitor.page.locator("noscript .notice")).to_contain_text("JavaScript")
    expect(visitor.page.locator("#chosen")).to_be_hidden()


def test_an_address_of_the_gate_without_a_nonce_is_no_login(service, visit):
    visitor = visit()

    for query in ("", "?nonce=short", "?nonce=%22%3E%3Cscript%3E0123456789"):
        visitor.page.goto(f"{service.running.gate}/pin{query}")
        expect(visitor.page.locator("#chosen")).to_have_count(0)
        expect(visitor.page.locator("main [role=alert]")).to_be_visible()


def test_from_the_area_to_a_signature_goes_by_password_and_code(service, visit):
    citizen = service.citizen()
    visitor = visit()
    page = visitor.page
    enter(visitor, service, citizen)

    page.locator("main a[href='/']").click()
    page.set_input_files("#documents", PDF)
    page.locator("button[type=submit]").click()
    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, citizen.person.password)
    visitor.type_code(citizen.phone.code(visitor.reference()))
    page.wait_for_url("**/review/*")
    page.goto(f"{service.running.edge}/area")

    expect(page.locator("main")).to_contain_text(PDF.stem)
