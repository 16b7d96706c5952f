"""Registration over a real token: nothing personal on disk, and everything opens again after a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Log
from authn.columns import ColumnCipher, data_key
from authn.messages.outbox import Outbox, message
from authn.messages.texts import SMSTexts
from authn.registration.citizens import Citizen, CitizenRegister
from authn.registration.register import PhoneChange, PreparedCode, Registration
from domain.clock import SystemClock
from domain.ids import CitizenId
from hsm.errors import HSMRefused
from hsm.keys import MACKey
from hsm.pool import HSMPool
from hsm.settings import TokenSettings
from hsm.token_vault import TokenVault
from tests.testkit.authn import bytes_on_disk, database
from tests.testkit.officers import enter
from tests.testkit.softhsm import core_token
from tests.testkit.vault import FakeVault


class WatchedVault(TokenVault):
    """Fails if it is asked while a database connection is out: the HSM may be slow, transactions may not."""

    def __init__(self, pool: HSMPool, engine: AsyncEngine) -> None:
        super().__init__(pool)
        self._engine = engine
        self.asked = 0

    async def mac(self, key: MACKey, *parts: Any, version: int | None = None) -> bytes:
        self._watch()
        return await super().mac(key, *parts, version=version)

    async def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        self._watch()
        return await super().seal(plaintext, associated_data)

    async def open(self, sealed: bytes, associated_data: bytes, *, version: int) -> bytes:
        self._watch()
        return await super().open(sealed, associated_data, version=version)

    def _watch(self) -> None:
        self.asked += 1
        assert self._engine.pool.checkedout() == 0, "the HSM is asked inside a transaction"


class Codes:
    async def prepare(self, citizen_id: CitizenId) -> PreparedCode:
        return PreparedCode(code="ABCDEFGH", row={"citizen": citizen_id})

    async def store(self, connection: AsyncConnection, prepared: PreparedCode) -> None:
        assert prepared.row
        assert connection.in_transaction()


class NoOpenWork:
    async def end_open_work(self, connection: AsyncConnection, citizen_id: CitizenId) -> None:
        assert citizen_id
        assert connection.in_transaction()


@asynccontextmanager
async def core(folder: Path, token: TokenSettings) -> AsyncIterator[tuple[AsyncEngine, WatchedVault, ColumnCipher]]:
    pool = await HSMPool.start(token, workers=1)
    try:
        async with database(folder) as engine:
            vault = WatchedVault(pool, engine)
            yield engine, vault, await ColumnCipher.load(engine, vault)
    finally:
        await pool.close()


async def register_and_change_phone(engine: AsyncEngine, vault: WatchedVault, columns: ColumnCipher) -> Citizen:
    clock = SystemClock()
    log = Log(clock)
    register = CitizenRegister(vault, columns, clock)
    await enter(
        engine,
        Registration(register, Codes(), log),
        nif="12345678Z",
        given_name="María",
        first_surname="Núñez",
        second_surname="Ibáñez",
        phone="612345678",
        email="maria@example.org",
        level="advanced",
        proof="document:office-12",
    )
    return await PhoneChange(
        engine=engine,
        register=register,
        open_work=NoOpenWork(),
        outbox=Outbox(columns, clock),
        texts=SMSTexts(service="Rúbrica", gate_host="localhost"),
        log=log,
        clock=clock,
    ).change(nif="12345678z", phone="687654321")


async def test_a_citizen_survives_a_restart_and_shows_in_no_file(tmp_path: Path) -> None:
    token = core_token(tmp_path)
    folder = tmp_path / "core"
    folder.mkdir()
    async with core(folder, token) as (engine, vault, columns):
        changed = await register_and_change_phone(engine, vault, columns)
        # Data key; pseudonym and three indexes; two indexes.
        assert vault.asked == 1 + 1 + 4 + 2
        queued = bytes_on_disk(folder)
    stored = bytes_on_disk(folder)
    for kept in (queued, stored):
        assert changed.pid in kept, "the canaries would be looked for in the wrong place"
        for canary in ("12345678", "María", "Núñez", "Ibáñez", "612345678", "687654321", "example.org", "telefono"):
            assert canary.encode() not in kept
            assert canary.encode("utf-16-le") not in kept
    async with core(folder, token) as (engine, vault, columns):
        register = CitizenRegister(vault, columns, SystemClock())
        index = await register.nif_index("12345678Z")
        async with engine.connect() as connection:
            assert await register.find(connection, index) == changed
            rows = (await connection.execute(sa.select(message))).all()
        told = {Outbox(columns, SystemClock()).open(row.id, row.destination, row.body)[0] for row in rows}
    assert told == {"+34612345678", "+34687654321"}


async def test_a_database_opens_with_its_own_token_and_unchanged_key_alone(tmp_path: Path) -> None:
    folder = tmp_path / "core"
    folder.mkdir()
    async with core(folder, core_token(tmp_path)) as (engine, vault, columns):
        await register_and_change_phone(engine, vault, columns)
        with pytest.raises(HSMRefused):
            await ColumnCipher.load(engine, FakeVault())
        async with engine.begin() as connection:
            row = (await connection.execute(sa.select(data_key))).one()
            tampered = row.sealed[:-1] + bytes([row.sealed[-1] ^ 1])
            await connection.execute(sa.update(data_key).values(sealed=tampered))
        with pytest.raises(HSMRefused):
            await ColumnCipher.load(engine, vault)
