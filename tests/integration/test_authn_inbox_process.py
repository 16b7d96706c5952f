"""The inbox as a process, and a core that is killed between the gateway's answer and its own commit."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from authn.columns import ColumnCipher
from authn.messages.outbox import MessageState, Outbox, OutboxSender, message
from authn.messages.sms import HTTPGatewayConfig, HTTPSMSGateway
from domain.clock import SystemClock
from tests.testkit.authn import bytes_on_disk, database

KEY = bytes(range(32))
PHONE = "+34612345678"
TEXT = "Codigo 246810"

# A core that dies right after the gateway took the message: what the program below does in the place of its commit.
DYING_CORE = """
import asyncio, os, signal, sys
from pathlib import Path
from authn.columns import ColumnCipher
from authn.messages.outbox import Outbox, OutboxSender
from authn.messages.sms import HTTPGatewayConfig, HTTPSMSGateway
from domain.clock import SystemClock
from rubrica.database import make_engine

class Dying(HTTPSMSGateway):
    async def hand_over(self, *arguments, **options):
        await super().hand_over(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    clock = SystemClock()
    outbox = Outbox(ColumnCipher({1: bytes(range(32))}), clock)
    template = {"id": "{id}", "to": "{phone}", "text": "{text}"}
    gateway = Dying(HTTPGatewayConfig(url=sys.argv[2] + "/messages", json=template))
    await OutboxSender(make_engine("sqlite+aiosqlite:///" + sys.argv[1]), outbox, gateway, clock).run()

asyncio.run(main())
"""


@contextmanager
def inbox_process(folder: Path, **settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The inbox on a port of its own; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = folder / "inbox.toml"
        lines = {"file": f'"{folder / "inbox.jsonl"}"', "listen_fd": str(listening.fileno()), **settings}
        config.write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys, pathlib, rubrica.inbox as i; i.run(pathlib.Path(sys.argv[1]))", config],
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", process
        finally:
            process.terminate()
            process.wait(10)


async def received(address: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(timeout=20) as client:
        found: list[dict[str, Any]] = (await client.get(f"{address}/messages.json", params={"to": PHONE})).json()
        return found


async def test_a_core_killed_after_the_hand_over_sends_no_second_sms(tmp_path: Path) -> None:
    clock = SystemClock()
    outbox = Outbox(ColumnCipher({1: KEY}), clock)
    folder = tmp_path / "core"
    folder.mkdir()
    with inbox_process(tmp_path) as (address, _process):
        async with database(folder) as engine:
            async with engine.begin() as connection:
                expires = clock.now() + timedelta(minutes=5)
                await outbox.put(connection, message_id="m1", phone=PHONE, text=TEXT, expires=expires)
            await engine.dispose()

            core = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING_CORE, folder / "core.db", address)
            assert await asyncio.wait_for(core.wait(), 30) == -signal.SIGKILL
            assert [found["id"] for found in await received(address)] == ["m1"]
            async with engine.begin() as connection:
                assert await connection.scalar(sa.select(message.c.state)) == MessageState.WAITING.value
                # The dead core's claim is over.
                await connection.execute(sa.update(message).values(next_try=clock.now()))

            template = {"id": "{id}", "to": "{phone}", "text": "{text}"}
            gateway = HTTPSMSGateway(HTTPGatewayConfig(url=f"{address}/messages", json=template))
            sender = asyncio.create_task(OutboxSender(engine, outbox, gateway, clock).run())
            async with asyncio.timeout(20):
                row = await _only_row(engine)
                while row.state != MessageState.HANDED_OVER.value:
                    await asyncio.sleep(0.02)
                    row = await _only_row(engine)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            await gateway.aclose()
        assert (row.tries, row.destination, row.body) == (2, None, None)
        assert [(found["id"], found["to"], found["text"]) for found in await received(address)] == [("m1", PHONE, TEXT)]
    stored = bytes_on_disk(folder)
    assert b"HANDED_OVER" in stored
    for canary in (PHONE, TEXT, "246810"):
        assert canary.encode() not in stored


async def _only_row(engine: Any) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(sa.select(message))).one()


async def test_the_inbox_keeps_its_messages_and_logs_none(tmp_path: Path) -> None:
    with inbox_process(tmp_path, log_level='"debug"') as (address, process):
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.post(f"{address}/messages", json={"id": "m1", "to": PHONE, "text": TEXT})
            assert answer.status_code == 201
            assert (await client.post(f"{address}/messages", json={"id": "m2", "to": PHONE})).status_code == 422
            assert TEXT in (await client.get(f"{address}/")).text
    output = process.stdout.read() if process.stdout else b""
    assert process.returncode in {0, -signal.SIGTERM}
    assert b"development inbox" in output
    assert b"612345678" not in output
    assert b"246810" not in output
    with inbox_process(tmp_path) as (address, _process):
        assert [found["id"] for found in await received(address)] == ["m1"]


def test_the_inbox_refuses_production(tmp_path: Path) -> None:
    with inbox_process(tmp_path, profile='"production"') as (_address, process):
        assert process.wait(30) == 1
        output = process.stdout.read() if process.stdout else b""
    assert b"does not run in production" in output
    assert not (tmp_path / "inbox.jsonl").exists()
