"""Composition root of the edge: database, document store, limited children, clients of the core, HTTP and gRPC."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import sqlalchemy as sa
import structlog
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from api.fetch import AllowlistFetch
from api.rest.app import create_app
from api.rest.services import Services
from api.rpc.service import Face, make_server
from api.storage import DocumentStore
from api.transactions.model import Limits
from api.transactions.review import Approvals
from api.transactions.seals import Sealer, load_key
from api.transactions.service import Transactions
from api.transactions.signing import Signing
from api.transactions.tables import metadata
from api.turns import Turns
from api.web.pace import Pace
from api.web.routes import UPLOADS, faces, install
from api.web.services import Web, make_look
from api.web.sessions import AreaSessions
from authn.area_client import AreaClient
from authn.client import CallersClient
from authn.officer_client import PapersClient
from documents.child import DocumentWorker, WorkerLimits
from domain.clock import Clock, SystemClock
from domain.errors import DependencyUnavailable
from rubrica.database import make_engine
from rubrica.logs import configure_logs
from rubrica.serving import STOP_SECONDS, core_answers, core_channel, serve
from rubrica.settings.edge import EdgeSettings
from rubrica.trust import load_trust
from signer.client import SignatureActivationClient

SCRATCH_LIFE_SECONDS = 24 * 3600
HOUSEKEEPING_SECONDS = 600.0
RPC_STOP_SECONDS = 2.0
"""For calls under way: whoever watches would not end by themselves, and whoever uploads may repeat it."""

_log = structlog.get_logger(__name__)


def run(settings_path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        pydantic.ValidationError: The settings are wrong.
        ValueError: The sealing key or a trust anchor is not what it should be.
        OSError: A file or address cannot be used.
    """
    os.umask(0o077)
    settings = EdgeSettings.load(settings_path)
    configure_logs(settings.log_level)
    asyncio.run(_serve(settings))


async def _serve(settings: EdgeSettings) -> None:
    async with build(settings) as app, _rpc(settings, app.state.services):
        await serve(app, settings)


@contextlib.asynccontextmanager
async def _rpc(settings: EdgeSettings, services: Services) -> AsyncIterator[None]:
    """The gRPC API while the context lasts, if there is to be one; calls under way may end."""
    if not settings.grpc_listen:
        yield
        return
    server = make_server(
        Face(
            transactions=services.transactions,
            callers=services.callers,
            store=services.store,
            sealer=services.sealer,
            public_url=services.public_url,
        )
    )
    try:
        if settings.grpc_certificate_file is None or settings.grpc_key_file is None:
            server.add_insecure_port(settings.grpc_listen)
        else:
            pair = (settings.grpc_key_file.read_bytes(), settings.grpc_certificate_file.read_bytes())
            server.add_secure_port(settings.grpc_listen, grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise OSError(f"grpc_listen: {error}") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(RPC_STOP_SECONDS)


@contextlib.asynccontextmanager
async def build(settings: EdgeSettings, clock: Clock | None = None) -> AsyncIterator[FastAPI]:
    """The application with everything behind it; what is under way when it ends may end in order."""
    clock = clock or SystemClock()
    limits = Limits(
        citizen_bytes=settings.citizen_document_bytes,
        citizen_documents=settings.citizen_documents,
        agency_bytes=settings.agency_document_bytes,
        agency_documents=settings.agency_documents,
        life_seconds=settings.transaction_life_seconds,
    )
    sealer = Sealer(load_key(settings.seal_key_file, create=settings.profile == "development"))
    store = DocumentStore(settings.storage_dir)
    async with contextlib.AsyncExitStack() as stack:
        engine = make_engine(settings.database_url, settings.database_password_file)
        stack.push_async_callback(engine.dispose)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        fetch = AllowlistFetch(settings.fetch_prefixes, tsa_url=settings.tsa_url)
        stack.push_async_callback(fetch.close)
        # What strangers make it ask for must not count against the services that signing needs.
        fetch_for_anybody = AllowlistFetch(settings.fetch_prefixes, tsa_url=None)
        stack.push_async_callback(fetch_for_anybody.close)
        channel = await stack.enter_async_context(core_channel(settings.core_socket))
        largest = max(limits.citizen_bytes, limits.agency_bytes)
        worker = await stack.enter_async_context(DocumentWorker(clock, WorkerLimits(document_bytes=largest)))
        activation = SignatureActivationClient(channel)
        trust = load_trust(settings.trust_dir)
        signing = Signing(
            engine,
            store,
            sealer,
            activation,
            worker,
            trust=trust,
            fetch=fetch,
            clock=clock,
        )
        turns = Turns()
        transactions = Transactions(engine, store, sealer, worker=worker, limits=limits, turns=turns, clock=clock)
        approvals = Approvals(
            engine,
            store,
            sealer,
            activation,
            worker=worker,
            signing=signing,
            return_address=f"{settings.public_url}/return",
            wait_seconds=settings.return_wait_seconds,
            clock=clock,
        )

        async def ready() -> None:
            await _database_answers(engine)
            await core_answers(channel)

        services = Services(
            transactions=transactions,
            approvals=approvals,
            callers=CallersClient(channel),
            store=store,
            sealer=sealer,
            public_url=settings.public_url,
            gate_url=settings.gate_url,
            ready=ready,
        )
        area = AreaSessions(engine, sealer, AreaClient(channel), clock)
        loops = [
            asyncio.create_task(_resume(signing, settings.resume_seconds)),
            asyncio.create_task(_keep_house(transactions, area, store, clock)),
        ]
        web = Web(
            transactions=transactions,
            approvals=approvals,
            store=store,
            viewer=worker,
            trust=trust,
            fetch=fetch_for_anybody,
            clock=clock,
            gate_url=settings.gate_url,
            area=area,
            papers=PapersClient(channel),
            pace=Pace(clock),
            turns=turns,
        )
        look = make_look()
        app = create_app(services, faces=faces(look), uploads=UPLOADS)
        install(app, web, look)
        try:
            yield app
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                # What does not end in time is resumed from the database by the next edge.
                await asyncio.wait_for(signing.settle(), STOP_SECONDS)


async def _database_answers(engine: AsyncEngine) -> None:
    try:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
    except (sa.exc.SQLAlchemyError, OSError):
        raise DependencyUnavailable("the database does not answer", retry_after_seconds=2) from None


async def _resume(signing: Signing, pause_seconds: float) -> None:
    while True:
        try:
            await signing.resume_due()
        except Exception:  # noqa: BLE001 - the loop is what mends things afterwards, so it goes on
            _log.exception("looking for unfinished work failed")
        await asyncio.sleep(pause_seconds)


async def _keep_house(transactions: Transactions, area: AreaSessions, store: DocumentStore, clock: Clock) -> None:
    while True:
        try:
            await transactions.purge()
            await area.purge()
            await store.sweep(older_than_epoch_seconds=clock.now().timestamp() - SCRATCH_LIFE_SECONDS)
        except Exception:  # noqa: BLE001 - the loop is what mends things afterwards, so it goes on
            _log.exception("housekeeping failed")
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
