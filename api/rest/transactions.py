"""Endpoints for callers: agencies, and the citizen's own web."""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from api.problems import responses
from api.rest.schemas import (
    CreatedView,
    DocumentView,
    NewTransactionBody,
    TransactionView,
    document_view,
    next_step,
    transaction_view,
)
from api.rest.services import AuthorizationHeader, Calling, IdempotencyKey, Provided
from api.storage import StoredId
from api.transactions.callers import bearer, is_assertion
from api.transactions.model import PDF, XML
from api.transactions.service import IdempotentPost, draw_transaction_id
from authn.client import AuthenticatedClient
from domain.errors import CallerRefused

ANY = "*/*"
_EXTENSIONS = {PDF: "pdf", XML: "xml", "text/xml": "xml"}

router = APIRouter(prefix="/v1/transactions", tags=["transactions"])

TransactionId = Annotated[str, Path(max_length=64)]
Number = Annotated[int, Path(ge=1, le=100_000)]


@router.post("", status_code=201, responses=responses(401, 403, 409, 413, 422))
async def create(
    body: NewTransactionBody,
    request: Request,
    provided: Provided,
    idempotency_key: IdempotencyKey,
    authorization: AuthorizationHeader = None,
) -> CreatedView:
    """Open a transaction. Without Authorization it belongs to whoever holds its link (the citizen's own web)."""
    new = body.parsed()
    transaction_id = draw_transaction_id()
    client: AuthenticatedClient | None = None
    if authorization is not None:
        token = bearer(authorization)
        if not is_assertion(token):
            raise CallerRefused("a link token opens no new transaction")
        client = await provided.callers.authenticate_client(token, transaction_id=transaction_id)
    created = await provided.transactions.create(
        transaction_id, client, new, await _idempotent(request, idempotency_key)
    )
    review_url = provided.review_url(created.link_token)
    return CreatedView(
        id=created.transaction.transaction_id,
        link_token=created.link_token,
        review_url=review_url,
        expires=created.transaction.expires,
        documents=[document_view(document) for document in created.transaction.documents],
        next_step=next_step(created.transaction, review_url),
    )


@router.put(
    "/{transaction_id}/documents/{number}",
    responses=responses(401, 404, 409, 410, 413, 422),
    openapi_extra={
        "requestBody": {"required": True, "content": {ANY: {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def upload(
    transaction_id: TransactionId, number: Number, request: Request, provided: Provided, calling: Calling
) -> DocumentView:
    """Take a document; what cannot be signed is refused now, with a plain reason.

    The Content-Type says what it is: a PDF for PAdES, XML for an enveloped XML signature, anything for the others. XML
    signatures repeat it, so that nobody reads the document as something else.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    document = await provided.transactions.upload(
        transaction_id, calling, number, request.stream(), media_type=media_type
    )
    return document_view(document)


@router.post("/{transaction_id}/submit", responses=responses(401, 404, 409, 410))
async def submit(
    transaction_id: TransactionId,
    request: Request,
    provided: Provided,
    calling: Calling,
    idempotency_key: IdempotencyKey,
) -> TransactionView:
    """Say that all documents are here."""
    post = await _idempotent(request, idempotency_key)
    transaction = await provided.transactions.submit(transaction_id, calling, post)
    return transaction_view(transaction, provided.review_url_of(transaction))


@router.get("/{transaction_id}", responses=responses(401, 404))
async def status(transaction_id: TransactionId, provided: Provided, calling: Calling) -> TransactionView:
    """How far it has come, and what is next."""
    transaction = await provided.transactions.find(transaction_id, calling)
    return transaction_view(transaction, provided.review_url_of(transaction))


@router.get(
    "/{transaction_id}/documents/{number}",
    response_class=StreamingResponse,
    responses={
        **responses(401, 404),
        200: {"content": {PDF: {}, XML: {}}, "description": "The signed document, or the detached signature"},
    },
)
async def collect(
    transaction_id: TransactionId, number: Number, provided: Provided, calling: Calling
) -> StreamingResponse:
    """The signed document."""
    transaction = await provided.transactions.find(transaction_id, calling)
    stored_id = provided.transactions.signed(transaction, number)
    return stream(provided, stored_id, f"signed-{number}", transaction.documents[number - 1].signed_media_type)


@router.get(
    "/{transaction_id}/documents/{number}/original",
    response_class=StreamingResponse,
    responses={**responses(401, 404), 200: {"content": {ANY: {}}, "description": "The document as uploaded"}},
)
async def original(
    transaction_id: TransactionId, number: Number, provided: Provided, calling: Calling
) -> StreamingResponse:
    """The document as it was uploaded."""
    transaction = await provided.transactions.find(transaction_id, calling)
    stored_id = provided.transactions.original(transaction, number)
    return stream(provided, stored_id, f"original-{number}", transaction.documents[number - 1].media_type)


@router.get(
    "/{transaction_id}/receipt",
    response_class=PlainTextResponse,
    responses={**responses(401, 404), 200: {"content": {"application/jose": {}}, "description": "Compact JWS"}},
)
async def receipt(transaction_id: TransactionId, provided: Provided, calling: Calling) -> PlainTextResponse:
    """The core's receipt: who signed what when, as an ES256 JWS."""
    transaction = await provided.transactions.find(transaction_id, calling)
    return PlainTextResponse(provided.transactions.receipt(transaction), media_type="application/jose")


@router.delete("/{transaction_id}", status_code=204, responses=responses(401, 404, 409))
async def cancel(transaction_id: TransactionId, provided: Provided, calling: Calling) -> Response:
    """Give up before the citizen approves; documents are removed."""
    await provided.transactions.cancel(transaction_id, calling)
    return Response(status_code=204)


def stream(provided: Provided, stored_id: StoredId, stem: str, media_type: str) -> StreamingResponse:
    """A download; the name is ours, and no browser shows it within our origin."""
    name = f"{stem}.{_EXTENSIONS.get(media_type, 'bin')}"
    path = provided.store.path(stored_id)

    async def octets() -> AsyncIterator[bytes]:
        async for chunk in provided.store.read(stored_id):
            yield chunk

    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(path.stat().st_size)}
    return StreamingResponse(octets(), media_type=media_type, headers=headers)


async def _idempotent(request: Request, key: str) -> IdempotentPost:
    fingerprint = hashlib.sha256(request.url.path.encode() + b"\n" + await request.body()).digest()
    return IdempotentPost(key, fingerprint)
