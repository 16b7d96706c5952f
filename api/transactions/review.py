"""The citizen's side: the review page prepares and stages, the return address redeems.

Who may do what, with which proof:

* The link is a capability: whoever has it may look, as whoever has a letter may read it. It alone signs nothing.
* The first browser that opens the link holds the request: it gets a cookie of 32 random bytes, of which the hash is
  stored, and only with that cookie a code is redeemed. So a code that leaks (history, log, a pasted address) is of no
  use elsewhere, and nobody can make a victim's browser finish an approval that someone else began.
* Another browser with the link is told that the first one holds the request, and changes nothing by looking: mail
  scanners and second devices look, too. Only if its citizen says so it gets a *new* request, never the first one's
  cookie. That supersedes the first request: who opens the letter on the phone after looking on the desk must get on,
  and an approval of the old request then ends at an edge that no longer redeems it. While a code is awaited for the
  first request, or once it is approved, nobody supersedes it: an approval is not taken from the browser that is about
  to give it.
* The same browser gets the same request until it is over; if it was approved but its code was lost or refused, that
  browser (and no other) may start again.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlencode, urlsplit

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from api.storage import DocumentStore, StoredId
from api.transactions.model import (
    REVIEWABLE,
    Document,
    DocumentWorker,
    Staging,
    StagingState,
    Transaction,
    TransactionState,
)
from api.transactions.repository import TransactionRepository
from api.transactions.seals import Sealer
from api.transactions.service import GRANT, LINK, NIF, link_sha256, secrets_text
from api.transactions.signing import CODE, VERIFIER, R, Signing
from documents.model import PAdESOptions, Prepared
from domain.clock import Clock
from domain.errors import (
    CallerRefused,
    DependencyUnavailable,
    MalformedRequest,
    NotFound,
    RequestExpired,
    StateConflict,
)
from domain.ids import Randomness, new_id
from domain.items import Item, Purpose, certificate_item
from signer.client import RequestState, SignatureActivationClient, StagedRequest

COOKIE_PREFIX = "__Host-rubrica-"
SECRET_BYTES = 32
CODE_BYTES = 32
REQUEST_LIFE = timedelta(hours=1)
"""Of a staged request, by the core's clock."""
CLOCK_TOLERANCE = timedelta(seconds=60)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cookie:
    """What proves that a browser is the one that opened the review page."""

    name: str
    value: str = field(repr=False)
    max_age_seconds: int

    @property
    def header(self) -> str:
        """The value of ``Set-Cookie`` (RFC 6265bis)."""
        return f"{self.name}={self.value}; Max-Age={self.max_age_seconds}; Path=/; Secure; HttpOnly; SameSite=lax"


class OpenElsewhere(StateConflict):
    """Another browser holds the living request; ``state`` says how far it is there."""

    def __init__(self, state: RequestState) -> None:
        super().__init__(
            "this is open in another browser; say that you want to go on here"
            if state is RequestState.STAGED
            else "another browser's approval is under way; go on there"
        )
        self.state = state


class Superseded(RequestExpired):
    """Another browser took over, so what was approved here is of no use."""


class Over(RequestExpired):
    """The transaction was withdrawn, or its time is over."""


@dataclass(frozen=True, slots=True)
class Review:
    """What the review page shows."""

    transaction: Transaction
    cookie: Cookie | None
    """To be set, where the request is new."""
    may_approve: bool
    """Whether this browser may go on to the gate."""
    same_browser: bool = False
    """Whether it is the one that opened the living or last request."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What became of the approval that this browser brought back."""

    transaction: Transaction
    link_token: str = field(repr=False)


class Approvals:
    """Opens reviews, takes codes."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: DocumentStore,
        sealer: Sealer,
        activation: SignatureActivationClient,
        *,
        worker: DocumentWorker,
        signing: Signing,
        return_address: str,
        wait_seconds: float,
        clock: Clock,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._store = store
        self._sealer = sealer
        self._activation = activation
        self._worker = worker
        self._signing = signing
        self._return_address = return_address
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._randomness = randomness

    async def review(self, link_token: str, cookies: Mapping[str, str], *, take_over: bool = False) -> Review:
        """Show the transaction; prepare and stage it if there is no living request.

        Args:
            link_token: Of the address.
            cookies: This browser's.
            take_over: The citizen wants to go on here, whichever browser holds the request.

        Raises:
            NotFound: No such link.
            RequestExpired: The transaction is over.
            OpenElsewhere: Another browser holds the living request.
            StateConflict: Documents are missing.
        """
        transaction, staging = await self._by_link(link_token)
        if transaction.state is TransactionState.OPEN:
            raise StateConflict("the documents are not complete yet")
        same_browser = staging is not None and _holds(staging, cookies)
        if transaction.state not in REVIEWABLE:
            return Review(transaction, cookie=None, may_approve=False, same_browser=same_browser)
        if transaction.expires <= self._clock.now():
            raise RequestExpired("the transaction has expired")
        if staging is not None and staging.expires > self._clock.now():
            state = (await self._activation.request_state(staging.request_id)).state
            if same_browser and state in {RequestState.STAGED, RequestState.PENDING}:
                return Review(transaction, cookie=None, may_approve=True, same_browser=True)
            free = state is RequestState.EXPIRED or (take_over and state is RequestState.STAGED)
            if not same_browser and not free:
                raise OpenElsewhere(state)
        return await self._stage(transaction)

    async def seen(self, link_token: str, cookies: Mapping[str, str]) -> Review:
        """The transaction as it is; nothing is prepared or staged.

        Raises:
            NotFound: No such link.
        """
        transaction, staging = await self._by_link(link_token)
        same_browser = staging is not None and _holds(staging, cookies)
        return Review(transaction, cookie=None, may_approve=False, same_browser=same_browser)

    async def document(self, link_token: str, number: int, cookies: Mapping[str, str]) -> tuple[StoredId, Document]:
        """What this browser may download: the very bytes that are to be signed, afterwards the signed ones.

        Raises:
            NotFound: No such link or document, or not the browser that opened the review page.
        """
        transaction, staging = await self._by_link(link_token)
        if staging is None or not _holds(staging, cookies):
            raise NotFound("no such document in this browser")
        for document in transaction.documents:
            stored_id = document.signed_id or document.prepared_id
            if document.number == number and stored_id is not None:
                return stored_id, document
        raise NotFound("no such document in this browser")

    async def returned(self, request_id: str, code: bytes, cookies: Mapping[str, str]) -> Returned:
        """Take the code that the gate sent this browser back with, sign, and tell how far it got.

        Loading the address again shows the present state; the code is not looked at a second time.

        Raises:
            NotFound: Not the browser that opened the review page, or no such request: both look the same.
            Superseded: Another request took its place.
            Over: The transaction was withdrawn, or its time is over.
            RequestExpired: The request's time is over.
            ActivationError: The core refused the code.
        """
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            staging = await repository.staging(request_id)
            if staging is None or not _holds(staging, cookies):
                raise NotFound("no such request in this browser")
            # The same address may be loading at another edge: whoever comes second waits, and then looks again.
            transaction = await repository.by_id(staging.transaction_id, lock=True)
            staging = await repository.staging(request_id)
            if transaction is None or staging is None:
                raise NotFound("no such request in this browser")
            if transaction.request_id != request_id:
                raise Superseded("this request was replaced by a newer one; open the link again")
            if staging.state is StagingState.STAGED:
                await self._accept(repository, transaction, staging, code)
        if transaction.state in {TransactionState.CANCELLED, TransactionState.EXPIRED}:
            raise Over("the transaction is over")
        if staging.state is not StagingState.CLOSED:
            task = self._signing.start(transaction.transaction_id)
            done, _ = await asyncio.wait([task], timeout=self._wait_seconds)
            for finished in done:
                finished.result()
        async with self._engine.begin() as connection:
            now = await TransactionRepository(connection).by_id(transaction.transaction_id)
        if now is None:
            raise NotFound("no such request in this browser")
        return Returned(now, self._sealer.open(LINK, now.transaction_id, now.link_sealed).decode())

    async def link(self, request_id: str, cookies: Mapping[str, str]) -> str:
        """Where the documents of a request are, for the browser that holds it.

        Raises:
            NotFound: It is another browser, or there is no such request.
        """
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            staging = await repository.staging(request_id)
            if staging is None or not _holds(staging, cookies):
                raise NotFound("no such request in this browser")
            transaction = await repository.by_id(staging.transaction_id)
        if transaction is None:
            raise NotFound("no such request in this browser")
        return self._sealer.open(LINK, transaction.transaction_id, transaction.link_sealed).decode()

    async def _accept(
        self, repository: TransactionRepository, transaction: Transaction, staging: Staging, code: bytes
    ) -> None:
        """Store the code before anyone sees it: after a crash it is redeemed with the same r."""
        if len(code) != CODE_BYTES:
            raise MalformedRequest("this is not a code of ours")
        if staging.expires <= self._clock.now() or transaction.state is not TransactionState.REVIEWED:
            raise RequestExpired("the request has expired; open the link again")
        sealed = self._sealer.seal(CODE, staging.request_id, code)
        if await repository.move_staging(staging, StagingState.REDEEMING, code_sealed=sealed):
            await repository.move(transaction, TransactionState.APPROVED)

    async def _by_link(self, link_token: str) -> tuple[Transaction, Staging | None]:
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            transaction = await repository.by_link(link_sha256(link_token))
            if transaction is None:
                raise NotFound("no such link")
            staging = await repository.staging(transaction.request_id) if transaction.request_id else None
        return transaction, staging

    async def _stage(self, transaction: Transaction) -> Review:
        transaction_id = transaction.transaction_id
        prepared = [await self._prepare(transaction, document) for document in transaction.documents]
        used = False
        try:
            verifier = self._randomness(SECRET_BYTES)
            staged = await self._staged(transaction, [each for each, _ in prepared], verifier)
            value = secrets_text(self._randomness(SECRET_BYTES))
            staging = Staging(
                request_id=staged.request_id,
                transaction_id=transaction_id,
                state=StagingState.STAGED,
                cookie_sha256=hashlib.sha256(value.encode()).digest(),
                expires=staged.expires,
                verifier_sealed=self._sealer.seal(VERIFIER, staged.request_id, verifier),
                # Drawn now and never again: the same code may be redeemed twice, but only with the same r.
                r_sealed=self._sealer.seal(R, staged.request_id, self._randomness(SECRET_BYTES)),
            )
            async with self._engine.begin() as connection:
                repository = TransactionRepository(connection)
                if not await repository.move(transaction, TransactionState.REVIEWED, request_id=staged.request_id):
                    raise StateConflict("this was opened in another window at the same moment; open it again")
                await repository.close_stagings(transaction_id)
                await repository.add_staging(staging)
                for document, (ready, stored_id) in zip(transaction.documents, prepared, strict=True):
                    await repository.prepared(transaction_id, document.number, ready, stored_id)
                now = await repository.by_id(transaction_id)
            used = True
        finally:
            superseded = [document.prepared_id for document in transaction.documents]
            await self._store.delete(*(superseded if used else [stored_id for _, stored_id in prepared]))
        if now is None:
            raise NotFound("no such link")
        max_age_seconds = max(0, int((staged.expires - self._clock.now()).total_seconds()))
        cookie = Cookie(COOKIE_PREFIX + staged.request_id, value, max_age_seconds)
        return Review(now, cookie, may_approve=True, same_browser=True)

    async def _staged(self, transaction: Transaction, prepared: list[Prepared], verifier: bytes) -> StagedRequest:
        transaction_id = transaction.transaction_id
        asked = self._clock.now()
        try:
            staged = await self._activation.stage(
                idempotency_key=new_id(self._randomness),
                grant=self._sealer.open(GRANT, transaction_id, transaction.grant_sealed).decode(),
                items=self._items(transaction, prepared),
                pkce_challenge=hashlib.sha256(verifier).digest(),
                return_url=self._return_address,
                citizen_nif=self._sealer.open(NIF, transaction_id, transaction.citizen_nif_sealed).decode(),
                client_nonce=transaction.client_nonce,
            )
        except CallerRefused as error:
            # To the citizen who opened the link this is no question of who they are.
            raise RequestExpired("whoever sent you here has to ask anew: their leave for this has run out") from error
        # The prepared bytes already say when they are signed, and the core's clock is the one that counts.
        if abs(staged.expires - asked - REQUEST_LIFE) > CLOCK_TOLERANCE:
            _log.error("the clocks of edge and core differ", expires=staged.expires.isoformat())
            raise DependencyUnavailable(
                "this part of the service has a wrong clock and does not sign until it is right"
            )
        return staged

    async def _prepare(self, transaction: Transaction, document: Document) -> tuple[Prepared, StoredId]:
        if document.original_id is None:
            raise NotFound("a document is gone")
        scratch = self._store.scratch()
        try:
            # The signing time of a PDF stands in the signed bytes, so it is set when the citizen begins to read.
            options = transaction.xades_options(document, document.media_type) or PAdESOptions(
                signing_time=self._clock.now()
            )
            prepared = await self._worker.prepare(self._store.path(document.original_id), scratch, options)
            return prepared, await self._store.keep(scratch)
        finally:
            scratch.unlink(missing_ok=True)

    def _items(self, transaction: Transaction, prepared: list[Prepared]) -> list[Item]:
        documents = [
            Item(
                purpose=Purpose.SIGN,
                algorithm=transaction.algorithm.value,
                format=transaction.format.value,
                packaging=transaction.packaging.value,
                digests=() if ready.references else (ready.digest,),
                references=ready.references,
                title=document.title,
                fields=ready.fields,
            )
            for document, ready in zip(transaction.documents, prepared, strict=True)
        ]
        return [certificate_item(transaction.algorithm.key_type), *documents]


def onward_url(transaction: Transaction) -> str:
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


def parsed_code(text: str) -> bytes:
    """The code of a return address.

    Raises:
        MalformedRequest: Not base64url.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise MalformedRequest("this is not a code of ours") from None


def _holds(staging: Staging, cookies: Mapping[str, str]) -> bool:
    value = cookies.get(COOKIE_PREFIX + staging.request_id, "")
    return hmac.compare_digest(hashlib.sha256(value.encode()).digest(), staging.cookie_sha256)
