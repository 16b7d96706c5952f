"""The process from which limited children are forked: ``python -m documents.sandbox CONTROL_FD JOBS_MODULE``.

It loads the parsers once and meets no stranger's byte itself, so that a child costs a fork and not a start of Python.
A child has one document, one connection to its parent, bounded memory and time, and no right to a socket, a file name
or a program.
"""

import asyncio
import ctypes
import encodings
import errno
import fcntl
import gc
import importlib
import logging
import os
import pkgutil
import resource
import signal
import socket
import struct
import sys
import termios
from contextlib import suppress
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

# All that a child may ask of the kernel, as measured over the tests and over what glibc's allocator, abort and threads
# do besides. A name that is not here is refused: files by name, sockets, programs, other processes, and whatever
# later kernels add. ``restrict`` adds those that arguments decide.
ALLOWED = (
    # Its document and its connection, which are open already. Not ``newfstatat``, which takes names too: Python does
    # without the answer.
    *("read", "pread64", "readv", "write", "pwrite64", "writev", "lseek", "close", "fstat"),
    *("fsync", "fdatasync", "ftruncate", "recvfrom", "getsockname", "getpeername", "getsockopt", "shutdown"),
    *("epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6"),
    *("brk", "mmap", "munmap", "mremap", "mprotect", "madvise"),
    *("futex", "sched_yield", "exit", "exit_group", "restart_syscall"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    *("clock_gettime", "clock_getres", "gettimeofday", "time", "clock_nanosleep", "nanosleep", "getrandom"),
    *("getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getcwd", "getrusage", "sysinfo"),
)
# ``F_SETOWN``, for one, would let a descriptor send signals to any process of the same user.
_FCNTL = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL)
_IOCTL = (termios.TCGETS, termios.FIONBIO, termios.FIOCLEX)
_SOCKET_TYPE_MASK = 0xF

_NOBODY = 65534
_CAPABILITY_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3: sets of 64 bits."""

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
    niceness: int = 0
    """How far it stands back for other processes (``nice``)."""


def restrict(limits: Limits) -> None:
    """Give up, for ever, what a parser does not need; the order matters, as the filter forbids its own making."""
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + _KILLED_AFTER_SECONDS))
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, limits.descriptors)
    _limit(resource.RLIMIT_CORE, 0)
    os.nice(limits.niceness)
    signal.signal(signal.SIGXCPU, _out_of_time)
    _give_up_identity()
    # Refused, not killed: libraries look for fonts or read /proc in passing, and manage without.
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    # All threads at once: without it, those that older libraries started would keep their rights.
    rules.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)
    for name in ALLOWED:
        rules.add_rule(pyseccomp.ALLOW, name)
    for name, commands in (("fcntl", _FCNTL), ("ioctl", _IOCTL)):
        for command in commands:
            rules.add_rule(pyseccomp.ALLOW, name, _is(1, command))
    rules.add_rule(pyseccomp.ALLOW, "tgkill", _is(0, os.getpid()))  # abort() of the C library
    rules.add_rule(pyseccomp.ALLOW, "sched_getaffinity", _is(0, 0))
    rules.add_rule(pyseccomp.ALLOW, "sendto", _is(4, 0))  # to the other end, not to an address
    # asyncio wakes itself through a pair of stream sockets; any other kind could be sent to an address.
    stream = pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _SOCKET_TYPE_MASK, int(socket.SOCK_STREAM))
    rules.add_rule(pyseccomp.ALLOW, "socketpair", _is(0, int(socket.AF_UNIX)), stream)
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


def _give_up_identity() -> None:
    """Be nobody, where we may choose, and hold no capability; open descriptors stay.

    A root that cannot become another, as in a user namespace of one, keeps its name without its power.
    """
    if os.geteuid() == 0:
        with suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    if libc.capset(header, bytes(2 * 3 * 4)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _is(index: int, value: int) -> pyseccomp.Arg:
    """The argument ``index`` of a call is ``value``."""
    return pyseccomp.Arg(index, pyseccomp.EQ, value)


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTime


if __name__ == "__main__":
    preload()
    serve(socket.socket(fileno=int(sys.argv[1])), importlib.import_module(sys.argv[2]))
