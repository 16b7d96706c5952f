"""``rubrica audit tree`` and ``prove``: what an auditor carries away is the tree, and nothing else is taken for it."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from audit.checkpoint import read_checkpoint
from audit.log import Event, EventTag
from audit.merkle import root_of
from audit.tiles import TileFolder, TileName
from tests.testkit.auditor import auditing
from tests.testkit.core import playing

ORIGIN = "localhost/log/1"


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path) as played:
        assert await played.core.sequencer.take_over("core")
        yield played


@pytest.fixture
async def auditor(tmp_path, played):
    async with auditing(tmp_path / "s", played) as auditor:
        yield auditor


async def write(played, leaves):
    async with played.core.engine.begin() as connection:
        await played.core.log.append(connection, *[Event(tag=EventTag.ADMIN)] * leaves)
    return await played.core.sequencer.step()


def checkpoint_in(folder):
    key = load_pem_public_key((folder / "log.pem").read_bytes())
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return read_checkpoint((folder / "checkpoint").read_bytes(), ORIGIN, spki)


async def test_the_tree_is_fetched_and_then_only_what_is_new(auditor, played, tmp_path):
    folder = tmp_path / "kept"
    result = await auditor.command("tree", str(folder))
    assert (result.exit_code, result.stdout) == (0, f"0 leaves in {folder}\n")
    for leaves in (3, 700, 1):
        published = await write(played, leaves)
        result = await auditor.command("tree", str(folder))
        assert (result.exit_code, result.stdout) == (0, f"{published.size} leaves in {folder}\n"), result.output
        assert checkpoint_in(folder) == published
        tiles = TileFolder(folder)
        assert root_of(tiles.reader(published.size), published.size) == published.root
        leaves_kept = [
            leaf
            for index in range(-(-published.size // 256))
            for leaf in tiles.read(TileName(None, index, min(256, published.size - 256 * index)))
        ]
        assert len(leaves_kept) == published.size
    full = folder / "tile/entries/000"
    before = full.stat().st_mtime_ns
    await write(played, 1)
    await auditor.command("tree", str(folder))
    assert full.stat().st_mtime_ns == before


async def test_another_key_than_before_is_not_taken(auditor, played, tmp_path):
    folder = tmp_path / "kept"
    await write(played, 1)
    await auditor.command("tree", str(folder))
    kept = checkpoint_in(folder)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (folder / "log.pem").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    await write(played, 1)
    result = await auditor.command("tree", str(folder))
    assert result.exit_code == 1
    assert "another key than the core's" in result.stderr
    assert f"\n{kept.size}\n".encode() in (folder / "checkpoint").read_bytes()


async def test_a_proof_names_leaf_and_checkpoint(auditor, played, tmp_path):
    await write(played, 2)
    (leaf, *_) = await played.leaves("ADMIN")
    result = await auditor.command("prove", leaf["id"])
    assert result.exit_code == 0, result.output
    first, extra, *_ = result.stdout.split("\n")
    assert first == "c2sp.org/tlog-proof@v1"
    assert leaf["id"].encode() in base64.b64decode(extra.removeprefix("extra "))
    out = tmp_path / "leaf.tlog-proof"
    assert (await auditor.command("prove", leaf["id"], "--out", str(out))).exit_code == 0
    assert out.read_text() == result.stdout
    unknown = await auditor.command("prove", "0" * 26)
    assert unknown.exit_code == 1
    assert "no entry of the log has this id" in unknown.stderr
    missing = await auditor.command("prove", leaf["id"], "--out", str(tmp_path / "none" / "x"))
    assert missing.exit_code == 1
    assert "cannot be written" in missing.stderr
