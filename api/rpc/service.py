"""``rubrica.v1.SigningService``: the transactions of ``api/transactions`` for agencies that speak gRPC."""

import asyncio
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from api.rpc.errors import FIRST_MESSAGE_SECONDS, ErrorInterceptor
from api.rpc.messages import media_type, parsed, transaction_message
from api.rpc.places import CALLS_AT_ONCE, Places
from api.rpc.proto import signing_pb2, signing_pb2_grpc
from api.storage import DocumentStore
from api.transactions.callers import agency, bearer, is_assertion
from api.transactions.model import DocumentState, Transaction, TransactionState
from api.transactions.seals import Sealer
from api.transactions.service import IdempotentPost, Transactions, draw_transaction_id
from api.transactions.steps import review_url, review_url_of
from authn.client import AuthenticatedClient, CallersClient
from domain.errors import Busy, CallerRefused, DocumentTooLarge, MalformedRequest, StateConflict, UnsupportedDocument

HEADER_BYTES = 256 * 1024
"""Of the first message of ``Create``, as of a JSON body."""
MESSAGE_BYTES = 1024 * 1024 + 1024
CHUNK_BYTES = 1024 * 1024
PATIENCE_SECONDS = 60.0
"""For all that is not there yet; it grows by what comes."""
SLOWEST_BYTES_PER_SECOND = 64 * 1024
"""Of documents that are sent; an agency that is slower only keeps a place."""
WATCH_SECONDS = 600.0
"""After that a watcher has to prove again who it is."""
WATCHES_AT_ONCE = 50
"""Of one agency: who only watches must not keep others from sending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """What the service works with."""

    transactions: Transactions
    callers: CallersClient
    store: DocumentStore
    sealer: Sealer
    public_url: str
    """Of this edge's pages, without a slash at the end."""


class SigningService(signing_pb2_grpc.SigningServiceServicer):
    """Five methods, each for an authenticated agency."""

    def __init__(self, face: Face, places: Places, *, watch_seconds: float = WATCH_SECONDS) -> None:
        self._face = face
        self._places = places
        self._transactions = face.transactions
        self._watch_seconds = watch_seconds
        self._watching: Counter[str] = Counter()

    async def Create(
        self, requests: AsyncIterator[signing_pb2.CreateRequest], context: "grpc.aio.ServicerContext"
    ) -> signing_pb2.CreateAnswer:
        """Open, fill, submit."""
        transaction_id = draw_transaction_id()
        client = await self._face.callers.authenticate_client(_assertion(context), transaction_id=transaction_id)
        self._places.proved(context, client.client_id)
        incoming = _Incoming(requests)
        header = await incoming.header()
        new = parsed(header)
        # The documents' digests are part of it: whoever repeats it means the same octets.
        post = IdempotentPost(
            header.idempotency_key,
            hashlib.sha256(b"rubrica.v1.Create\n" + header.SerializeToString(deterministic=True)).digest(),
        )
        created = await self._transactions.create(transaction_id, client, new, post)
        transaction = created.transaction
        if transaction.state is TransactionState.CANCELLED:
            raise StateConflict("the transaction of this idempotency key was cancelled")
        if transaction.state is TransactionState.OPEN:
            transaction = await self._filled(transaction, client, header, incoming, post)
        opens = review_url(self._face.public_url, created.link_token)
        return signing_pb2.CreateAnswer(transaction=transaction_message(transaction, opens), review_url=opens)

    async def Get(
        self, request: signing_pb2.GetRequest, context: "grpc.aio.ServicerContext"
    ) -> signing_pb2.Transaction:
        """The transaction as it is."""
        client = await self._client(context, request.id)
        return self._message(await self._transactions.find(request.id, client))

    async def Watch(
        self, request: signing_pb2.WatchRequest, context: "grpc.aio.ServicerContext"
    ) -> AsyncIterator[signing_pb2.Transaction]:
        """The transaction whenever it has changed."""
        client = await self._client(context, request.id)
        if self._watching[client.client_id] >= WATCHES_AT_ONCE:
            raise Busy("too many transactions are being watched; end one, or ask for the state", retry_after_seconds=5)
        seen = None
        ends = asyncio.get_running_loop().time() + self._watch_seconds
        changes = self._transactions.watch(request.id, client)
        self._watching[client.client_id] += 1
        try:
            while True:
                async with asyncio.timeout_at(ends):
                    message = self._message(await anext(changes))
                if message != seen:
                    yield message
                seen = message
        except (TimeoutError, StopAsyncIteration):
            return
        finally:
            self._watching[client.client_id] -= 1

    async def Collect(
        self, request: signing_pb2.CollectRequest, context: "grpc.aio.ServicerContext"
    ) -> AsyncIterator[signing_pb2.CollectAnswer]:
        """A document, piece by piece."""
        client = await self._client(context, request.id)
        transaction = await self._transactions.find(request.id, client)
        find = self._transactions.original if request.original else self._transactions.signed
        stored_id = find(transaction, request.number)
        document = transaction.documents[request.number - 1]
        size_bytes = (await asyncio.to_thread(self._face.store.path(stored_id).stat)).st_size
        yield signing_pb2.CollectAnswer(
            media_type=document.media_type if request.original else document.signed_media_type, size_bytes=size_bytes
        )
        async for octets in self._face.store.read(stored_id):
            yield signing_pb2.CollectAnswer(data=octets)

    async def Cancel(
        self, request: signing_pb2.CancelRequest, context: "grpc.aio.ServicerContext"
    ) -> signing_pb2.CancelAnswer:
        """Give up before approval."""
        await self._transactions.cancel(request.id, await self._client(context, request.id))
        return signing_pb2.CancelAnswer()

    async def _client(self, context: "grpc.aio.ServicerContext", transaction_id: str) -> AuthenticatedClient:
        client = await agency(self._transactions, self._face.callers, _assertion(context), transaction_id)
        self._places.proved(context, client.client_id)
        return client

    async def _filled(
        self,
        transaction: Transaction,
        client: AuthenticatedClient,
        header: signing_pb2.NewTransaction,
        incoming: "_Incoming",
        post: IdempotentPost,
    ) -> Transaction:
        transaction_id = transaction.transaction_id
        try:
            for number, (expected, before) in enumerate(zip(header.documents, transaction.documents, strict=True), 1):
                if before.state is DocumentState.EXPECTED:
                    octets = incoming.document(number, expected.sha256)
                    kind = media_type(expected)
                    await self._transactions.upload(transaction_id, client, number, octets, media_type=kind)
            return await self._transactions.submit(transaction_id, client, post)
        except (UnsupportedDocument, DocumentTooLarge):
            # The same documents would be refused again; anything else may go on with the next call.
            await self._transactions.cancel(transaction_id, client)
            raise

    def _message(self, transaction: Transaction) -> signing_pb2.Transaction:
        opens = review_url_of(self._face.public_url, self._face.sealer, transaction)
        return transaction_message(transaction, opens)


class _Incoming:
    """The messages of one ``Create``."""

    def __init__(self, requests: AsyncIterator[signing_pb2.CreateRequest]) -> None:
        self._requests = requests
        self._waiting: signing_pb2.DocumentChunk | None = None
        self._number = self._count = 0
        self._left_seconds = PATIENCE_SECONDS

    async def header(self) -> signing_pb2.NewTransaction:
        """The first message.

        Raises:
            MalformedRequest: Another came, or none.
        """
        first = await self._next(FIRST_MESSAGE_SECONDS)
        if first is None or first.WhichOneof("part") != "transaction" or first.ByteSize() > HEADER_BYTES:
            raise MalformedRequest(f"the first message is the transaction, in at most {HEADER_BYTES} bytes")
        self._count = len(first.transaction.documents)
        return first.transaction

    async def document(self, number: int, sha256: bytes) -> AsyncIterator[bytes]:
        """The octets of one document; those of earlier ones are passed over.

        Raises:
            MalformedRequest: They are not those announced.
        """
        digest = hashlib.sha256()
        while (chunk := await self._chunk()) is not None and chunk.number <= number:
            self._waiting = None
            if chunk.number == number:
                digest.update(chunk.data)
                yield chunk.data
        if not hmac.compare_digest(digest.digest(), sha256):
            raise MalformedRequest(f"the octets of document {number} are not those whose SHA-256 was given")

    async def _chunk(self) -> signing_pb2.DocumentChunk | None:
        if self._waiting is None:
            message = await self._next(self._left_seconds)
            if message is None:
                return None
            if message.WhichOneof("part") != "chunk" or not 1 <= len(message.chunk.data) <= CHUNK_BYTES:
                raise MalformedRequest(f"after the transaction come octets, 1 to {CHUNK_BYTES} at once")
            if not max(self._number, 1) <= message.chunk.number <= self._count:
                raise MalformedRequest("octets come in the order of the documents' numbers, from 1")
            self._number = message.chunk.number
            self._left_seconds += len(message.chunk.data) / SLOWEST_BYTES_PER_SECOND
            self._waiting = message.chunk
        return self._waiting

    async def _next(self, seconds: float) -> signing_pb2.CreateRequest | None:
        # Only what the caller takes counts, not what becomes of a document in between.
        asked = time.monotonic()
        try:
            async with asyncio.timeout(min(seconds, PATIENCE_SECONDS)):
                return await anext(self._requests, None)
        except TimeoutError:
            raise MalformedRequest("what was announced did not come in time") from None
        finally:
            self._left_seconds -= time.monotonic() - asked


def make_server(face: Face, *, watch_seconds: float = WATCH_SECONDS) -> "grpc.aio.Server":
    """A server that has the service and no address yet."""
    places = Places()
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(places, _assertion)],
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_metadata_size", 16 * 1024),
            # A port that another process serves is refused, unless that one only keeps it for us.
            ("grpc.so_reuseport", 1),
        ],
        maximum_concurrent_rpcs=CALLS_AT_ONCE,
    )
    service: Any = SigningService(face, places, watch_seconds=watch_seconds)
    signing_pb2_grpc.add_SigningServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    return server


def _assertion(context: "grpc.aio.ServicerContext") -> str:
    """The caller's proof.

    Raises:
        CallerRefused: None, or a link token, which opens pages only.
    """
    given = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
    token = bearer(given[0] if len(given) == 1 and isinstance(given[0], str) else None)
    if not is_assertion(token):
        raise CallerRefused("a private_key_jwt is needed")
    return token
