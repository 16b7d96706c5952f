"""``rubrica demo`` and ``rubrica up`` as people call them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rubrica.newcomer import Citizen
from rubrica.state import Running
from tests.testkit.documents import plain_pdf, run_tool

FIELDS = [
    "document",
    "output",
    "format",
    "level",
    "packaging",
    "algorithm",
    "indication",
    "certificate_serial",
    "trust_anchors",
    "content",
    "receipt",
    "seconds",
]


def demo(var: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rubrica", "demo", *arguments],
        env={**os.environ, "RUBRICA_VAR": str(var), **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    word, _, text = done.stdout.splitlines()[-1].partition(" ")
    assert word == "RESULT"
    found: dict[str, object] = json.loads(text)
    return found


def refusal_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    assert "RESULT" not in done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_beside_a_running_service_the_demo_uses_it(service, tmp_path):
    document, output = tmp_path / "mi documento ñ.pdf", tmp_path / "new" / "out.pdf"
    document.write_bytes(plain_pdf())

    # As make gives them: by the environment.
    done = demo(
        service.folder,
        RUBRICA_DEMO_SIGN=str(document),
        RUBRICA_DEMO_OUT=str(output),
        RUBRICA_DEMO_LEVEL="B-LT",
        RUBRICA_DEMO_ALGORITHM="RS256",
    )

    result = result_of(done)
    assert list(result) == FIELDS
    assert result["output"] == str(output)
    assert result["document"] == str(document)
    assert (result["format"], result["level"], result["packaging"]) == ("pades", "B-LT", "enveloped")
    assert (result["algorithm"], result["indication"], result["content"]) == ("RS256", "TOTAL-PASSED", None)
    assert output.read_bytes().startswith(document.read_bytes())
    assert f"process {service.process.pid}" in done.stdout
    assert len(Path(str(result["receipt"])).read_text().split(".")) == 3
    trust = Path(str(result["trust_anchors"]))
    run_tool("openssl", "verify", "-CAfile", "root.pem", "-CRLfile", "root.crl", "-crl_check", "ca.pem", cwd=trust)
    run_tool("openssl", "crl", "-in", "ca.crl", "-CAfile", "ca.pem", "-noout", cwd=trust)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sign", "nowhere.pdf"), "there is no file"),
        (("--sign", "."), "is a folder"),
        (("--sign", "empty.pdf"), "is empty"),
        (("--level", "B-X"), "the level must be one of B-B, B-T, B-LT, B-LTA, not 'B-X'"),
        (("--format", "cades"), "the format must be pades or xades, not 'cades'"),
        (("--algorithm", "PS256"), "the algorithm must be one of ES256, RS256, not 'PS256'"),
        (("--out", "."), "is a folder"),
        (("--sign", "good.pdf", "--out", "good.pdf"), "must not replace"),
    ],
)
def test_a_wrong_order_is_refused_before_anything_starts(arguments, sentence, tmp_path, monkeypatch):
    (tmp_path / "empty.pdf").touch()
    (tmp_path / "good.pdf").write_bytes(plain_pdf())
    monkeypatch.chdir(tmp_path)

    assert sentence in refusal_of(demo(tmp_path / "var", *arguments))
    assert not (tmp_path / "var").exists()
    assert (tmp_path / "good.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("content", [b"no PDF at all", b"%PDF-1.7\nbroken"])
def test_a_file_that_cannot_be_signed_is_refused_in_one_plain_sentence(content, service, tmp_path):
    document, output = tmp_path / "a.pdf", tmp_path / "b.pdf"
    document.write_bytes(content)

    sentence = refusal_of(demo(service.folder, "--sign", str(document), "--out", str(output)))

    assert "PDF" in sentence
    assert not output.exists()


def test_a_second_up_says_that_one_is_running(service):
    done = subprocess.run(
        [sys.executable, "-m", "rubrica", "up"],
        env={**os.environ, "RUBRICA_VAR": str(service.folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert f"it is running already, as process {service.process.pid}" in done.stderr
    assert service.running.edge in done.stdout


def test_the_state_is_nobody_elses(service):
    found = [path for path in (service.folder / "state").rglob("*") if not path.is_symlink()]

    assert {"edge.sqlite", "edge.log", "edge.toml", "tokens"} <= {path.name for path in found}
    # A public key may be read by all; the folder around it may not.
    open_to_others = [path for path in found if path.name != "tok.pem" and path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_from_nothing_with_every_remembered_port_taken_and_nothing_left_behind(tmp_path):
    first = result_of(demo(tmp_path, "--level", "B-B"))
    ports = json.loads((tmp_path / "state" / "1" / "ports.json").read_text())
    strangers = [socket.create_server(("127.0.0.1", ports[name])) for name in ("edge", "gate", "pki", "inbox")]
    try:
        second = result_of(demo(tmp_path, "--level", "B-B"))
    finally:
        for stranger in strangers:
            stranger.close()

    assert first["certificate_serial"] != second["certificate_serial"]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["1", "2"]
    assert not (tmp_path / "up.json").exists()
    assert processes_of(tmp_path) == []


def test_two_demos_at_once_take_turns(tmp_path):
    command = [sys.executable, "-m", "rubrica", "demo", "--level", "B-B"]
    environment = {**os.environ, "RUBRICA_VAR": str(tmp_path)}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in "12"]

    outcomes = [process.communicate(timeout=120) for process in both]

    assert [process.returncode for process in both] == [0, 0], outcomes
    notices = "".join(error.decode() for _, error in outcomes)
    assert notices == "rubrica demo: another command uses this state; waiting for it\n"


def processes_of(var: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if str(var).encode() in command and str(os.getpid()) != path.parent.name:
            found.append(command.decode(errors="replace"))
    return found


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_ends_with_all_its_processes(end, tmp_path):
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "rubrica", "up"],
            env={**os.environ, "RUBRICA_VAR": str(tmp_path / "var")},
            stdout=log,
            stderr=log,
        )
    ends = time.monotonic() + 60
    while (running := Running.read(tmp_path / "var" / "up.json")) is None:
        assert process.poll() is None, (tmp_path / "up.log").read_text()
        assert time.monotonic() < ends, (tmp_path / "up.log").read_text()
        time.sleep(0.1)
    assert sorted(running.pids) == ["agency", "core", "edge", "gate", "inbox", "pki"]

    process.send_signal(end)

    status = process.wait(timeout=10)
    assert status == (-signal.SIGKILL if end == signal.SIGKILL else 0)
    for _ in range(100):
        if not processes_of(tmp_path / "var"):
            break
        time.sleep(0.1)
    assert processes_of(tmp_path / "var") == []


def test_an_operator_by_hand(service, tmp_path):
    def rubrica(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rubrica", *arguments],
            env={**os.environ, "RUBRICA_VAR": str(service.folder)},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    person = Citizen.draw()
    words = (
        "--given-name",
        "Ana",
        "--first-surname",
        "García",
        "--email",
        person.email,
        "--proof",
        "in-person:office-7",
        "--out",
        str(tmp_path),
    )
    added = rubrica("officer", "add", "oficina-7.ana", "--nif", Citizen.draw().nif, "--out", str(tmp_path))
    assert added.returncode == 0, added.stderr
    officer_key = Path(added.stdout.strip())
    assert officer_key.stat().st_mode & 0o777 == 0o600
    desk = ("officer", "register", "--key", str(officer_key))
    entry = (*desk, "--nif", person.nif, "--phone", person.phone, *words)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "agency.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    agency = ("client", "add", "oficina", "--name", "Oficina", "--return-url", "https://oficina.example/vuelta")

    first, again = rubrica(*entry), rubrica(*entry)
    assert first.returncode == 0, first.stderr
    acceptance, receipt = (Path(line) for line in first.stdout.split())
    assert {path.stat().st_mode & 0o777 for path in (acceptance, receipt)} == {0o600}
    text = subprocess.run(["pdftotext", str(receipt), "-"], check=True, capture_output=True, text=True).stdout
    (csv,) = re.findall(r"\(CSV\): (\S+)", text)
    assert rubrica("officer", "verify", csv, str(receipt)).returncode == 0
    assert "is not the paper" in rubrica("officer", "verify", csv, str(acceptance)).stderr
    assert "\noficina-7.ana\tregistrar\tACTIVE\t" in "\n" + rubrica("officer", "show").stdout
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("rubrica: already_registered: ")
    assert rubrica(*agency, "--public-key", str(tmp_path / "agency.pem")).returncode == 0
    (tmp_path / "agency.pem").write_text("no key")
    assert "holds no public key" in rubrica(*agency, "--public-key", str(tmp_path / "agency.pem")).stderr
    assert rubrica("change-phone", "--nif", person.nif, "--phone", Citizen.draw().phone).returncode == 0
    assert "malformed_request" in rubrica("change-phone", "--nif", person.nif, "--phone", "1").stderr
    assert rubrica("revoke", "--nif", person.nif, "--reason", "keyCompromise").returncode == 0
    assert rubrica("trust", str(tmp_path / "trust")).returncode == 0
    assert sorted(path.name for path in (tmp_path / "trust").iterdir()) == ["ca.crl", "ca.pem", "root.crl", "root.pem"]
    assert rubrica("ready", str(service.running.operator_socket)).returncode == 0
