"""A clock that tests move."""

from datetime import UTC, datetime, timedelta


class FrozenClock:
    """``domain.clock.Clock`` that stands still until it is told to move."""

    def __init__(self, start: datetime = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
