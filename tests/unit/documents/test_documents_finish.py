"""Every check before release has a forged twin here; every service that fails leaves a complete document."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from asn1crypto import cms

from documents.model import Fetch, FetchKind, Level, LevelNotReached, Prepared, SignatureParts, TrustMaterial
from documents.pades.finish import extend, finish
from documents.pades.prepare import PreparedState, prepare
from documents.validate import validate
from domain.digests import Digest
from domain.errors import (
    CertificateExpired,
    CredentialRevoked,
    DTBSMismatch,
    MalformedRequest,
    RubricaError,
    StateConflict,
    TimestampUnavailable,
)
from signer.tbs.cms import signed_attributes
from tests.testkit.documents import fetch_of, options, plain_pdf, refuse_to_fetch, sign_parts, signed
from tests.testkit.pki import Certified, InMemoryPKI


class Case:
    """A prepared document and the core's answer to it; tests spoil one thing and finish."""

    def __init__(self, pki: InMemoryPKI, citizen: Certified) -> None:
        self.document = BytesIO(plain_pdf())
        self.prepared: Prepared = prepare(self.document, options())
        self.parts: SignatureParts = sign_parts(self.prepared, citizen)
        self.state = self.prepared.state
        self.level = Level.B_B
        self.trust: TrustMaterial = pki.trust
        self.fetch: Fetch = fetch_of(pki)
        self.now = datetime.now(UTC)

    def finish(self) -> Level:
        return finish(
            self.document,
            self.state,
            self.parts,
            level=self.level,
            trust=self.trust,
            fetch=self.fetch,
            now=self.now,
        ).level

    def is_unsigned(self) -> bool:
        found = PreparedState.from_bytes(self.prepared.state)
        return self.document.getvalue()[found.reserved_start : found.reserved_end].strip(b"<>0") == b""

    def refuses(self, kind: type[RubricaError], match: str) -> None:
        with pytest.raises(kind, match=match):
            self.finish()
        assert self.is_unsigned()


@pytest.fixture
def case(pki: InMemoryPKI, citizen: Certified) -> Case:
    return Case(pki, citizen)


def test_the_right_parts_are_released_and_nothing_is_fetched_at_b_b(case: Case) -> None:
    case.fetch = refuse_to_fetch
    assert case.finish() is Level.B_B
    assert not case.is_unsigned()


def test_attributes_go_in_byte_for_byte(case: Case) -> None:
    case.finish()
    found = PreparedState.from_bytes(case.state)
    hexadecimal = case.document.getvalue()[found.reserved_start + 1 : found.reserved_end - 1]
    (info,) = cms.ContentInfo.load(bytes.fromhex(hexadecimal.decode()))["content"]["signer_infos"]
    assert b"\x31" + info["signed_attrs"].dump()[1:] == case.parts.to_be_signed


def test_a_commitment_travels_in_the_attributes(case: Case, citizen: Certified, pki: InMemoryPKI) -> None:
    case.parts = sign_parts(case.prepared, citizen, {"commitment_type": "proof_of_approval"})
    case.finish()
    assert validate(case.document, pki.trust, datetime.now(UTC)).indication == "TOTAL-PASSED"


def test_a_byte_of_the_document_changed_after_approval(case: Case) -> None:
    case.document.seek(30)
    case.document.write(b"!")
    case.refuses(DTBSMismatch, "changed since")


def test_the_prepared_file_was_cut(case: Case) -> None:
    case.document.truncate(PreparedState.from_bytes(case.state).size - 10)
    case.refuses(DTBSMismatch, "shorter")


def test_the_byte_range_names_other_octets(case: Case) -> None:
    """A dictionary that covers less than was hashed: the digest of the whole is right, the literal is not."""
    data = case.document.getvalue()
    at = data.rindex(b"/ByteRange [0 ")
    forged = data[:at] + data[at:].replace(b"/ByteRange [0 ", b"/ByteRange [1 ", 1)
    found = PreparedState.from_bytes(case.state)
    digest = Digest.of(forged[: found.reserved_start] + forged[found.reserved_end :])
    case.document = BytesIO(forged)
    case.state = replace(found, digest=digest.value.hex()).to_bytes()
    case.refuses(DTBSMismatch, "other octets")


def test_the_hole_moved(case: Case) -> None:
    found = PreparedState.from_bytes(case.state)
    case.state = replace(found, reserved_start=found.reserved_start - 1).to_bytes()
    case.refuses(DTBSMismatch, "place of its signature")


def test_attributes_of_another_document(case: Case, citizen: Certified) -> None:
    other = replace(case.prepared, digest=Digest.of(b"another"))
    case.parts = sign_parts(other, citizen)
    case.refuses(MalformedRequest, "message digest")


def test_attributes_that_name_another_certificate(case: Case, citizen: Certified, pki: InMemoryPKI) -> None:
    attributes = signed_attributes(case.prepared.digest, pki.certify().chain[0], {})
    case.parts = replace(case.parts, to_be_signed=attributes, signature=citizen.sign(attributes))
    case.refuses(MalformedRequest, "signing certificate")


def test_a_signature_by_another_key(case: Case, pki: InMemoryPKI) -> None:
    case.parts = replace(case.parts, signature=pki.certify().sign(case.parts.to_be_signed))
    case.refuses(MalformedRequest, "does not verify")


def test_one_bit_of_the_signature(case: Case) -> None:
    spoiled = bytearray(case.parts.signature)
    spoiled[-1] ^= 1
    case.parts = replace(case.parts, signature=bytes(spoiled))
    case.refuses(MalformedRequest, "does not verify")


def with_attribute(parts: SignatureParts, citizen: Certified, attribute: cms.CMSAttribute) -> SignatureParts:
    members = sorted([*(one.dump() for one in cms.CMSAttributes.load(parts.to_be_signed)), attribute.dump()])
    attributes = cms.CMSAttributes([cms.CMSAttribute.load(der) for der in members]).dump()
    return replace(parts, to_be_signed=attributes, signature=citizen.sign(attributes))


def test_a_signing_time_attribute(case: Case, citizen: Certified) -> None:
    moment = cms.CMSAttribute({"type": "signing_time", "values": [cms.Time({"utc_time": datetime.now(UTC)})]})
    case.parts = with_attribute(case.parts, citizen, moment)
    case.refuses(MalformedRequest, "does not allow")


def test_a_second_message_digest(case: Case, citizen: Certified) -> None:
    twice = cms.CMSAttribute({"type": "message_digest", "values": [b"\0" * 32]})
    case.parts = with_attribute(case.parts, citizen, twice)
    case.refuses(MalformedRequest, "one twice")


def test_a_missing_attribute(case: Case, citizen: Certified) -> None:
    fewer = [one for one in cms.CMSAttributes.load(case.parts.to_be_signed) if one["type"].native != "content_type"]
    attributes = cms.CMSAttributes(fewer).dump()
    case.parts = replace(case.parts, to_be_signed=attributes, signature=citizen.sign(attributes))
    case.refuses(MalformedRequest, "lack")


@pytest.mark.parametrize("garbage", [b"", b"\x31\x03abc", b"\x30\x00", b"not DER"])
def test_attributes_that_are_none(case: Case, citizen: Certified, garbage: bytes) -> None:
    case.parts = replace(case.parts, to_be_signed=garbage, signature=citizen.sign(garbage))
    with pytest.raises(MalformedRequest):
        case.finish()
    assert case.is_unsigned()


def test_no_certificate(case: Case) -> None:
    case.parts = replace(case.parts, chain=())
    case.refuses(MalformedRequest, "certificate is missing")


def test_a_strangers_authority(case: Case) -> None:
    stranger = InMemoryPKI()
    case.trust = stranger.trust
    case.refuses(MalformedRequest, "trusted authority")


def test_an_expired_certificate(case: Case) -> None:
    case.now += timedelta(days=365 * 20)
    case.refuses(CertificateExpired, "not valid now")


def test_a_certificate_on_the_revocation_list() -> None:
    pki = InMemoryPKI()
    citizen = pki.certify()
    # Before the document is signed: in times of whole seconds that is not later.
    pki.revoke(citizen)
    case = Case(pki, citizen)
    case.refuses(CredentialRevoked, "revoked")


def test_a_certificate_that_ocsp_calls_revoked() -> None:
    pki = InMemoryPKI()
    citizen = pki.certify()
    # Before the document is signed: in times of whole seconds that is not later.
    pki.revoke(citizen)
    case = Case(pki, citizen)
    case.level = Level.B_LT
    case.trust = TrustMaterial((pki.root,), (pki.ca,))
    with pytest.raises(CredentialRevoked):
        case.finish()


def test_finishing_twice_gives_one_signature(case: Case, pki: InMemoryPKI) -> None:
    case.level = Level.B_LTA
    case.finish()
    case.document.write(b"torn tail of a crash")
    assert case.finish() is Level.B_LTA
    report = validate(case.document, pki.trust, datetime.now(UTC))
    assert [one.level for one in report.signatures] == ["B-LTA"]
    assert report.indication == "TOTAL-PASSED"
    assert report.facts["document_timestamps"] == "1"


FAILURES = [
    ({FetchKind.TIMESTAMP}, Level.B_T, Level.B_B),
    ({FetchKind.TIMESTAMP}, Level.B_LTA, Level.B_B),
    ({FetchKind.OCSP, FetchKind.CRL}, Level.B_LT, Level.B_T),
    ({FetchKind.OCSP, FetchKind.CRL}, Level.B_LTA, Level.B_T),
]


@pytest.mark.parametrize(("offline", "wanted", "reached"), FAILURES)
def test_a_failing_service_leaves_a_complete_document(offline: set[FetchKind], wanted: Level, reached: Level) -> None:
    pki = InMemoryPKI()
    citizen = pki.certify()
    case = Case(pki, citizen)
    case.level, case.trust = wanted, TrustMaterial((pki.root,), (pki.ca,))
    pki.offline = set(offline)
    with pytest.raises(LevelNotReached) as partial:
        case.finish()
    assert partial.value.code == "tsa_unavailable"
    assert partial.value.reached.level is reached
    assert partial.value.reached.complete_bytes == len(case.document.getvalue())
    report = validate(case.document, pki.trust, datetime.now(UTC))
    assert (report.indication, report.signatures[0].level) == ("TOTAL-PASSED", reached.value)

    pki.offline = set()
    finished = extend(
        case.document,
        partial.value.reached.complete_bytes,
        level=wanted,
        trust=case.trust,
        fetch=fetch_of(pki),
        now=datetime.now(UTC),
    )
    assert finished.level is wanted
    report = validate(case.document, pki.trust, datetime.now(UTC))
    assert (report.indication, report.signatures[0].level) == ("TOTAL-PASSED", wanted.value)


def test_the_tsa_failing_at_the_last_step_leaves_b_lt(case: Case, pki: InMemoryPKI) -> None:
    asked = []

    def fetch(kind: FetchKind, url: str, body: bytes | None) -> bytes:
        asked.append(kind)
        if asked.count(FetchKind.TIMESTAMP) > 1:
            raise TimestampUnavailable("gone")
        return fetch_of(pki)(kind, url, body)

    case.fetch, case.level = fetch, Level.B_LTA
    with pytest.raises(LevelNotReached) as partial:
        case.finish()
    assert partial.value.reached.level is Level.B_LT
    assert validate(case.document, pki.trust, datetime.now(UTC)).signatures[0].level == "B-LT"


def spoiled_answers(pki: InMemoryPKI, kind: FetchKind, answer: bytes) -> Fetch:
    def fetch(asked: FetchKind, url: str, body: bytes | None) -> bytes:
        return answer if asked is kind else fetch_of(pki)(asked, url, body)

    return fetch


@pytest.mark.parametrize("answer", [b"", b"<html>", b"\x30\x03\x02\x01\x05", b"\x30\x80", b"\0" * 4096])
@pytest.mark.parametrize("kind", [FetchKind.TIMESTAMP, FetchKind.OCSP])
def test_garbage_from_a_service(case: Case, pki: InMemoryPKI, kind: FetchKind, answer: bytes) -> None:
    case.fetch, case.level = spoiled_answers(pki, kind, answer), Level.B_T
    if kind is FetchKind.TIMESTAMP:
        with pytest.raises(LevelNotReached):
            case.finish()
    else:
        # The CRL steps in for an OCSP responder that talks nonsense.
        case.level = Level.B_LT
        assert case.finish() is Level.B_LT


def test_a_timestamp_over_something_else(case: Case, pki: InMemoryPKI) -> None:
    kept: list[bytes] = []

    def fetch(kind: FetchKind, url: str, body: bytes | None) -> bytes:
        kept.append(fetch_of(pki)(kind, url, body))
        return kept[0]

    case.fetch, case.level = fetch, Level.B_T
    case.finish()
    other = Case(pki, pki.certify())
    other.fetch, other.level = fetch, Level.B_T
    with pytest.raises(LevelNotReached, match="another question"):
        other.finish()


def test_a_strangers_timestamp(case: Case) -> None:
    stranger = InMemoryPKI()
    case.fetch, case.level = fetch_of(stranger), Level.B_T
    with pytest.raises(LevelNotReached, match="trusted authority"):
        case.finish()


def test_a_timestamp_of_another_hour(case: Case) -> None:
    case.level = Level.B_T
    case.now += timedelta(hours=1)
    with pytest.raises(LevelNotReached, match="clock"):
        case.finish()


def test_an_ocsp_answer_about_somebody_else_is_not_enough(case: Case, pki: InMemoryPKI) -> None:
    other = pki.certify()
    answers: list[bytes] = []

    def remember(kind: FetchKind, url: str, body: bytes | None) -> bytes:
        answer = fetch_of(pki)(kind, url, body)
        if kind is FetchKind.OCSP:
            answers.append(answer)
        return answer

    elsewhere = Case(pki, other)
    elsewhere.fetch, elsewhere.level = remember, Level.B_LT
    elsewhere.finish()
    case.trust = TrustMaterial((pki.root,), (pki.ca,))
    case.fetch, case.level = spoiled_answers(pki, FetchKind.OCSP, answers[0]), Level.B_LT
    with pytest.raises(LevelNotReached, match="does not cover"):
        case.finish()


def test_extending_what_is_not_ours_to_extend(pki: InMemoryPKI, citizen: Certified) -> None:
    unsigned = BytesIO(plain_pdf())
    complete = BytesIO(signed(plain_pdf(), pki, citizen, Level.B_LTA))
    for document in (unsigned, complete):
        with pytest.raises(StateConflict):
            extend(
                document,
                len(document.getvalue()),
                level=Level.B_LTA,
                trust=pki.trust,
                fetch=fetch_of(pki),
                now=datetime.now(UTC),
            )


def test_a_chain_without_its_authority(case: Case, citizen: Certified, pki: InMemoryPKI) -> None:
    case.parts = replace(case.parts, chain=citizen.chain[:1])
    case.trust = TrustMaterial((pki.root,))
    case.refuses(MalformedRequest, "trusted authority")
