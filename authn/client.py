"""Typed clients of the core's half that knows who the citizen is and who calls; protobuf stays inside.

Errors come back as the classes of ``domain.errors``: the core puts the stable code into the trailing metadata
``rubrica-code`` and seconds into ``rubrica-retry-after``; the status's details are safe to show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from authn.proto import authn_pb2, authn_pb2_grpc
from domain.errors import DependencyUnavailable, RubricaError, by_code

QUICK_SECONDS = 5.0
"""Deadline of calls that touch the database and at most one HSM operation."""
STRETCHING_SECONDS = 20.0
"""Deadline of calls that may wait for their turn to stretch a password."""

CODE_KEY = "rubrica-code"
RETRY_AFTER_KEY = "rubrica-retry-after"

_UNREACHABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)


class CoreFault(RuntimeError):
    """The core answered with a status that carries no code of ours: a bug there or here, never the caller's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a page sealed and only the core opens (``docs/protocol.md``)."""

    sap_id: str
    nonce: bytes
    enc: bytes = field(repr=False)
    """Uncompressed P-256 point, 65 bytes."""
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What a page needs to seal one secret."""

    nonce: bytes
    expires: datetime
    sap_id: str
    sap_public_key: bytes
    """Uncompressed P-256 point, 65 bytes."""
    statement: str
    """Compact JWS by TOK over SAP id and key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OTPChallenge:
    """A one-time code is on its way, or so it looks."""

    challenge_id: str
    expires: datetime
    reference: str
    """Letters that stand in the SMS too."""
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedToken:
    """The token that the next step must present, sealed to the page's secret."""

    sealed_token: bytes = field(repr=False)
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedLogin:
    """An identity token, sealed to the page's secret."""

    sealed_token: bytes = field(repr=False)
    expires: datetime
    return_url: str
    """Where the browser takes it, as the core's settings have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedClient:
    """A calling system as its operator sees it."""

    client_id: str
    name: str
    state: str
    proof: str
    """``key`` or ``certificate``."""
    rights: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatedClient:
    """A calling system that proved who it is."""

    client_id: str
    client_name: str
    rights: frozenset[str]
    grant: str = field(repr=False)
    """Good for one transaction; empty where none was asked for."""
    return_urls: frozenset[str]


async def call(method: Any, request: Any, *, deadline_seconds: float) -> Any:
    """Make one unary call and turn its failure into an error of ours.

    Args:
        method: The stub's method.
        request: The protobuf message.
        deadline_seconds: After that the call counts as unanswered.

    Raises:
        RubricaError: The subclass that the core named.
        DependencyUnavailable: No answer in time, or nobody there.
        CoreFault: An answer without a code.
    """
    try:
        return await method(request, timeout=deadline_seconds)
    except grpc.aio.AioRpcError as error:
        raise _translated(error) from error


def moment(epoch_seconds: int) -> datetime:
    """Seconds since 1970, as they stand in messages, as an aware time."""
    return datetime.fromtimestamp(epoch_seconds, UTC)


def _translated(error: "grpc.aio.AioRpcError") -> Exception:
    trailer = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    kind = by_code().get(trailer.get(CODE_KEY, ""))
    if kind is not None and kind is not RubricaError:
        seconds = trailer.get(RETRY_AFTER_KEY, "")
        return kind(error.details() or "", retry_after_seconds=int(seconds) if seconds.isdecimal() else None)
    if error.code() in _UNREACHABLE:
        return DependencyUnavailable("the signing core does not answer; try again later", retry_after_seconds=1)
    return CoreFault(f"the core answered {error.code().name} without a code")


def envelope_message(envelope: Envelope, kind: Any) -> Any:
    """The envelope as that service's own message ``kind``."""
    return kind(sap_id=envelope.sap_id, nonce=envelope.nonce, enc=envelope.enc, ciphertext=envelope.ciphertext)


class FactorsClient:
    """What the gate asks: challenges, activation and change of the permanent password, login by PIN."""

    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self._stub = authn_pb2_grpc.FactorsStub(channel)  # type: ignore[no-untyped-call]

    async def challenge(self) -> Challenge:
        """A fresh challenge for one sealed secret."""
        answer = await call(self._stub.Challenge, authn_pb2.ChallengeRequest(), deadline_seconds=QUICK_SECONDS)
        return Challenge(
            nonce=answer.nonce,
            expires=moment(answer.expires),
            sap_id=answer.sap_id,
            sap_public_key=answer.sap_public_key,
            statement=answer.statement,
        )

    async def activation_begin(self, nif: str, email: str, envelope: Envelope) -> OTPChallenge:
        """Present the activation code; the answer is the same whether it was right or not."""
        request = authn_pb2.ActivationBeginRequest(
            nif=nif, email=email, envelope=envelope_message(envelope, authn_pb2.Envelope)
        )
        return _otp(await call(self._stub.ActivationBegin, request, deadline_seconds=STRETCHING_SECONDS))

    async def activation_complete(self, challenge_id: str, envelope: Envelope) -> SealedToken:
        """Present the one-time code of an activation."""
        return await self._complete(self._stub.ActivationComplete, challenge_id, envelope)

    async def activation_set_password(self, challenge_id: str, envelope: Envelope) -> None:
        """Set the first permanent password."""
        await self._set(self._stub.ActivationSetPassword, challenge_id, envelope)

    async def password_change_begin(self, nif: str, envelope: Envelope) -> OTPChallenge:
        """Present the old password; the answer is the same whether it was right or not."""
        request = authn_pb2.PasswordChangeBeginRequest(nif=nif, envelope=envelope_message(envelope, authn_pb2.Envelope))
        return _otp(await call(self._stub.PasswordChangeBegin, request, deadline_seconds=STRETCHING_SECONDS))

    async def password_change_complete(self, challenge_id: str, envelope: Envelope) -> SealedToken:
        """Present the one-time code of a change."""
        return await self._complete(self._stub.PasswordChangeComplete, challenge_id, envelope)

    async def password_change_set(self, challenge_id: str, envelope: Envelope) -> None:
        """Set the new permanent password."""
        await self._set(self._stub.PasswordChangeSet, challenge_id, envelope)

    async def pin_begin(self, nif: str, email: str, audience: str, nonce: str, envelope: Envelope) -> OTPChallenge:
        """Ask for a PIN with a chosen access code; the answer is the same whether one is sent or not.

        Args:
            nif: As typed.
            email: As typed.
            audience: Who asks for the login.
            nonce: The asker's for this login.
            envelope: Holds the access code.
        """
        request = authn_pb2.PinBeginRequest(
            nif=nif,
            email=email,
            audience=audience,
            nonce=nonce,
            envelope=envelope_message(envelope, authn_pb2.Envelope),
        )
        return _otp(await call(self._stub.PinBegin, request, deadline_seconds=QUICK_SECONDS))

    async def pin_complete(self, challenge_id: str, audience: str, nonce: str, envelope: Envelope) -> SealedLogin:
        """Present access code and PIN; gives the identity token, sealed to the page's secret, and where to take it.

        Raises:
            FactorMismatch: Either is wrong, or it is for another asker, or over.
        """
        request = authn_pb2.PinCompleteRequest(
            challenge_id=challenge_id,
            audience=audience,
            nonce=nonce,
            envelope=envelope_message(envelope, authn_pb2.Envelope),
        )
        answer = await call(self._stub.PinComplete, request, deadline_seconds=QUICK_SECONDS)
        return SealedLogin(
            sealed_token=answer.sealed_token, expires=moment(answer.expires), return_url=answer.return_url
        )

    async def _complete(self, method: Any, challenge_id: str, envelope: Envelope) -> SealedToken:
        request = authn_pb2.ActivationCompleteRequest(
            challenge_id=challenge_id, envelope=envelope_message(envelope, authn_pb2.Envelope)
        )
        answer = await call(method, request, deadline_seconds=QUICK_SECONDS)
        return SealedToken(sealed_token=answer.sealed_token, expires=moment(answer.expires))

    async def _set(self, method: Any, challenge_id: str, envelope: Envelope) -> None:
        request = authn_pb2.SetPasswordRequest(
            challenge_id=challenge_id, envelope=envelope_message(envelope, authn_pb2.Envelope)
        )
        await call(method, request, deadline_seconds=STRETCHING_SECONDS)


class CallersClient:
    """What the edge asks: whether a calling system is who it says."""

    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self._stub = authn_pb2_grpc.CallersStub(channel)  # type: ignore[no-untyped-call]

    async def authenticate_client(self, assertion: str, *, transaction_id: str = "") -> AuthenticatedClient:
        """Check a private_key_jwt (RFC 7523).

        Args:
            assertion: Compact JWS; its ``jti`` is used up by this.
            transaction_id: What the grant is to be good for; empty asks for none.

        Raises:
            CallerRefused: The proof does not hold.
            DependencyUnavailable: Nobody knows now whether the client's certificate is revoked.
        """
        request = authn_pb2.AuthenticateClientRequest(assertion=assertion, transaction_id=transaction_id)
        answer = await call(self._stub.AuthenticateClient, request, deadline_seconds=QUICK_SECONDS)
        return AuthenticatedClient(
            client_id=answer.client_id,
            client_name=answer.client_name,
            rights=frozenset(answer.rights),
            grant=answer.grant,
            return_urls=frozenset(answer.return_urls),
        )


class RegistryClient:
    """What an operator on the machine asks."""

    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self._stub = authn_pb2_grpc.RegistryStub(channel)  # type: ignore[no-untyped-call]

    async def change_phone(self, nif: str, phone: str) -> None:
        """Give a citizen another phone; open approvals end."""
        request = authn_pb2.ChangePhoneRequest(nif=nif, phone=phone)
        await call(self._stub.ChangePhone, request, deadline_seconds=QUICK_SECONDS)

    async def unlock(self, nif: str) -> None:
        """End a citizen's block after wrong passwords.

        Raises:
            NotFound: No such citizen, or no password.
        """
        await call(self._stub.Unlock, authn_pb2.UnlockRequest(nif=nif), deadline_seconds=QUICK_SECONDS)

    async def register_client(
        self,
        *,
        client_id: str,
        name: str,
        rights: Sequence[str],
        return_urls: Sequence[str],
        public_key: bytes = b"",
        certificate_chain: Sequence[bytes] = (),
    ) -> None:
        """Enter a calling system, by its key or by its certificate.

        Args:
            client_id: Its name in tokens.
            name: What citizens are shown.
            rights: What it may ask for.
            return_urls: Exact addresses to which its citizens may be sent back.
            public_key: SubjectPublicKeyInfo, DER, P-256.
            certificate_chain: Its certificate, then authorities up to an anchor of the core; DER.

        Raises:
            MalformedRequest: Neither or both, or one that is not accepted; the detail says why.
        """
        request = authn_pb2.RegisterClientRequest(
            client_id=client_id,
            name=name,
            public_key=public_key,
            certificate_chain=certificate_chain,
            rights=rights,
            return_urls=return_urls,
        )
        await call(self._stub.RegisterClient, request, deadline_seconds=QUICK_SECONDS)

    async def set_client_state(self, client_id: str, state: str) -> None:
        """Block a calling system (``BLOCKED``), or listen to it again (``ACTIVE``).

        Raises:
            NotFound: No such client.
        """
        request = authn_pb2.SetClientStateRequest(client_id=client_id, state=state)
        await call(self._stub.SetClientState, request, deadline_seconds=QUICK_SECONDS)

    async def clients(self) -> list[ListedClient]:
        """Every calling system, by its id."""
        answer = await call(self._stub.ListClients, authn_pb2.ListClientsRequest(), deadline_seconds=QUICK_SECONDS)
        return [
            ListedClient(
                client_id=one.client_id,
                name=one.name,
                state=one.state,
                proof=one.proof,
                rights=frozenset(one.rights),
            )
            for one in answer.clients
        ]

    async def token_key(self) -> ec.EllipticCurvePublicKey:
        """The key with which statements, tokens and receipts are signed."""
        return await token_key(self._stub)


async def token_key(stub: Any) -> ec.EllipticCurvePublicKey:
    """The public key TOK, from a service that gives it.

    Args:
        stub: Of the service.

    Raises:
        CoreFault: Not such a key.
    """
    answer = await call(stub.TokenKey, authn_pb2.TokenKeyRequest(), deadline_seconds=QUICK_SECONDS)
    key = load_der_public_key(answer.public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CoreFault("the token key is not an elliptic curve key")
    return key


def _otp(answer: Any) -> OTPChallenge:
    return OTPChallenge(
        challenge_id=answer.challenge_id,
        expires=moment(answer.expires),
        reference=answer.reference,
        tries=answer.tries,
    )
