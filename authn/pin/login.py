"""Login by PIN: NIF, e-mail and a chosen access code, then that code and the PIN from the SMS.

What is asked before a PIN is sent is the least that the register can tell apart: it holds no datum of an identity
document (date of validity, support number) to compare, so the e-mail address stands in its place, as in an activation.

The access code is stored nowhere. It is part of what derives the capsule's key, with the PIN and the browser's secret,
and in the capsule lies the authentication record: without all three there is nobody to mint an identity for.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.challenge import Challenges
from authn.envelope import Envelope, EnvelopeContext, EnvelopePurpose
from authn.locks import NamedLocks
from authn.messages.texts import SMSTexts
from authn.otp.budget import PIN_LIFE, PIN_LIFE_MINUTES
from authn.otp.challenges import Begun, CodeForm, OTPChallenge, OTPChallenges, new_challenge_id
from authn.otp.grants import grant_binding
from authn.otp.rows import CapsuleContent, OTPPurpose
from authn.otp.sending import CodeSender
from authn.registration.activation import same_email
from authn.registration.citizens import Citizen, CitizenRegister, normalise_nif
from authn.sealing import Label, kdf, seal
from authn.sessions import RECORD_SIZE_BYTES, AuthenticationRecord, Login, Sessions
from domain import canonical
from domain.assurance import LoA
from domain.clock import Clock
from domain.errors import FactorMismatch, MalformedRequest, NotPermitted
from domain.identity import TOKEN_LIFE
from domain.ids import CitizenId

PIN = CodeForm("23456789BCDFGHJKMNPQRSTVWXYZ", 6)
"""28 symbols: no vowels, so no words, and no 0, 1 or L, which are taken for O and I; 28.8 bits."""
METHODS = ("access-code", "sms")

_ACCESS_CODE = re.compile(rb"[0-9A-Z]{4}")
_NONCE = re.compile(r"[\x21-\x7e]{16,128}")


@dataclass(frozen=True, slots=True, repr=False)
class GrantedLogin:
    """The identity token, sealed to the browser's secret."""

    sealed_token: bytes
    expires: datetime
    return_url: str
    """Of who asked, from the settings: nothing that anybody sends may change it."""


class PINLogin:
    """The two steps at the gate."""

    def __init__(  # as many parties as an activation has
        self,
        *,
        engine: AsyncEngine,
        clock: Clock,
        log: Log,
        register: CitizenRegister,
        challenges: Challenges,
        otp: OTPChallenges,
        sessions: Sessions,
        sender: CodeSender,
        texts: SMSTexts,
        return_urls: Mapping[str, str],
    ) -> None:
        """Wire it.

        ``return_urls`` says who may ask for a login, and to which address of theirs the browser then brings the token.
        """
        self._engine = engine
        self._clock = clock
        self._log = log
        self._register = register
        self._challenges = challenges
        self._otp = otp
        self._sessions = sessions
        self._sender = sender
        self._texts = texts
        self._return_urls = return_urls
        self._locks = NamedLocks()

    async def begin(self, typed_nif: str, email: str, audience: str, nonce: str, envelope: Envelope) -> Begun:
        """NIF, e-mail and access code; if the two name a citizen the core sends a PIN. The answer is always the same.

        Args:
            typed_nif: As typed.
            email: As typed.
            audience: Who asks for the login; stands in the token.
            nonce: The asker's for this login, 16 to 128 visible ASCII characters; stands in the token.
            envelope: Holds the access code, four of ``0``-``9`` and ``A``-``Z``.

        Raises:
            RequestError: The envelope is for something else, or a field is malformed.
            NotPermitted: That asker is offered no login.
        """
        async with self._locks.hold(envelope.sha256()):
            answered = await self._otp.answered(envelope)
            if answered is not None:
                return Begun(answered.id, answered.expires, answered.reference)
            self._check_asker(audience, nonce)
            nif = normalise_nif(typed_nif)
            index = await self._register.nif_index(nif)
            context = EnvelopeContext(purpose=EnvelopePurpose.PIN_BEGIN, subject=nif, client_id=audience)
            opened = await self._challenges.open(envelope, context)
            if _ACCESS_CODE.fullmatch(opened.secret) is None:
                raise MalformedRequest("an access code has four letters or digits")
            async with self._engine.begin() as connection:
                found = await self._register.find(connection, index)
                await self._challenges.spend(connection, envelope)
            citizen = found if found and same_email(found.email, email) else None
            return await self._send_pin(citizen, audience, nonce, envelope, opened.secret, opened.companion)

    async def complete(self, challenge_id: str, audience: str, nonce: str, envelope: Envelope) -> GrantedLogin:
        """Access code and PIN; gives the identity token, sealed to the browser's secret, and where to take it.

        The same envelope gets the same answer.

        Args:
            challenge_id: From ``begin``.
            audience: As in ``begin``; another one opens nothing.
            nonce: The same.
            envelope: Holds access code and PIN, ten characters.

        Raises:
            FactorMismatch: Wrong code, PIN, asker or browser; expired; used up.
        """
        async with self._locks.hold(challenge_id):
            challenge = await self._otp.find(challenge_id)
            if challenge.purpose is not OTPPurpose.PIN:
                raise FactorMismatch("the code belongs to another step")
            async with self._engine.connect() as connection:
                citizen = await self._citizen(connection, challenge.citizen_id)
            context = EnvelopeContext(
                purpose=EnvelopePurpose.PIN_COMPLETE, subject=nonce, client_id=audience, challenge_id=challenge.id
            )

            def bind_now(challenge: OTPChallenge, cs: bytes) -> bytes:
                return _binding(challenge.id, citizen, challenge.expires, cs, audience, nonce)

            opened = await self._otp.open(challenge, envelope, context, bind_now, citizen.pid if citizen else None)
            if opened.answered is not None:
                return await self._answered_before(challenge, opened.answered, audience)
            # Only the capsule says who this is: the row beside it is not asked.
            record = AuthenticationRecord.decode(opened.plaintext)
            login = Login(
                record=record,
                cid=challenge.id,
                audience=audience,
                loa=LoA.LOW,
                methods=METHODS,
                authenticated=self._clock.now().replace(microsecond=0),
            )
            token = await self._sessions.token(login, nonce)
            sealed = seal(kdf(Label.ANSWER, opened.browser_secret, challenge.id), token.encode(), challenge.id)
            await self._log_in(login, challenge, citizen, envelope, sealed)
            return GrantedLogin(sealed, login.authenticated + TOKEN_LIFE, self._return_urls[audience])

    async def _send_pin(
        self, citizen: Citizen | None, audience: str, nonce: str, envelope: Envelope, chosen: bytes, cs: bytes
    ) -> Begun:
        cid = new_challenge_id()
        expires = (self._clock.now() + PIN_LIFE).replace(microsecond=0)
        bind = _binding(cid, citizen, expires, cs, audience, nonce)
        record = self._sessions.record_for(citizen.id, citizen.pid).encode() if citizen else None
        fresh = await self._otp.fill(
            CapsuleContent.SECRET,
            record,
            size_bytes=RECORD_SIZE_BYTES,
            cid=cid,
            expires=expires,
            bind=bind,
            cs=cs,
            form=PIN,
            chosen=chosen.decode("ascii"),
        )
        async with self._engine.begin() as connection:
            await self._register.require_generation(connection, citizen)
            begun = await self._sender.send(
                connection,
                fresh,
                purpose=OTPPurpose.PIN,
                envelope=envelope,
                citizen=citizen,
                text=self._texts.pin(reference=fresh.reference, otp=fresh.otp, minutes=PIN_LIFE_MINUTES),
                facts={"client": audience},
                failure=None if citizen else {"reason": "identification"},
                # A second message would be one more against the budget: whoever needs it begins again.
                resends=0,
            )
        self._sender.wake()
        return begun

    async def _log_in(
        self, login: Login, challenge: OTPChallenge, citizen: Citizen | None, envelope: Envelope, sealed: bytes
    ) -> None:
        async with self._engine.begin() as connection:
            await self._register.require_generation(connection, citizen)
            await self._otp.consume(connection, challenge, envelope, sealed)
            await self._sessions.add(connection, login)
            facts = {
                "cid": challenge.id,
                "purpose": "pin",
                "client": login.audience,
                "factors": "+".join(login.methods),
                "loa": login.loa.value,
                "session": login.record.session_id,
            }
            await self._log.append(connection, Event(tag=EventTag.AUTH_OK, pid=login.record.pid, facts=facts))

    async def _answered_before(self, challenge: OTPChallenge, answered: bytes, audience: str) -> GrantedLogin:
        async with self._engine.connect() as connection:
            authenticated = await self._sessions.authenticated(connection, challenge.id)
        expires = (authenticated or challenge.expires) + TOKEN_LIFE
        return GrantedLogin(answered, expires, self._return_urls[audience])

    async def _citizen(self, connection: AsyncConnection, citizen_id: CitizenId | None) -> Citizen | None:
        return await self._register.get(connection, citizen_id) if citizen_id else None

    def _check_asker(self, audience: str, nonce: str) -> None:
        if audience not in self._return_urls:
            raise NotPermitted("this asker is offered no login by PIN")
        if _NONCE.fullmatch(nonce) is None:
            raise MalformedRequest("the nonce must have 16 to 128 visible ASCII characters")


def _binding(cid: str, citizen: Citizen | None, expires: datetime, cs: bytes, audience: str, nonce: str) -> bytes:
    """What a PIN is bound to, with citizen and generation as they are now."""
    bound = grant_binding(
        OTPPurpose.PIN,
        citizen_id=citizen.id if citizen else None,
        generation=citizen.generation if citizen else 0,
        cid=cid,
        expires=expires,
        cs_sha256=hashlib.sha256(cs).digest(),
    )
    return canonical.sha256(bound, audience, nonce)
