"""What has to happen next with a transaction, for programs."""

from dataclasses import dataclass
from typing import Literal

from api.transactions.model import (
    REVIEWABLE,
    UNDER_WAY,
    DocumentState,
    Transaction,
    TransactionState,
)
from api.transactions.seals import Sealer
from api.transactions.service import LINK

Action = Literal["upload", "submit", "review", "wait", "collect", "none"]


@dataclass(frozen=True, slots=True)
class Step:
    """What, with which documents, and where a browser has to go for it (else empty)."""

    action: Action
    documents: tuple[int, ...]
    url: str = ""


def next_step(transaction: Transaction, review_url: str) -> Step:
    """The one step that brings ``transaction`` on."""
    numbers = tuple(document.number for document in transaction.documents)
    if transaction.state is TransactionState.OPEN:
        missing = tuple(each.number for each in transaction.documents if each.state is DocumentState.EXPECTED)
        return Step("upload" if missing else "submit", missing or numbers)
    if transaction.state in REVIEWABLE:
        return Step("review", numbers, review_url)
    if transaction.state in UNDER_WAY:
        return Step("wait", numbers)
    signed = tuple(document.number for document in transaction.documents if document.signed_id is not None)
    return Step("collect" if signed else "none", signed)


def review_url(public_url: str, link_token: str) -> str:
    """Where a citizen's browser opens a transaction of the edge at ``public_url``."""
    return f"{public_url}/review/{link_token}"


def review_url_of(public_url: str, sealer: Sealer, transaction: Transaction) -> str:
    """The same, for a transaction at hand."""
    link_token = sealer.open(LINK, transaction.transaction_id, transaction.link_sealed)
    return review_url(public_url, link_token.decode())
