"""What the handbook tells auditors about the verifier is true of it."""

import re
import shlex
import shutil
from pathlib import Path

import cbor2

from rubrica_verify import cli
from rubrica_verify.report import Fault

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "auditor.md").read_text(encoding="utf-8")
SECTION = TEXT[TEXT.index("## Verifying offline") :]


def test_the_examples_run_as_they_stand(made, files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    shutil.copy(made.key, "log.pem")
    shutil.copy(made.folder / "kept-250", "kept/2026-03-02")
    shutil.copy(made.folder / "kept-300", "kept/2026-03-03")
    (tmp_path / "leaf.cbor").write_bytes(made.history[123])
    leaf_id = cbor2.loads(made.history[123])["id"]
    assert files == tmp_path / "log"

    commands = re.findall(r"^    rubrica-verify (.*)$", SECTION, re.MULTILINE)
    assert {command.split()[0] for command in commands} == {"full", "checkpoint", "inclusion", "consistency"}
    for command in commands:
        words = [leaf_id if re.fullmatch("[0-9A-Z]{26}", word) else word for word in shlex.split(command)]
        assert cli.main(words) == 0, command
        assert capsys.readouterr().out.endswith("SOUND\n")


def test_each_finding_is_in_the_table_and_nothing_else_is():
    table = SECTION[SECTION.index("| Finding |") :]
    documented = [name for cells in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in cells.split(", ")]
    assert sorted(f"`{fault}`" for fault in Fault) == sorted(documented)


def test_each_option_is_told():
    options = {
        option
        for line in cli.parser().format_help().splitlines()
        for option in re.findall(r"--[a-z]+", line)
        if option != "--help"
    }
    for command in ("full", "checkpoint", "inclusion", "consistency"):
        parser = cli.parser()._subparsers._group_actions[0].choices[command]
        options |= set(re.findall(r"--[a-z]+", parser.format_help())) - {"--help"}
    assert {option for option in options if option not in SECTION} == set()
