"""How many requests an organisation may make within a minute, all its integrations and agents together.

developer.kustomer.com/docs/concepts/rate-limits
"""

import math
from dataclasses import dataclass

# The requests of an Enterprise organisation within a window of 60 seconds.
ORG_LIMIT = 1000
WINDOW = 60


@dataclass
class Window:
    """Counts what falls within one window of 60 seconds, which starts with the first thing counted."""

    start: float = -math.inf
    used: int = 0

    def take(self, limit: int, now: float) -> bool:
        """Count one more at `now` (epoch seconds), unless the limit is used up."""
        if not self.start <= now < self.start + WINDOW:
            self.start, self.used = now, 0
        if self.used >= limit:
            return False
        self.used += 1
        return True


class Budget:
    """The organisation's limit, which its agents use up beside the callers: so many requests a minute, evenly spread.

    `agents_refused` counts the requests of agents that found nothing left, and `lowest` is the fewest requests that
    were left after any caller's.
    """

    def __init__(self, limit: int, agents: int) -> None:
        """Start with nothing used up."""
        self.limit, self.agents = limit, agents
        self.clear()

    def clear(self) -> None:
        """Forget what was counted."""
        self.agents_refused = 0
        self.lowest = self.limit
        self._window = Window()
        self._agents_until: float | None = None

    @property
    def remaining(self) -> int:
        """How many requests are left in this window."""
        return max(0, self.limit - self._window.used)

    @property
    def resets(self) -> int:
        """When the window ends, in whole epoch seconds, not before it does."""
        return math.ceil(self._window.start + WINDOW)

    def take(self, now: float) -> bool:
        """Count a caller's request at `now` (epoch seconds), unless the limit is used up."""
        self.let_agents_work(now)
        within = self._window.take(self.limit, now)
        self.lowest = min(self.lowest, self.remaining)
        return within

    def let_agents_work(self, now: float) -> None:
        """Count what the agents have asked for until `now`; what they did windows ago counts no more."""
        if not self.agents:
            return
        if self._agents_until is None:
            self._agents_until = now
        every = WINDOW / self.agents
        self._agents_until = max(self._agents_until, now - 2 * WINDOW)
        while self._agents_until + every <= now:
            self._agents_until += every
            self.agents_refused += not self._window.take(self.limit, self._agents_until)
