"""Typed clients of the signature activation module; protobuf stays inside. Errors: see ``authn.client``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import grpc

from authn.client import QUICK_SECONDS, STRETCHING_SECONDS, Envelope, OTPChallenge, call, envelope_message, moment
from domain.items import Item
from signer.messages import item_message, item_of
from signer.proto import signer_pb2, signer_pb2_grpc

SIGN_SECONDS = 60.0
"""Deadline of one chunk of signatures; the first may wait for a certificate."""


class SignedState(StrEnum):
    """What became of an item."""

    SIGNED = "SIGNED"
    SKIPPED = "SKIPPED"


class RequestState(StrEnum):
    """What became of a staged request."""

    STAGED = "STAGED"
    PENDING = "PENDING"
    """Staged, and a one-time code is being waited for."""
    APPROVED = "APPROVED"
    SIGNED = "SIGNED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRequest:
    """A list that waits for its citizen."""

    request_id: str
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the gate shows before it asks for a secret."""

    client_id: str
    client_name: str
    items: tuple[Item, ...]
    expires: datetime
    citizen_named: bool
    return_url: str
    """Of the edge that staged it, as the core checked it."""
    approved: bool
    """Before now: no secret brings it further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeemed:
    """Signature activation data (EN 419 241-1: SAD) and how long they live."""

    sad: bytes = field(repr=False)
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedItem:
    """The core's answer for one item."""

    item_number: int
    state: SignedState
    to_be_signed: bytes
    """CMS signedAttrs as DER SET OF (RFC 5652 §5.4), or ``ds:SignedInfo`` in exclusive C14N."""
    signature: bytes
    """ECDSA: DER for CMS, r ‖ s for XML. RSA: PKCS#1."""
    chain: tuple[bytes, ...]
    """Certificates, DER, the citizen's first."""
    signed_properties: bytes = b""
    """XAdES: ``xades:SignedProperties`` in exclusive C14N."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedItems:
    """The core's answer for a chunk; token and receipt come with the last item of the list."""

    items: tuple[SignedItem, ...]
    result_token: str
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateReport:
    """A staged request as the core sees it."""

    state: RequestState
    item_states: tuple[str, ...]


class SignatureActivationClient:
    """What the edge asks: stage, redeem, sign."""

    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self._stub = signer_pb2_grpc.SignatureActivationStub(channel)  # type: ignore[no-untyped-call]

    async def stage(
        self,
        *,
        idempotency_key: str,
        grant: str,
        items: Sequence[Item],
        pkce_challenge: bytes,
        return_url: str,
        citizen_nif: str = "",
        client_nonce: str = "",
    ) -> StagedRequest:
        """Step 1: leave a list for approval; the same key with the same content gets the same answer.

        Raises:
            CallerRefused: The grant does not hold.
            MalformedRequest: Shape or limits.
        """
        request = signer_pb2.StageRequest(
            idempotency_key=idempotency_key,
            grant=grant,
            items=[item_message(item) for item in items],
            pkce_challenge=pkce_challenge,
            return_url=return_url,
            citizen_nif=citizen_nif,
            client_nonce=client_nonce,
        )
        answer = await call(self._stub.Stage, request, deadline_seconds=QUICK_SECONDS)
        return StagedRequest(request_id=answer.request_id, expires=moment(answer.expires))

    async def redeem(self, *, request_id: str, code: bytes, pkce_verifier: bytes, r: bytes) -> Redeemed:
        """Step 13: turn the single-use code into signature activation data.

        Args:
            request_id: The staged request.
            code: From the address that the gate sent the browser to.
            pkce_verifier: Whose SHA-256 was staged.
            r: 32 random bytes, stored before; another ``r`` with the same code kills the SAD.

        Raises:
            ActivationError: Unknown, used up or expired.
        """
        request = signer_pb2.RedeemRequest(request_id=request_id, code=code, pkce_verifier=pkce_verifier, r=r)
        answer = await call(self._stub.Redeem, request, deadline_seconds=QUICK_SECONDS)
        return Redeemed(sad=answer.sad, expires=moment(answer.expires))

    async def sign(self, sad: bytes, item_numbers: Sequence[int]) -> SignedItems:
        """Steps 14 to 18: sign approved items; asking again gives the stored bytes.

        Raises:
            ActivationError: The SAD does not open these items, or no longer.
            CredentialError: The credential cannot sign.
            DependencyUnavailable: HSM, issuer or log; asking again may help.
        """
        request = signer_pb2.SignRequest(sad=sad, item_numbers=item_numbers)
        answer = await call(self._stub.Sign, request, deadline_seconds=SIGN_SECONDS)
        items = tuple(
            SignedItem(
                item_number=item.item_number,
                state=SignedState(item.state),
                to_be_signed=item.to_be_signed,
                signature=item.signature,
                chain=tuple(item.chain),
                signed_properties=item.signed_properties,
            )
            for item in answer.items
        )
        return SignedItems(items=items, result_token=answer.result_token, receipt=answer.receipt)

    async def request_state(self, request_id: str) -> StateReport:
        """How far a request of this edge has come."""
        request = signer_pb2.RequestStateRequest(request_id=request_id)
        answer = await call(self._stub.RequestState, request, deadline_seconds=QUICK_SECONDS)
        return StateReport(state=RequestState(answer.state), item_states=tuple(answer.item_states))


class SignatureAuthorisationClient:
    """What the gate asks: describe, begin, resend, complete."""

    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self._stub = signer_pb2_grpc.SignatureAuthorisationStub(channel)  # type: ignore[no-untyped-call]

    async def describe(self, request_id: str) -> Description:
        """Who asks for which signatures.

        Raises:
            NotFound: No such request.
            RequestExpired: It is over.
        """
        request = signer_pb2.DescribeRequest(request_id=request_id)
        answer = await call(self._stub.Describe, request, deadline_seconds=QUICK_SECONDS)
        return Description(
            client_id=answer.client_id,
            client_name=answer.client_name,
            items=tuple(item_of(item) for item in answer.items),
            expires=moment(answer.expires),
            citizen_named=answer.citizen_named,
            return_url=answer.return_url,
            approved=answer.approved,
        )

    async def begin(self, request_id: str, nif: str, envelope: Envelope) -> OTPChallenge:
        """Steps 2 to 9: present the sealed password; the answer is the same whether it was right or not."""
        request = signer_pb2.BeginRequest(
            request_id=request_id, nif=nif, envelope=envelope_message(envelope, signer_pb2.Envelope)
        )
        answer = await call(self._stub.Begin, request, deadline_seconds=STRETCHING_SECONDS)
        return OTPChallenge(
            challenge_id=answer.challenge_id,
            expires=moment(answer.expires),
            reference=answer.reference,
            tries=answer.tries,
        )

    async def resend(self, challenge_id: str) -> None:
        """Send the stored message again."""
        request = signer_pb2.ResendRequest(challenge_id=challenge_id)
        await call(self._stub.Resend, request, deadline_seconds=QUICK_SECONDS)

    async def complete(self, challenge_id: str, envelope: Envelope) -> str:
        """Steps 10 to 12: present the sealed one-time code; gives the address to send the browser to.

        Raises:
            FactorMismatch: It did not open the capsule.
        """
        request = signer_pb2.CompleteRequest(
            challenge_id=challenge_id, envelope=envelope_message(envelope, signer_pb2.Envelope)
        )
        answer = await call(self._stub.Complete, request, deadline_seconds=QUICK_SECONDS)
        redirect_url: str = answer.redirect_url
        return redirect_url


class CredentialOperationsClient:
    """What an operator on the machine asks."""

    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self._stub = signer_pb2_grpc.CredentialOperationsStub(channel)  # type: ignore[no-untyped-call]

    async def revoke(self, nif: str, reason: str) -> tuple[str, ...]:
        """Revoke a citizen's certificates; gives their serial numbers.

        Args:
            nif: Whose.
            reason: RFC 5280 §5.3.1 in lower camel case.
        """
        request = signer_pb2.RevokeRequest(nif=nif, reason=reason)
        answer = await call(self._stub.Revoke, request, deadline_seconds=SIGN_SECONDS)
        return tuple(answer.certificate_serials)
