"""Two approvals of one citizen that both ask for the first certificate: one of them brings it, nothing is lost."""

import asyncio

import pytest
import sqlalchemy as sa

from domain.errors import ActivationError, StateConflict
from rubrica.core import sweep
from signer import tables
from tests.drill.crash import log_faults
from tests.testkit.core import NIF, Played, playing
from tests.testkit.time import FrozenClock


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path, clock=FrozenClock()) as played:
        await played.activate(await played.register())
        yield played


async def states(played: Played) -> list[str]:
    return sorted(str(row["state"]) for row in await played.rows(tables.credential))


async def asked(played: Played, sad: bytes, *, times: int = 1) -> "asyncio.Future[object]":
    """A SIGN whose certificate is being issued and does not come yet."""
    played.issuer.before_answer = played.issuer.before_answer or asyncio.Event()
    task = asyncio.ensure_future(played.sign(sad))
    while played.issuer.issued < times:
        await asyncio.sleep(0.01)
    return task


async def no_key_without_use(played: Played) -> None:
    """Every certificate that was issued is the active one or told as revoked, and ended keys are erased."""
    await sweep(played.core)
    rows = await played.rows(tables.credential)
    assert [row["state"] for row in rows].count("ACTIVE") == 1
    assert all(row["sealed_key"] is None for row in rows if row["state"] == "REVOKED")
    revoked = {int(str(row["serial"]), 16) for row in rows if row["state"] == "REVOKED" and row["serial"]}
    assert set(played.issuer.revoked) == revoked
    assert len(revoked) == played.issuer.issued - 1
    assert log_faults(await played.leaves()) == []


async def test_a_second_approval_leaves_the_first_its_key(played):
    _, first = await played.approved()
    _, second = await played.approved()
    assert (await played.sign(first)).receipt
    with pytest.raises(StateConflict, match="approve the document again"):
        await played.sign(second)
    # No certificate was asked for in vain; the next approval signs with the one there is.
    assert played.issuer.issued == 1
    _, third = await played.approved()
    assert [item.state for item in (await played.sign(third)).items] == ["SKIPPED", "SIGNED"]
    await no_key_without_use(played)


async def test_of_two_that_are_certified_at_once_one_is_active(played):
    _, first = await played.approved()
    _, second = await played.approved()
    one = await asked(played, first)
    other = await asked(played, second, times=2)
    played.issuer.before_answer.set()
    answers = await asyncio.gather(one, other, return_exceptions=True)
    assert sorted(isinstance(answer, StateConflict) for answer in answers) == [False, True]
    assert await states(played) == ["ACTIVE", "REVOKED"]
    await no_key_without_use(played)
    loser = second if isinstance(answers[1], StateConflict) else first
    with pytest.raises(ActivationError):
        await played.sign(loser)


async def test_a_key_whose_certificate_is_being_issued_stays(played):
    _, first = await played.approved()
    waiting = await asked(played, first)
    # Even when its right ends meanwhile.
    await played.execute(sa.update(tables.approval).values(state="DEAD", parked=None))
    await played.approve()
    assert await states(played) == ["PENDING", "PENDING"]
    played.issuer.before_answer.set()
    with pytest.raises(ActivationError):
        await waiting
    assert await states(played) == ["PENDING", "REVOKED"]


async def test_a_key_whose_approval_is_over_is_erased(played):
    _, first = await played.approved()
    played.core.clock.advance(301)
    _, second = await played.approved()
    assert await states(played) == ["PENDING"]
    assert [leaf["facts"]["keys"] for leaf in await played.leaves("KEY_DESTROY")] == [1]
    with pytest.raises(ActivationError):
        await played.sign(first)
    assert (await played.sign(second)).receipt
    # One that had asked leaves its row, without its key, for an answer that may still come.
    await played.execute(sa.delete(tables.credential))
    played.issuer.fault = ConnectionError()
    _, third = await played.approved()
    with pytest.raises(ConnectionError):
        await played.sign(third)
    played.core.clock.advance(301)
    await played.approved()
    rows = await played.rows(tables.credential)
    assert sorted((row["state"], row["sealed_key"] is None) for row in rows) == [("PENDING", False), ("REVOKED", True)]


@pytest.mark.parametrize("row", ["gone", "revoked"])
async def test_a_certificate_that_nobody_awaits_any_more_is_revoked_at_the_issuer(played, row):
    _, sad = await played.approved()
    waiting = await asked(played, sad)
    if row == "gone":
        await played.execute(sa.delete(tables.credential))
    else:
        await played.core.revocation.revoke(NIF, "unspecified")
    played.issuer.before_answer.set()
    with pytest.raises(ActivationError):
        await waiting
    (orphan,) = await played.rows(tables.credential)
    assert (orphan["state"], orphan["sealed_key"]) == ("REVOKED", None)
    assert played.issuer.revoked == []
    await sweep(played.core)
    assert played.issuer.revoked == [int(str(orphan["serial"]), 16)]
    assert log_faults(await played.leaves()) == []


async def test_a_late_twin_of_the_answer_does_not_revoke_what_is_active(played, monkeypatch):
    _, sad = await played.approved()
    accept = played.core.signing._accept_certificate
    late: list[object] = []

    async def keep(*arguments: object) -> None:
        late.append(arguments)
        await accept(*arguments)

    monkeypatch.setattr(played.core.signing, "_accept_certificate", keep)
    assert (await played.sign(sad)).receipt
    (arguments,) = late
    with pytest.raises(ActivationError):
        await accept(*arguments)
    await sweep(played.core)
    assert (await states(played), played.issuer.revoked) == (["ACTIVE"], [])
