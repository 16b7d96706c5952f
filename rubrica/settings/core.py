"""Settings of the signing core."""

import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from authn.otp.budget import SMS_MESSAGES
from authn.otp.rows import OTP_LIFE
from rubrica.settings.base import ProcessSettings

UNNAMED_ORGANISATION = "NTRES-DEVELOPMENT"
PRODUCTION_TIME_COST = 2
INSTANCE_LENGTH = 64
_ADDRESS_OR_NONE = r"^(https?://[^\s/]+/\S*)?$"


def _host_name() -> str:
    """Hosts that share a database have different names; two cores with one name would take over from each other."""
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower())[:INSTANCE_LENGTH] or "core"


def check_edge_address(address: str) -> None:
    """An address that return URLs may begin with: a whole origin or folder, so that no other host begins like it.

    Raises:
        ValueError: No slash at the end (``https://web.example`` is the beginning of ``https://web.example.org/``), or
            something of an address that can make it read as another: user, query, fragment, dots, backslash.
    """
    parts = urlsplit(address)
    plain = re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+/([A-Za-z0-9._~-]+/)*", address) is not None
    # The port is read to have it judged.
    if not plain or not parts.hostname or parts.port == 0 or {".", ".."} & set(parts.path.split("/")):
        raise ValueError(f"an edge's address is http(s)://host[:port]/ with a slash at the end, and not {address!r}")


class CoreSettings(ProcessSettings):
    """``RUBRICA_CORE_…``."""

    model_config = SettingsConfigDict(env_prefix="RUBRICA_CORE_")

    instance: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$", default_factory=_host_name)]
    """Name of this core among all that share the database, by default the host's; its lock file makes sure that there
    is one of it on this host."""
    state_dir: Path
    """Holds the lock file; ours alone."""
    sockets_dir: Path
    """``edge/core.sock``, ``gate/core.sock``, ``operator/core.sock``, ``auditor/core.sock``: one per caller class, in
    folders closed to others (0700)."""

    database_url: Annotated[str, Field(pattern=r"^(sqlite\+aiosqlite:///.+|postgresql\+asyncpg://.+)")]
    database_password_file: Path | None = None
    """The database's password, where it asks for one."""

    token_module: Path = Path("/usr/lib/softhsm/libsofthsm2.so")
    """PKCS#11 library."""
    token_label: str = "core"  # noqa: S105 - a name, no secret
    token_pin_file: Path
    """Readable by this process's user alone."""
    softhsm2_conf: Path | None = None
    """SoftHSM's configuration; ``None`` with another token."""
    hsm_workers: Annotated[int, Field(ge=1, le=64)] = 2
    hsm_queue_limit: Annotated[int, Field(ge=1)] = 1000
    """Calls that may wait for a worker; one more is told to come back."""

    token_key_file: Path | None = None
    """Gets the public key TOK, PEM, at each start, before anybody is served: for whoever has to pin it, such as the
    gate, by another way than the core's sockets."""

    issuer_socket: Path | None = None
    """Unix socket of the development PKI's issuing face; without it the core signs but no certificate is issued."""
    trust_anchors_file: Path | None = None
    """Roots, PEM, that the issuer's certificates must lead up to; needed with ``issuer_socket``. Read at first need."""

    agency_trust_dir: Path | None = None
    """Certificates of calling systems: a folder with their authorities (``*.pem``, each of them an anchor) and current
    lists of revoked certificates (``*.crl``); read again when it changes. Without it clients have keys only."""

    organisation: str = "Rúbrica"
    """Whose seal and name stand on receipts and letters."""
    organisation_id: Annotated[
        str, Field(pattern=r"^((VAT|NTR|PSD|LEI)[A-Z]{2}|[A-Z]{2}:[A-Z]{2})-[0-9A-Za-z-]{1,40}$")
    ] = UNNAMED_ORGANISATION
    """Its identifier by EN 319 412-1 §5.1.4, for example ``VATES-Q2826000H``."""
    verify_url: Annotated[str, Field(pattern=_ADDRESS_OR_NONE)] = ""
    """Where papers say that they can be checked; without it ``verify`` at the first edge."""
    service_name: str = "Rúbrica"
    """What citizens read in messages, and as the name of the citizen's own web."""
    gate_host: str
    """Host name of the gate, for the origin line of messages."""
    activate_url: Annotated[str, Field(pattern=_ADDRESS_OR_NONE)] = ""
    """Where receipts say that the password is set; without it ``https://GATE_HOST/activate``."""
    edge_addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    """Where approvals may return to: address of every edge, with scheme and port, and a slash at the end."""
    client_audience: str
    """``aud`` of agencies' assertions: the edge's address."""
    items_per_request: Annotated[int, Field(ge=1, le=10_000)] = 100

    log_dir: Path | None = None
    """Tiles and checkpoint of the signing log, for auditors to read; by default ``log`` in ``state_dir``."""
    log_memory_file: Path | None = None
    """Size and root of the last tree that was signed, kept away from database and ``log_dir``: it finds a database that
    was put back. By default ``log-memory.json`` in ``state_dir``."""
    log_origin: Annotated[str, Field(pattern=r"^[^\s+]{0,120}$")] = ""
    """Name of the log in its checkpoints, without spaces or plus; by default ``log`` behind the gate's host name."""
    log_age_limit: Annotated[timedelta, Field(ge=timedelta(seconds=5))] = timedelta(seconds=60)
    """Nothing is signed while a leaf of this age is in no checkpoint."""
    log_backlog_limit: Annotated[int, Field(ge=1)] = 10_000
    """Nothing is signed while more leaves than this are in no checkpoint."""

    sms_url: str
    """The SMS gateway's address; gets a POST with the JSON members ``id``, ``to`` and ``text``."""
    sms_secret_file: Path | None = None
    """Bearer token for the gateway."""

    sms_budget: tuple[tuple[timedelta, Annotated[int, Field(ge=1)]], ...] = SMS_MESSAGES
    """At most so many codes by SMS to one citizen in so much time, to approve, activate or change; over it nothing is
    sent and the answer stays the same."""

    code_life: Annotated[timedelta, Field(ge=timedelta(seconds=1), le=OTP_LIFE)] = OTP_LIFE
    """How long a code to approve, activate or change is good; shorter only in development, to see one expire."""

    argon2_time_cost: Annotated[int, Field(ge=1, le=10)] = 2
    argon2_memory_kib: Annotated[int, Field(ge=8)] = 19 * 1024
    argon2_queue_limit: Annotated[int, Field(ge=1)] = 64
    """People whose password may wait to be stretched; one more is told to come back."""

    @field_validator("edge_addresses")
    @classmethod
    def _whole_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            check_edge_address(address)
        return addresses

    @model_validator(mode="after")
    def _anchors_with_an_issuer(self) -> Self:
        if self.issuer_socket is not None and self.trust_anchors_file is None:
            raise ValueError("trust_anchors_file is needed with issuer_socket")
        return self

    @model_validator(mode="after")
    def _nothing_of_development_in_production(self) -> Self:
        if self.profile != "production":
            return self
        refused = {
            "token_module: SoftHSM keeps keys in files": "softhsm" in str(self.token_module).lower(),
            "issuer_socket: the development PKI is no certification authority": self.issuer_socket is not None,
            "organisation_id: the organisation has none yet": self.organisation_id == UNNAMED_ORGANISATION,
            "sms_url: must be https": not self.sms_url.startswith("https://"),
            "edge_addresses: must be https": any(not url.startswith("https://") for url in self.edge_addresses),
            "client_audience: must be https": not self.client_audience.startswith("https://"),
            "activate_url: must be https": self.activate_url.startswith("http://"),
            "verify_url: must be https": self.verify_url.startswith("http://"),
            "code_life: five minutes": self.code_life != OTP_LIFE,
            "argon2_memory_kib: at least 19456": self.argon2_memory_kib < 19 * 1024,
            "argon2_time_cost: at least 2": self.argon2_time_cost < PRODUCTION_TIME_COST,
            "log_level: debug tells too much": self.log_level == "debug",
        }
        if any(refused.values()):
            raise ValueError("refused in production: " + "; ".join(why for why, wrong in refused.items() if wrong))
        return self
