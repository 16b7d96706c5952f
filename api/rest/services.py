"""What the endpoints of the edge work with, and who calls them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from api.storage import DocumentStore
from api.transactions import steps
from api.transactions.callers import agency, bearer, is_assertion
from api.transactions.model import Transaction
from api.transactions.review import Approvals
from api.transactions.seals import Sealer
from api.transactions.service import Caller, LinkHolder, Transactions, link_sha256
from api.turns import asker_of
from authn.client import CallersClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Built in the composition root, once."""

    transactions: Transactions
    approvals: Approvals
    callers: CallersClient
    store: DocumentStore
    sealer: Sealer
    public_url: str
    """Of this edge, without a slash at the end."""
    gate_url: str
    ready: Callable[[], Awaitable[None]]
    """Raises ``DependencyUnavailable`` where something is missing."""

    def review_url(self, link_token: str) -> str:
        """Where a citizen's browser opens a transaction."""
        return steps.review_url(self.public_url, link_token)

    def review_url_of(self, transaction: Transaction) -> str:
        """The same, for a transaction at hand."""
        return steps.review_url_of(self.public_url, self.sealer, transaction)


def services(request: Request) -> Services:
    """The application's services."""
    found: Services = request.app.state.services
    return found


Provided = Annotated[Services, Depends(services)]
AuthorizationHeader = Annotated[
    str | None,
    Header(
        alias="Authorization",
        description="Bearer: an agency's private_key_jwt (RFC 7523), or the link token of the citizen's own web.",
    ),
]
IdempotencyKey = Annotated[str, Header(alias="Idempotency-Key", max_length=255, description="One per intention.")]


async def caller(request: Request, provided: Provided, authorization: AuthorizationHeader = None) -> Caller:
    """Who calls: an agency proved by the core, or the holder of a link.

    Raises:
        CallerRefused: Neither.
    """
    token = bearer(authorization)
    if is_assertion(token):
        transaction_id = str(request.path_params.get("transaction_id", ""))
        return await agency(provided.transactions, provided.callers, token, transaction_id)
    return LinkHolder(link_sha256(token), asker_of(request))


Calling = Annotated[Caller, Depends(caller)]
