"""Appends the signature dictionary and its ByteRange, and gives the digest that the citizen approves.

pyHanko's interrupted signing: the embedder writes a placeholder and computes the digest; no key and no certificate is
needed, since PAdES keeps everything about the signer in the CMS.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BufferedRandom, BytesIO, RawIOBase, UnsupportedOperation
from typing import TYPE_CHECKING, BinaryIO

from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.fields import SigFieldSpec, SigSeedSubFilter
from pyhanko.sign.signers.cms_embedder import PdfCMSEmbedder, SigIOSetup, SigObjSetup
from pyhanko.sign.signers.pdf_byterange import SignatureObject

from documents.model import Inspection, PAdESOptions, Prepared
from documents.pades.source import DEFAULT_LIMIT_BYTES, check_signable, check_size, open_for_update, parser_faults
from domain.digests import Digest, DigestAlgorithm
from domain.errors import MalformedRequest

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

CMS_RESERVED_BYTES = 16 * 1024
"""Room for the CMS: three RSA certificates, a signature, and a timestamp token with its own chain take some 9 KiB."""

FIELD_NAME_STEM = "Rubrica"

_TRIAL_TIME = datetime(2000, 1, 1, tzinfo=UTC)
"""Any; nothing of a trial is kept."""


@dataclass(frozen=True, slots=True)
class PreparedState:
    """What ``finish`` must know again; travels as JSON."""

    digest: str
    """Hexadecimal SHA-256 over the ByteRange octets."""
    reserved_start: int
    """Offset of the "<" of /Contents."""
    reserved_end: int
    """Offset behind its ">"."""
    size: int
    """Length of the prepared file."""

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, state: bytes) -> "PreparedState":
        """Read it back.

        Raises:
            MalformedRequest: Not a state that ``prepare`` made.
        """
        try:
            fields = json.loads(state)
            found = cls(**fields)
            bytes.fromhex(found.digest)
            sound = 0 < found.reserved_start < found.reserved_end < found.size
        except (TypeError, ValueError):
            sound = False
        if not sound:
            raise MalformedRequest("the state of the prepared document cannot be read")
        return found


def prepare(document: BinaryIO, options: PAdESOptions, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Prepared:
    """Append a revision with an empty PAdES signature to ``document``; its earlier bytes stay as they are.

    Args:
        document: A PDF opened ``r+b``.
        options: What the signature dictionary says; part of what is signed.
        limit_bytes: Largest document accepted.

    Returns:
        The digest over the ByteRange octets, and the state for ``finish``.

    Raises:
        UnsupportedDocument: It cannot be signed; the detail says why.
        DocumentTooLarge: It is over ``limit_bytes``.

    Source: EN 319 142-1 §5.3 (SubFilter, ByteRange over everything but /Contents), ISO 32000-2 §12.8.1.
    """
    prepared, _ = _prepared(document, options, limit_bytes)
    document.flush()
    return prepared


def inspect(document: BinaryIO, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Inspection:
    """Say what ``document`` is, and whether ``prepare`` would take it: it is prepared, but what that adds is not kept.

    Raises:
        UnsupportedDocument, DocumentTooLarge: As ``prepare``.
    """
    with BufferedRandom(_Trial(document)) as trial:
        _, reader = _prepared(trial, PAdESOptions(signing_time=_TRIAL_TIME), limit_bytes)
        with parser_faults():
            return Inspection(
                pages=int(reader.root["/Pages"]["/Count"]),
                signatures=len(reader.embedded_regular_signatures),
                encrypted=reader.encrypted,
                size_bytes=document.seek(0, os.SEEK_END),
            )


class _Trial(RawIOBase):
    """A document that seems to grow by what is written behind it."""

    def __init__(self, document: BinaryIO) -> None:
        self._document = document
        self._size = document.seek(0, os.SEEK_END)
        self._added = BytesIO()
        self._at = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        end = self._size + self._added.getbuffer().nbytes
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: end}[whence]
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        room = memoryview(buffer)
        if self._at < self._size:
            self._document.seek(self._at)
            found = self._document.read(min(len(room), self._size - self._at))
        else:
            self._added.seek(self._at - self._size)
            found = self._added.read(len(room))
        room[: len(found)] = found
        self._at += len(found)
        return len(found)

    def write(self, data: "ReadableBuffer") -> int:
        if self._at < self._size:
            raise UnsupportedOperation("an incremental update writes behind the document")
        self._added.seek(self._at - self._size)
        written = self._added.write(data)
        self._at += written
        return written

    def truncate(self, size: int | None = None) -> int:
        kept = self._at if size is None else size
        self._added.truncate(kept - self._size)
        return kept


def _prepared(document: BinaryIO, options: PAdESOptions, limit_bytes: int) -> tuple[Prepared, PdfFileReader]:
    original_bytes = check_size(document, limit_bytes)
    writer = open_for_update(document)
    try:
        with parser_faults():
            check_signable(writer)
            _end_last_line(document)
            return _append_signature(document, writer, options), writer.prev
    except BaseException:
        document.truncate(original_bytes)
        raise


def _append_signature(document: BinaryIO, writer: IncrementalPdfFileWriter, options: PAdESOptions) -> Prepared:
    name = free_field_name(writer, FIELD_NAME_STEM)
    embedding = PdfCMSEmbedder(new_field_spec=SigFieldSpec(name)).write_cms(name, writer)
    next(embedding)
    embedding.send(
        SigObjSetup(
            sig_placeholder=SignatureObject(
                timestamp=options.signing_time,
                subfilter=SigSeedSubFilter.PADES,
                name=options.signer_name or None,
                location=options.location or None,
                reason=options.reason or None,
                bytes_reserved=2 * CMS_RESERVED_BYTES,
            )
        )
    )
    placed, _ = embedding.send(SigIOSetup(md_algorithm=DigestAlgorithm.SHA256.value, in_place=True))
    size = document.seek(0, os.SEEK_END)
    state = PreparedState(placed.document_digest.hex(), placed.reserved_region_start, placed.reserved_region_end, size)
    return Prepared(Digest(DigestAlgorithm.SHA256, placed.document_digest), state.to_bytes())


def free_field_name(writer: IncrementalPdfFileWriter, stem: str) -> str:
    """``stem`` and the first number that no form field of the document has yet."""
    taken: set[str] = set()
    if "/AcroForm" in writer.root and "/Fields" in writer.root["/AcroForm"]:
        fields = [field.get_object() for field in writer.root["/AcroForm"]["/Fields"]]
        # ``get`` would give an encrypted name as it is in the file, or the reference to a name.
        taken = {str(field["/T"]) for field in fields if "/T" in field}
    number = 1
    while f"{stem}{number}" in taken:
        number += 1
    return f"{stem}{number}"


def _end_last_line(document: BinaryIO) -> None:
    """Some producers end with "%%EOF" and no line end; what is appended must begin on a line of its own."""
    size = document.seek(0, os.SEEK_END)
    document.seek(max(0, size - 1))
    if document.read(1) not in b"\r\n":
        document.seek(0, os.SEEK_END)
        document.write(b"\n")
