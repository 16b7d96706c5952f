"""Settings of the gate."""

from pathlib import Path

from pydantic_settings import SettingsConfigDict

from rubrica.settings.web import WebSettings


class GateSettings(WebSettings):
    """``RUBRICA_GATE_…``. The gate holds nothing, so there is little to set."""

    model_config = SettingsConfigDict(env_prefix="RUBRICA_GATE_")

    token_key_file: Path | None = None
    """The core's public key TOK, PEM, brought here by another way than the core's socket: pages seal only to keys that
    it vouches for. Without it there are no pages, only the endpoints."""
