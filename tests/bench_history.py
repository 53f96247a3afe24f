"""Measure the import of a history: its requests, and the speed and memory of a check.

Part of `make bench`.
"""

import json
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tests.standin.kustomer import Bulk, Kustomer
from tests.standin.windmill import Workspace
from tests.standin.worker import ROOT, Job, run

IMPORT = "f/kustomer/import_messages"
FILE = "inbox/history.ndjson"

# A history whose requests are counted, and the rows of two files whose check should take the same memory.
ROWS, THREADS, CUSTOMERS = 1000, 200, 130
SHORT, LONG = 10_000, 300_000
# Longer than the check of the long file takes (seconds).
TIMEOUT = 900

# An import whose waits are over at once, by its own clock too: only what it asks of Kustomer counts.
HURRIED = """\
import time

from f.kustomer.history.jobs import clock
from f.kustomer.import_messages import main as import_messages

at = [0.0]


def sleep(seconds):
    at[0] += seconds


def main(auth, body):
    time.sleep, clock.now = sleep, lambda: at[0]
    return import_messages(auth, body)
"""
# The same messages by record_message, one after the other.
ONE_BY_ONE = """\
from f.kustomer.record_message import main as record_message


def main(auth, rows):
    for row in rows:
        record_message(auth, row)
"""


class Figure(NamedTuple):
    """One line of the table: a number, the highest one wanted, if any, and the one that it is compared with, if any."""

    what: str
    ours: float
    most: float | None = None
    beside: float | None = None

    def cells(self) -> list[str]:
        """The line's cells as text."""
        numbers = (self.beside, self.ours, None, self.most)
        verdict = "" if self.most is None else "reached" if self.ours <= self.most else "missed"
        return [self.what, *map(_text, numbers), verdict]


def _text(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def history(rows: int, threads: int, customers: int, text: str) -> Iterator[dict[str, Any]]:
    """Give messages, in turn one of each thread; a thread is with one customer."""
    for number in range(rows):
        thread = number % threads
        yield {
            "messageId": f"<{number}@mail.example>",
            "threadId": f"thread-{thread}",
            "email": f"customer-{thread % customers}@example.com",
            "channel": "email",
            "direction": "in",
            "text": text,
            "sentAt": f"2020-01-{1 + number // 1440 % 28:02}T{number // 60 % 24:02}:{number % 60:02}:00.000Z",
        }


def as_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """Return rows as a file of JSON lines."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)


def finished(job: Job) -> Job:
    """Return a job that has succeeded; without one there is nothing to measure."""
    if job.error:
        sys.exit(f"{job.error['name']}: {job.error['message']}")
    return job


def requests(script: str, args: dict[str, Any], file: bytes = b"") -> int:
    """Count what a script asks of Kustomer until all messages are recorded, each once."""
    with (
        Kustomer(limit=sys.maxsize) as kustomer,
        Workspace(scripts_from=ROOT) as workspace,
        tempfile.TemporaryDirectory() as folder,
    ):
        kustomer.jobs.bulk = Bulk(delay=0, per_item=0)
        workspace.store(FILE, file)
        path = pathlib.Path(folder, "counted.py")
        path.write_text(script, encoding="utf-8")
        auth = {"apiKey": kustomer.keys["admin"], "baseUrl": kustomer.url}
        finished(run(path, {"auth": auth, **args}, workspace=workspace, timeout=TIMEOUT))
        recorded = {each["attributes"]["externalId"] for each in kustomer.messages}
        if not len(recorded) == len(kustomer.messages) == ROWS:
            sys.exit(f"{ROWS} messages should be there, each once, but there are {len(kustomer.messages)}")
        return len(kustomer.requests)


def counted() -> Iterator[Figure]:
    """Count the requests that the same messages take."""
    rows = list(history(ROWS, THREADS, CUSTOMERS, "x" * 1000))
    beside = requests(ONE_BY_ONE, {"rows": rows})
    for fresh, most in (True, 80), (False, 320):
        body = {"file": {"s3": FILE}, "app": "old-helpdesk", "fresh": fresh}
        ours = requests(HURRIED, {"body": body}, as_lines(rows))
        yield Figure(f"requests for {ROWS:,} messages{', fresh' if fresh else ''}", ours, most, beside)


def checked() -> Iterator[Figure]:
    """Check a short file and a long one."""
    jobs = {}
    with Kustomer() as kustomer, Workspace(scripts_from=ROOT) as workspace:
        auth = {"apiKey": kustomer.keys["admin"], "baseUrl": kustomer.url}
        body = {"file": {"s3": FILE}, "app": "old-helpdesk", "check": True}
        for rows in SHORT, LONG:
            workspace.store(FILE, as_lines(history(rows, rows // 5, rows // 8, "x" * 200)))
            jobs[rows] = finished(run(IMPORT, {"auth": auth, "body": body}, workspace=workspace, timeout=TIMEOUT))
    yield Figure(f"rows a second, check of {LONG:,} rows", LONG / jobs[LONG].result["seconds"])
    added = ((jobs[LONG].peak_kib or 0) - (jobs[SHORT].peak_kib or 0)) / 1024
    yield Figure(f"peak memory, {LONG:,} rows, MiB more", added, 64)


def measure() -> Iterator[Figure]:
    """Every line about the import of a history."""
    yield from counted()
    yield from checked()
