"""The link is opened a second time, by another device or by a program that checks mail."""

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.test_browser import LANGUAGES, PDF
from tests.testkit.asked import asked, told
from tests.testkit.outages import signatures

GO_ON_HERE = {"es-ES": "Seguir aquí", "en-GB": "Go on here"}


@pytest.mark.parametrize("locale", LANGUAGES)
def test_looking_does_not_end_an_approval_under_way(service, visit, citizen, locale):
    before = signatures(service)
    visitor, other = visit(locale), visit(locale)
    visitor.bring(service.running.edge, PDF)
    review_url = visitor.page.url
    other.page.goto(review_url)
    expect(other.page.get_by_role("button", name=GO_ON_HERE[locale])).to_be_visible()
    other.look("elsewhere-1-open")
    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, citizen.person.password)
    code = citizen.phone.code(visitor.reference())

    # While the SMS is read: a scanner, another device, and its button that was there before.
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "text/html"}):
        assert httpx.get(review_url, headers=headers, trust_env=False).status_code == 409
        assert httpx.head(review_url, headers=headers, trust_env=False).status_code == 200
    other.page.get_by_role("button", name=GO_ON_HERE[locale]).click()
    expect(other.page.locator("main form")).to_have_count(0)
    other.look("elsewhere-2-code-awaited")

    visitor.type_code(code)
    visitor.page.wait_for_url(review_url)
    expect(visitor.page.locator(".notice.good")).to_be_visible()
    assert signatures(service) == before + 1


def take_over(visitor, review_url):
    visitor.page.goto(review_url)
    visitor.page.get_by_role("button", name=GO_ON_HERE["es-ES"]).click()
    expect(visitor.page.locator(".sign a.button")).to_be_visible()


def test_an_approval_of_what_was_taken_over_says_so_and_leads_back(service, visit, citizen):
    before = signatures(service)
    visitor, other = visit(), visit()
    visitor.bring(service.running.edge, PDF)
    review_url = visitor.page.url
    visitor.to_the_gate()
    # The gate's page stands open while another device takes over; only then the password is typed.
    take_over(other, review_url)
    visitor.type_password(citizen.person.nif, citizen.person.password)
    visitor.type_code(citizen.phone.code(visitor.reference()))

    visitor.page.wait_for_url("**/return?*")
    expect(visitor.page.locator("[role=alert]")).to_contain_text("alguien eligió seguir allí")
    expect(visitor.page.get_by_text("Probar otra vez")).to_have_count(0)
    visitor.look_in_both("elsewhere-3-superseded")
    assert signatures(service) == before
    # Nothing is uploaded again, and nobody has to know the link.
    visitor.page.locator(".actions .button").first.click()
    expect(visitor.page).to_have_url(review_url)
    visitor.page.get_by_role("button", name=GO_ON_HERE["es-ES"]).click()
    visitor.to_the_gate()
    visitor.type_password(citizen.person.nif, citizen.person.password)
    visitor.type_code(citizen.phone.code(visitor.reference()))
    visitor.page.wait_for_url(review_url)
    assert signatures(service) == before + 1


def test_the_gate_takes_no_password_for_an_agencys_request_that_was_taken_over(service, visit, citizen):
    visitor, other = visit(), visit()
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        take_over(other, case.review_url)

        visitor.type_password(citizen.person.nif, citizen.person.password)

        assert "abra otra vez el enlace" in told(visitor)
        visitor.page.reload()
        expect(visitor.page.locator("#password")).to_have_count(0)
        assert case.signed == 0
        other.to_the_gate()
        case.ends_well(other, citizen)
