"""Real SoftHSM tokens in temporary folders: one ceremony per test process, a copy for each test.

``core_token(tmp_path)`` and ``pki_token(tmp_path)`` give ``TokenSettings`` for a complete token with its own keys.
Within one test process all copies hold the same keys.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from hsm.ceremony import initialise, initialise_token
from hsm.keys import Inventory
from hsm.settings import TokenSettings

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")

_templates = tempfile.TemporaryDirectory(prefix="rubrica-tokens-")
atexit.register(_templates.cleanup)


def core_token(directory: Path) -> TokenSettings:
    """A complete token "core" below ``directory``."""
    return _copy(Inventory.CORE, directory)


def pki_token(directory: Path) -> TokenSettings:
    """A complete token "pki" below ``directory``."""
    return _copy(Inventory.PKI, directory)


def empty_token(directory: Path, label: str = "core") -> TokenSettings:
    """A token with PINs and without keys below ``directory``."""
    settings = token_settings(directory / f"hsm-{label}", label)
    initialise_token(settings)
    return settings


def token_settings(folder: Path, label: str) -> TokenSettings:
    """Where everything of one SoftHSM token lies."""
    return TokenSettings(MODULE, label, folder / "pin", folder / "softhsm2.conf")


def _copy(inventory: Inventory, directory: Path) -> TokenSettings:
    original = _template(inventory)
    folder = directory / f"hsm-{inventory}"
    shutil.copytree(original, folder)
    conf = folder / "softhsm2.conf"
    conf.write_text(conf.read_text().replace(str(original), str(folder)))
    return token_settings(folder, inventory)


@cache
def _template(inventory: Inventory) -> Path:
    settings = empty_token(Path(_templates.name), inventory)
    initialise(settings, inventory)
    return settings.pin_file.parent
