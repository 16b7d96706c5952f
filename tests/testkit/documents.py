"""Plays the core and the edge for documents: software keys, the real builder of signed attributes, no sockets."""

import subprocess
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from documents.model import (
    Fetch,
    FetchKind,
    FinishedDocument,
    Level,
    PAdESOptions,
    Prepared,
    SignatureParts,
    TrustMaterial,
)
from documents.pades.finish import finish
from documents.pades.prepare import prepare
from signer.tbs.cms import signed_attributes
from tests.testkit.pki import Certified, InMemoryPKI

SAMPLES = Path(__file__).parents[1] / "samples"


def good_samples() -> list[Path]:
    """The PDFs of ordinary producers, which must all be signed."""
    return sorted((SAMPLES / "good").glob("*.pdf"))


def fetch_of(pki: InMemoryPKI) -> Fetch:
    """As the edge does it: the caller knows which TSA to ask."""

    def fetch(kind: FetchKind, url: str, body: bytes | None) -> bytes:
        return pki.fetch(kind, pki.addresses.timestamp if kind is FetchKind.TIMESTAMP else url, body)

    return fetch


def refuse_to_fetch(kind: FetchKind, url: str, body: bytes | None) -> bytes:
    """For what must do without the outside."""
    raise AssertionError(f"fetched {kind} from {url} with {len(body or b'')} bytes")


def sign_parts(prepared: Prepared, citizen: Certified, fields: dict[str, str] | None = None) -> SignatureParts:
    """What the core would answer for this document."""
    attributes = signed_attributes(prepared.digest, citizen.chain[0], fields or {})
    return SignatureParts(attributes, citizen.sign(attributes), citizen.chain)


def options(**changes: str) -> PAdESOptions:
    """Signature options of now."""
    return PAdESOptions(signing_time=datetime.now(UTC), **changes)


def sign(document: BinaryIO, pki: InMemoryPKI, citizen: Certified, level: Level = Level.B_B) -> FinishedDocument:
    """Prepare and finish in one go."""
    prepared = prepare(document, options(reason="Prueba", location="Zaragoza"))
    return finish(
        document,
        prepared.state,
        sign_parts(prepared, citizen),
        level=level,
        trust=pki.trust,
        fetch=fetch_of(pki),
        now=datetime.now(UTC),
    )


def signed(original: bytes, pki: InMemoryPKI, citizen: Certified, level: Level = Level.B_B) -> bytes:
    """``original`` with a signature of ``level``."""
    document = BytesIO(original)
    sign(document, pki, citizen, level)
    return document.getvalue()


def trust_without_crls(pki: InMemoryPKI) -> TrustMaterial:
    """Anchors and CA only."""
    return TrustMaterial((pki.root,), (pki.ca,))


def plain_pdf(text: str = "Solicitud") -> bytes:
    """A one-page PDF by reportlab."""
    from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped] # it has no types

    out = BytesIO()
    canvas = Canvas(out)
    canvas.drawString(72, 720, text)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def run_tool(*command: str, cwd: Path) -> str:
    """Output of a program that must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr
