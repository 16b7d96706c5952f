"""What crosses between parent and child comes back as it went, or not at all."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from documents import wire
from documents.model import (
    FinishedDocument,
    Level,
    Prepared,
    SignatureParts,
    SignatureReport,
    TrustMaterial,
    ValidationReport,
)
from domain.digests import Digest

REPORT = ValidationReport(
    "TOTAL-PASSED",
    (
        SignatureReport(
            *("TOTAL-PASSED", "", "B-T", "Begoña", "0a", "ES256", None, (datetime(2026, 1, 2, tzinfo=UTC),)),
            covers_whole_document=True,
            changed_since=False,
            explanations=("a", "b"),
        ),
    ),
    {"document_timestamps": "0"},
)


@pytest.mark.parametrize(
    "value",
    [
        REPORT,
        Prepared(Digest.of(b"x"), b"state"),
        FinishedDocument(Level.B_LT, 7),
        SignatureParts(b"\0\xff", b"", (b"a", b"b")),
        TrustMaterial((b"root",)),
    ],
)
def test_there_and_back(value: object) -> None:
    body = wire.frame({"value": wire.to_plain(value)})
    assert int.from_bytes(body[:4], "big") == len(body) - 4
    assert wire.from_plain(type(value), wire.message_of(body[4:])["value"]) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (FinishedDocument, {"level": "B-X", "complete_bytes": 1}),
        (FinishedDocument, {"level": "B-B", "complete_bytes": "1"}),
        (FinishedDocument, {"level": "B-B", "complete_bytes": True}),
        (FinishedDocument, {"level": "B-B"}),
        (FinishedDocument, {"level": "B-B", "complete_bytes": 1, "more": 2}),
        (FinishedDocument, [1]),
        (bytes, "not base64!"),
        (datetime, "yesterday"),
        (Prepared, {"digest": {"algorithm": "sha256", "value": "AA=="}, "state": ""}),
        (TrustMaterial, {"anchors": "x", "intermediates": [], "crls": []}),
    ],
)
def test_other_shapes_are_faults(kind: type[object], value: object) -> None:
    with pytest.raises(wire.WireFault):
        wire.from_plain(kind, value)


def test_only_the_models_types_travel() -> None:
    with pytest.raises(TypeError):
        wire.to_plain(object())


@given(some.binary(max_size=60))
def test_bytes_that_are_no_message(body: bytes) -> None:
    try:
        found = wire.message_of(body)
    except wire.WireFault:
        return
    assert isinstance(found, dict)
