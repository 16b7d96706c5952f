"""Approvals: from the challenge that BEGIN made, over the single-use code, to the SAD and one row per approved item.

``bind`` is never stored for use: it is computed anew from the rows at every step, so an edited row opens nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from authn.otp.rows import ChallengeState, otp_challenge
from authn.sealing import Label, kdf, seal, unseal
from domain import canonical
from domain.algorithms import KeyType
from domain.clock import Clock, to_epoch_seconds
from domain.ids import ChallengeId, CitizenId, CredentialId, RequestId
from hsm.keys import MACKey
from hsm.vault import Vault
from signer import tables
from signer.requests import StagedRequest

CHANNEL = "sms"


class ApprovalState(StrEnum):
    """Life of an approval."""

    CODE = "CODE"
    """B1 is parked under the single-use code."""
    SAD = "SAD"
    """B1 is parked under the SAD."""
    SPENT = "SPENT"
    """Every item is done; the capsule is erased."""
    DEAD = "DEAD"
    """Killed by a replay or a change of generation."""


class ItemState(StrEnum):
    """Life of one approved item: a right that is spent once."""

    AUTHORIZED = "AUTHORIZED"
    RESERVED = "RESERVED"
    CONSUMED = "CONSUMED"
    SKIPPED = "SKIPPED"
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PendingApproval:
    """What BEGIN keeps beside the OTP challenge."""

    cid: ChallengeId
    citizen_id: CitizenId | None
    credential_id: CredentialId
    key_type: KeyType
    kek_version: int
    new_sealed_key: bytes | None
    new_spki: bytes | None
    is_new: bool
    refusal: str | None
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Approval:
    """One row."""

    cid: ChallengeId
    request_id: RequestId
    citizen_id: CitizenId
    pid: bytes
    credential_id: CredentialId
    generation: int
    cs_sha256: bytes
    otp_expires: datetime
    state: ApprovalState
    parked: bytes | None
    capsule_version: int
    kek_version: int
    code_sha256: bytes
    code_expires: datetime
    sid: bytes | None
    sad_expires: datetime | None
    approved: datetime
    result_token: str | None
    receipt: str | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Authorisation:
    """The right to sign one item, once."""

    cid: ChallengeId
    item: int
    state: ItemState
    epoch: int | None
    attempt: int
    signing_time: datetime | None
    to_be_signed: bytes | None
    signed_properties: bytes | None
    signature: bytes | None
    signed: datetime | None
    intent_id: str | None
    complete_id: str | None


def binding(
    staged: StagedRequest,
    *,
    credential_id: str,
    citizen_id: str | None,
    generation: int,
    cid: str,
    expires: datetime,
    cs_sha256: bytes,
) -> bytes:
    """Step 7: everything that an approval is bound to, as one SHA-256 value."""
    return canonical.sha256(
        "act1",
        staged.id,
        credential_id,
        citizen_id,
        staged.client_id,
        staged.list_sha256(),
        staged.pkce_challenge,
        CHANNEL,
        generation,
        cid,
        to_epoch_seconds(expires),
        cs_sha256,
    )


def approval_binding(approval: Approval, staged: StagedRequest, generation: int) -> bytes:
    """``bind`` of an approval, with the citizen's generation as it is now."""
    return binding(
        staged,
        credential_id=approval.credential_id,
        citizen_id=approval.citizen_id,
        generation=generation,
        cid=approval.cid,
        expires=approval.otp_expires,
        cs_sha256=approval.cs_sha256,
    )


class Parking:
    """Keeps B1 between two steps, under a secret that only the next step brings."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def park(self, label: Label, secret: bytes, wrapped: bytes, bind: bytes) -> tuple[bytes, int]:
        """Seal ``wrapped`` under ``secret``; one HSM call. Returns the capsule and the version of its key."""
        version = self._vault.current_version(MACKey.CAPSULE)
        return seal(await self._key(label, secret, bind, version), wrapped, bind), version

    async def open(self, label: Label, secret: bytes, parked: bytes, bind: bytes, version: int) -> bytes:
        """B1; one HSM call.

        Raises:
            SealBroken: Another secret, or anything bound has changed.
        """
        return unseal(label, await self._key(label, secret, bind, version), parked, bind)

    async def _key(self, label: Label, secret: bytes, bind: bytes, version: int) -> bytes:
        name = "code" if label is Label.CODE else "sad"
        inner = await self._vault.mac(MACKey.CAPSULE, name, hashlib.sha256(secret).digest(), bind, version=version)
        return kdf(label, inner, secret)


class Approvals:
    """Repository; every write happens in the caller's transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def add_pending(self, connection: AsyncConnection, pending: PendingApproval) -> None:
        """Keep what BEGIN made; one row."""
        values = {name: getattr(pending, name) for name in PendingApproval.__dataclass_fields__}
        await connection.execute(
            sa.insert(tables.pending_approval).values(**{**values, "key_type": pending.key_type.value})
        )

    async def pending(self, connection: AsyncConnection, cid: str) -> PendingApproval | None:
        """What BEGIN kept for this challenge."""
        found = await connection.execute(sa.select(tables.pending_approval).where(tables.pending_approval.c.cid == cid))
        row = found.mappings().first()
        return PendingApproval(**{**row, "key_type": KeyType(row["key_type"])}) if row else None

    async def drop_pending(self, connection: AsyncConnection, cid: str) -> None:
        """The challenge was answered."""
        await connection.execute(sa.delete(tables.pending_approval).where(tables.pending_approval.c.cid == cid))

    async def code_awaited(self, connection: AsyncConnection, request_id: str) -> bool:
        """Whether somebody may still type a code for this request; it looks the same whether that code opens it."""
        found = await connection.execute(
            sa.select(tables.pending_approval.c.cid)
            .join(otp_challenge, otp_challenge.c.id == tables.pending_approval.c.cid)
            .where(
                otp_challenge.c.request_id == request_id,
                otp_challenge.c.state != ChallengeState.CONSUMED.value,
                otp_challenge.c.left > 0,
                otp_challenge.c.expires > self._clock.now(),
            )
            .limit(1)
        )
        return found.first() is not None

    async def is_approved(self, connection: AsyncConnection, staged: StagedRequest) -> bool:
        """Whether this request, or another of the same grant, was approved before: a grant is good for one."""
        same_grant = sa.and_(
            tables.request.c.client_id == staged.client_id,
            tables.request.c.transaction_id == staged.transaction_id,
            tables.request.c.transaction_id != "",
            tables.approval.c.state != ApprovalState.DEAD.value,
        )
        found = await connection.execute(
            sa.select(tables.approval.c.cid)
            .join(tables.request, tables.request.c.id == tables.approval.c.request_id)
            .where(sa.or_(tables.request.c.id == staged.id, same_grant))
        )
        return found.first() is not None

    async def add(self, connection: AsyncConnection, approval: Approval, items: Mapping[int, ItemState]) -> None:
        """Write the approval and one row per item."""
        values = {name: getattr(approval, name) for name in Approval.__dataclass_fields__}
        await connection.execute(sa.insert(tables.approval).values(**{**values, "state": approval.state.value}))
        await connection.execute(
            sa.insert(tables.authorisation),
            [{"cid": approval.cid, "item": item, "state": state.value, "attempt": 0} for item, state in items.items()],
        )

    async def by_code(self, connection: AsyncConnection, code: bytes) -> Approval | None:
        """The approval that this code belongs to."""
        return await self._one(connection, tables.approval.c.code_sha256 == hashlib.sha256(code).digest())

    async def by_sid(self, connection: AsyncConnection, sad: bytes) -> Approval | None:
        """The approval that this SAD belongs to."""
        return await self._one(connection, tables.approval.c.sid == hashlib.sha256(sad).digest())

    async def by_cid(self, connection: AsyncConnection, cid: str) -> Approval | None:
        """The approval with this id."""
        return await self._one(connection, tables.approval.c.cid == cid)

    async def by_request(self, connection: AsyncConnection, request_id: str) -> Approval | None:
        """The approval of a request."""
        return await self._one(connection, tables.approval.c.request_id == request_id)

    async def update(
        self, connection: AsyncConnection, approval: Approval, from_state: ApprovalState, **values: object
    ) -> bool:
        """Change a row that still is in ``from_state``."""
        done = await connection.execute(
            sa.update(tables.approval)
            .where(tables.approval.c.cid == approval.cid, tables.approval.c.state == from_state.value)
            .values(**values)
        )
        return done.rowcount == 1

    async def items(self, connection: AsyncConnection, cid: str) -> list[Authorisation]:
        """The item rows, in order, locked for the rest of the transaction."""
        found = await connection.execute(
            sa.select(tables.authorisation)
            .where(tables.authorisation.c.cid == cid)
            .order_by(tables.authorisation.c.item)
            .with_for_update()
        )
        return [_authorisation(row) for row in found.mappings()]

    async def reserve(
        self,
        connection: AsyncConnection,
        cid: str,
        item: int,
        *,
        epoch: int,
        intent_id: str,
        signing_time: datetime,
    ) -> int | None:
        """AUTHORIZED → RESERVED by this core's epoch; gives the attempt's number, ``None`` if it was not free.

        The signing time is kept for ever: a row whose first attempt had another one counts as not free.
        """
        first_or_same = sa.or_(
            tables.authorisation.c.signing_time.is_(None), tables.authorisation.c.signing_time == signing_time
        )
        done = await connection.execute(
            sa.update(tables.authorisation)
            .where(
                tables.authorisation.c.cid == cid,
                tables.authorisation.c.item == item,
                tables.authorisation.c.state == ItemState.AUTHORIZED.value,
                first_or_same,
            )
            .values(
                state=ItemState.RESERVED.value,
                epoch=epoch,
                signing_time=signing_time,
                attempt=tables.authorisation.c.attempt + 1,
                intent_id=intent_id,
            )
            .returning(tables.authorisation.c.attempt)
        )
        attempt = done.scalar_one_or_none()
        return None if attempt is None else int(attempt)

    async def settle(
        self, connection: AsyncConnection, cid: str, item: int, *, epoch: int, attempt: int, **values: object
    ) -> bool:
        """RESERVED(epoch, attempt) → whatever ``values`` say; False if this reservation is no longer ours."""
        done = await connection.execute(
            sa.update(tables.authorisation)
            .where(
                tables.authorisation.c.cid == cid,
                tables.authorisation.c.item == item,
                tables.authorisation.c.state == ItemState.RESERVED.value,
                tables.authorisation.c.epoch == epoch,
                tables.authorisation.c.attempt == attempt,
            )
            .values(**values)
        )
        return done.rowcount == 1

    async def give_back(self, connection: AsyncConnection, cid: str, item: int, *, epoch: int, attempt: int) -> bool:
        """RESERVED(epoch, attempt) → AUTHORIZED, for another attempt; a row that died while it was reserved stays dead.

        Returns:
            False if this reservation had ended before; true once, for whoever writes its end into the log.
        """
        table = tables.authorisation
        state = sa.case((table.c.state == ItemState.DEAD.value, table.c.state), else_=ItemState.AUTHORIZED.value)
        done = await connection.execute(
            sa.update(table)
            .where(
                table.c.cid == cid,
                table.c.item == item,
                table.c.state.in_((ItemState.RESERVED.value, ItemState.DEAD.value)),
                table.c.epoch == epoch,
                table.c.attempt == attempt,
            )
            .values(state=state, epoch=None)
        )
        return done.rowcount == 1

    async def reserved_by(self, connection: AsyncConnection, epochs: Sequence[int]) -> list[Authorisation]:
        """Reservations that these epochs left behind, those that died meanwhile among them; in the order of locks."""
        table = tables.authorisation
        found = await connection.execute(
            sa.select(table)
            .where(table.c.state.in_((ItemState.RESERVED.value, ItemState.DEAD.value)), table.c.epoch.in_(epochs))
            .order_by(table.c.cid, table.c.item)
        )
        return [_authorisation(row) for row in found.mappings()]

    async def end(self, connection: AsyncConnection, citizen_id: str) -> None:
        """Kill the citizen's open approvals and erase what is parked, in the commit that changes the generation.

        Approvals before items, each in one order: whoever signs at this moment locks them so as well.
        """
        table = tables.authorisation
        found = await connection.execute(
            sa.select(tables.approval.c.cid)
            .where(
                tables.approval.c.citizen_id == citizen_id,
                tables.approval.c.state.in_((ApprovalState.CODE.value, ApprovalState.SAD.value)),
            )
            .order_by(tables.approval.c.cid)
            .with_for_update()
        )
        mine = list(found.scalars())
        open_items = sa.and_(
            table.c.cid.in_(mine), table.c.state.in_((ItemState.AUTHORIZED.value, ItemState.RESERVED.value))
        )
        locked = sa.select(table.c.cid).where(open_items).order_by(table.c.cid, table.c.item).with_for_update()
        await connection.execute(locked)
        await connection.execute(sa.update(table).where(open_items).values(state=ItemState.DEAD.value))
        await connection.execute(
            sa.update(tables.approval)
            .where(tables.approval.c.cid.in_(mine))
            .values(state=ApprovalState.DEAD.value, parked=None)
        )
        await connection.execute(
            sa.delete(tables.pending_approval).where(tables.pending_approval.c.citizen_id == citizen_id)
        )

    async def erase_old(self, connection: AsyncConnection) -> None:
        """Erase capsules that outlived their code or SAD, and what BEGIN kept for challenges that are over."""
        now = self._clock.now()
        over = sa.or_(
            sa.and_(tables.approval.c.state == ApprovalState.CODE.value, tables.approval.c.code_expires < now),
            sa.and_(tables.approval.c.state == ApprovalState.SAD.value, tables.approval.c.sad_expires < now),
        )
        # One at a time in one order, and none that somebody works with: those are for the next sweep.
        free = sa.select(tables.approval.c.cid).where(over).order_by(tables.approval.c.cid)
        cids = list((await connection.execute(free.with_for_update(skip_locked=True))).scalars())
        await connection.execute(
            sa.update(tables.approval)
            .where(tables.approval.c.cid.in_(cids))
            .values(state=ApprovalState.DEAD.value, parked=None)
        )
        await connection.execute(sa.delete(tables.pending_approval).where(tables.pending_approval.c.expires < now))

    async def _one(self, connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> Approval | None:
        found = await connection.execute(sa.select(tables.approval).where(condition).with_for_update())
        row = found.mappings().first()
        return Approval(**{**row, "state": ApprovalState(row["state"])}) if row else None


def _authorisation(row: Mapping[str, Any] | sa.RowMapping) -> Authorisation:
    return Authorisation(**{**row, "state": ItemState(row["state"])})
