"""The edge's gRPC API as its settings have it: TLS, and what production refuses."""

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from rubrica.edge import _rpc
from rubrica.settings.edge import EdgeSettings
from rubrica_client import NewDocument, RubricaProblem
from rubrica_client.grpc import GRPCAgencyClient
from tests.testkit.core_simulator import NIF
from tests.testkit.edge import AGENCY, AGENCY_NAME, EDGE_URL, GATE_URL, PDF, an_edge


def settings(folder: Path, **values: Any) -> EdgeSettings:
    return EdgeSettings(
        core_socket=folder / "core.sock",
        public_url=EDGE_URL,
        gate_url=GATE_URL,
        database_url="sqlite+aiosqlite:///x",
        storage_dir=folder,
        seal_key_file=folder / "seal",
        tsa_url="https://tsa.test",
        trust_dir=folder,
        **values,
    )


def pair(folder: Path) -> dict[str, Path]:
    """A key and a certificate of its own for this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = {"grpc_certificate_file": folder / "edge.pem", "grpc_key_file": folder / "edge.key"}
    paths["grpc_certificate_file"].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths["grpc_key_file"].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.fixture
def address():
    """A port that is kept for whoever shares it, as a supervisor keeps it."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{kept.getsockname()[1]}"


async def test_over_tls_and_never_in_clear(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rubrica_client.grpc.TRIES", 1)
    files = pair(tmp_path)
    production = settings(tmp_path, profile="production", grpc_listen=address, **files)
    async with an_edge(tmp_path) as edge, _rpc(production, edge.app.state.services):
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        believed = grpc.ssl_channel_credentials(files["grpc_certificate_file"].read_bytes())
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        others = grpc.ssl_channel_credentials(pair(stranger)["grpc_certificate_file"].read_bytes())

        def send(credentials: Any) -> str:
            with GRPCAgencyClient(
                address,
                AGENCY,
                key,
                audience=EDGE_URL,
                credentials=credentials,
                now=lambda: edge.clock.now().timestamp(),
            ) as agency:
                return agency.send([NewDocument("Solicitud", PDF)], citizen_nif=NIF).review_url

        assert (await asyncio.to_thread(send, believed)).startswith(f"{EDGE_URL}/review/")
        for wrong in (None, others):
            with pytest.raises(RubricaProblem, match="no_answer"):
                await asyncio.to_thread(send, wrong)


async def test_a_strangers_port_is_said_to_be_taken(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            taken = settings(tmp_path, grpc_listen=f"127.0.0.1:{stranger.getsockname()[1]}")
            with pytest.raises(OSError, match="grpc_listen"):
                async with _rpc(taken, edge.app.state.services):
                    pass


def test_production_refuses_grpc_in_clear(tmp_path: Path) -> None:
    files = pair(tmp_path)
    settings(tmp_path, profile="production", grpc_listen="0.0.0.0:50051", **files)
    settings(tmp_path, profile="production")
    settings(tmp_path, grpc_listen="127.0.0.1:0")
    for wrong in (
        {"profile": "production", "grpc_listen": "0.0.0.0:50051"},
        {"grpc_listen": "127.0.0.1:0", "grpc_key_file": files["grpc_key_file"]},
        {"grpc_listen": "127.0.0.1"},
    ):
        with pytest.raises(ValidationError, match="grpc_"):
            settings(tmp_path, **wrong)
