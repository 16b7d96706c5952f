"""The register of citizens: rows, blind indexes, the generation that ends every open approval."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from authn.columns import ColumnCipher
from authn.registration.person import NewCitizen
from authn.tables import UTCDateTime, metadata
from domain.assurance import RegistrationLevel
from domain.clock import Clock, to_epoch_seconds
from domain.errors import AlreadyRegistered, NotFound, StateConflict
from domain.ids import CitizenId, Randomness, new_id
from hsm.keys import MACKey
from hsm.vault import Vault

SALT_SIZE_BYTES = 32

citizen = sa.Table(
    "citizen",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("subject_salt", sa.LargeBinary(SALT_SIZE_BYTES), nullable=False),
    sa.Column("pid", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("pid_version", sa.Integer, nullable=False, comment="of K_pid"),
    sa.Column("nif_index", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("phone_index", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("email_index", sa.LargeBinary(32), nullable=False, index=True),
    sa.Column("index_version", sa.Integer, nullable=False, comment="of K_idx"),
    sa.Column("nif", sa.LargeBinary, nullable=False),
    sa.Column("given_name", sa.LargeBinary, nullable=False),
    sa.Column("first_surname", sa.LargeBinary, nullable=False),
    sa.Column("second_surname", sa.LargeBinary, nullable=False),
    sa.Column("phone", sa.LargeBinary, nullable=False),
    sa.Column("email", sa.LargeBinary, nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("registered", UTCDateTime, nullable=False),
    sa.Column("guard", sa.LargeBinary, nullable=False, comment="authenticates what the row says in the clear"),
)

PERSONAL = ("nif", "given_name", "first_surname", "second_surname", "phone", "email")
"""Columns that lie encrypted."""


def normalise_nif(typed: str) -> str:
    """Upper case, without spaces, dots and hyphens; not checked."""
    return "".join(symbol for symbol in typed.upper() if symbol.isalnum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Citizen:
    """A citizen as registered, personal data opened; its ``repr`` shows none of them."""

    id: CitizenId
    pid: bytes
    """Pseudonym in the log: H(K_pid, subject_salt)."""
    nif: str = field(repr=False)
    given_name: str = field(repr=False)
    first_surname: str = field(repr=False)
    second_surname: str = field(repr=False)
    phone: str = field(repr=False)
    """E.164."""
    email: str = field(repr=False)
    level: RegistrationLevel
    generation: int
    """Changes whenever an open approval must die."""
    version: int
    registered: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCitizen:
    """A checked citizen with everything that takes the HSM; made before the transaction that stores it."""

    id: CitizenId
    person: NewCitizen
    subject_salt: bytes = field(repr=False)
    pid: bytes
    pid_version: int
    nif_index: bytes
    phone_index: bytes
    email_index: bytes
    index_version: int


class CitizenRegister:
    """Finds, adds and changes citizens; every write happens in the caller's transaction."""

    def __init__(
        self, vault: Vault, columns: ColumnCipher, clock: Clock, randomness: Randomness = secrets.token_bytes
    ) -> None:
        self._vault = vault
        self._columns = columns
        self._clock = clock
        self._randomness = randomness

    async def nif_index(self, nif: str) -> bytes:
        """Blind index of a normalised NIF; one HSM call whatever was typed."""
        return await self._vault.mac(MACKey.INDEX, "nif", nif)

    async def phone_index(self, phone: str) -> bytes:
        """Blind index of a phone in E.164; one HSM call."""
        return await self._vault.mac(MACKey.INDEX, "phone", phone)

    async def email_index(self, email: str) -> bytes:
        """Blind index of a normalised e-mail address; one HSM call."""
        return await self._vault.mac(MACKey.INDEX, "email", email)

    async def prepare(self, person: NewCitizen) -> PreparedCitizen:
        """Draw id and salt, compute pseudonym and blind indexes: four HSM calls, outside any transaction."""
        salt = self._randomness(SALT_SIZE_BYTES)
        return PreparedCitizen(
            id=CitizenId(new_id(self._randomness)),
            person=person,
            subject_salt=salt,
            pid=await self._vault.mac(MACKey.PSEUDONYM, salt),
            pid_version=self._vault.current_version(MACKey.PSEUDONYM),
            nif_index=await self.nif_index(person.nif),
            phone_index=await self.phone_index(person.phone),
            email_index=await self.email_index(person.email),
            index_version=self._vault.current_version(MACKey.INDEX),
        )

    async def add(self, connection: AsyncConnection, prepared: PreparedCitizen) -> Citizen:
        """Insert a citizen; generation and version begin at 1.

        Raises:
            AlreadyRegistered: The NIF or the phone is in the register; the caller's transaction must roll back.
        """
        await self._refuse_twins(connection, prepared)
        person = prepared.person
        added = Citizen(
            id=prepared.id,
            pid=prepared.pid,
            nif=person.nif,
            given_name=person.given_name,
            first_surname=person.first_surname,
            second_surname=person.second_surname,
            phone=person.phone,
            email=person.email,
            level=person.level,
            generation=1,
            version=1,
            # Whole seconds, as the guard has them.
            registered=self._clock.now().replace(microsecond=0),
        )
        row: dict[str, Any] = {
            "id": added.id,
            "subject_salt": prepared.subject_salt,
            "pid": added.pid,
            "pid_version": prepared.pid_version,
            "nif_index": prepared.nif_index,
            "phone_index": prepared.phone_index,
            "email_index": prepared.email_index,
            "index_version": prepared.index_version,
            "level": added.level.value,
            "generation": added.generation,
            "version": added.version,
            "registered": added.registered,
        }
        sealed = {name: self._seal(added.id, name, getattr(added, name)) for name in PERSONAL}
        try:
            await connection.execute(sa.insert(citizen).values(**row, **sealed, guard=self._guard(row)))
        except sa.exc.IntegrityError:
            raise AlreadyRegistered("this NIF or phone is in the register already") from None
        return added

    async def find(self, connection: AsyncConnection, nif_index: bytes) -> Citizen | None:
        """The citizen with that index; no HSM call.

        Raises:
            cryptography.exceptions.InvalidTag: The row was edited behind the core's back.
        """
        row = await self._row(connection, citizen.c.nif_index == nif_index)
        return None if row is None else self._open(row)

    async def get(self, connection: AsyncConnection, citizen_id: CitizenId) -> Citizen | None:
        """The citizen with that id; no HSM call.

        Raises:
            cryptography.exceptions.InvalidTag: The row was edited behind the core's back.
        """
        row = await self._row(connection, citizen.c.id == citizen_id)
        return None if row is None else self._open(row)

    async def require_generation(self, connection: AsyncConnection, citizen: Citizen | None) -> None:
        """Make sure, in the commit that opens work for a citizen, that nothing changed since the citizen was read.

        A change ends open work in its own commit; what was being prepared then must not open afterwards.

        Raises:
            StateConflict: The generation was raised meanwhile.
        """
        if citizen is None:
            return
        now = await self.get(connection, citizen.id)
        if now is None or now.generation != citizen.generation:
            raise StateConflict("something about your account changed meanwhile; begin again")

    async def bump_generation(self, connection: AsyncConnection, citizen_id: CitizenId) -> int:
        """Raise the generation and give the new one; the caller deletes open capsules and approvals in the same commit.

        Raises:
            NotFound: No such citizen.
            StateConflict: Another transaction changed the row in the meantime.
        """
        row = await self._existing(connection, citizen_id)
        generation: int = row["generation"] + 1
        await self._change(connection, row, generation=generation)
        return generation

    async def change_phone(
        self, connection: AsyncConnection, citizen_id: CitizenId, phone: str, phone_index: bytes
    ) -> None:
        """Store another phone (the generation is bumped by the caller).

        Raises:
            AlreadyRegistered: Another citizen holds it; the caller's transaction must roll back.
            NotFound: No such citizen.
            StateConflict: Another transaction changed the row in the meantime.
        """
        row = await self._existing(connection, citizen_id)
        holder = await connection.scalar(sa.select(citizen.c.id).where(citizen.c.phone_index == phone_index))
        if holder not in (None, citizen_id):
            raise AlreadyRegistered("this phone is in the register already")
        sealed = self._seal(citizen_id, "phone", phone)
        try:
            await self._change(connection, row, phone=sealed, phone_index=phone_index)
        except sa.exc.IntegrityError:
            raise AlreadyRegistered("this phone is in the register already") from None

    async def _refuse_twins(self, connection: AsyncConnection, prepared: PreparedCitizen) -> None:
        # The unique columns would refuse them too; asking first tells the registrar which of the two it is.
        for column, index, what in (
            (citizen.c.nif_index, prepared.nif_index, "NIF"),
            (citizen.c.phone_index, prepared.phone_index, "phone"),
        ):
            if await connection.scalar(sa.select(citizen.c.id).where(column == index)) is not None:
                raise AlreadyRegistered(f"this {what} is in the register already")

    async def _row(self, connection: AsyncConnection, where: sa.ColumnElement[bool]) -> sa.RowMapping | None:
        return (await connection.execute(sa.select(citizen).where(where))).mappings().one_or_none()

    async def _existing(self, connection: AsyncConnection, citizen_id: CitizenId) -> sa.RowMapping:
        row = await self._row(connection, citizen.c.id == citizen_id)
        if row is None:
            raise NotFound("no such citizen")
        self._columns.check(row["guard"], *_guarded(row))
        return row

    async def _change(self, connection: AsyncConnection, row: sa.RowMapping, **changes: Any) -> None:
        changed = {**row, **changes, "version": row["version"] + 1}
        done = await connection.execute(
            sa.update(citizen)
            .where(citizen.c.id == row["id"], citizen.c.version == row["version"])
            .values(**changes, version=changed["version"], guard=self._guard(changed))
        )
        if done.rowcount != 1:
            raise StateConflict("the citizen's row was changed in the meantime; try again")

    def _open(self, row: sa.RowMapping) -> Citizen:
        self._columns.check(row["guard"], *_guarded(row))
        return Citizen(
            id=CitizenId(row["id"]),
            pid=row["pid"],
            level=RegistrationLevel(row["level"]),
            generation=row["generation"],
            version=row["version"],
            registered=row["registered"],
            **{name: self._columns.open(row[name], "citizen", name, row["id"]) for name in PERSONAL},
        )

    def _seal(self, citizen_id: CitizenId, column: str, value: str) -> bytes:
        return self._columns.seal(value, "citizen", column, citizen_id)

    def _guard(self, row: Any) -> bytes:
        return self._columns.guard(*_guarded(row))


def _guarded(row: Any) -> tuple[str, ...]:
    """What a row says in the clear, in one order; an older copy of a whole row shows by its version in the log."""
    return (
        "citizen",
        row["id"],
        str(row["version"]),
        str(row["generation"]),
        row["level"],
        row["subject_salt"].hex(),
        row["pid"].hex(),
        row["nif_index"].hex(),
        row["phone_index"].hex(),
        row["email_index"].hex(),
        str(to_epoch_seconds(row["registered"])),
    )
