"""The limited child: does its work, and can do nothing else; whatever becomes of it, the parent goes on."""

import asyncio
import os
import re
import zlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from documents.child import DocumentWorker, WorkerLimits
from documents.model import AsyncFetch, FetchKind, Inspection, Level, LevelNotReached, TrustMaterial
from documents.sandbox import Limits
from domain.clock import SystemClock
from domain.errors import Busy, DocumentTooLarge, DTBSMismatch, RequestError, TimestampUnavailable, UnsupportedDocument
from tests.testkit import hostile_calls
from tests.testkit.documents import SAMPLES, fetch_of, options, plain_pdf, sign_parts
from tests.testkit.pki import Certified, InMemoryPKI

MEBIBYTE = 1024 * 1024
NOBODY = 65534
TIGHT = WorkerLimits(
    child=Limits(memory_bytes=256 * MEBIBYTE, cpu_seconds=1), document_bytes=MEBIBYTE, wall_seconds=3, fetches=5
)


def async_fetch(pki: InMemoryPKI) -> AsyncFetch:
    async def fetch(kind: FetchKind, url: str, body: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return fetch_of(pki)(kind, url, body)

    return fetch


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[DocumentWorker]:
    async with DocumentWorker(SystemClock()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hostile() -> AsyncIterator[DocumentWorker]:
    async with DocumentWorker(SystemClock(), TIGHT, jobs="tests.testkit.hostile_jobs") as running:
        yield running


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "document.pdf"
    path.write_bytes(plain_pdf())
    return path


# --- its work


@pytest.mark.parametrize(
    "name",
    [
        *("hybrid-xref", "libreoffice", "owner-password-aes256", "owner-password-rc4", "poppler-pdfunite"),
        *("qpdf-encrypted-form", "qpdf-object-streams", "reportlab-form", "signed-before", "typst-pdfa"),
    ],
)
async def test_the_whole_way_through_children(
    name: str, worker: DocumentWorker, pki: InMemoryPKI, citizen: Certified, tmp_path: Path
) -> None:
    """All that the parsers load late must be loaded before the child gives up file names; these files need it all."""
    sample, out = SAMPLES / "good" / f"{name}.pdf", tmp_path / "out.pdf"
    prepared = await worker.prepare(sample, out, options(reason="Prueba"))
    parts = sign_parts(prepared, citizen)
    finished = await worker.finish(
        out, prepared.state, parts, level=Level.B_LTA, trust=pki.trust, fetch=async_fetch(pki)
    )
    assert finished.level is Level.B_LTA
    report = await worker.validate(out, pki.trust, datetime.now(UTC))
    assert (report.signatures[-1].indication, report.signatures[-1].level) == ("TOTAL-PASSED", "B-LTA")
    assert out.read_bytes().startswith(sample.read_bytes())


async def test_refusals_travel_with_their_sentences(worker: DocumentWorker, tmp_path: Path) -> None:
    for sample, word in (("needs-password", "password"), ("xfa", "dynamic form"), ("empty", "empty")):
        path = SAMPLES / "refused" / f"{sample}.pdf"
        with pytest.raises(UnsupportedDocument, match=word):
            await worker.inspect(path)
        with pytest.raises(UnsupportedDocument, match=word):
            await worker.prepare(path, tmp_path / "out.pdf", options())
        assert not (tmp_path / "out.pdf").exists()


async def test_partial_then_extended(
    worker: DocumentWorker, document: Path, citizen: Certified, tmp_path: Path
) -> None:
    pki = InMemoryPKI()
    citizen = pki.certify()
    out = tmp_path / "out.pdf"
    prepared = await worker.prepare(document, out, options())
    parts = sign_parts(prepared, citizen)
    pki.offline = {FetchKind.TIMESTAMP}
    with pytest.raises(LevelNotReached) as partial:
        await worker.finish(out, prepared.state, parts, level=Level.B_LTA, trust=pki.trust, fetch=async_fetch(pki))
    assert partial.value.reached.level is Level.B_B
    pki.offline = set()
    finished = await worker.extend(
        out, partial.value.reached.complete_bytes, level=Level.B_LTA, trust=pki.trust, fetch=async_fetch(pki)
    )
    assert finished.level is Level.B_LTA
    assert (await worker.validate(out, pki.trust, datetime.now(UTC), async_fetch(pki))).indication == "TOTAL-PASSED"


async def test_a_changed_document_is_refused_with_its_own_code(
    worker: DocumentWorker, document: Path, pki: InMemoryPKI, citizen: Certified, tmp_path: Path
) -> None:
    out = tmp_path / "out.pdf"
    prepared = await worker.prepare(document, out, options())
    spoiled = bytearray(out.read_bytes())
    spoiled[30] ^= 1
    out.write_bytes(spoiled)
    with pytest.raises(Exception, match="changed since") as refused:
        await worker.finish(
            out,
            prepared.state,
            sign_parts(prepared, citizen),
            level=Level.B_B,
            trust=pki.trust,
            fetch=async_fetch(pki),
        )
    assert refused.value.code == DTBSMismatch.code  # type: ignore[attr-defined]


async def test_an_error_of_the_caller_is_not_the_documents(
    worker: DocumentWorker, document: Path, pki: InMemoryPKI, citizen: Certified, tmp_path: Path
) -> None:
    async def broken(kind: FetchKind, url: str, body: bytes | None) -> bytes:  # noqa: ARG001 - the names are the port's
        raise ZeroDivisionError

    out = tmp_path / "out.pdf"
    prepared = await worker.prepare(document, out, options())
    with pytest.raises(ZeroDivisionError):
        await worker.finish(
            out, prepared.state, sign_parts(prepared, citizen), level=Level.B_T, trust=pki.trust, fetch=broken
        )


# --- documents made to hurt


def bomb_stream(dictionary: bytes, inflated_bytes: int, rest: bytes = b"") -> bytes:
    squeezer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    packed = b"".join(squeezer.compress(zeros) for _ in range(inflated_bytes >> 20)) + squeezer.flush()
    head = b"%PDF-1.5\n"
    stream = b"1 0 obj\n<<%s/Length %d/Filter/FlateDecode>>stream\n%s\nendstream\nendobj\n" % (
        dictionary,
        len(packed),
        packed,
    )
    return head + stream + rest + b"startxref\n%d\n%%%%EOF\n" % len(head)


def classic(*objects: bytes) -> bytes:
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return body + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (
        size,
        table,
        size,
        len(body),
    )


HURTFUL = {
    "cross-reference bomb": lambda: bomb_stream(b"/Type/XRef/Size 9/W[1 2 1]/Root 2 0 R", 256 * MEBIBYTE),
    "page tree without end": lambda: classic(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[2 0 R]/Count 1>>"),
    "reference to itself": lambda: classic(b"<</Type/Catalog/Pages 2 0 R>>", b"2 0 R"),
    "nested too deep": lambda: classic(b"<</Type/Catalog/Pages 2 0 R>>", b"[" * 200_000),
    "form that holds itself": lambda: classic(
        b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[4 0 R]>>>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
        b"<</T(a)/Kids[4 0 R]>>",
    ),
    "revisions in a ring": lambda: plain_pdf().replace(b"trailer\n<<", b"trailer\n<</Prev 9 "),
    "a million objects that are not there": lambda: classic(b"<</Type/Catalog>>").replace(b"0 2\n", b"0 999999\n"),
}


@pytest.mark.parametrize("name", HURTFUL)
async def test_documents_made_to_hurt(name: str, worker: DocumentWorker, tmp_path: Path) -> None:
    source = tmp_path / "hurtful.pdf"
    source.write_bytes(HURTFUL[name]())
    async with asyncio.timeout(20):
        with pytest.raises((UnsupportedDocument, DocumentTooLarge)):
            await worker.prepare(source, tmp_path / "out.pdf", options())
    assert not (tmp_path / "out.pdf").exists()


# --- its limits


ANSWERS: dict[str, Any] = {
    "attempts": Mapping[str, str],
    "calls": Mapping[str, Mapping[str, str]],
    "environment": tuple[str, ...],
    "ask-for-ever": Mapping[str, int],
    "write-much": str,
}


async def async_none(_kind: FetchKind, _url: str, _body: bytes | None) -> bytes:
    raise TimestampUnavailable("nobody is asked")


async def misbehave(worker: DocumentWorker, document: Path, name: str, **options: Any) -> Any:
    return await worker._run(ANSWERS.get(name, int), name, document, {}, **options)


async def test_everything_but_its_work_is_denied(hostile: DocumentWorker, document: Path) -> None:
    outcomes = dict(await misbehave(hostile, document, "attempts"))
    allowed = outcomes.pop("stream pair")
    assert allowed == "done"
    assert "done" not in outcomes.values(), outcomes
    assert len(outcomes) == 13
    assert outcomes["inet socket"] == "PermissionError"


@pytest.mark.parametrize("jobs", ["hostile_jobs", "nobody_jobs"])
async def test_the_kernel_hears_only_what_a_parser_needs(jobs: str, document: Path) -> None:
    """Of a service that root started, where it can be tried, and of nobody's."""
    async with DocumentWorker(SystemClock(), TIGHT, jobs=f"tests.testkit.{jobs}") as worker:
        tried = await misbehave(worker, document, "calls")
        status = await _status_of_a_child(worker, document)
    numbers, arguments = tried["numbers"], tried["arguments"]
    refused = {call for call, answer in numbers.items() if answer == "EPERM"}
    assert numbers[str(hostile_calls.NOT_A_CALL)] == "EPERM", "what nobody knows is refused, too"
    assert set(numbers) == refused
    here = {name: str(hostile_calls.number_of(name)) for name in hostile_calls.DANGEROUS}
    assert {name for name, number in here.items() if number not in refused and not number.startswith("-")} == set()
    assert arguments == dict.fromkeys(arguments, "EPERM")
    assert len(arguments) == 28
    assert set(tried["own"].values()) == {"done"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {int(status[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    user = os.geteuid() or NOBODY
    assert status["Uid"].split() == [str(user)] * 4
    assert 0 not in map(int, status["Gid"].split() + status["Groups"].split())


async def test_no_environment(hostile: DocumentWorker, document: Path) -> None:
    os.environ["RUBRICA_CANARY"] = "secret"
    try:
        assert await misbehave(hostile, document, "environment") == ("LC_ALL", "PYTHONPATH")
    finally:
        del os.environ["RUBRICA_CANARY"]


@pytest.mark.parametrize(
    ("mischief", "error"),
    [
        ("memory", DocumentTooLarge),
        ("loop", DocumentTooLarge),
        ("loop-deaf", RequestError),
        ("sleep", DocumentTooLarge),
        ("die", UnsupportedDocument),
        ("abort", UnsupportedDocument),
        ("leave", UnsupportedDocument),
        ("babble", UnsupportedDocument),
        ("shout", UnsupportedDocument),
        ("pretend", UnsupportedDocument),
        ("ask-nonsense", UnsupportedDocument),
    ],
)
async def test_mischief_ends_with_its_child(
    hostile: DocumentWorker, document: Path, mischief: str, error: type[Exception]
) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(error):
            await misbehave(hostile, document, mischief)
        assert await misbehave(hostile, document, "environment"), "the next child works"


async def test_an_answer_of_another_shape(hostile: DocumentWorker, document: Path) -> None:
    with pytest.raises(UnsupportedDocument):
        await hostile._run(Inspection, "other-shape", document, {})


async def test_fetches_are_counted(hostile: DocumentWorker, document: Path) -> None:
    asked: list[str] = []

    async def fetch(_kind: FetchKind, url: str, _body: bytes | None) -> bytes:
        asked.append(url)
        return b"answer"

    answers = await misbehave(hostile, document, "ask-for-ever", fetch=fetch)
    assert answers == {"fetched": TIGHT.fetches, "unavailable": 100 - TIGHT.fetches}
    assert len(asked) == TIGHT.fetches


async def test_fetched_bytes_are_counted_and_refusals_passed_on(document: Path) -> None:
    limits = WorkerLimits(fetched_bytes=10, fetches=100)
    calls = 0

    async def fetch(_kind: FetchKind, _url: str, _body: bytes | None) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise TimestampUnavailable("not allowed")
        return b"1234"

    async with DocumentWorker(SystemClock(), limits, jobs="tests.testkit.hostile_jobs") as worker:
        answers = await misbehave(worker, document, "ask-for-ever", fetch=fetch)
    assert answers == {"fetched": 2, "unavailable": 98}


async def test_a_file_cannot_grow_without_end(hostile: DocumentWorker, document: Path) -> None:
    assert await misbehave(hostile, document, "write-much", writes=True) == "File too large"
    assert document.stat().st_size <= 17 * MEBIBYTE


async def test_a_file_opened_for_reading_stays_as_it_is(hostile: DocumentWorker, document: Path) -> None:
    before = document.read_bytes()
    assert await misbehave(hostile, document, "write-much") == "Bad file descriptor"
    assert document.read_bytes() == before


async def test_a_full_queue_is_busy(document: Path) -> None:
    limits = WorkerLimits(places=1, queue=1, wall_seconds=0.5)
    async with DocumentWorker(SystemClock(), limits, jobs="tests.testkit.hostile_jobs") as worker:
        jobs = [asyncio.create_task(misbehave(worker, document, "sleep")) for _ in range(4)]
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    kinds = sorted(type(outcome).__name__ for outcome in outcomes)
    assert kinds == ["Busy", "Busy", "DocumentTooLarge", "DocumentTooLarge"]
    busy = next(outcome for outcome in outcomes if isinstance(outcome, Busy))
    assert busy.retry_after_seconds


async def test_nobody_waits_behind_those_on_another_errand(document: Path) -> None:
    limits = WorkerLimits(places=1, queue=0, wall_seconds=60)
    async with DocumentWorker(SystemClock(), limits, jobs="tests.testkit.busy_jobs") as worker:
        at_work = [worker.validate(document, TrustMaterial(()), datetime.now(UTC)), worker.preview(document, 1)]
        tasks = [asyncio.create_task(job) for job in at_work]
        await asyncio.sleep(0.2)
        with pytest.raises(Busy):
            await worker.outline(document)
        with pytest.raises(Busy):
            await worker.validate(document, TrustMaterial(()), datetime.now(UTC))
        async with asyncio.timeout(10):
            assert (await worker.inspect(document)).pages == 1
            finished = await worker.extend(document, 1, level=Level.B_T, trust=TrustMaterial(()), fetch=async_none)
            assert finished.complete_bytes == 1
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_done_for_anybody_stands_back_and_a_page_has_less_time(document: Path) -> None:
    expected = {"finish": (0, 20), "prepare": (0, 20), "validate": (10, 20), "outline": (10, 20), "preview": (10, 3)}
    limits = WorkerLimits(page_cpu_seconds=3)
    async with DocumentWorker(SystemClock(), limits, jobs="tests.testkit.busy_jobs") as worker:
        for name, limits_of_child in expected.items():
            job = asyncio.create_task(worker._run(dict, name, document, {"for_ever": True}))
            async with asyncio.timeout(10):
                while limits_of_child not in (told := {_limits_of(child) for child in _children_of(worker)}):
                    assert len(told) <= 1
                    await asyncio.sleep(0.02)
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            while _children_of(worker):
                await asyncio.sleep(0.02)


def _limits_of(child: str) -> tuple[int, int]:
    """Niceness, and seconds of processor time (0 where it has not restricted itself yet)."""
    (line,) = re.findall(r"Max cpu time +(\w+)", Path(f"/proc/{child}/limits").read_text())
    niceness = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[16]
    return int(niceness), int(line) if line.isdecimal() else 0


async def test_the_forking_process_may_die(worker: DocumentWorker, document: Path) -> None:
    assert (await worker.inspect(document)).pages == 1
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    found = await asyncio.gather(*(worker.inspect(document) for _ in range(4)))
    assert [one.pages for one in found] == [1, 1, 1, 1]


async def test_giving_up_ends_the_child(hostile: DocumentWorker, document: Path) -> None:
    before = len(_children_of(hostile))
    job = asyncio.create_task(misbehave(hostile, document, "sleep"))
    while len(_children_of(hostile)) == before:
        await asyncio.sleep(0.02)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    async with asyncio.timeout(5):
        while len(_children_of(hostile)) > before:
            await asyncio.sleep(0.02)


async def _status_of_a_child(worker: DocumentWorker, document: Path) -> dict[str, str]:
    """What the kernel tells of one at work; the identity and the filter are the last that it gives up."""
    job = asyncio.create_task(misbehave(worker, document, "sleep"))
    try:
        async with asyncio.timeout(5):
            while True:
                for child in _children_of(worker):
                    lines = Path(f"/proc/{child}/status").read_text().splitlines()
                    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
                    if status["Seccomp"] != "0":
                        return status
                await asyncio.sleep(0.02)
    finally:
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


def _children_of(worker: DocumentWorker) -> list[str]:
    assert worker._process is not None
    pid = worker._process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_too_large_is_told_before_a_copy_is_made(document: Path, tmp_path: Path) -> None:
    limits = WorkerLimits(document_bytes=100)
    async with DocumentWorker(SystemClock(), limits) as worker:
        with pytest.raises(DocumentTooLarge):
            await worker.prepare(document, tmp_path / "out.pdf", options())
        with pytest.raises(DocumentTooLarge):
            await worker.inspect(document)
    assert not (tmp_path / "out.pdf").exists()


async def test_descriptors_do_not_leak(worker: DocumentWorker, document: Path) -> None:
    await worker.inspect(document)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - descriptors, not files
    for _ in range(5):
        await worker.inspect(document)
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208 - as above
