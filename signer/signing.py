"""Sign: steps 14–18 of the activation protocol (docs/protocol.md). The only place where a citizen's key is used."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.lag import Lag
from audit.log import Event, EventTag, Log
from authn.locks import NamedLocks
from authn.registration.citizens import Citizen, CitizenRegister
from authn.sealing import Label, SealBroken
from certs.anchors import TrustAnchors
from certs.csr import assemble_csr, csr_to_be_signed
from certs.issuer import CitizenSubject, IssuedCertificate, Issuer
from certs.profiles import check_issued
from domain.clock import Clock
from domain.errors import (
    ActivationError,
    Busy,
    DTBSMismatch,
    GenerationChanged,
    HSMUnavailable,
    MalformedRequest,
    RubricaError,
    SADExpired,
    SADInvalid,
    StateConflict,
)
from domain.ids import EventId
from hsm.errors import HSMBusy, HSMError
from hsm.vault import Priority, Vault
from signer.approvals import Approval, Approvals, ApprovalState, Authorisation, ItemState, Parking, approval_binding
from signer.closing import Closing, Signed, signed_item
from signer.credentials import Credential, Credentials, CredentialState
from signer.epochs import Epochs
from signer.refusals import Refusals
from signer.requests import Requests, StagedRequest
from signer.tbs.item import Built, build, signature_value
from signer.tokens import Tokens

BATCH_FROM_ITEMS = 5
"""A request for more signatures than this at once waits behind people who sign one document."""


@dataclass(frozen=True, slots=True, repr=False)
class _Opened:
    """An approval whose SAD opened its capsule: the right to use B1, as far as its rows go."""

    approval: Approval
    staged: StagedRequest
    citizen: Citizen
    wrapped: bytes


class Standing(Enum):
    """What the transaction that depends on it reads of an approval's right to sign."""

    ALIVE = auto()
    ENDED = auto()
    """Generation changed, or the approval is over: for good."""
    FENCED = auto()
    """Another core took over what this one had reserved; the right itself stands."""


@dataclass(frozen=True, slots=True)
class _Reservation:
    """One item reserved by this core."""

    item: int
    epoch: int
    """As it was then: by now this core may have another."""
    attempt: int
    built: Built
    intent_id: EventId


class Signing:
    """Steps 14–18. One instance per core."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        vault: Vault,
        clock: Clock,
        log: Log,
        register: CitizenRegister,
        requests: Requests,
        approvals: Approvals,
        credentials: Credentials,
        epochs: Epochs,
        issuer: Issuer,
        anchors: TrustAnchors,
        refusals: Refusals,
        lag: Lag,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._clock = clock
        self._log = log
        self._register = register
        self._requests = requests
        self._approvals = approvals
        self._credentials = credentials
        self._epochs = epochs
        self._issuer = issuer
        self._anchors = anchors
        self._refusals = refusals
        self._lag = lag
        self._parking = Parking(vault)
        self._closing = Closing(engine, approvals, Tokens(vault, clock))
        self._locks = NamedLocks()

    async def sign(self, sad: bytes, numbers: Sequence[int]) -> Signed:
        """Sign approved items; a repeated call gets the stored bytes, never a second signature.

        Args:
            sad: From REDEEM.
            numbers: Items of the approved list; item 0 is done first whenever it is still owed.

        Raises:
            ActivationError: No such right; outside it always reads the same.
            DependencyUnavailable: HSM or issuer; the rows were given back, try again with the same SAD.
        """
        # Whoever asked may hang up: what was begun is ended all the same.
        return await asyncio.shield(asyncio.ensure_future(self._sign(sad, numbers)))

    async def _sign(self, sad: bytes, numbers: Sequence[int]) -> Signed:
        if not numbers or len(set(numbers)) != len(numbers):
            raise MalformedRequest("name each item once")
        async with self._locks.hold(hashlib.sha256(sad).digest()):
            approval, staged, citizen, rows = await self._read(sad)
            if await self._epochs.give_back_own(rows.values()):
                # Whoever holds this lock alone reserves under this SAD: an earlier call's database was gone too soon.
                approval, staged, citizen, rows = await self._read(sad)
            for number in numbers:
                if number not in rows:
                    raise await self._refusals.refuse(DTBSMismatch, approval, item=number)
            owed = [number for number in sorted(numbers) if rows[number].state is not ItemState.CONSUMED]
            owed = [number for number in owed if rows[number].state is not ItemState.SKIPPED]
            if owed:
                opened = await self._open(approval, staged, citizen, sad)
                if rows[0].state is ItemState.AUTHORIZED and staged.asks_certificate:
                    await self._certify(opened, rows[0])
                    owed = [number for number in owed if number != 0]
                if owed:
                    await self._sign_items(opened, [rows[number] for number in owed])
            return await self._answer(sad, numbers)

    async def _read(self, sad: bytes) -> tuple[Approval, StagedRequest, Citizen, dict[int, Authorisation]]:
        async with self._engine.connect() as connection:
            approval = await self._approvals.by_sid(connection, sad)
            citizen = await self._register.get(connection, approval.citizen_id) if approval else None
            if approval is None or citizen is None:
                found = None
            else:
                staged = await self._requests.get_even_expired(connection, approval.request_id)
                rows = {row.item: row for row in await self._approvals.items(connection, approval.cid)}
                found = approval, staged, citizen, rows
        if found is None:
            raise await self._refusals.refuse(SADInvalid)
        return found

    async def _open(self, approval: Approval, staged: StagedRequest, citizen: Citizen, sad: bytes) -> _Opened:
        # 14 · Expiry, generation, and everything bound: an edited row gives another bind and opens nothing.
        if approval.state is not ApprovalState.SAD or approval.parked is None or approval.sad_expires is None:
            raise await self._refusals.refuse(SADInvalid, approval)
        if self._clock.now() >= approval.sad_expires:
            raise await self._refusals.refuse(SADExpired, approval)
        if citizen.generation != approval.generation:
            raise await self._refusals.refuse(GenerationChanged, approval)
        bind = approval_binding(approval, staged, citizen.generation)
        try:
            wrapped = await self._parking.open(Label.PARKED, sad, approval.parked, bind, approval.capsule_version)
        except SealBroken:
            raise await self._refusals.refuse(SADInvalid, approval) from None
        return _Opened(approval, staged, citizen, wrapped)

    async def _certify(self, opened: _Opened, row: Authorisation) -> None:
        """Item 0: certificate for the key that BEGIN made. Its CSR is the first thing that this key signs."""
        approval, citizen = opened.approval, opened.citizen
        async with self._engine.connect() as connection:
            credential = await self._credentials.get(connection, approval.credential_id)
            held = await self._credentials.held(connection, citizen.id, credential.key_type) if credential else None
        if credential is None or credential.state is not CredentialState.PENDING:
            raise await self._refusals.refuse(SADInvalid, approval)
        if held is not None and held.bars_another(self._clock.now()):
            async with self._engine.begin() as connection:
                await self._credentials.lock_all(connection, citizen.id)
                await self._end_superseded(connection, approval)
            raise _superseded()
        subject = CitizenSubject(
            nif=citizen.nif,
            given_name=citizen.given_name,
            first_surname=citizen.first_surname,
            second_surname=citizen.second_surname,
        )
        # 15 · The CSR is built from the register, for the key that the capsule holds.
        to_be_signed = csr_to_be_signed(subject, credential.spki)
        (reservation,) = await self._reserve(opened, {0: Built(to_be_signed, row.signing_time or self._clock.now())})
        try:
            csr = credential.csr
            if csr is None:
                (signature,) = await self._use_key(opened, credential, [to_be_signed])
                csr = assemble_csr(to_be_signed, signature, credential.key_type)
                async with self._engine.begin() as connection:
                    await self._credentials.keep_csr(connection, credential.id, csr)
            key_name = hashlib.sha256(credential.spki).hexdigest()
            issued = await self._issuer.issue(csr, subject, idempotency_key=key_name)
            await self._accept_certificate(opened, credential, subject, issued, reservation)
        except BaseException as error:
            await self._abort(approval, [reservation], error)
            raise

    async def _accept_certificate(
        self,
        opened: _Opened,
        credential: Credential,
        subject: CitizenSubject,
        issued: IssuedCertificate,
        reservation: _Reservation,
    ) -> None:
        anchors = self._anchors.load()
        certificate = check_issued(issued, credential.spki, subject, self._clock.now(), anchors)
        approval = opened.approval
        # Credential before approval, as everywhere: transactions that lock both must not wait for each other.
        async with self._engine.begin() as connection:
            rows = await self._credentials.lock_all(connection, opened.citizen.id)
            standing = await self._standing(connection, opened, reservation.epoch)
            pending = any(row.id == credential.id and row.state is CredentialState.PENDING for row in rows)
            barred = any(row.key_type is credential.key_type and row.bars_another(self._clock.now()) for row in rows)
            accepted = pending and not barred and standing is Standing.ALIVE
            if accepted:
                facts: dict[str, str | int | bytes | None] = {
                    "cid": approval.cid,
                    "item": 0,
                    "intent": reservation.intent_id,
                    "spki": hashlib.sha256(credential.spki).digest(),
                }
                event = Event(tag=EventTag.CERT_ISSUE, pid=approval.pid, facts=facts)
                (event_id,) = await self._log.append(connection, event)
                await self._credentials.activate(
                    connection,
                    credential.id,
                    certificate=issued.certificate,
                    chain=issued.chain,
                    serial=certificate.serial_number,
                    not_after=certificate.not_valid_after_utc,
                )
                accepted = await self._consume(connection, approval, reservation, None, event_id)
                if not accepted:
                    await connection.rollback()
            elif pending and standing is Standing.FENCED:
                # The key still waits, and the issuer gives it the same certificate again.
                await self._credentials.keep_serial(connection, credential.id, certificate.serial_number)
            else:
                await self._credentials.revoke_orphan(
                    connection, credential, issued.certificate, certificate.serial_number
                )
                if barred and standing is Standing.ALIVE:
                    await self._end_superseded(connection, approval)
        if accepted:
            return
        if pending and standing is Standing.FENCED:
            raise _taken_over()
        if barred and standing is Standing.ALIVE:
            raise _superseded()
        raise await self._refusals.refuse(GenerationChanged, approval)

    async def _end_superseded(self, connection: AsyncConnection, approval: Approval) -> None:
        """Another approval brought this citizen's certificate meanwhile: this one's key ends, and so does its right.

        One valid certificate of each kind is all that a citizen gets; the next approval signs with it.
        """
        await self._credentials.erase_pending(connection, approval.credential_id)
        dead = ApprovalState.DEAD.value
        await self._approvals.update(connection, approval, ApprovalState.SAD, state=dead, parked=None)
        event = Event(tag=EventTag.KEY_DESTROY, pid=approval.pid, facts={"keys": 1, "cid": approval.cid})
        await self._log.append(connection, event)

    async def _sign_items(self, opened: _Opened, rows: Sequence[Authorisation]) -> None:
        approval = opened.approval
        async with self._engine.connect() as connection:
            credential = await self._credentials.get(connection, approval.credential_id)
        if credential is None or credential.certificate is None or not credential.is_valid(self._clock.now()):
            raise await self._refusals.refuse(SADInvalid, approval)
        # 15 · What is signed is built here, from the approved digests and this credential's certificate.
        now = self._clock.now().replace(microsecond=0)
        built = {
            row.item: build(opened.staged.items[row.item], credential.certificate, row.signing_time or now)
            for row in rows
        }
        # 16 · INTENT is committed with the reservation, or nothing is signed.
        reservations = await self._reserve(opened, built)
        try:
            # 17 · Unwrap, sign, destroy, verify.
            signatures = await self._use_key(opened, credential, [row.built.to_be_signed for row in reservations])
            await self._release(opened, credential, reservations, signatures)
        except BaseException as error:
            await self._abort(approval, reservations, error)
            raise

    async def _reserve(self, opened: _Opened, built: Mapping[int, Built]) -> list[_Reservation]:
        """Steps 14 and 16: each row AUTHORIZED → RESERVED by this epoch, with its INTENT, in one commit.

        Raises:
            LogUnavailable: The log is behind: no log, no signature.
        """
        approval = opened.approval
        epoch = self._epochs.current
        async with self._engine.begin() as connection:
            await self._lag.refuse_if_behind(connection)
            standing = await self._standing(connection, opened, epoch)
            if standing is Standing.ALIVE:
                return await self._reserve_alive(connection, opened, built, epoch)
        if standing is Standing.FENCED:
            raise _taken_over()
        raise await self._refusals.refuse(GenerationChanged, approval)

    async def _reserve_alive(
        self, connection: AsyncConnection, opened: _Opened, built: Mapping[int, Built], epoch: int
    ) -> list[_Reservation]:
        approval = opened.approval
        events = [
            Event(
                tag=EventTag.INTENT,
                pid=approval.pid,
                facts={
                    "cid": approval.cid,
                    "item": number,
                    "epoch": epoch,
                    "purpose": opened.staged.items[number].purpose.value,
                    "format": opened.staged.items[number].format,
                    "client": opened.staged.client_id,
                    "tbs": hashlib.sha256(bytes_to_sign.to_be_signed).digest(),
                },
            )
            for number, bytes_to_sign in built.items()
        ]
        intents = await self._log.append(connection, *events)
        reservations = []
        for (number, bytes_to_sign), intent_id in zip(built.items(), intents, strict=True):
            attempt = await self._approvals.reserve(
                connection,
                approval.cid,
                number,
                epoch=epoch,
                intent_id=intent_id,
                signing_time=bytes_to_sign.signing_time,
            )
            if attempt is None:
                raise Busy("this document is being signed at this moment", retry_after_seconds=1)
            reservations.append(_Reservation(number, epoch, attempt, bytes_to_sign, intent_id))
        return reservations

    async def _use_key(self, opened: _Opened, credential: Credential, octets: Sequence[bytes]) -> list[bytes]:
        digests = [hashlib.sha256(part).digest() for part in octets]
        batch = len(opened.staged.items) > BATCH_FROM_ITEMS
        try:
            return await self._vault.sign(
                opened.wrapped,
                credential.spki,
                digests,
                kek_version=opened.approval.kek_version,
                priority=Priority.BATCH if batch else Priority.INTERACTIVE,
            )
        except HSMBusy as error:
            raise Busy("many documents are being signed at this moment", retry_after_seconds=2) from error
        except HSMError as error:
            raise HSMUnavailable("the signing device did not answer; try again", retry_after_seconds=2) from error

    async def _release(
        self, opened: _Opened, credential: Credential, reservations: Sequence[_Reservation], signatures: Sequence[bytes]
    ) -> None:
        """Step 18: COMPLETE, signature and CONSUMED in one commit, with the generation read again under lock."""
        approval = opened.approval
        async with self._engine.begin() as connection:
            current = await self._credentials.get(connection, credential.id)
            standing = await self._standing(connection, opened, reservations[0].epoch)
            usable = current is not None and current.is_valid(self._clock.now())
            released = usable and standing is Standing.ALIVE
            if released:
                events = [
                    Event(
                        tag=EventTag.COMPLETE,
                        pid=approval.pid,
                        facts={"cid": approval.cid, "item": row.item, "intent": row.intent_id},
                    )
                    for row in reservations
                ]
                completes = await self._log.append(connection, *events)
                for row, signature, complete_id in zip(reservations, signatures, completes, strict=True):
                    value = signature_value(opened.staged.items[row.item], signature)
                    released = released and await self._consume(connection, approval, row, value, complete_id)
            if not released:
                await connection.rollback()
        if not released and usable and standing is Standing.FENCED:
            raise _taken_over()
        if not released:
            raise await self._refusals.refuse(GenerationChanged, approval)

    async def _consume(
        self,
        connection: AsyncConnection,
        approval: Approval,
        row: _Reservation,
        signature: bytes | None,
        complete_id: EventId,
    ) -> bool:
        return await self._approvals.settle(
            connection,
            approval.cid,
            row.item,
            epoch=row.epoch,
            attempt=row.attempt,
            state=ItemState.CONSUMED.value,
            to_be_signed=row.built.to_be_signed,
            signed_properties=row.built.signed_properties,
            signature=signature,
            signed=self._clock.now(),
            complete_id=complete_id,
        )

    async def _standing(self, connection: AsyncConnection, opened: _Opened, epoch: int) -> Standing:
        """Generation, approval and epoch, read in the transaction that depends on them."""
        citizen = await self._register.get(connection, opened.citizen.id)
        approval = await self._approvals.by_cid(connection, opened.approval.cid)
        if citizen is None or citizen.generation != opened.approval.generation:
            return Standing.ENDED
        if approval is None or approval.state is not ApprovalState.SAD:
            return Standing.ENDED
        return Standing.ALIVE if await self._epochs.is_live(connection, epoch) else Standing.FENCED

    async def _abort(self, approval: Approval, reservations: Sequence[_Reservation], error: BaseException) -> None:
        """Give the rows back and say in the log that nothing was released.

        A row that is no longer ours is left out: it was released and only the answer to COMMIT is lost, or whoever
        fenced this core gave it back and said so.
        """
        reason = error.code if isinstance(error, RubricaError) else type(error).__name__
        if isinstance(error, ActivationError):
            reason = error.reason
        async with self._engine.begin() as connection:
            events = [
                Event(
                    tag=EventTag.ABORTED,
                    pid=approval.pid,
                    facts={"cid": approval.cid, "item": row.item, "intent": row.intent_id, "reason": reason},
                )
                for row in reservations
                if await self._approvals.give_back(
                    connection, approval.cid, row.item, epoch=row.epoch, attempt=row.attempt
                )
            ]
            if events:
                await self._log.append(connection, *events)

    async def _answer(self, sad: bytes, numbers: Sequence[int]) -> Signed:
        """The stored bytes, and with the last item result token and receipt."""
        approval, staged, _, rows = await self._read(sad)
        async with self._engine.connect() as connection:
            credential = await self._credentials.get(connection, approval.credential_id)
        if credential is None or credential.certificate is None:
            raise await self._refusals.refuse(SADInvalid, approval)
        chain = (credential.certificate, *credential.chain)
        items = tuple(signed_item(rows[number], chain) for number in numbers)
        if all(row.state in (ItemState.CONSUMED, ItemState.SKIPPED) for row in rows.values()):
            approval = await self._closing.finish(approval, staged, list(rows.values()), credential)
        return Signed(items, approval.result_token or "", approval.receipt or "")


def _taken_over() -> Busy:
    return Busy("the signing core was held up and begins again; try again", retry_after_seconds=3)


def _superseded() -> StateConflict:
    return StateConflict("your certificate came with another approval meanwhile; approve the document again")
