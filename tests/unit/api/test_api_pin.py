"""Login by PIN over the gate's endpoints and the core's socket, as the client does it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from fastapi import FastAPI

from api.gate.app import create_app
from api.gate.endpoints import Relays
from authn.client import FactorsClient
from domain import identity
from domain.assurance import LoA
from domain.identity import IdentityInvalid
from hsm.keys import SigningKey
from rubrica.core_sockets import listening
from rubrica_client import GateClient, PendingPIN, RubricaProblem
from signer.client import SignatureAuthorisationClient
from tests.testkit.core import EDGE, NIF, Played, playing
from tests.testkit.edge import GATE_URL, Bridge
from tests.testkit.pin import AUDIENCE, EMAIL, NONCE, pin_in

T = TypeVar("T")


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    async with playing(tmp_path) as played:
        await played.register()
        yield played


@pytest.fixture
async def gate(tmp_path: Path, played: Played) -> AsyncIterator[FastAPI]:
    async def ready() -> None:
        return

    socket = tmp_path / "s" / "gate" / "core.sock"
    async with listening(tmp_path / "s", played.core), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        relays = Relays(authorisation=SignatureAuthorisationClient(channel), factors=FactorsClient(channel))
        yield create_app(relays, ready)


async def token_key(played: Played) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(await played.vault.public_key(SigningKey.TOKENS))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


async def at(gate: FastAPI, played: Played, play: Callable[[GateClient], T]) -> T:
    bridge, key = Bridge(gate), await token_key(played)

    def playing_() -> T:
        with GateClient(GATE_URL, key, transport=bridge) as client:
            return play(client)

    return await asyncio.to_thread(playing_)


async def begun(gate: FastAPI, played: Played, *, email: str = EMAIL) -> PendingPIN:
    return await at(
        gate, played, lambda client: client.begin_pin(NIF, email, " g-a t0 ", audience=AUDIENCE, nonce=NONCE)
    )


async def test_a_citizen_logs_in(gate: FastAPI, played: Played) -> None:
    pending = await begun(gate, played)
    await played.handed_over(pending.challenge_id)
    pin = pin_in(played, pending.challenge_id)
    token = await at(gate, played, lambda client: client.complete_pin(pending, pin.lower()))
    key, now = await token_key(played), played.core.clock.now()
    assert identity.verify(token, key, audience=AUDIENCE, nonce=NONCE, now=now).loa is LoA.LOW
    with pytest.raises(IdentityInvalid):
        identity.verify(token, key, audience=AUDIENCE, nonce="nonce-of-a-stranger-2", now=now)
    with pytest.raises(RubricaProblem) as again:
        await at(gate, played, lambda client: client.complete_pin(pending, pin))
    assert again.value.code == "factor_mismatch"


async def test_a_wrong_pin_and_a_stranger_are_told_the_same(gate: FastAPI, played: Played) -> None:
    told = []
    for email in (EMAIL, "other@example.org"):
        pending = await begun(gate, played, email=email)
        with pytest.raises(RubricaProblem) as refused:
            await at(gate, played, lambda client, pending=pending: client.complete_pin(pending, "222222"))
        told.append((refused.value.code, refused.value.detail, refused.value.status))
    assert told[0] == told[1]
    assert told[0][0] == "factor_mismatch"


async def test_what_the_gate_sees_holds_neither_code_nor_pin_nor_token(gate: FastAPI, played: Played) -> None:
    seen: list[bytes] = []
    bridge, key = Bridge(gate), await token_key(played)

    class Wire(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = bridge.handle_request(request)
            seen.extend((request.read(), response.read()))
            return response

    def play() -> str:
        with GateClient(GATE_URL, key, transport=Wire()) as client:
            pending = client.begin_pin(NIF, EMAIL, "QX7Z", audience=AUDIENCE, nonce=NONCE)
            asyncio.run_coroutine_threadsafe(played.handed_over(pending.challenge_id), loop).result(10)
            secrets.append(pin_in(played, pending.challenge_id))
            return client.complete_pin(pending, secrets[0])

    loop = asyncio.get_running_loop()
    secrets: list[str] = []
    token = await asyncio.to_thread(play)
    wire = b"".join(seen)
    assert NONCE.encode() in wire
    # Where the browser goes on is what the core's settings say.
    assert f'"return_url":"{EDGE}area/return"'.encode() in wire
    for secret in (*secrets, "QX7Z", token, token.split(".")[1]):
        assert secret.encode() not in wire


@pytest.mark.parametrize("step", ["begin", "complete"])
async def test_nobody_sends_a_browser_elsewhere(gate: FastAPI, step: str) -> None:
    envelope = {"sap_id": "a", "nonce": "AAAA", "enc": "A" * 87, "ciphertext": "AAAA"}
    asked = {"begin": {"nif": NIF, "email": EMAIL}, "complete": {"challenge_id": "0" * 26}}[step]
    body = {**asked, "audience": AUDIENCE, "nonce": NONCE, "envelope": envelope}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=GATE_URL) as client:
        answers = [
            (await client.post(f"/v1/pins/{step}", json=sent)).json()
            for sent in (body, {**body, "return_url": "https://elsewhere.example/"})
        ]
    assert "return_url" not in answers[0]["detail"]
    assert answers[1]["code"] == "malformed_request"
    assert "return_url" in answers[1]["detail"]


@pytest.mark.parametrize("missing", ["nif", "email", "audience", "nonce", "envelope"])
async def test_every_field_is_needed(gate: FastAPI, missing: str) -> None:
    envelope = {"sap_id": "a", "nonce": "AAAA", "enc": "A" * 87, "ciphertext": "AAAA"}
    body = {"nif": NIF, "email": EMAIL, "audience": AUDIENCE, "nonce": NONCE, "envelope": envelope}
    body.pop(missing)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=GATE_URL) as client:
        answer = await client.post("/v1/pins/begin", json=body)
    assert answer.json()["code"] == "malformed_request"
