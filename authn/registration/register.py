"""Operations on the register: each checks first, asks the HSM next, and then writes everything in one commit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.messages.outbox import Outbox
from authn.messages.texts import SMSTexts
from authn.registration.citizens import Citizen, CitizenRegister, PreparedCitizen, normalise_nif
from authn.registration.person import check, check_phone
from domain.clock import Clock
from domain.errors import MalformedRequest, NotFound, StateConflict
from domain.ids import CitizenId, EventId

NOTICE_LIFE = timedelta(hours=24)
_PROOF = re.compile(r"[a-z][a-z0-9.:-]{0,63}")
_LONG_NUMBER = re.compile(r"\d{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCode:
    """An activation code and the row that will recognise it, not stored yet."""

    code: str = field(repr=False)
    row: Mapping[str, Any] = field(repr=False)


class ActivationCodes(Protocol):
    """Port to the activation codes; two steps, because only the first may ask the HSM."""

    async def prepare(self, citizen_id: CitizenId) -> PreparedCode:
        """Draw a code and compute its row, outside any transaction."""
        ...

    async def store(self, connection: AsyncConnection, prepared: PreparedCode) -> None:
        """Insert the row in the caller's transaction."""
        ...


class GenerationListener(Protocol):
    """Port to whoever keeps open work of a citizen: capsules, challenges, authorisations."""

    async def end_open_work(self, connection: AsyncConnection, citizen_id: CitizenId) -> None:
        """Delete it in the transaction that changes the generation."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A citizen who is now in the register."""

    citizen: Citizen
    activation_code: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRegistration:
    """A checked person with all that takes the HSM, not stored yet."""

    citizen: PreparedCitizen
    code: PreparedCode
    proof: str


class Registration:
    """Enters citizens: ``prepare`` outside any transaction, then ``store`` within the officer's."""

    def __init__(self, register: CitizenRegister, codes: ActivationCodes, log: Log) -> None:
        self._register = register
        self._codes = codes
        self._log = log

    async def prepare(
        self,
        *,
        nif: str,
        given_name: str,
        first_surname: str,
        second_surname: str,
        phone: str,
        email: str,
        level: str,
        proof: str,
    ) -> PreparedRegistration:
        """Check what the registrar typed, and draw id, indexes and activation code.

        Args:
            nif: DNI, NIE or special NIF of a natural person.
            given_name: As on the identity document.
            first_surname: As on the identity document.
            second_surname: Empty where there is none.
            phone: Mobile number, in E.164 or national.
            email: For activation and notices.
            level: ``basic`` or ``advanced``.
            proof: A code for how and by whom the identity was proved, for example ``document:office-12``.

        Raises:
            MalformedRequest: A field is wrong.
            HSMError: The vault does not answer.
        """
        person = check(
            nif=nif,
            given_name=given_name,
            first_surname=first_surname,
            second_surname=second_surname,
            phone=phone,
            email=email,
            level=level,
        )
        check_proof(proof)
        prepared = await self._register.prepare(person)
        code = await self._codes.prepare(prepared.id)
        return PreparedRegistration(citizen=prepared, code=code, proof=proof)

    async def store(
        self,
        connection: AsyncConnection,
        prepared: PreparedRegistration,
        by: Mapping[str, str | int | bytes | None] = MappingProxyType({}),
    ) -> Registered:
        """Enter citizen, activation code and ENROL leaf in the caller's transaction.

        Args:
            connection: Must roll back on any error.
            prepared: From ``prepare``.
            by: Further facts of the leaf: which officer, by which statement.

        Raises:
            AlreadyRegistered: The NIF or the phone is in the register.
        """
        citizen = await self._register.add(connection, prepared.citizen)
        await self._codes.store(connection, prepared.code)
        facts = {"level": citizen.level.value, "proof": prepared.proof, "version": citizen.version, **by}
        await self._log.append(connection, Event(tag=EventTag.ENROL, pid=citizen.pid, facts=facts))
        return Registered(citizen=citizen, activation_code=prepared.code.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPhone:
    """A checked phone and its blind index."""

    phone: str = field(repr=False)
    """E.164."""
    index: bytes


class PhoneChange:
    """Gives a citizen another phone; whatever was open ends with it."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        register: CitizenRegister,
        open_work: GenerationListener,
        outbox: Outbox,
        texts: SMSTexts,
        log: Log,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._register = register
        self._open_work = open_work
        self._outbox = outbox
        self._texts = texts
        self._log = log
        self._clock = clock

    async def change(self, *, nif: str, phone: str) -> Citizen:
        """Store the phone, raise the generation, end open work, log it, and tell both phones: all in one commit.

        Raises:
            MalformedRequest: Not a mobile number.
            NotFound: Nobody with this NIF is registered.
            AlreadyRegistered: Another citizen has the phone.
            StateConflict: It is the citizen's phone already, or the row changed in the meantime.
            HSMError: The vault does not answer; nothing was written.
        """
        prepared = await self.prepare(phone)
        nif_index = await self._register.nif_index(normalise_nif(nif))
        async with self._engine.begin() as connection:
            after = await self.apply(connection, nif_index, prepared)
        self.announce()
        return after

    async def prepare(self, phone: str) -> PreparedPhone:
        """Check a phone and compute its index, outside any transaction; errors as ``change``."""
        checked = check_phone(phone)
        return PreparedPhone(phone=checked, index=await self._register.phone_index(checked))

    async def apply(self, connection: AsyncConnection, nif_index: bytes, prepared: PreparedPhone) -> Citizen:
        """Change it in the caller's transaction; errors as ``change``. ``announce`` after the commit."""
        before = await self._register.find(connection, nif_index)
        if before is None:
            raise NotFound("nobody with this NIF is registered")
        if before.phone == prepared.phone:
            raise StateConflict("this is the citizen's phone already")
        await self._register.change_phone(connection, before.id, prepared.phone, prepared.index)
        await self._register.bump_generation(connection, before.id)
        await self._open_work.end_open_work(connection, before.id)
        after = await self._register.get(connection, before.id)
        if after is None:
            raise NotFound("nobody with this NIF is registered")
        [leaf] = await self._log.append(
            connection,
            Event(
                tag=EventTag.PHONE_CHANGE,
                pid=after.pid,
                facts={"generation": after.generation, "version": after.version},
            ),
        )
        await self._notify(connection, leaf, "old", before.phone, self._texts.phone_changed_old())
        await self._notify(connection, leaf, "new", after.phone, self._texts.phone_changed_new())
        return after

    def announce(self) -> None:
        """Have the notices of a committed change sent."""
        self._outbox.wake()

    async def _notify(self, connection: AsyncConnection, leaf: EventId, which: str, phone: str, text: str) -> None:
        await self._outbox.put(
            connection,
            message_id=f"{leaf}.{which}",
            phone=phone,
            text=text,
            expires=self._clock.now() + NOTICE_LIFE,
        )


def check_proof(proof: str) -> None:
    """Refuse a proof that is not a short code.

    Raises:
        MalformedRequest: It is not.
    """
    # It goes into a log that never forgets, so a free text, in which someone would write a name or NIF, is refused.
    if _PROOF.fullmatch(proof) is None or _LONG_NUMBER.search(proof):
        raise MalformedRequest(
            "the proof must be a code of at most 64 lower-case letters, digits, points, colons and hyphens, "
            "without long numbers"
        )
