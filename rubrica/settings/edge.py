"""Settings of the edge."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from rubrica.settings.web import Origin, WebSettings

_MEBIBYTE = 1024 * 1024
_Positive = Annotated[int, Field(ge=1)]


class EdgeSettings(WebSettings):
    """``RUBRICA_EDGE_…``."""

    model_config = SettingsConfigDict(env_prefix="RUBRICA_EDGE_")

    database_url: Annotated[str, Field(pattern=r"^(sqlite\+aiosqlite:///|postgresql\+asyncpg://).+")]
    """Transactions; secrets in it are sealed under the key in ``seal_key_file``."""
    database_password_file: Path | None = None
    """The database's password, where it asks for one."""
    storage_dir: Path
    """Documents."""
    seal_key_file: Path
    """32 random bytes, mode 0600. Made at the first start in development, never in production."""
    gate_url: Origin
    """Where the citizen types secrets; its host name differs from the edge's, since cookies are per host."""

    tsa_url: str
    """Timestamp authority (RFC 3161)."""
    fetch_prefixes: tuple[str, ...] = ()
    """Addresses from which OCSP answers, CRLs and certificates may be fetched. Plain HTTP is usual there, in production
    too: what comes back is signed (RFC 5280 §8, RFC 6960 §A)."""
    trust_dir: Path
    """``*.pem``: self-signed ones are the anchors for documents and timestamps, others help to build chains."""

    citizen_document_bytes: _Positive = 25 * _MEBIBYTE
    citizen_documents: _Positive = 20
    agency_document_bytes: _Positive = 100 * _MEBIBYTE
    agency_documents: _Positive = 100
    transaction_life_seconds: _Positive = 7 * 24 * 3600
    """After that a transaction and its documents are removed."""
    return_wait_seconds: Annotated[float, Field(gt=0)] = 25.0
    """How long a returning browser waits for its signatures before it is told to look again."""
    resume_seconds: Annotated[float, Field(gt=0)] = 2.0
    """How often unfinished work is looked for."""

    grpc_listen: Annotated[str, Field(pattern=r"^(.+:\d{1,5})?$")] = ""
    """Address of the gRPC API for agencies, such as ``127.0.0.1:50051`` or ``[::1]:50051``; empty means none. It takes
    no inherited socket: a supervisor keeps the port by binding it with SO_REUSEPORT, without listening."""
    grpc_certificate_file: Path | None = None
    """Certificate chain of the gRPC API, PEM."""
    grpc_key_file: Path | None = None
    """Its private key, PEM. Without both, gRPC is spoken in clear, which production refuses."""

    @model_validator(mode="after")
    def _grpc_in_tls(self) -> Self:
        if (self.grpc_certificate_file is None) != (self.grpc_key_file is None):
            raise ValueError("grpc_certificate_file and grpc_key_file go together")
        if self.profile == "production" and self.grpc_listen and self.grpc_key_file is None:
            raise ValueError("grpc_listen needs grpc_certificate_file and grpc_key_file in production")
        return self

    @model_validator(mode="after")
    def _two_hosts(self) -> Self:
        if urlsplit(self.public_url).hostname == urlsplit(self.gate_url).hostname:
            raise ValueError("public_url and gate_url need two host names: cookies are per host, not per port")
        return self

    def _addresses_of_strangers(self) -> tuple[str, ...]:
        return ("public_url", "gate_url", "tsa_url")
