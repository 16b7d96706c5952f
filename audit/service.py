"""gRPC servicer of the auditor: protobuf in and out, nothing decided here."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from audit.entries import PID_SIZE_BYTES, Entry, Filter, Result
from audit.log import EventTag
from audit.proto import audit_pb2, audit_pb2_grpc
from audit.published import Published
from audit.reading import LogReader
from domain.errors import MalformedRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AuditorServicer(audit_pb2_grpc.AuditorServicer):
    """For auditors; it only reads."""

    def __init__(self, reader: LogReader, published: Published) -> None:
        self._reader = reader
        self._published = published

    async def Entries(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A page."""
        del context
        page = await self._reader.page(_filter(request), after=request.after, limit=request.limit)
        return audit_pb2.EntriesAnswer(
            entries=[_message(entry) for entry in page.entries], reached=page.reached, at_end=page.at_end
        )

    async def Entry(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """One entry."""
        del context
        return _message(await self._reader.entry(request.id))

    async def Log(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Name, key and newest checkpoint."""
        del request, context
        described = await self._published.describe()
        return audit_pb2.LogAnswer(origin=described.origin, key=described.spki, checkpoint=described.checkpoint)

    async def Proof(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """That an entry is in the log."""
        del context
        return audit_pb2.ProofAnswer(proof=await self._published.proof(request.id))

    async def File(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A tile or bundle."""
        del context
        return audit_pb2.FileAnswer(content=await self._published.file(request.path))


def _filter(request: Any) -> Filter:
    if len(request.pid) not in (0, PID_SIZE_BYTES):
        raise MalformedRequest(f"a pseudonym has {PID_SIZE_BYTES} bytes")
    if request.after < 0:
        raise MalformedRequest("positions begin at 1")
    try:
        return Filter(
            pid=request.pid,
            agency=request.agency,
            since=_moment(request.since) if request.HasField("since") else None,
            until=_moment(request.until) if request.HasField("until") else None,
            types=frozenset(EventTag(tag) for tag in request.types),
            results=frozenset(Result(result) for result in request.results),
        )
    except (ValueError, OverflowError):
        raise MalformedRequest("a type, result or time is not one of the log's") from None


def _moment(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _message(entry: Entry) -> Any:
    return audit_pb2.LogEntry(
        position=entry.position,
        leaf=entry.leaf.encoded,
        result=entry.leaf.result.value,
        agency=entry.agency,
        agency_name=entry.agency_name,
        purpose=entry.purpose,
        format=entry.format,
        packaging=entry.packaging,
        algorithm=entry.algorithm,
        proved_by=entry.proved_by,
        digests=[audit_pb2.Digest(algorithm=digest.algorithm.value, value=digest.value) for digest in entry.digests],
        certificate_serial=entry.certificate_serial,
        evidence=entry.evidence.value if entry.evidence else "",
    )
