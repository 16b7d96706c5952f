"""Edge and gate as real processes before a simulated core: sockets, settings, signals, and what their logs tell."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from domain.clock import SystemClock
from domain.items import Item
from rubrica_client import AgencyClient, CitizenBrowser, NewDocument
from signer.tbs.cms import signed_attributes
from tests.testkit.core_simulator import NIF, PASSWORD, CoreSimulator
from tests.testkit.documents import plain_pdf
from tests.testkit.pki import InMemoryPKI

AGENCY = "sede"


@dataclass
class Process:
    running: asyncio.subprocess.Process
    url: str
    log: Path


@contextlib.asynccontextmanager
async def process(name: str, folder: Path, host: str, settings: str) -> AsyncIterator[Process]:
    """``rubrica <name>`` on a port that is bound here and handed over."""
    with socket.create_server((host, 0)) as bound:
        url = f"http://{'localhost' if name == 'gate' else host}:{bound.getsockname()[1]}"
        config = folder / f"{name}.toml"
        text = f'listen_fd = {bound.fileno()}\npublic_url = "{url}"\n{settings}'
        await asyncio.to_thread(config.write_text, text)
        log = folder / f"{name}.log"
        with log.open("wb") as out:
            running = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "rubrica", name, "--config", str(config)),
                stdout=out,
                stderr=out,
                pass_fds=(bound.fileno(),),
            )
    try:
        yield Process(running, url, log)
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{url}/readyz")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.1)
    pytest.fail(f"{url} is not ready")


async def test_a_signature_through_real_processes_and_an_orderly_end(tmp_path: Path) -> None:
    pki = InMemoryPKI()
    citizen = pki.certify()

    def sign_item(item: Item) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        attributes = signed_attributes(item.digests[0], citizen.chain[0], dict(item.fields))
        return attributes, citizen.sign(attributes), citizen.chain

    core = CoreSimulator(SystemClock(), sign_item=sign_item)
    key = core.register_client(AGENCY, "Sede")
    trust = tmp_path / "trust"
    trust.mkdir()
    certificates = pki.authority.certificates
    (trust / "root.pem").write_bytes(certificates.root.public_bytes(Encoding.PEM))
    (trust / "ca.pem").write_bytes(certificates.ca.public_bytes(Encoding.PEM))
    common = f'core_socket = "{tmp_path}/core.sock"\n'
    async with (
        core.serving(tmp_path / "core.sock"),
        process("gate", tmp_path, "127.0.0.1", common) as gate,
        process(
            "edge",
            tmp_path,
            "127.0.0.1",
            f"""{common}
database_url = "sqlite+aiosqlite:///{tmp_path}/edge.db"
storage_dir = "{tmp_path}/documents"
seal_key_file = "{tmp_path}/edge.key"
gate_url = "{gate.url}"
tsa_url = "http://127.0.0.1:9/tsa"
trust_dir = "{trust}"
log_level = "debug"
""",
        ) as edge,
    ):
        await asyncio.gather(ready(edge.url), ready(gate.url))
        seen: list[str] = []

        def play() -> bytes:
            with AgencyClient(edge.url, AGENCY, key) as agency, CitizenBrowser(core.token_key) as browser:
                created = agency.create([NewDocument("Solicitud")], citizen_nif=NIF, level="B-B")
                agency.upload(created.id, 1, plain_pdf())
                agency.submit(created.id)
                review = browser.review(created.review_url)
                pending = browser.begin(review, NIF, PASSWORD)
                outcome = browser.complete(review, pending, core.otp)
                assert outcome.state == "DONE"
                staged = core.staged[review.request_id]
                seen.extend([created.link_token, created.review_url, PASSWORD, NIF, staged.code.hex()])
                return agency.collect(created.id, 1)

        signed = await asyncio.to_thread(play)
        assert b"ETSI.CAdES.detached" in signed
        for running in (edge, gate):
            running.running.send_signal(signal.SIGTERM)
        assert [await running.running.wait() for running in (edge, gate)] == [0, 0]
        assert (tmp_path / "edge.key").stat().st_mode & 0o777 == 0o600
        for running in (edge, gate):
            told = running.log.read_text()
            assert '"event": "served"' in told
            assert "code=" not in told
            assert not [secret for secret in seen if secret in told]
        assert '"route": "/review/{link_token}"' in edge.log.read_text()


@pytest.mark.parametrize(
    ("name", "changed", "complaint"),
    [
        ("gate", 'profile = "production"\npublic_url = "http://gate.example"\n', "public_url must be https"),
        ("gate", 'public_url = "https://gate.example/"\n', "without a slash"),
        ("gate", 'public_url = "https://gate.example"\nunknown = 1\n', "Extra inputs"),
        ("edge", 'public_url = "http://localhost:1"\ngate_url = "http://localhost:2"\n', "two host names"),
        (
            "edge",
            'profile = "production"\npublic_url = "https://a.example"\ngate_url = "http://b.example"\n',
            "gate_url must be https",
        ),
    ],
)
async def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, name: str, changed: str, complaint: str
) -> None:
    rest = 'core_socket = "/nowhere/core.sock"\n'
    if name == "edge":
        rest += f"""database_url = "sqlite+aiosqlite:///{tmp_path}/e.db"
storage_dir = "{tmp_path}/documents"
seal_key_file = "{tmp_path}/edge.key"
tsa_url = "https://tsa.example"
trust_dir = "{tmp_path}"
"""
    config = tmp_path / "settings.toml"
    await asyncio.to_thread(config.write_text, changed + rest)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rubrica", name, "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await asyncio.wait_for(running.communicate(), 30)
    assert running.returncode != 0
    assert complaint in told.decode()
