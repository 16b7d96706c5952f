"""A link that another browser opens: looking takes nothing away, and taking over is an act of its own."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from rubrica_client import RubricaProblem
from tests.testkit.edge import an_edge, code_of, reviewed


async def taken_over(link: str, browser: httpx.AsyncClient) -> dict[str, Any]:
    answer = await browser.post(f"/review/{link}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_same_browser_sees_the_same_request_and_another_one_may_take_over(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        desk, phone = edge.browser(), edge.browser()
        at_the_desk = await reviewed(edge, link, desk)
        assert (await reviewed(edge, link, desk))["request_id"] == at_the_desk["request_id"]
        assert edge.core.calls["Stage"] == 1
        on_the_phone = await taken_over(link, phone)
        assert on_the_phone["request_id"] != at_the_desk["request_id"]
        # An approval of the superseded request ends here: nothing is redeemed.
        late = await desk.get(await edge.approved(at_the_desk))
        assert (late.status_code, code_of(late)) == (410, "request_expired")
        assert edge.core.calls["Redeem"] == 0
        assert (await phone.get(await edge.approved(on_the_phone))).json()["state"] == "DONE"
        prepared = [path for path in (tmp_path / "documents").rglob("*") if path.is_file()]
        assert len(prepared) == 3  # original, prepared, signed: nothing is left of the superseded request


async def refused_elsewhere(link: str, browser: httpx.AsyncClient, *methods: str) -> None:
    for method in methods:
        answer = await browser.request(method, f"/review/{link}")
        assert (answer.status_code, code_of(answer)) == (409, "state_conflict")
        assert "set-cookie" not in answer.headers


async def test_looking_at_the_link_takes_nothing_away(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        transaction_id, link = await edge.own_transaction()
        # Who asks for the head only, as scanners of mail do, opens nothing.
        assert (await edge.browser().head(f"/review/{link}")).status_code == 200
        assert (await edge.browser().head(f"/review/{'x' * 43}")).status_code == 404
        assert (await edge.status(transaction_id, link))["state"] == "SUBMITTED"
        desk = edge.browser()
        page = await reviewed(edge, link, desk)
        await refused_elsewhere(link, edge.browser(), "GET")
        assert edge.core.calls["Stage"] == 1
        assert (await desk.get(await edge.approved(page))).json()["state"] == "DONE"


async def test_nobody_takes_over_while_a_code_is_awaited(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        desk, phone = edge.browser(), edge.browser()
        page = await reviewed(edge, link, desk)
        # A wrong code spends one of three: the other two are still awaited, and nobody tells them apart.
        with pytest.raises(RubricaProblem):
            await edge.approved(page, otp="999999")
        await refused_elsewhere(link, phone, "GET", "POST")
        assert (await reviewed(edge, link, desk))["request_id"] == page["request_id"]
        edge.core.pending.clear()  # its five minutes are over
        on_the_phone = await taken_over(link, phone)
        await refused_elsewhere(link, desk, "GET")
        assert (await phone.get(await edge.approved(on_the_phone))).json()["state"] == "DONE"


async def test_an_approved_request_is_not_taken_away(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        desk = edge.browser()
        back = await edge.approved(await reviewed(edge, link, desk))
        await refused_elsewhere(link, edge.browser(), "GET", "POST")
        assert (await desk.get(back)).json()["state"] == "DONE"
