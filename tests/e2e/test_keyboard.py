"""Signing by keyboard alone, from the choice of a file to the verified download; where one is, can always be seen."""

import pytest
from playwright.sync_api import expect

from tests.e2e.test_browser import DOWNLOAD, LANGUAGES, PDF

STOPS = 60
FOCUS = """() => {
  const at = document.activeElement;
  if (at === document.body) return "";
  const style = getComputedStyle(at), box = at.getBoundingClientRect();
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const inside = box.bottom > 0 && box.top < innerHeight && box.width > 0 && box.height > 0;
  return at.matches(":focus-visible") && ring && inside ? "" : `${at.outerHTML} ${style.outline}`;
}"""
"""What is focused without being seen to be; empty where all is well."""


def walk_to(page, selector):
    """Tab from where the focus is to the first of these elements; each stop on the way has to be seen."""
    target = page.locator(selector).first
    expect(target).to_be_visible()
    for _ in range(STOPS):
        if target.evaluate("each => each === document.activeElement"):
            return
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUS) == ""
    raise AssertionError(f"the keyboard does not lead to {selector}")


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_document_is_signed_by_keyboard_alone(service, court, visit, citizen, locale, tmp_path):
    visitor = visit(locale)
    page, keyboard = visitor.page, visitor.page.keyboard
    signed = tmp_path / "signed.pdf"

    # What the system's own dialogue would do; heard from the start, for the browser has to know that somebody listens.
    page.on("filechooser", lambda chooser: chooser.set_files(PDF))
    page.goto(service.running.edge)
    walk_to(page, "#documents")
    keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#documents').files.length === 1")
    walk_to(page, "main button[type=submit]")
    keyboard.press("Enter")
    page.wait_for_url("**/review/*")
    walk_to(page, ".sign a.button")
    keyboard.press("Enter")
    page.wait_for_url("**/authorise/**")
    walk_to(page, "#nif")
    keyboard.type(citizen.person.nif)
    walk_to(page, "#password")
    visitor.typed.add(citizen.person.password)
    keyboard.type(citizen.person.password)
    keyboard.press("Enter")
    code = citizen.phone.code(visitor.reference())
    walk_to(page, "#otp")
    visitor.typed.add(code)
    keyboard.type(code)
    keyboard.press("Enter")
    page.wait_for_url("**/review/*")
    expect(page.locator(".notice.good")).to_be_visible()
    walk_to(page, DOWNLOAD)
    with page.expect_download() as downloading:
        keyboard.press("Enter")
    downloading.value.save_as(signed)
    walk_to(page, "section.card .button.second")
    keyboard.press("Enter")
    page.wait_for_url(lambda url: "/review/" not in url or url.endswith("/check"))
    expect(page.locator(".notice.good")).to_be_visible()

    court.passes(f"keyboard-{visitor.language}", signed, "PAdES-BASELINE-LTA")


def test_a_focus_that_nobody_sees_would_be_found(service, visit):
    page = visit().page
    page.goto(service.running.edge)
    page.evaluate("document.querySelectorAll('main button').forEach(each => { each.style.outline = 'none' })")

    with pytest.raises(AssertionError, match="button"):
        walk_to(page, "main button[type=submit]")
