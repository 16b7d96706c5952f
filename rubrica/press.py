"""The press: makes receipts and letters as sealed PDFs, in a child of the core without network and files.

This module alone joins ``documents`` and the core's zone, and the core's own process loads no parser through it: the
child (``python -m rubrica.press``) lays the paper out by typst and prepares the signature; the core seals the digest
that it is told; the child puts the seal in. A child makes one paper and ends.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from documents import wire
from documents.model import Level, PAdESOptions, SignatureParts, TrustMaterial
from domain.digests import Digest, DigestAlgorithm
from domain.errors import DependencyUnavailable

if TYPE_CHECKING:
    # By name only: the child loads nothing of the core, the core nothing that parses.
    from authn.registration.papers import Paper
    from documents.jobs import Channel
    from signer.seal import SealedDigest

TEMPLATES = Path(__file__).parent / "templates"

_MESSAGE_LIMIT_BYTES = 8 * 1024 * 1024
_ROOT = Path(__file__).resolve().parents[1]
_UNAVAILABLE = "the document cannot be made now; nothing was changed"


@dataclass(frozen=True, slots=True)
class PressLimits:
    """What one paper may cost."""

    memory_bytes: int = 1024 * 1024 * 1024
    """Address space, of which what is loaded takes some 400 MiB."""
    cpu_seconds: int = 10
    wall_seconds: float = 30.0
    places: int = 2
    """Papers at the same time; further ones wait."""


class Sealing(Protocol):
    """Port to the seal's key."""

    async def sign(self, digest: Digest) -> "SealedDigest":
        """Sign a prepared PDF by the digest over its ByteRange."""
        ...


class Press:
    """An ``authn.registration.papers.Printer``; belongs to one event loop."""

    def __init__(
        self,
        seal: Sealing,
        limits: PressLimits | None = None,
        *,
        templates: Path = TEMPLATES,
        work: str = "rubrica.press",
    ) -> None:
        """Nothing runs yet.

        Args:
            seal: Signs what was laid out.
            limits: See ``PressLimits``.
            templates: Folder of ``*.typ``.
            work: The module whose ``make(channel, templates)`` is the child's work.
        """
        self._seal = seal
        self._limits = limits or PressLimits()
        self._templates = templates
        self._work = work
        self._places = asyncio.Semaphore(self._limits.places)

    async def make(self, paper: "Paper", at: datetime) -> bytes:
        """Lay out, seal (PAdES B-B), give the PDF.

        Raises:
            DependencyUnavailable: The child ended before its work was done, by a limit or a fault.
            IssuerUnavailable: The seal has no certificate.
            HSMError: The vault does not answer.
        """
        async with self._places:
            process, connection = self._start()
            writer: asyncio.StreamWriter | None = None
            try:
                async with asyncio.timeout(self._limits.wall_seconds):
                    reader, writer = await asyncio.open_unix_connection(sock=connection)
                    return await self._converse(reader, writer, paper, at)
            except (TimeoutError, EOFError, ConnectionError, wire.WireFault) as error:
                raise DependencyUnavailable(_UNAVAILABLE) from error
            finally:
                process.kill()
                await asyncio.to_thread(process.wait)
                if writer is None:
                    connection.close()
                else:
                    writer.close()
                    with suppress(ConnectionError):
                        await writer.wait_closed()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, paper: "Paper", at: datetime
    ) -> bytes:
        job = {
            "kind": paper.kind.value,
            "conditions": paper.fields["conditions"],
            "data": {**paper.fields, "language": paper.language.value},
            "at": at.isoformat(),
        }
        writer.write(wire.frame(job))
        await writer.drain()
        digest = Digest(DigestAlgorithm.SHA256, wire.from_plain(bytes, (await _receive(reader)).get("digest")))
        sealed = await self._seal.sign(digest)
        parts = SignatureParts(sealed.to_be_signed, sealed.signature, sealed.chain)
        writer.write(wire.frame({"parts": wire.to_plain(parts)}))
        await writer.drain()
        return wire.from_plain(bytes, (await _receive(reader)).get("pdf"))

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            # Nothing of the environment: the child has no use for addresses, tokens or paths of ours.
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, and no shell
                [
                    *(sys.executable, "-P", "-B", "-m", "rubrica.press"),
                    *(str(theirs.fileno()), json.dumps(asdict(self._limits)), str(self._templates), self._work),
                ],
                pass_fds=(theirs.fileno(),),
                env={"PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8", "RAYON_NUM_THREADS": "1"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # What a parser or typst would say may quote the paper.
                stderr=subprocess.DEVNULL,
            )
        return process, ours


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    size = int.from_bytes(await reader.readexactly(wire.HEADER_BYTES), "big")
    if size > _MESSAGE_LIMIT_BYTES:
        raise wire.WireFault("too long")
    return wire.message_of(await reader.readexactly(size))


# --- the child


def make(channel: "Channel", templates: Mapping[str, bytes]) -> None:
    """The child's work, without rights: one paper."""
    from documents.pades.finish import finish
    from documents.pades.prepare import prepare

    job = channel.receive()
    at = datetime.fromisoformat(job["at"])
    # One text, since a file to be imported could not be opened here.
    names = ("letter", f"conditions-{job['conditions']}", job["kind"])
    document = BytesIO(lay_out(b"\n".join(templates[name] for name in names), job["data"], at))
    prepared = prepare(document, PAdESOptions(signing_time=at, signer_name=job["data"]["organisation"]))
    channel.send({"digest": wire.to_plain(prepared.digest.value)})
    parts = wire.from_plain(SignatureParts, channel.receive()["parts"])
    # The core checked the chain when it was given the certificate; here its upmost CA is the anchor.
    trust = TrustMaterial(anchors=parts.chain[-1:])
    finish(document, prepared.state, parts, level=Level.B_B, trust=trust, fetch=channel.fetch, now=at)
    channel.send({"pdf": wire.to_plain(document.getvalue())})


def lay_out(template: bytes, data: Mapping[str, str], at: datetime) -> bytes:
    """The PDF, not sealed: PDF/A-2a for keeping and PDF/UA-1 for everybody to read, so tagged and with its fonts."""
    import typst

    laid_out = typst.Compiler(template, root="/", ignore_system_fonts=True).compile(
        template,
        sys_inputs={"data": json.dumps(data)},
        format="pdf",
        pdf_standards=["a-2a", "ua-1"],
        timestamp=int(at.timestamp()),
    )
    if not isinstance(laid_out, bytes):
        raise TypeError("not one PDF")
    return laid_out


def _main(arguments: list[str]) -> None:
    descriptor, limits_json, folder, work = arguments
    from documents import sandbox
    from documents.jobs import Channel

    limits = PressLimits(**json.loads(limits_json))
    connection = socket.socket(fileno=int(descriptor))
    module = import_module(work)
    templates = {path.stem: path.read_bytes() for path in Path(folder).glob("*.typ")}
    # All that is loaded at first use, since afterwards no file can be opened.
    sandbox.preload()
    lay_out(b'#set document(title: "-")\n#set text(lang: "es")\n= -', {}, datetime.now(UTC))
    sandbox.restrict(sandbox.Limits(memory_bytes=limits.memory_bytes, cpu_seconds=limits.cpu_seconds, file_bytes=0))
    module.make(Channel(connection), templates)


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except BaseException:  # noqa: BLE001 - a traceback would be written nowhere; the core sees the connection end
        os._exit(1)
    os._exit(0)
