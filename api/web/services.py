"""What the pages of the edge work with."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import Depends, Request

from api.look.pages import Look
from api.storage import DocumentStore
from api.transactions.review import Approvals
from api.transactions.service import Transactions
from api.turns import Turns
from api.web.pace import Pace
from api.web.sessions import AreaSessions
from authn.officer_client import PapersClient
from documents.model import AsyncFetch, Outline, PageImage, TrustMaterial, ValidationReport
from domain.clock import Clock
from domain.digests import Digest

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Viewer(Protocol):
    """Shows and judges strangers' documents in a limited child process."""

    async def outline(self, path: Path) -> Outline:
        """What can be shown of a document."""
        ...

    async def preview(self, path: Path, number: int) -> PageImage:
        """One page as a picture."""
        ...

    async def validate(
        self,
        path: Path,
        trust: TrustMaterial,
        at: datetime,
        fetch: AsyncFetch | None = None,
        content: Digest | None = None,
    ) -> ValidationReport:
        """Whether a document is signed, by whom, when, and whether it was changed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Built in the composition root, once."""

    transactions: Transactions
    approvals: Approvals
    store: DocumentStore
    viewer: Viewer
    trust: TrustMaterial
    fetch: AsyncFetch
    clock: Clock
    gate_url: str
    area: AreaSessions
    papers: PapersClient
    pace: Pace
    """Of questions for papers."""
    turns: Turns


def web(request: Request) -> Web:
    """The application's."""
    found: Web = request.app.state.web
    return found


Provided = Annotated[Web, Depends(web)]


def make_look() -> Look:
    """The edge's templates and style."""
    return Look(Path(__file__).parent, policy=POLICY, home="/")
