"""Bodies without end, over real connections: the server answers, closes and reads no further."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from fastapi import FastAPI

from api.middleware import DRAIN_BYTES
from rubrica.serving import _config, _Server
from tests.testkit.edge import an_edge

CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
SENT_AT_MOST = 64 * 1024 * 1024
BUFFERED_BYTES = 16 * 1024 * 1024
"""What the kernel may take for a reader that does not read; loopback windows grow to several MiB on each side."""


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    """The application behind the same server as in its process; gives the port."""
    server = _Server(_config(app, None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


def send_without_end(port: int, head: str) -> tuple[bytes, int]:
    """The answer, and how many bytes the server took before it closed."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{head}\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with suppress(ConnectionError):
            while sent < SENT_AT_MOST:
                connection.sendall(CHUNK)
                sent += len(CHUNK)
        # What came before the connection was reset can still be read.
        return connection.recv(65536), sent


@pytest.mark.parametrize(
    ("face", "head", "status"),
    [
        ("edge", "POST /v1/transactions HTTP/1.1", b"413"),
        ("edge", "GET /healthz HTTP/1.1", b"200"),
        ("edge", "POST /nowhere HTTP/1.1", b"404"),
        ("edge", "PUT /v1/transactions/x/documents/1 HTTP/1.1", b"401"),
        ("gate", "POST /v1/pins/begin HTTP/1.1\r\nContent-Type: application/json", b"413"),
        ("gate", "POST /v1/challenges HTTP/1.1", b"200"),
        ("gate", "POST /v1/challenges/x/resend HTTP/1.1", b"403"),
    ],
)
async def test_a_body_without_end_is_answered_and_read_no_further(
    face: str, head: str, status: bytes, tmp_path: Path
) -> None:
    async with an_edge(tmp_path) as edge, served(edge.app if face == "edge" else edge.gate_app) as port:
        answer, sent = await asyncio.to_thread(send_without_end, port, head)

    assert answer.split()[1] == status, answer
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert sent < DRAIN_BYTES + BUFFERED_BYTES


@pytest.mark.parametrize("face", ["edge", "gate"])
async def test_too_large_by_its_own_word_is_not_waited_for(face: str, tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, served(edge.app if face == "edge" else edge.gate_app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # Expect: the body is not sent before the server says so, and it must not.
        writer.write(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()


async def test_a_body_that_ends_costs_nobody_the_connection(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, served(edge.gate_app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            # Nothing reads this body.
            writer.write(b"POST /v1/challenges HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" not in head.lower()
            (length,) = (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            await reader.readexactly(length)
        writer.close()
