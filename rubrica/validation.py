"""``rubrica validate``: is it signed, by whom, when, what level, was it changed since."""

import asyncio
import hashlib
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import typer

from certs.pki.trust import write_trust_anchors
from documents.child import DocumentWorker
from documents.model import Level, SignatureReport, TrustMaterial, ValidationReport
from domain.clock import SystemClock
from domain.digests import Digest, DigestAlgorithm
from domain.errors import RubricaError
from rubrica.asking import fail
from rubrica.state import Running, var_folder
from rubrica.trust import load_trust

VALID, NOT_VALID, UNUSABLE = 0, 1, 2
"""Exit statuses."""
REPORT_FORMAT = "rubrica-validation/1"
PASSED = "TOTAL-PASSED"
_PDF_WINDOW_BYTES = 1024
_WORDS = {
    PASSED: "valid",
    "INDETERMINATE": "cannot be proved",
    "TOTAL-FAILED": "NOT valid",
}
_LEVELS = {
    Level.B_B.value: "a signature, with no proof of its time",
    Level.B_T.value: "with a time stamp",
    Level.B_LT.value: "with a time stamp, and proof that the certificate was not revoked",
    Level.B_LTA.value: "with a time stamp, proof that the certificate was not revoked, and a time stamp over all of it",
}


class Unusable(Exception):
    """The question cannot be answered; the sentence says what to give."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def main(*, file: Path, content: Path | None, trust: Path | None, as_json: bool) -> int:
    """Judge ``file`` and tell the result; gives the exit status."""
    try:
        report = asyncio.run(_judge(file, _content(file, content), trust_material(trust)))
    except Unusable as error:
        if not as_json:
            fail(error.detail, status=UNUSABLE)
        told = {"format": REPORT_FORMAT, "file": file.name, "valid": False, "error": error.code, "detail": error.detail}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return UNUSABLE
    if as_json:
        typer.echo(json.dumps(as_object(file.name, report), indent=2, ensure_ascii=False))
    else:
        for line in lines(file.name, report):
            typer.echo(line)
    return VALID if is_valid(report) else NOT_VALID


def is_valid(report: ValidationReport) -> bool:
    """Whether there is a signature, and every one in the file holds."""
    return bool(report.signatures) and all(signature.indication == PASSED for signature in report.signatures)


def as_object(name: str, report: ValidationReport) -> dict[str, Any]:
    """The report as JSON; no member is ever renamed."""
    return {
        "format": REPORT_FORMAT,
        "file": name,
        "valid": is_valid(report),
        "signed": bool(report.signatures),
        "indication": report.indication,
        "signatures": [
            {
                "indication": signature.indication,
                "sub_indication": signature.sub_indication or None,
                "level": signature.level or None,
                "signer": signature.signer,
                "certificate_serial": signature.certificate_serial,
                "algorithm": signature.algorithm,
                "signing_time": _moment(signature.signing_time) if signature.signing_time else None,
                "timestamps": [_moment(time) for time in signature.timestamps],
                "covers_whole_document": signature.covers_whole_document,
                "changed_since": signature.changed_since,
                "explanations": list(signature.explanations),
            }
            for signature in report.signatures
        ],
        "facts": dict(report.facts),
    }


def lines(name: str, report: ValidationReport) -> list[str]:
    """The report in plain words."""
    if not report.signatures:
        return [f"{_shown(name)}: not signed"]
    count = len(report.signatures)
    verdict = "valid" if is_valid(report) else _WORDS[report.indication]
    told = [f"{_shown(name)}: signed, {verdict}"]
    for number, signature in enumerate(report.signatures, 1):
        told += ["", f"Signature {number} of {count}: {_WORDS[signature.indication]}"]
        told += [f"  {label:<8}{_shown(text)}" for label, text in _facts(signature)]
    return told


def _facts(signature: SignatureReport) -> list[tuple[str, str]]:
    passed = signature.indication == PASSED
    who = signature.signer or "nobody whose name can be read"
    facts = [
        ("who", who if passed else f"{who}, as the file says"),
        ("", f"certificate {signature.certificate_serial}" if signature.certificate_serial else "no certificate"),
        ("when", _when(signature)),
        ("level", f"{signature.level}: {_LEVELS[signature.level]}" if signature.level in _LEVELS else "none of ours"),
        ("changed", _changed(signature)),
    ]
    if not passed:
        facts += [("why", why) for why in signature.explanations or (signature.sub_indication,)]
    else:
        facts += [("note", why) for why in signature.explanations]
    return facts


def _when(signature: SignatureReport) -> str:
    if signature.timestamps:
        proof = "a time stamp says it was there then" if signature.indication == PASSED else "says a time stamp"
        return f"{_readable(min(signature.timestamps))}, {proof}"
    if signature.signing_time is not None:
        return f"{_readable(signature.signing_time)}, says the signature itself; no time stamp proves it"
    return "not told"


def _changed(signature: SignatureReport) -> str:
    if signature.sub_indication == "HASH_FAILURE":
        return "yes: what was signed is no longer what the file holds"
    if signature.sub_indication == "SIGNED_DATA_NOT_FOUND":
        return "not known: the signed file lies beside; give it too, with --content"
    if signature.changed_since is None:
        return "not known"
    if not signature.changed_since:
        return "not since it was signed"
    if signature.indication == PASSED:
        return "by further signatures alone"
    return "yes, since it was signed"


async def _judge(file: Path, content: Digest | None, trust: TrustMaterial) -> ValidationReport:
    # A stranger's file is read in a limited child, here as in the service.
    clock = SystemClock()
    try:
        async with DocumentWorker(clock) as worker:
            return await worker.validate(file, trust, clock.now(), None, content)
    except RubricaError as error:
        raise Unusable(error.code, error.public_detail) from error


def _content(file: Path, content: Path | None) -> Digest | None:
    if content is None:
        return None
    with file.open("rb") as opened:
        if b"%PDF-" in opened.read(_PDF_WINDOW_BYTES):
            raise Unusable("content_not_needed", "a PDF holds what it signs; --content is for detached XML signatures")
    with content.open("rb") as opened:
        return Digest(DigestAlgorithm.SHA256, hashlib.file_digest(opened, "sha256").digest())


def trust_material(folder: Path | None) -> TrustMaterial:
    """Whom to believe: ``folder``, or the PKI of the running ``rubrica up``.

    Raises:
        Unusable: There is neither.
    """
    try:
        if folder is not None:
            return load_trust(folder, crls=True)
        running = Running.read(var_folder() / "up.json")
        if running is None:
            raise Unusable(
                "no_trust",
                "no 'rubrica up' is running here; name a folder of trust anchors (*.pem, *.crl) with --trust",
            )
        return _trust_of(running)
    except (ValueError, OSError) as error:
        raise Unusable("no_trust", str(error)) from error


def _trust_of(running: Running) -> TrustMaterial:
    with tempfile.TemporaryDirectory(prefix="rubrica-trust-") as fresh:
        try:
            # What was revoked a moment ago is not in the lists that were written when the service started.
            write_trust_anchors(Path(fresh), running.pki)
        except httpx.HTTPError:
            return load_trust(running.trust, crls=True)
        return load_trust(Path(fresh), crls=True)


def _moment(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _readable(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _shown(text: str) -> str:
    """A stranger's text without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
