"""What all processes have in common."""

from pathlib import Path
from typing import Literal, Self

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class ProcessSettings(BaseSettings):
    """Base of each process's settings; subclasses set ``env_prefix`` (for example ``RUBRICA_CORE_``)."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    profile: Literal["development", "production"] = "development"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """Read ``path`` (TOML), the environment going before it.

        Raises:
            pydantic.ValidationError: An unknown key or a wrong value.
        """

        class FromFile(cls):  # type: ignore[misc,valid-type]
            model_config = SettingsConfigDict(toml_file=path)

            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the order is the library's
                file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the order is the library's
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

        return FromFile()
