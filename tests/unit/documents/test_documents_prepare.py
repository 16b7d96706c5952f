"""What is refused and why, and what a prepared revision looks like."""

from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pikepdf
import pytest
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.fields import enumerate_sig_fields

from documents.model import PAdESOptions
from documents.pades.prepare import PreparedState, inspect, prepare
from domain.errors import DocumentTooLarge, MalformedRequest, UnsupportedDocument
from tests.testkit.documents import SAMPLES, good_samples, options, plain_pdf

REASONS = {
    "certified-no-changes": "certified or locked",
    "empty": "empty",
    "needs-password": "needs a password",
    "not-a-pdf": "neither a PDF nor an XML",
    "owner-forbids": "author has forbidden",
    "truncated": "broken",
    "xfa": "dynamic form",
}


def test_every_refused_sample_has_its_reason() -> None:
    assert sorted(path.stem for path in (SAMPLES / "refused").glob("*.pdf")) == sorted(REASONS)


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_refused_with_a_plain_reason_and_left_as_it_was(name: str, reason: str) -> None:
    original = (SAMPLES / "refused" / f"{name}.pdf").read_bytes()
    for act in (inspect, lambda document: prepare(document, options())):
        document = BytesIO(original)
        with pytest.raises(UnsupportedDocument, match=reason) as refused:
            act(document)
        assert refused.value.code == "unsupported_document"
        assert document.getvalue() == original


def test_too_large() -> None:
    original = plain_pdf()
    with pytest.raises(DocumentTooLarge, match="limit"):
        prepare(BytesIO(original), options(), limit_bytes=len(original) - 1)
    assert prepare(BytesIO(original), options(), limit_bytes=len(original)).digest.value


def test_digest_is_over_all_but_the_contents() -> None:
    document = BytesIO(plain_pdf())
    prepared = prepare(document, options(reason="Conforme", location="Zaragoza"))
    data = document.getvalue()
    state = PreparedState.from_bytes(prepared.state)
    hole = data[state.reserved_start : state.reserved_end]
    assert hole.strip(b"<>0") == b""
    assert (hole[:1], hole[-1:]) == (b"<", b">")
    assert prepared.digest.value == sha256(data[: state.reserved_start] + data[state.reserved_end :]).digest()
    assert len(prepared.state) <= 4096


def test_signature_dictionary_says_what_was_asked() -> None:
    document = BytesIO(plain_pdf())
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    prepare(document, PAdESOptions(signing_time=moment, reason="Conforme", location="Teruel", signer_name="Begoña"))
    ((name, value, _),) = enumerate_sig_fields(PdfFileReader(document), filled_status=True)
    dictionary = value.get_object()
    assert name == "Rubrica1"
    assert dictionary["/SubFilter"] == "/ETSI.CAdES.detached"
    assert (dictionary["/Reason"], dictionary["/Location"], dictionary["/Name"]) == ("Conforme", "Teruel", "Begoña")
    assert dictionary["/M"].startswith("D:20260304050607")


@pytest.mark.parametrize("sample", ["reportlab-form", "qpdf-encrypted-form"])
def test_a_taken_field_name_is_passed_over(sample: str) -> None:
    document = BytesIO((SAMPLES / "good" / f"{sample}.pdf").read_bytes())
    prepare(document, options())
    reader = PdfFileReader(document)
    if reader.encrypted:
        reader.decrypt("")
    ((name, _, _),) = enumerate_sig_fields(reader, filled_status=True)
    assert name == "Rubrica2"
    names = [field.get_object()["/T"] for field in reader.root["/AcroForm"]["/Fields"]]
    assert names == ["Rubrica1", "acepta", "Rubrica2"]


def test_a_taken_field_name_may_be_an_object_of_its_own() -> None:
    document = BytesIO()
    with pikepdf.open(SAMPLES / "good" / "reportlab-form.pdf") as form:
        field = form.Root.AcroForm.Fields[0]
        field.T = form.make_indirect(pikepdf.String(str(field.T)))
        form.save(document)
    prepare(document, options())
    ((name, _, _),) = enumerate_sig_fields(PdfFileReader(document), filled_status=True)
    assert name == "Rubrica2"


@pytest.mark.parametrize("sample", good_samples(), ids=lambda path: path.stem)
def test_an_inspection_is_a_preparation_that_leaves_nothing(sample: Path) -> None:
    with sample.open("rb") as document:
        assert inspect(document).size_bytes == sample.stat().st_size
        assert not document.closed


def test_what_cannot_be_prepared_is_refused_at_inspection() -> None:
    """Whatever prepare meets only as it writes: here, a page whose annotations are no list."""
    document = BytesIO()
    with pikepdf.open(BytesIO(plain_pdf())) as broken:
        broken.pages[0].obj.Annots = 7
        broken.save(document)
    original = document.getvalue()
    for act in (inspect, lambda document: prepare(document, options())):
        with pytest.raises(UnsupportedDocument, match="broken"):
            act(document)
        assert document.getvalue() == original


def test_the_same_input_gives_the_same_digest_but_for_the_time() -> None:
    moments = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)]
    digests = {prepare(BytesIO(plain_pdf()), PAdESOptions(signing_time=moment)).digest for moment in moments}
    assert len(digests) == 2


def test_prepared_but_never_signed_is_refused_as_input() -> None:
    document = BytesIO(plain_pdf())
    prepare(document, options())
    with pytest.raises(UnsupportedDocument, match="signature that cannot be read"):
        prepare(BytesIO(document.getvalue()), options())


def test_inspection_tells_what_it_is() -> None:
    found = inspect(BytesIO((SAMPLES / "good" / "signed-before.pdf").read_bytes()))
    assert (found.pages, found.signatures, found.encrypted) == (1, 1, False)
    assert inspect(BytesIO((SAMPLES / "good" / "owner-password-rc4.pdf").read_bytes())).encrypted
    assert inspect(BytesIO((SAMPLES / "good" / "poppler-pdfunite.pdf").read_bytes())).pages == 2


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"digest":"zz","reserved_start":1,"reserved_end":2,"size":3}',
        b'{"digest":"00","reserved_start":9,"reserved_end":2,"size":3}',
        b'{"digest":"00","reserved_start":1,"reserved_end":2,"size":3,"more":4}',
    ],
)
def test_a_state_that_is_none(state: bytes) -> None:
    with pytest.raises(MalformedRequest):
        PreparedState.from_bytes(state)


@pytest.mark.parametrize("cut", [40, 200, 700, 1200])
def test_a_cut_or_garbled_file_is_an_answer_and_no_crash(cut: int) -> None:
    whole = plain_pdf()
    for broken in (whole[:cut], whole[:cut] + b"\xff" * 64 + whole[cut + 64 :]):
        try:
            inspect(BytesIO(broken))
        except UnsupportedDocument as refused:
            assert refused.public_detail  # noqa: PT017 - some of these damages can be read over, none may crash
