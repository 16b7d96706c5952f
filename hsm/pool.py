"""N worker processes behind one queue: interactive calls before batches, and never an endless wait.

A worker that dies takes one call with it, which ends in ``HSMWorkerLost`` and is never run again on its own: whether a
signature was made inside is unknown, and only the caller knows what a second one would mean.
"""

import asyncio
import contextlib
import heapq
import os
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import structlog

from hsm.errors import (
    HSMBusy,
    HSMError,
    HSMTimeout,
    HSMWorkerLost,
    InventoryMismatch,
    PINRefused,
    TokenUnavailable,
    from_child,
)
from hsm.keys import Inventory
from hsm.settings import TokenSettings
from hsm.vault import Priority
from hsm.wire import LENGTH_BYTES, Value, from_body, to_frame

DEFAULT_QUEUE_LIMIT = 256
DEFAULT_DEADLINE_SECONDS = 10.0
# SoftHSM 2.6.1 leaks some 280 bytes per unwrapped key.
DEFAULT_RECYCLE_AFTER = 100_000
# A worker is not called stuck before it had this long, however late in the queue its call was.
DEFAULT_STUCK_AFTER_SECONDS = 2.0
START_SECONDS = 30.0
CLOSE_SECONDS = 10.0
LOGOUT_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

# Starting again cannot mend these, and one more login might lock the token.
_FATAL = (PINRefused, InventoryMismatch)

log = structlog.get_logger("hsm.pool")


@dataclass(order=True, slots=True)
class _Call:
    priority: int
    number: int
    frame: bytes = field(compare=False, repr=False)
    deadline: float = field(compare=False)
    answer: "asyncio.Future[Value]" = field(compare=False)
    queued: bool = field(compare=False, default=True)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Queue(asyncio.PriorityQueue[_Call]):
    """A bounded priority queue from which a call that nobody waits for any more is taken out."""

    _queue: list[_Call]

    def _get(self) -> _Call:
        call: _Call = heapq.heappop(self._queue)
        call.queued = False
        return call

    def discard(self, call: _Call) -> None:
        if call.queued:
            call.queued = False
            self._queue.remove(call)
            heapq.heapify(self._queue)


@dataclass(slots=True, eq=False)
class _Worker:
    """The pool's end of one worker process."""

    process: asyncio.subprocess.Process
    pidfd: int
    """Kills this process and never another of the same number; ``Process.kill`` takes the exit status from asyncio."""
    gone: asyncio.Future[int]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answered: int = 0

    async def read(self) -> list[Any]:
        length = int.from_bytes(await self.reader.readexactly(LENGTH_BYTES), "big")
        return list(from_body(await self.reader.readexactly(length)))

    async def hello(self) -> dict[str, int]:
        """The newest version of each key, which a worker tells when it has logged in and audited the token."""
        try:
            async with asyncio.timeout(START_SECONDS):
                outcome, *words = await self.read()
        except (OSError, EOFError, ValueError) as exc:
            raise TokenUnavailable("an HSM worker did not start") from exc
        if outcome != "ok":
            raise from_child(*words)
        return dict(words[0])

    async def ask(self, frame: bytes) -> list[Any]:
        self.writer.write(frame)
        await self.writer.drain()
        answer = await self.read()
        self.answered += 1
        return answer

    async def stop(self, *, patience_seconds: float) -> None:
        """Close our end, on which an idle worker logs out and ends; kill one that does not."""
        self.writer.close()
        await asyncio.wait({self.gone}, timeout=patience_seconds)
        if not self.gone.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            await self.gone
        os.close(self.pidfd)


class HSMPool:
    """Worker processes on one token. Made by ``start``, ended by ``close``, used in one event loop."""

    worker_module = "hsm.worker"

    def __init__(
        self,
        settings: TokenSettings,
        inventory: Inventory,
        *,
        queue_limit: int,
        recycle_after: int,
        stuck_after_seconds: float,
    ) -> None:
        self._settings = settings
        self._inventory = inventory
        self._recycle_after = recycle_after
        self._stuck_after_seconds = stuck_after_seconds
        self._queue = _Queue(queue_limit)
        self._waiting: set[asyncio.Future[Value]] = set()
        self._start_one_by_one = asyncio.Lock()
        self._serving: set[asyncio.Task[None]] = set()
        self._workers: set[_Worker] = set()
        self._fatal: HSMError | None = None
        self._closing = False
        self._number = 0
        self.versions: dict[str, int] = {}
        """Newest version of each key, by the key's name."""
        self.calls: Counter[str] = Counter()
        """Calls taken into the queue, by operation."""
        self.started = 0
        """Worker processes started, those at the beginning included."""
        self.restarts = 0
        """Workers replaced because they died or were stuck."""
        self.recycled = 0
        """Workers replaced because they had done enough."""
        self.refused_busy = 0
        """Calls refused because the queue was full."""
        self.timeouts = 0
        """Calls whose deadline passed."""

    @classmethod
    async def start(
        cls,
        settings: TokenSettings,
        *,
        workers: int = 2,
        inventory: Inventory = Inventory.CORE,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        recycle_after: int = DEFAULT_RECYCLE_AFTER,
        stuck_after_seconds: float = DEFAULT_STUCK_AFTER_SECONDS,
    ) -> Self:
        """Start the workers and wait until each has logged in and audited the token.

        The first starts alone, so that a wrong PIN is tried once.

        Args:
            settings: Where the token is.
            workers: Processes; more than cores help only with a network HSM.
            inventory: What the token must hold.
            queue_limit: Calls that may wait; one more is ``HSMBusy``.
            recycle_after: Calls after which a worker is replaced.
            stuck_after_seconds: A worker is killed when its call's deadline and this time are both over.

        Raises:
            PINRefused: The token refused the PIN.
            InventoryMismatch: A key or attribute is not as it must be.
            TokenUnavailable: The token is not there, or a worker does not start.
        """
        pool = cls(
            settings,
            inventory,
            queue_limit=queue_limit,
            recycle_after=recycle_after,
            stuck_after_seconds=stuck_after_seconds,
        )
        ready: list[_Worker] = []
        try:
            for _ in range(workers):
                ready.append(await pool._launch())  # noqa: PERF401 - what was started must be known when one fails
        except BaseException:
            for worker in ready:
                await worker.stop(patience_seconds=0)
            raise
        for worker in ready:
            pool._serving.add(asyncio.create_task(pool._serve(worker)))
        return pool

    async def close(self) -> None:
        """Take no more calls, let those under way finish (for ten seconds), end the workers."""
        self._closing = True
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=CLOSE_SECONDS)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        # A task that is cancelled before its first step has ended nothing.
        await asyncio.gather(*(self._end(worker) for worker in self._workers))
        self._fail_all(HSMError("the pool is closed"))

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        return [worker.process.pid for worker in self._workers if worker.process.returncode is None]

    @property
    def queued(self) -> int:
        """Calls that wait for a worker."""
        return self._queue.qsize()

    async def call(
        self,
        operation: str,
        *arguments: Value,
        priority: Priority = Priority.INTERACTIVE,
        deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
    ) -> Any:
        """Have one worker do ``operation``; ``hsm.worker.operations`` lists them.

        Raises:
            HSMBusy: The queue is full.
            HSMTimeout: The deadline passed, in the queue or inside the token.
            HSMWorkerLost: The worker died during this call.
            HSMError: What the operation itself met, or the pool is closed.
            ValueError: An argument is not of the shape that the operation takes.
        """
        if self._closing:
            raise HSMError("the pool is closed")
        if self._fatal is not None and not self._serving:
            raise type(self._fatal)(*self._fatal.args)
        loop = asyncio.get_running_loop()
        self._number += 1
        frame = to_frame([operation, *arguments])
        call = _Call(priority, self._number, frame, loop.time() + deadline_seconds, loop.create_future())
        try:
            self._queue.put_nowait(call)
        except asyncio.QueueFull:
            self.refused_busy += 1
            raise HSMBusy("too many calls wait for the HSM") from None
        self.calls[operation] += 1
        self._waiting.add(call.answer)
        timer = loop.call_at(call.deadline, self._expire, call)
        try:
            return await call.answer
        finally:
            timer.cancel()
            self._waiting.discard(call.answer)
            self._queue.discard(call)

    def _expire(self, call: _Call) -> None:
        if not call.answer.done():
            self.timeouts += 1
            call.fail(HSMTimeout("the HSM did not answer in time"))

    async def _serve(self, worker: _Worker | None) -> None:
        """Keep one worker alive and busy for as long as the pool is."""
        failures = 0
        try:
            while True:
                if worker is None:
                    await asyncio.sleep(_pause_seconds(failures))
                    failures += 1
                    worker = await self._relaunch()
                    if worker is None:
                        continue
                lost = True
                try:
                    lost = await self._work(worker)
                finally:
                    # A worker that is stuck gets no time to log out.
                    await self._end(worker, patience_seconds=0 if lost and not self._closing else LOGOUT_SECONDS)
                if lost:
                    self.restarts += 1
                    log.warning("hsm_worker_lost", answered=worker.answered)
                else:
                    self.recycled += 1
                if worker.answered:
                    failures = 0
                worker = None
        except _FATAL as exc:
            self._fatal = exc
            log.error("hsm_worker_refused", reason=str(exc))  # noqa: TRY400 - the reason is the whole story
        finally:
            self._serving.discard(asyncio.current_task())
            if self._fatal is not None and not self._serving:
                self._fail_all(self._fatal)

    async def _relaunch(self) -> _Worker | None:
        try:
            return await self._launch()
        except _FATAL:
            raise
        except HSMError as exc:
            log.warning("hsm_worker_start_failed", reason=str(exc))
            return None

    async def _work(self, worker: _Worker) -> bool:
        """Hand calls to ``worker`` until it has done enough (false) or is lost (true)."""
        loop = asyncio.get_running_loop()
        while worker.answered < self._recycle_after:
            call = await self._next_call(worker)
            if call is None:
                return True
            stuck_at = max(call.deadline, loop.time() + self._stuck_after_seconds)
            try:
                async with asyncio.timeout_at(stuck_at):
                    outcome, *words = await worker.ask(call.frame)
            except TimeoutError:
                self._expire(call)
                return True
            except (OSError, EOFError, ValueError):
                call.fail(HSMWorkerLost("the HSM worker died during the call"))
                return True
            except asyncio.CancelledError:
                call.fail(HSMError("the pool is closed"))
                raise
            if outcome == "ok":
                if not call.answer.done():
                    call.answer.set_result(words[0])
                continue
            error = from_child(*words)
            call.fail(error)
            if isinstance(error, HSMWorkerLost):
                return True
        return False

    async def _next_call(self, worker: _Worker) -> _Call | None:
        """The next call, or ``None`` if the worker dies while it is idle."""
        if worker.gone.done():
            return None
        if self._queue.empty():
            taking = asyncio.ensure_future(self._queue.get())
            try:
                either: set[asyncio.Future[Any]] = {taking, worker.gone}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    return None
                return taking.result()
            finally:
                taking.cancel()
        return self._queue.get_nowait()

    async def _launch(self) -> _Worker:
        # Start-ups on one token go one by one, and none follows a refused PIN.
        async with self._start_one_by_one:
            if self._fatal is not None:
                raise type(self._fatal)(*self._fatal.args)
            self.started += 1
            began = time.monotonic()
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-P", "-m", self.worker_module),
                        *(self._settings.to_json(), str(self._inventory), str(theirs.fileno()), str(os.getpid())),
                        pass_fds=[theirs.fileno()],
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=asyncio.subprocess.DEVNULL,
                        env=self._settings.child_environment(),
                    )
                pidfd = os.pidfd_open(process.pid)
            except BaseException as exc:
                # A child that was started all the same finds nobody to talk to, and ends.
                ours.close()
                if isinstance(exc, OSError):
                    raise TokenUnavailable("no process could be started for an HSM worker") from exc
                raise
            gone = asyncio.ensure_future(process.wait())
            worker = _Worker(process, pidfd, gone, *await asyncio.open_unix_connection(sock=ours))
            self._workers.add(worker)
            try:
                self.versions = await worker.hello()
            except BaseException:
                await self._end(worker)
                raise
            log.info("hsm_worker_started", pid=process.pid, seconds=round(time.monotonic() - began, 3))
            return worker

    async def _end(self, worker: _Worker, *, patience_seconds: float = LOGOUT_SECONDS) -> None:
        await worker.stop(patience_seconds=patience_seconds)
        self._workers.discard(worker)

    def _fail_all(self, error: HSMError) -> None:
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_exception(type(error)(*error.args))


def _pause_seconds(failures: int) -> float:
    """Nothing before the first restart, then longer each time that a start or the first call fails."""
    return 0.0 if failures == 0 else min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS)
