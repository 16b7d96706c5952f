from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import EventTag, Log, log_pending
from authn.columns import ColumnCipher
from authn.messages.outbox import MessageState, Outbox, message
from authn.messages.texts import SMSTexts
from authn.registration.citizens import CitizenRegister, citizen
from authn.registration.register import PhoneChange, PreparedCode, Registration
from domain.assurance import RegistrationLevel
from domain.errors import AlreadyRegistered, MalformedRequest, NotFound, StateConflict
from domain.ids import CitizenId
from hsm.errors import HSMWorkerLost
from tests.testkit.authn import bytes_on_disk, database
from tests.testkit.officers import enter
from tests.testkit.time import FrozenClock
from tests.testkit.vault import FakeVault

CODE = "ABCDEFGH12345678"


class Codes:
    """Activation codes that stay in memory."""

    def __init__(self) -> None:
        self.stored: list[CitizenId] = []
        self.fault: Exception | None = None

    async def prepare(self, citizen_id: CitizenId) -> PreparedCode:
        return PreparedCode(code=CODE, row={"citizen": citizen_id})

    async def store(self, _connection: AsyncConnection, prepared: PreparedCode) -> None:
        if self.fault is not None:
            raise self.fault
        self.stored.append(prepared.row["citizen"])


class OpenWork:
    """Notes whose work was ended."""

    def __init__(self) -> None:
        self.ended: list[CitizenId] = []
        self.fault: Exception | None = None

    async def end_open_work(self, _connection: AsyncConnection, citizen_id: CitizenId) -> None:
        if self.fault is not None:
            raise self.fault
        self.ended.append(citizen_id)


@dataclass
class Office:
    """Everything that registers, over one database."""

    engine: AsyncEngine
    columns: ColumnCipher
    vault: FakeVault = field(default_factory=FakeVault)
    clock: FrozenClock = field(default_factory=FrozenClock)
    codes: Codes = field(default_factory=Codes)
    open_work: OpenWork = field(default_factory=OpenWork)

    def __post_init__(self) -> None:
        self.register = CitizenRegister(self.vault, self.columns, self.clock)
        self.outbox = Outbox(self.columns, self.clock)
        log = Log(self.clock)
        self.registration = Registration(self.register, self.codes, log)
        self.phone_change = PhoneChange(
            engine=self.engine,
            register=self.register,
            open_work=self.open_work,
            outbox=self.outbox,
            texts=SMSTexts(service="Rúbrica", gate_host="localhost"),
            log=log,
            clock=self.clock,
        )

    async def leaves(self) -> list[dict[str, Any]]:
        async with self.engine.connect() as connection:
            found = await connection.execute(sa.select(log_pending.c.leaf).order_by(log_pending.c.position))
            return [cbor2.loads(leaf) for leaf in found.scalars()]

    async def rows(self, table: sa.Table) -> list[Any]:
        async with self.engine.connect() as connection:
            return list((await connection.execute(sa.select(table))).all())


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with database(tmp_path) as engine:
        yield Office(engine, ColumnCipher({1: bytes(32)}))


def typed(**changes: str) -> dict[str, str]:
    return {
        "nif": "12345678-z",
        "given_name": "  Mari\u0301a  del  Mar ",
        "first_surname": "Núñez",
        "second_surname": "",
        "phone": "612 345 678",
        "email": " Maria@Example.org ",
        "level": "advanced",
        "proof": "document:office-12",
        **changes,
    }


async def test_a_citizen_is_entered_with_code_and_leaf(office: Office) -> None:
    done = await enter(office.engine, office.registration, **typed())
    entered = done.citizen
    assert (entered.nif, entered.given_name, entered.second_surname) == ("12345678Z", "María del Mar", "")
    assert (entered.phone, entered.email) == ("+34612345678", "maria@example.org")
    assert entered.level is RegistrationLevel.ADVANCED
    assert done.activation_code == CODE
    assert office.codes.stored == [entered.id]
    [leaf] = await office.leaves()
    assert (leaf["tag"], leaf["pid"]) == (EventTag.ENROL.value, entered.pid)
    assert leaf["facts"] == {"level": "advanced", "proof": "document:office-12", "version": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"nif": "12345678A"},
        {"nif": "A58818501"},
        {"nif": ""},
        {"given_name": ""},
        {"given_name": "x" * 61},
        {"given_name": "Robert'); DROP TABLE"},
        {"first_surname": "  "},
        {"second_surname": "a\x00b"},
        {"phone": "912345678"},
        {"phone": "+34 900 123 456"},
        {"phone": "612345678 ext. 5"},
        {"phone": "nobody"},
        {"email": "nobody"},
        {"email": "a@b"},
        {"email": "a b@example.org"},
        {"email": "a@example.org\nBcc: x@example.org"},
        {"level": "high"},
        {"proof": ""},
        {"proof": "Shown to Juan"},
        {"proof": "dni:12345678z"},
    ],
)
async def test_what_is_wrong_is_refused_before_the_hsm_is_asked(office: Office, wrong: dict[str, str]) -> None:
    with pytest.raises(MalformedRequest) as refusal:
        await enter(office.engine, office.registration, **typed(**wrong))
    assert not office.vault.calls
    assert await office.rows(citizen) == []
    [value] = wrong.values()
    assert len(value) < 3 or value not in str(refusal.value)


@pytest.mark.parametrize("nif", ["X1234567L", "y0000000z", "K0867756N", "L1234567L", "M1234567L", "00000001R"])
async def test_every_kind_of_natural_person_is_taken(office: Office, nif: str) -> None:
    assert (await enter(office.engine, office.registration, **typed(nif=nif))).citizen.nif == nif.upper()


@pytest.mark.parametrize("phone", ["+447400123456", "0034612345678", "+351912345678"])
async def test_a_foreign_mobile_is_taken(office: Office, phone: str) -> None:
    entered = (await enter(office.engine, office.registration, **typed(phone=phone))).citizen
    assert entered.phone == "+" + phone.removeprefix("00").removeprefix("+")


@pytest.mark.parametrize("again", [{"phone": "687654321"}, {"nif": "00000000T"}])
async def test_a_second_entry_leaves_nothing_behind(office: Office, again: dict[str, str]) -> None:
    await enter(office.engine, office.registration, **typed())
    with pytest.raises(AlreadyRegistered):
        await enter(office.engine, office.registration, **typed(**again))
    assert len(await office.rows(citizen)) == len(await office.leaves()) == len(office.codes.stored) == 1


async def test_nothing_is_entered_when_the_code_cannot_be_stored(office: Office) -> None:
    office.codes.fault = RuntimeError()
    with pytest.raises(RuntimeError):
        await enter(office.engine, office.registration, **typed())
    assert (await office.rows(citizen), await office.leaves()) == ([], [])


async def test_nothing_is_entered_without_the_hsm(office: Office) -> None:
    office.vault.fault = HSMWorkerLost()
    with pytest.raises(HSMWorkerLost):
        await enter(office.engine, office.registration, **typed())
    assert (await office.rows(citizen), await office.leaves(), office.codes.stored) == ([], [], [])


async def test_a_phone_change_ends_open_work_and_tells_both_phones(office: Office) -> None:
    entered = (await enter(office.engine, office.registration, **typed())).citizen
    changed = await office.phone_change.change(nif="12345678z", phone="687 654 321")
    assert (changed.id, changed.phone, changed.generation) == (entered.id, "+34687654321", 2)
    assert office.open_work.ended == [entered.id]
    leaf = (await office.leaves())[-1]
    assert (leaf["tag"], leaf["pid"]) == (EventTag.PHONE_CHANGE.value, entered.pid)
    assert leaf["facts"] == {"generation": 2, "version": changed.version}
    queued = await office.rows(message)
    assert {row.state for row in queued} == {MessageState.WAITING.value}
    assert {row.expires for row in queued} == {office.clock.now() + timedelta(hours=24)}
    told = {office.outbox.open(row.id, row.destination, row.body) for row in queued}
    assert {phone for phone, _ in told} == {"+34612345678", "+34687654321"}
    assert {text for phone, text in told if phone == "+34612345678"} == {
        SMSTexts(service="Rúbrica", gate_host="localhost").phone_changed_old()
    }


@pytest.mark.parametrize(
    ("nif", "phone", "refusal"),
    [
        ("12345678Z", "912345678", MalformedRequest),
        ("99999999R", "687654321", NotFound),
        ("12345678Z", "+34612345678", StateConflict),
        ("12345678Z", "655555555", AlreadyRegistered),
    ],
)
async def test_a_phone_change_that_is_refused_changes_nothing(
    office: Office, nif: str, phone: str, refusal: type[Exception]
) -> None:
    await enter(office.engine, office.registration, **typed())
    await enter(office.engine, office.registration, **typed(nif="00000000T", phone="655555555"))
    before = await office.rows(citizen)
    with pytest.raises(refusal):
        await office.phone_change.change(nif=nif, phone=phone)
    assert await office.rows(citizen) == before
    assert await office.rows(message) == []
    assert (len(await office.leaves()), office.open_work.ended) == (2, [])


async def test_a_phone_change_that_cannot_end_open_work_does_not_happen(office: Office) -> None:
    await enter(office.engine, office.registration, **typed())
    before = await office.rows(citizen)
    office.open_work.fault = RuntimeError()
    with pytest.raises(RuntimeError):
        await office.phone_change.change(nif="12345678Z", phone="687654321")
    assert await office.rows(citizen) == before
    assert (await office.rows(message), len(await office.leaves())) == ([], 1)


async def test_no_personal_data_lie_in_the_clear(office: Office, tmp_path: Path) -> None:
    done = await enter(office.engine, office.registration, **typed())
    await office.phone_change.change(nif="12345678Z", phone="687654321")
    await office.engine.dispose()
    stored = bytes_on_disk(tmp_path)
    assert done.citizen.pid in stored, "the canaries would be looked for in the wrong place"
    for canary in (
        "12345678Z",
        "12345678",
        "María",
        "Núñez",
        "612345678",
        "687654321",
        "example.org",
        "telefono",
        CODE,
    ):
        assert canary.encode() not in stored
    assert CODE not in repr(done)
    assert "12345678Z" not in repr(done)
