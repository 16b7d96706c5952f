"""One-time codes by SMS. Each opens a capsule and nothing else does: a wrong code fails at the capsule's tag.

Where the factor before it was wrong, a random capsule is kept in its place and no SMS leaves, so that the outside sees
the same answer, the same three tries and the same end.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.challenge import Challenges
from authn.envelope import Envelope, EnvelopeContext
from authn.otp.budget import CodeBudget
from authn.otp.rows import OTP_TRIES, CapsuleContent, ChallengeState, OTPPurpose, otp_challenge
from authn.sealing import Label, SealBroken, kdf, seal, unopenable, unseal
from domain.clock import Clock
from domain.errors import CodeExpired, FactorMismatch
from domain.ids import ChallengeId, CitizenId, RequestId, is_id, new_id, reference_code
from hsm.errors import HSMError
from hsm.keys import MACKey
from hsm.vault import Vault


@dataclass(frozen=True, slots=True)
class CodeForm:
    """What a one-time code is made of."""

    alphabet: str
    length: int

    def draw(self, random: bytes) -> str:
        """A code from 16 random bytes; no code is likelier than another by more than 2⁻⁹⁹."""
        number = int.from_bytes(random, "big")
        code = ""
        for _ in range(self.length):
            number, place = divmod(number, len(self.alphabet))
            code += self.alphabet[place]
        return code


SIX_DIGITS = CodeForm("0123456789", 6)


@dataclass(frozen=True, slots=True, repr=False)
class OTPChallenge:
    """One row."""

    id: ChallengeId
    purpose: OTPPurpose
    request_id: RequestId | None
    citizen_id: CitizenId | None
    real: bool
    generation: int
    content: CapsuleContent
    reference: str
    expires: datetime
    left: int
    capsule: bytes | None
    capsule_version: int
    state: ChallengeState
    envelope_sha256: bytes
    completed_by_sha256: bytes | None
    answer: bytes | None


@dataclass(frozen=True, slots=True, repr=False)
class FreshCapsule:
    """A capsule before it is stored, and the code that opens it, if anything does."""

    cid: ChallengeId
    expires: datetime
    reference: str
    otp: str
    capsule: bytes
    version: int
    content: CapsuleContent


@dataclass(frozen=True, slots=True, repr=False)
class OpenedCapsule:
    """What a right code gave, or the answer that the same envelope got before."""

    challenge: OTPChallenge
    browser_secret: bytes
    """cs."""
    plaintext: bytes
    """What the capsule held; empty for a repeated envelope."""
    answered: bytes | None = None
    """The stored answer, sealed to cs, when this envelope was answered before."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What BEGIN answers: the same for the right password, a wrong one and an unknown citizen."""

    challenge_id: ChallengeId
    expires: datetime
    reference: str
    """Letters, the same as in the SMS."""
    tries: int = OTP_TRIES


Binding = Callable[[OTPChallenge, bytes], bytes]
"""Computes ``bind`` anew from what is stored now and SHA-256(cs)."""


class OTPChallenges:
    """Makes, stores and opens capsules."""

    def __init__(
        self,
        engine: AsyncEngine,
        vault: Vault,
        challenges: Challenges,
        budget: CodeBudget,
        log: Log,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._challenges = challenges
        self._budget = budget
        self._log = log
        self._clock = clock

    def end_of(self, purpose: OTPPurpose) -> datetime:
        """When a code that is made now ends; whole seconds, for it is bound into the capsule."""
        return (self._clock.now() + self._budget.life(purpose)).replace(microsecond=0)

    def minutes_of(self, purpose: OTPPurpose) -> int:
        """The same as the SMS says it: how long the code is good."""
        return max(1, round(self._budget.life(purpose).total_seconds() / 60))

    async def fill(
        self,
        content: CapsuleContent,
        plaintext: bytes | None,
        *,
        size_bytes: int,
        cid: ChallengeId,
        expires: datetime,
        bind: bytes,
        cs: bytes,
        form: CodeForm = SIX_DIGITS,
        chosen: str = "",
    ) -> FreshCapsule:
        """Draw a code and seal ``plaintext`` to it; two HSM calls, whatever is sealed.

        Args:
            content: What ``plaintext`` is.
            plaintext: ``None`` makes a capsule that nothing opens.
            size_bytes: Length of the plaintext, real or not.
            cid: The challenge's id.
            expires: Its end.
            bind: Hash of everything that the approval is bound to.
            cs: The browser's secret.
            form: What the code is made of.
            chosen: What the citizen has to type before the code, and only the citizen knows.
        """
        version = self._vault.current_version(MACKey.CAPSULE)
        otp = form.draw(await self._vault.random(16))
        inner = await self._vault.mac(MACKey.CAPSULE, "otp", cid, bind, chosen + otp, version=version)
        sealed = unopenable(size_bytes) if plaintext is None else seal(kdf(Label.OTP, inner, cs), plaintext, bind)
        return FreshCapsule(cid, expires, reference_code(bind), otp, sealed, version, content)

    async def store(
        self,
        connection: AsyncConnection,
        fresh: FreshCapsule,
        *,
        purpose: OTPPurpose,
        generation: int,
        envelope_sha256: bytes,
        citizen_id: CitizenId | None,
        real: bool,
        request_id: RequestId | None,
        resends: int,
    ) -> None:
        """Write the challenge in the caller's transaction; one row."""
        row = {
            "id": fresh.cid,
            "purpose": purpose.value,
            "request_id": request_id,
            "citizen_id": citizen_id,
            "real": real,
            "generation": generation,
            "content": fresh.content.value,
            "reference": fresh.reference,
            "expires": fresh.expires,
            "left": OTP_TRIES,
            "capsule": fresh.capsule,
            "capsule_version": fresh.version,
            "state": ChallengeState.PENDING.value,
            "envelope_sha256": envelope_sha256,
            "resends_left": resends,
            "resend_from": self._clock.now() + timedelta(seconds=60),
        }
        await connection.execute(sa.insert(otp_challenge).values(**row))

    async def answered(self, envelope: Envelope) -> OTPChallenge | None:
        """The challenge that this very BEGIN envelope made before."""
        async with self._engine.connect() as connection:
            found = await connection.execute(
                sa.select(otp_challenge).where(otp_challenge.c.envelope_sha256 == envelope.sha256())
            )
            row = found.mappings().first()
        return _challenge(row) if row else None

    async def find(self, cid: str) -> OTPChallenge:
        """The challenge with this id.

        Raises:
            FactorMismatch: None; the same words as for a wrong code.
        """
        if not is_id(cid):
            raise FactorMismatch(_refusal(0))
        async with self._engine.connect() as connection:
            found = await connection.execute(sa.select(otp_challenge).where(otp_challenge.c.id == cid))
            row = found.mappings().first()
        if row is None:
            raise FactorMismatch(_refusal(0))
        return _challenge(row)

    async def open(
        self, challenge: OTPChallenge, envelope: Envelope, context: EnvelopeContext, binding: Binding, pid: bytes | None
    ) -> OpenedCapsule:
        """Steps 10 and 11: open the envelope, reserve one try and commit, then open the capsule.

        After too many wrong codes in a row none is tested, and the answer is that of a wrong one.

        Args:
            challenge: As ``find`` gave it.
            envelope: The sealed code.
            context: What it must be sealed for.
            binding: Computes ``bind`` anew.
            pid: The citizen's pseudonym for the log.

        Raises:
            CodeExpired: Its time is over, right or wrong.
            FactorMismatch: Wrong code, list, client, browser or generation; used up.
        """
        opened = await self._challenges.open(envelope, context)
        cs = opened.companion
        if challenge.completed_by_sha256 == envelope.sha256():
            return OpenedCapsule(challenge, cs, b"", challenge.answer)
        left, blocked = await self._reserve(challenge, envelope)
        bind = binding(challenge, cs)
        otp = opened.secret.decode("ascii", errors="replace")
        try:
            inner = await self._vault.mac(
                MACKey.CAPSULE, "otp", challenge.id, bind, otp, version=challenge.capsule_version
            )
        except HSMError:
            # Nothing was tested, and this tells nobody anything: the same envelope may try again.
            await self._give_back(challenge, envelope)
            raise
        try:
            capsule = b"" if blocked else challenge.capsule or b""
            plaintext = unseal(Label.OTP, kdf(Label.OTP, inner, cs), capsule, bind)
        except SealBroken:
            await self._fail(challenge, left, blocked, pid)
            raise FactorMismatch(_refusal(left)) from None
        return OpenedCapsule(challenge, cs, plaintext)

    async def consume(
        self, connection: AsyncConnection, challenge: OTPChallenge, envelope: Envelope, answer: bytes | None
    ) -> None:
        """PENDING → CONSUMED in the caller's transaction; the capsule is deleted, the answer kept for a retry.

        Raises:
            FactorMismatch: It died or was consumed meanwhile.
        """
        done = await connection.execute(
            sa.update(otp_challenge)
            .where(otp_challenge.c.id == challenge.id, otp_challenge.c.state == ChallengeState.PENDING.value)
            .values(
                state=ChallengeState.CONSUMED.value,
                capsule=None,
                completed_by_sha256=envelope.sha256(),
                answer=answer,
            )
        )
        if done.rowcount != 1:
            raise FactorMismatch(_refusal(0))

    async def may_resend(self, connection: AsyncConnection, cid: str) -> bool:
        """Use up one resend: two per challenge, a minute apart; False if it is not time or none is left."""
        now = self._clock.now()
        done = await connection.execute(
            sa.update(otp_challenge)
            .where(
                otp_challenge.c.id == cid,
                otp_challenge.c.state == ChallengeState.PENDING.value,
                otp_challenge.c.expires > now,
                otp_challenge.c.resends_left > 0,
                otp_challenge.c.resend_from <= now,
            )
            .values(resends_left=otp_challenge.c.resends_left - 1, resend_from=now + timedelta(seconds=60))
        )
        return done.rowcount == 1

    async def end(self, connection: AsyncConnection, citizen_id: CitizenId) -> None:
        """Kill the citizen's open challenges and erase their capsules, in the commit that changes the generation."""
        await connection.execute(
            sa.update(otp_challenge)
            .where(otp_challenge.c.citizen_id == citizen_id, otp_challenge.c.state == ChallengeState.PENDING.value)
            .values(state=ChallengeState.DEAD.value, capsule=None)
        )

    async def erase_old(self) -> None:
        """Erase capsules of expired challenges, and rows two days old: budgets look back so far."""
        now = self._clock.now()
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(otp_challenge)
                .where(otp_challenge.c.expires < now, otp_challenge.c.state == ChallengeState.PENDING.value)
                .values(state=ChallengeState.DEAD.value, capsule=None)
            )
            await connection.execute(sa.delete(otp_challenge).where(otp_challenge.c.expires < now - timedelta(days=2)))

    async def _reserve(self, challenge: OTPChallenge, envelope: Envelope) -> tuple[int, bool]:
        """Tries left after this one, and whether codes were blocked before it."""
        async with self._engine.begin() as connection:
            await self._challenges.spend(connection, envelope)
            blocked = await self._budget.blocked(connection, challenge.citizen_id, challenge.purpose)
            done = await connection.execute(
                sa.update(otp_challenge)
                .where(
                    otp_challenge.c.id == challenge.id,
                    otp_challenge.c.state == ChallengeState.PENDING.value,
                    otp_challenge.c.left > 0,
                    otp_challenge.c.expires > self._clock.now(),
                )
                .values(left=otp_challenge.c.left - 1)
                .returning(otp_challenge.c.left)
            )
            left = done.scalar_one_or_none()
        if left is None:
            if challenge.expires <= self._clock.now():
                raise CodeExpired("the code's time is over; begin again")
            raise FactorMismatch(_refusal(0))
        return int(left), blocked

    async def _give_back(self, challenge: OTPChallenge, envelope: Envelope) -> None:
        async with self._engine.begin() as connection:
            await self._challenges.give_back(connection, envelope)
            await connection.execute(
                sa.update(otp_challenge)
                .where(otp_challenge.c.id == challenge.id, otp_challenge.c.state == ChallengeState.PENDING.value)
                .values(left=otp_challenge.c.left + 1)
            )

    async def _fail(self, challenge: OTPChallenge, left: int, blocked: bool, pid: bytes | None) -> None:
        async with self._engine.begin() as connection:
            if left == 0:
                await connection.execute(
                    sa.update(otp_challenge)
                    .where(otp_challenge.c.id == challenge.id)
                    .values(state=ChallengeState.DEAD.value, capsule=None)
                )
            facts: dict[str, str | int] = {
                "factor": "otp",
                "purpose": challenge.purpose.value,
                "cid": challenge.id,
                "left": left,
            }
            if blocked:
                facts["reason"] = "blocked"
            await self._log.append(connection, Event(tag=EventTag.AUTH_FAIL, pid=pid, facts=facts))


def new_challenge_id() -> ChallengeId:
    """A fresh id."""
    return ChallengeId(new_id(secrets.token_bytes))


def _refusal(left: int) -> str:
    if left > 0:
        return f"the code does not match; {left} {'try' if left == 1 else 'tries'} left"
    return "the code does not match or was used up; begin again"


def _challenge(row: sa.RowMapping | dict[str, object]) -> OTPChallenge:
    values = {name: row[name] for name in OTPChallenge.__dataclass_fields__}
    values["purpose"] = OTPPurpose(str(values["purpose"]))
    values["content"] = CapsuleContent(str(values["content"]))
    values["state"] = ChallengeState(str(values["state"]))
    return OTPChallenge(**values)  # type: ignore[arg-type]
