"""Change of password: the old one opens V, an SMS code its capsule; every sealed key moves to a fresh V at once."""

import hashlib
import secrets
from datetime import timedelta
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.challenge import Challenges
from authn.envelope import Envelope, EnvelopeContext, EnvelopePurpose
from authn.locks import NamedLocks
from authn.messages.outbox import Outbox
from authn.messages.texts import SMSTexts
from authn.otp.challenges import Begun, OTPChallenges, new_challenge_id
from authn.otp.grants import Grants, grant_binding
from authn.otp.rows import CapsuleContent, OTPPurpose
from authn.otp.sending import CodeSender
from authn.password.factor import VAULT_SECRET_SIZE_BYTES, PasswordFactors, Reservation
from authn.password.stretch import Stretcher, StretchParameters
from authn.registration.activation import checked_password
from authn.registration.citizens import Citizen, CitizenRegister, normalise_nif
from authn.registration.register import GenerationListener
from domain.clock import Clock
from domain.errors import WeakPassword
from domain.ids import CitizenId, Randomness
from hsm.errors import HSMError

NOTICE_LIFE = timedelta(hours=24)


class SealedKeys(Protocol):
    """Port to whoever keeps keys sealed under V."""

    async def reseal(self, connection: AsyncConnection, citizen_id: CitizenId, old: bytes, new: bytes) -> None:
        """Move all of the citizen's keys from ``old`` to ``new`` in the caller's transaction."""
        ...


class PasswordChange:
    """The three steps at the gate."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        clock: Clock,
        log: Log,
        register: CitizenRegister,
        challenges: Challenges,
        stretcher: Stretcher,
        factors: PasswordFactors,
        otp: OTPChallenges,
        grants: Grants,
        sender: CodeSender,
        outbox: Outbox,
        texts: SMSTexts,
        parameters: StretchParameters,
        sealed_keys: SealedKeys,
        open_work: GenerationListener,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._log = log
        self._register = register
        self._challenges = challenges
        self._stretcher = stretcher
        self._factors = factors
        self._otp = otp
        self._grants = grants
        self._sender = sender
        self._outbox = outbox
        self._texts = texts
        self._parameters = parameters
        self._sealed_keys = sealed_keys
        self._open_work = open_work
        self._randomness = randomness
        self._locks = NamedLocks()

    async def begin(self, typed_nif: str, envelope: Envelope) -> Begun:
        """The old password; the answer is the same whatever it was.

        Raises:
            RequestError: The envelope is for something else.
            Busy: Too many stretch at this moment; nothing was reserved.
        """
        async with self._locks.hold(envelope.sha256()):
            answered = await self._otp.answered(envelope)
            if answered is not None:
                return Begun(answered.id, answered.expires, answered.reference)
            nif = normalise_nif(typed_nif)
            index = await self._register.nif_index(nif)
            context = EnvelopeContext(purpose=EnvelopePurpose.PASSWORD_CHANGE_BEGIN, subject=nif)
            opened = await self._challenges.open(envelope, context)
            async with self._stretcher.place():
                async with self._engine.begin() as connection:
                    citizen = await self._register.find(connection, index)
                    reservation = await self._factors.reserve(connection, citizen.id if citizen else None, index)
                    await self._challenges.spend(connection, envelope)
                try:
                    vault_secret = await self._factors.open_vault_secret(reservation.factor, opened.secret)
                except HSMError:
                    await self._give_back(reservation, envelope)
                    raise
            return await self._send_code(citizen, reservation, vault_secret, envelope, opened.companion)

    async def _give_back(self, reservation: Reservation, envelope: Envelope) -> None:
        async with self._engine.begin() as connection:
            await self._factors.give_back(connection, reservation)
            await self._challenges.give_back(connection, envelope)

    async def set_password(self, challenge_id: str, envelope: Envelope) -> None:
        """The new password, with the token from the right SMS code; asking again with the same envelope is harmless.

        Raises:
            WeakPassword: Choose another one; the token still holds.
            FactorMismatch: The token is over.
        """
        async with self._locks.hold(challenge_id):
            grant = await self._grants.open(
                OTPPurpose.PASSWORD_CHANGE, EnvelopePurpose.PASSWORD_CHANGE_SET, challenge_id, envelope
            )
            if grant is None:
                return
            citizen = grant.citizen
            password = checked_password(grant.new_password, citizen)
            await self._refuse_same(citizen, password)
            fresh = self._randomness(VAULT_SECRET_SIZE_BYTES)
            row = await self._factors.seal_vault_secret(citizen.id, password, fresh, self._parameters)
            async with self._engine.begin() as connection:
                # Keys first, as revocation locks them: two that lock in two orders wait for each other.
                await self._sealed_keys.reseal(connection, citizen.id, grant.parked, fresh)
                await self._grants.use(connection, grant, envelope)
                await self._factors.store(connection, row, replacing=True)
                await self._register.bump_generation(connection, citizen.id)
                await self._open_work.end_open_work(connection, citizen.id)
                await self._outbox.put(
                    connection,
                    message_id=f"{grant.cid}-notice",
                    phone=citizen.phone,
                    text=self._texts.password_changed(),
                    expires=self._clock.now() + NOTICE_LIFE,
                )
                facts = {"cid": grant.cid, "kind": "change"}
                await self._log.append(connection, Event(tag=EventTag.PW_CHANGE, pid=citizen.pid, facts=facts))
            self._outbox.wake()

    async def _refuse_same(self, citizen: Citizen, password: bytes) -> None:
        """The previous password may not come back: if it opens the old seal, it is the old one."""
        async with self._engine.connect() as connection:
            factor = await self._factors.find(connection, citizen.id)
        async with self._stretcher.place():
            if factor is not None and await self._factors.open_vault_secret(factor, password) is not None:
                raise WeakPassword("the new password must differ from the previous one")

    async def _send_code(
        self,
        citizen: Citizen | None,
        reservation: Reservation,
        vault_secret: bytes | None,
        envelope: Envelope,
        cs: bytes,
    ) -> Begun:
        right = vault_secret is not None
        cid = new_challenge_id()
        expires = self._otp.end_of(OTPPurpose.PASSWORD_CHANGE)
        generation = citizen.generation if citizen else 0
        bind = grant_binding(
            OTPPurpose.PASSWORD_CHANGE,
            citizen_id=citizen.id if citizen else None,
            generation=generation,
            cid=cid,
            expires=expires,
            cs_sha256=hashlib.sha256(cs).digest(),
        )
        fresh = await self._otp.fill(
            CapsuleContent.SECRET,
            vault_secret,
            size_bytes=VAULT_SECRET_SIZE_BYTES,
            cid=cid,
            expires=expires,
            bind=bind,
            cs=cs,
        )
        failure: dict[str, str | int] = {"factor": "password", "tested": int(reservation.tested)}
        async with self._engine.begin() as connection:
            await self._register.require_generation(connection, citizen)
            await self._factors.settle(connection, reservation, right=right)
            begun = await self._sender.send(
                connection,
                fresh,
                purpose=OTPPurpose.PASSWORD_CHANGE,
                envelope=envelope,
                citizen=citizen,
                text=self._texts.password_change(
                    reference=fresh.reference, otp=fresh.otp, minutes=self._otp.minutes_of(OTPPurpose.PASSWORD_CHANGE)
                ),
                failure=None if right else failure,
            )
        self._sender.wake()
        return begun
