"""What the gate says where nothing can be signed: no script, no wish to sign, no sense in typing anything."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.test_browser import LANGUAGES, PDF, read_every_page
from tests.testkit.asked import TO_REVIEW, asked, told
from tests.testkit.browser import violations

NONCE = "A" * 43


def not_started(page):
    notice = page.locator("[data-unstarted]")
    expect(notice).to_be_visible()
    expect(page.locator("[data-steps]")).to_be_hidden()
    assert violations(page) == []
    return notice


@pytest.mark.parametrize("locale", LANGUAGES)
def test_where_no_script_arrives_the_page_says_what_to_do(service, visit, locale):
    visitor = visit(locale)
    page = visitor.page
    visitor.bring(service.running.edge, PDF)
    gate_url = page.locator(".sign a.button").get_attribute("href")
    page.route("**/*.js", lambda route: route.abort())
    gate = service.running.gate
    for address in (gate_url, f"{gate}/activate", f"{gate}/password", f"{gate}/pin?nonce={NONCE}"):
        page.goto(address)
        not_started(page)
        visitor.look(f"unstarted-{address.removeprefix(gate).strip('/').partition('/')[0].partition('?')[0]}")
    visitor.trouble.found.clear()  # that is what the console says of each script
    # Its button loads the page again, and then it starts and says so no more.
    page.unroute("**/*.js")
    not_started(page).locator("a").click()
    expect(page.locator("[data-steps]")).to_be_visible()
    expect(page.locator("[data-unstarted]")).to_have_count(0)


FAULTS = {
    "its digest does not fit": (r'(<script type="module"[^>]* integrity="sha384-)', r"\1AAAA"),
    "it throws": (r'( data-texts=")', r"\1}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_a_script_fails_the_page_says_what_to_do(service, browser, fault):
    with browser.new_context(locale="en-GB") as context:
        page = context.new_page()

        def spoil(route):
            answer = route.fetch()
            text, times = re.subn(*FAULTS[fault], answer.text())
            assert times == 1
            route.fulfill(response=answer, body=text)

        page.route("**/password", spoil)
        page.goto(f"{service.running.gate}/password")
        expect(not_started(page)).to_contain_text("could not start")


def test_who_does_not_want_to_sign_is_led_back(service, visit, citizen):
    visitor = visit()
    page = visitor.page
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        gate_url = page.url
        back = page.get_by_role("link", name="No quiero firmar")
        assert back.get_attribute("href").startswith(f"{service.running.edge}/return?request=")
        back.click()
        expect(page).to_have_url(case.review_url)
        read_every_page(visitor, 1)
        assert (case.seen, case.signed) == (TO_REVIEW, 0)
        # In another browser that address shows nothing.
        stranger = visit()
        stranger.page.goto(gate_url)
        with stranger.page.expect_navigation() as navigating:
            stranger.page.get_by_role("link", name="No quiero firmar").click()
        assert navigating.value.status == 404
        # A second tab on what was signed meanwhile.
        second = visitor.context.new_page()
        second.goto(gate_url)
        page.goto(gate_url)
        case.ends_well(visitor, citizen)
        second.reload()
        expect(second.locator("#password")).to_have_count(0)
        page.goto(gate_url)
        visitor.look_in_both("authorise-8-approved-before")
        second.locator(".actions .button").click()
        expect(second).to_have_url(case.review_url)
        expect(second.locator(".notice.good")).to_be_visible()


WRONG = {"es-ES": "su letra no corresponde", "en-GB": "does not go with its digits"}


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_nif_with_a_wrong_letter_is_told_before_anything_is_sent(service, visit, citizen, locale):
    visitor = visit(locale)
    page = visitor.page
    right = citizen.person.nif
    wrong = right[:-1] + ("A" if right[-1] != "A" else "B")
    sent = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        visitor.type_password(wrong, citizen.person.password)
        assert WRONG[locale] in told(visitor)
        expect(page.locator("#nif")).to_have_attribute("aria-invalid", "true")
        visitor.look("authorise-9-wrong-letter")
        assert sent == []
        assert page.locator("#password").input_value() == citizen.person.password  # is not typed twice
        visitor.type_password(right.lower(), citizen.person.password)
        visitor.reference()
        assert sent
    for path in ("activate", f"pin?nonce={NONCE}"):
        page.goto(f"{service.running.gate}/{path}")
        page.fill("#nif", wrong)
        page.locator("[data-step='begin'] button[type=submit]").click()
        expect(page.locator("#nif-error")).to_contain_text(WRONG[locale])


COVERED = """() => {
  const focused = document.activeElement.getBoundingClientRect();
  const bar = document.querySelector(".sign");
  if (bar.contains(document.activeElement)) return 0;
  const over = bar.getBoundingClientRect();
  return Math.min(focused.bottom, over.bottom) - Math.max(focused.top, over.top);
}"""


@pytest.mark.parametrize("size", [(320, 480), (320, 640), (390, 844), (1280, 700)])
def test_the_button_that_stays_in_sight_never_covers_what_has_the_focus(service, visit, size, tmp_path):
    visitor = visit()
    page = visitor.page
    page.set_viewport_size({"width": size[0], "height": size[1]})
    documents = [tmp_path / f"documento {number}.pdf" for number in range(6)]
    for document in documents:
        document.write_bytes(PDF.read_bytes())
    visitor.bring(service.running.edge, *documents)
    stops = page.locator("main :is(a, summary, [tabindex='0']):visible").count()
    for key in ("Tab", "Shift+Tab"):
        seen = 0
        for _ in range(stops + 5):
            page.keyboard.press(key)
            if page.evaluate("document.activeElement.closest('main') !== null"):
                seen += 1
                assert page.evaluate(COVERED) <= 0, page.evaluate("document.activeElement.outerHTML")
        assert seen >= stops - 3


def test_programs_that_only_look_get_an_answer(service):
    edge, gate = service.running.edge, service.running.gate
    for address in (f"{edge}/", f"{gate}/"):
        for headers in ({}, {"Accept": "*/*"}, {"Accept": "image/png, */*;q=0.1"}):
            answer = httpx.get(address, headers=headers, trust_env=False)
            assert (answer.status_code, "<h1>" in answer.text) == (200, True)
            answer = httpx.head(address, headers=headers, trust_env=False)
            assert (answer.status_code, answer.content) == (200, b"")
        assert httpx.get(address, headers={"Accept": "application/json"}, trust_env=False).status_code == 404
