"""What is installed is ours, pinned, and comes from anywhere."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("rubrica", "api", "documents", "signer", "authn", "audit", "certs", "hsm", "domain", "tests", "benchmarks")
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("name", PACKAGES)
def test_each_top_level_name_is_ours(name: str) -> None:
    found = importlib.util.find_spec(name)

    assert found is not None
    assert found.submodule_search_locations is not None
    assert [str(ROOT / name)] == list(found.submodule_search_locations)


@pytest.mark.parametrize(("folder", "name"), [("client", "rubrica_client"), ("verifier", "rubrica_verify")])
def test_client_and_verifier_are_distributions_of_their_own(folder: str, name: str) -> None:
    found = importlib.util.find_spec(name)

    assert found is not None
    assert found.submodule_search_locations is not None
    assert [str(ROOT / folder / name)] == list(found.submodule_search_locations)


def test_each_distribution_has_the_licence_whose_text_is_here() -> None:
    for folder in (ROOT, ROOT / "client", ROOT / "verifier"):
        assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_name_no_address_and_pin_everything_by_hash(path: Path) -> None:
    first, *lines = path.read_text().splitlines()

    assert re.fullmatch(r"# Made by 'make requirements' from [0-9a-f]{64}", first)
    pin = re.compile(r"[a-z0-9._-]+==[\w.+!-]+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in lines if not pin.fullmatch(line)] == []
    assert sum("==" in line for line in lines) > 5


def test_every_file_of_requirements_has_the_same_versions() -> None:
    versions: dict[str, set[str]] = {}
    for path in REQUIREMENTS:
        for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ]+)", path.read_text(), re.MULTILINE):
            versions.setdefault(name, set()).add(version)

    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_requirements_are_fresh_and_a_change_is_noticed(tmp_path: Path) -> None:
    check = [sys.executable, "scripts/requirements.py", "--check"]
    assert subprocess.run(check, cwd=ROOT, check=False).returncode == 0
    for path in ("scripts/requirements.py", "pyproject.toml", "client/pyproject.toml"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        text = (ROOT / path).read_text()
        (tmp_path / path).write_text(text.replace('"httpx>=0.28', '"httpx>=0.27'))
    (tmp_path / "requirements").symlink_to(ROOT / "requirements")

    done = subprocess.run(check, cwd=tmp_path, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert "requirements/run.txt is stale: run 'make requirements'" in done.stderr


def test_nothing_kept_names_this_machine() -> None:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    here = f"{ROOT}/".encode()

    assert [name for name in names if here in (ROOT / name).read_bytes()] == []
    assert not {Path(name).name for name in names} & {"uv.lock", "poetry.lock", "package-lock.json", "yarn.lock"}


def test_provision_knows_its_groups() -> None:
    done = subprocess.run(["scripts/provision", "everything"], cwd=ROOT, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert "no group 'everything'" in done.stderr


def test_make_help_lists_every_target_that_people_call() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)

    listed = set(re.findall(r"^  ([a-z]+)", done.stdout, re.MULTILINE))
    assert {"help", "demo", "up", "test", "check", "bench", "drill", "docs", "clean", "requirements", "proto"} <= listed


def test_each_exception_from_a_rule_says_why() -> None:
    paths = [path for name in (*PACKAGES, "client", "verifier", "scripts") for path in (ROOT / name).rglob("*.py")]
    lines = [(path, line) for path in paths if "_pb2" not in path.name for line in path.read_text().splitlines()]
    marked = [(path, line) for path, line in lines if re.search(r"[#] *noqa", line)]

    assert len(marked) > 50
    assert [each for each in marked if not re.search(r"[#] noqa: [A-Z0-9, ]+ --? \S", each[1])] == []
