"""How errors leave the edge over gRPC: what ``api/problems.py`` says of a code, as a status and trailing metadata."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from api.problems import STATUSES
from api.rpc.places import Places
from authn.client import CODE_KEY, RETRY_AFTER_KEY
from domain.errors import MalformedRequest, RubricaError
from domain.ids import new_id

STATUS_OF: Mapping[int, grpc.StatusCode] = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: grpc.StatusCode.UNIMPLEMENTED,
    HTTPStatus.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    HTTPStatus.GONE: grpc.StatusCode.FAILED_PRECONDITION,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
"""Every HTTP status that a code may have."""
FIRST_MESSAGE_SECONDS = 5.0
"""It comes with the call itself; whoever waits with it only keeps a place."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

_log = structlog.get_logger(__name__)

Handler = Callable[[Any, "grpc.aio.ServicerContext"], Any]
Parse = Callable[[AsyncIterator[bytes]], Awaitable[Any]]


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Reads every message itself and turns errors into statuses; what is not ours is a bug: logged, told to nobody.

    To the server every request is a stream: it would wait for a single message without end, and without us.
    """

    def __init__(self, places: Places, check: Callable[["grpc.aio.ServicerContext"], object]) -> None:
        """Wrap a service.

        Args:
            places: For calls.
            check: Raises where a call is not worth its first message.
        """
        self._places = places
        self._check = check

    @contextmanager
    def _begun(self, context: "grpc.aio.ServicerContext") -> Iterator[None]:
        self._check(context)
        with self._places.place(context):
            yield

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Wrap the handler of one method."""
        handler = await continuation(details)
        if handler is None:
            return handler
        read, name = handler.request_deserializer, str(details.method)
        made = {"response_serializer": handler.response_serializer}
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                self._answering(handler.stream_unary, _each(read), name), **made
            )
        if handler.unary_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(handler.unary_stream, _one(read), name), **made
            )
        return grpc.stream_unary_rpc_method_handler(self._answering(handler.unary_unary, _one(read), name), **made)

    def _answering(self, handler: Handler, parse: Parse, method: str) -> Handler:
        async def guarded(stream: AsyncIterator[bytes], context: "grpc.aio.ServicerContext") -> Any:
            async with errors_told(context, method):
                with self._begun(context):
                    return await handler(await parse(stream), context)

        return guarded

    def _streaming(self, handler: Handler, parse: Parse, method: str) -> Handler:
        async def guarded(stream: AsyncIterator[bytes], context: "grpc.aio.ServicerContext") -> AsyncIterator[Any]:
            async with errors_told(context, method):
                with self._begun(context):
                    async with aclosing(handler(await parse(stream), context)) as answers:
                        async for answer in answers:
                            yield answer

        return guarded


@asynccontextmanager
async def errors_told(context: "grpc.aio.ServicerContext", method: str) -> AsyncIterator[None]:
    """End the call with the status of whatever is raised inside; the log is told either way."""
    started, outcome = time.monotonic(), "ended by the caller"
    try:
        yield
        outcome = "ok"
    except RubricaError as error:
        outcome = error.code
        await _abort(context, error)
    except (grpc.aio.AbortError, grpc.aio.UsageError, asyncio.CancelledError):
        # The caller has hung up, or was told already.
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the caller is told one thing
        event, outcome = new_id(), RubricaError.code
        _log.exception("unexpected fault", problem_event=event)
        detail = f"an unexpected fault; it has been recorded under urn:rubrica:event:{event}"
        await context.abort(grpc.StatusCode.INTERNAL, detail, trailing_metadata=((CODE_KEY, RubricaError.code),))
    finally:
        _log.info("served", method=method, outcome=outcome, milliseconds=round((time.monotonic() - started) * 1000))


def _parsed(read: Callable[[bytes], Any], octets: bytes) -> Any:
    try:
        return read(octets)
    except DecodeError:
        raise MalformedRequest("the message is none of this interface") from None


def _one(read: Callable[[bytes], Any]) -> Parse:
    async def message(stream: AsyncIterator[bytes]) -> Any:
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                octets = await anext(aiter(stream), None)
        except TimeoutError:
            octets = None
        if octets is None:
            raise MalformedRequest("the call came without its message")
        return _parsed(read, octets)

    return message


def _each(read: Callable[[bytes], Any]) -> Parse:
    async def parsed(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for octets in stream:
            yield _parsed(read, octets)

    async def messages(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        return parsed(stream)

    return messages


async def _abort(context: "grpc.aio.ServicerContext", error: RubricaError) -> None:
    status = STATUS_OF[STATUSES[error.code]]
    trailer = [(CODE_KEY, error.code)]
    if error.retry_after_seconds is not None:
        trailer.append((RETRY_AFTER_KEY, str(error.retry_after_seconds)))
    # HTTP/2 carries the text percent-encoded; what is unprintable would only disfigure logs.
    await context.abort(status, _UNPRINTABLE.sub("?", error.public_detail), trailing_metadata=tuple(trailer))
