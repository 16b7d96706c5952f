"""A worker with faults: what a token or an operating system does at the worst moment, on demand.

Started like ``hsm.worker`` by a pool whose ``worker_module`` names this module.
"""

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pkcs11

from hsm import session as session_module
from hsm import worker
from hsm.errors import SessionLost
from hsm.token import Token
from hsm.wire import Value

LOGINS = "RUBRICA_TEST_LOGINS"
"""Environment variable: a file that gets one line for each time a PIN is tried."""


JOURNAL = "RUBRICA_TEST_JOURNAL"
"""Environment variable: a file that gets one line, the digest, for each signature that a token is asked for."""


class FaultyToken(Token):
    """Flips the last bit of every raw signature, as a failing device might; and keeps a journal."""

    flipping = False

    def _sign_raw(self, key: Any, public_key: Any, digest: bytes) -> bytes:
        if JOURNAL in os.environ:
            with Path(os.environ[JOURNAL]).open("a") as file:
                file.write(f"{digest.hex()}\n")
        signature = super()._sign_raw(key, public_key, digest)
        return signature[:-1] + bytes([signature[-1] ^ 1]) if self.flipping else signature


def operations(token: Token) -> dict[str, worker.Operation]:
    """The real ones and the faults."""

    def flip(on: bool) -> Value:
        FaultyToken.flipping = on
        return None

    def sleep(seconds: float, mark: Value = None) -> Value:
        time.sleep(seconds)
        return mark

    def die() -> Value:
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    def lose_session() -> Value:
        raise SessionLost("the token failed (DeviceRemoved)")

    def peek() -> Value:
        status = Path("/proc/self/status").read_text()
        threads = next(line for line in status.splitlines() if line.startswith("Threads:"))
        objects = len(list(token._session.get_objects({pkcs11.Attribute.TOKEN: False})))
        return {"threads": int(threads.split()[1]), "session_objects": objects}

    def traces() -> Value:
        # PR_GET_DUMPABLE is 3 in linux/prctl.h.
        return {"dumpable": ctypes.CDLL(None).prctl(3), "core_bytes": max(resource.getrlimit(resource.RLIMIT_CORE))}

    faults: dict[str, worker.Operation] = {"flip": flip, "sleep": sleep, "die": die, "lose_session": lose_session}
    return {**real_operations(token), **faults, "peek": peek, "traces": traces}


real_operations = worker.operations
real_open_session = session_module.open_session


def open_session(token: pkcs11.Token, pin: str, *, writing: bool) -> pkcs11.Session:
    """The real one, counted."""
    if LOGINS in os.environ:
        with Path(os.environ[LOGINS]).open("a") as file:
            file.write("login\n")
    return real_open_session(token, pin, writing=writing)


def main(arguments: Sequence[str]) -> None:
    """A worker with the faults in place."""
    worker.Token = FaultyToken  # type: ignore[attr-defined]  # patched on purpose
    worker.operations = operations
    session_module.open_session = open_session
    worker.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
