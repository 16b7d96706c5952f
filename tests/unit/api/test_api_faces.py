"""REST and gRPC are one contract: the same cases, the same answers, the same codes."""

import json
import secrets
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from api.transactions.model import Limits
from domain.jws import ASSERTION_LIMIT_CHARACTERS
from rubrica_client import NewDocument, RubricaProblem
from rubrica_client.jws import sign, unbase64url
from tests.testkit.core_simulator import NIF
from tests.testkit.edge import AGENCY, AGENCY_NAME, PDF, RETURN_URL, an_edge
from tests.testkit.faces import FACES, Face, a_face

ONE = [NewDocument("Solicitud", PDF)]

pytestmark = pytest.mark.parametrize("name", FACES)


async def refused(face: Face, code: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(RubricaProblem) as told:
        await face.call(method, *arguments, **options)
    assert told.value.code == code, told.value
    return told.value.detail


async def test_from_documents_to_collected_signatures(name, tmp_path):
    async with an_edge(tmp_path) as edge, a_face(name, edge) as face:
        agency = face.client(edge.core.register_client(AGENCY, AGENCY_NAME, RETURN_URL))
        documents = [NewDocument(f"Documento {n}", PDF + b"x" * n * 300_000) for n in (1, 2, 3)]
        sent = await face.call(agency.send, documents, citizen_nif=NIF, level="B-T", return_url=RETURN_URL, nonce="n-1")
        status = await face.call(agency.status, sent.id)
        assert (status["state"], status["client_id"], status["level"]) == ("SUBMITTED", AGENCY, "B-T")
        assert status["next_step"] == {"action": "review", "documents": [1, 2, 3], "url": sent.review_url}
        for number, document in enumerate(documents, 1):
            assert await face.call(agency.original, sent.id, number) == document.content
        await refused(face, "not_found", agency.collect, sent.id, 1)
        browser = edge.browser()
        review = (await browser.get(f"/review/{sent.link_token}")).json()
        assert (await browser.get(str(await edge.approved(review)))).status_code == 303
        status = await face.call(agency.status, sent.id)
        assert status["state"] == "DONE"
        assert [each["state"] for each in status["documents"]] == ["SIGNED"] * 3
        claims = agency.verify_result(status["result_token"], edge.core.token_key, nonce="n-1")
        assert claims["aud"] == AGENCY
        receipt = await face.call(agency.receipt, sent.id)
        assert agency.verify_receipt(receipt, edge.core.token_key)
        for number, document in enumerate(documents, 1):
            signed = await face.call(agency.collect, sent.id, number)
            assert signed.startswith(document.content)
            assert signed.endswith(b"signed B-T")
        await refused(face, "state_conflict", agency.cancel, sent.id)


async def test_both_faces_show_the_same(name, tmp_path):
    async with an_edge(tmp_path) as edge, a_face(name, edge) as face, a_face("rest", edge) as rest:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        agency, other = face.client(key), rest.client(key)
        sent = await face.call(agency.send, ONE, citizen_nif=NIF)
        assert await face.call(agency.status, sent.id) == await rest.call(other.status, sent.id)


async def test_the_same_request_again_is_the_same_transaction(name, tmp_path):
    async with an_edge(tmp_path) as edge, a_face(name, edge) as face:
        agency = face.client(edge.core.register_client(AGENCY, AGENCY_NAME))
        key = secrets.token_hex(8)
        first = await face.call(agency.send, ONE, citizen_nif=NIF, idempotency_key=key)
        assert await face.call(agency.send, ONE, citizen_nif=NIF, idempotency_key=key) == first
        await refused(face, "idempotency_conflict", agency.send, ONE, citizen_nif=NIF, level="B-B", idempotency_key=key)
        assert (await face.call(agency.send, ONE, citizen_nif=NIF)).id != first.id
        await refused(face, "malformed_request", agency.send, ONE, citizen_nif=NIF, idempotency_key="k" * 256)


async def test_who_cannot_prove_who_they_are_is_refused(name, tmp_path):
    async with an_edge(tmp_path) as edge, a_face(name, edge) as face:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        agency = face.client(key)
        sent = await face.call(agency.send, ONE, citizen_nif=NIF)
        once = agency.assertion()
        stranger = face.client(edge.core.register_client("other", "Other"), AGENCY).assertion()
        agency.assertion = lambda: once
        assert (await face.call(agency.status, sent.id))["id"] == sent.id
        replayed = await refused(face, "caller_refused", agency.status, sent.id)
        late = face.client(key).assertion()
        edge.clock.advance(120)
        for wrong in (late, stranger, "a.b.c", once + "x", sent.link_token, ""):
            agency.assertion = lambda wrong=wrong: wrong
            for method, arguments in (
                (agency.status, (sent.id,)),
                (agency.collect, (sent.id, 1)),
                (agency.cancel, (sent.id,)),
            ):
                if "." not in wrong and name == "rest":
                    # There a link is a way to call too, for the citizen's own web; an agency's opens nothing.
                    await refused(face, "not_found", method, *arguments)
                else:
                    detail = await refused(face, "caller_refused", method, *arguments)
                    assert detail == replayed or "." not in wrong
            await refused(face, "caller_refused", agency.send, ONE, citizen_nif=NIF)


async def test_a_proof_is_forwarded_as_it_is_and_has_a_limit(name, tmp_path):
    async with an_edge(tmp_path) as edge, a_face(name, edge) as face:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        agency = face.client(key)
        sent = await face.call(agency.send, ONE, citizen_nif=NIF)
        said = json.loads(unbase64url(agency.assertion().split(".")[1]))

        def padded(characters):
            """One with the whole of x5c in it, as far as an edge can tell."""
            fresh = {**said, "jti": secrets.token_hex(16)}
            empty = len(sign({"kid": AGENCY, "x5c": [""]}, fresh, key))
            # In steps of base64url: three octets are four characters.
            return sign({"kid": AGENCY, "x5c": ["A" * ((characters - empty) * 3 // 4)]}, fresh, key)

        agency.assertion = lambda: padded(ASSERTION_LIMIT_CHARACTERS)
        assert ASSERTION_LIMIT_CHARACTERS - 4 < len(agency.assertion()) <= ASSERTION_LIMIT_CHARACTERS
        assert (await face.call(agency.status, sent.id))["id"] == sent.id
        agency.assertion = lambda: padded(ASSERTION_LIMIT_CHARACTERS + 5)
        assert len(agency.assertion()) > ASSERTION_LIMIT_CHARACTERS
        assert "too long" in await refused(face, "caller_refused", agency.status, sent.id)


async def test_a_foreign_transaction_looks_like_none(name, tmp_path):
    async with an_edge(tmp_path) as edge, a_face(name, edge) as face:
        ours = face.client(edge.core.register_client(AGENCY, AGENCY_NAME))
        theirs = face.client(edge.core.register_client("other", "Other"), "other")
        sent = await face.call(ours.send, ONE, citizen_nif=NIF)
        own_id, own_link = await edge.own_transaction()
        for foreign in (sent.id, own_id):
            for method, more in (
                (theirs.status, ()),
                (theirs.collect, (1,)),
                (theirs.original, (1,)),
                (theirs.receipt, ()),
                (theirs.cancel, ()),
            ):
                shown = [await refused(face, "not_found", method, each, *more) for each in (foreign, "0" * 26)]
                assert shown[0] == shown[1]
        assert (await face.call(ours.status, sent.id))["state"] == "SUBMITTED"
        assert (await edge.status(own_id, own_link))["state"] == "SUBMITTED"


async def test_limits_and_what_cannot_be_signed(name, tmp_path):
    limits = Limits(agency_bytes=2_000_000, agency_documents=2)
    async with an_edge(tmp_path, limits=limits) as edge, a_face(name, edge) as face:
        agency = face.client(edge.core.register_client(AGENCY, AGENCY_NAME, RETURN_URL))
        largest = NewDocument("x", PDF.ljust(2_000_000, b"x"))
        beyond = NewDocument("x", PDF.ljust(2_000_001, b"x"))
        await face.call(agency.send, [largest, *ONE], citizen_nif=NIF)
        await refused(face, "document_too_large", agency.send, [beyond], citizen_nif=NIF)
        detail = await refused(
            face, "unsupported_document", agency.send, [*ONE, NewDocument("x", b"GIF89a")], citizen_nif=NIF
        )
        assert detail == "this is not a PDF"
        for documents, options in (
            ([], {}),
            (ONE * 3, {}),
            ([NewDocument("\u200b", PDF)], {}),
            ([NewDocument("x" * 501, PDF)], {}),
            ([NewDocument("x", PDF, "text/html")], {}),
            (ONE, {"level": "B-X"}),
            (ONE, {"format": "cades"}),
            (ONE, {"packaging": "loose"}),
            (ONE, {"return_url": RETURN_URL + "/"}),
            (ONE, {"nonce": "n" * 201}),
            (ONE, {"nonce": "\x00"}),
            (ONE, {"citizen_nif": ""}),
            (ONE, {"citizen_nif": "1234"}),
        ):
            await refused(face, "malformed_request", agency.send, documents, **{"citizen_nif": NIF, **options})
        await refused(
            face, "algorithm_not_allowed", agency.send, ONE, citizen_nif=NIF, format="pades", packaging="detached"
        )
        await refused(face, "algorithm_not_allowed", agency.send, ONE, citizen_nif=NIF, algorithm="PS256")
        edge.core.rights = ["sign"]
        await refused(face, "not_permitted", agency.send, ONE, citizen_nif=NIF)
        assert list((tmp_path / "documents" / "scratch").iterdir()) == []


async def test_cancelling_twice_is_no_fault(name, tmp_path):
    async with an_edge(tmp_path) as edge, a_face(name, edge) as face:
        agency = face.client(edge.core.register_client(AGENCY, AGENCY_NAME))
        sent = await face.call(agency.send, ONE, citizen_nif=NIF)
        for _ in range(2):
            await face.call(agency.cancel, sent.id)
        status = await face.call(agency.status, sent.id)
        assert (status["state"], status["next_step"]["action"]) == ("CANCELLED", "none")
        await refused(face, "not_found", agency.original, sent.id, 1)


async def test_a_core_that_was_away_is_asked_again_and_a_fault_tells_nothing(name, tmp_path):
    async with an_edge(tmp_path) as edge, a_face(name, edge) as face:
        agency = face.client(edge.core.register_client(AGENCY, AGENCY_NAME))
        sent = await face.call(agency.send, ONE, citizen_nif=NIF)
        edge.core.faults["AuthenticateClient"] = [grpc.StatusCode.UNAVAILABLE]
        assert (await face.call(agency.status, sent.id))["id"] == sent.id
        edge.core.faults["AuthenticateClient"] = [grpc.StatusCode.DATA_LOSS]
        detail = await refused(face, "internal", agency.status, sent.id)
        assert "urn:rubrica:event" in detail or "recorded" in detail
        assert "DATA_LOSS" not in detail
