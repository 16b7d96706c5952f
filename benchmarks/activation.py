"""One whole activation without human time: password, code, redeem, sign; over a real SoftHSM2 token and SQLite."""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from authn.password.stretch import Stretcher, StretchParameters
from hsm.pool import HSMPool
from hsm.token_vault import TokenVault
from tests.testkit.core import Played, playing
from tests.testkit.softhsm import core_token

ROUNDS = 30


def run() -> list[dict[str, object]]:
    """Rows for the table; the peer is one Argon2id stretch at the same cost, the floor of any such activation."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> list[dict[str, object]]:
    parameters = StretchParameters()
    pool = await HSMPool.start(core_token(folder), workers=2)
    try:
        settings = {"argon2_time_cost": parameters.time_cost, "argon2_memory_kib": parameters.memory_kib}
        async with playing(folder / "core", vault=TokenVault(pool), **settings) as played:
            await played.activate(await played.register())
            first = await _milliseconds(played)
            later = [await _milliseconds(played) for _ in range(ROUNDS)]
            floor = [await _stretch_milliseconds(parameters) for _ in range(ROUNDS)]
    finally:
        await pool.close()
    peer = statistics.median(floor)
    return [
        _row("activation with a new certificate", first, peer),
        _row("activation, certificate there", statistics.median(later), peer),
    ]


async def _milliseconds(played: Played) -> float:
    """Time of begin, complete, redeem and sign; staging happens when the page opens and is left out."""
    staged = await played.stage()
    started = time.perf_counter()
    code = await played.complete(staged, await played.begin(staged))
    await played.sign(await played.redeem(staged, code))
    return (time.perf_counter() - started) * 1000


async def _stretch_milliseconds(parameters: StretchParameters) -> float:
    stretcher = Stretcher()
    started = time.perf_counter()
    await stretcher.stretch(b"correcto-caballo", bytes(16), parameters)
    elapsed = (time.perf_counter() - started) * 1000
    stretcher.close()
    return elapsed


def _row(name: str, value: float, peer: float) -> dict[str, object]:
    return {
        "name": name,
        "value": round(value, 1),
        "unit": "ms",
        "peer": "one Argon2id stretch",
        "peer_value": round(peer, 1),
        "ratio": round(value / peer, 2),
    }
