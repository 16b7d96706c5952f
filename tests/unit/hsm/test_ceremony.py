"""Key ceremonies: once, whole, and after an interruption either taken up again or refused with a way out."""

import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsm.ceremony import TokenState, initialise, initialise_token, status
from hsm.errors import HSMError, InventoryMismatch, PINRefused, TokenUnavailable
from hsm.keys import Inventory, SigningKey
from hsm.settings import TokenSettings
from tests.testkit.softhsm import core_token, empty_token, token_settings
from tests.testkit.token_acts import act, start


def key_files(settings: TokenSettings) -> dict[Path, bytes]:
    # SoftHSM writes token.object at every login.
    files = (settings.pin_file.parent / "tokens").glob("*/*.object")
    return {path: path.read_bytes() for path in files if path.name != "token.object"}


def test_from_nothing_to_complete_and_then_left_alone(tmp_path: Path) -> None:
    settings = token_settings(tmp_path / "core", "core")
    assert status(settings, Inventory.CORE).state is TokenState.ABSENT
    assert initialise_token(settings)
    assert not initialise_token(settings)
    assert status(settings, Inventory.CORE).state is TokenState.EMPTY
    first = initialise(settings, Inventory.CORE)
    assert (first.state, first.made) == (TokenState.COMPLETE, True)
    keys = key_files(settings)
    pairs = {SigningKey.TOKENS, SigningKey.SEAL, SigningKey.LOG}
    assert len(keys) == len(first.keys) + len(pairs), "a pair is two objects"
    again = initialise(settings, Inventory.CORE)
    assert (again.state, again.made) == (TokenState.COMPLETE, False)
    assert keys == key_files(settings)


def test_pins_are_random_and_closed_to_others(tmp_path: Path) -> None:
    pins = set()
    for name in ("one", "two"):
        settings = empty_token(tmp_path / name)
        for path in (settings.pin_file, settings.pin_file.with_suffix(".so")):
            assert path.stat().st_mode & 0o777 == 0o400
            pins.add(path.read_text())
        assert (settings.pin_file.parent / "tokens").stat().st_mode & 0o077 == 0
    assert len(pins) == 4
    assert {len(bytes.fromhex(pin)) for pin in pins} == {16}


def test_ceremony_needs_a_token(tmp_path: Path) -> None:
    settings = token_settings(tmp_path / "core", "core")
    with pytest.raises(TokenUnavailable):
        initialise(settings, Inventory.CORE)
    without_conf = TokenSettings(settings.module, "core", settings.pin_file)
    with pytest.raises(HSMError, match="only SoftHSM"):
        initialise_token(without_conf)


def test_status_of_what_is_gone(tmp_path: Path) -> None:
    settings = empty_token(tmp_path)
    shutil.rmtree(settings.pin_file.parent / "tokens")
    with pytest.raises(TokenUnavailable, match="the folder it names"):
        status(settings, Inventory.CORE)
    assert settings.conf_path is not None
    settings.conf_path.unlink()
    report = status(settings, Inventory.CORE)
    assert (report.state, report.findings) == (TokenState.ABSENT, (f"there is no file {settings.conf_path}",))


def test_ceremonies_at_once_make_one_token(tmp_path: Path) -> None:
    settings = token_settings(tmp_path / "core", "core")
    with ThreadPoolExecutor() as threads:
        assert sorted(threads.map(initialise_token, [settings] * 4)) == [False, False, False, True]
        reports = list(threads.map(initialise, [settings] * 3, [Inventory.CORE] * 3))
    assert [report.state for report in reports] == [TokenState.COMPLETE] * 3
    assert sum(report.made for report in reports) == 1
    names = sorted(path.name for path in settings.pin_file.parent.iterdir())
    assert names == ["pin", "pin.so", "softhsm2.conf", "tokens"]


def test_ceremony_refuses_a_token_with_foreign_or_loosened_keys(tmp_path: Path) -> None:
    settings = core_token(tmp_path)
    act(settings, "remake", "KEK_1", {"DECRYPT": True})
    with pytest.raises(InventoryMismatch, match=r"KEK_1 \(secret key\): CKA_DECRYPT is off.*restore its backup"):
        initialise(settings, Inventory.CORE)
    report = status(settings, Inventory.CORE)
    assert report.state is TokenState.REFUSED
    assert report.findings == ("KEK_1 (secret key): CKA_DECRYPT is off",)


@pytest.mark.parametrize("lacking", [("SEAL_1", "LOG_1"), ("LOG_1",)])
def test_token_of_an_earlier_version_is_refused_and_completed(tmp_path: Path, lacking: tuple[str, ...]) -> None:
    settings = core_token(tmp_path)
    before = key_files(settings)
    for label in lacking:
        assert act(settings, "destroy", label) == 2
    older = key_files(settings)
    report = status(settings, Inventory.CORE)
    assert report.state is TokenState.REFUSED
    assert report.findings[: 2 * len(lacking)] == tuple(
        f"{label} ({half} key): missing" for label in lacking for half in ("private", "public")
    )
    assert "`rubrica hsm init` adds what is missing" in "; ".join(report.findings)

    completed = initialise(settings, Inventory.CORE)

    assert (completed.state, completed.made) == (TokenState.COMPLETE, True)
    files = key_files(settings)
    assert len(files) == len(before)
    assert {path: files[path] for path in older} == older, "no other key is touched"


@pytest.mark.parametrize("lacking", [("K_idx_1", "SEAL_1", "LOG_1"), ("TOK_1", "LOG_1"), ("SEAL_1",)])
def test_no_token_is_completed_that_no_version_made(tmp_path: Path, lacking: tuple[str, ...]) -> None:
    settings = core_token(tmp_path)
    for label in lacking:
        act(settings, "destroy", label)
    keys = key_files(settings)
    with pytest.raises(InventoryMismatch, match=f"{lacking[0]}.*missing"):
        initialise(settings, Inventory.CORE)
    assert key_files(settings) == keys


def test_status_with_a_wrong_pin(tmp_path: Path) -> None:
    settings = core_token(tmp_path)
    settings.pin_file.chmod(0o600)
    settings.pin_file.write_text("not the PIN")
    with pytest.raises(PINRefused):
        status(settings, Inventory.CORE)


@pytest.mark.parametrize("keys_made", [0, 1, 9])
def test_killed_ceremony_is_refused_and_says_what_to_do(tmp_path: Path, keys_made: int) -> None:
    settings = empty_token(tmp_path)
    child = start(settings, "ceremony_killed_after", keys_made)
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    report = status(settings, Inventory.CORE)
    if keys_made == 0:
        assert report.state is TokenState.EMPTY
    else:
        assert report.state is TokenState.REFUSED
        assert "TOK_1 (private key): missing" in report.findings
        with pytest.raises(InventoryMismatch, match=r"interrupted.*begin again with `rubrica hsm init`") as refused:
            initialise(settings, Inventory.CORE)
        assert str(settings.pin_file.parent / "tokens") in str(refused.value)
        shutil.rmtree(settings.pin_file.parent / "tokens")
        settings.pin_file.unlink()
        settings.pin_file.with_suffix(".so").unlink()
        initialise_token(settings)
    assert initialise(settings, Inventory.CORE).state is TokenState.COMPLETE


def test_empty_object_file_left_by_a_kill_is_seen(tmp_path: Path) -> None:
    settings = core_token(tmp_path)
    keys = list(key_files(settings))
    (keys[0].parent / "stray.object").touch()
    assert "stray.object: an empty object file" in status(settings, Inventory.CORE).findings
    (keys[0].parent / "stray.object").unlink()
    keys[0].write_bytes(b"")
    assert status(settings, Inventory.CORE).state is TokenState.REFUSED


def test_killed_making_of_a_token_is_taken_up_again(tmp_path: Path) -> None:
    settings = token_settings(tmp_path / "core", "core")
    child = start(settings, "token_making_killed")
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    assert status(settings, Inventory.CORE).state is TokenState.ABSENT
    assert initialise_token(settings)
    assert initialise(settings, Inventory.CORE).made


def test_token_file_cut_off_at_its_birth_does_not_block(tmp_path: Path) -> None:
    settings = token_settings(tmp_path / "core", "core")
    stub = tmp_path / "core" / "tokens" / "00000000-0000-0000-0000-000000000000"
    stub.mkdir(parents=True)
    (stub / "token.object").touch()
    assert initialise_token(settings)
    with pytest.raises(InventoryMismatch, match="an empty object file"):
        initialise(settings, Inventory.CORE)
    shutil.rmtree(stub)
    assert initialise(settings, Inventory.CORE).made
