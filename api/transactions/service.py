"""Submit and collect: what callers do with a transaction before and after the citizen's approval."""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from api.storage import DocumentStore, StoredId
from api.transactions.model import (
    PDF,
    UNAPPROVED,
    Document,
    DocumentState,
    DocumentWorker,
    Limits,
    NewTransaction,
    Transaction,
    TransactionState,
)
from api.transactions.repository import TransactionRepository
from api.transactions.seals import Sealer
from api.turns import Turns
from authn.client import AuthenticatedClient
from domain.clock import Clock
from domain.errors import IdempotencyConflict, MalformedRequest, NotFound, NotPermitted, RequestExpired, StateConflict
from domain.ids import Randomness, new_id
from domain.items import SignatureFormat

LINK_BYTES = 32
AGENCY_RIGHTS = frozenset({"sign", "name_citizen"})
"""What the core will ask for at STAGE; refused here before anything is uploaded."""
GRANT_AGE = timedelta(hours=6)
"""An older grant is replaced by the next authenticated call of its client, since the core lets it end after a day."""
ANONYMOUS_KEY_CHARACTERS = 32
"""Least length of an idempotency key where nobody says who asks: there the key alone brings the answer back."""
KEY_CHARACTERS = 255
WATCH_PAUSE_SECONDS = 0.5

GRANT = "transactions.grant"
LINK = "transactions.link"
NIF = "transactions.citizen_nif"


@dataclass(frozen=True, slots=True)
class LinkHolder:
    """Whoever shows the unguessable link of a transaction of the citizen's own web."""

    link_sha256: bytes
    asker: str
    """Where from, as ``api.turns`` counts: documents from one place are tried one after the other."""


Caller = AuthenticatedClient | LinkHolder


@dataclass(frozen=True, slots=True)
class IdempotentPost:
    """A POST that may come twice."""

    key: str
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class Created:
    """What the caller is told once, and again under the same idempotency key."""

    transaction: Transaction
    link_token: str


class Transactions:
    """Creates, fills, shows and cancels transactions."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: DocumentStore,
        sealer: Sealer,
        *,
        worker: DocumentWorker,
        limits: Limits,
        turns: Turns,
        clock: Clock,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._store = store
        self._sealer = sealer
        self._worker = worker
        self._limits = limits
        self._turns = turns
        self._clock = clock
        self._randomness = randomness

    @property
    def limits(self) -> Limits:
        """How much a transaction may hold."""
        return self._limits

    async def create(
        self, transaction_id: str, client: AuthenticatedClient | None, new: NewTransaction, post: IdempotentPost
    ) -> Created:
        """Open a transaction, or give the one that the same POST opened before.

        Args:
            transaction_id: Drawn before, since an agency's grant is made out to it.
            client: Who asks; ``None`` for the citizen's own web.
            new: What is asked for.
            post: Key and fingerprint.

        Raises:
            MalformedRequest: Number of documents, return address, citizen or key.
            IdempotencyConflict: The key came with another body.
        """
        scope = f"agency:{client.client_id}" if client else "web"
        key_sha256 = _key_sha256(post.key, least=1 if client else ANONYMOUS_KEY_CHARACTERS)
        self._check(client, new)
        transaction, link_token = self._drawn(transaction_id, client, new)
        try:
            async with self._engine.begin() as connection:
                repository = TransactionRepository(connection)
                answered = await repository.answered(scope, key_sha256)
                if answered is None:
                    await repository.add(transaction)
                    await repository.note_answer(scope, key_sha256, post.body_sha256, transaction_id)
                    return Created(transaction, link_token)
        except sa.exc.IntegrityError:
            # The same POST, sent twice at once; the other one was first.
            async with self._engine.begin() as connection:
                answered = await TransactionRepository(connection).answered(scope, key_sha256)
        if answered is None or not hmac.compare_digest(answered[0], post.body_sha256):
            raise IdempotencyConflict("this idempotency key came before with another request")
        async with self._engine.begin() as connection:
            before = await TransactionRepository(connection).by_id(answered[1])
        if before is None:
            raise NotFound("the transaction of this idempotency key is gone")
        return Created(before, self._sealer.open(LINK, before.transaction_id, before.link_sealed).decode())

    async def wants_grant(self, transaction_id: str) -> bool:
        """Whether the next authenticated call should bring a younger grant for this transaction."""
        async with self._engine.begin() as connection:
            transaction = await TransactionRepository(connection).by_id(transaction_id)
        if transaction is None or not transaction.client_id or transaction.state not in UNAPPROVED:
            return False
        return transaction.granted + GRANT_AGE <= self._clock.now()

    async def renew_grant(self, transaction_id: str, client: AuthenticatedClient) -> None:
        """Keep the grant that an authenticated call brought; another client's transaction stays as it is."""
        sealed = self._sealer.seal(GRANT, transaction_id, client.grant.encode())
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            await repository.renew_grant(transaction_id, client.client_id, sealed, self._clock.now())

    async def find(self, transaction_id: str, caller: Caller) -> Transaction:
        """The caller's transaction.

        Raises:
            NotFound: None of this caller's; whether it exists stays untold.
        """
        async with self._engine.begin() as connection:
            transaction = await TransactionRepository(connection).by_id(transaction_id)
        if transaction is None or not _owns(caller, transaction):
            raise NotFound("no such transaction")
        return transaction

    async def watch(
        self, transaction_id: str, caller: Caller, *, pause_seconds: float = WATCH_PAUSE_SECONDS
    ) -> AsyncIterator[Transaction]:
        """The caller's transaction, and again whenever it has changed, until it is final.

        Any edge may be the one that changes it, so the database is asked.

        Raises:
            NotFound: As ``find``.
        """
        seen = None
        while True:
            transaction = await self.find(transaction_id, caller)
            if transaction != seen:
                yield transaction
            if transaction.final:
                return
            seen = transaction
            await asyncio.sleep(pause_seconds)

    async def upload(
        self, transaction_id: str, caller: Caller, number: int, stream: AsyncIterator[bytes], *, media_type: str = PDF
    ) -> Document:
        """Take a document's octets and try at once whether they can be signed.

        Args:
            transaction_id: Where to.
            caller: Who asks.
            number: Which document.
            stream: Its octets.
            media_type: What they are, without parameters; a PDF for PAdES, XML for an enveloped XML signature.

        Raises:
            MalformedRequest: Another media type than this transaction signs.
            NotFound: No such transaction or number.
            StateConflict: The transaction takes no more documents.
            DocumentTooLarge: Over the caller's limit.
            UnsupportedDocument: It cannot be signed; nothing is kept.
            Busy: Too many wait to have theirs tried, from this place or of all.
        """
        transaction = await self.find(transaction_id, caller)
        document = _document(transaction, number)
        self._must_be_open(transaction)
        if transaction.format is SignatureFormat.PADES and media_type != PDF:
            raise MalformedRequest(f"a document for a PAdES signature comes as {PDF}")
        limit_bytes = self._limits.document_bytes(transaction.client_id)
        stored = await self._store.write(stream, limit_bytes=limit_bytes)
        kept = False
        try:
            options = transaction.xades_options(document, media_type)
            waiting = self._turns.turn(caller.asker) if isinstance(caller, LinkHolder) else contextlib.nullcontext()
            async with waiting:
                await self._worker.inspect(self._store.path(stored.stored_id), options)
            async with self._engine.begin() as connection:
                repository = TransactionRepository(connection)
                now = await repository.by_id(transaction_id, lock=True)
                if now is None or now.state is not TransactionState.OPEN:
                    raise StateConflict("this transaction takes no more documents")
                await repository.received(transaction_id, number, stored, media_type)
                document = _document(now, number)
            kept = True
        finally:
            await self._store.delete(document.original_id if kept else stored.stored_id)
        return _document(await self.find(transaction_id, caller), number)

    async def submit(self, transaction_id: str, caller: Caller, post: IdempotentPost) -> Transaction:
        """Say that all documents are here; from now on the citizen can look.

        Raises:
            StateConflict: A document is missing, or the transaction is past this.
            IdempotencyConflict: The key came with another body.
        """
        transaction = await self.find(transaction_id, caller)
        scope = f"submit:{transaction_id}"
        key_sha256 = _key_sha256(post.key, least=1)
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            answered = await repository.answered(scope, key_sha256)
            if answered is not None:
                if not hmac.compare_digest(answered[0], post.body_sha256):
                    raise IdempotencyConflict("this idempotency key came before with another request")
                return transaction
            now = await repository.by_id(transaction_id, lock=True)
            if now is None:
                raise NotFound("no such transaction")
            self._must_be_open(now)
            missing = [item.number for item in now.documents if item.state is not DocumentState.RECEIVED]
            if missing:
                raise StateConflict(f"documents are still missing: {', '.join(str(number) for number in missing)}")
            if not await repository.move(now, TransactionState.SUBMITTED):
                raise StateConflict("the transaction changed meanwhile; ask again")
            await repository.note_answer(scope, key_sha256, post.body_sha256, transaction_id)
        return await self.find(transaction_id, caller)

    async def cancel(self, transaction_id: str, caller: Caller) -> None:
        """Give up before approval; documents are removed. Cancelling twice is no fault.

        Raises:
            StateConflict: The citizen has approved already.
        """
        transaction = await self.find(transaction_id, caller)
        if transaction.state is TransactionState.CANCELLED:
            return
        if transaction.state not in UNAPPROVED:
            raise StateConflict("the transaction is past cancelling")
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            if not await repository.move(transaction, TransactionState.CANCELLED):
                raise StateConflict("the transaction changed meanwhile; ask again")
            await repository.close_stagings(transaction_id)
            await repository.forget_files(transaction_id)
        await delete_files(self._store, transaction)

    def original(self, transaction: Transaction, number: int) -> StoredId:
        """Where the document lies as it was uploaded.

        Raises:
            NotFound: Not uploaded, or removed.
        """
        stored_id = _document(transaction, number).original_id
        if stored_id is None:
            raise NotFound("this document is not here")
        return stored_id

    def signed(self, transaction: Transaction, number: int) -> StoredId:
        """Where the signed document lies.

        Raises:
            NotFound: Not signed yet, or removed.
        """
        stored_id = _document(transaction, number).signed_id
        if stored_id is None:
            raise NotFound("this document has not been signed")
        return stored_id

    def receipt(self, transaction: Transaction) -> str:
        """The receipt, a JWS.

        Raises:
            NotFound: Nothing is signed yet.
        """
        if not transaction.receipt:
            raise NotFound("there is no receipt yet")
        return transaction.receipt

    async def purge(self) -> int:
        """Remove what has outlived its time; gives the number of transactions."""
        async with self._engine.begin() as connection:
            outlived = await TransactionRepository(connection).outlived(self._clock.now())
        for transaction_id in outlived:
            async with self._engine.begin() as connection:
                repository = TransactionRepository(connection)
                transaction = await repository.by_id(transaction_id)
                if transaction is None or not await repository.move(transaction, TransactionState.EXPIRED):
                    continue
                await repository.close_stagings(transaction_id)
                await repository.forget_files(transaction_id)
            await delete_files(self._store, transaction)
        return len(outlived)

    def _check(self, client: AuthenticatedClient | None, new: NewTransaction) -> None:
        limit = self._limits.documents(client.client_id if client else "")
        if not 1 <= len(new.titles) <= limit:
            raise MalformedRequest(f"a transaction has 1 to {limit} documents here")
        if client is None:
            if new.return_url or new.citizen_nif:
                raise MalformedRequest("only a registered client has a return address and names the citizen")
            return
        if not client.rights >= AGENCY_RIGHTS:
            raise NotPermitted("this client may not ask for signatures")
        if not new.citizen_nif:
            raise MalformedRequest("an agency names the citizen who is to sign")
        if new.return_url and new.return_url not in client.return_urls:
            raise MalformedRequest("the return address is not one of those registered, letter by letter")

    def _drawn(
        self, transaction_id: str, client: AuthenticatedClient | None, new: NewTransaction
    ) -> tuple[Transaction, str]:
        link_token = secrets_text(self._randomness(LINK_BYTES))
        now = self._clock.now()
        transaction = Transaction(
            transaction_id=transaction_id,
            version=1,
            state=TransactionState.OPEN,
            client_id=client.client_id if client else "",
            client_name=client.client_name if client else "",
            link_sha256=link_sha256(link_token),
            link_sealed=self._sealer.seal(LINK, transaction_id, link_token.encode()),
            level=new.level,
            format=new.format,
            packaging=new.packaging,
            algorithm=new.algorithm,
            citizen_nif_sealed=self._sealer.seal(NIF, transaction_id, new.citizen_nif.encode()),
            grant_sealed=self._sealer.seal(GRANT, transaction_id, (client.grant if client else "").encode()),
            granted=now,
            return_url=new.return_url,
            client_nonce=new.client_nonce,
            created=now,
            expires=now + timedelta(seconds=self._limits.life_seconds),
            documents=tuple(
                Document(number=number, title=title, state=DocumentState.EXPECTED)
                for number, title in enumerate(new.titles, start=1)
            ),
        )
        return transaction, link_token

    def _must_be_open(self, transaction: Transaction) -> None:
        if transaction.state is TransactionState.EXPIRED or transaction.expires <= self._clock.now():
            raise RequestExpired("the transaction has expired")
        if transaction.state is not TransactionState.OPEN:
            raise StateConflict("this transaction takes no more documents")


async def delete_files(store: DocumentStore, transaction: Transaction) -> None:
    """Remove every file of a transaction."""
    for document in transaction.documents:
        await store.delete(document.original_id, document.prepared_id, document.signed_id)


def draw_transaction_id(randomness: Randomness = secrets.token_bytes) -> str:
    """A new transaction's name."""
    return new_id(randomness)


def link_sha256(link_token: str) -> bytes:
    """What is stored of a link: who reads the index cannot open a transaction with it."""
    return hashlib.sha256(link_token.encode()).digest()


def secrets_text(drawn: bytes) -> str:
    """Random bytes as they stand in addresses and cookies: base64url without padding."""
    return urlsafe_b64encode(drawn).rstrip(b"=").decode()


def _owns(caller: Caller, transaction: Transaction) -> bool:
    if isinstance(caller, AuthenticatedClient):
        return bool(caller.client_id) and caller.client_id == transaction.client_id
    # An agency's link leads to the review page and nowhere else.
    return not transaction.client_id and hmac.compare_digest(caller.link_sha256, transaction.link_sha256)


def _document(transaction: Transaction, number: int) -> Document:
    for document in transaction.documents:
        if document.number == number:
            return document
    raise NotFound("no such document")


def _key_sha256(key: str, *, least: int) -> bytes:
    if not least <= len(key) <= KEY_CHARACTERS or not (key.isascii() and key.isprintable()):
        raise MalformedRequest(
            f"an idempotency key is needed (in HTTP the header Idempotency-Key): {least} to {KEY_CHARACTERS} "
            "printable characters"
        )
    return hashlib.sha256(key.encode()).digest()
