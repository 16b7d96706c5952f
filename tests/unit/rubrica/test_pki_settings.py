"""The development PKI's settings: what they refuse."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hsm.settings import TokenSettings
from rubrica.pki import run
from rubrica.settings.pki import PKISettings
from tests.testkit.pki import write_pki_settings


@pytest.fixture
def token(tmp_path: Path) -> TokenSettings:
    return TokenSettings(Path("/usr/lib/softhsm/libsofthsm2.so"), "pki", tmp_path / "pin", tmp_path / "softhsm2.conf")


def test_defaults_listen_on_loopback(tmp_path: Path, token: TokenSettings) -> None:
    settings = PKISettings.load(write_pki_settings(tmp_path, token, "http://127.0.0.1:8085"))
    assert (settings.profile, settings.host, settings.port, settings.listen_fd) == (
        "development",
        "127.0.0.1",
        8085,
        None,
    )


def test_production_is_refused_before_anything_is_touched(tmp_path: Path, token: TokenSettings) -> None:
    path = write_pki_settings(tmp_path, token, "http://127.0.0.1:8085", profile="production")
    with pytest.raises(ValidationError, match="does not run in production"):
        run(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pki.toml"]


def test_production_by_environment_is_refused(
    tmp_path: Path, token: TokenSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBRICA_PKI_PROFILE", "production")
    with pytest.raises(ValidationError, match="does not run in production"):
        PKISettings.load(write_pki_settings(tmp_path, token, "http://127.0.0.1:8085"))


@pytest.mark.parametrize(
    "change",
    [
        {"public_url": "http://127.0.0.1:8085/"},
        {"public_url": "http://127.0.0.1:8085/pki"},
        {"public_url": "127.0.0.1:8085"},
        {"database_url": "postgresql://x/y"},
        {"database_url": "sqlite+aiosqlite:///x"},
        {"listen_fd": 0},
        {"port": 65536},
        {"colour": "red"},
    ],
)
def test_wrong_values(tmp_path: Path, token: TokenSettings, change: dict[str, object]) -> None:
    path = write_pki_settings(tmp_path, token, **{"public_url": "http://127.0.0.1:8085", **change})  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        PKISettings.load(path)
