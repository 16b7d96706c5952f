"""Keys and certificates of citizens: sealed keys, their states, their end.

A key is wrapped by the HSM (B1) and that again is sealed under the citizen's vault secret V (B2). Only B2 is stored.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from authn.sealing import Label, kdf, seal, unseal
from certs.issuer import RevocationReason
from domain.algorithms import KeyType
from domain.clock import Clock
from domain.errors import StateConflict
from domain.ids import CitizenId, CredentialId
from hsm.keys import KeyPair
from signer import tables


class CredentialState(StrEnum):
    """Life of a credential; nothing leads back from REVOKED."""

    PENDING = "PENDING"
    """Key made and approved, certificate not yet issued."""
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """One key of one citizen."""

    id: CredentialId
    citizen_id: CitizenId
    pid: bytes
    key_type: KeyType
    state: CredentialState
    sealed_key: bytes | None
    kek_version: int
    spki: bytes
    csr: bytes | None
    certificate: bytes | None
    chain: tuple[bytes, ...]
    serial: str | None
    not_after: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Whether it can sign: active, and the certificate in its time."""
        return self.state is CredentialState.ACTIVE and self.not_after is not None and now < self.not_after


def seal_key(credential_id: str, pair: KeyPair, kek_version: int, vault_secret: bytes) -> bytes:
    """B2: the wrapped key under the citizen's vault secret."""
    key = kdf(Label.KEY, vault_secret, credential_id)
    return seal(key, pair.wrapped, *_associated(credential_id, pair.spki, kek_version))


def open_key(credential: Credential, vault_secret: bytes) -> bytes:
    """B1 from B2.

    Raises:
        SealBroken: Another citizen's blob, or a changed one.
        StateConflict: The key was erased.
    """
    if credential.sealed_key is None:
        raise StateConflict("the key of this certificate was erased")
    key = kdf(Label.KEY, vault_secret, credential.id)
    associated = _associated(credential.id, credential.spki, credential.kek_version)
    return unseal(Label.KEY, key, credential.sealed_key, *associated)


class Credentials:
    """Repository; every write happens in the caller's transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def get(self, connection: AsyncConnection, credential_id: str) -> Credential | None:
        """The credential with this id, locked for the rest of the transaction."""
        found = await connection.execute(
            sa.select(tables.credential).where(tables.credential.c.id == credential_id).with_for_update()
        )
        row = found.mappings().first()
        return _credential(row) if row else None

    async def held(self, connection: AsyncConnection, citizen_id: str, key_type: KeyType) -> Credential | None:
        """The citizen's newest credential of this type that is active or suspended."""
        found = await connection.execute(
            sa.select(tables.credential)
            .where(
                tables.credential.c.citizen_id == citizen_id,
                tables.credential.c.key_type == key_type.value,
                tables.credential.c.state.in_((CredentialState.ACTIVE.value, CredentialState.SUSPENDED.value)),
            )
            .order_by(tables.credential.c.created.desc())
            .limit(1)
        )
        row = found.mappings().first()
        return _credential(row) if row else None

    async def add_pending(
        self,
        connection: AsyncConnection,
        *,
        credential_id: str,
        citizen_id: str,
        pid: bytes,
        key_type: KeyType,
        sealed_key: bytes,
        kek_version: int,
        spki: bytes,
    ) -> int:
        """Keep an approved newborn key; an older one of the same type that never got its certificate is erased.

        Returns:
            How many older keys were erased.
        """
        erased = await connection.execute(
            sa.delete(tables.credential).where(
                tables.credential.c.citizen_id == citizen_id,
                tables.credential.c.key_type == key_type.value,
                tables.credential.c.state == CredentialState.PENDING.value,
            )
        )
        await connection.execute(
            sa.insert(tables.credential).values(
                id=credential_id,
                citizen_id=citizen_id,
                pid=pid,
                key_type=key_type.value,
                state=CredentialState.PENDING.value,
                sealed_key=sealed_key,
                kek_version=kek_version,
                spki=spki,
                created=self._clock.now(),
            )
        )
        return erased.rowcount

    async def keep_csr(self, connection: AsyncConnection, credential_id: str, csr: bytes) -> None:
        """Keep the signed request before the issuer is asked, so that a retry asks for the same certificate."""
        await connection.execute(
            sa.update(tables.credential).where(tables.credential.c.id == credential_id).values(csr=csr)
        )

    async def activate(
        self,
        connection: AsyncConnection,
        credential_id: str,
        *,
        certificate: bytes,
        chain: tuple[bytes, ...],
        serial: int,
        not_after: datetime,
    ) -> None:
        """PENDING → ACTIVE with its certificate.

        Raises:
            StateConflict: It is no longer pending.
        """
        done = await connection.execute(
            sa.update(tables.credential)
            .where(
                tables.credential.c.id == credential_id,
                tables.credential.c.state == CredentialState.PENDING.value,
            )
            .values(
                state=CredentialState.ACTIVE.value,
                certificate=certificate,
                chain=[base64.b64encode(der).decode() for der in chain],
                serial=f"{serial:x}",
                not_after=not_after,
            )
        )
        if done.rowcount != 1:
            raise StateConflict("the certificate is no longer awaited")

    async def revoke_orphan(
        self, connection: AsyncConnection, credential_id: str, certificate: bytes, serial: int
    ) -> None:
        """A certificate came for an approval that had died: keep it as revoked; the issuer is told later."""
        await connection.execute(
            sa.update(tables.credential)
            .where(tables.credential.c.id == credential_id)
            .values(
                state=CredentialState.REVOKED.value,
                sealed_key=None,
                certificate=certificate,
                serial=f"{serial:x}",
                revocation_reason=RevocationReason.SUPERSEDED.value,
                revocation_told=False,
            )
        )

    async def revoke_all(
        self, connection: AsyncConnection, citizen_id: str, reason: RevocationReason
    ) -> list[Credential]:
        """Revoke every credential of a citizen and erase the keys; the issuer is told in the background.

        Returns:
            Those that had a certificate.
        """
        mine = (tables.credential.c.citizen_id == citizen_id) & (
            tables.credential.c.state != CredentialState.REVOKED.value
        )
        found = await connection.execute(sa.select(tables.credential).where(mine))
        ended = [_credential(row) for row in found.mappings()]
        await connection.execute(
            sa.update(tables.credential)
            .where(mine)
            .values(
                state=CredentialState.REVOKED.value,
                sealed_key=None,
                revocation_reason=reason.value,
                revocation_told=tables.credential.c.serial.is_(None),
            )
        )
        return [credential for credential in ended if credential.serial is not None]

    async def untold_revocations(self, connection: AsyncConnection) -> list[tuple[str, int, RevocationReason]]:
        """Revocations of which the issuer does not know yet: id, serial, reason."""
        found = await connection.execute(
            sa.select(tables.credential.c.id, tables.credential.c.serial, tables.credential.c.revocation_reason).where(
                tables.credential.c.state == CredentialState.REVOKED.value,
                tables.credential.c.revocation_told.is_(False),
                tables.credential.c.serial.is_not(None),
            )
        )
        return [(row.id, int(row.serial, 16), RevocationReason(row.revocation_reason)) for row in found]

    async def mark_told(self, connection: AsyncConnection, credential_id: str) -> None:
        """The issuer knows of the revocation."""
        await connection.execute(
            sa.update(tables.credential).where(tables.credential.c.id == credential_id).values(revocation_told=True)
        )

    async def reseal(self, connection: AsyncConnection, citizen_id: CitizenId, old: bytes, new: bytes) -> None:
        """Move every sealed key from vault secret ``old`` to ``new``, in the commit that changes the password.

        Raises:
            SealBroken: A blob does not open under ``old``; nothing is written.
        """
        found = await connection.execute(
            sa.select(tables.credential)
            .where(tables.credential.c.citizen_id == citizen_id, tables.credential.c.sealed_key.is_not(None))
            .with_for_update()
        )
        for credential in [_credential(row) for row in found.mappings()]:
            wrapped = open_key(credential, old)
            sealed = seal_key(credential.id, KeyPair(wrapped, credential.spki), credential.kek_version, new)
            await connection.execute(
                sa.update(tables.credential).where(tables.credential.c.id == credential.id).values(sealed_key=sealed)
            )


def _associated(credential_id: str, spki: bytes, kek_version: int) -> tuple[str, bytes, int]:
    return credential_id, hashlib.sha256(spki).digest(), kek_version


def _credential(row: Mapping[str, Any] | sa.RowMapping) -> Credential:
    return Credential(
        id=row["id"],
        citizen_id=row["citizen_id"],
        pid=row["pid"],
        key_type=KeyType(row["key_type"]),
        state=CredentialState(row["state"]),
        sealed_key=row["sealed_key"],
        kek_version=row["kek_version"],
        spki=row["spki"],
        csr=row["csr"],
        certificate=row["certificate"],
        chain=tuple(base64.b64decode(der) for der in row["chain"] or ()),
        serial=row["serial"],
        not_after=row["not_after"],
    )
