"""The two faces of the transactions, REST and gRPC, as an agency's own client speaks with each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from rubrica_client import AgencyClient
from rubrica_client.grpc import GRPCAgencyClient
from tests.testkit.edge import AGENCY, EDGE_URL, Bridge, Edge

T = TypeVar("T")

FACES = ("rest", "grpc")

Client = AgencyClient | GRPCAgencyClient


@dataclass(frozen=True)
class Face:
    """One face of an edge in this event loop; clients block, so each call runs in a thread."""

    edge: Edge
    port: int | None
    stack: AsyncExitStack

    def client(self, key: ec.EllipticCurvePrivateKey, client_id: str = AGENCY) -> Client:
        """A client of its own connection."""

        def now() -> float:
            return self.edge.clock.now().timestamp()

        made: Client
        if self.port is None:
            made = AgencyClient(EDGE_URL, client_id, key, transport=Bridge(self.edge.app), now=now)
        else:
            made = GRPCAgencyClient(f"127.0.0.1:{self.port}", client_id, key, audience=EDGE_URL, now=now)
        self.stack.callback(made.close)
        return made

    async def call(self, method: Callable[..., T], *arguments: object, **options: object) -> T:
        """Call a client's method."""
        return await asyncio.to_thread(method, *arguments, **options)


@asynccontextmanager
async def a_face(name: str, edge: Edge) -> AsyncIterator[Face]:
    """One of ``FACES`` of ``edge``."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(edge.rpc()) if name == "grpc" else None
        yield Face(edge, port, stack)
