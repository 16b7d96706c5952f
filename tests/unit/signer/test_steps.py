"""Each numbered step of the protocol with a forged input or a faulted operation: nothing is signed, and retrying works.

====  =====================================================================================================
Step  Where
====  =====================================================================================================
1     ``test_a_client_without_the_right_stages_nothing``; shapes and limits in ``test_binding``
2     ``test_reasons_are_told_only_after_the_code``, ``test_no_certificate_and_none_asked_for``
3     ``test_an_old_or_foreign_challenge_costs_no_attempt``; purpose, list, citizen in ``test_binding``
4     ``test_repeats.test_a_full_queue_costs_no_attempt``; parallel guesses in ``tests/drill/guesses``
5     ``test_a_wrong_password_opens_nothing``, ``test_a_key_that_was_exchanged_opens_nothing``
6–9   ``test_a_database_that_fails_during_begin``, ``test_an_hsm_that_fails_at_any_call``
10    ``test_a_late_code_is_not_even_tested``; tries in ``test_main_path``
11    everything bound, one by one, in ``test_binding``
12    ``test_a_database_that_fails_during_complete``
13    ``test_a_late_redemption``, ``test_a_database_that_fails_during_redeem``; verifier, r in ``test_binding``
14    ``test_a_late_sad``, ``test_an_ended_credential_signs_nothing``; generation in ``tests/drill/generation``
15    ``test_an_issuer_that_certifies_something_else``; issuer down in ``test_repeats``
16    ``test_a_database_that_fails_while_signing`` (INTENT is the first write)
17    ``test_a_faulty_signature_is_not_released``, ``test_an_hsm_that_fails_at_any_call``
18    ``test_a_database_that_fails_while_signing`` (COMPLETE, signature and row are one commit)
====  =====================================================================================================
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from authn.agencies import Right
from authn.password.factor import password_factor
from authn.sealing import Label, SealBroken
from certs.issuer import IssuedCertificate
from domain.algorithms import KeyType
from domain.errors import (
    ActivationError,
    CallerRefused,
    CodeExpired,
    CredentialSuspended,
    FactorMismatch,
    HSMUnavailable,
    MalformedRequest,
    NoCertificate,
    NotPermitted,
    RequestExpired,
    WeakRegistration,
)
from hsm.errors import FaultySignature, HSMError, HSMWorkerLost
from signer import tables
from tests.drill.crash import log_faults
from tests.testkit.core import NIF, Played, a_document, playing
from tests.testkit.time import FrozenClock
from tests.testkit.vault import FakeVault


class OutOfOrder(sa.exc.SQLAlchemyError):
    """What the faulted database raises."""


STRUCK: ContextVar[bool] = ContextVar("struck", default=False)
"""Set for the call under test alone, so that the outbox, which writes at its own times, is not met."""


class Failing:
    """A database whose n-th write fails, or every one from the n-th on."""

    def __init__(self, played: Played, first: int, *, for_good: bool) -> None:
        self.engine = played.core.engine.sync_engine
        self.first = first
        self.for_good = for_good
        self.seen = 0

    def on_write(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")):
            self._count()

    def on_commit(self, _connection: Any) -> None:
        self._count()

    def _count(self) -> None:
        if not STRUCK.get():
            return
        self.seen += 1
        if self.seen == self.first or (self.for_good and self.seen > self.first):
            raise OutOfOrder

    @property
    def struck(self) -> bool:
        return self.seen >= self.first


@contextmanager
def failing(played: Played, first: int, *, for_good: bool) -> Iterator[Failing]:
    fault = Failing(played, first, for_good=for_good)
    sa.event.listen(fault.engine, "before_cursor_execute", fault.on_write)
    sa.event.listen(fault.engine, "commit", fault.on_commit)
    token = STRUCK.set(True)
    try:
        yield fault
    finally:
        STRUCK.reset(token)
        sa.event.remove(fault.engine, "before_cursor_execute", fault.on_write)
        sa.event.remove(fault.engine, "commit", fault.on_commit)


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        yield played


@pytest.fixture
async def timed(tmp_path):
    async with playing(tmp_path, clock=FrozenClock()) as played:
        await played.activate(await played.register())
        yield played


async def nothing_signed(played: Played) -> None:
    assert await played.leaves("COMPLETE") == []
    assert [row for row in await played.rows(tables.authorisation) if row["signature"]] == []


async def in_order(played: Played) -> None:
    """Every INTENT ended once, and no signature lies there without its COMPLETE."""
    assert log_faults(await played.leaves()) == []
    completes = {leaf["id"] for leaf in await played.leaves("COMPLETE")}
    for row in await played.rows(tables.authorisation):
        assert (row["signature"] is None) or row["complete_id"] in completes


async def reserved(played: Played) -> int:
    (row,) = (row for row in await played.rows(password_factor) if not str(row["id"]).startswith("decoy"))
    return int(str(row["reserved"]))


# --- 1 to 5


async def test_a_client_without_the_right_stages_nothing(played):
    with pytest.raises(CallerRefused):
        await played.stage(grant="unknown")
    with pytest.raises(NotPermitted):
        await played.stage(citizen_nif=NIF)  # only agencies name citizens
    register = played.core.callers
    register._web = replace(register._web, rights=frozenset(Right) - {Right.SIGN})
    with pytest.raises(NotPermitted):
        await played.stage()
    assert await played.rows(tables.request) == []


async def test_an_old_or_foreign_challenge_costs_no_attempt(timed):
    staged = await timed.stage()
    before = await reserved(timed)
    envelope = await timed.password_envelope(staged)
    with pytest.raises(MalformedRequest):
        await timed.core.activation.begin(staged.id, NIF, replace(envelope, nonce=secrets.token_bytes(40)))
    # Its end moved by hand: the tag is over the end as well.
    later = (int.from_bytes(envelope.nonce[:8], "big") + 60).to_bytes(8, "big")
    with pytest.raises(MalformedRequest):
        await timed.core.activation.begin(staged.id, NIF, replace(envelope, nonce=later + envelope.nonce[8:]))
    timed.core.clock.advance(121)
    with pytest.raises(RequestExpired):
        await timed.core.activation.begin(staged.id, NIF, envelope)
    assert await reserved(timed) == before
    assert await timed.begin(staged)


@pytest.mark.parametrize("why", [WeakRegistration, CredentialSuspended])
async def test_reasons_are_told_only_after_the_code(tmp_path, why):
    async with playing(tmp_path) as played:
        await played.activate(await played.register(level="basic" if why is WeakRegistration else "advanced"))
        if why is CredentialSuspended:
            _, sad = await played.approved()
            await played.sign(sad)
            await played.execute(sa.update(tables.credential).values(state="SUSPENDED"))
        signed = len(await played.leaves("COMPLETE"))
        staged = await played.stage()
        begun = await played.begin(staged)
        right = await played.otp(begun.challenge_id)
        with pytest.raises(FactorMismatch):
            await played.complete(staged, begun, f"{(int(right) + 1) % 10**6:06}")
        with pytest.raises(why):
            await played.complete(staged, begun, right)
        assert why.code in {leaf["facts"].get("refusal") for leaf in await played.leaves("AUTH_OK")}
        # Its code was used, and the capsule held nothing that signs.
        with pytest.raises(FactorMismatch):
            await played.complete(staged, begun, right)
        assert len(await played.leaves("COMPLETE")) == signed


async def test_no_certificate_and_none_asked_for(played):
    staged = await played.stage(items=[a_document()])
    begun = await played.begin(staged)
    with pytest.raises(NoCertificate):
        await played.complete(staged, begun)
    await nothing_signed(played)


async def test_a_wrong_password_opens_nothing(played):
    staged = await played.stage()
    begun = await played.begin(staged, password="Equivocada-9")
    for code in ("000000", "999999"):
        with pytest.raises(FactorMismatch):
            await played.complete(staged, begun, code)
    assert {leaf["facts"]["factor"] for leaf in await played.leaves("AUTH_FAIL")} == {"password", "otp"}
    await nothing_signed(played)


async def test_a_key_that_was_exchanged_opens_nothing(tmp_path):
    async with playing(tmp_path) as played:
        for nif, phone in ((NIF, "+34612345678"), ("87654321X", "+34687654321")):
            await played.activate(await played.register(nif=nif, phone=phone), nif=nif)
            staged = await played.stage()
            sad = await played.redeem(staged, await played.complete(staged, await played.begin(staged, nif=nif)))
            await played.sign(sad)
        mine, other = await played.rows(tables.credential)
        await played.execute(
            sa.update(tables.credential)
            .where(tables.credential.c.id == mine["id"])
            .values(sealed_key=other["sealed_key"])
        )
        with pytest.raises(SealBroken) as broken:
            await played.begin(await played.stage())
        assert broken.value.label is Label.KEY


# --- time


@pytest.mark.parametrize("what", ["right", "wrong code", "wrong password"])
async def test_a_late_code_is_not_even_tested(timed, what):
    staged = await timed.stage()
    begun = await timed.begin(staged, **({"password": "not the password"} if what == "wrong password" else {}))
    otp = await timed.otp(begun.challenge_id) if what == "right" else "123456"
    timed.core.clock.advance(300)
    envelope = await timed.otp_envelope(staged, begun, otp)
    before = timed.vault.calls["mac"]
    # The same words for all three: that it is over was known to whoever began, and nothing else is told.
    with pytest.raises(CodeExpired, match=r"^the code's time is over; begin again$"):
        await timed.core.activation.complete(begun.challenge_id, envelope)
    assert timed.vault.calls["mac"] == before
    await nothing_signed(timed)


async def test_a_late_redemption(timed):
    staged, code = await timed.approve()
    timed.core.clock.advance(60)
    with pytest.raises(ActivationError):
        await timed.redeem(staged, code)
    assert "expired" in (await timed.leaves("REFUSED"))[-1]["facts"]["reason"]
    await nothing_signed(timed)


async def test_a_late_sad(timed):
    _, sad = await timed.approved(2)
    await timed.sign(sad, (0, 1))
    timed.core.clock.advance(300)
    with pytest.raises(ActivationError):
        await timed.sign(sad, (2,))
    assert "expired" in (await timed.leaves("REFUSED"))[-1]["facts"]["reason"]
    assert len(await timed.leaves("COMPLETE")) == 1


@pytest.mark.parametrize(
    "change",
    [{"state": "SUSPENDED"}, {"state": "REVOKED"}, {"not_after": FrozenClock().now()}],
    ids=["suspended", "revoked", "expired"],
)
async def test_an_ended_credential_signs_nothing(timed, change):
    _, sad = await timed.approved(2)
    await timed.sign(sad, (0, 1))
    await timed.execute(sa.update(tables.credential).values(**change))
    with pytest.raises(ActivationError):
        await timed.sign(sad, (2,))
    assert (await timed.leaves())[-1]["tag"] == "REFUSED"
    assert len(await timed.leaves("COMPLETE")) == 1


async def test_an_expired_certificate_is_renewed_within_the_approval(timed):
    _, sad = await timed.approved()
    await timed.sign(sad)
    timed.core.clock.advance(timedelta(days=365 * 6).total_seconds())
    _, sad = await timed.approved()
    assert [item.state for item in (await timed.sign(sad)).items] == ["SIGNED", "SIGNED"]
    assert timed.issuer.issued == 2


# --- 15 and 17: who answers wrongly


@pytest.mark.parametrize("wrong", ["key", "subject", "nothing"])
async def test_an_issuer_that_certifies_something_else(played, wrong):
    _, sad = await played.approved()
    honest = played.issuer.issue

    async def dishonest(csr, subject, *, idempotency_key):
        del csr, idempotency_key
        if wrong == "nothing":
            return IssuedCertificate(b"", ())
        person = replace(subject, nif="87654321X") if wrong == "subject" else subject
        return played.pki.certify(KeyType.P256, person).issued

    played.issuer.issue = dishonest
    with pytest.raises(Exception, match=r"certificate|key|subject|issuer"):
        await played.sign(sad)
    await nothing_signed(played)
    assert [leaf["tag"] for leaf in await played.leaves()][-2:] == ["INTENT", "ABORTED"]
    (credential,) = await played.rows(tables.credential)
    assert (credential["state"], credential["certificate"]) == ("PENDING", None)
    played.issuer.issue = honest
    assert (await played.sign(sad)).receipt
    await in_order(played)


async def test_a_faulty_signature_is_not_released(played):
    _, sad = await played.approved(2)
    await played.sign(sad, (0,))
    played.vault.fault = FaultySignature("the token's signature does not verify; it is not released")
    played.core.signing._parking = type(played.core.signing._parking)(_Honest(played.vault))
    with pytest.raises(HSMUnavailable):
        await played.sign(sad, (1, 2))
    await nothing_signed(played)
    assert [leaf["tag"] for leaf in await played.leaves()][-4:] == ["INTENT", "INTENT", "ABORTED", "ABORTED"]
    played.vault.fault = None
    assert (await played.sign(sad, (1, 2))).receipt
    await in_order(played)


class _Honest:
    """The same vault, whose MACs go on while its signatures fail."""

    def __init__(self, vault: FakeVault) -> None:
        self._vault = vault

    async def mac(self, *arguments: Any, **options: Any) -> bytes:
        fault, self._vault.fault = self._vault.fault, None
        try:
            return await self._vault.mac(*arguments, **options)
        finally:
            self._vault.fault = fault

    def current_version(self, key: Any) -> int:
        return self._vault.current_version(key)


class Stumbling(FakeVault):
    """Loses its worker at the n-th call from now."""

    left = -1

    def _called(self, method: str) -> None:
        super()._called(method)
        self.left -= 1
        if self.left == 0:
            raise HSMWorkerLost("the worker died")


async def test_an_hsm_that_fails_at_any_call(tmp_path):
    vault = Stumbling()
    async with playing(tmp_path, vault=vault) as played:
        await played.activate(await played.register())
        for call in range(1, 40):
            vault.left = call
            staged = await played.stage()
            try:
                begun = await played.begin(staged)
                code = await played.complete(staged, begun)
                sad = await played.redeem(staged, code)
                await played.sign(sad)
            except (HSMError, HSMUnavailable):
                await in_order(played)
            if vault.left > 0:
                break
        assert vault.left > 0
        assert call > 8
        vault.left = -1
        _, sad = await played.approved()
        assert (await played.sign(sad)).receipt
        await in_order(played)


# --- 8, 12, 13, 16, 18: the database


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from there on"])
async def test_a_database_that_fails_during_begin(played, for_good):
    for first in range(1, 100):
        staged = await played.stage()
        sent = len(await played.leaves("OTP_SENT"))
        envelope = await played.password_envelope(staged)
        with failing(played, first, for_good=for_good) as fault:
            try:
                await played.core.activation.begin(staged.id, NIF, envelope)
            except OutOfOrder:
                assert len(await played.leaves("OTP_SENT")) == sent
        if not fault.struck:
            break
        # A right password afterwards forgives what the fault took.
        assert await played.otp((await played.begin(await played.stage())).challenge_id)
    assert not fault.struck
    assert first > 5
    await nothing_signed(played)


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from there on"])
async def test_a_database_that_fails_during_complete(played, for_good):
    for first in range(1, 100):
        staged = await played.stage()
        begun = await played.begin(staged)
        otp = await played.otp(begun.challenge_id)
        envelope = await played.otp_envelope(staged, begun, otp)
        with failing(played, first, for_good=for_good) as fault:
            try:
                await played.core.activation.complete(begun.challenge_id, envelope)
            except OutOfOrder:
                assert [row for row in await played.rows(tables.approval) if row["request_id"] == staged.id] == []
        if not fault.struck:
            break
        # The try is lost, the approval is not.
        sad = await played.redeem(staged, await played.complete(staged, begun, otp))
        assert (await played.sign(sad)).receipt
        await in_order(played)
    assert not fault.struck
    assert first > 5


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from there on"])
async def test_a_database_that_fails_during_redeem(played, for_good):
    for first in range(1, 100):
        staged, code = await played.approve()
        with failing(played, first, for_good=for_good) as fault, suppress(OutOfOrder):
            await played.redeem(staged, code)
        if not fault.struck:
            break
        assert (await played.sign(await played.redeem(staged, code))).receipt
        await in_order(played)
    assert not fault.struck
    assert first > 2


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from there on"])
@pytest.mark.parametrize("certified", [False, True], ids=["first certificate", "certificate there"])
async def test_a_database_that_fails_while_signing(tmp_path, for_good, certified):
    async with playing(tmp_path) as played:
        nifs = iter(f"{number:08}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}" for number in range(1, 100))
        nif = ""
        for first in range(1, 100):
            if not (certified and nif):
                nif = next(nifs)
                await played.activate(await played.register(nif=nif, phone=f"+3461{first:07}"), nif=nif)
            if certified and first == 1:
                await played.sign(await _sad(played, nif))
            sad = await _sad(played, nif)
            before = len(await played.leaves("COMPLETE"))
            with failing(played, first, for_good=for_good) as fault, suppress(OutOfOrder):
                await played.sign(sad)
            if not fault.struck:
                break
            signed = await played.sign(sad)
            assert signed.receipt
            assert signed == await played.sign(sad)
            assert len(await played.leaves("COMPLETE")) == before + 1
            await in_order(played)
        assert not fault.struck
        assert first > 5


async def _sad(played: Played, nif: str) -> bytes:
    staged = await played.stage()
    return await played.redeem(staged, await played.complete(staged, await played.begin(staged, nif=nif)))
