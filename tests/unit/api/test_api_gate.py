"""The gate relays, says the same of right and wrong, and keeps nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import pytest

from api.middleware import SECURITY_HEADERS
from domain.errors import Busy, FactorLocked, WeakPassword
from rubrica_client import GateClient, RubricaProblem
from tests.testkit.core_simulator import ACTIVATION_CODE, EMAIL, LOST, NIF, PASSWORD
from tests.testkit.edge import GATE_URL, Bridge, Edge, an_edge

T = TypeVar("T")


async def at_the_gate(edge: Edge, play: Callable[[GateClient], T]) -> T:
    bridge = Bridge(edge.gate_app)

    def playing() -> T:
        with GateClient(GATE_URL, edge.core.token_key, transport=bridge) as gate:
            return play(gate)

    return await asyncio.to_thread(playing)


async def staged(edge: Edge) -> str:
    _, link = await edge.own_transaction()
    page = (await edge.browser().get(f"/review/{link}")).json()
    return str(page["request_id"])


async def test_describe_tells_every_part_that_is_hashed(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        request_id = await staged(edge)
        page = (await edge.gate().get(f"/v1/requests/{request_id}")).json()
        (document,) = page["items"][1:]
        digested = {"digests", "references"}
        assert document.keys() == {"purpose", "format", "packaging", "algorithm", "title", "fields"} | digested
        assert page["items"][0]["purpose"] == "certificate"
        unknown = await edge.gate().get("/v1/requests/nothing")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
        edge.clock.advance(3600)
        late = await edge.gate().get(f"/v1/requests/{request_id}")
        assert (late.status_code, late.json()["code"]) == (410, "request_expired")


@pytest.mark.parametrize(("nif", "password"), [(NIF, "wrong"), ("87654321X", PASSWORD), (NIF, PASSWORD)])
async def test_begin_says_the_same_of_right_and_wrong(tmp_path: Path, nif: str, password: str) -> None:
    async with an_edge(tmp_path) as edge:
        request_id = await staged(edge)
        pending = await at_the_gate(edge, lambda gate: gate.begin(gate.describe(request_id), nif, password))
        assert (pending.reference, pending.tries) == ("ABCDEF", 3)
        right = (nif, password) == (NIF, PASSWORD)
        if right:
            url = await at_the_gate(edge, lambda gate: gate.complete(pending, edge.core.otp))
            assert url.startswith("https://edge.test/return?request=")
        else:
            with pytest.raises(RubricaProblem) as refusal:
                await at_the_gate(edge, lambda gate: gate.complete(pending, edge.core.otp))
            assert (refusal.value.code, refusal.value.status) == ("factor_mismatch", 403)


async def test_three_tries_and_no_more(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        request_id = await staged(edge)
        pending = await at_the_gate(edge, lambda gate: gate.begin(gate.describe(request_id), NIF, PASSWORD))
        for otp in ("000000", "000001", "000002", edge.core.otp):
            with pytest.raises(RubricaProblem, match="factor_mismatch"):
                await at_the_gate(edge, lambda gate, otp=otp: gate.complete(pending, otp))  # type: ignore[misc]
        assert edge.core.staged[request_id].code == b""


async def test_a_lost_answer_is_given_again_for_the_same_envelope(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        request_id = await staged(edge)
        edge.core.faults["Begin"] = [LOST]
        edge.core.faults["Complete"] = [LOST]
        pending = await at_the_gate(edge, lambda gate: gate.begin(gate.describe(request_id), NIF, PASSWORD))
        assert len(edge.core.pending) == 1
        await at_the_gate(edge, lambda gate: gate.complete(pending, edge.core.otp))
        assert edge.core.calls["Begin"] == edge.core.calls["Complete"] == 2
        await at_the_gate(edge, lambda gate: gate.resend(pending))


async def test_a_message_is_asked_for_twice_alike_and_the_document_says_what_repeating_does(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        request_id = await staged(edge)
        pending = await at_the_gate(edge, lambda gate: gate.begin(gate.describe(request_id), NIF, PASSWORD))
        # The core's own bound (tests/unit/signer/test_repeats.py) is what makes the second one do nothing.
        for headers in ({"Idempotency-Key": "k" * 32}, {"Idempotency-Key": "k" * 32}, {}):
            answer = await edge.gate().post(f"/v1/challenges/{pending.challenge_id}/resend", headers=headers)
            assert (answer.status_code, answer.json()) == (202, {"status": "ok"})
        paths = edge.gate_app.openapi()["paths"]
        for path, operations in paths.items():
            if path.startswith("/v1/"):
                (operation,) = operations.values()
                (key,) = [each for each in operation["parameters"] if each["name"] == "Idempotency-Key"]
                assert "not needed" in key["description"], path
        assert "a minute apart" in paths["/v1/challenges/{challenge_id}/resend"]["post"]["description"]


async def test_activation_and_change_of_password(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:

        def activate(gate: GateClient) -> None:
            pending = gate.begin_activation(NIF.lower(), EMAIL, "abcd-2345-efgh-6789")
            gate.set_password(gate.complete_otp(pending, edge.core.otp), "Primera-clave-1")

        await at_the_gate(edge, activate)
        assert edge.core.password == "Primera-clave-1"

        def change(gate: GateClient) -> None:
            pending = gate.begin_password_change(NIF, "Primera-clave-1")
            gate.set_password(gate.complete_otp(pending, edge.core.otp), "Segunda-clave-2")

        await at_the_gate(edge, change)
        assert edge.core.password == "Segunda-clave-2"
        pending = await at_the_gate(edge, lambda gate: gate.begin_password_change(NIF, "wrong"))
        with pytest.raises(RubricaProblem, match="factor_mismatch"):
            await at_the_gate(edge, lambda gate: gate.complete_otp(pending, edge.core.otp))
        pending = await at_the_gate(edge, lambda gate: gate.begin_activation(NIF, "x@example.org", ACTIVATION_CODE))
        with pytest.raises(RubricaProblem, match="factor_mismatch"):
            await at_the_gate(edge, lambda gate: gate.complete_otp(pending, edge.core.otp))
        assert edge.core.password == "Segunda-clave-2"


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        (FactorLocked("too many failures", retry_after_seconds=900), 429, "factor_locked", 900),
        (WeakPassword("at least 8 characters"), 422, "weak_password", None),
        (Busy("a queue is full"), 503, "busy", 5),
        (grpc.StatusCode.UNAVAILABLE, 503, "dependency_unavailable", 1),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 503, "dependency_unavailable", 1),
        (grpc.StatusCode.INTERNAL, 500, "internal", None),
        (grpc.StatusCode.UNIMPLEMENTED, 500, "internal", None),
    ],
)
async def test_what_the_core_says_comes_out_as_a_problem(
    tmp_path: Path, fault: Any, status: int, code: str, retry_after: int | None
) -> None:
    async with an_edge(tmp_path) as edge:
        edge.core.faults["Challenge"] = [fault]
        answer = await edge.gate().post("/v1/challenges")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers.get("retry-after") == (None if retry_after is None else str(retry_after))
        assert "made to fail" not in answer.text


async def test_every_answer_carries_the_security_headers_and_no_cors(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        clients: list[tuple[httpx.AsyncClient, str]] = [
            (edge.gate(), "/v1/challenges"),
            (edge.browser(), "/v1/transactions"),
        ]
        for client, path in clients:
            for method, address in (("GET", "/healthz"), ("GET", "/nowhere"), ("POST", path), ("OPTIONS", path)):
                answer = await client.request(method, address, headers=origin)
                for name, value in SECURITY_HEADERS.items():
                    assert answer.headers[name] == value, (address, name)
                assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "frame-ancestors 'none'" in SECURITY_HEADERS["Content-Security-Policy"]


async def test_the_gate_takes_no_large_bodies(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        client = edge.gate()
        address = "/v1/requests/x/begin"

        async def undeclared() -> Any:
            for _ in range(64):
                yield b"[" * 1024

        for body in (b"{" + b" " * 16_384, undeclared()):
            answer = await client.post(address, content=body, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (413, "document_too_large")
        assert edge.core.calls["Begin"] == 0


async def test_what_was_sent_is_never_repeated(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        body = {"nif": NIF, "password": "Canario-123", "envelope": {"sap_id": "Canario-123", "nonce": "Canario 123"}}
        answer = await edge.gate().post("/v1/requests/x/begin", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
        assert "Canario" not in answer.text
        assert "envelope.enc" in answer.json()["detail"]
