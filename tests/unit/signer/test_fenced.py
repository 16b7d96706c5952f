"""A core that another one took for dead: what it had reserved goes back, its late work is void, and it begins again."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from domain.errors import ActivationError, Busy
from signer import tables
from signer.approvals import ItemState
from tests.drill.crash import log_faults
from tests.testkit.core import NIF, Meanwhile, playing
from tests.testkit.time import FrozenClock

LEASE_SECONDS = 15


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path, vault=Meanwhile(), clock=FrozenClock()) as played:
        await played.activate(await played.register())
        yield played


@pytest.fixture
async def certified(played):
    _, sad = await played.approved()
    await played.sign(sad)
    return played


async def fence(played) -> None:
    """As another core does while this one is held up for longer than its lease."""
    played.core.clock.advance(LEASE_SECONDS + 1)
    await played.core.epochs.fence_dead()


async def states(played) -> list[tuple[object, object]]:
    return [(row["state"], row["item"]) for row in await played.rows(tables.authorisation)]


async def test_a_gap_over_the_lease_costs_no_right(played):
    _, sad = await played.approved()
    before = played.core.epochs.current
    await fence(played)
    for _ in range(2):
        with pytest.raises(Busy) as busy:
            await played.sign(sad)
        assert busy.value.retry_after_seconds
    assert await played.leaves("REFUSED") == []
    assert await played.leaves("INTENT") == []
    await played.core.epochs.renew()
    assert played.core.epochs.current > before
    assert (await played.sign(sad)).receipt
    assert [leaf["facts"]["epoch"] for leaf in await played.leaves("START")] == [before, played.core.epochs.current]
    # From then on its lease is prolonged as ever.
    current = played.core.epochs.current
    played.core.clock.advance(LEASE_SECONDS - 1)
    await played.core.epochs.renew()
    played.core.clock.advance(LEASE_SECONDS - 1)
    assert (await played.core.epochs.fence_dead(), played.core.epochs.current) == (0, current)


async def test_two_hosts_of_one_name_both_go_on(played, tmp_path):
    _, sad = await played.approved()
    twin = playing(tmp_path, vault=played.vault, clock=played.core.clock, pki=played.pki, sending=False)
    async with twin as other:
        theirs = other.core.epochs.current
        with pytest.raises(Busy):
            await played.sign(sad)
        for core in (played.core, other.core, played.core, other.core):
            await core.epochs.renew()
            await core.epochs.fence_dead()
        assert other.core.epochs.current == theirs
        assert (await played.sign(sad)).receipt
        _, sad = await played.approved()
        assert (await other.sign(sad)).receipt
    assert log_faults(await played.leaves()) == []


@pytest.mark.parametrize("begins_again", [False, True], ids=["still fenced", "with a new epoch"])
async def test_late_work_of_a_fenced_core_is_void(certified, begins_again):
    _, sad = await certified.approved()

    async def held_up():
        await fence(certified)
        if begins_again:
            await certified.core.epochs.renew()

    certified.vault.meanwhile = held_up
    with pytest.raises(Busy):
        await certified.sign(sad)
    assert (await states(certified))[-1] == ("AUTHORIZED", 1)
    assert len(await certified.leaves("COMPLETE")) == 1
    await certified.core.epochs.renew()
    assert (await certified.sign(sad)).receipt
    assert [leaf["facts"]["reason"] for leaf in await certified.leaves("ABORTED")] == ["crash"]
    assert log_faults(await certified.leaves()) == []


async def test_a_fence_that_gave_nothing_back_yet_is_seen_at_the_release(certified):
    _, sad = await certified.approved()
    fenced = sa.update(tables.core_epoch).values(fenced=True)
    certified.vault.meanwhile = lambda: certified.execute(fenced)
    with pytest.raises(Busy):
        await certified.sign(sad)
    assert len(await certified.leaves("COMPLETE")) == 1
    await certified.core.epochs.renew()
    assert (await certified.sign(sad)).receipt


async def test_a_certificate_that_comes_while_fenced_is_kept_for_the_next_try(played):
    _, sad = await played.approved()
    played.issuer.before_answer = asyncio.Event()
    asking = asyncio.ensure_future(played.sign(sad))
    while not played.issuer.issued:
        await asyncio.sleep(0.01)
    await fence(played)
    played.issuer.before_answer.set()
    with pytest.raises(Busy):
        await asking
    (waiting,) = await played.rows(tables.credential)
    assert (waiting["state"], waiting["certificate"]) == ("PENDING", None)
    await played.core.epochs.renew()
    assert (await played.sign(sad)).receipt
    (active,) = await played.rows(tables.credential)
    assert (active["state"], active["serial"]) == ("ACTIVE", waiting["serial"])
    assert log_faults(await played.leaves()) == []


async def test_only_the_holder_of_a_reservation_settles_it(played):
    staged, _ = await played.approved()
    approvals = played.core.approvals
    (approval,) = await played.rows(tables.approval)
    cid, now = str(approval["cid"]), played.core.clock.now()

    async def reserve(epoch: int) -> int:
        async with played.core.engine.begin() as connection:
            attempt = await approvals.reserve(connection, cid, 1, epoch=epoch, intent_id="I", signing_time=now)
        assert attempt is not None
        return attempt

    async def settle(epoch: int, attempt: int, item: int = 1) -> bool:
        async with played.core.engine.begin() as connection:
            return await approvals.settle(
                connection, cid, item, epoch=epoch, attempt=attempt, state=ItemState.CONSUMED.value
            )

    async def give_back(epoch: int, attempt: int) -> bool:
        async with played.core.engine.begin() as connection:
            return await approvals.give_back(connection, cid, 1, epoch=epoch, attempt=attempt)

    assert len(staged.items) == 2
    assert await reserve(7) == 1
    assert [await give_back(8, 1), await give_back(7, 2), await give_back(7, 1), await give_back(7, 1)] == [
        *(False, False),
        *(True, False),
    ]
    assert await reserve(7) == 2
    late = [await settle(7, 1), await settle(8, 2), await settle(7, 2, item=0)]
    assert late == [False, False, False]
    assert await settle(7, 2)
    assert not await settle(7, 2)
    assert not await give_back(7, 2)


# --- what the log says of it


async def test_a_lost_answer_to_the_commit_is_no_abort(certified, monkeypatch):
    _, sad = await certified.approved()
    release = certified.core.signing._release

    async def answer_lost(*arguments: Any):
        await release(*arguments)
        raise ConnectionError

    monkeypatch.setattr(certified.core.signing, "_release", answer_lost)
    with pytest.raises(ConnectionError):
        await certified.sign(sad)
    assert await certified.leaves("ABORTED") == []
    assert log_faults(await certified.leaves()) == []
    signed = await certified.sign(sad)
    assert signed.receipt
    assert len(await certified.leaves("COMPLETE")) == 2


@pytest.mark.parametrize("crash", [False, True], ids=["the core says so", "whoever finds it says so"])
async def test_a_row_that_dies_while_its_key_is_used_ends_its_intent_once(certified, crash, monkeypatch):
    _, sad = await certified.approved()
    certified.vault.meanwhile = lambda: certified.core.revocation.revoke(NIF, "unspecified")
    if crash:

        async def gone(*_: object):
            raise ConnectionError

        monkeypatch.setattr(certified.core.signing, "_abort", gone)
    with pytest.raises((ActivationError, ConnectionError)):
        await certified.sign(sad)
    for _ in range(2):
        await fence(certified)
        await certified.core.epochs.renew()
    assert len(await certified.leaves("ABORTED")) == 1
    assert log_faults(await certified.leaves()) == []
    assert (await states(certified))[-1] == ("DEAD", 1)
