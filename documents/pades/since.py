"""What came into a PDF after a signature: evidence, further signatures, or content that it does not cover.

pyHanko asks whether a later revision may have changed what a signature covers; the question here is what a person asks,
whether the file is still the one that was signed. So further signatures count, and a new title, and octets that no
reader shows.
"""

import os
import re
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from io import BytesIO
from typing import Any

from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.decode_limits import DecodePurpose
from pyhanko.pdf_utils.metadata.xmp_xml import parse_xmp
from pyhanko.pdf_utils.reader import HistoricalResolver, PdfFileReader
from pyhanko.pdf_utils.xref import XRefSectionType
from pyhanko.sign.diff_analysis import DiffResult, ModificationLevel, StandardDiffPolicy, SuspiciousModification
from pyhanko.sign.diff_analysis.form_rules_api import FormUpdatingRule
from pyhanko.sign.diff_analysis.rules.file_structure_rules import (
    CatalogModificationRule,
    ObjectStreamRule,
    XrefStreamRule,
)
from pyhanko.sign.diff_analysis.rules.form_field_rules import (
    DSSCompareRule,
    SigFieldCreationRule,
    SigFieldModificationRule,
)
from pyhanko.sign.diff_analysis.rules.metadata_rules import DocInfoRule, MetadataUpdateRule
from pyhanko.sign.diff_analysis.rules_api import ReferenceUpdate
from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
from pyhanko.sign.validation.status import SignatureCoverageLevel

_OF_THE_WRITER = frozenset({"ModDate", "Producer", "ModifyDate", "MetadataDate"})
"""What a program that adds evidence says of itself and of the time (ISO 32000-2 table 349 and XMP's names for it)."""
_CATALOGUE_KEYS = frozenset({"/AcroForm", "/DSS", "/Extensions", "/Metadata", "/Version"})
_END_OF_REVISION = re.compile(rb"\s*startxref\s+\d+\s+%%EOF[ \t\r\n]*")


class Later(Enum):
    """What came into the file after a signature."""

    NOTHING = auto()
    """Evidence at the most: DSS, document time-stamps."""
    SIGNATURES = auto()
    """Further signatures, which speak for themselves."""
    CONTENT = auto()
    """Something that this signature does not cover: it may show another document."""


def later(signature: EmbeddedPdfSignature) -> Later:
    """What came after ``signature``, whose integrity was computed.

    Source: EN 319 142-1 §5.4.2.2 and §5.4.3 (what B-LT and B-LTA add), ISO 32000-2 §12.8.2.2.2.
    """
    if signature.coverage is SignatureCoverageLevel.ENTIRE_FILE:
        return Later.NOTHING
    if not isinstance(signature.diff_result, DiffResult) or not _is_made_of_revisions(signature):
        return Later.CONTENT
    found = _EVIDENCE_AND_SIGNATURES.review_file(signature.reader, signature.signed_revision)
    if isinstance(found, SuspiciousModification):
        return Later.CONTENT
    # The rules know nothing else that one may do to a form.
    return Later.NOTHING if found.modification_level <= ModificationLevel.LTA_UPDATES else Later.SIGNATURES


class _SameInformation(DocInfoRule):
    """The document information dictionary says the same as before."""

    def apply(self, old: HistoricalResolver, new: HistoricalResolver) -> Iterable[ReferenceUpdate]:
        if _information(old) != _information(new):
            raise SuspiciousModification("the document information was changed")
        yield from super().apply(old, new)


class _SameMetadata(MetadataUpdateRule):
    """So do the XMP metadata."""

    def apply(self, old: HistoricalResolver, new: HistoricalResolver) -> Iterable[ReferenceUpdate]:
        before, after = _metadata_octets(old), _metadata_octets(new)
        if before != after and _metadata(before) != _metadata(after):
            raise SuspiciousModification("the metadata were changed")
        yield from super().apply(old, new)


_EVIDENCE_RULES = (
    _SameInformation(),
    XrefStreamRule(),
    ObjectStreamRule(),
    DSSCompareRule(),
    _SameMetadata(),  # type: ignore[no-untyped-call] # pyHanko
)
_EVIDENCE_AND_SIGNATURES = StandardDiffPolicy(
    global_rules=[
        CatalogModificationRule(ignored_keys=_CATALOGUE_KEYS),  # type: ignore[no-untyped-call] # pyHanko
        *(rule.as_qualified(ModificationLevel.LTA_UPDATES) for rule in _EVIDENCE_RULES),
    ],
    form_rule=FormUpdatingRule(
        field_rules=[
            SigFieldCreationRule(),  # type: ignore[no-untyped-call] # pyHanko
            SigFieldModificationRule(),
        ]
    ),
    # What nothing refers to is shown by no reader, and yet it was added.
    ignore_orphaned_objects=False,
)


def _information(revision: HistoricalResolver) -> Mapping[str, Any]:
    trailer = revision.trailer_view
    if "/Info" not in trailer:
        return {}
    found = trailer.raw_get("/Info")
    if isinstance(found, generic.IndirectObject):
        # The trailer's own references lead to the newest revision.
        found = revision.get_object(found.reference)
    if not isinstance(found, generic.DictionaryObject):
        raise SuspiciousModification("the document information cannot be read")
    return {name: found[name] for name in found if name.removeprefix("/") not in _OF_THE_WRITER}


def _metadata_octets(revision: HistoricalResolver) -> bytes:
    root = revision.root
    return bytes(root["/Metadata"].read_data(DecodePurpose.XMP_METADATA)) if "/Metadata" in root else b""


def _metadata(octets: bytes) -> Mapping[Any, Any]:
    try:
        structures = parse_xmp(BytesIO(octets)) if octets else []
    except Exception as error:
        # Whatever a parser throws at a stranger's octets.
        raise SuspiciousModification("the metadata cannot be read") from error
    return {
        name: value for structure in structures for name, value in structure if name.local_name not in _OF_THE_WRITER
    }


def _is_made_of_revisions(signature: EmbeddedPdfSignature) -> bool:
    """Whether the octets after ``signature`` are revisions and nothing else: objects, cross-references, ends."""
    reader: PdfFileReader = signature.reader
    *_, start, length = (int(number) for number in signature.byte_range)
    begin = start + length
    reader.stream.seek(begin, os.SEEK_SET)
    later = reader.stream.read()
    position = 0
    for revision in range(signature.signed_revision + 1, reader.xrefs.total_revisions):
        section = reader.xrefs.get_xref_data(revision)
        container = reader.xrefs.get_xref_container_info(revision)
        table = container.xref_section_type is not XRefSectionType.STREAM
        xref = container.declared_startxref - begin
        starts = sorted({offset - begin for _, offset in section.standard_xrefs.values()} | {xref})
        end = later.find(b"startxref", container.end_location - begin)
        if starts[0] < position or starts[-1] != xref or end < xref or later[position : starts[0]].strip():
            return False
        pieces = [later[first:after].rstrip() for first, after in zip(starts, [*starts[1:], end], strict=True)]
        closing = [b"endobj"] * (len(pieces) - 1) + [b">>" if table else b"endobj"]
        if not all(piece.endswith(closed) for piece, closed in zip(pieces, closing, strict=True)):
            return False
        finish = _END_OF_REVISION.match(later, end)
        if finish is None:
            return False
        position = finish.end()
    return position == len(later)
