"""A change of password or phone, or a revocation, at any moment of an approval: after its commit no signature.

``python -m tests.drill.generation --seed N [--out FILE]`` runs 500 moments; ``make test`` runs a sample through the
same functions. Judge is the log's own order, and what lies in the tables.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from authn.otp.grants import token_grant
from authn.otp.rows import otp_challenge
from domain.errors import RubricaError
from hsm.errors import HSMError
from hsm.pool import HSMPool
from hsm.token_vault import TokenVault
from hsm.vault import Vault
from signer import tables
from tests.testkit.core import Played, playing
from tests.testkit.softhsm import core_token

CHANGES = ("PW_CHANGE", "PHONE_CHANGE", "REVOKE")
NIF_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


class Person:
    """One citizen of the campaign, who always knows the password and has the phone in hand."""

    def __init__(self, number: int) -> None:
        self.nif = f"{number:08}{NIF_LETTERS[number % 23]}"
        self.phones = (f"+3461{number:07}", f"+3462{number:07}")
        self.password = "Primera-Clave-1"

    async def arrive(self, played: Played) -> None:
        code = await played.register(nif=self.nif, phone=self.phones[0])
        await played.activate(code, nif=self.nif, password=self.password)


async def one_moment(played: Played, person: Person, kind: str, documents: int, delay_seconds: float) -> str:
    """Let one change fall into one approval; gives the name of what ended the approval."""
    staged = await played.stage(documents)

    async def approve_and_sign() -> str:
        begun = await played.begin(staged, password=person.password, nif=person.nif)
        sad = await played.redeem(staged, await played.complete(staged, begun))
        await played.sign(sad, range(documents + 1))
        return "signed"

    change = await _prepared(played, person, kind)
    approving = asyncio.create_task(approve_and_sign())
    await asyncio.sleep(delay_seconds)
    await change()
    try:
        # A code that never comes, because its challenge died, is waited for in vain.
        return await asyncio.wait_for(approving, 10)
    except (RubricaError, HSMError, AssertionError, TimeoutError) as error:
        return type(error).__name__


async def _prepared(played: Played, person: Person, kind: str) -> Callable[[], Awaitable[object]]:
    """The last step of a change, ready to fire; of a password the old one and its code are proved before."""
    if kind == "PHONE_CHANGE":
        return lambda: played.core.phone_change.change(nif=person.nif, phone=person.phones[1])
    if kind == "REVOKE":
        return lambda: played.core.revocation.revoke(person.nif, "keyCompromise")
    return await played.prove_for_change(person.password, "Segunda-Clave-2", nif=person.nif)


def verdict(leaves: list[dict[str, Any]], rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What is wrong, citizen by citizen, by the order of the log and by the tables. Empty: nothing."""
    faults = []
    changed: dict[bytes, str] = {}
    begun_since: set[str] = set()
    completed: set[str] = set()
    open_intents: Counter[str] = Counter()
    for leaf in leaves:
        tag, pid, facts = leaf["tag"], leaf["pid"], leaf["facts"]
        if tag in CHANGES and facts.get("kind") != "activation":
            changed[pid] = tag
        elif tag == "OTP_SENT" and pid in changed:
            # The change came first, so this approval is all of the new generation.
            begun_since.add(facts["cid"])
        elif tag in ("COMPLETE", "CERT_ISSUE"):
            completed.add(leaf["id"])
            open_intents[facts["intent"]] += 1
            if pid in changed and facts["cid"] not in begun_since:
                faults.append(f"{tag} after {changed[pid]}")
        elif tag == "ABORTED":
            open_intents[facts["intent"]] += 1
        elif tag == "INTENT":
            open_intents.setdefault(leaf["id"], 0)
    faults += [f"an INTENT ended {times} times" for times in open_intents.values() if times != 1]
    return faults + _left_behind(completed, rows)


def _left_behind(completed: set[str], rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    faults = []
    for row in rows["authorisation"]:
        if row["signature"] is not None and row["complete_id"] not in completed:
            faults.append("a signature without COMPLETE")
        if row["state"] in ("AUTHORIZED", "RESERVED"):
            faults.append(f"a row that is still {row['state']}")
    faults += ["an approval with something parked" for row in rows["approval"] if row["parked"] is not None]
    faults += ["a challenge with a capsule" for row in rows["otp_challenge"] if row["capsule"] is not None]
    faults += ["a grant with something parked" for row in rows["token_grant"] if row["parked"] is not None]
    faults += ["something pending is left" for _ in rows["pending_approval"]]
    return faults


async def moments(vault: Vault, folder: Path, seed: int, *, count: int) -> dict[str, Any]:
    """``count`` random moments, each with a citizen of its own."""
    source = random.Random(seed)  # noqa: S311 - the same seed, the same campaign
    ends: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    async with playing(folder, vault=vault) as played:
        pace_seconds = await _a_quiet_approval(played, Person(0))
        for number in range(1, count + 1):
            person, kind, documents = Person(number), source.choice(CHANGES), source.randint(1, 4)
            delay = source.random() * pace_seconds
            await person.arrive(played)
            if source.random() < 0.5:
                # Half of the approvals use a certificate that is there already.
                await _sign_once(played, person)
            kinds[kind] += 1
            ends[await one_moment(played, person, kind, documents, delay)] += 1
        leaves = await played.leaves()
        rows = {
            table.name: await played.rows(table)
            for table in (
                tables.authorisation,
                tables.approval,
                tables.pending_approval,
                otp_challenge,
                token_grant,
            )
        }
    faults = verdict(leaves, rows)
    return {
        "moments": count,
        "kinds": dict(kinds),
        "ends": dict(ends),
        "faults": Counter(faults),
        "held": not faults and ends["signed"] < count,
    }


async def _sign_once(played: Played, person: Person) -> None:
    staged = await played.stage()
    begun = await played.begin(staged, password=person.password, nif=person.nif)
    sad = await played.redeem(staged, await played.complete(staged, begun))
    await played.sign(sad)


async def _a_quiet_approval(played: Played, person: Person) -> float:
    """How long an approval takes here: the second one, when every key of the day is made."""
    await person.arrive(played)
    await _sign_once(played, person)
    begun = time.monotonic()
    await _sign_once(played, person)
    return time.monotonic() - begun


async def campaign(seed: int) -> dict[str, Any]:
    """500 moments over a real token."""
    with tempfile.TemporaryDirectory(prefix="rubrica-drill-") as folder:
        pool = await HSMPool.start(core_token(Path(folder)))
        try:
            result = await moments(TokenVault(pool), Path(folder), seed, count=500)
        finally:
            await pool.close()
    return {"drill": "generation", "seed": seed, **result}


def main() -> int:
    """Run the campaign; 0 only if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.generation", description=__doc__)
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
