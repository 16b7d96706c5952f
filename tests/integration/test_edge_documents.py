"""The edge with real documents: limited children, a real PKI's evidence, a validator at the end."""

import asyncio
from pathlib import Path

import pytest

from documents.child import DocumentWorker
from documents.model import FetchKind, Level
from domain.clock import SystemClock
from domain.items import Item
from signer.tbs.cms import signed_attributes
from tests.testkit.core_simulator import CoreSimulator
from tests.testkit.documents import plain_pdf
from tests.testkit.edge import Edge, an_edge
from tests.testkit.pki import Certified, InMemoryPKI
from tests.testkit.time import FrozenClock


class EvidenceOf:
    """The edge's fetch, answered by a PKI in memory."""

    def __init__(self, pki: InMemoryPKI) -> None:
        self._pki = pki

    async def __call__(self, kind: FetchKind, url: str, body: bytes | None) -> bytes:
        address = self._pki.addresses.timestamp if kind is FetchKind.TIMESTAMP else url
        return await asyncio.to_thread(self._pki.fetch, kind, address, body)


def core_of(citizen: Certified, clock: FrozenClock) -> CoreSimulator:
    def sign_item(item: Item) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        attributes = signed_attributes(item.digests[0], citizen.chain[0], dict(item.fields))
        return attributes, citizen.sign(attributes), citizen.chain

    return CoreSimulator(clock, sign_item=sign_item)


async def signed_by(edge: Edge, *documents: bytes, level: str) -> tuple[str, str]:
    transaction_id, link = await edge.own_transaction(*documents, level=level)
    browser = edge.browser()
    page = (await browser.get(f"/review/{link}")).json()
    answer = await browser.get(await edge.approved(page))
    assert answer.json()["state"] == "DONE", answer.text
    return transaction_id, link


async def collected(edge: Edge, transaction_id: str, link: str, number: int) -> bytes:
    answer = await edge.browser().get(
        f"/v1/transactions/{transaction_id}/documents/{number}", headers={"Authorization": f"Bearer {link}"}
    )
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.parametrize("level", list(Level))
async def test_a_pdf_reaches_its_level_and_keeps_its_earlier_bytes(tmp_path: Path, level: Level) -> None:
    clock = FrozenClock(SystemClock().now())
    pki = InMemoryPKI()
    core = core_of(pki.certify(), clock)
    original = plain_pdf()
    async with (
        DocumentWorker(SystemClock()) as worker,
        an_edge(tmp_path, core=core, clock=clock, worker=worker, trust=pki.trust, fetch=EvidenceOf(pki)) as edge,
    ):
        transaction_id, link = await signed_by(edge, original, level=level.value)
        signed = await collected(edge, transaction_id, link, 1)
        assert signed.startswith(original)
        path = tmp_path / "signed.pdf"
        await asyncio.to_thread(path.write_bytes, signed)
        report = await worker.validate(path, pki.trust, SystemClock().now(), EvidenceOf(pki))
        (signature,) = report.signatures
        assert (report.indication, signature.level) == ("TOTAL-PASSED", level.value)
        assert not signature.changed_since


async def test_without_tsa_it_is_signed_and_raised_when_the_tsa_is_back(tmp_path: Path) -> None:
    clock = FrozenClock(SystemClock().now())
    pki = InMemoryPKI()
    core = core_of(pki.certify(), clock)
    async with (
        DocumentWorker(SystemClock()) as worker,
        an_edge(tmp_path, core=core, clock=clock, worker=worker, trust=pki.trust, fetch=EvidenceOf(pki)) as edge,
    ):
        pki.offline.add(FetchKind.TIMESTAMP)
        transaction_id, link = await signed_by(edge, plain_pdf(), level="B-LTA")
        (document,) = (await edge.status(transaction_id, link))["documents"]
        assert (document["state"], document["level"]) == ("PARTIAL", "B-B")
        partial = await collected(edge, transaction_id, link, 1)
        pki.offline.clear()
        clock.advance(2)
        assert await edge.signing.resume_due() == 1
        (document,) = (await edge.status(transaction_id, link))["documents"]
        assert (document["state"], document["level"]) == ("SIGNED", "B-LTA")
        raised = await collected(edge, transaction_id, link, 1)
        assert len(raised) > len(partial)
        path = tmp_path / "signed.pdf"
        await asyncio.to_thread(path.write_bytes, raised)
        report = await worker.validate(path, pki.trust, SystemClock().now(), EvidenceOf(pki))
        assert (report.indication, report.signatures[0].level) == ("TOTAL-PASSED", "B-LTA")


async def test_a_broken_pdf_is_refused_at_upload_with_a_plain_reason(tmp_path: Path) -> None:
    clock = FrozenClock(SystemClock().now())
    async with (
        DocumentWorker(SystemClock()) as worker,
        an_edge(tmp_path, clock=clock, worker=worker) as edge,
    ):
        body = {"documents": [{"title": "x"}]}
        system = edge.browser()
        created = (await system.post("/v1/transactions", json=body, headers={"Idempotency-Key": "k" * 32})).json()
        answer = await system.put(
            f"/v1/transactions/{created['id']}/documents/1",
            content=plain_pdf()[:200],
            headers={"Content-Type": "application/pdf", "Authorization": f"Bearer {created['link_token']}"},
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_document")
        assert len(answer.json()["detail"]) > 10


async def test_a_signature_value_for_other_bytes_is_not_released(tmp_path: Path) -> None:
    clock = FrozenClock(SystemClock().now())
    pki = InMemoryPKI()
    citizen = pki.certify()
    core = core_of(citizen, clock)
    honest = core.sign_item

    def forged(item: Item) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        attributes, signature, chain = honest(item)
        if item.title.endswith("2"):
            return attributes, citizen.sign(b"something else"), chain
        return attributes, signature, chain

    core.sign_item = forged
    async with (
        DocumentWorker(SystemClock()) as worker,
        an_edge(tmp_path, core=core, clock=clock, worker=worker, trust=pki.trust, fetch=EvidenceOf(pki)) as edge,
    ):
        transaction_id, link = await signed_by(edge, plain_pdf("uno"), plain_pdf("dos"), level="B-B")
        states = [document["state"] for document in (await edge.status(transaction_id, link))["documents"]]
        assert states == ["SIGNED", "FAILED"]
