"""What a press child might do if a template or parser took it over; named to ``Press(work=…)`` in place of its own."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping

from documents import wire
from documents.jobs import Channel

_ATTEMPTS: Mapping[str, Callable[[], object]] = {
    "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "datagrams": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "database": lambda: sqlite3.connect("/tmp/none.db").execute("create table t (a)"),  # noqa: S108 - never made
    "reading": lambda: open("/etc/hostname", "rb").read(),  # noqa: PTH123, SIM115 - the system call is the point
    "writing": lambda: os.open("/tmp/none", os.O_CREAT | os.O_WRONLY),  # noqa: S108 - never made
    "program": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "fork": os.fork,
}


def make(channel: Channel, _templates: Mapping[str, bytes]) -> None:
    """Try everything; tell by the answer, in place of a PDF, what worked."""
    channel.receive()
    worked = []
    for name, attempt in _ATTEMPTS.items():
        try:
            attempt()
        except (OSError, sqlite3.Error):
            continue
        worked.append(name)
    environment = ",".join(sorted(os.environ))
    channel.send({"digest": wire.to_plain(bytes(32))})
    channel.receive()
    channel.send({"pdf": wire.to_plain(f"worked={','.join(worked)} environment={environment}".encode())})
