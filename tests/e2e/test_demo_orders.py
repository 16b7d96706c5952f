"""What ``rubrica demo`` is given by people and their shells: names of every kind, files without end, and Ctrl-C."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from api.transactions.model import Limits
from rubrica.state import lock
from tests.testkit.documents import plain_pdf

PROJECT = Path(__file__).resolve().parents[2]


def environment(var: Path) -> dict[str, str]:
    return {**os.environ, "RUBRICA_VAR": str(var)}


def demo(var: Path, *arguments: str | bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rubrica", "demo", *arguments],
        env=environment(var),
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    word, _, text = done.stdout.splitlines()[-1].partition(" ")
    assert word == "RESULT"
    found: dict[str, str] = json.loads(text)
    return found


def refusal_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert "RESULT" not in done.stdout
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "name",
    [
        "$(shell touch pwned)x.pdf",
        "${shell touch pwned}x.pdf",
        "$(error stop)x.pdf",
        "`touch pwned`$x$$y.pdf",
        "x.pdf; touch pwned",
        'it\'s "two" #words.pdf',
        "--help",
    ],
)
def test_make_looks_into_no_name(name, tmp_path):
    done = subprocess.run(
        ["make", "--directory", str(PROJECT), "demo", f"SIGN={tmp_path / name}", f"OUT={tmp_path / 'new' / name}"],
        env=environment(tmp_path / "var"),
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 2
    assert f"rubrica demo: there is no file {tmp_path / name}\n" in done.stderr
    # What runs would run in the project's folder.
    assert not (PROJECT / "pwned").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "fifo", "link"])
def test_what_is_no_regular_file_is_refused_at_once(name, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    started = time.monotonic()

    sentence = refusal_of(demo(tmp_path / "var", "--sign", str(tmp_path / name)))

    assert "is not a regular file" in sentence
    assert time.monotonic() - started < 20
    assert "is not a regular file" in refusal_of(demo(tmp_path / "var", "--out", str(tmp_path / name)))
    assert not (tmp_path / "var").exists()


def test_a_document_beyond_the_limit_is_refused_before_anything_starts(tmp_path):
    limit = Limits().agency_bytes
    with (tmp_path / "large.pdf").open("wb") as file:
        file.truncate(limit + 1)

    sentence = refusal_of(demo(tmp_path / "var", "--sign", str(tmp_path / "large.pdf")))

    assert f"is too large: it has {limit + 1} bytes, and the service takes at most {limit} (100 MiB)" in sentence
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("o" * 256, "longer than 255 bytes"),
        ("ñ" * 128, "longer than 255 bytes"),
        ("new/" + "o" * 256 + "/out.pdf", "longer than 255 bytes"),
        ("/".join(["o" * 200] * 30), "File name too long"),
        ("good.pdf/out.pdf", "is not a folder"),
        ("/proc/nowhere/out.pdf", "No such file"),
        ("/sys/kernel/out.pdf", "Permission denied|Read-only|not permitted"),
        ("new/", "is a folder"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_anything_starts(out, why, tmp_path):
    (tmp_path / "good.pdf").write_bytes(plain_pdf())

    done = demo(tmp_path / "var", "--out", out if out.endswith("/") else str(tmp_path / out))

    sentence = refusal_of(done)
    assert any(each in sentence for each in why.split("|")), sentence
    assert [path.name for path in tmp_path.iterdir()] == ["good.pdf"]


@pytest.mark.parametrize(
    "name",
    [
        b"se\xf1or.pdf",
        b"n" * 251 + b".pdf",
        "ñ".encode() * 125 + b".pdf",
        b"two\nlines \xe2\x80\xa8 three.pdf",
        b"\xe2\x80\x8b.pdf",
    ],
)
def test_a_document_of_any_name_is_signed(name, service, tmp_path):
    document, content = os.fsencode(tmp_path) + b"/" + name, plain_pdf()
    Path(os.fsdecode(document)).write_bytes(content)
    folders = set((service.folder / "demo").glob("*"))

    result = result_of(demo(service.folder, "--sign", document, "--level", "B-B"))

    assert os.fsencode(result["document"]) == document
    output = Path(result["output"])
    assert output.read_bytes().startswith(content)
    assert output.name.endswith("-signed.pdf")
    (folder,) = set((service.folder / "demo").glob("*")) - folders
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.glob("unvalidated*")) == []


def test_a_detached_signature_refers_to_a_name_that_is_no_text(service, tmp_path):
    document = os.fsencode(tmp_path) + b"/se\xf1or.txt"
    Path(os.fsdecode(document)).write_text("hola")

    result = result_of(
        demo(service.folder, "--sign", document, "--format", "xades", "--packaging", "detached", "--level", "B-B")
    )

    assert Path(result["content"]).name == "se\ufffdor.txt"
    assert Path(result["content"]).read_text() == "hola"


def test_out_is_replaced_only_by_what_validates_and_keeps_the_callers_rights(service, tmp_path):
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7\nbroken")
    (tmp_path / "good.pdf").write_bytes(plain_pdf())
    target = tmp_path / "out" / "signed.pdf"
    target.parent.mkdir()
    target.write_text("what stood there before")

    refusal_of(demo(service.folder, "--sign", str(tmp_path / "bad.pdf"), "--out", str(target)))
    assert target.read_text() == "what stood there before"
    assert [path.name for path in target.parent.iterdir()] == ["signed.pdf"]

    result = result_of(demo(service.folder, "--sign", str(tmp_path / "good.pdf"), "--out", str(target)))
    assert result["output"] == str(target)
    assert target.read_bytes().startswith(b"%PDF")
    umask = os.umask(0o022)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in target.parent.iterdir()] == ["signed.pdf"]


@pytest.fixture
def strangers_pki():
    """The address of a PKI that issued nothing here."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Other")])
    now = datetime.now(UTC)
    ends = now + timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    crl = x509.CertificateRevocationListBuilder(name, now, ends).sign(key, hashes.SHA256())

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write((certificate if self.path.endswith(".crt") else crl).public_bytes(Encoding.DER))

        def log_message(self, *_arguments: object):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_does_not_validate_is_not_put_in_place(service, strangers_pki, tmp_path):
    known = json.loads((service.folder / "up.json").read_text())
    var, target = tmp_path / "var", tmp_path / "out.pdf"
    var.mkdir()
    (var / "up.json").write_text(json.dumps({**known, "pki": strangers_pki}))

    with lock(var / "up.lock") as held:
        assert held is not None
        sentence = refusal_of(demo(var, "--level", "B-B", "--out", str(target)))

    assert "the signature does not validate" in sentence
    assert list(tmp_path.iterdir()) == [var]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_demo_ends_at_once_whatever_it_waits_for(number, service, tmp_path):
    """The service does not answer: its edge stands still."""
    edge = service.running.pids["edge"]
    target = tmp_path / "out.pdf"
    process = subprocess.Popen(
        [sys.executable, "-m", "rubrica", "demo", "--out", str(target)],
        env=environment(service.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))
    try:
        for line in iter(process.stdout.readline, ""):
            if "submitted by the agency" in line:
                break
        os.kill(edge, signal.SIGSTOP)
        reading.start()
        time.sleep(2)
        assert process.poll() is None, "it should be waiting for the edge"
        sent = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=30) == 1
        assert time.monotonic() - sent < 5
    finally:
        os.kill(edge, signal.SIGCONT)
        process.kill()
        reading.join(5)
    assert process.stderr.read() == "rubrica demo: stopped\n"
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_expected_is_kept_in_the_folder_of_the_run(service, tmp_path):
    # A service whose key cannot be read: no fault that has a sentence of its own.
    known = json.loads((service.folder / "up.json").read_text())
    (tmp_path / "up.json").write_text(json.dumps({**known, "token_key": str(tmp_path / "no.pem")}))

    with lock(tmp_path / "up.lock") as held:
        assert held is not None
        sentence = refusal_of(demo(tmp_path, "--level", "B-B"))

    assert "something unexpected went wrong (FileNotFoundError), see " in sentence
    log = Path(sentence.rpartition("see ")[2])
    assert log.name == "error.log"
    assert log.parent.parent == tmp_path / "demo"
    assert log.stat().st_mode & 0o777 == 0o600
    assert "no.pem" in log.read_text()
