"""What a right code gives outside of signing: a token for the next step; under it lies what the capsule held."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from audit.types import UTCDateTime
from authn.challenge import Challenges
from authn.envelope import Envelope, EnvelopeContext, EnvelopePurpose
from authn.locks import NamedLocks
from authn.otp.challenges import Binding, OTPChallenge, OTPChallenges
from authn.otp.rows import OTPPurpose
from authn.registration.citizens import Citizen, CitizenRegister
from authn.sealing import Label, SealBroken, kdf, seal, unseal
from authn.tables import metadata
from domain import canonical
from domain.clock import Clock, to_epoch_seconds
from domain.errors import FactorMismatch
from domain.ids import ChallengeId, CitizenId, Randomness, is_id

GRANT_LIFE = timedelta(minutes=10)
TOKEN_SIZE_BYTES = 32
FACTORS = {OTPPurpose.ACTIVATION: "activation-code+sms", OTPPurpose.PASSWORD_CHANGE: "password+sms"}
"""What proved the citizen, as auditors read it."""

token_grant = sa.Table(
    "token_grant",
    metadata,
    sa.Column("cid", sa.String(26), primary_key=True),
    sa.Column("purpose", sa.String(24), nullable=False),
    sa.Column("citizen_id", sa.String(32), nullable=False, index=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("parked", sa.LargeBinary),  # absent once used
    sa.Column("expires", UTCDateTime, nullable=False),
    sa.Column("used_by_sha256", sa.LargeBinary(32)),
)


@dataclass(frozen=True, slots=True, repr=False)
class GrantedToken:
    """The token, sealed to the browser's secret."""

    sealed_token: bytes
    expires: datetime


@dataclass(frozen=True, slots=True, repr=False)
class OpenedGrant:
    """A token that opened its grant, with the new password that came along."""

    cid: ChallengeId
    citizen: Citizen
    new_password: bytes
    parked: bytes
    """V for a change of password; of no meaning otherwise."""


def grant_binding(
    purpose: OTPPurpose, *, citizen_id: str | None, generation: int, cid: str, expires: datetime, cs_sha256: bytes
) -> bytes:
    """What a code outside of signing is bound to, as one SHA-256 value."""
    return canonical.sha256(
        "act1", purpose.value, citizen_id, "sms", generation, cid, to_epoch_seconds(expires), cs_sha256
    )


class Grants:
    """From the right code to the token, and from the token to what it opens."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        challenges: Challenges,
        otp: OTPChallenges,
        register: CitizenRegister,
        log: Log,
        clock: Clock,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._challenges = challenges
        self._otp = otp
        self._register = register
        self._log = log
        self._clock = clock
        self._randomness = randomness
        self._locks = NamedLocks()

    async def complete(
        self, purpose: OTPPurpose, sealed_for: EnvelopePurpose, challenge_id: str, envelope: Envelope
    ) -> GrantedToken:
        """The code; gives the token for the next step. The same envelope gets the same answer.

        Raises:
            FactorMismatch: Wrong code, or anything bound has changed.
        """
        async with self._locks.hold(challenge_id):
            challenge = await self._otp.find(challenge_id)
            if challenge.purpose is not purpose:
                raise FactorMismatch("the code belongs to another step")
            async with self._engine.connect() as connection:
                citizen = await self._citizen(connection, challenge.citizen_id)
            context = EnvelopeContext(purpose=sealed_for, challenge_id=challenge.id)
            opened = await self._otp.open(
                challenge, envelope, context, self._binding(purpose, citizen), citizen.pid if citizen else None
            )
            expires = challenge.expires + GRANT_LIFE
            if opened.answered is not None:
                return GrantedToken(opened.answered, expires)
            if citizen is None:
                raise FactorMismatch("the code does not match, has expired or was used up; begin again")
            token = self._randomness(TOKEN_SIZE_BYTES)
            sealed = seal(kdf(Label.ANSWER, opened.browser_secret, challenge.id), token, challenge.id)
            parked = seal(kdf(Label.PARKED, token, challenge.id), opened.plaintext, challenge.id, citizen.generation)
            async with self._engine.begin() as connection:
                await self._otp.consume(connection, challenge, envelope, sealed)
                await connection.execute(
                    sa.insert(token_grant).values(
                        cid=challenge.id,
                        purpose=purpose.value,
                        citizen_id=citizen.id,
                        generation=citizen.generation,
                        parked=parked,
                        expires=expires,
                    )
                )
                facts = {"cid": challenge.id, "purpose": purpose.value, "factors": FACTORS[purpose]}
                await self._log.append(connection, Event(tag=EventTag.AUTH_OK, pid=citizen.pid, facts=facts))
            return GrantedToken(sealed, expires)

    async def open(
        self, purpose: OTPPurpose, sealed_for: EnvelopePurpose, challenge_id: str, envelope: Envelope
    ) -> OpenedGrant | None:
        """Open a grant with the token in the envelope; ``None`` when this very envelope was carried out before.

        Raises:
            FactorMismatch: Another token, over, or the citizen's generation changed.
        """
        if not is_id(challenge_id):
            raise FactorMismatch("this step is over; begin again")
        context = EnvelopeContext(purpose=sealed_for, challenge_id=challenge_id)
        opened = await self._challenges.open(envelope, context)
        async with self._engine.connect() as connection:
            found = await connection.execute(
                sa.select(token_grant).where(token_grant.c.cid == challenge_id, token_grant.c.purpose == purpose.value)
            )
            row = found.mappings().first()
            citizen = await self._citizen(connection, row["citizen_id"]) if row else None
        if row is not None and row["used_by_sha256"] == envelope.sha256():
            return None
        if row is None or citizen is None or row["parked"] is None or row["expires"] <= self._clock.now():
            raise FactorMismatch("this step is over; begin again")
        try:
            key = kdf(Label.PARKED, opened.companion, challenge_id)
            parked = unseal(Label.PARKED, key, row["parked"], challenge_id, citizen.generation)
        except SealBroken:
            raise FactorMismatch("this step is over; begin again") from None
        return OpenedGrant(ChallengeId(challenge_id), citizen, opened.secret, parked)

    async def use(self, connection: AsyncConnection, grant: OpenedGrant, envelope: Envelope) -> None:
        """Spend the grant in the commit that does what it is for.

        Raises:
            FactorMismatch: Used or ended meanwhile.
        """
        done = await connection.execute(
            sa.update(token_grant)
            .where(token_grant.c.cid == grant.cid, token_grant.c.parked.is_not(None))
            .values(parked=None, used_by_sha256=envelope.sha256())
        )
        if done.rowcount != 1:
            raise FactorMismatch("this step is over; begin again")
        await self._challenges.spend(connection, envelope)

    async def end(self, connection: AsyncConnection, citizen_id: CitizenId) -> None:
        """Erase the citizen's open grants, in the commit that changes the generation."""
        await connection.execute(
            sa.update(token_grant).where(token_grant.c.citizen_id == citizen_id).values(parked=None)
        )

    async def erase_old(self) -> None:
        """Erase grants that are over."""
        now = self._clock.now()
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(token_grant).where(token_grant.c.expires < now - timedelta(days=1)))
            await connection.execute(sa.update(token_grant).where(token_grant.c.expires < now).values(parked=None))

    def _binding(self, purpose: OTPPurpose, citizen: Citizen | None) -> Binding:
        def bind_now(challenge: OTPChallenge, cs: bytes) -> bytes:
            return grant_binding(
                purpose,
                citizen_id=challenge.citizen_id,
                generation=citizen.generation if citizen else 0,
                cid=challenge.id,
                expires=challenge.expires,
                cs_sha256=hashlib.sha256(cs).digest(),
            )

        return bind_now

    async def _citizen(self, connection: AsyncConnection, citizen_id: CitizenId | None) -> Citizen | None:
        return await self._register.get(connection, citizen_id) if citizen_id else None
