"""What a parser taken over by a document might try; stands in for ``documents.jobs`` in a limited child."""

import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from documents import sandbox
from documents.jobs import Channel, OutOfTime
from tests.testkit import hostile_calls

_LIBC = ctypes.CDLL(None, use_errno=True)
_IO_URING_SETUP = 425


def run(channel: Channel, descriptor: int) -> None:
    """Do the mischief that the job names."""
    job = channel.receive()
    try:
        channel.send({"result": _MISCHIEF[job["name"]](channel, descriptor)})
    except MemoryError:
        channel.send({"error": {"code": "document_too_large", "detail": "out of memory"}})
    except OutOfTime:
        channel.send({"error": {"code": "document_too_large", "detail": "out of time"}})


def _attempts(_channel: Channel, _descriptor: int) -> dict[str, str]:
    """Try each, and tell how it went: ``done`` or the name of the error."""
    tries: dict[str, Callable[[], object]] = {
        "stream pair": socket.socketpair,  # allowed: asyncio needs it
        "inet socket": lambda: socket.socket(socket.AF_INET),
        "unix socket": lambda: socket.socket(socket.AF_UNIX),
        "datagram pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        "read a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "write a file": lambda: os.open("/tmp/mischief", os.O_CREAT | os.O_WRONLY),  # noqa: S108 - must fail
        "remove a file": lambda: os.unlink("/tmp/mischief"),  # noqa: S108, PTH108 - must fail
        "run a program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - must fail
        "fork": os.fork,
        "thread": lambda: threading.Thread(target=print).start(),
        "kill the parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
        "io_uring": _io_uring,
        "more descriptors": lambda: [os.dup(0) for _ in range(200)],
        "raise the limit": lambda: __import__("resource").setrlimit(7, (4096, 4096)),
    }
    return {name: _outcome(attempt) for name, attempt in tries.items()}


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (OSError, RuntimeError, ValueError) as error:
        return type(error).__name__
    return "done"


def _io_uring() -> None:
    if _LIBC.syscall(_IO_URING_SETUP, 1, ctypes.create_string_buffer(256)) < 0:
        raise OSError(ctypes.get_errno(), "io_uring")


def _calls(_channel: Channel, descriptor: int) -> dict[str, dict[str, str]]:
    return {
        "numbers": hostile_calls.try_numbers(sandbox.ALLOWED),
        "arguments": hostile_calls.try_with_arguments(descriptor),
        "own": hostile_calls.try_own(),
    }


def _abort(_channel: Channel, _descriptor: int) -> int:
    """As the C libraries of parsers do, when memory is out."""
    os.abort()


def _eat_memory(_channel: Channel, _descriptor: int) -> int:
    return len([bytes(1 << 20) for _ in range(100_000)])


def _loop(_channel: Channel, _descriptor: int) -> int:
    number = 0
    while True:
        number += 1


def _loop_deaf(_channel: Channel, _descriptor: int) -> int:
    """As C code would, that never comes back to Python."""
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    return _loop(_channel, _descriptor)


def _sleep(_channel: Channel, _descriptor: int) -> int:
    time.sleep(3600)
    return 0


def _die(_channel: Channel, _descriptor: int) -> int:
    ctypes.string_at(0)
    return 0


def _leave(_channel: Channel, _descriptor: int) -> int:
    os._exit(0)


def _babble(channel: Channel, _descriptor: int) -> int:
    channel._connection.sendall(b"\0\0\0\x05[oops")
    return 0


def _shout(channel: Channel, _descriptor: int) -> int:
    channel._connection.sendall(b"\xff\xff\xff\xff")
    return 0


def _pretend(channel: Channel, _descriptor: int) -> int:
    channel.send({"error": {"code": "caller_refused", "detail": "go away"}})
    return 0


def _other_shape(channel: Channel, _descriptor: int) -> int:
    channel.send({"result": {"pages": "many"}})
    return 0


def _ask_for_ever(channel: Channel, _descriptor: int) -> dict[str, int]:
    answers = {"fetched": 0, "unavailable": 0}
    for number in range(100):
        channel.send({"fetch": {"kind": "crl", "url": f"http://x/{number}", "body": None}})
        (outcome,) = channel.receive()
        answers[outcome] += 1
    return answers


def _ask_nonsense(channel: Channel, _descriptor: int) -> int:
    channel.send({"fetch": {"kind": "shell", "url": "http://x", "body": None}})
    return len(channel.receive())


def _write_much(_channel: Channel, descriptor: int) -> str:
    try:
        for _ in range(64):
            os.write(descriptor, bytes(1 << 20))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "done"


def _environment(_channel: Channel, _descriptor: int) -> list[str]:
    return sorted(os.environ)


_MISCHIEF: dict[str, Callable[[Channel, int], object]] = {
    "attempts": _attempts,
    "calls": _calls,
    "abort": _abort,
    "memory": _eat_memory,
    "loop": _loop,
    "loop-deaf": _loop_deaf,
    "sleep": _sleep,
    "die": _die,
    "leave": _leave,
    "babble": _babble,
    "shout": _shout,
    "pretend": _pretend,
    "other-shape": _other_shape,
    "ask-for-ever": _ask_for_ever,
    "ask-nonsense": _ask_nonsense,
    "write-much": _write_much,
    "environment": _environment,
}
