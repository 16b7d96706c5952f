"""PKCS#11 modules and threads do not go together: only workers, ceremonies and the PKI may load one."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Whoever imports one of these loads python-pkcs11.
LOADING = {"pkcs11", "hsm.token", "hsm.inventory", "hsm.session", "hsm.worker", "hsm.keymaking"}

# With one PKCS#11 thread of its own: the PKI, which is a process apart.
ALLOWED = ("certs/pki/", "rubrica/pki.py")

SAFE = [f"hsm.{name}" for name in ("vault", "keys", "errors", "settings", "ceremony", "pool", "token_vault", "wire")]


def forbidden_imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in LOADING or name.startswith("pkcs11."))


def test_no_process_with_threads_imports_what_loads_a_module() -> None:
    found = {}
    seen = 0
    for package in ("signer", "authn", "audit", "certs", "domain", "api", "documents", "rubrica", "client"):
        for path in (ROOT / package).rglob("*.py"):
            relative = path.relative_to(ROOT).as_posix()
            if not relative.startswith(ALLOWED):
                seen += 1
                found[relative] = list(forbidden_imports(path.read_text()))
    assert seen > 20
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pkcs11",
        "import pkcs11.util.ec",
        "from pkcs11.util import ec",
        "from hsm.token import Token",
        "from hsm import token",
        "def f():\n    from hsm.worker import serve",
    ],
)
def test_each_way_to_import_it_is_seen(line: str) -> None:
    assert list(forbidden_imports(f"from hsm.pool import HSMPool\n{line}\n"))


def test_ports_and_pool_load_no_module() -> None:
    script = f"import sys, {', '.join(SAFE)}; print(sorted({LOADING!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_worker_does_load_it() -> None:
    script = "import sys, hsm.worker; print('pkcs11' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "True"
