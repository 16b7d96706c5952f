"""How errors leave the core over gRPC: a status, the stable code in the trailer, the text that is safe to show."""

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
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    DependencyUnavailable: grpc.StatusCode.UNAVAILABLE,
    RubricaError: grpc.StatusCode.FAILED_PRECONDITION,
}
"""The first class that fits decides."""


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Turns errors of every method into statuses; whatever is not ours is a bug: logged in full, told to nobody."""

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
                return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


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
    except Exception:
        # The exception's own text may quote a request: the traceback alone is kept.
        log.exception("bug", method=method)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error")


async def _abort(context: grpc.aio.ServicerContext, error: RubricaError) -> None:
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    trailer = [(CODE_KEY, error.code)]
    if error.retry_after_seconds is not None:
        trailer.append((RETRY_AFTER_KEY, str(error.retry_after_seconds)))
    await context.abort(status, error.public_detail, trailing_metadata=tuple(trailer))
