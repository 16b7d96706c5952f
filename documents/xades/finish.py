"""Puts the core's signature into, around or beside a prepared document, and verifies all of it before release."""

import os
from base64 import b64encode
from datetime import datetime
from typing import BinaryIO

from asn1crypto import x509

from documents.model import FinishedDocument, Level, SignatureParts, TrustMaterial
from documents.pades.evidence import check_signer
from documents.pades.trust import Evidence
from documents.xades import source
from documents.xades.prepare import (
    DEFAULT_LIMIT_BYTES,
    PreparedState,
    checked_source,
    data_object,
    hash_octets,
)
from documents.xades.verify import NotVerified, verify
from domain import xmldsig
from domain.digests import Digest, DigestAlgorithm
from domain.errors import DTBSMismatch, MalformedRequest
from domain.items import Packaging


def finish(
    document: BinaryIO,
    state: bytes,
    parts: SignatureParts,
    *,
    level: Level,
    trust: TrustMaterial,
    now: datetime,
) -> FinishedDocument:
    """Finish what ``prepare`` began, in place: afterwards the file is the signed document, or the detached signature.

    Nothing is written before everything is verified; a file that was once written is no prepared one any more, and
    calling again with it is refused.

    Args:
        document: The prepared file, opened ``r+b``.
        state: From ``prepare``.
        parts: From the core.
        level: B-B.
        trust: Anchors for the signer, CRLs at hand.
        now: The present time.

    Raises:
        DTBSMismatch: The prepared octets are no longer those that were approved.
        MalformedRequest: The parts are not a signature of this document by this chain, or another level is asked for.
        CredentialRevoked, CertificateExpired: The signer cannot sign now.

    Source: EN 319 132-1 §6.3 (B-B), EN 319 102-1 §4.3 (creation).
    """
    if level is not Level.B_B:
        raise MalformedRequest("XML signatures are made at level B-B")
    prepared = PreparedState.from_bytes(state)
    content_sha256 = hash_octets(document)
    if content_sha256.hex() != prepared.sha256:
        raise DTBSMismatch("the prepared document changed since it was approved")
    signed = _assembled(document, prepared, parts)

    # What is released is read again as anybody will read it, and verified as a stranger's would be.
    parsed = source.scan(signed, signed=True)
    if parsed.signatures != 1:
        raise MalformedRequest("the signed document would hold more than one signature")
    try:
        verified = verify(parsed, 0, Digest(DigestAlgorithm.SHA256, content_sha256))
    except NotVerified as error:
        raise MalformedRequest(f"the signature is not one of this document: {error.explanation}") from error
    octets = verified.signed_info, verified.signed_properties, verified.chain[0]
    if octets != (parts.to_be_signed, parts.signed_properties, parts.chain[0]):
        raise MalformedRequest("the signature is not put together from what was signed")
    found = verified.signature_id, verified.packaging.value, verified.uri
    if found != (prepared.signature_id, prepared.packaging, prepared.uri):
        raise MalformedRequest("the signature refers to its document in another way than was prepared")

    evidence = Evidence()
    chain = _certificates(parts)
    evidence.add_certificates(chain)
    check_signer(chain[0], trust, evidence, now)

    document.seek(0)
    document.write(signed)
    document.truncate()
    document.flush()
    return FinishedDocument(Level.B_B, document.seek(0, os.SEEK_END))


def _assembled(document: BinaryIO, prepared: PreparedState, parts: SignatureParts) -> bytes:
    packaging = Packaging(prepared.packaging)
    parsed = checked_source(document, packaging, prepared.mime_type, DEFAULT_LIMIT_BYTES)
    if packaging is Packaging.ENVELOPED and parsed is not None:
        return parsed.head + _signature(prepared, parts, b"") + parsed.tail
    if packaging is Packaging.ENVELOPING:
        return _signature(prepared, parts, data_object(document, parsed, prepared.signature_id))
    return _signature(prepared, parts, b"")


def _signature(prepared: PreparedState, parts: SignatureParts, data: bytes) -> bytes:
    """The ``ds:Signature``: pure ASCII but for the data, so that it fits a document of any accepted encoding."""
    name = prepared.signature_id
    certificates = b"".join(b"<ds:X509Certificate>" + b64encode(der) + b"</ds:X509Certificate>" for der in parts.chain)
    return b"".join(
        (
            f'<ds:Signature xmlns:ds="{xmldsig.DSIG}" Id="{name}">'.encode(),
            parts.to_be_signed,
            f'<ds:SignatureValue Id="{xmldsig.value_id(name)}">'.encode(),
            b64encode(parts.signature),
            b"</ds:SignatureValue><ds:KeyInfo><ds:X509Data>",
            certificates,
            b"</ds:X509Data></ds:KeyInfo>",
            data,
            f'<ds:Object><xades:QualifyingProperties xmlns:xades="{xmldsig.XADES}" Target="#{name}">'.encode(),
            parts.signed_properties,
            b"</xades:QualifyingProperties></ds:Object></ds:Signature>",
        )
    )


def _certificates(parts: SignatureParts) -> list[x509.Certificate]:
    try:
        return [x509.Certificate.load(der, strict=True) for der in parts.chain]
    except (ValueError, TypeError) as error:
        raise MalformedRequest("the certificates are not DER") from error
