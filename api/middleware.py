"""What every answer of edge and gate has in common: security headers, a limit on bodies, one line in the access log."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem
from domain.errors import DocumentTooLarge

SECURITY_HEADERS: Mapping[str, str] = {
    # JSON and downloads only: nothing may be loaded, framed or posted from an answer (CSP level 3).
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

_log = structlog.get_logger(__name__)


class SecurityHeaders:
    """ASGI middleware that adds ``SECURITY_HEADERS`` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, adding)


class BodyLimit:
    """ASGI middleware that stops reading a body beyond its limit, declared or not."""

    def __init__(self, app: ASGIApp, *, limit_bytes: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_bytes(scope)
        refusal = DocumentTooLarge(f"a body has at most {limit} bytes here")
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            await problem(refusal)(scope, receive, send)
            return
        read = 0
        refused = False
        started = False

        async def counting() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise refusal
            return message

        async def guarding(message: Message) -> None:
            # Whoever reads the body may turn our refusal into another answer; this one goes before it.
            nonlocal refused, started
            if read > limit and not started:
                started = refused = True
                await problem(refusal)(scope, receive, send)
            started = True
            if not refused:
                await send(message)

        await self._app(scope, counting, guarding)


class AccessLog:
    """ASGI middleware: one line per request with the route's template, never the path, query, headers or body.

    Paths hold link tokens and queries hold codes: both open something.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            route: Any = scope.get("route")
            _log.info(
                "served",
                method=scope["method"],
                route=getattr(route, "path", "-"),
                status=status,
                milliseconds=round((time.monotonic() - started) * 1000),
            )
