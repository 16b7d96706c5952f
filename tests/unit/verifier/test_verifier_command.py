"""The command: what it answers, with which exit code, and that nothing but two libraries is behind it."""

import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cbor2
import pytest

from audit.checkpoint import Checkpoint
from hsm.keys import SigningKey
from rubrica_verify import cli, progress
from rubrica_verify.progress import Progress
from rubrica_verify.report import Fault, Verdict
from tests.testkit.sequencing import ORIGIN
from tests.testkit.vault import FakeVault
from tests.testkit.verifying import verified, write_key

ROOT = Path(__file__).resolve().parents[3]


def run(capsys, *arguments: object):
    code = cli.main([str(argument) for argument in arguments])
    return code, capsys.readouterr().out


def test_exit_codes_and_reports(made, files, tmp_path, capsys):
    common = ("--key", made.key, *made.kept)
    assert run(capsys, "full", files, *common)[0] == 0
    code, said = run(capsys, "full", files, *common, "--json")
    report = json.loads(said)
    assert (code, report["verdict"], report["size"], report["findings"]) == (0, "sound", 300, [])

    (files / "tile" / "0" / "000").unlink()
    code, said = run(capsys, "full", files, *common)
    assert code == 1
    assert "tile: tile/0/000: it is missing" in said
    code, said = run(capsys, "full", files, *common, "--json")
    report = json.loads(said)
    assert (code, report["verdict"], report["findings_by_fault"]) == (1, "tampered", {"tile": 1})
    assert report["findings"] == [{"fault": "tile", "where": "tile/0/000", "what": "it is missing"}]

    code, said = run(capsys, "full", tmp_path / "nowhere", "--key", made.key)
    assert code == 2
    assert "cannot be verified" in said
    with pytest.raises(SystemExit) as ended:
        cli.main(["full"])
    assert ended.value.code == 2


def test_what_cannot_be_used_says_nothing_about_the_log(made, files, tmp_path):
    other = tmp_path / "other.pem"
    other.write_text("no key")
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments in (
        ("full", files, "--key", other),
        ("full", files, "--key", tmp_path / "nowhere"),
        ("full", empty, "--key", made.key),
        ("full", made.key, "--key", made.key),
        ("full", files, "--key", made.key, "--checkpoint", made.key),
        ("full", files, "--key", made.key, "--checkpoint", tmp_path / "nowhere"),
        ("full", files, "--key", made.key, *made.kept, "--origin", "another.example/log"),
        ("checkpoint", tmp_path / "nowhere", "--key", made.key),
        ("inclusion", files, "--key", made.key, "--leaf", "neither"),
        ("inclusion", empty, "--key", made.key, "--leaf", "0" * 26),
        ("inclusion", tmp_path / "nowhere", "--key", made.key, "--leaf", made.key),
        ("consistency", tmp_path / "nowhere", "--key", made.key, *from_to(made, 40, 300)),
        ("consistency", files, "--key", made.key, *from_to(made, 300, 40)),
        ("consistency", files, "--key", made.key, *from_to(made, 40, 300), "--origin", "another"),
    ):
        report = verified(*arguments)
        assert report.verdict is Verdict.UNUSABLE, arguments
        assert report.unusable


def from_to(made, old, new):
    return "--from", made.folder / f"kept-{old}", "--to", made.folder / f"kept-{new}"


def test_a_log_without_checkpoint_is_tampered_with_for_whoever_kept_one(made, files):
    (files / "checkpoint").unlink()
    assert verified("full", files, "--key", made.key, *made.kept).counts == {Fault.CHECKPOINT: 1}
    assert verified("full", files, "--key", made.key).verdict is Verdict.UNUSABLE


async def test_a_checkpoint(made, files, tmp_path):
    good = verified("checkpoint", files / "checkpoint", "--key", made.key, "--origin", ORIGIN)
    assert (good.verdict, good.facts["size"]) == (Verdict.SOUND, 300)
    other = await write_key(FakeVault(), tmp_path / "other.pem")
    assert verified("checkpoint", files / "checkpoint", "--key", other).counts == {Fault.CHECKPOINT: 1}
    named = verified("checkpoint", files / "checkpoint", "--key", made.key, "--origin", "another.example/log")
    assert named.counts == {Fault.CHECKPOINT: 1}


@pytest.mark.parametrize("index", [0, 39, 255, 256, 299])
def test_inclusion_by_octets_and_id_and_by_a_proof_without_the_log(made, files, tmp_path, index):
    leaf = tmp_path / "leaf"
    leaf.write_bytes(made.history[index])
    proof = tmp_path / "leaf.tlog-proof"
    for wanted in (leaf, cbor2.loads(made.history[index])["id"]):
        found = verified("inclusion", files, "--key", made.key, "--leaf", wanted, "--write", proof)
        assert (found.verdict, found.facts["index"], found.facts["size"]) == (Verdict.SOUND, index, 300)
    alone = ("inclusion", proof, "--key", made.key, "--leaf", leaf)
    assert verified(*alone).facts["index"] == index
    assert verified(*alone, "--origin", ORIGIN).verdict is Verdict.SOUND
    assert verified(*alone, "--origin", "another.example/log").counts == {Fault.PROOF: 1}
    leaf.write_bytes(made.history[index] + b"\0")
    assert verified(*alone).counts == {Fault.PROOF: 1}
    assert verified("inclusion", files, "--key", made.key, "--leaf", leaf).counts == {Fault.PROOF: 1}
    leaf.write_bytes(made.history[index])
    proof.write_text(proof.read_text().replace(f"index {index}", f"index {index ^ 1}"))
    assert verified(*alone).counts == {Fault.PROOF: 1}


@pytest.mark.parametrize("gone", ["tile/0/001.p/44", "tile/1/000.p/1"])
def test_inclusion_needs_its_tiles(made, files, tmp_path, gone):
    leaf = tmp_path / "leaf"
    leaf.write_bytes(made.history[270])
    data = (files / gone).read_bytes()
    for spoiled in (None, data[:-1], bytes(len(data))):
        (files / gone).unlink()
        if spoiled is not None:
            (files / gone).write_bytes(spoiled)
        assert verified("inclusion", files, "--key", made.key, "--leaf", leaf).counts == {Fault.PROOF: 1}
        (files / gone).write_bytes(data)
    assert verified("inclusion", files, "--key", made.key, "--leaf", leaf).verdict is Verdict.SOUND


def test_an_id_that_no_leaf_has_is_not_in_the_log(made, files):
    assert verified("inclusion", files, "--key", made.key, "--leaf", "0" * 26).counts == {Fault.PROOF: 1}


@pytest.mark.parametrize(("old", "new"), [(40, 250), (40, 300), (250, 300), (300, 300)])
def test_consistency(made, files, old, new):
    report = verified("consistency", files, "--key", made.key, *from_to(made, old, new))
    assert (report.verdict, report.facts["from_size"]) == (Verdict.SOUND, old)


@pytest.mark.parametrize("size", [40, 300])
async def test_a_forked_checkpoint_is_not_consistent(made, files, tmp_path, size):
    said = Checkpoint(ORIGIN, size, b"r" * 32)
    signature = await made.vault.sign_with(SigningKey.LOG, said.digest())
    forged = tmp_path / "forged"
    forged.write_bytes(said.note(await made.vault.public_key(SigningKey.LOG), signature))
    arguments = ("--from", forged, "--to", made.folder / "kept-300")
    assert verified("consistency", files, "--key", made.key, *arguments).counts == {Fault.FORK: 1}


def test_consistency_needs_its_tiles(made, files):
    (files / "tile" / "0" / "000").unlink()
    report = verified("consistency", files, "--key", made.key, *from_to(made, 40, 300))
    assert report.counts == {Fault.TILE: 1}


def test_progress_is_shown_on_a_terminal_in_a_long_run_only(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(progress, "_PAUSE_SECONDS", 0)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        shown = Progress(stream, 1000)
        shown.at(0)
        shown.at(500)
        shown.end()
    assert pipe.getvalue() == ""
    assert re.search(r"\[#{15} {15}\]  50% 500 leaves", terminal.getvalue())
    assert terminal.getvalue().endswith("\r\x1b[K")
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", 60)
    patient = Terminal()
    shown = Progress(patient, 1000)
    shown.at(500)
    shown.end()
    assert patient.getvalue() == ""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The distribution as it is installed, beside the two libraries that it asks for, what these need, and no more."""
    folder = tmp_path_factory.mktemp("alone")
    source = folder / "source"
    shutil.copytree(ROOT / "verifier", source, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    installed = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    installed += [
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--no-compile",
        "--target",
        folder / "site",
        source,
    ]
    subprocess.run(installed, check=True)
    for name in _needs("cryptography", "cbor2"):
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            target = folder / "site" / top
            if top not in ("..", "__pycache__") and not target.exists():
                target.symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(top))))
    return folder / "site"


def _needs(*names: str):
    """These distributions and, all the way down, what they need here."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for need in importlib.metadata.requires(name) or []:
            if "extra ==" not in need and "python_full_version < '3.9'" not in need:
                word = re.match(r"[\w.-]+", need)[0]
                if importlib.util.find_spec(word.replace("-", "_")) is not None:
                    waiting.append(word)
    return found


def test_it_runs_where_nothing_of_the_service_is(made, files, alone):
    loaded = (
        "import json, sys; sys.path.insert(0, sys.argv.pop(1)); from rubrica_verify import cli; "
        "code = cli.main(sys.argv[1:]); "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules}))); sys.exit(code)"
    )
    command = [sys.executable, "-I", "-S", "-c", loaded, alone, "full", files, "--key", made.key, *made.kept]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=files)
    assert done.returncode == 0, done.stderr
    said, modules = done.stdout.rstrip().rsplit("\n", 1)
    assert said.endswith("SOUND")
    foreign = set(json.loads(modules)) - sys.stdlib_module_names
    assert {"rubrica_verify", "cryptography", "cbor2"} <= foreign
    # The rest is what cryptography brings.
    assert foreign <= {"rubrica_verify", "cryptography", "cbor2", "cffi", "_cffi_backend", "_openssl", "__main__"}
    (files / "tile" / "0" / "000").unlink()
    again = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=files)
    assert again.returncode == 1


def test_the_distribution_brings_the_command(alone):
    script = (alone / "bin" / "rubrica-verify").read_text()
    assert "from rubrica_verify.cli import main" in script
    assert (alone / "rubrica_verify" / "py.typed").exists()


def test_it_asks_for_two_libraries_as_the_service_does():
    ours = tomllib.loads((ROOT / "verifier" / "pyproject.toml").read_text())["project"]
    service = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(re.match(r"\w+", need)[0] for need in ours["dependencies"]) == ["cbor2", "cryptography"]
    assert set(ours["dependencies"]) <= {*service["dependencies"], *service["optional-dependencies"]["core"]}


def test_help_names_every_command():
    text = cli.parser().format_help()
    assert all(word in text for word in ("full", "checkpoint", "inclusion", "consistency", "Exit code: 0 sound"))
