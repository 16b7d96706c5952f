"""Settings of the development PKI."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from rubrica.settings.base import ProcessSettings


class PKISettings(ProcessSettings):
    """``RUBRICA_PKI_…``. There is no production profile of this process: a real CA and TSA take its place there."""

    model_config = SettingsConfigDict(env_prefix="RUBRICA_PKI_")

    token_module: Path = Path("/usr/lib/softhsm/libsofthsm2.so")
    """PKCS#11 library."""
    token_label: str = "pki"  # noqa: S105 - a name, no secret
    token_pin_file: Path
    """Readable by this process's user alone."""
    softhsm2_conf: Path | None = None
    """SoftHSM's configuration; ``None`` with another token."""

    database_url: Annotated[str, Field(pattern=r"^sqlite:///.+")]
    """Certificates, revocations and counters; loses its worth without the token, and the token without it."""
    public_url: Annotated[str, Field(pattern=r"^https?://[^/?#\s]+$")]
    """Where the public face is found, for example ``http://127.0.0.1:8085``. It goes into every certificate as the
    address of OCSP, CRL and issuer, so it stays the same as long as the store is used; another is refused at start."""

    issuer_socket: Path
    """Unix socket of the issuing face. Its folder is closed to other users (0700), and made so if it is missing."""
    host: str = "127.0.0.1"
    """Where the public face listens, unless ``listen_fd`` is given."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8085
    listen_fd: Annotated[int, Field(ge=3)] | None = None
    """A listening socket inherited from a supervisor, used instead of ``host`` and ``port``."""

    @model_validator(mode="after")
    def _development_only(self) -> Self:
        if self.profile == "production":
            raise ValueError("the development PKI does not run in production; use a real CA and TSA")
        return self
