"""Settings of the gate."""

from pydantic_settings import SettingsConfigDict

from rubrica.settings.web import WebSettings


class GateSettings(WebSettings):
    """``RUBRICA_GATE_…``. The gate holds nothing, so there is little to set."""

    model_config = SettingsConfigDict(env_prefix="RUBRICA_GATE_")
