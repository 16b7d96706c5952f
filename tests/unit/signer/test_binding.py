"""Everything that an approval is bound to, changed one by one behind the core's back: each change must be refused."""

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from authn.otp.challenges import Begun
from authn.otp.rows import otp_challenge
from authn.registration.citizens import citizen
from domain.digests import Digest
from domain.errors import ActivationError, FactorMismatch, MalformedRequest, RubricaError
from domain.items import certificate_item
from signer import tables
from tests.testkit.core import Played, a_document, playing

Items = list[dict[str, Any]]


def _with_item(change: Callable[[Items], None]) -> Callable[[Played], Any]:
    async def edit(played: Played) -> None:
        (row,) = await played.rows(tables.request)
        items: Items = row["items"]
        change(items)
        await played.execute(sa.update(tables.request).values(items=items))

    return edit


def _with_request(**values: object) -> Callable[[Played], Any]:
    async def edit(played: Played) -> None:
        await played.execute(sa.update(tables.request).values(**values))

    return edit


def _set(item: int, name: str, value: object) -> Callable[[Items], None]:
    def change(items: Items) -> None:
        items[item][name] = value

    return change


OTHER_DIGEST = [["sha256", base64.b64encode(hashlib.sha256(b"another document").digest()).decode()]]

REQUEST_CHANGES = {
    "purpose": _with_item(_set(1, "purpose", "certificate")),
    "digest": _with_item(_set(1, "digests", OTHER_DIGEST)),
    "order": _with_item(lambda items: items.insert(1, items.pop(2))),
    "count": _with_item(lambda items: items.pop() and None),
    "one more": _with_item(lambda items: items.append(dict(items[1]))),
    "title": _with_item(_set(2, "title", "Otra cosa")),
    "algorithm": _with_item(_set(2, "algorithm", "RS256")),
    "signature field": _with_item(_set(2, "fields", {"commitment_type": "proof_of_approval"})),
    "client": _with_request(client_id="another-agency"),
    "pkce": _with_request(pkce_challenge=hashlib.sha256(b"w" * 43).digest()),
}


async def _raise_generation(played: Played) -> None:
    await played.execute(sa.update(citizen).values(generation=citizen.c.generation + 1))


async def _nothing_was_signed(played: Played) -> None:
    assert await played.leaves("COMPLETE") == []
    assert [row for row in await played.rows(tables.authorisation) if row["signature"]] == []
    assert {"REFUSED", "AUTH_FAIL"} & {leaf["tag"] for leaf in await played.leaves()}


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        yield played


@pytest.mark.parametrize("change", REQUEST_CHANGES)
async def test_a_request_edited_after_begin_opens_no_capsule(played, change):
    staged = await played.stage(2)
    begun = await played.begin(staged)
    otp = await played.otp(begun.challenge_id)
    await REQUEST_CHANGES[change](played)
    # The page is shown the edited list and seals for it, so only the capsule's tag is left to refuse.
    edited = await played.core.requests.read(staged.id)
    with pytest.raises(FactorMismatch):
        await played.complete(edited, begun, otp)
    # One that still shows the list that was begun seals for that, and the envelope does not open.
    if change != "pkce":
        with pytest.raises(MalformedRequest):
            await played.complete(staged, begun, otp)
    await _nothing_was_signed(played)


@pytest.mark.parametrize("change", REQUEST_CHANGES)
async def test_a_request_edited_after_approval_cannot_be_redeemed(played, change):
    staged, code = await played.approve(2)
    await REQUEST_CHANGES[change](played)
    with pytest.raises(ActivationError):
        await played.redeem(staged, code)
    await _nothing_was_signed(played)


@pytest.mark.parametrize("change", REQUEST_CHANGES)
async def test_a_request_edited_after_redeeming_signs_nothing(played, change):
    _, sad = await played.approved(2)
    await REQUEST_CHANGES[change](played)
    with pytest.raises(ActivationError):
        await played.sign(sad, (0, 1, 2))
    await _nothing_was_signed(played)


CHALLENGE_CHANGES: dict[str, Callable[[Begun], sa.Update]] = {
    "citizen": lambda _: sa.update(otp_challenge).values(citizen_id="SOMEBODYELSE"),
    "expiry": lambda begun: sa.update(otp_challenge).values(expires=begun.expires + timedelta(seconds=1)),
    "credential": lambda _: sa.update(tables.pending_approval).values(credential_id="ANOTHER"),
}


@pytest.mark.parametrize("change", CHALLENGE_CHANGES)
async def test_an_edited_challenge_opens_no_capsule(played, change):
    staged = await played.stage()
    begun = await played.begin(staged)
    otp = await played.otp(begun.challenge_id)
    await played.execute(CHALLENGE_CHANGES[change](begun))
    with pytest.raises(FactorMismatch):
        await played.complete(staged, begun, otp)
    await _nothing_was_signed(played)


async def test_another_generation_opens_no_capsule(played):
    staged = await played.stage()
    begun = await played.begin(staged)
    otp = await played.otp(begun.challenge_id)
    # Behind the register's back: its rows carry a guard, so this is refused even earlier.
    await _raise_generation(played)
    with pytest.raises(InvalidTag):
        await played.complete(staged, begun, otp)
    assert await played.leaves("COMPLETE") == []


async def test_another_browser_opens_no_capsule(played):
    staged = await played.stage()
    begun = await played.begin(staged)
    otp = await played.otp(begun.challenge_id)
    played.browser.cs = secrets.token_bytes(32)
    with pytest.raises(FactorMismatch):
        await played.complete(staged, begun, otp)
    await _nothing_was_signed(played)


async def test_an_envelope_is_good_for_one_use_one_citizen_and_one_list(played):
    staged, other = await played.stage(), await played.stage(2)
    begin = played.core.activation.begin
    with pytest.raises(MalformedRequest):
        await begin(other.id, "12345678Z", await played.password_envelope(staged))
    with pytest.raises(MalformedRequest):
        await begin(staged.id, "00000001R", await played.password_envelope(staged))
    envelope = await played.password_envelope(staged)
    changed = replace(envelope, nonce=(await played.mint()).nonce)
    with pytest.raises(MalformedRequest):
        await begin(staged.id, "12345678Z", changed)
    forged = replace(envelope, nonce=envelope.nonce[:-1] + bytes([envelope.nonce[-1] ^ 1]))
    with pytest.raises(MalformedRequest):
        await begin(staged.id, "12345678Z", forged)
    await _nothing_was_signed(played)


APPROVAL_CHANGES: dict[str, dict[str, object]] = {
    "credential": {"credential_id": "ANOTHER"},
    "browser secret": {"cs_sha256": bytes(32)},
    "capsule": {"parked": bytes(200)},
}


@pytest.mark.parametrize("change", APPROVAL_CHANGES)
@pytest.mark.parametrize("when", ["redeem", "sign"])
async def test_an_edited_approval_opens_nothing(played, change, when):
    staged, code = await played.approve()
    sad = await played.redeem(staged, code) if when == "sign" else b""
    await played.execute(sa.update(tables.approval).values(**APPROVAL_CHANGES[change]))
    attempt = played.sign(sad) if when == "sign" else played.redeem(staged, code)
    with pytest.raises(ActivationError):
        await attempt
    await _nothing_was_signed(played)


async def test_verifier_request_code_and_r_all_have_to_be_the_right_ones(played):
    staged, code = await played.approve()
    other = await played.stage()
    redeem = played.core.activation.redeem
    r = b"r" * 32
    wrong = [
        (staged.id, code, b"w" * 43, r),
        (other.id, code, played.verifier, r),
        (staged.id, secrets.token_bytes(32), played.verifier, r),
    ]
    for arguments in wrong:
        with pytest.raises(ActivationError):
            await redeem(*arguments)
    sad = (await redeem(staged.id, code, played.verifier, r)).sad
    assert sad == (await redeem(staged.id, code, played.verifier, r)).sad
    # Another r is a thief's: it gets nothing, and the SAD dies.
    with pytest.raises(ActivationError):
        await redeem(staged.id, code, played.verifier, b"q" * 32)
    with pytest.raises(ActivationError):
        await played.sign(sad)
    await _nothing_was_signed(played)


async def test_an_item_that_was_not_approved_is_refused(played):
    _, sad = await played.approved()
    for numbers in ((2,), (0, 1, 7), (-1,)):
        with pytest.raises(ActivationError):
            await played.sign(sad, numbers)
    for numbers in ((), (1, 1)):
        with pytest.raises(MalformedRequest):
            await played.sign(sad, numbers)
    await _nothing_was_signed(played)


async def test_a_request_is_approved_once(played):
    staged, _ = await played.approve()
    with pytest.raises(RubricaError, match="approved before"):
        await played.begin(staged)


REFUSED_ITEMS = {
    "no document": [certificate_item(a_document().key_type)],
    "two certificates": [certificate_item(a_document().key_type)] * 2 + [a_document()],
    "two key types": [certificate_item(a_document().key_type), a_document(algorithm="RS256")],
    "unknown field": [a_document(fields={"signer": "me"})],
    "unknown commitment": [a_document(fields={"commitment_type": "proof_of_nothing"})],
    "no digest": [a_document(digests=())],
    "two digests": [a_document(digests=(Digest.of(b"a"), Digest.of(b"b")))],
    "no title": [a_document(title=" ")],
    "unknown format": [a_document(format="raw")],
    "unknown packaging": [a_document(packaging="wrapped")],
    "weak algorithm": [a_document(algorithm="HS256")],
}


@pytest.mark.parametrize("name", REFUSED_ITEMS)
async def test_what_cannot_be_staged(played, name):
    with pytest.raises(RubricaError):
        await played.stage(items=REFUSED_ITEMS[name])
    assert await played.rows(tables.request) == []


async def test_approvals_return_only_to_an_edge(played):
    with pytest.raises(MalformedRequest):
        await played.stage(return_url="http://127.0.0.1:8000.example.org/return")
