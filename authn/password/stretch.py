"""The slow half of a password: Argon2id in a bounded queue."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from domain.errors import Busy

SALT_SIZE_BYTES = 16


@dataclass(frozen=True, slots=True)
class StretchParameters:
    """Cost of one password; stored with each factor, so that a later setting leaves older ones readable."""

    time_cost: int = 2
    memory_kib: int = 19 * 1024

    def __str__(self) -> str:
        # Lanes stay 1: cryptography's Argon2id hangs with more in several threads.
        return f"argon2id,t={self.time_cost},m={self.memory_kib},p=1"


class Stretcher:
    """Runs Argon2id on as many threads as there are cores; whoever finds the queue full is told at once."""

    def __init__(self, *, queue_limit: int = 64, threads: int | None = None) -> None:
        self._executor = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="argon2id")
        self._free_places = queue_limit
        self.runs = 0
        """How many stretches were made."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place in the queue: taken before anything is reserved, so that a full queue costs no attempt.

        Raises:
            Busy: The queue is full.
        """
        if self._free_places == 0:
            raise Busy(
                "too many people are signing in at this moment; try again in a few seconds", retry_after_seconds=5
            )
        self._free_places -= 1
        try:
            yield
        finally:
            self._free_places += 1

    async def stretch(self, password: bytes, salt: bytes, parameters: StretchParameters) -> bytes:
        """Turn a password into 32 bytes that are useless without the HSM's pepper.

        Args:
            password: NFKC-normalised UTF-8.
            salt: 16 random bytes, stored with the factor.
            parameters: As stored with the factor.

        Source: RFC 9106; OWASP's password storage setting (t=2, m=19 MiB, p=1).
        """
        self.runs += 1
        kdf = Argon2id(
            salt=salt, length=32, iterations=parameters.time_cost, lanes=1, memory_cost=parameters.memory_kib
        )
        return await asyncio.get_running_loop().run_in_executor(self._executor, kdf.derive, password)

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)
