"""Runs campaigns of faults and attacks, one process each; every one writes ``var/drill/<name>.json`` itself.

A campaign is a module of this folder that runs as ``python -m tests.drill.<name> --seed N --out FILE`` and ends with 0
only if everything held.
"""

import argparse
import pkgutil
import secrets
import subprocess
import sys
import time

import tests.drill
from rubrica.state import var_folder


def campaigns() -> list[str]:
    """Their names, in order."""
    return sorted(module.name for module in pkgutil.iter_modules(tests.drill.__path__) if module.name != "__main__")


def main() -> int:
    """Run those named, or all; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="the same seed, the same campaign")
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(campaigns())}; all without one")
    arguments = parser.parse_args()
    folder = var_folder() / "drill"
    folder.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in arguments.names or campaigns():
        target = folder / f"{name}.json"
        command = [sys.executable, "-m", f"tests.drill.{name}", "--seed", str(arguments.seed), "--out", str(target)]
        begun = time.monotonic()
        status = subprocess.run(command, check=False).returncode
        word = "held" if status == 0 else f"FAILED with status {status}"
        print(f"{name}: {word}, seed {arguments.seed}, {time.monotonic() - begun:.1f} s, {target}", flush=True)
        failed = failed or status != 0
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
