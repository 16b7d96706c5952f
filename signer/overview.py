"""What citizens are shown of their own certificates and of the uses of their key (``authn.area.KeyRecord``)."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from authn.area import HeldCertificate, KeyUse
from domain.ids import CitizenId
from domain.items import Purpose
from signer import tables
from signer.approvals import ItemState
from signer.requests import staged_from


class KeyOverview:
    """Reads credentials, approvals and requests; locks and changes none of them."""

    async def certificates(self, connection: AsyncConnection, citizen_id: CitizenId) -> Sequence[HeldCertificate]:
        """Those of the citizen, newest first; a key that still waits for its certificate is none."""
        credential = tables.credential
        found = await connection.execute(
            sa.select(credential.c.serial, credential.c.state, credential.c.not_after)
            .where(credential.c.citizen_id == citizen_id, credential.c.certificate.is_not(None))
            .order_by(credential.c.created.desc(), credential.c.id)
        )
        return [HeldCertificate(serial=row.serial, state=row.state, not_after=row.not_after) for row in found]

    async def uses(self, connection: AsyncConnection, citizen_id: CitizenId, *, limit: int) -> Sequence[KeyUse]:
        """The last approvals with which documents were signed, newest first."""
        approval, item, request = tables.approval, tables.authorisation, tables.request
        newest = (
            sa.select(approval.c.cid, approval.c.request_id, sa.func.max(item.c.signed).label("time"))
            .join(item, item.c.cid == approval.c.cid)
            .where(approval.c.citizen_id == citizen_id, _was_signed(item))
            .group_by(approval.c.cid, approval.c.request_id)
            .order_by(sa.desc("time"))
            .limit(limit)
            .subquery()
        )
        found = await connection.execute(
            sa.select(newest.c.cid, newest.c.time, request)
            .outerjoin(request, request.c.id == newest.c.request_id)
            .order_by(newest.c.time.desc())
        )
        rows = found.mappings().all()
        signed: dict[str, list[int]] = {row["cid"]: [] for row in rows}
        items = await connection.execute(
            sa.select(item.c.cid, item.c.item).where(item.c.cid.in_(signed), _was_signed(item)).order_by(item.c.item)
        )
        for one in items:
            signed[one.cid].append(one.item)
        return [_use(row, signed[row["cid"]]) for row in rows]


def _was_signed(item: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(item.c.state == ItemState.CONSUMED.value, item.c.signature.is_not(None))


def _use(row: sa.RowMapping, signed: Sequence[int]) -> KeyUse:
    if row["id"] is None:
        return KeyUse(time=row["time"], agency="", documents=len(signed), titles=())
    staged = staged_from(row)
    documents = [staged.items[number] for number in signed if staged.items[number].purpose is Purpose.SIGN]
    return KeyUse(
        time=row["time"],
        agency=staged.client_name,
        documents=len(documents),
        titles=[item.title for item in documents],
    )
