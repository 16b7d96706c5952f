"""PAdES-B-B next to plain pyHanko with an in-memory key, in one run; and the memory that a 100 MB document takes."""

import asyncio
import multiprocessing
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from pyhanko.keys.internal import translate_pyca_cryptography_cert_to_asn1, translate_pyca_cryptography_key_to_asn1
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko_certvalidator.registry import SimpleCertificateStore

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from documents.child import DocumentWorker  # noqa: E402 - the project's root is not a package
from documents.model import Level  # noqa: E402 - as above
from documents.pades.finish import finish  # noqa: E402 - as above
from documents.pades.prepare import prepare  # noqa: E402 - as above
from domain.clock import SystemClock  # noqa: E402 - as above
from tests.testkit.documents import fetch_of, options, refuse_to_fetch, sign_parts  # noqa: E402 - as above
from tests.testkit.pki import Certified, InMemoryPKI  # noqa: E402 - as above

Row = dict[str, Any]
RESERVED = 2 * 16 * 1024


def pdf_of(objects: int, bytes_each: int) -> bytes:
    """A valid one-page PDF with so many extra stream objects."""
    filler = b"% " + b"x" * (bytes_each - 3) + b"\n"
    parts = [b"%PDF-1.7\n"]
    position = len(parts[0])
    offsets = []
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R>>",
    ]
    for number in range(1, objects + 4):
        content = bodies[number - 1] if number < 4 else b"<</Length %d>>stream\n%s\nendstream" % (len(filler), filler)
        part = b"%d 0 obj\n%s\nendobj\n" % (number, content)
        offsets.append(position)
        parts.append(part)
        position += len(part)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = objects + 4
    parts.append(b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table))
    parts.append(b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, position))
    return b"".join(parts)


def peer_of(pki: InMemoryPKI, citizen: Certified) -> signers.SimpleSigner:
    registry = SimpleCertificateStore()
    registry.register_multiple(
        [translate_pyca_cryptography_cert_to_asn1(one) for one in (pki.authority.certificates.ca,)]
    )
    return signers.SimpleSigner(
        signing_cert=translate_pyca_cryptography_cert_to_asn1(citizen.certificate),
        signing_key=translate_pyca_cryptography_key_to_asn1(citizen.key),
        cert_registry=registry,
    )


def sign_with_pyhanko(document: BytesIO, signer: signers.SimpleSigner) -> None:
    metadata = signers.PdfSignatureMetadata(
        field_name="Signature", subfilter=SigSeedSubFilter.PADES, md_algorithm="sha256"
    )
    writer = IncrementalPdfFileWriter(document)
    signers.PdfSigner(metadata, signer=signer).sign_pdf(writer, bytes_reserved=RESERVED, in_place=True)


def per_second(works: Sequence[Callable[[BytesIO], object]], original: bytes, seconds: float) -> list[float]:
    """Rates of ``works``, in turns, so that whatever else the machine does meets them alike; copies are not counted."""
    times: list[list[float]] = [[] for _ in works]
    while sum(map(sum, times)) < seconds or len(times[0]) < 5:
        for work, spent in zip(works, times, strict=True):
            document = BytesIO(original)
            begun = time.perf_counter()
            work(document)
            spent.append(time.perf_counter() - begun)
    return [1 / statistics.median(spent) for spent in times]


def rate_rows(pki: InMemoryPKI, citizen: Certified) -> list[Row]:
    signer = peer_of(pki, citizen)
    trust = pki.trust

    def ours_of(document: BytesIO) -> None:
        prepared = prepare(document, options())
        parts = sign_parts(prepared, citizen)
        now = datetime.now(UTC)
        finish(document, prepared.state, parts, level=Level.B_B, trust=trust, fetch=refuse_to_fetch, now=now)

    works = (ours_of, lambda document: sign_with_pyhanko(document, signer))
    rows = []
    for name, original in (
        ("PAdES-B-B, 20 KB PDF, chain and attributes checked", pdf_of(20, 900)),
        ("PAdES-B-B, 10 MB PDF of 39 000 objects", pdf_of(39_000, 200)),
    ):
        ours, peer = per_second(works, original, seconds=5.0)
        rows.append(row(name, ours, "1/s", "pyHanko, in-memory key, same reserved size", peer))
    return rows


def row(name: str, value: float, unit: str, peer: str, peer_value: float | None) -> Row:
    ratio = None if not peer_value else round(value / peer_value, 3)
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 2),
        "ratio": ratio,
    }


class PeakOfChildren:
    """Watches the children of a process, as only the kernel knows their peak (VmHWM)."""

    def __init__(self, parent: int) -> None:
        self._children = Path(f"/proc/{parent}/task/{parent}/children")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.mebibytes = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            for pid in self._children.read_text().split():
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        self.mebibytes = max(self.mebibytes, int(line.split()[1]) / 1024)
            time.sleep(0.001)


async def through_children(pki: InMemoryPKI, citizen: Certified, folder: Path) -> list[Row]:
    async def fetch(*question: Any) -> bytes:
        return fetch_of(pki)(*question)

    source, out = folder / "source.pdf", folder / "out.pdf"

    async def once(worker: DocumentWorker, level: Level) -> None:
        prepared = await worker.prepare(source, out, options())
        parts = sign_parts(prepared, citizen)
        await worker.finish(out, prepared.state, parts, level=level, trust=pki.trust, fetch=fetch)

    async with DocumentWorker(SystemClock()) as worker:
        assert worker._process is not None  # noqa: SLF001 - its children are what is measured
        source.write_bytes(pdf_of(20, 900))
        times = []
        for _ in range(15):
            begun = time.perf_counter()
            await once(worker, Level.B_B)
            times.append(time.perf_counter() - begun)
        small = row(
            "PAdES-B-B, 20 KB PDF, through two limited children", 1e3 * statistics.median(times), "ms", "", None
        )

        with PeakOfChildren(worker._process.pid) as base:  # noqa: SLF001 - its children are what is measured
            await worker.inspect(source)
        with source.open("wb") as file:
            file.write(pdf_of(10, 10_000_000))
        begun = time.perf_counter()
        with PeakOfChildren(worker._process.pid) as peak:  # noqa: SLF001 - its children are what is measured
            await once(worker, Level.B_LTA)
        spent = time.perf_counter() - begun
        peer = peak_of_pyhanko(source)
    return [
        small,
        row("Peak memory of the child, 100 MB PDF, B-LTA", peak.mebibytes, "MiB", "pyHanko in a process, B-B", peer),
        row("The same above a child with a 20 KB PDF", peak.mebibytes - base.mebibytes, "MiB", "", None),
        row("PAdES-B-LTA, 100 MB PDF, through two limited children", 1e3 * spent, "ms", "", None),
    ]


def peak_of_pyhanko(source: Path) -> float:
    """Of a process that signs as pyHanko's documentation shows: input and output in memory."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_sign_in_process, args=(str(source), theirs))
    process.start()
    peak = float(ours.recv())
    process.join()
    return peak


def _sign_in_process(source: str, answer: Any) -> None:
    pki = InMemoryPKI()
    signer = peer_of(pki, pki.certify())
    with Path(source).open("rb") as file:
        metadata = signers.PdfSignatureMetadata(field_name="Signature", subfilter=SigSeedSubFilter.PADES)
        signers.PdfSigner(metadata, signer=signer).sign_pdf(IncrementalPdfFileWriter(file), bytes_reserved=RESERVED)
    answer.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def run() -> list[Row]:
    """All rows of this benchmark."""
    pki = InMemoryPKI()
    citizen = pki.certify()
    with tempfile.TemporaryDirectory() as folder:
        return rate_rows(pki, citizen) + asyncio.run(through_children(pki, citizen, Path(folder)))


if __name__ == "__main__":
    for found in run():
        print(found)
