"""Shows what is to be signed: pages of a PDF as pictures, their text, XML as indented text, and what no picture shows.

Runs in the limited child like everything that reads a document, and reads the very bytes that are signed.
"""

import ctypes
import os
import re
import struct
import zlib
from typing import Any, BinaryIO

import pypdfium2
from lxml import etree
from pypdfium2 import raw

from documents.model import Outline, OutlinePage, PageImage, Unseen
from documents.pades import look
from documents.pades.source import DEFAULT_LIMIT_BYTES, check_size, parser_faults
from documents.xades import source as xml_source
from documents.xades.validate import begins_as_xml
from domain.errors import NotFound

WIDTH_PIXELS = 1200
"""Of a page's picture: sharp on a phone's screen, legible when enlarged."""
PIXEL_LIMIT = 1_900_000
"""A page has three bytes for each; its picture has to fit a message to the parent even where nothing can be packed."""
PAGE_LIMIT = 2000
"""Pages that an outline has."""
TEXT_LIMIT_CHARACTERS = 400_000
"""Of all pages together."""
_SMALLEST_POINTS = 1.0
_INVISIBLE = re.compile(
    # Control characters but for line feed and tab, signs without a shape, letters that are blank, selectors of variants
    # (Unicode categories Cc, Cf, Zl and Zp, and what is Default_Ignorable_Code_Point besides).
    r"[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def outline(document: BinaryIO, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Outline:
    """What can be shown of ``document``, and what it holds besides.

    Args:
        document: A PDF or XML, opened for reading.
        limit_bytes: Largest document accepted.

    Raises:
        UnsupportedDocument: It cannot be read.
        DocumentTooLarge: It is over ``limit_bytes``.
    """
    if begins_as_xml(document):
        return _xml_outline(document, limit_bytes)
    check_size(document, limit_bytes)
    with parser_faults():
        pdf = _opened(document)
        left = TEXT_LIMIT_CHARACTERS
        pages = []
        for number in range(min(len(pdf), PAGE_LIMIT)):
            page = pdf[number]
            width, height = page.get_size()
            text = page.get_textpage().get_text_bounded()[:left] if left else ""
            left -= len(text)
            pages.append(OutlinePage(max(1, round(width)), max(1, round(height)), _readable(text)))
        return Outline(len(pdf), tuple(pages), "", _unseen(document, pdf))


def render(document: BinaryIO, number: int, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> PageImage:
    """One page of a PDF as a PNG, with the contents of its form fields and notes.

    Args:
        document: A PDF, opened for reading.
        number: From 1.
        limit_bytes: Largest document accepted.

    Raises:
        NotFound: No such page.
        UnsupportedDocument, DocumentTooLarge: As ``outline``.
    """
    check_size(document, limit_bytes)
    with parser_faults():
        pdf = _opened(document)
        if not 1 <= number <= len(pdf):
            raise NotFound("the document has no such page")
        page = pdf[number - 1]
        width, height = (max(_SMALLEST_POINTS, length) for length in page.get_size())
        scale = min(WIDTH_PIXELS / width, (PIXEL_LIMIT / (width * height)) ** 0.5)
        bitmap = page.render(scale=scale, rev_byteorder=True, may_draw_forms=True)
        return PageImage(_png(bitmap))


def warm_up(document: BinaryIO) -> None:
    """Do both once, before the child may open no files any more."""
    look.warm_up()
    outline(document)
    render(document, 1)


def _opened(document: BinaryIO) -> Any:
    document.seek(0, os.SEEK_SET)
    pdf = pypdfium2.PdfDocument(document)
    pdf.init_forms()
    return pdf


def _unseen(document: BinaryIO, pdf: Any) -> tuple[Unseen, ...]:
    found = look.unseen(document, PAGE_LIMIT)
    if raw.FPDFDoc_GetJavaScriptActionCount(pdf) > 0:
        found.add(Unseen.SCRIPT)
    if raw.FPDFDoc_GetAttachmentCount(pdf) > 0:
        found.add(Unseen.ATTACHMENTS)
    if _filled_signatures(pdf):
        found.add(Unseen.SIGNATURES)
    if len(pdf) > PAGE_LIMIT:
        found.add(Unseen.FURTHER_PAGES)
    return tuple(one for one in Unseen if one in found)


def _filled_signatures(pdf: Any) -> int:
    """Those that hold more than the zeros of one being prepared."""
    filled = 0
    for index in range(raw.FPDF_GetSignatureCount(pdf)):
        signature = raw.FPDF_GetSignatureObject(pdf, index)
        length = raw.FPDFSignatureObj_GetContents(signature, None, 0)
        contents = ctypes.create_string_buffer(length)
        raw.FPDFSignatureObj_GetContents(signature, contents, length)
        filled += bool(contents.raw.strip(b"\0"))
    return filled


def _xml_outline(document: BinaryIO, limit_bytes: int) -> Outline:
    parsed = xml_source.read_signed(document, limit_bytes)
    tree = parsed.tree()
    with parser_faults():
        etree.indent(tree, space="  ")
        text = etree.tostring(tree, encoding="unicode")
    found = [Unseen.SIGNATURES] if parsed.signatures else []
    shown = _INVISIBLE.sub(lambda sign: f"[U+{ord(sign[0]):04X}]", text)
    if shown != text:
        found.append(Unseen.INVISIBLE)
    text = shown
    if len(text) > TEXT_LIMIT_CHARACTERS:
        found.append(Unseen.FURTHER_PAGES)
    return Outline(0, (), text[:TEXT_LIMIT_CHARACTERS], tuple(found))


def _readable(text: str) -> str:
    """Without signs that would turn or hide other ones, and with line ends of one kind."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(sign for sign in lines if sign == "\n" or sign.isprintable())


def _png(bitmap: Any) -> bytes:
    """ISO/IEC 15948, 8 bits per channel, RGB; pdfium has no encoder."""
    pixels = memoryview(bitmap.buffer).cast("B")
    row_bytes = 3 * bitmap.width
    rows = (pixels[at * bitmap.stride : at * bitmap.stride + row_bytes] for at in range(bitmap.height))
    packer = zlib.compressobj(6)
    packed = bytearray()
    before = b""
    same = b"\x02" + bytes(row_bytes)  # filter type "up": no difference to the row above
    for row in rows:
        current = bytes(row)
        packed += packer.compress(same if current == before else b"\x00" + current)
        before = current
    packed += packer.flush()
    header = struct.pack(">IIBBBBB", bitmap.width, bitmap.height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", bytes(packed)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
