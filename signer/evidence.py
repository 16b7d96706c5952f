"""What the rows of approvals say, for auditors (``audit.reading.Evidence``)."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.reading import ApprovedItem, ApprovedList
from signer import tables
from signer.requests import StagedRequest, staged_from


class ApprovalEvidence:
    """Reads requests, approvals and credentials; never their titles, which may name people."""

    async def approved(self, connection: AsyncConnection, cids: Collection[str]) -> Mapping[str, ApprovedList]:
        """The approved lists of these approvals, as far as they are there."""
        if not cids:
            return {}
        found = await connection.execute(
            sa.select(tables.approval.c.cid, tables.credential.c.serial, tables.request)
            .join(tables.request, tables.request.c.id == tables.approval.c.request_id)
            .outerjoin(tables.credential, tables.credential.c.id == tables.approval.c.credential_id)
            .where(tables.approval.c.cid.in_(cids))
        )
        return {row["cid"]: _list(staged_from(row), row["serial"]) for row in found.mappings()}


def _list(staged: StagedRequest, serial: str | None) -> ApprovedList:
    return ApprovedList(
        agency_name=staged.client_name,
        list_sha256=staged.list_sha256(),
        items=[
            ApprovedItem(packaging=item.packaging, algorithm=item.algorithm, digests=item.document_digests)
            for item in staged.items
        ],
        certificate_serial=serial or "",
    )
