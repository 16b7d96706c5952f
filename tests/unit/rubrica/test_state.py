import os
import shutil
import socket
import stat
import tomllib
from pathlib import Path

import pytest

from rubrica import state
from rubrica.state import Generation, Running


@pytest.fixture
def var(tmp_path: Path) -> Path:
    return tmp_path / "var"


def ports(generation: Generation) -> dict[str, int]:
    return {name: bound.getsockname()[1] for name, bound in generation.sockets.items()}


def test_a_generation_keeps_its_ports(var: Path) -> None:
    first = Generation.take(var)
    before = ports(first)
    first.close()

    second = Generation.take(var)

    assert (first.folder, before) == (second.folder, ports(second))
    second.close()


def test_each_service_has_a_port_of_its_own_and_edge_and_gate_two_host_names(var: Path) -> None:
    generation = Generation.take(var)

    assert {"edge", "gate", "pki", "inbox", "grpc", "agency"} == set(generation.sockets)
    assert len(set(ports(generation).values())) == 6
    assert generation.url("edge").startswith("http://127.0.0.1:")
    assert generation.url("gate").startswith("http://localhost:")
    generation.close()


def test_the_port_of_grpc_is_kept_for_whoever_shares_it(var: Path) -> None:
    generation = Generation.take(var)
    address = ("127.0.0.1", ports(generation)["grpc"])

    with pytest.raises(OSError, match="in use"):
        socket.create_server(address, reuse_port=False)
    with socket.create_server(address, reuse_port=True), socket.create_connection(address):
        assert generation.grpc == f"127.0.0.1:{address[1]}"
    generation.close()


@pytest.mark.parametrize("service", ["edge", "gate", "inbox", "grpc", "agency"])
def test_a_taken_port_is_replaced_and_the_state_stays(var: Path, service: str) -> None:
    first = Generation.take(var)
    before = ports(first)
    first.close()
    with socket.create_server(("127.0.0.1", before[service])):
        second = Generation.take(var)

        assert second.folder == first.folder
        assert ports(second)[service] != before[service]
        assert ports(second)["pki"] == before["pki"]
    second.close()


def test_a_strangers_pki_port_makes_another_generation_and_the_old_one_comes_back(var: Path) -> None:
    first = Generation.take(var)
    before = ports(first)
    first.close()
    with socket.create_server(("127.0.0.1", before["pki"])):
        second = Generation.take(var)
        assert second.folder != first.folder
        assert ports(second)["pki"] != before["pki"]
        taken = ports(second)["pki"]
        second.close()
    with socket.create_server(("127.0.0.1", taken)):
        third = Generation.take(var)
        assert (third.folder, ports(third)["pki"]) == (first.folder, before["pki"])
        third.close()


def test_a_damaged_memory_of_ports_makes_another_generation(var: Path) -> None:
    first = Generation.take(var)
    first.close()
    (first.folder / "ports.json").write_text("{")

    second = Generation.take(var)

    assert second.folder != first.folder
    second.close()


def test_state_of_other_tables_is_left_alone(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Generation.take(var)
    first.close()
    with monkeypatch.context() as changed:
        changed.setattr(state, "schema", lambda: "other tables")
        second = Generation.take(var)
        second.close()

    third = Generation.take(var)

    assert second.folder != first.folder
    assert third.folder == first.folder
    third.close()


def test_the_schema_is_that_of_every_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = state.schema()
    copied = tmp_path / "project"
    for folder in state._WITH_STATE:
        shutil.copytree(state._PROJECT / folder, copied / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(state, "_PROJECT", copied)
    state.schema.cache_clear()
    assert state.schema() == before
    seen = {before}
    for name in ("audit/log.py", "authn/messages/outbox.py", "signer/tables.py", "api/transactions/tables.py"):
        source = copied / name
        source.write_text(source.read_text().replace("sa.Column(", 'sa.Column("extra", sa.Integer), sa.Column(', 1))
        state.schema.cache_clear()
        assert state.schema() not in seen, name
        seen.add(state.schema())
    state.schema.cache_clear()


def test_nobody_else_gets_the_gates_port_on_the_other_localhost(var: Path) -> None:
    generation = Generation.take(var)
    with socket.socket(socket.AF_INET6) as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("::1", ports(generation)["gate"]))
    generation.close()


def test_state_is_closed_to_other_users(var: Path) -> None:
    generation = Generation.take(var)

    assert stat.S_IMODE(generation.folder.stat().st_mode) == 0o700
    generation.close()


def test_long_paths_get_a_short_folder_for_sockets(tmp_path: Path) -> None:
    generation = Generation.take(tmp_path / ("x" * 90))
    with generation.socket_folder() as folder:
        assert len(os.fsencode(folder / "operator.sock")) < 108
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "operator.sock"))
    assert not folder.exists()
    generation.close()


def test_a_lock_is_held_by_one(var: Path) -> None:
    with state.lock(var / "up.lock") as mine, state.lock(var / "up.lock") as theirs:
        assert mine is not None
        assert theirs is None
    with state.lock(var / "up.lock") as again:
        assert again is not None


def running(pid: int, folder: Path) -> Running:
    return Running(
        owner="up",
        pid=pid,
        edge="http://127.0.0.1:1",
        gate="http://localhost:2",
        pki="http://127.0.0.1:3",
        inbox="http://127.0.0.1:4",
        operator_socket=folder / "operator.sock",
        token_key=folder / "tok.pem",
        trust=folder / "trust",
        state=folder,
        pids={"core": 5},
    )


def test_up_json_reads_as_written(tmp_path: Path) -> None:
    mine = running(os.getpid(), tmp_path)
    mine.write(tmp_path / "up.json")

    assert Running.read(tmp_path / "up.json") == mine


def test_up_json_of_a_dead_process_counts_as_none(tmp_path: Path) -> None:
    running(2**22 + 1, tmp_path).write(tmp_path / "up.json")

    assert Running.read(tmp_path / "up.json") is None
    assert Running.read(tmp_path / "none.json") is None
    (tmp_path / "broken.json").write_text("[]")
    assert Running.read(tmp_path / "broken.json") is None


def test_settings_are_toml(tmp_path: Path) -> None:
    values = {"path": tmp_path / 'a "b" \\ ñ', "number": 3, "flag": True, "list": ["x", "y"]}
    state.write_settings(tmp_path / "s" / "core.toml", values)

    written = tmp_path / "s" / "core.toml"
    assert tomllib.loads(written.read_text()) == {**values, "path": str(values["path"])}
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


async def test_without_a_service_the_operator_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUBRICA_VAR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no 'rubrica up' is running"):
        async with state.operator_channel(None):
            pass
    assert state.var_folder() == tmp_path
