"""What the handbook says is true of the code, and the other way round."""

import importlib
import itertools
import re
from pathlib import Path

import pytest
import yaml

from audit.entries import EvidenceState, Result
from audit.log import EventTag
from domain.errors import by_code
from rubrica.audit_files import COLUMNS
from rubrica.cli import SETTINGS

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"


def rows(page: str) -> list[list[str]]:
    """Cells of each row of each table, headings left out."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for before, line in itertools.pairwise(lines)
        if line.startswith("|") and before.startswith("|") and not line.startswith("|---")
    ]


def test_each_error_code_is_in_the_table_and_nothing_else_is() -> None:
    documented = [cells[0].strip("`") for cells in rows("errors.md")]

    assert sorted(by_code()) == sorted(documented)


@pytest.mark.parametrize("process", sorted(SETTINGS))
def test_each_setting_is_documented_and_nothing_else_is(process: str) -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {process}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    documented = re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)
    settings = getattr(importlib.import_module(f"rubrica.settings.{process}"), SETTINGS[process])

    assert sorted(settings.model_fields) == sorted(documented)


def test_what_auditors_read_is_documented() -> None:
    text = (DOCS / "auditor.md").read_text(encoding="utf-8")
    tables = rows("auditor.md")
    members = [name for cells in tables for name in re.findall(r"`(\w+)`", cells[0])]
    for words in (EventTag, EvidenceState, COLUMNS):
        assert {str(word) for word in words} <= set(members)
    assert all(f"`{result}`" in text for result in Result)
    described = text[text.index("## An entry") : text.index("| `evidence` | Meaning")]
    assert set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|(.*?)\|", described, re.MULTILINE)))) == set(COLUMNS)


def test_each_page_is_in_the_contents_and_decisions_have_no_gaps() -> None:
    contents = str(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    decisions = sorted(path.name for path in (DOCS / "adr").glob("*.md"))

    assert {page for page in pages if f"'{page}'" not in contents} == set()
    assert [name[:4] for name in decisions] == [f"{number:04d}" for number in range(1, len(decisions) + 1)]


def test_each_decision_has_its_parts() -> None:
    for path in (DOCS / "adr").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert [name for name in headings if name != "Options"] == ["Context", "Decision", "Consequences"], path.name
        assert text.startswith(f"# {path.name[:4]}: ")
        assert "\nStatus: accepted\n" in text


def test_files_that_the_handbook_names_exist() -> None:
    named = set()
    for path in (*DOCS.rglob("*.md"), ROOT / "README.md"):
        text = path.read_text(encoding="utf-8")
        named |= set(
            re.findall(
                r"`((?:api|documents|signer|authn|audit|certs|hsm|rubrica|scripts|docs|client|verifier|examples)/[\w./-]*\w)`",
                text,
            )
        )

    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_way_of_a_document_names_what_is_there() -> None:
    text = (DOCS / "way-of-a-document.md").read_text(encoding="utf-8")
    named = [
        (path, name)
        for path, names in re.findall(r"`([\w/.]+\.py)` \(([^)]*)\)", text)
        for name in re.findall(r"`(\w+)`", names)
    ]

    assert len(named) > 30
    missing = [
        (path, name)
        for path, name in named
        if not re.search(
            rf"^\s*(?:async )?(?:def|class) {name}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    assert missing == []
    stations = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert stations == list(range(1, len(stations) + 1))


def test_commands_that_the_handbook_names_exist() -> None:
    from typer.main import get_command

    from rubrica.cli import app

    command = get_command(app)
    known = set(command.commands)  # type: ignore[attr-defined]
    for path in (*DOCS.rglob("*.md"), ROOT / "README.md"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"(?:^ +|`)rubrica ([a-z-]+)", text, re.MULTILINE):
            assert name in known, f"{path.name}: rubrica {name}"
        for target in re.findall(r"(?:^ +|`)make ([a-z-]+)", text, re.MULTILINE):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target
