"""The real core as its own process: real token, real PKI process, and a telephone network that really listens."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cbor2

from authn.client import CoreFault
from domain.errors import DependencyUnavailable
from tests.testkit.callers import Callers, calling
from tests.testkit.core import EDGE
from tests.testkit.pki import PROJECT, running_pki
from tests.testkit.softhsm import core_token, pki_token

START_SECONDS = 40.0


@dataclass
class Network:
    """Takes messages over HTTP, as an SMS gateway does, and keeps them in memory only."""

    url: str
    texts: dict[str, str] = field(default_factory=dict)
    arrivals: int = 0

    async def otp(self, challenge_id: str) -> str:
        """The code of a challenge's message, once it came."""
        async with asyncio.timeout(20):
            while challenge_id not in self.texts:
                await asyncio.sleep(0.01)
        (code,) = re.findall(r"#(\d{6})$", self.texts[challenge_id])
        return str(code)

    def codes(self) -> list[str]:
        """Every code that was ever sent."""
        return [code for text in self.texts.values() for code in re.findall(r"#(\d{6})$", text)]


@contextmanager
def network() -> Iterator[Network]:
    """A gateway on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.arrivals += 1
            found.texts.setdefault(body["id"], body["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Network(f"http://127.0.0.1:{server.server_address[1]}/messages")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class CoreProcess:
    """A core that can be killed and started again, always over the same folder."""

    folder: Path
    config: Path
    sms: Network
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "core.log"

    @property
    def database(self) -> Path:
        return self.folder / "core.db"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Callers]:
        """Start it, wait until it answers, stop it at the end if nobody killed it."""
        self.process = self._start()
        try:
            async with calling(self.folder / "s", self.sms.otp) as callers:
                await self._answers(callers)
                yield callers
        finally:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self.process.wait, START_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUBRICA_")}
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "rubrica", "core", "--config", str(self.config)],
                stdout=output,
                stderr=output,
                cwd=PROJECT,
                env={**environment, "TMPDIR": str(temporary)},
            )

    def kill(self) -> None:
        """kill -9, now."""
        assert self.process is not None
        self.process.kill()

    def leaves(self) -> list[dict[str, Any]]:
        """The log, oldest first, read from the file."""
        return [cbor2.loads(row[0]) for row in self.rows("SELECT leaf FROM log_pending ORDER BY position")]

    def rows(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    async def _answers(self, callers: Callers) -> None:
        assert self.process is not None
        async with asyncio.timeout(START_SECONDS):
            while self.process.poll() is None:
                try:
                    await callers.factors.challenge()
                except (DependencyUnavailable, CoreFault):
                    await asyncio.sleep(0.1)
                else:
                    return
        raise RuntimeError(f"the core does not start: {self.log.read_text()[-2000:]}")


@contextmanager
def core_process(folder: Path, **settings: object) -> Iterator[CoreProcess]:
    """Everything that a core needs, running; the core itself is started by ``running``."""
    token = core_token(folder)
    pki_folder = folder / "pki"
    pki_folder.mkdir()
    with network() as sms, running_pki(pki_folder, pki_token(pki_folder)) as pki:
        values = {
            "state_dir": folder / "state",
            "sockets_dir": folder / "s",
            "database_url": f"sqlite+aiosqlite:///{folder / 'core.db'}",
            "token_module": token.module,
            "token_label": token.token_label,
            "token_pin_file": token.pin_file,
            "softhsm2_conf": token.conf_path,
            "issuer_socket": pki.issuer_socket,
            "trust_anchors_file": pki.trust / "root.pem",
            "instance": "core-1",
            "gate_host": "localhost",
            "edge_addresses": [EDGE],
            "client_audience": EDGE,
            "sms_url": sms.url,
            "sms_budget": [[900, 1000]],
            "argon2_time_cost": 1,
            "argon2_memory_kib": 64,
            **settings,
        }
        config = folder / "core.toml"
        config.write_text("".join(f"{name} = {json.dumps(value, default=str)}\n" for name, value in values.items()))
        yield CoreProcess(folder, config, sms)
