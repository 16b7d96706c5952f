"""The gate as an ASGI application: no cookies, no CORS, no database, no state."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import Scope

from api import problems
from api.gate import endpoints, pages
from api.gate.endpoints import Relays
from api.middleware import AccessLog, BodyLimit, SecurityHeaders
from api.problems import LastResort, responses

BODY_LIMIT_BYTES = 16 * 1024

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


class Health(BaseModel):
    """Alive, or ready."""

    status: Literal["ok"] = "ok"


def create_app(
    relays: Relays,
    ready: Callable[[], Awaitable[None]],
    lifespan: Lifespan | None = None,
    *,
    token_key: Mapping[str, str] | None = None,
) -> FastAPI:
    """The application.

    Args:
        relays: Clients of the core.
        ready: Raises ``DependencyUnavailable`` while the core does not answer.
        lifespan: What runs beside the requests.
        token_key: The core's TOK key as JWK, which pages pin; without it there are no pages.
    """

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        if lifespan is None:
            yield
        else:
            async with lifespan():
                yield

    app = FastAPI(
        title="Rúbrica gate",
        summary="Takes sealed secrets and relays them",
        version="1",
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.relays = relays
    app.include_router(endpoints.router)

    @app.get("/healthz", tags=["health"])
    async def healthz() -> Health:
        """The process is alive."""
        return Health()

    @app.get("/readyz", tags=["health"], responses=responses())
    async def readyz() -> Health:
        """The core answers."""
        await ready()
        return Health()

    if token_key is not None:
        app.state.look, app.state.token_key = pages.make_look(), token_key
        app.include_router(app.state.look.assets.router())
        app.include_router(pages.anybody)
        app.include_router(pages.router)
    problems.install(app)

    def limit_bytes(_scope: Scope) -> int:
        return BODY_LIMIT_BYTES

    app.add_middleware(LastResort)
    app.add_middleware(BodyLimit, limit_bytes=limit_bytes)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(AccessLog)
    return app
