"""gRPC servicers of the officers' desk and of papers: protobuf in and out, nothing decided here."""

from typing import Any

import grpc

from authn.officer_client import REGISTER_FIELDS, RENEW_FIELDS
from authn.proto import authn_pb2, authn_pb2_grpc
from authn.registration.desk import OfficerDesk
from authn.registration.officers import Officers, SignedStatement
from authn.registration.papers import Papers
from domain.clock import to_epoch_seconds


class OfficersServicer(authn_pb2_grpc.OfficersServicer):
    """For the operator's machine, where officers' requests arrive."""

    def __init__(self, officers: Officers, desk: OfficerDesk) -> None:
        self._officers = officers
        self._desk = desk

    async def AddOfficer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Enter an officer."""
        del context
        await self._officers.add(
            officer_id=request.officer_id, role=request.role, nif=request.nif, public_key=request.public_key
        )
        return authn_pb2.AddOfficerAnswer()

    async def EndOfficer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """End an officer."""
        del context
        await self._officers.end(request.officer_id)
        return authn_pb2.EndOfficerAnswer()

    async def ListOfficers(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """All officers."""
        del request, context
        return authn_pb2.ListOfficersAnswer(
            officers=[
                authn_pb2.ListedOfficer(
                    officer_id=listed.officer.id,
                    role=listed.officer.role.value,
                    state=listed.officer.state.value,
                    added=to_epoch_seconds(listed.officer.added),
                    actions_last_hour=listed.actions_last_hour,
                )
                for listed in await self._officers.all()
            ]
        )

    async def Register(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Enter a citizen; the answer holds activation code and papers."""
        del context
        done = await self._desk.register(_fields(request, REGISTER_FIELDS), _statement(request.statement))
        return authn_pb2.RegisterAnswer(
            citizen_id=done.citizen.id,
            activation_code=done.activation_code,
            receipt=done.receipt,
            acceptance=done.acceptance,
        )

    async def RenewCode(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A new activation code, and a new phone where one is given."""
        del context
        second = _statement(request.countersignature) if request.HasField("countersignature") else None
        done = await self._desk.renew(_fields(request, RENEW_FIELDS), _statement(request.statement), second)
        return authn_pb2.RenewCodeAnswer(activation_code=done.activation_code, receipt=done.receipt)


class PapersServicer(authn_pb2_grpc.PapersServicer):
    """For whoever checks a paper."""

    def __init__(self, papers: Papers) -> None:
        self._papers = papers

    async def VerifyDocument(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """What is known of a paper by its CSV."""
        del context
        known = await self._papers.verify(request.csv)
        return authn_pb2.VerifyDocumentAnswer(
            kind=known.kind.value, sha256=known.sha256, made=to_epoch_seconds(known.made)
        )


def _fields(request: Any, names: tuple[str, ...]) -> dict[str, str]:
    return {name: getattr(request, name) for name in names}


def _statement(message: Any) -> SignedStatement:
    return SignedStatement(
        officer_id=message.officer_id, issued=message.issued, nonce=message.nonce, signature=message.signature
    )
