"""From the review page to signed documents: who may redeem, what a repeated or broken step leads to."""

import asyncio
import copy
import sqlite3
from pathlib import Path
from typing import Any

import grpc
import pytest

from domain.errors import ActivationError, Busy, CredentialSuspended, MalformedRequest
from tests.testkit.core_simulator import LOST, CoreSimulator
from tests.testkit.edge import (
    AGENCY,
    AGENCY_NAME,
    PDF,
    RETURN_URL,
    TextWorker,
    an_edge,
    code_of,
    idempotent,
    reviewed,
)
from tests.testkit.time import FrozenClock


async def test_the_review_page_shows_what_is_staged_and_marks_the_browser(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction(PDF + b"a", PDF + b"b")
        browser = edge.browser()
        answer = await browser.get(f"/review/{link}")
        page = answer.json()
        name = f"__Host-rubrica-{page['request_id']}"
        (cookie,) = answer.headers.get_list("set-cookie")
        assert cookie.startswith(f"{name}=")
        for attribute in ("Secure", "HttpOnly", "SameSite=lax", "Path=/", "Max-Age=3600"):
            assert attribute in cookie
        assert "Domain" not in cookie
        staged = edge.core.staged[page["request_id"]]
        assert [item.purpose.value for item in staged.items] == ["certificate", "sign", "sign"]
        assert [item.title for item in staged.items[1:]] == [document["title"] for document in page["documents"]]
        assert staged.return_url == "https://edge.test/return"
        # What may be downloaded is, octet by octet, what the staged digests are over.
        for document, item in zip(page["documents"], staged.items[1:], strict=True):
            octets = (await browser.get(document["url"])).content
            assert type(item.digests[0]).of(octets) == item.digests[0]
            assert code_of(await edge.browser().get(document["url"])) == "not_found"


async def test_the_cookie_is_kept_as_a_hash_and_secrets_are_sealed(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        body = {"documents": [{"title": "x"}], "citizen_nif": "12345678Z", "level": "B-T"}
        system = edge.browser()
        created = (
            await system.post("/v1/transactions", json=body, headers={**idempotent(), **edge.bearer(key)})
        ).json()
        url = f"/v1/transactions/{created['id']}"
        await system.put(
            f"{url}/documents/1", content=PDF, headers={"Content-Type": "application/pdf", **edge.bearer(key)}
        )
        await system.post(f"{url}/submit", headers={**idempotent(), **edge.bearer(key)})
        browser = edge.browser()
        page = await reviewed(edge, created["link_token"], browser)
        back = await edge.approved(page)
        edge.core.faults["Sign"] = [Busy("later")]
        assert (await browser.get(back)).json()["state"] == "SIGNING"
        staged = edge.core.staged[page["request_id"]]
        (grant,) = [grant for grant, client in edge.core.grants.items() if client == AGENCY and grant]
        cookie = next(iter(browser.cookies.values()))
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("edge.db*"))
        for secret in (
            staged.sad,
            staged.r,
            staged.code,
            grant.encode(),
            b"12345678Z",
            created["link_token"].encode(),
            cookie.encode(),
        ):
            assert len(secret) > 5
            assert secret not in kept


async def test_only_the_browser_that_opened_the_review_page_redeems(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        page = await reviewed(edge, link, browser)
        back = await edge.approved(page)
        stranger, forger = edge.browser(), edge.browser()
        forger.cookies.set(f"__Host-rubrica-{page['request_id']}", "A" * 43, domain="edge.test")
        unknown = back.copy_set_param("request", "0" * 26)
        refusals = [
            (await client.get(address)).json()
            for client, address in ((stranger, back), (forger, back), (stranger, unknown), (browser, unknown))
        ]
        assert {(refusal["code"], refusal["detail"]) for refusal in refusals} == {
            ("not_found", "no such request in this browser")
        }
        assert edge.core.calls["Redeem"] == edge.core.calls["Sign"] == 0
        assert (await edge.status(transaction_id, link))["state"] == "REVIEWED"
        assert (await browser.get(back)).json()["state"] == "DONE"


async def test_the_return_address_may_be_loaded_again(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        page = await reviewed(edge, link, browser)
        back = await edge.approved(page)
        first, second = await asyncio.gather(browser.get(back), browser.get(back))
        again = await browser.get(back)
        assert first.json() == second.json() == again.json()
        assert first.json()["state"] == "DONE"
        assert edge.core.calls["Redeem"] == 1
        assert edge.worker.finished == 1
        signed = await browser.get(page["documents"][0]["url"])
        assert signed.content.endswith(b"signed B-T")
        collected = await edge.browser().get(
            f"/v1/transactions/{transaction_id}/documents/1", headers={"Authorization": f"Bearer {link}"}
        )
        assert collected.content == signed.content


async def test_an_agency_gets_its_citizen_back_with_a_result(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME, RETURN_URL)
        body = {"documents": [{"title": "x"}], "citizen_nif": "12345678Z", "level": "B-B", "return_url": RETURN_URL}
        system = edge.browser()

        async def returned(sign_fault: Any = None) -> str:
            answer = await system.post("/v1/transactions", json=body, headers={**idempotent(), **edge.bearer(key)})
            created = answer.json()
            url = f"/v1/transactions/{created['id']}"
            await system.put(
                f"{url}/documents/1", content=PDF, headers={"Content-Type": "application/pdf", **edge.bearer(key)}
            )
            await system.post(f"{url}/submit", headers={**idempotent(), **edge.bearer(key)})
            browser = edge.browser()
            back = await edge.approved(await reviewed(edge, created["link_token"], browser))
            edge.core.faults["Sign"] = [sign_fault] if sign_fault else []
            answer = await browser.get(back)
            assert answer.status_code == 303
            assert (await browser.get(back)).headers["location"] == answer.headers["location"]
            return str(answer.headers["location"])

        assert (await returned()).startswith(f"{RETURN_URL}&result=ey")
        refused = await returned(CredentialSuspended("the certificate is suspended"))
        assert refused == f"{RETURN_URL}&error=credential_suspended"


async def test_whose_code_got_lost_may_begin_again_in_the_same_browser(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        desk = edge.browser()
        first = await reviewed(edge, link, desk)
        await edge.approved(first)
        second = await reviewed(edge, link, desk)
        assert second["request_id"] != first["request_id"]
        assert (await desk.get(await edge.approved(second))).json()["state"] == "DONE"


async def test_an_expired_request_is_prepared_again(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        browser = edge.browser()
        first = await reviewed(edge, link, browser)
        back = await edge.approved(first)
        edge.clock.advance(3601)
        late = await browser.get(back)
        assert (late.status_code, code_of(late)) == (410, "request_expired")
        assert edge.core.calls["Redeem"] == 0
        second = await reviewed(edge, link, browser)
        assert second["request_id"] != first["request_id"]
        assert second["documents"][0]["digest"] != first["documents"][0]["digest"]


async def test_a_wrong_code_does_not_spoil_the_right_one(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        page = await reviewed(edge, link, browser)
        back = await edge.approved(page)
        wrong = await browser.get(back.copy_set_param("code", "A" * 43))
        assert (wrong.status_code, code_of(wrong)) == (403, "activation_refused")
        assert edge.core.staged[page["request_id"]].signed == {}
        for garbage in ("", "A", "%%%", "A" * 44, "Ä" * 43):
            answer = await browser.get(back.copy_set_param("code", garbage))
            assert (answer.status_code, code_of(answer)) == (400, "malformed_request")
        assert (await edge.status(transaction_id, link))["state"] == "REVIEWED"
        assert (await browser.get(back)).json()["state"] == "DONE"


@pytest.mark.parametrize("method", ["Redeem", "Sign"])
@pytest.mark.parametrize("fault", [LOST, grpc.StatusCode.UNAVAILABLE, Busy("a queue is full")])
async def test_a_lost_answer_is_asked_for_again(tmp_path: Path, method: str, fault: Any) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction(PDF + b"a", PDF + b"b")
        browser = edge.browser()
        page = await reviewed(edge, link, browser)
        back = await edge.approved(page)
        edge.core.faults[method] = [fault]
        assert (await browser.get(back)).json()["next_step"]["action"] == "wait"
        assert await edge.signing.resume_due() == 0  # not before its time
        edge.clock.advance(2)
        assert await edge.signing.resume_due() == 1
        assert (await edge.status(transaction_id, link))["state"] == "DONE"
        assert not edge.core.staged[page["request_id"]].sad_dead
        assert edge.worker.finished == 2


async def test_a_batch_goes_on_after_a_crash_between_its_chunks(tmp_path: Path) -> None:
    clock = FrozenClock()
    core, worker = CoreSimulator(clock), TextWorker()
    documents = [PDF + str(number).encode() for number in range(25)]
    async with an_edge(tmp_path, core=core, clock=clock, worker=worker, limits=None) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        body = {
            "documents": [{"title": f"n {number}"} for number in range(25)],
            "citizen_nif": "12345678Z",
            "level": "B-T",
        }
        system = edge.browser()
        created = (
            await system.post("/v1/transactions", json=body, headers={**idempotent(), **edge.bearer(key)})
        ).json()
        url = f"/v1/transactions/{created['id']}"
        for number, document in enumerate(documents, start=1):
            await system.put(
                f"{url}/documents/{number}",
                content=document,
                headers={"Content-Type": "application/pdf", **edge.bearer(key)},
            )
        await system.post(f"{url}/submit", headers={**idempotent(), **edge.bearer(key)})
        browser = edge.browser()
        back = await edge.approved(await reviewed(edge, created["link_token"], browser))
        core.faults["Sign"] = [LOST, LOST]
        await browser.get(back)
        assert core.calls["Sign"] == 1
    # The edge is gone and comes back; nobody loads a page.
    with sqlite3.connect(tmp_path / "edge.db") as database:
        database.execute("UPDATE transactions SET claimed_until = 0")
    async with an_edge(tmp_path, core=core, clock=clock, worker=worker) as edge:
        clock.advance(2)
        await edge.signing.resume_due()
        clock.advance(4)
        await edge.signing.resume_due()
        answer = await edge.browser().get(url, headers=edge.bearer(key))
        assert answer.json()["state"] == "DONE"
        assert {document["state"] for document in answer.json()["documents"]} == {"SIGNED"}
        (staged,) = core.staged.values()
        assert len(staged.signed) == 26
        assert worker.finished == 25


async def test_a_sad_that_expired_signs_nothing_more(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        page = await reviewed(edge, link, browser)
        back = await edge.approved(page)
        edge.core.faults["Sign"] = [grpc.StatusCode.UNAVAILABLE]
        await browser.get(back)
        edge.clock.advance(edge.core.sad_seconds)
        await edge.signing.resume_due()
        status = await edge.status(transaction_id, link)
        assert status["state"] == "FAILED"
        assert status["documents"][0]["failure"]["code"] == "request_expired"
        assert edge.core.staged[page["request_id"]].signed == {}
        assert edge.core.calls["Sign"] == 1


async def test_a_refusal_in_sign_fails_what_is_left_and_keeps_what_is_signed(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction(*(PDF + str(number).encode() for number in range(12)))
        browser = edge.browser()
        back = await edge.approved(await reviewed(edge, link, browser))
        edge.core.faults["Sign"] = [None, ActivationError("refused")]
        assert (await browser.get(back)).json()["state"] == "DONE"
        documents = (await edge.status(transaction_id, link))["documents"]
        assert [document["state"] for document in documents] == ["SIGNED"] * 9 + ["FAILED"] * 3
        assert {document["failure"]["code"] for document in documents[9:]} == {"activation_refused"}


async def test_without_a_timestamp_it_is_released_at_b_b_and_extended_later(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        page = await reviewed(edge, link, browser)
        edge.worker.tsa_down = True
        assert (await browser.get(await edge.approved(page))).json()["state"] == "DONE"
        document = (await edge.status(transaction_id, link))["documents"][0]
        assert (document["state"], document["level"]) == ("PARTIAL", "B-B")
        assert (await browser.get(page["documents"][0]["url"])).content.endswith(b"signed B-B")
        assert await edge.signing.resume_due() == 0
        edge.clock.advance(2)
        assert await edge.signing.resume_due() == 1
        edge.clock.advance(2)
        assert await edge.signing.resume_due() == 0  # the pause has doubled
        edge.worker.tsa_down = False
        edge.clock.advance(2)
        assert await edge.signing.resume_due() == 1
        document = (await edge.status(transaction_id, link))["documents"][0]
        assert (document["state"], document["level"]) == ("SIGNED", "B-T")
        assert (await browser.get(page["documents"][0]["url"])).content.endswith(b"signed B-T")
        assert edge.core.calls["Sign"] == 1
        assert await edge.signing.resume_due() == 0


async def test_one_document_that_cannot_be_finished_does_not_hold_back_the_others(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction(PDF + b"a", PDF + b"b", PDF + b"c")
        browser = edge.browser()
        back = await edge.approved(await reviewed(edge, link, browser))
        edge.worker.finish_fails = [MalformedRequest("no room for the signature"), ValueError("secret inside")]
        assert (await browser.get(back)).json()["state"] == "DONE"
        documents = (await edge.status(transaction_id, link))["documents"]
        assert [document["state"] for document in documents] == ["FAILED", "FAILED", "SIGNED"]
        assert [document["failure"] and document["failure"]["code"] for document in documents] == [
            "malformed_request",
            "internal",
            None,
        ]
        assert "secret" not in str(documents)


async def test_a_stage_that_fails_leaves_no_prepared_file(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        edge.core.faults["Stage"] = [grpc.StatusCode.UNAVAILABLE]
        answer = await edge.browser().get(f"/review/{link}")
        assert (answer.status_code, code_of(answer)) == (503, "dependency_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert len([path for path in (tmp_path / "documents").rglob("*") if path.is_file()]) == 1
        assert (await reviewed(edge, link))["state"] == "REVIEWED"


async def test_two_windows_at_the_same_moment_do_not_share_a_request(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        browsers = [edge.browser(), edge.browser()]
        answers = await asyncio.gather(*(browser.get(f"/review/{link}") for browser in browsers))
        shown = {answer.json()["request_id"] for answer in answers if answer.status_code == 200}
        assert len(shown) == len([answer for answer in answers if answer.status_code == 200])
        assert {answer.status_code for answer in answers} <= {200, 409}
        done = 0
        for browser, answer in zip(browsers, answers, strict=True):
            if answer.status_code == 200:
                back = await browser.get(await edge.approved(answer.json()))
                done += back.status_code == 200
        assert done == 1


async def test_a_cancelled_transaction_redeems_nothing(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        back = await edge.approved(await reviewed(edge, link, browser))
        bearer = {"Authorization": f"Bearer {link}"}
        assert (await browser.delete(f"/v1/transactions/{transaction_id}", headers=bearer)).status_code == 204
        answer = await browser.get(back)
        assert (answer.status_code, code_of(answer)) == (410, "request_expired")
        assert edge.core.calls["Redeem"] == 0


async def test_a_grant_is_renewed_by_its_own_client_and_its_end_is_told(
    tmp_path: Path,
) -> None:
    async with an_edge(tmp_path) as edge:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        other = edge.core.register_client("other", "Other")
        body = {"documents": [{"title": "x"}], "citizen_nif": "12345678Z", "level": "B-B"}
        system = edge.browser()
        created = (
            await system.post("/v1/transactions", json=body, headers={**idempotent(), **edge.bearer(key)})
        ).json()
        url = f"/v1/transactions/{created['id']}"
        await system.put(
            f"{url}/documents/1", content=PDF, headers={"Content-Type": "application/pdf", **edge.bearer(key)}
        )
        await system.post(f"{url}/submit", headers={**idempotent(), **edge.bearer(key)})
        assert list(edge.core.grants.values()) == [AGENCY]
        edge.core.grants.clear()
        answer = await edge.browser().get(f"/review/{created['link_token']}")
        assert (answer.status_code, code_of(answer)) == (410, "request_expired")
        edge.clock.advance(6 * 3600)
        assert (await system.get(url, headers=edge.bearer(other, "other"))).status_code == 404
        answer = await edge.browser().get(f"/review/{created['link_token']}")
        assert (answer.status_code, code_of(answer)) == (410, "request_expired")
        assert (await system.get(url, headers=edge.bearer(key))).status_code == 200
        renewed = len(edge.core.grants)
        assert (await system.get(url, headers=edge.bearer(key))).status_code == 200
        assert len(edge.core.grants) == renewed
        page = await reviewed(edge, created["link_token"])
        assert edge.core.staged[page["request_id"]].client_id == AGENCY


@pytest.mark.parametrize(("seconds", "status"), [(-61, 503), (-60, 200), (60, 200), (61, 503)])
async def test_an_edge_with_another_clock_than_the_core_stages_nothing(
    tmp_path: Path, seconds: int, status: int
) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        edge.core.clock_error_seconds = seconds
        answer = await edge.browser().get(f"/review/{link}")
        assert answer.status_code == status
        if status != 200:
            assert code_of(answer) == "dependency_unavailable"
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(("heartbeat_seconds", "taken_over"), [(0.01, 0), (1000.0, 1)])
async def test_who_works_long_keeps_its_hold_and_who_falls_silent_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heartbeat_seconds: float, taken_over: int
) -> None:
    monkeypatch.setattr("api.transactions.signing.HEARTBEAT_SECONDS", heartbeat_seconds)
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        browser = edge.browser()
        back = await edge.approved(await reviewed(edge, link, browser))
        stuck, finish = asyncio.Event(), edge.worker.finish

        async def slowly(*arguments: Any, **named: Any) -> Any:
            await stuck.wait()
            return await finish(*arguments, **named)

        edge.worker.finish = slowly
        returning = asyncio.create_task(browser.get(back))
        while (await edge.status(transaction_id, link))["result_token"] == "":
            await asyncio.sleep(0.01)
        other = copy.copy(edge.signing)
        other._tasks = {}
        other._worker = TextWorker()
        for _ in range(3):
            edge.clock.advance(20)
            await asyncio.sleep(0.1)
        assert await other.resume_due() == taken_over
        assert (await edge.status(transaction_id, link))["state"] == ("DONE" if taken_over else "SIGNING")
        stuck.set()
        assert (await returning).json()["state"] == "DONE"
        collected = await browser.get(f"/review/{link}/documents/1")
        assert collected.content.endswith(b"signed B-T")
