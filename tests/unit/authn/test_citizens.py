import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlalchemy.ext.asyncio import AsyncEngine

from authn.columns import ColumnCipher
from authn.registration.citizens import Citizen, CitizenRegister, citizen, normalise_nif
from domain.assurance import RegistrationLevel
from domain.errors import AlreadyRegistered, NotFound, StateConflict
from domain.ids import CitizenId
from tests.testkit.authn import a_person, bytes_on_disk, database
from tests.testkit.time import FrozenClock
from tests.testkit.vault import FakeVault

CANARIES = ("12345678Z", "María", "Núñez", "Ibáñez", "+34612345678", "612345678", "maria@example.org")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    async with database(tmp_path) as engine:
        yield engine


@pytest.fixture
def vault() -> FakeVault:
    return FakeVault()


@pytest.fixture
async def register(engine: AsyncEngine, vault: FakeVault) -> CitizenRegister:
    return CitizenRegister(vault, await ColumnCipher.load(engine, vault), FrozenClock())


async def enter(engine: AsyncEngine, register: CitizenRegister, **changes: Any) -> Citizen:
    prepared = await register.prepare(a_person(**changes))
    async with engine.begin() as connection:
        return await register.add(connection, prepared)


@pytest.mark.parametrize("typed", ["12345678z", " 12.345.678-Z ", "12345678Z"])
def test_a_nif_is_normalised(typed: str) -> None:
    assert normalise_nif(typed) == "12345678Z"


async def test_a_citizen_is_found_as_entered(engine: AsyncEngine, register: CitizenRegister) -> None:
    added = await enter(engine, register)
    index = await register.nif_index("12345678Z")
    async with engine.connect() as connection:
        assert await register.find(connection, index) == added
        assert await register.get(connection, added.id) == added
    assert (added.given_name, added.first_surname, added.second_surname) == ("María", "Núñez", "Ibáñez")
    assert (added.generation, added.version, added.level) == (1, 1, RegistrationLevel.ADVANCED)
    assert len(added.pid) == 32


async def test_a_stranger_is_not_found(engine: AsyncEngine, register: CitizenRegister) -> None:
    await enter(engine, register)
    async with engine.connect() as connection:
        assert await register.find(connection, await register.nif_index("00000000T")) is None
        assert await register.get(connection, CitizenId("0" * 26)) is None


async def test_finding_asks_the_hsm_once_whoever_is_asked_for(
    engine: AsyncEngine, register: CitizenRegister, vault: FakeVault
) -> None:
    await enter(engine, register)
    for typed in ("12345678Z", "00000000T", "", "x" * 10_000):
        vault.calls.clear()
        index = await register.nif_index(typed)
        async with engine.connect() as connection:
            await register.find(connection, index)
        assert vault.calls == {"mac": 1}


async def test_indexes_of_one_text_differ_by_kind(register: CitizenRegister) -> None:
    indexes = {await register.nif_index("x"), await register.phone_index("x"), await register.email_index("x")}
    assert len(indexes) == 3


async def test_writing_never_asks_the_hsm(engine: AsyncEngine, register: CitizenRegister, vault: FakeVault) -> None:
    prepared = await register.prepare(a_person())
    index = await register.phone_index("+34687654321")
    vault.calls.clear()
    async with engine.begin() as connection:
        added = await register.add(connection, prepared)
        await register.change_phone(connection, added.id, "+34687654321", index)
        await register.bump_generation(connection, added.id)
    assert not vault.calls


@pytest.mark.parametrize(
    ("changes", "what"), [({"phone": "+34687654321"}, "NIF"), ({"nif": "00000000T", "email": "x@y.es"}, "phone")]
)
async def test_nif_and_phone_are_taken_once(
    engine: AsyncEngine, register: CitizenRegister, changes: dict[str, str], what: str
) -> None:
    await enter(engine, register)
    with pytest.raises(AlreadyRegistered, match=what):
        await enter(engine, register, **changes)
    async with engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(citizen)) == 1


async def test_the_database_refuses_the_twin_that_a_race_lets_through(
    engine: AsyncEngine, register: CitizenRegister, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing_seen(*_: object) -> None: ...

    await enter(engine, register)
    monkeypatch.setattr(register, "_refuse_twins", nothing_seen)
    with pytest.raises(AlreadyRegistered):
        await enter(engine, register)


async def test_a_phone_changes(engine: AsyncEngine, register: CitizenRegister) -> None:
    added = await enter(engine, register)
    index = await register.phone_index("+34687654321")
    async with engine.begin() as connection:
        await register.change_phone(connection, added.id, "+34687654321", index)
        changed = await register.get(connection, added.id)
    assert changed is not None
    assert (changed.phone, changed.version, changed.generation) == ("+34687654321", 2, 1)
    # The old one is free again.
    await enter(engine, register, nif="00000000T")


async def test_a_phone_of_another_is_refused(engine: AsyncEngine, register: CitizenRegister) -> None:
    added = await enter(engine, register)
    await enter(engine, register, nif="00000000T", phone="+34687654321")
    index = await register.phone_index("+34687654321")
    with pytest.raises(AlreadyRegistered):
        async with engine.begin() as connection:
            await register.change_phone(connection, added.id, "+34687654321", index)
    async with engine.connect() as connection:
        assert await register.get(connection, added.id) == added


async def test_every_bump_gives_another_generation(engine: AsyncEngine, register: CitizenRegister) -> None:
    added = await enter(engine, register)

    async def bump() -> int:
        async with engine.begin() as connection:
            return await register.bump_generation(connection, added.id)

    assert sorted(await asyncio.gather(*(bump() for _ in range(10)))) == list(range(2, 12))
    async with engine.connect() as connection:
        now = await register.get(connection, added.id)
    assert now is not None
    assert (now.generation, now.version) == (11, 11)


async def test_nobody_cannot_be_changed(engine: AsyncEngine, register: CitizenRegister) -> None:
    nobody = CitizenId("0" * 26)
    async with engine.begin() as connection:
        with pytest.raises(NotFound):
            await register.bump_generation(connection, nobody)
        with pytest.raises(NotFound):
            await register.change_phone(connection, nobody, "+34687654321", bytes(32))


async def test_a_row_changed_in_between_is_a_conflict(engine: AsyncEngine, register: CitizenRegister) -> None:
    added = await enter(engine, register)
    async with engine.begin() as connection:
        stale = await register._existing(connection, added.id)
        await register.bump_generation(connection, added.id)
        with pytest.raises(StateConflict):
            await register._change(connection, stale, generation=7)
        now = await register.get(connection, added.id)
    assert now is not None
    assert now.generation == 2


@pytest.mark.parametrize(
    ("column", "forged"),
    [
        ("level", "advanced"),
        ("generation", 9),
        ("version", 9),
        ("pid", bytes(32)),
        ("subject_salt", bytes(32)),
        ("phone_index", bytes(32)),
        ("email_index", bytes(32)),
        ("registered", FrozenClock().now().replace(year=2020)),
        ("phone", bytes(40)),
        ("nif", bytes(40)),
        ("guard", bytes(32)),
    ],
)
async def test_a_row_edited_in_the_database_is_refused(
    engine: AsyncEngine, register: CitizenRegister, column: str, forged: object
) -> None:
    added = await enter(engine, register, level=RegistrationLevel.BASIC)
    async with engine.begin() as connection:
        await connection.execute(sa.update(citizen).values({column: forged}))
    async with engine.connect() as connection:
        with pytest.raises(InvalidTag):
            await register.get(connection, added.id)


async def test_an_edited_row_is_not_made_good_by_a_change(engine: AsyncEngine, register: CitizenRegister) -> None:
    added = await enter(engine, register, level=RegistrationLevel.BASIC)
    async with engine.begin() as connection:
        await connection.execute(sa.update(citizen).values(level="advanced"))
        with pytest.raises(InvalidTag):
            await register.bump_generation(connection, added.id)


async def test_another_citizens_values_do_not_open_here(engine: AsyncEngine, register: CitizenRegister) -> None:
    added = await enter(engine, register)
    other = await enter(engine, register, nif="00000000T", phone="+34687654321")
    async with engine.begin() as connection:
        theirs = await connection.scalar(sa.select(citizen.c.phone).where(citizen.c.id == other.id))
        await connection.execute(sa.update(citizen).where(citizen.c.id == added.id).values(phone=theirs))
        with pytest.raises(InvalidTag):
            await register.get(connection, added.id)


async def test_no_personal_data_lie_in_the_clear(
    engine: AsyncEngine, register: CitizenRegister, tmp_path: Path
) -> None:
    added = await enter(engine, register)
    index = await register.phone_index("+34687654321")
    async with engine.begin() as connection:
        await register.change_phone(connection, added.id, "+34687654321", index)
    await engine.dispose()
    stored = bytes_on_disk(tmp_path)
    assert added.id.encode() in stored, "the canaries would be looked for in the wrong place"
    for canary in (*CANARIES, "687654321"):
        assert canary.encode() not in stored
        assert canary.encode("utf-16-le") not in stored


async def test_reprs_show_no_personal_data(engine: AsyncEngine, register: CitizenRegister) -> None:
    added = await enter(engine, register)
    shown = repr(added) + repr(a_person()) + repr(await register.prepare(a_person()))
    for canary in CANARIES:
        assert canary not in shown
