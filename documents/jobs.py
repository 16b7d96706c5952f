"""What the limited child does: one job on one document, asking its parent for every byte from outside."""

import errno
import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, BinaryIO

from documents import preview, wire
from documents.model import (
    FetchKind,
    Level,
    LevelNotReached,
    PAdESOptions,
    SignatureParts,
    TrustMaterial,
    XAdESOptions,
)
from documents.pades.finish import extend, finish
from documents.pades.prepare import inspect, prepare
from documents.pades.source import BROKEN
from documents.validate import validate
from documents.xades import finish as xades_finish
from documents.xades import prepare as xades_prepare
from domain.digests import Digest
from domain.errors import DocumentTooLarge, RubricaError, TimestampUnavailable, UnsupportedDocument

UNFOLDS_TOO_FAR = "the document unfolds to more than this service can handle"


# Not the document's fault, and to be told apart from a parser that was refused a file name by the filter.
_DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


class OutOfTime(BaseException):
    """The child used up its processor time; not an ``Exception``, so that no parser swallows it."""


class Channel:
    """The child's end of its only connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: Mapping[str, Any]) -> None:
        """One message to the parent."""
        self._connection.sendall(wire.frame(message))

    def receive(self) -> dict[str, Any]:
        """One message from the parent.

        Raises:
            EOFError: The parent is gone.
        """
        size = int.from_bytes(self._exactly(wire.HEADER_BYTES), "big")
        return wire.message_of(self._exactly(size))

    def fetch(self, kind: FetchKind, url: str, body: bytes | None) -> bytes:
        """A ``documents.model.Fetch`` that asks the parent."""
        self.send({"fetch": {"kind": kind.value, "url": url, "body": wire.to_plain(body)}})
        answer = self.receive()
        if "unavailable" in answer:
            raise TimestampUnavailable(str(answer["unavailable"]))
        return wire.from_plain(bytes, answer["fetched"])

    def _exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            chunk = self._connection.recv(min(size - len(received), 1 << 20))
            if not chunk:
                raise EOFError
            received += chunk
        return bytes(received)


def run(channel: Channel, descriptor: int) -> None:
    """Receive one job, do it on the open file ``descriptor``, and answer."""
    try:
        job = channel.receive()
        channel.send(_answer(job, descriptor, channel))
    except EOFError:
        return  # the parent has given up


def _answer(  # noqa: PLR0911 - one return per outcome
    job: dict[str, Any], descriptor: int, channel: Channel
) -> dict[str, Any]:
    try:
        return {"result": wire.to_plain(_do(job, descriptor, channel))}
    except LevelNotReached as error:
        return {"not_reached": {"detail": error.public_detail, "reached": wire.to_plain(error.reached)}}
    except RubricaError as error:
        return _error(error)
    except OutOfTime:
        return _error(DocumentTooLarge("the document takes longer to read than this service allows"))
    except (MemoryError, RecursionError):
        return _error(DocumentTooLarge(UNFOLDS_TOO_FAR))
    except EOFError:
        raise
    except Exception as error:  # noqa: BLE001 - see below
        # A parser may throw anything at a stranger's bytes; that is an answer about the document. What it says may
        # quote the document, so it is not passed on.
        if isinstance(error, OSError) and error.errno in _DISK_FAULTS:
            return {"disk": error.errno}
        return _error(UnsupportedDocument(BROKEN))


def _do(job: dict[str, Any], descriptor: int, channel: Channel) -> object:
    with os.fdopen(descriptor, "r+b" if job["writes"] else "rb", closefd=False) as document:
        result = _JOBS[job["name"]](document, job["arguments"], channel)
        if job["writes"]:
            document.flush()
            os.fsync(document.fileno())
        return result


def _error(error: RubricaError) -> dict[str, Any]:
    return {"error": {"code": error.code, "detail": error.public_detail}}


def _inspect(document: BinaryIO, arguments: dict[str, Any], _channel: Channel) -> object:
    return inspect(document, arguments["limit_bytes"])


def _prepare(document: BinaryIO, arguments: dict[str, Any], _channel: Channel) -> object:
    return prepare(document, wire.from_plain(PAdESOptions, arguments["options"]), arguments["limit_bytes"])


def _inspect_xml(document: BinaryIO, arguments: dict[str, Any], _channel: Channel) -> object:
    options = wire.from_plain(XAdESOptions, arguments["options"])
    return xades_prepare.inspect(document, options, arguments["limit_bytes"])


def _prepare_xml(document: BinaryIO, arguments: dict[str, Any], _channel: Channel) -> object:
    options = wire.from_plain(XAdESOptions, arguments["options"])
    return xades_prepare.prepare(document, options, arguments["limit_bytes"])


def _finish_xml(document: BinaryIO, arguments: dict[str, Any], _channel: Channel) -> object:
    return xades_finish.finish(
        document,
        wire.from_plain(bytes, arguments["state"]),
        wire.from_plain(SignatureParts, arguments["parts"]),
        level=Level(arguments["level"]),
        trust=wire.from_plain(TrustMaterial, arguments["trust"]),
        now=wire.from_plain(datetime, arguments["now"]),
    )


def _finish(document: BinaryIO, arguments: dict[str, Any], channel: Channel) -> object:
    return finish(
        document,
        wire.from_plain(bytes, arguments["state"]),
        wire.from_plain(SignatureParts, arguments["parts"]),
        level=Level(arguments["level"]),
        trust=wire.from_plain(TrustMaterial, arguments["trust"]),
        fetch=channel.fetch,
        now=wire.from_plain(datetime, arguments["now"]),
    )


def _extend(document: BinaryIO, arguments: dict[str, Any], channel: Channel) -> object:
    return extend(
        document,
        arguments["complete_bytes"],
        level=Level(arguments["level"]),
        trust=wire.from_plain(TrustMaterial, arguments["trust"]),
        fetch=channel.fetch,
        now=wire.from_plain(datetime, arguments["now"]),
    )


def _validate(document: BinaryIO, arguments: dict[str, Any], channel: Channel) -> object:
    return validate(
        document,
        wire.from_plain(TrustMaterial, arguments["trust"]),
        wire.from_plain(datetime, arguments["at"]),
        channel.fetch if arguments["online"] else None,
        arguments["limit_bytes"],
        None if arguments["content"] is None else wire.from_plain(Digest, arguments["content"]),
    )


def _outline(document: BinaryIO, arguments: dict[str, Any], _channel: Channel) -> object:
    return preview.outline(document, arguments["limit_bytes"])


def _preview(document: BinaryIO, arguments: dict[str, Any], _channel: Channel) -> object:
    return preview.render(document, arguments["number"], arguments["limit_bytes"])


_JOBS: Mapping[str, Callable[[BinaryIO, dict[str, Any], Channel], object]] = {
    "inspect": _inspect,
    "inspect_xml": _inspect_xml,
    "prepare": _prepare,
    "prepare_xml": _prepare_xml,
    "finish": _finish,
    "finish_xml": _finish_xml,
    "extend": _extend,
    "validate": _validate,
    "outline": _outline,
    "preview": _preview,
}
