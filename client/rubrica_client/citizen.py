"""Plays a citizen's browser at edge and gate: cookies, redirections and all."""

import ipaddress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from rubrica_client.gate import GateClient, PendingApproval, RequestToApprove
from rubrica_client.jws import unbase64url
from rubrica_client.problems import RubricaProblem, send

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedDocument:
    """One document on the review page."""

    number: int
    title: str
    size_bytes: int
    digest: bytes
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The review page."""

    transaction_id: str
    state: str
    client_name: str
    request_id: str
    gate_url: str
    documents: tuple[ReviewedDocument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where the browser ended up after the approval."""

    url: str
    """The agency's address, or the edge's own."""
    result_token: str
    """From the agency's address; empty where the browser stayed at the edge."""
    state: str
    """The transaction's, where the browser stayed at the edge."""


class CitizenBrowser:
    """One browser of one citizen; use as a context manager or call ``close``."""

    def __init__(
        self,
        token_key: ec.EllipticCurvePublicKey | bytes,
        *,
        edge_transport: httpx.BaseTransport | None = None,
        gate_transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            token_key: The core's public TOK key or its PEM, pinned.
            edge_transport: Another one for tests.
            gate_transport: Another one for tests.
        """
        self._token_key = token_key
        self._gate_transport = gate_transport
        self._http = httpx.Client(
            transport=edge_transport,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(_BrowserPolicy()),
        )
        # httpx copies the jar for each request and drops its policy on the way, so we ask the jar itself once more.
        self._http.event_hooks = {"request": [self._http.cookies.set_cookie_header]}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back and forget the cookies."""
        self._http.cookies.clear()
        self._http.close()

    def review(self, review_url: str, *, take_over: bool = False) -> Review:
        """Open the review page.

        Args:
            review_url: The citizen's link.
            take_over: The citizen wants to go on here although it is open in another browser, which then cannot sign.

        Raises:
            RubricaProblem: ``state_conflict`` while another browser holds it.
        """
        page = send(lambda: self._http.request("POST" if take_over else "GET", review_url)).json()
        return Review(
            transaction_id=page["transaction_id"],
            state=page["state"],
            client_name=page["client_name"],
            request_id=page["request_id"],
            gate_url=page["gate_url"],
            documents=tuple(_reviewed(document) for document in page["documents"]),
        )

    def gate(self, review: Review) -> GateClient:
        """The gate that the review page leads to."""
        return GateClient(review.gate_url, self._token_key, transport=self._gate_transport)

    def describe(self, review: Review) -> RequestToApprove:
        """What the gate says is to be approved, compared with what the review page showed.

        Raises:
            RubricaProblem: ``shown_differs``: the two do not agree, so nothing is approved.
        """
        with self.gate(review) as gate:
            request = gate.describe(review.request_id)
        documents = [item for item in request.items if item["purpose"] == "sign"]
        agree = len(documents) == len(review.documents) and all(
            item["title"] == shown.title and request.digest_of(shown.number) == shown.digest
            for item, shown in zip(documents, review.documents, strict=True)
        )
        if not agree:
            raise RubricaProblem("shown_differs", "the gate asks for another list than the review page showed", 0)
        return request

    def begin(self, review: Review, nif: str, password: str) -> PendingApproval:
        """Type NIF and password at the gate."""
        request = self.describe(review)
        with self.gate(review) as gate:
            return gate.begin(request, nif, password)

    def complete(self, review: Review, pending: PendingApproval, otp: str) -> Outcome:
        """Type the one-time code at the gate and follow the way back; signing happens on it."""
        with self.gate(review) as gate:
            redirect_url = gate.complete(pending, otp)
        return self.follow(redirect_url)

    def follow(self, redirect_url: str) -> Outcome:
        """Load the edge's return address; loading it again shows the same."""
        response = send(lambda: self._http.get(redirect_url))
        if response.is_redirect:
            url = response.headers["location"]
            result = parse_qs(urlsplit(url).query).get("result", [""])[0]
            return Outcome(url=url, result_token=result, state="")
        return Outcome(url=redirect_url.split("?", maxsplit=1)[0], result_token="", state=response.json()["state"])

    def download(self, document: ReviewedDocument, destination: Path) -> None:
        """Save what the review page offers: before signing what is to be signed, afterwards the signed document."""
        response = send(lambda: self._http.get(document.url))
        destination.write_bytes(response.content)


class _BrowserPolicy(DefaultCookiePolicy):
    """Browsers hold loopback for a secure place and send ``Secure`` cookies there over plain HTTP; nowhere else."""

    def return_ok_secure(self, cookie: Any, request: Any) -> bool:
        if cookie.secure and request.type == "http" and _is_loopback(urlsplit(request.get_full_url()).hostname or ""):
            return True
        return super().return_ok_secure(cookie, request)

    def set_ok(self, cookie: Any, request: Any) -> bool:
        # RFC 6265bis §4.1.3: a name with this prefix is believed only with these attributes.
        if cookie.name.startswith("__Host-") and (not cookie.secure or cookie.path != "/" or cookie.domain_specified):
            return False
        return super().set_ok(cookie, request)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _reviewed(document: dict[str, Any]) -> ReviewedDocument:
    digest = document["digest"]
    return ReviewedDocument(
        number=document["number"],
        title=document["title"],
        size_bytes=document["size_bytes"],
        digest=unbase64url(digest["value"]) if digest else b"",
        url=document["url"],
    )
