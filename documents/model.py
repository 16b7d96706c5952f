"""What crosses the border of this folder. No type of a PDF or XML library does, so that another writer can slip in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from domain.digests import Digest
from domain.errors import TimestampUnavailable
from domain.items import Packaging, Reference


class Level(StrEnum):
    """Baseline levels (EN 319 142-1 for PAdES, EN 319 132-1 for XAdES)."""

    B_B = "B-B"
    B_T = "B-T"
    B_LT = "B-LT"
    B_LTA = "B-LTA"


class FetchKind(StrEnum):
    """What a document's finishing may ask its caller to get."""

    TIMESTAMP = "timestamp"
    OCSP = "ocsp"
    CRL = "crl"
    CERTIFICATE = "certificate"


class Fetch(Protocol):
    """Gets bytes for a document; the caller decides which addresses are allowed."""

    def __call__(self, kind: FetchKind, url: str, body: bytes | None) -> bytes:
        """POST ``body`` (GET if ``None``) to ``url`` and give the answer's bytes.

        Args:
            kind: Decides content type and allowlist.
            url: As the certificate at hand names it; empty for ``TIMESTAMP``, where the caller chooses its authority.
            body: DER of the request.

        Raises:
            TimestampUnavailable: No answer, a refusal, or an address that is not allowed.
        """
        ...


class AsyncFetch(Protocol):
    """The same for a caller that waits for many at once."""

    async def __call__(self, kind: FetchKind, url: str, body: bytes | None) -> bytes:
        """As ``Fetch``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PAdESOptions:
    """How the signature dictionary is to look; covered by the digest, so fixed before the citizen approves."""

    signing_time: datetime
    reason: str = ""
    location: str = ""
    signer_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class XAdESOptions:
    """What is signed, and where the signature lies; fixed before the citizen approves."""

    packaging: Packaging
    mime_type: str
    """Of the document, without parameters; XML is told from other octets by it."""
    content_name: str = ""
    """Detached: the name under which whoever validates finds the document beside its signature."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that waits for its signature value."""

    digest: Digest
    """PDF: over the ByteRange octets of the prepared revision. XML: of the reference."""
    state: bytes
    """What ``finish`` needs to know again; JSON, at most 4 KiB, not secret."""
    references: tuple[Reference, ...] = ()
    """XAdES: what the signature refers to, in place of ``digest``."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Signature fields that the core builds from besides."""


@dataclass(frozen=True, slots=True)
class SignatureParts:
    """What the core answers for one item."""

    to_be_signed: bytes
    """CMS signedAttrs as DER SET OF (RFC 5652 §5.4), or ``ds:SignedInfo`` in exclusive C14N."""
    signature: bytes
    """ECDSA as DER (CMS) or as r ‖ s (XML), RSA as PKCS#1."""
    chain: tuple[bytes, ...]
    """Certificates, DER, the citizen's first."""
    signed_properties: bytes = b""
    """XAdES: ``xades:SignedProperties`` in exclusive C14N; empty for CMS."""


@dataclass(frozen=True, slots=True)
class TrustMaterial:
    """Whom to believe: DER certificates of anchors, further CA certificates, CRLs at hand."""

    anchors: tuple[bytes, ...]
    intermediates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class FinishedDocument:
    """A signed document, as far as it got."""

    level: Level
    complete_bytes: int
    """Length of the file at this level; ``extend`` cuts off whatever a crash left behind it."""


class LevelNotReached(TimestampUnavailable):
    """The document is signed, but evidence for the level asked for is missing; ``extend`` may get it later."""

    def __init__(self, public_detail: str, reached: FinishedDocument) -> None:
        super().__init__(public_detail)
        self.reached = reached


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a document is, before anybody signs it."""

    pages: int
    signatures: int
    """Earlier signatures; document timestamps do not count."""
    encrypted: bool
    size_bytes: int


class Unseen(StrEnum):
    """What a document holds that no picture of its pages shows."""

    SCRIPT = "script"
    ATTACHMENTS = "attachments"
    SIGNATURES = "signatures"
    """Earlier signatures."""
    LAYERS = "layers"
    """Optional content, which can be switched on and off."""
    HIDDEN = "hidden"
    """Annotations that are not on the screen but may be on paper, or the other way round."""
    FORM = "form"
    """XFA, which other programs show in place of the pages."""
    INVISIBLE = "invisible"
    """Signs in XML that turn or hide others; shown by their numbers."""
    FURTHER_PAGES = "further_pages"
    """More than a preview has."""


@dataclass(frozen=True, slots=True)
class OutlinePage:
    """One page; measures in points."""

    width: int
    height: int
    text: str


@dataclass(frozen=True, slots=True)
class Outline:
    """What can be shown of a document before it is signed."""

    page_count: int
    pages: tuple[OutlinePage, ...]
    text: str
    """Of XML, indented."""
    unseen: tuple[Unseen, ...]


@dataclass(frozen=True, slots=True)
class PageImage:
    """A page as people see it."""

    png: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """One signature of a validated document (EN 319 102-1 words)."""

    indication: str
    """TOTAL-PASSED, INDETERMINATE or TOTAL-FAILED."""
    sub_indication: str
    level: str
    """B-B, B-T, B-LT, B-LTA, or empty where it is none of them."""
    signer: str
    """The subject's common name. Like certificate, algorithm and time: what the file says, whatever the verdict."""
    certificate_serial: str
    """Hexadecimal."""
    algorithm: str
    signing_time: datetime | None
    timestamps: tuple[datetime, ...]
    covers_whole_document: bool
    """Established: the signature holds, and nothing in the file is outside it."""
    changed_since: bool | None
    """Whether more than long-term evidence was added or changed; ``None`` where it cannot be known."""
    explanations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """All signatures of a document, and the overall word."""

    indication: str
    signatures: tuple[SignatureReport, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
