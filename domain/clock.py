"""Time is an argument: whoever needs it is given a clock."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time; always UTC and aware."""

    def now(self) -> datetime:
        """The present moment."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present moment."""
        return datetime.now(UTC)


def to_epoch_seconds(moment: datetime) -> int:
    """Whole seconds since 1970, as every binding and token has them."""
    return int(moment.timestamp())
