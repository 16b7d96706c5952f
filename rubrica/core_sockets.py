"""Where the core listens: one Unix socket per caller class, each with just the services that it may call."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from audit.proto import audit_pb2_grpc
from audit.service import AuditorServicer
from authn.officer_service import OfficersServicer, PapersServicer
from authn.proto import authn_pb2_grpc
from authn.rpc import ErrorInterceptor
from authn.service import AreaServicer, CallersServicer, FactorsServicer, RegistryServicer
from signer.proto import signer_pb2_grpc
from signer.service import (
    CredentialOperationsServicer,
    SignatureActivationServicer,
    SignatureAuthorisationServicer,
)

if TYPE_CHECKING:
    from rubrica.core import Core

STOP_SECONDS = 8.0


@contextlib.asynccontextmanager
async def listening(folder: Path, core: "Core") -> AsyncIterator[None]:
    """Serve each caller class on its own socket, with just the services that it may call.

    Raises:
        PermissionError: A folder is not ours alone.
    """
    _own_folder(folder)
    servers = []
    for name, add in _SERVICES.items():
        _own_folder(folder / name)
        # A socket that a killed core left behind would refuse the next one.
        _socket(folder, name).unlink(missing_ok=True)
        server = grpc.aio.server(interceptors=[ErrorInterceptor()])
        add(core, server)
        server.add_insecure_port(f"unix:{_socket(folder, name)}")
        await server.start()
        servers.append(server)
    try:
        yield
    finally:
        await asyncio.gather(*(server.stop(grace=STOP_SECONDS) for server in servers))


def _own_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{folder} must be our own and closed to other users (chmod 0700)")


def _socket(folder: Path, caller: str) -> Path:
    # A folder each, so that a container of one class is given its own socket and sees no other.
    return folder / caller / "core.sock"


def _for_edge(core: "Core", server: grpc.aio.Server) -> None:
    signer_pb2_grpc.add_SignatureActivationServicer_to_server(
        SignatureActivationServicer(
            core.engine, core.clock, core.activation, core.signing, core.requests, core.approvals
        ),
        server,
    )
    authn_pb2_grpc.add_CallersServicer_to_server(CallersServicer(core.authenticator), server)
    authn_pb2_grpc.add_AreaServicer_to_server(AreaServicer(core.area, core.sessions), server)
    authn_pb2_grpc.add_PapersServicer_to_server(PapersServicer(core.papers), server)


def _for_gate(core: "Core", server: grpc.aio.Server) -> None:
    signer_pb2_grpc.add_SignatureAuthorisationServicer_to_server(
        SignatureAuthorisationServicer(core.activation), server
    )
    authn_pb2_grpc.add_FactorsServicer_to_server(
        FactorsServicer(core.challenges, core.password_activation, core.password_change, core.grants, core.pins), server
    )


def _for_operator(core: "Core", server: grpc.aio.Server) -> None:
    authn_pb2_grpc.add_RegistryServicer_to_server(
        RegistryServicer(core.engine, core.phone_change, core.unlocking, core.callers, core.vault), server
    )
    authn_pb2_grpc.add_OfficersServicer_to_server(OfficersServicer(core.officers, core.desk), server)
    authn_pb2_grpc.add_PapersServicer_to_server(PapersServicer(core.papers), server)
    signer_pb2_grpc.add_CredentialOperationsServicer_to_server(CredentialOperationsServicer(core.revocation), server)


def _for_auditor(core: "Core", server: grpc.aio.Server) -> None:
    audit_pb2_grpc.add_AuditorServicer_to_server(AuditorServicer(core.reader, core.published), server)


_SERVICES: dict[str, Callable[["Core", grpc.aio.Server], None]] = {
    "edge": _for_edge,
    "gate": _for_gate,
    "operator": _for_operator,
    "auditor": _for_auditor,
}
