"""What a page at the gate does: describe, seal, begin, complete."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rubrica_client.jws import unbase64url
from rubrica_client.problems import send
from rubrica_client.sealing import (
    Context,
    checked_challenge,
    list_sha256,
    normalized_code,
    normalized_nif,
    normalized_password,
    open_answer,
    seal,
)

CS_BYTES = 32
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestToApprove:
    """A staged request as the gate describes it."""

    request_id: str
    client_id: str
    client_name: str
    items: tuple[Mapping[str, Any], ...]
    list_sha256: bytes
    """Over the items above, computed here."""

    def digest_of(self, number: int) -> bytes:
        """What is approved for document ``number``: of a PDF, or of what an XML signature refers to."""
        documents = [item for item in self.items if item["purpose"] == "sign"]
        item = documents[number - 1]
        (digest,) = item["digests"] or [reference["digest"] for reference in item.get("references", ())]
        return unbase64url(str(digest["value"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingApproval:
    """The password was sent; the one-time code comes by SMS."""

    challenge_id: str
    reference: str
    """Letters that stand in the SMS too: compare them."""
    tries: int
    request: RequestToApprove
    cs: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPassword:
    """An activation or password change that waits for its one-time code."""

    challenge_id: str
    reference: str
    tries: int
    kind: str
    """``activation`` or ``password-change``."""
    cs: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordToken:
    """The right to set a new permanent password, once."""

    challenge_id: str
    kind: str
    token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPIN:
    """A login that waits for the PIN from the SMS."""

    challenge_id: str
    reference: str
    tries: int
    audience: str
    nonce: str
    access_code: bytes = field(repr=False)
    cs: bytes = field(repr=False)


class GateClient:
    """Speaks with a gate; use as a context manager or call ``close``."""

    def __init__(
        self,
        gate_url: str,
        token_key: ec.EllipticCurvePublicKey | bytes,
        *,
        transport: httpx.BaseTransport | None = None,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Nothing is sent yet.

        Args:
            gate_url: The gate's origin.
            token_key: The core's public TOK key or its PEM, got by another way than through the gate.
            transport: Another one for tests.
            randomness: Draws ``cs``.
        """
        self._http = httpx.Client(base_url=gate_url, transport=transport, timeout=TIMEOUT_SECONDS, trust_env=False)
        self._token_key = pinned_key(token_key)
        self._randomness = randomness

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def describe(self, request_id: str) -> RequestToApprove:
        """Who asks for which signatures."""
        answer = send(lambda: self._http.get(f"/v1/requests/{request_id}")).json()
        items = tuple(answer["items"])
        return RequestToApprove(
            request_id=request_id,
            client_id=answer["client_id"],
            client_name=answer["client_name"],
            items=items,
            list_sha256=list_sha256(items),
        )

    def begin(self, request: RequestToApprove, nif: str, password: str) -> PendingApproval:
        """Present the password for exactly this list."""
        cs = self._randomness(CS_BYTES)
        context = Context(
            purpose="sign-begin",
            subject=normalized_nif(nif),
            list_sha256=request.list_sha256,
            client_id=request.client_id,
        )
        body = {"nif": nif, "envelope": self._sealed(context, normalized_password(password), cs)}
        answer = self._post(f"/v1/requests/{request.request_id}/begin", body)
        return PendingApproval(
            challenge_id=answer["challenge_id"],
            reference=answer["reference"],
            tries=answer["tries"],
            request=request,
            cs=cs,
        )

    def resend(self, pending: PendingApproval) -> None:
        """Ask for the same SMS again."""
        self._post(f"/v1/challenges/{pending.challenge_id}/resend", None)

    def complete(self, pending: PendingApproval, otp: str) -> str:
        """Present the one-time code; gives the address where the browser goes on.

        Raises:
            RubricaProblem: ``factor_mismatch``, and how many tries are left is the core's secret.
        """
        context = Context(
            purpose="sign-complete",
            list_sha256=pending.request.list_sha256,
            client_id=pending.request.client_id,
            challenge_id=pending.challenge_id,
        )
        body = {"envelope": self._sealed(context, otp.strip().encode(), pending.cs)}
        answer = self._post(f"/v1/challenges/{pending.challenge_id}/complete", body)
        return str(answer["redirect_url"])

    def begin_activation(self, nif: str, email: str, activation_code: str) -> PendingPassword:
        """Present the activation code from the registration's receipt."""
        cs = self._randomness(CS_BYTES)
        context = Context(purpose="activation-begin", subject=normalized_nif(nif))
        envelope = self._sealed(context, normalized_code(activation_code), cs)
        body = {"nif": nif, "email": email, "envelope": envelope}
        return self._pending("activation", self._post("/v1/activations/begin", body), cs)

    def begin_password_change(self, nif: str, password: str) -> PendingPassword:
        """Present the old password."""
        cs = self._randomness(CS_BYTES)
        context = Context(purpose="password-change-begin", subject=normalized_nif(nif))
        body = {"nif": nif, "envelope": self._sealed(context, normalized_password(password), cs)}
        return self._pending("password-change", self._post("/v1/password-changes/begin", body), cs)

    def complete_otp(self, pending: PendingPassword, otp: str) -> PasswordToken:
        """Present the one-time code of an activation or password change."""
        context = Context(purpose=f"{pending.kind}-complete", challenge_id=pending.challenge_id)
        body = {
            "challenge_id": pending.challenge_id,
            "envelope": self._sealed(context, otp.strip().encode(), pending.cs),
        }
        answer = self._post(f"/v1/{pending.kind}s/complete", body)
        token = open_answer(unbase64url(answer["sealed_token"]), pending.cs, pending.challenge_id)
        return PasswordToken(challenge_id=pending.challenge_id, kind=pending.kind, token=token)

    def begin_pin(self, nif: str, email: str, access_code: str, *, audience: str, nonce: str) -> PendingPIN:
        """Ask for a PIN.

        Args:
            nif: As typed.
            email: The registered address.
            access_code: Four letters or digits that the citizen chooses for this login.
            audience: Who asks for the login.
            nonce: The asker's for this login.
        """
        cs, chosen = self._randomness(CS_BYTES), normalized_code(access_code)
        context = Context(purpose="pin-begin", subject=normalized_nif(nif), client_id=audience)
        envelope = self._sealed(context, chosen, cs)
        body = {"nif": nif, "email": email, "audience": audience, "nonce": nonce, "envelope": envelope}
        answer = self._post("/v1/pins/begin", body)
        return PendingPIN(
            challenge_id=answer["challenge_id"],
            reference=answer["reference"],
            tries=answer["tries"],
            audience=audience,
            nonce=nonce,
            access_code=chosen,
            cs=cs,
        )

    def complete_pin(self, pending: PendingPIN, pin: str) -> str:
        """Present access code and PIN; gives the identity token for whoever asked.

        Raises:
            RubricaProblem: ``factor_mismatch``.
        """
        context = Context(
            purpose="pin-complete",
            subject=pending.nonce,
            client_id=pending.audience,
            challenge_id=pending.challenge_id,
        )
        body = {
            "challenge_id": pending.challenge_id,
            "audience": pending.audience,
            "nonce": pending.nonce,
            "envelope": self._sealed(context, pending.access_code + normalized_code(pin), pending.cs),
        }
        answer = self._post("/v1/pins/complete", body)
        return open_answer(unbase64url(answer["sealed_token"]), pending.cs, pending.challenge_id).decode()

    def set_password(self, token: PasswordToken, new_password: str) -> None:
        """Set the permanent password."""
        context = Context(purpose=f"{token.kind}-set", challenge_id=token.challenge_id)
        envelope = self._sealed(context, normalized_password(new_password), token.token)
        self._post(f"/v1/{token.kind}s/password", {"challenge_id": token.challenge_id, "envelope": envelope})

    def _sealed(self, context: Context, *typed: bytes) -> dict[str, str]:
        answer = send(lambda: self._http.post("/v1/challenges")).json()
        return seal(checked_challenge(answer, self._token_key), context, *typed)

    def _post(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        # The same envelope again gets the core's stored answer, so sending twice is safe.
        found: dict[str, Any] = send(lambda: self._http.post(path, json=body)).json()
        return found

    @staticmethod
    def _pending(kind: str, answer: Mapping[str, Any], cs: bytes) -> PendingPassword:
        return PendingPassword(
            challenge_id=answer["challenge_id"],
            reference=answer["reference"],
            tries=answer["tries"],
            kind=kind,
            cs=cs,
        )


def pinned_key(key: ec.EllipticCurvePublicKey | bytes) -> ec.EllipticCurvePublicKey:
    """The TOK key, from PEM if need be.

    Raises:
        ValueError: Not a P-256 public key.
    """
    loaded = load_pem_public_key(key) if isinstance(key, bytes) else key
    if not isinstance(loaded, ec.EllipticCurvePublicKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise ValueError("the TOK key is a P-256 public key")  # noqa: TRY004 - it is the file's content that is wrong
    return loaded
