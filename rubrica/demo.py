"""Lets a citizen sign one document, from registration to validation, as a browser and an agency would over HTTP."""

import asyncio
import concurrent.futures
import io
import json
import logging
import os
import secrets
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console

from api.transactions.model import content_name
from authn.client import RegistryClient
from certs.pki.trust import write_trust_anchors
from domain.clock import SystemClock
from domain.digests import Digest
from domain.errors import RubricaError
from domain.items import Packaging
from rubrica.children import StartFailed
from rubrica.newcomer import Citizen, register
from rubrica.order import Order, Refused, put_in_place, shown, write_sample
from rubrica.phone import NoMessage, Phone
from rubrica.state import Running, operator_channel, var_folder, write_atomically
from rubrica.trust import load_trust
from rubrica.up import end_on_signals, keep_loopback_direct, owning, supervised
from rubrica_client import (
    AgencyClient,
    CitizenBrowser,
    GateClient,
    JWSInvalid,
    NewDocument,
    RubricaProblem,
    StatementInvalid,
)

if TYPE_CHECKING:
    from documents.model import SignatureReport

SIGNING_SECONDS = 120.0
RETURN_URL = "https://sede.example/vuelta"
_DONE = frozenset({"DONE", "FAILED", "CANCELLED", "EXPIRED"})


class Steps:
    """Prints a line for each step that is over, with the seconds it took."""

    def __init__(self, started: float) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = self._last = started

    @property
    def seconds(self) -> float:
        """Since the command was given."""
        return time.time() - self._started

    def done(self, what: str) -> None:
        """The step is over."""
        now = time.time()
        self._console.print(f"[dim]{now - self._last:7.2f} s[/]  {_plain(what)}")
        self._last = now

    def show(self, line: str) -> None:
        """A line that is no step."""
        self._console.print(line, markup=False)


def main(*, sign: str, out: str, level: str, format_name: str, packaging: str, algorithm: str) -> int:
    """Run the demo; 0 only if the signature validates."""
    keep_loopback_direct()
    umask = os.umask(0o077)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold bytes that are no text.
        sys.stdout.reconfigure(errors="backslashreplace")
    # Make gives the time at which it was called, so that provisioning counts.
    steps = Steps(float(os.environ.get("RUBRICA_DEMO_STARTED") or time.time()))
    folder = None
    try:
        order = Order.parse(
            sign=sign, out=out, level=level, format_name=format_name, packaging=packaging, algorithm=algorithm
        )
        steps.done("packages and environment are there")
        folder = _run_folder(var_folder())
        result = asyncio.run(_run(order, steps, folder, umask))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _complain("stopped")
    except Exception as error:  # noqa: BLE001 -- a person reads this: one sentence, and the rest in a file
        return _complain(_sentence(error, folder))
    steps.show(f"signed file  {result['output']}")
    steps.show(f"receipt      {result['receipt']}")
    # One line for a program: without ends of lines of Unicode's, and without what is no text.
    plain = all(str(value).isprintable() for value in result.values())
    steps.show("RESULT " + json.dumps(result, ensure_ascii=not plain))
    return 0


def _sentence(error: Exception, folder: Path | None) -> str:
    match error:
        case RubricaProblem(status=0):
            return f"the service did not answer ({error.detail})"
        case RubricaProblem():
            return error.detail
        case RubricaError():
            return error.public_detail
        case Refused() | StartFailed() | NoMessage() | JWSInvalid() | StatementInvalid():
            return str(error)
        case _:
            return f"something unexpected went wrong ({type(error).__name__}), see {_keep_traceback(error, folder)}"


async def _run(order: Order, steps: Steps, folder: Path, umask: int) -> dict[str, Any]:
    end_on_signals()
    var = var_folder()

    def say(sentence: str) -> None:
        print(f"rubrica demo: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 -- a notice

    async with owning(var, say) as owned:
        if isinstance(owned, Running):
            steps.done(f"using the service that runs as process {owned.pid}")
            result = await _play(order, owned, folder, steps)
        else:
            stack = supervised(var, owner="demo", lock_descriptor=owned, say=say, stage=steps.done)
            async with stack as running:
                result = await _play(order, running, folder, steps)
    if order.output is not None:
        # Here nothing is awaited: whoever stops us leaves the old file there or the new one, and no third.
        put_in_place(Path(result["output"]), order.output, umask=umask)
        result["output"] = str(order.output)
    result["seconds"] = round(steps.seconds, 2)
    return result


async def _beside(play: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``play`` gives, run in a thread for which nobody waits at the end: it may be in the middle of a request."""
    outcome: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()

    def run() -> None:
        outcome.set_running_or_notify_cancel()
        try:
            outcome.set_result(play())
        except Exception as error:  # noqa: BLE001 -- it is raised again where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(outcome)


async def _play(order: Order, running: Running, folder: Path, steps: Steps) -> dict[str, Any]:
    citizen, agency_key = Citizen.draw(), ec.generate_private_key(ec.SECP256R1())
    client_id = f"demo-{secrets.token_hex(4)}"
    async with operator_channel(running.operator_socket) as channel:
        registry = RegistryClient(channel)
        registration = await register(channel, citizen)
        steps.done("citizen registered at the advanced level by an officer, receipt and acceptance sealed")
        await registry.register_client(
            client_id=client_id,
            name="Ayuntamiento de Ejemplo",
            public_key=agency_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            rights=["sign", "name_citizen"],
            return_urls=[RETURN_URL],
        )
        steps.done("agency registered with its key")
    demo = Demo(order, running, folder, steps, citizen)

    def over_http() -> dict[str, Any]:
        demo.activate(registration.activation_code)
        with AgencyClient(running.edge, client_id, agency_key) as agency:
            return demo.sign(agency)

    return await _beside(over_http)


class Demo:
    """One run, once citizen and agency are registered: all of it over HTTP."""

    def __init__(self, order: Order, running: Running, folder: Path, steps: Steps, citizen: Citizen) -> None:
        self._order = order
        self._running = running
        self._folder = folder
        self._steps = steps
        self._citizen = citizen
        self._phone = Phone(running.inbox, citizen.phone)
        self._token_key = running.token_key.read_bytes()

    def activate(self, activation_code: str) -> None:
        """Activate the permanent password: code from the registration, code from the SMS, then the password."""
        citizen = self._citizen
        with GateClient(self._running.gate, self._token_key) as gate:
            pending = gate.begin_activation(citizen.nif, citizen.email, activation_code)
            self._steps.done("activation begun at the gate")
            token = gate.complete_otp(pending, self._phone.code(pending.reference))
            self._steps.done("SMS code read from the outgoing message and accepted")
            gate.set_password(token, citizen.password)
        self._steps.done("permanent password set")

    def sign(self, agency: AgencyClient) -> dict[str, Any]:
        """Submit, approve, collect and validate; gives the fields of RESULT.

        Raises:
            Refused: The document was not signed, or the signature does not validate.
        """
        order, steps = self._order, self._steps
        detached = order.packaging is Packaging.DETACHED
        document = order.document or write_sample(self._folder / f"sample.{order.extension}")
        nonce = secrets.token_hex(16)
        created = agency.create(
            [NewDocument(order.title(document))],
            citizen_nif=self._citizen.nif,
            level=order.level,
            algorithm=order.algorithm,
            format=order.format,
            packaging=order.packaging,
            return_url=RETURN_URL,
            nonce=nonce,
        )
        agency.upload(created.id, 1, document, media_type=order.media_type(document))
        agency.submit(created.id)
        steps.done(f"{shown(document.name)} submitted by the agency")
        with CitizenBrowser(self._token_key) as browser:
            review = browser.review(created.review_url)
            self._fail_with(agency.status(created.id))
            steps.done("reviewed by the citizen, prepared and staged")
            pending = browser.begin(review, self._citizen.nif, self._citizen.password)
            steps.done("password accepted for exactly this list, SMS sent")
            outcome = browser.complete(review, pending, self._phone.code(pending.reference))
        state = self._wait(agency, created.id)
        steps.done("SMS code accepted, certificate issued, document signed")
        token = outcome.result_token or state["result_token"]
        agency.verify_result(token, self._token_key, nonce=nonce)
        unvalidated = self._folder / f"unvalidated.{order.extension}"
        unvalidated.write_bytes(agency.collect(created.id, 1))
        receipt = self._folder / "receipt.jws"
        write_atomically(receipt, agency.receipt(created.id), mode=0o644)
        claims = agency.verify_receipt(receipt.read_text(encoding="utf-8"), self._token_key)
        steps.done("signed file, result token and receipt collected; both tokens verify")
        trust = self._folder / "trust"
        write_trust_anchors(trust, self._running.pki)
        content = self._keep_content(agency, created.id, document) if detached else None
        report = _validate(unvalidated, trust, content)
        self._check(report, claims)
        output = unvalidated.replace(self._folder / order.output_name(document))
        steps.done(f"validated by EN 319 102-1: {report.indication}, {report.level}")
        return {
            "document": str(document),
            "output": str(output),
            "format": order.format.value,
            "level": report.level,
            "packaging": order.packaging.value,
            "algorithm": order.algorithm.value,
            "indication": report.indication,
            "certificate_serial": report.certificate_serial,
            "trust_anchors": str(trust),
            "content": str(content) if content else None,
            "receipt": str(receipt),
        }

    def _keep_content(self, agency: AgencyClient, transaction_id: str, document: Path) -> Path:
        """The signed octets, under the name by which the detached signature refers to them."""
        path = self._folder / "content" / content_name(self._order.title(document))
        path.parent.mkdir()
        path.write_bytes(agency.original(transaction_id, 1))
        return path

    def _wait(self, agency: AgencyClient, transaction_id: str) -> dict[str, Any]:
        ends = time.monotonic() + SIGNING_SECONDS
        while True:
            state = agency.status(transaction_id)
            self._fail_with(state)
            if state["state"] in _DONE and state["documents"][0]["state"] == "SIGNED":
                return state
            if time.monotonic() > ends:
                document = state["documents"][0]
                raise Refused(f"after {SIGNING_SECONDS:.0f} s the document is {document['state']}, {document['level']}")
            time.sleep(0.1)

    @staticmethod
    def _fail_with(state: dict[str, Any]) -> None:
        failure = state["documents"][0]["failure"]
        if failure is not None:
            raise Refused(failure["detail"])
        if state["state"] in _DONE - {"DONE"}:
            raise Refused(f"the transaction is {state['state']} {state['failure_code']}".strip())

    def _check(self, report: "SignatureReport", claims: dict[str, Any]) -> None:
        if report.indication != "TOTAL-PASSED":
            why = "; ".join(report.explanations) or report.sub_indication
            raise Refused(f"the signature does not validate: {report.indication} {why}".strip())
        if report.level != self._order.level:
            raise Refused(f"the signature is of level {report.level}, not {self._order.level}")
        if report.certificate_serial != claims.get("certificate_serial"):
            raise Refused("the receipt names another certificate than the signature")


def _validate(output: Path, trust: Path, content: Path | None) -> "SignatureReport":
    from documents.validate import validate

    # pyHanko tells its log of each certificate whose issuer it had to look for.
    logging.getLogger("pyhanko").setLevel(logging.CRITICAL)

    digest = Digest.of(content.read_bytes()) if content else None
    with output.open("rb") as file:
        report = validate(file, load_trust(trust, crls=True), SystemClock().now(), content=digest)
        # The last signature is ours; what stood there before is not the demo's to judge.
        return report.signatures[-1]


def _run_folder(var: Path) -> Path:
    parent = var / "demo"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-", dir=parent))
    except OSError as error:
        raise Refused(f"{parent} cannot be written: {error.strerror}") from None


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _keep_traceback(error: Exception, folder: Path | None) -> Path:
    path = (folder or _run_folder(var_folder())) / "error.log"
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return path


def _complain(sentence: str) -> int:
    print(f"rubrica demo: {' '.join(sentence.split())}", file=sys.stderr, flush=True)  # noqa: T201 -- the command's answer
    return 1
