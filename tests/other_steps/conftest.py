"""What the tests of the find steps share: runs that are audited, and several of them at once."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from f.kustomer.shared.errors import KustomerError
from tests.conftest import Body
from tests.standin.kustomer import Fault, Kustomer

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What one run of a step came to: its result or its error, what it asked, and how many it stored."""

    result: Body | None
    error: KustomerError | None
    asked: list[str]
    stored: int

    @property
    def found(self) -> Body:
        """The result; the test fails where there is none."""
        assert self.result is not None, f"the step failed: {self.error!r}"
        return self.result

    @property
    def failed(self) -> KustomerError:
        """The error; the test fails where there is none."""
        assert self.error is not None, f"the step succeeded: {self.result}"
        return self.error


Step = Callable[..., Run]


@dataclass(frozen=True)
class Finder:
    """A step that finds a record by a key, or makes one.

    ``key`` is what it looks by, ``make`` what it takes beside a key to make one, ``sent`` what is posted of both. With
    ``others`` in its body it finds the same one. ``secret`` is a body of which nothing in ``hidden`` may be told.
    ``needed`` is the problem of an empty body, ``wrong`` has one in each field, and ``mistaken`` are names that
    people use for each that is meant. ``conflict`` is said where nothing explains a 409.
    """

    record: str
    step: Callable[[Any, Any], Body]
    shape: type
    key: Body
    make: Body
    sent: Body
    others: Body
    secret: Body
    hidden: list[str]
    needed: tuple[str, str]
    wrong: Body
    mistaken: dict[str, Sequence[str]]
    conflict: str


class Find:
    """A find step and the stand-in that it asks; each run is held against what that has seen and stored."""

    def __init__(self, finder: Finder, kustomer: Kustomer, auth: Body) -> None:
        """Take the step, whom it asks, and a resource whose key may do everything."""
        self.of, self.kustomer, self.auth = finder, kustomer, auth
        # A new conversation is with somebody.
        self.somebody: Body = {"customer": kustomer.customer} if finder.record == "conversation" else {}
        self.body = self.of.key | self.of.make | self.somebody
        self.sent = self.of.sent | self.somebody
        self.nobody = {"id": None, "created": False, **dict.fromkeys(self.somebody)}
        ((name, value),) = self.of.key.items()
        self.post, self.look = f"POST /v1/{finder.record}s", self.look_by(name, value)

    def __call__(self, body: object, **other: object) -> Run:
        """Run the step."""
        requests, before = len(self.kustomer.requests), len(self.stored)
        result, error = None, None
        try:
            result = self.of.step({**self.auth, **other}, body)
        except KustomerError as raised:
            error = raised
        asked = [f"{seen.method} {seen.path}" for seen in self.kustomer.requests[requests:]]
        found = Run(result, error, asked, len(self.stored) - before)
        if result and result["created"]:
            assert result["id"] in {each["id"] for each in self.stored}
        if error:
            assert error.attempts == len(asked)
            assert json.loads(json.dumps(vars(error), allow_nan=False)) == vars(error)
            assert (error.outcome != "not_sent") == any(each.startswith("POST ") for each in asked)
            assert error.outcome == "unknown" or found.stored == 0, "it was stored"
        return found

    def look_by(self, name: str, value: str) -> str:
        """The look-up by one key."""
        return f"GET /v1/{self.of.record}s/{name}={quote(value, safe='')}"

    @property
    def stored(self) -> list[Body]:
        """All that was made."""
        stored: list[Body] = getattr(self.kustomer, f"{self.of.record}s")
        return stored

    @property
    def posted(self) -> list[Body]:
        """The bodies that were posted, as they came over the wire."""
        return [json.loads(seen.body) for seen in self.kustomer.requests if seen.method == "POST"]

    def only(self, created: bool) -> Body:
        """The result that names the one that was made."""
        assert len(self.stored) == 1
        return {"id": self.stored[0]["id"], "created": created, **self.somebody}


def problems(found: Run) -> list[tuple[str | None, str | None]]:
    """What a run that asked nothing says of its input: each path, and what is wrong there."""
    error = found.failed
    assert (type(error).__name__, error.outcome, error.retryable) == ("InvalidInput", "not_sent", False)
    assert found.asked == []
    return [(each["path"], each["title"]) for each in error.errors]


def at_once(*runs: Callable[[], T]) -> list[T]:
    """What runs come to that start together."""
    gate = threading.Barrier(len(runs))

    def started(run: Callable[[], T]) -> T:
        gate.wait()
        return run()

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(started, runs))


def all_look_first(kustomer: Kustomer, *runs: Callable[[], T]) -> list[T]:
    """What runs come to of which each has looked, in vain, before any goes on."""
    kustomer.fault(*[Fault.hang(on="GET")] * len(runs))
    with ThreadPoolExecutor(len(runs)) as pool:
        jobs = [pool.submit(run) for run in runs]
        ends = time.monotonic() + 20
        while len(kustomer.requests) < len(runs) and time.monotonic() < ends:
            threading.Event().wait(0.001)
        kustomer.release()
        return [job.result() for job in jobs]
