"""Documents that are too large, for real: the citizen reads a sentence, and the edge keeps next to nothing of them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

MEBIBYTE = 1024 * 1024
FITS_BYTES = 25 * MEBIBYTE
"""``citizen_document_bytes`` by default."""
LARGER = {"es-ES": "El archivo es más grande", "en-GB": "The file is larger than this service takes"}
TOO_LARGE = {"es-ES": "Lo que ha elegido es demasiado grande", "en-GB": "What you chose is too large"}


def pdf_of(path: Path, mebibytes: int) -> Path:
    with path.open("wb") as file:
        file.write(b"%PDF-1.7\n")
        file.truncate(mebibytes * MEBIBYTE)
    return path


@contextmanager
def watched(pid: int, storage: Path) -> Iterator[list[int]]:
    """The most octets that a process held in files without a name and in the store while the block lasted."""
    most, over = [0], threading.Event()

    def held() -> int:
        size = 0
        for descriptor in [*Path(f"/proc/{pid}/fd").iterdir(), *storage.rglob("*")]:
            try:
                nameless = descriptor.parent.name == "fd" and "(deleted)" in str(descriptor.readlink())
                if nameless or descriptor.parent.name != "fd":
                    size += descriptor.stat().st_size
            except OSError:
                continue  # gone meanwhile
        return size

    before = held()

    def look() -> None:
        while not over.is_set():
            most[0] = max(most[0], held() - before)
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("locale", LARGER)
def test_of_a_huge_pdf_no_more_is_kept_than_may_be_signed(service, visit, locale, tmp_path):
    huge = pdf_of(tmp_path / "huge.pdf", 300)
    visitor = visit(locale)

    with watched(service.running.pids["edge"], service.running.state / "edge" / "documents") as most:
        visitor.bring(service.running.edge, huge)
        expect(visitor.page.locator("[role=alert] li")).to_contain_text(LARGER[locale])

    expect(visitor.page.locator("[role=alert] li")).to_contain_text("huge.pdf")
    expect(visitor.page.locator("#documents")).to_be_visible()
    # Once as it came in and once more while it is put into the store.
    assert FITS_BYTES <= most[0] <= 2 * FITS_BYTES + MEBIBYTE


@pytest.mark.parametrize("locale", LARGER)
def test_beyond_a_gibibyte_the_answer_comes_before_the_document(service, visit, locale, tmp_path):
    huge = pdf_of(tmp_path / "huge.pdf", 3000)
    visitor = visit(locale)
    started = time.monotonic()

    with watched(service.running.pids["edge"], service.running.state / "edge" / "documents") as most:
        visitor.bring(service.running.edge, huge)
        expect(visitor.page.locator("[role=alert] li")).to_contain_text(TOO_LARGE[locale])

    visitor.look("sign-1-huge")
    assert most[0] <= MEBIBYTE
    assert time.monotonic() - started < 20


def test_a_body_without_a_declared_length_is_not_read(service):
    sent = [0]

    def endless():
        yield b'--b\r\nContent-Disposition: form-data; name="documents"; filename="a.pdf"\r\n\r\n'
        while sent[0] < 512 * MEBIBYTE:
            sent[0] += 65536
            yield bytes(65536)

    headers = {"Content-Type": "multipart/form-data; boundary=b", "Accept": "text/html"}
    status = 400
    with (
        watched(service.running.pids["edge"], service.running.state / "edge" / "documents") as most,
        httpx.Client(trust_env=False) as client,
        suppress(httpx.WriteError),  # who is told to stop while still sending may not hear why
    ):
        status = client.post(f"{service.running.edge}/sign", headers=headers, content=endless()).status_code

    assert status == 400
    assert most[0] <= MEBIBYTE
    assert sent[0] < 64 * MEBIBYTE
