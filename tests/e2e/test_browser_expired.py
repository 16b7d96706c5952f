"""A code whose time is really over, in a service of its own where that time is short (production refuses this)."""

import os
import time

import pytest
from playwright.sync_api import expect

from tests.e2e.test_browser import LANGUAGES, PDF
from tests.testkit.outages import signatures
from tests.testkit.service import service as run_service

LIFE_SECONDS = 12
TYPE_AGAIN = {"es": "recibirá un código nuevo", "en": "you get a new code"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A running service whose codes are good for seconds."""
    name = "RUBRICA_CORE_CODE_LIFE"
    os.environ[name] = f"PT{LIFE_SECONDS}S"
    try:
        with run_service(tmp_path_factory.mktemp("hasty")) as running:
            yield running
    finally:
        del os.environ[name]


def test_an_expired_code_is_replaced_by_a_new_one(service, visit):
    """Both languages at once, so that the time runs out once."""
    before = signatures(service)
    waiting = []
    with service.agency() as agency:
        for locale in LANGUAGES:
            citizen, visitor = service.citizen(), visit(locale)
            transaction_id, review_url = service.submit(agency, citizen, [PDF], return_url="")
            visitor.page.goto(review_url)
            visitor.to_the_gate()
            visitor.type_password(citizen.person.nif, citizen.person.password)
            code = citizen.phone.code(visitor.reference())
            waiting.append((visitor, citizen, transaction_id, review_url, code))
        time.sleep(LIFE_SECONDS)
        for visitor, citizen, transaction_id, review_url, code in waiting:
            visitor.type_code(code)
            shown = visitor.page.locator("[data-step='password'] [data-errors] li")
            expect(shown).to_contain_text(TYPE_AGAIN[visitor.language])
            visitor.look("authorise-9-expired")
            status = agency.status(transaction_id)
            assert (status["state"], status["next_step"]["action"]) == ("REVIEWED", "review")
            assert signatures(service) == before

            # From this page on: the password once more, and a code that is good.
            visitor.type_password(citizen.person.nif, citizen.person.password)
            fresh = citizen.phone.code(visitor.reference())
            visitor.type_code(fresh)
            visitor.page.wait_for_url(review_url)
            expect(visitor.page.locator(".notice.good")).to_be_visible()
            before += 1
            assert signatures(service) == before
            assert agency.status(transaction_id)["state"] == "DONE"
            typed = (citizen.person.password, code, fresh)
            assert [secret for secret in typed if visitor.sent.holds(secret)] == []
