"""Starts edge, gate, core, PKI and inbox on one machine and keeps them running."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import grpc
import httpx
from rich.console import Console

from authn.client import RegistryClient
from certs.pki.trust import write_trust_anchors
from domain.clock import SystemClock
from domain.errors import RubricaError
from hsm import ceremony
from hsm.errors import HSMError
from hsm.keys import Inventory
from hsm.settings import TokenSettings
from rubrica import example
from rubrica.children import Child, ChildSpec, StartFailed
from rubrica.newcomer import Newcomer
from rubrica.state import (
    HOSTS,
    SOFTHSM_MODULE,
    Generation,
    Running,
    lock,
    var_folder,
    write_settings,
)

START_SECONDS = 60.0
STOP_SECONDS = 8.0
TOKENS: Mapping[str, Inventory] = {"core": Inventory.CORE, "pki": Inventory.PKI}

Say = Callable[[str], None]
"""Takes one sentence for whoever started the command."""


def token_settings(state: Path, name: str) -> TokenSettings:
    """Where the token ``core`` or ``pki`` of a generation lies."""
    folder = state / "tokens" / name
    return TokenSettings(
        module=SOFTHSM_MODULE,
        token_label=f"rubrica-{name}",
        pin_file=folder / "pin",
        conf_path=folder / "softhsm2.conf",
    )


def initialise_tokens(generation: Generation) -> bool:
    """Run both key ceremonies, unless they are over; says whether anything was made.

    Raises:
        StartFailed: A ceremony did not succeed; the text is a plain sentence.
    """
    if generation.marker.exists():
        return False
    if not SOFTHSM_MODULE.exists():
        raise StartFailed(f"{SOFTHSM_MODULE} is missing: run 'scripts/provision run'")
    for name, inventory in TOKENS.items():
        settings = token_settings(generation.folder, name)
        settings.pin_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            ceremony.initialise_token(settings)
            ceremony.initialise(settings, inventory)
        except HSMError as error:
            raise StartFailed(f"the key ceremony of the token '{name}' failed: {error}") from error
    generation.marker.touch()
    return True


class Supervisor:
    """The processes of one generation."""

    def __init__(self, generation: Generation, sockets: Path, lock_descriptor: int, say: Say, record: Path) -> None:
        """Nothing is started yet.

        Args:
            generation: Its state and open ports.
            sockets: Folder for Unix sockets.
            lock_descriptor: The lock on ``var/``. Every process inherits it: ``var/`` counts as in use until the last
                one has ended.
            say: Takes notices for the operator.
            record: Where it is written who runs, ``var/up.json``.
        """
        self._generation = generation
        self._sockets = sockets
        self._lock_descriptor = lock_descriptor
        self._say = say
        self._record = record
        self._running: Running | None = None
        self._children: dict[str, Child] = {}

    async def start(self, *, owner: str) -> Running:
        """Start everything and wait until all of it answers.

        Args:
            owner: The command that runs.

        Raises:
            StartFailed: A process did not come up.
        """
        folder, url = self._generation.folder, self._generation.url
        self._write_settings()
        # All at once, for most of the time goes into loading. Whoever needs another waits for it in its readiness; only
        # the edge reads at its start what the PKI gives out, and the gate the core's key.
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start("inbox", lambda: _answers(f"{url('inbox')}/messages.json")))
                group.create_task(self._start_core_and_gate())
                group.create_task(self._start_pki_and_edge())
        except ExceptionGroup as failures:
            # The first: whoever waits for it in vain would only say so later.
            raise failures.exceptions[0] from None
        with_example = owner == "up" and example.PROGRAM.exists()
        if with_example:
            await self._start_example()
        self._running = Running(
            owner=owner,
            pid=os.getpid(),
            edge=url("edge"),
            gate=url("gate"),
            pki=url("pki"),
            inbox=url("inbox"),
            operator_socket=self._sockets / "operator" / "core.sock",
            token_key=folder / "tok.pem",
            trust=folder / "trust",
            state=folder,
            pids={},
            grpc=self._generation.grpc,
            agency=url("agency") if with_example else "",
        )
        self._write_record()
        return self._running

    async def stop(self) -> None:
        """Stop everything within ten seconds in all, those first that depend on others."""
        self._running = None
        self._record.unlink(missing_ok=True)
        ends = time.monotonic() + STOP_SECONDS
        for group in (("agency", "edge", "gate"), ("core",), ("inbox", "pki")):
            left = max(ends - time.monotonic(), 0.5)
            children = [self._children.pop(name) for name in group if name in self._children]
            await asyncio.gather(*(child.stop(within_seconds=left) for child in children))

    async def _start_core_and_gate(self) -> None:
        await self._start("core", self._core_answers)
        await self._start("gate", lambda: _answers(f"{self._generation.url('gate')}/readyz"))

    async def _start_pki_and_edge(self) -> None:
        url = self._generation.url
        await self._start("pki", lambda: _answers(f"{url('pki')}/certs/ca.crt"))
        await asyncio.to_thread(write_trust_anchors, self._generation.folder / "trust", url("pki"))
        await self._start("edge", lambda: _answers(f"{url('edge')}/readyz"))

    async def _start_example(self) -> None:
        folder, url = self._generation.folder, self._generation.url
        known = await example.enter(self._sockets / "operator" / "core.sock", folder / "agency", url("agency"))
        environment = {
            **known,
            "AGENCY_SERVICE_URL": url("edge"),
            "AGENCY_TOKEN_KEY_FILE": str(folder / "tok.pem"),
            "AGENCY_LISTEN_FD": str(self._generation.sockets["agency"].fileno()),
        }
        command = (sys.executable, str(example.PROGRAM))
        await self._start("agency", lambda: _answers(f"{url('agency')}/"), command, environment)

    async def _start(
        self,
        name: str,
        ready: Callable[[], Awaitable[bool]],
        command: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        bound = self._generation.sockets.get(name)
        spec = ChildSpec(
            name=name,
            command=command or (sys.executable, "-m", "rubrica", name, "--config", str(self._settings(name))),
            log=self._generation.folder / "log" / f"{name}.log",
            ready=ready,
            environment=environment,
            descriptors=(self._lock_descriptor, *(() if bound is None else (bound.fileno(),))),
        )
        self._children[name] = Child(spec, report=self._say, restarted=self._write_record)
        await self._children[name].start(within_seconds=START_SECONDS)

    def _write_record(self) -> None:
        if self._running is not None:
            pids = {name: child.pid or 0 for name, child in self._children.items()}
            dataclasses.replace(self._running, pids=pids).write(self._record)

    async def _core_answers(self) -> bool:
        async with grpc.aio.insecure_channel(f"unix:{self._sockets / 'operator' / 'core.sock'}") as channel:
            await RegistryClient(channel).token_key()
        return True

    def _settings(self, name: str) -> Path:
        return self._generation.folder / "settings" / f"{name}.toml"

    def _write_settings(self) -> None:
        folder, url, sockets = self._generation.folder, self._generation.url, self._sockets
        listen = {name: {"listen_fd": bound.fileno()} for name, bound in self._generation.sockets.items()}
        for name in ("pki", "inbox", "core", "edge"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        settings: dict[str, dict[str, object]] = {
            "pki": {
                **_token(folder, "pki"),
                **listen["pki"],
                "database_url": f"sqlite:///{folder / 'pki' / 'pki.sqlite'}",
                "public_url": url("pki"),
                "issuer_socket": sockets / "issuer.sock",
            },
            "inbox": {**listen["inbox"], "file": folder / "inbox" / "messages.jsonl"},
            "core": {
                **_token(folder, "core"),
                "state_dir": folder / "core",
                "token_key_file": folder / "tok.pem",
                "sockets_dir": sockets,
                "database_url": f"sqlite+aiosqlite:///{folder / 'core' / 'core.sqlite'}",
                "issuer_socket": sockets / "issuer.sock",
                "trust_anchors_file": folder / "trust" / "root.pem",
                "instance": "up",
                "gate_host": HOSTS["gate"],
                "activate_url": f"{url('gate')}/activate",
                "edge_addresses": [f"{url('edge')}/"],
                "client_audience": url("edge"),
                "sms_url": f"{url('inbox')}/messages",
                # Whoever tries the service out signs more often than a citizen does.
                "sms_budget": [[900, 500]],
            },
            "gate": {
                **listen["gate"],
                "core_socket": sockets / "gate" / "core.sock",
                "public_url": url("gate"),
                "token_key_file": folder / "tok.pem",
            },
            "edge": {
                **listen["edge"],
                "core_socket": sockets / "edge" / "core.sock",
                "public_url": url("edge"),
                "gate_url": url("gate"),
                "database_url": f"sqlite+aiosqlite:///{folder / 'edge' / 'edge.sqlite'}",
                "storage_dir": folder / "edge" / "documents",
                "seal_key_file": folder / "edge" / "seal.key",
                "tsa_url": f"{url('pki')}/tsa",
                "fetch_prefixes": [f"{url('pki')}/"],
                "trust_dir": folder / "trust",
                "grpc_listen": self._generation.grpc,
            },
        }
        for name, values in settings.items():
            write_settings(self._settings(name), values)


def _token(state: Path, name: str) -> dict[str, object]:
    settings = token_settings(state, name)
    return {
        "token_module": settings.module,
        "token_label": settings.token_label,
        "token_pin_file": settings.pin_file,
        "softhsm2_conf": settings.conf_path,
    }


async def _answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).is_success


@contextlib.asynccontextmanager
async def owning(var: Path, say: Say) -> AsyncIterator[int | Running]:
    """The lock on ``var`` once it is ours, or the service that a ``rubrica up`` keeps running there."""
    told = False
    while True:
        with lock(var / "up.lock") as held:
            if held is not None:
                yield held
                return
        running = Running.read(var / "up.json")
        if running is not None and running.owner == "up":
            yield running
            return
        if not told:
            say("another command uses this state; waiting for it")
            told = True
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def supervised(
    var: Path, *, owner: str, lock_descriptor: int, say: Say, stage: Callable[[str], None]
) -> AsyncIterator[Running]:
    """Run the whole service while the context lasts.

    Args:
        var: State folder, whose lock the caller holds.
        owner: The command that runs.
        lock_descriptor: The lock.
        say: Takes notices for the operator.
        stage: Told what was done whenever a stage is over.

    Raises:
        StartFailed: It did not come up; the text is a plain sentence.
    """
    generation = Generation.take(var)
    try:
        made = await asyncio.to_thread(initialise_tokens, generation)
        stage("two tokens initialised, every attribute read back" if made else "two tokens, initialised before")
        with generation.socket_folder() as sockets:
            supervisor = Supervisor(generation, sockets, lock_descriptor, say, var / "up.json")
            try:
                running = await supervisor.start(owner=owner)
                stage("edge, gate, core, PKI and inbox answer")
                yield running
            finally:
                await supervisor.stop()
    finally:
        generation.close()


def end_on_signals() -> None:
    """Turn the first Ctrl-C, hang-up or SIGTERM into the end of this task, so that everything is stopped in order."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    ended = False

    def end() -> None:
        nonlocal ended
        if not ended and task is not None:
            ended = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)


def keep_loopback_direct() -> None:
    """Keep this machine's own addresses out of any proxy that the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        given = os.environ.get(name, "")
        os.environ[name] = f"{given},127.0.0.1,localhost" if given else "127.0.0.1,localhost"


def main() -> int:
    """Keep the service running until Ctrl-C; 1 if it cannot start or runs already."""
    keep_loopback_direct()
    # State is nobody else's: databases, settings, logs with addresses, tokens.
    os.umask(0o077)
    console = Console(highlight=False, soft_wrap=True)
    notices = Console(highlight=False, soft_wrap=True, stderr=True)

    def say(sentence: str) -> None:
        notices.print(f"rubrica up: {sentence}", markup=False)

    try:
        return asyncio.run(_keep_up(console, say))
    except StartFailed as error:
        say(str(error))
        return 1
    except asyncio.CancelledError:
        console.print("stopped")
        return 0


async def _keep_up(console: Console, say: Say) -> int:
    end_on_signals()
    var = var_folder()
    async with owning(var, say) as owned:
        if isinstance(owned, Running):
            say(f"it is running already, as process {owned.pid}")
            _show(console, owned)
            await _introduce(console, say, owned, Newcomer.read(owned.state))
            return 1

        def stage(done: str) -> None:
            console.print(done, markup=False)

        async with supervised(var, owner="up", lock_descriptor=owned, say=say, stage=stage) as running:
            _show(console, running)
            await _introduce(console, say, running, await _newcomer(running, say))
            console.print("Ctrl-C stops everything.")
            await asyncio.Event().wait()
    return 0


async def _newcomer(running: Running, say: Say) -> Newcomer | None:
    """The citizen of this state, registered at its first start; without one the service is as good as with."""
    known = Newcomer.read(running.state)
    if known is not None:
        return known
    try:
        return await Newcomer.register(running, SystemClock())
    except RubricaError as error:
        say(f"there is no citizen to try it with: {error.public_detail}")
    except OSError as error:
        say(f"there is no citizen to try it with: {error.filename or running.state}: {error.strerror}")
    return None


async def _introduce(console: Console, say: Say, running: Running, newcomer: Newcomer | None) -> None:
    """What a person needs who plays the citizen; it goes to the terminal only."""
    if newcomer is None:
        return
    known, activated = True, None
    try:
        activated = await newcomer.activated(running)
    except (RubricaError, OSError) as error:
        known = False
        say(f"whether the citizen has a password is not known now ({type(error).__name__})")
    if activated is None:
        hint = "" if known else ", if it was not used before"
        password = f"  activation code     {newcomer.activation_code}{hint}\n"
    else:
        password = f"  password            chosen {activated:%Y-%m-%d %H:%M} UTC, by who used the activation code\n"
    console.print(
        "A citizen to try it with, who does not exist:\n"
        f"  NIF                 {newcomer.nif}\n"
        f"  e-mail              {newcomer.email}\n"
        f"  phone               {newcomer.phone}\n"
        f"{password}"
        f"  receipt             {newcomer.receipt}\n"
        f"  for another one     remove {newcomer.folder} and start again",
        markup=False,
    )


def _show(console: Console, running: Running) -> None:
    console.print(
        "In a browser:\n"
        f"  activate            {running.gate}/activate\n"
        f"  sign a document     {running.edge}/\n"
        f"  check a signature   {running.edge}/validate\n"
        f"  check a paper       {running.edge}/verify\n"
        f"  my area             {running.edge}/area\n"
        f"  an agency's site    {running.agency or 'none'}\n"
        f"  SMS that went out   {running.inbox}/\n"
        "For programs:\n"
        f"  REST                {running.edge}\n"
        f"  gRPC                {running.grpc}\n"
        f"  gate                {running.gate}\n"
        f"  PKI                 {running.pki}\n"
        f"  SMS that went out   {running.inbox}/messages.json\n"
        f"  state               {running.state} (logs in log/, trust anchors in trust/)",
        markup=False,
    )
