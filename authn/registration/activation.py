"""Activation of the permanent password: NIF, e-mail and activation code, then an SMS code, then the password.

The activation code too opens a seal or nothing; strangers are served from decoy rows at the same cost.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from audit.types import UTCDateTime
from authn.challenge import Challenges
from authn.envelope import Envelope, EnvelopeContext, EnvelopePurpose
from authn.locks import NamedLocks
from authn.messages.texts import SMSTexts
from authn.otp.challenges import Begun, OTPChallenges, new_challenge_id
from authn.otp.grants import Grants, grant_binding
from authn.otp.rows import CapsuleContent, OTPPurpose
from authn.otp.sending import CodeSender
from authn.password.factor import VAULT_SECRET_SIZE_BYTES, PasswordFactors
from authn.password.policy import check, normalise
from authn.password.stretch import StretchParameters
from authn.registration.citizens import Citizen, CitizenRegister, normalise_nif
from authn.registration.register import PreparedCode
from authn.sealing import Label, SealBroken, kdf, seal, unopenable, unseal
from authn.tables import metadata
from domain.clock import Clock
from domain.codes import draw_code, grouped, normalise_code
from domain.errors import MalformedRequest, StateConflict
from domain.ids import CitizenId, Randomness
from hsm.keys import MACKey
from hsm.vault import Vault

CODE_LIFE = timedelta(days=60)
CODE_TRIES = 5
DECOYS = 64
PROOF_SIZE_BYTES = 32

activation_code = sa.Table(
    "activation_code",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),  # a citizen's id, or a decoy's
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("left", sa.Integer, nullable=False),
    sa.Column("expires", UTCDateTime, nullable=False),
)


class SealedActivationCodes:
    """Draws codes and tells right from wrong by a seal."""

    def __init__(self, vault: Vault, clock: Clock, randomness: Randomness = secrets.token_bytes) -> None:
        self._vault = vault
        self._clock = clock
        self._randomness = randomness

    async def make_decoys(self, engine: AsyncEngine) -> None:
        """Make the fixed set of decoy rows, once."""
        async with engine.begin() as connection:
            known = set((await connection.execute(sa.select(activation_code.c.id))).scalars())
            for decoy in sorted({_decoy_id(number) for number in range(DECOYS)} - known):
                await connection.execute(
                    sa.insert(activation_code).values(**self._row(decoy, unopenable(PROOF_SIZE_BYTES)))
                )

    async def prepare(self, citizen_id: CitizenId) -> PreparedCode:
        """Draw a code: 80 bits in 16 symbols and a check symbol; one HSM call."""
        code = draw_code(self._randomness)
        key = await self._key(citizen_id, code, self._vault.current_version(MACKey.CAPSULE))
        row = self._row(citizen_id, seal(key, self._randomness(PROOF_SIZE_BYTES), citizen_id))
        return PreparedCode(code=grouped(code), row=row)

    async def store(self, connection: AsyncConnection, prepared: PreparedCode) -> None:
        """Keep the row; an older code of the same citizen ends."""
        await connection.execute(sa.delete(activation_code).where(activation_code.c.id == prepared.row["id"]))
        await connection.execute(sa.insert(activation_code).values(**prepared.row))

    async def reserve(
        self, connection: AsyncConnection, citizen_id: CitizenId | None, nif_index: bytes
    ) -> tuple[Mapping[str, Any], bool]:
        """Reserve one try in the caller's transaction; the row, and whether it may be tested."""
        decoy = _decoy_id(int.from_bytes(nif_index[:8], "big") % DECOYS)
        row = await self._get(connection, citizen_id or decoy)
        real = citizen_id is not None and row is not None
        row = row or await self._get(connection, decoy)
        if row is None:
            raise StateConflict("the decoy rows are missing")
        alive = real and row["left"] > 0 and row["expires"] > self._clock.now()
        await connection.execute(
            sa.update(activation_code)
            .where(activation_code.c.id == row["id"])
            .values(left=row["left"] - 1 if alive else row["left"])
        )
        return row, alive

    async def settle(self, connection: AsyncConnection, row: Mapping[str, Any], *, right: bool) -> None:
        """Give the tries back if the code was right; one row written either way."""
        left = CODE_TRIES if right else activation_code.c.left
        await connection.execute(sa.update(activation_code).where(activation_code.c.id == row["id"]).values(left=left))

    async def is_right(self, row: Mapping[str, Any], code: str, *, tested: bool) -> bool:
        """Whether ``code`` opens the row's seal; one HSM call whatever the row."""
        key = await self._key(row["id"], code, row["version"])
        sealed = row["sealed"] if tested else unopenable(PROOF_SIZE_BYTES)
        try:
            unseal(Label.ACTIVATION, key, sealed, row["id"])
        except SealBroken:
            return False
        return True

    async def _key(self, citizen_id: str, code: str, version: int) -> bytes:
        inner = await self._vault.mac(MACKey.CAPSULE, "activation", citizen_id, code, version=version)
        return kdf(Label.ACTIVATION, inner, code)

    async def _get(self, connection: AsyncConnection, row_id: str) -> Mapping[str, Any] | None:
        found = await connection.execute(
            sa.select(activation_code).where(activation_code.c.id == row_id).with_for_update()
        )
        row: Mapping[str, Any] | None = found.mappings().first()  # type: ignore[assignment]
        return row

    def _row(self, row_id: str, sealed: bytes) -> dict[str, Any]:
        return {
            "id": row_id,
            "sealed": sealed,
            "version": self._vault.current_version(MACKey.CAPSULE),
            "left": CODE_TRIES,
            "expires": self._clock.now() + CODE_LIFE,
        }


class PasswordActivation:
    """The three steps at the gate."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        log: Log,
        register: CitizenRegister,
        codes: SealedActivationCodes,
        challenges: Challenges,
        factors: PasswordFactors,
        otp: OTPChallenges,
        grants: Grants,
        sender: CodeSender,
        texts: SMSTexts,
        parameters: StretchParameters,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._log = log
        self._register = register
        self._codes = codes
        self._challenges = challenges
        self._factors = factors
        self._otp = otp
        self._grants = grants
        self._sender = sender
        self._texts = texts
        self._parameters = parameters
        self._randomness = randomness
        self._locks = NamedLocks()

    async def begin(self, typed_nif: str, email: str, envelope: Envelope) -> Begun:
        """NIF, e-mail and code; if all three belong together the core sends an SMS. The answer is always the same.

        Raises:
            RequestError: The envelope is for something else.
        """
        async with self._locks.hold(envelope.sha256()):
            answered = await self._otp.answered(envelope)
            if answered is not None:
                return Begun(answered.id, answered.expires, answered.reference)
            nif = normalise_nif(typed_nif)
            index = await self._register.nif_index(nif)
            context = EnvelopeContext(purpose=EnvelopePurpose.ACTIVATION_BEGIN, subject=nif)
            opened = await self._challenges.open(envelope, context)
            async with self._engine.begin() as connection:
                found = await self._register.find(connection, index)
                active = await self._factors.find(connection, found.id if found else CitizenId(""))
                citizen = found if found and active is None and same_email(found.email, email) else None
                row, tested = await self._codes.reserve(connection, citizen.id if citizen else None, index)
                await self._challenges.spend(connection, envelope)
            code = normalise_code(opened.secret.decode("ascii", errors="replace"))
            right = await self._codes.is_right(row, code, tested=tested)
            return await self._send_code(citizen, row, envelope, opened.companion, right=right)

    async def set_password(self, challenge_id: str, envelope: Envelope) -> None:
        """The password, with the token from the right SMS code; asking again with the same envelope is harmless.

        Raises:
            WeakPassword: Choose another one; the token still holds.
            FactorMismatch: The token is over.
        """
        async with self._locks.hold(challenge_id):
            grant = await self._grants.open(
                OTPPurpose.ACTIVATION, EnvelopePurpose.ACTIVATION_SET, challenge_id, envelope
            )
            if grant is None:
                return
            password = checked_password(grant.new_password, grant.citizen)
            vault_secret = self._randomness(VAULT_SECRET_SIZE_BYTES)
            row = await self._factors.seal_vault_secret(grant.citizen.id, password, vault_secret, self._parameters)
            async with self._engine.begin() as connection:
                await self._grants.use(connection, grant, envelope)
                await self._factors.store(connection, row, replacing=False)
                facts = {"cid": grant.cid, "kind": "activation"}
                await self._log.append(connection, Event(tag=EventTag.PW_CHANGE, pid=grant.citizen.pid, facts=facts))

    async def _send_code(
        self, citizen: Citizen | None, row: Mapping[str, Any], envelope: Envelope, cs: bytes, *, right: bool
    ) -> Begun:
        cid = new_challenge_id()
        expires = self._otp.end_of(OTPPurpose.ACTIVATION)
        generation = citizen.generation if citizen else 0
        bind = grant_binding(
            OTPPurpose.ACTIVATION,
            citizen_id=citizen.id if citizen else None,
            generation=generation,
            cid=cid,
            expires=expires,
            cs_sha256=hashlib.sha256(cs).digest(),
        )
        fresh = await self._otp.fill(
            CapsuleContent.SECRET,
            self._randomness(VAULT_SECRET_SIZE_BYTES) if right else None,
            size_bytes=VAULT_SECRET_SIZE_BYTES,
            cid=cid,
            expires=expires,
            bind=bind,
            cs=cs,
        )
        async with self._engine.begin() as connection:
            await self._register.require_generation(connection, citizen)
            await self._codes.settle(connection, row, right=right)
            begun = await self._sender.send(
                connection,
                fresh,
                purpose=OTPPurpose.ACTIVATION,
                envelope=envelope,
                citizen=citizen,
                text=self._texts.activation(
                    reference=fresh.reference, otp=fresh.otp, minutes=self._otp.minutes_of(OTPPurpose.ACTIVATION)
                ),
                failure=None if right else {"factor": "activation_code"},
            )
        self._sender.wake()
        return begun


def checked_password(sealed: bytes, citizen: Citizen) -> bytes:
    """A new password as it is stretched, if the policy allows it.

    Raises:
        WeakPassword: The detail names the rule.
        MalformedRequest: Not UTF-8.
    """
    try:
        password = normalise(sealed.decode())
    except UnicodeDecodeError:
        raise MalformedRequest("a password is text") from None
    names = (citizen.given_name, citizen.first_surname, citizen.second_surname, citizen.nif)
    check(password, tuple(word for name in names for word in name.split()))
    return password.encode()


def same_email(registered: str, typed: str) -> bool:
    """Whether the citizen typed the registered address; spaces around and case do not count."""
    return hmac.compare_digest(registered.strip().casefold().encode(), typed.strip().casefold().encode())


def _decoy_id(number: int) -> str:
    return f"decoy-{number:02}"
