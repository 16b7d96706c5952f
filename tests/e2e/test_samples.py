"""PDFs of many producers through the whole service, and judges that are not ours on what comes back."""

from datetime import UTC, datetime

import pikepdf
import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from documents.validate import validate
from tests.testkit.documents import good_samples, run_tool

SAMPLES = good_samples()


@pytest.fixture(scope="session")
def batches(service, citizen, tmp_path_factory):
    """All samples in one approval per level: the highest for all, the others for some."""
    signed = {}
    for level, samples in {
        "B-LTA": SAMPLES,
        "B-LT": SAMPLES[:3],
        "B-T": SAMPLES[3:6],
        "B-B": SAMPLES[6:9],
    }.items():
        folder = tmp_path_factory.mktemp(level)
        for sample, path in zip(samples, service.sign(citizen, samples, folder, level=level), strict=True):
            signed[level, sample.stem] = (sample, path)
    return signed


CASES = [("B-LTA", sample.stem) for sample in SAMPLES] + [
    (level, sample.stem)
    for level, samples in (("B-LT", SAMPLES[:3]), ("B-T", SAMPLES[3:6]), ("B-B", SAMPLES[6:9]))
    for sample in samples
]


@pytest.mark.parametrize(("level", "name"), CASES)
def test_judges_accept(level, name, batches, trust, tmp_path):
    sample, path = batches[level, name]
    original, signed = sample.read_bytes(), path.read_bytes()
    assert signed.startswith(original)
    with path.open("rb") as file:
        report = validate(file, trust, datetime.now(UTC)).signatures[-1]
    assert (report.indication, report.level) == ("TOTAL-PASSED", level), report.explanations
    assert not report.changed_since
    contents, content = signature_parts(path)
    (tmp_path / "signature.der").write_bytes(contents)
    (tmp_path / "content").write_bytes(content)
    root = tmp_path / "anchors.pem"
    root.write_bytes(pem(trust.anchors) + pem(trust.intermediates))
    run_tool(
        *("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "signature.der", "-content", "content"),
        *("-CAfile", str(root), "-purpose", "any", "-out", "/dev/null"),
        cwd=tmp_path,
    )
    if level != "B-B":
        verify_timestamp(contents, tmp_path, root)
    # Poppler cannot decrypt every owner-protected file without its owner's password.
    said = run_tool("pdfsig", "-nocert", str(path), cwd=tmp_path)
    assert "Signature is Valid" in said


def test_all_samples_come_from_ten_producers_or_more():
    assert len({sample.stem.split("-")[0] for sample in SAMPLES}) >= 10


def signature_parts(path):
    """The CMS of the citizen's signature and the octets it covers."""
    data = path.read_bytes()
    with pikepdf.open(path) as pdf:
        signatures = [
            field.V
            for field in pdf.Root.AcroForm.Fields
            if "/V" in field and field.V.get("/SubFilter") == "/ETSI.CAdES.detached"
        ]
    newest = max(signatures, key=lambda value: int(value.ByteRange[2]))
    start, length, tail, tail_length = (int(number) for number in newest.ByteRange)
    contents = bytes.fromhex(data[length + 1 : tail - 1].decode())
    parsed = cms.ContentInfo.load(contents)
    return parsed.dump(), data[start : start + length] + data[tail : tail + tail_length]


def verify_timestamp(contents, folder, anchors):
    signer = cms.ContentInfo.load(contents)["content"]["signer_infos"][0]
    (token,) = [
        attribute["values"][0]
        for attribute in signer["unsigned_attrs"]
        if attribute["type"].native == "signature_time_stamp_token"
    ]
    (folder / "token.der").write_bytes(token.dump())
    (folder / "value").write_bytes(signer["signature"].native)
    run_tool(
        *("openssl", "ts", "-verify", "-data", "value", "-in", "token.der", "-token_in", "-CAfile", str(anchors)),
        cwd=folder,
    )


def pem(certificates):
    return b"".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in certificates)
