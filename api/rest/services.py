"""What the endpoints of the edge work with, and who calls them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from api.storage import DocumentStore
from api.transactions.model import Transaction
from api.transactions.review import Approvals
from api.transactions.seals import Sealer
from api.transactions.service import LINK, Caller, LinkHolder, Transactions, link_sha256
from authn.client import CallersClient
from domain.errors import CallerRefused

_SCHEME = "bearer "


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
        return f"{self.public_url}/review/{link_token}"

    def review_url_of(self, transaction: Transaction) -> str:
        """The same, for a transaction at hand."""
        link_token = self.sealer.open(LINK, transaction.transaction_id, transaction.link_sealed)
        return self.review_url(link_token.decode())


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


def bearer(authorization: str | None) -> str:
    """The bearer token.

    Raises:
        CallerRefused: Another scheme, or none.
    """
    if authorization is None or not authorization.lower().startswith(_SCHEME):
        raise CallerRefused("a bearer token is needed")
    return authorization[len(_SCHEME) :].strip()


def is_assertion(token: str) -> bool:
    """Whether it looks like a compact JWS; link tokens have no dots."""
    return "." in token


async def caller(request: Request, provided: Provided, authorization: AuthorizationHeader = None) -> Caller:
    """Who calls: an agency proved by the core, or the holder of a link.

    Raises:
        CallerRefused: Neither.
    """
    token = bearer(authorization)
    if is_assertion(token):
        transaction_id = str(request.path_params.get("transaction_id", ""))
        wanted = transaction_id if await provided.transactions.wants_grant(transaction_id) else ""
        client = await provided.callers.authenticate_client(token, transaction_id=wanted)
        if wanted:
            await provided.transactions.renew_grant(transaction_id, client)
        return client
    return LinkHolder(link_sha256(token))


Calling = Annotated[Caller, Depends(caller)]
