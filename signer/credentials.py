"""Keys and certificates of citizens: sealed keys, their states, their end.

A key is wrapped by the HSM (B1) and that again is sealed under the citizen's vault secret V (B2). Only B2 is stored.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
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
from signer.approvals import ApprovalState, ItemState


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

    def bars_another(self, now: datetime) -> bool:
        """Whether the citizen may have no other of this key type beside it."""
        return self.state is CredentialState.SUSPENDED or self.is_valid(now)


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

    async def lock_all(self, connection: AsyncConnection, citizen_id: str) -> list[Credential]:
        """All of a citizen's credentials, locked in one order: before approvals, in every transaction that locks both.

        Two transactions that may each give the citizen a certificate meet here, so the second sees what the first did.
        """
        found = await connection.execute(
            sa.select(tables.credential)
            .where(tables.credential.c.citizen_id == citizen_id)
            .order_by(tables.credential.c.id)
            .with_for_update()
        )
        return [_credential(row) for row in found.mappings()]

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
        """Keep an approved newborn key; older ones of the same type whose approval is over are erased.

        One whose approval still lives, or whose certificate is being issued at this moment, stays: the first of them
        to get its certificate ends the others (``signer.signing``).

        Returns:
            How many older keys were erased.
        """
        waiting = [
            older.id
            for older in await self.lock_all(connection, citizen_id)
            if older.key_type is key_type and older.state is CredentialState.PENDING
        ]
        needed = set((await connection.execute(self._needed(waiting))).scalars())
        erased = [older for older in waiting if older not in needed]
        for older in erased:
            await self.erase_pending(connection, older)
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
        return len(erased)

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

    async def keep_serial(self, connection: AsyncConnection, credential_id: str, serial: int) -> None:
        """A certificate came and could not be accepted yet: should it never be, the issuer is told of its end."""
        await connection.execute(
            sa.update(tables.credential)
            .where(tables.credential.c.id == credential_id, tables.credential.c.state == CredentialState.PENDING.value)
            .values(serial=f"{serial:x}")
        )

    async def erase_pending(self, connection: AsyncConnection, credential_id: str) -> None:
        """End a key that waits for a certificate.

        Once its certificate may have been asked for the row stays, without the key: a late answer finds its place.
        """
        mine = (tables.credential.c.id == credential_id) & (tables.credential.c.state == CredentialState.PENDING.value)
        await connection.execute(sa.delete(tables.credential).where(mine, tables.credential.c.csr.is_(None)))
        await connection.execute(
            sa.update(tables.credential).where(mine).values(**_revoked(RevocationReason.SUPERSEDED))
        )

    async def revoke_orphan(
        self, connection: AsyncConnection, credential: Credential, certificate: bytes, serial: int
    ) -> None:
        """A certificate came that nobody may use any more: keep it as revoked; the issuer is told later.

        Args:
            connection: The caller's transaction.
            credential: As it was when the certificate was asked for; its row may be gone by now.
            certificate: DER.
            serial: Of the certificate.
        """
        orphan: dict[str, Any] = {
            **_revoked(RevocationReason.SUPERSEDED),
            "certificate": certificate,
            "serial": f"{serial:x}",
            "revocation_told": False,
        }
        found = await connection.execute(
            sa.select(tables.credential.c.serial, tables.credential.c.state)
            .where(tables.credential.c.id == credential.id)
            .with_for_update()
        )
        row = found.first()
        if row is None:
            await connection.execute(
                sa.insert(tables.credential).values(
                    id=credential.id,
                    citizen_id=credential.citizen_id,
                    pid=credential.pid,
                    key_type=credential.key_type.value,
                    kek_version=credential.kek_version,
                    spki=credential.spki,
                    created=self._clock.now(),
                    **orphan,
                )
            )
        elif row.state == CredentialState.PENDING.value or row.serial is None:
            # A row that another core made active with this same certificate meanwhile is no orphan.
            await connection.execute(
                sa.update(tables.credential).where(tables.credential.c.id == credential.id).values(**orphan)
            )

    async def revoke_all(
        self, connection: AsyncConnection, citizen_id: str, reason: RevocationReason
    ) -> list[Credential]:
        """Revoke every credential of a citizen and erase the keys; the issuer is told in the background.

        Returns:
            Those that had a certificate.
        """
        ended = [
            credential
            for credential in await self.lock_all(connection, citizen_id)
            if credential.state is not CredentialState.REVOKED
        ]
        await connection.execute(
            sa.update(tables.credential)
            .where(tables.credential.c.id.in_([credential.id for credential in ended]))
            .values(**_revoked(reason))
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

    def _needed(self, credential_ids: Sequence[str]) -> sa.Select[Any]:
        """Those of the keys whose approval lives, or for which a certificate is being issued."""
        now = self._clock.now()
        approval, item = tables.approval, tables.authorisation
        lives = sa.or_(
            sa.and_(approval.c.state == ApprovalState.CODE.value, approval.c.code_expires > now),
            sa.and_(approval.c.state == ApprovalState.SAD.value, approval.c.sad_expires > now),
            item.c.state == ItemState.RESERVED.value,
        )
        return (
            sa.select(approval.c.credential_id)
            .join(item, sa.and_(item.c.cid == approval.c.cid, item.c.item == 0))
            .where(approval.c.credential_id.in_(credential_ids), lives)
        )

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
            .order_by(tables.credential.c.id)
            .with_for_update()
        )
        for credential in [_credential(row) for row in found.mappings()]:
            wrapped = open_key(credential, old)
            sealed = seal_key(credential.id, KeyPair(wrapped, credential.spki), credential.kek_version, new)
            await connection.execute(
                sa.update(tables.credential).where(tables.credential.c.id == credential.id).values(sealed_key=sealed)
            )


def _revoked(reason: RevocationReason) -> dict[str, Any]:
    return {
        "state": CredentialState.REVOKED.value,
        "sealed_key": None,
        "revocation_reason": reason.value,
        "revocation_told": tables.credential.c.serial.is_(None),
    }


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
