"""Timestamps, OCSP answers, CRLs and certificates for documents: only from addresses that the settings name.

Addresses come out of certificates and so, in the end, from strangers; without the list a document could make the edge
knock on any door of its network.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

import httpx
import structlog

from documents.model import FetchKind
from domain.errors import TimestampUnavailable

LIMIT_BYTES = 1024 * 1024
DEADLINE_SECONDS = 5.0
FAILURES_TO_OPEN = 3
"""So many times no answer, and an address is left alone for a while instead of costing each document its deadline."""
REST_SECONDS = 15.0

_CONTENT_TYPES: Mapping[FetchKind, str] = {
    FetchKind.TIMESTAMP: "application/timestamp-query",  # RFC 3161 §3.4
    FetchKind.OCSP: "application/ocsp-request",  # RFC 6960 appendix A
}
_DEFAULT_PORTS = {"http": 80, "https": 443}

_Service = tuple[FetchKind, str]
"""What is asked for, and the prefix that allows its address."""

_log = structlog.get_logger(__name__)


class _NoService(TimestampUnavailable):
    """The service itself is in trouble, whatever it was asked."""


class AllowlistFetch:
    """The ``documents.model.AsyncFetch`` of the edge.

    A service that does not answer is left alone for a while: under one prefix and for one kind, so that nothing else
    is lost with it. An answer that does not help says nothing of the service: whoever wrote the document chose what
    was asked for.
    """

    def __init__(
        self,
        prefixes: Sequence[str],
        *,
        tsa_url: str | None,
        transport: httpx.AsyncBaseTransport | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked yet.

        Args:
            prefixes: Of addresses that may be asked.
            tsa_url: Of the timestamp authority; with ``None`` there are no timestamps.
            transport: What httpx is to use instead of the network.
            deadline_seconds: Of each answer as a whole.
            monotonic: The time for rests.
        """
        self._prefixes = [_parsed(prefix) for prefix in (*prefixes, *([tsa_url] if tsa_url else ()))]
        self._tsa_url = tsa_url
        self._deadline_seconds = deadline_seconds
        self._monotonic = monotonic
        # No redirects, since they would lead round the list, and no proxy from the environment.
        self._client = httpx.AsyncClient(
            transport=transport, follow_redirects=False, trust_env=False, timeout=httpx.Timeout(deadline_seconds)
        )
        self._failures: Counter[_Service] = Counter()
        self._rests_until: dict[_Service, float] = {}

    async def __call__(self, kind: FetchKind, url: str, body: bytes | None) -> bytes:
        """POST ``body`` (GET if ``None``) to ``url``; timestamps come from our own authority, whatever ``url`` says.

        Raises:
            TimestampUnavailable: Not on the list, no answer in time, not a 200, or over ``LIMIT_BYTES``.
        """
        url = (self._tsa_url or "") if kind is FetchKind.TIMESTAMP else url
        service = (kind, self._allowed(url))
        if self._monotonic() < self._rests_until.get(service, 0.0):
            raise TimestampUnavailable(f"{kind.value}: the service was away a moment ago")
        try:
            answer = await self._fetch(kind, url, body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, TimestampUnavailable) as error:
            answered = isinstance(error, TimestampUnavailable) and not isinstance(error, _NoService)
            self._note(service, failed=not answered)
            _log.warning("fetch failed", kind=kind.value, under=service[1], error=type(error).__name__)
            if isinstance(error, TimestampUnavailable):
                raise
            raise TimestampUnavailable(f"{kind.value}: no answer") from error
        self._note(service, failed=False)
        return answer

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    def _allowed(self, url: str) -> str:
        """The prefix that allows it."""
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
                return prefix.geturl()
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
            if response.is_server_error:
                raise _NoService(f"{kind.value}: answered {response.status_code}")
            if response.status_code != httpx.codes.OK:
                raise TimestampUnavailable(f"{kind.value}: answered {response.status_code}")
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > LIMIT_BYTES:
                    raise TimestampUnavailable(f"{kind.value}: the answer is too large")
        return bytes(received)

    def _note(self, service: _Service, *, failed: bool) -> None:
        self._failures[service] = self._failures[service] + 1 if failed else 0
        if self._failures[service] >= FAILURES_TO_OPEN:
            self._failures[service] = 0
            self._rests_until[service] = self._monotonic() + REST_SECONDS


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
