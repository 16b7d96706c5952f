"""What SIGN gives back, and the end of an approval: result token and receipt, once and for every later answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from signer.approvals import Approval, Approvals, ApprovalState, Authorisation, ItemState
from signer.credentials import Credential
from signer.requests import StagedRequest
from signer.tokens import Tokens


@dataclass(frozen=True, slots=True)
class SignedItem:
    """One item's outcome."""

    item: int
    state: str
    """SIGNED, or SKIPPED for a certificate that was not needed."""
    to_be_signed: bytes
    signature: bytes
    chain: tuple[bytes, ...]
    signed_properties: bytes = b""
    """XAdES: what ``to_be_signed`` refers to besides the document."""


@dataclass(frozen=True, slots=True)
class Signed:
    """The items asked for; with the last one result token and receipt."""

    items: tuple[SignedItem, ...]
    result_token: str
    receipt: str


def signed_item(row: Authorisation, chain: tuple[bytes, ...]) -> SignedItem:
    """The stored outcome of one row; ``chain`` begins with the citizen's certificate, DER."""
    if row.state is ItemState.SKIPPED:
        return SignedItem(row.item, "SKIPPED", b"", b"", chain)
    return SignedItem(
        row.item, "SIGNED", row.to_be_signed or b"", row.signature or b"", chain, row.signed_properties or b""
    )


class Closing:
    """Ends approvals whose items are all done."""

    def __init__(self, engine: AsyncEngine, approvals: Approvals, tokens: Tokens) -> None:
        self._engine = engine
        self._approvals = approvals
        self._tokens = tokens

    async def finish(
        self, approval: Approval, staged: StagedRequest, rows: Sequence[Authorisation], credential: Credential
    ) -> Approval:
        """The last item is done: erase the capsule, keep result token and receipt for every later answer."""
        if approval.receipt is not None:
            return approval
        result_token = await self._tokens.result(staged, approval, rows, credential)
        receipt = await self._tokens.receipt(staged, approval, rows, credential)
        async with self._engine.begin() as connection:
            # Whatever became of it meanwhile: what was released has its receipt.
            locked = await self._approvals.by_cid(connection, approval.cid)
            state = locked.state if locked else approval.state
            await self._approvals.update(
                connection,
                approval,
                state,
                state=ApprovalState.SPENT.value,
                parked=None,
                result_token=result_token,
                receipt=receipt,
            )
            finished = await self._approvals.by_cid(connection, approval.cid)
        return finished or approval
