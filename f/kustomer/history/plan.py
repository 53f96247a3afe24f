"""History plan.

Shared by the steps that import old messages, not run by itself: which rows of a file a job imports, in which order, in
which requests, and what has become of each. The rows lie in a temporary database on the worker's disk, so that a long
file takes no more memory than a short one.
"""

import hashlib
import json
import math
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Literal, NamedTuple, TypeVar

from f.kustomer.shared.inputs import Problem, to_json

# https://developer.kustomer.com/docs/guides/bulk-operations
MAX_ITEMS = 100
# Requests end at 100 kB: https://developer.kustomer.com/kustomer-api-docs/reference/errors. The rest is for brackets.
MAX_BYTES = 95_000
# A part of so many rows takes some minutes, so that little is lost with it, and few notes are written.
ROWS_OF_A_PART = 20_000
# Of so many threads something may be recorded when a job is killed: the next one looks for these.
WAVE = 100
# What is sent of a message besides what its row says, in bytes: two ids, two dates, a reference.
BYTES_BESIDE_THE_ROW = 180
# A bulk job takes a request to submit it and one to read what became of it.
REQUESTS_OF_A_JOB = 2
# Nobody reads more reasons, more examples, or longer texts.
MOST_REASONS = 50
MOST_EXAMPLES = 3
LONGEST_TITLE = 1_000

# ``left`` is for a later run, ``unknown`` may be recorded or not.
Status = Literal["created", "already", "refused", "unknown", "left"]
STATUSES: tuple[Status, ...] = ("created", "already", "refused", "unknown", "left")

# A thread's ``speaker`` is the row whose customer is the thread's. ``later`` marks what a limit cuts off a thread;
# ``same`` is the first row that says the same, whose fate this one shares.
_TABLES = """
CREATE TABLE message (id TEXT PRIMARY KEY, row INTEGER, content BLOB) WITHOUT ROWID;
CREATE TABLE thread (
    first INTEGER PRIMARY KEY, id TEXT UNIQUE, part INTEGER DEFAULT 0, rows INTEGER, chosen INTEGER DEFAULT 0,
    speaker INTEGER
);
CREATE TABLE item (
    row INTEGER PRIMARY KEY, thread INTEGER, at REAL, answer INTEGER, customer TEXT, size INTEGER, files INTEGER,
    data TEXT, later INTEGER DEFAULT 0, same INTEGER, status TEXT DEFAULT 'left'
);
CREATE TABLE problem (row INTEGER, path TEXT, title TEXT);
CREATE INDEX problem_row ON problem (row);
"""


class Row(NamedTuple):
    """A message of a file, ready to be sent but for the ids of its customer, conversation and files.

    ``number`` is the record's row, ``customer`` who it is with, spelled as find_customer spells it; ``sent_at`` is in
    UTC with milliseconds, ``at`` the same in seconds since 1970; ``body`` is create_message's; ``files`` are
    upload_attachment's bodies.
    """

    number: int
    message_id: str
    thread_id: str
    customer: dict[str, str]
    sent_at: str
    at: float
    body: dict[str, Any]
    files: list[dict[str, Any]]


class Thread(NamedTuple):
    """A thread of the plan; ``first`` is the row in the file where it appears first, and stands for it in notes."""

    first: int
    id: str


class Forecast(NamedTuple):
    """What an import has to do: ``first`` and ``last`` are the dates of its messages, in epoch seconds."""

    threads: int
    customers: int
    requests: int
    first: float | None
    last: float | None


def part_of(thread_id: str, parts: int) -> int:
    """Return the part, from 0, that a thread belongs to: the same in every run and on every worker."""
    return int.from_bytes(hashlib.sha256(thread_id.encode("utf-8", "surrogatepass")).digest()[:8]) % parts


def parts_of(rows: int) -> int:
    """Return into how many parts a file with so many rows is cut."""
    return max(1, math.ceil(rows / ROWS_OF_A_PART))


Item = TypeVar("Item")


def batches(
    items: Iterable[Item], size: Callable[[Item], int], room: Callable[[], int] = lambda: MAX_BYTES
) -> Iterator[list[Item]]:
    """Cut items into requests of at most MAX_ITEMS items and ``room`` bytes, in order; a larger item goes by itself."""
    batch: list[Item] = []
    used = 0
    for item in items:
        needed = size(item) + 1  # the comma
        if batch and (len(batch) >= MAX_ITEMS or used + needed > room()):
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += needed
    if batch:
        yield batch


class Plan:
    """The rows of a file, or of one part of it, and what has become of each.

    Rows are added in the file's order, all of them, as a messageId is told from the others of the whole file; then
    ``choose`` says which are to be imported. Every row is ``left`` until it is marked as something else, so that each
    counts once.
    """

    def __init__(self, part: int | None = None, parts: int = 1, with_data: bool = True) -> None:
        """Take the part, or None for all of them; without ``with_data`` rows are only counted, not to be read again."""
        self._part, self._parts, self._with_data = part, parts, with_data
        # Without a name, it is a file that is deleted already: not even a killed job leaves it behind.
        self._base = sqlite3.connect("", isolation_level=None)
        self._base.create_function("part_of", 2, part_of, deterministic=True)
        self._base.create_function("alike", 1, _alike, deterministic=True)
        self._base.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN; {_TABLES}")

    def close(self) -> None:
        """Let go of the disk space."""
        self._base.close()

    def add(self, number: int, row: Row | list[Problem]) -> None:
        """Add the row ``number`` of the file, or what is wrong with it."""
        if isinstance(row, Row):
            self._add_row(row)
        elif not self._part:  # a row that can't be read has no thread, and counts in part 0
            self._base.execute("INSERT INTO item (row) VALUES (?)", (number,))
            self.refuse(number, row)

    def _add_row(self, row: Row) -> None:
        data = json.dumps(row[1:], separators=(",", ":"))
        content = hashlib.blake2b(data.encode(), digest_size=12).digest()
        known = self._base.execute("SELECT row, content FROM message WHERE id = ?", (row.message_id,)).fetchone()
        mine = self._part is None or part_of(row.thread_id, self._parts) == self._part
        if known and mine:
            self._add_again(row.number, known[0], known[1] == content)
        if known:
            return
        self._base.execute("INSERT INTO message VALUES (?, ?, ?)", (row.message_id, row.number, content))
        if not mine:
            return
        ((thread,),) = self._base.execute(
            "INSERT INTO thread (first, id, rows) VALUES (?, ?, 1) "
            "ON CONFLICT (id) DO UPDATE SET rows = rows + 1 RETURNING first",
            (row.number, row.thread_id),
        )
        files = sum(1 if "externalUrl" in each else 2 for each in row.files)
        self._base.execute(
            "INSERT INTO item (row, thread, at, answer, customer, size, files, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(row.number, thread, row.at, row.body["direction"] != "in", customer_key(row.customer)),
                *(len(to_json(row.body)) + BYTES_BESIDE_THE_ROW, files, data if self._with_data else None),
            ),
        )

    def _add_again(self, number: int, first: int, same: bool) -> None:
        """Add a further row with a messageId: the first in the file counts."""
        self._base.execute("INSERT INTO item (row, same) VALUES (?, ?)", (number, first if same else None))
        if not same:
            title = f"is that of row {first} already, which says something else: the first one counts"
            self.refuse(number, [("messageId", title)])

    def choose(self, limit: int | None = None) -> None:
        """Choose the threads to import: all, or whole ones of part 0 in the file's order up to ``limit`` rows.

        Of a first thread that is longer than ``limit``, its oldest messages are chosen.
        """
        execute = self._base.execute
        if self._part is not None:
            execute("UPDATE thread SET part = ?", (self._part,))
        elif (parts := self.parts) > 1:
            execute("UPDATE thread SET part = part_of(id, ?)", (parts,))
        execute("CREATE INDEX in_order ON item (thread, at, row) WHERE thread IS NOT NULL")
        # Whom a thread is with its oldest message from the customer says: an answer's author may be somebody's agent.
        speaker = "SELECT row FROM item WHERE thread = first ORDER BY answer, at, row LIMIT 1"
        execute(f"UPDATE thread SET speaker = ({speaker})")  # noqa: S608 - a constant
        if limit is None:
            execute("UPDATE thread SET chosen = rows")
            return
        last, room = 0, limit
        for first, rows in execute("SELECT first, rows FROM thread WHERE part = 0 ORDER BY first"):
            if last and rows > room:
                break
            last, room = first, room - rows
        execute("UPDATE thread SET chosen = MIN(rows, ?) WHERE part = 0 AND first <= ?", (limit, last))
        rest = "SELECT row FROM item WHERE thread = ? ORDER BY at, row LIMIT -1 OFFSET ?"
        if room < 0:
            execute(f"UPDATE item SET later = 1 WHERE row IN ({rest})", (last, limit))  # noqa: S608 - a constant

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self._one("SELECT COUNT(*) FROM item")

    @property
    def parts(self) -> int:
        """Into how many parts the whole file is cut, which follows from the file alone."""
        return self._parts if self._part is not None else parts_of(self.rows)

    @property
    def chosen(self) -> int:
        """How many messages are to be imported, each counted once."""
        return self._one("SELECT COALESCE(SUM(chosen), 0) FROM thread")

    def forecast(self, fresh: bool) -> Forecast:
        """Count what an import has to do when nothing of it is recorded yet; ``fresh`` spares it looking for that."""
        chosen = "FROM item JOIN thread ON thread = first WHERE chosen AND NOT later"
        first, last, files = self._base.execute(f"SELECT MIN(at), MAX(at), SUM(files) {chosen}").fetchone()
        threads = self._one("SELECT COUNT(*) FROM thread WHERE chosen")
        speakers = "FROM thread JOIN item ON row = speaker WHERE chosen"
        customers = self._one(f"SELECT COUNT(DISTINCT customer) {speakers}")
        # One whom another part has made is refused, and then looked for.
        again = self._one(f"SELECT COUNT(*) FROM (SELECT DISTINCT part, customer {speakers})") - customers  # noqa: S608
        looks = again if fresh else again + threads
        keys = self._one("SELECT COUNT(DISTINCT part) FROM thread WHERE chosen") or 1
        requests = keys + looks + (files or 0) + REQUESTS_OF_A_JOB * self._jobs()
        return Forecast(threads, customers, requests, first, last)

    def _jobs(self) -> int:
        """Count the bulk jobs that an import takes."""
        rows = self._base.execute(
            "SELECT part, thread, size, row = speaker, customer FROM item JOIN thread ON thread = first "
            "WHERE chosen AND NOT later ORDER BY part, thread, at, row"
        )
        jobs = 0
        for _, of_part in groupby(rows, itemgetter(0)):
            threads = (list(each) for _, each in groupby(of_part, itemgetter(1)))
            seen = set[str]()
            while wave := list(islice(threads, WAVE)):
                items = [item for thread in wave for item in thread]
                new = {customer for *_, speaks, customer in items if speaks} - seen
                seen |= new
                jobs += math.ceil(len(new) / MAX_ITEMS) + math.ceil(len(wave) / MAX_ITEMS)
                jobs += sum(1 for _ in batches(items, itemgetter(2)))
        return jobs

    def threads(self, part: int, after: int, most: int) -> list[Thread]:
        """Return the next threads of a part, in the file's order: those that appear first beyond row ``after``."""
        query = "SELECT first, id FROM thread WHERE part = ? AND chosen AND first > ? ORDER BY first LIMIT ?"
        return [Thread(*each) for each in self._base.execute(query, (part, after, most))]

    def threads_at(self, firsts: Iterable[int]) -> list[Thread]:
        """Return those of the threads to import that appear first in these rows."""
        query = "SELECT first, id FROM thread WHERE first = ? AND chosen"
        return [Thread(*each) for first in firsts for each in self._base.execute(query, (first,))]

    def find(self, ids: Iterable[str]) -> list[Thread]:
        """Return those of the threads to import that are called so."""
        query = "SELECT first, id FROM thread WHERE id = ? AND chosen"
        return [Thread(*each) for one in ids for each in self._base.execute(query, (one,))]

    def oldest(self, thread: Thread) -> Row:
        """Return the oldest message of a thread, whatever has become of it."""
        query = "SELECT row FROM item WHERE thread = ? ORDER BY at, row LIMIT 1"
        return self.message(self._one(query, thread.first))

    def speaker(self, thread: Thread) -> Row:
        """Return the message whose customer is the thread's: the oldest one from a customer, else the oldest one."""
        return self.message(self._one("SELECT speaker FROM thread WHERE first = ?", thread.first))

    def message(self, number: int) -> Row:
        """Return a row as it was added."""
        ((data,),) = self._base.execute("SELECT data FROM item WHERE row = ?", (number,))
        return Row(number, *json.loads(data))

    def order(self, threads: Iterable[Thread]) -> list[int]:
        """Return the rows that are left of these threads, one thread after the other, the oldest of each first."""
        query = "SELECT row FROM item WHERE thread = ? AND status = 'left' AND NOT later ORDER BY at, row"
        return [row for thread in threads for (row,) in self._base.execute(query, (thread.first,))]

    def ids(self, thread: Thread) -> Iterator[tuple[int, str]]:
        """Return the rows of a thread that are left, each with its messageId."""
        query = "SELECT row, data FROM item WHERE thread = ? AND status = 'left'"
        yield from ((row, json.loads(data)[0]) for row, data in self._base.execute(query, (thread.first,)))

    def mark(self, numbers: Iterable[int], status: Status) -> None:
        """Note what has become of these rows."""
        self._base.executemany("UPDATE item SET status = ? WHERE row = ?", ((status, each) for each in numbers))

    def mark_done(self, part: int, last: int, but: Iterable[int]) -> None:
        """Note that a part's threads are recorded up to the one that appears first in row ``last``, ``but`` these."""
        done = "SELECT first FROM thread WHERE part = ? AND first <= ?"
        self._base.execute(f"UPDATE item SET status = 'already' WHERE thread IN ({done})", (part, last))  # noqa: S608
        self._base.executemany("UPDATE item SET status = 'left' WHERE thread = ?", ((each,) for each in but))

    def unfinished(self, threads: Iterable[Thread]) -> list[int]:
        """Return those of these threads that are not recorded as a whole, by the row where each appears first."""
        query = "SELECT EXISTS (SELECT 1 FROM item WHERE thread = ? AND status NOT IN ('created', 'already'))"
        return [each.first for each in threads if self._one(query, each.first)]

    def tell(self, number: int, problems: Iterable[Problem]) -> None:
        """Note why a row has its status."""
        told = ((number, *(_as_told(text) for text in each)) for each in problems)
        self._base.executemany("INSERT INTO problem VALUES (?, ?, ?)", told)

    def refuse(self, number: int, problems: Iterable[Problem]) -> None:
        """Note that a row is refused, and why."""
        self.mark([number], "refused")
        self.tell(number, problems)

    def leave_unknown(self, numbers: Iterable[int], why: str) -> None:
        """Note of those of these rows that are left that they may be recorded."""
        for number in numbers:
            if self._one("SELECT EXISTS (SELECT 1 FROM item WHERE row = ? AND status = 'left')", number):
                self.mark([number], "unknown")
                self.tell(number, [("", why)])

    def counts(self) -> dict[Status, int]:
        """Count the rows by what has become of them; the same row again has the fate of the first."""
        query = (
            "SELECT CASE WHEN item.same IS NULL THEN item.status WHEN one.status = 'created' THEN 'already' "
            "ELSE one.status END, COUNT(*) FROM item LEFT JOIN item AS one ON one.row = item.same GROUP BY 1"
        )
        numbers = dict(self._base.execute(query).fetchall())
        return {status: numbers.get(status, 0) for status in STATUSES}

    def reasons(self) -> list[dict[str, Any]]:
        """Count what was told of rows, the most frequent first: each ``{"rows", "example", "path", "title"}``.

        What differs by numbers only is one reason; ``example`` is the first row that it is told of.
        """
        query = (
            "SELECT COUNT(DISTINCT row), MIN(row), path, title FROM (SELECT row, path, title FROM problem "
            "UNION ALL SELECT item.row, path, title FROM item JOIN problem ON problem.row = item.same) "
            "GROUP BY path, alike(title) ORDER BY 1 DESC, 2, 3 LIMIT ?"
        )
        names = ("rows", "example", "path", "title")
        return [dict(zip(names, each, strict=True)) for each in self._base.execute(query, (MOST_REASONS,))]

    def refused(self) -> Iterator[tuple[int, str]]:
        """Return the rows that are refused, in the file's order, each with all that was told of it.

        What is unknown may be recorded yet, and is nothing to send elsewhere.
        """
        query = (
            "SELECT item.row, COALESCE(item.same, item.row) FROM item LEFT JOIN item AS one ON one.row = item.same "
            "WHERE COALESCE(one.status, item.status) = 'refused' ORDER BY item.row"
        )
        for row, told_of in self._base.execute(query):
            told = self._base.execute("SELECT path, title FROM problem WHERE row = ?", (told_of,))
            yield row, "; ".join(f"{path} {title}".strip() for path, title in told)

    def other_customers(self) -> dict[str, Any]:
        """Count the threads in which rows name somebody else than the thread's customer: ``{"threads", "rows"}``.

        ``rows`` are some of these, as examples. Who shares an identifier is the same.
        """
        query = (
            "SELECT item.thread, item.row, item.customer, one.customer FROM item JOIN thread ON item.thread = first "
            "JOIN item AS one ON one.row = speaker WHERE item.customer != one.customer ORDER BY item.thread, item.row"
        )
        count, before, examples = 0, None, list[int]()
        for thread, row, customer, speaker in self._base.execute(query):
            if json.loads(customer).items() & json.loads(speaker).items() or thread == before:
                continue
            count, before = count + 1, thread
            examples += [row][: MOST_EXAMPLES - len(examples)]
        return {"threads": count, "rows": examples}

    def _one(self, query: str, *values: Any) -> int:
        ((number,),) = self._base.execute(query, values)
        return int(number)


def customer_key(customer: dict[str, str]) -> str:
    """Return one text for what identifies a customer, whatever their name."""
    return json.dumps({name: customer[name] for name in sorted(customer) if name != "name"})


def _alike(title: str) -> str:
    """Return what reasons have in common that differ from row to row by their numbers only."""
    return re.sub(r"\d[\d,.]*\d|\d", "#", title)


def _as_told(text: str) -> str:
    """Return text that may name a column of the file as a database can hold it, and a result."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:LONGEST_TITLE]
