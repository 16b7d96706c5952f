import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from authn.columns import ColumnCipher
from authn.messages import outbox as outbox_module
from authn.messages.outbox import MessageState, Outbox, OutboxSender, message
from authn.messages.sms import SMSNotAccepted
from tests.testkit.authn import bytes_on_disk, database
from tests.testkit.time import FrozenClock

PHONE = "+34612345678"
TEXT = "Codigo 246810"


class RecordingGateway:
    """Takes every hand-over down; fails as often as it is told."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, str]] = []
        self.failures: list[Exception] = []
        self.tries = 0
        self.hold: asyncio.Event | None = None

    async def hand_over(self, message_id: str, phone: str, text: str, *, deadline_seconds: float) -> None:
        assert deadline_seconds > 0
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append((message_id, phone, text))
        if self.hold is not None:
            await self.hold.wait()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def gateway() -> RecordingGateway:
    return RecordingGateway()


@pytest.fixture
def outbox(clock: FrozenClock) -> Outbox:
    return Outbox(ColumnCipher({1: bytes(32)}), clock)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    async with database(tmp_path) as engine:
        yield engine


@pytest.fixture(autouse=True)
def quick_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "POLL_SECONDS", 0.01)


@asynccontextmanager
async def sending(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> AsyncIterator[None]:
    task = asyncio.create_task(OutboxSender(engine, outbox, gateway, clock).run())
    try:
        yield
        assert not task.done(), "the sender must never stop by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def put(engine: AsyncEngine, outbox: Outbox, clock: FrozenClock, name: str = "m1", **changes: Any) -> None:
    values = {"phone": PHONE, "text": TEXT, "expires": clock.now() + timedelta(minutes=5), **changes}
    async with engine.begin() as connection:
        await outbox.put(connection, message_id=name, **values)


async def row(engine: AsyncEngine, name: str = "m1") -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(sa.select(message).where(message.c.id == name))).one_or_none()


async def state(engine: AsyncEngine, name: str = "m1") -> str:
    found = await row(engine, name)
    return "" if found is None else str(found.state)


async def eventually(reached: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while True:
            found = reached()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.005)


async def settled() -> None:
    """Long enough for many polls."""
    await asyncio.sleep(0.1)


async def is_state(engine: AsyncEngine, wanted: MessageState, name: str = "m1") -> bool:
    return await state(engine, name) == wanted.value


async def test_a_message_is_handed_over_and_forgotten(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    await put(engine, outbox, clock)
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER))
        await settled()
    assert gateway.taken == [("m1", PHONE, TEXT)]
    found = await row(engine)
    assert (found.destination, found.body, found.tries) == (None, None, 1)


async def test_a_woken_sender_does_not_wait_for_the_next_poll(
    engine: AsyncEngine,
    outbox: Outbox,
    gateway: RecordingGateway,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "POLL_SECONDS", 60.0)
    async with sending(engine, outbox, gateway, clock):
        await settled()
        await put(engine, outbox, clock)
        await settled()
        assert gateway.taken == []
        outbox.wake()
        await eventually(lambda: gateway.taken)


async def test_a_rolled_back_message_is_never_sent(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    async with sending(engine, outbox, gateway, clock):
        async with engine.connect() as connection:
            expires = clock.now() + timedelta(minutes=5)
            await outbox.put(connection, message_id="m1", phone=PHONE, text=TEXT, expires=expires)
            await connection.rollback()
        outbox.wake()
        await settled()
    assert gateway.taken == []
    assert await row(engine) is None


async def test_a_refusal_is_tried_again_with_growing_pauses(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    gateway.failures = [SMSNotAccepted("the gateway answered 503")] * 3
    await put(engine, outbox, clock)
    async with sending(engine, outbox, gateway, clock):
        for tries, pause in [(1, 1), (2, 2), (3, 4)]:
            await eventually(lambda tries=tries: gateway.tries == tries)
            await settled()
            assert gateway.tries == tries, "tried again before the pause was over"
            clock.advance(pause)
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER))
    assert gateway.taken == [("m1", PHONE, TEXT)]


async def test_an_expired_message_is_erased_unsent(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    await put(engine, outbox, clock, expires=clock.now() + timedelta(seconds=10))
    clock.advance(10)
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: is_state(engine, MessageState.EXPIRED))
    found = await row(engine)
    assert (found.destination, found.body) == (None, None)
    assert gateway.tries == 0


async def test_a_message_refused_until_it_expires_is_erased(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    gateway.failures = [SMSNotAccepted("no")] * 1000
    await put(engine, outbox, clock, expires=clock.now() + timedelta(seconds=20))
    async with sending(engine, outbox, gateway, clock):
        for _ in range(20):
            await asyncio.sleep(0.02)
            clock.advance(1)
        await eventually(lambda: is_state(engine, MessageState.EXPIRED))
    assert 3 <= gateway.tries <= 6
    assert (await row(engine)).body is None


async def test_a_void_message_looks_the_same_and_is_never_sent(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    await put(engine, outbox, clock, "real")
    await put(engine, outbox, clock, "void", void=True)
    real, void = await row(engine, "real"), await row(engine, "void")
    assert (len(void.destination), len(void.body)) == (len(real.destination), len(real.body))
    assert (void.expires, void.next_try, void.tries) == (real.expires, real.next_try, real.tries)
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER, "real"))
        await settled()
        assert [taken[0] for taken in gateway.taken] == ["real"]
        clock.advance(300)
        await eventually(lambda: is_erased(engine, "void"))
        assert await state(engine, "void") == MessageState.VOID.value


async def test_a_void_message_holds_nothing_that_opens(engine: AsyncEngine, outbox: Outbox, clock: FrozenClock) -> None:
    await put(engine, outbox, clock, void=True)
    found = await row(engine)
    with pytest.raises(InvalidTag):
        outbox.open("m1", found.destination, found.body)


async def is_erased(engine: AsyncEngine, name: str) -> bool:
    found = await row(engine, name)
    return found is not None and found.body is None


async def test_old_rows_are_deleted_a_day_after_they_expired(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    await put(engine, outbox, clock, "real")
    await put(engine, outbox, clock, "void", void=True)
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER, "real"))
        clock.advance(5 * 60 + 24 * 3600 - 1)
        await settled()
        assert await row(engine, "real") is not None
        clock.advance(6)
        await eventually(lambda: is_gone(engine, "real"))
        assert await is_gone(engine, "void")


async def is_gone(engine: AsyncEngine, name: str) -> bool:
    return await row(engine, name) is None


async def test_a_waiting_message_leaves_sooner_when_asked_again(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    gateway.failures = [SMSNotAccepted("no")]
    await put(engine, outbox, clock)
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: gateway.tries == 1)
        await settled()
        async with engine.begin() as connection:
            assert await outbox.send_again(connection, "m1")
        outbox.wake()
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER))
    async with engine.begin() as connection:
        assert not await outbox.send_again(connection, "m1")
        assert not await outbox.send_again(connection, "unknown")
    assert gateway.taken == [("m1", PHONE, TEXT)]


async def test_a_void_message_asked_again_is_not_sent_either(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    await put(engine, outbox, clock, void=True)
    async with sending(engine, outbox, gateway, clock):
        async with engine.begin() as connection:
            assert await outbox.send_again(connection, "m1")
        outbox.wake()
        await settled()
    assert gateway.tries == 0


async def test_two_senders_share_the_work_without_twins(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    names = {f"m{number}" for number in range(40)}
    for name in names:
        await put(engine, outbox, clock, name)
    async with sending(engine, outbox, gateway, clock), sending(engine, outbox, gateway, clock):
        await eventually(lambda: len(gateway.taken) >= len(names))
        await settled()
    assert len(gateway.taken) == len(names)
    assert {taken[0] for taken in gateway.taken} == names


async def test_a_hanging_gateway_holds_a_bounded_number(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    gateway.hold = asyncio.Event()
    for number in range(outbox_module.PARALLEL_HAND_OVERS + 5):
        await put(engine, outbox, clock, f"m{number}")
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: gateway.tries == outbox_module.PARALLEL_HAND_OVERS)
        await settled()
        assert gateway.tries == outbox_module.PARALLEL_HAND_OVERS
        gateway.hold.set()
        await eventually(lambda: gateway.tries == outbox_module.PARALLEL_HAND_OVERS + 5)


async def test_a_sender_killed_after_the_hand_over_repeats_it_under_the_same_id(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    gateway.hold = asyncio.Event()
    await put(engine, outbox, clock)
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: gateway.taken)
    assert await state(engine) == MessageState.WAITING.value
    gateway.hold = None
    async with sending(engine, outbox, gateway, clock):
        await settled()
        assert len(gateway.taken) == 1, "the claim was not kept"
        clock.advance(outbox_module.CLAIM.total_seconds())
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER))
    assert gateway.taken == [("m1", PHONE, TEXT)] * 2


async def test_a_gateway_with_a_bug_does_not_stop_the_others(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    gateway.failures = [RuntimeError(f"cannot send {TEXT} to {PHONE}")]
    await put(engine, outbox, clock, "m1")
    with capture_logs() as logs:
        async with sending(engine, outbox, gateway, clock):
            await eventually(lambda: gateway.tries == 1)
            await put(engine, outbox, clock, "m2")
            await eventually(lambda: is_state(engine, MessageState.HANDED_OVER, "m2"))
    assert any(entry["event"] == "outbox_hand_over_broke" for entry in logs)
    assert TEXT not in str(logs)
    assert PHONE not in str(logs)


async def test_a_database_that_fails_for_a_while_only_delays(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE message RENAME TO away"))
    async with sending(engine, outbox, gateway, clock):
        await settled()
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE away RENAME TO message"))
        await put(engine, outbox, clock)
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER))


async def test_a_body_moved_to_another_row_is_not_sent(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock
) -> None:
    await put(engine, outbox, clock, "m1")
    await put(engine, outbox, clock, "m2", phone="+34687654321")
    other = await row(engine, "m2")
    async with engine.begin() as connection:
        await connection.execute(sa.update(message).where(message.c.id == "m1").values(destination=other.destination))
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER, "m2"))
        await settled()
    assert [taken[0] for taken in gateway.taken] == ["m2"]
    assert await state(engine, "m1") == MessageState.WAITING.value


async def test_neither_number_nor_text_lies_in_the_clear_before_or_after(
    engine: AsyncEngine, outbox: Outbox, gateway: RecordingGateway, clock: FrozenClock, tmp_path: Path
) -> None:
    await put(engine, outbox, clock)
    before = bytes_on_disk(tmp_path)
    async with sending(engine, outbox, gateway, clock):
        await eventually(lambda: is_state(engine, MessageState.HANDED_OVER))
    await engine.dispose()
    after = bytes_on_disk(tmp_path)
    for stored in (before, after):
        assert b"m1" in stored, "the canaries would be looked for in the wrong place"
        for canary in (PHONE, "612345678", TEXT, "246810"):
            assert canary.encode() not in stored
