"""What the tests of the wire share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# What a busy machine may take beyond a limit.
SLACK = 1.0


@contextmanager
def ends(least: float, most: float) -> Iterator[None]:
    """Hold that what is done inside takes so many seconds, give or take a busy machine."""
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started < most + SLACK
