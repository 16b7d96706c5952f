"""Runs every benchmark, prints a table and writes ``var/bench.json``.

A benchmark is a module of this folder whose ``run()`` gives mappings with ``name``, ``value`` and ``unit``, and where
there is something to compare with, measured in the same run, ``peer``, ``peer_value`` and ``ratio`` (ours over theirs).
"""

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

import benchmarks
from rubrica.state import var_folder, write_atomically

FIELDS = ("name", "value", "unit", "peer", "peer_value", "ratio")


def modules() -> list[str]:
    """Names of the benchmarks, in order."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")


def table(measures: Sequence[Mapping[str, Any]]) -> Table:
    """What was measured, for people."""
    shown = Table("what", "value", "unit", "peer", "peer's value", "ratio")
    for column in (1, 4, 5):
        shown.columns[column].justify = "right"
    for measure in measures:
        shown.add_row(*(_cell(measure[field]) for field in FIELDS))
    return shown


def _cell(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> int:
    """Run those named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(modules())}; all without one")
    names = parser.parse_args().names or modules()
    measures: list[dict[str, Any]] = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        found = importlib.import_module(f"benchmarks.{name}").run()
        measures += [{field: measure.get(field) for field in FIELDS} for measure in found]
    console = Console(soft_wrap=not sys.stdout.isatty())
    console.print(table(measures))
    target = var_folder() / "bench.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, json.dumps(measures, indent=2, ensure_ascii=False) + "\n", mode=0o644)
    console.print(str(target))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
