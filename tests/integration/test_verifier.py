"""The offline verifier on what the service really publishes: logs of many sizes, and one that a core wrote."""

import asyncio
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import cbor2
import pytest

from audit.sequencer import Sequencer
from domain.errors import Busy, FactorMismatch, HSMUnavailable
from hsm.errors import HSMError
from rubrica.core import LOG_SHARD
from rubrica_verify.report import Fault, Verdict
from signer.epochs import LEASE
from tests.testkit.core import Meanwhile, Played, playing
from tests.testkit.sequencing import Logging
from tests.testkit.time import FrozenClock
from tests.testkit.verifying import a_history, a_log, commit, publish, verified, write_key

LARGEST = 600
EDGES = {1, 2, 3, 254, 255, 256, 257, 511, 512, 513, LARGEST}


async def test_sound_logs_of_all_sizes_raise_no_alarm(tmp_path: Path) -> None:
    """One log that grows: at each size it is verified against every checkpoint that was kept before."""
    source = random.Random(600)  # noqa: S311 - the same seed, the same sizes
    history = a_history(LARGEST, source)
    sizes = sorted(EDGES | set(source.sample(range(1, LARGEST), 40)))
    kept: list[object] = []
    async with a_log(tmp_path) as logging:
        key = await write_key(logging.vault, tmp_path / "log.pem")
        sequencer, before = logging.sequencer(), 0
        assert await sequencer.take_over("core-1")
        for size in sizes:
            await commit(logging, history[before:size])
            before = size
            await sequencer.step()
            note = tmp_path / f"kept-{size}"
            shutil.copy(logging.files() / "checkpoint", note)
            kept += ["--checkpoint", note]
            report = verified("full", logging.files(), "--key", key, *kept)
            assert report.verdict is Verdict.SOUND, report.as_text()
            assert report.facts["size"] == size
        for old, new in zip(kept[1::2], kept[3::2], strict=False):
            report = verified("consistency", logging.files(), "--key", key, "--from", old, "--to", new)
            assert report.verdict is Verdict.SOUND, report.as_text()


async def test_a_log_may_be_verified_while_it_grows(tmp_path: Path) -> None:
    history = a_history(LARGEST, random.Random(16))  # noqa: S311 - the same seed, the same log
    async with a_log(tmp_path) as logging:
        key = await write_key(logging.vault, tmp_path / "log.pem")
        sequencer = logging.sequencer()
        assert await sequencer.take_over("core-1")
        await commit(logging, history[:5])
        await sequencer.step()
        growing = asyncio.create_task(_grow(logging, sequencer, history[5:]))
        sizes = set()
        while not growing.done():
            report = await asyncio.to_thread(verified, "full", logging.files(), "--key", key)
            assert report.verdict is Verdict.SOUND, report.as_text()
            sizes.add(report.facts["size"])
        await growing
    assert len(sizes) > 5


async def _grow(logging: Logging, sequencer: Sequencer, leaves: Sequence[bytes]) -> None:
    for start in range(0, len(leaves), 9):
        await commit(logging, leaves[start : start + 9])
        await sequencer.step()


async def sign_and_stumble(played: Played, vault: Meanwhile, clock: FrozenClock) -> None:
    """A first certificate, a wrong code, a device that failed, and a core that was held up while it signed."""
    await played.activate(await played.register())
    _, sad = await played.approved(2)
    await played.sign(sad, (0, 1, 2))
    staged = await played.stage(2)
    begun = await played.begin(staged)
    wrong = f"{(int(await played.otp(begun.challenge_id)) + 1) % 10**6:06}"
    with pytest.raises(FactorMismatch):
        await played.complete(staged, begun, wrong)
    sad = await played.redeem(staged, await played.complete(staged, begun))

    async def away() -> None:
        raise HSMError("away")

    vault.meanwhile = away
    with pytest.raises(HSMUnavailable):
        await played.sign(sad, (1,))

    async def held_up() -> None:
        clock.advance(LEASE.total_seconds() + 1)
        await played.core.epochs.fence_dead()

    vault.meanwhile = held_up
    with pytest.raises(Busy):
        await played.sign(sad, (1, 2))
    await played.core.epochs.renew()
    await played.sign(sad, (1, 2))
    await played.core.epochs.close()


async def test_a_log_that_a_core_wrote_is_sound_and_an_edited_one_is_not(tmp_path: Path) -> None:
    folder, vault, clock = tmp_path / "core", Meanwhile(), FrozenClock()
    async with playing(folder, vault=vault, clock=clock, log_origin="firma.example/log") as played:
        sequencer = played.core.sequencer
        assert await sequencer.take_over("core")
        await sign_and_stumble(played, vault, clock)
        await sequencer.step()
        leaves = await played.leaves()
    origin = f"firma.example/log/{LOG_SHARD}"
    files, kept = folder / "state" / "log", ("--checkpoint", tmp_path / "kept")
    key = await write_key(vault, tmp_path / "log.pem")
    shutil.copy(files / "checkpoint", tmp_path / "kept")
    report = verified("full", files, "--key", key, *kept, "--origin", origin)
    assert report.verdict is Verdict.SOUND, report.as_text()
    told = report.facts["leaves"]
    assert isinstance(told, dict)
    assert {"AUTH_FAIL", "REDEEM", "START", "STOP"} <= told.keys()
    # Item 0 ends with its certificate; one intent ended by itself, two because the core was held up.
    assert {name: told[name] for name in ("INTENT", "CERT_ISSUE", "COMPLETE", "ABORTED")} == {
        "INTENT": 8,
        "CERT_ISSUE": 1,
        "COMPLETE": 4,
        "ABORTED": 3,
    }
    assert report.facts["open_intents"] == 0
    for leaf in leaves:
        found = verified("inclusion", files, "--key", key, "--leaf", leaf["id"])
        assert (found.verdict, found.facts["size"]) == (Verdict.SOUND, len(leaves))

    # Whoever takes one leaf out and has all the rest published anew, by the same key.
    encoded = [cbor2.dumps(leaf, canonical=True) for leaf in leaves]
    for tag, alone in (("AUTH_OK", {Fault.I5}), ("INTENT", {Fault.I2}), ("COMPLETE", set()), ("STOP", set())):
        gone = max(number for number, leaf in enumerate(leaves) if leaf["tag"] == tag)
        async with a_log(tmp_path / tag) as logging:
            logging.vault, logging.origin = vault, origin
            await commit(logging, encoded[:gone] + encoded[gone + 1 :])
            forged = await publish(logging)
        assert set(verified("full", forged, "--key", key).counts) == alone
        assert set(verified("full", forged, "--key", key, *kept).counts) == alone | {Fault.ROLLED_BACK}
