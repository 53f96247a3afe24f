"""History jobs.

Shared by the steps that import old messages, not run by itself: creates many records by Kustomer's bulk jobs, each
once, at a pace that leaves the organisation's agents and other integrations their share of its limit. Sending and
repeating are the client's; here a bulk job is submitted, waited for, and its results are read.

https://developer.kustomer.com/docs/guides/bulk-operations
"""

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from f.kustomer.history.plan import MAX_BYTES, Plan, Row, batches
from f.kustomer.shared.client import (
    KustomerError,
    OddAnswer,
    RateLimited,
    RecordKind,
    Redactor,
    Rejected,
    Run,
    dig,
    start,
    to_json,
    until_reset,
)

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

# A run that has given no sign of life for so long is dead; a living one gives one twice as often and more.
DEAD_SECONDS = 120.0
SIGN_SECONDS = 50.0
# Between a claim and what is sent first, so that of two runs that begin at once one sees the other.
CLAIM_SECONDS = 2.0

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
        limit, remaining = (
            _whole_number(headers.get("x-ratelimit-limit")),
            _whole_number(headers.get("x-ratelimit-remaining")),
        )
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


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 else None


Note = dict[str, Any]
FIELDS = ("import", "parts", "done", "begun", "behind", "under_way", "inherited", "others", "recorded_at", "at_work")


class AtWork(KustomerError):
    """Another run imports this part of the file just now. Nothing was sent."""


class Notes:
    """The note on one part of an import into one organisation.

    ``done`` is the row in which the last thread appears first of those that are done, ``behind`` those before that are
    not recorded as a whole; ``begun`` that of the last one of which something may be recorded. ``under_way`` says what
    was submitted, and whose end nobody has seen: ``kind``, ``job``, ``at``, ``rows``, ``threads``, and when it was
    first looked for in vain; ``inherited`` are those of imports that were here before, as ``others`` tells.
    ``recorded_at`` is when something was recorded last. Times are in epoch seconds.
    """

    def __init__(self, file: dict[str, Any] | None, identity: str, organisation: str, part: int, parts: int) -> None:
        """Take the file in the object storage, if it is one, and which import of it into which organisation this is."""
        self._file, self._identity, self._part, self._parts = file, identity, part, parts
        self._organisation = re.sub(r"\W+", "-", organisation)
        self._run, self._written = secrets.token_hex(8), 0.0
        self._lost = False
        self.done, self.begun, self.behind = 0, 0, list[int]()
        self.under_way: Note | None = None
        self.inherited, self.others, self.recorded_at = list[Note](), False, 0.0

    def claim(self) -> None:
        """Read what earlier runs have noted, and note that this one is at work.

        Raise AtWork where another one is, or KustomerError where a note can't be read.
        """
        notes = self._all()
        # Once more, as others may have begun since: what stands between this look and what is written is short.
        own = self._read(self._part) or {}
        notes |= {self._part: own} if own else {}
        for at, note in notes.items():
            foreign = note["import"] != self._identity
            self.others |= foreign or note["others"]
            self.inherited += [*note["inherited"], *([note["under_way"]] if foreign and note["under_way"] else [])]
            if foreign or at == self._part:
                self._check_dead(note["at_work"])
                self.recorded_at = max(self.recorded_at, note["recorded_at"])
        self.inherited = [each for at, each in enumerate(self.inherited) if each not in self.inherited[:at]]
        if own.get("import") == self._identity:
            self.done, self.begun, self.behind = own["done"], own["begun"], own["behind"]
            self.under_way = own["under_way"]
        self.save()
        if self._file:
            time.sleep(CLAIM_SECONDS)

    def _all(self) -> dict[int, Note]:
        """Return the notes of all parts, those of an import that had more of them too."""
        notes: dict[int, Note] = {}
        part, parts = 0, self._parts
        while part < parts:
            if note := self._read(part):
                notes[part] = note
                parts = max(parts, note["parts"])
            part += 1
        return notes

    def _check_dead(self, at_work: Note | None) -> None:
        seconds = time.time() - (at_work["at"] if at_work else 0)
        if at_work and seconds < DEAD_SECONDS:
            wait = DEAD_SECONDS - max(seconds, 0)
            raise AtWork(
                f"Another run imports this file just now (job {at_work['job'] or 'unknown'}): its last sign of life is"
                f" {max(seconds, 0):.0f} s old. This run sent nothing. If that job was killed, run the import "
                f"again in {wait:.0f} s.",
                outcome="not_sent",
                retryable=True,
                retry_after=wait,
            )

    def submitting(self, kind: str, rows: Iterable[int], threads: Iterable[str]) -> None:
        """Note what is about to be submitted, of which rows and threads.

        Raise AtWork where another run has taken this part over.
        """
        self._check_owner()
        self.under_way = {"kind": kind, "job": None, "at": time.time(), "rows": list(rows), "looked": None}
        self.under_way["threads"] = sorted(set(threads))  # by which another import knows them
        try:
            self.save()
        except KustomerError:
            self.under_way = None
            raise

    def submitted(self, job: str) -> None:
        """Note the id of the bulk job that was submitted."""
        if self.under_way:
            self.under_way["job"] = job
            self.save()

    def settled(self, untold: Iterable[str], over: bool, looked: bool = False) -> None:
        """Note, with whatever is noted next, of which rows nobody knows what has become of them, if of any.

        ``over`` says that no bulk job will tell it any more, ``looked`` that they were looked for.
        """
        self.recorded_at = time.time()
        rows = [int(each) for each in untold]
        if not (self.under_way and rows):
            self.under_way = None
            return
        self.under_way["rows"] = rows
        self.under_way["job"] = None if over else self.under_way["job"]
        self.under_way["looked"] = self.under_way["looked"] or (time.time() if looked else None)

    def sign(self) -> None:
        """Give a sign of life when it is time for one."""
        if time.time() - self._written >= SIGN_SECONDS:
            self._check_owner()
            self.save()

    def _check_owner(self) -> None:
        """Raise AtWork where another run has taken this part over, as this one has given no sign of life for long."""
        note = self._read(self._part)
        if note and (note["at_work"] or {}).get("run") != self._run:
            self._lost = True
            raise AtWork("Another run has taken this part over, so that this one has ended.", outcome="not_sent")

    def save(self, at_work: bool = True) -> None:
        """Write the note, unless another run has taken this part over."""
        self._written = time.time()
        if not self._file or self._lost:
            return
        sign = {"run": self._run, "job": os.environ.get("WM_JOB_ID"), "at": self._written}
        values = (
            *(self._identity, self._parts, self.done, self.begun, self.behind, self.under_way, self.inherited),
            *(self.others, self.recorded_at, sign if at_work else None),
        )
        from f.kustomer.shared.storage import write

        write(self._place(self._part), json.dumps(dict(zip(FIELDS, values, strict=True))).encode())

    def _place(self, part: int) -> dict[str, Any]:
        return beside(self._file or {}, f"part-{part:04}-{self._organisation}.json")

    def _read(self, part: int) -> Note | None:
        if not self._file:
            return None
        from f.kustomer.shared.errors import FileNotRead
        from f.kustomer.shared.storage import read

        place = self._place(part)
        try:
            with read(place) as content:
                note = json.load(content)
        except FileNotRead as error:
            if error.status == 404 or re.search("(?i)not found|no such ?key|does not exist", str(error)):
                return None
            raise
        except ValueError:
            note = None
        if not isinstance(note, dict) or note.keys() != set(FIELDS):
            raise FileNotRead(
                f"The note {place['s3']} can't be read: it is cut off, or something else. This run sent nothing. Look "
                "whether another version of these steps has written it. Else delete it, and run the import without "
                "fresh: then it looks in Kustomer for what is recorded. Wait a quarter of an hour before that, as what "
                "was under way would be recorded twice.",
                outcome="not_sent",
            )
        return note


def beside(file: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the place of a file with this name beside the one that is imported."""
    return {**{key: file[key] for key in ("storage",) if key in file}, "s3": f"{file['s3']}.import/{name}"}


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

    def create(self, kind: RecordKind, bodies: Iterable[tuple[str, dict[str, Any]]], look: Look) -> Iterator[Results]:
        """Create these by bulk jobs, one after the other, and yield what has become of each one's items.

        Each body comes with its reference, the number of a row that it is of. ``look`` finds those that are there,
        where Kustomer doesn't say it. Raise KustomerError, TimeIsUp, or Unsettled, after all that is known was yielded.
        """
        for batch in batches(bodies, _size, lambda: self._room):
            yield from self._create_batch(kind, dict(batch), look)

    def _create_batch(self, kind: RecordKind, bodies: Bodies, look: Look) -> Iterator[Results]:
        """Create these by one bulk job, or by several where Kustomer refuses them together."""
        rows = [self._plan.message(int(ref)) for ref in bodies]
        self._texts = [text for row in rows for text in _written(row)]
        self.notes.submitting(kind.name, map(int, bodies), (row.thread_id for row in rows))
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
            said = _said(failure.errors) or str(failure).partition(". ")[0]
            why = f"Whether Kustomer has taken the last bulk job is not known ({said})"
            yield from self._settled(bodies, Results({}, {}), True, look, why)
            return
        self.notes.under_way = None
        # A refusal that gives no reason is the request's, the key's or the address's, and no item's.
        if failure.status not in OF_AN_ITEM or not (failure.errors or failure.status == 413):
            raise failure
        yield from self._create_halves(kind, bodies, look, failure)

    def _submit(self, kind: RecordKind, bodies: Bodies) -> str:
        items = [{**body, "_clientRef": ref} for ref, body in bodies.items()]
        answer, _ = self.call(kind, lambda run: run.create(f"/v1/{kind.name}s/bulk", body=items))
        return str(answer["data"]["id"])

    def _create_halves(self, kind: RecordKind, bodies: Bodies, look: Look, refusal: KustomerError) -> Iterator[Results]:
        """Find out which of the items Kustomer refuses, by sending each half of them."""
        if len(bodies) == 1:
            why = _said(refusal.errors) or str(refusal)
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
                results.refused[ref] = self._without_texts(each.get("error")) or "Kustomer gave no reason"
            elif isinstance(record, str) and record:
                results.created[ref] = record
        return results

    def _without_texts(self, error: Any) -> str:
        """Return what Kustomer says of a record without what people wrote in it."""
        from f.kustomer.shared.advice import reasons

        redact = Redactor("")
        redact.hide(*self._texts)
        return redact(_said(reasons({"errors": error})))


def _said(errors: list[dict[str, str | None]]) -> str:
    from f.kustomer.shared.advice import sentence

    return "; ".join(map(sentence, errors))


def _written(row: Row) -> list[str]:
    """Return what people wrote in a row, and what they are known by: what stays out of errors, results and logs."""
    from f.kustomer.record_message import texts_of

    return texts_of({**row.body, **row.customer, "threadId": row.thread_id})


def _size(item: tuple[str, dict[str, Any]]) -> int:
    return len(to_json({**item[1], "_clientRef": item[0]}))
