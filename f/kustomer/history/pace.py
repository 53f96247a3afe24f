"""History pace.

Shared by the steps that import old messages, not run by itself: when the next request may be sent, so that the
organisation's agents and other integrations keep their share of its limit, and when a job has to end.
"""

import time
from collections.abc import Callable, Mapping

from f.kustomer.shared.client import until_reset

# https://developer.kustomer.com/docs/concepts/rate-limits
WINDOW_SECONDS = 60.0
# That of the smallest plan that is documented, for an organisation that doesn't tell its own.
SMALLEST_LIMIT = 300
# Others who import at the same time may send before their answers say what is left: so much of the limit stays.
MARGIN = 0.01
# What others send in so many seconds tells how much they will.
STEADY_SECONDS = 10.0
# Nobody waits longer for a sign of life.
TICK_SECONDS = 5.0
# A job that has to end by itself does so a little before, as what is under way then takes a while.
LAST_SECONDS = 30.0


class Clock:
    """Tells the time of an import; tests hold it."""

    def now(self) -> float:
        """Return a time in seconds that only goes forward."""
        return time.monotonic()


clock = Clock()


class TimeIsUp(Exception):
    """The job has to end now."""


class Pace:
    """Spreads requests over each minute so that ``keep``, a share of the organisation's limit, is left to others.

    What is left is told by every answer, so that several workers need not know of each other:
    https://developer.kustomer.com/docs/concepts/rate-limits
    """

    def __init__(
        self, keep: float, seconds: float | None = None, tick: Callable[[int | None], None] = lambda _: None
    ) -> None:
        """Take the share to keep, the seconds that the job may take, and what to call every few seconds.

        That is called with the requests that are left in this minute, or None where nobody has told.
        """
        self._keep, self._tick = keep, tick
        self._ends = None if seconds is None else clock.now() + seconds - min(LAST_SECONDS, max(seconds, 0) / 10)
        self._ticked = clock.now()
        self.limit = SMALLEST_LIMIT
        self.remaining: int | None = None
        self._resets = clock.now() + WINDOW_SECONDS
        self._sent = self._seen = -WINDOW_SECONDS
        self._others = 0.0  # how many requests a second all others send

    def wait(self) -> None:
        """Wait until a request may be sent. Raise TimeIsUp."""
        while (seconds := self._next() - clock.now()) > 0:
            self._sleep_once(seconds)
        self._check()
        self._sent = clock.now()

    def sleep(self, seconds: float) -> None:
        """Wait so long. Raise TimeIsUp."""
        until = clock.now() + seconds
        while (left := until - clock.now()) > 0:
            self._sleep_once(left)

    def see(self, headers: Mapping[str, str]) -> None:
        """Note what the headers of an answer say of the limit."""
        limit, remaining = _count(headers.get("x-ratelimit-limit")), _count(headers.get("x-ratelimit-remaining"))
        self.limit = limit or self.limit
        if remaining is None:
            return
        if self.remaining is None or remaining > self.remaining:
            self._resets = clock.now() + WINDOW_SECONDS - self._begun_before(remaining)
        else:
            seconds = max(clock.now() - self._seen, 0.1)
            rate = max(self.remaining - remaining - 1, 0) / seconds
            self._others += (rate - self._others) * min(seconds / STEADY_SECONDS, 1)
        self.remaining, self._seen = remaining, clock.now()
        reset = until_reset(headers, time.time())
        if reset is not None and 0 < reset <= WINDOW_SECONDS:
            self._resets = clock.now() + reset

    def _begun_before(self, remaining: int) -> float:
        """Return how long a window has likely lasted that was first seen now, by what others have used of it."""
        used = max(self.limit - remaining - 1, 0)
        return min(used / self._others, WINDOW_SECONDS) - 1 if self._others else 0.0

    def _next(self) -> float:
        """Return when the next request may be sent."""
        if clock.now() >= self._resets:
            self.remaining = None
            self._resets = clock.now() + WINDOW_SECONDS
        if self.remaining is None:  # one request tells
            return self._sent + WINDOW_SECONDS / (SMALLEST_LIMIT * (1 - self._keep))
        # Others have gone on sending since the last answer.
        expected = self.remaining - self._others * (clock.now() - self._seen)
        free = expected - self.limit * (self._keep + MARGIN)
        if free < 1:
            return self._resets
        return min(self._sent + (self._resets - self._sent) / free, self._resets)

    def _sleep_once(self, seconds: float) -> None:
        self._check()
        time.sleep(min(seconds, TICK_SECONDS))

    def _check(self) -> None:
        """Give a sign of life when it is time for one. Raise TimeIsUp."""
        if clock.now() - self._ticked >= TICK_SECONDS:
            self._ticked = clock.now()
            self._tick(self.remaining)
        if self._ends is not None and clock.now() >= self._ends:
            raise TimeIsUp


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 else None
