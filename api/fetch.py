"""Timestamps, OCSP answers, CRLs and certificates for documents: only from addresses that the settings name.

Addresses come out of certificates and so, in the end, from strangers; without the list a document could make the edge
knock on any door of its network.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

import httpx
import structlog

from documents.model import FetchKind
from domain.errors import TimestampUnavailable

LIMIT_BYTES = 1024 * 1024
DEADLINE_SECONDS = 5.0
FAILURES_TO_OPEN = 3
"""So many failures in a row, and an origin is left alone for a while instead of costing each document its deadline."""
REST_SECONDS = 15.0

_CONTENT_TYPES: Mapping[FetchKind, str] = {
    FetchKind.TIMESTAMP: "application/timestamp-query",  # RFC 3161 §3.4
    FetchKind.OCSP: "application/ocsp-request",  # RFC 6960 appendix A
}
_DEFAULT_PORTS = {"http": 80, "https": 443}

_log = structlog.get_logger(__name__)


class AllowlistFetch:
    """The ``documents.model.AsyncFetch`` of the edge."""

    def __init__(
        self,
        prefixes: Sequence[str],
        *,
        tsa_url: str,
        transport: httpx.AsyncBaseTransport | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prefixes = [_parsed(prefix) for prefix in (*prefixes, tsa_url)]
        self._tsa_url = tsa_url
        self._deadline_seconds = deadline_seconds
        self._monotonic = monotonic
        # No redirects, since they would lead round the list, and no proxy from the environment.
        self._client = httpx.AsyncClient(
            transport=transport, follow_redirects=False, trust_env=False, timeout=httpx.Timeout(deadline_seconds)
        )
        self._failures: dict[str, int] = {}
        self._rests_until: dict[str, float] = {}

    async def __call__(self, kind: FetchKind, url: str, body: bytes | None) -> bytes:
        """POST ``body`` (GET if ``None``) to ``url``; timestamps come from our own authority, whatever ``url`` says.

        Raises:
            TimestampUnavailable: Not on the list, no answer in time, not a 200, or over ``LIMIT_BYTES``.
        """
        url = self._tsa_url if kind is FetchKind.TIMESTAMP else url
        origin = self._allowed(url)
        if self._monotonic() < self._rests_until.get(origin, 0.0):
            raise TimestampUnavailable(f"{kind.value}: the service was away a moment ago")
        try:
            answer = await self._fetch(kind, url, body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, TimestampUnavailable) as error:
            self._note(origin, failed=True)
            _log.warning("fetch failed", kind=kind.value, origin=origin, error=type(error).__name__)
            if isinstance(error, TimestampUnavailable):
                raise
            raise TimestampUnavailable(f"{kind.value}: no answer") from error
        self._note(origin, failed=False)
        return answer

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    def _allowed(self, url: str) -> str:
        try:
            asked = _parsed(url)
        except ValueError:
            raise TimestampUnavailable("this address is not allowed") from None
        for prefix in self._prefixes:
            under = prefix.path if prefix.path.endswith("/") else f"{prefix.path}/"
            same_origin = (asked.scheme, asked.hostname, _port(asked)) == (
                prefix.scheme,
                prefix.hostname,
                _port(prefix),
            )
            if same_origin and (asked.path == prefix.path or asked.path.startswith(under)):
                return f"{asked.scheme}://{asked.hostname}:{_port(asked)}"
        raise TimestampUnavailable("this address is not allowed")

    async def _fetch(self, kind: FetchKind, url: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": _CONTENT_TYPES[kind]} if body is not None and kind in _CONTENT_TYPES else {}
        method = "GET" if body is None else "POST"
        received = bytearray()
        # httpx limits each read; a trickle of bytes must not add up to more than one deadline either.
        async with (
            asyncio.timeout(self._deadline_seconds),
            self._client.stream(method, url, content=body, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise TimestampUnavailable(f"{kind.value}: answered {response.status_code}")
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > LIMIT_BYTES:
                    raise TimestampUnavailable(f"{kind.value}: the answer is too large")
        return bytes(received)

    def _note(self, origin: str, *, failed: bool) -> None:
        self._failures[origin] = self._failures.get(origin, 0) + 1 if failed else 0
        if self._failures[origin] >= FAILURES_TO_OPEN:
            self._failures[origin] = 0
            self._rests_until[origin] = self._monotonic() + REST_SECONDS


def _parsed(url: str) -> SplitResult:
    parts = urlsplit(url)
    odd = any(not character.isprintable() or character in ' \\"<>' for character in url)
    dotted = {".", ".."} & set(parts.path.lower().replace("%2e", ".").replace("%2f", "/").split("/"))
    if odd or dotted or parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not a plain http or https address")
    _port(parts)
    return parts


def _port(parts: SplitResult) -> int:
    """Raises ``ValueError`` where it is no number of a port."""
    return parts.port or _DEFAULT_PORTS[parts.scheme]
