"""The client against edge and gate: one whole signature as an agency and a citizen's browser make it."""

import asyncio
from pathlib import Path

from rubrica_client import AgencyClient, CitizenBrowser, NewDocument
from tests.testkit.core_simulator import NIF, PASSWORD
from tests.testkit.edge import AGENCY, AGENCY_NAME, EDGE_URL, PDF, RETURN_URL, Bridge, an_edge


async def test_an_agency_and_a_browser_get_two_documents_signed(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME, RETURN_URL)
        agency = AgencyClient(
            EDGE_URL, AGENCY, key, transport=Bridge(edge.app), now=lambda: edge.clock.now().timestamp()
        )
        browser = CitizenBrowser(
            edge.core.token_key, edge_transport=Bridge(edge.app), gate_transport=Bridge(edge.gate_app)
        )

        def play() -> None:
            created = agency.create(
                [NewDocument("Solicitud"), NewDocument("Anexo")],
                citizen_nif=NIF,
                level="B-T",
                return_url=RETURN_URL,
                nonce="n-1",
            )
            for number in (1, 2):
                agency.upload(created.id, number, PDF + str(number).encode())
            assert agency.submit(created.id)["next_step"]["url"] == created.review_url
            review = browser.review(created.review_url)
            assert review.client_name == AGENCY_NAME
            pending = browser.begin(review, "12345678-z", PASSWORD)
            outcome = browser.complete(review, pending, edge.core.otp)
            assert outcome.url.startswith(RETURN_URL + "&result=")
            claims = agency.verify_result(outcome.result_token, edge.core.token_key, nonce="n-1")
            assert claims["request"] == review.request_id
            status = agency.status(created.id)
            assert status["state"] == "DONE"
            assert status["next_step"] == {"action": "collect", "documents": [1, 2], "url": ""}
            for number in (1, 2):
                signed = agency.collect(created.id, number)
                assert signed.startswith(PDF + str(number).encode())
                assert signed.endswith(b"signed B-T")
            receipt = agency.receipt(created.id)
            assert agency.verify_receipt(receipt, edge.core.token_key)["request"] == review.request_id

        await asyncio.to_thread(play)
