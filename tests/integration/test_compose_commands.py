"""Runs what docker-compose.yml would run, service by service, from deploy/*.toml: no engine is at hand.

Each service gets a folder in place of each volume, shared where the volume is; host names and ports of the compose
networks become this machine's. PostgreSQL is a real one.
"""

import asyncio
import base64
import contextlib
import html
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authn.client import RegistryClient
from documents.model import TrustMaterial
from documents.validate import validate
from rubrica.newcomer import Citizen
from rubrica.state import Running, operator_channel
from rubrica_client import NewDocument, RubricaProblem
from rubrica_client.grpc import GRPCAgencyClient
from tests.testkit.documents import plain_pdf
from tests.testkit.postgres import postgres
from tests.testkit.service import Service

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PORTS = {"edge": "8080", "gate": "8081", "pki": "8085", "inbox": "8086", "grpc": "50051"}
READY_SECONDS = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Containers:
    """The services as processes of this machine."""

    folder: Path
    databases: dict[str, str]
    ports: dict[str, int]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def here(self, service: str, text: str) -> str:
        """A command's word or a settings file, with the container's places replaced by this machine's."""
        places = {"/run/rubrica": self.folder / "run", "/run/secrets": self.folder / "secrets"}
        for volume in SERVICES[service].get("volumes", []):
            source, place = volume.split(":")[:2]
            if source.startswith("./"):
                places[place] = self.folder / "settings" / service / Path(source).name
            elif not place.startswith("/run/rubrica/"):
                places[place] = self.folder / "volumes" / source
        for place in sorted(places, key=len, reverse=True):
            text = text.replace(place, str(places[place]))
        for name, url in self.databases.items():
            text = text.replace(f"postgresql+asyncpg://{name}@postgres-{name}/{name}", url)
        text = re.sub(r"//(pki|inbox):", "//127.0.0.1:", text.replace("0.0.0.0", "127.0.0.1"))  # noqa: S104 - it is replaced
        for name, port in PORTS.items():
            text = re.sub(rf"\b{port}\b", str(self.ports[name]), text)
        return text

    def command(self, service: str, words: list[str]) -> list[str]:
        for volume in SERVICES[service].get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                target = self.folder / "settings" / service / Path(source).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(self.here(service, (ROOT / source).read_text()))
            else:
                (self.folder / "volumes" / source).mkdir(mode=0o700, parents=True, exist_ok=True)
        return [sys.executable, "-m", "rubrica", *(self.here(service, word) for word in words)]

    def run(self, service: str) -> None:
        """A service that does its work and ends."""
        done = subprocess.run(
            self.command(service, SERVICES[service]["command"]), check=False, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def start(self, service: str) -> None:
        """A service that stays, until its health check says that it is well."""
        command = self.command(service, SERVICES[service]["command"])
        with (self.folder / f"{service}.log").open("wb") as log:
            self.running[service] = subprocess.Popen(command, stdout=log, stderr=log)
        ends = time.monotonic() + READY_SECONDS
        while not self.is_healthy(service):
            assert self.running[service].poll() is None, (self.folder / f"{service}.log").read_text()
            assert time.monotonic() < ends, (self.folder / f"{service}.log").read_text()

    def is_healthy(self, service: str) -> bool:
        kind, program, *words = SERVICES[service]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "rubrica")
        return subprocess.run(self.command(service, words), check=False, capture_output=True).returncode == 0

    def stop(self, service: str) -> int:
        process = self.running.pop(service)
        process.terminate()
        return process.wait(timeout=15)


async def database(server: str, name: str) -> str:
    connection = await asyncpg.connect(server.replace("+asyncpg", ""))
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    folder = Path(tempfile.mkdtemp(prefix="rubrica-c-"))
    (folder / "secrets").mkdir()
    for name in ("core_database_password", "edge_database_password"):
        (folder / "secrets" / name).write_text("not asked for on a Unix socket")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        server = stack.enter_context(postgres())
        databases = {name: asyncio.run(database(server, name)) for name in ("core", "edge")}
        found = Containers(folder, databases, {name: free_port() for name in PORTS})
        try:
            for service in ("core-ceremony", "pki-ceremony"):
                found.run(service)
            for service in ("pki", "inbox"):
                found.start(service)
            found.run("pki-trust")
            for service in ("core", "gate", "edge"):
                found.start(service)
            yield found
        finally:
            for service in list(found.running):
                found.running[service].kill()
                found.running.pop(service).wait()


async def tables(url: str) -> int:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        rows = await connection.fetch("SELECT 1 FROM information_schema.tables WHERE table_schema = 'public'")
        return len(rows)
    finally:
        await connection.close()


async def test_both_databases_are_postgresql(containers: Containers) -> None:
    assert await tables(containers.databases["core"]) > 5
    assert await tables(containers.databases["edge"]) > 1


def test_a_second_ceremony_changes_nothing(containers: Containers) -> None:
    containers.run("core-ceremony")


def record(containers: Containers) -> Service:
    """What the testkit's players need to know."""
    Running(
        owner="compose",
        pid=os.getpid(),
        edge=f"http://127.0.0.1:{containers.ports['edge']}",
        gate=f"http://localhost:{containers.ports['gate']}",
        pki=f"http://127.0.0.1:{containers.ports['pki']}",
        inbox=f"http://127.0.0.1:{containers.ports['inbox']}",
        operator_socket=containers.folder / "run" / "operator" / "core.sock",
        token_key=containers.folder / "volumes" / "token-key" / "tok.pem",
        trust=containers.folder / "volumes" / "trust",
        state=containers.folder,
        pids={},
        grpc=f"127.0.0.1:{containers.ports['grpc']}",
    ).write(containers.folder / "up.json")
    return Service(containers.folder, containers.running["edge"])


async def token_key(socket_path: Path) -> ec.EllipticCurvePublicKey:
    async with operator_channel(socket_path) as channel:
        return await RegistryClient(channel).token_key()


def test_the_gates_pages_pin_the_key_that_the_core_wrote(containers: Containers) -> None:
    running = record(containers).running

    page = httpx.get(f"{running.gate}/activate", headers={"Accept": "text/html"}, trust_env=False)

    asked = asyncio.run(token_key(running.operator_socket))
    assert running.token_key.read_bytes() == asked.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert page.status_code == 200
    (pinned,) = re.findall(r'data-token-key="(.*?)"', page.text)
    x = base64.urlsafe_b64decode(json.loads(html.unescape(pinned))["x"] + "=")
    assert int.from_bytes(x) == asked.public_numbers().x


def test_agencies_speak_grpc_with_it(containers: Containers, tmp_path: Path) -> None:
    service = record(containers)
    document = tmp_path / "documento.pdf"
    document.write_bytes(plain_pdf())
    with service.agency() as rest:
        speaking = (service.running.grpc, rest._client_id, rest._key)
        with GRPCAgencyClient(*speaking, audience=service.running.edge) as agency:
            sent = agency.send([NewDocument("documento", document)], citizen_nif=Citizen.draw().nif)

            assert agency.status(sent.id)["state"] == rest.status(sent.id)["state"] == "SUBMITTED"
        with (
            GRPCAgencyClient(*speaking, audience="https://another.example") as misled,
            pytest.raises(RubricaProblem, match="caller_refused"),
        ):
            misled.status(sent.id)


def test_a_citizen_signs_with_it(containers: Containers, tmp_path: Path) -> None:
    service = record(containers)
    document = tmp_path / "documento.pdf"
    document.write_bytes(plain_pdf())

    signed = service.sign(service.citizen(), [document], tmp_path)[0]

    trust = containers.folder / "volumes" / "trust"
    root, ca = (
        x509.load_pem_x509_certificate((trust / name).read_bytes()).public_bytes(Encoding.DER)
        for name in ("root.pem", "ca.pem")
    )
    with signed.open("rb") as file:
        report = validate(file, TrustMaterial((root,), (ca,)), datetime.now(UTC))
    assert (report.indication, report.signatures[-1].level) == ("TOTAL-PASSED", "B-LTA")


def test_health_checks_notice_a_dead_core_and_everything_stops_when_asked(containers: Containers) -> None:
    assert containers.stop("core") == 0
    assert not containers.is_healthy("core")
    assert not containers.is_healthy("edge")
    assert not containers.is_healthy("gate")
    assert containers.is_healthy("pki")
    stopped = {service: containers.stop(service) for service in list(containers.running)}
    assert stopped == {"pki": 0, "inbox": 0, "gate": 0, "edge": 0}
