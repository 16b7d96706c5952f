"""One HSM worker: a process with one thread, one session, and a socket to the pool that started it."""

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from domain.algorithms import KeyType
from hsm.errors import HSMError, HSMWorkerLost, SessionLost
from hsm.keys import Inventory, MACKey, SigningKey, WrappingKey
from hsm.settings import TokenSettings
from hsm.token import Token
from hsm.wire import Value, read_message, to_frame

# Numbers from linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4

Operation = Callable[..., Value]


def operations(token: Token) -> dict[str, Operation]:
    """What the pool may ask for, by name; arguments and answers are plain values."""

    def generate(kek: str, key_type: str) -> Value:
        pair = token.generate(WrappingKey(kek), KeyType(key_type))
        return [pair.wrapped, pair.spki]

    def sign(wrapped: bytes, spki: bytes, digests: Sequence[bytes], kek_version: int) -> Value:
        return list(token.sign(wrapped, spki, digests, kek_version=kek_version))

    return {
        "mac": lambda key, message, version: token.mac_encoded(MACKey(key), message, version=version),
        "random": token.random,
        "generate": generate,
        "sign": sign,
        "sign_with": lambda key, digest: token.sign_with(SigningKey(key), digest),
        "public_key": lambda key: token.public_key(SigningKey(key)),
        "agree": lambda wrapped, point, version: token.agree(wrapped, point, kek_version=version),
        "seal": token.seal,
        "open": lambda sealed, associated_data, version: token.open(sealed, associated_data, version=version),
    }


def confine() -> None:
    """Leave no memory behind, and let only the parent decide when to end."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    # Signals to the whole group (Ctrl-C, a supervisor's stop) are the parent's to handle: it lets calls finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def die_with(parent: int) -> None:
    """Be killed when the parent ends, however it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the pool is gone")


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def serve(token: Token, connection: socket.socket) -> None:
    """Answer until the pool closes its end or the session with the token is lost."""
    known = operations(token)
    with connection.makefile("rb") as stream:
        while (message := read_message(stream)) is not None:
            answer, going_on = _answer(known, message)
            connection.sendall(to_frame(answer))
            if not going_on:
                return


def _answer(known: dict[str, Operation], message: list[Any]) -> tuple[list[Value], bool]:
    name, *arguments = message
    try:
        return ["ok", known[name](*arguments)], True
    except SessionLost as exc:
        return ["failed", HSMWorkerLost.__name__, str(exc)], False
    except (HSMError, ValueError) as exc:
        return ["failed", type(exc).__name__, str(exc)], True


def main(arguments: Sequence[str]) -> None:
    """Run a worker: settings (JSON), inventory, descriptor of the socket, process id of the pool."""
    settings_json, inventory, descriptor, parent = arguments
    confine()
    connection = socket.socket(fileno=int(descriptor))
    try:
        token = Token.connect(TokenSettings.from_json(settings_json), Inventory(inventory))
    except HSMError as exc:
        connection.sendall(to_frame(["failed", type(exc).__name__, str(exc)]))
        return
    try:
        # Not before the login: SoftHSM writes the token's file then, and a kill in the midst leaves it empty.
        die_with(int(parent))
        connection.sendall(to_frame(["ok", {str(key): version for key, version in token.versions().items()}]))
        serve(token, connection)
    finally:
        token.close()


if __name__ == "__main__":
    main(sys.argv[1:])
