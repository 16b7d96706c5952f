"""One process at a time starts on a token."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hsm.errors import TokenUnavailable


@contextmanager
def token_lock(pin_file: Path) -> Iterator[None]:
    """Wait for every other start-up or ceremony on the token with this PIN file, then keep others out.

    The PIN file itself is locked: everyone who starts can open it, and no other file needs a place to be written.

    Raises:
        TokenUnavailable: The PIN file cannot be opened.
    """
    try:
        descriptor = os.open(pin_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise TokenUnavailable(f"the PIN file {pin_file} cannot be read") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
