"""Logs for the offline verifier to judge: leaves of the core's form, published by the real sequencer."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from audit.checkpoint import Checkpoint
from audit.log import log_pending, metadata
from audit.merkle import Frontier, leaf_hash
from audit.tables import log_checkpoint, log_head, log_leaf
from audit.tiles import TILE_HEIGHT, TILE_WIDTH, TileName, bundle
from domain.ids import new_id
from hsm.keys import SigningKey
from hsm.vault import Vault
from rubrica.database import make_engine
from rubrica_verify import cli
from rubrica_verify.report import Report
from tests.testkit.sequencing import ORIGIN, Logging
from tests.testkit.time import FrozenClock

BEGUN_MS = 1_772_442_000_000


def a_leaf(tag: str, *, time: int, leaf_id: str, pid: bytes | None = None, **facts: Any) -> bytes:
    """A leaf as the core encodes it."""
    content = {"v": 1, "id": leaf_id, "tag": tag, "time": time, "pid": pid, "facts": facts}
    return cbor2.dumps(content, canonical=True)


def a_history(leaves: int, source: random.Random, *, begun: int = BEGUN_MS) -> list[bytes]:
    """So many leaves of a log in which every rule holds: interleaved approvals, and other things between them."""
    now = begun
    history: list[bytes] = []
    running: list[Iterator[tuple[str, str, bytes | None, dict[str, Any]]]] = []
    while len(history) < leaves:
        if len(running) < 3 and source.random() < 0.5:
            running.append(_an_approval(source))
        if not running or source.random() < 0.1:
            late = source.choice((0, 0, 400))
            history.append(a_leaf("ADMIN", time=now - late, leaf_id=new_id(source.randbytes), action="client_state"))
        else:
            one = source.choice(running)
            try:
                tag, leaf_id, pid, facts = next(one)
            except StopIteration:
                running.remove(one)
                continue
            history.append(a_leaf(tag, time=now, leaf_id=leaf_id, pid=pid, **facts))
        now += source.choice((0, 1, 250, 900))
    return history


def time_of(leaf: bytes) -> int:
    """When it was written."""
    return int(cbor2.loads(leaf)["time"])


def _an_approval(source: random.Random) -> Iterator[tuple[str, str, bytes | None, dict[str, Any]]]:
    def name() -> str:
        return new_id(source.randbytes)

    cid, request, pid = name(), name(), source.randbytes(32)
    yield "OTP_SENT", name(), pid, {"cid": cid, "request": request, "client": "web"}
    if source.random() < 0.2:
        yield "AUTH_FAIL", name(), pid, {"cid": cid, "reason": "otp"}
    approved = {"cid": cid, "request": request, "client": "web", "factors": "password+sms"}
    yield "AUTH_OK", name(), pid, {**approved, "list": source.randbytes(32)}
    yield "REDEEM", name(), pid, {"cid": cid, "request": request}
    for item in range(source.randrange(1, 4)):
        while True:
            intent = name()
            begun = {"cid": cid, "item": item, "epoch": 1, "purpose": "sign", "format": "pades", "client": "web"}
            yield "INTENT", intent, pid, {**begun, "tbs": source.randbytes(32)}
            ends = {"cid": cid, "item": item, "intent": intent}
            if source.random() < 0.8:
                break
            yield "ABORTED", name(), None, {**ends, "reason": "crash"}
        if item == 0:
            yield "CERT_ISSUE", name(), pid, {**ends, "spki": source.randbytes(32)}
        else:
            yield "COMPLETE", name(), pid, ends


@asynccontextmanager
async def a_log(folder: Path) -> AsyncIterator[Logging]:
    """A log over the SQLite file in ``folder``, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = make_engine(f"sqlite+aiosqlite:///{folder / 'core.db'}")
    try:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        yield Logging(engine, folder, FrozenClock())
    finally:
        await engine.dispose()


async def commit(logging: Logging, leaves: Sequence[bytes]) -> None:
    """Have these leaves in the database, in this order, behind those that are there."""
    rows = [
        {
            "id": new_id(),
            "tag": "ADMIN",
            "time": datetime.fromtimestamp(BEGUN_MS / 1000, UTC),
            "pid": None,
            "leaf": leaf,
        }
        for leaf in leaves
    ]
    async with logging.engine.begin() as connection:
        if rows:
            await connection.execute(sa.insert(log_pending), rows)


async def rewrite(logging: Logging, leaves: Sequence[bytes]) -> None:
    """Play the administrator: take the triggers away, put other leaves, and forget what was published of the old."""
    async with logging.engine.begin() as connection:
        for table in (log_checkpoint, log_leaf, log_head, log_pending):
            if table is not log_head:
                for operation in ("update", "delete"):
                    await connection.execute(sa.text(f"DROP TRIGGER {table.name}_no_{operation}"))
            await connection.execute(sa.delete(table))
    await commit(logging, leaves)


async def publish(logging: Logging, name: str = "core-1") -> Path:
    """Have the real sequencer publish what is there; gives the log's folder."""
    sequencer = logging.sequencer(name)
    assert await sequencer.take_over(name)
    await sequencer.step()
    return logging.files(name)


async def lay_out(folder: Path, leaves: Iterable[bytes], vault: Vault) -> Checkpoint:
    """Write a log's files from its leaves alone, for trees that are too large for a database in a test."""
    frontier, waiting = Frontier(), dict[int | None, list[bytes]]()
    done: Counter[int | None] = Counter()

    def write(level: int | None) -> None:
        part = waiting[level]
        path = folder / TileName(level, done[level], len(part)).path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle(part) if level is None else b"".join(part))
        done[level] += 1
        waiting[level] = []

    def add(level: int | None, part: bytes) -> None:
        waiting.setdefault(level, []).append(part)
        if len(waiting[level]) == TILE_WIDTH:
            write(level)

    for leaf in leaves:
        add(None, leaf)
        for level, _, hashed in frontier.append(leaf_hash(leaf)):
            if level % TILE_HEIGHT == 0:
                add(level // TILE_HEIGHT, hashed)
    for unfinished in [level for level, part in waiting.items() if part]:
        write(unfinished)
    checkpoint = Checkpoint(ORIGIN, frontier.size, frontier.root())
    signature = await vault.sign_with(SigningKey.LOG, checkpoint.digest())
    (folder / "checkpoint").write_bytes(checkpoint.note(await vault.public_key(SigningKey.LOG), signature))
    return checkpoint


async def write_key(vault: Vault, target: Path) -> Path:
    """The log's public key, as an auditor is given it."""
    key = load_der_public_key(await vault.public_key(SigningKey.LOG))
    target.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return target


def verified(*arguments: object) -> Report:
    """What ``rubrica-verify`` finds, in this process."""
    return cli.verify(cli.parser().parse_args([str(argument) for argument in arguments]))
