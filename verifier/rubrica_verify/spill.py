"""Records by key, more of them than memory holds: what belongs together comes back together and in order."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

PER_BUCKET = 40_000
"""Records that a bucket should have in the end; this many are in memory at a time, as Python objects."""
_MOST_BUCKETS = 4096


class Spill:
    """Takes records; gives them in buckets. All records of one key are in one bucket, in the order they came.

    Up to a limit they stay in memory; beyond it they go to files without a name for others, in a folder that goes away.
    """

    def __init__(self, expected: int, scratch: Path | None, limit_bytes: int = 24 * 1024 * 1024) -> None:
        """Begin.

        Args:
            expected: How many records may come.
            scratch: Folder for files; ``None`` takes the system's.
            limit_bytes: What stays in memory.
        """
        self._buckets = [bytearray() for _ in range(min(_MOST_BUCKETS, expected // PER_BUCKET + 1))]
        self._scratch = scratch
        self._limit_bytes = limit_bytes
        self._held = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, key: bytes, record: bytes) -> None:
        """Take a record.

        Raises:
            OSError: The scratch folder does not take it.
        """
        self._buckets[hash(key) % len(self._buckets)] += record
        self._held += len(record)
        if self._held > self._limit_bytes:
            self._write()

    def buckets(self) -> Iterator[bytes]:
        """Every bucket that has records, each as one string of them.

        Raises:
            OSError: The scratch folder cannot be read.
        """
        for number, held in enumerate(self._buckets):
            written = b""
            if self._folder is not None and self._file(number).exists():
                written = self._file(number).read_bytes()
            if written or held:
                yield written + bytes(held)

    def _write(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="rubrica-verify-", dir=self._scratch)
        for number, held in enumerate(self._buckets):
            if held:
                with self._file(number).open("ab") as file:
                    file.write(held)
                held.clear()
        self._held = 0

    def _file(self, number: int) -> Path:
        assert self._folder is not None  # noqa: S101 - only asked where there is one
        return Path(self._folder.name) / str(number)
