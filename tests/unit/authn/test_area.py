"""A citizen's own area at the core: who gets in, what is shown, and that it leads nowhere else."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from authn.area import PasswordState, masked
from authn.challenge import sign_jws
from authn.envelope import EnvelopeContext, EnvelopePurpose
from authn.password.factor import password_factor
from authn.registration.citizens import citizen
from authn.sessions import SESSION_LIFE, login_session
from certs.issuer import RevocationReason
from domain import identity, jws
from domain.assurance import LoA, RegistrationLevel
from domain.errors import ActivationError, FactorMismatch, MalformedRequest, RequestExpired, RowEdited, RubricaError
from domain.identity import TOKEN_LIFE, VerifiedIdentity
from signer import tables
from tests.testkit.core import NIF, Played, playing
from tests.testkit.pin import AUDIENCE, NONCE, PINVisitor
from tests.testkit.time import FrozenClock

OTHER = "87654321X"


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    async with playing(tmp_path, clock=FrozenClock()) as played:
        await played.activate(await played.register())
        yield played


@pytest.fixture
def clock(played: Played) -> FrozenClock:
    assert isinstance(played.core.clock, FrozenClock)
    return played.core.clock


async def entered(played: Played) -> bytes:
    return (await played.core.area.enter(await PINVisitor(played).log_in(), NONCE)).key


async def refused(played: Played, token: str, nonce: str = NONCE) -> None:
    before = await played.rows(login_session)
    with pytest.raises(RequestExpired, match="not known or over"):
        await played.core.area.enter(token, nonce)
    assert await played.rows(login_session) == before


async def test_the_citizen_of_the_login_is_shown_and_nobody_else(played: Played, clock: FrozenClock) -> None:
    await played.activate(await played.register(nif=OTHER, phone="+34687654321", level="basic"), nif=OTHER)
    _, sad = await played.approved(2, grant=await played.grant("t-1"), citizen_nif=NIF)
    await played.sign(sad, (0, 1, 2))
    clock.advance(60)
    key = await entered(played)

    shown = await played.core.area.show(key)

    assert (shown.name, shown.masked_nif) == ("María Núñez Ibáñez", "***4567**")
    assert (shown.level, shown.loa, shown.password) == (RegistrationLevel.ADVANCED, LoA.LOW, PasswordState.ACTIVE)
    assert shown.authenticated == clock.now()
    (held,) = shown.certificates
    (row,) = await played.rows(tables.credential)
    assert (held.serial, held.state, held.not_after) == (row["serial"], "ACTIVE", row["not_after"])
    (use,) = shown.uses
    assert (use.agency, use.documents, use.titles) == ("Ayuntamiento", 2, ["Solicitud 1", "Solicitud 2"])
    assert use.time == clock.now() - timedelta(seconds=60)
    assert not any(secret in repr(shown) for secret in ("María", "4567", "Solicitud"))


async def test_what_is_not_there_is_shown_as_such(tmp_path: Path) -> None:
    async with playing(tmp_path) as played:
        await played.register(level="basic")
        shown = await played.core.area.show(await entered(played))
    assert (shown.level, shown.password, shown.blocked_until) == (RegistrationLevel.BASIC, PasswordState.NONE, None)
    assert (shown.certificates, shown.uses) == ([], [])


async def test_a_blocked_password_and_a_revoked_certificate(played: Played, clock: FrozenClock) -> None:
    await played.sign((await played.approved())[1])
    for _ in range(5):
        await played.begin(await played.stage(), password="Equivocada-9")
    key = await entered(played)
    shown = await played.core.area.show(key)
    assert (shown.password, shown.blocked_until) == (PasswordState.BLOCKED, clock.now() + timedelta(minutes=15))
    await played.core.revocation.revoke(NIF, RevocationReason.KEY_COMPROMISE)
    with pytest.raises(RequestExpired):
        await played.core.area.show(key)
    clock.advance(15 * 60)
    shown = await played.core.area.show(await entered(played))
    assert (shown.password, shown.blocked_until) == (PasswordState.ACTIVE, None)
    assert [held.state for held in shown.certificates] == ["REVOKED"]


async def test_uses_are_counted_where_the_list_is_gone_and_the_newest_come_first(
    played: Played, clock: FrozenClock
) -> None:
    first, sad = await played.approved()
    await played.sign(sad)
    await played.execute(sa.delete(tables.request).where(tables.request.c.id == first.id))
    for _ in range(11):
        clock.advance(3600)
        await played.sign((await played.approved())[1], (1,))
    shown = await played.core.area.show(await entered(played))
    assert len(shown.uses) == 10
    assert [use.time for use in shown.uses] == sorted((use.time for use in shown.uses), reverse=True)
    await played.execute(sa.delete(tables.request))
    shown = await played.core.area.show(await entered(played))
    assert [(use.agency, use.documents, use.titles) for use in shown.uses] == [("", 1, ())] * 10


async def test_an_approval_of_which_nothing_was_signed_is_no_use(played: Played) -> None:
    await played.approved()
    assert (await played.core.area.show(await entered(played))).uses == []


@pytest.mark.parametrize(
    ("nif", "shown"), [("12345678Z", "***4567**"), ("X1234567L", "****4567*"), ("K1234567L", "****4567*")]
)
def test_four_digits_of_a_nif_are_shown(nif: str, shown: str) -> None:
    assert masked(nif) == shown


async def test_a_token_is_taken_once(played: Played) -> None:
    token = await PINVisitor(played).log_in()
    outcomes = await asyncio.gather(*(played.core.area.enter(token, NONCE) for _ in range(4)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["OpenSession"] + ["RequestExpired"] * 3
    await refused(played, token)


async def test_a_token_for_another_nonce_is_refused(played: Played) -> None:
    token = await PINVisitor(played).log_in()
    await refused(played, token, "nonce-of-a-stranger-2")
    assert await played.core.area.enter(token, NONCE)


async def test_a_token_for_another_audience_is_refused(played: Played) -> None:
    """Even one that this core signs, over a login that it has."""
    await PINVisitor(played).log_in()
    (row,) = await played.rows(login_session)
    await refused(played, await minted(played, str(row["id"]), audience="ayuntamiento"))
    await refused(played, await minted(played, str(row["id"]), kind="receipt+jwt"))
    # Its twin, all of it right, is taken.
    assert await played.core.area.enter(await minted(played, str(row["id"])), NONCE)


async def test_a_token_without_a_login_of_the_core_is_refused(played: Played) -> None:
    await refused(played, await minted(played, "0" * 26))


async def minted(played: Played, session_id: str, *, audience: str = AUDIENCE, kind: str = identity.TOKEN_TYPE) -> str:
    now = played.core.clock.now()
    told = VerifiedIdentity(session_id=session_id, pid="00", loa=LoA.LOW, methods=("sms",), authenticated=now)
    claims = identity.claims_of(told, audience=audience, nonce=NONCE, now=now)
    return await sign_jws(played.vault, {"typ": kind}, claims)


async def test_a_token_that_is_over_is_refused(played: Played, clock: FrozenClock) -> None:
    token = await PINVisitor(played).log_in()
    clock.advance(TOKEN_LIFE.total_seconds())
    await refused(played, token)


async def test_a_token_signed_by_another_key_is_refused(played: Played) -> None:
    token = await PINVisitor(played).log_in()
    signed = token.rpartition(".")[0].encode()
    digest = ec.generate_private_key(ec.SECP256R1()).sign(signed, ec.ECDSA(hashes.SHA256()))
    await refused(played, jws.assemble(signed, digest))
    for nonsense in ("", "a.b.c", "ñ", f"{token}A"):
        await refused(played, nonsense)


async def test_whoever_brings_nonsense_does_not_keep_the_hsm_busy(played: Played) -> None:
    token = await PINVisitor(played).log_in()
    assert await played.core.area.enter(token, NONCE)
    before = played.vault.calls.total()
    for nonsense in (token, "a.b.c", f"{token}A"):
        await refused(played, nonsense)
    assert played.vault.calls.total() == before


async def test_a_login_whose_row_is_gone_shows_nothing(played: Played) -> None:
    token = await PINVisitor(played).log_in()
    key = (await played.core.area.enter(token, NONCE)).key
    await played.execute(sa.delete(login_session))
    with pytest.raises(RequestExpired):
        await played.core.area.show(key)
    await refused(played, token)


@pytest.mark.parametrize("changed", [{"loa": "substantial"}, {"audience": "x"}, {"methods": "password+sms"}])
async def test_a_row_edited_behind_the_cores_back_shows_nothing(played: Played, changed: dict[str, str]) -> None:
    key = await entered(played)
    await played.execute(sa.update(login_session).values(**changed))
    with pytest.raises(RowEdited):
        await played.core.area.show(key)


async def test_a_row_turned_to_another_citizen_or_key_shows_nothing(played: Played) -> None:
    await played.register(nif=OTHER, phone="+34687654321")
    key = await entered(played)
    ids = {str(row["id"]) for row in await played.rows(citizen)}
    (row,) = await played.rows(login_session)
    (other,) = ids - {str(row["citizen_id"])}
    stranger = b"k" * 32
    for changed in ({"citizen_id": other}, {"key_sha256": hashlib.sha256(stranger).digest()}):
        await played.execute(sa.update(login_session).values(**changed))
        with pytest.raises(RowEdited):
            await played.core.area.show(key if "citizen_id" in changed else stranger)
        await played.execute(sa.update(login_session).values(**{name: row[name] for name in changed}))
    assert await played.core.area.show(key)


async def test_a_login_ends_by_its_time_by_leaving_and_by_a_change(played: Played, clock: FrozenClock) -> None:
    keys = []
    for _ in range(3):
        keys.append(await entered(played))
        clock.advance(15 * 60)
    await played.core.area.leave(keys[1])
    with pytest.raises(RequestExpired):
        await played.core.area.show(keys[1])
    assert await played.core.area.show(keys[0])
    clock.advance(SESSION_LIFE.total_seconds() - 45 * 60)
    with pytest.raises(RequestExpired):
        await played.core.area.show(keys[0])
    assert await played.core.area.show(keys[2])
    await played.core.phone_change.change(nif=NIF, phone="+34687654321")
    with pytest.raises(RequestExpired):
        await played.core.area.show(keys[2])
    # Leaving twice, or with a key of nobody, does nothing.
    await played.core.area.leave(keys[2])
    await played.core.area.leave(b"")


async def test_neither_names_nor_pseudonyms_open_a_login(played: Played) -> None:
    await entered(played)
    (row,) = await played.rows(login_session)
    names = [str(row[name]).encode() for name in ("id", "cid", "citizen_id")]
    for guess in (*names, row["pid"], row["key_sha256"], NIF.encode(), b""):
        assert isinstance(guess, bytes)
        with pytest.raises(RequestExpired):
            await played.core.area.show(guess)


async def test_the_key_of_a_login_is_stored_nowhere(played: Played, tmp_path: Path) -> None:
    key = await entered(played)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("core.db*"))
    assert hashlib.sha256(key).digest() in stored
    assert key not in stored


async def test_a_login_of_level_low_signs_nothing_and_changes_no_factor(played: Played) -> None:
    """Its key and its token, put wherever a secret is asked for."""
    visitor = PINVisitor(played)
    token = await visitor.log_in()
    key = (await played.core.area.enter(token, NONCE)).key
    staged = await played.stage()
    signing = await played.begin(staged)
    factors, changes = await played.rows(password_factor), await played.leaves("PW_CHANGE")
    for secret in (key, token.encode()[:32], token.encode()):
        for refusal in (played.redeem(staged, secret), played.sign(secret)):
            with pytest.raises(RubricaError) as told:
                await refusal
            assert isinstance(told.value, ActivationError | MalformedRequest)
        context = EnvelopeContext(purpose=EnvelopePurpose.PASSWORD_CHANGE_SET, challenge_id=signing.challenge_id)
        envelope = played.browser.seal(await played.mint(), context, b"Otra-clave-de-prueba-7", secret)
        with pytest.raises(FactorMismatch):
            await played.core.password_change.set_password(signing.challenge_id, envelope)
    with pytest.raises(FactorMismatch):
        await played.complete(staged, signing, key.hex())
    assert await played.leaves("INTENT") == []
    assert await played.leaves("PW_CHANGE") == changes
    assert [row["sealed_vault_secret"] for row in await played.rows(password_factor)] == [
        row["sealed_vault_secret"] for row in factors
    ]
