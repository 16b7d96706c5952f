"""How errors leave the core over gRPC: a status, the stable code in the trailer, the text that is safe to show."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog

from authn.client import CODE_KEY, RETRY_AFTER_KEY
from domain.errors import (
    Busy,
    CallerRefused,
    DependencyUnavailable,
    HSMUnavailable,
    NotFound,
    NotPermitted,
    RateLimited,
    RequestError,
    RubricaError,
)
from hsm.errors import HSMBusy, HSMError

log = structlog.get_logger()

STATUS: dict[type[RubricaError], grpc.StatusCode] = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    CallerRefused: grpc.StatusCode.UNAUTHENTICATED,
    NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    DependencyUnavailable: grpc.StatusCode.UNAVAILABLE,
    RubricaError: grpc.StatusCode.FAILED_PRECONDITION,
}
"""The first class that fits decides."""


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Turns errors of every method into statuses; whatever is not ours is a bug: logged in full, told to nobody.

    A caller may hang up: what was begun is ended all the same. Otherwise a guess could be tested and, by hanging up
    before its failure is written, never show in the log or count among the failed codes.
    """

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Wrap the handler of one unary method."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def guarded(request: Any, context: grpc.aio.ServicerContext) -> Any:
            async with errors_told(context, details.method):
                work = asyncio.ensure_future(handler.unary_unary(request, context))
                self._under_way.add(work)
                work.add_done_callback(self._ended)
                return await asyncio.shield(work)

        return grpc.unary_unary_rpc_method_handler(
            guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _ended(self, work: asyncio.Task[Any]) -> None:
        self._under_way.discard(work)
        if not work.cancelled():
            # Whoever still waits is told; asking here keeps asyncio from printing the error of one who hung up.
            work.exception()


@asynccontextmanager
async def errors_told(context: grpc.aio.ServicerContext, method: str) -> AsyncIterator[None]:
    """End the call with the status of whatever is raised inside."""
    try:
        yield
    except RubricaError as error:
        await _abort(context, error)
    except HSMBusy:
        await _abort(context, Busy("many people are signing at this moment; try again", retry_after_seconds=2))
    except HSMError as error:
        log.warning("hsm_failed", method=method, error=type(error).__name__)
        await _abort(context, HSMUnavailable("the signing device does not answer; try again", retry_after_seconds=2))
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told one thing
        # The exception's own text and local variables may quote a request: places and names alone are kept.
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        log.error("bug", method=method, error=type(error).__name__, places=places)  # noqa: TRY400 - see above
        await context.abort(grpc.StatusCode.INTERNAL, "internal error")


async def _abort(context: grpc.aio.ServicerContext, error: RubricaError) -> None:
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    trailer = [(CODE_KEY, error.code)]
    if error.retry_after_seconds is not None:
        trailer.append((RETRY_AFTER_KEY, str(error.retry_after_seconds)))
    await context.abort(status, error.public_detail, trailing_metadata=tuple(trailer))
