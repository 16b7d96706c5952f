"""Gate, edge and operator as a core sees them: the typed clients over its real sockets, and a citizen who types."""

import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from authn.agencies import WEB
from authn.client import Envelope, FactorsClient, OTPChallenge, RegistryClient
from authn.envelope import EnvelopeContext, EnvelopePurpose
from authn.officer_client import OfficersClient
from authn.sealing import Label, kdf, unseal
from domain.algorithms import KeyType
from domain.clock import SystemClock
from domain.items import Item, certificate_item, list_sha256
from signer.client import (
    CredentialOperationsClient,
    SignatureActivationClient,
    SignatureAuthorisationClient,
    SignedItems,
)
from tests.testkit.core import EDGE, NIF, PASSWORD, Browser, a_document, code_of
from tests.testkit.officers import an_officer, typed_by_officer

VERIFIER = b"v" * 43


@dataclass(frozen=True)
class Staged:
    """A request as the edge that staged it knows it."""

    id: str
    items: tuple[Item, ...]


@dataclass
class Callers:
    """Everybody who calls one core, and whom they speak for."""

    edge: SignatureActivationClient
    gate: SignatureAuthorisationClient
    factors: FactorsClient
    registry: RegistryClient
    officers: OfficersClient
    credentials: CredentialOperationsClient
    otp: Callable[[str], Awaitable[str]]
    """The code in the SMS of a challenge, once it came."""
    browser: Browser = field(default_factory=Browser)

    async def register(self, *, nif: str = NIF, phone: str = "+34612345678", level: str = "advanced") -> str:
        """Enter a citizen; gives the activation code."""
        officer = an_officer()
        await self.officers.add(officer, role="registrar", nif="00000001R")
        done = await self.officers.register(officer, typed_by_officer(nif=nif, phone=phone, level=level))
        return done.activation_code

    async def activate(self, code: str, *, nif: str = NIF, password: str = PASSWORD) -> None:
        """NIF, e-mail, code, SMS, password."""
        envelope = await self.seal(code, EnvelopePurpose.ACTIVATION_BEGIN, subject=nif)
        begun = await self.factors.activation_begin(nif, "maria@example.org", envelope)
        cid = begun.challenge_id
        envelope = await self.seal(await self.otp(cid), EnvelopePurpose.ACTIVATION_COMPLETE, challenge_id=cid)
        token = self._token(cid, (await self.factors.activation_complete(cid, envelope)).sealed_token)
        envelope = await self.seal(password, EnvelopePurpose.ACTIVATION_SET, token, challenge_id=cid)
        await self.factors.activation_set_password(cid, envelope)

    async def change_password(self, old: str, new: str, *, nif: str = NIF) -> None:
        """Old password, SMS, new password."""
        envelope = await self.seal(old, EnvelopePurpose.PASSWORD_CHANGE_BEGIN, subject=nif)
        cid = (await self.factors.password_change_begin(nif, envelope)).challenge_id
        envelope = await self.seal(await self.otp(cid), EnvelopePurpose.PASSWORD_CHANGE_COMPLETE, challenge_id=cid)
        token = self._token(cid, (await self.factors.password_change_complete(cid, envelope)).sealed_token)
        envelope = await self.seal(new, EnvelopePurpose.PASSWORD_CHANGE_SET, token, challenge_id=cid)
        await self.factors.password_change_set(cid, envelope)

    async def stage(self, documents: int = 1) -> Staged:
        """Stage documents as the citizen's own web does."""
        items = (
            certificate_item(KeyType.P256),
            *(a_document(f"Solicitud {number}") for number in range(1, documents + 1)),
        )
        answer = await self.edge.stage(
            idempotency_key=secrets.token_hex(16),
            grant="",
            items=items,
            pkce_challenge=hashlib.sha256(VERIFIER).digest(),
            return_url=EDGE + "return",
        )
        return Staged(answer.request_id, items)

    async def password_envelope(self, staged: Staged, password: str = PASSWORD, *, nif: str = NIF) -> Envelope:
        return await self.seal(
            password,
            EnvelopePurpose.SIGN_BEGIN,
            subject=nif,
            list_sha256=list_sha256(staged.items),
            client_id=WEB,
        )

    async def begin(self, staged: Staged, password: str = PASSWORD, *, nif: str = NIF) -> OTPChallenge:
        return await self.gate.begin(staged.id, nif, await self.password_envelope(staged, password, nif=nif))

    async def otp_envelope(self, staged: Staged, challenge_id: str, otp: str) -> Envelope:
        return await self.seal(
            otp,
            EnvelopePurpose.SIGN_COMPLETE,
            list_sha256=list_sha256(staged.items),
            client_id=WEB,
            challenge_id=challenge_id,
        )

    async def complete(self, staged: Staged, challenge_id: str, otp: str | None = None) -> bytes:
        """The code from the SMS; gives the single-use code of the return URL."""
        envelope = await self.otp_envelope(staged, challenge_id, otp or await self.otp(challenge_id))
        return code_of(await self.gate.complete(challenge_id, envelope))

    async def redeem(self, staged: Staged, code: bytes, r: bytes = b"r" * 32) -> bytes:
        return (await self.edge.redeem(request_id=staged.id, code=code, pkce_verifier=VERIFIER, r=r)).sad

    async def approved(self, documents: int = 1) -> tuple[Staged, bytes]:
        """Stage, approve, redeem; gives the request and its SAD."""
        staged = await self.stage(documents)
        begun = await self.begin(staged)
        return staged, await self.redeem(staged, await self.complete(staged, begun.challenge_id))

    async def sign(self, sad: bytes, numbers: Sequence[int]) -> SignedItems:
        return await self.edge.sign(sad, numbers)

    async def seal(
        self, secret: str, purpose: EnvelopePurpose, companion: bytes = b"", **context: str | bytes
    ) -> Envelope:
        """Seal a secret to a fresh challenge, as the gate's page does."""
        challenge = await self.factors.challenge()
        bound = EnvelopeContext(purpose=purpose, **context)  # type: ignore[arg-type]
        sealed = self.browser.seal(challenge, bound, secret.encode(), companion)  # type: ignore[arg-type]
        return Envelope(sap_id=sealed.sap_id, nonce=sealed.nonce, enc=sealed.enc, ciphertext=sealed.ciphertext)

    def _token(self, cid: str, sealed: bytes) -> bytes:
        return unseal(Label.ANSWER, kdf(Label.ANSWER, self.browser.cs, cid), sealed, cid)


@asynccontextmanager
async def calling(sockets: Path, otp: Callable[[str], Awaitable[str]]) -> AsyncIterator[Callers]:
    """Connect to the core that listens in ``sockets``."""
    async with (
        grpc.aio.insecure_channel(f"unix:{sockets / 'edge' / 'core.sock'}") as edge,
        grpc.aio.insecure_channel(f"unix:{sockets / 'gate' / 'core.sock'}") as gate,
        grpc.aio.insecure_channel(f"unix:{sockets / 'operator' / 'core.sock'}") as operator,
    ):
        yield Callers(
            edge=SignatureActivationClient(edge),
            gate=SignatureAuthorisationClient(gate),
            factors=FactorsClient(gate),
            registry=RegistryClient(operator),
            officers=OfficersClient(operator, SystemClock()),
            credentials=CredentialOperationsClient(operator),
            otp=otp,
        )
