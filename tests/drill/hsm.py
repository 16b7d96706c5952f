"""Long campaigns on the worker pool: thousands of signatures at once, and workers killed under load.

``python -m tests.drill.hsm --seed N [--out FILE]`` runs them in full; ``make test`` runs a sample through the same
functions.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from domain.algorithms import KeyType
from hsm.errors import HSMWorkerLost
from hsm.keys import KeyPair, WrappingKey
from hsm.pool import HSMPool
from hsm.settings import TokenSettings
from hsm.token_vault import TokenVault
from hsm.vault import Priority
from tests.testkit.hsm_worker import JOURNAL
from tests.testkit.softhsm import core_token

CLIENTS = 8
BACK_WITHIN_SECONDS = 3.0


class JournalPool(HSMPool):
    """Its workers write down each signature they are asked for, before they make it."""

    worker_module = "tests.testkit.hsm_worker"


@dataclass(frozen=True)
class Signed:
    """What a client got for one of its digests: the signature, or the name of the error."""

    digest: bytes
    right: bool
    error: str | None = None


def verifies(spki: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether the signature is right; said by cryptography, not by our own code."""
    key = serialization.load_der_public_key(spki)
    prehashed = Prehashed(hashes.SHA256())
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, digest, padding.PKCS1v15(), prehashed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(prehashed))
        else:
            return False
    except Exception:  # noqa: BLE001 - a campaign counts, whatever was wrong
        return False
    return True


async def sign_at_once(settings: TokenSettings, seed: int, *, each: int, workers: int = 2) -> dict[str, Any]:
    """Eight concurrent clients, one of them with RSA-3072, ``each`` times unwrap, sign, destroy."""
    pool = await HSMPool.start(settings, workers=workers)
    began = time.monotonic()
    try:
        vault = TokenVault(pool)
        key_types = [KeyType.P256] * (CLIENTS - 1) + [KeyType.RSA3072]
        pairs = [await vault.generate(WrappingKey.CITIZEN, key_type) for key_type in key_types]
        sources = [random.Random(seed + number) for number in range(CLIENTS)]  # noqa: S311 - the same seed, the same campaign

        async def client(pair: KeyPair, source: random.Random) -> int:
            right = 0
            for _ in range(each):
                digest = source.randbytes(32)
                priority = source.choice(list(Priority))
                (signature,) = await vault.sign(pair.wrapped, pair.spki, [digest], kek_version=1, priority=priority)
                right += verifies(pair.spki, digest, signature)
            return right

        right = sum(await asyncio.gather(*map(client, pairs, sources)))
        seconds = time.monotonic() - began
    finally:
        await pool.close()
    return {
        "expected": CLIENTS * each,
        "right": right,
        "restarts": pool.restarts,
        "calls": pool.calls["sign"],
        "seconds": round(seconds, 1),
        "per_second": round(CLIENTS * each / seconds),
        "held": right == CLIENTS * each and pool.restarts == 0,
    }


async def kill_under_load(settings: TokenSettings, seed: int, *, kills: int, workers: int = 2) -> dict[str, Any]:
    """Clients sign without pause while workers, now one and now all, are killed."""
    source = random.Random(seed)  # noqa: S311 - the same seed, the same campaign
    journal = settings.pin_file.parent / "journal"
    os.environ[JOURNAL] = str(journal)
    pool = await JournalPool.start(settings, workers=workers)
    outcomes: list[Signed] = []
    recoveries: list[float] = []
    ending = asyncio.Event()
    answered = asyncio.Event()
    try:
        vault = TokenVault(pool)
        pair = await vault.generate(WrappingKey.CITIZEN, KeyType.P256)

        async def client(number: int) -> None:
            count = 0
            while not ending.is_set():
                count += 1
                digest = hashlib.sha256(f"{seed} {number} {count}".encode()).digest()
                try:
                    (signature,) = await vault.sign(pair.wrapped, pair.spki, [digest], kek_version=1)
                except HSMWorkerLost as exc:
                    outcomes.append(Signed(digest, right=False, error=type(exc).__name__))
                else:
                    outcomes.append(Signed(digest, right=verifies(pair.spki, digest, signature)))
                    answered.set()

        clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
        for _ in range(kills):
            await asyncio.sleep(source.uniform(0.02, 0.3))
            pids = pool.worker_pids
            for pid in pids if source.random() < 0.5 else source.sample(pids, min(1, len(pids))):
                os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            await asyncio.sleep(0)
            answered.clear()
            await asyncio.wait_for(answered.wait(), 30)
            recoveries.append(time.monotonic() - killed)
        ending.set()
        await asyncio.gather(*clients)
    finally:
        del os.environ[JOURNAL]
        await pool.close()
    made = Counter(journal.read_text().split())
    right = [outcome for outcome in outcomes if outcome.right]
    wrong = [outcome for outcome in outcomes if not outcome.right and outcome.error is None]
    doubled = [digest for digest, times in made.items() if times > 1]
    unaccounted = [outcome for outcome in right if made[outcome.digest.hex()] != 1]
    return {
        "kills": kills,
        "calls": len(outcomes),
        "right": len(right),
        "wrong": len(wrong),
        "doubled": len(doubled),
        "unaccounted": len(unaccounted),
        "lost": sum(outcome.error is not None for outcome in outcomes),
        "restarts": pool.restarts,
        "slowest_recovery_seconds": round(max(recoveries), 2),
        "held": bool(right)
        and pool.restarts > 0
        and not (wrong or doubled or unaccounted)
        and max(recoveries) < BACK_WITHIN_SECONDS,
    }


async def campaign(seed: int) -> dict[str, Any]:
    """Both, in full."""
    with tempfile.TemporaryDirectory(prefix="rubrica-drill-") as folder:
        settings = core_token(Path(folder))
        at_once = await sign_at_once(settings, seed, each=1500)
        killing = await kill_under_load(settings, seed, kills=50)
    return {
        "drill": "hsm",
        "seed": seed,
        "held": at_once["held"] and killing["held"],
        "sign_at_once": at_once,
        "kill_under_load": killing,
    }


def main() -> int:
    """Run the campaign; 0 only if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.hsm", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, help="a file for the result, besides standard output")
    arguments = parser.parse_args()
    result = asyncio.run(campaign(arguments.seed))
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out is not None:
        arguments.out.write_text(text)
    sys.stdout.write(text)
    return 0 if result["held"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
