"""The two addresses that a citizen's browser visits at the edge; JSON in this version. No secret is asked for here."""

import base64
import binascii
from typing import Annotated
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api.problems import responses
from api.rest.schemas import ReviewView, review_view
from api.rest.services import Provided
from api.rest.transactions import PDF, Number, stream
from api.transactions.model import Transaction, TransactionState
from api.transactions.review import Review
from domain.errors import MalformedRequest

router = APIRouter(tags=["browser"])

LinkToken = Annotated[str, Path(max_length=64)]


@router.get("/review/{link_token}", responses=responses(403, 404, 409, 410, 422))
async def review(link_token: LinkToken, request: Request, response: Response, provided: Provided) -> ReviewView:
    """What is to be signed and who asks; prepares and stages it, and marks this browser by a cookie."""
    opened = await provided.approvals.review(link_token, request.cookies)
    if opened.cookie is not None:
        response.set_cookie(
            opened.cookie.name,
            opened.cookie.value,
            max_age=opened.cookie.max_age_seconds,
            path="/",
            secure=True,
            httponly=True,
            samesite="lax",
        )
    return review_view(opened, provided.review_url(link_token), provided.gate_url)


@router.get(
    "/review/{link_token}/documents/{number}",
    response_class=StreamingResponse,
    responses={**responses(404), 200: {"content": {PDF: {}}, "description": "What is to be signed, or the signed one"}},
)
async def review_document(
    link_token: LinkToken, number: Number, request: Request, provided: Provided
) -> StreamingResponse:
    """The very octets that are to be signed; after signing, the signed document."""
    stored_id, document = await provided.approvals.document(link_token, number, request.cookies)
    name = f"signed-{number}.pdf" if document.signed_id else f"document-{number}.pdf"
    return stream(provided, stored_id, name)


@router.get(
    "/return",
    response_model=ReviewView,
    responses={**responses(403, 404, 409, 410), 303: {"description": "On to the agency, with result or error"}},
)
async def returned(
    request: Request,
    provided: Provided,
    request_id: Annotated[str, Query(alias="request", max_length=64)],
    code: Annotated[str, Query(max_length=100)],
) -> ReviewView | RedirectResponse:
    """The gate sent the browser back: redeem, sign, and go on to whoever asked."""
    outcome = await provided.approvals.returned(request_id, _code(code), request.cookies)
    onward = _onward(outcome.transaction)
    if onward:
        return RedirectResponse(onward, status_code=303)
    review_url = provided.review_url(outcome.link_token)
    return review_view(Review(outcome.transaction, None, may_approve=False), review_url, provided.gate_url)


def _code(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise MalformedRequest("this is not a code of ours") from None


def _onward(transaction: Transaction) -> str:
    """The agency's own address with what it needs to know, or nothing where there is none or it is too early."""
    if not transaction.return_url:
        return ""
    if transaction.result_token:
        told = {"result": transaction.result_token}
    elif transaction.state is TransactionState.FAILED:
        told = {"error": transaction.failure_code}
    else:
        return ""
    separator = "&" if urlsplit(transaction.return_url).query else "?"
    return f"{transaction.return_url}{separator}{urlencode(told)}"
