"""Messages on their way out: written in the transaction that needs them, handed over by a task, across crashes."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from authn.columns import ColumnCipher
from authn.messages.sms import SMSGateway, SMSNotAccepted
from authn.tables import UTCDateTime, metadata
from domain.clock import Clock
from domain.ids import Randomness

PARALLEL_HAND_OVERS = 8
POLL_SECONDS = 1.0
"""How often the table is looked at when nobody wakes the sender: after a crash, and for tries that failed."""
HAND_OVER_SECONDS = 10.0
"""Deadline of one try."""
CLAIM = timedelta(seconds=30)
"""How long a claimed message is left alone; longer than one try, so that a live try is never doubled."""
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(seconds=30)
SWEEP = timedelta(seconds=5)
"""How often expired bodies are erased and old rows deleted."""
KEPT_AFTER_EXPIRY = timedelta(days=1)
ERASED = {"destination": None, "body": None}

log = structlog.get_logger(__name__)

message = sa.Table(
    "message",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("destination", sa.LargeBinary),
    sa.Column("body", sa.LargeBinary),
    sa.Column("expires", UTCDateTime, nullable=False),
    sa.Column("next_try", UTCDateTime, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("repeatable", sa.Boolean, nullable=False),
    sa.Column("repeats", sa.Integer, nullable=False),
    sa.Index("message_due", "state", "next_try"),
)


class MessageState(StrEnum):
    """Life of a message."""

    WAITING = "WAITING"
    HANDED_OVER = "HANDED_OVER"
    EXPIRED = "EXPIRED"
    VOID = "VOID"
    """Never to be sent: written so that a wrong password costs the same rows as the right one."""


class Outbox:
    """Queues SMS; the body lies encrypted until it is handed over, then it is erased.

    A repeatable one, a one-time code that the citizen may ask for again, keeps it until it expires, minutes later.
    """

    def __init__(self, columns: ColumnCipher, clock: Clock, randomness: Randomness = secrets.token_bytes) -> None:
        self._columns = columns
        self._clock = clock
        self._randomness = randomness
        self._woken = asyncio.Event()

    async def put(
        self,
        connection: AsyncConnection,
        *,
        message_id: str,
        phone: str,
        text: str,
        expires: datetime,
        repeatable: bool = False,
        void: bool = False,
    ) -> None:
        """Queue one SMS in the caller's transaction; one row, of the same shape when ``void``.

        Call ``wake`` after the commit, so that the message leaves at once.
        """
        destination = self._columns.seal(phone, "message", "destination", message_id)
        body = self._columns.seal(text, "message", "body", message_id)
        if void:
            destination, body = self._randomness(len(destination)), self._randomness(len(body))
        await connection.execute(
            sa.insert(message).values(
                id=message_id,
                state=(MessageState.VOID if void else MessageState.WAITING).value,
                destination=destination,
                body=body,
                expires=expires,
                next_try=self._clock.now(),
                tries=0,
                repeatable=repeatable,
                repeats=0,
            )
        )

    async def send_again(self, connection: AsyncConnection, message_id: str) -> bool:
        """Queue the stored message once more; False if it was erased.

        A ``VOID`` message answers as a real one does. The answer is for the log, never for a stranger.
        """
        again = sa.case(
            (message.c.state == MessageState.HANDED_OVER.value, MessageState.WAITING.value), else_=message.c.state
        )
        # What was handed over goes out under a new id, or a gateway that keeps ids would take it for a twin.
        was_sent = sa.case((message.c.state == MessageState.WAITING.value, 0), else_=1)
        done = await connection.execute(
            sa.update(message)
            .where(message.c.id == message_id, message.c.body.is_not(None), message.c.expires > self._clock.now())
            .values(state=again, repeats=message.c.repeats + was_sent, next_try=self._clock.now())
        )
        return done.rowcount == 1

    def wake(self) -> None:
        """Tell this process's sender that something was committed; harmless when there is none."""
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Return when woken, or after ``seconds``."""
        # Not wait_for: on Python 3.11 it swallows a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    def open(self, message_id: str, destination: bytes, body: bytes) -> tuple[str, str]:
        """Phone and text of a stored message."""
        return (
            self._columns.open(destination, "message", "destination", message_id),
            self._columns.open(body, "message", "body", message_id),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claimed:
    id: str
    destination: bytes = field(repr=False)
    body: bytes = field(repr=False)
    expires: datetime
    tries: int
    repeatable: bool
    repeats: int

    @property
    def gateway_id(self) -> str:
        """The id by which a gateway knows twins."""
        return f"{self.id}.{self.repeats}" if self.repeats else self.id


class OutboxSender:
    """Hands waiting messages to the gateway, at least once each until they expire; the gateway drops twins by id.

    Several cores may run one each over the same table: a claim is a conditional update that one of them wins.
    """

    def __init__(self, engine: AsyncEngine, outbox: Outbox, gateway: SMSGateway, clock: Clock) -> None:
        self._engine = engine
        self._outbox = outbox
        self._gateway = gateway
        self._clock = clock
        self._busy: set[asyncio.Task[None]] = set()
        self._next_sweep: datetime | None = None

    async def run(self) -> None:
        """Work until cancelled; a database or gateway that fails is tried again."""
        try:
            while True:
                try:
                    await self._sweep()
                    for claimed in await self._claim(PARALLEL_HAND_OVERS - len(self._busy)):
                        task = asyncio.create_task(self._hand_over(claimed))
                        self._busy.add(task)
                        task.add_done_callback(self._finished)
                except sa.exc.SQLAlchemyError as error:
                    log.warning("outbox_database_failed", error=type(error).__name__)
                await self._outbox.wait(POLL_SECONDS)
        finally:
            for task in self._busy:
                task.cancel()
            await asyncio.gather(*self._busy, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._outbox.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Only the type: an error's text may quote what was sent.
            log.error("outbox_hand_over_broke", error=type(error).__name__)

    async def _claim(self, limit: int) -> list[_Claimed]:
        """Take due messages for ``CLAIM``; whoever else wanted them finds another number of tries."""
        if limit <= 0:
            return []
        now = self._clock.now()
        claimed = []
        async with self._engine.begin() as connection:
            due = await connection.execute(
                sa.select(*(message.c[name] for name in _Claimed.__dataclass_fields__))
                .where(
                    message.c.state == MessageState.WAITING.value,
                    message.c.next_try <= now,
                    message.c.expires > now,
                )
                .order_by(message.c.next_try)
                .limit(limit)
            )
            for row in due.mappings().all():
                won = await connection.execute(
                    sa.update(message)
                    .where(
                        message.c.id == row["id"],
                        message.c.state == MessageState.WAITING.value,
                        message.c.tries == row["tries"],
                    )
                    .values(tries=row["tries"] + 1, next_try=now + CLAIM)
                )
                if won.rowcount == 1:
                    claimed.append(_Claimed(**{**row, "tries": row["tries"] + 1}))
        return claimed

    async def _hand_over(self, claimed: _Claimed) -> None:
        left = (claimed.expires - self._clock.now()).total_seconds()
        phone, text = self._outbox.open(claimed.id, claimed.destination, claimed.body)
        try:
            await self._gateway.hand_over(
                claimed.gateway_id, phone, text, deadline_seconds=min(HAND_OVER_SECONDS, left)
            )
        except SMSNotAccepted as refusal:
            log.warning("sms_not_accepted", message=claimed.id, tries=claimed.tries, reason=str(refusal))
            await self._put_off(claimed)
            return
        # A crash just here repeats the hand-over under the same id. Expiry may have come first; then this is truer.
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(message)
                .where(message.c.id == claimed.id)
                .values(state=MessageState.HANDED_OVER.value, **({} if claimed.repeatable else ERASED))
            )
        log.info("sms_handed_over", message=claimed.id, tries=claimed.tries)

    async def _put_off(self, claimed: _Claimed) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(claimed.tries - 1, 10))
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(message)
                .where(
                    message.c.id == claimed.id,
                    message.c.state == MessageState.WAITING.value,
                    message.c.tries == claimed.tries,
                )
                .values(next_try=self._clock.now() + pause)
            )

    async def _sweep(self) -> None:
        """Erase what expired, delete what is long over."""
        now = self._clock.now()
        if self._next_sweep is not None and now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(message)
                .where(message.c.state == MessageState.WAITING.value, message.c.expires <= now)
                .values(state=MessageState.EXPIRED.value, **ERASED)
            )
            await connection.execute(
                sa.update(message).where(message.c.body.is_not(None), message.c.expires <= now).values(**ERASED)
            )
            await connection.execute(sa.delete(message).where(message.c.expires <= now - KEPT_AFTER_EXPIRY))
