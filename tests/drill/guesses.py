"""Guesses by the thousand, all at once, through the gate's socket: how many reach a test, and what is left after.

``python -m tests.drill.guesses --seed N [--out FILE]`` runs them in full; ``make test`` runs a sample through the same
functions. What is counted is counted where the test is made: calls of the HSM, and openings of the citizen's own seal.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import authn.client
import signer.client
from authn.password.factor import PasswordFactor, PasswordFactors, password_factor
from hsm.pool import HSMPool
from hsm.token_vault import TokenVault
from rubrica.core_sockets import listening
from tests.testkit.callers import Callers, calling
from tests.testkit.core import PASSWORD, Played, playing
from tests.testkit.softhsm import core_token

MOST_CODES = 3
MOST_PASSWORDS = 5
PATIENCE_SECONDS = 240.0


@dataclass
class Site:
    """One token, one database, one or more cores that listen."""

    pool: HSMPool
    played: list[Played]
    callers: list[Callers]

    def spread(self, number: int) -> Callers:
        """The core that guess ``number`` goes to."""
        return self.callers[number % len(self.callers)]

    async def failures(self, factor: str) -> list[dict[str, Any]]:
        """Leaves that say that a password or a code was tested and wrong."""
        facts: list[dict[str, Any]] = [leaf["facts"] for leaf in await self.played[0].leaves("AUTH_FAIL")]  # type: ignore[misc]
        return [fact for fact in facts if fact["factor"] == factor]


@asynccontextmanager
async def site(folder: Path, *, cores: int = 1) -> AsyncIterator[Site]:
    """Cores on one database with one citizen, whose queues take every guess."""
    pool = await HSMPool.start(core_token(folder), queue_limit=10_000)
    try:
        async with AsyncExitStack() as stack:
            vault = TokenVault(pool)
            played: list[Played] = []
            callers: list[Callers] = []
            for number in range(1, cores + 1):
                # The first core is the one whose outbox runs, so every message comes to its phone.
                core = await stack.enter_async_context(
                    playing(
                        folder,
                        vault=vault,
                        sending=number == 1,
                        instance=f"core-{number}",
                        argon2_queue_limit=10_000,
                        pki=played[0].pki if played else None,
                    )
                )
                played.append(core)
                sockets = folder / f"s{number}"
                await stack.enter_async_context(listening(sockets, core.core))
                callers.append(await stack.enter_async_context(calling(sockets, played[0].otp)))
                callers[-1].browser = callers[0].browser
            await callers[0].activate(await callers[0].register())
            yield Site(pool, played, callers)
    finally:
        await pool.close()


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """How long callers wait before they hang up."""
    with (
        mock.patch.object(signer.client, "QUICK_SECONDS", seconds),
        mock.patch.object(signer.client, "STRETCHING_SECONDS", seconds),
        mock.patch.object(authn.client, "QUICK_SECONDS", PATIENCE_SECONDS),
    ):
        yield


async def _all_at_once(calls: Sequence[Awaitable[object]]) -> Counter[str]:
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(type(answer).__name__ for answer in answers)


async def codes(folder: Path, seed: int, *, guesses: int, cores: int = 1, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wrong codes on one challenge at once, then the right one."""
    source = random.Random(seed)  # noqa: S311 - the same seed, the same campaign
    async with site(folder, cores=cores) as place:
        first = place.callers[0]
        staged = await first.stage()
        cid = (await first.begin(staged)).challenge_id
        right = await first.otp(cid)
        wrong = [code for code in (f"{source.randrange(10**6):06}" for _ in range(guesses)) if code != right]
        envelopes = [await place.spread(number).otp_envelope(staged, cid, code) for number, code in enumerate(wrong)]
        before = place.pool.calls["mac"]
        with patience(seconds):
            outcomes = await _all_at_once(
                [place.spread(number).gate.complete(cid, envelope) for number, envelope in enumerate(envelopes)]
            )
        await _settled(place)
        tested = place.pool.calls["mac"] - before
        leaves = len(await place.failures("otp"))
        before = place.pool.calls["mac"]
        last = await _all_at_once([place.spread(seed).gate.complete(cid, await first.otp_envelope(staged, cid, right))])
        late = place.pool.calls["mac"] - before
        approvals = len(await place.played[0].leaves("REDEEM")) + len(await place.played[0].leaves("INTENT"))
        # Whoever hangs up very soon may not have been heard at all: then fewer were tested, and nothing has ended.
        ended = late == 0 and approvals == 0 and dict(last) == {"FactorError": 1}
    return {
        "guesses": len(wrong),
        "cores": cores,
        "outcomes": dict(outcomes),
        "tested": tested,
        "leaves": leaves,
        "right_one_after": dict(last),
        "held": tested == leaves <= MOST_CODES and (ended if tested == MOST_CODES else seconds < PATIENCE_SECONDS),
    }


@dataclass
class Tests:
    """What really was tried against the citizen's own seal, in the order of the attempts."""

    __test__ = False

    right: set[int] = field(default_factory=set)
    wrong: set[int] = field(default_factory=set)


@contextmanager
def watched(seal: bytes) -> Iterator[Tests]:
    """Watch every opening of the seal that the register holds; others are random bytes, and no guess at anything."""
    tests = Tests()
    opening = PasswordFactors.open_vault_secret

    async def open_and_note(self: PasswordFactors, factor: PasswordFactor, password: bytes) -> bytes | None:
        secret = await opening(self, factor, password)
        if factor.sealed_vault_secret == seal:
            (tests.wrong if secret is None else tests.right).add(factor.attempts.reserved)
        return secret

    with mock.patch.object(PasswordFactors, "open_vault_secret", open_and_note):
        yield tests


async def passwords(
    folder: Path, seed: int, *, guesses: int, cores: int = 1, right_ones: int = 0, seconds: float = PATIENCE_SECONDS
) -> Any:
    """Wrong passwords at once, right ones hidden among the first few; then the right one, and no SMS comes.

    Every success may forgive what was tried before it, never what came after, so between two successes and after the
    last one at most five wrong ones are tested.
    """
    source = random.Random(seed)  # noqa: S311 - the same seed, the same campaign
    async with site(folder, cores=cores) as place:
        first, played = place.callers[0], place.played[0]
        rows = {row["id"]: row for row in await played.rows(password_factor)}
        (seal,) = (row["sealed_vault_secret"] for name, row in rows.items() if not str(name).startswith("decoy"))
        staged = await first.stage()
        typed = [f"Equivocada-{number}" for number in range(guesses)]
        for _ in range(right_ones):
            typed.insert(source.randrange(MOST_PASSWORDS), PASSWORD)
        envelopes = [await first.password_envelope(staged, password) for password in typed]
        with watched(bytes(seal)) as tests:  # type: ignore[call-overload]
            with patience(seconds):
                outcomes = await _all_at_once(
                    [
                        place.spread(number).gate.begin(staged.id, "12345678Z", envelope)
                        for number, envelope in enumerate(envelopes)
                    ]
                )
            await _settled(place)
            leaves = sum(fact["tested"] for fact in await place.failures("password"))
            sent = len(await played.leaves("OTP_SENT"))
            with patience(PATIENCE_SECONDS):
                last = await _all_at_once([first.begin(staged)])
            silent = len(await played.leaves("OTP_SENT")) == sent
        between = _runs(tests)
    return {
        "guesses": guesses,
        "cores": cores,
        "right_ones": right_ones,
        "outcomes": dict(outcomes),
        "tested": len(tests.wrong),
        "leaves": leaves,
        "between_successes": between,
        "right_one_after": dict(last),
        "right_one_after_sends": not silent,
        "held": max(between) <= MOST_PASSWORDS
        and leaves == len(tests.wrong)
        # Nothing is blocked where fewer were tested: whoever hangs up very soon may not have been heard at all, and a
        # right one among the first five lifts the block that all others ran into.
        and (silent if between[-1] == MOST_PASSWORDS else right_ones > 0 or seconds < PATIENCE_SECONDS)
        and dict(last) == {"OTPChallenge": 1},
    }


def _runs(tests: Tests) -> list[int]:
    """How many wrong ones were tested before the first success, between each two, and after the last."""
    marks = [0, *sorted(tests.right), sys.maxsize]
    return [sum(low < number < high for number in tests.wrong) for low, high in itertools.pairwise(marks)]


async def _settled(place: Site) -> None:
    """Wait until no call that its caller gave up still works in a core."""
    quiet, calls = 0, -1
    while quiet < 3:
        await asyncio.sleep(0.3)
        now = place.pool.calls.total() + len(await place.played[0].leaves())
        quiet, calls = (quiet + 1 if now == calls else 0), now


async def campaign(seed: int) -> dict[str, Any]:
    """All of them, in full."""
    runs: dict[str, tuple[Callable[..., Awaitable[Any]], dict[str, Any]]] = {
        "codes": (codes, {}),
        "codes_on_two_cores": (codes, {"cores": 2}),
        "codes_by_the_impatient": (codes, {"seconds": 1.0}),
        "passwords": (passwords, {}),
        "passwords_on_two_cores": (passwords, {"cores": 2}),
        "passwords_by_the_impatient": (passwords, {"seconds": 2.0}),
        "passwords_around_a_right_one": (passwords, {"right_ones": 1}),
        "passwords_around_right_ones": (passwords, {"right_ones": 3, "cores": 2}),
    }
    results = {}
    for name, (run, options) in runs.items():
        with tempfile.TemporaryDirectory(prefix="rubrica-drill-") as folder:
            results[name] = await run(Path(folder), seed, guesses=1000, **options)
    return {"drill": "guesses", "seed": seed, "held": all(result["held"] for result in results.values()), **results}


def main() -> int:
    """Run the campaign; 0 only if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.guesses", description=__doc__)
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
