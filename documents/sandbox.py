"""The process from which limited children are forked: ``python -m documents.sandbox CONTROL_FD JOBS_MODULE``.

It loads the parsers once and meets no stranger's byte itself, so that a child costs a fork and not a start of Python.
A child has one document, one connection to its parent, bounded memory and time, and no right to a socket, a file name
or a program.
"""

import asyncio
import encodings
import errno
import gc
import importlib
import logging
import os
import pkgutil
import resource
import signal
import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from types import FrameType, ModuleType

import pyseccomp

from documents import preview, wire
from documents.jobs import Channel, OutOfTime
from documents.model import PAdESOptions, TrustMaterial, XAdESOptions
from documents.pades import trust
from documents.pades.prepare import prepare
from documents.validate import validate
from documents.xades import prepare as xades_prepare
from domain.items import Packaging

_CONTROL_MESSAGE_BYTES = 4096
_KILLED_AFTER_SECONDS = 2
"""Between the signal that a child can still answer and the one that it cannot."""

# Network and ways round it; names of files; other programs and processes; the kernel's larger attack surfaces.
_FORBIDDEN = (
    *("socket", "connect", "bind", "listen", "accept", "accept4"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("open", "openat", "openat2", "creat", "open_by_handle_at", "name_to_handle_at", "truncate"),
    *("unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("mkdir", "mkdirat", "rmdir", "mknod", "mknodat", "chmod", "fchmodat", "chown", "lchown", "fchownat"),
    *("execve", "execveat", "fork", "vfork", "clone", "clone3"),
    *("kill", "tkill", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "pidfd_send_signal"),
    *("mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "bpf", "perf_event_open", "userfaultfd"),
    *("setrlimit", "prlimit64"),  # root could lift its limits again
    *("keyctl", "add_key", "request_key", "personality", "shmget", "msgget", "semget", "mq_open"),
)

_PRELOADED = ("pyhanko.pdf_utils", "pyhanko.sign", "pyhanko_certvalidator", "asn1crypto", "cryptography", "documents")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use."""

    memory_bytes: int = 512 * 1024 * 1024
    """Address space (RLIMIT_AS), of which the loaded parsers take some 100 MiB."""
    cpu_seconds: int = 20
    file_bytes: int = 128 * 1024 * 1024
    """Largest file that it may leave behind; the worker sets it from its limit for documents."""
    descriptors: int = 32


def restrict(limits: Limits) -> None:
    """Give up, for ever, what a parser does not need; the order matters, as the filter forbids its own making."""
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + _KILLED_AFTER_SECONDS))
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, limits.descriptors)
    _limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGXCPU, _out_of_time)
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    # All threads at once: without it, those that older libraries started would keep their rights.
    rules.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)
    for name in _FORBIDDEN:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    # asyncio wakes itself through a pair of stream sockets; any other kind could be sent to an address.
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        rules.add_rule(
            pyseccomp.ERRNO(errno.EPERM), "socketpair", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xF, int(kind))
        )
    rules.load()  # sets no_new_privs


def serve(control: socket.socket, jobs: ModuleType) -> None:
    """Fork a child for every message on ``control`` until its other end closes; then nobody of the group survives."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    logging.disable()  # parsers quote documents; a child has nobody to tell anyway
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _CONTROL_MESSAGE_BYTES, 2)
        if not message:
            break
        if os.fork() == 0:
            control.close()
            _work(message, descriptors, jobs)
        for descriptor in descriptors:
            os.close(descriptor)
    os.killpg(0, signal.SIGKILL)


def preload() -> None:
    """Import all that the parsers would import on their way, since a child can open no file."""
    for root in _PRELOADED:
        package = importlib.import_module(root)
        for found in pkgutil.walk_packages(package.__path__, f"{root}.", onerror=lambda _name: None):
            if not found.name.endswith("__main__") and found.name != __spec__.name:
                _import(found.name)
    for found in pkgutil.iter_modules(encodings.__path__, "encodings."):
        _import(found.name)
    # Some modules read files when they are first used: time zones, for one.
    document = BytesIO(_smallest_pdf())
    moment = datetime.now(UTC)
    prepare(document, PAdESOptions(signing_time=moment))
    validate(document, TrustMaterial(()), moment)
    preview.warm_up(document)
    options = XAdESOptions(packaging=Packaging.ENVELOPED, mime_type="application/xml")
    xades_prepare.prepare(BytesIO(b"<a/>"), options)
    validate(BytesIO(b"<a/>"), TrustMaterial(()), moment)
    trust.run(asyncio.sleep(0))


def _smallest_pdf() -> bytes:
    body = b"%PDF-1.7\n"
    offsets = []
    for number, content in enumerate(
        (
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
        ),
        start=1,
    ):
        offsets.append(len(body))
        body += b"%d 0 obj%sendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(body)
    return body + b"xref\n0 4\n0000000000 65535 f \n" + table + trailer


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except (ImportError, RuntimeError, OSError, ValueError):
        # Parts for which an optional library, or another operating system, would be needed.
        return


def _work(message: bytes, descriptors: list[int], jobs: ModuleType) -> None:
    """The child's whole life."""
    try:
        connection = socket.socket(fileno=descriptors[0])
        # The parent can end exactly this process, whatever becomes of its number.
        own = os.pidfd_open(os.getpid())
        socket.send_fds(connection, [b"\0"], [own])
        os.close(own)
        restrict(wire.from_plain(Limits, wire.message_of(message)))
        jobs.run(Channel(connection), descriptors[1])
    finally:
        os._exit(0)


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTime


if __name__ == "__main__":
    preload()
    serve(socket.socket(fileno=int(sys.argv[1])), importlib.import_module(sys.argv[2]))
