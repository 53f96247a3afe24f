"""History jobs.

Shared by the steps that import old messages, not run by itself: creates many records by Kustomer's bulk jobs, each
once, at a pace that leaves the organisation's agents and other integrations their share of its limit. Sending and
repeating are the client's; here a bulk job is submitted, waited for, and its results are read.

https://developer.kustomer.com/docs/guides/bulk-operations
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from f.kustomer.history.notes import Notes
from f.kustomer.history.plan import MAX_BYTES, Plan, batches
from f.kustomer.history.rows import texts
from f.kustomer.shared.advice import reasons, sentence
from f.kustomer.shared.client import Run, dig, start, until_reset
from f.kustomer.shared.errors import KustomerError, OddAnswer, RateLimited, RecordKind, Redactor, Rejected
from f.kustomer.shared.inputs import to_json

# https://developer.kustomer.com/docs/concepts/rate-limits
WINDOW_SECONDS = 60.0
# That of the smallest plan that is documented, for an organisation that doesn't tell its own.
SMALLEST_LIMIT = 300
# Others who import at the same time may send before their answers say what is left: so much of the limit stays.
MARGIN = 0.01
# Nobody waits longer for a sign of life.
TICK_SECONDS = 5.0
# A job that has to end by itself does so a little before, as what is under way then takes a while.
LAST_SECONDS = 30.0
# How long a bulk job takes is not documented: the first one is asked for after so long, the others after what it took.
FIRST_POLL_SECONDS = 2.0
SHORTEST_POLL_SECONDS = 0.25
SLOWEST_POLL_SECONDS = 30.0
# A bulk job of a hundred items that takes longer is stuck.
PATIENCE_SECONDS = 900.0
# What was recorded so long ago, look-ups and lists show; no page says how soon they do.
SETTLE_SECONDS = 60.0
# What a look-up that fails means for an import.
KEPT = "What was recorded so far stays."
STUCK = "A bulk job of Kustomer's has not ended within a quarter of an hour"
# What is wrong with one item of a request; any other refusal is one of the request, the key or the address.
OF_AN_ITEM = (400, 409, 413, 422)

T = TypeVar("T")
Bodies = Mapping[str, dict[str, Any]]


class Clock:
    """Tells the time of an import; tests hold it."""

    def now(self) -> float:
        """Return a time in seconds that only goes forward."""
        return time.monotonic()


clock = Clock()


class TimeIsUp(Exception):
    """The job has to end now."""


class Unsettled(Exception):
    """What has become of what was submitted nobody can tell yet, so that nothing is sent after it."""


class Pace:
    """Spreads requests over each minute so that ``keep``, a share of the organisation's limit, is left to others.

    What is left is told by every answer, so that several workers need not know of each other:
    https://developer.kustomer.com/docs/concepts/rate-limits
    """

    def __init__(self, keep: float, seconds: float | None, tick: Callable[[int | None], None]) -> None:
        """Take the share to keep, the seconds that the job may take, and what to call every few seconds.

        That is called with the requests that are left in this minute, or None where nobody has told.
        """
        self._keep, self._tick = keep, tick
        self._ends = None if seconds is None else clock.now() + seconds - min(LAST_SECONDS, max(seconds, 0) / 10)
        self._ticked = clock.now()
        self.limit = SMALLEST_LIMIT
        self.remaining: int | None = None
        self._resets = clock.now() + WINDOW_SECONDS
        self._sent = -WINDOW_SECONDS

    @property
    def seconds_left(self) -> float | None:
        """How long the job may still take; None is as long as it needs."""
        return None if self._ends is None else self._ends - clock.now()

    def wait(self) -> None:
        """Wait until a request may be sent. Raise TimeIsUp."""
        while (seconds := self._next() - clock.now()) > 0:
            self.sleep(seconds)
        self._check()
        self._sent = clock.now()

    def sleep(self, seconds: float) -> None:
        """Wait so long. Raise TimeIsUp."""
        until = clock.now() + seconds
        while (rest := until - clock.now()) > 0:
            self._check()
            time.sleep(min(rest, TICK_SECONDS))

    def see(self, headers: Mapping[str, str]) -> None:
        """Note what the headers of an answer say of the limit."""
        limit, remaining = _count(headers.get("x-ratelimit-limit")), _count(headers.get("x-ratelimit-remaining"))
        self.limit = limit or self.limit
        if remaining is None:
            return
        if self.remaining is None or remaining > self.remaining:
            self._resets = clock.now() + WINDOW_SECONDS
        self.remaining = remaining
        reset = until_reset(headers, time.time())
        if reset is not None and 0 < reset <= WINDOW_SECONDS:
            self._resets = clock.now() + reset

    def _next(self) -> float:
        """Return when the next request may be sent."""
        if clock.now() >= self._resets:
            self.remaining = None
            self._resets = clock.now() + WINDOW_SECONDS
        if self.remaining is None:  # one request tells
            return self._sent + WINDOW_SECONDS / (SMALLEST_LIMIT * (1 - self._keep))
        free = self.remaining - self.limit * (self._keep + MARGIN)
        if free < 1:
            return self._resets
        return min(self._sent + (self._resets - self._sent) / free, self._resets)

    def _check(self) -> None:
        """Give a sign of life when it is time for one. Raise TimeIsUp."""
        if clock.now() - self._ticked >= TICK_SECONDS:
            self._ticked = clock.now()
            self._tick(self.remaining)
        if self._ends is not None and clock.now() >= self._ends:
            raise TimeIsUp


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 else None


class Kind(NamedTuple):
    """A kind of record that bulk jobs create: its collection, and how the client speaks of it."""

    collection: str
    record: RecordKind


class Results(NamedTuple):
    """What has become of items, by reference: the ids in Kustomer of those created, and why others are refused."""

    created: dict[str, str]
    refused: dict[str, str]


# Returns the ids in Kustomer of those that are there, by reference.
Look = Callable[[Iterable[str]], dict[str, str]]

BULK = RecordKind("bulk", role="org.permission.bulk.read", not_sent_text=KEPT)


class BulkJobs:
    """Bulk jobs of one part of an import, one at a time, at its pace and with its notes."""

    def __init__(self, auth: object, plan: Plan, pace: Pace, notes: Notes) -> None:
        """Take the key, the rows that it is about, the pace and the notes."""
        self._auth, self._plan, self.pace, self.notes = auth, plan, pace, notes
        self.requests = 0
        self._poll = FIRST_POLL_SECONDS
        self._room = MAX_BYTES
        self._texts: list[str] = []  # of what was submitted last, which Kustomer may repeat

    def call(self, kind: RecordKind, ask: Callable[[Run], T], hidden: Iterable[str] = ()) -> T:
        """Send one thing when its time has come; wait on while the limit is used up, as long as there is time.

        ``hidden`` are texts that stay out of errors and logs. Raise KustomerError, or TimeIsUp.
        """
        while True:
            self.pace.wait()
            run = start(self._auth, kind)
            run.hide(*self._texts, *hidden)
            if self.pace.seconds_left is not None:
                run.hurry(self.pace.seconds_left)
            try:
                return ask(run)
            except RateLimited as limited:
                wait = limited.retry_after or WINDOW_SECONDS
            finally:
                self.pace.see(run.headers)
                self.requests += run.requests
            self.pace.sleep(wait)

    def listed(self, kind: RecordKind, path: str) -> list[dict[str, Any]]:
        """Read the attributes of a whole list, each with its id, at the import's pace. Raise KustomerError, TimeIsUp.

        Of what has no attributes, itself is read.
        """

        def read(run: Run) -> list[dict[str, Any]]:
            items, pages = [], run.requests
            for each in run.list(path):
                if run.requests > max(pages, 1):
                    pages = run.requests
                    self.pace.see(run.headers)
                    self.pace.wait()
                about = each.get("attributes", each)
                if not isinstance(about, dict):
                    raise OddAnswer(f"Kustomer's list of {kind.name}s has items without attributes. {KEPT}")
                items.append({**about, "id": each.get("id")})
            return items

        return self.call(kind, read)

    def create(self, kind: Kind, bodies: Iterable[tuple[str, dict[str, Any]]], look: Look) -> Iterator[Results]:
        """Create these by bulk jobs, one after the other, and yield what has become of each one's items.

        Each body comes with its reference, the number of a row that it is of. ``look`` finds those that are there,
        where Kustomer doesn't say it. Raise KustomerError, TimeIsUp, or Unsettled, after all that is known was yielded.
        """
        for batch in batches(bodies, _size, lambda: self._room):
            yield from self._create_batch(kind, dict(batch), look)

    def _create_batch(self, kind: Kind, bodies: Bodies, look: Look) -> Iterator[Results]:
        """Create these by one bulk job, or by several where Kustomer refuses them together."""
        rows = [self._plan.message(int(ref)) for ref in bodies]
        self._texts = [text for row in rows for text in texts(row)]
        self.notes.submitting(kind.collection, map(int, bodies), (row.thread_id for row in rows))
        try:
            job = self._submit(kind, bodies)
        except TimeIsUp:
            self.notes.under_way = None
            raise
        except KustomerError as error:
            failure = error
        else:
            self.notes.submitted(job)
            results, over = self._wait(job, bodies.keys())
            why = "Kustomer doesn't say what became of a bulk job" if over else STUCK
            yield from self._settled(bodies, results, over, look, why)
            return
        if failure.outcome == "unknown":
            said = "; ".join(map(sentence, failure.errors)) or str(failure).partition(". ")[0]
            why = f"Whether Kustomer has taken the last bulk job is not known ({said})"
            yield from self._settled(bodies, Results({}, {}), True, look, why)
            return
        self.notes.under_way = None
        # A refusal that gives no reason is the request's, the key's or the address's, and no item's.
        if failure.status not in OF_AN_ITEM or not (failure.errors or failure.status == 413):
            raise failure
        yield from self._create_halves(kind, bodies, look, failure)

    def _submit(self, kind: Kind, bodies: Bodies) -> str:
        items = [{**body, "_clientRef": ref} for ref, body in bodies.items()]
        answer, _ = self.call(kind.record, lambda run: run.create(f"/v1/{kind.collection}/bulk", body=items))
        return str(answer["data"]["id"])

    def _create_halves(self, kind: Kind, bodies: Bodies, look: Look, refusal: KustomerError) -> Iterator[Results]:
        """Find out which of the items Kustomer refuses, by sending each half of them."""
        if len(bodies) == 1:
            why = "; ".join(sentence(each) for each in refusal.errors) or str(refusal)
            yield Results({}, dict.fromkeys(bodies, why))
            return
        if refusal.status == 413:
            self._room = sum(map(_size, bodies.items())) // 2
        refs, half = list(bodies), len(bodies) // 2
        for each in refs[:half], refs[half:]:
            yield from self._create_batch(kind, {ref: bodies[ref] for ref in each}, look)

    def _settled(self, bodies: Bodies, results: Results, over: bool, look: Look, why: str) -> Iterator[Results]:
        """Yield what has become of all items, looking for those of which nothing is told.

        Raise Unsettled, which says ``why``, where two looks, a minute apart, don't show all of them.
        """
        untold = [ref for ref in bodies if ref not in results.created.keys() | results.refused.keys()]
        self.notes.settled(untold, over)
        yield results
        for pause in 0, SETTLE_SECONDS:
            if untold:
                self.pace.sleep(pause)
                there = look(untold)
                untold = [ref for ref in untold if ref not in there]
                self.notes.settled(untold, over, looked=True)
                yield Results(there, {})
        if untold:
            raise Unsettled(why)

    def ends(self, job: str) -> bool:
        """Wait until a bulk job is over, as long as one may take, and tell whether it is. Raise KustomerError."""
        started, pause = clock.now(), FIRST_POLL_SECONDS / 2
        while not (over := self._over(job)) and clock.now() - started <= PATIENCE_SECONDS:
            self.pace.sleep(pause)
            pause = min(pause * 1.5, SLOWEST_POLL_SECONDS)
        return over

    def _wait(self, job: str, refs: Iterable[str]) -> tuple[Results, bool]:
        """Wait for a bulk job: return what it tells of its items, and whether it is over."""
        started = clock.now()
        self.pace.sleep(self._poll)
        results = self._results(job, refs)
        # A quick one has told of all its items by now, and needs not be asked whether it is over.
        if results.created.keys() | results.refused.keys() >= set(refs):
            self._poll = max(self._poll * 0.8, SHORTEST_POLL_SECONDS)
            return results, True
        over = self.ends(job)
        self._poll = min(1.2 * (clock.now() - started), 2 * self._poll, SLOWEST_POLL_SECONDS)
        return self._results(job, refs), over

    def _over(self, job: str) -> bool:
        """Tell whether a bulk job is over; one that Kustomer no longer knows is."""
        try:
            data = self.call(BULK, lambda run: run.read(f"/v1/bulk/{job}")).data
        except Rejected as error:
            if error.status == 404:
                return True
            raise
        return bool(dig(data, "data", "attributes", "status") == "complete")

    def _results(self, job: str, refs: Iterable[str]) -> Results:
        """Read what a bulk job tells of its items so far."""
        try:
            found = self.listed(BULK, f"/v1/bulk/{job}/batches")
        except Rejected as error:
            if error.status == 404:
                return Results({}, {})
            raise
        lists = [each.get("results") for each in found]
        results = Results({}, {})
        for each in [item for items in lists if isinstance(items, list) for item in items]:
            ref, record = dig(each, "_clientRef"), dig(each, "objectId")
            if ref not in refs:
                continue
            if each.get("status") == "error":
                told = "; ".join(map(sentence, reasons({"errors": each.get("error")})))
                results.refused[ref] = self._without_texts(told) or "Kustomer gave no reason"
            elif isinstance(record, str) and record:
                results.created[ref] = record
        return results

    def _without_texts(self, told: str) -> str:
        """Return what Kustomer says of a record without what people wrote in it."""
        redact = Redactor("")
        redact.hide(*self._texts)
        return redact(told)


def _size(item: tuple[str, dict[str, Any]]) -> int:
    return len(to_json({**item[1], "_clientRef": item[0]}))
