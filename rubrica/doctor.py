"""Names what is missing on this machine and the command that mends it."""

import ctypes.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from hsm import ceremony
from hsm.ceremony import TokenState
from hsm.errors import HSMError
from hsm.keys import Inventory
from rubrica.state import SOFTHSM_MODULE, Running, lock, var_folder
from rubrica.up import TOKENS, token_settings

PROVISION = "scripts/provision run"
_NEEDED_BYTES = 200 * 1024 * 1024
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    mend: str = ""
    """The command that mends it; empty where nothing is wrong."""


def main() -> int:
    """Print a line for each thing looked at; 1 if something is missing."""
    console = Console(highlight=False, soft_wrap=True)
    failed = False
    for finding in examine(Path(__file__).resolve().parents[1], var_folder()):
        if finding.mend:
            failed = True
            console.print(f"[red]✗[/] {escape(finding.what)}\n  mend it: {escape(finding.mend)}")
        else:
            console.print(f"[green]✓[/] {escape(finding.what)}")
    return 1 if failed else 0


def examine(project: Path, var: Path) -> Iterator[Finding]:
    """Look at everything that the service on one machine needs; makes ``var`` and changes nothing else."""
    yield _packages(project / "requirements" / "run.txt")
    if SOFTHSM_MODULE.exists():
        yield Finding(f"SoftHSM: {SOFTHSM_MODULE}")
    else:
        yield Finding(f"SoftHSM is missing ({SOFTHSM_MODULE})", PROVISION)
    if ctypes.util.find_library("seccomp") or list(Path("/usr/lib").glob("*/libseccomp.so.2")):
        yield Finding("libseccomp, which shuts parsers in")
    else:
        yield Finding("libseccomp is missing", PROVISION)
    if shutil.which("setpriv") is None:
        yield Finding("setpriv is missing", "apt-get install util-linux")
    yield from _state(var)


def _packages(requirements: Path) -> Finding:
    if not requirements.exists():
        return Finding("installed apart from its sources; the versions are not compared")
    wrong = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        pin = _PIN.match(line)
        if pin is None:
            continue
        try:
            installed = version(pin[1])
        except PackageNotFoundError:
            wrong.append(f"{pin[1]} is missing")
        else:
            if installed != pin[2]:
                wrong.append(f"{pin[1]} is {installed}, not {pin[2]}")
    if wrong:
        return Finding(f"Python packages: {', '.join(wrong)}", PROVISION)
    return Finding("Python packages, as pinned")


def _state(var: Path) -> Iterator[Finding]:
    parent = next(folder for folder in (var, *var.parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        yield Finding(f"{parent} cannot be written to", "RUBRICA_VAR=/some/folder rubrica up")
        return
    free = shutil.disk_usage(parent).free
    if free < _NEEDED_BYTES:
        yield Finding(f"only {free // 1024 // 1024} MiB are free under {parent}", "make clean, or another RUBRICA_VAR")
    else:
        yield Finding(f"state: {var}")
    with lock(var / "up.lock") as held:
        running = None if held is not None else Running.read(var / "up.json")
    if running is not None:
        yield Finding(f"'rubrica {running.owner}' is running: edge {running.edge}, gate {running.gate}")
    for folder in sorted((var / "state").glob("*/initialised")):
        for name, inventory in TOKENS.items():
            yield _token(folder.parent, name, inventory)


def _token(state: Path, name: str, inventory: Inventory) -> Finding:
    try:
        report = ceremony.status(token_settings(state, name), inventory)
    except HSMError as error:
        return Finding(f"token '{name}' of {state}: {error}", f"mv {state} {state}.broken")
    if report.state is TokenState.COMPLETE:
        return Finding(f"token '{name}' of {state}: {len(report.keys)} keys, every attribute as it must be")
    findings = "; ".join(report.findings) or report.state
    return Finding(f"token '{name}' of {state}: {findings}", f"mv {state} {state}.broken")
