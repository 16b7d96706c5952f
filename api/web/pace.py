"""How often one place may ask: counted in this process and forgotten with it, so that no address is ever kept."""

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from api.whereabouts import SITE_BITS, network_of
from domain.clock import Clock
from domain.errors import RateLimited

PLACES_LIMIT = 20_000
"""Places that are remembered; beyond it those are forgotten that have not asked for the longest time."""


@dataclass(frozen=True, slots=True)
class Rule:
    """At most ``most`` times within ``window``."""

    most: int
    window: timedelta


PER_PLACE = (Rule(10, timedelta(minutes=1)), Rule(200, timedelta(days=1)))
"""For an IPv4 address, or an IPv6 network of 64 bits: that is what one line gets."""
PER_SITE = (Rule(60, timedelta(minutes=1)),)
"""For an IPv6 network of 48 bits, which a customer may have, and so 65 536 lines of one's own."""


class Pace:
    """Lets each place ask so often, in a sliding window, and tells others when again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()

    def admit(self, address: str) -> None:
        """Count one question from an IP address; one that is refused does not count.

        Args:
            address: Of the browser; what is no IP address is one place with all others that are none.

        Raises:
            RateLimited: Too many, by any rule.
        """
        now = self._clock.now().timestamp()
        asked = [(self._times(place), rules) for place, rules in _places(address)]
        wait = max(_wait(times, rule, now) for times, rules in asked for rule in rules)
        if wait > 0:
            raise RateLimited("too many questions from one place", retry_after_seconds=math.ceil(wait))
        for times, _ in asked:
            times.append(now)

    def _times(self, place: str) -> deque[float]:
        times = self._asked.setdefault(place, deque(maxlen=max(rule.most for rule in (*PER_PLACE, *PER_SITE))))
        self._asked.move_to_end(place)
        while len(self._asked) > PLACES_LIMIT:
            self._asked.popitem(last=False)
        return times


def _wait(times: deque[float], rule: Rule, now: float) -> float:
    """Seconds until the rule allows one more."""
    if len(times) < rule.most:
        return 0.0
    return max(times[-rule.most] + rule.window.total_seconds() - now, 0.0)


def _places(address: str) -> Iterator[tuple[str, tuple[Rule, ...]]]:
    place, site = network_of(address), network_of(address, SITE_BITS)
    yield place, PER_PLACE
    if site != place:
        yield site, PER_SITE
