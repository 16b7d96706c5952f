import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from authn.messages.sms import HTTPGatewayConfig, HTTPSMSGateway, SMSNotAccepted

PHONE = "+34612345678"
TEXT = 'Codigo 246810: "ñ" {secret} & {phone}'
SECRET = "hush-hush-key"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Provider:
    """A gateway on a Unix socket that answers as it is told and keeps what it got."""

    path: Path
    answer: bytes | None = OK
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((head[0], headers, body))
            if self.answer is None:
                await asyncio.sleep(60)
            else:
                writer.write(self.answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    provider = Provider(tmp_path / "sms.sock")
    server = await asyncio.start_unix_server(provider.serve, provider.path)
    yield provider
    server.close()


@asynccontextmanager
async def a_gateway(provider: Provider, **changes: Any) -> AsyncIterator[HTTPSMSGateway]:
    secret_file = provider.path.with_name("secret")
    secret_file.write_text(SECRET + "\n")
    values = {
        "url": "http://sms.example.org/v1/messages",
        "json": {"id": "{id}", "to": ["{phone}"], "text": "{text}", "options": {"flash": False, "key": "{secret}"}},
        "headers": {"Authorization": "Bearer {secret}", "Idempotency-Key": "{id}"},
        "secret_file": secret_file,
        "unix_socket": provider.path,
        **changes,
    }
    gateway = HTTPSMSGateway(HTTPGatewayConfig(**values))
    try:
        yield gateway
    finally:
        await gateway.aclose()


async def hand_over(gateway: HTTPSMSGateway, *, seconds: float = 5) -> None:
    await gateway.hand_over("m1", PHONE, TEXT, deadline_seconds=seconds)


async def test_a_json_body_is_filled_in_once(provider: Provider) -> None:
    async with a_gateway(provider) as gateway:
        await hand_over(gateway)
    [(line, headers, body)] = provider.requests
    assert line == "POST /v1/messages HTTP/1.1"
    assert (headers["host"], headers["authorization"]) == ("sms.example.org", f"Bearer {SECRET}")
    assert headers["idempotency-key"] == "m1"
    assert json.loads(body) == {
        "id": "m1",
        "to": [PHONE],
        "text": TEXT,
        "options": {"flash": False, "key": SECRET},
    }


async def test_a_form_body_is_filled_in(provider: Provider) -> None:
    form = {"user": "rubrica", "number": "{phone}", "message": "{text}", "ref": "x-{id}"}
    async with a_gateway(provider, json=None, form=form, method="PUT") as gateway:
        await hand_over(gateway)
    [(line, headers, body)] = provider.requests
    assert line.startswith("PUT ")
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(body.decode()) == {"user": ["rubrica"], "number": [PHONE], "message": [TEXT], "ref": ["x-m1"]}


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", {}),
        (b"HTTP/1.1 302 Found\r\nlocation: http://sms.example.org/v1/messages\r\ncontent-length: 0\r\n\r\n", {}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nERROR", {"accepted_pattern": r"^OK"}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", {"accepted_statuses": frozenset({202})}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n" + b"x" * 70000, {}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nshort", {}),
        (b"no HTTP\r\n\r\n", {}),
        (b"", {}),
    ],
)
async def test_every_other_answer_is_a_refusal(provider: Provider, answer: bytes, changes: dict[str, Any]) -> None:
    provider.answer = answer
    async with a_gateway(provider, **changes) as gateway:
        with pytest.raises(SMSNotAccepted) as refusal:
            await hand_over(gateway)
    assert len(provider.requests) == 1
    assert_silent(refusal.value)


async def test_an_answer_that_says_so_is_an_acceptance(provider: Provider) -> None:
    provider.answer = b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"status":"OK"}'
    async with a_gateway(provider, accepted_pattern=r'"status":\s*"OK"') as gateway:
        await hand_over(gateway)


async def test_a_gateway_that_does_not_answer_is_left_at_the_deadline(provider: Provider) -> None:
    provider.answer = None
    async with a_gateway(provider) as gateway:
        began = time.monotonic()
        with pytest.raises(SMSNotAccepted, match="deadline") as refusal:
            await hand_over(gateway, seconds=0.2)
        assert time.monotonic() - began < 2
    assert_silent(refusal.value)


async def test_a_gateway_that_is_not_there(provider: Provider) -> None:
    async with a_gateway(provider, unix_socket=provider.path.with_name("none.sock")) as gateway:
        with pytest.raises(SMSNotAccepted) as refusal:
            await hand_over(gateway)
    assert_silent(refusal.value)


async def test_nothing_is_logged_but_the_address(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for answer in (OK, b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"):
        provider.answer = answer
        async with a_gateway(provider) as gateway:
            await asyncio.gather(hand_over(gateway), return_exceptions=True)
    assert "sms.example.org" in caplog.text, "the canaries would be looked for in the wrong place"
    assert_silent(caplog.text)
    async with a_gateway(provider) as gateway:
        assert_silent(repr(gateway))


@pytest.mark.parametrize(
    "changes",
    [
        {"form": {"a": "b"}},
        {"json": None},
        {"method": "GET"},
        {"headers": {"X-To": "{phone}"}},
        {"headers": {"X-Text": "{text}"}},
        {"json": {"to": ["{number}"]}},
    ],
)
async def test_a_configuration_that_cannot_be_right_is_refused(provider: Provider, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"gateway|headers"):
        async with a_gateway(provider, **changes):
            pass


async def test_a_secret_that_no_header_can_carry_is_refused_without_being_told(provider: Provider) -> None:
    secret_file = provider.path.with_name("other")
    secret_file.write_text("contraseña")
    with pytest.raises(ValueError, match="ASCII") as refusal:
        async with a_gateway(provider, secret_file=secret_file):
            pass
    assert "contrase" not in str(refusal.value)


def assert_silent(shown: object) -> None:
    chain = []
    while isinstance(shown, BaseException):
        chain.append(repr(shown))
        shown = None if shown.__suppress_context__ else shown.__context__
    text = " ".join(chain) or str(shown)
    for canary in (PHONE, "612345678", "246810", SECRET):
        assert canary not in text
