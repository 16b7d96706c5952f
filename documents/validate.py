"""Judges the signatures of a PDF by EN 319 102-1, on embedded evidence and what the caller has at hand.

An XML is handed on to ``documents.xades.validate``, which answers in the same words.

pyHanko's AdES processes do the work; this module feeds them, and reports the level that is really there rather than the
one that a file claims.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO

from asn1crypto import cms, crl, ocsp, x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.ades.report import AdESFailure, AdESIndeterminate, AdESStatus, AdESSubIndic
from pyhanko.sign.diff_analysis import SuspiciousModification
from pyhanko.sign.fields import enumerate_sig_fields
from pyhanko.sign.general import SigningError
from pyhanko.sign.validation import ades
from pyhanko.sign.validation.dss import DocumentSecurityStore
from pyhanko.sign.validation.errors import NoDSSFoundError, SignatureValidationError
from pyhanko.sign.validation.generic_cms import message_imprint_checker, validate_tst_signed_data
from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
from pyhanko.sign.validation.policy_decl import (
    CertificateFetchingRule,
    LocalKnowledge,
    PdfSignatureValidationSpec,
    RevinfoOnlineFetchingRule,
    RevocationInfoGatheringSpec,
    SignatureValidationSpec,
)
from pyhanko.sign.validation.settings import KeyUsageConstraints
from pyhanko.sign.validation.status import SignatureCoverageLevel
from pyhanko.sign.validation.utils import DEFAULT_ALGORITHM_USAGE_POLICY
from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.context import CertValidationPolicySpec
from pyhanko_certvalidator.ltv.types import ValidationTimingInfo
from pyhanko_certvalidator.policy_decl import CertRevTrustPolicy, RevocationCheckingPolicy, RevocationCheckingRule
from pyhanko_certvalidator.registry import SimpleTrustManager
from pyhanko_certvalidator.revinfo.archival import CRLContainer, OCSPContainer

from documents.model import Fetch, Level, SignatureReport, TrustMaterial, ValidationReport
from documents.pades import cms as pades_cms
from documents.pades import trust as trusting
from documents.pades.evidence import gather
from documents.pades.since import Later, later
from documents.pades.source import (
    DEFAULT_LIMIT_BYTES,
    TOO_MANY_SIGNATURES,
    check_size,
    open_for_reading,
    parser_faults,
)
from documents.pades.trust import CLOCK_TOLERANCE, Evidence
from documents.xades import validate as xades_validate
from documents.xades.validate import SIGNATURES_LIMIT
from domain.digests import Digest
from domain.errors import RubricaError, UnsupportedDocument

_WORDS = {
    AdESStatus.PASSED: "TOTAL-PASSED",
    AdESStatus.INDETERMINATE: "INDETERMINATE",
    AdESStatus.FAILED: "TOTAL-FAILED",
}
_GRAVITY = ("TOTAL-PASSED", "INDETERMINATE", "TOTAL-FAILED")
FIELDS_LIMIT = 2 * SIGNATURES_LIMIT
"""As many signatures as an XML may have, each with a document timestamp after it."""
_PADES_SUBFILTER = "/ETSI.CAdES.detached"

_UNREADABLE = SignatureReport(
    indication="TOTAL-FAILED",
    sub_indication="FORMAT_FAILURE",
    level="",
    signer="",
    certificate_serial="",
    algorithm="",
    signing_time=None,
    timestamps=(),
    covers_whole_document=False,
    changed_since=None,
    explanations=("a signature cannot be read",),
)


def validate(
    document: BinaryIO,
    trust: TrustMaterial,
    at: datetime,
    fetch: Fetch | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    content: Digest | None = None,
) -> ValidationReport:
    """Judge every signature of ``document``.

    Args:
        document: A PDF or an XML, opened for reading.
        trust: Anchors for signers and timestamp authorities, and CRLs at hand.
        at: The time to validate at.
        fetch: Gets revocation data that is neither embedded nor at hand; ``None`` stays offline.
        limit_bytes: Largest document accepted.
        content: SHA-256 of the file beside a detached XML signature.

    Returns:
        One report per signature, oldest first, and the gravest indication of all. A document without signatures is
        INDETERMINATE.

    Raises:
        UnsupportedDocument: The file cannot be read as what it seems to be, or has more than ``FIELDS_LIMIT``
            signatures and timestamps.
        DocumentTooLarge: It is over ``limit_bytes``.

    Source: EN 319 102-1 §5.3 (basic), §5.5 (with time), §5.6.3 (LTA); EN 319 142-1 §6 (levels).
    """
    if xades_validate.begins_as_xml(document):
        return xades_validate.validate(document, trust, at, fetch, limit_bytes, content)
    check_size(document, limit_bytes)
    reader = open_for_reading(document)
    with parser_faults():
        circumstances = _Circumstances(trust, at, fetch, _embedded_evidence(reader))
        try:
            # Each costs a digest, and a comparison of all revisions after it.
            if len(list(islice(enumerate_sig_fields(reader, filled_status=True), FIELDS_LIMIT + 1))) > FIELDS_LIMIT:
                raise UnsupportedDocument(TOO_MANY_SIGNATURES)
            reports = tuple(_report(one, reader, circumstances) for one in reader.embedded_regular_signatures)
            stamps = len(reader.embedded_timestamp_signatures)
        except (SigningError, ValueError, TypeError, KeyError, AttributeError):
            # A signature whose parts cannot be named (EN 319 102-1 §5.2.2); no other one can be relied on beside it.
            reports, stamps = (_UNREADABLE,), 0
    worst = max((report.indication for report in reports), key=_GRAVITY.index, default="INDETERMINATE")
    return ValidationReport(worst, reports, {"document_timestamps": str(stamps)})


@dataclass(frozen=True, slots=True)
class _Circumstances:
    """What the caller said, and what the document brings along."""

    trust: TrustMaterial
    at: datetime
    fetch: Fetch | None
    embedded: Evidence


def _report(signature: EmbeddedPdfSignature, reader: PdfFileReader, circumstances: _Circumstances) -> SignatureReport:
    content = cms.ContentInfo.load(bytes(signature.pkcs7_content))
    explanations: list[str] = []
    verdict, message = _judge(signature, content, circumstances)
    if message:
        explanations.append(message)
    came = later(signature)
    verdict = _judge_document(signature, came, verdict, explanations)
    stamps = _intact_stamps(content)
    archive = _intact_archive_stamps(signature, reader)
    times = [pades_cms.token_info(token)["gen_time"].native for token in (*stamps, *archive)]
    level = _level(signature, content, circumstances.embedded, stamps, archive)
    certificate = signature.signer_cert
    return SignatureReport(
        indication=_WORDS[verdict.status],
        sub_indication="" if verdict.status is AdESStatus.PASSED else str(verdict.standard_name),
        level=level,
        signer=str(certificate.subject.native.get("common_name", "")),
        certificate_serial=f"{certificate.serial_number:x}",
        algorithm=_algorithm(content),
        signing_time=signature.self_reported_timestamp,
        timestamps=tuple(times),
        covers_whole_document=signature.coverage is SignatureCoverageLevel.ENTIRE_FILE,
        changed_since=_changed_since(came, verdict),
        explanations=tuple(explanations),
    )


def _judge(
    signature: EmbeddedPdfSignature,
    content: cms.ContentInfo,
    circumstances: _Circumstances,
) -> tuple[AdESSubIndic, str]:
    """Run the process that fits what the file holds; gives the sub-indication and an explanation."""
    signature.compute_integrity_info()  # type: ignore[no-untyped-call] # pyHanko
    at, embedded = circumstances.at, circumstances.embedded
    known = Evidence(dict(embedded.certificates), dict(embedded.ocsps), dict(embedded.crls))
    if circumstances.fetch is not None:
        _fetch_missing(content, circumstances.trust, circumstances.fetch, at, known)
    spec = _specification(circumstances.trust, known)
    timing = ValidationTimingInfo(validation_time=at, best_signature_time=at, point_in_time_validation=True)
    arguments: dict[str, Any] = {
        "raw_digest": signature.compute_digest(),
        "timing_info": timing,
    }
    result: ades.AdESBasicValidationResult[Any]
    try:
        if not pades_cms.signature_timestamps(content):
            result = trusting.run(ades.ades_basic_validation(signature.signed_data, spec, **arguments))
        elif any(t.signed_revision > signature.signed_revision for t in signature.reader.embedded_timestamp_signatures):
            result = trusting.run(
                ades.ades_lta_validation(signature, PdfSignatureValidationSpec(spec), timing_info=timing)
            )
        else:
            # The LTA process would want a document timestamp over the embedded evidence and say NO_POE.
            result = trusting.run(ades.ades_with_time_validation(signature.signed_data, spec, **arguments))
    except SignatureValidationError as error:
        return error.ades_subindication or AdESFailure.FORMAT_FAILURE, error.failure_message
    except (SigningError, ValueError) as error:
        return AdESFailure.FORMAT_FAILURE, str(error)
    if result.ades_subindic.status is not AdESStatus.PASSED:
        return result.ades_subindic, result.failure_msg or ""
    if isinstance(result, ades.AdESLTAValidationResult) and result.oldest_evidence_record_timestamp is None:
        return result.ades_subindic, "the document timestamp could not be validated; the signature stands without it"
    return result.ades_subindic, ""


def _judge_document(
    signature: EmbeddedPdfSignature, came: Later, verdict: AdESSubIndic, explanations: list[str]
) -> AdESSubIndic:
    """What the cryptography does not say: whether the octets covered are the document that a reader sees."""
    if verdict.status is AdESStatus.FAILED:
        return verdict
    if signature.coverage < SignatureCoverageLevel.ENTIRE_REVISION:
        explanations.append("the signature does not cover the whole revision that it stands in")
        return AdESFailure.FORMAT_FAILURE
    if isinstance(signature.diff_result, SuspiciousModification):
        explanations.append("the document was changed after this signature in a way that signatures do not allow")
        return AdESIndeterminate.SIG_CONSTRAINTS_FAILURE
    if not signature.summarise_integrity_info()["docmdp_ok"]:
        explanations.append("the document was changed after this signature beyond what its signer permitted")
        return AdESIndeterminate.SIG_CONSTRAINTS_FAILURE
    if came is Later.CONTENT:
        # Forms filled in are allowed by ISO 32000-2, yet what is read then is not what was signed.
        explanations.append("something that this signature does not cover was added or changed after it")
        return AdESIndeterminate.SIG_CONSTRAINTS_FAILURE
    return verdict


def _changed_since(came: Later, verdict: AdESSubIndic) -> bool | None:
    """Of a signature that does not hold, only a wrong digest says something about the document."""
    if verdict.status is AdESStatus.FAILED:
        return True if verdict is AdESFailure.HASH_FAILURE else None
    return came is not Later.NOTHING


def _specification(trust: TrustMaterial, known: Evidence) -> SignatureValidationSpec:
    """Nothing is fetched by pyHanko; revocation must be known for every certificate below an anchor."""
    either = RevocationCheckingRule.CRL_OR_OCSP_REQUIRED
    policy = CertValidationPolicySpec(
        trust_manager=SimpleTrustManager.build([x509.Certificate.load(der) for der in trust.anchors]),
        revinfo_policy=CertRevTrustPolicy(RevocationCheckingPolicy(either, either)),
        time_tolerance=CLOCK_TOLERANCE,
        algorithm_usage_policy=DEFAULT_ALGORITHM_USAGE_POLICY,
    )
    revocation_lists = [*known.crls.values(), *(crl.CertificateList.load(der) for der in trust.crls)]
    return SignatureValidationSpec(
        cert_validation_policy=policy,
        revinfo_gathering_policy=RevocationInfoGatheringSpec(
            online_fetching_rule=RevinfoOnlineFetchingRule.LOCAL_ONLY,
            certificate_fetching_rule=CertificateFetchingRule.NEVER_FETCH,
        ),
        local_knowledge=LocalKnowledge(
            known_ocsps=[one for response in known.ocsps.values() for one in OCSPContainer.load_multi(response)],
            known_crls=[CRLContainer(crl_data=found) for found in revocation_lists],
            known_certs=[
                *known.certificates.values(),
                *(x509.Certificate.load(der) for der in trust.intermediates),
            ],
        ),
        key_usage_settings=KeyUsageConstraints(key_usage={"non_repudiation"}),
        signature_algorithm_policy=DEFAULT_ALGORITHM_USAGE_POLICY,
    )


def _embedded_evidence(reader: PdfFileReader) -> Evidence:
    evidence = Evidence()
    try:
        store = DocumentSecurityStore.read_dss(reader)
    except NoDSSFoundError:
        return evidence
    evidence.add_certificates(store.load_certs())
    for reference in store.ocsps:
        response = ocsp.OCSPResponse.load(reference.get_object().data)
        evidence.ocsps[response.dump()] = response
    for reference in store.crls:
        found = crl.CertificateList.load(reference.get_object().data)
        evidence.crls[found.dump()] = found
    return evidence


def _fetch_missing(content: cms.ContentInfo, trust: TrustMaterial, fetch: Fetch, at: datetime, known: Evidence) -> None:
    """Fresh revocation data for signer and signature timestamps; whatever fails shows in the verdict."""
    for signed in (content, *pades_cms.signature_timestamps(content)):
        known.add_certificates(pades_cms.embedded_certificates(signed))
        leaf = pades_cms.signer_certificate(signed)
        if leaf is not None:
            with suppress(RubricaError):
                gather(leaf, trust, fetch, at, known, signer=signed is content)


def _intact_stamps(content: cms.ContentInfo) -> list[cms.ContentInfo]:
    """Signature timestamps whose own signature and imprint hold, whoever made them."""
    imprint = message_imprint_checker(content["content"]["signer_infos"][0])
    return [token for token in pades_cms.signature_timestamps(content) if _intact(token, imprint)]


def _intact_archive_stamps(signature: EmbeddedPdfSignature, reader: PdfFileReader) -> list[cms.ContentInfo]:
    """The same for document timestamps in later revisions."""
    found = []
    for stamp in reader.embedded_timestamp_signatures:
        if stamp.signed_revision <= signature.signed_revision:
            continue
        token = cms.ContentInfo.load(bytes(stamp.pkcs7_content))
        whole = stamp.evaluate_signature_coverage() >= SignatureCoverageLevel.ENTIRE_REVISION
        if whole and _intact(token, stamp.compute_digest):
            found.append(token)
    return found


def _intact(token: cms.ContentInfo, imprint: Callable[[str], bytes]) -> bool:
    try:
        # Trusting nobody, so that only the token's own arithmetic is looked at.
        nobody = ValidationContext(trust_roots=[], allow_fetching=False)
        status = trusting.run(validate_tst_signed_data(token["content"], nobody, imprint))
    except (SigningError, ValueError):
        return False
    return bool(status["intact"] and status["valid"])


def _level(
    signature: EmbeddedPdfSignature,
    content: cms.ContentInfo,
    embedded: Evidence,
    stamps: list[cms.ContentInfo],
    archive: list[cms.ContentInfo],
) -> str:
    """The highest baseline level whose parts are all there (EN 319 142-1 §6.3), each level on top of the one below.

    Whether the parts convince is the indication's business.
    """
    if signature.sig_object.get("/SubFilter") != _PADES_SUBFILTER:
        return ""
    if not stamps:
        return Level.B_B.value
    for signed in (content, *stamps):
        known = [*pades_cms.embedded_certificates(signed), *embedded.certificates.values()]
        leaf = pades_cms.signer_certificate(signed)
        path = _below_self_issued(leaf, known)
        if not path or not all(_has_revocation_data(certificate, embedded) for certificate in path):
            return Level.B_T.value
    return Level.B_LTA.value if archive else Level.B_LT.value


def _below_self_issued(leaf: x509.Certificate | None, known: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """``leaf`` and those above it, without the self-issued one at the top."""
    by_subject = {certificate.subject.hashable: certificate for certificate in known}
    found: list[x509.Certificate] = []
    while leaf is not None and leaf.subject != leaf.issuer and leaf not in found:
        found.append(leaf)
        leaf = by_subject.get(leaf.issuer.hashable)
    return found


def _has_revocation_data(certificate: x509.Certificate, embedded: Evidence) -> bool:
    if any(found.issuer == certificate.issuer for found in embedded.crls.values()):
        return True
    for response in embedded.ocsps.values():
        for single in response.response_data["responses"]:
            identified = single["cert_id"]
            if identified["serial_number"].native == certificate.serial_number and identified[
                "issuer_name_hash"
            ].native == getattr(certificate.issuer, identified["hash_algorithm"]["algorithm"].native):
                return True
    return False


def _algorithm(content: cms.ContentInfo) -> str:
    (info,) = content["content"]["signer_infos"]
    named = info["signature_algorithm"]["algorithm"].native
    known = {"sha256_ecdsa": "ES256", "sha256_rsa": "RS256", "rsassa_pkcs1v15": "RS256"}
    return known.get(named, str(named))
