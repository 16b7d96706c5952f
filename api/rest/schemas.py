"""What crosses the wire of the edge, as JSON."""

import base64
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.transactions import steps
from api.transactions.model import (
    NONCE_CHARACTERS,
    RETURN_URL_CHARACTERS,
    TITLE_CHARACTERS,
    Document,
    DocumentState,
    NewTransaction,
    Transaction,
    TransactionState,
    new_transaction,
)
from api.transactions.review import Review

BASE64URL = "base64url without padding"


class NewDocumentBody(BaseModel):
    """One document to come."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(
        min_length=1,
        max_length=TITLE_CHARACTERS,
        description="Shown to the citizen and in the SMS; cleaned, cut at 120.",
    )


class NewTransactionBody(BaseModel):
    """What is to be signed, and how."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    documents: list[NewDocumentBody] = Field(min_length=1, max_length=1000)
    level: str = Field(
        default="",
        description="pades: B-B, B-T, B-LT or B-LTA (EN 319 142-1); xades: B-B (EN 319 132-1). The highest by default.",
        max_length=8,
    )
    format: str = Field(default="pades", description="pades or xades", max_length=16)
    packaging: str = Field(
        default="enveloped", description="pades: enveloped; xades: enveloped, enveloping or detached", max_length=16
    )
    algorithm: str = Field(default="ES256", description="ES256 or RS256 (RFC 7518)", max_length=16)
    citizen_nif: str = Field(default="", max_length=20, description="Who is to sign; an agency must say.", repr=False)
    return_url: str = Field(
        default="", max_length=RETURN_URL_CHARACTERS, description="One of those registered, letter by letter."
    )
    nonce: str = Field(default="", max_length=NONCE_CHARACTERS, description="Given back in the result token.")

    def parsed(self) -> NewTransaction:
        """As the domain has it.

        Raises:
            RequestError: Something is none of ours.
        """
        return new_transaction(
            titles=[document.title for document in self.documents],
            level=self.level,
            signature_format=self.format,
            packaging=self.packaging,
            algorithm=self.algorithm,
            citizen_nif=self.citizen_nif,
            return_url=self.return_url,
            client_nonce=self.nonce,
        )


class Failure(BaseModel):
    """Why a document will not be signed."""

    code: str
    detail: str


class DocumentView(BaseModel):
    """One document."""

    number: int = Field(description="From 1; the number of its item in the approved list.")
    title: str
    state: DocumentState
    size_bytes: int
    sha256: str = Field(description=f"Of the original, {BASE64URL}; empty before upload.")
    level: str = Field(description="Reached; empty before signing.")
    failure: Failure | None


class NextStep(BaseModel):
    """What has to happen next, for programs."""

    action: steps.Action
    documents: list[int] = Field(description="Which documents it is about.")
    url: str = Field(description="Where, if a browser is to go there; else empty.")


class TransactionView(BaseModel):
    """A transaction as its owner sees it."""

    id: str
    state: TransactionState
    level: str
    format: str
    packaging: str
    algorithm: str
    client_id: str
    created: datetime
    expires: datetime
    documents: list[DocumentView]
    failure_code: str
    result_token: str = Field(description="ES256 JWS by the core, once everything is signed; else empty.")
    next_step: NextStep


class CreatedView(BaseModel):
    """A new transaction; the link is a capability and shown here only."""

    id: str
    link_token: str = Field(description="Opens the review page; for the citizen's own web also the bearer token.")
    review_url: str
    expires: datetime
    documents: list[DocumentView]
    next_step: NextStep


class DigestView(BaseModel):
    """What is approved for one document."""

    algorithm: str
    value: str = Field(description=BASE64URL)


class ReviewDocumentView(BaseModel):
    """One document as the citizen sees it before approving."""

    number: int
    title: str
    size_bytes: int
    state: DocumentState
    digest: DigestView | None = Field(description="Over the ByteRange of the prepared PDF, or of an XML reference.")
    url: str = Field(description="Download, in this browser only.")


class ReviewView(BaseModel):
    """What the review page shows."""

    transaction_id: str
    state: TransactionState
    client_name: str = Field(description="Who asks, from the core's register; empty for the citizen's own web.")
    documents: list[ReviewDocumentView]
    request_id: str = Field(description="To be approved at the gate; empty once that is past.")
    gate_url: str
    next_step: NextStep


class Health(BaseModel):
    """Alive, or ready."""

    status: Literal["ok"] = "ok"


def base64url(data: bytes) -> str:
    """Bytes as they stand in JSON."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def document_view(document: Document) -> DocumentView:
    """One document for its owner."""
    failure = None
    if document.state is DocumentState.FAILED:
        failure = Failure(code=document.failure_code, detail=document.failure_detail)
    return DocumentView(
        number=document.number,
        title=document.title,
        state=document.state,
        size_bytes=document.size_bytes,
        sha256=base64url(document.sha256 or b""),
        level=document.level.value if document.level else "",
        failure=failure,
    )


def transaction_view(transaction: Transaction, review_url: str) -> TransactionView:
    """A transaction for its owner."""
    return TransactionView(
        id=transaction.transaction_id,
        state=transaction.state,
        level=transaction.level.value,
        format=transaction.format.value,
        packaging=transaction.packaging.value,
        algorithm=transaction.algorithm.value,
        client_id=transaction.client_id,
        created=transaction.created,
        expires=transaction.expires,
        documents=[document_view(document) for document in transaction.documents],
        failure_code=transaction.failure_code,
        result_token=transaction.result_token,
        next_step=next_step(transaction, review_url),
    )


def review_view(review: Review, review_url: str, gate_url: str) -> ReviewView:
    """A transaction for the citizen's browser."""
    transaction = review.transaction
    return ReviewView(
        transaction_id=transaction.transaction_id,
        state=transaction.state,
        client_name=transaction.client_name,
        documents=[
            ReviewDocumentView(
                number=document.number,
                title=document.title,
                size_bytes=document.size_bytes,
                state=document.state,
                digest=DigestView(algorithm=document.digest.algorithm.value, value=base64url(document.digest.value))
                if document.digest
                else None,
                url=f"{review_url}/documents/{document.number}",
            )
            for document in transaction.documents
        ],
        request_id=(transaction.request_id or "") if review.may_approve else "",
        gate_url=gate_url,
        next_step=next_step(transaction, review_url),
    )


def next_step(transaction: Transaction, review_url: str) -> NextStep:
    """What has to happen next."""
    step = steps.next_step(transaction, review_url)
    return NextStep(action=step.action, documents=list(step.documents), url=step.url)
