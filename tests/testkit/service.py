"""The whole service as ``make up`` runs it, with citizens and agencies to play against it over HTTP."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authn.client import RegistryClient
from domain.assurance import RegistrationLevel
from rubrica.demo import RETURN_URL
from rubrica.newcomer import Citizen, register
from rubrica.phone import Phone
from rubrica.state import Running, operator_channel
from rubrica_client import AgencyClient, CitizenBrowser, GateClient, NewDocument

T = TypeVar("T")

START_SECONDS = 90.0
AGENCY_TRUST = "agencies"


@dataclass(frozen=True, slots=True)
class Activated:
    """A citizen who can sign, and their phone."""

    person: Citizen
    phone: Phone


@dataclass(slots=True)
class Service:
    """A running ``rubrica up``."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def running(self) -> Running:
        """Addresses and process ids as they are now."""
        found = Running.read(self.folder / "up.json")
        assert found is not None, "the service is not running"
        return found

    @property
    def agency_trust(self) -> Path:
        """Where the core looks for authorities of agencies' certificates; empty until a test fills it."""
        return self.folder / AGENCY_TRUST

    @property
    def token_key(self) -> bytes:
        return self.running.token_key.read_bytes()

    def register(self, level: RegistrationLevel = RegistrationLevel.ADVANCED) -> tuple[Citizen, str]:
        """A new citizen and the activation code, as an operator enters them."""
        person = Citizen.draw()

        async def enter() -> str:
            async with operator_channel(self.running.operator_socket) as channel:
                done = await register(channel, person, level)
            return done.activation_code

        return person, _run(enter())

    def citizen(self, level: RegistrationLevel = RegistrationLevel.ADVANCED) -> Activated:
        """A citizen with a password."""
        person, code = self.register(level)
        phone = Phone(self.running.inbox, person.phone)
        with GateClient(self.running.gate, self.token_key) as gate:
            pending = gate.begin_activation(person.nif, person.email, code)
            gate.set_password(gate.complete_otp(pending, phone.code(pending.reference)), person.password)
        return Activated(person, phone)

    def agency(self, return_url: str = RETURN_URL) -> AgencyClient:
        """A registered agency."""
        key, client_id = ec.generate_private_key(ec.SECP256R1()), f"agency-{secrets.token_hex(4)}"

        async def enter() -> None:
            async with operator_channel(self.running.operator_socket) as channel:
                await RegistryClient(channel).register_client(
                    client_id=client_id,
                    name="Ayuntamiento de Pruebas",
                    public_key=key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
                    rights=["sign", "name_citizen"],
                    return_urls=[return_url],
                )

        _run(enter())
        return AgencyClient(self.running.edge, client_id, key)

    def submit(
        self,
        agency: AgencyClient,
        citizen: Activated,
        documents: Sequence[Path],
        *,
        return_url: str = RETURN_URL,
        **options: str,
    ) -> tuple[str, str]:
        """An agency's transaction, uploaded and closed: its id and where the citizen reviews it."""
        created = agency.create(
            [NewDocument(path.stem) for path in documents],
            citizen_nif=citizen.person.nif,
            return_url=return_url,
            nonce=secrets.token_hex(8),
            **options,
        )
        for number, path in enumerate(documents, 1):
            agency.upload(created.id, number, path)
        agency.submit(created.id)
        return created.id, created.review_url

    def approve(self, browser: CitizenBrowser, citizen: Activated, review_url: str) -> str:
        """Review, password, code; gives the return address that the browser would load next."""
        review = browser.review(review_url)
        pending = browser.begin(review, citizen.person.nif, citizen.person.password)
        with browser.gate(review) as gate:
            return gate.complete(pending, citizen.phone.code(pending.reference))

    def sign(self, citizen: Activated, documents: Sequence[Path], into: Path, **options: str) -> list[Path]:
        """The whole way for one approval; gives the signed files."""
        with self.agency() as agency, CitizenBrowser(self.token_key) as browser:
            transaction_id, review_url = self.submit(agency, citizen, documents, **options)
            browser.follow(self.approve(browser, citizen, review_url))
            return self.collect(agency, transaction_id, documents, into)

    def collect(
        self, agency: AgencyClient, transaction_id: str, documents: Sequence[Path], into: Path, seconds: float = 60
    ) -> list[Path]:
        """Wait until every document is signed at its level, and fetch them."""
        ends = time.monotonic() + seconds
        while True:
            state = agency.status(transaction_id)
            if state["state"] == "DONE" and all(each["state"] == "SIGNED" for each in state["documents"]):
                break
            assert state["state"] not in ("FAILED", "EXPIRED", "CANCELLED"), state
            assert time.monotonic() < ends, state
            time.sleep(0.1)
        signed = []
        for number, path in enumerate(documents, 1):
            signed.append(into / f"{path.stem}-signed.pdf")
            signed[-1].write_bytes(agency.collect(transaction_id, number))
        return signed

    def kill(self, name: str) -> None:
        """``kill -9`` of one of its processes; the supervisor starts another."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if f"rubrica\0{name}\0".encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    return
        raise AssertionError(f"{name} does not run")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: a browser's driver keeps this one's event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@contextlib.contextmanager
def service(folder: Path) -> Iterator[Service]:
    """Run ``rubrica up`` on a state of its own until the block ends."""
    log = folder / "up.log"
    trust = str(folder / AGENCY_TRUST)
    environment = {**os.environ, "RUBRICA_VAR": str(folder), "RUBRICA_CORE_AGENCY_TRUST_DIR": trust}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rubrica", "up"], env=environment, stdout=output, stderr=output
        )
    try:
        ends = time.monotonic() + START_SECONDS
        while Running.read(folder / "up.json") is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.1)
        yield Service(folder, process)
    finally:
        process.terminate()
        process.wait(timeout=30)
