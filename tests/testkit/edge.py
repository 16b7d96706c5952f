"""An edge and a gate in one process, before a simulated core: real database, store and HTTP, documents made of text."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from api.gate.app import create_app as create_gate
from api.gate.endpoints import Relays
from api.rest.app import create_app
from api.rest.services import Services
from api.rpc.service import Face, make_server
from api.storage import DocumentStore
from api.transactions.model import DocumentWorker, Limits
from api.transactions.review import Approvals
from api.transactions.seals import Sealer
from api.transactions.service import Transactions
from api.transactions.signing import Signing
from api.transactions.tables import metadata
from api.turns import Turns
from authn.client import CallersClient, FactorsClient
from documents.model import (
    AsyncFetch,
    FetchKind,
    FinishedDocument,
    Inspection,
    Level,
    LevelNotReached,
    PAdESOptions,
    Prepared,
    SignatureParts,
    TrustMaterial,
    XAdESOptions,
)
from domain.digests import Digest
from domain.errors import TimestampUnavailable, UnsupportedDocument
from rubrica.database import make_engine
from rubrica_client.gate import GateClient
from rubrica_client.jws import sign as sign_jws
from signer.client import SignatureActivationClient, SignatureAuthorisationClient
from tests.testkit.core_simulator import NIF, PASSWORD, CoreSimulator
from tests.testkit.time import FrozenClock

EDGE_URL = "https://edge.test"
GATE_URL = "https://gate.test"
AGENCY = "sede"
AGENCY_NAME = "Sede electrónica"
RETURN_URL = "https://sede.example/vuelta?tramite=7"
PDF = b"%PDF-1.7 made of text\n"


class TextWorker:
    """A ``DocumentWorker`` whose documents are text: what an edge does with them shows without a parser."""

    def __init__(self) -> None:
        self.tsa_down = False
        self.finish_fails: list[Exception] = []
        self.finished = 0

    async def inspect(self, path: Path, options: XAdESOptions | None = None) -> Inspection:
        assert options is None, "text is signed as PDF"
        data = await asyncio.to_thread(path.read_bytes)
        if not data.startswith(b"%PDF"):
            raise UnsupportedDocument("this is not a PDF")
        return Inspection(1, 0, encrypted=False, size_bytes=len(data))

    async def prepare(self, source: Path, destination: Path, options: PAdESOptions | XAdESOptions) -> Prepared:
        assert isinstance(options, PAdESOptions), "text is signed as PDF"
        prepared = (
            await asyncio.to_thread(source.read_bytes) + b"prepared at " + options.signing_time.isoformat().encode()
        )
        await asyncio.to_thread(destination.write_bytes, prepared)
        return Prepared(Digest.of(prepared), b"state " + hashlib.sha256(prepared).hexdigest().encode())

    async def finish(
        self,
        path: Path,
        state: bytes,
        parts: SignatureParts,
        *,
        level: Level,
        trust: TrustMaterial,
        fetch: AsyncFetch,  # noqa: ARG002 - text needs no evidence
    ) -> FinishedDocument:
        if self.finish_fails:
            raise self.finish_fails.pop(0)
        prepared = await asyncio.to_thread(path.read_bytes)
        assert state == b"state " + hashlib.sha256(prepared).hexdigest().encode()
        assert parts.signature == b"signature " + hashlib.sha256(prepared).digest()
        assert trust.anchors
        self.finished += 1
        reached = Level.B_B if self.tsa_down else level
        signed = prepared + b"\nsigned " + reached.value.encode()
        await asyncio.to_thread(path.write_bytes, signed)
        if reached is not level:
            raise LevelNotReached("no timestamp", FinishedDocument(reached, len(signed)))
        return FinishedDocument(level, len(signed))


async def no_fetch(kind: FetchKind, url: str, body: bytes | None) -> bytes:
    """An outside that is not there."""
    raise TimestampUnavailable(f"{kind.value}: nobody at {url or 'the authority'} for {len(body or b'')} bytes")


@dataclass(kw_only=True)
class Edge:
    """What a test drives."""

    core: CoreSimulator
    clock: FrozenClock
    worker: Any
    engine: AsyncEngine
    store: DocumentStore
    signing: Signing
    transactions: Transactions
    app: FastAPI
    gate_app: FastAPI
    folder: Path
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def browser(self) -> httpx.AsyncClient:
        """Another browser (or another system) with cookies of its own."""
        client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=EDGE_URL, follow_redirects=False)
        self.clients.append(client)
        return client

    @asynccontextmanager
    async def rpc(self, *, watch_seconds: float = 60.0) -> AsyncIterator[int]:
        """Its gRPC API; gives the port on loopback."""
        provided = self.app.state.services
        face = Face(
            transactions=provided.transactions,
            callers=provided.callers,
            store=provided.store,
            sealer=provided.sealer,
            public_url=provided.public_url,
        )
        server = make_server(face, watch_seconds=watch_seconds)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield port
        finally:
            await server.stop(None)

    def gate(self) -> httpx.AsyncClient:
        """A browser at the gate."""
        client = httpx.AsyncClient(transport=httpx.ASGITransport(self.gate_app), base_url=GATE_URL)
        self.clients.append(client)
        return client

    def bearer(self, key: ec.EllipticCurvePrivateKey, client_id: str = AGENCY) -> dict[str, str]:
        """A fresh private_key_jwt as a header."""
        now = int(self.clock.now().timestamp())
        claims = {"iss": client_id, "sub": client_id, "aud": EDGE_URL, "iat": now, "exp": now + 60}
        assertion = sign_jws({"kid": client_id}, {**claims, "jti": secrets.token_hex(16)}, key)
        return {"Authorization": f"Bearer {assertion}"}

    async def own_transaction(self, *documents: bytes, level: str = "B-T", nif: str = "") -> tuple[str, str]:
        """A submitted transaction of the citizen's own web: its id and its link token."""
        system = self.browser()
        documents = documents or (PDF,)
        body = {"documents": [{"title": f"Documento {n + 1}"} for n in range(len(documents))], "level": level}
        answer = await system.post("/v1/transactions", json={**body, "citizen_nif": nif}, headers=idempotent())
        assert answer.status_code == 201, answer.text
        created = answer.json()
        bearer = {"Authorization": f"Bearer {created['link_token']}"}
        for number, document in enumerate(documents, start=1):
            answer = await system.put(
                f"/v1/transactions/{created['id']}/documents/{number}",
                content=document,
                headers={"Content-Type": "application/pdf", **bearer},
            )
            assert answer.status_code == 200, answer.text
        answer = await system.post(f"/v1/transactions/{created['id']}/submit", headers={**idempotent(), **bearer})
        assert answer.status_code == 200, answer.text
        return created["id"], created["link_token"]

    async def approved(self, review: dict[str, Any], *, otp: str | None = None) -> httpx.URL:
        """Type password and code at the gate, as the real client does; gives the way back with its code."""

        def at_the_gate() -> str:
            with GateClient(GATE_URL, self.core.token_key, transport=bridge) as gate:
                pending = gate.begin(gate.describe(review["request_id"]), NIF, PASSWORD)
                return gate.complete(pending, otp or self.core.otp)

        bridge = Bridge(self.gate_app)
        return httpx.URL(await asyncio.to_thread(at_the_gate))

    async def status(self, transaction_id: str, link_token: str) -> dict[str, Any]:
        """A transaction of the citizen's own web."""
        answer = await self.browser().get(
            f"/v1/transactions/{transaction_id}", headers={"Authorization": f"Bearer {link_token}"}
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def idempotent() -> dict[str, str]:
    """A fresh idempotency key as a header."""
    return {"Idempotency-Key": secrets.token_hex(16)}


@asynccontextmanager
async def an_edge(
    folder: Path,
    *,
    core: CoreSimulator | None = None,
    clock: FrozenClock | None = None,
    worker: DocumentWorker | None = None,
    limits: Limits | None = None,
    trust: TrustMaterial | None = None,
    fetch: AsyncFetch = no_fetch,
    wait_seconds: float = 20.0,
    database_url: str | None = None,
) -> AsyncIterator[Edge]:
    """An edge over ``folder``; over the same folder again it is the edge after a restart."""
    clock = clock or FrozenClock(datetime(2026, 3, 2, 9, 0, tzinfo=UTC))
    core = core or CoreSimulator(clock)
    working = worker or TextWorker()
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(core.serving(folder / "core.sock"))
        engine = make_engine(database_url or f"sqlite+aiosqlite:///{folder / 'edge.db'}")
        stack.push_async_callback(engine.dispose)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        store = DocumentStore(folder / "documents")
        sealer = Sealer(b"k" * 32)
        activation = SignatureActivationClient(channel)
        signing = Signing(
            engine,
            store,
            sealer,
            activation,
            working,
            trust=trust or TrustMaterial((b"root",)),
            fetch=fetch,
            clock=clock,
        )
        transactions = Transactions(
            engine, store, sealer, worker=working, limits=limits or Limits(), turns=Turns(), clock=clock
        )
        approvals = Approvals(
            engine,
            store,
            sealer,
            activation,
            worker=working,
            signing=signing,
            return_address=f"{EDGE_URL}/return",
            wait_seconds=wait_seconds,
            clock=clock,
        )

        async def ready() -> None:
            await asyncio.wait_for(channel.channel_ready(), 1)

        services = Services(
            transactions=transactions,
            approvals=approvals,
            callers=CallersClient(channel),
            store=store,
            sealer=sealer,
            public_url=EDGE_URL,
            gate_url=GATE_URL,
            ready=ready,
        )
        relays = Relays(authorisation=SignatureAuthorisationClient(channel), factors=FactorsClient(channel))
        edge = Edge(
            core=core,
            clock=clock,
            worker=working,
            engine=engine,
            store=store,
            signing=signing,
            transactions=transactions,
            app=create_app(services),
            gate_app=create_gate(relays, ready),
            folder=folder,
        )
        yield edge
        for client in edge.clients:
            await client.aclose()
        await signing.settle()


class Bridge(httpx.BaseTransport):
    """Lets a blocking client in another thread speak with an application in this event loop."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app)
        self._loop = asyncio.get_running_loop()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._handle(request), self._loop).result(60)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        response = await self._transport.handle_async_request(
            httpx.Request(request.method, request.url, headers=request.headers, content=content)
        )
        body = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=body, request=request)


async def reviewed(edge: Edge, link: str, browser: httpx.AsyncClient | None = None) -> dict[str, Any]:
    """What the review page at ``link`` says to a browser, a new one by default."""
    answer = await (browser or edge.browser()).get(f"/review/{link}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def code_of(answer: httpx.Response) -> str:
    """The code of a problem document."""
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])
