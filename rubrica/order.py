"""What the demo is asked to sign, checked before anything starts, and where the signed file goes."""

import mimetypes
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from api.transactions.model import LEVELS, MEBIBYTE, PACKAGINGS, PDF, XML, Limits, cleaned_title
from documents.model import Level
from domain.algorithms import SignatureAlgorithm
from domain.errors import AlgorithmNotAllowed, MalformedRequest
from domain.items import Packaging, SignatureFormat

NAME_LIMIT_BYTES = 255
"""Of one name in a path, on Linux."""


class Refused(Exception):
    """The demo cannot go on; the text is one plain sentence."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be signed, and how; checked."""

    document: Path | None
    """``None``: a sample of our own."""
    output: Path | None
    """``None``: in the folder of this run."""
    level: Level
    format: SignatureFormat
    packaging: Packaging
    algorithm: SignatureAlgorithm

    @classmethod
    def parse(cls, *, sign: str, out: str, level: str, format_name: str, packaging: str, algorithm: str) -> "Order":
        """Check what was asked for.

        Raises:
            Refused: Something is none of ours.
        """
        if format_name not in set(SignatureFormat):
            raise Refused(f"the format must be {' or '.join(SignatureFormat)}, not '{format_name}'")
        chosen_format = SignatureFormat(format_name)
        levels, packagings = LEVELS[chosen_format], PACKAGINGS[chosen_format]
        level = level or levels[-1]
        if level not in levels:
            raise Refused(f"the level must be one of {', '.join(levels)}, not '{level}'")
        if packaging not in packagings:
            raise Refused(f"the packaging must be one of {', '.join(packagings)}, not '{packaging}'")
        try:
            chosen = SignatureAlgorithm.parse(algorithm)
        except AlgorithmNotAllowed as error:
            raise Refused(f"{error.public_detail}, not '{algorithm}'") from None
        document = Path(sign).absolute() if sign else None
        output = Path(out).absolute() if out else None
        if document is not None:
            _check_document(document)
        if output is not None:
            _check_output(output, document, folder=out.endswith("/"))
        return cls(document, output, Level(level), chosen_format, Packaging(packaging), chosen)

    @property
    def extension(self) -> str:
        """Of the signed file."""
        return {SignatureFormat.PADES: "pdf", SignatureFormat.XADES: "xml"}[self.format]

    def media_type(self, document: Path) -> str:
        """What ``document`` is: the format says it, or its name."""
        if self.format is SignatureFormat.PADES:
            return PDF
        if self.packaging is Packaging.ENVELOPED or document.suffix.lower() == ".xml":
            return XML
        return mimetypes.guess_type(document.name)[0] or "application/octet-stream"

    def title(self, document: Path) -> str:
        """What the citizen is shown: the file's name, with a substitute for bytes that are no text."""
        # A detached signature refers to its document by the title, so that is to be the file's whole name.
        name = document.name if self.packaging is Packaging.DETACHED else document.stem
        try:
            return cleaned_title(shown(name))
        except MalformedRequest:
            return "documento"

    def output_name(self, document: Path) -> str:
        """Of the signed file, where none was asked for."""
        end = f"-signed.{self.extension}"
        return os.fsdecode(os.fsencode(document.stem)[: NAME_LIMIT_BYTES - len(end)]) + end


def shown(text: str) -> str:
    """``text`` for people and other programs: bytes of a file's name that are no UTF-8 become substitutes."""
    return os.fsencode(text).decode("utf-8", "replace")


def put_in_place(source: Path, target: Path, *, umask: int) -> None:
    """Move the signed file to where it was asked for: whole or not at all, readable for whom ``umask`` lets.

    Raises:
        Refused: That is not possible; nothing is left there.
    """
    ours = os.umask(umask)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".rubrica-")
        try:
            with source.open("rb") as signed, open(descriptor, "wb") as file:  # noqa: PTH123 -- a descriptor has no Path
                shutil.copyfileobj(signed, file)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Refused(f"{target} cannot be written: {error.strerror}") from error
    finally:
        os.umask(ours)
    source.unlink()


def _check_document(document: Path) -> None:
    try:
        found = document.stat()
        if stat.S_ISREG(found.st_mode):
            document.open("rb").close()
    except FileNotFoundError:
        raise Refused(f"there is no file {document}") from None
    except OSError as error:
        raise Refused(f"{document} cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(found.st_mode):
        raise Refused(f"{document} is a folder, not a document")
    if not stat.S_ISREG(found.st_mode):
        # A device or a pipe may have no end.
        raise Refused(f"{document} is not a regular file")
    if found.st_size == 0:
        raise Refused(f"{document} is empty")
    limit = Limits().agency_bytes
    if found.st_size > limit:
        raise Refused(
            f"{document} is too large: it has {found.st_size} bytes, and the service takes at most {limit}"
            f" ({limit // MEBIBYTE} MiB)"
        )


def _check_output(output: Path, document: Path | None, *, folder: bool) -> None:
    if any(len(os.fsencode(part)) > NAME_LIMIT_BYTES for part in output.parts):
        raise Refused(f"{output} cannot be written: a name in it is longer than {NAME_LIMIT_BYTES} bytes")
    try:
        if folder or output.is_dir():
            raise Refused(f"{output} is a folder; name a file for the signed document")
        if output.exists() and not output.is_file():
            raise Refused(f"{output} is not a regular file")
        if document is not None and output.exists() and output.samefile(document):
            raise Refused("the signed file must not replace the document")
        there = next(parent for parent in output.parents if parent.exists())
    except OSError as error:
        raise Refused(f"{output} cannot be written: {error.strerror}") from None
    if not there.is_dir():
        raise Refused(f"{output} cannot be written: {there} is not a folder")
    try:
        # The only sure way to know: rights, read-only file systems and the like differ.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise Refused(f"{output} cannot be written: {error.strerror}") from None


def write_sample(path: Path) -> Path:
    """Write a document of our own, of the kind that the name ends in; gives ``path``."""
    if path.suffix == ".xml":
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<solicitud fecha="{now}">Solicitud de ejemplo</solicitud>\n'
        path.write_text(text, encoding="utf-8")
        return path
    text = f"BT /F1 16 Tf 72 740 Td (Solicitud de ejemplo, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC) Tj ET"
    objects = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources 6 0 R >>",
        f"<< /Length {len(text)} >>\nstream\n{text}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        "<< /Font << /F1 5 0 R >> >>",
    )
    body, places = "%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    rows = "".join(f"{place:010d} 00000 n \n" for place in places)
    count = len(objects) + 1
    trailer = f"trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    path.write_bytes(f"{body}xref\n0 {count}\n0000000000 65535 f \n{rows}{trailer}".encode("latin-1"))
    return path
