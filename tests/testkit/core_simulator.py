"""A core that speaks the real protos over a Unix socket and keeps everything in memory.

It holds to the protocol where an edge, a gate or a client could get it wrong: envelopes are really opened, PKCE and
``r`` really checked, a retried call gets the stored answer. ``faults`` makes the next calls of a method fail or lose
their answer.
"""

import base64
import hashlib
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authn.envelope import EnvelopeContext, EnvelopePurpose
from authn.proto import authn_pb2, authn_pb2_grpc
from authn.sealing import Label, kdf, seal
from domain import canonical, jws
from domain.clock import Clock, to_epoch_seconds
from domain.errors import (
    ActivationError,
    CallerRefused,
    FactorMismatch,
    IdempotencyConflict,
    NotFound,
    RequestExpired,
    RubricaError,
    SADReplayed,
)
from domain.ids import new_id
from domain.items import Item, Purpose, list_sha256
from signer.messages import item_message, item_of
from signer.proto import signer_pb2, signer_pb2_grpc

SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
NIF = "12345678Z"
PASSWORD = "Clave-permanente-1"
ACTIVATION_CODE = "ABCD2345EFGH6789"
EMAIL = "maria@example.org"
LOST = "lost"
"""A fault: the call is carried out and its answer lost."""

SignItem = Callable[[Item], tuple[Any, ...]]
"""Gives what was signed, the value, the chain and, for XAdES, the signed properties."""


def sign_plainly(item: Item) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """Made-up attributes, value and chain, for edges that do not look into them."""
    return b"attributes " + item.digests[0].value, b"signature " + item.digests[0].value, (b"citizen", b"ca")


@dataclass(kw_only=True)
class Staged:
    """A request."""

    request_id: str
    client_id: str
    items: tuple[Item, ...]
    pkce_challenge: bytes
    return_url: str
    citizen_nif: str
    nonce: str
    expires: int
    state: str = "STAGED"
    code: bytes = b""
    r: bytes = b""
    sad: bytes = b""
    sad_dead: bool = False
    signed: dict[int, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Pending:
    """A challenge that waits for its one-time code, or a token for its use."""

    kind: str
    cs: bytes
    request_id: str = ""
    right: bool = False
    tries: int = 3
    token: bytes = b""
    used: bool = False


class CoreSimulator:
    """See the module."""

    def __init__(self, clock: Clock, *, sign_item: SignItem = sign_plainly) -> None:
        self.clock = clock
        self.sign_item = sign_item
        self.token_private_key = ec.generate_private_key(ec.SECP256R1())
        self.sap_private_key = ec.generate_private_key(ec.SECP256R1())
        self.sap_id = new_id()
        self.password = PASSWORD
        self.otp = "123456"
        self.calls: Counter[str] = Counter()
        self.faults: defaultdict[str, list[RubricaError | grpc.StatusCode | str | None]] = defaultdict(list)
        self.staged: dict[str, Staged] = {}
        self.pending: dict[str, Pending] = {}
        self.clients: dict[str, tuple[str, ec.EllipticCurvePublicKey, tuple[str, ...]]] = {}
        self.grants: dict[str, str] = {}
        self.sad_seconds = 300
        self.rights = ["sign", "name_citizen"]
        self.clock_error_seconds = 0
        self._by_key: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._nonces: set[bytes] = set()
        self._answers: dict[bytes, Any] = {}
        self._used_jti: set[str] = set()

    @property
    def token_key(self) -> ec.EllipticCurvePublicKey:
        return self.token_private_key.public_key()

    @property
    def sap_point(self) -> bytes:
        return self.sap_private_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def register_client(self, client_id: str, name: str, *return_urls: str) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        self.clients[client_id] = (name, key.public_key(), return_urls)
        return key

    def token(self, kind: str, claims: dict[str, Any]) -> str:
        signed = jws.signing_input({"typ": kind}, claims)
        return jws.assemble(signed, self.token_private_key.sign(signed, ec.ECDSA(hashes.SHA256())))

    def now(self) -> int:
        return to_epoch_seconds(self.clock.now()) + self.clock_error_seconds

    @asynccontextmanager
    async def serving(self, socket: Path) -> AsyncIterator["grpc.aio.Channel"]:
        """Serve all callers on one socket; gives a channel to it."""
        server = grpc.aio.server()
        signer_pb2_grpc.add_SignatureActivationServicer_to_server(_Methods(self), server)  # type: ignore[no-untyped-call] # generated
        signer_pb2_grpc.add_SignatureAuthorisationServicer_to_server(_Methods(self), server)  # type: ignore[no-untyped-call] # generated
        authn_pb2_grpc.add_FactorsServicer_to_server(_Methods(self), server)  # type: ignore[no-untyped-call] # generated
        authn_pb2_grpc.add_CallersServicer_to_server(_Methods(self), server)  # type: ignore[no-untyped-call] # generated
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
                yield channel
        finally:
            await server.stop(None)

    # --- callers

    def AuthenticateClient(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        try:
            client_id = str(jws.unverified_claims(request.assertion)["iss"])
            name, key, return_urls = self.clients[client_id]
            claims = jws.verify(request.assertion, key)
        except (KeyError, jws.JWSInvalid):
            raise CallerRefused("the caller could not prove who it is") from None
        if claims["jti"] in self._used_jti or claims["exp"] <= self.now():
            raise CallerRefused("the caller could not prove who it is")
        self._used_jti.add(claims["jti"])
        grant = ""
        if request.transaction_id:
            grant = secrets.token_hex(8)
            self.grants[grant] = client_id
        return authn_pb2.AuthenticateClientAnswer(
            client_id=client_id, client_name=name, rights=self.rights, grant=grant, return_urls=return_urls
        )

    # --- activation

    def Stage(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        client_id = self.grants.get(request.grant, "") if request.grant else ""
        if request.grant and not client_id:
            raise CallerRefused("no such grant")
        content = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        known = self._by_key.get((client_id, request.idempotency_key))
        if known is not None and known[0] != content:
            raise IdempotencyConflict("another content")
        if known is None:
            request_id = new_id()
            self._by_key[client_id, request.idempotency_key] = (content, request_id)
            self.staged[request_id] = Staged(
                request_id=request_id,
                client_id=client_id or "web",
                items=tuple(item_of(item) for item in request.items),
                pkce_challenge=request.pkce_challenge,
                return_url=request.return_url,
                citizen_nif=request.citizen_nif,
                nonce=request.client_nonce,
                expires=self.now() + 3600,
            )
        else:
            request_id = known[1]
        return signer_pb2.StageAnswer(request_id=request_id, expires=self.staged[request_id].expires)

    def RequestState(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        staged = self._staged(request.request_id)
        awaited = any(
            each.request_id == staged.request_id and each.tries and not each.used for each in self.pending.values()
        )
        state = "PENDING" if staged.state == "STAGED" and awaited else staged.state
        return signer_pb2.RequestStateAnswer(state=state)

    def Redeem(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        staged = self._staged(request.request_id)
        if not staged.code or request.code != staged.code:
            raise ActivationError("refused")
        if hashlib.sha256(request.pkce_verifier).digest() != staged.pkce_challenge:
            raise ActivationError("refused")
        if staged.r and staged.r != request.r:
            staged.sad_dead = True
            raise SADReplayed("refused")
        staged.r = request.r
        staged.sad = kdf(Label.SAD, request.r, request.code)
        return signer_pb2.RedeemAnswer(sad=staged.sad, expires=self.now() + self.sad_seconds)

    def Sign(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        staged = next((each for each in self.staged.values() if each.sad and each.sad == request.sad), None)
        if staged is None or staged.sad_dead:
            raise ActivationError("refused")
        answers = []
        for number in request.item_numbers:
            if not 0 <= number < len(staged.items):
                raise ActivationError("refused")
            if number not in staged.signed:
                staged.signed[number] = self._signed(staged, number)
            answers.append(staged.signed[number])
        answer = signer_pb2.SignAnswer(items=answers)
        if len(staged.signed) == len(staged.items):
            staged.state = "SIGNED"
            answer.result_token = self.token(
                "result+jwt",
                {
                    "iss": "rubrica",
                    "aud": staged.client_id,
                    "request": staged.request_id,
                    "nonce": staged.nonce,
                    "exp": self.now() + 600,
                },
            )
            answer.receipt = self.token("receipt+jwt", {"iss": "rubrica", "request": staged.request_id})
        return answer

    def _signed(self, staged: Staged, number: int) -> Any:
        item = staged.items[number]
        if item.purpose is Purpose.CERTIFICATE:
            return signer_pb2.SignedItem(item_number=number, state="SKIPPED")
        to_be_signed, signature, chain, *properties = self.sign_item(item)
        return signer_pb2.SignedItem(
            item_number=number,
            state="SIGNED",
            to_be_signed=to_be_signed,
            signature=signature,
            chain=chain,
            signed_properties=properties[0] if properties else b"",
        )

    # --- authorisation

    def Describe(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        staged = self._staged(request.request_id)
        if staged.expires <= self.now():
            raise RequestExpired("over")
        return signer_pb2.DescribeAnswer(
            client_id=staged.client_id,
            client_name=self.clients[staged.client_id][0] if staged.client_id in self.clients else "",
            items=[item_message(item) for item in staged.items],
            expires=staged.expires,
            citizen_named=bool(staged.citizen_nif),
            return_url=staged.return_url,
            approved=bool(staged.code),
        )

    def Begin(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        staged = self._staged(request.request_id)
        nif = "".join(character for character in request.nif.upper() if character.isalnum())
        context = EnvelopeContext(
            purpose=EnvelopePurpose.SIGN_BEGIN,
            subject=nif,
            list_sha256=list_sha256(staged.items),
            client_id=staged.client_id,
        )

        def begin(password: bytes, cs: bytes) -> Any:
            right = password == self.password.encode() and nif == NIF and staged.citizen_nif in {"", nif}
            cid = self._pend(Pending(kind="sign", cs=cs, request_id=staged.request_id, right=right))
            return signer_pb2.BeginAnswer(challenge_id=cid, expires=self.now() + 300, reference="ABCDEF", tries=3)

        return self._opened(request.envelope, context, begin)

    def Resend(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        if request.challenge_id not in self.pending:
            raise FactorMismatch("not accepted")
        return signer_pb2.ResendAnswer()

    def Complete(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        pending = self._pending(request.challenge_id, "sign")
        staged = self.staged[pending.request_id]
        context = EnvelopeContext(
            purpose=EnvelopePurpose.SIGN_COMPLETE,
            list_sha256=list_sha256(staged.items),
            client_id=staged.client_id,
            challenge_id=request.challenge_id,
        )

        def complete(otp: bytes, cs: bytes) -> Any:
            self._try(pending, otp, cs)
            staged.code, staged.state = secrets.token_bytes(32), "APPROVED"
            code = base64.urlsafe_b64encode(staged.code).rstrip(b"=").decode()
            return signer_pb2.CompleteAnswer(
                redirect_url=f"{staged.return_url}?request={staged.request_id}&code={code}"
            )

        return self._opened(request.envelope, context, complete)

    # --- factors

    def Challenge(self, _request: Any) -> Any:  # noqa: N802 - the proto's name
        nonce = secrets.token_bytes(16)
        self._nonces.add(nonce)
        key = base64.urlsafe_b64encode(self.sap_point).rstrip(b"=").decode()
        claims = {"sap_id": self.sap_id, "key": key, "nbf": self.now() - 60, "exp": self.now() + 86400}
        return authn_pb2.ChallengeAnswer(
            nonce=nonce,
            expires=self.now() + 120,
            sap_id=self.sap_id,
            sap_public_key=self.sap_point,
            statement=self.token("sap+jwt", claims),
        )

    def ActivationBegin(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        right = request.nif.upper() == NIF and request.email == EMAIL
        return self._factor_begin(request, "activation", right, ACTIVATION_CODE.encode())

    def ActivationComplete(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        return self._factor_complete(request, "activation")

    def ActivationSetPassword(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        return self._factor_set(request, "activation")

    def PasswordChangeBegin(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        return self._factor_begin(request, "password-change", request.nif.upper() == NIF, self.password.encode())

    def PasswordChangeComplete(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        return self._factor_complete(request, "password-change")

    def PasswordChangeSet(self, request: Any) -> Any:  # noqa: N802 - the proto's name
        return self._factor_set(request, "password-change")

    def _factor_begin(self, request: Any, kind: str, right: bool, wanted: bytes) -> Any:
        context = EnvelopeContext(purpose=EnvelopePurpose(f"{kind}-begin"), subject=request.nif.upper())

        def begin(secret: bytes, cs: bytes) -> Any:
            cid = self._pend(Pending(kind=kind, cs=cs, right=right and secret == wanted))
            return authn_pb2.OTPAnswer(challenge_id=cid, expires=self.now() + 300, reference="ABCDEF", tries=3)

        return self._opened(request.envelope, context, begin)

    def _factor_complete(self, request: Any, kind: str) -> Any:
        pending = self._pending(request.challenge_id, kind)
        context = EnvelopeContext(purpose=EnvelopePurpose(f"{kind}-complete"), challenge_id=request.challenge_id)

        def complete(otp: bytes, cs: bytes) -> Any:
            self._try(pending, otp, cs)
            pending.token = secrets.token_bytes(32)
            sealed = seal(kdf(Label.ANSWER, cs, request.challenge_id), pending.token, request.challenge_id)
            return authn_pb2.TokenAnswer(sealed_token=sealed, expires=self.now() + 300)

        return self._opened(request.envelope, context, complete)

    def _factor_set(self, request: Any, kind: str) -> Any:
        pending = self._pending(request.challenge_id, kind)
        context = EnvelopeContext(purpose=EnvelopePurpose(f"{kind}-set"), challenge_id=request.challenge_id)

        def set_password(password: bytes, token: bytes) -> Any:
            if not pending.token or token != pending.token:
                raise FactorMismatch("not accepted")
            self.password = password.decode()
            return authn_pb2.SetPasswordAnswer()

        return self._opened(request.envelope, context, set_password)

    # --- inside

    def _opened(self, envelope: Any, context: EnvelopeContext, then: Callable[[bytes, bytes], Any]) -> Any:
        name = hashlib.sha256(envelope.SerializeToString(deterministic=True)).digest()
        if name in self._answers:
            return self._answers[name]
        if envelope.nonce not in self._nonces or envelope.sap_id != self.sap_id:
            raise FactorMismatch("not accepted")
        self._nonces.discard(envelope.nonce)
        info = context.info(envelope.sap_id, envelope.nonce)
        try:
            opened = SUITE.decrypt(envelope.enc + envelope.ciphertext, self.sap_private_key, info)
            secret, second = canonical.decode(opened, 2)
        except (InvalidTag, ValueError):
            raise FactorMismatch("not accepted") from None
        answer = then(secret or b"", second or b"")
        self._answers[name] = answer
        return answer

    def _pend(self, pending: Pending) -> str:
        challenge_id = new_id()
        self.pending[challenge_id] = pending
        return challenge_id

    def _pending(self, challenge_id: str, kind: str) -> Pending:
        pending = self.pending.get(challenge_id)
        if pending is None or pending.kind != kind:
            raise FactorMismatch("not accepted")
        return pending

    def _try(self, pending: Pending, otp: bytes, cs: bytes) -> None:
        if pending.tries == 0 or pending.used:
            raise FactorMismatch("not accepted")
        pending.tries -= 1
        if not pending.right or otp != self.otp.encode() or cs != pending.cs:
            raise FactorMismatch("not accepted")
        pending.used = True

    def _staged(self, request_id: str) -> Staged:
        staged = self.staged.get(request_id)
        if staged is None:
            raise NotFound("no such request")
        return staged


class _Methods:
    """Turns the simulator's methods into servicer methods, counted and with faults."""

    def __init__(self, simulator: CoreSimulator) -> None:
        self._simulator = simulator

    def __getattr__(self, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        def unimplemented(_request: Any) -> Any:
            raise AssertionError(f"the simulator does not play {name}")

        answer_of = getattr(self._simulator, name, unimplemented)

        async def method(request: Any, context: Any) -> Any:
            self._simulator.calls[name] += 1
            faults = self._simulator.faults[name]
            fault = faults.pop(0) if faults else None
            if isinstance(fault, grpc.StatusCode):
                await context.abort(fault, "made to fail")
            try:
                if isinstance(fault, RubricaError):
                    raise fault
                answer = answer_of(request)
            except RubricaError as error:
                trailer = [("rubrica-code", error.code)]
                if error.retry_after_seconds is not None:
                    trailer.append(("rubrica-retry-after", str(error.retry_after_seconds)))
                await context.abort(grpc.StatusCode.ABORTED, error.public_detail, tuple(trailer))
            if fault == LOST:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
            return answer

        return method
