"""From a file to a signature: choose, look, go to the gate, come back, download."""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse
from pydantic import StringConstraints

from api.look.languages import NAMES, PARAMETER, language_of, remember
from api.look.pages import FrontRoute, PeopleRoute, look_of
from api.look.sentences import sentence
from api.transactions.model import PDF, UNDER_WAY, XML, DocumentState, Transaction, TransactionState, new_transaction
from api.transactions.review import OpenElsewhere, Over, Review, Superseded, onward_url, parsed_code
from api.transactions.service import IdempotentPost, LinkHolder, draw_transaction_id, link_sha256
from api.turns import asker_of
from api.web import shown
from api.web.check import report_page
from api.web.forms import TooManyFiles, file_stem, files, is_pdf, is_xml, name_of, octets, require_own_site, title_of
from api.web.services import Provided, Web
from domain.algorithms import SignatureAlgorithm
from domain.errors import (
    ActivationError,
    DocumentTooLarge,
    MalformedRequest,
    NotFound,
    RubricaError,
    StateConflict,
    UnsupportedDocument,
)
from domain.items import Packaging, SignatureFormat

UPLOAD_PATH = "/sign"
MOST_AT_ONCE = 100
"""Files in one form; they may make several approvals."""

router = APIRouter(route_class=PeopleRoute, include_in_schema=False)
anybody = APIRouter(route_class=FrontRoute, include_in_schema=False)
pictures = APIRouter(include_in_schema=False)

LINK_CHARACTERS = 64
LinkToken = Annotated[str, Path(max_length=LINK_CHARACTERS)]
Approvals = Annotated[
    Sequence[Annotated[str, StringConstraints(max_length=LINK_CHARACTERS)]], Query(max_length=MOST_AT_ONCE)
]
Number = Annotated[int, Path(ge=1, le=100_000)]

_SIGNED = (DocumentState.SIGNED, DocumentState.PARTIAL)


@anybody.api_route("/", methods=["GET", "HEAD"])
async def choose(request: Request, provided: Provided) -> HTMLResponse:
    """Where people bring their documents."""
    answer = look_of(request.app).page(request, "choose.html", {**_limits(provided), "errors": []})
    remember(request, answer)
    return answer


@router.get(UPLOAD_PATH)
async def brought(request: Request, provided: Provided, approval: Approvals = ()) -> Response:
    """What was brought where it takes several approvals; without any, the upload's own address shows the form."""
    if approval:
        answer: Response = await _kept(request, provided, approval, [])
    else:
        language = request.query_params.get(PARAMETER)
        query = f"?{urlencode({PARAMETER: language})}" if language in NAMES else ""
        answer = RedirectResponse(f"/{query}", status_code=303)
    remember(request, answer)
    return answer


@router.post(UPLOAD_PATH)
async def bring(request: Request, provided: Provided) -> Response:
    """Take the files; what cannot be signed is told at once, and the rest is kept."""
    look = look_of(request.app)
    words = look.words(request)
    try:
        links, told = await _received(request, provided)
        status = 422
    except (DocumentTooLarge, MalformedRequest) as error:
        links, status = [], 413 if isinstance(error, DocumentTooLarge) else 400
        said = look.explained(request, error)
        if isinstance(error, DocumentTooLarge):
            said = words("What you chose is too large. What fits is said below.")
        elif isinstance(error, TooManyFiles):
            said = words("These are too many files for once. Choose at most {number}.").format(number=MOST_AT_ONCE)
        told = [(said, "")]
    if not links:
        return look.page(request, "choose.html", {**_limits(provided), "errors": told}, status=status)
    if told:
        return await _kept(request, provided, links, told)
    return RedirectResponse(f"/review/{links[0]}" if len(links) == 1 else _kept_address(links), status_code=303)


@router.get("/review/{link_token}")
async def review(link_token: LinkToken, request: Request, provided: Provided) -> HTMLResponse:
    """Every page of what is to be signed, or what became of it."""
    try:
        async with provided.turns.turn(f"link {link_token}"):
            opened = await provided.approvals.review(link_token, request.cookies)
    except OpenElsewhere as error:
        values = {"link": f"/review/{link_token}", "state": error.state.value}
        answer = look_of(request.app).page(request, "elsewhere.html", values, status=409)
        remember(request, answer)
        return answer
    if opened.may_approve:
        answer = await _to_sign(link_token, request, provided, opened)
    else:
        answer = _outcome(link_token, request, opened)
    if opened.cookie is not None:
        answer.headers.append("Set-Cookie", opened.cookie.header)
    remember(request, answer)
    return answer


@router.post("/review/{link_token}")
async def go_on_here(link_token: LinkToken, request: Request, provided: Provided) -> RedirectResponse:
    """The citizen wants to sign in this browser what is open in another one."""
    require_own_site(request)
    answer = RedirectResponse(f"/review/{link_token}", status_code=303)
    # Where it cannot be had any more, the page that follows says why.
    with contextlib.suppress(OpenElsewhere):
        async with provided.turns.turn(f"link {link_token}"):
            opened = await provided.approvals.review(link_token, request.cookies, take_over=True)
        if opened.cookie is not None:
            answer.headers.append("Set-Cookie", opened.cookie.header)
    return answer


@pictures.get("/review/{link_token}/documents/{number}/pages/{page}")
async def picture(
    link_token: LinkToken, number: Number, page: Number, request: Request, provided: Provided
) -> Response:
    """One page of the very octets that are to be signed."""
    stored_id, _ = await provided.approvals.document(link_token, number, request.cookies)
    png = await shown.picture(provided, stored_id, page, f"link {link_token}")
    return Response(png, media_type="image/png")


@router.get("/return")
async def returned(
    request: Request,
    provided: Provided,
    request_id: Annotated[str, Query(alias="request", max_length=64)],
    code: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """The gate sent the browser back: sign, and go on; the code does not stay in the address.

    Without a code nothing was approved, and the documents are shown again.
    """
    if not code:
        link_token = await provided.approvals.link(request_id, request.cookies)
        return RedirectResponse(f"/review/{link_token}", status_code=303)
    try:
        outcome = await provided.approvals.returned(request_id, parsed_code(code), request.cookies)
    except (ActivationError, StateConflict) as error:
        # Loading this address again would be refused again; the documents are where they were.
        back = f"/review/{await provided.approvals.link(request_id, request.cookies)}"
        if isinstance(error, Over):
            return RedirectResponse(back, status_code=303)
        look = look_of(request.app)
        words = look.words(request)
        superseded = words(
            "These documents were opened in another browser or on another device after you began, and somebody chose "
            "to go on there. What you approved here was not used, and nothing was signed with it. You can go on here: "
            "go back to the documents."
        )
        return look.failure(request, error, back=back, said=superseded if isinstance(error, Superseded) else "")
    onward = onward_url(outcome.transaction) or f"/review/{outcome.link_token}"
    return RedirectResponse(onward, status_code=303)


@router.get("/review/{link_token}/documents/{number}/signed")
async def download(link_token: LinkToken, number: Number, request: Request, provided: Provided) -> FileResponse:
    """A signed document."""
    transaction = await _collected(link_token, request, provided)
    path = provided.store.path(provided.transactions.signed(transaction, number))
    document = transaction.documents[number - 1]
    ending = "pdf" if document.signed_media_type == PDF else "xml"
    words = look_of(request.app).words(request)
    signed = words("signed")
    name = f"{file_stem(document.title) or words('Document')}-{signed}.{ending}"
    return FileResponse(path, media_type=document.signed_media_type, filename=name)


@router.get("/review/{link_token}/documents/{number}/check")
async def check(link_token: LinkToken, number: Number, request: Request, provided: Provided) -> HTMLResponse:
    """What this service itself thinks of the signed document."""
    transaction = await _collected(link_token, request, provided)
    path = provided.store.path(provided.transactions.signed(transaction, number))
    title = transaction.documents[number - 1].title
    return await report_page(request, provided, path, title, back=f"/review/{link_token}")


@router.get("/review/{link_token}/receipt")
async def receipt(link_token: LinkToken, request: Request, provided: Provided) -> PlainTextResponse:
    """The core's receipt, to be kept."""
    transaction = await _collected(link_token, request, provided)
    headers = {"Content-Disposition": 'attachment; filename="receipt.jws"'}
    return PlainTextResponse(provided.transactions.receipt(transaction), media_type="application/jose", headers=headers)


async def _received(request: Request, provided: Web) -> tuple[list[str], list[tuple[str, str]]]:
    """The links of what can be signed, one for each approval, and what is to be said of the rest.

    Raises:
        MalformedRequest: Not a form with files, or too many.
        DocumentTooLarge: Too much in all.
    """
    look = look_of(request.app)
    words = look.words(request)
    limits = provided.transactions.limits
    links: list[str] = []
    told: list[tuple[str, str]] = []
    async with files(
        request,
        each_bytes=limits.citizen_bytes,
        most=MOST_AT_ONCE,
        whole_bytes=limits.citizen_documents * limits.citizen_bytes,
    ) as chosen:
        documents = chosen.get("documents", [])
        if not documents:
            return [], [(words("Choose a file first."), "")]
        for xml, together in await _approvals(documents, limits.citizen_documents):
            link_token, errors = await _taken(provided, asker_of(request), together, words("Document"), xml=xml)
            links += [link_token] if link_token else []
            told += [(name, look.explained(request, error)) for name, error in errors]
    return links, told


async def _approvals(documents: list[UploadFile], most: int) -> list[tuple[bool, list[UploadFile]]]:
    """Which files go into one approval, and whether they are XML: an approval has one format and at most so many.

    What is neither goes with the larger group, to be refused with the reason.
    """
    pdf: list[UploadFile] = []
    xml: list[UploadFile] = []
    neither: list[UploadFile] = []
    for file in documents:
        group = xml if await is_xml(file) else pdf if await is_pdf(file) else neither
        group.append(file)
    (xml if len(xml) > len(pdf) else pdf).extend(neither)
    return [(group is xml, group[begin : begin + most]) for group in (pdf, xml) for begin in range(0, len(group), most)]


def _kept_address(links: Sequence[str]) -> str:
    return f"{UPLOAD_PATH}?{urlencode({'approval': links}, doseq=True)}"


async def _kept(
    request: Request, provided: Web, links: Sequence[str], errors: Sequence[tuple[str, str]]
) -> HTMLResponse:
    """What was brought and can be signed, by approval, and what cannot."""
    approvals = [(link, (await provided.approvals.seen(link, request.cookies)).transaction) for link in links]
    formats = {transaction.format for _, transaction in approvals}
    values = {
        "errors": errors,
        "approvals": approvals,
        "mixed": len(formats) > 1,
        "crowded": len(approvals) > len(formats),
        "most": provided.transactions.limits.citizen_documents,
    }
    # In another language, or loaded again, it still has what was kept.
    return look_of(request.app).page(request, "partly.html", values, address=_kept_address(links))


async def _taken(
    provided: Web, asker: str, documents: list[UploadFile], untitled: str, *, xml: bool
) -> tuple[str, list[tuple[str, RubricaError]]]:
    """The link of a transaction with all that can be signed (empty where nothing can), and what cannot."""
    titles = [title_of(file, untitled) for file in documents]
    link_token, refused = await _submitted(provided, asker, documents, titles, xml=xml)
    if refused and len(refused) < len(documents):
        good = [at for at in range(len(documents)) if at not in refused]
        left = [documents[at] for at in good]
        link_token, _ = await _submitted(provided, asker, left, [titles[at] for at in good], xml=xml)
    return link_token, [(name_of(documents[at]), error) for at, error in refused.items()]


async def _submitted(
    provided: Web, asker: str, documents: list[UploadFile], titles: list[str], *, xml: bool
) -> tuple[str, dict[int, RubricaError]]:
    """One transaction of the citizen's own; if a document is refused, it is given up, and all refusals are told."""
    new = new_transaction(
        titles=titles,
        level="",
        signature_format=SignatureFormat.XADES if xml else SignatureFormat.PADES,
        packaging=Packaging.ENVELOPED,
        algorithm=SignatureAlgorithm.ES256,
    )
    # Nobody sends this again under the same key: a form sent twice makes two transactions, of which one stays unsigned.
    key = secrets.token_urlsafe(32)
    created = await provided.transactions.create(draw_transaction_id(), None, new, IdempotentPost(key, b""))
    holder = LinkHolder(link_sha256(created.link_token), asker)
    transaction_id = created.transaction.transaction_id
    refused: dict[int, RubricaError] = {}
    for at, file in enumerate(documents):
        try:
            await provided.transactions.upload(
                transaction_id, holder, at + 1, octets(file), media_type=XML if xml else PDF
            )
        except (UnsupportedDocument, DocumentTooLarge) as error:
            refused[at] = error
    if refused:
        await provided.transactions.cancel(transaction_id, holder)
        return "", refused
    await provided.transactions.submit(transaction_id, holder, IdempotentPost(key, b""))
    return created.link_token, {}


async def _to_sign(link_token: str, request: Request, provided: Web, opened: Review) -> HTMLResponse:
    cookies = request.cookies if opened.cookie is None else {opened.cookie.name: opened.cookie.value}
    outlined = []
    for document in opened.transaction.documents:
        stored_id, _ = await provided.approvals.document(link_token, document.number, cookies)
        path = provided.store.path(stored_id)
        # Preparing adds to a PDF; an XML gets shorter by what no signature covers, and nothing else changes its length.
        left_out = (await asyncio.to_thread(path.stat)).st_size < document.size_bytes
        outlined.append((document, left_out, await shown.outline(provided, stored_id, f"link {link_token}")))
    language = language_of(request)
    values = {
        "link": f"/review/{link_token}",
        "transaction": opened.transaction,
        "shown": outlined,
        "gate": f"{provided.gate_url}/authorise/{opened.transaction.request_id}?{urlencode({PARAMETER: language})}",
    }
    return look_of(request.app).page(request, "review.html", values)


def _outcome(link_token: str, request: Request, opened: Review) -> HTMLResponse:
    transaction = opened.transaction
    values = {
        "link": f"/review/{link_token}",
        "transaction": transaction,
        "under_way": transaction.state in UNDER_WAY,
        "may_collect": _may_collect(opened),
        "signed": [document for document in transaction.documents if document.state in _SIGNED],
        "failed": [
            (document, sentence(document.failure_code, look_of(request.app).words(request)))
            for document in transaction.documents
            if document.state is DocumentState.FAILED
        ],
        "partial": any(document.state is DocumentState.PARTIAL for document in transaction.documents),
        "over": transaction.state in (TransactionState.CANCELLED, TransactionState.EXPIRED),
        "onward": onward_url(transaction) if opened.same_browser else "",
    }
    return look_of(request.app).page(request, "outcome.html", values)


async def _collected(link_token: str, request: Request, provided: Web) -> Transaction:
    """A transaction from which this browser may fetch what was signed.

    Raises:
        NotFound: It may not.
    """
    opened = await provided.approvals.seen(link_token, request.cookies)
    if not _may_collect(opened):
        raise NotFound("nothing to fetch for this browser")
    return opened.transaction


def _may_collect(opened: Review) -> bool:
    """In the citizen's own web the link opens what was signed; an agency's link does so in one browser only."""
    return opened.same_browser or not opened.transaction.client_id


def _limits(provided: Web) -> dict[str, int]:
    limits = provided.transactions.limits
    return {"most": limits.citizen_documents, "largest": limits.citizen_bytes}
