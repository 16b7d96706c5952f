"""Signing against revocation on PostgreSQL, where transactions run side by side and wait for each other's rows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

import audit.log
from audit.log import Event, EventTag, Log, log_pending
from domain.clock import SystemClock
from domain.errors import ActivationError, NotFound, StateConflict
from rubrica.core import sweep
from rubrica.database import make_engine
from signer import tables
from signer.revocation import ATTEMPTS
from tests.drill.crash import log_faults
from tests.testkit.core import NIF, Played, playing
from tests.testkit.postgres import postgres
from tests.testkit.vault import FakeVault


@pytest.fixture
async def cores(tmp_path: Path) -> AsyncIterator[tuple[Played, Played]]:
    """Two cores over one database, and a citizen with a password."""
    vault = FakeVault()
    with postgres() as url:
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(
                playing(tmp_path / "a", vault=vault, database_url=url, instance="core-1")
            )
            other = playing(
                tmp_path / "b",
                vault=vault,
                database_url=url,
                instance="core-2",
                pki=one.pki,
                phone=one.phone,
                sending=False,
            )
            await one.activate(await one.register())
            yield one, await stack.enter_async_context(other)


@pytest.mark.parametrize("certified", [True, False], ids=["release", "first certificate"])
async def test_a_commit_and_a_revocation_do_not_wait_for_each_other(cores, certified, monkeypatch) -> None:
    one, other = cores
    if certified:
        _, sad = await one.approved()
        await one.sign(sad)
    _, sad = await one.approved()
    # One try: were they to wait for each other, running again would hide it.
    monkeypatch.setattr("signer.revocation.ATTEMPTS", 1)
    # The commit stops where it holds the credential and not yet the approval.
    reached, go_on = asyncio.Event(), asyncio.Event()
    standing, calls = one.core.signing._standing, 0

    async def slow(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            reached.set()
            await go_on.wait()
        return await standing(*arguments)

    monkeypatch.setattr(one.core.signing, "_standing", slow)
    signing = asyncio.ensure_future(one.sign(sad))
    await reached.wait()
    revoking = asyncio.ensure_future(other.core.revocation.revoke(NIF, "unspecified"))
    await asyncio.sleep(0.3)
    go_on.set()
    signed, revoked = await asyncio.gather(signing, revoking, return_exceptions=True)
    # The commit was first, the revocation after it.
    assert len(revoked) == 1
    tags = [leaf["tag"] for leaf in await one.leaves()]
    last = "COMPLETE" if certified else "CERT_ISSUE"
    assert tags.index("REVOKE") > len(tags) - 1 - tags[::-1].index(last)
    assert signed.receipt if certified else isinstance(signed, ActivationError)
    await sweep(one.core)
    assert one.issuer.revoked + other.issuer.revoked == [int(revoked[0], 16)]


async def test_a_release_and_the_end_of_open_work_do_not_wait_for_each_other(cores, monkeypatch) -> None:
    one, other = cores
    _, sad = await one.approved()
    await one.sign(sad)
    _, sad = await one.approved(2)
    # The release stops where it holds the approval and not yet the items, as a change of phone comes.
    reached, go_on = asyncio.Event(), asyncio.Event()
    is_live, calls = one.core.epochs.is_live, 0

    async def slow(*arguments: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            reached.set()
            await go_on.wait()
        return await is_live(*arguments)

    async def end() -> None:
        citizen_id = str((await other.rows(tables.approval))[0]["citizen_id"])
        async with other.core.engine.begin() as connection:
            await other.core.approvals.end(connection, citizen_id)

    monkeypatch.setattr(one.core.epochs, "is_live", slow)
    signing = asyncio.ensure_future(one.sign(sad, [1, 2]))
    await reached.wait()
    ending = asyncio.ensure_future(end())
    await asyncio.sleep(0.3)
    go_on.set()
    signed, _ = await asyncio.gather(signing, ending)
    assert [item.state for item in signed.items] == ["SIGNED", "SIGNED"]
    assert log_faults(await one.leaves()) == []


async def test_signing_and_revoking_at_any_moment_end_in_order(cores) -> None:
    one, other = cores
    for moment in range(12):
        _, sad = await one.approved(3)

        async def later(seconds: float) -> list[str]:
            await asyncio.sleep(seconds)
            return await other.core.revocation.revoke(NIF, "unspecified")

        signed, revoked = await asyncio.gather(
            one.sign(sad, [0, 1, 2, 3]), later(0.006 * moment), return_exceptions=True
        )
        assert isinstance(revoked, list), repr(revoked)
        assert not isinstance(signed, BaseException) or isinstance(signed, ActivationError), repr(signed)
    await sweep(one.core)
    assert log_faults(await one.leaves()) == []
    rows = await one.rows(tables.credential)
    assert {row["state"] for row in rows} == {"REVOKED"}
    assert sorted(one.issuer.revoked + other.issuer.revoked) == sorted(
        int(str(row["serial"]), 16) for row in rows if row["serial"]
    )
    assert one.issuer.issued == len([row for row in rows if row["serial"]])


async def test_two_cores_give_a_citizen_one_certificate(cores) -> None:
    one, other = cores
    for _ in range(4):
        first, second = (await one.approved())[1], (await one.approved())[1]
        answers = await asyncio.gather(one.sign(first), other.sign(second), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Signed", "StateConflict"], answers
        assert [row["state"] for row in await one.rows(tables.credential)].count("ACTIVE") == 1
        await one.core.revocation.revoke(NIF, "unspecified")
    assert log_faults(await one.leaves()) == []


class Deadlock(Exception):
    sqlstate = "40P01"


class NoRoom(Exception):
    sqlstate = "53100"


@pytest.mark.parametrize(
    ("error", "times", "outcome"),
    [
        (DBAPIError("", {}, Deadlock()), ATTEMPTS - 1, list),
        (DBAPIError("", {}, Deadlock()), ATTEMPTS, DBAPIError),
        (DBAPIError("", {}, NoRoom()), 1, DBAPIError),
        (StateConflict("changed meanwhile"), 1, list),
        (NotFound("no such citizen"), 1, NotFound),
    ],
)
async def test_a_revocation_that_loses_a_race_runs_again(tmp_path, error, times, outcome, monkeypatch) -> None:
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        _, sad = await played.approved()
        await played.sign(sad)
        end, left = played.core.revocation._end, times

        async def losing(*arguments: object) -> object:
            nonlocal left
            left -= 1
            if left >= 0:
                raise error
            return await end(*arguments)

        monkeypatch.setattr(played.core.revocation, "_end", losing)
        monkeypatch.setattr("signer.revocation.RETRY_SECONDS", 0)
        (answer,) = await asyncio.gather(played.core.revocation.revoke(NIF, "unspecified"), return_exceptions=True)
        assert isinstance(answer, outcome)
        assert len(played.issuer.revoked) == (outcome is list)


# --- the log


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_the_log_only_grows(tmp_path: Path, database: str) -> None:
    sqlite = nullcontext(f"sqlite+aiosqlite:///{tmp_path / 'log.db'}")
    with postgres() if database == "postgresql" else sqlite as url:
        engine = make_engine(url)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(audit.log.metadata.create_all)
                await Log(SystemClock()).append(connection, Event(tag=EventTag.ADMIN), Event(tag=EventTag.STOP))
            attacks = [
                sa.delete(log_pending),
                sa.delete(log_pending).where(log_pending.c.tag == "STOP"),
                sa.update(log_pending).values(tag="ADMIN"),
                sa.update(log_pending).where(log_pending.c.position == 1).values(leaf=b""),
                *([sa.text("TRUNCATE log_pending CASCADE")] if database == "postgresql" else []),
            ]
            for attack in attacks:
                with pytest.raises(DBAPIError, match="the log only grows"):
                    async with engine.begin() as connection:
                        await connection.execute(attack)
            async with engine.connect() as connection:
                left = await connection.execute(sa.select(log_pending.c.tag).order_by(log_pending.c.position))
                assert left.scalars().all() == ["ADMIN", "STOP"]
        finally:
            await engine.dispose()
