"""kill -9 of the core between COMPLETE and the last SIGN of an approval of ten documents, again and again.

``python -m tests.drill.crash --seed N [--out FILE]`` runs 40 kills; ``make test`` runs a sample through the same
function. After each restart the same SAD signs the rest; no item is completed twice, and no signature that was answered
changes.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from authn.client import CoreFault
from domain.errors import DependencyUnavailable
from signer.client import SignedItem
from tests.testkit.callers import Callers, Staged
from tests.testkit.core_process import CoreProcess, core_process

DOCUMENTS = 10
TOO_LATE = "too late"
MOST_ROUNDS = 5
"""Approvals for each kill that is wanted: some have all their signatures before the core dies."""
LOST = (DependencyUnavailable, CoreFault)


class Edge:
    """An edge that asks until it has all, and keeps every answer it ever got."""

    def __init__(self, staged: Staged, code: bytes, chunks: list[list[int]]) -> None:
        self.staged = staged
        self.code = code
        self.chunks = chunks
        self.answers: dict[int, list[SignedItem]] = {}

    async def collect(self, callers: Callers) -> str:
        """Redeem (again) with the same r, then sign chunk by chunk; gives the receipt."""
        sad = await callers.redeem(self.staged, self.code)
        receipt = ""
        for chunk in self.chunks:
            signed = await callers.sign(sad, chunk)
            for item in signed.items:
                self.answers.setdefault(item.item_number, []).append(item)
            receipt = signed.receipt or receipt
        return receipt

    def faults(self) -> list[str]:
        """What is wrong with the answers."""
        faults = [f"item {n} is missing" for n in range(1, DOCUMENTS + 1) if n not in self.answers]
        for number, answers in self.answers.items():
            if len({(answer.to_be_signed, answer.signature) for answer in answers}) != 1:
                faults.append(f"item {number} changed between two answers")
            if number and not _verifies(answers[-1]):
                faults.append(f"item {number} does not verify")
        return faults


def _verifies(item: SignedItem) -> bool:
    key = x509.load_der_x509_certificate(item.chain[0]).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(item.signature, item.to_be_signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def log_faults(leaves: list[dict[str, Any]]) -> list[str]:
    """Each INTENT ends once; each item is completed once."""
    ended: Counter[str] = Counter()
    completed: Counter[tuple[str, int]] = Counter()
    for leaf in leaves:
        facts = leaf["facts"]
        if leaf["tag"] == "CERT_ISSUE" and leaf["pid"] is None:
            continue  # The organisation's seal: nobody's key, no approval.
        if leaf["tag"] in ("COMPLETE", "ABORTED", "CERT_ISSUE"):
            ended[facts["intent"]] += 1
        if leaf["tag"] in ("COMPLETE", "CERT_ISSUE"):
            completed[facts["cid"], facts["item"]] += 1
    intents = {leaf["id"] for leaf in leaves if leaf["tag"] == "INTENT"}
    faults = [f"an INTENT ended {ended[intent]} times" for intent in intents if ended[intent] != 1]
    faults += ["an end without INTENT" for intent in ended if intent not in intents]
    faults += [f"item {item} was completed {times} times" for (_, item), times in completed.items() if times != 1]
    return faults


async def kills(folder: Path, seed: int, *, count: int) -> dict[str, Any]:
    """``count`` kills, each at a random moment after COMPLETE of its own approval; those too late are repeated."""
    source = random.Random(seed)  # noqa: S311 - the same seed, the same campaign
    faults: list[str] = []
    moments: Counter[str] = Counter()
    with core_process(folder) as core:
        async with core.running() as callers:
            await callers.activate(await callers.register())
            quiet, span_seconds = await _approved(callers, source), time.monotonic()
            await quiet.collect(callers)
            span_seconds = time.monotonic() - span_seconds
        while moments.total() - moments[TOO_LATE] < count and moments.total() < MOST_ROUNDS * count:
            edge, when = await _one_kill(core, source, span_seconds)
            moments[when] += 1
            async with core.running() as callers:
                if not await edge.collect(callers):
                    faults.append("no receipt with the last item")
            faults += edge.faults()
        leaves = core.leaves()
        arrivals, challenges = core.sms.arrivals, len(core.sms.texts)
    faults += log_faults(leaves)
    kills = moments.total() - moments[TOO_LATE]
    return {
        "kills": kills,
        "moments": dict(moments),
        "aborted_by_crash": sum(leaf["facts"].get("reason") == "crash" for leaf in leaves),
        "completed": sum(leaf["tag"] == "COMPLETE" for leaf in leaves),
        "messages": challenges,
        "messages_sent_twice": arrivals - challenges,
        "faults": Counter(faults),
        "held": not faults
        and kills == count
        and sum(leaf["tag"] == "COMPLETE" for leaf in leaves) == (moments.total() + 1) * DOCUMENTS,
    }


async def _approved(callers: Callers, source: random.Random) -> Edge:
    staged = await callers.stage(DOCUMENTS)
    begun = await callers.begin(staged)
    code = await callers.complete(staged, begun.challenge_id)
    numbers = list(range(DOCUMENTS + 1))
    size = source.choice((1, 3, DOCUMENTS + 1))
    return Edge(staged, code, [numbers[at : at + size] for at in range(0, len(numbers), size)])


async def _one_kill(core: CoreProcess, source: random.Random, span_seconds: float) -> tuple[Edge, str]:
    """An approval whose core dies under it; and how far it had come."""
    async with core.running() as callers:
        edge = await _approved(callers, source)
        collecting = asyncio.create_task(edge.collect(callers))
        await asyncio.sleep(source.uniform(0, span_seconds))
        core.kill()
        try:
            await collecting
        except LOST:
            done = len(edge.answers)
            return edge, "before the first answer" if not done else "between answers"
        return edge, TOO_LATE


async def campaign(seed: int) -> dict[str, Any]:
    """All of it."""
    with tempfile.TemporaryDirectory(prefix="rubrica-drill-") as folder:
        return {"drill": "crash", "seed": seed, **await kills(Path(folder), seed, count=40)}


def main() -> int:
    """Run the campaign; 0 only if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.crash", description=__doc__)
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
