"""Validates XML signatures in the words of EN 319 102-1: own verification, certificate paths by certvalidator."""

import os
from contextlib import suppress
from datetime import datetime
from typing import BinaryIO

from asn1crypto import x509
from pyhanko_certvalidator.errors import (
    ExpiredError,
    InsufficientRevinfoError,
    NotYetValidError,
    PathBuildingError,
    PathError,
    RevokedError,
    StaleRevinfoError,
    ValidationError,
)

from documents.model import Fetch, Level, SignatureReport, TrustMaterial, ValidationReport
from documents.pades import trust as trusting
from documents.pades.evidence import gather
from documents.pades.trust import Evidence
from documents.xades import source
from documents.xades.verify import FAILED, INDETERMINATE, Claimed, NotVerified, Verified, claimed, verify
from domain import xmldsig
from domain.digests import Digest
from domain.errors import DocumentTooLarge, RubricaError, UnsupportedDocument

UNCOVERED = (
    "the file holds comments or instructions that the signature does not cover; anybody can change them unnoticed"
)
SIGNATURES_LIMIT = 16
PASSED = "TOTAL-PASSED"
_GRAVITY = (PASSED, INDETERMINATE, FAILED)

_SUB_INDICATIONS: tuple[tuple[type[Exception], str, str], ...] = (
    (RevokedError, "REVOKED_NO_POE", "the signer's certificate, or one above it, is revoked"),
    (NotYetValidError, "OUT_OF_BOUNDS_NO_POE", "the signer's certificate, or one above it, is not valid yet"),
    (ExpiredError, "OUT_OF_BOUNDS_NO_POE", "the signer's certificate, or one above it, has expired"),
    (InsufficientRevinfoError, "TRY_LATER", "it is not known whether the signer's certificate was revoked"),
    (StaleRevinfoError, "TRY_LATER", "what is known of revocations is too old"),
    (PathBuildingError, "NO_CERTIFICATE_CHAIN_FOUND", "the signer's certificate leads to no trusted authority"),
)
"""First match counts (EN 319 102-1 §5.2.6)."""


def begins_as_xml(document: BinaryIO) -> bool:
    """Whether ``document`` is to be read as XML rather than as a PDF."""
    document.seek(0, os.SEEK_SET)
    return xmldsig.begins_as_xml(document.read(xmldsig.BEGINNING_BYTES))


def validate(
    document: BinaryIO,
    trust: TrustMaterial,
    at: datetime,
    fetch: Fetch | None = None,
    limit_bytes: int = source.SIGNED_LIMIT_BYTES,
    content: Digest | None = None,
) -> ValidationReport:
    """Judge every XML signature of ``document``.

    Args:
        document: XML, opened for reading.
        trust: Anchors for signers, and CRLs at hand.
        at: The time to validate at.
        fetch: Gets revocation data that is not at hand; ``None`` stays offline.
        limit_bytes: Largest document accepted.
        content: SHA-256 of the file beside a detached signature.

    Returns:
        One report per signature in document order, and the gravest indication of all. A document without signatures
        is INDETERMINATE.

    Raises:
        UnsupportedDocument, DocumentTooLarge: The file cannot be read.

    Source: EN 319 102-1 §5.3 (basic signatures), EN 319 132-1 §6.3 (B-B).
    """
    parsed = source.read_signed(document, limit_bytes)
    if parsed.signatures > SIGNATURES_LIMIT:
        raise DocumentTooLarge(f"the XML has more than {SIGNATURES_LIMIT} signatures")
    parsed.tree()
    reports = tuple(_report(parsed, number, trust, at, fetch, content) for number in range(parsed.signatures))
    worst = max((report.indication for report in reports), key=_GRAVITY.index, default=INDETERMINATE)
    return ValidationReport(worst, reports, {"document_timestamps": "0"})


def _report(
    parsed: source.Source,
    number: int,
    trust: TrustMaterial,
    at: datetime,
    fetch: Fetch | None,
    content: Digest | None,
) -> SignatureReport:
    said = claimed(parsed, number)
    verified: Verified | None = None
    try:
        verified = verify(parsed, number, content)
        _check_path(verified, trust, at, fetch)
    except NotVerified as error:
        return _told(said, verified, error)
    except UnsupportedDocument:
        # libxml2 refuses to canonicalise, for one where a namespace is named by a relative reference.
        return _told(said, None, NotVerified(FAILED, "FORMAT_FAILURE", "the signature cannot be read"))
    return _told(said, verified, None)


def _told(said: Claimed, verified: Verified | None, fault: NotVerified | None) -> SignatureReport:
    signer, serial = _named(said.certificate)
    covered = verified is not None and verified.covers_all
    explanations = [fault.explanation] if fault else []
    if verified is not None and not covered:
        explanations.append(UNCOVERED)
    return SignatureReport(
        indication=fault.indication if fault else PASSED,
        sub_indication=fault.sub_indication if fault else "",
        level=Level.B_B.value if verified else "",
        signer=signer,
        certificate_serial=serial,
        algorithm=said.algorithm,
        signing_time=said.signing_time,
        timestamps=(),
        # Anything else is not verified at all: a signature over a part is refused.
        covers_whole_document=covered,
        changed_since=_changed_since(verified, fault),
        explanations=tuple(explanations),
    )


def _changed_since(verified: Verified | None, fault: NotVerified | None) -> bool | None:
    """No answer where the digests were not reached, or do not reach everything that the file shows."""
    if verified is not None:
        return False if verified.covers_all else None
    # The value is verified before any digest, so this one is that of what was signed.
    return True if fault is not None and fault.sub_indication == "HASH_FAILURE" else None


def _named(der: bytes) -> tuple[str, str]:
    """Common name and serial number of a certificate that nobody has vouched for."""
    try:
        certificate = x509.Certificate.load(der, strict=True)
        return str(certificate.subject.native.get("common_name", "")), f"{certificate.serial_number:x}"
    except (ValueError, TypeError):
        return "", ""


def _check_path(verified: Verified, trust: TrustMaterial, at: datetime, fetch: Fetch | None) -> None:
    """The certificate is one for signatures, leads to an anchor, and nothing on the way is revoked."""
    evidence = Evidence()
    try:
        chain = [x509.Certificate.load(der, strict=True) for der in verified.chain]
        evidence.add_certificates(chain)
        if fetch is not None:
            with suppress(RubricaError):
                gather(chain[0], trust, fetch, at, evidence, signer=True)
        validation = trusting.context(trust, at, evidence, revocation="require")
        trusting.path_of(chain[0], validation, key_usage=frozenset({"non_repudiation"}))
    except (ValidationError, PathError) as error:
        for kind, sub_indication, explanation in _SUB_INDICATIONS:
            if isinstance(error, kind):
                raise NotVerified(INDETERMINATE, sub_indication, explanation) from error
        raise NotVerified(
            INDETERMINATE, "CHAIN_CONSTRAINTS_FAILURE", "the signer's certificate is not one for signatures"
        ) from error
    except (ValueError, TypeError) as error:
        raise NotVerified(FAILED, "FORMAT_FAILURE", "a certificate in the signature cannot be read") from error
