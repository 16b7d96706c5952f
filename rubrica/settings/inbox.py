"""Settings of the development inbox."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from rubrica.settings.base import ProcessSettings


class InboxSettings(ProcessSettings):
    """``RUBRICA_INBOX_…``. There is no production profile of this process: real phones take its place there."""

    model_config = SettingsConfigDict(env_prefix="RUBRICA_INBOX_")

    file: Path
    """Where messages are kept, a line of JSON each; closed to other users (0600), and made if it is missing."""
    host: str = "127.0.0.1"
    """Where it listens, unless ``listen_fd`` is given."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8086
    listen_fd: Annotated[int, Field(ge=3)] | None = None
    """A listening socket inherited from a supervisor, used instead of ``host`` and ``port``."""

    @model_validator(mode="after")
    def _development_only(self) -> Self:
        if self.profile == "production":
            raise ValueError("the development inbox does not run in production; use a real SMS gateway")
        return self
