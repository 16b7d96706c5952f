"""An agency's request on its way through a browser, seen from the agency's side and from the core's log."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import expect

from rubrica_client import AgencyClient
from tests.testkit.browser import Visitor
from tests.testkit.outages import signatures
from tests.testkit.service import Activated, Service

DOCUMENT = Path(__file__).resolve().parents[1] / "samples" / "good" / "libreoffice.pdf"
TO_REVIEW = ("REVIEWED", "PREPARED", "review")


@dataclass
class Asked:
    """A document of an agency, waiting for one citizen; uploaded once and never again."""

    service: Service
    agency: AgencyClient
    transaction_id: str
    review_url: str
    signed_before: int

    @property
    def seen(self) -> tuple[str, str, str]:
        """What the agency is told over REST: state, state of the document, what to do next."""
        status = self.agency.status(self.transaction_id)
        assert status["next_step"]["url"] in ("", self.review_url)
        assert (status["next_step"]["url"] != "") == (status["next_step"]["action"] == "review")
        return status["state"], status["documents"][0]["state"], status["next_step"]["action"]

    @property
    def signed(self) -> int:
        """How many documents the core has signed since."""
        return signatures(self.service) - self.signed_before

    def to_the_gate(self, visitor: Visitor) -> None:
        """The citizen opens the agency's link and goes on."""
        visitor.page.goto(self.review_url)
        visitor.to_the_gate()

    def ends_well(self, visitor: Visitor, citizen: Activated, password: str = "") -> None:
        """From the page where something went wrong to the signature: password, code, nothing else."""
        visitor.type_password(citizen.person.nif, password or citizen.person.password)
        self.ends_with_code(visitor, citizen.phone.code(visitor.reference()))

    def ends_with_code(self, visitor: Visitor, code: str) -> None:
        """The same, from the step of the code on."""
        visitor.type_code(code)
        visitor.page.wait_for_url(self.review_url)
        expect(visitor.page.locator(".notice.good")).to_be_visible()
        assert self.signed == 1
        assert (self.seen[0], self.seen[2]) == ("DONE", "collect")


@contextmanager
def asked(service: Service, citizen: Activated) -> Iterator[Asked]:
    """An agency's request; the browser comes back to the review page, for this agency has no page of its own."""
    before = signatures(service)
    with service.agency() as agency:
        transaction_id, review_url = service.submit(agency, citizen, [DOCUMENT], return_url="")
        yield Asked(service, agency, transaction_id, review_url, before)


def told(visitor: Visitor) -> str:
    """The sentence in the red box of the gate's page."""
    shown = visitor.page.locator("[data-errors]:visible li")
    expect(shown).to_have_count(1)
    return shown.inner_text()
