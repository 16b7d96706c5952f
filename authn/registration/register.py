"""Operations on the register: each checks first, asks the HSM next, and then writes everything in one commit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.messages.outbox import Outbox
from authn.messages.texts import SMSTexts
from authn.registration.citizens import Citizen, CitizenRegister, normalise_nif
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


class Registration:
    """Enters citizens."""

    def __init__(self, engine: AsyncEngine, register: CitizenRegister, codes: ActivationCodes, log: Log) -> None:
        self._engine = engine
        self._register = register
        self._codes = codes
        self._log = log

    async def register(
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
    ) -> Registered:
        """Check what the registrar typed, and enter citizen, activation code and ENROL leaf in one commit.

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
            AlreadyRegistered: The NIF or the phone is in the register.
            HSMError: The vault does not answer; nothing was written.
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
        _check_proof(proof)
        prepared = await self._register.prepare(person)
        code = await self._codes.prepare(prepared.id)
        async with self._engine.begin() as connection:
            citizen = await self._register.add(connection, prepared)
            await self._codes.store(connection, code)
            await self._log.append(
                connection,
                Event(
                    tag=EventTag.ENROL,
                    pid=citizen.pid,
                    facts={"level": citizen.level.value, "proof": proof, "version": citizen.version},
                ),
            )
        return Registered(citizen=citizen, activation_code=code.code)


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
        new_phone = check_phone(phone)
        nif_index = await self._register.nif_index(normalise_nif(nif))
        phone_index = await self._register.phone_index(new_phone)
        async with self._engine.begin() as connection:
            before = await self._register.find(connection, nif_index)
            if before is None:
                raise NotFound("nobody with this NIF is registered")
            if before.phone == new_phone:
                raise StateConflict("this is the citizen's phone already")
            await self._register.change_phone(connection, before.id, new_phone, phone_index)
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
        self._outbox.wake()
        return after

    async def _notify(self, connection: AsyncConnection, leaf: EventId, which: str, phone: str, text: str) -> None:
        await self._outbox.put(
            connection,
            message_id=f"{leaf}.{which}",
            phone=phone,
            text=text,
            expires=self._clock.now() + NOTICE_LIFE,
        )


def _check_proof(proof: str) -> None:
    # It goes into a log that never forgets, so a free text, in which someone would write a name or NIF, is refused.
    if _PROOF.fullmatch(proof) is None or _LONG_NUMBER.search(proof):
        raise MalformedRequest(
            "the proof must be a code of at most 64 lower-case letters, digits, points, colons and hyphens, "
            "without long numbers"
        )
