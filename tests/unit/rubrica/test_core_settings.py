"""Settings of the core that would open a hole are refused, in every profile or in production."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from rubrica.settings.core import CoreSettings
from tests.testkit.core import core_settings

PRODUCTION: dict[str, object] = {
    "profile": "production",
    "token_module": Path("/opt/hsm/libpkcs11.so"),
    "issuer_socket": None,
    "organisation_id": "VATES-Q2826000H",
    "sms_url": "https://sms.example/messages",
    "edge_addresses": ("https://web.example/",),
    "client_audience": "https://web.example",
    "argon2_time_cost": 2,
    "argon2_memory_kib": 19 * 1024,
}


def production(folder: Path, **changes: object) -> CoreSettings:
    return core_settings(folder, **{**PRODUCTION, **changes})


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8000/", "https://web.example/", "http://[::1]:80/", "https://web.example/sign/here/"]
)
def test_a_whole_address_of_an_edge(tmp_path: Path, address: str) -> None:
    assert core_settings(tmp_path, edge_addresses=(address,)).edge_addresses == (address,)


@pytest.mark.parametrize(
    "address",
    [
        "https://web.example",
        "https://web.example:443",
        "https://web.example/sign",
        "https://web.example@evil.example/",
        "https://web.example:secret@evil.example/",
        "https://web.example?/",
        "https://web.example/?/",
        "https://web.example/#/",
        "https://web.example\\@evil.example/",
        "https://web.example/sign/../",
        "https://web.example/./",
        "https://web.example//",
        "https://web.example/%2e%2e/",
        "https://web.example:99999/",
        "https://web.example:0/",
        "https:///",
        "https://:443/",
        "//web.example/",
        "javascript://web.example/",
        "ftp://web.example/",
        " https://web.example/",
        "https://web.example/\n",
        "",
        "/",
    ],
)
def test_what_other_addresses_could_begin_with_or_pretend_to_be(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValidationError):
        core_settings(tmp_path, edge_addresses=("https://web.example/", address))


def test_production_as_it_should_be(tmp_path: Path) -> None:
    assert production(tmp_path).profile == "production"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"log_level": "debug"}, "log_level"),
        ({"code_life": 30}, "code_life"),
        ({"argon2_time_cost": 1}, "argon2_time_cost"),
        ({"argon2_memory_kib": 1024}, "argon2_memory_kib"),
        ({"edge_addresses": ("http://web.example/",)}, "edge_addresses"),
        ({"activate_url": "http://gate.example/activate"}, "activate_url"),
        ({"verify_url": "http://web.example/verify"}, "verify_url"),
    ],
)
def test_production_refuses(tmp_path: Path, change: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        production(tmp_path, **change)


@pytest.mark.parametrize("name", ["activate_url", "verify_url"])
@pytest.mark.parametrize("address", ["gate.example", "gate.example/activate", "ftp://gate.example/", "https://a b/c"])
def test_what_is_printed_is_a_whole_address(tmp_path: Path, name: str, address: str) -> None:
    assert production(tmp_path, **{name: "https://web.example/x"}).profile == "production"
    with pytest.raises(ValidationError, match=name):
        core_settings(tmp_path, **{name: address})


def test_an_issuer_needs_its_root(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="trust_anchors_file"):
        core_settings(tmp_path, trust_anchors_file=None)
    assert core_settings(tmp_path, trust_anchors_file=None, issuer_socket=None).trust_anchors_file is None


@pytest.mark.parametrize(
    ("host", "instance"), [("one.example", "one-example"), ("Two_B", "two-b"), ("x" * 80, "x" * 64), ("", "core")]
)
def test_two_hosts_have_two_names(tmp_path: Path, host: str, instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert core_settings(tmp_path).instance == instance
