"""What every answer of edge and gate has in common: security headers, a limit on bodies, one line in the access log."""

import asyncio
import contextlib
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

DRAIN_BYTES = 256 * 1024
DRAIN_SECONDS = 1.0

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


class _Exchange:
    """One request and its answer, and how much of the body was read."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limit_bytes = limit_bytes
        headers = Headers(scope=scope)
        self._declared = headers.get("content-length", "")
        # Who waits for 100 (Continue) has sent nothing yet, and is not to be invited.
        self._invited = "expect" not in headers
        # Without either header there is no body (RFC 9112 section 6.3).
        self._ended = self._declared in {"", "0"} and "transfer-encoding" not in headers
        self._read = 0
        self._started = self._refused = False
        self._refusal = DocumentTooLarge(f"a body has at most {limit_bytes} bytes here")

    @property
    def declares_too_much(self) -> bool:
        """Its own header says that the body is beyond the limit."""
        return self._declared.isdecimal() and int(self._declared) > self._limit_bytes

    async def refuse(self) -> None:
        """Answer that the body is too large."""
        self._started = self._refused = True
        await problem(self._refusal)(self._scope, self._receive, self._answer)

    async def receive(self) -> Message:
        """The next piece of the body, for the application.

        Raises:
            DocumentTooLarge: That is beyond the limit.
        """
        if self._started and self._read > self._limit_bytes:
            return {"type": "http.disconnect"}
        message = await self._next()
        self._read += len(message.get("body", b""))
        if self._read > self._limit_bytes and not self._started:
            raise self._refusal
        return message

    async def send(self, message: Message) -> None:
        """What the application answers."""
        # Whoever reads the body may turn our refusal into another answer; this one goes before it.
        if self._read > self._limit_bytes and not self._started:
            await self.refuse()
        self._started = True
        if not self._refused:
            await self._answer(message)

    async def _next(self) -> Message:
        message = await self._receive()
        self._ended = self._ended or not message.get("more_body", False)
        return message

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._ended:
            if self._invited:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        await self._drain()
            if not self._ended:
                MutableHeaders(scope=message)["Connection"] = "close"
        await self._send(message)

    async def _drain(self) -> None:
        drained = 0
        while not self._ended and drained < DRAIN_BYTES:
            drained += len((await self._next()).get("body", b""))


class BodyLimit:
    """ASGI middleware that stops reading a body beyond its limit, declared or not.

    A server goes on reading what an answer left unread, to find the next request behind it: without end, if the body
    has none. So whoever is answered before the end of the body gets ``Connection: close`` (RFC 9112 section 9.6),
    unless the end comes within ``DRAIN_BYTES`` and ``DRAIN_SECONDS``.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit_bytes: Callable[[Scope], int],
        answered_by_app: Callable[[Scope], bool] = lambda _scope: False,
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            limit_bytes: Of a request's body.
            answered_by_app: Whether the application itself answers to a body that is declared too large, as people can
                read it.
        """
        self._app = app
        self._limit_bytes = limit_bytes
        self._answered_by_app = answered_by_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limit_bytes(scope))
        if exchange.declares_too_much and not self._answered_by_app(scope):
            await exchange.refuse()
        else:
            await self._app(scope, exchange.receive, exchange.send)


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
