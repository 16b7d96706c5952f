"""XML and other octets through edge, gate and a simulated core, with real children and real signatures."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from documents.child import DocumentWorker
from domain.algorithms import KeyType
from domain.clock import SystemClock
from domain.digests import Digest
from domain.items import Item
from signer.tbs import xades
from tests.testkit.core_simulator import CoreSimulator
from tests.testkit.edge import PDF, Edge, an_edge, idempotent
from tests.testkit.pki import Certified, InMemoryPKI
from tests.testkit.time import FrozenClock
from tests.testkit.xades import CASES, OCTETS, XML, XML_WITHOUT_COMMENT

SHOWN = {
    "enveloped": XML_WITHOUT_COMMENT,
    "enveloping": XML_WITHOUT_COMMENT.replace(b'<?procedure version="2"?>', b""),
}
TITLES = {"detached": "../petición nº 3/2026.bin"}


def core_of(citizen: Certified, clock: FrozenClock) -> CoreSimulator:
    def sign_item(item: Item) -> tuple[bytes, bytes, tuple[bytes, ...], bytes]:
        xades.check_item(item)
        both = xades.to_be_signed(item, citizen.chain[0], clock.now())
        value = xades.signature_value(item.algorithm, citizen.sign(both.signed_info))
        return both.signed_info, value, citizen.chain, both.signed_properties

    return CoreSimulator(clock, sign_item=sign_item)


async def created(edge: Edge, **fields: Any) -> tuple[str, str, dict[str, str]]:
    body = {"documents": [{"title": "Solicitud"}], "format": "xades", **fields}
    answer = await edge.browser().post("/v1/transactions", json=body, headers=idempotent())
    assert answer.status_code == 201, answer.text
    transaction = answer.json()
    return transaction["id"], transaction["link_token"], {"Authorization": f"Bearer {transaction['link_token']}"}


@pytest.mark.parametrize("key_type", KeyType)
@pytest.mark.parametrize("case", CASES)
async def test_signed_collected_and_valid(tmp_path: Path, case: str, key_type: KeyType) -> None:
    clock, pki = FrozenClock(SystemClock().now()), InMemoryPKI()
    core = core_of(pki.certify(key_type), clock)
    original, options = CASES[case]
    async with (
        DocumentWorker(SystemClock()) as worker,
        an_edge(tmp_path, core=core, clock=clock, worker=worker, trust=pki.trust) as edge,
    ):
        transaction_id, link, bearer = await created(
            edge,
            packaging=options.packaging.value,
            algorithm={KeyType.P256: "ES256", KeyType.RSA3072: "RS256"}[key_type],
            documents=[{"title": TITLES.get(case, "Solicitud")}],
        )
        system, path = edge.browser(), f"/v1/transactions/{transaction_id}/documents/1"
        upload = await system.put(path, content=original, headers={"Content-Type": options.mime_type, **bearer})
        assert upload.status_code == 200, upload.text
        submit = f"/v1/transactions/{transaction_id}/submit"
        assert (await system.post(submit, headers={**idempotent(), **bearer})).status_code == 200
        browser = edge.browser()
        page = (await browser.get(f"/review/{link}")).json()
        shown = await browser.get(page["documents"][0]["url"])
        # What no signature covers is not shown either.
        assert (shown.content, shown.headers["content-type"]) == (SHOWN.get(case, original), options.mime_type)
        returned = await browser.get(await edge.approved(page))
        assert returned.json()["state"] == "DONE", returned.text
        collected = await system.get(path, headers=bearer)
        assert collected.headers["content-type"] == "application/xml"
        assert 'filename="signed-1.xml"' in collected.headers["content-disposition"]
        assert (await system.get(f"{path}/original", headers=bearer)).content == original
        (item,) = [item for staged in core.staged.values() for item in staged.items if item.format]
        if case == "detached":
            assert item.references[0].uri == "_petici%C3%B3n%20n%C2%BA%203_2026.bin"
        file = tmp_path / "signed.xml"
        await asyncio.to_thread(file.write_bytes, collected.content)
        report = await worker.validate(file, pki.trust, SystemClock().now(), None, Digest.of(original))
        (signature,) = report.signatures
        assert (report.indication, signature.level) == ("TOTAL-PASSED", "B-B")
        assert signature.changed_since is False


async def test_what_is_uploaded_must_fit_the_packaging(tmp_path: Path) -> None:
    async with DocumentWorker(SystemClock()) as worker, an_edge(tmp_path, worker=worker) as edge:
        refusals = [
            ("enveloped", PDF, "application/pdf", 422, "only XML"),
            ("enveloped", PDF, "application/xml", 422, "not an XML"),
            ("enveloped", b"<!DOCTYPE a><a/>", "text/xml; charset=utf-8", 422, "DOCTYPE"),
            ("detached", OCTETS, "", 422, "MIME type"),
            ("enveloping", b"<a>" * 100_000, "application/soap+xml", 413, "levels deep"),
        ]
        for packaging, data, media_type, status, why in refusals:
            transaction_id, _, bearer = await created(edge, packaging=packaging)
            path = f"/v1/transactions/{transaction_id}/documents/1"
            answer = await edge.browser().put(path, content=data, headers={"Content-Type": media_type, **bearer})
            assert (answer.status_code, why in answer.json()["detail"]) == (status, True), answer.text
        transaction_id, _, bearer = await created(edge, format="pades")
        path = f"/v1/transactions/{transaction_id}/documents/1"
        answer = await edge.browser().put(path, content=XML, headers={"Content-Type": "application/xml", **bearer})
        assert answer.status_code == 400
        assert "application/pdf" in answer.json()["detail"]
