"""Forged twins of a valid document: each must lose its TOTAL-PASSED, and say why."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.pdf_utils.writer import copy_into_new_writer
from reportlab.pdfgen.canvas import Canvas

from documents.model import FetchKind, Level, TrustMaterial
from documents.pades.prepare import prepare
from documents.validate import FIELDS_LIMIT, validate
from domain.errors import DocumentTooLarge, UnsupportedDocument
from tests.testkit.documents import SAMPLES, fetch_of, options, plain_pdf, signed, trust_without_crls
from tests.testkit.pki import Certified, InMemoryPKI


class MovableClock:
    def __init__(self) -> None:
        self.moment = datetime.now(UTC)

    def now(self) -> datetime:
        return self.moment


@pytest.fixture(scope="module")
def b_b(pki: InMemoryPKI, citizen: Certified) -> bytes:
    return signed(plain_pdf(), pki, citizen, Level.B_B)


@pytest.fixture(scope="module")
def b_lta(pki: InMemoryPKI, citizen: Certified) -> bytes:
    return signed(plain_pdf(), pki, citizen, Level.B_LTA)


def verdict(data: bytes, trust: TrustMaterial, at: datetime | None = None) -> tuple[str, str]:
    report = validate(BytesIO(data), trust, at or datetime.now(UTC))
    return report.indication, report.signatures[0].sub_indication


def test_the_genuine_one(b_b: bytes, b_lta: bytes, pki: InMemoryPKI) -> None:
    assert verdict(b_b, pki.trust) == ("TOTAL-PASSED", "")
    assert verdict(b_lta, pki.trust) == ("TOTAL-PASSED", "")


def test_facts_of_a_report(b_lta: bytes, pki: InMemoryPKI, citizen: Certified) -> None:
    (report,) = validate(BytesIO(b_lta), pki.trust, datetime.now(UTC)).signatures
    assert "García Núñez Begoña" in report.signer
    assert report.certificate_serial == f"{citizen.certificate.serial_number:x}"
    assert report.signing_time is not None
    assert len(report.timestamps) == 2
    assert all(abs(moment - report.signing_time) < timedelta(minutes=1) for moment in report.timestamps)
    assert report.explanations == ()


@pytest.mark.parametrize("level", ["b_b", "b_lta"])
def test_a_flipped_byte_in_the_signed_range(level: str, request: pytest.FixtureRequest, pki: InMemoryPKI) -> None:
    data = bytearray(request.getfixturevalue(level))
    at = data.index(b"ReportLab")
    data[at] ^= 0x20
    assert verdict(bytes(data), pki.trust) == ("TOTAL-FAILED", "HASH_FAILURE")
    (one,) = validate(BytesIO(bytes(data)), pki.trust, datetime.now(UTC)).signatures
    assert one.changed_since is True


def test_every_tenth_byte_of_the_signed_range(b_b: bytes, pki: InMemoryPKI) -> None:
    """One flipped bit inside signed ranges: never valid, never a crash of another kind."""
    hole = b_b.index(b"/Contents <") + len(b"/Contents ")
    end = b_b.index(b">", hole + 1) + 1
    positions = [*range(0, hole, 97), *range(end, len(b_b), 23)]
    assert len(positions) > 20
    for at in positions:
        data = bytearray(b_b)
        data[at] ^= 1
        try:
            report = validate(BytesIO(bytes(data)), pki.trust, datetime.now(UTC))
        except UnsupportedDocument:
            continue
        assert report.indication != "TOTAL-PASSED", at


def test_a_flipped_byte_of_the_signature(b_b: bytes, pki: InMemoryPKI) -> None:
    data = bytearray(b_b)
    hole = data.index(b"/Contents <") + len(b"/Contents <")
    end = data.index(b"0" * 200, hole)
    at = end - 40  # within the signature value, the last field of the CMS
    data[at : at + 1] = b"1" if data[at : at + 1] != b"1" else b"2"
    indication, sub_indication = verdict(bytes(data), pki.trust)
    assert indication == "TOTAL-FAILED"
    assert sub_indication in {"SIG_CRYPTO_FAILURE", "FORMAT_FAILURE"}
    (one,) = validate(BytesIO(bytes(data)), pki.trust, datetime.now(UTC)).signatures
    assert one.changed_since is None


@pytest.mark.parametrize(
    ("level", "sub_indication"),
    [("b_b", "NO_CERTIFICATE_CHAIN_FOUND"), ("b_lta", "CERTIFICATE_CHAIN_GENERAL_FAILURE")],
)
def test_a_strangers_root(level: str, sub_indication: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(level)
    assert verdict(data, InMemoryPKI().trust) == ("INDETERMINATE", sub_indication)


def test_a_revoked_certificate() -> None:
    pki = InMemoryPKI()
    citizen = pki.certify()
    data = signed(plain_pdf(), pki, citizen, Level.B_B)
    assert verdict(data, pki.trust)[0] == "TOTAL-PASSED"
    pki.revoke(citizen)
    assert verdict(data, pki.trust) == ("INDETERMINATE", "REVOKED_NO_POE")
    online = validate(BytesIO(data), trust_without_crls(pki), datetime.now(UTC), fetch_of(pki))
    assert (online.indication, online.signatures[0].sub_indication) == ("INDETERMINATE", "REVOKED_NO_POE")


def test_a_timestamp_saves_what_was_signed_before_the_revocation() -> None:
    clock = MovableClock()
    pki = InMemoryPKI(clock)
    citizen = pki.certify()
    data = signed(plain_pdf(), pki, citizen, Level.B_LTA)
    clock.moment += timedelta(days=1)
    pki.revoke(citizen)
    assert verdict(data, pki.trust, clock.moment + timedelta(minutes=1))[0] == "TOTAL-PASSED"


def test_archived_evidence_lasts_longer_than_the_citizens_certificate() -> None:
    clock = MovableClock()
    pki = InMemoryPKI(clock)
    citizen = pki.certify()
    archived = signed(plain_pdf(), pki, citizen, Level.B_LTA)
    bare = signed(plain_pdf(), pki, citizen, Level.B_B)
    clock.moment = citizen.certificate.not_valid_after_utc + timedelta(days=1)
    assert verdict(archived, pki.trust, clock.moment)[0] == "TOTAL-PASSED"
    assert verdict(bare, pki.trust, clock.moment)[0] == "INDETERMINATE"


def append_page_replacement(data: bytes) -> bytes:
    """Another page content in a later revision, as an attacker would write it."""
    document = BytesIO(data)
    writer = IncrementalPdfFileWriter(document)
    page = writer.root["/Pages"]["/Kids"][0].get_object()
    page["/Contents"] = writer.add_object(generic.StreamObject(stream_data=b"BT ET 0 g 0 0 999 999 re f"))
    writer.update_container(page)
    writer.write_in_place()
    return document.getvalue()


@pytest.mark.parametrize("level", ["b_b", "b_lta"])
def test_a_page_replaced_in_a_later_revision(level: str, request: pytest.FixtureRequest, pki: InMemoryPKI) -> None:
    data = append_page_replacement(request.getfixturevalue(level))
    report = validate(BytesIO(data), pki.trust, datetime.now(UTC))
    assert report.indication == "INDETERMINATE"
    (one,) = report.signatures
    assert one.sub_indication == "SIG_CONSTRAINTS_FAILURE"
    assert one.changed_since
    assert not one.covers_whole_document
    assert "changed after this signature" in one.explanations[-1]


def test_a_file_cut_off_inside_what_is_signed(b_b: bytes, pki: InMemoryPKI) -> None:
    with pytest.raises(UnsupportedDocument):
        validate(BytesIO(b_b[: len(b_b) - 200]), pki.trust, datetime.now(UTC))


def test_a_byte_range_that_leaves_a_gap(b_b: bytes, pki: InMemoryPKI) -> None:
    """Octets between the two ranges that are not /Contents: the digest is wrong, and the coverage is too."""
    data = b_b.replace(b"/ByteRange [0 ", b"/ByteRange [5 ", 1)
    assert verdict(data, pki.trust)[0] == "TOTAL-FAILED"


def test_no_signature_is_no_pass(pki: InMemoryPKI) -> None:
    report = validate(BytesIO(plain_pdf()), pki.trust, datetime.now(UTC))
    assert (report.indication, report.signatures) == ("INDETERMINATE", ())


def test_a_placeholder_is_no_signature(pki: InMemoryPKI) -> None:
    document = BytesIO(plain_pdf())
    prepare(document, options())
    assert verdict(document.getvalue(), pki.trust) == ("TOTAL-FAILED", "FORMAT_FAILURE")


def test_the_gravest_word_counts(pki: InMemoryPKI, citizen: Certified) -> None:
    """A stranger signed before our citizen: his signature is unknown, so the document as a whole is not passed."""
    data = signed((SAMPLES / "good" / "signed-before.pdf").read_bytes(), pki, citizen)
    report = validate(BytesIO(data), pki.trust, datetime.now(UTC))
    assert [one.indication for one in report.signatures] == ["INDETERMINATE", "TOTAL-PASSED"]
    assert report.indication == "INDETERMINATE"


def test_online_validation_asks_for_what_is_missing(b_b: bytes, pki: InMemoryPKI) -> None:
    assert validate(BytesIO(b_b), trust_without_crls(pki), datetime.now(UTC)).indication == "INDETERMINATE"
    asked: list[FetchKind] = []

    def fetch(kind: FetchKind, url: str, body: bytes | None) -> bytes:
        asked.append(kind)
        return fetch_of(pki)(kind, url, body)

    assert validate(BytesIO(b_b), trust_without_crls(pki), datetime.now(UTC), fetch).indication == "TOTAL-PASSED"
    assert FetchKind.OCSP in asked


@pytest.mark.parametrize(
    ("name", "word"), [("not-a-pdf", "neither a PDF nor an XML"), ("empty", "empty"), ("truncated", "broken")]
)
def test_what_is_no_pdf(name: str, word: str, pki: InMemoryPKI) -> None:
    with pytest.raises(UnsupportedDocument, match=word):
        validate(BytesIO((SAMPLES / "refused" / f"{name}.pdf").read_bytes()), pki.trust, datetime.now(UTC))


def test_over_the_limit(b_b: bytes, pki: InMemoryPKI) -> None:
    with pytest.raises(DocumentTooLarge):
        validate(BytesIO(b_b), pki.trust, datetime.now(UTC), limit_bytes=1000)


def test_a_rewritten_file_has_lost_its_signature(b_b: bytes, pki: InMemoryPKI) -> None:
    out = BytesIO()
    copy_into_new_writer(PdfFileReader(BytesIO(b_b))).write(out)
    assert verdict(out.getvalue(), pki.trust)[0] == "TOTAL-FAILED"


def appended(data: bytes, change: Callable[[IncrementalPdfFileWriter], None]) -> bytes:
    """``data`` with one more revision."""
    document = BytesIO(data)
    writer = IncrementalPdfFileWriter(document)
    change(writer)
    writer.write_in_place()
    return document.getvalue()


def another_title(writer: IncrementalPdfFileWriter) -> None:
    title = generic.DictionaryObject({generic.pdf_name("/Title"): generic.pdf_string("Otro título")})
    writer.set_info(writer.add_object(title))


def the_title_itself(writer: IncrementalPdfFileWriter) -> None:
    """In the very object that held it."""
    reference = writer.trailer_view.raw_get("/Info")
    reference.get_object()["/Title"] = generic.pdf_string("Otro título")
    writer.mark_update(reference)


def other_metadata(writer: IncrementalPdfFileWriter) -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<r:Description xmlns:a="urn:a" a:b="c"/></r:RDF></x:xmpmeta>'
    )
    names = {generic.pdf_name("/Type"): generic.pdf_name("/Metadata"), generic.pdf_name("/Subtype"): "/XML"}
    names = {name: generic.pdf_name(value) for name, value in names.items()}
    writer.root["/Metadata"] = writer.add_object(generic.StreamObject(names, stream_data=xmp))
    touched(writer)


def metadata_that_are_none(writer: IncrementalPdfFileWriter) -> None:
    names = {generic.pdf_name("/Type"): generic.pdf_name("/Metadata")}
    odd = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a/></x:xmpmeta>'
    writer.root["/Metadata"] = writer.add_object(generic.StreamObject(names, stream_data=odd))
    touched(writer)


def touched(writer: IncrementalPdfFileWriter) -> None:
    """Written once more as it is."""
    writer.update_root()


def an_object_that_nothing_shows(writer: IncrementalPdfFileWriter) -> None:
    writer.add_object(generic.StreamObject(stream_data=b"another document"))


def a_revision_without_end(data: bytes) -> bytes:
    """Another page, which viewers show and whoever looks for %%EOF does not see."""
    reader = PdfFileReader(BytesIO(data))
    page = reader.root["/Pages"]["/Kids"].raw_get(0)
    parent, size = page.get_object().raw_get("/Parent").idnum, reader.trailer_view["/Size"]
    before = reader.xrefs.get_startxref_for_revision(reader.xrefs.total_revisions - 1)
    out = bytearray(data)
    at = len(out)
    out += b"%d 0 obj\n<</Type/Page/Parent %d 0 R/MediaBox[0 0 9 9]>>\nendobj\n" % (page.idnum, parent)
    table = len(out)
    out += b"xref\n%d 1\n%010d 00000 n \n" % (page.idnum, at)
    root = reader.trailer_view.raw_get("/Root").idnum
    out += b"trailer\n<</Size %d/Root %d 0 R/Prev %d>>\nstartxref\n%d\n %%%%EOF\n" % (size, root, before, table)
    return bytes(out)


LATER: dict[str, Callable[[bytes], bytes]] = {
    "octets behind the end": lambda data: data + b"\n<html>I am another document</html>",
    "a title": lambda data: appended(data, another_title),
    "the title": lambda data: appended(data, the_title_itself),
    "metadata": lambda data: appended(data, other_metadata),
    "metadata that cannot be read": lambda data: appended(data, metadata_that_are_none),
    "an object": lambda data: appended(data, an_object_that_nothing_shows),
    "a revision without end": a_revision_without_end,
    "octets between revisions": lambda data: appended(data + b"something\n", touched),
}


@pytest.mark.parametrize("level", ["b_b", "b_lta"])
@pytest.mark.parametrize("name", LATER)
def test_whatever_came_later_is_told(name: str, level: str, request: pytest.FixtureRequest, pki: InMemoryPKI) -> None:
    genuine = request.getfixturevalue(level)
    for data, changed in ((genuine, False), (LATER[name](genuine), True)):
        (one,) = validate(BytesIO(data), pki.trust, datetime.now(UTC)).signatures
        indication = "INDETERMINATE" if changed else "TOTAL-PASSED"
        assert (one.indication, one.changed_since) == (indication, changed), one.explanations


def test_a_form_filled_in_later_is_not_what_was_signed(pki: InMemoryPKI, citizen: Certified) -> None:
    """ISO 32000-2 §12.8.2.2 would allow it; whoever reads the sum should not be told that it was signed."""
    form = BytesIO()
    canvas = Canvas(form)
    canvas.acroForm.textfield(name="importe", value="100 EUR", x=50, y=700)
    canvas.showPage()
    canvas.save()
    genuine = signed(form.getvalue(), pki, citizen)
    assert verdict(genuine, pki.trust)[0] == "TOTAL-PASSED"

    def fill(writer: IncrementalPdfFileWriter) -> None:
        field = writer.root["/AcroForm"]["/Fields"][0].get_object()
        field["/V"] = generic.pdf_string("9999 EUR")
        writer.update_container(field)

    (one,) = validate(BytesIO(appended(genuine, fill)), pki.trust, datetime.now(UTC)).signatures
    assert (one.indication, one.sub_indication, one.changed_since) == ("INDETERMINATE", "SIG_CONSTRAINTS_FAILURE", True)


def test_later_evidence_is_no_change(b_b: bytes, pki: InMemoryPKI) -> None:
    """A writer says of itself in the information that it was there, and adds no more than that."""
    later = appended(b_b, touched)
    assert len(later) > len(b_b)
    (one,) = validate(BytesIO(later), pki.trust, datetime.now(UTC)).signatures
    assert (one.indication, one.changed_since, one.covers_whole_document) == ("TOTAL-PASSED", False, False)


def many_fields(document: bytes, count: int) -> bytes:
    """The only signature of ``document``, shown by ``count`` fields more."""
    out = BytesIO()
    writer = IncrementalPdfFileWriter(BytesIO(document))
    form = writer.root["/AcroForm"]
    first = form["/Fields"][0]
    for number in range(count):
        field = {"/FT": generic.NameObject("/Sig"), "/T": generic.TextStringObject(f"more-{number}")}
        made = generic.DictionaryObject({generic.NameObject(key): value for key, value in field.items()})
        made[generic.NameObject("/V")] = first.raw_get("/V")
        form["/Fields"].append(writer.add_object(made))
    writer.update_container(form["/Fields"])
    writer.write(out)
    return out.getvalue()


def test_signatures_are_counted_before_they_are_looked_at(b_b: bytes, pki: InMemoryPKI) -> None:
    at = datetime.now(UTC)
    assert len(validate(BytesIO(many_fields(b_b, FIELDS_LIMIT - 1)), pki.trust, at).signatures) == FIELDS_LIMIT
    with pytest.raises(UnsupportedDocument, match="more signatures"):
        validate(BytesIO(many_fields(b_b, FIELDS_LIMIT)), pki.trust, at)
