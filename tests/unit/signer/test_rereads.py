"""Everything that may change between a check and what depends on it, changed in between, one at a time."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from authn.messages.outbox import MessageState, message
from authn.otp.rows import otp_challenge
from authn.password.stretch import StretchParameters
from domain.errors import ActivationError, FactorMismatch, StateConflict
from domain.ids import CitizenId
from signer import tables
from tests.testkit.core import NIF, PASSWORD, Meanwhile, Played, playing
from tests.testkit.time import FrozenClock

OTHER = "87654321X"
Change = Callable[[Played], Awaitable[object]]


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path, vault=Meanwhile(), clock=FrozenClock()) as played:
        await played.activate(await played.register())
        yield played


async def citizen_id(played: Played) -> CitizenId:
    index = await played.core.activation._register.nif_index(NIF)
    async with played.core.engine.connect() as connection:
        found = await played.core.activation._register.find(connection, index)
    assert found is not None
    return found.id


async def bump(played: Played) -> None:
    """The generation alone: whatever else its change ends stays open."""
    citizen = await citizen_id(played)
    async with played.core.engine.begin() as connection:
        await played.core.activation._register.bump_generation(connection, citizen)


async def suspend(played: Played) -> None:
    await played.execute(sa.update(tables.credential).values(state="SUSPENDED"))


async def kill(played: Played) -> None:
    await played.execute(sa.update(tables.approval).where(tables.approval.c.state == "SAD").values(state="DEAD"))


# --- 16 and 18


@pytest.mark.parametrize("change", [bump, suspend, kill])
async def test_what_changes_while_the_key_is_used_is_read_at_the_release(played, change: Change):
    _, sad = await played.approved()
    await played.sign(sad)
    _, sad = await played.approved()
    played.vault.meanwhile = lambda: change(played)
    with pytest.raises(ActivationError):
        await played.sign(sad)
    assert len(await played.leaves("COMPLETE")) == 1
    assert [leaf["tag"] for leaf in await played.leaves()][-2:] == ["REFUSED", "ABORTED"]


@pytest.mark.parametrize("change", [bump, kill])
async def test_what_changes_while_the_capsule_opens_is_read_at_the_reservation(played, change: Change, monkeypatch):
    _, sad = await played.approved()
    await played.sign(sad)
    _, sad = await played.approved()
    intents = len(await played.leaves("INTENT"))
    parking = played.core.signing._parking
    opening = parking.open

    async def slow(*arguments: Any):
        opened = await opening(*arguments)
        await change(played)
        return opened

    monkeypatch.setattr(parking, "open", slow)
    with pytest.raises(ActivationError):
        await played.sign(sad)
    assert len(await played.leaves("INTENT")) == intents


# --- 2: the citizen whom an agency named


async def test_another_citizens_right_password_opens_nothing_for_the_one_named(played):
    await played.activate(await played.register(nif=OTHER, phone="+34687654321"), nif=OTHER)
    sent = played.phone.handed_over
    staged = await played.stage(grant=await played.grant("T-1"), citizen_nif=NIF)
    begun = await played.begin(staged, nif=OTHER)
    async with played.core.engine.connect() as connection:
        found = await connection.execute(sa.select(message.c.state).where(message.c.id == begun.challenge_id))
    assert found.scalars().all() == [MessageState.VOID.value]
    for code in ("000000", "123456"):
        with pytest.raises(FactorMismatch):
            await played.complete(staged, begun, code)
    assert (await played.leaves("AUTH_FAIL"))[0]["facts"]["factor"] == "password"
    assert played.phone.handed_over == sent
    # The one named signs.
    begun = await played.begin(staged)
    assert await played.complete(staged, begun)


# --- 8: a code that was prepared for an older generation


@pytest.mark.parametrize("purpose", ["sign", "password_change", "activation"])
async def test_a_generation_that_changes_while_a_code_is_made_opens_no_challenge(tmp_path, purpose, monkeypatch):
    async with playing(tmp_path) as played:
        code = await played.register()
        if purpose != "activation":
            await played.activate(code)
        staged = await played.stage()
        challenges = len(await played.rows(otp_challenge))
        fill = played.core.otp.fill

        async def slow(*arguments: Any, **options: Any):
            filled = await fill(*arguments, **options)
            await bump(played)
            return filled

        monkeypatch.setattr(played.core.otp, "fill", slow)
        begin = {
            "sign": lambda: played.begin(staged),
            "activation": lambda: played.activation_begin(code),
            "password_change": lambda: played.prove_for_change(PASSWORD, "Otro-Caballo-10"),
        }[purpose]
        with pytest.raises(StateConflict, match="changed meanwhile"):
            await begin()
        assert len(await played.rows(otp_challenge)) == challenges
        assert {row["state"] for row in await played.rows(message)} <= {MessageState.HANDED_OVER.value}


# --- 12


async def test_a_generation_that_changes_while_b1_is_parked_approves_nothing(played, monkeypatch):
    staged = await played.stage()
    begun = await played.begin(staged)
    otp = await played.otp(begun.challenge_id)
    parking = played.core.activation._parking
    park = parking.park

    async def slow(*arguments: Any):
        parked = await park(*arguments)
        await bump(played)
        return parked

    monkeypatch.setattr(parking, "park", slow)
    with pytest.raises(FactorMismatch, match="changed meanwhile"):
        await played.complete(staged, begun, otp)
    assert await played.rows(tables.approval) == []
    assert await played.rows(tables.credential) == []


# --- the password's row


async def test_a_password_that_was_changed_meanwhile_forgives_nothing(played):
    factors, engine = played.core.factors, played.core.engine
    citizen = await citizen_id(played)
    async with engine.begin() as connection:
        reservation = await factors.reserve(connection, citizen, bytes(32))
    row = await factors.seal_vault_secret(citizen, b"Otro-Caballo-10", bytes(32), StretchParameters(1, 64))
    async with engine.begin() as connection:
        await factors.store(connection, row, replacing=True)
    async with engine.begin() as connection:
        with pytest.raises(StateConflict, match="changed meanwhile"):
            await factors.settle(connection, reservation, right=True)
        await factors.settle(connection, reservation, right=False)


async def test_two_writers_of_one_passwords_row_do_not_lose_an_attempt(played, monkeypatch):
    factors, engine = played.core.factors, played.core.engine
    citizen = await citizen_id(played)
    async with engine.connect() as connection:
        stale = await factors.find(connection, citizen)
    assert stale is not None
    async with engine.begin() as connection:
        counted = await factors.reserve(connection, citizen, bytes(32))

    async def as_it_was(*_: object):
        return stale

    monkeypatch.setattr(factors, "_get", as_it_was)
    async with engine.begin() as connection:
        with pytest.raises(StateConflict, match="at the same moment"):
            await factors.reserve(connection, citizen, bytes(32))
    monkeypatch.undo()
    async with engine.connect() as connection:
        now = await factors.find(connection, citizen)
    assert now is not None
    assert now.attempts.reserved == counted.number
