"""Generates Python from the ``.proto`` files, each result beside its source; ``--check`` only compares."""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(target: Path) -> list[Path]:
    """Write what protoc makes of every source under ``target``; gives the files' places relative to it."""
    sources = sorted(ROOT.glob("[a-z]*/proto/*.proto"))
    outcome = protoc.main(
        [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *(str(source) for source in sources),
        ]
    )
    if outcome:
        raise SystemExit(outcome)
    return [path.relative_to(target) for path in target.rglob("*") if path.is_file()]


def main() -> int:
    """Generate, or compare; 1 if a file that is kept differs from what its source gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        stale = [
            path
            for path in generate(target)
            if not (ROOT / path).exists() or (ROOT / path).read_bytes() != (target / path).read_bytes()
        ]
    for path in stale:
        print(f"{path} is stale: run 'make proto'", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
