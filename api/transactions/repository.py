"""All SQL of the edge. States move by conditional update; whoever moves nothing is told so."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.storage import Stored, StoredId
from api.transactions.model import (
    PDF,
    UNDER_WAY,
    XML,
    Document,
    DocumentState,
    Staging,
    StagingState,
    Transaction,
    TransactionState,
)
from api.transactions.tables import documents, idempotency, stagings, transactions
from documents.model import Level, Prepared, SignatureParts
from domain.algorithms import SignatureAlgorithm
from domain.clock import to_epoch_seconds
from domain.digests import Digest, DigestAlgorithm
from domain.items import Packaging, SignatureFormat


class TransactionRepository:
    """Reads and writes within one database transaction, which the caller commits."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    # --- transactions

    async def add(self, transaction: Transaction) -> None:
        """Insert a transaction with its documents."""
        await self._connection.execute(
            transactions.insert().values(
                transaction_id=transaction.transaction_id,
                version=transaction.version,
                state=transaction.state.value,
                client_id=transaction.client_id,
                client_name=transaction.client_name,
                link_sha256=transaction.link_sha256,
                link_sealed=transaction.link_sealed,
                level=transaction.level.value,
                format=transaction.format.value,
                packaging=transaction.packaging.value,
                algorithm=transaction.algorithm.value,
                citizen_nif_sealed=transaction.citizen_nif_sealed,
                grant_sealed=transaction.grant_sealed,
                granted=to_epoch_seconds(transaction.granted),
                return_url=transaction.return_url,
                client_nonce=transaction.client_nonce,
                created=to_epoch_seconds(transaction.created),
                expires=to_epoch_seconds(transaction.expires),
            )
        )
        await self._connection.execute(
            documents.insert(),
            [
                {
                    "transaction_id": transaction.transaction_id,
                    "number": document.number,
                    "title": document.title,
                    "state": document.state.value,
                }
                for document in transaction.documents
            ],
        )

    async def by_id(self, transaction_id: str, *, lock: bool = False) -> Transaction | None:
        """The transaction with its documents; with ``lock`` nobody else changes it until the commit."""
        return await self._one(transactions.c.transaction_id == transaction_id, lock=lock)

    async def by_link(self, link_sha256: bytes) -> Transaction | None:
        """The transaction that a link leads to."""
        return await self._one(transactions.c.link_sha256 == link_sha256)

    async def move(
        self,
        transaction: Transaction,
        state: TransactionState,
        *,
        request_id: str | None = None,
        failure_code: str | None = None,
    ) -> bool:
        """Put the transaction into ``state`` if nobody changed it since it was read."""
        values: dict[str, Any] = {"state": state.value, "version": transaction.version + 1}
        if request_id is not None:
            values["request_id"] = request_id
        if failure_code is not None:
            values["failure_code"] = failure_code
        changed = await self._connection.execute(
            transactions.update()
            .where(
                transactions.c.transaction_id == transaction.transaction_id,
                transactions.c.version == transaction.version,
            )
            .values(values)
        )
        return changed.rowcount == 1

    async def set_outcome(self, transaction_id: str, result_token: str, receipt: str) -> None:
        """Keep what the core said with the last item."""
        await self._update(transaction_id, result_token=result_token, receipt=receipt)

    async def renew_grant(self, transaction_id: str, client_id: str, grant_sealed: bytes, at: datetime) -> None:
        """Keep a younger grant of the transaction's own client."""
        await self._connection.execute(
            transactions.update()
            .where(transactions.c.transaction_id == transaction_id, transactions.c.client_id == client_id)
            .values(grant_sealed=grant_sealed, granted=to_epoch_seconds(at))
        )

    async def claim(self, transaction_id: str, owner: str, *, now: datetime, until: datetime) -> bool:
        """Become the only one who works on this transaction until then; ``owner`` is a name never used before."""
        changed = await self._connection.execute(
            transactions.update()
            .where(
                transactions.c.transaction_id == transaction_id,
                transactions.c.claimed_until < to_epoch_seconds(now),
            )
            .values(claimed_by=owner, claimed_until=to_epoch_seconds(until))
        )
        return changed.rowcount == 1

    async def hold(self, transaction_id: str, owner: str, *, until: datetime) -> bool:
        """Go on being the only one; says whether ``owner`` still was."""
        return await self._update_claim(transaction_id, owner, claimed_until=to_epoch_seconds(until))

    async def release(self, transaction_id: str, owner: str) -> bool:
        """Let others work on it, if ``owner`` is still the one who does; says so."""
        return await self._update_claim(transaction_id, owner, claimed_by="", claimed_until=0)

    async def try_later(self, transaction_id: str, *, at: datetime, tries: int) -> None:
        """When to go on after a dependency failed."""
        await self._update(transaction_id, next_try=to_epoch_seconds(at), tries=tries)

    async def due(self, now: datetime) -> list[str]:
        """Transactions with work left that nobody does: unfinished signing, documents below their level."""
        moment = to_epoch_seconds(now)
        unfinished = sa.select(transactions.c.transaction_id).where(
            transactions.c.state.in_([state.value for state in UNDER_WAY]), transactions.c.next_try <= moment
        )
        partial = sa.select(documents.c.transaction_id).where(
            documents.c.state == DocumentState.PARTIAL.value, documents.c.next_try <= moment
        )
        rows = await self._connection.execute(
            sa.select(transactions.c.transaction_id).where(
                transactions.c.claimed_until < moment,
                sa.or_(transactions.c.transaction_id.in_(unfinished), transactions.c.transaction_id.in_(partial)),
            )
        )
        return [row.transaction_id for row in rows]

    async def outlived(self, now: datetime) -> list[str]:
        """Transactions whose time is over and that are not being worked on."""
        kept = [TransactionState.EXPIRED.value, *(state.value for state in UNDER_WAY)]
        rows = await self._connection.execute(
            sa.select(transactions.c.transaction_id).where(
                transactions.c.expires <= to_epoch_seconds(now), transactions.c.state.not_in(kept)
            )
        )
        return [row.transaction_id for row in rows]

    # --- documents

    async def received(self, transaction_id: str, number: int, stored: Stored, media_type: str) -> None:
        """The original is in the store."""
        await self._update_document(
            transaction_id,
            number,
            state=DocumentState.RECEIVED.value,
            size_bytes=stored.size_bytes,
            sha256=stored.digest.value,
            media_type=media_type,
            original_id=stored.stored_id,
        )

    async def prepared(self, transaction_id: str, number: int, prepared: Prepared, prepared_id: StoredId) -> None:
        """It waits for its signature value."""
        await self._update_document(
            transaction_id,
            number,
            state=DocumentState.PREPARED.value,
            prepared_id=prepared_id,
            digest_algorithm=prepared.digest.algorithm.value,
            digest=prepared.digest.value,
            prepare_state=prepared.state,
        )

    async def signature(self, transaction_id: str, number: int, parts: SignatureParts) -> None:
        """The core's answer, kept so that finishing needs the core no more."""
        await self._update_document(
            transaction_id,
            number,
            to_be_signed=parts.to_be_signed,
            signature=parts.signature,
            signed_properties=parts.signed_properties,
            chain=[base64.b64encode(certificate).decode() for certificate in parts.chain],
        )

    async def signed(
        self, transaction_id: str, number: int, *, state: DocumentState, signed_id: StoredId, level: Level
    ) -> None:
        """The signed document is in the store."""
        await self._update_document(transaction_id, number, state=state.value, signed_id=signed_id, level=level.value)

    async def document_failed(self, transaction_id: str, number: int, code: str, detail: str) -> None:
        """It will not be signed."""
        await self._update_document(
            transaction_id,
            number,
            state=DocumentState.FAILED.value,
            failure_code=code,
            failure_detail=detail,
        )

    async def try_document_later(self, transaction_id: str, number: int, *, at: datetime, tries: int) -> None:
        """When to ask for its evidence again."""
        await self._update_document(transaction_id, number, next_try=to_epoch_seconds(at), tries=tries)

    async def forget_files(self, transaction_id: str) -> None:
        """The files are gone."""
        await self._connection.execute(
            documents.update()
            .where(documents.c.transaction_id == transaction_id)
            .values(original_id=None, prepared_id=None, signed_id=None, next_try=0)
        )

    # --- stagings

    async def add_staging(self, staging: Staging) -> None:
        """A request that waits for its citizen."""
        await self._connection.execute(
            stagings.insert().values(
                request_id=staging.request_id,
                transaction_id=staging.transaction_id,
                state=staging.state.value,
                cookie_sha256=staging.cookie_sha256,
                expires=to_epoch_seconds(staging.expires),
                verifier_sealed=staging.verifier_sealed,
                r_sealed=staging.r_sealed,
            )
        )

    async def staging(self, request_id: str) -> Staging | None:
        """By the core's request id."""
        row = (
            await self._connection.execute(sa.select(stagings).where(stagings.c.request_id == request_id))
        ).one_or_none()
        return None if row is None else _staging(row)

    async def move_staging(self, staging: Staging, state: StagingState, **values: bytes | int | None) -> bool:
        """Put a staging into ``state`` if it is still in the one that was read."""
        changed = await self._connection.execute(
            stagings.update()
            .where(stagings.c.request_id == staging.request_id, stagings.c.state == staging.state.value)
            .values(state=state.value, **values)
        )
        return changed.rowcount == 1

    async def close_stagings(self, transaction_id: str) -> None:
        """Nothing can be redeemed or signed by them any more; their secrets go."""
        await self._connection.execute(
            stagings.update()
            .where(stagings.c.transaction_id == transaction_id)
            .values(
                state=StagingState.CLOSED.value, verifier_sealed=b"", r_sealed=None, code_sealed=None, sad_sealed=None
            )
        )

    # --- idempotency

    async def answered(self, scope: str, key_sha256: bytes) -> tuple[bytes, str] | None:
        """Fingerprint and transaction of an earlier POST with this key."""
        row = (
            await self._connection.execute(
                sa.select(idempotency.c.body_sha256, idempotency.c.transaction_id).where(
                    idempotency.c.scope == scope, idempotency.c.key_sha256 == key_sha256
                )
            )
        ).one_or_none()
        return None if row is None else (row.body_sha256, row.transaction_id)

    async def note_answer(self, scope: str, key_sha256: bytes, body_sha256: bytes, transaction_id: str) -> None:
        """Remember a POST.

        Raises:
            sqlalchemy.exc.IntegrityError: Another one with the same key was faster.
        """
        await self._connection.execute(
            idempotency.insert().values(
                scope=scope, key_sha256=key_sha256, body_sha256=body_sha256, transaction_id=transaction_id
            )
        )

    # --- inside

    async def _one(self, condition: "sa.ColumnElement[bool]", *, lock: bool = False) -> Transaction | None:
        # SQLite has no row locks and needs none: there, a transaction that may write is alone from its beginning.
        query = sa.select(transactions).where(condition)
        row = (await self._connection.execute(query.with_for_update() if lock else query)).one_or_none()
        if row is None:
            return None
        rows = await self._connection.execute(
            sa.select(documents).where(documents.c.transaction_id == row.transaction_id).order_by(documents.c.number)
        )
        return _transaction(row, rows.all())

    async def _update(self, transaction_id: str, **values: Any) -> None:
        await self._connection.execute(
            transactions.update().where(transactions.c.transaction_id == transaction_id).values(values)
        )

    async def _update_claim(self, transaction_id: str, owner: str, **values: Any) -> bool:
        changed = await self._connection.execute(
            transactions.update()
            .where(transactions.c.transaction_id == transaction_id, transactions.c.claimed_by == owner)
            .values(values)
        )
        return changed.rowcount == 1

    async def _update_document(self, transaction_id: str, number: int, **values: Any) -> None:
        await self._connection.execute(
            documents.update()
            .where(documents.c.transaction_id == transaction_id, documents.c.number == number)
            .values(values)
        )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _transaction(row: Any, rows: Sequence[Any]) -> Transaction:
    return Transaction(
        transaction_id=row.transaction_id,
        version=row.version,
        state=TransactionState(row.state),
        client_id=row.client_id,
        client_name=row.client_name,
        link_sha256=row.link_sha256,
        link_sealed=row.link_sealed,
        level=Level(row.level),
        format=SignatureFormat(row.format),
        packaging=Packaging(row.packaging),
        algorithm=SignatureAlgorithm(row.algorithm),
        citizen_nif_sealed=row.citizen_nif_sealed,
        grant_sealed=row.grant_sealed,
        granted=_time(row.granted),
        return_url=row.return_url,
        client_nonce=row.client_nonce,
        created=_time(row.created),
        expires=_time(row.expires),
        request_id=row.request_id,
        result_token=row.result_token,
        receipt=row.receipt,
        failure_code=row.failure_code,
        tries=row.tries,
        documents=tuple(_document(document, SignatureFormat(row.format)) for document in rows),
    )


def _document(row: Any, signature_format: SignatureFormat) -> Document:
    parts = None
    if row.signature is not None:
        chain = tuple(base64.b64decode(certificate) for certificate in row.chain)
        parts = SignatureParts(row.to_be_signed, row.signature, chain, row.signed_properties or b"")
    return Document(
        number=row.number,
        title=row.title,
        state=DocumentState(row.state),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        media_type=row.media_type,
        signed_media_type=XML if signature_format is SignatureFormat.XADES else PDF,
        original_id=row.original_id,
        prepared_id=row.prepared_id,
        signed_id=row.signed_id,
        digest=None if row.digest is None else Digest(DigestAlgorithm(row.digest_algorithm), row.digest),
        prepare_state=row.prepare_state,
        parts=parts,
        level=None if row.level is None else Level(row.level),
        failure_code=row.failure_code,
        failure_detail=row.failure_detail,
        next_try=_time(row.next_try),
        tries=row.tries,
    )


def _staging(row: Any) -> Staging:
    return Staging(
        request_id=row.request_id,
        transaction_id=row.transaction_id,
        state=StagingState(row.state),
        cookie_sha256=row.cookie_sha256,
        expires=_time(row.expires),
        verifier_sealed=row.verifier_sealed,
        r_sealed=row.r_sealed,
        code_sealed=row.code_sealed,
        sad_sealed=row.sad_sealed,
        sad_expires=None if row.sad_expires is None else _time(row.sad_expires),
    )
