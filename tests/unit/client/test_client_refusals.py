"""What the client does not believe, does not send and does not show."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from domain import jws as core_jws
from rubrica_client import AgencyClient, CitizenBrowser, GateClient, JWSInvalid, NewDocument, RubricaProblem, jws
from rubrica_client.gate import pinned_key
from rubrica_client.problems import send
from rubrica_client.sealing import StatementInvalid, checked_challenge, list_sha256
from tests.testkit.core_simulator import NIF, PASSWORD, CoreSimulator
from tests.testkit.edge import Bridge, an_edge
from tests.testkit.time import FrozenClock


def challenge_of(core: CoreSimulator) -> dict[str, Any]:
    answer = core.Challenge(None)
    return {
        "nonce": jws.base64url(answer.nonce),
        "sap_id": answer.sap_id,
        "sap_public_key": jws.base64url(answer.sap_public_key),
        "statement": answer.statement,
    }


def test_a_challenge_is_believed_by_the_pinned_key_only() -> None:
    core = CoreSimulator(FrozenClock())
    good = challenge_of(core)
    assert checked_challenge(good, core.token_key).sap_public_key == core.sap_point
    other = ec.generate_private_key(ec.SECP256R1())
    point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    claims = jws.verify(good["statement"], core.token_key, kind="sap+jwt")
    forged: list[dict[str, Any]] = [
        {**good, "sap_public_key": jws.base64url(point)},
        {**good, "sap_id": "another"},
        {**good, "statement": jws.sign({"typ": "sap+jwt"}, {**claims, "key": jws.base64url(point)}, other)},
        {**good, "statement": core.token("result+jwt", claims)},
        {**good, "statement": core.token("sap+jwt", {**claims, "exp": None})},
        {**good, "statement": ""},
        {key: value for key, value in good.items() if key != "statement"},
        {**good, "nonce": "%"},
    ]
    for challenge in forged:
        with pytest.raises(StatementInvalid):
            checked_challenge(challenge, core.token_key)
    with pytest.raises(StatementInvalid):
        checked_challenge(good, other.public_key())


async def test_nothing_is_sealed_to_a_gate_with_a_key_of_its_own(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        page = (await edge.browser().get(f"/review/{link}")).json()
        stranger = ec.generate_private_key(ec.SECP256R1()).public_key()
        bridge = Bridge(edge.gate_app)

        def begin() -> None:
            with GateClient("https://gate.test", stranger, transport=bridge) as gate:
                gate.begin(gate.describe(page["request_id"]), NIF, PASSWORD)

        with pytest.raises(StatementInvalid):
            await asyncio.to_thread(begin)
        assert edge.core.calls["Begin"] == 0


async def test_a_gate_that_asks_for_another_list_than_was_shown_gets_no_password(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        browser = CitizenBrowser(
            edge.core.token_key, edge_transport=Bridge(edge.app), gate_transport=Bridge(edge.gate_app)
        )

        def play(change: Callable[[str], None]) -> None:
            review = browser.review(f"https://edge.test/review/{link}")
            change(review.request_id)
            browser.begin(review, NIF, PASSWORD)

        def another_document(request_id: str) -> None:
            staged = edge.core.staged[request_id]
            digest = type(staged.items[1].digests[0]).of(b"another document")
            object.__setattr__(staged.items[1], "digests", (digest,))

        def one_more(request_id: str) -> None:
            staged = edge.core.staged[request_id]
            staged.items = (*staged.items, staged.items[1])

        for change in (another_document, one_more):
            with pytest.raises(RubricaProblem, match="shown_differs"):
                await asyncio.to_thread(play, change)
        assert edge.core.calls["Begin"] == 0


def item(**changes: Any) -> dict[str, Any]:
    digest = {"algorithm": "sha256", "value": jws.base64url(hashlib.sha256(b"x").digest())}
    plain = {"purpose": "sign", "format": "pades", "packaging": "enveloped", "algorithm": "ES256", "title": "t"}
    return {**plain, "digests": [digest], "fields": {}, **changes}


def test_every_part_of_the_list_names_it() -> None:
    other = {"algorithm": "sha256", "value": jws.base64url(hashlib.sha256(b"y").digest())}
    lists = [
        [item()],
        [item(), item()],
        [item(title="u")],
        [item(purpose="certificate")],
        [item(algorithm="RS256")],
        [item(format="")],
        [item(packaging="")],
        [item(digests=[other])],
        [item(digests=[other, other])],
        [item(fields={"commitment_type": "proof_of_origin"})],
    ]
    assert len({list_sha256(each) for each in lists}) == len(lists)


def test_tokens_agree_with_the_core_and_forged_ones_are_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"aud": "sede", "name": "Begoña"}
    token = jws.sign({"typ": "result+jwt"}, claims, key)
    assert core_jws.verify(token, key.public_key()) == claims
    assert jws.verify(token, key.public_key(), kind="result+jwt") == claims
    header, body, signature = token.split(".")
    none = jws.base64url(b'{"alg":"none","typ":"result+jwt"}')
    changed = jws.base64url(b'{"aud":"other"}')
    array = jws.base64url(b"[]")
    forged = [
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{header}.{changed}.{signature}",
        f"{header}.{array}.{signature}",
        f"{header}.{body}.{signature[:-4]}",
        f"{header}.{body}",
        "",
        token + ".",
    ]
    for each in forged:
        with pytest.raises(JWSInvalid):
            jws.verify(each, key.public_key(), kind="result+jwt")
    with pytest.raises(JWSInvalid):
        jws.verify(token, key.public_key(), kind="receipt+jwt")
    with pytest.raises(JWSInvalid):
        jws.verify(token, ec.generate_private_key(ec.SECP256R1()).public_key(), kind="result+jwt")


def test_a_result_is_for_one_client_one_nonce_and_a_while() -> None:
    core = CoreSimulator(FrozenClock())
    now = [1000.0]
    key = ec.generate_private_key(ec.SECP256R1())
    agency = AgencyClient("https://edge.test", "sede", key, now=lambda: now[0])
    claims = {"aud": "sede", "nonce": "n", "exp": 1001}
    token = core.token("result+jwt", claims)
    pem = core.token_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert agency.verify_result(token, pem, nonce="n") == claims
    assert agency.verify_result(token, core.token_key, nonce="n") == claims
    for wrong in ({"aud": "other"}, {"nonce": "m"}, {"exp": 1000}, {"exp": "1001"}, {"exp": None}):
        with pytest.raises(JWSInvalid):
            agency.verify_result(core.token("result+jwt", {**claims, **wrong}), pem, nonce="n")
    now[0] = 1001.0
    with pytest.raises(JWSInvalid, match="over"):
        agency.verify_result(token, pem, nonce="n")
    with pytest.raises(JWSInvalid):
        agency.verify_receipt(token, pem)
    with pytest.raises(ValueError, match="P-256"):
        pinned_key(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://127.0.0.1:1/return", True),
        ("http://localhost:1/return", True),
        ("http://edge.example/return", False),
        ("http://127.0.0.1.evil.example/return", False),
        ("https://edge.example/return", True),
    ],
)
def test_secure_cookies_go_where_a_browser_sends_them(url: str, sent: bool) -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("cookie"))
        cookies = [
            ("Set-Cookie", "__Host-rubrica-A=v; Secure; HttpOnly; Path=/; SameSite=lax"),
            ("Set-Cookie", "__Host-rubrica-B=v; Path=/"),
            ("Set-Cookie", f"__Host-rubrica-C=v; Secure; Path=/; Domain={request.url.host}"),
        ]
        return httpx.Response(200, headers=cookies, json={"state": "DONE"})

    core = CoreSimulator(FrozenClock())
    with CitizenBrowser(core.token_key, edge_transport=httpx.MockTransport(answer)) as browser:
        browser.follow(url)
        browser.follow(url)
    assert seen == [None, "__Host-rubrica-A=v" if sent else None]


def test_sending_again_stops_at_what_is_final() -> None:
    pauses: list[float] = []

    def play(*answers: int | Exception) -> Any:
        left = list(answers)

        def make() -> httpx.Response:
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            headers = {"Retry-After": "3"} if answer == 503 else {}
            return httpx.Response(answer, headers=headers, json={"code": "busy", "detail": "d"})

        pauses.clear()
        try:
            return send(make, sleep=pauses.append).status_code
        except RubricaProblem as problem:
            return problem.code, problem.status, len(left)

    assert play(200) == 200
    assert play(503, httpx.ConnectError("secret"), 201) == 201
    assert pauses == [3, 0.5]
    assert play(409, 200) == ("busy", 409, 1)
    assert play(503, 503, 503, 503, 200) == ("busy", 503, 1)
    assert play(*[httpx.ReadTimeout("secret in the address")] * 4, 200) == ("no_answer", 0, 1)


def test_each_try_proves_anew_who_asks() -> None:
    seen: list[dict[str, Any]] = []
    key = ec.generate_private_key(ec.SECP256R1())

    def answer(request: httpx.Request) -> httpx.Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        seen.append({**core_jws.verify(token, key.public_key()), "key": request.headers["idempotency-key"]})
        if len(seen) == 1:
            raise httpx.ConnectError("lost")
        return httpx.Response(201, json={"id": "1", "review_url": "u", "link_token": "l"})

    agency = AgencyClient("https://edge.test", "sede", key, transport=httpx.MockTransport(answer))
    created = agency.create([NewDocument("x")], citizen_nif=NIF)
    first, second = seen
    assert first["jti"] != second["jti"]
    assert first["key"] == second["key"]
    assert (first["iss"], first["sub"], first["aud"]) == ("sede", "sede", "https://edge.test")
    assert 0 < first["exp"] - first["iat"] <= 300
    assert abs(first["iat"] - time.time()) < 60
    assert "link_token" not in repr(created)


async def test_secrets_do_not_show(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        page = (await edge.browser().get(f"/review/{link}")).json()
        bridge = Bridge(edge.gate_app)

        def shown() -> tuple[Any, ...]:
            with GateClient("https://gate.test", edge.core.token_key, transport=bridge) as gate:
                pending = gate.begin(gate.describe(page["request_id"]), NIF, PASSWORD)
                change = gate.begin_password_change(NIF, PASSWORD)
                token = gate.complete_otp(change, edge.core.otp)
                with pytest.raises(RubricaProblem) as refusal:
                    gate.complete(pending, "999999")
                return pending, change, token, refusal.value, gate

        things = await asyncio.to_thread(shown)
        told = repr(things) + "".join(str(thing) for thing in things)
        for secret in (PASSWORD, "999999", edge.core.otp, repr(things[0].cs), repr(things[2].token)):
            assert secret not in told
