"""What goes wrong inside costs the citizen nothing, and what strangers send leaves nothing."""

import asyncio

import pytest
import sqlalchemy as sa

from authn.challenge import sap_key
from authn.envelope import EnvelopeContext, EnvelopePurpose
from authn.password.factor import password_factor
from domain.algorithms import KeyType
from domain.errors import Busy, FactorMismatch, MalformedRequest, RowEdited, SADInvalid, WeakRegistration
from hsm.errors import HSMBusy
from hsm.keys import MACKey
from tests.testkit.core import NIF, playing


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        yield played


def busy_for(played, monkeypatch, key):
    """The HSM has no time for one kind of call."""
    mac = played.vault.mac

    async def refusing(name, *parts: object, version=None):
        if name is key and parts[0] in ("pw", "otp"):
            raise HSMBusy("no time")
        return await mac(name, *parts, version=version)

    monkeypatch.setattr(played.vault, "mac", refusing)


async def test_a_busy_hsm_costs_no_password_attempt(played, monkeypatch):
    staged = await played.stage()
    envelope = await played.password_envelope(staged)
    with monkeypatch.context() as patch:
        busy_for(played, patch, MACKey.PEPPER)
        for _ in range(7):
            with pytest.raises(HSMBusy):
                await played.core.activation.begin(staged.id, NIF, envelope)
    assert {0} == {row["reserved"] - row["forgiven"] for row in await played.rows(password_factor)}
    begun = await played.core.activation.begin(staged.id, NIF, envelope)
    assert await played.complete(staged, begun)


async def test_a_busy_hsm_costs_no_code(played, monkeypatch):
    staged = await played.stage()
    begun = await played.begin(staged)
    envelope = await played.otp_envelope(staged, begun, await played.otp(begun.challenge_id))
    with monkeypatch.context() as patch:
        busy_for(played, patch, MACKey.CAPSULE)
        for _ in range(5):
            with pytest.raises(HSMBusy):
                await played.core.activation.complete(begun.challenge_id, envelope)
    assert await played.core.activation.complete(begun.challenge_id, envelope)


async def test_a_wrong_attempt_beside_a_busy_one_still_counts(played, monkeypatch):
    with monkeypatch.context() as patch:
        busy_for(played, patch, MACKey.PEPPER)
        with pytest.raises(HSMBusy):
            await played.begin(await played.stage())
    await played.begin(await played.stage(), password="Equivocada-9")
    assert {0, 1} == {row["reserved"] - row["forgiven"] for row in await played.rows(password_factor)}


@pytest.mark.parametrize("column", ["spki", "wrapped", "kek_version", "created"])
async def test_tok_speaks_for_no_sap_key_that_was_slipped_in(tmp_path, column):
    async with playing(tmp_path) as first:
        await first.mint()
        (row,) = await first.rows(sap_key)
        stranger = await first.vault.generate("KEK_sap", KeyType.P256)
        forged = {
            "spki": stranger.spki,
            "wrapped": stranger.wrapped,
            "kek_version": 2,
            "created": row["created"].replace(year=row["created"].year + 1),
        }
        await first.execute(sa.update(sap_key).values({column: forged[column]}))
    async with playing(tmp_path, vault=first.vault, pki=first.pki) as second:
        with pytest.raises(RowEdited):
            await second.mint()


async def test_a_reason_is_told_again(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register(level="basic"))
        staged = await played.stage()
        begun = await played.begin(staged)
        envelope = await played.otp_envelope(staged, begun, await played.otp(begun.challenge_id))
        for _ in range(3):
            with pytest.raises(WeakRegistration):
                await played.core.activation.complete(begun.challenge_id, envelope)
        assert len([leaf for leaf in await played.leaves("AUTH_OK") if "refusal" in leaf["facts"]]) == 1


async def test_strangers_write_no_text_into_the_log(played):
    canary = "Juan Español Español 00000000T +34600000000"
    for text in (canary, "x" * 70_000):
        context = EnvelopeContext(purpose=EnvelopePurpose.ACTIVATION_SET, challenge_id=text)
        envelope = played.browser.seal(await played.mint(), context, b"Clave-Nueva-1", b"t" * 32)
        with pytest.raises(FactorMismatch):
            await played.core.password_activation.set_password(text, envelope)
        with pytest.raises(FactorMismatch):
            await played.core.activation.complete(text, envelope)
        with pytest.raises(SADInvalid):
            await played.core.activation.redeem(text, b"c" * 32, played.verifier, b"r" * 32)
    assert canary not in str(await played.leaves())


async def test_one_challenge_makes_one_leaf(played):
    staged = await played.stage()
    other = await played.stage()
    envelope = await played.password_envelope(other)
    before = len(await played.leaves("REFUSED"))
    with pytest.raises(MalformedRequest):
        await played.core.activation.begin(staged.id, "00000001R", envelope)
    for _ in range(5):
        with pytest.raises(FactorMismatch):
            await played.core.activation.begin(staged.id, "00000001R", envelope)
    assert before + 1 == len(await played.leaves("REFUSED"))


async def test_strangers_get_one_rsa_key_at_a_time(played):
    generate, together, most = played.vault.generate, 0, 0

    async def slow(kek, key_type):
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.05)
        together -= 1
        return await generate(kek, key_type)

    played.vault.generate = slow
    stagings = [await played.stage(key_type=KeyType.RSA3072) for _ in range(12)]
    answers = await asyncio.gather(*(played.begin(each, nif="00000001R") for each in stagings), return_exceptions=True)
    assert most == 1
    refused = [answer for answer in answers if isinstance(answer, Busy)]
    assert len(refused) >= 6
    # Whoever was refused lost nothing.
    assert len(await played.leaves("AUTH_FAIL")) == 12 - len(refused)


async def test_an_operator_ends_a_block_and_the_key_is_still_there(played):
    _, sad = await played.approved()
    first = await played.sign(sad)
    for _ in range(5):
        await played.begin(await played.stage(), password="Equivocada-9")
    with pytest.raises(AssertionError, match="no SMS"):
        await played.otp((await played.begin(await played.stage())).challenge_id)
    await played.core.unlocking.unlock(NIF)
    _, sad = await played.approved()
    assert first.items[1].chain == (await played.sign(sad)).items[1].chain
    assert len(await played.leaves("UNLOCK")) == 1
