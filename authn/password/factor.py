"""The password factor: a row that holds the sealed vault secret V, and the counters that guard it.

V opens the citizen's keys; the password and the HSM's pepper open V. There is no hash to compare a password with: a
wrong one fails at the tag of V's seal. Strangers, unknown citizens and blocked ones are served from decoy rows, at the
same cost.
"""

import secrets
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.types import UTCDateTime
from authn.lockout import Attempts
from authn.password.stretch import SALT_SIZE_BYTES, Stretcher, StretchParameters
from authn.sealing import Label, SealBroken, kdf, seal, unopenable, unseal
from authn.tables import metadata
from domain.clock import Clock
from domain.errors import StateConflict
from domain.ids import CitizenId, Randomness
from hsm.keys import MACKey
from hsm.vault import Vault

VAULT_SECRET_SIZE_BYTES = 32
DECOYS = 64

password_factor = sa.Table(
    "password_factor",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),  # a citizen's id, or a decoy's
    sa.Column("salt", sa.LargeBinary(SALT_SIZE_BYTES), nullable=False),
    sa.Column("time_cost", sa.Integer, nullable=False),
    sa.Column("memory_kib", sa.Integer, nullable=False),
    sa.Column("pepper_version", sa.Integer, nullable=False),
    sa.Column("sealed_vault_secret", sa.LargeBinary, nullable=False),
    sa.Column("reserved", sa.Integer, nullable=False, default=0),
    sa.Column("forgiven", sa.Integer, nullable=False, default=0),
    sa.Column("blocked_until", UTCDateTime),
    sa.Column("block_told", UTCDateTime),  # the block for which the citizen was last told
    sa.Column("changed", UTCDateTime, nullable=False),
    sa.Column("version", sa.Integer, nullable=False, default=1),
)


@dataclass(frozen=True, slots=True, repr=False)
class PasswordFactor:
    """One row."""

    id: str
    salt: bytes
    parameters: StretchParameters
    pepper_version: int
    sealed_vault_secret: bytes
    attempts: Attempts
    version: int


@dataclass(frozen=True, slots=True, repr=False)
class Reservation:
    """One attempt, reserved and committed before anything is tested."""

    factor: PasswordFactor
    number: int
    """Which attempt this is; success forgives up to here."""
    tested: bool
    """False: decoy or blocked, the seal under test is random."""


class PasswordFactors:
    """Repository of factors, and the two operations on V."""

    def __init__(
        self, vault: Vault, stretcher: Stretcher, clock: Clock, randomness: Randomness = secrets.token_bytes
    ) -> None:
        self._vault = vault
        self._stretcher = stretcher
        self._clock = clock
        self._randomness = randomness

    async def make_decoys(self, engine: AsyncEngine, parameters: StretchParameters) -> None:
        """Make the fixed set of decoy rows, once."""
        async with engine.begin() as connection:
            known = await connection.execute(
                sa.select(password_factor.c.id).where(password_factor.c.id.in_(_decoy_id(n) for n in range(DECOYS)))
            )
            missing = {_decoy_id(n) for n in range(DECOYS)} - set(known.scalars())
            for decoy in sorted(missing):
                row = self._row(
                    decoy, self._randomness(SALT_SIZE_BYTES), parameters, unopenable(VAULT_SECRET_SIZE_BYTES)
                )
                await connection.execute(sa.insert(password_factor).values(**row))

    async def find(self, connection: AsyncConnection, citizen_id: CitizenId) -> PasswordFactor | None:
        """The citizen's factor, if the permanent password is active."""
        return await self._get(connection, citizen_id)

    async def reserve(self, connection: AsyncConnection, citizen_id: CitizenId | None, nif_index: bytes) -> Reservation:
        """Reserve one attempt in the caller's transaction: always one row read by id and one row written.

        Args:
            connection: The caller's transaction.
            citizen_id: ``None`` for a citizen who is unknown or not the one named by the agency.
            nif_index: Picks the decoy.
        """
        now = self._clock.now()
        decoy_id = _decoy_id(int.from_bytes(nif_index[:8], "big") % DECOYS)
        factor = await self._get(connection, citizen_id or decoy_id)
        real = citizen_id is not None and factor is not None
        if factor is None:
            factor = await self._get(connection, decoy_id)
        if factor is None:
            raise StateConflict("the decoy rows are missing")
        blocked = factor.attempts.is_blocked(now)
        attempts = factor.attempts if blocked else factor.attempts.reserve(now)
        await self._write(connection, factor, attempts)
        tested = real and not blocked
        factor = replace(factor, attempts=attempts, version=factor.version + 1)
        if not tested:
            factor = replace(factor, sealed_vault_secret=unopenable(VAULT_SECRET_SIZE_BYTES))
        return Reservation(factor, attempts.reserved, tested)

    async def give_back(self, connection: AsyncConnection, reservation: Reservation) -> None:
        """Undo a reservation whose password was not tested: the HSM did not answer, which tells nobody anything."""
        factor = await self._get(connection, reservation.factor.id)
        if factor is not None:
            await self._write(connection, factor, factor.attempts.give_back(reservation.number))

    async def unlock(self, connection: AsyncConnection, citizen_id: CitizenId) -> bool:
        """End every block and forget failures; the key was never lost. False where there is no password."""
        factor = await self._get(connection, citizen_id)
        if factor is None:
            return False
        await self._write(connection, factor, factor.attempts.forgive(factor.attempts.reserved))
        return True

    async def settle(self, connection: AsyncConnection, reservation: Reservation, *, right: bool) -> None:
        """Give the attempt back if it was right; one row written either way.

        Raises:
            StateConflict: The password was changed meanwhile.
        """
        factor = await self._get(connection, reservation.factor.id)
        if factor is None:
            raise StateConflict("the password factor is gone")
        if right and factor.sealed_vault_secret != reservation.factor.sealed_vault_secret:
            raise StateConflict("the password was changed meanwhile; begin again")
        attempts = factor.attempts.forgive(reservation.number) if right else factor.attempts
        await self._write(connection, factor, attempts)

    async def seal_vault_secret(
        self, citizen_id: CitizenId, password: bytes, vault_secret: bytes, parameters: StretchParameters
    ) -> dict[str, object]:
        """The row for a new password; one HSM call, no database.

        Args:
            citizen_id: Bound into the seal.
            password: NFKC-normalised UTF-8; its policy is checked elsewhere.
            vault_secret: V, 32 random bytes.
            parameters: Cost from today's settings.
        """
        salt = self._randomness(SALT_SIZE_BYTES)
        version = self._vault.current_version(MACKey.PEPPER)
        key = await self._key(citizen_id, password, salt, parameters, version)
        sealed = seal(key, vault_secret, *_associated(citizen_id, version, parameters))
        return self._row(citizen_id, salt, parameters, sealed)

    async def open_vault_secret(self, factor: PasswordFactor, password: bytes) -> bytes | None:
        """V, or ``None`` when the seal does not open: wrong password, decoy or blocked; one HSM call, one stretch."""
        key = await self._key(factor.id, password, factor.salt, factor.parameters, factor.pepper_version)
        associated = _associated(factor.id, factor.pepper_version, factor.parameters)
        try:
            return unseal(Label.PASSWORD, key, factor.sealed_vault_secret, *associated)
        except SealBroken:
            return None

    async def store(self, connection: AsyncConnection, row: dict[str, object], *, replacing: bool) -> None:
        """Write a sealed row: a first password, or one that replaces another.

        Raises:
            StateConflict: There is a password already, or none to replace.
        """
        factor = await self._get(connection, str(row["id"]))
        if (factor is not None) is not replacing:
            raise StateConflict(
                "the permanent password is active already" if factor else "there is no password to change"
            )
        if factor is None:
            await connection.execute(sa.insert(password_factor).values(**row))
            return
        changed = {
            **row,
            "version": factor.version + 1,
            "reserved": factor.attempts.reserved,
            "forgiven": factor.attempts.reserved,
        }
        await connection.execute(sa.update(password_factor).where(password_factor.c.id == factor.id).values(**changed))

    async def _key(
        self, factor_id: str, password: bytes, salt: bytes, parameters: StretchParameters, version: int
    ) -> bytes:
        stretched = await self._stretcher.stretch(password, salt, parameters)
        peppered = await self._vault.mac(MACKey.PEPPER, "pw", factor_id, salt, stretched, version=version)
        return kdf(Label.PASSWORD, stretched, peppered)

    def _row(self, factor_id: str, salt: bytes, parameters: StretchParameters, sealed: bytes) -> dict[str, object]:
        return {
            "id": factor_id,
            "salt": salt,
            "time_cost": parameters.time_cost,
            "memory_kib": parameters.memory_kib,
            "pepper_version": self._vault.current_version(MACKey.PEPPER),
            "sealed_vault_secret": sealed,
            "reserved": 0,
            "forgiven": 0,
            "blocked_until": None,
            "block_told": None,
            "changed": self._clock.now(),
            "version": 1,
        }

    async def _get(self, connection: AsyncConnection, factor_id: str) -> PasswordFactor | None:
        # The lock matters on PostgreSQL; SQLite took its own when the transaction began.
        found = await connection.execute(
            sa.select(password_factor).where(password_factor.c.id == factor_id).with_for_update()
        )
        row = found.mappings().first()
        if row is None:
            return None
        return PasswordFactor(
            id=row["id"],
            salt=row["salt"],
            parameters=StretchParameters(row["time_cost"], row["memory_kib"]),
            pepper_version=row["pepper_version"],
            sealed_vault_secret=row["sealed_vault_secret"],
            attempts=Attempts(row["reserved"], row["forgiven"], row["blocked_until"]),
            version=row["version"],
        )

    async def _write(self, connection: AsyncConnection, factor: PasswordFactor, attempts: Attempts) -> None:
        done = await connection.execute(
            sa.update(password_factor)
            .where(password_factor.c.id == factor.id, password_factor.c.version == factor.version)
            .values(
                reserved=attempts.reserved,
                forgiven=attempts.forgiven,
                blocked_until=attempts.blocked_until,
                version=factor.version + 1,
            )
        )
        if done.rowcount != 1:
            raise StateConflict("this account is being used at the same moment; try again")


def _associated(factor_id: str, version: int, parameters: StretchParameters) -> tuple[str, int, str]:
    return factor_id, version, str(parameters)


def _decoy_id(number: int) -> str:
    return f"decoy-{number:02}"
