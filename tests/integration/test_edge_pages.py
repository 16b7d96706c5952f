"""The edge's pages for documents, with real children: what is said of them before signing, and of signatures."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from api.turns import Turns
from api.web import check, sign
from api.web.services import Web, make_look
from documents.child import DocumentWorker
from domain.algorithms import KeyType
from domain.clock import SystemClock
from tests.testkit.documents import plain_pdf
from tests.testkit.documents import signed as signed_pdf
from tests.testkit.edge import EDGE_URL, GATE_URL, an_edge
from tests.testkit.pki import Certified, InMemoryPKI
from tests.testkit.time import FrozenClock
from tests.testkit.xades import CASES, OCTETS, XML, signed

LEFT_OUT = "were left out of the file"
UNCHANGED = "Signed, valid, and not changed since."
ABSENT = cast("Any", None)


@pytest.fixture(scope="module")
def pki() -> InMemoryPKI:
    return InMemoryPKI()


@pytest.fixture(scope="module")
def citizen(pki: InMemoryPKI) -> Certified:
    return pki.certify(KeyType.P256)


@pytest.fixture(scope="module")
def signed_files(pki: InMemoryPKI, citizen: Certified) -> tuple[bytes, bytes, bytes]:
    """An XML with its signature, a signature beside its file, a PDF."""
    enveloped, detached = (signed(*CASES[case], citizen, pki.trust) for case in ("enveloped", "detached"))
    return enveloped, detached, signed_pdf(plain_pdf(), pki, citizen)


@asynccontextmanager
async def a_browser(folder: Path, pki: InMemoryPKI) -> AsyncIterator[httpx.AsyncClient]:
    clock = FrozenClock(SystemClock().now())
    async with (
        DocumentWorker(SystemClock()) as worker,
        an_edge(folder, clock=clock, worker=worker, trust=pki.trust) as edge,
    ):
        app = FastAPI()
        app.include_router(sign.router)
        app.include_router(check.router)
        app.state.look = make_look()
        app.state.web = Web(
            transactions=edge.transactions,
            approvals=edge.app.state.services.approvals,
            store=edge.store,
            viewer=worker,
            trust=pki.trust,
            fetch=ABSENT,
            clock=clock,
            gate_url=GATE_URL,
            area=ABSENT,
            papers=ABSENT,
            pace=ABSENT,
            turns=Turns(),
        )
        headers = {"Accept": "text/html", "Accept-Language": "en"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url=EDGE_URL, headers=headers, follow_redirects=True
        ) as browser:
            yield browser


async def judged(browser: httpx.AsyncClient, document: bytes, content: bytes = b"") -> str:
    files = {"document": ("a", document)} | ({"content": ("b", content)} if content else {})
    return (await browser.post("/validate", files=files)).text


def fact(page: str, name: str) -> str:
    """What stands behind ``name`` in the first report."""
    return page.split(f"<dt>{name}</dt>")[1].split("<dd>")[1].split("</dd>", 1)[0]


async def test_what_is_left_out_is_told_before_signing(tmp_path: Path, pki: InMemoryPKI) -> None:
    async with a_browser(tmp_path, pki) as browser:
        with_comment = (await browser.post("/sign", files={"documents": ("a.xml", XML)})).text
        without = (await browser.post("/sign", files={"documents": ("a.xml", b"<a>uno \xe2\x80\xae dos</a>")})).text
        document = (await browser.post("/sign", files={"documents": ("a.pdf", plain_pdf())})).text
    assert LEFT_OUT in with_comment
    assert "a comment, which no digest covers" not in with_comment
    assert "Begoña" in with_comment
    for page in (without, document):
        assert "Read before you sign" in page
        assert LEFT_OUT not in page
    assert "uno [U+202E] dos" in without
    assert "change the order of others" in without


async def test_files_of_other_kinds_are_called_what_they_are(tmp_path: Path, pki: InMemoryPKI) -> None:
    wide, neither = '<?xml version="1.0" encoding="UTF-16"?><a/>'.encode("utf-16"), b"Hola"
    async with a_browser(tmp_path, pki) as browser:
        for field, path in (("documents", "/sign"), ("document", "/validate")):
            told = (await browser.post(path, files={field: ("a.xml", wide)})).text
            assert "please save it as UTF-8" in told, path
            assert "not a PDF" not in told
            told = (await browser.post(path, files={field: ("a.txt", neither)})).text
            assert "The file is neither a PDF nor an XML document." in told, path


async def test_a_report_says_of_changes_only_what_is_known(
    tmp_path: Path, pki: InMemoryPKI, signed_files: tuple[bytes, bytes, bytes]
) -> None:
    enveloped, detached, pdf = signed_files
    async with a_browser(tmp_path, pki) as browser:
        for good in (
            await judged(browser, enveloped),
            await judged(browser, detached, OCTETS),
            await judged(browser, pdf),
        ):
            assert UNCHANGED in good
            assert fact(good, "Changed since") == "no"
        commented = await judged(browser, enveloped.replace(b"<dato>", b"<!-- pagado --><dato>"))
        assert (UNCHANGED in commented, "parts, such as comments, that it does not cover" in commented) == (False, True)
        alone = await judged(browser, detached)
        assert "Choose that file too" in alone
        broken = await judged(browser, enveloped.replace(b"</ds:SignatureValue>", b"AAAA</ds:SignatureValue>"))
        for page in (commented, alone, broken):
            assert fact(page, "Changed since") == "not known"
            assert "Núñez" in fact(page, "Signed by")
        for page in (alone, broken):
            assert "(as the file says)" in fact(page, "Signed by")
        longer = await judged(browser, pdf + b"\n<html>something else</html>")
        assert "was changed after it was signed" in longer
        assert fact(longer, "Changed since") == "yes"
