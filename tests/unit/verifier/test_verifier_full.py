"""The whole log: what lies beside the truth is found too, and nothing in the folder can hurt whoever verifies it."""

import os
import random
import shutil
import time

import pytest

from audit.checkpoint import Checkpoint
from audit.merkle import EMPTY_ROOT
from audit.tiles import bundle
from hsm.keys import SigningKey
from rubrica_verify.files import LogFolder, Tile
from rubrica_verify.report import SHOWN, Fault, Verdict
from tests.testkit.sequencing import ORIGIN
from tests.testkit.vault import FakeVault
from tests.testkit.verifying import (
    BEGUN_MS,
    a_history,
    a_leaf,
    a_log,
    commit,
    lay_out,
    publish,
    time_of,
    verified,
    write_key,
)


def full(made, files, *more: object):
    return verified("full", files, "--key", made.key, *made.kept, *more)


def test_a_sound_log_is_sound_and_told(made, files):
    report = full(made, files, "--origin", ORIGIN)
    assert report.verdict is Verdict.SOUND
    assert report.facts["size"] == 300
    assert sum(report.facts["leaves"].values()) == 300
    assert [one["size"] for one in report.facts["checkpoints_kept"]] == [40, 250, 300]
    assert report.facts["first_time"].startswith("2026-03-02T09:00:00.000")
    assert report.as_text().endswith("\nSOUND")


async def test_an_empty_log_is_sound(tmp_path):
    vault, said = FakeVault(), Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    signature = await vault.sign_with(SigningKey.LOG, said.digest())
    (tmp_path / "checkpoint").write_bytes(said.note(await vault.public_key(SigningKey.LOG), signature))
    key = await write_key(vault, tmp_path / "log.pem")
    kept = ("--checkpoint", tmp_path / "checkpoint")
    assert verified("full", tmp_path, "--key", key, *kept).verdict is Verdict.SOUND


@pytest.mark.parametrize(
    ("path", "fault"),
    [("tile/0/001.p/44", Fault.TILE), ("tile/1/000.p/1", Fault.TILE), ("tile/entries/001.p/44", Fault.BUNDLE)],
)
def test_an_older_partial_file_is_compared_too(made, files, path, fault):
    """Whoever holds an older checkpoint is served by it."""
    partial = files / path
    data = partial.read_bytes()
    older = partial.with_name("1") if partial.name != "1" else partial
    shorter = data[: 32 if fault is Fault.TILE else 2 + int.from_bytes(data[:2], "big")]
    older.write_bytes(shorter)
    assert full(made, files).verdict is Verdict.SOUND
    older.write_bytes(shorter[:-1] + bytes([shorter[-1] ^ 1]))
    report = full(made, files)
    assert set(report.counts) == {fault}


def test_a_full_file_beside_its_old_partial_one_is_compared_too(made, files):
    stale = files / "tile" / "0" / "000.p" / "40"
    stale.parent.mkdir()
    shutil.copy(made.folder / "at-40" / "tile" / "0" / "000.p" / "40", stale)
    assert full(made, files).verdict is Verdict.SOUND
    stale.write_bytes(stale.read_bytes()[::-1])
    assert full(made, files).counts == {Fault.TILE: 1}


def test_what_a_crash_leaves_behind_is_nobodys_tile(made, files):
    (files / "tile" / "0" / "001.p" / ".45.0123456789abcdef").write_bytes(b"half")
    (files / "tile" / "0" / ".002.0123456789abcdef").write_bytes(b"half")
    assert full(made, files).verdict is Verdict.SOUND


def test_files_may_be_ahead_of_the_checkpoint_while_it_is_signed(made, files):
    """Tiles are durable first; a folder copied at that moment holds more than its checkpoint says."""
    shutil.copy(made.folder / "kept-250", files / "checkpoint")
    old = verified("full", files, "--key", made.key, *made.kept[:4])
    assert old.verdict is Verdict.SOUND
    assert old.facts["size"] == 250
    # But what is there must begin as what was signed.
    path = files / "tile" / "0" / "000"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert verified("full", files, "--key", made.key, *made.kept[:4]).counts == {Fault.TILE: 1}


def test_a_full_file_may_replace_a_partial_one_at_any_moment(made, tmp_path, monkeypatch):
    """The folder is the service's own, and it publishes while somebody verifies."""
    shutil.copytree(made.folder / "at-250", tmp_path / "log")
    read, replaced = LogFolder._read, []

    def meanwhile(self, name, limit_bytes):
        full, partial, _ = name.partition(".p/")
        if partial and full not in replaced and full != "tile/1/000":
            replaced.append(full)
            shutil.rmtree(tmp_path / "log" / f"{full}.p")
            shutil.copy(made.folder / "at-300" / full, tmp_path / "log" / full)
        return read(self, name, limit_bytes)

    monkeypatch.setattr(LogFolder, "_read", meanwhile)
    report = verified("full", tmp_path / "log", "--key", made.key, *made.kept[:4])
    assert report.verdict is Verdict.SOUND, report.as_text()
    assert replaced == ["tile/entries/000", "tile/0/000"]


def test_a_leaf_less_and_its_hash_left_is_told_where(made, files):
    (files / "tile" / "entries" / "000").unlink()
    report = full(made, files)
    assert report.counts[Fault.BUNDLE] == 1
    assert report.findings[0].where == "tile/entries/000"
    assert Fault.ROOT not in report.counts


def test_leaves_and_hashes_gone_together_end_the_walk(made, files):
    (files / "tile" / "entries" / "000").unlink()
    (files / "tile" / "0" / "000").unlink()
    assert full(made, files).counts[Fault.ROOT] == 1


async def test_a_signed_size_beyond_all_files_does_not_keep_anybody_waiting(made, files):
    said = Checkpoint(ORIGIN, 10**18 - 1, b"r" * 32)
    signature = await made.vault.sign_with(SigningKey.LOG, said.digest())
    (files / "checkpoint").write_bytes(said.note(await made.vault.public_key(SigningKey.LOG), signature))
    begun = time.monotonic()
    assert full(made, files).counts[Fault.ROOT] == 1
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("name", ["tile/entries/000", "tile/0/000", "tile/1/000.p/1", "checkpoint"])
@pytest.mark.parametrize("spoil", ["fifo", "device", "folder", "huge", "loop"])
def test_nothing_in_the_folder_can_hang_or_fill_the_verifier(made, files, name, spoil):
    path = files / name
    path.unlink()
    match spoil:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "loop":
            path.symlink_to(path)
    begun = time.monotonic()
    report = full(made, files)
    assert time.monotonic() - begun < 5
    expected = Verdict.UNUSABLE if spoil == "loop" else Verdict.TAMPERED
    assert report.verdict is expected


def test_a_checkpoint_kept_elsewhere_that_is_larger_is_a_roll_back(made):
    report = full(made, made.folder / "at-250")
    assert report.counts == {Fault.ROLLED_BACK: 1}
    assert report.findings[0].where.endswith("kept-300")


async def test_a_fork_is_told_by_the_checkpoints_behind_it_alone(made, tmp_path):
    async with a_log(tmp_path) as logging:
        logging.vault = made.vault
        other = a_history(90, random.Random(2), begun=time_of(made.history[259]))  # noqa: S311 - the same log
        await commit(logging, [*made.history[:260], *other])
        files = await publish(logging)
    report = full(made, files)
    assert [(finding.fault, finding.where[-3:]) for finding in report.findings if finding.fault is Fault.FORK] == [
        (Fault.FORK, "300")
    ]
    assert verified("full", files, "--key", made.key, *made.kept[:4]).counts.keys() <= {Fault.I2}


@pytest.mark.parametrize("size", [1, 255, 256, 257])
async def test_leaves_of_no_form_are_found_though_the_tree_is_right(tmp_path, size):
    leaves = [*a_history(size - 1, random.Random(size)), b"\xa0"]  # noqa: S311 - the same log
    async with a_log(tmp_path) as logging:
        await commit(logging, leaves)
        files = await publish(logging)
        key = await write_key(logging.vault, tmp_path / "log.pem")
    report = verified("full", files, "--key", key)
    assert [(finding.fault, finding.where) for finding in report.findings] == [(Fault.LEAF, f"leaf {size - 1}")]


async def test_a_leaf_of_a_newer_version_makes_the_log_unusable_for_this_verifier(tmp_path):
    async with a_log(tmp_path) as logging:
        await commit(logging, [b"\xa1\x61v\x02"])
        files = await publish(logging)
        key = await write_key(logging.vault, tmp_path / "log.pem")
    report = verified("full", files, "--key", key)
    assert report.verdict is Verdict.UNUSABLE
    assert "leaf 0: version 2 needs a newer verifier" in report.as_text()
    (files / "tile" / "0" / "000.p" / "1").write_bytes(bytes(32))
    assert verified("full", files, "--key", key).verdict is Verdict.TAMPERED


async def test_many_findings_are_counted_and_some_told(tmp_path):
    async with a_log(tmp_path) as logging:
        await commit(logging, [b"\xa0"] * 100)
        files = await publish(logging)
        key = await write_key(logging.vault, tmp_path / "log.pem")
    report = verified("full", files, "--key", key)
    assert report.counts == {Fault.LEAF: 100}
    assert len(report.findings) == SHOWN
    assert "and 50 more" in report.as_text()


def test_names_of_tiles_are_those_of_tlog_tiles():
    assert [Tile(0, 0).name, Tile(None, 999).name] == ["tile/0/000", "tile/entries/999"]
    assert Tile(2, 1000).name == "tile/2/x001/000"
    assert Tile(None, 1234067).name == "tile/entries/x001/x234/067"


@pytest.mark.parametrize("rest", [b"\0", b"\0\5abc"])
def test_a_bundle_cut_short_is_found(made, files, rest):
    path = files / "tile" / "entries" / "001.p" / "44"
    path.write_bytes(bundle(made.history[256:299]) + rest)
    assert Fault.BUNDLE in full(made, files).counts


async def test_a_tree_of_more_than_one_level_of_tiles(tmp_path):
    """66 000 leaves, laid out without a database: two tiles at level 1, one at level 2."""
    history = [a_leaf("ADMIN", time=BEGUN_MS + number, leaf_id=f"{number:026}") for number in range(66_000)]
    vault = FakeVault()
    await lay_out(tmp_path, history, vault)
    key = await write_key(vault, tmp_path / "log.pem")
    assert verified("full", tmp_path, "--key", key).verdict is Verdict.SOUND
    (tmp_path / "leaf").write_bytes(history[65_000])
    found = verified("inclusion", tmp_path, "--key", key, "--leaf", tmp_path / "leaf")
    assert (found.verdict, found.facts["index"]) == (Verdict.SOUND, 65_000)
    spoiled = ("tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1")
    for name in spoiled:
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    report = verified("full", tmp_path, "--key", key)
    assert [(finding.fault, finding.where) for finding in report.findings] == [
        (Fault.TILE, name.partition(".")[0]) for name in spoiled
    ]
