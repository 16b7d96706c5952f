"""Papers of a real registration: what is printed on them leads where it says, and their codes are known there."""

import itertools
import re

import httpx
import pytest
from playwright.sync_api import expect

from domain.codes import BASE32, is_code, normalise_code
from rubrica.newcomer import Citizen
from tests.testkit.desk import csv_on, text_of

PLACES = itertools.count(1)
LANGUAGES = ("es-ES", "en-GB")
PEOPLE = {"Accept": "text/html", "Accept-Language": "en"}
WORDS = {
    "es-ES": ("Resguardo de registro", "Aceptación de las condiciones", "no ha emitido ningún"),
    "en-GB": ("Receipt of registration", "Acceptance of the conditions", "has issued no paper"),
}


def from_elsewhere(visitor):
    """The browser, as from a place of its own: by what a proxy before the edge says of who asks."""
    visitor.context.set_extra_http_headers({"X-Forwarded-For": f"192.0.2.{next(PLACES)}"})
    return visitor


def ask(visitor, code):
    visitor.page.fill("#code", code)
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_load_state()


def neighbours(code):
    """The code with one symbol changed, and the one that then has the right check symbol."""
    plain = normalise_code(code)
    changed = plain[:3] + ("0" if plain[3] != "0" else "1") + plain[4:]
    (checked,) = [changed[:-1] + symbol for symbol in BASE32 if is_code(changed[:-1] + symbol)]
    return changed, checked


def addresses(paper):
    return re.findall(r"https?://\S+", text_of(paper))


@pytest.mark.parametrize("language", ["es", "en"])
def test_the_addresses_on_a_receipt_answer(service, desk, language):
    papers = desk.register(Citizen.draw(), language=language)

    activate, check = addresses(papers.receipt)

    assert activate == f"{service.running.gate}/activate"
    assert check == f"{service.running.edge}/verify" == addresses(papers.acceptance)[0]
    for address, named in ((activate, "Activate"), (check, "Check a paper")):
        answer = httpx.get(address, headers=PEOPLE, trust_env=False)
        assert answer.status_code == 200
        assert re.search(r"<h1[^>]*>([^<]*)", answer.text)[1].startswith(named)
    nowhere = httpx.get(f"{activate}s", headers=PEOPLE, trust_env=False)
    assert nowhere.status_code == 404


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_paper_is_checked_by_its_code(service, desk, visit, locale, script):
    receipt_word, acceptance_word, unknown_word = WORDS[locale]
    person = Citizen.draw()
    papers, others = desk.register(person, language=locale[:2]), desk.register(Citizen.draw())
    code = csv_on(papers.receipt)
    changed, checked = neighbours(code)
    visitor = from_elsewhere(visit(locale, script=script))
    page, main = visitor.page, visitor.page.locator("main")
    kind = "" if script else "-no-script"

    page.goto(service.running.edge)
    page.locator("footer a[href='/validate']").click()
    page.locator("main a[href='/verify']").click()
    visitor.look(f"verify-1-form{kind}")
    ask(visitor, changed)
    expect(main.locator("[role=alert]")).to_have_count(1)
    expect(page.locator("#code")).to_have_value(changed)
    visitor.look(f"verify-2-mistyped{kind}")
    ask(visitor, checked)
    expect(main).to_contain_text(unknown_word)
    visitor.look(f"verify-3-unknown{kind}")
    ask(visitor, code.lower().replace("-", " ").replace("0", "o"))
    expect(main.locator(".notice.good")).to_be_visible()
    expect(main).to_contain_text(receipt_word)
    visitor.look(f"verify-4-known{kind}")

    shown = page.content()
    personal = (person.nif, person.phone, person.email, "Núñez", papers.code, csv_on(others.receipt), code)
    assert [each for each in personal if each in shown] == []
    assert page.url == f"{service.running.edge}/verify"
    main.locator("a[href='/verify']").click()
    ask(visitor, csv_on(papers.acceptance))
    expect(main).to_contain_text(acceptance_word)
    written = "".join(path.read_text(encoding="utf-8") for path in (service.running.state / "log").glob("*.log"))
    assert '"/verify"' in written
    typed = (code, normalise_code(code), normalise_code(code)[:8], code[:9], code.lower()[:9])
    assert [each for each in typed if each in written] == []


@pytest.mark.parametrize("locale", LANGUAGES)
def test_whoever_asks_too_often_waits(service, visit, locale):
    visitor = from_elsewhere(visit(locale))
    page = visitor.page
    page.goto(f"{service.running.edge}/verify")
    _, unknown = neighbours("0" * 17)
    for _ in range(10):
        ask(visitor, unknown)
        expect(page.locator("main .notice.bad")).to_contain_text(WORDS[locale][2])

    with page.expect_response("**/verify") as answered:
        ask(visitor, unknown)

    assert answered.value.status == 429
    assert 0 < int(answered.value.headers["retry-after"]) <= 60
    expect(page.locator("main [role=alert]")).to_be_visible()
    expect(page.locator("#code")).to_have_value(unknown)
    visitor.look("verify-5-too-often")
