"""The PKI's two HTTP faces: the issuing one, for a private Unix socket, and the public one, which changes nothing."""

import base64
from http import HTTPStatus
from typing import Annotated

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from certs.issuer import CitizenSubject, OrganisationSubject, RevocationReason, Subject
from certs.pki.authority import AuthorityName
from certs.pki.service import PKI, TokenThread
from domain.errors import MalformedRequest, NotFound, RequestError, RubricaError, StateConflict
from hsm.errors import HSMError

BODY_LIMIT_BYTES = 32 * 1024

log = structlog.get_logger()


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SubjectBody(_Body):
    """``certs.issuer.CitizenSubject``."""

    nif: str
    given_name: str
    first_surname: str
    second_surname: str = ""


class OrganisationBody(_Body):
    """``certs.issuer.OrganisationSubject``."""

    organisation: str
    organisation_id: str


class IssueBody(_Body):
    """Body of POST /issue."""

    csr: str
    """PKCS#10, DER, in base64."""
    subject: SubjectBody | None = None
    """Of a citizen."""
    organisation: OrganisationBody | None = None
    """Of a seal, instead."""
    idempotency_key: str


class IssuedBody(_Body):
    """Answer of POST /issue; each certificate is DER in base64."""

    certificate: str
    chain: list[str]


class RevokeBody(_Body):
    """Body of POST /revoke."""

    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]
    """Hexadecimal."""
    reason: RevocationReason


def create_issuing_app(pki: PKI, thread: TokenThread) -> FastAPI:
    """POST /issue and POST /revoke; whoever reaches them can have anybody certified: its socket is the core's alone."""
    app = _app("Issuing face of the development PKI")

    @app.post("/issue")
    async def issue(body: IssueBody) -> IssuedBody:
        csr = _unbase64(body.csr)
        subject: Subject
        if body.subject is not None and body.organisation is None:
            subject = CitizenSubject(**body.subject.model_dump())
        elif body.organisation is not None and body.subject is None:
            subject = OrganisationSubject(**body.organisation.model_dump())
        else:
            raise MalformedRequest("a certificate is for a subject or for an organisation")
        issued = await thread.run(pki.authority.issue, csr, subject, body.idempotency_key)
        log.info("certificate given", serial=_serial(issued.certificate))
        return IssuedBody(certificate=_base64(issued.certificate), chain=[_base64(der) for der in issued.chain])

    @app.post("/revoke", status_code=HTTPStatus.NO_CONTENT)
    async def revoke(body: RevokeBody) -> None:
        await thread.run(pki.authority.revoke, int(body.serial, 16), body.reason)
        log.info("certificate revoked", serial=body.serial, reason=body.reason.value)

    return app


def create_public_app(pki: PKI, thread: TokenThread) -> FastAPI:
    """Status, CRLs, CA certificates and timestamps for anybody."""
    app = _app("Public face of the development PKI")
    own = pki.authority.certificates
    certificates = {"root": own.root, "ca": own.ca}

    @app.post("/ocsp")
    async def ocsp(request: Request) -> Response:
        answer = await thread.run(pki.ocsp.respond, await _limited_body(request))
        return Response(answer, media_type="application/ocsp-response")

    @app.get("/ocsp/{encoded:path}")
    async def ocsp_by_get(encoded: str) -> Response:
        try:
            request = base64.b64decode(encoded, validate=True)
        except ValueError:
            request = b""
        answer = await thread.run(pki.ocsp.respond, request)
        return Response(answer, media_type="application/ocsp-response")

    @app.get("/crl/{authority}.crl")
    async def crl(authority: AuthorityName) -> Response:
        return Response(await thread.run(pki.authority.crl, authority), media_type="application/pkix-crl")

    @app.get("/certs/{authority}.crt")
    async def certificate(authority: AuthorityName) -> Response:
        return Response(certificates[authority].public_bytes(Encoding.DER), media_type="application/pkix-cert")

    @app.post("/tsa")
    async def tsa(request: Request) -> Response:
        answer = await thread.run(pki.tsa.respond, await _limited_body(request))
        status = HTTPStatus.OK if answer.readable else HTTPStatus.BAD_REQUEST
        return Response(answer.response, status, media_type="application/timestamp-reply")

    return app


def _app(title: str) -> FastAPI:
    app = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None)

    @app.exception_handler(RubricaError)
    async def refused(_request: Request, exc: RubricaError) -> JSONResponse:
        return _problem(_status(exc), exc.code, exc.public_detail)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, exc: RequestValidationError) -> JSONResponse:
        # The offending input is not echoed: it may be anybody's name, or text that cannot be encoded.
        places = sorted({".".join(str(part) for part in error["loc"]) for error in exc.errors()})
        detail = f"missing or malformed: {', '.join(places)}".encode(errors="replace").decode()
        return _problem(HTTPStatus.BAD_REQUEST, MalformedRequest.code, detail)

    @app.exception_handler(HSMError)
    async def token_failed(_request: Request, exc: HSMError) -> JSONResponse:
        log.error("the token failed", exc_info=exc)
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "hsm_unavailable", "the token does not answer")

    return app


def _status(exc: RubricaError) -> HTTPStatus:
    match exc:
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case StateConflict():
            return HTTPStatus.CONFLICT
        case RequestError():
            return HTTPStatus.BAD_REQUEST
        case _:
            return HTTPStatus.SERVICE_UNAVAILABLE


def _problem(status: HTTPStatus, code: str, detail: str) -> JSONResponse:
    return JSONResponse({"code": code, "detail": detail}, status)


async def _limited_body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_LIMIT_BYTES:
            raise MalformedRequest(f"the request is over {BODY_LIMIT_BYTES} bytes")
    return body


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedRequest("the certification request is not base64") from None


def _serial(certificate: bytes) -> str:
    return f"{x509.load_der_x509_certificate(certificate).serial_number:x}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
