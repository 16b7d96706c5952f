"""From a stored code to signed documents: redeem, sign in chunks, finish one by one; goes on after any crash.

Every step first looks at what is stored, does the next thing and stores it. The core answers a repeated redeem or sign
with the same bytes, so a step that was done but not stored is simply done again.
"""

import asyncio
import contextlib
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from api.storage import DocumentStore
from api.transactions.model import (
    UNDER_WAY,
    Document,
    DocumentState,
    DocumentWorker,
    Staging,
    StagingState,
    Transaction,
    TransactionState,
)
from api.transactions.repository import TransactionRepository
from api.transactions.seals import Sealer
from documents.model import AsyncFetch, Level, LevelNotReached, SignatureParts, TrustMaterial
from domain.clock import Clock, to_epoch_seconds
from domain.errors import DependencyUnavailable, RequestExpired, RubricaError
from domain.ids import new_id
from signer.client import SignatureActivationClient, SignedItems, SignedState

CHUNK_ITEMS = 10
"""Items per SIGN call: few enough for its deadline, many enough that one unwrap serves several."""
HOLD = timedelta(seconds=30)
"""A worker that says nothing for so long is dead, and another one may go on with the SAD that is still alive."""
HEARTBEAT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 2
LONGEST_PAUSE_SECONDS = 3600
SAD_PAUSE_SECONDS = 15
"""While a SAD lives, waiting longer than this would waste it."""

VERIFIER = "stagings.verifier"
R = "stagings.r"
CODE = "stagings.code"
SAD = "stagings.sad"

_FINAL = (DocumentState.SIGNED, DocumentState.PARTIAL, DocumentState.FAILED)
_log = structlog.get_logger(__name__)


class Signing:
    """Carries approved transactions to their end."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: DocumentStore,
        sealer: Sealer,
        activation: SignatureActivationClient,
        worker: DocumentWorker,
        *,
        trust: TrustMaterial,
        fetch: AsyncFetch,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._store = store
        self._sealer = sealer
        self._activation = activation
        self._worker = worker
        self._trust = trust
        self._fetch = fetch
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, transaction_id: str) -> "asyncio.Task[None]":
        """Work on a transaction in the background; one task per transaction."""
        task = self._tasks.get(transaction_id)
        if task is None:
            task = asyncio.create_task(self.advance(transaction_id))
            self._tasks[transaction_id] = task
            task.add_done_callback(lambda _done: self._tasks.pop(transaction_id, None))
        return task

    async def resume_due(self) -> int:
        """Start what is due and held by nobody; gives the number."""
        async with self._engine.begin() as connection:
            due = await TransactionRepository(connection).due(self._clock.now())
        results = await asyncio.gather(*(self.start(each) for each in due), return_exceptions=True)
        for result in results:
            if isinstance(result, RubricaError):
                _log.info("resumed and refused", problem=result.code)
            elif isinstance(result, BaseException):
                _log.error("resuming failed", exc_info=result)
        return len(due)

    async def settle(self) -> None:
        """Wait for the tasks under way, for a graceful stop."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def advance(self, transaction_id: str) -> None:
        """Go as far as possible now.

        Raises:
            ActivationError: The core refused the code; nothing is signed and the right code may still come.
        """
        now, owner = self._clock.now(), new_id()
        async with self._engine.begin() as connection:
            if not await TransactionRepository(connection).claim(transaction_id, owner, now=now, until=now + HOLD):
                return
        done = asyncio.Event()
        heartbeat = asyncio.create_task(self._hold_on(transaction_id, owner, done))
        work = asyncio.create_task(self._work(transaction_id))
        try:
            await asyncio.wait((work, heartbeat), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Still at work: this task was cancelled, or the hold is lost. Two who work on the same transaction would
            # ask the core for everything twice, and write over each other.
            work.cancel()
            done.set()
            await asyncio.wait((work, heartbeat))
            async with self._engine.begin() as connection:
                await TransactionRepository(connection).release(transaction_id, owner)
        if not work.cancelled():
            work.result()

    async def _work(self, transaction_id: str) -> None:
        try:
            await self._redeem(transaction_id)
            await self._sign(transaction_id)
            await self._finish(transaction_id)
            await self._extend(transaction_id)
        except DependencyUnavailable as error:
            await self._try_later(transaction_id)
            _log.info("waiting for a dependency", problem=error.code, transaction_id=transaction_id)
        except RubricaError:
            raise
        except Exception:
            # A fault of ours: the next attempt may wait, too.
            await self._try_later(transaction_id)
            raise

    async def _hold_on(self, transaction_id: str, owner: str, done: asyncio.Event) -> None:
        """Renew the hold until ``done``; ends before only when it is lost."""
        while True:
            # Not wait_for: on Python 3.11 it swallows a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await done.wait()
                    return
            try:
                async with self._engine.begin() as connection:
                    repository = TransactionRepository(connection)
                    held = await repository.hold(transaction_id, owner, until=self._clock.now() + HOLD)
            except Exception:  # noqa: BLE001 - whatever it is, who cannot say that it works must stop
                _log.exception("the hold could not be renewed; the work stops", transaction_id=transaction_id)
                return
            if not held:
                _log.warning("another one took over; the work stops", transaction_id=transaction_id)
                return

    # --- redeem (step 13 of the activation protocol)

    async def _redeem(self, transaction_id: str) -> None:
        transaction, staging = await self._load(transaction_id)
        if staging is None or staging.state is not StagingState.REDEEMING:
            return
        request_id = staging.request_id
        if staging.code_sealed is None or staging.r_sealed is None:
            raise RuntimeError("a staging that is being redeemed holds a code and r")
        try:
            redeemed = await self._activation.redeem(
                request_id=request_id,
                code=self._sealer.open(CODE, request_id, staging.code_sealed),
                pkce_verifier=self._sealer.open(VERIFIER, request_id, staging.verifier_sealed),
                r=self._sealer.open(R, request_id, staging.r_sealed),
            )
        except DependencyUnavailable:
            raise
        except RubricaError:
            # A wrong code must not spoil the right one: the staging waits again, with the same r.
            async with self._engine.begin() as connection:
                repository = TransactionRepository(connection)
                await repository.move_staging(staging, StagingState.STAGED, code_sealed=None)
                await repository.move(transaction, TransactionState.REVIEWED)
            raise
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            await repository.move_staging(
                staging,
                StagingState.REDEEMED,
                code_sealed=None,
                sad_sealed=self._sealer.seal(SAD, request_id, redeemed.sad),
                sad_expires=to_epoch_seconds(redeemed.expires),
            )
            await repository.move(transaction, TransactionState.SIGNING)

    # --- sign (steps 14 to 18)

    async def _sign(self, transaction_id: str) -> None:
        transaction, staging = await self._load(transaction_id)
        if staging is None or staging.state is not StagingState.REDEEMED or staging.sad_sealed is None:
            return
        sad = self._sealer.open(SAD, staging.request_id, staging.sad_sealed)
        for chunk in _chunks(transaction):
            if staging.sad_expires is None or staging.sad_expires <= self._clock.now():
                await self._give_up(transaction_id, RequestExpired("the approval expired before this was signed"))
                return
            try:
                answer = await self._activation.sign(sad, chunk)
            except DependencyUnavailable:
                raise
            except RubricaError as error:
                await self._give_up(transaction_id, error)
                return
            await self._store_signatures(transaction_id, answer)

    async def _store_signatures(self, transaction_id: str, answer: SignedItems) -> None:
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            for item in answer.items:
                # Item 0 is the certificate: its signature is the authority's business.
                if item.item_number > 0 and item.state is SignedState.SIGNED:
                    parts = SignatureParts(item.to_be_signed, item.signature, item.chain, item.signed_properties)
                    await repository.signature(transaction_id, item.item_number, parts)
            if answer.result_token:
                await repository.set_outcome(transaction_id, answer.result_token, answer.receipt)

    async def _give_up(self, transaction_id: str, error: RubricaError) -> None:
        """What has its signature value is finished all the same: a batch never rolls back."""
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            transaction = await repository.by_id(transaction_id)
            for document in transaction.documents if transaction else ():
                if document.parts is None and document.state not in _FINAL:
                    await repository.document_failed(transaction_id, document.number, error.code, error.public_detail)

    # --- finish

    async def _finish(self, transaction_id: str) -> None:
        transaction, staging = await self._load(transaction_id)
        if transaction.state not in UNDER_WAY:
            return
        for document in transaction.documents:
            if document.state is DocumentState.PREPARED and document.parts is not None:
                await self._finish_document(transaction, document)
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            done = await repository.by_id(transaction_id)
            if done is None or staging is None or any(item.state not in _FINAL for item in done.documents):
                return
            failed = [item for item in done.documents if item.state is DocumentState.FAILED]
            if len(failed) < len(done.documents):
                await repository.move(done, TransactionState.DONE)
            else:
                await repository.move(done, TransactionState.FAILED, failure_code=failed[0].failure_code)
            await repository.close_stagings(transaction_id)

    async def _finish_document(self, transaction: Transaction, document: Document) -> None:
        try:
            scratch, reached = await self._completed(transaction, document)
        except DependencyUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a document that cannot be finished must not hold back the others
            known = isinstance(error, RubricaError)
            if not known:
                _log.exception("finishing a document failed", transaction_id=transaction.transaction_id)
            async with self._engine.begin() as connection:
                await TransactionRepository(connection).document_failed(
                    transaction.transaction_id,
                    document.number,
                    error.code if isinstance(error, RubricaError) else "internal",
                    error.public_detail if isinstance(error, RubricaError) else "the signature could not be put in",
                )
            return
        await self._keep(transaction, document, scratch, reached)

    async def _extend(self, transaction_id: str) -> None:
        """Documents below their level: finished anew from the same prepared bytes and the same signature value."""
        transaction, _ = await self._load(transaction_id)
        for document in transaction.documents:
            if document.state is not DocumentState.PARTIAL or document.next_try > self._clock.now():
                continue
            try:
                await self._extend_document(transaction, document)
            except Exception as error:  # noqa: BLE001 - one that cannot be extended must not starve the others
                if isinstance(error, RubricaError):
                    _log.info("not extended", problem=error.code, transaction_id=transaction_id)
                else:
                    _log.exception("extending a document failed", transaction_id=transaction_id)
                await self._try_document_later(transaction_id, document)

    async def _extend_document(self, transaction: Transaction, document: Document) -> None:
        scratch, reached = await self._completed(transaction, document)
        if reached is document.level:
            scratch.unlink(missing_ok=True)
            await self._try_document_later(transaction.transaction_id, document)
        else:
            await self._keep(transaction, document, scratch, reached)

    async def _completed(self, transaction: Transaction, document: Document) -> tuple[Path, Level]:
        """A finished copy, and the level that it reached."""
        if document.prepared_id is None or document.prepare_state is None or document.parts is None:
            raise RuntimeError("only a prepared document with its signature value can be finished")
        scratch = await self._store.copy(document.prepared_id)
        try:
            finished = await self._worker.finish(
                scratch,
                document.prepare_state,
                document.parts,
                level=transaction.level,
                trust=self._trust,
                fetch=self._fetch,
            )
        except LevelNotReached as short:
            return scratch, short.reached.level
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        return scratch, finished.level

    async def _keep(self, transaction: Transaction, document: Document, scratch: Path, reached: Level) -> None:
        signed_id = await self._store.keep(scratch)
        state = DocumentState.SIGNED if reached is transaction.level else DocumentState.PARTIAL
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            await repository.signed(
                transaction.transaction_id, document.number, state=state, signed_id=signed_id, level=reached
            )
        await self._store.delete(document.signed_id)
        if state is DocumentState.PARTIAL:
            await self._try_document_later(transaction.transaction_id, document)

    async def _try_document_later(self, transaction_id: str, document: Document) -> None:
        async with self._engine.begin() as connection:
            await TransactionRepository(connection).try_document_later(
                transaction_id,
                document.number,
                at=self._after_pause(document.tries, LONGEST_PAUSE_SECONDS),
                tries=document.tries + 1,
            )

    # --- inside

    async def _try_later(self, transaction_id: str) -> None:
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            transaction = await repository.by_id(transaction_id)
            if transaction is not None:
                at = self._after_pause(transaction.tries, SAD_PAUSE_SECONDS)
                await repository.try_later(transaction_id, at=at, tries=transaction.tries + 1)

    def _after_pause(self, tries: int, longest_seconds: int) -> datetime:
        pause = min(FIRST_PAUSE_SECONDS << min(tries, 16), longest_seconds)
        return self._clock.now() + timedelta(seconds=pause)

    async def _load(self, transaction_id: str) -> tuple[Transaction, Staging | None]:
        async with self._engine.begin() as connection:
            repository = TransactionRepository(connection)
            transaction = await repository.by_id(transaction_id)
            if transaction is None:
                raise RuntimeError("a transaction is never removed while it is worked on")
            staging = await repository.staging(transaction.request_id) if transaction.request_id else None
        return transaction, staging


def _chunks(transaction: Transaction) -> list[list[int]]:
    """Item numbers still to be asked for, the certificate's first.

    If every value is here and only the result token was lost on the way, the last item is asked for again.
    """
    waiting = [
        document.number
        for document in transaction.documents
        if document.parts is None and document.state is DocumentState.PREPARED
    ]
    if not waiting and not transaction.result_token and transaction.documents:
        waiting = [transaction.documents[-1].number]
    if len(waiting) == len(transaction.documents):
        waiting = [0, *waiting]
    return [waiting[start : start + CHUNK_ITEMS] for start in range(0, len(waiting), CHUNK_ITEMS)]
