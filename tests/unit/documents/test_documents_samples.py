"""Every producer's PDF, at the lowest and the highest level, judged by us, poppler and OpenSSL."""

import re
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature

from documents.model import Level
from documents.pades.cms import signature_timestamps, signature_value
from documents.validate import validate
from tests.testkit.documents import SAMPLES, good_samples, plain_pdf, run_tool, signed, trust_without_crls
from tests.testkit.pki import Certified, InMemoryPKI

SIGNED_BEFORE = {"signed-before", "signed-certified-forms"}
OPENSSL_NOW = ("-purpose", "any")


def own_signature(data: bytes) -> EmbeddedPdfSignature:
    reader = PdfFileReader(BytesIO(data), strict=False)
    if reader.encrypted:
        reader.decrypt("")
    return reader.embedded_regular_signatures[-1]


def covered(data: bytes, signature: EmbeddedPdfSignature) -> bytes:
    start, length, later, later_length = (int(number) for number in signature.byte_range)
    return data[start : start + length] + data[later : later + later_length]


def check_with_openssl(data: bytes, pki: InMemoryPKI, work: Path) -> None:
    """The CMS by ``openssl cms``, each token by ``openssl ts``."""
    signature = own_signature(data)
    content = cms.ContentInfo.load(bytes(signature.pkcs7_content))
    (work / "signature.der").write_bytes(content.dump())
    (work / "covered.bin").write_bytes(covered(data, signature))
    (work / "value.bin").write_bytes(signature_value(content))
    for name, der in (("root", pki.root), ("ca", pki.ca)):
        (work / f"{name}.pem").write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    run_tool(
        *("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "signature.der", "-content", "covered.bin"),
        *("-CAfile", "root.pem", "-out", "/dev/null", *OPENSSL_NOW),
        cwd=work,
    )
    for token in signature_timestamps(content):
        check_token(token.dump(), work, "-data", "value.bin")
    for stamp in signature.reader.embedded_timestamp_signatures:
        (work / "stamped.bin").write_bytes(covered(data, stamp))
        check_token(cms.ContentInfo.load(bytes(stamp.pkcs7_content)).dump(), work, "-data", "stamped.bin")


def check_token(token: bytes, work: Path, *over: str) -> None:
    (work / "token.der").write_bytes(token)
    run_tool(
        *("openssl", "ts", "-verify", "-token_in", "-in", "token.der", *over),
        *("-CAfile", "root.pem", "-untrusted", "ca.pem"),
        cwd=work,
    )


def pdfsig_says(data: bytes, work: Path) -> list[str]:
    """One line for each signature, in the order of the file's form."""
    (work / "signed.pdf").write_bytes(data)
    shown = run_tool("pdfsig", "-nocert", "signed.pdf", cwd=work)
    return re.findall(r"Signature Validation: (.*)", shown)


@pytest.mark.parametrize("sample", good_samples(), ids=lambda path: path.stem)
@pytest.mark.parametrize("level", [Level.B_B, Level.B_LTA])
def test_every_producer(sample: Path, level: Level, pki: InMemoryPKI, citizen: Certified, tmp_path: Path) -> None:
    original = sample.read_bytes()
    data = signed(original, pki, citizen, level)

    assert data.startswith(original)
    report = validate(BytesIO(data), pki.trust, datetime.now(UTC))
    ours = report.signatures[-1]
    assert ("TOTAL-PASSED", "", level.value, "ES256") == (
        ours.indication,
        ours.sub_indication,
        ours.level,
        ours.algorithm,
    ), ours.explanations
    assert not ours.changed_since
    assert ours.covers_whole_document is (level is Level.B_B)
    assert ours.certificate_serial == f"{citizen.certificate.serial_number:x}"
    assert len(report.signatures) == (2 if sample.stem in SIGNED_BEFORE else 1)

    verdicts = pdfsig_says(data, tmp_path)
    assert verdicts.count("Signature is Valid.") == len(report.signatures)
    check_with_openssl(data, pki, tmp_path)
    if level is Level.B_LTA:
        (tmp_path / "before.pdf").write_bytes(original)
        before, after = (run_tool("pdftotext", name, "-", cwd=tmp_path) for name in ("before.pdf", "signed.pdf"))
        assert before == after, "the pages stay as they were"


@pytest.mark.parametrize("level", [Level.B_T, Level.B_LT])
@pytest.mark.parametrize("name", ["libreoffice", "qpdf-object-streams", "owner-password-aes256"])
def test_levels_between(name: str, level: Level, pki: InMemoryPKI, rsa_citizen: Certified, tmp_path: Path) -> None:
    data = signed((SAMPLES / "good" / f"{name}.pdf").read_bytes(), pki, rsa_citizen, level)
    report = validate(BytesIO(data), pki.trust, datetime.now(UTC))
    assert report.indication == "TOTAL-PASSED"
    assert report.signatures[0].level == level.value
    assert report.signatures[0].algorithm == "RS256"
    assert pdfsig_says(data, tmp_path) == ["Signature is Valid."]
    check_with_openssl(data, pki, tmp_path)


@pytest.mark.parametrize("level", [Level.B_LT, Level.B_LTA])
def test_evidence_inside_is_enough(level: Level, pki: InMemoryPKI, citizen: Certified) -> None:
    data = signed(plain_pdf(), pki, citizen, level)
    assert validate(BytesIO(data), trust_without_crls(pki), datetime.now(UTC)).indication == "TOTAL-PASSED"


@pytest.mark.parametrize("level", [Level.B_B, Level.B_T])
def test_without_evidence_nothing_is_certain(level: Level, pki: InMemoryPKI, citizen: Certified) -> None:
    data = signed(plain_pdf(), pki, citizen, level)
    assert validate(BytesIO(data), trust_without_crls(pki), datetime.now(UTC)).indication == "INDETERMINATE"


def test_a_second_citizen_leaves_the_first_valid(pki: InMemoryPKI, citizen: Certified, rsa_citizen: Certified) -> None:
    first = signed(plain_pdf(), pki, citizen, Level.B_B)
    both = signed(first, pki, rsa_citizen, Level.B_LTA)
    report = validate(BytesIO(both), pki.trust, datetime.now(UTC))
    assert [one.indication for one in report.signatures] == ["TOTAL-PASSED", "TOTAL-PASSED"]
    assert [one.changed_since for one in report.signatures] == [True, False]
    assert both.startswith(first)


def test_openssl_refuses_a_flipped_byte(pki: InMemoryPKI, citizen: Certified, tmp_path: Path) -> None:
    data = bytearray(signed(plain_pdf(), pki, citizen, Level.B_T))
    data[20] ^= 1
    with pytest.raises(AssertionError, match="openssl"):
        check_with_openssl(bytes(data), pki, tmp_path)
