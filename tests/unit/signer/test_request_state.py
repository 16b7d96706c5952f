"""What an edge and a gate learn about a staged request before anybody gives a secret for it."""

from pathlib import Path
from typing import Any

import pytest

from domain.errors import RequestExpired
from signer.proto import signer_pb2
from signer.service import SignatureActivationServicer, SignatureAuthorisationServicer
from tests.testkit.core import NIF, PASSWORD, Played, playing
from tests.testkit.time import FrozenClock


async def state(played: Played, request_id: str) -> str:
    core = played.core
    edge = SignatureActivationServicer(
        core.engine, core.clock, core.activation, core.signing, core.requests, core.approvals
    )
    asked: Any = signer_pb2.RequestStateRequest(request_id=request_id)
    return str((await edge.RequestState(asked, None)).state)


async def described(played: Played, request_id: str) -> Any:
    asked: Any = signer_pb2.DescribeRequest(request_id=request_id)
    gate = SignatureAuthorisationServicer(played.core.activation)
    return await gate.Describe(asked, None)


@pytest.mark.parametrize(("nif", "password"), [(NIF, PASSWORD), (NIF, "not the password"), ("99999999R", PASSWORD)])
async def test_a_code_is_awaited_whether_it_opens_anything_or_not(tmp_path: Path, nif: str, password: str) -> None:
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        staged = await played.stage()
        assert await state(played, staged.id) == "STAGED"
        await played.begin(staged, nif=nif, password=password)
        assert await state(played, staged.id) == "PENDING"
        assert await state(played, (await played.stage()).id) == "STAGED"
        clock.advance(5 * 60 + 1)
        assert await state(played, staged.id) == "STAGED"


async def test_the_gate_learns_where_to_go_back_to_and_what_was_approved_before(tmp_path: Path) -> None:
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        staged = await played.stage()
        before = await described(played, staged.id)
        assert (before.return_url, before.approved) == (staged.return_url, False)
        await played.complete(staged, await played.begin(staged))
        assert (await described(played, staged.id)).approved
        assert await state(played, staged.id) == "APPROVED"


async def test_only_the_newest_request_of_an_agencys_transaction_takes_a_password(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        grant = await played.grant("transaction-1")
        given_up = await played.stage(grant=grant)
        foreign = await played.stage(grant=await played.grant("transaction-2"))
        own = await played.stage()
        clock.advance(1)
        newest = await played.stage(grant=grant)
        await played.stage()

        for asking in (described(played, given_up.id), played.begin(given_up)):
            with pytest.raises(RequestExpired):
                await asking
        assert await state(played, given_up.id) == "STAGED"
        for staged in (newest, foreign, own):
            assert not (await described(played, staged.id)).approved
        await played.complete(newest, await played.begin(newest))
