"""Login by PIN: what opens it, what does not, what it costs and where it ends."""

import ast
import asyncio
import secrets
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

import signer
from authn.envelope import EnvelopeContext, EnvelopePurpose
from authn.messages.outbox import message
from authn.otp.budget import WRONG_IN_A_ROW
from authn.otp.rows import OTP_TRIES, OTPPurpose, otp_challenge
from authn.pin.login import PIN
from authn.registration.citizens import citizen
from authn.sessions import RECORD_SIZE_BYTES, AuthenticationRecord, login_session
from domain import identity
from domain.assurance import LoA
from domain.errors import ActivationError, CodeExpired, FactorMismatch, MalformedRequest, NotPermitted, RequestExpired
from domain.ids import CitizenId
from hsm.keys import SigningKey
from tests.testkit.core import NIF, Played, playing
from tests.testkit.pin import ACCESS_CODE, AUDIENCE, EMAIL, NONCE, PINVisitor
from tests.testkit.time import FrozenClock
from tests.unit.signer.test_uniform import UNKNOWN, measured

WRONG_PIN = "222222"


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path, clock=FrozenClock()) as played:
        await played.register(level="basic")
        yield played


@pytest.fixture
def visitor(played: Played) -> PINVisitor:
    return PINVisitor(played)


@pytest.fixture
def clock(played: Played) -> FrozenClock:
    assert isinstance(played.core.clock, FrozenClock)
    return played.core.clock


async def token_key(played: Played) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(await played.vault.public_key(SigningKey.TOKENS))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


@contextmanager
def refused_alike():
    with pytest.raises(FactorMismatch) as refused:
        yield
    assert refused.value.public_detail.startswith("the code does not match")


async def test_the_right_code_and_pin_give_an_identity_of_level_low(played, visitor, clock):
    token = await visitor.log_in()
    told = identity.verify(token, await token_key(played), audience=AUDIENCE, nonce=NONCE, now=clock.now())
    assert told.loa is LoA.LOW
    assert told.methods == ("access-code", "sms")
    assert told.authenticated == clock.now()
    (session,) = await played.rows(login_session)
    assert (session["id"], session["loa"], session["audience"]) == (told.session_id, "low", AUDIENCE)
    (leaf,) = await played.leaves("AUTH_OK")
    assert leaf["facts"]["factors"] == "access-code+sms"
    assert leaf["facts"]["session"] == told.session_id
    assert leaf["pid"] == session["pid"]
    # The audience's own pseudonym, not that of the log.
    assert told.pid != leaf["pid"].hex()


async def test_the_message_holds_pin_and_origin_and_no_link(visitor, played):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    phone, text = played.phone.messages[begun.challenge_id]
    assert phone == "+34612345678"
    assert text.endswith(f"\n@localhost #{pin}")
    assert f"Ref {begun.reference}" in text
    assert "10 min" in text
    assert "://" not in text
    assert ACCESS_CODE not in text


async def test_the_access_code_is_stored_nowhere(visitor, tmp_path):
    code = "Q7ZX"
    begun = await visitor.begin(access_code=code)
    await visitor.complete(begun, await visitor.pin(begun), access_code=code)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("core.db*"))
    assert begun.challenge_id.encode() in stored
    assert code.encode() not in stored


async def test_a_wrong_pin_does_not_open(visitor):
    begun = await visitor.begin()
    with refused_alike():
        await visitor.complete(begun, WRONG_PIN)
    assert await visitor.complete(begun, await visitor.pin(begun))


async def test_a_wrong_access_code_does_not_open(visitor):
    begun = await visitor.begin()
    with refused_alike():
        await visitor.complete(begun, await visitor.pin(begun), access_code="PATO")


async def test_another_browser_does_not_open(visitor, played):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    played.browser.cs = secrets.token_bytes(32)
    with refused_alike():
        await visitor.complete(begun, pin)


@pytest.mark.parametrize("swapped", [{"nonce": "nonce-of-a-stranger-2"}, {"audience": "ayuntamiento"}])
async def test_another_asker_or_login_does_not_open(visitor, played, swapped):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    with refused_alike():
        await PINVisitor(played, **swapped).complete(begun, pin)
    # Swapped on the way, behind the back of the one who sealed.
    envelope = await visitor.complete_envelope(begun, pin)
    asker = {"audience": AUDIENCE, "nonce": NONCE, **swapped}
    with pytest.raises(MalformedRequest):
        await played.core.pins.complete(begun.challenge_id, asker["audience"], asker["nonce"], envelope)


async def test_a_citizen_whose_phone_changed_meanwhile_does_not_get_in(visitor, played):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    await played.core.phone_change.change(nif=NIF, phone="+34687654321")
    with refused_alike():
        await visitor.complete(begun, pin)


async def test_a_phone_change_ends_logins(visitor, played, clock):
    await visitor.log_in()
    await played.core.phone_change.change(nif=NIF, phone="+34687654321")
    (session,) = await played.rows(login_session)
    assert session["ended"] == clock.now()


async def test_a_row_edited_behind_the_cores_back_does_not_open(visitor, played):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    await played.register(nif="87654321X", phone="+34687654321")
    (mine, other) = [row["id"] for row in await played.rows(citizen)]
    await played.execute(sa.update(otp_challenge).values(citizen_id=other))
    with refused_alike():
        await visitor.complete(begun, pin)
    await played.execute(sa.update(otp_challenge).values(citizen_id=mine))
    assert await visitor.complete(begun, pin)


async def test_three_tries_then_even_the_right_pin_is_late(visitor, played):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    for _ in range(OTP_TRIES):
        with refused_alike():
            await visitor.complete(begun, WRONG_PIN)
    with refused_alike():
        await visitor.complete(begun, pin)
    assert await played.rows(login_session) == []


async def test_parallel_guesses_share_three_tries(visitor, played):
    begun = await visitor.begin()
    await visitor.pin(begun)
    before = played.vault.calls["mac"]
    outcomes = await asyncio.gather(*(visitor.complete(begun, WRONG_PIN) for _ in range(8)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {FactorMismatch}
    # Only a reserved try is tested, and a test takes one MAC.
    assert played.vault.calls["mac"] - before == OTP_TRIES


async def test_ten_minutes_then_it_is_over(visitor, clock):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    clock.advance(599)
    assert begun.expires - clock.now() == timedelta(seconds=1)
    clock.advance(1)
    with pytest.raises(CodeExpired):
        await visitor.complete(begun, pin)


async def test_within_ten_minutes_it_opens(visitor, clock):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    clock.advance(599)
    assert await visitor.complete(begun, pin)


async def test_a_pin_opens_once_and_the_same_envelope_gets_the_same_answer(visitor, played):
    begun = await visitor.begin()
    pin = await visitor.pin(begun)
    envelope = await visitor.complete_envelope(begun, pin)
    first = await played.core.pins.complete(begun.challenge_id, AUDIENCE, NONCE, envelope)
    again = await played.core.pins.complete(begun.challenge_id, AUDIENCE, NONCE, envelope)
    assert (first.sealed_token, first.expires) == (again.sealed_token, again.expires)
    with refused_alike():
        await visitor.complete(begun, pin)
    assert len(await played.rows(login_session)) == 1


async def test_the_same_begin_envelope_sends_one_message(visitor, played):
    envelope = await visitor.begin_envelope()
    first = await played.core.pins.begin(NIF, EMAIL, AUDIENCE, NONCE, envelope)
    again = await played.core.pins.begin(NIF, EMAIL, AUDIENCE, NONCE, envelope)
    assert first == again
    assert len(await played.rows(message)) == 1


async def test_three_messages_in_a_quarter_of_an_hour_and_ten_a_day(visitor, played, clock):
    async def state() -> str:
        begun = await visitor.begin()
        (row,) = [row for row in await played.rows(message) if row["id"] == begun.challenge_id]
        return "VOID" if row["state"] == "VOID" else "sent"

    assert [await state() for _ in range(4)] == ["sent", "sent", "sent", "VOID"]
    sent = 3
    for _ in range(9):
        clock.advance(15 * 60)
        sent += await state() == "sent"
    assert sent == 10
    clock.advance(24 * 3600)
    assert await state() == "sent"


async def test_a_pin_that_was_not_sent_opens_nothing(visitor, played, monkeypatch):
    """Over the budget not even the one who knows the PIN that was drawn gets in."""
    drawn = []
    write = played.core.pins._texts.pin

    def spy(self, *, reference: str, otp: str, minutes: int) -> str:
        del self
        drawn.append(otp)
        return write(reference=reference, otp=otp, minutes=minutes)

    monkeypatch.setattr(type(played.core.pins._texts), "pin", spy)
    *_, last, late = [await visitor.begin() for _ in range(4)]
    with refused_alike():
        await visitor.complete(late, drawn[-1])
    assert await visitor.complete(last, drawn[-2])


async def test_two_who_ask_at_once_do_not_get_more(visitor, played):
    await asyncio.gather(*(visitor.begin() for _ in range(6)))
    assert Counter(row["real"] for row in await played.rows(otp_challenge)) == {True: 3, False: 3}


async def test_five_failed_pins_in_a_row_block_for_an_hour(visitor, played, clock):
    async def fail() -> None:
        begun = await visitor.begin()
        for _ in range(OTP_TRIES):
            with refused_alike():
                await visitor.complete(begun, WRONG_PIN)
        clock.advance(6 * 60)

    for _ in range(WRONG_IN_A_ROW // OTP_TRIES):
        await fail()
    begun = await visitor.begin()
    assert (await played.leaves("AUTH_FAIL"))[-1]["facts"]["reason"] == "blocked"
    with refused_alike():
        await visitor.complete(begun, WRONG_PIN)
    clock.advance(70 * 60)
    assert await visitor.log_in()


async def test_a_success_ends_the_run_of_failures(visitor, clock):
    for _ in range(WRONG_IN_A_ROW // OTP_TRIES - 1):
        begun = await visitor.begin()
        for _ in range(OTP_TRIES):
            with refused_alike():
                await visitor.complete(begun, WRONG_PIN)
        clock.advance(6 * 60)
    assert await visitor.log_in()
    clock.advance(6 * 60)
    begun = await visitor.begin()
    for _ in range(OTP_TRIES):
        with refused_alike():
            await visitor.complete(begun, WRONG_PIN)
    clock.advance(6 * 60)
    assert await visitor.log_in()


@pytest.mark.parametrize("code", ["", "ABC", "ABCDE", "gato", "ñ234", "AB 1"])
async def test_an_access_code_has_four_letters_or_digits(visitor, played, code):
    with pytest.raises(MalformedRequest):
        await visitor.begin(access_code=code)
    assert await played.rows(otp_challenge) == []


async def test_only_the_citizens_own_web_is_offered_a_login(played):
    with pytest.raises(NotPermitted):
        await PINVisitor(played, audience="ayuntamiento").begin()
    with pytest.raises(MalformedRequest):
        await PINVisitor(played, nonce="short").begin()


async def test_an_old_challenge_is_no_place_to_seal_to(visitor, played, clock):
    envelope = await visitor.begin_envelope()
    clock.advance(121)
    with pytest.raises(RequestExpired):
        await played.core.pins.begin(NIF, EMAIL, AUDIENCE, NONCE, envelope)


async def test_it_costs_the_same_for_everybody(tmp_path):
    async with playing(tmp_path, sending=False) as played:
        await played.register()
        await played.register(nif="87654321X", phone="+34687654321")
        visitor = PINVisitor(played)
        await visitor.begin(nif=UNKNOWN)
        works, answers = {}, {}
        for name, nif, email in (
            ("right", NIF, EMAIL),
            ("wrong e-mail", NIF, "other@example.org"),
            ("unknown", UNKNOWN, EMAIL),
            ("nonsense", "XXXXXXXX", EMAIL),
        ):
            envelope = await visitor.begin_envelope(nif=nif)
            with measured(played) as works[name]:
                answers[name] = await played.core.pins.begin(nif, email, AUDIENCE, NONCE, envelope)
        await visitor.begin()
        await visitor.begin()
        envelope = await visitor.begin_envelope()
        with measured(played) as works["too many"]:
            answers["too many"] = await played.core.pins.begin(NIF, EMAIL, AUDIENCE, NONCE, envelope)
        assert Counter(row["state"] for row in await played.rows(message)) == {"WAITING": 3, "VOID": 5}
        assert len({len(row["capsule"]) for row in await played.rows(otp_challenge)}) == 1
        assert len({(answer.tries, len(answer.reference)) for answer in answers.values()}) == 1
        right = works["right"]
        assert right.hsm.total() > 0
        assert right.commits == 2
        for name, work in works.items():
            assert right == work, name
        tries = {}
        for name in ("right", "unknown", "too many"):
            tries[name] = []
            for _ in range(OTP_TRIES + 1):
                envelope = await visitor.complete_envelope(answers[name], WRONG_PIN)
                with measured(played) as work, pytest.raises(FactorMismatch) as refused:
                    await played.core.pins.complete(answers[name].challenge_id, AUDIENCE, NONCE, envelope)
                tries[name].append((work, refused.value.public_detail))
        assert tries["right"] == tries["unknown"] == tries["too many"]


async def test_a_pin_never_leads_to_a_signature(tmp_path):
    """Neither its challenge nor its token is good for any step of signing or of a password."""
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        visitor = PINVisitor(played)
        staged = await played.stage()
        begun = await visitor.begin()
        pin = await visitor.pin(begun)
        with pytest.raises(FactorMismatch):
            await played.complete(staged, begun, ACCESS_CODE + pin)
        context = EnvelopeContext(purpose=EnvelopePurpose.PASSWORD_CHANGE_COMPLETE, challenge_id=begun.challenge_id)
        envelope = played.browser.seal(await played.mint(), context, (ACCESS_CODE + pin).encode())
        with pytest.raises(FactorMismatch):
            await played.core.grants.complete(
                OTPPurpose.PASSWORD_CHANGE, EnvelopePurpose.PASSWORD_CHANGE_COMPLETE, begun.challenge_id, envelope
            )
        token = await visitor.complete(begun, pin)
        signing = await played.begin(staged)
        for secret in (token, ACCESS_CODE + pin, pin):
            with pytest.raises(FactorMismatch):
                await played.complete(staged, signing, secret)
        with pytest.raises(ActivationError):
            await played.redeem(staged, token.encode()[:32])
        with pytest.raises(ActivationError):
            await played.sign(token.encode()[:32])
        assert await played.leaves("INTENT") == []
        # Its forged twin the other way: a code for a signature is none for a login.
        fresh = await played.begin(await played.stage())
        with pytest.raises(FactorMismatch):
            await visitor.complete(fresh, await played.otp(fresh.challenge_id))
        assert len(await played.rows(login_session)) == 1


def test_the_signing_core_does_not_know_of_logins():
    """No module of signer reads a login: it may only end them."""
    found = set()
    for path in Path(signer.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.startswith(("authn.pin", "authn.sessions", "domain.identity")) for name in names):
                found.add(path.name)
    assert found <= {"revocation.py", "tokens.py"}


def test_records_keep_their_length_and_content():
    record = AuthenticationRecord(session_id="A" * 26, citizen_id=CitizenId("B" * 26), pid=bytes(range(32)))
    assert len(record.encode()) == RECORD_SIZE_BYTES
    assert AuthenticationRecord.decode(record.encode()) == record
    with pytest.raises(ValueError, match="encoding"):
        AuthenticationRecord.decode(record.encode()[:-1])


def test_pins_are_drawn_from_28_symbols_alike():
    assert len(set(PIN.alphabet)) == 28
    assert not set("01LIOAEU") & set(PIN.alphabet)
    drawn = Counter("".join(PIN.draw(secrets.token_bytes(16)) for _ in range(3000)))
    assert set(drawn) == set(PIN.alphabet)
    assert max(drawn.values()) < 2 * min(drawn.values())
