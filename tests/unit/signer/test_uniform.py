"""What the outside can count is the same for the right password, a wrong one, nobody and somebody blocked."""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from authn.messages.outbox import message
from authn.otp.rows import OTP_TRIES, otp_challenge
from domain.errors import FactorMismatch
from tests.testkit.core import NIF, PASSWORD, Played, playing

UNKNOWN = "00000001R"


@dataclass
class Work:
    """What one call cost."""

    written: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    hsm: Counter[str] = field(default_factory=Counter)
    stretches: int = 0


@contextmanager
def measured(played: Played):
    work = Work()
    engine = played.core.engine.sync_engine

    def wrote(_connection, _cursor, statement, _parameters, context, _many):
        if context.isinsert or context.isupdate or context.isdelete:
            work.written[" ".join(statement.split()[:3])] += context.rowcount if context.rowcount > 0 else 1

    def committed(_connection):
        work.commits += 1

    before, stretches = Counter(played.vault.calls), played.core.stretcher.runs
    sa.event.listen(engine, "after_cursor_execute", wrote)
    sa.event.listen(engine, "commit", committed)
    try:
        yield work
    finally:
        sa.event.remove(engine, "after_cursor_execute", wrote)
        sa.event.remove(engine, "commit", committed)
        work.hsm = Counter(played.vault.calls) - before
        work.stretches = played.core.stretcher.runs - stretches


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path) as prepared:
        await prepared.activate(await prepared.register())
    async with playing(tmp_path, vault=prepared.vault, pki=prepared.pki, sending=False) as played:
        # The keys of the day are made once, whoever comes first.
        await played.begin(await played.stage())
        yield played


async def _block(played: Played) -> None:
    for _ in range(5):
        await played.begin(await played.stage(), password="Equivocada-9")


async def test_begin_costs_the_same_for_everybody(played):
    works, answers = {}, {}
    for name, nif, password in (
        ("right", NIF, PASSWORD),
        ("wrong", NIF, "Equivocada-9"),
        ("unknown", UNKNOWN, PASSWORD),
        ("nonsense", "XXXXXXXX", PASSWORD),
    ):
        staged = await played.stage()
        envelope = await played.password_envelope(staged, password=password, nif=nif)
        with measured(played) as works[name]:
            answers[name] = await played.core.activation.begin(staged.id, nif, envelope)
    named = await played.stage()
    await _block(played)
    envelope = await played.password_envelope(named)
    with measured(played) as works["blocked"]:
        answers["blocked"] = await played.core.activation.begin(named.id, NIF, envelope)
    right = works.pop("right")
    assert right.hsm.total() > 0
    assert right.stretches == 1
    assert right.commits == 2
    for name, work in works.items():
        assert right == work, name
    assert {(answer.tries, len(answer.reference)) for answer in answers.values()} == {(OTP_TRIES, 6)}
    capsules = {len(row["capsule"]) for row in await played.rows(otp_challenge) if row["content"] == "key"}
    assert len(capsules) == 1


async def test_only_the_right_password_sends_a_message(played):
    await played.begin(await played.stage(), password="Equivocada-9")
    await played.begin(await played.stage(), nif=UNKNOWN)
    states = Counter(row["state"] for row in await played.rows(message))
    # The first message of the fixture is the only one that waits; activation's was handed over.
    assert states == {"HANDED_OVER": 1, "WAITING": 1, "VOID": 2}


async def test_complete_fails_alike_after_a_wrong_password(played):
    works, texts = {}, {}
    for name, nif, password in (
        ("right", NIF, PASSWORD),
        ("wrong", NIF, "Equivocada-9"),
        ("unknown", UNKNOWN, PASSWORD),
    ):
        staged = await played.stage()
        begun = await played.begin(staged, password=password, nif=nif)
        tries = []
        for _ in range(OTP_TRIES + 1):
            envelope = await played.otp_envelope(staged, begun, "000000")
            with measured(played) as work, pytest.raises(FactorMismatch) as refused:
                await played.core.activation.complete(begun.challenge_id, envelope)
            tries.append((work, refused.value.public_detail))
        works[name] = [work for work, _ in tries]
        texts[name] = [text for _, text in tries]
    assert works["right"] == works["wrong"] == works["unknown"]
    assert texts["right"] == texts["wrong"] == texts["unknown"]


async def test_failures_after_a_wrong_password_never_count_against_the_citizens_codes(played):
    for _ in range(4):
        staged = await played.stage()
        begun = await played.begin(staged, password="Equivocada-9")
        for _ in range(OTP_TRIES):
            with pytest.raises(FactorMismatch):
                await played.complete(staged, begun, "000000")
    staged = await played.stage()
    begun = await played.begin(staged)
    assert "WAITING" in {row["state"] for row in await played.rows(message) if row["id"] == begun.challenge_id}


async def test_activation_costs_the_same_for_everybody(tmp_path):
    async with playing(tmp_path, sending=False) as played:
        code = await played.register()
        active = await played.register(nif="87654321X", phone="+34687654321")
        await played.activation_begin("0000", nif=UNKNOWN)
        works = {}
        for name, nif, email, typed in (
            ("right", NIF, "maria@example.org", code),
            ("wrong code", NIF, "maria@example.org", "0" * 17),
            ("wrong e-mail", NIF, "other@example.org", code),
            ("unknown", UNKNOWN, "maria@example.org", code),
            ("another's code", "87654321X", "maria@example.org", code),
        ):
            with measured(played) as works[name]:
                await played.activation_begin(typed, nif=nif, email=email)
        assert active != code
        right = works.pop("right")
        for name, work in works.items():
            assert right == work, name
        states = Counter(row["state"] for row in await played.rows(message))
        assert states == {"WAITING": 1, "VOID": 5}
