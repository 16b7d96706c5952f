"""Reads a stranger's XML, or says in plain words why not.

A first pass by expat, which builds nothing and resolves nothing, refuses what could reach outside the document, grow
without measure, or look different from one program to the next. Only what came through it is parsed into a tree.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, TypeAlias
from xml.parsers import expat

from lxml import etree

from domain.errors import DocumentTooLarge, RubricaError, UnsupportedDocument
from domain.xmldsig import DSIG, begins_as_xml

Element: TypeAlias = Any
Tree: TypeAlias = Any
"""Of lxml, which has no types."""
Span: TypeAlias = tuple[int, int]
"""Of octets: the first, and the first behind."""

XML_LIMIT_BYTES = 16 * 1024 * 1024
"""Of a document that is parsed; what is signed by its octets alone may be larger."""
DEPTH_LIMIT = 200
"""libxml2 itself stops at 256."""
SIGNATURE_LEVELS = 12
"""How much deeper a signature makes a document: two levels around it, ten within it."""
SIGNATURE_NODES = 200
SIGNED_LIMIT_BYTES = XML_LIMIT_BYTES + 64 * 1024
ATTRIBUTE_LIMIT = 256
"""Per element."""
ATTRIBUTE_LIMIT_CHARACTERS = 256 * 1024
NODE_LIMIT = 500_000
"""Of elements, attributes, declarations, comments and instructions together: a tree takes up to 300 octets for each."""

BROKEN = "the XML is broken: it is not well-formed; please make the file again and send the new one"
TOO_DEEP = f"the XML is nested more than {DEPTH_LIMIT} levels deep"
TOO_LARGE = f"the XML is larger than {XML_LIMIT_BYTES // (1024 * 1024)} MiB"
UNFOLDS_TOO_FAR = "the document unfolds to more than this service can handle"
NO_XML = "the file is not an XML document"
NO_DTD = "the XML has a document type or entities of its own (DOCTYPE); please send it without"
OUTSIDE = "the XML takes in other files or style sheets (XInclude, xml-stylesheet, XSLT); please send it without them"
TWO_IN_ONE = "the file is an XML and a PDF at once, so that programs may show two documents; please send a plain one"
ENCODING = "the XML is not in UTF-8, US-ASCII or ISO-8859-1, or says otherwise than it is; please save it as UTF-8"
SIGNATURE = f"{{{DSIG}}}Signature"

_PDF_WINDOW_BYTES = 1024
"""Where viewers look for the beginning of a PDF (ISO 32000-1 annex H, note 13)."""
_ENCODINGS = frozenset({"utf-8", "us-ascii", "iso-8859-1"})
"""Those in which markup has one octet per character, and of which no two parsers differ."""
_XSLT = "http://www.w3.org/1999/XSL/Transform"
_XSLT_TRANSFORM = "http://www.w3.org/TR/1999/REC-xslt-19991116"
_FOREIGN_NAMESPACES = frozenset({"http://www.w3.org/2001/XInclude", "http://www.w3.org/2003/XInclude", _XSLT})
_STYLE_SHEET = "xml-stylesheet"
_UTF8_MARK = b"\xef\xbb\xbf"
_EMPTY_TAG = re.compile(rb"""<([^\s/>"']+)(?:[^"'>]|"[^"]*"|'[^']*')*?(/)>""")
_XML_TYPES = frozenset({"application/xml", "text/xml"})


@dataclass(frozen=True, slots=True)
class Source:
    """A document that came through the first pass."""

    data: bytes
    head: bytes
    """Up to where a last child of the root element would begin."""
    tail: bytes
    """From there on; an empty element tag is written as a pair of tags."""
    signatures: int
    comments: tuple[Span, ...]
    outer_instructions: tuple[Span, ...]
    """Processing instructions before and behind the root element."""

    def without(self, *left_out: Span) -> "Source":
        """The same document with some spans of octets taken out, and every other octet as it was.

        Raises:
            UnsupportedDocument: It is no XML any more, as where a comment parted ``]]`` from ``>``.
        """
        if not left_out:
            return self
        cuts = sorted(left_out)
        starts = [0, *(end for _, end in cuts)]
        ends = [*(start for start, _ in cuts), len(self.data)]
        return scan(b"".join(self.data[start:end] for start, end in zip(starts, ends, strict=True)))

    def tree(self) -> Tree:
        """Parse it.

        Raises:
            UnsupportedDocument: libxml2 does not read what expat did.
        """
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, collect_ids=False
        )
        with parser_faults():
            return etree.ElementTree(etree.fromstring(self.data, parser))


@contextmanager
def parser_faults() -> Iterator[None]:
    """Turns whatever a parser throws at a stranger's octets into ``UnsupportedDocument`` or ``DocumentTooLarge``."""
    try:
        yield
    except RubricaError:
        raise
    except (MemoryError, RecursionError) as error:
        raise DocumentTooLarge(UNFOLDS_TOO_FAR) from error
    except OSError:
        raise  # the disk's fault, not the document's
    except etree.LxmlError as error:
        if any(entry.type == etree.ErrorTypes.ERR_NO_MEMORY for entry in error.error_log):
            raise DocumentTooLarge(UNFOLDS_TOO_FAR) from error
        raise UnsupportedDocument(BROKEN) from error
    except Exception as error:
        raise UnsupportedDocument(BROKEN) from error


def is_xml_type(mime_type: str) -> bool:
    """Whether a document of this MIME type is XML (RFC 7303 §9)."""
    return mime_type in _XML_TYPES or mime_type.endswith("+xml")


def check_size(document: BinaryIO, limit_bytes: int) -> int:
    """Length of the file in bytes.

    Raises:
        UnsupportedDocument: It is empty.
        DocumentTooLarge: It is longer than ``limit_bytes``.
    """
    size = document.seek(0, os.SEEK_END)
    document.seek(0)
    if size == 0:
        raise UnsupportedDocument("the file is empty")
    if size > limit_bytes:
        raise DocumentTooLarge(f"the document has {size} bytes; here it may have {limit_bytes}")
    return size


def read(document: BinaryIO, limit_bytes: int = XML_LIMIT_BYTES) -> Source:
    """Read an XML document whole and put it through the first pass.

    Raises:
        UnsupportedDocument: Not well-formed, or something in it that is refused; the detail says what.
        DocumentTooLarge: Over a limit of size, depth or number.
    """
    check_size(document, min(limit_bytes, XML_LIMIT_BYTES))
    return scan(document.read())


def read_signed(document: BinaryIO, limit_bytes: int = SIGNED_LIMIT_BYTES) -> Source:
    """The same for one that has grown by a signature.

    Raises:
        UnsupportedDocument, DocumentTooLarge: As ``read``.
    """
    check_size(document, min(limit_bytes, SIGNED_LIMIT_BYTES))
    return scan(document.read(), signed=True)


def scan(data: bytes, *, signed: bool = False) -> Source:
    """The first pass over octets that are in memory already.

    Raises:
        UnsupportedDocument, DocumentTooLarge: As ``read``.
    """
    # XML appendix F: octets that begin so are of an encoding in which markup is not ASCII.
    if not data.removeprefix(_UTF8_MARK).lstrip(b" \t\r\n").startswith(b"<") or b"\0" in data:
        wide = b"\0" in data[:2] or data[:2] in {b"\xfe\xff", b"\xff\xfe"}
        raise UnsupportedDocument(ENCODING if wide and begins_as_xml(data) else NO_XML)
    if b"%PDF-" in data[:_PDF_WINDOW_BYTES]:
        raise UnsupportedDocument(TWO_IN_ONE)
    watcher = _Watcher(signed=signed)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.XmlDeclHandler = watcher.declaration
    parser.StartDoctypeDeclHandler = watcher.doctype
    parser.StartElementHandler = lambda name, attributes: watcher.start(name, attributes, parser.CurrentByteIndex)
    parser.EndElementHandler = lambda _name: watcher.end(parser.CurrentByteIndex)
    parser.CommentHandler = lambda _data: watcher.comment(parser.CurrentByteIndex)
    parser.ProcessingInstructionHandler = lambda target, _data: watcher.instruction(target, parser.CurrentByteIndex)
    parser.StartNamespaceDeclHandler = watcher.namespace
    with parser_faults():
        parser.Parse(data, True)  # noqa: FBT003 - expat's own signature
    head, tail = _parted(data, watcher.root_start, watcher.root_end)
    return Source(
        data,
        head,
        tail,
        watcher.signatures,
        tuple(_span(data, start, b"<!--", b"-->") for start in watcher.comments),
        tuple(_span(data, start, b"<?", b"?>") for start in watcher.outer_instructions),
    )


class _Watcher:
    """Told by expat what comes; raises at the first thing that is refused."""

    def __init__(self, *, signed: bool) -> None:
        self._depth_limit = DEPTH_LIMIT + (SIGNATURE_LEVELS if signed else 0)
        self._node_limit = NODE_LIMIT + (SIGNATURE_NODES if signed else 0)
        self.root_start = 0
        self.root_end = 0
        self.signatures = 0
        self.comments: list[int] = []
        self.outer_instructions: list[int] = []
        self._depth = 0
        self._nodes = 0

    def declaration(self, version: str, encoding: str | None, _standalone: int) -> None:
        if version != "1.0":
            raise UnsupportedDocument("the XML is of another version than 1.0")
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise UnsupportedDocument(ENCODING)

    def doctype(self, *_declared: object) -> None:
        raise UnsupportedDocument(NO_DTD)

    def comment(self, offset: int) -> None:
        self._count(1)
        self.comments.append(offset)

    def instruction(self, target: str, offset: int) -> None:
        self._count(1)
        if self._depth == 0:
            self.outer_instructions.append(offset)
        if target == _STYLE_SHEET:
            raise UnsupportedDocument(OUTSIDE)

    def namespace(self, _prefix: str | None, uri: str | None) -> None:
        self._count(1)
        if uri in _FOREIGN_NAMESPACES:
            raise UnsupportedDocument(OUTSIDE)

    def start(self, name: str, attributes: Mapping[str, str], offset: int) -> None:
        if self._depth == 0:
            self.root_start = offset
        self._depth += 1
        self._count(1 + len(attributes))
        if self._depth > self._depth_limit:
            raise DocumentTooLarge(TOO_DEEP)
        if len(attributes) > ATTRIBUTE_LIMIT or any(
            len(value) > ATTRIBUTE_LIMIT_CHARACTERS for value in attributes.values()
        ):
            raise DocumentTooLarge("the XML has an element with attributes that are too many or too long")
        if name == f"{DSIG} Signature":
            self.signatures += 1
        if name == f"{DSIG} Transform" and attributes.get("Algorithm") == _XSLT_TRANSFORM:
            raise UnsupportedDocument(OUTSIDE)

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > self._node_limit:
            raise DocumentTooLarge(f"the XML has more than {NODE_LIMIT} elements and attributes")

    def end(self, offset: int) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.root_end = offset


def _span(data: bytes, start: int, opening: bytes, closing: bytes) -> Span:
    """From an offset of expat's to the end of the markup there; neither kind can hold its own closing."""
    end = data.find(closing, start + len(opening))
    if not data.startswith(opening, start) or end < 0:
        raise UnsupportedDocument(BROKEN)
    return start, end + len(closing)


def _parted(data: bytes, root_start: int, root_end: int) -> tuple[bytes, bytes]:
    if data.startswith(b"</", root_end):
        return data[:root_end], data[root_end:]
    found = _EMPTY_TAG.match(data, root_start)
    if found is None:
        raise UnsupportedDocument(BROKEN)
    return data[: found.start(2)] + b">", b"</" + found[1] + b">" + data[found.end() :]


def exclusive(element: Element) -> bytes:
    """Exclusive C14N of ``element`` and what is in it, without comments and prefix list."""
    with parser_faults():
        return bytes(etree.tostring(element, method="c14n", exclusive=True, with_comments=False))


def exclusive_document(tree: Tree) -> bytes:
    """The same of a whole document, with the processing instructions around its root element."""
    out = BytesIO()
    with parser_faults():
        tree.write_c14n(out, exclusive=True, with_comments=False)
    return out.getvalue()


def inclusive(element: Element) -> bytes:
    """Inclusive C14N 1.0 of a root element: keeps declarations that only values of attributes or texts make use of."""
    with parser_faults():
        return bytes(etree.tostring(element, method="c14n", exclusive=False, with_comments=False))
