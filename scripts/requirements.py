"""Compiles ``requirements/*.txt`` from ``pyproject.toml`` and ``APART``, or checks that they are what is asked for.

Each file pins every distribution by version and hash and names no index, so that it can be installed from any mirror.
Its first line holds a digest of what it was compiled from: the check needs no network.
"""

import argparse
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
RUNNING = ("edge", "core", "pki")
"""Extras of the processes."""
FILES = {
    # The largest first: the others are held to its versions, so that any two fit into one environment.
    "dev": (*RUNNING, "test", "docs", "dev"),
    "test": (*RUNNING, "test"),
    "run": RUNNING,
    "docs": ("docs",),
    "edge": ("edge",),
    "core": ("core",),
    "pki": ("pki",),
}
APART = {
    # An environment of its own: versions and a licence (GPL) that the product does not want.
    "tests/interop/endesive/requirements.txt": ["endesive>=3.0,<3.1", "pypdf>=5.9,<6"],
}
TAKEN_EARLY = {"fastapi": "2026-11-19"}
"""Last week's releases wait, for nobody has looked at them yet; these were looked at, and count up to that day."""
FOREIGN = re.compile(r"https?://|file:|--find-links|--index|--extra-index|--trusted-host|(?:^|\s)/\w")


def wanted(extras: tuple[str, ...]) -> list[str]:
    """What ``extras`` ask for, with what every process needs, the client's own needs and the build tool."""
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8"))
    found = {*ours["build-system"]["requires"], *client["build-system"]["requires"]}
    found |= {*ours["project"]["dependencies"], *client["project"]["dependencies"]}
    for extra in extras:
        found |= set(ours["project"]["optional-dependencies"][extra])
    return sorted(found)


def digest_of(needs: list[str]) -> str:
    """The digest in a file's first line."""
    return hashlib.sha256(json.dumps(needs).encode()).hexdigest()


def first_line(needs: list[str]) -> str:
    """A file's first line."""
    return f"# Made by 'make requirements' from {digest_of(needs)}"


def compile_file(target: Path, needs: list[str], *, upgrade: bool) -> None:
    """Resolve ``needs`` and write ``target``."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "-", "--quiet", "--no-config"]
    command += ["--python-version", "3.11", "--python-platform", "linux", "--only-binary", ":all:", "--generate-hashes"]
    command += [
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-emit-build-options",
    ]
    week_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=7)
    command += ["--exclude-newer", week_ago.strftime("%Y-%m-%dT00:00:00Z")]
    for package, day in TAKEN_EARLY.items():
        command += ["--exclude-newer-package", f"{package}={day}"]
    if target.parent == FOLDER and target.name != "dev.txt":
        command += ["--constraints", str(FOLDER / "dev.txt")]
    environment = {key: value for key, value in os.environ.items() if key != "UV_FIND_LINKS"}
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / target.name
        if target.exists() and not upgrade:
            shutil.copy(target, compiled)  # what is pinned stays pinned while it fits
        command += ["--output-file", str(compiled)]
        subprocess.run(command, input="\n".join(needs), check=True, text=True, env=environment, cwd=ROOT)
        text = re.sub("^#.*\n", "", compiled.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if FOREIGN.search(text):
        raise SystemExit(f"{target.name}: the compiled text names an index or a path of this machine")
    target.write_text(f"{first_line(needs)}\n{text}", encoding="utf-8")


def stale(target: Path, needs: list[str]) -> bool:
    """Whether ``target`` was compiled from something else, or by hand."""
    return not target.exists() or target.read_text(encoding="utf-8").partition("\n")[0] != first_line(needs)


def main() -> int:
    """Compile, or with ``--check`` only compare; 1 if something is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which files are stale")
    parser.add_argument("--upgrade", action="store_true", help="take newer versions within the ranges")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    needs = {FOLDER / f"{name}.txt": wanted(extras) for name, extras in FILES.items()}
    needs |= {ROOT / name: wishes for name, wishes in APART.items()}
    if not arguments.check:
        for target, wishes in needs.items():
            compile_file(target, wishes, upgrade=arguments.upgrade)
        return 0
    old = [target for target, wishes in needs.items() if stale(target, wishes)]
    for target in old:
        print(f"{target.relative_to(ROOT)} is stale: run 'make requirements'", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    raise SystemExit(main())
