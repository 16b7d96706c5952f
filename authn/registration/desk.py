"""What officers do at the desk: register a citizen, give a new activation code, each by a statement that they sign."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Event, EventTag, Log
from authn.registration.activation import CODE_LIFE
from authn.registration.citizens import Citizen, CitizenRegister, normalise_nif
from authn.registration.officers import Accepted, OfficerRole, Officers, SignedStatement, are_one
from authn.registration.papers import Language, PaperKind, Papers
from authn.registration.person import NewCitizen
from authn.registration.register import ActivationCodes, PhoneChange, Registration, check_proof
from domain.clock import Clock
from domain.errors import MalformedRequest, NotFound
from domain.statements import CONDITIONS_VERSION, OfficerAction


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """What stands on every paper."""

    service: str
    organisation: str
    activate_at: str
    """Where the citizen activates the password: a whole address, as a browser takes it."""
    verify_at: str
    """Where anybody checks a CSV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOut:
    """What the citizen gets over the desk."""

    citizen: Citizen
    activation_code: str = field(repr=False)
    receipt: bytes = field(repr=False)
    """PDF, sealed; holds the code."""
    acceptance: bytes = field(repr=False)
    """PDF, sealed, for a signature on paper; empty where nothing new is accepted."""


class OfficerDesk:
    """Each action: statement verified and spent, then everything prepared, then one commit."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        clock: Clock,
        log: Log,
        officers: Officers,
        register: CitizenRegister,
        registration: Registration,
        codes: ActivationCodes,
        phone_change: PhoneChange,
        papers: Papers,
        letterhead: Letterhead,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._log = log
        self._officers = officers
        self._register = register
        self._registration = registration
        self._codes = codes
        self._phone_change = phone_change
        self._papers = papers
        self._letterhead = letterhead

    async def register(self, typed: Mapping[str, str], signed: SignedStatement) -> HandedOut:
        """Enter a citizen, and make receipt and acceptance; nothing is stored unless both papers are there.

        Args:
            typed: nif, given_name, first_surname, second_surname, phone, email, level, proof, language, conditions.
            signed: A registrar's statement over exactly these.

        Raises:
            CallerRefused, RateLimited, NotPermitted: As ``Officers.accept``; an officer does not register himself.
            MalformedRequest: A field is wrong, or the conditions are not those of today.
            AlreadyRegistered: The NIF or the phone is in the register.
            DependencyUnavailable: Press, seal or issuer do not work now.
            HSMError: The vault does not answer.
        """
        accepted = await self._officers.accept(signed, OfficerAction.REGISTER, typed, OfficerRole.REGISTRAR)
        fields = dict(typed)
        language = _language(fields.pop("language"))
        if fields.pop("conditions") != CONDITIONS_VERSION:
            raise MalformedRequest(f"the conditions of today are of version {CONDITIONS_VERSION}")
        prepared = await self._registration.prepare(**fields)
        await self._refuse_self(prepared.citizen.nif_index, accepted)
        facts = self._facts(prepared.citizen.person, accepted, prepared.proof, CONDITIONS_VERSION)
        receipt, acceptance = await asyncio.gather(
            self._papers.prepare(PaperKind.RECEIPT, language, {**facts, **self._code(prepared.code.code)}),
            self._papers.prepare(PaperKind.ACCEPTANCE, language, facts),
        )
        by: dict[str, str | int | bytes | None] = {
            "officer": accepted.officer.id,
            "statement": accepted.statement_sha256,
            "conditions": CONDITIONS_VERSION,
        }
        async with self._engine.begin() as connection:
            done = await self._registration.store(connection, prepared, by)
            for paper in (receipt, acceptance):
                await self._papers.store(connection, paper)
        return HandedOut(
            citizen=done.citizen,
            activation_code=done.activation_code,
            receipt=receipt.pdf,
            acceptance=acceptance.pdf,
        )

    async def renew(
        self, typed: Mapping[str, str], signed: SignedStatement, countersigned: SignedStatement | None
    ) -> HandedOut:
        """Give a new activation code; the older one ends. With a new phone at the same time it takes two people.

        Args:
            typed: nif, phone (empty: it stays), proof, language.
            signed: A registrar's statement over exactly these.
            countersigned: A supervisor's over the same; needed with a phone.

        Raises:
            CallerRefused, RateLimited, NotPermitted: As ``Officers.accept``; nobody serves themselves.
            NotFound: Nobody with this NIF is registered.
            MalformedRequest, AlreadyRegistered, StateConflict: As ``PhoneChange.change``.
            DependencyUnavailable, HSMError: As ``register``.
        """
        by = [await self._officers.accept(signed, OfficerAction.RENEW, typed, OfficerRole.REGISTRAR)]
        if countersigned is not None:
            by.append(await self._officers.accept(countersigned, OfficerAction.RENEW, typed, OfficerRole.SUPERVISOR))
        if typed["phone"] and len(by) == 1:
            raise await self._officers.refuse(by[0], "second_person", "code and phone together need a supervisor too")
        if len(by) > 1 and are_one(by[0].officer, by[1].officer):
            raise await self._officers.refuse(by[0], "second_person", "the two signatures are one person's")
        check_proof(typed["proof"])
        language = _language(typed["language"])
        nif_index = await self._register.nif_index(normalise_nif(typed["nif"]))
        await self._refuse_self(nif_index, *by)
        phone = await self._phone_change.prepare(typed["phone"]) if typed["phone"] else None
        async with self._engine.connect() as connection:
            citizen = await self._register.find(connection, nif_index)
        if citizen is None:
            raise NotFound("nobody with this NIF is registered")
        code = await self._codes.prepare(citizen.id)
        facts = self._facts(citizen, by[0], typed["proof"], "")
        if phone is not None:
            facts["phone"] = phone.phone
        receipt = await self._papers.prepare(PaperKind.RECEIPT, language, {**facts, **self._code(code.code)})
        async with self._engine.begin() as connection:
            await self._register.require_generation(connection, citizen)
            if phone is not None:
                citizen = await self._phone_change.apply(connection, nif_index, phone)
            await self._codes.store(connection, code)
            await self._papers.store(connection, receipt)
            await self._log.append(
                connection,
                Event(
                    tag=EventTag.ADMIN,
                    pid=citizen.pid,
                    facts={
                        "action": "activation_code",
                        "proof": typed["proof"],
                        "officer": by[0].officer.id,
                        "statement": by[0].statement_sha256,
                        "second": by[1].officer.id if len(by) > 1 else None,
                        "second_statement": by[1].statement_sha256 if len(by) > 1 else None,
                    },
                ),
            )
        if phone is not None:
            self._phone_change.announce()
        return HandedOut(citizen=citizen, activation_code=code.code, receipt=receipt.pdf, acceptance=b"")

    async def _refuse_self(self, nif_index: bytes, *by: Accepted) -> None:
        for accepted in by:
            if accepted.officer.nif_index == nif_index:
                raise await self._officers.refuse(accepted, "self", "an officer does not serve himself")

    def _facts(
        self, person: NewCitizen | Citizen, accepted: Accepted, proof: str, accepted_conditions: str
    ) -> dict[str, str]:
        names = (person.given_name, person.first_surname, person.second_surname)
        head = self._letterhead
        return {
            "service": head.service,
            "organisation": head.organisation,
            "activate_at": head.activate_at,
            "verify_at": head.verify_at,
            "name": " ".join(name for name in names if name),
            "nif": person.nif,
            "phone": person.phone,
            "email": person.email,
            "level": person.level.value,
            "date": f"{self._clock.now():%Y-%m-%d %H:%M}",
            "officer": accepted.officer.id,
            "proof": proof,
            "conditions": CONDITIONS_VERSION,
            "accepted": accepted_conditions,
        }

    def _code(self, code: str) -> dict[str, str]:
        return {"activation_code": code, "valid_until": f"{self._clock.now() + CODE_LIFE:%Y-%m-%d}"}


def _language(typed: str) -> Language:
    if typed not in set(Language):
        raise MalformedRequest(f"the language must be one of {', '.join(Language)}")
    return Language(typed)
