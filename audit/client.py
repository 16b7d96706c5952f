"""Typed client of the auditor's service; protobuf stays inside."""

from datetime import datetime
from typing import Any, Protocol

import grpc

from audit.entries import Entry, EvidenceState, Filter, Leaf, LogDescription, Page
from audit.proto import audit_pb2, audit_pb2_grpc
from domain.digests import Digest, DigestAlgorithm

PAGE_SECONDS = 30.0
"""Deadline of one page: it may look at some thousand rows."""


class Call(Protocol):
    """Makes one unary call and turns its failure into an error of ours (``authn.client.call``, which lies above)."""

    async def __call__(self, method: Any, request: Any, *, deadline_seconds: float) -> Any:
        """Give the answer's message."""
        ...


class AuditorClient:
    """What an auditor asks."""

    def __init__(self, channel: "grpc.aio.Channel", call: Call) -> None:
        self._stub = audit_pb2_grpc.AuditorStub(channel)  # type: ignore[no-untyped-call]
        self._call = call

    async def page(self, wanted: Filter, *, after: int, limit: int) -> Page:
        """The next entries behind position ``after``; with a rare filter a page may be empty before the end.

        Raises:
            MalformedRequest: The filter.
            LogUnavailable: Try again.
        """
        request = audit_pb2.EntriesRequest(
            after=after,
            limit=limit,
            pid=wanted.pid,
            agency=wanted.agency,
            since=None if wanted.since is None else _milliseconds(wanted.since),
            until=None if wanted.until is None else _milliseconds(wanted.until),
            types=sorted(tag.value for tag in wanted.types),
            results=sorted(result.value for result in wanted.results),
        )
        answer = await self._call(self._stub.Entries, request, deadline_seconds=PAGE_SECONDS)
        return Page([_entry(message) for message in answer.entries], answer.reached, answer.at_end)

    async def entry(self, leaf_id: str) -> Entry:
        """One entry by its id.

        Raises:
            NotFound: There is none.
        """
        request = audit_pb2.EntryRequest(id=leaf_id)
        return _entry(await self._call(self._stub.Entry, request, deadline_seconds=PAGE_SECONDS))

    async def log(self) -> LogDescription:
        """Which log this is, and what was published last."""
        answer = await self._call(self._stub.Log, audit_pb2.LogRequest(), deadline_seconds=PAGE_SECONDS)
        return LogDescription(answer.origin, answer.key, answer.checkpoint)

    async def proof(self, leaf_id: str) -> str:
        """That an entry is in the log, as C2SP tlog-proof.

        Raises:
            NotFound: There is no such entry.
            LogUnavailable: No checkpoint covers it yet.
        """
        answer = await self._call(self._stub.Proof, audit_pb2.EntryRequest(id=leaf_id), deadline_seconds=PAGE_SECONDS)
        return str(answer.proof)

    async def file(self, path: str) -> bytes:
        """A file of the tree.

        Raises:
            NotFound: The tree has none of this name.
        """
        answer = await self._call(self._stub.File, audit_pb2.FileRequest(path=path), deadline_seconds=PAGE_SECONDS)
        return bytes(answer.content)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _entry(message: Any) -> Entry:
    return Entry(
        position=message.position,
        leaf=Leaf.decode(message.leaf),
        agency=message.agency,
        agency_name=message.agency_name,
        purpose=message.purpose,
        format=message.format,
        proved_by=message.proved_by,
        evidence=EvidenceState(message.evidence) if message.evidence else None,
        packaging=message.packaging,
        algorithm=message.algorithm,
        digests=tuple(Digest(DigestAlgorithm(digest.algorithm), digest.value) for digest in message.digests),
        certificate_serial=message.certificate_serial,
    )
