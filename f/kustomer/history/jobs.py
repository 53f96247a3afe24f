"""History jobs.

Shared by the steps that import old messages, not run by itself: creates many records by bulk jobs, each once. Sending
and repeating are the client's; here a job is submitted, waited for, and its results are read. Where nobody knows what
became of one, Kustomer is looked at until two looks, a minute apart, agree, and only then what is missing is sent.

https://developer.kustomer.com/docs/guides/bulk-operations
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from f.kustomer.history.notes import Notes
from f.kustomer.history.pace import WINDOW_SECONDS, Pace, TimeIsUp, clock
from f.kustomer.history.plan import MAX_BYTES, batches
from f.kustomer.shared.advice import reasons, sentence
from f.kustomer.shared.client import Run, dig, start
from f.kustomer.shared.errors import KustomerError, RateLimited, RecordKind, Redactor, Rejected
from f.kustomer.shared.inputs import to_json

# How long a job takes is not documented: the first one is asked for after so long, the others after what it took.
FIRST_POLL_SECONDS = 2.0
SHORTEST_POLL_SECONDS = 0.25
SLOWEST_POLL_SECONDS = 30.0
# A job of a hundred items that takes longer is stuck.
PATIENCE_SECONDS = 900.0
# What is stored late shows by then: a look is believed when the next one, so much later, says the same.
SETTLE_SECONDS = 60.0
# What Kustomer's results leave open, and what is not there, is sent again; what then is still missing never comes.
TRIES = 3

T = TypeVar("T")


class Kind(NamedTuple):
    """A kind of record that bulk jobs create: its collection, and how the client speaks of it."""

    collection: str
    record: RecordKind


class Made(NamedTuple):
    """What has become of one item: what is ``missing`` is not there, and may be sent again.

    ``id`` is that in Kustomer of what is there; ``why`` says what is wrong with what is ``refused``.
    """

    status: Literal["created", "refused", "unknown", "missing"]
    id: str = ""
    why: str = ""


# What a look-up that fails means for an import.
KEPT = "What was recorded so far stays."

# Returns the ids in Kustomer of what is there, by reference.
Look = Callable[[Iterable[str]], dict[str, str]]


class Work(NamedTuple):
    """What is created, and what whoever wants it knows of it, by reference.

    ``look`` returns the ids in Kustomer of those that are there; ``about`` tells for the notes which threads and rows
    some are about; ``tell`` is told what became of them; of those with the same ``alone`` a job creates one only.
    """

    kind: Kind
    look: Look
    about: Callable[[Iterable[str]], tuple[list[str], list[int]]]
    tell: Callable[[dict[str, Made]], None]
    alone: Callable[[tuple[str, dict[str, Any]]], object] | None = None


BULK = RecordKind("bulk", role="org.permission.bulk.read", not_sent_text=KEPT)


class Stuck(Exception):
    """A bulk job does not end, so that nothing can be sent after it."""


class Jobs:
    """Bulk jobs of one part of an import, one at a time, at its pace and with its notes."""

    def __init__(self, auth: object, pace: Pace, notes: Notes) -> None:
        """Take the key, the pace and the notes."""
        self._auth, self.pace, self.notes = auth, pace, notes
        self.requests = 0
        self._poll = FIRST_POLL_SECONDS
        self._room = MAX_BYTES
        self._no_answer: KustomerError | None = None  # to the last submit
        self._texts: list[str] = []  # of what was submitted last, which Kustomer may repeat

    def call(self, kind: RecordKind, ask: Callable[[Run], T], hidden: Iterable[str] = ()) -> T:
        """Send one thing when its time has come; wait on while the limit is used up, as long as there is time.

        ``hidden`` are texts that stay out of errors and logs. Raise KustomerError, or TimeIsUp.
        """
        while True:
            self.pace.wait()
            run = start(self._auth, kind)
            run.hide(*self._texts, *hidden)
            try:
                return ask(run)
            except RateLimited as limited:
                wait = limited.retry_after or WINDOW_SECONDS
            finally:
                self.pace.see(run.headers)
                self.requests += run.requests
            self.pace.sleep(wait)

    def listed(self, kind: RecordKind, path: str) -> list[dict[str, Any]]:
        """Read a whole list, at the import's pace. Raise KustomerError, or TimeIsUp."""

        def read(run: Run) -> list[dict[str, Any]]:
            found, pages = [], run.requests
            for each in run.list(path):
                if run.requests > max(pages, 1):
                    pages = run.requests
                    self.pace.see(run.headers)
                    self.pace.wait()
                found.append(each)
            return found

        return self.call(kind, read)

    def make(self, work: Work, bodies: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Create these by bulk jobs, one after the other, each body with its reference.

        Raise KustomerError, TimeIsUp, or Stuck, always after all that is known was told.
        """
        sized = batches(bodies, _size, lambda: self._room, work.alone)
        for batch in sized:
            left = dict(batch)
            for _ in range(TRIES):
                left = {ref: left[ref] for ref in self._make_batch(work, left)}
                if not left:
                    break
            if left and self._no_answer:
                raise _not_taken(self._no_answer)
            never = Made("refused", why="Kustomer took it and did not record it, more than once")
            work.tell(dict.fromkeys(left, never))

    def _make_batch(self, work: Work, bodies: Mapping[str, dict[str, Any]]) -> list[str]:
        """Create these by one bulk job, or by several where Kustomer refuses them together; return what is missing."""
        self._noted(lambda: self.notes.submitting(work.kind.collection, *work.about(bodies)))
        try:
            job = self._noted(lambda: self._submit(work.kind, bodies))
        except Rejected as error:
            return self._refused(work, bodies, error)
        except KustomerError as error:
            if error.outcome != "unknown":
                raise
            self._no_answer = error
            made = self._settled(bodies, work.look)
        else:
            self._no_answer = None
            self.notes.submitted(job)
            made = self._ended(job, bodies, work.look)
        work.tell({ref: each for ref, each in made.items() if each.status != "missing"})
        if any(each.status == "unknown" for each in made.values()):
            raise Stuck
        self.notes.ended()
        return [ref for ref, each in made.items() if each.status == "missing"]

    def _noted(self, submit: Callable[[], T]) -> T:
        """Take back the note of what is under way where nothing was stored."""
        try:
            return submit()
        except (KustomerError, TimeIsUp) as error:
            if not isinstance(error, KustomerError) or error.outcome != "unknown":
                self.notes.under_way = None
            raise

    def _submit(self, kind: Kind, bodies: Mapping[str, dict[str, Any]]) -> str:
        items = [{**body, "_clientRef": ref} for ref, body in bodies.items()]
        path = f"/v1/{kind.collection}/bulk"
        self._texts = [text for body in bodies.values() for text in _texts(body)]
        answer, _ = self.call(kind.record, lambda run: run.create(path, body=items))
        return str(answer["data"]["id"])

    def _refused(self, work: Work, bodies: Mapping[str, dict[str, Any]], error: Rejected) -> list[str]:
        """Find out which of the items Kustomer refuses, by sending each half of them; return what is missing."""
        if len(bodies) == 1:
            why = "; ".join(sentence(each) for each in error.errors) or str(error)
            work.tell(dict.fromkeys(bodies, Made("refused", why=why)))
            return []
        if error.status == 413:
            self._room = sum(map(_size, bodies.items())) // 2
        refs, half = list(bodies), len(bodies) // 2
        halves = ({ref: bodies[ref] for ref in each} for each in (refs[:half], refs[half:]))
        return [missing for each in halves for missing in self._make_batch(work, each)]

    def _ended(self, job: str, bodies: Mapping[str, dict[str, Any]], look: Look) -> dict[str, Made]:
        """Wait for a job, and tell what became of its items; what it doesn't say, Kustomer's records do."""
        made, complete = self._wait(job, bodies.keys())
        made = {ref: each for ref, each in made.items() if ref in bodies}
        untold = [ref for ref in bodies if ref not in made]
        if untold and complete:
            made |= self._settled(untold, look)
        elif untold:
            there = look(untold)
            made |= {ref: Made("created", there[ref]) if ref in there else Made("unknown") for ref in untold}
        return made

    def _settled(self, refs: Iterable[str], look: Look) -> dict[str, Made]:
        refs = list(refs)
        there = look(refs)
        if len(there) < len(refs):
            there = self.settle(lambda: look(refs))
        return {ref: Made("created", there[ref]) if ref in there else Made("missing") for ref in refs}

    def settle(self, look: Callable[[], T]) -> T:
        """Look until two looks agree, a minute apart, or longer where jobs take longer.

        Raise KustomerError, or TimeIsUp.
        """
        seen = look()
        while True:
            self.pace.sleep(max(SETTLE_SECONDS, 2 * self.notes.slowest))
            again = look()
            if again == seen:
                return again
            seen = again

    def ends(self, job: str) -> bool:
        """Wait until a job is over, as long as one may take. Raise KustomerError, or TimeIsUp."""
        return self._wait(job, None)[1]

    def _wait(self, job: str, refs: Iterable[str] | None) -> tuple[dict[str, Made], bool]:
        """Wait for a job: return what became of its items, and whether it is over."""
        started = clock.now()
        if refs is not None:
            # A quick job has told of all its items by now, and needs not be asked whether it is over.
            self.pace.sleep(self._poll)
            made = self._results(job)
            if made.keys() >= set(refs):
                self._poll = max(self._poll * 0.8, SHORTEST_POLL_SECONDS)
                return made, True
        pause = FIRST_POLL_SECONDS / 2
        while True:
            self.pace.sleep(pause)
            pause = min(pause * 1.5, SLOWEST_POLL_SECONDS)
            over = self._over(job)
            if over or clock.now() - started > PATIENCE_SECONDS:
                break
        took = clock.now() - started
        self._poll = min(1.2 * took, 2 * self._poll, SLOWEST_POLL_SECONDS)
        self.notes.slowest = max(took, self.notes.slowest)
        return self._results(job), over

    def _over(self, job: str) -> bool:
        """Tell whether a job is over; one that Kustomer no longer knows is."""
        try:
            data = self.call(BULK, lambda run: run.read(f"/v1/bulk/{job}")).data
        except Rejected as error:
            if error.status == 404:
                return True
            raise
        return bool(dig(data, "data", "attributes", "status") == "complete")

    def _results(self, job: str) -> dict[str, Made]:
        """Read what became of a job's items so far, by reference."""
        try:
            found = self.listed(BULK, f"/v1/bulk/{job}/batches")
        except Rejected as error:
            if error.status == 404:
                return {}
            raise
        results = [each for batch in found for each in (batch.get("attributes") or batch).get("results") or []]
        return {each["_clientRef"]: made for each in results if (made := _made(each))}


def _not_taken(last: KustomerError) -> KustomerError:
    """Return the error for what was sent several times, and is not there: unlike a single request, that is known."""
    said = "; ".join(map(sentence, last.errors)) or str(last).partition(". ")[0]
    text = f"Kustomer took none of {TRIES} bulk jobs, and has nothing of them ({said}). Run the import again later."
    return KustomerError(text, outcome="rejected", retryable=True, status=last.status, errors=last.errors)


def _made(result: Any) -> Made | None:
    """Read the result of one item; None where it tells nothing."""
    if not isinstance(dig(result, "_clientRef"), str):
        return None
    if result.get("status") == "error":
        told = reasons({"errors": result.get("error")})
        return Made("refused", why="; ".join(map(sentence, told)) or "Kustomer gave no reason")
    found = result.get("objectId")
    return Made("created", found) if isinstance(found, str) and found else None


def _size(item: tuple[str, dict[str, Any]]) -> int:
    return len(to_json({**item[1], "_clientRef": item[0]}))


def _texts(body: dict[str, Any]) -> list[str]:
    """Return what people have written in a body, or are reached by."""
    found = [body[name] for name in ("preview", "subject", "name") if name in body]
    found += [each["email"] for each in body.get("emails", [])]
    return found + [each["phone"] for each in body.get("phones", [])]


def without_secrets(text: str, *secrets: str) -> str:
    """Return what Kustomer says of a record without the record's own texts."""
    redact = Redactor("")
    redact.hide(*secrets)
    return redact(text)
