"""docker-compose.yml against the Compose specification and against what the zones promise."""

import itertools
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rubrica.cli import SETTINGS

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("rubrica:")}


def compose(*arguments: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Debian's docker-compose judges ``text`` by the specification's schema; no engine is needed for that."""
    file = folder / "docker-compose.yml"
    file.write_text(text)
    command = ["docker-compose", "--file", str(file), "--project-directory", str(ROOT), *arguments, "config", "--quiet"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("--profile", "demo")])
def test_it_fits_the_schema(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = compose(*arguments, text=(ROOT / "docker-compose.yml").read_text(), folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("damage", [("ports:", "port:"), ("service_healthy", "service_fine"), ("[demo]", "demo")])
def test_a_wrong_one_does_not(damage: tuple[str, str], tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert damage[0] in text

    assert compose("--profile", "demo", text=text.replace(*damage), folder=tmp_path).returncode != 0


def mounts(service: str) -> dict[str, str]:
    volumes = (volume.split(":") for volume in SERVICES[service].get("volumes", []))
    return {parts[0]: parts[1] for parts in volumes}


def who_has(volume: str) -> set[str]:
    return {name for name in SERVICES if volume in mounts(name)}


def who_is_on(network: str) -> set[str]:
    return {name for name, service in SERVICES.items() if network in service.get("networks", [])}


def test_without_a_profile_it_is_the_service_and_nothing_of_development() -> None:
    always = {name for name, service in SERVICES.items() if "profiles" not in service}

    assert always == {"edge", "gate", "core", "core-ceremony", "postgres-core", "postgres-edge"}
    assert {name for name in SERVICES if name not in always} == {"pki", "pki-ceremony", "pki-trust", "inbox"}


def test_only_the_core_reaches_its_keys_and_its_database() -> None:
    assert who_has("core-hsm") == {"core", "core-ceremony"}
    assert who_has("core-state") == {"core"}
    assert who_is_on("core-database") == {"core", "postgres-core"}
    assert who_is_on("edge-database") == {"edge", "postgres-edge"}
    assert COMPOSE["networks"]["core-database"] == {"internal": True}
    assert COMPOSE["networks"]["edge-database"] == {"internal": True}


def test_each_caller_has_its_own_socket_and_no_other() -> None:
    assert who_has("edge-socket") == {"core", "edge"}
    assert who_has("gate-socket") == {"core", "gate"}
    assert who_has("operator-socket") == {"core"}
    assert who_has("issuer-socket") == {"core", "pki"}


def test_the_core_alone_writes_the_key_that_the_gate_pins() -> None:
    files = {name: tomllib.loads((ROOT / "deploy" / f"{name}.toml").read_text()) for name in ("core", "gate")}

    assert who_has("token-key") == {"core", "gate"}
    assert "token-key:/var/lib/tok:ro" in SERVICES["gate"]["volumes"]
    assert files["gate"]["token_key_file"] == files["core"]["token_key_file"] == "/var/lib/tok/tok.pem"
    assert SERVICES["gate"]["depends_on"]["core"] == {"condition": "service_healthy"}


def test_agencies_reach_both_faces_of_the_edge() -> None:
    listen = tomllib.loads((ROOT / "deploy" / "edge.toml").read_text())["grpc_listen"]

    published = {port.rpartition(":")[2] for port in SERVICES["edge"]["ports"]}
    assert published == {"8080", listen.rpartition(":")[2]}


def test_zones_share_no_network() -> None:
    for one, other in itertools.combinations(("edge", "gate", "core"), 2):
        assert not set(SERVICES[one]["networks"]) & set(SERVICES[other]["networks"])
    assert SERVICES["core"].get("ports") is None


@pytest.mark.parametrize("name", sorted(OURS))
def test_ours_can_do_little_else(name: str) -> None:
    service = OURS[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "environment" not in service
    assert "privileged" not in service


@pytest.mark.parametrize("name", sorted(name for name in SERVICES if SERVICES[name]["restart"] == "unless-stopped"))
def test_what_stays_up_is_asked_for_its_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["healthcheck"]["start_period"] == "30s"


def test_secrets_are_files() -> None:
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or value.startswith("/run/secrets/")
    for path in (ROOT / "deploy").glob("*.toml"):
        settings = tomllib.loads(path.read_text())
        assert all(
            ":" not in url.split("@")[0].split("//")[1]
            for name, url in settings.items()
            if name == "database_url" and "@" in url
        )


@pytest.mark.parametrize("name", ["edge", "gate", "core"])
def test_secrets_go_to_those_who_name_them(name: str) -> None:
    named = {str(value) for value in tomllib.loads((ROOT / "deploy" / f"{name}.toml").read_text()).values()}
    given = {f"/run/secrets/{secret}" for secret in SERVICES[name].get("secrets", [])}

    assert {value for value in named if value.startswith("/run/secrets/")} == given


@pytest.mark.parametrize("process", sorted(SETTINGS))
def test_each_process_is_given_its_settings(process: str) -> None:
    assert SERVICES[process]["command"] == [process, "--config", f"/etc/rubrica/{process}.toml"]
    assert f"./deploy/{process}.toml" in mounts(process)


def test_every_folder_that_a_volume_covers_is_made_for_our_user() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    covered = {place for name in OURS for place in mounts(name).values() if not place.startswith("/etc/")}

    assert {place for place in covered if f" {place}" not in dockerfile} == set()


def test_the_image_holds_what_the_distribution_lists_and_provisions_as_everybody_does() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]

    for package in (name.removesuffix("*") for name in listed):
        assert f"COPY {package} {package}\n" in dockerfile
    assert "RUN scripts/provision run" in dockerfile
    assert "USER rubrica" in dockerfile


def test_receipts_print_where_the_gate_is_found() -> None:
    settings = {
        name: tomllib.loads((ROOT / "deploy" / f"{name}.toml").read_text()) for name in ("core", "edge", "gate")
    }

    assert settings["core"]["activate_url"] == f"{settings['gate']['public_url']}/activate"
    assert settings["core"]["edge_addresses"] == [f"{settings['edge']['public_url']}/"]
