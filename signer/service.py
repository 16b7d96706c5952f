"""gRPC servicers of the signing core: protobuf in and out, nothing decided here."""

from typing import Any

import grpc
from sqlalchemy.ext.asyncio import AsyncEngine

from authn.service import envelope_of
from domain.clock import Clock, to_epoch_seconds
from domain.errors import MalformedRequest
from domain.items import Item
from signer.activation import Activation
from signer.approvals import Approvals, ItemState
from signer.closing import Signed
from signer.messages import item_message, item_of
from signer.proto import signer_pb2, signer_pb2_grpc
from signer.requests import Requests
from signer.revocation import Revocation
from signer.signing import Signing


class SignatureActivationServicer(signer_pb2_grpc.SignatureActivationServicer):
    """For the edge."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        activation: Activation,
        signing: Signing,
        requests: Requests,
        approvals: Approvals,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._activation = activation
        self._signing = signing
        self._requests = requests
        self._approvals = approvals

    async def Stage(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Step 1."""
        del context
        staged = await self._activation.stage(
            grant=request.grant,
            items=[_item(message) for message in request.items],
            idempotency_key=request.idempotency_key,
            pkce_challenge=request.pkce_challenge,
            return_url=request.return_url,
            citizen_nif=request.citizen_nif,
            client_nonce=request.client_nonce,
        )
        return signer_pb2.StageAnswer(request_id=staged.id, expires=to_epoch_seconds(staged.expires))

    async def Redeem(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Step 13."""
        del context
        redeemed = await self._activation.redeem(request.request_id, request.code, request.pkce_verifier, request.r)
        return signer_pb2.RedeemAnswer(sad=redeemed.sad, expires=to_epoch_seconds(redeemed.expires))

    async def Sign(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Steps 14–18."""
        del context
        return _signed(await self._signing.sign(request.sad, list(request.item_numbers)))

    async def RequestState(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """How far a request is."""
        del context
        async with self._engine.connect() as connection:
            staged = await self._requests.get_even_expired(connection, request.request_id)
            approval = await self._approvals.by_request(connection, staged.id)
            rows = await self._approvals.items(connection, approval.cid) if approval else []
            awaited = approval is None and await self._approvals.code_awaited(connection, staged.id)
        if approval is None:
            alive = "PENDING" if awaited else "STAGED"
            state = alive if staged.expires > self._clock.now() else "EXPIRED"
        elif all(row.state in (ItemState.CONSUMED, ItemState.SKIPPED) for row in rows):
            state = "SIGNED"
        else:
            state = "APPROVED" if approval.parked is not None else "EXPIRED"
        return signer_pb2.RequestStateAnswer(state=state, item_states=[row.state.value for row in rows])


class SignatureAuthorisationServicer(signer_pb2_grpc.SignatureAuthorisationServicer):
    """For the gate."""

    def __init__(self, activation: Activation) -> None:
        self._activation = activation

    async def Describe(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """What the gate's page shows."""
        del context
        staged = await self._activation.describe(request.request_id)
        return signer_pb2.DescribeAnswer(
            client_id=staged.client_id,
            client_name=staged.client_name,
            items=[item_message(item) for item in staged.items],
            expires=to_epoch_seconds(staged.expires),
            citizen_named=staged.citizen_index is not None,
            return_url=staged.return_url,
            approved=await self._activation.is_approved(staged),
        )

    async def Begin(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Steps 2–9."""
        del context
        begun = await self._activation.begin(request.request_id, request.nif, envelope_of(request.envelope))
        return signer_pb2.BeginAnswer(
            challenge_id=begun.challenge_id,
            expires=to_epoch_seconds(begun.expires),
            reference=begun.reference,
            tries=begun.tries,
        )

    async def Resend(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The stored message once more."""
        del context
        await self._activation.resend(request.challenge_id)
        return signer_pb2.ResendAnswer()

    async def Complete(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Steps 10–12."""
        del context
        url = await self._activation.complete(request.challenge_id, envelope_of(request.envelope))
        return signer_pb2.CompleteAnswer(redirect_url=url)


class CredentialOperationsServicer(signer_pb2_grpc.CredentialOperationsServicer):
    """For the operator."""

    def __init__(self, revocation: Revocation) -> None:
        self._revocation = revocation

    async def Revoke(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Revoke a citizen's certificates."""
        del context
        return signer_pb2.RevokeAnswer(certificate_serials=await self._revocation.revoke(request.nif, request.reason))


def _item(message: Any) -> Item:
    try:
        return item_of(message)
    except ValueError:
        raise MalformedRequest("an item has an unknown purpose or digest algorithm") from None


def _signed(signed: Signed) -> Any:
    return signer_pb2.SignAnswer(
        items=[
            signer_pb2.SignedItem(
                item_number=item.item,
                state=item.state,
                to_be_signed=item.to_be_signed,
                signature=item.signature,
                chain=item.chain,
                signed_properties=item.signed_properties,
            )
            for item in signed.items
        ],
        result_token=signed.result_token,
        receipt=signed.receipt,
    )
