"""Bulk jobs: up to 100 creates in one request, which are carried out later and told item by item.

Facts come from developer.kustomer.com/docs/guides/bulk-operations and the pages of the endpoints under
developer.kustomer.com/api/core-resources. What no page says can be switched in `Bulk`.
"""

import heapq
import itertools
import json
import math
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.standin.access import Call
from tests.standin.faults import Answer
from tests.standin.lists import page_asked
from tests.standin.records import Resource, identifiers, resource, timestamp
from tests.standin.refusals import BULK, MAX_BODY, RefusedError, not_found, parse, refusal, validate

# developer.kustomer.com/api/core-resources/bulk-create-customers
LONGEST_CLIENT_REF = 255

# The same page shows this text for a customer with an identifier that is taken.
DUPLICATE = "duplicate detected"

Item = dict[str, Any]


@dataclass(frozen=True)
class Bulk:
    """What becomes of a bulk job where no page says; unless told, the caller gets nothing for granted.

    A number as `order` is the seed of a shuffle. A job waits `delay` seconds and takes `per_item` seconds for each
    item; its items stand in batches of `batch_size`. With `stuck_after` it never completes: it stops after so many
    items, or after its last; with 0 it stays queued. `fails` gives the text of the error of an item that fails for
    a reason of Kustomer's own. Without `results` there are none, even where each item has a _clientRef. With `flat`
    a batch is a plain object, else a resource with attributes. The job can be read for `kept` seconds after it was
    submitted, and its batches for `batches_kept`.
    """

    order: Literal["given", "reversed"] | int = "reversed"
    delay: float = 0.5
    per_item: float = 0.005
    batch_size: int = 40
    stuck_after: int | None = None
    fails: Callable[[Item], str | None] = lambda item: None
    results: bool = True
    flat: bool = False
    kept: float = math.inf
    batches_kept: float = math.inf

    def ordered(self, items: Sequence[Item]) -> list[Item]:
        """Put a job's items into the order in which they are stored."""
        if self.order == "given":
            return list(items)
        if self.order == "reversed":
            return list(reversed(items))
        return random.Random(self.order).sample(items, len(items))


@dataclass
class Job:
    """A submitted job: its items in the order in which they are stored, and what became of those that are done."""

    collection: str
    user: str
    items: list[Item]
    bulk: Bulk
    created: float
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    done: list[dict[str, Any]] = field(default_factory=list)
    starts: float = math.inf  # a job that comes late starts once somebody has looked for its records
    ended: float | None = None

    @property
    def left(self) -> int:
        """How many items are not done."""
        return len(self.items) - len(self.done)

    @property
    def stuck(self) -> bool:
        """Whether it goes no further, although it isn't complete."""
        after = self.bulk.stuck_after
        return after is not None and len(self.done) >= min(after, len(self.items))

    def holds(self, parameter: str, value: str) -> bool:
        """Tell whether an item is found, or listed, by this parameter."""
        return any(
            item.get(parameter) == value or (parameter, value) in identifiers(item.get("id", ""), item)
            for item in self.items
        )

    def status(self, now: float) -> str:
        """Give the job's state at `now` (epoch seconds)."""
        if self.ended is not None:
            return "complete"
        return "running" if now >= self.starts and self.bulk.stuck_after != 0 else "queued"

    def batches(self) -> list[tuple[bool, list[dict[str, Any]]]]:
        """Give each batch: whether it is complete, and what became of its items."""
        size = self.bulk.batch_size
        found = []
        for start in range(0, len(self.items), size):
            end = min(start + size, len(self.items))
            complete = len(self.done) >= end and (end < len(self.items) or self.ended is not None)
            found.append((complete, self.done[start:end] if complete else []))
        return found


# Puts one item on record at a time in epoch seconds, for the user of a key: (collection, item, user, time).
Store = Callable[[str, Item, str, float], Resource]


class Jobs:
    """The organisation's bulk jobs; several may be under way at once."""

    def __init__(self, store: Store, org: str, now: Callable[[], float]) -> None:
        """Carry out jobs with `store`, by a clock in epoch seconds."""
        self.bulk = Bulk()
        self.max_body = MAX_BODY
        self._store, self._org, self._now = store, org, now
        self.clear()

    def clear(self) -> None:
        """Forget all jobs."""
        self.submitted: list[Job] = []
        self._next: list[tuple[str, Bulk]] = []
        self._due: list[tuple[float, int, Job]] = []
        self._count = itertools.count()

    def next(self, bulk: Bulk, collection: str) -> None:
        """Let the next job of this collection for which nothing else waits go like this."""
        self._next.append((collection, bulk))

    def run(self) -> None:
        """Carry out what is due by now, in the order in which it was due, at the times when it was."""
        while self._due and self._due[0][0] <= self._now():
            at, _, job = heapq.heappop(self._due)
            if job.left:
                job.done.append(self._carry_out(job, job.items[len(job.done)], at))
            if job.stuck:
                continue
            if job.left:
                self._plan(job, at + job.bulk.per_item)
            else:
                job.ended = at

    def appear(self, collection: str, parameter: str, value: str) -> None:
        """Start the jobs that came late, now that somebody has looked for a record of theirs in vain."""
        for job in self.submitted:
            if job.starts == math.inf and job.collection == collection and job.holds(parameter, value):
                self._start(job)

    def submit(self, call: Call, collection: str, admit: Callable[[Item], None]) -> Answer:
        """POST /v1/{collection}/bulk: an array of the bodies of single creates, each with a _clientRef or none.

        `admit` refuses an item that the caller may not create. What is wrong with one item refuses them all, as
        the published schema is that of the whole body.
        """
        items: list[Item] = parse(call.headers, call.body, list, self.max_body)
        validate(BULK[collection], items)
        _check_references(items)
        for item in items:
            admit(item)
        bulk = self._behaviour(collection)
        job = Job(collection, call.key.user, bulk.ordered(items), bulk, self._now())
        if call.effect != "none":
            self.submitted.append(job)
        if call.effect == "stored":
            self._start(job)
        # The published example repeats what was sent and the roles of whoever sent it.
        user = {"id": job.user, "org": self._org, "userType": "machine", "roles": sorted(call.key.roles)}
        api = {"data": items, "method": "POST", "path": f"/v1/{collection}/bulk", "user": user}
        attributes = {"status": "queued", "completed": False, "context": "api", "ids": [], "payload": {"api": api}}
        return Answer.of(201, {"data": self._resource(job, attributes)})

    def read(self, call: Call) -> Answer:
        """GET /v1/bulk/{id}: how far the job is."""
        job = self._job(call.value)
        batches = job.batches()
        failed = sum("error" in each for _, done in batches for each in done)
        attributes = {
            "status": job.status(self._now()),
            "completed": job.ended is not None,
            "batches": {
                "complete": sum(complete for complete, _ in batches),
                "total": len(batches),
                "idsTotal": len(job.items),
            },
            "batchErrors": failed,
            "errors": [],
        }
        if job.ended is not None:
            attributes["completedAt"] = timestamp(job.ended)
        return Answer.of(200, {"data": self._resource(job, attributes)})

    def read_batches(self, call: Call) -> Answer:
        """GET /v1/bulk/{id}/batches?page=&pageSize=: what became of each item of the batches that are complete."""
        job = self._job(call.value)
        if self._now() >= job.created + job.bulk.batches_kept:
            raise not_found("id")
        batches = [_batch(job, at, *batch) for at, batch in enumerate(job.batches())]
        page = page_asked(call.query, len(batches))
        meta = {"page": page.number, "pages": page.last, "count": len(batches), "limit": page.size}
        return Answer.of(200, {"data": batches[page.items], "meta": meta})

    def _behaviour(self, collection: str) -> Bulk:
        for at, (name, bulk) in enumerate(self._next):
            if name == collection:
                del self._next[at]
                return bulk
        return self.bulk

    def _start(self, job: Job) -> None:
        job.starts = self._now() + job.bulk.delay
        if not job.stuck:
            self._plan(job, job.starts + job.bulk.per_item)

    def _plan(self, job: Job, at: float) -> None:
        heapq.heappush(self._due, (at, next(self._count), job))

    def _carry_out(self, job: Job, item: Item, at: float) -> dict[str, Any]:
        """Store one item, and give its result."""
        given = dict(item)
        reference = given.pop("_clientRef", None)
        try:
            if text := job.bulk.fails(given):
                return {"_clientRef": reference, "status": "error", "error": text}
            new = self._store(job.collection, given, job.user, at)
        except RefusedError as refused:
            return {"_clientRef": reference, "status": "error", "error": _text(refused.answer)}
        return {"_clientRef": reference, "objectId": new["id"], "status": "created"}

    def _job(self, at: str) -> Job:
        for job in self.submitted:
            if job.id == at and self._now() < job.created + job.bulk.kept:
                return job
        raise not_found("id")

    def _resource(self, job: Job, attributes: Mapping[str, Any]) -> Resource:
        dated = {"createdAt": timestamp(job.created), "updatedAt": timestamp(self._now()), **attributes}
        return resource("bulk", "bulk", job.id, dated, {"org": self._org, "createdBy": job.user})


def _check_references(items: Sequence[Item]) -> None:
    """Refuse references that some items lack, or that are no use (the page of bulk-create-customers)."""
    given = [item["_clientRef"] for item in items if "_clientRef" in item]
    if given and len(given) < len(items):
        raise refusal(400, "bad_request", "_clientRef must be on every item or on none")
    if not all(isinstance(each, str) and 0 < len(each) <= LONGEST_CLIENT_REF for each in given):
        raise refusal(400, "bad_request", "_clientRef must be a string of 1 to 255 characters")
    if len(set(given)) < len(given):
        raise refusal(400, "bad_request", "_clientRef must be unique in the request")


def _text(answer: Answer) -> str:
    """Give the text of an item's error; only the one for duplicates is documented."""
    if answer.status == 409:
        return DUPLICATE
    error = json.loads(answer.body)["errors"][0]
    return str(error.get("message") or error["title"])


def _batch(job: Job, at: int, complete: bool, done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Show one batch, as a resource or flat. How an error names its item is our choice."""
    failed = [each for each in done if each["status"] == "error"]
    attributes: dict[str, Any] = {
        "status": "complete" if complete else "scheduled" if job.done else "queued",
        "successCount": len(done) - len(failed),
        "failureCount": len(failed),
        "objectIds": [each["objectId"] for each in done if "objectId" in each],
        "errors": [{"id": None, "data": {"message": each["error"]}} for each in failed],
    }
    if job.bulk.results and job.items and "_clientRef" in job.items[0]:
        attributes["results"] = list(done)
    batch = {"type": "bulk_batch", "id": f"{job.id}{at:04x}"}
    return {**batch, **attributes} if job.bulk.flat else {**batch, "attributes": attributes}
