"""Reserve before test: an attempt counts as failed from the commit that reserves it until success gives it back.

Counters only grow: ``reserved`` counts attempts, ``forgiven`` marks up to which one they no longer count. A success
forgives what was reserved before it, never what was reserved after, so parallel guesses cannot ride on it.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

PASSWORD_BLOCK_EVERY = 5
PASSWORD_BLOCKS = (timedelta(minutes=15), timedelta(hours=1), timedelta(hours=24))
"""Length of the first, second and third block; after the fourth run of failures only unlocking helps."""
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The counters of one factor."""

    reserved: int = 0
    forgiven: int = 0
    blocked_until: datetime | None = None
    """UTC; ``FOREVER`` after the last block of the ladder."""

    @property
    def failures(self) -> int:
        """Attempts in a row that failed or are still being tested."""
        return self.reserved - self.forgiven

    def is_blocked(self, now: datetime) -> bool:
        """Whether an attempt would not even be tested."""
        return self.blocked_until is not None and now < self.blocked_until

    def reserve(self, now: datetime) -> "Attempts":
        """Count one more attempt; the one that fills a run of five blocks at once, until it proves right.

        Raises:
            ValueError: Blocked; ask ``is_blocked`` first.
        """
        if self.is_blocked(now):
            raise ValueError("blocked")
        attempts = replace(self, reserved=self.reserved + 1, blocked_until=None)
        runs, rest = divmod(attempts.failures, PASSWORD_BLOCK_EVERY)
        if rest:
            return attempts
        if runs > len(PASSWORD_BLOCKS):
            return replace(attempts, blocked_until=FOREVER)
        return replace(attempts, blocked_until=now + PASSWORD_BLOCKS[runs - 1])

    def give_back(self, reservation: int) -> "Attempts":
        """The attempt was never tested: it does not count, unless others were reserved after it."""
        if reservation != self.reserved or reservation == self.forgiven:
            return self
        return replace(self, reserved=self.reserved - 1, blocked_until=None)

    def forgive(self, reservation: int) -> "Attempts":
        """The attempt with number ``reservation`` was right: it and all before it no longer count."""
        attempts = replace(self, forgiven=max(self.forgiven, reservation))
        if attempts.failures < PASSWORD_BLOCK_EVERY:
            return replace(attempts, blocked_until=None)
        return attempts
