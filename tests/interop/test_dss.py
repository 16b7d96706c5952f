"""EU DSS, by its default policy, on what we sign: the level asked for, and never a pass for a forged twin."""

import random
import time
from io import BytesIO
from xml.etree import ElementTree as ET

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader

from documents.model import Level
from documents.pades.cms import signature_timestamps, token_info
from tests.testkit.documents import SAMPLES, good_samples, plain_pdf, signed
from tests.testkit.dss import DSS, REPORTS
from tests.testkit.pki import InMemoryPKI

ALGORITHMS = ("ES256", "RS256")
STAMPS = {Level.B_B: 0, Level.B_T: 1, Level.B_LT: 1, Level.B_LTA: 2}
STRANGERS = {"signed-before", "signed-certified-forms"}
"""Samples that somebody signed before us."""


@pytest.fixture(scope="module")
def root_only(pki, tmp_path_factory):
    """The trust anchor and nothing else."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "root.pem").write_bytes((pki.folder / "root.pem").read_bytes())
    return folder


@pytest.fixture(scope="module")
def by_level(pki, citizens):
    """One plain document at every level."""
    return {level: signed(plain_pdf(), pki, citizens["ES256"], level) for level in Level}


def check_passed(verdict, level, signatures=1):
    """TOTAL_PASSED at ``level``, without a reservation of any kind, about the signature or its timestamps."""
    assert verdict.fault == ""
    assert len(verdict.signatures) == signatures
    ours = verdict.signatures[-1]
    assert (ours.indication, ours.sub_indication, ours.format, ours.errors, ours.warnings) == (
        *("TOTAL_PASSED", "", f"PAdES-BASELINE-{level.removeprefix('B-')}"),
        *((), ()),
    )
    assert "GARCÍA NÚÑEZ BEGOÑA" in ours.signed_by.upper()
    assert [(stamp.indication, stamp.errors, stamp.warnings) for stamp in ours.timestamps] == [
        ("PASSED", (), ())
    ] * STAMPS[level]
    assert verdict.refused == ()


def is_refused(verdict):
    """Neither passed nor, by mistake, not judged at all."""
    return not verdict.passed and (verdict.fault != "" or all(one.indication for one in verdict.signatures))


# --- what we sign


@pytest.mark.parametrize("sample", good_samples(), ids=lambda path: path.stem)
@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_producer_at_every_level(algorithm, level, sample, pki, citizens, dss):
    data = signed(sample.read_bytes(), pki, citizens[algorithm], level)
    verdict = dss.judge(f"pades/{algorithm}/{level}/{sample.stem}", data, pki.folder, online=pki.url)
    check_passed(verdict, level, signatures=2 if sample.stem in STRANGERS else 1)


@pytest.mark.parametrize("level", [Level.B_B, Level.B_LTA])
def test_a_second_citizen_leaves_the_first_passed(level, pki, citizens, dss):
    first = signed(plain_pdf(), pki, citizens["ES256"], Level.B_LTA)
    both = signed(first, pki, citizens["RS256"], level)
    verdict = dss.judge(f"second-citizen/{level}", both, pki.folder, online=pki.url)
    assert verdict.passed
    assert [(one.errors, one.warnings) for one in verdict.signatures] == [((), ()), ((), ())]
    assert {stamp.indication for one in verdict.signatures for stamp in one.timestamps} == {"PASSED"}


@pytest.mark.parametrize("level", [Level.B_LT, Level.B_LTA])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_evidence_inside_is_enough(algorithm, level, pki, citizens, dss, root_only):
    data = signed(plain_pdf(), pki, citizens[algorithm], level)
    verdict = dss.judge(f"evidence-inside/{algorithm}/{level}", data, root_only)
    check_passed(verdict, level)
    assert verdict.fetched == ()


@pytest.mark.parametrize("level", [Level.B_B, Level.B_T])
def test_without_evidence_it_is_no_pass(level, by_level, dss, root_only):
    verdict = dss.judge(f"without-evidence/{level}", by_level[level], root_only)
    assert [one.indication for one in verdict.signatures] == ["INDETERMINATE"]


@pytest.mark.parametrize("level", Level)
def test_anchors_and_lists_are_enough_offline(level, by_level, pki, dss):
    verdict = dss.judge(f"offline/{level}", by_level[level], pki.folder)
    check_passed(verdict, level)
    assert verdict.fetched == ()


def test_reports_are_kept_as_dss_wrote_them(by_level, pki, dss):
    verdict = dss.judge("reports", by_level[Level.B_LTA], pki.folder, online=pki.url)
    roots = {name: ET.parse(verdict.folder / name).getroot().tag for name in REPORTS}  # noqa: S314 - DSS wrote them
    assert roots == {
        "simple.xml": "{http://dss.esig.europa.eu/validation/simple-report}SimpleReport",
        "detailed.xml": "{http://dss.esig.europa.eu/validation/detailed-report}DetailedReport",
        "diagnostic.xml": "{http://dss.esig.europa.eu/validation/diagnostic}DiagnosticData",
        "etsi.xml": "{http://uri.etsi.org/19102/v1.4.1#}ValidationReport",
    }
    assert (verdict.folder / "signed.pdf").read_bytes() == by_level[Level.B_LTA]


# --- forged twins


def own_signature(data):
    return PdfFileReader(BytesIO(data)).embedded_regular_signatures[0]


def replaced(data, was, becomes):
    """Octets inside the hexadecimal of /Contents."""
    wanted = was.hex().encode()
    assert data.lower().count(wanted) == 1
    start = data.lower().index(wanted)
    return data[:start] + becomes.hex().encode() + data[start + len(wanted) :]


@pytest.mark.parametrize("level", Level)
def test_a_flipped_byte_in_the_signed_range(level, by_level, pki, dss):
    data = by_level[level]
    start, length, later, later_length = (int(number) for number in own_signature(data).byte_range)
    positions = random.Random(level).sample(  # noqa: S311 - the same ones in every run
        [*range(start, start + length), *range(later, later + later_length)], 8
    )
    faults = 0
    for number, position in enumerate(positions):
        twin = bytearray(data)
        twin[position] ^= 1
        verdict = dss.judge(f"flipped/{level}/{number}", bytes(twin), pki.folder, online=pki.url)
        assert is_refused(verdict), position
        faults += verdict.fault != ""
    assert faults < len(positions), "DSS has judged none of them"


def test_a_flipped_byte_of_the_page_is_a_hash_failure(by_level, pki, dss):
    data = bytearray(by_level[Level.B_LTA])
    data[data.index(b"stream") + 12] ^= 1
    (one,) = dss.judge("flipped/page", bytes(data), pki.folder, online=pki.url).signatures
    assert (one.indication, one.sub_indication) == ("TOTAL_FAILED", "HASH_FAILURE")


def test_a_flipped_bit_of_the_signature_value(by_level, pki, dss):
    data = by_level[Level.B_B]
    signer = cms.ContentInfo.load(bytes(own_signature(data).pkcs7_content))["content"]["signer_infos"][0]
    value = signer["signature"].native
    twin = value[:-1] + bytes([value[-1] ^ 1])
    (one,) = dss.judge("flipped/value", replaced(data, value, twin), pki.folder, online=pki.url).signatures
    assert (one.indication, one.sub_indication) == ("TOTAL_FAILED", "SIG_CRYPTO_FAILURE")


def test_a_timestamp_over_something_else_shows(by_level, pki, dss):
    data = by_level[Level.B_T]
    content = cms.ContentInfo.load(bytes(own_signature(data).pkcs7_content))
    (token,) = signature_timestamps(content)
    imprint = token_info(token)["message_imprint"]["hashed_message"].native
    twin = bytes([imprint[0] ^ 1]) + imprint[1:]
    (one,) = dss.judge("timestamp-over-else", replaced(data, imprint, twin), pki.folder, online=pki.url).signatures
    assert [stamp.indication for stamp in one.timestamps] != ["PASSED"]


def test_a_page_replaced_later_is_not_without_a_warning(by_level, pki, dss):
    """DSS calls it passed: this is why every test above looks at its warnings as well."""
    document = BytesIO(by_level[Level.B_B])
    writer = IncrementalPdfFileWriter(document)
    page = writer.root["/Pages"]["/Kids"][0].get_object()
    page["/Contents"] = writer.add_object(generic.StreamObject(stream_data=b"BT ET 0 g 0 0 999 999 re f"))
    writer.update_container(page)
    writer.write_in_place()
    (one,) = dss.judge("page-replaced", document.getvalue(), pki.folder, online=pki.url).signatures
    assert one.warnings or one.indication != "TOTAL_PASSED"


@pytest.mark.parametrize("level", Level)
def test_a_strangers_root(level, by_level, pki, dss, tmp_path):
    stranger = x509.load_der_x509_certificate(InMemoryPKI().root)
    (tmp_path / "root.pem").write_bytes(stranger.public_bytes(Encoding.PEM))
    verdict = dss.judge(f"strangers-root/{level}", by_level[level], tmp_path, online=pki.url)
    assert is_refused(verdict)
    assert verdict.signatures[0].sub_indication == "NO_CERTIFICATE_CHAIN_FOUND"


@pytest.mark.parametrize("level", [Level.B_B, Level.B_T])
def test_signed_after_the_revocation(level, pki, dss):
    """Our own finishing knows no list that names it here; DSS asks."""
    citizen = pki.certify()
    pki.revoke(citizen)
    time.sleep(1.1)  # times in certificates and timestamps are whole seconds
    data = signed(plain_pdf(), pki, citizen, level)
    verdict = dss.judge(f"revoked/before/{level}", data, pki.folder, online=pki.url)
    assert is_refused(verdict)
    assert "REVOKED" in verdict.signatures[0].sub_indication


def test_revoked_after_signing_without_proof_of_time(pki, dss):
    citizen = pki.certify()
    data = signed(plain_pdf(), pki, citizen, Level.B_B)
    check_passed(dss.judge("revoked/not-yet", data, pki.folder, online=pki.url), Level.B_B)
    pki.revoke(citizen)
    (one,) = dss.judge("revoked/after", data, pki.folder, online=pki.url).signatures
    assert (one.indication, one.sub_indication) == ("INDETERMINATE", "REVOKED_NO_POE")


def test_the_judge_asks_nobody_else(pki, dss, tmp_path):
    """The twin of 'online only to our PKI': another one's addresses are refused before a name is looked up."""
    other = InMemoryPKI()
    data = signed(plain_pdf(), other, other.certify(), Level.B_B)
    root = x509.load_der_x509_certificate(other.root)
    (tmp_path / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
    verdict = dss.judge("asks-nobody-else", data, tmp_path, online=pki.url)
    assert verdict.fetched == ()
    assert {url.split("/")[2] for url in verdict.refused} == {"pki.test"}
    assert [one.indication for one in verdict.signatures] == ["INDETERMINATE"]


@pytest.mark.parametrize("name", ["empty", "not-a-pdf", "truncated"])
def test_what_is_no_signed_pdf(name, pki, dss):
    verdict = dss.judge(f"not-signed/{name}", (SAMPLES / "refused" / f"{name}.pdf").read_bytes(), pki.folder)
    assert not verdict.passed
    assert verdict.fault != "" or verdict.signatures == ()


def test_an_unsigned_pdf_is_no_pass(pki, dss):
    verdict = dss.judge("not-signed/plain", plain_pdf(), pki.folder)
    assert (verdict.passed, verdict.fault, verdict.signatures) == (False, "", ())


def test_a_judge_that_is_missing_is_a_failure(monkeypatch, tmp_path):
    """Neither a skip nor a pass: not without Java, and not without what builds the program."""
    for path in ("", str(tmp_path)):
        monkeypatch.setenv("PATH", path)
        with pytest.raises((RuntimeError, OSError)), DSS():
            pass
