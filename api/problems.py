"""Errors as problem details (RFC 9457): the only place that knows which HTTP status a code has.

A ``RubricaError`` shows its code and public detail. Anything else is a bug: 500 with a generic text, and everything in
the log, under the event id that the answer names.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.errors import DependencyUnavailable, MalformedRequest, MethodNotAllowed, NotFound, RubricaError
from domain.ids import new_id

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[str, int] = {
    "malformed_request": 400,
    "unsupported_document": 422,
    "document_too_large": 413,
    "algorithm_not_allowed": 422,
    "not_found": 404,
    "method_not_allowed": 405,
    "caller_refused": 401,
    "not_permitted": 403,
    "rate_limited": 429,
    "factor_mismatch": 403,
    "factor_locked": 429,
    "code_expired": 410,
    "weak_password": 422,
    "activation_refused": 403,
    "credential_unusable": 403,
    "no_certificate": 403,
    "weak_registration": 403,
    "credential_suspended": 403,
    "credential_revoked": 403,
    "certificate_expired": 403,
    "state_conflict": 409,
    "request_expired": 410,
    "request_already_signed": 409,
    "idempotency_conflict": 409,
    "already_registered": 409,
    "dependency_unavailable": 503,
    "hsm_unavailable": 503,
    "row_edited": 503,
    "busy": 503,
    "ca_unavailable": 503,
    "tsa_unavailable": 503,
    "log_unavailable": 503,
    "internal": 500,
}
"""Every stable code, and the status (RFC 9110) that carries it."""

_CODES: Mapping[int, str] = {
    STATUSES[kind.code]: kind.code
    for kind in (NotFound, MethodNotAllowed)  # what the framework itself refuses
}

_TITLES: Mapping[str, str] = {
    "malformed_request": "The request is not understood",
    "unsupported_document": "The document cannot be signed",
    "document_too_large": "Too large",
    "not_found": "Not found",
    "caller_refused": "The caller could not prove who it is",
    "factor_mismatch": "Not accepted",
    "factor_locked": "Too many failures",
    "activation_refused": "The signature was refused",
    "internal": "Something went wrong here",
}
"""Titles of codes that deserve more than their own words."""

_RETRY_SECONDS = 5
"""Said when something we depend on is away and nobody knows for how long."""

_GENERIC_DETAIL = "an unexpected fault; it has been recorded under this event"

_log = structlog.get_logger(__name__)


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(examples=["urn:rubrica:problem:not_found"])
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; made for programs.", examples=["not_found"])
    instance: str = Field(description="Names this event in our log.", examples=["urn:rubrica:event:01…"])


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How OpenAPI declares the problems of an endpoint; 400 and 500 and 503 may come from anywhere."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({400, 500, 503, *statuses})
    }


def problem(error: RubricaError) -> JSONResponse:
    """The answer that shows ``error`` to a stranger."""
    event = new_id()
    status = STATUSES[error.code]
    _log.log(
        40 if status == STATUSES["internal"] else 20, "refused", problem=error.code, problem_event=event, status=status
    )
    headers = {}
    if error.retry_after_seconds is not None or isinstance(error, DependencyUnavailable):
        headers["Retry-After"] = str(_RETRY_SECONDS if error.retry_after_seconds is None else error.retry_after_seconds)
    if status == STATUSES["caller_refused"]:
        headers["WWW-Authenticate"] = "Bearer"
    return _answer(error.code, status, error.public_detail, event, headers)


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error with problem details and say so in its OpenAPI document."""

    async def on_rubrica_error(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RubricaError):
            raise error
        return problem(error)

    async def on_validation_error(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        # Places and rules only: what was sent may be a secret, so it is not repeated.
        places = "; ".join(
            f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}" for fault in error.errors()[:5]
        )
        return problem(MalformedRequest(_readable(places)))

    async def on_http_exception(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        code = _CODES.get(error.status_code, MalformedRequest.code)
        detail = HTTPStatus(error.status_code).phrase.lower()
        return _answer(code, error.status_code, detail, new_id(), dict(error.headers or {}))

    app.add_exception_handler(RubricaError, on_rubrica_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    _declare(app)


class LastResort:
    """ASGI middleware, outermost: an exception nobody expected becomes a 500 that tells nothing, and a full log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watching(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watching)
        except Exception:
            event = new_id()
            # Tracebacks carry code, never values: structlog's renderer is set up without locals.
            _log.exception("unexpected fault", problem_event=event)
            if started:
                raise
            await _answer("internal", STATUSES["internal"], _GENERIC_DETAIL, event, {})(scope, receive, send)


def _answer(code: str, status: int, detail: str, event: str, headers: Mapping[str, str]) -> JSONResponse:
    body = {
        "type": f"urn:rubrica:problem:{code}",
        "title": _TITLES.get(code, code.replace("_", " ").capitalize()),
        "status": status,
        "detail": detail,
        "code": code,
        "instance": f"urn:rubrica:event:{event}",
    }
    return JSONResponse(body, status, headers=dict(headers), media_type=MEDIA_TYPE)


def _readable(text: str) -> str:
    """Names of fields come from strangers too: printable characters only, and not too many."""
    return "".join(character if character.isprintable() else "?" for character in text)[:400]


def _declare(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        # FastAPI declares its own 422 for every body; ours is a 400 with problem details.
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for operations in document.get("paths", {}).values():
            for operation in operations.values():
                answers = operation.get("responses", {})
                own = answers.get("422", {}).get("content", {})
                if "application/json" in own:
                    del answers["422"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
