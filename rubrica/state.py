"""What ``rubrica up`` and ``rubrica demo`` keep under ``var/``: locks, generations of state, ports, and who runs now.

A *generation* is one whole little deployment: two tokens, databases, settings, ports. The address of the PKI stands
inside the certificates it issued, so its port belongs to its generation for good. If a stranger holds that port,
another generation is taken, or a new one made; the old one stays and is used again when its port is free. So it is when
tables or keys have changed with the program: this state is for development and knows no migration.
"""

import ast
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import grpc

SOFTHSM_MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
"""Where Debian puts it."""
HOSTS: Mapping[str, str] = MappingProxyType(
    # Cookies are per host, not per port: edge and gate need two names even on one machine.
    {
        "edge": "127.0.0.1",
        "gate": "localhost",
        "pki": "127.0.0.1",
        "inbox": "127.0.0.1",
        "grpc": "127.0.0.1",
        "agency": "127.0.0.1",
    }
)
_KEPT_ONLY = "grpc"
"""Who serves this one listens by itself: the port is bound here so that nobody else gets it."""
_PROJECT = Path(__file__).resolve().parents[1]
_WITH_STATE = ("api", "audit", "authn", "certs", "hsm", "signer")
_PORTS = range(20000, 32000)
"""Below the range from which the kernel takes ports for outgoing connections."""
_SOCKET_PATH_LIMIT = 100
"""Bytes; the kernel's own limit for the path of a Unix socket is 107."""


def var_folder() -> Path:
    """``var/`` of the project, or what ``RUBRICA_VAR`` names."""
    given = os.environ.get("RUBRICA_VAR")
    return Path(given).resolve() if given else _PROJECT / "var"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Where a running service is found; kept in ``var/up.json``."""

    owner: str
    """The command that started it: ``up`` or ``demo``."""
    pid: int
    edge: str
    gate: str
    pki: str
    inbox: str
    operator_socket: Path
    token_key: Path
    """Public key TOK, PEM: what clients pin."""
    trust: Path
    """Folder with ``root.pem``, ``ca.pem``, ``root.crl`` and ``ca.crl``, all PEM."""
    state: Path
    """The generation's folder."""
    pids: Mapping[str, int]
    grpc: str = ""
    """Host and port of the edge's gRPC API."""
    agency: str = ""
    """The example of an agency's site; empty where there is none."""

    def write(self, path: Path) -> None:
        """Put it where ``read`` finds it, whole or not at all."""
        write_atomically(path, json.dumps(asdict(self), default=str, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What was written last; ``None`` if nothing was or its process is gone."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            os.kill(fields["pid"], 0)
            paths = {name: Path(fields[name]) for name in ("operator_socket", "token_key", "trust", "state")}
            return cls(**{**fields, **paths})
        except (OSError, ValueError, KeyError, TypeError):
            return None


@contextlib.contextmanager
def lock(path: Path) -> Iterator[int | None]:
    """Hold ``path`` alone; gives the lock's descriptor, or ``None`` if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


@dataclass(slots=True)
class Generation:
    """One deployment on this machine, with its sockets bound."""

    folder: Path
    sockets: dict[str, socket.socket]
    _guards: list[socket.socket] = field(default_factory=list)

    @property
    def grpc(self) -> str:
        """Host and port of the edge's gRPC API."""
        return f"{HOSTS['grpc']}:{self.sockets['grpc'].getsockname()[1]}"

    @property
    def marker(self) -> Path:
        """There once the key ceremonies of both tokens are over."""
        return self.folder / "initialised"

    def url(self, service: str) -> str:
        """The service's address, without a slash at the end."""
        return f"http://{HOSTS[service]}:{self.sockets[service].getsockname()[1]}"

    def close(self) -> None:
        """Give the ports back."""
        for held in (*self.sockets.values(), *self._guards):
            held.close()

    @classmethod
    def take(cls, var: Path) -> Self:
        """The last used generation that fits and whose PKI port is free, or a new one; the other ports may change."""
        parent = var / "state"
        parent.mkdir(parents=True, exist_ok=True)
        folders = [path.parent for path in parent.glob("*/ports.json")]
        for folder in sorted(folders, key=lambda folder: (folder / "ports.json").stat().st_mtime_ns, reverse=True):
            ports = _read_ports(folder, schema())
            bound = _bind(ports["pki"]) if "pki" in ports else None
            if bound is not None:
                return cls._with_sockets(folder, ports, {"pki": bound})
        number = max((int(path.name) for path in parent.iterdir() if path.name.isdecimal()), default=0) + 1
        folder = parent / str(number)
        folder.mkdir(mode=0o700)
        return cls._with_sockets(folder, {}, {})

    @classmethod
    def _with_sockets(cls, folder: Path, ports: Mapping[str, int], sockets: dict[str, socket.socket]) -> Self:
        for service in HOSTS:
            if service not in sockets:
                remembered = _bind(ports[service], service) if service in ports else None
                sockets[service] = remembered or _bind_any(service)
        taken = cls(folder, sockets)
        if socket.has_ipv6:
            # 'localhost' may mean ::1 to a browser; nobody else shall answer there on the gate's port.
            with contextlib.suppress(OSError):
                guard = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
                guard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                guard.bind(("::1", sockets["gate"].getsockname()[1]))
                taken._guards.append(guard)
        numbers = {service: bound.getsockname()[1] for service, bound in sockets.items()}
        write_atomically(folder / "ports.json", json.dumps({**numbers, "schema": schema()}) + "\n")
        return taken

    @contextlib.contextmanager
    def socket_folder(self) -> Iterator[Path]:
        """A folder for Unix sockets that only this user can open, with a path that is short enough."""
        folder = self.folder / "run"
        if len(os.fsencode(folder / "operator" / "core.sock")) <= _SOCKET_PATH_LIMIT:
            folder.mkdir(mode=0o700, exist_ok=True)
            yield folder
        else:
            with tempfile.TemporaryDirectory(prefix="rubrica-") as short:
                yield Path(short)


@functools.cache
def schema() -> str:
    """A digest of every table's definition and of the tokens' inventory: of their text, so that nothing is loaded."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in _WITH_STATE for path in (_PROJECT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name == "inventory.py":
            digest.update(ast.unparse(ast.parse(text)).encode())
        elif "sa.Table(" in text:
            calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
            tables = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "Table")
            digest.update("".join(map(ast.unparse, tables)).encode())
    return digest.hexdigest()


def _read_ports(folder: Path, fitting: str) -> dict[str, int]:
    try:
        ports = json.loads((folder / "ports.json").read_text(encoding="utf-8"))
        return {name: int(ports[name]) for name in HOSTS if name in ports} if ports["schema"] == fitting else {}
    except (OSError, ValueError, KeyError):
        return {}


def _bind(port: int, service: str = "") -> socket.socket | None:
    bound = _bound(port)
    if bound is None or service != _KEPT_ONLY:
        return bound
    # It is free. Now so that it may be bound again, by another process of this user.
    port = bound.getsockname()[1]
    bound.close()
    kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        kept.bind(("127.0.0.1", port))
    except OSError:
        kept.close()
        return None
    return kept


def _bound(port: int) -> socket.socket | None:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Connections of an earlier run that still linger are no reason to move; a listener is.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
        bound.listen(128)
    except OSError:
        bound.close()
        return None
    bound.set_inheritable(True)
    return bound


def _bind_any(service: str) -> socket.socket:
    for _ in range(200):
        bound = _bind(secrets.choice(_PORTS), service)
        if bound is not None:
            return bound
    bound = _bind(0, service)
    if bound is None:
        raise OSError(f"no port is free for {service}")
    return bound


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write ``text`` so that a reader sees the old file or the new one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 -- a descriptor has no Path
        file.write(text)
    Path(name).chmod(mode)
    Path(name).replace(path)


def write_settings(path: Path, values: Mapping[str, object]) -> None:
    """Write a TOML file of plain values, in which JSON's and TOML's notations agree."""
    lines = [f"{name} = {json.dumps(value, default=str, ensure_ascii=False)}\n" for name, value in values.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(lines))


def operator_channel(path: Path | None) -> contextlib.AbstractAsyncContextManager["grpc.aio.Channel"]:
    """``caller_channel`` to the operator's socket."""
    return caller_channel("operator", path)


@contextlib.asynccontextmanager
async def caller_channel(caller: str, path: Path | None) -> AsyncIterator["grpc.aio.Channel"]:
    """A channel to one of the core's sockets.

    Args:
        caller: Whose socket: ``operator`` or ``auditor``.
        path: The socket; ``None`` means that of the running ``rubrica up``.

    Raises:
        FileNotFoundError: Nothing is running here; the text is for who typed the command.
    """
    import grpc

    if path is None:
        running = Running.read(var_folder() / "up.json")
        if running is None:
            raise FileNotFoundError(f"no 'rubrica up' is running here; name the core's {caller} socket with --socket")
        path = running.operator_socket.parent.parent / caller / "core.sock"
    if not path.exists():
        raise FileNotFoundError(f"there is no socket {path}")
    async with grpc.aio.insecure_channel(f"unix:{path.resolve()}") as channel:
        yield channel
