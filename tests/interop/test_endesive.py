"""endesive, which shares no code of PDF or CMS with us, on what we sign."""

from io import BytesIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pyhanko.pdf_utils.reader import PdfFileReader

from documents.model import Level
from tests.testkit.documents import good_samples, plain_pdf, signed
from tests.testkit.dss import prepare_judges
from tests.testkit.pki import InMemoryPKI
from tests.testkit.second_opinions import endesive

STRANGERS = ("signed-before", "signed-certified-forms")
"""Samples that somebody signed before us."""
DOCUMENT_TIMESTAMP = {
    "document_timestamp": True,
    "hash": None,
    "signature": None,
    "certificate": None,
    "timestamp": True,
    "timestamp_message": "valid",
}


def citizens_signature(*, stamped):
    return {
        "document_timestamp": False,
        "hash": True,
        "signature": True,
        "certificate": True,
        "timestamp": stamped or None,
        "timestamp_message": "valid" if stamped else "no TSP data found",
    }


@pytest.fixture(scope="module", autouse=True)
def _prepared():
    prepare_judges()


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_every_level(algorithm, pki, citizens):
    files = {level.value: signed(plain_pdf(), pki, citizens[algorithm], level) for level in Level}
    assert endesive(pki.folder / "root.pem", f"levels-{algorithm}", files) == {
        "B-B": [citizens_signature(stamped=False)],
        "B-T": [citizens_signature(stamped=True)],
        "B-LT": [citizens_signature(stamped=True)],
        "B-LTA": [citizens_signature(stamped=True), DOCUMENT_TIMESTAMP],
    }


def test_every_producer(pki, citizens):
    files = {path.stem: signed(path.read_bytes(), pki, citizens["ES256"], Level.B_LTA) for path in good_samples()}
    verdicts = endesive(pki.folder / "root.pem", "producers", files)
    assert {name: verdict[-2:] for name, verdict in verdicts.items()} == {
        name: [citizens_signature(stamped=True), DOCUMENT_TIMESTAMP] for name in files
    }
    assert {name for name, verdict in verdicts.items() if len(verdict) != 2} == set(STRANGERS)


def test_a_flipped_byte(pki, citizens):
    data = bytearray(signed(plain_pdf(), pki, citizens["RS256"], Level.B_B))
    data[data.index(b"stream") + 12] ^= 1
    ((one,),) = endesive(pki.folder / "root.pem", "flipped", {"twin": bytes(data)}).values()
    assert one["hash"] is False


def test_a_flipped_bit_of_the_signature_value(pki, citizens):
    data = bytearray(signed(plain_pdf(), pki, citizens["RS256"], Level.B_B))
    contents = bytes(PdfFileReader(BytesIO(data)).embedded_regular_signatures[0].pkcs7_content).rstrip(b"\0")
    last_digit = data.lower().index(contents[-16:].hex().encode()) + 31
    data[last_digit : last_digit + 1] = b"0" if data[last_digit : last_digit + 1] != b"0" else b"1"
    ((one,),) = endesive(pki.folder / "root.pem", "value", {"twin": bytes(data)}).values()
    assert (one["hash"], one["signature"]) == (True, False)


def test_a_strangers_root(pki, citizens, tmp_path):
    stranger = x509.load_der_x509_certificate(InMemoryPKI().root)
    (tmp_path / "root.pem").write_bytes(stranger.public_bytes(Encoding.PEM))
    data = signed(plain_pdf(), pki, citizens["ES256"], Level.B_B)
    ((one,),) = endesive(tmp_path / "root.pem", "stranger", {"twin": data}).values()
    assert (one["hash"], one["signature"], one["certificate"]) == (True, True, False)
