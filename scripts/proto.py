"""Generates Python from the ``.proto`` files, each result beside its source; ``--check`` only compares.

What is public is generated for the client too, which is a distribution of its own: the same descriptor, so that both
may live in one process.
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = ("api/rpc/proto", "client/rubrica_client/proto")
"""Where the public interface lies, and where the client has it."""


def generate(target: Path) -> list[Path]:
    """Write what protoc makes of every source under ``target``; gives the files' places relative to it."""
    sources = sorted({*ROOT.glob("[a-z]*/proto/*.proto"), *(ROOT / PUBLIC[0]).glob("*.proto")})
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
    (target / PUBLIC[1]).mkdir(parents=True, exist_ok=True)
    for made in (target / PUBLIC[0]).glob("*_pb2*.py*"):
        text = made.read_text(encoding="utf-8").replace("api.rpc.proto", "rubrica_client.proto")
        (target / PUBLIC[1] / made.name).write_text(text, encoding="utf-8")
    return [path.relative_to(target) for path in target.rglob("*_pb2*.py*") if path.is_file()]


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
