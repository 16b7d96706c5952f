"""What processes with an HTTP face have in common."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from rubrica.settings.base import ProcessSettings


def _origin(url: str) -> str:
    parts = urlsplit(url)
    plain = parts.scheme in {"http", "https"} and parts.hostname and not (parts.path or parts.query or parts.fragment)
    if not plain or "@" in parts.netloc:
        raise ValueError("must be an origin such as https://firma.example, without a slash at the end")
    return url


Origin = Annotated[str, AfterValidator(_origin)]


class WebSettings(ProcessSettings):
    """Where to listen and where the core is."""

    host: str = "127.0.0.1"
    """Where to listen, unless ``listen_fd`` is given."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    listen_fd: Annotated[int, Field(ge=3)] | None = None
    """A listening socket inherited from a supervisor, used instead of ``host`` and ``port``."""
    core_socket: Path
    """The core's Unix socket for this class of caller; the socket is the identity."""
    public_url: Origin
    """Where browsers and callers find this process."""

    @model_validator(mode="after")
    def _no_plain_http(self) -> Self:
        for name in self._addresses_of_strangers():
            if self.profile == "production" and not str(getattr(self, name)).startswith("https://"):
                raise ValueError(f"{name} must be https in production")
        return self

    def _addresses_of_strangers(self) -> tuple[str, ...]:
        return ("public_url",)
