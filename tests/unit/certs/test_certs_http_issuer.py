"""The issuer's adapter against servers that misbehave; the real one is in the integration tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certs.http_issuer import HTTPIssuer
from certs.issuer import Issuer, RevocationReason
from domain.errors import IssuerUnavailable
from tests.testkit.pki import DEMO_CITIZEN


@asynccontextmanager
async def a_server(path: Path, answer: bytes | None) -> AsyncIterator[None]:
    """Says ``answer`` to everybody; with ``None`` it never says anything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def refused(path: Path, deadline_seconds: float = 5.0) -> str:
    issuer: HTTPIssuer = HTTPIssuer(path, deadline_seconds=deadline_seconds)
    port: Issuer = issuer
    try:
        with pytest.raises(IssuerUnavailable) as issuing:
            await port.issue(b"csr", DEMO_CITIZEN, idempotency_key="one")
    finally:
        await issuer.close()
    return issuing.value.public_detail


async def test_nobody_listens(tmp_path: Path) -> None:
    assert "does not answer" in await refused(tmp_path / "nothing.sock")


async def test_nobody_listens_to_a_revocation(tmp_path: Path) -> None:
    issuer = HTTPIssuer(tmp_path / "nothing.sock")
    with pytest.raises(IssuerUnavailable):
        await issuer.revoke(1, RevocationReason.SUPERSEDED)
    await issuer.close()


async def test_silence_ends_at_the_deadline(tmp_path: Path) -> None:
    async with a_server(tmp_path / "ca.sock", None):
        started = asyncio.get_running_loop().time()
        assert "does not answer" in await refused(tmp_path / "ca.sock", deadline_seconds=0.2)
        assert asyncio.get_running_loop().time() - started < 2


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"", "does not answer"),
        (b"not HTTP at all\r\n\r\n", "does not answer"),
        (http("200 OK", b""), "cannot be read"),
        (http("200 OK", b"[]"), "cannot be read"),
        (http("200 OK", b'{"certificate": "?", "chain": []}'), "cannot be read"),
        (http("200 OK", b'{"certificate": "AAAA"}'), "cannot be read"),
        (http("200 OK", b'{"certificate": "AAAA", "chain": 1}'), "cannot be read"),
        (http("200 OK", b'{"certificate": "AAAA", "chain": [null]}'), "cannot be read"),
        (http("200 OK", b"\xff"), "cannot be read"),
        (http("409 Conflict", b'{"code": "state_conflict"}'), "refused: state_conflict"),
        (http("503 Service Unavailable", b"busy"), "refused: HTTP 503"),
        (http("302 Found", b"{}"), "refused: HTTP 302"),
    ],
)
async def test_answers_that_are_none(tmp_path: Path, answer: bytes, detail: str) -> None:
    async with a_server(tmp_path / "ca.sock", answer):
        assert detail in await refused(tmp_path / "ca.sock")
