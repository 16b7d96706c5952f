"""The addresses that a citizen's browser visits at the edge, for programs: as JSON. No secret is asked for here."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api.problems import responses
from api.rest.schemas import ReviewView, review_view
from api.rest.services import Provided, Services
from api.rest.transactions import ANY, Number, stream
from api.transactions.review import Review, onward_url, parsed_code

router = APIRouter(tags=["browser"])

LinkToken = Annotated[str, Path(max_length=64)]


@router.get("/review/{link_token}", responses=responses(403, 404, 409, 410, 422))
async def review(link_token: LinkToken, request: Request, response: Response, provided: Provided) -> ReviewView:
    """What is to be signed and who asks; prepares and stages it, and marks this browser by a cookie.

    While another browser holds it, this is a conflict and changes nothing.
    """
    return await _opened(link_token, request, response, provided, take_over=False)


@router.head("/review/{link_token}", responses=responses(404))
async def exists(link_token: LinkToken, request: Request, provided: Provided) -> Response:
    """Whether there is such a link; whoever only asks this, as programs that check mail do, opens nothing."""
    await provided.approvals.seen(link_token, request.cookies)
    return Response(media_type="text/html")


@router.post("/review/{link_token}", responses=responses(403, 404, 409, 410, 422))
async def take_over(link_token: LinkToken, request: Request, response: Response, provided: Provided) -> ReviewView:
    """Go on in this browser with what is open in another one, which then cannot sign it any more.

    A conflict while a code is awaited there, or once it was approved there.
    """
    return await _opened(link_token, request, response, provided, take_over=True)


async def _opened(
    link_token: str, request: Request, response: Response, provided: Services, *, take_over: bool
) -> ReviewView:
    opened = await provided.approvals.review(link_token, request.cookies, take_over=take_over)
    if opened.cookie is not None:
        response.headers.append("Set-Cookie", opened.cookie.header)
    return review_view(opened, provided.review_url(link_token), provided.gate_url)


@router.get(
    "/review/{link_token}/documents/{number}",
    response_class=StreamingResponse,
    responses={**responses(404), 200: {"content": {ANY: {}}, "description": "What is to be signed, or the signed one"}},
)
async def review_document(
    link_token: LinkToken, number: Number, request: Request, provided: Provided
) -> StreamingResponse:
    """The very octets that are to be signed; after signing, the signed document."""
    stored_id, document = await provided.approvals.document(link_token, number, request.cookies)
    if document.signed_id:
        return stream(provided, stored_id, f"signed-{number}", document.signed_media_type)
    return stream(provided, stored_id, f"document-{number}", document.media_type)


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
    outcome = await provided.approvals.returned(request_id, parsed_code(code), request.cookies)
    onward = onward_url(outcome.transaction)
    if onward:
        return RedirectResponse(onward, status_code=303)
    review_url = provided.review_url(outcome.link_token)
    return review_view(Review(outcome.transaction, None, may_approve=False), review_url, provided.gate_url)
