"""Computes what an XML signature refers to, and takes out of the document what no such signature can cover.

Canonical XML leaves out comments, and so does every reference to a whole document (XML Signature 1.1 §4.4.3.3). They
would be read before signing and could be changed after it, so a document is without them where it goes into a signature
or around one.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import BinaryIO
from urllib.parse import quote

from documents.model import Inspection, Prepared, XAdESOptions
from documents.xades import source
from documents.xades.source import Source
from domain import xmldsig
from domain.digests import Digest, DigestAlgorithm
from domain.errors import DocumentTooLarge, MalformedRequest, UnsupportedDocument
from domain.items import Packaging, Reference

DEFAULT_LIMIT_BYTES = 100 * 1024 * 1024
ENVELOPED_OCTETS_LIMIT_BYTES = 7 * 1000 * 1000
"""Of octets that are put into a signature: libxml2 reads no text of more than 10 million characters."""

_CHUNK_BYTES = 1024 * 1024
_ID_STEM = "rubrica"
_SIGNED_ALREADY = (
    "the XML is signed already, and a signature put into it or around it would break the first; "
    "please have it signed as a detached file"
)


@dataclass(frozen=True, slots=True)
class PreparedState:
    """What ``finish`` must know again; travels as JSON."""

    packaging: str
    mime_type: str
    signature_id: str
    uri: str
    sha256: str
    """Hexadecimal, of the prepared file's octets."""

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
            found = cls(**json.loads(state))
            Packaging(found.packaging)
            bytes.fromhex(found.sha256)
        except (TypeError, ValueError):
            raise MalformedRequest("the state of the prepared document cannot be read") from None
        return found


def inspect(document: BinaryIO, options: XAdESOptions, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Inspection:
    """Say what ``document`` is, and whether ``prepare`` would take it.

    Raises:
        UnsupportedDocument: It cannot be signed so; the detail says why.
        DocumentTooLarge: It, or what a signature puts around it, is over a limit.
    """
    _, parsed = _prepared(document, options, limit_bytes)
    size = source.check_size(document, limit_bytes)
    return Inspection(pages=0, signatures=parsed.signatures if parsed else 0, encrypted=False, size_bytes=size)


def prepare(document: BinaryIO, options: XAdESOptions, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Prepared:
    """Compute the reference that the citizen approves, of the document as ``document`` then holds it.

    Args:
        document: XML, or for enveloping and detached signatures any octets; opened ``r+b``. What the signature cannot
            cover is taken out: comments, and for enveloping signatures instructions around the root element.
        options: Fixed by whoever asks for the signature.
        limit_bytes: Largest document accepted.

    Raises:
        UnsupportedDocument, DocumentTooLarge: As ``inspect``.

    Source: XML Signature 1.1 §4.4.3.2 and §4.5, EN 319 132-1 §4.
    """
    prepared, parsed = _prepared(document, options, limit_bytes)
    if parsed is not None and options.packaging is not Packaging.DETACHED:
        document.seek(0)
        document.write(parsed.data)
        document.truncate()
        document.flush()
    return prepared


def _prepared(document: BinaryIO, options: XAdESOptions, limit_bytes: int) -> tuple[Prepared, Source | None]:
    parsed = _checked(document, options, limit_bytes)
    content_sha256 = hash_octets(document) if parsed is None else sha256(parsed.data).digest()
    signature_id = _free_id(parsed, content_sha256)
    reference = reference_of(document, parsed, options, signature_id)
    state = PreparedState(
        packaging=options.packaging.value,
        mime_type=options.mime_type,
        signature_id=signature_id,
        uri=reference.uri,
        sha256=content_sha256.hex(),
    )
    fields = {"mime_type": options.mime_type, "signature_id": signature_id}
    return Prepared(reference.digest, state.to_bytes(), (reference,), fields), parsed


def reference_of(document: BinaryIO, parsed: Source | None, options: XAdESOptions, signature_id: str) -> Reference:
    """The reference that a signature of this packaging makes to ``document``."""
    if options.packaging is Packaging.ENVELOPED and parsed is not None:
        # Without the signature, which is not there yet, the document is what the first transform leaves of it.
        octets = source.exclusive_document(parsed.tree())
        transforms = (xmldsig.ENVELOPED_SIGNATURE, xmldsig.EXCLUSIVE_C14N)
        return Reference(uri="", transforms=transforms, digest=Digest.of(octets))
    if options.packaging is Packaging.ENVELOPING:
        octets, transform = _enveloped_octets(document, parsed, signature_id)
        return Reference(
            uri=f"#{xmldsig.object_id(signature_id)}",
            type=xmldsig.OBJECT_TYPE,
            transforms=(transform,),
            digest=Digest.of(octets),
        )
    uri = quote(options.content_name, safe="")
    return Reference(uri=uri, digest=Digest(DigestAlgorithm.SHA256, hash_octets(document)))


def data_object(document: BinaryIO, parsed: Source | None, signature_id: str) -> bytes:
    """The ``ds:Object`` that an enveloping signature puts around ``document``."""
    attributes = f'xmlns:ds="{xmldsig.DSIG}" Id="{xmldsig.object_id(signature_id)}"'
    if parsed is not None:
        content = source.inclusive(parsed.tree().getroot())
        if len(content) > source.XML_LIMIT_BYTES:
            raise DocumentTooLarge(source.TOO_LARGE)
    else:
        document.seek(0)
        content = b64encode(document.read())
        attributes += f' Encoding="{xmldsig.BASE64}"'
    return f"<ds:Object {attributes}>".encode() + content + b"</ds:Object>"


def hash_octets(document: BinaryIO) -> bytes:
    """SHA-256 of the whole file."""
    hashed = sha256()
    for chunk in _chunks(document):
        hashed.update(chunk)
    return hashed.digest()


def checked_source(document: BinaryIO, packaging: Packaging, mime_type: str, limit_bytes: int) -> Source | None:
    """The document as XML, or ``None`` where it is signed by its octets alone.

    Raises:
        UnsupportedDocument: Not an XML that can be signed.
        DocumentTooLarge: Over a limit.
    """
    if packaging is Packaging.ENVELOPED and not source.is_xml_type(mime_type):
        raise UnsupportedDocument("only XML can have its signature within; other documents are enveloped or detached")
    if not source.is_xml_type(mime_type):
        limit_bytes = (
            min(limit_bytes, ENVELOPED_OCTETS_LIMIT_BYTES) if packaging is Packaging.ENVELOPING else limit_bytes
        )
        source.check_size(document, limit_bytes)
        return None
    return source.read(document, limit_bytes)


def _checked(document: BinaryIO, options: XAdESOptions, limit_bytes: int) -> Source | None:
    if not xmldsig.is_mime_type(options.mime_type):
        raise UnsupportedDocument("the document's MIME type is missing or cannot be read")
    parsed = checked_source(document, options.packaging, options.mime_type, limit_bytes)
    if parsed is not None:
        parsed.tree()
        if parsed.signatures and options.packaging is not Packaging.DETACHED:
            raise UnsupportedDocument(_SIGNED_ALREADY)
        parsed = parsed.without(*_not_covered(parsed, options.packaging))
    if options.packaging is Packaging.DETACHED and not options.content_name.strip("."):
        raise UnsupportedDocument("a document beside its signature needs a name")
    return parsed


def _not_covered(parsed: Source, packaging: Packaging) -> tuple[source.Span, ...]:
    match packaging:
        case Packaging.ENVELOPED:
            return parsed.comments
        case Packaging.ENVELOPING:
            return parsed.comments + parsed.outer_instructions
        case Packaging.DETACHED:
            return ()


def _enveloped_octets(document: BinaryIO, parsed: Source | None, signature_id: str) -> tuple[bytes, str]:
    if parsed is None:
        document.seek(0)
        return document.read(), xmldsig.BASE64
    around = source.scan(data_object(document, parsed, signature_id), signed=True)
    return source.exclusive(around.tree().getroot()), xmldsig.EXCLUSIVE_C14N


def _free_id(parsed: Source | None, content_sha256: bytes) -> str:
    """An id of which no other id in the document is made; the same for the same document."""
    number = 0
    while True:
        drawn = sha256(content_sha256 + number.to_bytes(4, "big")).hexdigest()
        signature_id = f"{_ID_STEM}-{drawn[:16]}"
        if parsed is None or signature_id.encode() not in parsed.data:
            return signature_id
        number += 1


def _chunks(document: BinaryIO) -> Iterator[bytes]:
    document.seek(0)
    while chunk := document.read(_CHUNK_BYTES):
        yield chunk
