"""Endpoints of the gate. Each relays one sealed message and keeps nothing: the core decides everything.

``Idempotency-Key`` is accepted and not needed, for the core makes every call safe to repeat. A sealed call has its key
in itself: the envelope is sealed anew for each attempt, and the same one gets the core's stored answer. What is asked
for twice without an envelope, a challenge or a description, spends nothing. A message is sent again at most twice for
each challenge, a minute apart, so a repeated ``resend`` within that minute does nothing. To keep keys here would need a
memory, and the gate has none.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request

from api.gate.schemas import (
    ActivationBeginBody,
    BeginBody,
    ChallengeBody,
    ChallengeView,
    CompleteBody,
    Done,
    LoginView,
    OTPView,
    PinBeginBody,
    PinCompleteBody,
    RedirectView,
    RequestView,
    TokenView,
)
from api.problems import responses
from authn.client import FactorsClient
from signer.client import SignatureAuthorisationClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Relays:
    """The core's two services that the gate may call."""

    authorisation: SignatureAuthorisationClient
    factors: FactorsClient


def relays(request: Request) -> Relays:
    """The application's clients."""
    found: Relays = request.app.state.relays
    return found


def _accepted(
    _idempotency_key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            max_length=255,
            description="Accepted and not needed: every call here may be repeated as it is.",
        ),
    ] = "",
) -> None:
    """Declared, so that clients may send it everywhere."""


Relaying = Annotated[Relays, Depends(relays)]
RequestId = Annotated[str, Path(max_length=64)]
ChallengeId = Annotated[str, Path(max_length=64)]

router = APIRouter(prefix="/v1", tags=["gate"], dependencies=[Depends(_accepted)])

_FACTORS = responses(403, 404, 409, 410, 413, 429)


@router.post("/challenges", responses=responses())
async def challenge(relaying: Relaying) -> ChallengeView:
    """A fresh challenge for one sealed secret."""
    return ChallengeView.of(await relaying.factors.challenge())


@router.get("/requests/{request_id}", responses=responses(404, 410))
async def describe(request_id: RequestId, relaying: Relaying) -> RequestView:
    """Who asks for which signatures; the page hashes this list itself."""
    return RequestView.of(await relaying.authorisation.describe(request_id))


@router.post("/requests/{request_id}/begin", status_code=202, responses=_FACTORS)
async def begin(request_id: RequestId, body: BeginBody, relaying: Relaying) -> OTPView:
    """Present the password; the answer is the same whether it was right or not."""
    return OTPView.of(await relaying.authorisation.begin(request_id, body.nif, body.envelope.parsed()))


@router.post("/challenges/{challenge_id}/resend", status_code=202, responses=_FACTORS)
async def resend(challenge_id: ChallengeId, relaying: Relaying) -> Done:
    """Send the same message again: at most twice for each challenge, a minute apart; sooner, nothing is sent."""
    await relaying.authorisation.resend(challenge_id)
    return Done()


@router.post("/challenges/{challenge_id}/complete", responses=_FACTORS)
async def complete(challenge_id: ChallengeId, body: CompleteBody, relaying: Relaying) -> RedirectView:
    """Present the one-time code; the browser goes on to where the answer says."""
    return RedirectView(redirect_url=await relaying.authorisation.complete(challenge_id, body.envelope.parsed()))


@router.post("/activations/begin", status_code=202, responses=_FACTORS)
async def activation_begin(body: ActivationBeginBody, relaying: Relaying) -> OTPView:
    """Present the activation code."""
    return OTPView.of(await relaying.factors.activation_begin(body.nif, body.email, body.envelope.parsed()))


@router.post("/activations/complete", responses=_FACTORS)
async def activation_complete(body: ChallengeBody, relaying: Relaying) -> TokenView:
    """Present the one-time code of an activation."""
    return TokenView.of(await relaying.factors.activation_complete(body.challenge_id, body.envelope.parsed()))


@router.post("/activations/password", responses=responses(403, 404, 409, 410, 413, 422, 429))
async def activation_password(body: ChallengeBody, relaying: Relaying) -> Done:
    """Set the first permanent password."""
    await relaying.factors.activation_set_password(body.challenge_id, body.envelope.parsed())
    return Done()


@router.post("/password-changes/begin", status_code=202, responses=_FACTORS)
async def password_change_begin(body: BeginBody, relaying: Relaying) -> OTPView:
    """Present the old password."""
    return OTPView.of(await relaying.factors.password_change_begin(body.nif, body.envelope.parsed()))


@router.post("/password-changes/complete", responses=_FACTORS)
async def password_change_complete(body: ChallengeBody, relaying: Relaying) -> TokenView:
    """Present the one-time code of a change."""
    return TokenView.of(await relaying.factors.password_change_complete(body.challenge_id, body.envelope.parsed()))


@router.post("/password-changes/password", responses=responses(403, 404, 409, 410, 413, 422, 429))
async def password_change_password(body: ChallengeBody, relaying: Relaying) -> Done:
    """Set the new permanent password."""
    await relaying.factors.password_change_set(body.challenge_id, body.envelope.parsed())
    return Done()


@router.post("/pins/begin", status_code=202, responses=_FACTORS)
async def pin_begin(body: PinBeginBody, relaying: Relaying) -> OTPView:
    """Ask for a PIN with a chosen access code; the answer is the same whether one is sent or not."""
    return OTPView.of(
        await relaying.factors.pin_begin(body.nif, body.email, body.audience, body.nonce, body.envelope.parsed())
    )


@router.post("/pins/complete", responses=_FACTORS)
async def pin_complete(body: PinCompleteBody, relaying: Relaying) -> LoginView:
    """Present access code and PIN; the token is an identity of level low."""
    return LoginView.of(
        await relaying.factors.pin_complete(body.challenge_id, body.audience, body.nonce, body.envelope.parsed())
    )
