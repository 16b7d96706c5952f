"""Puts the core's signature into a prepared document, checks it, and adds timestamps and validation data.

Each step ends in a complete, valid document; what fails later leaves it so. ``finish`` may be called again with
the same arguments after a crash, since the state tells where the prepared revision ends.
"""

import os
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import BinaryIO

from asn1crypto import cms
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign.fields import SigFieldSpec
from pyhanko.sign.signers.cms_embedder import PdfCMSEmbedder, SigIOSetup, SigObjSetup
from pyhanko.sign.signers.pdf_byterange import DocumentTimestamp, PreparedByteRangeDigest
from pyhanko.sign.validation.dss import DocumentSecurityStore

from documents.model import Fetch, FinishedDocument, Level, LevelNotReached, SignatureParts, TrustMaterial
from documents.pades import cms as pades_cms
from documents.pades.evidence import check_signer, gather, request_timestamp, signature_imprint
from documents.pades.prepare import PreparedState, free_field_name
from documents.pades.source import open_for_reading, open_for_update, parser_faults
from documents.pades.trust import Evidence
from domain.digests import Digest, DigestAlgorithm
from domain.errors import DTBSMismatch, MalformedRequest, StateConflict, TimestampUnavailable

TOKEN_RESERVED_BYTES = 10 * 1024
"""Room for a document timestamp with an RSA-4096 chain of three."""

_TIMESTAMP_NAME_STEM = "RubricaTimestamp"
_CHUNK_BYTES = 1024 * 1024
_LEVELS = tuple(Level)


def finish(
    document: BinaryIO,
    state: bytes,
    parts: SignatureParts,
    *,
    level: Level,
    trust: TrustMaterial,
    fetch: Fetch,
    now: datetime,
) -> FinishedDocument:
    """Finish what ``prepare`` began, in place.

    Args:
        document: The prepared file, opened ``r+b``; anything behind the prepared revision (of a finish that crashed)
            is cut off.
        state: From ``prepare``.
        parts: From the core.
        level: To reach.
        trust: Anchors for signer and TSA, CRLs at hand.
        fetch: Gets timestamps, OCSP answers, CRLs and certificates; not called at B-B.
        now: The present time.

    Returns:
        The level reached, which is ``level``, and the length of the file.

    Raises:
        DTBSMismatch: The prepared octets are no longer those that were approved.
        MalformedRequest: The parts are not a signature of this document by this chain.
        CredentialRevoked, CertificateExpired: The signer cannot sign now.
        LevelNotReached: A TSA, OCSP responder or CRL failed; the document is complete at a lower level.

    Source: EN 319 142-1 §6 (levels), EN 319 102-1 §4.3 (creation).
    """
    prepared = PreparedState.from_bytes(state)
    size = document.seek(0, os.SEEK_END)
    if size < prepared.size:
        raise DTBSMismatch("the prepared document is shorter than it was")
    document.truncate(prepared.size)

    # 1. The octets that the ByteRange covers are still those whose digest was approved.
    digest = _byte_range_digest(document, prepared)
    if digest.value != bytes.fromhex(prepared.digest):
        raise DTBSMismatch("the prepared document changed since it was approved")

    # 2. The attributes carry this digest and this certificate, and the value verifies over them.
    checked = pades_cms.check(parts, digest)

    # 3. The certificate leads to an anchor and is not known to be revoked.
    evidence = Evidence()
    evidence.add_certificates(checked.chain)
    check_signer(checked.chain[0], trust, evidence, now)

    # 4. Only now does the document become a signed one.
    content = pades_cms.build(checked)
    region = PreparedByteRangeDigest(digest.value, prepared.reserved_start, prepared.reserved_end)
    _fill(document, region, content)
    return _raise_level(document, region, content, reached=Level.B_B, level=level, trust=trust, fetch=fetch, now=now)


def extend(
    document: BinaryIO,
    complete_bytes: int,
    *,
    level: Level,
    trust: TrustMaterial,
    fetch: Fetch,
    now: datetime,
) -> FinishedDocument:
    """Bring a document that ``finish`` left at a lower level up to ``level``.

    Args:
        document: The signed file, opened ``r+b``.
        complete_bytes: As ``finish`` or ``LevelNotReached`` told; what a crash left behind it is cut off.
        level: To reach.
        trust: As for ``finish``.
        fetch: As for ``finish``.
        now: The present time.

    Raises:
        LevelNotReached: Again not; the document is as complete as the error says.
        StateConflict: The file holds no signature of ours at its end, or has a document timestamp already.
        UnsupportedDocument: It cannot be read.
    """
    document.truncate(complete_bytes)
    reader = open_for_reading(document)
    with parser_faults():
        regular = reader.embedded_regular_signatures
        has_evidence = "/DSS" in reader.root
        stamped = bool(reader.embedded_timestamp_signatures)
        if not regular or stamped:
            raise StateConflict("there is no signature whose level could be raised")
        signature = regular[-1]
        _, first_length, second_offset, second_length = (int(n) for n in signature.byte_range)
        content = cms.ContentInfo.load(bytes(signature.pkcs7_content))
        reached = Level.B_B
        if pades_cms.signature_timestamps(content):
            reached = Level.B_LT if has_evidence and second_offset + second_length < complete_bytes else Level.B_T
        elif second_offset + second_length != complete_bytes:
            raise StateConflict("the document was changed after its signature; it can get no signature timestamp")
        region = PreparedByteRangeDigest(b"", first_length, second_offset)
        # /Contents is padded with zeros; the CMS ends where its DER does.
        content_der: bytes = content.dump()
    return _raise_level(document, region, content_der, reached=reached, level=level, trust=trust, fetch=fetch, now=now)


def _raise_level(
    document: BinaryIO,
    region: PreparedByteRangeDigest,
    content: bytes,
    *,
    reached: Level,
    level: Level,
    trust: TrustMaterial,
    fetch: Fetch,
    now: datetime,
) -> FinishedDocument:
    complete = document.seek(0, os.SEEK_END)
    try:
        if _below(reached, Level.B_T, level):
            token = request_timestamp(_imprint_of(content), trust, fetch, now)
            content = pades_cms.with_timestamp(content, token)
            _check_room(content, _capacity(region))
            _fill(document, region, content)
            reached = Level.B_T
        if _below(reached, Level.B_LT, level):
            evidence = _gather_all(content, trust, fetch, now)
            _append_validation_data(document, evidence)
            reached, complete = Level.B_LT, document.seek(0, os.SEEK_END)
        if _below(reached, Level.B_LTA, level):
            _append_document_timestamp(document, trust, fetch, now)
            reached, complete = Level.B_LTA, document.seek(0, os.SEEK_END)
    except TimestampUnavailable as error:
        raise LevelNotReached(error.public_detail, FinishedDocument(reached, complete)) from error
    finally:
        document.truncate(complete)
        document.flush()
    return FinishedDocument(reached, complete)


def _below(reached: Level, step: Level, wanted: Level) -> bool:
    return _LEVELS.index(reached) < _LEVELS.index(step) <= _LEVELS.index(wanted)


def _byte_range_digest(document: BinaryIO, prepared: PreparedState) -> Digest:
    """Recomputed from the file; that its dictionary names the same octets is checked on the way."""
    hashed = sha256()
    document.seek(0)
    _hash_octets(document, prepared.reserved_start, hashed.update)
    if document.read(1) != b"<":
        raise DTBSMismatch("the prepared document lost the place of its signature")
    document.seek(prepared.reserved_end - 1)
    if document.read(1) != b">":
        raise DTBSMismatch("the prepared document lost the place of its signature")
    tail_bytes = prepared.size - prepared.reserved_end
    _hash_octets(document, tail_bytes, hashed.update)
    document.seek(prepared.reserved_end)
    # The ByteRange is written right behind /Contents, in the same dictionary, in at most 60 octets.
    literal = b"/ByteRange [0 %d %d %d]" % (prepared.reserved_start, prepared.reserved_end, tail_bytes)
    if literal not in document.read(len(literal) + 60):
        raise DTBSMismatch("the signature dictionary covers other octets than were approved")
    return Digest(DigestAlgorithm.SHA256, hashed.digest())


def _hash_octets(document: BinaryIO, count: int, update: Callable[[bytes], None]) -> None:
    while count > 0:
        chunk = document.read(min(count, _CHUNK_BYTES))
        if not chunk:
            raise DTBSMismatch("the prepared document is shorter than it was")
        update(chunk)
        count -= len(chunk)


def _fill(document: BinaryIO, region: PreparedByteRangeDigest, content: bytes) -> None:
    capacity = _capacity(region)
    if len(content) > capacity:
        raise MalformedRequest("the signature with its certificates is larger than the room kept for it")
    region.fill_reserved_region(document, content.ljust(capacity, b"\0"))
    document.flush()


def _capacity(region: PreparedByteRangeDigest) -> int:
    """Octets of DER that fit between the brackets of /Contents."""
    return (region.reserved_region_end - region.reserved_region_start - len("<>")) // 2


def _check_room(content: bytes, capacity: int) -> None:
    if len(content) > capacity:
        raise TimestampUnavailable("the timestamp is larger than the room kept for it")


def _imprint_of(content: bytes) -> Digest:
    return signature_imprint(pades_cms.signature_value(cms.ContentInfo.load(content)))


def _gather_all(content: bytes, trust: TrustMaterial, fetch: Fetch, now: datetime) -> Evidence:
    loaded = cms.ContentInfo.load(content)
    evidence = Evidence()
    for signed in (loaded, *pades_cms.signature_timestamps(loaded)):
        evidence.add_certificates(pades_cms.embedded_certificates(signed))
        leaf = pades_cms.signer_certificate(signed)
        if leaf is None:
            raise TimestampUnavailable("a timestamp comes without its authority's certificate")
        gather(leaf, trust, fetch, now, evidence, signer=signed is loaded)
    return evidence


def _append_validation_data(document: BinaryIO, evidence: Evidence) -> None:
    """A DSS (EN 319 142-1 §5.4.2) without VRI, which that clause advises against."""
    writer = open_for_update(document)
    with parser_faults():
        DocumentSecurityStore.supply_dss_in_writer(
            writer,
            None,
            certs=evidence.certificates.values(),
            ocsps=evidence.ocsps.values(),
            crls=evidence.crls.values(),
        )
        writer.write_in_place()  # type: ignore[no-untyped-call] # pyHanko


def _append_document_timestamp(document: BinaryIO, trust: TrustMaterial, fetch: Fetch, now: datetime) -> None:
    """EN 319 142-1 §5.4.3."""
    writer: IncrementalPdfFileWriter = open_for_update(document)
    with parser_faults():
        name = free_field_name(writer, _TIMESTAMP_NAME_STEM)
        embedding = PdfCMSEmbedder(new_field_spec=SigFieldSpec(name)).write_cms(name, writer)
        next(embedding)
        embedding.send(
            SigObjSetup(
                sig_placeholder=DocumentTimestamp(bytes_reserved=2 * TOKEN_RESERVED_BYTES)  # type: ignore[no-untyped-call] # pyHanko
            )
        )
        placed, _ = embedding.send(SigIOSetup(md_algorithm=DigestAlgorithm.SHA256.value, in_place=True))
    token = request_timestamp(Digest(DigestAlgorithm.SHA256, placed.document_digest), trust, fetch, now)
    _check_room(token, TOKEN_RESERVED_BYTES)
    _fill(document, placed, token)
