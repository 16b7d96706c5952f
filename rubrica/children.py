"""Child processes that are kept alive: started, restarted after a death, stopped together, never left behind."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STEADY_SECONDS = 30.0
"""A child that lived so long has recovered: its next death is a first one."""
LONGEST_PAUSE_SECONDS = 10.0
LOG_LIMIT_BYTES = 16 * 1024 * 1024


class StartFailed(Exception):
    """A process did not come up; the text is a plain sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One process of the service."""

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    """Whether it answers; may raise whatever its client raises."""
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()
    """Open files that it inherits under the same numbers."""


class Child:
    """One process, started again whenever it dies."""

    def __init__(
        self, spec: ChildSpec, *, report: Callable[[str], None], restarted: Callable[[], None] = lambda: None
    ) -> None:
        """``report`` takes a sentence for the operator whenever the child dies, ``restarted`` is called afterwards."""
        self.spec = spec
        self._report = report
        self._restarted = restarted
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self, *, within_seconds: float) -> None:
        """Start it and wait until it answers.

        Raises:
            StartFailed: It ended, or did not answer in time.
        """
        process = await self._spawn()
        ends = time.monotonic() + within_seconds
        while not await self._answers():
            if process.returncode is not None:
                raise StartFailed(f"{self.spec.name} ended with status {process.returncode}{self._last_words()}")
            if time.monotonic() > ends:
                await self.stop(within_seconds=1.0)
                raise StartFailed(f"{self.spec.name} did not answer within {within_seconds:.0f} s{self._last_words()}")
            await asyncio.sleep(0.05)
        self._keeper = asyncio.create_task(self._keep(process))

    async def stop(self, *, within_seconds: float) -> None:
        """Ask it to end, and after ``within_seconds`` no longer ask."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), within_seconds)
        self._end_group(self._process)
        await self._process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        if self.spec.log.exists() and self.spec.log.stat().st_size > LOG_LIMIT_BYTES:
            self.spec.log.replace(self.spec.log.with_suffix(".old.log"))
        with self.spec.log.open("ab") as log:
            # setpriv asks the kernel to end the child with us, even when we get killed. A session of its own keeps
            # Ctrl-C on the terminal from reaching it before us.
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "TERM", *self.spec.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.spec.environment},
                pass_fds=tuple(self.spec.descriptors),
                start_new_session=True,
            )
        return self._process

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        pause = 0.1
        while True:
            started = time.monotonic()
            status = await process.wait()
            self._end_group(process)
            if time.monotonic() - started > STEADY_SECONDS:
                pause = 0.1
            self._report(f"{self.spec.name} ended with status {status}; starting it again")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            process = await self._spawn()
            self._restarted()

    async def _answers(self) -> bool:
        # Whatever a client says about a server that is not there yet: it does not answer.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2.0):
                return await self.spec.ready()
        return False

    @staticmethod
    def _end_group(process: asyncio.subprocess.Process) -> None:
        # Its own children (HSM workers, parsers) hold databases and tokens that its successor needs.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.spec.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines:
                return f": {lines[-1].strip()[:300]} (more in {self.spec.log})"
        return f" (see {self.spec.log})"
