"""``rubrica validate`` as people and programs run it, in the limited child, with forged twins."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner, Result

from documents.model import Level, SignatureReport, ValidationReport
from rubrica import validation
from rubrica.cli import app
from rubrica.state import Running
from tests.testkit.documents import plain_pdf, sign, signed
from tests.testkit.pki import Certified, InMemoryPKI
from tests.testkit.xades import CASES
from tests.testkit.xades import signed as signed_xml

Judge = Callable[..., Result]
PASSED = SignatureReport(
    indication="TOTAL-PASSED",
    sub_indication="",
    level="B-B",
    signer="García Núñez Begoña",
    certificate_serial="5f3a",
    algorithm="ES256",
    signing_time=datetime(2026, 3, 2, 9, tzinfo=UTC),
    timestamps=(),
    covers_whole_document=True,
    changed_since=False,
)


@pytest.fixture(scope="module")
def pki() -> InMemoryPKI:
    return InMemoryPKI()


@pytest.fixture(scope="module")
def citizen(pki: InMemoryPKI) -> Certified:
    return pki.certify()


@pytest.fixture(scope="module")
def trust(pki: InMemoryPKI, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trust(pki, tmp_path_factory.mktemp("trust"))


def write_trust(pki: InMemoryPKI, folder: Path) -> Path:
    for name, der in (("root", pki.root), ("ca", pki.ca)):
        (folder / f"{name}.pem").write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
        (folder / f"{name}.crl").write_bytes(pki.authority.crl(name))
    return folder


@pytest.fixture
def judge(tmp_path: Path, trust: Path) -> Judge:
    def run(content: bytes, *more: str, name: str = "contrato.pdf", trusted: Path | None = trust) -> Result:
        file = tmp_path / name
        file.write_bytes(content)
        given = ["--trust", str(trusted)] if trusted else []
        return CliRunner().invoke(app, ["validate", str(file), *given, *more])

    return run


def test_a_valid_pdf_in_plain_words(judge: Judge, pki: InMemoryPKI, citizen: Certified) -> None:
    result = judge(signed(plain_pdf(), pki, citizen, Level.B_LTA))
    assert result.exit_code == 0, result.output
    assert "contrato.pdf: signed, valid" in result.stdout
    assert "García Núñez Begoña" in result.stdout
    assert f"certificate {citizen.certificate.serial_number:x}" in result.stdout
    assert "a time stamp says it was there then" in result.stdout
    assert "B-LTA: " in result.stdout
    assert "not since it was signed" in result.stdout


def test_the_same_for_machines(judge: Judge, pki: InMemoryPKI, citizen: Certified) -> None:
    result = judge(signed(plain_pdf(), pki, citizen, Level.B_B), "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["valid"], told["indication"]) == (0, True, "TOTAL-PASSED")
    (signature,) = told["signatures"]
    assert set(signature) == {
        "indication",
        "sub_indication",
        "level",
        "signer",
        "certificate_serial",
        "algorithm",
        "signing_time",
        "timestamps",
        "covers_whole_document",
        "changed_since",
        "explanations",
    }
    assert (signature["level"], signature["algorithm"], signature["timestamps"]) == ("B-B", "ES256", [])
    assert (signature["changed_since"], signature["covers_whole_document"]) == (False, True)


def test_a_changed_pdf(judge: Judge, pki: InMemoryPKI, citizen: Certified) -> None:
    data = bytearray(signed(plain_pdf(), pki, citizen))
    data[data.index(b"ReportLab")] ^= 0x20
    result = judge(bytes(data))
    assert result.exit_code == 1
    assert "NOT valid" in result.stdout
    assert "what was signed is no longer what the file holds" in result.stdout
    told = json.loads(judge(bytes(data), "--json").stdout)
    assert (told["valid"], told["signatures"][0]["sub_indication"]) == (False, "HASH_FAILURE")


def test_a_second_signature_is_told_of_the_first(judge: Judge, pki: InMemoryPKI, citizen: Certified) -> None:
    document = BytesIO(signed(plain_pdf(), pki, citizen))
    sign(document, pki, citizen)
    result = judge(document.getvalue())
    assert result.exit_code == 0, result.output
    assert "Signature 1 of 2: valid" in result.stdout
    assert "changed by further signatures alone" in result.stdout


def test_strangers_and_revoked_ones_are_not_believed(judge: Judge, tmp_path: Path) -> None:
    stranger = InMemoryPKI()
    unknown = stranger.certify()
    data = signed(plain_pdf(), stranger, unknown)
    result = judge(data)
    assert result.exit_code == 1
    assert "signed, valid" not in result.stdout
    assert "as the file says" in result.stdout
    folder = tmp_path / "theirs"
    folder.mkdir()
    assert judge(data, trusted=write_trust(stranger, folder)).exit_code == 0
    stranger.revoke(unknown)
    assert judge(data, trusted=write_trust(stranger, folder)).exit_code == 1


def test_without_revocation_data_nothing_is_proved(
    judge: Judge, pki: InMemoryPKI, citizen: Certified, tmp_path: Path
) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    write_trust(pki, folder)
    for path in folder.glob("*.crl"):
        path.unlink()
    result = judge(signed(plain_pdf(), pki, citizen), trusted=folder)
    assert result.exit_code == 1
    assert "cannot be proved" in result.stdout


def test_not_signed(judge: Judge) -> None:
    result = judge(plain_pdf())
    assert (result.exit_code, result.stdout) == (1, "contrato.pdf: not signed\n")
    told = json.loads(judge(plain_pdf(), "--json").stdout)
    assert (told["signed"], told["valid"], told["signatures"]) == (False, False, [])


@pytest.mark.parametrize("case", ["enveloped", "enveloping"])
def test_xml(judge: Judge, pki: InMemoryPKI, citizen: Certified, case: str) -> None:
    original, options = CASES[case]
    data = signed_xml(original, options, citizen, pki.trust)
    result = judge(data, name="solicitud.xml")
    assert result.exit_code == 0, result.output
    assert "solicitud.xml: signed, valid" in result.stdout
    forged = data.replace("Begoña".encode(), b"Begonia", 1)
    assert forged != data
    assert judge(forged, name="solicitud.xml").exit_code == 1


def test_detached_xml_needs_its_content(judge: Judge, pki: InMemoryPKI, citizen: Certified, tmp_path: Path) -> None:
    original, options = CASES["detached"]
    data = signed_xml(original, options, citizen, pki.trust)
    content = tmp_path / "content.bin"
    content.write_bytes(original)
    assert judge(data, "--content", str(content), name="firma.xml").exit_code == 0
    content.write_bytes(original + b"1")
    assert judge(data, "--content", str(content), name="firma.xml").exit_code == 1
    without = judge(data, name="firma.xml")
    assert without.exit_code == 1
    assert "not known: the signed file lies beside; give it too" in without.stdout
    assert "not since it was signed" not in without.stdout
    assert json.loads(judge(data, "--json", name="firma.xml").stdout)["signatures"][0]["changed_since"] is None


def test_comments_in_xml_are_told_of(judge: Judge, pki: InMemoryPKI, citizen: Certified) -> None:
    original, options = CASES["enveloped"]
    data = signed_xml(original, options, citizen, pki.trust)
    assert "not since it was signed" in judge(data, name="solicitud.xml").stdout
    result = judge(data.replace(b"<dato>", b"<!-- pagado --><dato>"), name="solicitud.xml")
    assert result.exit_code == 0
    assert "changed not known" in result.stdout
    assert "note    the file holds comments" in result.stdout


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_wide_encoding_is_told_as_such(judge: Judge, encoding: str) -> None:
    result = judge("<?xml version='1.0'?><a/>".encode(encoding), name="solicitud.xml")
    assert result.exit_code == 2
    assert "please save it as UTF-8" in result.stderr
    assert "neither a PDF nor an XML" in judge("hola".encode(encoding)).stderr


def test_content_beside_a_pdf_is_a_mistake(judge: Judge, pki: InMemoryPKI, citizen: Certified, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    result = judge(signed(plain_pdf(), pki, citizen), "--content", str(other))
    assert result.exit_code == 2
    assert "a PDF holds what it signs" in result.stderr


@pytest.mark.parametrize("content", [b"plain text", b"%PDF-1.7\nbroken", b"<?xml version='1.0'?><!DOCTYPE a><a/>"])
def test_unusable_files(judge: Judge, content: bytes) -> None:
    result = judge(content, "--json")
    assert result.exit_code == 2
    told = json.loads(result.stdout)
    assert (told["valid"], told["error"]) == (False, "unsupported_document")


def test_an_unusable_file_in_plain_words(judge: Judge) -> None:
    result = judge(b"")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("rubrica: ")


def test_without_anchors_it_says_what_to_give(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUBRICA_VAR", str(tmp_path / "var"))
    result = judge(plain_pdf(), trusted=None)
    assert result.exit_code == 2
    assert "--trust" in result.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    result = judge(plain_pdf(), trusted=empty)
    assert result.exit_code == 2
    assert "no trust anchor" in result.stderr


def test_the_running_service_is_believed(trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(
        owner="up",
        pid=os.getpid(),
        edge="",
        gate="",
        # Nobody answers there, so the folder that the service wrote when it started is taken.
        pki="http://127.0.0.1:1",
        inbox="",
        operator_socket=tmp_path,
        token_key=tmp_path,
        trust=trust,
        state=tmp_path,
        pids={},
    )
    running.write(tmp_path / "up.json")
    monkeypatch.setenv("RUBRICA_VAR", str(tmp_path))
    found = validation.trust_material(None)
    assert len(found.anchors) == 1
    assert len(found.crls) == 2


def test_a_strangers_name_does_not_move_the_terminal() -> None:
    hostile = replace(PASSED, signer="\x1b[2J\x1b[H valid\nSignature 9 of 9: valid")
    told = validation.lines("\x1b]0;x\x07.pdf", ValidationReport("TOTAL-PASSED", (hostile,)))
    assert not any("\x1b" in line or "\n" in line or "\x07" in line for line in told)


def test_one_bad_signature_spoils_the_file() -> None:
    bad = replace(PASSED, indication="INDETERMINATE", sub_indication="TRY_LATER")
    assert validation.is_valid(ValidationReport("TOTAL-PASSED", (PASSED,)))
    assert not validation.is_valid(ValidationReport("INDETERMINATE", (PASSED, bad)))
    assert not validation.is_valid(ValidationReport("TOTAL-PASSED", ()))
