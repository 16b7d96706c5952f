"""The edge as an ASGI application."""

from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.types import Scope

from api import problems
from api.middleware import AccessLog, BodyLimit, SecurityHeaders
from api.problems import LastResort, responses
from api.rest import browser, transactions
from api.rest.schemas import Health
from api.rest.services import Provided, Services

JSON_LIMIT_BYTES = 256 * 1024
FORM_LIMIT_BYTES = 1024 * 1024 * 1024
"""A form with documents may have so much at least, be it only to be read and thrown away."""
FORM_OVERHEAD_BYTES = 64 * 1024

Lifespan = Callable[[], AbstractAsyncContextManager[None]]

_health = APIRouter(tags=["health"])


@_health.get("/healthz")
async def healthz() -> Health:
    """The process is alive."""
    return Health()


@_health.get("/readyz", responses=responses())
async def readyz(provided: Provided) -> Health:
    """Database and core answer."""
    await provided.ready()
    return Health()


def create_app(
    services: Services,
    lifespan: Lifespan | None = None,
    *,
    faces: Sequence[APIRouter] = (),
    uploads: AbstractSet[str] = frozenset(),
) -> FastAPI:
    """The application.

    Args:
        services: What it works with.
        lifespan: Starts and ends what runs beside the requests.
        faces: Further routes; they see a request first.
        uploads: Paths of theirs to which documents are posted; they set their own limit within the outer one, and
            answer themselves to whoever declares more.
    """

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        if lifespan is None:
            yield
        else:
            async with lifespan():
                yield

    app = FastAPI(
        title="Rúbrica edge",
        summary="Submit, authorise, collect",
        version="1",
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    for router in (*faces, transactions.router, browser.router, _health):
        app.include_router(router)
    problems.install(app)
    limits = services.transactions.limits
    upload_bytes = max(limits.agency_bytes, limits.citizen_bytes)
    # A citizen's documents at once; a signed file with the one beside it, which anybody may have judged.
    largest_bytes = max(limits.citizen_bytes * limits.citizen_documents, 2 * limits.agency_bytes)
    form_bytes = max(FORM_LIMIT_BYTES, largest_bytes) + FORM_OVERHEAD_BYTES

    def limit_bytes(scope: Scope) -> int:
        # How much a document may have depends on whose it is, and is checked while it is read; this is the outer wall.
        if scope["path"] in uploads:
            return form_bytes
        return upload_bytes if scope["method"] == "PUT" else JSON_LIMIT_BYTES

    app.add_middleware(LastResort)
    app.add_middleware(BodyLimit, limit_bytes=limit_bytes, answered_by_app=lambda scope: scope["path"] in uploads)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(AccessLog)
    return app
