"""Runs every job on a document in a limited child process of its own; nothing that a document does reaches further.

The caller's process never parses. It opens the file, hands over the descriptor, and answers the child's questions for
bytes of TSA, OCSP and CRL, so many and no more.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

from documents import wire
from documents.model import (
    AsyncFetch,
    FetchKind,
    FinishedDocument,
    Inspection,
    Level,
    LevelNotReached,
    Outline,
    PAdESOptions,
    PageImage,
    Prepared,
    SignatureParts,
    TrustMaterial,
    ValidationReport,
    XAdESOptions,
)
from documents.sandbox import Limits
from domain.clock import Clock
from domain.digests import Digest
from domain.errors import (
    ActivationError,
    Busy,
    CredentialError,
    DocumentTooLarge,
    RequestError,
    RubricaError,
    StateConflict,
    TimestampUnavailable,
    UnsupportedDocument,
    by_code,
)

T = TypeVar("T")

_MESSAGE_LIMIT_BYTES = 8 * 1024 * 1024
_START_SECONDS = 60.0
_NICENESS = 10
"""Of what is done for anybody."""
_GROWTH_BYTES = 16 * 1024 * 1024
"""What signing may add to a document that was as large as is allowed."""
_ROOT = Path(__file__).resolve().parents[1]

# What a job may answer; a child that met hostile bytes cannot claim, say, that the caller has no rights.
_BELIEVED = (RequestError, CredentialError, StateConflict, ActivationError, TimestampUnavailable)

_GAVE_UP = "the document cannot be processed: reading it made the parser give up"
_TOO_SLOW = "the document takes longer to process than this service allows"


class _Errand(StrEnum):
    """What a job is for. Each has places of its own: whoever fills those of one keeps nobody from another."""

    SIGN = "sign"
    """After a citizen's approval."""
    TAKE = "take"
    """A document is brought, and made ready to be approved."""
    SHOW = "show"
    JUDGE = "judge"
    """For anybody."""


_ERRANDS: Mapping[str, _Errand] = {
    "inspect": _Errand.TAKE,
    "inspect_xml": _Errand.TAKE,
    "prepare": _Errand.TAKE,
    "prepare_xml": _Errand.TAKE,
    "outline": _Errand.SHOW,
    "preview": _Errand.SHOW,
    "validate": _Errand.JUDGE,
}
"""All other jobs sign."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How much is done at once, and for how long."""

    child: Limits = field(default_factory=Limits)
    document_bytes: int = 100 * 1024 * 1024
    page_cpu_seconds: int = 6
    """For the picture of one page, of the child's ``cpu_seconds``."""
    places: int = 2
    """Children at work at the same time for each errand: to sign, to take, to show, to judge."""
    queue: int = 64
    """Jobs that may wait for a place of their errand; one more is told ``busy``."""
    wall_seconds: float = 90.0
    """For one job, with all its fetches."""
    fetches: int = 24
    fetched_bytes: int = 16 * 1024 * 1024
    """In all fetches of one job together."""


class DocumentWorker:
    """Prepares, finishes and validates documents in limited children; belongs to one event loop.

    Use as ``async with DocumentWorker(clock) as worker``, or call ``start`` and ``close``.
    """

    def __init__(self, clock: Clock, limits: WorkerLimits | None = None, jobs: str = "documents.jobs") -> None:
        """Nothing runs yet.

        Args:
            clock: Tells ``finish`` and ``extend`` the time.
            limits: See ``WorkerLimits``.
            jobs: The module whose ``run(channel, descriptor)`` is a child's work.
        """
        self._clock = clock
        self._limits = limits or WorkerLimits()
        self._child = replace(self._limits.child, file_bytes=self._limits.document_bytes + _GROWTH_BYTES)
        self._jobs = jobs
        self._places = {errand: _Places(self._limits) for errand in _Errand}
        self._starting = asyncio.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Load the parsers, so that the first job finds them loaded (about a second)."""
        async with self._starting:
            if self._control is None:
                await self._launch()

    async def close(self) -> None:
        """End all children; jobs under way fail."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def inspect(self, path: Path, options: XAdESOptions | None = None) -> Inspection:
        """Check that the document can be signed, and say what it is.

        Args:
            path: The document; a PDF where there are no ``options``.
            options: How it is to be signed by XAdES.

        Raises:
            UnsupportedDocument: It cannot be signed; the detail says why.
            DocumentTooLarge: It, or what it unfolds to, is over a limit of size, memory or time.
            Busy: Too many jobs wait already.
        """
        arguments: dict[str, Any] = {"limit_bytes": self._limits.document_bytes}
        if options is None:
            return await self._run(Inspection, "inspect", path, arguments)
        return await self._run(Inspection, "inspect_xml", path, {**arguments, "options": wire.to_plain(options)})

    async def prepare(self, source: Path, destination: Path, options: PAdESOptions | XAdESOptions) -> Prepared:
        """Make ``destination`` a copy of ``source`` that is ready to be signed.

        A PDF gets an empty signature, see ``documents.pades.prepare``; for XAdES nothing changes yet, see
        ``documents.xades.prepare``.

        Raises:
            UnsupportedDocument, DocumentTooLarge, Busy: As ``inspect``; there is no ``destination`` then.
        """
        _check_size(source, self._limits.document_bytes)
        arguments = {"options": wire.to_plain(options), "limit_bytes": self._limits.document_bytes}
        name = "prepare_xml" if isinstance(options, XAdESOptions) else "prepare"
        try:
            await asyncio.to_thread(shutil.copyfile, source, destination)
            return await self._run(Prepared, name, destination, arguments, writes=True)
        except BaseException:
            await asyncio.to_thread(destination.unlink, missing_ok=True)
            raise

    async def finish(
        self,
        path: Path,
        state: bytes,
        parts: SignatureParts,
        *,
        level: Level,
        trust: TrustMaterial,
        fetch: AsyncFetch,
    ) -> FinishedDocument:
        """Sign the prepared file at ``path`` in place.

        See ``documents.pades.finish`` and, for parts with signed properties, ``documents.xades.finish``.
        After any failure it may be called again with the same arguments or another level.

        Raises:
            LevelNotReached: TSA, OCSP or CRL failed; the file is complete at the level that the error names.
            DTBSMismatch, MalformedRequest, CredentialError: The parts are not fit to be released; the file is unsigned.
            UnsupportedDocument, DocumentTooLarge, Busy: As ``inspect``.
        """
        arguments = {
            "state": wire.to_plain(state),
            "parts": wire.to_plain(parts),
            "level": level.value,
            "trust": wire.to_plain(trust),
            "now": wire.to_plain(self._clock.now()),
        }
        name = "finish_xml" if parts.signed_properties else "finish"
        return await self._run(FinishedDocument, name, path, arguments, fetch=fetch, writes=True)

    async def extend(
        self, path: Path, complete_bytes: int, *, level: Level, trust: TrustMaterial, fetch: AsyncFetch
    ) -> FinishedDocument:
        """Raise the level of a signed file in place; see ``documents.pades.finish.extend``.

        Raises:
            LevelNotReached: Again not.
            StateConflict, UnsupportedDocument, DocumentTooLarge, Busy: As there.
        """
        arguments = {
            "complete_bytes": complete_bytes,
            "level": level.value,
            "trust": wire.to_plain(trust),
            "now": wire.to_plain(self._clock.now()),
        }
        return await self._run(FinishedDocument, "extend", path, arguments, fetch=fetch, writes=True)

    async def validate(
        self,
        path: Path,
        trust: TrustMaterial,
        at: datetime,
        fetch: AsyncFetch | None = None,
        content: Digest | None = None,
    ) -> ValidationReport:
        """Judge the signatures of the file at ``path``; see ``documents.validate``.

        Raises:
            UnsupportedDocument, DocumentTooLarge, Busy: As ``inspect``.
        """
        arguments = {
            "trust": wire.to_plain(trust),
            "at": wire.to_plain(at),
            "online": fetch is not None,
            "content": wire.to_plain(content),
            "limit_bytes": self._child.file_bytes,
        }
        return await self._run(ValidationReport, "validate", path, arguments, fetch=fetch)

    async def outline(self, path: Path) -> Outline:
        """What can be shown of the file at ``path``; see ``documents.preview``.

        Raises:
            UnsupportedDocument, DocumentTooLarge, Busy: As ``inspect``.
        """
        return await self._run(Outline, "outline", path, {"limit_bytes": self._child.file_bytes})

    async def preview(self, path: Path, number: int) -> PageImage:
        """Page ``number`` of the PDF at ``path``, from 1, as a picture.

        Raises:
            NotFound: No such page.
            UnsupportedDocument, DocumentTooLarge, Busy: As ``inspect``.
        """
        arguments = {"number": number, "limit_bytes": self._child.file_bytes}
        return await self._run(PageImage, "preview", path, arguments)

    async def _run(
        self,
        kind: type[T],
        name: str,
        path: Path,
        arguments: Mapping[str, Any],
        *,
        fetch: AsyncFetch | None = None,
        writes: bool = False,
    ) -> T:
        errand = _ERRANDS.get(name, _Errand.SIGN)
        child = self._child
        if errand in {_Errand.SHOW, _Errand.JUDGE}:
            child = replace(child, niceness=_NICENESS)
        if name == "preview":
            child = replace(child, cpu_seconds=min(child.cpu_seconds, self._limits.page_cpu_seconds))
        async with self._places[errand].place():
            descriptor = os.open(path, os.O_RDWR if writes else os.O_RDONLY)
            try:
                connection = await self._fork(descriptor, child)
            finally:
                os.close(descriptor)
            job = _Conversation(connection, self._limits, fetch)
            try:
                async with asyncio.timeout(self._limits.wall_seconds):
                    answer = await job.hold({"name": name, "arguments": arguments, "writes": writes})
                return wire.from_plain(kind, answer)
            except TimeoutError as error:
                raise DocumentTooLarge(_TOO_SLOW) from error
            except (EOFError, ConnectionError, wire.WireFault) as error:
                raise UnsupportedDocument(_GAVE_UP) from error
            finally:
                job.end()

    async def _fork(self, descriptor: int, limits: Limits) -> socket.socket:
        """A connection to a new child that holds ``descriptor``."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        try:
            with theirs:
                await self._hand_over([theirs.fileno(), descriptor], limits)
        except BaseException:
            ours.close()
            raise
        return ours

    async def _hand_over(self, descriptors: list[int], limits: Limits) -> None:
        """Ask for a child; starts the forking process anew, once, if it died."""
        message = json.dumps(asdict(limits)).encode()
        for _ in range(2):
            await self.start()
            control = self._control
            if control is not None and _sent(control, message, descriptors):
                return
            if control is self._control:  # else another job has mended it already
                await self.close()
        raise OSError("the process that reads documents does not stay")

    async def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        with theirs:
            # Nothing of the environment: a child has no use for addresses, tokens or paths of ours.
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own module; it returns at once
                [sys.executable, "-P", "-B", "-m", "documents.sandbox", str(theirs.fileno()), self._jobs],
                pass_fds=(theirs.fileno(),),
                env={"PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        async with asyncio.timeout(_START_SECONDS):
            ready = await asyncio.get_running_loop().sock_recv(ours, 16)
        if ready != b"ready":
            raise OSError("the process that reads documents does not start")
        self._control = ours


class _Places:
    """How many jobs of one errand are at work, and how many wait."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._queue = limits.queue
        self._free = asyncio.Semaphore(limits.places)
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        if self._waiting >= self._queue and self._free.locked():
            raise Busy("too many documents are waiting; please try again in a moment", retry_after_seconds=2)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


class _Conversation:
    """One job with one child, from its first message to its end."""

    def __init__(self, connection: socket.socket, limits: WorkerLimits, fetch: AsyncFetch | None) -> None:
        self._connection = connection
        self._limits = limits
        self._fetch = fetch
        self._fetches = 0
        self._fetched_bytes = 0
        self._process: int | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def hold(self, job: Mapping[str, Any]) -> Any:
        await self._receive_process()
        reader, self._writer = await asyncio.open_unix_connection(sock=self._connection)
        self._writer.write(wire.frame(job))
        await self._writer.drain()
        while True:
            message = await _receive(reader)
            if "fetch" not in message:
                return _result_of(message)
            self._writer.write(wire.frame(await self._answer(message["fetch"])))
            await self._writer.drain()

    def end(self) -> None:
        """The child is gone when this returns, or will be with the next tick of its scheduler."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            os.close(self._process)
            self._process = None
        if self._writer is not None:
            self._writer.close()
        else:
            self._connection.close()

    async def _receive_process(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._connection, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._connection)
        _, descriptors, _, _ = socket.recv_fds(self._connection, 1, 1)
        if not descriptors:
            raise EOFError
        self._process = descriptors[0]

    async def _answer(self, asked: Any) -> dict[str, Any]:
        if not isinstance(asked, dict) or not isinstance(asked.get("url"), str):
            raise wire.WireFault("not a question")
        kind = wire.from_plain(FetchKind, asked.get("kind"))
        body = None if asked.get("body") is None else wire.from_plain(bytes, asked["body"])
        self._fetches += 1
        if self._fetch is None or self._fetches > self._limits.fetches:
            return {"unavailable": "the document asks for more evidence than this service fetches"}
        try:
            found = await self._fetch(kind, asked["url"], body)
        except TimestampUnavailable as error:
            return {"unavailable": error.public_detail}
        self._fetched_bytes += len(found)
        if self._fetched_bytes > self._limits.fetched_bytes:
            return {"unavailable": "the evidence for the document is larger than this service fetches"}
        return {"fetched": wire.to_plain(found)}


def _sent(control: socket.socket, message: bytes, descriptors: list[int]) -> bool:
    try:
        socket.send_fds(control, [message], descriptors)
    except BlockingIOError:
        raise Busy("too many documents at once; please try again in a moment", retry_after_seconds=2) from None
    except OSError:
        return False
    return True


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    size = int.from_bytes(await reader.readexactly(wire.HEADER_BYTES), "big")
    if size > _MESSAGE_LIMIT_BYTES:
        raise wire.WireFault("too long")
    return wire.message_of(await reader.readexactly(size))


def _result_of(message: dict[str, Any]) -> Any:
    match message:
        case {"result": result}:
            return result
        case {"not_reached": {"detail": str(detail), "reached": reached}}:
            raise LevelNotReached(detail, wire.from_plain(FinishedDocument, reached))
        case {"error": {"code": str(code), "detail": str(detail)}}:
            raise _error_of(code, detail)
        case {"disk": int(number)}:
            raise OSError(number, os.strerror(number))
        case _:
            raise wire.WireFault("not an answer")


def _error_of(code: str, detail: str) -> RubricaError:
    kind = by_code().get(code, UnsupportedDocument)
    if not issubclass(kind, _BELIEVED):
        kind = UnsupportedDocument
    return kind(detail)


def _check_size(path: Path, limit_bytes: int) -> None:
    """Before the copy is made; the child checks again."""
    if path.stat().st_size > limit_bytes:
        raise DocumentTooLarge(f"the document is larger than {limit_bytes // (1024 * 1024)} MiB")
