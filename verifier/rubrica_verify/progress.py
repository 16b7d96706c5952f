"""A line on a terminal that tells how far a long run has come."""

import time
from typing import TextIO

_PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 0.2
_WIDTH = 30


class Progress:
    """Shows nothing on what is no terminal, and nothing in the first second."""

    def __init__(self, stream: TextIO, total: int) -> None:
        """Begin.

        Args:
            stream: Where the line goes.
            total: Leaves to do.
        """
        self._stream = stream if stream.isatty() and total else None
        self._total = total
        self._begun = time.monotonic()
        self._next = self._begun + _PATIENCE_SECONDS
        self._shown = False

    def at(self, done: int) -> None:
        """So many leaves are done."""
        now = time.monotonic()
        if self._stream is None or now < self._next:
            return
        self._next, self._shown = now + _PAUSE_SECONDS, True
        share = done / self._total
        left = (now - self._begun) * (1 - share) / share if done else 0
        bar = "#" * int(share * _WIDTH)
        self._stream.write(f"\r[{bar:<{_WIDTH}}] {share:4.0%} {done:,} leaves, {left:.0f} s to go \x1b[K")
        self._stream.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._stream is not None and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
