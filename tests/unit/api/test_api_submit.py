"""Submitting and collecting: limits, idempotency, and that nobody sees what is not theirs."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.transactions.model import Limits
from domain.errors import CallerRefused
from tests.testkit.edge import AGENCY, AGENCY_NAME, PDF, RETURN_URL, Edge, an_edge, idempotent

ONE = {"documents": [{"title": "Solicitud"}]}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["instance"].startswith("urn:rubrica:event:")
    return found


async def create(edge: Edge, headers: dict[str, str], **fields: Any) -> httpx.Response:
    named = {"citizen_nif": "12345678Z"} if "Authorization" in headers else {}
    return await edge.browser().post("/v1/transactions", json={**ONE, **named, **fields}, headers=headers)


async def put(
    edge: Edge, transaction_id: str, headers: dict[str, str], content: Any = PDF, number: int = 1
) -> httpx.Response:
    return await edge.browser().put(
        f"/v1/transactions/{transaction_id}/documents/{number}",
        content=content,
        headers={"Content-Type": "application/pdf", **headers},
    )


async def test_the_same_post_twice_opens_one_transaction(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        once = idempotent()
        first = await create(edge, {**once, **edge.bearer(key)})
        again = await create(edge, {**once, **edge.bearer(key)})
        assert first.status_code == again.status_code == 201
        assert first.json() == again.json()
        other = await create(edge, {**once, **edge.bearer(key)}, level="B-B")
        refused(other, 409, "idempotency_conflict")
        fresh = await create(edge, {**idempotent(), **edge.bearer(key)})
        assert fresh.json()["id"] != first.json()["id"]


async def test_idempotency_keys_of_two_agencies_do_not_meet(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        ours = edge.core.register_client(AGENCY, AGENCY_NAME)
        theirs = edge.core.register_client("other", "Other")
        once = idempotent()
        first = await create(edge, {**once, **edge.bearer(ours)})
        second = await create(edge, {**once, **edge.bearer(theirs, "other")})
        assert second.status_code == 201
        assert second.json()["id"] != first.json()["id"]


async def test_every_post_needs_a_key_and_strangers_a_long_one(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        refused(await create(edge, edge.bearer(key)), 400, "malformed_request")
        assert (await create(edge, {"Idempotency-Key": "1", **edge.bearer(key)})).status_code == 201
        # Without a proof of who asks, the key alone brings back the link: it must not be guessable.
        refused(await create(edge, {"Idempotency-Key": "1"}), 400, "malformed_request")


async def test_an_agency_is_held_to_its_register(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME, RETURN_URL)
        registered = await create(edge, {**idempotent(), **edge.bearer(key)}, return_url=RETURN_URL)
        assert registered.status_code == 201
        for unregistered in (RETURN_URL + "/", RETURN_URL.upper(), "https://evil.example/", RETURN_URL[:-1]):
            answer = await create(edge, {**idempotent(), **edge.bearer(key)}, return_url=unregistered)
            refused(answer, 400, "malformed_request")
        refused(await create(edge, idempotent(), return_url=RETURN_URL), 400, "malformed_request")
        refused(await create(edge, idempotent(), citizen_nif="12345678Z"), 400, "malformed_request")
        refused(await create(edge, {**idempotent(), **edge.bearer(key)}, citizen_nif=""), 400, "malformed_request")
        edge.core.rights = ["sign"]
        refused(await create(edge, {**idempotent(), **edge.bearer(key)}), 403, "not_permitted")


async def test_who_cannot_prove_who_they_are_is_refused(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        once = edge.bearer(key)
        assert (await create(edge, {**idempotent(), **once})).status_code == 201
        answer = await create(edge, {**idempotent(), **once})
        assert (
            refused(answer, 401, "caller_refused")["detail"]
            == CallerRefused("the caller could not prove who it is").public_detail
        )
        assert answer.headers["www-authenticate"] == "Bearer"
        for wrong in ("Basic YTpi", "Bearer", "Bearer a.b.c", "Bearer not-a-link"):
            refused(await create(edge, {**idempotent(), "Authorization": wrong}), 401, "caller_refused")
        other = edge.core.register_client("other", "Other")
        refused(await create(edge, {**idempotent(), **edge.bearer(other)}), 401, "caller_refused")


async def test_a_foreign_transaction_looks_like_none(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        ours = edge.core.register_client(AGENCY, AGENCY_NAME)
        theirs = edge.core.register_client("other", "Other")
        created = (await create(edge, {**idempotent(), **edge.bearer(ours)})).json()
        own_id, own_link = await edge.own_transaction()
        someone_elses = {"Authorization": f"Bearer {own_link}"}
        agencys_link = {"Authorization": f"Bearer {created['link_token']}"}
        unknown = "0" * 26
        browser = edge.browser()
        for transaction_id, foreign in (
            (created["id"], lambda: edge.bearer(theirs, "other")),
            (created["id"], lambda: someone_elses),
            # An agency's link opens the review page and nothing else.
            (created["id"], lambda: agencys_link),
            (own_id, lambda: edge.bearer(ours)),
            (own_id, lambda: agencys_link),
        ):
            for method, path in (
                ("GET", ""),
                ("GET", "/documents/1"),
                ("GET", "/documents/1/original"),
                ("GET", "/receipt"),
                ("POST", "/submit"),
                ("DELETE", ""),
            ):
                answers = [
                    await browser.request(
                        method, f"/v1/transactions/{each}{path}", headers={**foreign(), **idempotent()}
                    )
                    for each in (transaction_id, unknown)
                ]
                shown = [refused(answer, 404, "not_found") for answer in answers]
                assert shown[0]["detail"] == shown[1]["detail"]
            refused(await put(edge, transaction_id, foreign()), 404, "not_found")
        assert (await edge.status(own_id, own_link))["state"] == "SUBMITTED"


async def test_upload_limits_by_who_asks(tmp_path: Path) -> None:
    limits = Limits(citizen_bytes=100, citizen_documents=2, agency_bytes=200, agency_documents=3)
    async with an_edge(tmp_path, limits=limits) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        two, three, four = ([{"title": "x"}] * count for count in (2, 3, 4))
        citizens = (await create(edge, idempotent(), documents=two)).json()
        agencys = (await create(edge, {**idempotent(), **edge.bearer(key)}, documents=three)).json()
        refused(await create(edge, idempotent(), documents=three), 400, "malformed_request")
        refused(await create(edge, {**idempotent(), **edge.bearer(key)}, documents=four), 400, "malformed_request")
        link = {"Authorization": f"Bearer {citizens['link_token']}"}
        exactly, more = PDF.ljust(100, b"x"), PDF.ljust(101, b"x")
        assert (await put(edge, citizens["id"], link, exactly)).status_code == 200
        refused(await put(edge, citizens["id"], link, more), 413, "document_too_large")
        assert (await put(edge, agencys["id"], edge.bearer(key), more)).status_code == 200
        for beyond in (PDF.ljust(201, b"x"), b"%PDF" + b"x" * 5_000_000):
            refused(await put(edge, agencys["id"], edge.bearer(key), beyond), 413, "document_too_large")

        async def undeclared() -> Any:
            for _ in range(40):
                yield b"%PDF-xxxxx"

        refused(await put(edge, agencys["id"], edge.bearer(key), undeclared()), 413, "document_too_large")
        assert list((tmp_path / "documents" / "scratch").iterdir()) == []


async def test_what_cannot_be_signed_is_refused_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        created = (await create(edge, idempotent())).json()
        link = {"Authorization": f"Bearer {created['link_token']}"}
        bad = await put(edge, created["id"], link, b"GIF89a")
        assert refused(bad, 422, "unsupported_document")["detail"] == "this is not a PDF"
        stored = [path for path in (tmp_path / "documents").rglob("*") if path.is_file()]
        assert stored == []
        wrong_type = await edge.browser().put(
            f"/v1/transactions/{created['id']}/documents/1", content=PDF, headers={**link, "Content-Type": "text/html"}
        )
        refused(wrong_type, 400, "malformed_request")
        refused(await put(edge, created["id"], link, number=2), 404, "not_found")
        early = await edge.browser().post(f"/v1/transactions/{created['id']}/submit", headers={**link, **idempotent()})
        refused(early, 409, "state_conflict")
        status = await edge.status(created["id"], created["link_token"])
        assert status["next_step"] == {"action": "upload", "documents": [1], "url": ""}


async def test_a_document_may_be_replaced_until_submitted(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        created = (await create(edge, idempotent())).json()
        link = {"Authorization": f"Bearer {created['link_token']}"}
        await put(edge, created["id"], link, PDF + b"first")
        second = (await put(edge, created["id"], link, PDF + b"second")).json()
        expected = base64.urlsafe_b64encode(hashlib.sha256(PDF + b"second").digest()).rstrip(b"=").decode()
        assert second["sha256"] == expected
        assert second["state"] == "RECEIVED"
        stored = [path for path in (tmp_path / "documents").rglob("*") if path.is_file()]
        assert len(stored) == 1
        assert stored[0].stat().st_mode & 0o777 == 0o600
        once = idempotent()
        url = f"/v1/transactions/{created['id']}"
        submitted = await edge.browser().post(f"{url}/submit", headers={**link, **once})
        assert submitted.json()["state"] == "SUBMITTED"
        assert (await edge.browser().post(f"{url}/submit", headers={**link, **once})).json() == submitted.json()
        refused(await edge.browser().post(f"{url}/submit", headers={**link, **idempotent()}), 409, "state_conflict")
        refused(await put(edge, created["id"], link), 409, "state_conflict")
        original = await edge.browser().get(f"{url}/documents/1/original", headers=link)
        assert original.content == PDF + b"second"
        assert original.headers["content-disposition"] == 'attachment; filename="original-1.pdf"'
        refused(await edge.browser().get(f"{url}/documents/1", headers=link), 404, "not_found")
        refused(await edge.browser().get(f"{url}/receipt", headers=link), 404, "not_found")


async def test_cancelling_removes_documents_and_may_come_twice(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        headers = {"Authorization": f"Bearer {link}"}
        for _ in range(2):
            answer = await edge.browser().delete(f"/v1/transactions/{transaction_id}", headers=headers)
            assert answer.status_code == 204
        assert [path for path in (tmp_path / "documents").rglob("*") if path.is_file()] == []
        assert (await edge.status(transaction_id, link))["state"] == "CANCELLED"
        review = await edge.browser().get(f"/review/{link}")
        assert review.json()["request_id"] == ""
        assert edge.core.calls["Stage"] == 0


async def test_what_outlived_its_time_is_removed(tmp_path: Path) -> None:
    async with an_edge(tmp_path, limits=Limits(life_seconds=60)) as edge:
        transaction_id, link = await edge.own_transaction()
        assert await edge.transactions.purge() == 0
        edge.clock.advance(61)
        refused(await edge.browser().get(f"/review/{link}"), 410, "request_expired")
        assert await edge.transactions.purge() == 1
        assert await edge.transactions.purge() == 0
        assert (await edge.status(transaction_id, link))["state"] == "EXPIRED"
        assert [path for path in (tmp_path / "documents").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("  Solicitud \t de\nbeca ", "Solicitud de beca"),
        ("factura\u202efdp.exe", "facturafdp.exe"),
        ("a\u0000\u0007b\u200b\u2066c", "abc"),
        ("n\u0303", "ñ"),
        ("x" * 200, "x" * 119 + "…"),
    ],
)
async def test_titles_hide_nothing(tmp_path: Path, given: str, shown: str) -> None:
    async with an_edge(tmp_path) as edge:
        created = await create(edge, idempotent(), documents=[{"title": given}])
        assert created.json()["documents"][0]["title"] == shown


async def test_a_title_without_anything_to_see_is_refused(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        answer = await create(edge, idempotent(), documents=[{"title": "\u202e\u200b "}])
        refused(answer, 400, "malformed_request")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"level": "B-Z"}, "malformed_request"),
        ({"format": "cades"}, "malformed_request"),
        ({"format": "xades", "level": "B-LTA"}, "algorithm_not_allowed"),
        ({"packaging": "around"}, "malformed_request"),
        ({"packaging": "detached"}, "algorithm_not_allowed"),
        ({"algorithm": "HS256"}, "algorithm_not_allowed"),
        ({"citizen_nif": "1234"}, "malformed_request"),
        ({"documents": []}, "malformed_request"),
        ({"unknown": 1}, "malformed_request"),
    ],
)
async def test_what_is_not_offered_is_refused(tmp_path: Path, fields: dict[str, Any], code: str) -> None:
    async with an_edge(tmp_path) as edge:
        answer = await create(edge, idempotent(), **fields)
        refused(answer, 422 if code == "algorithm_not_allowed" else 400, code)
