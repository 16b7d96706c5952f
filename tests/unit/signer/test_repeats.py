"""Losing an answer and asking again gives the same answer, and never a second SMS, certificate or signature."""

import asyncio

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from domain.algorithms import KeyType
from domain.errors import Busy, FactorMismatch, IdempotencyConflict, IssuerUnavailable, StateConflict
from signer import tables
from tests.testkit.core import code_of, playing
from tests.testkit.time import FrozenClock


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        yield played


async def test_stage_again(played):
    staged = await played.stage(idempotency_key="key-1")
    assert staged == await played.stage(idempotency_key="key-1")
    with pytest.raises(IdempotencyConflict):
        await played.stage(2, idempotency_key="key-1")
    assert len(await played.rows(tables.request)) == 1


async def test_begin_again(played):
    staged = await played.stage()
    envelope = await played.password_envelope(staged)
    begin = played.core.activation.begin
    answers = await asyncio.gather(*(begin(staged.id, "12345678Z", envelope) for _ in range(10)))
    assert len(set(answers)) == 1
    await played.otp(answers[0].challenge_id)
    assert answers[0] == await begin(staged.id, "12345678Z", envelope)
    assert played.phone.handed_over == 2  # activation's and this one
    assert len([leaf for leaf in await played.leaves("OTP_SENT") if leaf["facts"]["purpose"] == "sign"]) == 1


async def test_a_wrong_password_sent_ten_times_is_one_attempt(played):
    staged = await played.stage()
    envelope = await played.password_envelope(staged, password="Equivocada-9")
    await asyncio.gather(*(played.core.activation.begin(staged.id, "12345678Z", envelope) for _ in range(10)))
    assert len(await played.leaves("AUTH_FAIL")) == 1


async def test_complete_again(played):
    staged = await played.stage()
    begun = await played.begin(staged)
    envelope = await played.otp_envelope(staged, begun, await played.otp(begun.challenge_id))
    complete = played.core.activation.complete
    urls = await asyncio.gather(*(complete(begun.challenge_id, envelope) for _ in range(10)))
    assert len(set(urls)) == 1
    assert len(await played.rows(tables.approval)) == 1
    # Another envelope with the same right code is not the lost answer: the code was used.
    another = await played.otp_envelope(staged, begun, await played.otp(begun.challenge_id))
    with pytest.raises(FactorMismatch):
        await complete(begun.challenge_id, another)
    assert code_of(urls[0])


async def test_redeem_and_sign_again(played):
    staged, code = await played.approve(3)
    sads = await asyncio.gather(*(played.redeem(staged, code) for _ in range(10)))
    assert len(set(sads)) == 1
    answers = await asyncio.gather(*(played.sign(sads[0], (0, 1, 2, 3)) for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].receipt
    assert played.issuer.issued == 1
    assert len(await played.leaves("COMPLETE")) == 3
    assert sads[0] == await played.redeem(staged, code)


async def test_item_by_item(played):
    _, sad = await played.approved(3)
    first = await played.sign(sad, (1,))
    assert first.receipt == ""
    second = await played.sign(sad, (2, 1))
    assert first.items[0] == second.items[1]
    last = await played.sign(sad, (3, 0))
    assert last.receipt
    assert last == await played.sign(sad, (3, 0))


async def test_an_issuer_that_is_down_costs_nothing(played):
    _, sad = await played.approved()
    played.issuer.fault = IssuerUnavailable("the certification authority does not answer")
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await played.sign(sad)
    assert [leaf["facts"]["reason"] for leaf in await played.leaves("ABORTED")] == ["ca_unavailable"] * 3
    played.issuer.fault = None
    signed = await played.sign(sad)
    assert [item.state for item in signed.items] == ["SIGNED", "SIGNED"]
    # One signature over the certificate request, kept over the failures.
    assert played.vault.calls["sign"] == 2
    assert played.issuer.issued == 1


async def test_whoever_hangs_up_loses_nothing(played):
    _, sad = await played.approved()
    played.issuer.before_answer = asyncio.Event()
    asking = asyncio.create_task(played.sign(sad))
    while not played.issuer.issued:
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    played.issuer.before_answer.set()
    signed = await played.sign(sad)
    assert signed.receipt
    assert played.issuer.issued == 1
    assert len(await played.leaves("COMPLETE")) == 1


async def test_a_lost_sms_is_sent_again_after_a_minute_twice_at_most(tmp_path):
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        staged = await played.stage()
        begun = await played.begin(staged)
        code = await played.otp(begun.challenge_id)
        await played.core.activation.resend(begun.challenge_id)
        for repeat in (1, 2):
            clock.advance(seconds=61)
            for _ in range(3):
                await played.core.activation.resend(begun.challenge_id)
            assert code == await played.otp(f"{begun.challenge_id}.{repeat}")
        clock.advance(seconds=61)
        await played.core.activation.resend(begun.challenge_id)
        await asyncio.sleep(0.2)
        assert played.phone.handed_over == 4  # activation's, this one and two repeats
        await played.complete(staged, begun)


async def test_a_resend_sends_nothing_where_nothing_was_sent(tmp_path):
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        begun = await played.begin(await played.stage(), password="Equivocada-9")
        clock.advance(seconds=61)
        await played.core.activation.resend(begun.challenge_id)
        await played.core.activation.resend("UNKNOWN")
        await asyncio.sleep(0.2)
        assert played.phone.handed_over == 1


async def test_one_grant_is_good_for_one_approval(played):
    grant = await played.grant("T-1")
    first = await played.stage(grant=grant)
    begun_before = await played.begin(first)
    second = await played.stage(2, grant=grant)
    begun = await played.begin(second)
    await played.complete(first, begun_before)
    with pytest.raises(StateConflict, match="approved before"):
        await played.complete(second, begun)
    with pytest.raises(StateConflict, match="approved before"):
        await played.begin(await played.stage(grant=grant))
    other = await played.stage(grant=await played.grant("T-2"))
    await played.complete(other, await played.begin(other))


async def test_a_full_queue_costs_no_attempt(tmp_path):
    async with playing(tmp_path, argon2_queue_limit=1) as played:
        await played.activate(await played.register())
        stagings = [await played.stage() for _ in range(6)]
        answers = await asyncio.gather(*(played.begin(staged) for staged in stagings), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Busy)]
        assert refused
        assert all(error.retry_after_seconds for error in refused)
        assert 6 - len(refused) == len(await played.leaves("OTP_SENT")) - 1
        assert await played.leaves("AUTH_FAIL") == []


async def test_rsa_keys_come_from_a_stock_and_each_is_given_once(tmp_path):
    async with playing(tmp_path) as played:
        newborns = played.core.newborns
        await newborns.refill()
        assert played.vault.calls["generate"] == 0  # nobody asked for RSA yet
        taken = [await newborns.take(KeyType.RSA3072)]
        for _ in range(5):
            await newborns.refill()
        before = played.vault.calls["generate"]
        taken += [await newborns.take(KeyType.RSA3072) for _ in range(3)]
        assert before == played.vault.calls["generate"]
        taken.append(await newborns.take(KeyType.RSA3072))
        assert before + 1 == played.vault.calls["generate"]
        assert len({pair.spki for _, pair in taken}) == 5


async def test_a_citizen_signs_with_rsa(played):
    _, sad = await played.approved(key_type=KeyType.RSA3072)
    signed = await played.sign(sad)
    certificate = x509.load_der_x509_certificate(signed.items[1].chain[0])
    certificate.public_key().verify(
        signed.items[1].signature, signed.items[1].to_be_signed, padding.PKCS1v15(), hashes.SHA256()
    )


async def test_two_cores_that_redeem_at_once_give_one_answer(tmp_path):
    async with playing(tmp_path) as first:
        await first.activate(await first.register())
        staged, code = await first.approve()
        async with playing(tmp_path, vault=first.vault, pki=first.pki, instance="other") as second:
            park, meet = first.core.activation._parking.park, asyncio.Event()

            async def wait(*arguments: object):
                await meet.wait()
                return await park(*arguments)

            first.core.activation._parking.park = wait
            slow = asyncio.create_task(first.redeem(staged, code))
            await asyncio.sleep(0.1)
            fast = await second.redeem(staged, code)
            meet.set()
            assert fast == await slow
            signed = await first.sign(fast)
            assert signed.receipt
