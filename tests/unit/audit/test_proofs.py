"""Proofs of single leaves, checked as whoever gets one would: with nothing but the log's key and origin."""

import base64

import pytest
import sqlalchemy as sa

from audit.checkpoint import CheckpointRefused, read_checkpoint
from audit.log import log_pending, metadata
from audit.merkle import includes, leaf_hash
from audit.proofs import Proofs
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
    proofs, sequencer = Proofs(logging.engine, logging.files(), SHARD), logging.sequencer()
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
    proofs, sequencer = Proofs(logging.engine, logging.files(), SHARD), logging.sequencer()
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
    elsewhere = Proofs(logging.engine, logging.files("core-2"), SHARD)
    with pytest.raises(LogUnavailable):
        await elsewhere.proof(first)
