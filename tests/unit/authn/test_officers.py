"""Officers: what they sign, once and now; whom they may not serve; and what is left behind of it."""

import dataclasses
import hashlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import InvalidTag

from authn.officer_client import OfficerKey
from authn.registration.citizens import citizen
from authn.registration.desk import HandedOut
from authn.registration.officers import ACTIONS_PER_HOUR, SignedStatement, officer, officer_action
from authn.registration.papers import Paper, paper
from certs import profiles
from domain.clock import SystemClock
from domain.errors import (
    AlreadyRegistered,
    CallerRefused,
    DependencyUnavailable,
    MalformedRequest,
    NotFound,
    NotPermitted,
    RateLimited,
)
from domain.statements import OfficerAction
from hsm.keys import SigningKey
from signer.tables import seal_certificate
from tests.testkit.authn import bytes_on_disk
from tests.testkit.core import EDGE, Played, playing
from tests.testkit.officers import an_officer, typed_by_officer
from tests.testkit.time import FrozenClock

OFFICER_NIF = "00000001R"
SUPERVISOR_NIF = "00000000T"


def tool(*words: str | Path) -> str:
    """What a tool of the distribution says; pdfsig's status tells of the anchor, which it does not know."""
    return subprocess.run(words, capture_output=True, check=False, text=True).stdout


class Printer:
    """Prints what it is given, as JSON would."""

    def __init__(self) -> None:
        self.printed: list[Paper] = []
        self.fault: Exception | None = None

    async def make(self, laid_out: Paper, at: datetime) -> bytes:
        if self.fault is not None:
            raise self.fault
        self.printed.append(laid_out)
        return f"%PDF {laid_out.kind} {dict(laid_out.fields)} {at}".encode()


class Desk:
    """A core with officers, and a printer that costs nothing."""

    def __init__(self, played: Played, clock: FrozenClock) -> None:
        self.played = played
        self.clock = clock
        self.printer = Printer()
        played.core.papers._printer = self.printer
        self.registrar = an_officer("office-7.ana")
        self.supervisor = an_officer("office-7.eva")

    async def open(self) -> None:
        add = self.played.core.officers.add
        for key, role, nif in (
            (self.registrar, "registrar", OFFICER_NIF),
            (self.supervisor, "supervisor", SUPERVISOR_NIF),
        ):
            await add(officer_id=key.officer_id, role=role, nif=nif, public_key=key.public_key)

    def signed(self, key: OfficerKey, action: OfficerAction, fields: dict[str, str]) -> SignedStatement:
        made = key.sign(action, fields, self.clock)
        return SignedStatement(
            officer_id=made.officer_id, issued=made.issued, nonce=made.nonce, signature=made.signature
        )

    async def register(self, key: OfficerKey | None = None, **changes: str) -> HandedOut:
        typed = typed_by_officer(**changes)
        return await self.played.core.desk.register(
            typed, self.signed(key or self.registrar, OfficerAction.REGISTER, typed)
        )

    async def renew(self, *keys: OfficerKey, **changes: str) -> HandedOut:
        typed = {"nif": "12345678Z", "phone": "", "proof": "document:office-7", "language": "es", **changes}
        first, second = [self.signed(key, OfficerAction.RENEW, typed) for key in keys] + [None] * (2 - len(keys))
        assert first is not None
        return await self.played.core.desk.renew(typed, first, second)

    async def refusals(self) -> list[object]:
        return [leaf["facts"]["reason"] for leaf in await self.played.leaves("REFUSED")]  # type: ignore[index]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock, sending=False) as played:
        made = Desk(played, clock)
        await made.open()
        yield made


async def test_a_registration_names_officer_and_proof_and_nobody_else(desk: Desk) -> None:
    done = await desk.register()
    (leaf,) = await desk.played.leaves("ENROL")
    facts = leaf["facts"]
    assert isinstance(facts, dict)
    assert (facts["officer"], facts["proof"], facts["conditions"]) == ("office-7.ana", "document:office-12", "2026-11")
    (action,) = await desk.played.rows(officer_action)
    assert facts["statement"] == action["statement_sha256"]
    assert [one.kind.value for one in desk.printer.printed] == ["receipt", "acceptance"]
    assert desk.printer.printed[0].fields["activation_code"] == done.activation_code
    assert "activation_code" not in desk.printer.printed[1].fields
    listed = {one.officer.id: one.actions_last_hour for one in await desk.played.core.officers.all()}
    assert listed == {"office-7.ana": 1, "office-7.eva": 0}


@pytest.mark.parametrize(
    ("settings", "printed"),
    [
        ({}, ("https://localhost/activate", f"{EDGE}verify")),
        (
            {"activate_url": "https://gate.example/clave/activate", "verify_url": "https://web.example/csv/verify"},
            ("https://gate.example/clave/activate", "https://web.example/csv/verify"),
        ),
    ],
)
async def test_papers_have_whole_addresses(tmp_path: Path, settings: dict[str, str], printed: tuple[str, str]) -> None:
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock, sending=False, **settings) as played:
        desk = Desk(played, clock)
        await desk.open()
        await desk.register()
    fields = desk.printer.printed[0].fields
    assert (fields["activate_at"], fields["verify_at"]) == printed


async def test_nothing_personal_is_left_in_the_clear(desk: Desk, tmp_path: Path) -> None:
    done = await desk.register()
    renewed = await desk.renew(desk.registrar, desk.supervisor, phone="+34687654321")
    await desk.played.core.engine.dispose()
    disk = bytes_on_disk(tmp_path)
    codes = {done.activation_code, renewed.activation_code, *(one.fields["csv"] for one in desk.printer.printed)}
    secrets = (
        *codes,
        *(code.replace("-", "") for code in codes),
        "12345678Z",
        "Núñez",
        "612345678",
        "687654321",
        "maria@example.org",
        OFFICER_NIF,
    )
    assert [secret for secret in secrets if secret.encode() in disk] == []
    assert b"office-7.ana" in disk, "the search itself works"


@pytest.mark.parametrize("field", ["nif", "phone", "email", "level", "proof", "given_name", "language", "conditions"])
async def test_a_field_changed_after_signing_is_refused(desk: Desk, field: str) -> None:
    typed = typed_by_officer()
    signed = desk.signed(desk.registrar, OfficerAction.REGISTER, typed)
    with pytest.raises(CallerRefused):
        await desk.played.core.desk.register({**typed, field: typed[field] + "x"}, signed)
    assert await desk.refusals() == ["signature"]
    assert await desk.played.rows(citizen) == []


async def test_forged_statements_are_refused(desk: Desk) -> None:
    typed = typed_by_officer()
    register = desk.played.core.desk.register
    good = desk.signed(desk.registrar, OfficerAction.REGISTER, typed)
    stranger = desk.signed(OfficerKey.draw(desk.registrar.officer_id), OfficerAction.REGISTER, typed)
    forged = [
        ("signature", replace(good, signature=b"")),
        ("signature", stranger),
        ("signature", desk.signed(desk.registrar, OfficerAction.RENEW, typed)),
        ("signature", replace(good, officer_id=desk.supervisor.officer_id)),
        ("signature", replace(good, nonce=bytes(16))),
        ("signature", replace(good, issued=good.issued + 1)),
        ("unknown", replace(good, officer_id="12345678Z")),
    ]
    for _, statement in forged:
        with pytest.raises(CallerRefused):
            await register(typed, statement)
    with pytest.raises(CallerRefused):
        await register(typed, replace(good, issued=-1))
    assert await desk.refusals() == [reason for reason, _ in forged]
    named = [leaf["facts"]["officer"] for leaf in await desk.played.leaves("REFUSED")]  # type: ignore[index]
    assert named[-1] is None, "what a stranger typed for an id is not in the log"
    assert await desk.played.rows(citizen) == []
    assert await desk.played.rows(officer_action) == []
    assert (await register(typed, good)).citizen.nif == "12345678Z", "the statement itself was right all the time"


async def test_a_statement_is_good_once_even_if_nothing_came_of_it(desk: Desk) -> None:
    typed = typed_by_officer(phone="912345678")
    signed = desk.signed(desk.registrar, OfficerAction.REGISTER, typed)
    with pytest.raises(MalformedRequest):
        await desk.played.core.desk.register(typed, signed)
    with pytest.raises(CallerRefused):
        await desk.played.core.desk.register(typed, signed)
    assert await desk.refusals() == ["replayed"]


@pytest.mark.parametrize("seconds", [-121, 121])
async def test_a_statement_of_another_time_is_refused(desk: Desk, seconds: int) -> None:
    typed = typed_by_officer()
    signed = desk.signed(desk.registrar, OfficerAction.REGISTER, typed)
    desk.clock.advance(seconds)
    with pytest.raises(CallerRefused):
        await desk.played.core.desk.register(typed, signed)
    assert await desk.refusals() == ["stale"]


async def test_nobody_serves_themselves(desk: Desk) -> None:
    with pytest.raises(NotPermitted, match="himself"):
        await desk.register(nif=OFFICER_NIF.lower())
    await desk.register(nif=SUPERVISOR_NIF)
    with pytest.raises(NotPermitted, match="himself"):
        await desk.renew(desk.registrar, desk.supervisor, nif=SUPERVISOR_NIF, phone="+34687654321")
    assert await desk.refusals() == ["self", "self"]


async def test_roles_are_kept_apart(desk: Desk) -> None:
    with pytest.raises(NotPermitted, match="registrar"):
        await desk.register(desk.supervisor)
    await desk.register()
    with pytest.raises(NotPermitted, match="supervisor too"):
        await desk.renew(desk.registrar, phone="+34687654321")
    with pytest.raises(NotPermitted, match="supervisor's"):
        await desk.renew(desk.registrar, desk.registrar, phone="+34687654321")
    with pytest.raises(NotPermitted, match="registrar"):
        await desk.renew(desk.supervisor, desk.supervisor, phone="+34687654321")
    assert await desk.refusals() == ["role", "second_person", "role", "role"]
    assert await desk.played.leaves("PHONE_CHANGE") == []


async def test_a_new_code_ends_the_older_one(desk: Desk) -> None:
    first = await desk.register()
    second = await desk.renew(desk.registrar)
    assert second.activation_code != first.activation_code
    assert desk.printer.printed[-1].fields["activation_code"] == second.activation_code
    assert desk.printer.printed[-1].fields["accepted"] == ""
    leaf = (await desk.played.leaves("ADMIN"))[-1]
    facts = leaf["facts"]
    assert isinstance(facts, dict)
    assert (facts["action"], facts["officer"], facts["second"]) == ("activation_code", "office-7.ana", None)
    with pytest.raises(NotFound):
        await desk.renew(desk.registrar, nif="87654321X")


async def test_two_people_change_code_and_phone_together(desk: Desk) -> None:
    await desk.register()
    done = await desk.renew(desk.registrar, desk.supervisor, phone="687654321")
    assert done.citizen.phone == "+34687654321"
    assert desk.printer.printed[-1].fields["phone"] == "+34687654321"
    facts = (await desk.played.leaves("ADMIN"))[-1]["facts"]
    assert isinstance(facts, dict)
    assert (facts["officer"], facts["second"]) == ("office-7.ana", "office-7.eva")
    assert len(await desk.played.leaves("PHONE_CHANGE")) == 1


@pytest.mark.parametrize("same", ["nif", "key"])
async def test_nobody_is_two_officers(desk: Desk, same: str) -> None:
    add = desk.played.core.officers.add
    key = desk.registrar if same == "key" else an_officer("office-7.ana2")
    twin = {"role": "supervisor", "nif": OFFICER_NIF if same == "nif" else "00000003A", "public_key": key.public_key}
    with pytest.raises(AlreadyRegistered, match="under another id"):
        await add(officer_id="office-7.ana2", **twin)
    await desk.played.core.officers.end("office-7.ana")
    await add(officer_id="office-7.ana2", **twin)


@pytest.mark.parametrize("same", ["nif_index", "public_key"])
async def test_two_signatures_of_one_person_are_one(desk: Desk, same: str) -> None:
    await desk.register()
    # Rows as a register has them that took one person twice.
    rows = {row["id"]: row for row in await desk.played.rows(officer)}
    row = {**rows["office-7.eva"], same: rows["office-7.ana"][same]}
    guard = desk.played.core.officers._guard(row)
    await desk.played.execute(
        sa.update(officer).where(officer.c.id == "office-7.eva").values({same: row[same], "guard": guard})
    )
    countersigning = desk.supervisor
    if same == "public_key":
        countersigning = dataclasses.replace(desk.registrar, officer_id="office-7.eva")
    with pytest.raises(NotPermitted, match="one person"):
        await desk.renew(desk.registrar, countersigning, phone="+34687654321")
    assert await desk.refusals() == ["second_person"]
    assert await desk.played.leaves("PHONE_CHANGE") == []


async def test_an_ended_officer_signs_nothing(desk: Desk) -> None:
    await desk.played.core.officers.end("office-7.ana")
    with pytest.raises(CallerRefused):
        await desk.register()
    assert await desk.refusals() == ["ended"]
    with pytest.raises(AlreadyRegistered):
        await desk.open()
    with pytest.raises(NotFound):
        await desk.played.core.officers.end("nobody")


async def test_a_row_edited_to_another_key_or_role_is_no_officer(desk: Desk) -> None:
    stranger = OfficerKey.draw("office-7.ana")
    await desk.played.execute(
        sa.update(officer).where(officer.c.id == "office-7.ana").values(public_key=stranger.public_key)
    )
    with pytest.raises(InvalidTag):
        await desk.register(stranger)
    assert await desk.played.rows(citizen) == []


async def test_sixty_actions_within_an_hour(desk: Desk) -> None:
    for _ in range(ACTIONS_PER_HOUR):
        with pytest.raises(NotFound):
            await desk.renew(desk.registrar)
    with pytest.raises(RateLimited) as refused:
        await desk.renew(desk.registrar)
    assert refused.value.retry_after_seconds == 3600
    desk.clock.advance(3600)
    assert (await desk.register()).citizen.nif == "12345678Z"


@pytest.mark.parametrize("officer_id", ["", "Ana", "office/7", "o" * 65, "dni-12345678", "../x"])
async def test_ids_tell_nobody_s_number(desk: Desk, officer_id: str) -> None:
    with pytest.raises(MalformedRequest):
        await desk.played.core.officers.add(
            officer_id=officer_id, role="registrar", nif=OFFICER_NIF, public_key=desk.registrar.public_key
        )


async def test_without_papers_nobody_is_registered(desk: Desk) -> None:
    desk.printer.fault = DependencyUnavailable("no press")
    with pytest.raises(DependencyUnavailable):
        await desk.register()
    assert await desk.played.rows(citizen) == []
    assert await desk.played.rows(paper) == []


async def test_a_paper_is_found_by_its_code_alone(desk: Desk) -> None:
    done = await desk.register()
    csv = desk.printer.printed[0].fields["csv"]
    papers = desk.played.core.papers
    known = await papers.verify(f" {csv.lower()} ")
    assert (known.kind.value, known.sha256) == ("receipt", hashlib.sha256(done.receipt).digest())
    other = csv[:-1] + ("0" if csv[-1] != "0" else "1")
    for wrong in ("", other, done.activation_code, "x" * 5000):
        with pytest.raises(NotFound):
            await papers.verify(wrong)
    await desk.played.execute(sa.update(paper).values(sha256=bytes(32)))
    with pytest.raises(InvalidTag):
        await papers.verify(csv)


async def test_the_seal_gets_its_certificate_once_and_seals_real_papers(tmp_path: Path) -> None:
    async with playing(
        tmp_path, sending=False, organisation="Ayuntamiento", organisation_id="VATES-P2807900B"
    ) as played:
        key = an_officer()
        await played.core.officers.add(
            officer_id=key.officer_id, role="registrar", nif=OFFICER_NIF, public_key=key.public_key
        )
        typed = typed_by_officer()
        made = key.sign(OfficerAction.REGISTER, typed, SystemClock())
        signed = SignedStatement(
            officer_id=made.officer_id, issued=made.issued, nonce=made.nonce, signature=made.signature
        )
        done = await played.core.desk.register(typed, signed)
        (row,) = await played.rows(seal_certificate)
        issued = played.issuer.issued
    path = tmp_path / "receipt.pdf"
    path.write_bytes(done.receipt)
    seen = tool("pdfsig", path)
    text = tool("pdftotext", path, "-")
    assert "Signature is Valid" in seen
    assert "Signer Certificate Common Name: Ayuntamiento" in seen
    assert {word for word in (done.activation_code, "12345678Z", "María Núñez Ibáñez") if word not in text} == set()
    certificate = x509.load_der_x509_certificate(bytes(row["certificate"]))  # type: ignore[arg-type]
    policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    assert [policy.policy_identifier for policy in policies] == [profiles.SEAL_POLICY]
    assert "2.5.4.97=VATES-P2807900B" in certificate.subject.rfc4514_string()
    assert profiles.spki_of(certificate.public_key()) == await played.vault.public_key(SigningKey.SEAL)
    assert issued == 1, "receipt and acceptance are made at once and ask for one certificate"
