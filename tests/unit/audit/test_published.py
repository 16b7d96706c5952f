"""Proofs of single leaves, checked as whoever gets one would: with nothing but the log's key and origin."""

import base64

import pytest
import sqlalchemy as sa

from audit.checkpoint import CheckpointRefused, read_checkpoint
from audit.log import log_pending, metadata
from audit.merkle import includes, leaf_hash
from audit.published import Published
from domain.errors import LogUnavailable, NotFound
from hsm.keys import SigningKey
from rubrica.database import make_engine
from tests.testkit.sequencing import ORIGIN, SHARD, Logging
from tests.testkit.time import FrozenClock


@pytest.fixture
async def logging(tmp_path):
    engine = make_engine(f"sqlite+aiosqlite:///{tmp_path}/core.db")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield Logging(engine, tmp_path, FrozenClock())
    await engine.dispose()


def published(logging, name="core-1"):
    return Published(engine=logging.engine, vault=logging.vault, folder=logging.files(name), shard=SHARD, origin=ORIGIN)


async def ids(logging):
    async with logging.engine.connect() as connection:
        return list(await connection.scalars(sa.select(log_pending.c.id).order_by(log_pending.c.position)))


def holds(proof: str, spki: bytes) -> bool:
    head, _, note = proof.partition("\n\n")
    first, extra, index, *hashes = head.split("\n")
    assert first == "c2sp.org/tlog-proof@v1"
    checkpoint = read_checkpoint(note.encode(), ORIGIN, spki)
    leaf = base64.b64decode(extra.removeprefix("extra "))
    steps = [base64.b64decode(each) for each in hashes]
    return includes(leaf_hash(leaf), int(index.removeprefix("index ")), checkpoint.size, steps, checkpoint.root)


async def test_every_leaf_is_proved_under_the_newest_checkpoint(logging):
    proofs, sequencer = published(logging), logging.sequencer()
    await sequencer.take_over("core-1")
    for leaves in (1, 4, 300):
        await logging.write(leaves)
        await sequencer.step()
    spki = await logging.vault.public_key(SigningKey.LOG)
    named = await ids(logging)
    for number in (0, 1, 4, 5, 255, 256, 304):
        proof = await proofs.proof(named[number])
        assert holds(proof, spki)
        assert f"\nindex {number}\n" in proof
        assert not holds(proof.replace(f"index {number}\n", f"index {number + 1}\n"), spki)
        other = base64.b64encode(b"another leaf").decode()
        assert not holds(proof.replace(proof.split("\n")[1], f"extra {other}"), spki)
        with pytest.raises(CheckpointRefused):
            holds(proof.replace("\n305\n", "\n306\n"), spki)


async def test_before_its_checkpoint_there_is_no_proof(logging):
    proofs, sequencer = published(logging), logging.sequencer()
    await sequencer.take_over("core-1")
    await logging.write(1)
    (first,) = await ids(logging)
    with pytest.raises(LogUnavailable):
        await proofs.proof(first)
    await sequencer.step()
    assert await proofs.proof(first)
    await logging.write(1)
    with pytest.raises(LogUnavailable):
        await proofs.proof((await ids(logging))[1])
    with pytest.raises(NotFound):
        await proofs.proof("0" * 26)
    await sequencer.step()
    assert await proofs.proof(first)
    elsewhere = published(logging, "core-2")
    with pytest.raises(LogUnavailable):
        await elsewhere.proof(first)


async def test_files_are_given_by_their_names_and_nothing_else_is(logging):
    given, sequencer = published(logging), logging.sequencer()
    assert (await given.describe()).checkpoint == b""
    await sequencer.take_over("core-1")
    await logging.write(3)
    checkpoint = await sequencer.step()
    described = await given.describe()
    assert read_checkpoint(described.checkpoint, described.origin, described.spki) == checkpoint
    assert await given.file("tile/0/000.p/3") == (logging.files() / "tile/0/000.p/3").read_bytes()
    (logging.files() / "secret").write_text("x")
    for path in ("checkpoint", "secret", "tile/0/001", "../core-1.memory", "tile/0/../../secret", "/etc/passwd", ""):
        with pytest.raises(NotFound):
            await given.file(path)
