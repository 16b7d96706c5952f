"""Stage, describe, begin, complete, redeem: steps 1–13 of the activation protocol (docs/protocol.md).

The numbers are shared with that page; change both together. Steps 14–18 are in ``signer/signing.py``. Longer than most
files, because the steps of one approval are to be read in one place.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.agencies import CallerRegister, Right
from authn.challenge import Challenges
from authn.envelope import Envelope, EnvelopeContext, EnvelopePurpose
from authn.locks import NamedLocks
from authn.messages.outbox import Outbox
from authn.messages.texts import SMSTexts
from authn.otp.challenges import Begun, OTPChallenge, OTPChallenges, new_challenge_id
from authn.otp.rows import CapsuleContent, OTPPurpose
from authn.otp.sending import CodeSender
from authn.password.factor import PasswordFactors, Reservation
from authn.password.stretch import Stretcher
from authn.registration.citizens import Citizen, CitizenRegister, normalise_nif
from authn.sealing import Label, SealBroken, kdf, seal, unseal
from domain.clock import Clock
from domain.errors import (
    FactorMismatch,
    MalformedRequest,
    NotPermitted,
    SADExpired,
    SADInvalid,
    SADReplayed,
    StateConflict,
)
from domain.ids import CitizenId, Randomness, is_id
from domain.items import Item, Purpose
from hsm.errors import HSMError
from hsm.keys import KeyPair, WrappingKey
from hsm.vault import Vault
from signer.approvals import (
    Approval,
    Approvals,
    ApprovalState,
    ItemState,
    Parking,
    PendingApproval,
    approval_binding,
    binding,
)
from signer.credentials import Credentials
from signer.material import KeyMaterial, KeyMaterials, reason
from signer.newborn import NewbornKeys
from signer.refusals import Refusals
from signer.requests import Requests, StagedRequest

CODE_LIFE = timedelta(seconds=60)
SAD_LIFE = timedelta(minutes=5)
CODE_SIZE_BYTES = 32
R_SIZE_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class Redeemed:
    """Signature activation data (EN 419 241-1: SAD) and its end."""

    sad: bytes
    expires: datetime


class Activation:
    """Steps 1–13. One instance per core."""

    def __init__(  # the protocol has this many parties
        self,
        *,
        engine: AsyncEngine,
        vault: Vault,
        clock: Clock,
        log: Log,
        callers: CallerRegister,
        register: CitizenRegister,
        challenges: Challenges,
        stretcher: Stretcher,
        factors: PasswordFactors,
        otp: OTPChallenges,
        sender: CodeSender,
        outbox: Outbox,
        texts: SMSTexts,
        requests: Requests,
        approvals: Approvals,
        credentials: Credentials,
        newborns: NewbornKeys,
        refusals: Refusals,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._clock = clock
        self._log = log
        self._callers = callers
        self._register = register
        self._challenges = challenges
        self._stretcher = stretcher
        self._factors = factors
        self._otp = otp
        self._sender = sender
        self._outbox = outbox
        self._texts = texts
        self._requests = requests
        self._approvals = approvals
        self._credentials = credentials
        self._newborns = newborns
        self._materials = KeyMaterials(clock, randomness)
        self._refusals = refusals
        self._randomness = randomness
        self._parking = Parking(vault)
        self._locks = NamedLocks()

    async def stage(
        self,
        *,
        grant: str,
        items: Sequence[Item],
        idempotency_key: str,
        pkce_challenge: bytes,
        return_url: str,
        citizen_nif: str,
        client_nonce: str,
    ) -> StagedRequest:
        """Step 1: keep a list for approval; the caller's socket was checked before, the client is here.

        Raises:
            CallerRefused: The grant is unknown or over.
            NotPermitted: The client lacks the right.
            RequestError: See ``Requests.stage``.
        """
        async with self._engine.connect() as connection:
            caller = await self._callers.resolve_grant(connection, grant)
        if Right.SIGN not in caller.rights or (citizen_nif and Right.NAME_CITIZEN not in caller.rights):
            raise NotPermitted("this client may not ask for that")
        index = await self._register.nif_index(normalise_nif(citizen_nif)) if citizen_nif else None
        return await self._requests.stage(
            caller,
            items,
            idempotency_key=idempotency_key,
            pkce_challenge=pkce_challenge,
            return_url=return_url,
            citizen_index=index,
            client_nonce=client_nonce,
        )

    async def describe(self, request_id: str) -> StagedRequest:
        """What the gate's page shows: the list, and the client's name from our register.

        Raises:
            NotFound: No such request.
            RequestExpired: Its hour is over, or a newer one took its place.
        """
        staged = await self._requests.read(request_id)
        async with self._engine.connect() as connection:
            await self._requests.require_newest(connection, staged)
        return staged

    async def is_approved(self, staged: StagedRequest) -> bool:
        """Whether it, or another request of the same grant, was approved before."""
        async with self._engine.connect() as connection:
            return await self._approvals.is_approved(connection, staged)

    async def begin(self, request_id: str, typed_nif: str, envelope: Envelope) -> Begun:
        """Steps 2–9: the password; then the core sends the code.

        Raises:
            RequestError: The envelope is for something else.
            RequestExpired: Its hour is over, or a newer one took its place.
            StateConflict: It was approved before.
            Busy: Too many stretch at this moment; nothing was reserved.
        """
        async with self._locks.hold(envelope.sha256()):
            answered = await self._otp.answered(envelope)
            if answered is not None:
                return Begun(answered.id, answered.expires, answered.reference)
            staged = await self._requests.read(request_id)
            nif = normalise_nif(typed_nif)
            index = await self._register.nif_index(nif)
            # 3 · The envelope opens only for this purpose, citizen, list and client.
            context = EnvelopeContext(
                purpose=EnvelopePurpose.SIGN_BEGIN,
                subject=nif,
                list_sha256=staged.list_sha256(),
                client_id=staged.client_id,
            )
            opened = await self._challenges.open(envelope, context)
            kek_version, newborn = await self._newborn(staged)
            # 4 · A place in the queue, then one attempt and the nonce in one commit, and only then the test.
            async with self._stretcher.place():
                async with self._engine.begin() as connection:
                    await self._requests.require_newest(connection, staged)
                    if await self._approvals.is_approved(connection, staged):
                        raise StateConflict("this request was approved before")
                    citizen = await self._register.find(connection, index)
                    if staged.citizen_index is not None and not hmac.compare_digest(staged.citizen_index, index):
                        citizen = None
                    reservation = await self._factors.reserve(connection, citizen.id if citizen else None, index)
                    await self._challenges.spend(connection, envelope)
                    held = await self._credentials.held(connection, reservation.factor.id, staged.key_type)
                # 5 · V opens, or it does not.
                try:
                    secret = await self._factors.open_vault_secret(reservation.factor, opened.secret)
                except HSMError:
                    await self._give_back(reservation, envelope)
                    raise
            material = self._materials.choose(
                staged, citizen=citizen, held=held, secret=secret, newborn=newborn, kek_version=kek_version
            )
            return await self._send_code(staged, citizen, reservation, material, secret, envelope, opened.companion)

    async def resend(self, challenge_id: str) -> None:
        """Send the stored message once more, if a minute has passed; a dead challenge answers alike."""
        async with self._engine.begin() as connection:
            if await self._otp.may_resend(connection, challenge_id):
                await self._outbox.send_again(connection, challenge_id)
        self._outbox.wake()

    async def complete(self, challenge_id: str, envelope: Envelope) -> str:
        """Steps 10–12: the code; gives the return URL with a single-use code for the edge.

        Raises:
            FactorMismatch: Wrong code, or anything bound has changed.
            CredentialError: Both factors were right, but the citizen cannot sign; says why.
        """
        async with self._locks.hold(challenge_id):
            challenge = await self._otp.find(challenge_id)
            if challenge.purpose is not OTPPurpose.SIGN or challenge.request_id is None:
                raise FactorMismatch("the code belongs to another step")
            staged = await self._requests.read(challenge.request_id)
            async with self._engine.connect() as connection:
                pending = await self._approvals.pending(connection, challenge.id)
                citizen = await self._citizen(connection, challenge.citizen_id)
            context = EnvelopeContext(
                purpose=EnvelopePurpose.SIGN_COMPLETE,
                list_sha256=staged.list_sha256(),
                client_id=staged.client_id,
                challenge_id=challenge.id,
            )

            def bind_now(challenge: OTPChallenge, cs: bytes) -> bytes:
                return _challenge_binding(staged, challenge, pending, citizen, hashlib.sha256(cs).digest())

            # 10, 11 · One try reserved and committed; then the capsule opens, or it does not.
            pid = citizen.pid if citizen else None
            opened = await self._otp.open(challenge, envelope, context, bind_now, pid)
            answer_key = kdf(Label.ANSWER, opened.browser_secret, challenge.id)
            if opened.answered is not None:
                code = unseal(Label.ANSWER, answer_key, opened.answered, challenge.id)
                if challenge.content is CapsuleContent.REASON:
                    raise reason(code.decode())
                return _return_url(staged, code)
            if pending is None or citizen is None:
                raise FactorMismatch("the code does not match, has expired or was used up; begin again")
            if challenge.content is CapsuleContent.REASON:
                refusal = pending.refusal or ""
                answer = seal(answer_key, refusal.encode(), challenge.id)
                await self._tell_reason(challenge, envelope, citizen, refusal, answer)
            # 12 · One commit: the capsule goes, one row per item comes, B1 is parked under a single-use code.
            code = self._randomness(CODE_SIZE_BYTES)
            cs_sha256 = hashlib.sha256(opened.browser_secret).digest()
            bind = _challenge_binding(staged, challenge, pending, citizen, cs_sha256)
            parked, version = await self._parking.park(Label.CODE, code, opened.plaintext, bind)
            answer = seal(answer_key, code, challenge.id)
            approval = self._approval(challenge, staged, pending, citizen, cs_sha256, code, parked, version)
            await self._approve(challenge, envelope, answer, approval, pending, staged)
            return _return_url(staged, code)

    async def redeem(self, request_id: str, code: bytes, pkce_verifier: bytes, r: bytes) -> Redeemed:
        """Step 13: the edge that staged turns the code into the SAD; the same three values give the same answer.

        Raises:
            ActivationError: Anything else; outside it always reads the same.
        """
        if len(r) != R_SIZE_BYTES:
            raise MalformedRequest("r has 32 bytes")
        async with self._locks.hold(hashlib.sha256(code).digest()):
            async with self._engine.connect() as connection:
                approval = await self._approvals.by_code(connection, code)
                if approval is None or approval.request_id != request_id:
                    staged, citizen = None, None
                else:
                    staged = await self._requests.get_even_expired(connection, approval.request_id)
                    citizen = await self._citizen(connection, approval.citizen_id)
            if approval is None or staged is None or citizen is None:
                raise await self._refusals.refuse(SADInvalid, request=request_id if is_id(request_id) else "?")
            verifier_sha256 = hashlib.sha256(pkce_verifier).digest()
            if not hmac.compare_digest(verifier_sha256, staged.pkce_challenge):
                raise await self._refusals.refuse(SADInvalid, approval)
            sad = kdf(Label.SAD, r, code)
            sid = hashlib.sha256(sad).digest()
            if approval.state is not ApprovalState.CODE:
                return await self._redeemed_before(approval, sad, sid)
            now = self._clock.now()
            if now >= approval.code_expires:
                raise await self._refusals.refuse(SADExpired, approval)
            bind = approval_binding(approval, staged, citizen.generation)
            try:
                wrapped = await self._parking.open(
                    Label.CODE, code, approval.parked or b"", bind, approval.capsule_version
                )
            except SealBroken:
                raise await self._refusals.refuse(SADInvalid, approval) from None
            parked, version = await self._parking.park(Label.PARKED, sad, wrapped, bind)
            expires = now + SAD_LIFE
            async with self._engine.begin() as connection:
                done = await self._approvals.update(
                    connection,
                    approval,
                    ApprovalState.CODE,
                    state=ApprovalState.SAD.value,
                    parked=parked,
                    capsule_version=version,
                    sid=sid,
                    sad_expires=expires,
                )
                facts = {"cid": approval.cid, "request": approval.request_id}
                if done:
                    await self._log.append(connection, Event(tag=EventTag.REDEEM, pid=approval.pid, facts=facts))
            if not done:
                # Another core was faster: with the same three values this is the same answer.
                return await self._redeemed_before(await self._again(approval), sad, sid)
            return Redeemed(sad, expires)

    async def _newborn(self, staged: StagedRequest) -> tuple[int, KeyPair | None]:
        """A key pair whenever item 0 is staged, whoever asks; before anything is reserved, for this may be ``Busy``."""
        if staged.asks_certificate:
            return await self._newborns.take(staged.key_type)
        return self._vault.current_version(WrappingKey.CITIZEN), None

    async def _give_back(self, reservation: Reservation, envelope: Envelope) -> None:
        """The HSM did not answer: nothing was tested, so nothing counts."""
        async with self._engine.begin() as connection:
            await self._factors.give_back(connection, reservation)
            await self._challenges.give_back(connection, envelope)

    async def _send_code(
        self,
        staged: StagedRequest,
        citizen: Citizen | None,
        reservation: Reservation,
        material: KeyMaterial,
        secret: bytes | None,
        envelope: Envelope,
        cs: bytes,
    ) -> Begun:
        # 6, 7 · A code, and everything that it is bound to.
        right = secret is not None
        cid = new_challenge_id()
        expires = self._otp.end_of(OTPPurpose.SIGN)
        generation = citizen.generation if citizen else 0
        citizen_id = citizen.id if citizen else None
        bind = binding(
            staged,
            credential_id=material.credential_id,
            citizen_id=citizen_id,
            generation=generation,
            cid=cid,
            expires=expires,
            cs_sha256=hashlib.sha256(cs).digest(),
        )
        content = CapsuleContent.KEY if material.refusal is None else CapsuleContent.REASON
        fresh = await self._otp.fill(
            content,
            material.wrapped,
            size_bytes=material.size_bytes,
            cid=cid,
            expires=expires,
            bind=bind,
            cs=cs,
        )
        pending = PendingApproval(
            cid=cid,
            citizen_id=citizen_id,
            credential_id=material.credential_id,
            key_type=staged.key_type,
            kek_version=material.kek_version,
            new_sealed_key=material.sealed_key,
            new_spki=material.spki,
            is_new=material.is_new,
            refusal=material.refusal,
            expires=expires,
        )
        documents = [item for item in staged.items if item.purpose is Purpose.SIGN]
        text = self._texts.sign(
            agency=staged.client_name,
            count=len(documents),
            title=documents[0].title,
            reference=fresh.reference,
            otp=fresh.otp,
            minutes=self._otp.minutes_of(OTPPurpose.SIGN),
        )
        failure: dict[str, str | int] = {"factor": "password", "tested": int(reservation.tested)}
        # 8 · One commit: the challenge, the attempt given back, the message into the outbox, the leaf.
        async with self._engine.begin() as connection:
            await self._register.require_generation(connection, citizen)
            await self._factors.settle(connection, reservation, right=right)
            await self._approvals.add_pending(connection, pending)
            begun = await self._sender.send(
                connection,
                fresh,
                purpose=OTPPurpose.SIGN,
                envelope=envelope,
                citizen=citizen,
                text=text,
                facts={"request": staged.id, "client": staged.client_id},
                failure=None if right else failure,
                request_id=staged.id,
            )
        # 9 · The core itself hands the message over.
        self._sender.wake()
        return begun

    async def _tell_reason(
        self, challenge: OTPChallenge, envelope: Envelope, citizen: Citizen, refusal: str, answer: bytes
    ) -> None:
        async with self._engine.begin() as connection:
            await self._otp.consume(connection, challenge, envelope, answer)
            await self._approvals.drop_pending(connection, challenge.id)
            facts = {"cid": challenge.id, "refusal": refusal}
            await self._log.append(connection, Event(tag=EventTag.AUTH_OK, pid=citizen.pid, facts=facts))
        raise reason(refusal)

    def _approval(
        self,
        challenge: OTPChallenge,
        staged: StagedRequest,
        pending: PendingApproval,
        citizen: Citizen,
        cs_sha256: bytes,
        code: bytes,
        parked: bytes,
        version: int,
    ) -> Approval:
        now = self._clock.now()
        return Approval(
            cid=challenge.id,
            request_id=staged.id,
            citizen_id=citizen.id,
            pid=citizen.pid,
            credential_id=pending.credential_id,
            generation=challenge.generation,
            cs_sha256=cs_sha256,
            otp_expires=challenge.expires,
            state=ApprovalState.CODE,
            parked=parked,
            capsule_version=version,
            kek_version=pending.kek_version,
            code_sha256=hashlib.sha256(code).digest(),
            code_expires=now + CODE_LIFE,
            sid=None,
            sad_expires=None,
            approved=now,
            result_token=None,
            receipt=None,
        )

    async def _approve(
        self,
        challenge: OTPChallenge,
        envelope: Envelope,
        answer: bytes,
        approval: Approval,
        pending: PendingApproval,
        staged: StagedRequest,
    ) -> None:
        items = dict.fromkeys(range(len(staged.items)), ItemState.AUTHORIZED)
        if staged.asks_certificate and not pending.is_new:
            items[0] = ItemState.SKIPPED
        async with self._engine.begin() as connection:
            # Keys first, as revocation locks them: two that lock in two orders wait for each other.
            await self._credentials.lock_all(connection, approval.citizen_id)
            citizen = await self._citizen(connection, approval.citizen_id)
            if citizen is None or citizen.generation != approval.generation:
                raise FactorMismatch("something about your account changed meanwhile; begin again")
            if await self._approvals.is_approved(connection, staged):
                raise StateConflict("this request was approved before")
            await self._otp.consume(connection, challenge, envelope, answer)
            events = [
                Event(
                    tag=EventTag.AUTH_OK,
                    pid=approval.pid,
                    facts={
                        "cid": approval.cid,
                        "request": approval.request_id,
                        "client": staged.client_id,
                        "factors": "password+sms",
                        "list": staged.list_sha256(),
                    },
                )
            ]
            if pending.is_new and pending.new_sealed_key is not None and pending.new_spki is not None:
                erased = await self._credentials.add_pending(
                    connection,
                    credential_id=pending.credential_id,
                    citizen_id=approval.citizen_id,
                    pid=approval.pid,
                    key_type=pending.key_type,
                    sealed_key=pending.new_sealed_key,
                    kek_version=pending.kek_version,
                    spki=pending.new_spki,
                )
                if erased:
                    events.append(Event(tag=EventTag.KEY_DESTROY, pid=approval.pid, facts={"keys": erased}))
            await self._approvals.add(connection, approval, items)
            await self._approvals.drop_pending(connection, challenge.id)
            await self._log.append(connection, *events)

    async def _again(self, approval: Approval) -> Approval:
        async with self._engine.connect() as connection:
            return await self._approvals.by_cid(connection, approval.cid) or approval

    async def _redeemed_before(self, approval: Approval, sad: bytes, sid: bytes) -> Redeemed:
        """A second redemption: the same r gets the same SAD, another r kills it."""
        alive = approval.state in (ApprovalState.SAD, ApprovalState.SPENT)
        if alive and approval.sad_expires is not None and hmac.compare_digest(approval.sid or b"", sid):
            return Redeemed(sad, approval.sad_expires)
        async with self._engine.begin() as connection:
            await self._approvals.update(
                connection, approval, ApprovalState.SAD, state=ApprovalState.DEAD.value, parked=None
            )
        raise await self._refusals.refuse(SADReplayed, approval)

    async def _citizen(self, connection: AsyncConnection, citizen_id: CitizenId | None) -> Citizen | None:
        return await self._register.get(connection, citizen_id) if citizen_id else None


def _challenge_binding(
    staged: StagedRequest,
    challenge: OTPChallenge,
    pending: PendingApproval | None,
    citizen: Citizen | None,
    cs_sha256: bytes,
) -> bytes:
    return binding(
        staged,
        credential_id=pending.credential_id if pending else "",
        citizen_id=challenge.citizen_id,
        generation=citizen.generation if citizen else 0,
        cid=challenge.id,
        expires=challenge.expires,
        cs_sha256=cs_sha256,
    )


def _return_url(staged: StagedRequest, code: bytes) -> str:
    separator = "&" if "?" in staged.return_url else "?"
    return f"{staged.return_url}{separator}{urlencode({'request': staged.id, 'code': _base64url(code)})}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
