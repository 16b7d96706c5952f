"""What an agency's system does, over gRPC; needs the extra ``grpc``. Protobuf stays inside."""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from cryptography import x509
from google.protobuf.message import Message

from rubrica_client.agency import TIMEOUT_SECONDS, Agency, Created, NewDocument
from rubrica_client.jws import PrivateKey, base64url
from rubrica_client.problems import LONGEST_PAUSE_SECONDS, TRIES, RubricaProblem
from rubrica_client.proto import signing_pb2, signing_pb2_grpc

T = TypeVar("T")

_CODE = "rubrica-code"
_RETRY_AFTER = "rubrica-retry-after"
_OPTIONS = (("grpc.enable_http_proxy", 0),)
_UNSENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})


class GRPCAgencyClient(Agency):
    """Speaks with an edge as one registered client; use as a context manager or call ``close``."""

    def __init__(
        self,
        target: str,
        client_id: str,
        private_key: PrivateKey,
        *,
        audience: str,
        certificate_chain: Sequence[x509.Certificate] = (),
        credentials: "grpc.ChannelCredentials | None" = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is sent yet.

        Args:
            target: Host and port of the edge's gRPC API.
            client_id: As registered in the core.
            private_key: Of the registered P-256 key, or of the certificate, then P-256 or RSA; stays here.
            audience: The edge's address as the core has it.
            certificate_chain: Where the client is registered by its certificate: that one, then its authorities up to
                the service's anchor, which may be left out.
            credentials: Of TLS, ``grpc.ssl_channel_credentials()`` for example; without them gRPC is spoken in clear.
            now: Seconds since 1970.

        Raises:
            ValueError: Key and certificate do not fit.
        """
        super().__init__(client_id, private_key, audience, now, certificate_chain)
        self._channel = (
            grpc.insecure_channel(target, _OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, _OPTIONS)
        )
        self._stub = signing_pb2_grpc.SigningServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()

    def send(
        self,
        documents: Sequence[NewDocument],
        *,
        citizen_nif: str,
        level: str = "",
        algorithm: str = "ES256",
        format: str = "pades",  # noqa: A002 - the word of the API
        packaging: str = "enveloped",
        return_url: str = "",
        nonce: str = "",
        idempotency_key: str | None = None,
    ) -> Created:
        """Open a transaction with its documents, and close it.

        Args:
            documents: One to a hundred, with their content.
            citizen_nif: Who is to sign.
            level: B-B, B-T, B-LT or B-LTA; XAdES has B-B. The highest by default.
            algorithm: ES256 or RS256.
            format: ``pades`` or ``xades``.
            packaging: ``enveloped``; XAdES has also ``enveloping`` and ``detached``.
            return_url: One of those registered.
            nonce: Comes back in the result token.
            idempotency_key: The same key with the same documents gets the same transaction, and goes on where it broke.

        Raises:
            RubricaProblem: ``unsupported_document`` with a plain reason, and others.
        """
        header = signing_pb2.NewTransaction(
            idempotency_key=idempotency_key or secrets.token_hex(16),
            documents=[
                signing_pb2.NewDocument(title=each.title, media_type=each.media_type, sha256=_sha256(each))
                for each in documents
            ],
            citizen_nif=citizen_nif,
            level=level,
            format=format,
            packaging=packaging,
            algorithm=algorithm,
            return_url=return_url,
            nonce=nonce,
        )

        def messages() -> Iterator[signing_pb2.CreateRequest]:
            yield signing_pb2.CreateRequest(transaction=header)
            for number, document in enumerate(documents, 1):
                for octets in document.chunks():
                    chunk = signing_pb2.DocumentChunk(number=number, data=octets)
                    yield signing_pb2.CreateRequest(chunk=chunk)

        answer = self._call(lambda **how: self._stub.Create(messages(), **how))
        opens: str = answer.review_url
        return Created(id=answer.transaction.id, review_url=opens, link_token=opens.rsplit("/", 1)[-1])

    def status(self, transaction_id: str) -> dict[str, Any]:
        """How far it is, and what is next; the same words as over REST."""
        return _view(self._call(lambda **how: self._stub.Get(signing_pb2.GetRequest(id=transaction_id), **how)))

    def watch(self, transaction_id: str) -> Iterator[dict[str, Any]]:
        """The status as it is, and again whenever it has changed, until nothing will change any more."""
        seen: signing_pb2.Transaction | None = None
        while seen is None or not seen.final:
            try:
                for message in self._stub.Watch(
                    signing_pb2.WatchRequest(id=transaction_id), metadata=self._authorization()
                ):
                    if message != seen:
                        seen = message
                        yield _view(message)
            except grpc.RpcError as error:
                problem = _problem(error)
                if error.code() not in _UNSENT:
                    raise problem from None
                time.sleep(min(problem.retry_after or 1, LONGEST_PAUSE_SECONDS))

    def collect(self, transaction_id: str, number: int) -> bytes:
        """The signed document."""
        return self._octets(signing_pb2.CollectRequest(id=transaction_id, number=number))

    def original(self, transaction_id: str, number: int) -> bytes:
        """The document as it was uploaded."""
        return self._octets(signing_pb2.CollectRequest(id=transaction_id, number=number, original=True))

    def receipt(self, transaction_id: str) -> str:
        """The core's receipt, a compact JWS; empty before signing."""
        text: str = self._call(lambda **how: self._stub.Get(signing_pb2.GetRequest(id=transaction_id), **how)).receipt
        return text

    def cancel(self, transaction_id: str) -> None:
        """Give up before the citizen approves."""
        self._call(lambda **how: self._stub.Cancel(signing_pb2.CancelRequest(id=transaction_id), **how))

    def _octets(self, request: Message) -> bytes:
        return self._call(lambda **how: b"".join(answer.data for answer in self._stub.Collect(request, **how)))

    def _call(self, make: Callable[..., T]) -> T:
        """Call what may safely be repeated, each time with a fresh proof."""
        pause = 0.25
        for left in reversed(range(TRIES)):
            try:
                return make(metadata=self._authorization(), timeout=TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                problem = _problem(error)
                if error.code() not in _UNSENT or not left:
                    # The exception would show the call, whose message may open something.
                    raise problem from None
            time.sleep(min(problem.retry_after or pause, LONGEST_PAUSE_SECONDS))
            pause *= 2
        raise AssertionError("at least one try is made")

    def _authorization(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.assertion()}"),)


def _sha256(document: NewDocument) -> bytes:
    digest = hashlib.sha256()
    for octets in document.chunks():
        digest.update(octets)
    return digest.digest()


def _problem(error: "grpc.RpcError") -> RubricaProblem:
    trailer = dict(error.trailing_metadata() or ())
    waits = trailer.get(_RETRY_AFTER, "")
    code = trailer.get(_CODE, "no_answer" if error.code() in _UNSENT else "unknown")
    return RubricaProblem(code, error.details() or "", 0, int(waits) if waits.isdecimal() else None)


def _view(message: signing_pb2.Transaction) -> dict[str, Any]:
    return {
        **{name: getattr(message, name) for name in ("id", "level", "format", "packaging", "algorithm", "client_id")},
        "state": signing_pb2.State.Name(message.state).removeprefix("STATE_"),
        "created": _moment(message.created),
        "expires": _moment(message.expires),
        "documents": [_document(each) for each in message.documents],
        "failure_code": message.failure_code,
        "result_token": message.result_token,
        "next_step": {
            "action": message.next_step.action,
            "documents": list(message.next_step.documents),
            "url": message.next_step.url,
        },
    }


def _document(message: signing_pb2.Document) -> dict[str, Any]:
    failed = message.HasField("failure")
    return {
        "number": message.number,
        "title": message.title,
        "state": signing_pb2.DocumentState.Name(message.state).removeprefix("DOCUMENT_STATE_"),
        "size_bytes": message.size_bytes,
        "sha256": base64url(message.sha256),
        "level": message.level,
        "failure": {"code": message.failure.code, "detail": message.failure.detail} if failed else None,
    }


def _moment(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat().replace("+00:00", "Z")
