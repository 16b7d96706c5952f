"""Opens a stranger's PDF for an incremental update, or says in plain words why that cannot be done."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.crypt import AuthStatus
from pyhanko.pdf_utils.crypt.permissions import StandardPermissions
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.misc import PdfError
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.fields import MDPPerm
from pyhanko.sign.general import SigningError

from domain.errors import DocumentTooLarge, RubricaError, UnsupportedDocument
from domain.xmldsig import begins_as_xml

DEFAULT_LIMIT_BYTES = 100 * 1024 * 1024
HEADER_WINDOW_BYTES = 1024
"""Readers accept "%PDF-" anywhere in the first 1024 bytes (ISO 32000-1 Annex H.3.4.1)."""

NO_PDF = "the file is not a PDF"
NEITHER = "the file is neither a PDF nor an XML document"
TOO_MANY_SIGNATURES = "the PDF has more signatures than this service checks"
BROKEN = "the PDF is broken: its inner structure cannot be read; please make the file again and send the new one"
NEEDS_PASSWORD = "the PDF needs a password to be opened; please send it without one"  # noqa: S105 - a sentence


@contextmanager
def parser_faults() -> Iterator[None]:
    """Turns whatever a parser throws at a stranger's bytes into ``UnsupportedDocument`` or ``DocumentTooLarge``.

    Parsers meet input that their authors never did, so any exception of theirs is an answer about the document.
    """
    try:
        yield
    except RubricaError:
        raise
    except (MemoryError, RecursionError) as error:
        raise DocumentTooLarge("the document unfolds to more than this service can handle") from error
    except OSError:
        raise  # the disk's fault, not the document's
    except Exception as error:
        raise UnsupportedDocument(BROKEN) from error


def check_size(document: BinaryIO, limit_bytes: int) -> int:
    """Length of the file in bytes.

    Raises:
        UnsupportedDocument: It is empty, or does not begin as a PDF does.
        DocumentTooLarge: It is longer than ``limit_bytes``.
    """
    size = document.seek(0, os.SEEK_END)
    if size == 0:
        raise UnsupportedDocument("the file is empty")
    if size > limit_bytes:
        raise DocumentTooLarge(f"the document has {_mebibytes(size)} MiB; the limit is {_mebibytes(limit_bytes)} MiB")
    document.seek(0)
    beginning = document.read(HEADER_WINDOW_BYTES)
    if b"%PDF-" not in beginning:
        raise UnsupportedDocument(NO_PDF if begins_as_xml(beginning) else NEITHER)
    document.seek(0)
    return size


def open_for_update(document: BinaryIO) -> IncrementalPdfFileWriter:
    """A writer that appends to ``document``; an owner's password alone is no obstacle, since all may open the file.

    Raises:
        UnsupportedDocument: The file cannot be read, or needs a password.
    """
    with parser_faults():
        try:
            # Not strict: hybrid cross-reference files, which word processors write, and small slips of other producers
            # are read as every viewer reads them.
            writer = IncrementalPdfFileWriter(document, strict=False)
        except PdfError as error:
            raise UnsupportedDocument(BROKEN) from error
        if writer.prev.encrypted:
            _unlock(writer)
        _number_behind_all_objects(writer)
        return writer


def open_for_reading(document: BinaryIO) -> PdfFileReader:
    """The same for a reader.

    Raises:
        UnsupportedDocument: The file cannot be read, or needs a password.
    """
    with parser_faults():
        reader = PdfFileReader(document, strict=False)
        if reader.encrypted and reader.decrypt("").status is AuthStatus.FAILED:
            raise UnsupportedDocument(NEEDS_PASSWORD)
        return reader


def check_signable(writer: IncrementalPdfFileWriter) -> None:
    """Refuse what a further signature would break, or what its readers could not rely on.

    Raises:
        UnsupportedDocument: Dynamic form (XFA), or locked against signatures by its author, by permissions, or by a
            field lock.
    """
    reader = writer.prev
    root = reader.root
    pages = root["/Pages"]
    if not isinstance(pages, generic.DictionaryObject) or int(pages["/Count"]) < 1:
        raise UnsupportedDocument("the PDF has no pages")
    first_page, _ = reader.find_page_for_modification(0)  # type: ignore[no-untyped-call] # pyHanko
    if not isinstance(first_page.get_object(), generic.DictionaryObject):
        raise UnsupportedDocument(BROKEN)
    # ``get`` would give the reference, not what it refers to.
    if "/AcroForm" in root and "/XFA" in root["/AcroForm"]:
        raise UnsupportedDocument(
            "the PDF is a dynamic form (XFA), which looks different from one program to the next; "
            "please print it to a plain PDF and send that"
        )
    try:
        signatures = reader.embedded_signatures
    except (SigningError, ValueError) as error:
        raise UnsupportedDocument(
            "the PDF holds a signature that cannot be read; it was never finished or damaged"
        ) from error
    for signature in signatures:
        # ISO 32000-2 §12.8.2.2.2: permission 1 forbids every change, 2 and 3 leave signatures possible. Field locks
        # (FieldMDP) hold for the fields that are there, not for the new invisible one.
        if signature.docmdp_level is MDPPerm.NO_CHANGES:
            raise UnsupportedDocument(
                "the PDF is certified or locked against any change, so a further signature would break it; "
                "please ask its author for a version that may be signed"
            )


def _number_behind_all_objects(writer: IncrementalPdfFileWriter) -> None:
    """Keep new objects off the numbers of old ones; pdfunite writes too low a /Size, which pyHanko believes."""
    xrefs = writer.prev.xrefs
    numbers = {writer._lastobj_id}  # noqa: SLF001 - there is no other way to ask or tell it
    for revision in range(xrefs.total_revisions):
        data = xrefs.get_xref_data(revision)
        sections = [data] if data.hybrid is None else [data, data.hybrid.xref_data]
        for section in sections:
            numbers.update(number for number, _ in section.explicit_refs_in_revision)
    writer._lastobj_id = max(numbers)  # noqa: SLF001 - there is no other way to say it


def _unlock(writer: IncrementalPdfFileWriter) -> None:
    try:
        result = writer.encrypt("")  # type: ignore[no-untyped-call] # pyHanko
    except (PdfError, SigningError) as error:
        raise UnsupportedDocument(NEEDS_PASSWORD) from error
    if result.status is AuthStatus.FAILED:
        raise UnsupportedDocument(NEEDS_PASSWORD)
    needed = StandardPermissions.ALLOW_MODIFICATION_GENERIC | StandardPermissions.ALLOW_ANNOTS_FORM_FILLING
    granted = result.permission_flags
    # ISO 32000-2 table 22: making a new signature field takes bit 4 and bit 6 together.
    if result.status is not AuthStatus.OWNER and granted is not None and needed not in granted:
        raise UnsupportedDocument(
            "the PDF's author has forbidden changes and signatures; please ask for a free version"
        )


def _mebibytes(size: int) -> str:
    return f"{size / (1024 * 1024):.1f}".removesuffix(".0")
