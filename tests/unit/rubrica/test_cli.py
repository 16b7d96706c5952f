import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hsm.keys import Inventory
from rubrica import doctor
from rubrica.cli import SETTINGS, app

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("pyhanko", "pikepdf", "fastapi", "grpc", "sqlalchemy", "pkcs11", "httpx", "cryptography", "lxml")


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rubrica", *arguments], cwd=ROOT, check=False, capture_output=True, text=True
    )


def loaded_by(statement: str) -> set[str]:
    program = (
        f"{statement}\nimport json, sys; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_the_command_itself_loads_no_zone() -> None:
    ours = {"api", "documents", "signer", "authn", "audit", "certs", "hsm"}

    assert loaded_by("import rubrica.cli") & {*HEAVY, *ours} == set()


@pytest.mark.parametrize(
    ("process", "never"),
    [
        ("gate", {"documents", "pyhanko", "pikepdf", "pkcs11", "hsm", "certs"}),
        ("edge", {"pkcs11", "hsm", "certs"}),
        # Of documents it knows the words that its press speaks, see test_press.
        ("core", {"api", "pyhanko", "pikepdf", "lxml", "typst", "fastapi", "uvicorn", "pkcs11"}),
        ("pki", {"documents", "pyhanko", "api"}),
    ],
)
def test_a_process_loads_no_more_than_its_zone(process: str, never: set[str]) -> None:
    assert loaded_by(f"import rubrica.{process}") & never == set()


@pytest.mark.parametrize("process", sorted(SETTINGS))
def test_wrong_settings_are_named_without_their_values(process: str, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('pin = "sesame-4711"\n')

    done = call(process, "--config", str(config), "--check-config")

    assert done.returncode == 1
    assert "pin: Extra inputs are not permitted" in done.stderr
    assert "sesame-4711" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("text", "said"), [(None, "there is no file"), ("a = ", "")])
def test_a_missing_or_broken_file_is_said_in_a_sentence(text: str | None, said: str, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    if text is not None:
        config.write_text(text)

    done = call("core", "--config", str(config), "--check-config")

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_service_the_operator_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUBRICA_VAR", str(tmp_path))

    done = call("revoke", "--nif", "12345678Z", "--reason", "keyCompromise")

    assert done.returncode == 1
    assert done.stderr.startswith("rubrica: no 'rubrica up' is running here")


def test_readiness_of_nobody() -> None:
    assert call("ready", "http://127.0.0.1:1/readyz").returncode == 1
    assert call("ready", "/nowhere/core.sock").returncode == 1


def test_ceremonies_by_hand(tmp_path: Path) -> None:
    token = ("--pin-file", str(tmp_path / "pin"), "--softhsm-conf", str(tmp_path / "softhsm2.conf"))
    runner = CliRunner()

    made = runner.invoke(app, ["hsm", "init", "pki", *token])
    again = runner.invoke(app, ["hsm", "init", "pki", *token])
    looked = runner.invoke(app, ["hsm", "status", "pki", *token])
    wrong = runner.invoke(app, ["hsm", "status", "core", "--label", "pki", *token])

    assert (made.exit_code, made.output.splitlines()[0]) == (0, "token 'pki': complete (made now)")
    assert (again.exit_code, looked.exit_code) == (0, 0)
    assert looked.output.splitlines()[0] == "token 'pki': complete"
    assert wrong.exit_code == 1
    assert "outside the inventory" in wrong.output
    assert set(Inventory) == {"core", "pki"}


def test_the_doctor_names_what_is_missing_and_the_command_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").write_text("httpx==0.0.1 \\\nno-such-thing==1.0 \\\n")

    findings = list(doctor.examine(tmp_path, tmp_path / "var"))

    assert findings[0].mend == "scripts/provision run"
    assert "httpx is " in findings[0].what
    assert "no-such-thing is missing" in findings[0].what
    assert [finding.what for finding in findings[1:] if finding.mend] == []


def test_the_doctor_looks_into_tokens(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").touch()
    state = tmp_path / "var" / "state" / "1"
    state.mkdir(parents=True)
    (state / "initialised").touch()

    findings = [finding for finding in doctor.examine(tmp_path, tmp_path / "var") if finding.mend]

    assert len(findings) == 2
    assert all(finding.mend == f"mv {state} {state}.broken" for finding in findings)


@pytest.mark.parametrize("given", [(), ("--public-key", "a.pem", "--certificate", "a.pem")])
def test_a_client_has_a_key_or_a_certificate(given: tuple[str, ...], tmp_path: Path) -> None:
    files = [str(tmp_path / each) if each == "a.pem" else each for each in given]
    (tmp_path / "a.pem").write_text("")
    done = CliRunner().invoke(
        app, ["client", "add", "sede", "--name", "Sede", "--return-url", "https://a.example/", *files]
    )
    assert (done.exit_code, "either --public-key or --certificate" in done.output) == (1, True)


@pytest.mark.parametrize("option", ["--public-key", "--certificate"])
def test_what_a_client_is_entered_with_must_be_pem(option: str, tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("junk")
    entry = ["client", "add", "sede", "--name", "Sede", "--return-url", "https://a.example/"]
    done = CliRunner().invoke(app, [*entry, option, str(tmp_path / "a.pem")])
    assert (done.exit_code, "in PEM" in done.output) == (1, True)
