"""The real core in this process, with a citizen to play: real database and PKI code, a phone that keeps messages."""

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cbor2
import sqlalchemy as sa
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit.log import log_pending
from authn.challenge import Challenge
from authn.envelope import Envelope, EnvelopeContext, EnvelopePurpose
from authn.messages.outbox import MessageState, message
from authn.otp.challenges import Begun
from authn.sealing import Label, kdf, unseal
from certs.issuer import CitizenSubject, IssuedCertificate, OrganisationSubject, RevocationReason
from domain import canonical
from domain.algorithms import KeyType
from domain.clock import Clock, SystemClock
from domain.digests import Digest
from domain.ids import ClientId
from domain.items import Item, Purpose, certificate_item
from hsm.vault import Vault
from rubrica.core import Core, CoreOutside, wire
from rubrica.database import make_engine
from rubrica.settings.core import CoreSettings
from signer.closing import Signed
from signer.requests import StagedRequest
from tests.testkit.officers import enter
from tests.testkit.pki import InMemoryPKI
from tests.testkit.vault import FakeVault

NIF = "12345678Z"
PASSWORD = "Correcto-Caballo-9"
EDGE = "http://127.0.0.1:8000/"
SUITE = hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class Phone:
    """An SMS gateway that keeps what it is given and drops twins by id, as real ones do."""

    def __init__(self) -> None:
        self.messages: dict[str, tuple[str, str]] = {}
        self.handed_over = 0

    async def hand_over(self, message_id: str, phone: str, text: str, *, deadline_seconds: float) -> None:
        del deadline_seconds
        self.handed_over += 1
        self.messages.setdefault(message_id, (phone, text))

    def code(self, challenge_id: str) -> str:
        """The one-time code of the message that belongs to a challenge."""
        (found,) = re.findall(r"#(\d{6})$", self.messages[challenge_id][1])
        return str(found)


class InProcessIssuer:
    """The issuer port over the development PKI's own code."""

    def __init__(self, pki: InMemoryPKI) -> None:
        self.pki = pki
        self.issued = 0
        self.revoked: list[int] = []
        self.fault: Exception | None = None
        self.before_answer: asyncio.Event | None = None

    async def issue(
        self, csr: bytes, subject: CitizenSubject | OrganisationSubject, *, idempotency_key: str
    ) -> IssuedCertificate:
        if self.fault is not None:
            raise self.fault
        self.issued += 1
        answer = self.pki.authority.issue(csr, subject, idempotency_key)
        if self.before_answer is not None:
            await self.before_answer.wait()
        return answer

    async def revoke(self, serial: int, reason: RevocationReason) -> None:
        if self.fault is not None:
            raise self.fault
        self.pki.authority.revoke(serial, reason)
        self.revoked.append(serial)


@dataclass
class Browser:
    """What one page keeps: cs and the sealed messages it made."""

    cs: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def seal(self, challenge: Challenge, context: EnvelopeContext, secret: bytes, companion: bytes = b"") -> Envelope:
        """Seal as page and client do, by the library's HPKE."""
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), challenge.sap_public_key)
        plaintext = canonical.encode(secret, companion or self.cs)
        sealed = SUITE.encrypt(plaintext, key, context.info(challenge.sap_id, challenge.nonce))
        return Envelope(challenge.sap_id, challenge.nonce, sealed[:65], sealed[65:])


class Meanwhile(FakeVault):
    """Once ``meanwhile`` is set, it happens after the key was used and before the signature is released."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def sign(self, wrapped: bytes, spki: bytes, digests: Sequence[bytes], **options: Any) -> list[bytes]:
        signatures = await super().sign(wrapped, spki, digests, **options)
        happening, self.meanwhile = self.meanwhile, None
        if happening is not None:
            await happening()
        return signatures


@dataclass
class Played:
    """A core with everything around it."""

    core: Core
    phone: Phone
    issuer: InProcessIssuer
    pki: InMemoryPKI
    vault: Vault
    browser: Browser = field(default_factory=Browser)
    verifier: bytes = b"v" * 43

    async def register(self, *, nif: str = NIF, phone: str = "+34612345678", level: str = "advanced") -> str:
        """Enter a citizen; gives the activation code."""
        done = await enter(
            self.core.engine,
            self.core.registration,
            nif=nif,
            given_name="María",
            first_surname="Núñez",
            second_surname="Ibáñez",
            phone=phone,
            email="maria@example.org",
            level=level,
            proof="document:office-12",
        )
        return done.activation_code

    async def activate(self, code: str, *, nif: str = NIF, password: str = PASSWORD) -> None:
        """NIF, e-mail, code, SMS, password."""
        begun = await self.activation_begin(code, nif=nif)
        cid, token = await self.activation_token(begun)
        context = EnvelopeContext(purpose=EnvelopePurpose.ACTIVATION_SET, challenge_id=cid)
        envelope = self.browser.seal(await self.mint(), context, password.encode(), token)
        await self.core.password_activation.set_password(cid, envelope)

    async def activation_begin(self, code: str, *, nif: str = NIF, email: str = "maria@example.org") -> Begun:
        context = EnvelopeContext(purpose=EnvelopePurpose.ACTIVATION_BEGIN, subject=nif)
        envelope = self.browser.seal(await self.mint(), context, code.encode())
        return await self.core.password_activation.begin(nif, email, envelope)

    async def activation_token(self, begun: Begun, otp: str | None = None) -> tuple[str, bytes]:
        context = EnvelopeContext(purpose=EnvelopePurpose.ACTIVATION_COMPLETE, challenge_id=begun.challenge_id)
        otp = otp or await self.otp(begun.challenge_id)
        envelope = self.browser.seal(await self.mint(), context, otp.encode())
        return await self._token(EnvelopePurpose.ACTIVATION_COMPLETE, begun.challenge_id, envelope)

    async def change_password(self, old: str, new: str, *, nif: str = NIF) -> None:
        """Old password, SMS, new password."""
        set_password = await self.prove_for_change(old, new, nif=nif)
        await set_password()

    async def prove_for_change(self, old: str, new: str, *, nif: str = NIF) -> Callable[[], Awaitable[None]]:
        """Old password and SMS; gives the last step, ready to be done."""
        context = EnvelopeContext(purpose=EnvelopePurpose.PASSWORD_CHANGE_BEGIN, subject=nif)
        envelope = self.browser.seal(await self.mint(), context, old.encode())
        begun = await self.core.password_change.begin(nif, envelope)
        context = EnvelopeContext(purpose=EnvelopePurpose.PASSWORD_CHANGE_COMPLETE, challenge_id=begun.challenge_id)
        envelope = self.browser.seal(await self.mint(), context, (await self.otp(begun.challenge_id)).encode())
        cid, token = await self._token(EnvelopePurpose.PASSWORD_CHANGE_COMPLETE, begun.challenge_id, envelope)
        context = EnvelopeContext(purpose=EnvelopePurpose.PASSWORD_CHANGE_SET, challenge_id=cid)
        last = self.browser.seal(await self.mint(), context, new.encode(), token)
        return lambda: self.core.password_change.set_password(cid, last)

    async def _token(self, purpose: EnvelopePurpose, cid: str, envelope: Envelope) -> tuple[str, bytes]:
        challenge = await self.core.otp.find(cid)
        granted = await self.core.grants.complete(challenge.purpose, purpose, cid, envelope)
        key = kdf(Label.ANSWER, self.browser.cs, cid)
        return cid, unseal(Label.ANSWER, key, granted.sealed_token, cid)

    async def mint(self) -> Challenge:
        return await self.core.challenges.mint()

    async def otp(self, challenge_id: str) -> str:
        """The code in the SMS of a challenge."""
        await self.handed_over(challenge_id)
        return self.phone.code(challenge_id)

    async def handed_over(self, challenge_id: str) -> None:
        """Wait for the SMS of a challenge, as long as the outbox has anything left to hand over."""
        while challenge_id not in self.phone.messages:
            waiting = MessageState.WAITING.value in {row["state"] for row in await self.rows(message)}
            # It may have come while the table was read.
            if not waiting and challenge_id not in self.phone.messages:
                raise AssertionError("no SMS came")
            await asyncio.sleep(0.01)

    async def stage(self, documents: int = 1, *, key_type: KeyType = KeyType.P256, **changes: object) -> StagedRequest:
        """Stage documents as an edge does."""
        algorithm = {KeyType.P256: "ES256", KeyType.RSA3072: "RS256"}[key_type]
        items = [
            certificate_item(key_type),
            *(a_document(f"Solicitud {number}", algorithm=algorithm) for number in range(1, documents + 1)),
        ]
        arguments: dict[str, object] = {
            "grant": "",
            "items": items,
            "idempotency_key": secrets.token_hex(16),
            "pkce_challenge": hashlib.sha256(self.verifier).digest(),
            "return_url": EDGE + "return",
            "citizen_nif": "",
            "client_nonce": "n-1",
        }
        return await self.core.activation.stage(**{**arguments, **changes})  # type: ignore[arg-type]

    async def grant(self, transaction_id: str) -> str:
        """What the edge is given for a transaction of an agency, which may name citizens."""
        agency = ClientId("agency")
        async with self.core.engine.begin() as connection:
            if await self.core.callers.find(connection, agency) is None:
                key = ec.generate_private_key(ec.SECP256R1()).public_key()
                await self.core.callers.register(
                    connection,
                    client_id=agency,
                    name="Ayuntamiento",
                    public_key=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
                    rights=["sign", "name_citizen"],
                    return_urls=["https://agency.example/back"],
                )
            return await self.core.callers.grant(connection, agency, transaction_id, secrets.token_bytes)

    async def password_envelope(self, staged: StagedRequest, *, password: str = PASSWORD, nif: str = NIF) -> Envelope:
        context = EnvelopeContext(
            purpose=EnvelopePurpose.SIGN_BEGIN,
            subject=nif,
            list_sha256=staged.list_sha256(),
            client_id=staged.client_id,
        )
        return self.browser.seal(await self.mint(), context, password.encode())

    async def begin(self, staged: StagedRequest, *, password: str = PASSWORD, nif: str = NIF) -> Begun:
        envelope = await self.password_envelope(staged, password=password, nif=nif)
        return await self.core.activation.begin(staged.id, nif, envelope)

    async def otp_envelope(self, staged: StagedRequest, begun: Begun, otp: str) -> Envelope:
        context = EnvelopeContext(
            purpose=EnvelopePurpose.SIGN_COMPLETE,
            list_sha256=staged.list_sha256(),
            client_id=staged.client_id,
            challenge_id=begun.challenge_id,
        )
        return self.browser.seal(await self.mint(), context, otp.encode())

    async def complete(self, staged: StagedRequest, begun: Begun, otp: str | None = None) -> bytes:
        """The code from the SMS; gives the single-use code of the return URL."""
        otp = otp or await self.otp(begun.challenge_id)
        url = await self.core.activation.complete(begun.challenge_id, await self.otp_envelope(staged, begun, otp))
        return code_of(url)

    async def approve(self, documents: int = 1, **changes: object) -> tuple[StagedRequest, bytes]:
        """Stage, password, SMS; gives the request and its code."""
        staged = await self.stage(documents, **changes)  # type: ignore[arg-type]
        return staged, await self.complete(staged, await self.begin(staged))

    async def redeem(self, staged: StagedRequest, code: bytes, r: bytes = b"r" * 32) -> bytes:
        return (await self.core.activation.redeem(staged.id, code, self.verifier, r)).sad

    async def approved(self, documents: int = 1, **changes: object) -> tuple[StagedRequest, bytes]:
        """Stage, approve, redeem; gives the request and its SAD."""
        staged, code = await self.approve(documents, **changes)
        return staged, await self.redeem(staged, code)

    async def sign(self, sad: bytes, numbers: Sequence[int] = (0, 1)) -> Signed:
        return await self.core.signing.sign(sad, numbers)

    async def leaves(self, tag: str | None = None) -> list[dict[str, object]]:
        """The log, decoded, oldest first."""
        async with self.core.engine.connect() as connection:
            found = await connection.execute(sa.select(log_pending.c.leaf).order_by(log_pending.c.position))
            leaves = [cbor2.loads(leaf) for leaf in found.scalars()]
        return [leaf for leaf in leaves if tag is None or leaf["tag"] == tag]

    async def execute(self, statement: sa.sql.base.Executable) -> None:
        """Play the one who edits rows behind the core's back."""
        async with self.core.engine.begin() as connection:
            await connection.execute(statement)

    async def rows(self, table: sa.Table) -> list[dict[str, object]]:
        async with self.core.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]


def a_document(title: str = "Solicitud", *, algorithm: str = "ES256", **changes: object) -> Item:
    values: dict[str, object] = {
        "purpose": Purpose.SIGN,
        "algorithm": algorithm,
        "format": "pades",
        "packaging": "enveloped",
        "digests": (Digest.of(title.encode()),),
        "title": title,
    }
    return Item(**{**values, **changes})  # type: ignore[arg-type]


def code_of(url: str) -> bytes:
    """The single-use code in a return URL."""
    (code,) = parse_qs(urlsplit(url).query)["code"]
    return base64.urlsafe_b64decode(code + "=")


def core_settings(folder: Path, **changes: object) -> CoreSettings:
    values: dict[str, object] = {
        "state_dir": folder / "state",
        "sockets_dir": folder / "sockets",
        "database_url": f"sqlite+aiosqlite:///{folder / 'core.db'}",
        "token_pin_file": folder / "pin",
        "issuer_socket": folder / "issuer.sock",
        "trust_anchors_file": folder / "root.pem",
        "gate_host": "localhost",
        "edge_addresses": (EDGE,),
        "client_audience": EDGE,
        "sms_url": "http://127.0.0.1:1/messages",
        "argon2_time_cost": 1,
        "argon2_memory_kib": 64,
        "sms_budget": (),
        # No sequencer runs here, and clocks jump.
        "log_age_limit": timedelta(days=3650),
        "log_backlog_limit": 10**9,
    }
    return CoreSettings(**{**values, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def playing(
    folder: Path,
    *,
    vault: Vault | None = None,
    clock: Clock | None = None,
    pki: InMemoryPKI | None = None,
    phone: Phone | None = None,
    sending: bool = True,
    **settings: object,
) -> AsyncIterator[Played]:
    """Wire a core over SQLite in ``folder`` (a second time: the same database) and run its outbox."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = core_settings(folder, **settings)
    engine = make_engine(chosen.database_url)
    pki = pki or InMemoryPKI(clock)
    phone = phone or Phone()
    issuer = InProcessIssuer(pki)
    (folder / "root.pem").write_bytes(pki.authority.certificates.root.public_bytes(Encoding.PEM))
    vault = vault or FakeVault()
    try:
        outside = CoreOutside(engine=engine, vault=vault, clock=clock or SystemClock(), issuer=issuer, gateway=phone)
        core = await wire(chosen, outside)
        tasks = [asyncio.create_task(core.sender.run())] if sending else []
        try:
            yield Played(core, phone, issuer, pki, vault)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            core.stretcher.close()
    finally:
        await engine.dispose()
