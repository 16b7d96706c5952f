"""The pool under faults: what is queued, what is in flight, and what comes back."""

import asyncio
import hashlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from domain.algorithms import KeyType
from hsm.errors import (
    FaultySignature,
    HSMBusy,
    HSMError,
    HSMRefused,
    HSMTimeout,
    HSMWorkerLost,
    PINRefused,
    TokenUnavailable,
)
from hsm.keys import MACKey, SigningKey, WrappingKey
from hsm.pool import HSMPool
from hsm.settings import TokenSettings
from hsm.token_vault import TokenVault
from hsm.vault import Priority
from tests.testkit.hsm_worker import LOGINS
from tests.testkit.softhsm import core_token, token_settings

DIGEST = hashlib.sha256(b"a document").digest()


class FaultyPool(HSMPool):
    worker_module = "tests.testkit.hsm_worker"


@pytest.fixture
def settings(tmp_path: Path) -> TokenSettings:
    return core_token(tmp_path)


@asynccontextmanager
async def running(settings: TokenSettings, **options: Any) -> AsyncIterator[FaultyPool]:
    pool = await FaultyPool.start(settings, **{"workers": 1, **options})
    try:
        yield pool
    finally:
        await pool.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_full_queue_is_busy_at_once_and_nothing_was_done(settings: TokenSettings) -> None:
    async with running(settings, queue_limit=2) as pool:
        running_call = asyncio.create_task(pool.call("sleep", 0.3))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(pool.call("random", 8)) for _ in range(2)]
        await settle()
        began = time.monotonic()
        with pytest.raises(HSMBusy):
            await pool.call("random", 8)
        assert time.monotonic() - began < 0.1
        assert pool.refused_busy == 1
        await running_call
        assert [len(value) for value in await asyncio.gather(*waiting)] == [8, 8]
        assert pool.calls["random"] == 2
        assert len(await pool.call("random", 8)) == 8


async def test_interactive_goes_before_batch_and_equals_in_their_order(settings: TokenSettings) -> None:
    order: list[str] = []

    async def one(pool: HSMPool, mark: str, priority: Priority) -> None:
        order.append(await pool.call("sleep", 0, mark, priority=priority))

    async with running(settings) as pool:
        first = asyncio.create_task(pool.call("sleep", 0.2))
        await asyncio.sleep(0.05)
        calls = [asyncio.create_task(one(pool, f"batch {n}", Priority.BATCH)) for n in range(3)]
        await settle()
        calls += [asyncio.create_task(one(pool, f"citizen {n}", Priority.INTERACTIVE)) for n in range(3)]
        await asyncio.gather(first, *calls)
    assert order == ["citizen 0", "citizen 1", "citizen 2", "batch 0", "batch 1", "batch 2"]


async def test_deadline_in_the_queue_costs_no_worker(settings: TokenSettings) -> None:
    async with running(settings, queue_limit=1) as pool:
        slow = asyncio.create_task(pool.call("sleep", 0.4, "done"))
        await asyncio.sleep(0.05)
        with pytest.raises(HSMTimeout):
            await pool.call("random", 8, deadline_seconds=0.05)
        assert pool.queued == 0, "a call nobody waits for must free its place"
        assert await slow == "done"
        assert pool.timeouts == 1
        assert pool.restarts == 0


async def test_stuck_worker_is_killed_and_replaced(settings: TokenSettings) -> None:
    async with running(settings, stuck_after_seconds=0.2) as pool:
        stuck = pool.worker_pids
        with pytest.raises(HSMTimeout):
            await pool.call("sleep", 60, deadline_seconds=0.1)
        began = time.monotonic()
        assert len(await pool.call("random", 8)) == 8
        assert time.monotonic() - began < 3
        assert pool.restarts == 1
        assert stuck != pool.worker_pids


async def test_worker_that_is_only_late_is_kept(settings: TokenSettings) -> None:
    async with running(settings, stuck_after_seconds=5) as pool:
        pids = pool.worker_pids
        with pytest.raises(HSMTimeout):
            await pool.call("sleep", 0.3, "too late", deadline_seconds=0.1)
        assert len(await pool.call("random", 8)) == 8, "the late answer must not be taken for this one"
        assert pool.restarts == 0
        assert pids == pool.worker_pids


async def test_call_in_flight_is_lost_with_its_worker_and_never_run_again(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        with pytest.raises(HSMWorkerLost):
            await pool.call("die")
        assert pool.calls["die"] == 1
        assert len(await pool.call("random", 8)) == 8
        assert pool.restarts == 1, "had the call been run again, a second worker would have died of it"


async def test_queued_calls_survive_the_death_of_a_worker(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        dying = asyncio.create_task(pool.call("die"))
        others = [asyncio.create_task(pool.call("mac", MACKey.ROW, b"row", None)) for _ in range(20)]
        with pytest.raises(HSMWorkerLost):
            await dying
        assert len(set(await asyncio.gather(*others))) == 1


async def test_idle_worker_that_is_killed_comes_back(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        os.kill(pool.worker_pids[0], signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert len(await pool.call("random", 8)) == 8
        assert pool.restarts == 1


async def test_lost_session_replaces_the_worker(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        with pytest.raises(HSMWorkerLost, match="DeviceRemoved"):
            await pool.call("lose_session")
        assert len(await pool.call("random", 8)) == 8
        assert (pool.restarts, pool.started) == (1, 2)


async def test_recycling_loses_no_call(settings: TokenSettings) -> None:
    async with running(settings, workers=2, recycle_after=10) as pool:
        macs = await asyncio.gather(*(TokenVault(pool).mac(MACKey.ROW, n) for n in range(60)))
        assert len(set(macs)) == 60
        assert pool.recycled >= 4
        assert pool.restarts == 0


async def test_close_lets_calls_finish_and_takes_no_more(settings: TokenSettings) -> None:
    pool = await FaultyPool.start(settings, workers=1)
    pids = pool.worker_pids
    calls = [asyncio.create_task(pool.call("sleep", 0.05, n)) for n in range(4)]
    await asyncio.sleep(0.02)
    await pool.close()
    assert await asyncio.gather(*calls) == [0, 1, 2, 3]
    with pytest.raises(HSMError, match="closed"):
        await pool.call("random", 8)
    assert not any(_alive(pid) for pid in pids)


async def test_cancelled_call_leaves_the_pool_in_order(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        in_flight = asyncio.create_task(pool.call("sleep", 0.2, "dropped"))
        await asyncio.sleep(0.05)
        queued = asyncio.create_task(pool.call("random", 8))
        await settle()
        queued.cancel()
        in_flight.cancel()
        await asyncio.gather(queued, in_flight, return_exceptions=True)
        assert pool.queued == 0
        assert len(await pool.call("random", 8)) == 8
        assert pool.restarts == 0


async def test_tampered_blob_is_refused_and_restarts_nothing(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        vault = TokenVault(pool)
        pair = await vault.generate(WrappingKey.CITIZEN, KeyType.P256)
        sap = await vault.generate(WrappingKey.SAP, KeyType.P256)
        sealed = await vault.seal(b"data key", b"column")
        tampered = bytes([pair.wrapped[0] ^ 1]) + pair.wrapped[1:]
        for blob in (tampered, pair.wrapped[:-8], pair.wrapped[:-1], b"", sap.wrapped):
            with pytest.raises(HSMRefused):
                await vault.sign(blob, pair.spki, [DIGEST], kek_version=1)
        with pytest.raises(HSMRefused):
            await vault.sign(pair.wrapped, pair.spki, [DIGEST], kek_version=2)
        for changed in (sealed[:-1] + b"\0", sealed[:5], b"", bytes([sealed[0] ^ 1]) + sealed[1:]):
            with pytest.raises(HSMRefused):
                await vault.open(changed, b"column", version=1)
        with pytest.raises(HSMRefused):
            await vault.open(sealed, b"another column", version=1)
        with pytest.raises(ValueError, match="associated data"):
            await vault.seal(b"data key", b"")
        assert await vault.open(sealed, b"column", version=1) == b"data key"
        assert len(await vault.sign(pair.wrapped, pair.spki, [DIGEST], kek_version=1)) == 1
        assert pool.restarts == 0


async def test_point_off_the_curve_never_reaches_the_token(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        vault = TokenVault(pool)
        sap = await vault.generate(WrappingKey.SAP, KeyType.P256)
        point = serialization.load_der_public_key(sap.spki).public_bytes(  # type: ignore[union-attr,call-arg]
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        for bad in (point[:-1] + bytes([point[-1] ^ 1]), point[:-1], b"\0", b"\4" + bytes(64), b"\2" + point[1:33]):
            with pytest.raises(ValueError, match=r"point|key"):
                await vault.agree(sap.wrapped, bad, kek_version=1)
        assert len(await vault.agree(sap.wrapped, point, kek_version=1)) == 32
        assert pool.restarts == 0


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_faulty_signature_is_never_released(settings: TokenSettings, key_type: KeyType) -> None:
    async with running(settings) as pool:
        vault = TokenVault(pool)
        pair = await vault.generate(WrappingKey.CITIZEN, key_type)
        await pool.call("flip", 1)
        with pytest.raises(FaultySignature):
            await vault.sign(pair.wrapped, pair.spki, [DIGEST] * 3, kek_version=1)
        with pytest.raises(FaultySignature):
            await vault.sign_with(SigningKey.TOKENS, DIGEST)
        await pool.call("flip", 0)
        assert len(await vault.sign(pair.wrapped, pair.spki, [DIGEST] * 3, kek_version=1)) == 3


async def test_blob_of_another_credential_gives_no_signature(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        vault = TokenVault(pool)
        mine, another = [await vault.generate(WrappingKey.CITIZEN, KeyType.P256) for _ in range(2)]
        with pytest.raises(FaultySignature):
            await vault.sign(another.wrapped, mine.spki, [DIGEST], kek_version=1)


async def test_no_session_object_and_one_thread_are_left_after_every_operation(settings: TokenSettings) -> None:
    async with running(settings) as pool:
        vault = TokenVault(pool)
        assert (await pool.call("peek")) == {"threads": 1, "session_objects": 0}
        for key_type in KeyType:
            pair = await vault.generate(WrappingKey.CITIZEN, key_type)
            await vault.sign(pair.wrapped, pair.spki, [DIGEST, DIGEST], kek_version=1)
            with pytest.raises(ValueError, match="32 bytes"):
                await vault.sign(pair.wrapped, pair.spki, [DIGEST, b"short"], kek_version=1)
        sap = await vault.generate(WrappingKey.SAP, KeyType.P256)
        point = serialization.load_der_public_key(sap.spki).public_bytes(  # type: ignore[union-attr,call-arg]
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        await vault.agree(sap.wrapped, point, kek_version=1)
        assert (await pool.call("peek")) == {"threads": 1, "session_objects": 0}


async def test_wrong_pin_is_tried_once(
    settings: TokenSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = tmp_path / "logins"
    monkeypatch.setenv(LOGINS, str(logins))
    settings.pin_file.chmod(0o600)
    pin = settings.pin_file.read_text()
    settings.pin_file.write_text("not the PIN")
    with pytest.raises(PINRefused) as refused:
        await FaultyPool.start(settings, workers=4)
    assert len(logins.read_text().splitlines()) == 1
    assert "not the PIN" not in str(refused.value)
    settings.pin_file.write_text(pin)
    async with running(settings, workers=2) as pool:
        pids = pool.worker_pids
        assert len(logins.read_text().splitlines()) == 3
    assert not any(_alive(pid) for pid in pids)


async def test_pin_changed_under_a_running_pool_stops_it_after_one_try(
    settings: TokenSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = tmp_path / "logins"
    async with running(settings, workers=2) as pool:
        monkeypatch.setenv(LOGINS, str(logins))
        settings.pin_file.chmod(0o600)
        settings.pin_file.write_text("not the PIN")
        for pid in pool.worker_pids:
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.1)
        with pytest.raises(PINRefused):
            await pool.call("random", 8)
        await asyncio.sleep(0.3)
        with pytest.raises(PINRefused):
            await pool.call("random", 8)
        assert len(logins.read_text().splitlines()) == 1


async def test_pin_and_memory_leave_no_trace(settings: TokenSettings, capfd: pytest.CaptureFixture[str]) -> None:
    pin = settings.pin_file.read_bytes()
    async with running(settings) as pool:
        assert await pool.call("traces") == {"dumpable": 0, "core_bytes": 0}
        worker = Path(f"/proc/{pool.worker_pids[0]}")
        assert pin not in (worker / "cmdline").read_bytes()
        if os.geteuid() == 0:
            assert pin not in (worker / "environ").read_bytes()
        else:
            # An ordinary user may not even look: what is not dumpable belongs to root.
            with pytest.raises(PermissionError):
                (worker / "environ").read_bytes()
        settings.pin_file.chmod(0o600)
        settings.pin_file.write_bytes(pin[::-1])
        with pytest.raises(HSMWorkerLost):
            await pool.call("die")
        with pytest.raises(PINRefused) as refused:
            await pool.call("random", 8)
    printed = "".join(capfd.readouterr())
    assert "hsm_worker_refused" in printed, "what is looked through must be the log"
    assert pin[::-1].decode() not in f"{refused.value!r} {printed}"


async def test_open_pin_file_or_missing_token_is_said(settings: TokenSettings, tmp_path: Path) -> None:
    settings.pin_file.chmod(0o440)
    with pytest.raises(TokenUnavailable, match="0400"):
        await HSMPool.start(settings)
    with pytest.raises(TokenUnavailable, match="cannot be read"):
        await HSMPool.start(token_settings(tmp_path / "nowhere", "core"))


async def test_workers_die_with_their_parent(settings: TokenSettings, tmp_path: Path) -> None:
    pids_file = tmp_path / "pids"
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from hsm.pool import HSMPool\n"
        "from hsm.settings import TokenSettings\n"
        "async def main():\n"
        "    pool = await HSMPool.start(TokenSettings.from_json(sys.argv[1]), workers=2)\n"
        "    Path(sys.argv[2]).write_text(' '.join(map(str, pool.worker_pids)))\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, settings.to_json(), str(pids_file)),
        env=settings.child_environment(),
        stdout=asyncio.subprocess.DEVNULL,
    )
    for _ in range(200):
        if pids_file.exists() and len(pids_file.read_text().split()) == 2:
            break
        await asyncio.sleep(0.05)
    pids = pids_file.read_text().split()
    assert len(pids) == 2
    assert all(_alive(pid) for pid in pids)
    parent.kill()
    await parent.wait()
    for _ in range(40):
        if not any(_alive(pid) for pid in pids):
            break
        await asyncio.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: str | int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
