"""What a transaction is: states, documents, limits, and the cleaned texts that a citizen is shown."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from api.storage import StoredId
from documents.model import (
    AsyncFetch,
    FinishedDocument,
    Inspection,
    Level,
    PAdESOptions,
    Prepared,
    SignatureParts,
    TrustMaterial,
    XAdESOptions,
)
from domain.algorithms import SignatureAlgorithm
from domain.digests import Digest
from domain.errors import AlgorithmNotAllowed, MalformedRequest
from domain.items import TITLE_LIMIT_CHARACTERS, Packaging, SignatureFormat

PDF = "application/pdf"
XML = "application/xml"
LEVELS: Mapping[SignatureFormat, tuple[Level, ...]] = {
    SignatureFormat.PADES: tuple(Level),
    SignatureFormat.XADES: (Level.B_B,),
}
"""On offer, the highest last."""
PACKAGINGS: Mapping[SignatureFormat, tuple[Packaging, ...]] = {
    SignatureFormat.PADES: (Packaging.ENVELOPED,),
    SignatureFormat.XADES: tuple(Packaging),
}

NIF_CHARACTERS = 9
TITLE_CHARACTERS = 500
"""As it comes; shown are fewer."""
RETURN_URL_CHARACTERS = 2000
NONCE_CHARACTERS = 200
MEBIBYTE = 1024 * 1024
"""What this edge can prepare and finish; the core may build more."""
EPOCH = datetime.fromtimestamp(0, UTC)


class TransactionState(StrEnum):
    """How far a transaction has come."""

    OPEN = "OPEN"
    """Documents are being uploaded."""
    SUBMITTED = "SUBMITTED"
    """All documents are here; the citizen has not looked yet."""
    REVIEWED = "REVIEWED"
    """A browser opened the review page: prepared and staged."""
    APPROVED = "APPROVED"
    """The browser came back with a code; it is being redeemed."""
    SIGNING = "SIGNING"
    DONE = "DONE"
    """Every document is signed or has failed, at least one is signed."""
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


UNAPPROVED = (TransactionState.OPEN, TransactionState.SUBMITTED, TransactionState.REVIEWED)
UNDER_WAY = (TransactionState.APPROVED, TransactionState.SIGNING)
REVIEWABLE = (TransactionState.SUBMITTED, TransactionState.REVIEWED)


class DocumentState(StrEnum):
    """How far one document has come."""

    EXPECTED = "EXPECTED"
    RECEIVED = "RECEIVED"
    PREPARED = "PREPARED"
    SIGNED = "SIGNED"
    PARTIAL = "PARTIAL"
    """Signed below the level asked for; evidence is still being collected."""
    FAILED = "FAILED"


class StagingState(StrEnum):
    """How far the approval of a staged request has come, as this edge knows it."""

    STAGED = "STAGED"
    REDEEMING = "REDEEMING"
    """The code and ``r`` are stored; the core may or may not have seen them."""
    REDEEMED = "REDEEMED"
    CLOSED = "CLOSED"


class DocumentWorker(Protocol):
    """Opens strangers' documents in a limited child process."""

    async def inspect(self, path: Path, options: XAdESOptions | None = None) -> Inspection:
        """Check that the document at ``path`` can be signed, as a PDF where there are no ``options``.

        Raises:
            UnsupportedDocument: It cannot; the detail says why.
            DocumentTooLarge: It unfolds to more than the child may hold.
        """
        ...

    async def prepare(self, source: Path, destination: Path, options: PAdESOptions | XAdESOptions) -> Prepared:
        """Write ``source``, ready to be signed, to ``destination``.

        Raises:
            UnsupportedDocument, DocumentTooLarge: As ``inspect``.
        """
        ...

    async def finish(
        self,
        path: Path,
        state: bytes,
        parts: SignatureParts,
        *,
        level: Level,
        trust: TrustMaterial,
        fetch: AsyncFetch,
    ) -> FinishedDocument:
        """Put the signature into the prepared document at ``path``, in place, and check it.

        Raises:
            LevelNotReached: It is signed, below ``level``, since evidence is missing.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one transaction may hold, by who asks."""

    citizen_bytes: int = 25 * MEBIBYTE
    citizen_documents: int = 20
    agency_bytes: int = 100 * MEBIBYTE
    agency_documents: int = 100
    life_seconds: int = 7 * 24 * 3600
    """From creation to the removal of everything."""

    def document_bytes(self, client_id: str) -> int:
        """Of one document."""
        return self.agency_bytes if client_id else self.citizen_bytes

    def documents(self, client_id: str) -> int:
        """In one approval."""
        return self.agency_documents if client_id else self.citizen_documents


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTransaction:
    """What a caller asks for; built by ``new_transaction`` only."""

    titles: tuple[str, ...]
    level: Level
    format: SignatureFormat
    packaging: Packaging
    algorithm: SignatureAlgorithm
    citizen_nif: str = field(repr=False)
    return_url: str
    client_nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a transaction; ``number`` is its item's number in the approved list."""

    number: int
    title: str
    state: DocumentState
    size_bytes: int = 0
    sha256: bytes | None = None
    """Of the original's octets."""
    media_type: str = ""
    """Of the original, without parameters; empty before upload."""
    signed_media_type: str = PDF
    """Of what is collected: the document, or the signature beside it."""
    original_id: StoredId | None = None
    prepared_id: StoredId | None = None
    signed_id: StoredId | None = None
    digest: Digest | None = None
    """What the citizen approves: over the ByteRange of the prepared PDF, or of the reference of an XML signature."""
    prepare_state: bytes | None = None
    parts: SignatureParts | None = None
    level: Level | None = None
    """Reached."""
    failure_code: str = ""
    failure_detail: str = ""
    next_try: datetime = EPOCH
    """When to ask again for evidence that a partial document lacks."""
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A list of documents on its way to a citizen's signature."""

    transaction_id: str
    version: int
    state: TransactionState
    client_id: str
    """Empty for the citizen's own web."""
    client_name: str
    link_sha256: bytes
    link_sealed: bytes = field(repr=False)
    level: Level
    format: SignatureFormat
    packaging: Packaging
    algorithm: SignatureAlgorithm
    citizen_nif_sealed: bytes = field(repr=False)
    grant_sealed: bytes = field(repr=False)
    granted: datetime
    return_url: str
    client_nonce: str
    created: datetime
    expires: datetime
    request_id: str | None = None
    result_token: str = field(default="", repr=False)
    receipt: str = ""
    failure_code: str = ""
    tries: int = 0
    documents: tuple[Document, ...] = ()

    @property
    def final(self) -> bool:
        """Nothing will change any more, but for the removal of everything."""
        partial = any(document.state is DocumentState.PARTIAL for document in self.documents)
        return self.state not in {*UNAPPROVED, *UNDER_WAY} and not partial

    def xades_options(self, document: Document, media_type: str) -> XAdESOptions | None:
        """How ``document`` is signed by XAdES; ``None`` for other formats."""
        if self.format is not SignatureFormat.XADES:
            return None
        return XAdESOptions(packaging=self.packaging, mime_type=media_type, content_name=content_name(document.title))


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """A request staged in the core, and what this edge holds to redeem it; all secrets sealed."""

    request_id: str
    transaction_id: str
    state: StagingState
    cookie_sha256: bytes
    expires: datetime
    verifier_sealed: bytes = field(repr=False)
    r_sealed: bytes | None = field(default=None, repr=False)
    code_sealed: bytes | None = field(default=None, repr=False)
    sad_sealed: bytes | None = field(default=None, repr=False)
    sad_expires: datetime | None = None


def new_transaction(
    *,
    titles: Sequence[str],
    level: str,
    signature_format: str,
    packaging: str,
    algorithm: str,
    citizen_nif: str = "",
    return_url: str = "",
    client_nonce: str = "",
) -> NewTransaction:
    """Check what does not depend on who asks.

    Raises:
        MalformedRequest: A title without visible characters, a level, format or packaging that is none of ours, a text
            that is too long.
        AlgorithmNotAllowed: Not an algorithm, or not a format in this packaging or at this level, that is offered.
    """
    try:
        chosen_format, chosen_packaging = SignatureFormat(signature_format), Packaging(packaging)
        chosen_level = Level(level) if level else LEVELS[chosen_format][-1]
    except ValueError:
        raise MalformedRequest("level, format or packaging is not one that this service offers") from None
    if chosen_packaging not in PACKAGINGS[chosen_format]:
        raise AlgorithmNotAllowed("this format is not offered in this packaging")
    if chosen_level not in LEVELS[chosen_format]:
        raise AlgorithmNotAllowed("this format is not offered at this level")
    for name, text, most in (
        ("nonce", client_nonce, NONCE_CHARACTERS),
        ("return address", return_url, RETURN_URL_CHARACTERS),
        *(("title", title, TITLE_CHARACTERS) for title in titles),
    ):
        if len(text) > most:
            raise MalformedRequest(f"a {name} has at most {most} characters")
    if not client_nonce.isprintable():
        raise MalformedRequest("a nonce has printable characters only")
    nif = normalized_nif(citizen_nif)
    return NewTransaction(
        titles=tuple(cleaned_title(title) for title in titles),
        level=chosen_level,
        format=chosen_format,
        packaging=chosen_packaging,
        algorithm=SignatureAlgorithm.parse(algorithm),
        citizen_nif=nif,
        return_url=return_url,
        client_nonce=client_nonce,
    )


def normalized_nif(nif: str) -> str:
    """Upper case, letters and digits only, as it enters envelopes (``docs/protocol.md``).

    Raises:
        MalformedRequest: Given, but not nine of them.
    """
    normalized = "".join(character for character in nif.upper() if character.isascii() and character.isalnum())
    if nif and len(normalized) != NIF_CHARACTERS:
        raise MalformedRequest(f"a NIF has {NIF_CHARACTERS} letters and digits")
    return normalized


def content_name(title: str) -> str:
    """The name under which a detached signature refers to its document: the title, as far as a file can have it."""
    return title.replace("/", "_").replace("\\", "_").lstrip(".") or "document"


def cleaned_title(title: str) -> str:
    """A title as a citizen may be shown it: no control or format characters, so nothing hides or turns round.

    Categories Cc, Cf, Cs, Co and Cn of Unicode go, bidirectional overrides and zero-width characters among them; runs
    of white space become one space; what is longer than 120 characters ends in an ellipsis.

    Raises:
        MalformedRequest: Nothing visible is left.
    """
    spaced = "".join(" " if character.isspace() else character for character in unicodedata.normalize("NFC", title))
    visible = "".join(character for character in spaced if unicodedata.category(character)[0] != "C")
    clean = unicodedata.normalize("NFC", " ".join(visible.split()))
    if not clean:
        raise MalformedRequest("a title needs visible characters")
    return clean if len(clean) <= TITLE_LIMIT_CHARACTERS else clean[: TITLE_LIMIT_CHARACTERS - 1] + "…"
