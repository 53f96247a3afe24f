"""History plan.

Shared by the steps that import old messages, not run by itself: which rows of a file a job imports, in which order, in
which requests, and what has become of each. The rows lie in a temporary database on the worker's disk, so that a long
file takes no more memory than a short one.
"""

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

from f.kustomer.history.rows import Row
from f.kustomer.shared.errors import LONGEST_REASON
from f.kustomer.shared.inputs import Problem

# https://developer.kustomer.com/docs/guides/bulk-operations
MAX_ITEMS = 100
# Requests end at 100 kB: https://developer.kustomer.com/kustomer-api-docs/reference/errors. The rest is for brackets.
MAX_BYTES = 95_000
# A part of so many rows takes some minutes, so that little is lost with it, and few notes are written.
ROWS_OF_A_PART = 20_000
# What a message's body has besides what the row says: ids, dates and names of fields, in bytes.
BYTES_BESIDE_THE_ROW = 260
# A bulk job takes a request to submit it and one to read what became of it.
REQUESTS_OF_A_JOB = 2

# ``left`` is for a later run, ``unknown`` may be recorded or not.
Status = Literal["created", "already", "refused", "unknown", "left"]
STATUSES: tuple[Status, ...] = ("created", "already", "refused", "unknown", "left")

_TABLES = """
CREATE TABLE message (id TEXT PRIMARY KEY, row INTEGER, content BLOB) WITHOUT ROWID;
CREATE TABLE thread (first INTEGER PRIMARY KEY, id TEXT UNIQUE, rows INTEGER, chosen INTEGER DEFAULT 0, mine INTEGER);
CREATE TABLE item (
    row INTEGER PRIMARY KEY, thread INTEGER, at REAL, customer BLOB, size INTEGER, data TEXT, same INTEGER,
    status TEXT DEFAULT 'left'
);
CREATE TABLE problem (row INTEGER, path TEXT, title TEXT);
CREATE INDEX problem_row ON problem (row);
"""


class Thread(NamedTuple):
    """A thread of the plan; ``first`` is the row in the file where it appears first, and stands for it in notes."""

    first: int
    id: str


class Totals(NamedTuple):
    """What a part has to do: ``first`` and ``last`` are the dates of its messages, in epoch seconds."""

    threads: int
    customers: int
    jobs: int
    first: float | None
    last: float | None


def part_of(thread_id: str, parts: int) -> int:
    """Return the part, from 0, that a thread belongs to: the same in every run and on every worker."""
    return int.from_bytes(hashlib.sha256(thread_id.encode("utf-8", "surrogatepass")).digest()[:8]) % parts


Item = TypeVar("Item")


def batches(
    items: Iterable[Item],
    size: Callable[[Item], int],
    room: Callable[[], int] = lambda: MAX_BYTES,
    alone: Callable[[Item], object] | None = None,
) -> Iterator[list[Item]]:
    """Cut items into requests of at most MAX_ITEMS items and ``room`` bytes, in order; a larger item goes by itself.

    Of items with the same ``alone``, a request has one only.
    """
    batch: list[Item] = []
    used, seen = 0, set[object]()
    for item in items:
        needed = size(item) + 1  # the comma
        repeated = alone is not None and alone(item) in seen
        if batch and (len(batch) >= MAX_ITEMS or used + needed > room() or repeated):
            yield batch
            batch, used, seen = [], 0, set()
        batch.append(item)
        used += needed
        if alone:
            seen.add(alone(item))
    if batch:
        yield batch


def work(rows: int) -> list[dict[str, int]]:
    """Return the parts to import so many rows in, each ``{"part", "parts"}``."""
    parts = max(1, math.ceil(rows / ROWS_OF_A_PART))
    return [{"part": part, "parts": parts} for part in range(parts)]


def requests_for(totals: Totals, fresh: bool) -> int:
    """Return about how many requests an import takes when nothing of it is recorded yet."""
    waves = math.ceil(totals.threads / MAX_ITEMS)
    customers = max(waves, math.ceil(totals.customers / MAX_ITEMS))
    looks = 0 if fresh else totals.threads
    return 1 + looks + REQUESTS_OF_A_JOB * (customers + waves + totals.jobs) if totals.threads else 1


class Plan:
    """The rows of one part of a file, and what has become of each.

    Rows are added in the file's order, all of them, as a messageId is told from the others of the whole file; then
    ``choose`` says which are to be imported. Every row of the part is ``left`` until it is marked as something else, so
    that each counts once.
    """

    def __init__(self, part: int = 0, parts: int = 1, with_data: bool = True) -> None:
        """Take the part; without ``with_data`` the rows are only counted, and can't be read again."""
        self._part, self._parts, self._with_data = part, parts, with_data
        # Without a name, it is a file that is deleted already: not even a killed job leaves it behind.
        self._base = sqlite3.connect("", isolation_level=None)
        self._base.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN; {_TABLES}")

    def close(self) -> None:
        """Let go of the disk space."""
        self._base.close()

    def add(self, number: int, found: Row | list[Problem]) -> None:
        """Add the row ``number`` of the file, or what is wrong with it."""
        if isinstance(found, Row):
            self._add_row(found)
        elif self._part == 0:  # a row that can't be read has no thread
            self._base.execute("INSERT INTO item (row) VALUES (?)", (number,))
            self.refuse(number, found)

    def _add_row(self, row: Row) -> None:
        data = json.dumps(row[1:], separators=(",", ":"))
        content = _digest(data)
        known = self._base.execute("SELECT row, content FROM message WHERE id = ?", (row.message_id,)).fetchone()
        mine = part_of(row.thread_id, self._parts) == self._part
        if known is None:
            self._base.execute("INSERT INTO message VALUES (?, ?, ?)", (row.message_id, row.number, content))
            ((thread,),) = self._base.execute(
                "INSERT INTO thread (first, id, rows, mine) VALUES (?, ?, 1, ?) "
                "ON CONFLICT (id) DO UPDATE SET rows = rows + 1 RETURNING first",
                (row.number, row.thread_id, mine),
            )
            if mine:
                self._base.execute(
                    "INSERT INTO item (row, thread, at, customer, size, data) VALUES (?, ?, ?, ?, ?, ?)",
                    (row.number, thread, row.at, _digest(customer_key(row.customer)), len(data), self._kept(data)),
                )
        elif mine:
            self._add_again(row.number, known[0], known[1] == content)

    def _kept(self, data: str) -> str | None:
        return data if self._with_data else None

    def _add_again(self, number: int, first: int, same: bool) -> None:
        """Add a further row with a messageId: the first in the file counts."""
        self._base.execute("INSERT INTO item (row, same) VALUES (?, ?)", (number, first if same else None))
        if not same:
            title = f"is that of row {first} already, which says something else: the first one counts"
            self.refuse(number, [("messageId", title)])

    def choose(self, limit: int | None = None) -> None:
        """Choose the threads to import: all, or whole ones in the file's order up to ``limit`` rows.

        Of a first thread that is longer than ``limit``, its oldest messages are chosen.
        """
        execute = self._base.execute
        execute("CREATE INDEX in_order ON item (thread, at, row) WHERE thread IS NOT NULL")
        if limit is None:
            execute("UPDATE thread SET chosen = rows")
            return
        last, left = 0, limit
        for first, rows in execute("SELECT first, rows FROM thread ORDER BY first"):
            if rows > left:
                break
            last, left = first, left - rows
        if last:
            execute("UPDATE thread SET chosen = rows WHERE first <= ?", (last,))
            return
        ((first,),) = execute("SELECT MIN(first) FROM thread")
        execute("UPDATE thread SET chosen = ? WHERE first = ?", (limit, first))
        rest = "SELECT row FROM item WHERE thread = ? ORDER BY at, row LIMIT -1 OFFSET ?"
        execute(f"UPDATE item SET thread = NULL WHERE row IN ({rest})", (first, limit))  # noqa: S608

    @property
    def rows(self) -> int:
        """The rows of this part."""
        return self._one("SELECT COUNT(*) FROM item")

    @property
    def chosen(self) -> int:
        """The messages of this part that are to be imported, each counted once."""
        return self._one("SELECT COALESCE(SUM(chosen), 0) FROM thread WHERE mine")

    def totals(self, in_turn: bool = False) -> Totals:
        """Count what this part has to do, where threads take turns or come one after the other."""
        chosen = "FROM item JOIN thread ON item.thread = thread.first WHERE chosen"
        first, last, size = self._base.execute(
            f"SELECT MIN(at), MAX(at), SUM(size + {BYTES_BESIDE_THE_ROW}) {chosen}"
        ).fetchone()
        # Beside MIN, SQLite gives the columns of the row that has it: https://sqlite.org/lang_select.html#bareagg
        firsts = f"SELECT customer, MIN(at) {chosen} GROUP BY item.thread"
        customers = self._one(f"SELECT COUNT(DISTINCT customer) FROM ({firsts})")  # noqa: S608
        threads = self._one("SELECT COUNT(*) FROM thread WHERE mine AND chosen")
        longest = self._one("SELECT COALESCE(MAX(chosen), 0) FROM thread WHERE mine") if in_turn else 0
        jobs = max(math.ceil(self.chosen / MAX_ITEMS), math.ceil((size or 0) / MAX_BYTES), longest)
        return Totals(threads, customers, jobs, first, last)

    def threads(self, after: int, most: int = MAX_ITEMS) -> list[Thread]:
        """Return the next threads of this part, in the file's order: those that appear first beyond row ``after``."""
        query = "SELECT first, id FROM thread WHERE mine AND chosen AND first > ? ORDER BY first LIMIT ?"
        return [Thread(*each) for each in self._base.execute(query, (after, most))]

    def thread(self, first: int) -> Thread | None:
        """Return the thread that appears first in the row ``first``, if it is one of this part's."""
        query = "SELECT first, id FROM thread WHERE mine AND chosen AND first = ?"
        found = self._base.execute(query, (first,)).fetchone()
        return Thread(*found) if found else None

    def all_threads(self) -> Iterator[str]:
        """Return the ids of all chosen threads, those of other parts too."""
        yield from (thread for (thread,) in self._base.execute("SELECT id FROM thread WHERE chosen ORDER BY first"))

    def first_message(self, thread: Thread) -> Row:
        """Return the oldest message of a thread, whatever has become of it."""
        query = "SELECT row FROM item WHERE thread = ? ORDER BY at, row LIMIT 1"
        return self.message(self._one(query, thread.first))

    def message(self, number: int) -> Row:
        """Return a row as it was added."""
        ((data,),) = self._base.execute("SELECT data FROM item WHERE row = ?", (number,))
        return Row(number, *json.loads(data))

    def order(self, threads: Iterable[Thread], in_turn: bool) -> Iterator[int]:
        """Return the rows that are left of these threads, the oldest of each first.

        One thread comes after the other, or all of them ``in_turn``: the first rows of all, then the second ones.
        """
        firsts = [each.first for each in threads]
        turn = "ROW_NUMBER() OVER (PARTITION BY thread ORDER BY at, row), " if in_turn else ""
        marks = ", ".join("?" * len(firsts))
        query = (
            f"SELECT row FROM item WHERE thread IN ({marks}) AND status = 'left' "  # noqa: S608 - marks only
            f"ORDER BY {turn}thread, at, row"
        )
        # All at once, as rows are marked in between.
        return iter([row for (row,) in self._base.execute(query, firsts)])

    def ids(self, thread: Thread) -> Iterator[tuple[int, str]]:
        """Return the rows of a thread that are left, each with its messageId."""
        query = "SELECT row, data FROM item WHERE thread = ? AND status = 'left'"
        yield from ((row, json.loads(data)[0]) for row, data in self._base.execute(query, (thread.first,)))

    def mark(self, numbers: Iterable[int], status: Status) -> None:
        """Note what has become of these rows."""
        self._base.executemany("UPDATE item SET status = ? WHERE row = ?", ((status, each) for each in numbers))

    def mark_done(self, last: int, but: Iterable[int]) -> None:
        """Note that the threads up to the one that appears first in row ``last`` are recorded, ``but`` for these."""
        self._base.execute("UPDATE item SET status = 'already' WHERE thread <= ?", (last,))
        self._base.executemany("UPDATE item SET status = 'left' WHERE thread = ?", ((each,) for each in but))

    def unfinished(self, threads: Iterable[Thread]) -> list[int]:
        """Return those of these threads that are not recorded as a whole, by the row where each appears first."""
        query = "SELECT EXISTS (SELECT 1 FROM item WHERE thread = ? AND status NOT IN ('created', 'already'))"
        return [each.first for each in threads if self._one(query, each.first)]

    def find(self, threads: Iterable[str]) -> list[Thread]:
        """Return those of these threads that this part has to import."""
        query = "SELECT first, id FROM thread WHERE mine AND chosen AND id = ?"
        found = (self._base.execute(query, (each,)).fetchone() for each in threads)
        return [Thread(*each) for each in found if each]

    def tell(self, number: int, problems: Iterable[Problem]) -> None:
        """Note why a row has its status."""
        told = ((number, *(_as_told(text) for text in each)) for each in problems)
        self._base.executemany("INSERT INTO problem VALUES (?, ?, ?)", told)

    def refuse(self, number: int, problems: Iterable[Problem]) -> None:
        """Note that a row is refused, and why."""
        self.mark([number], "refused")
        self.tell(number, problems)

    def counts(self) -> dict[Status, int]:
        """Count the rows by what has become of them; the same row again has the fate of the first."""
        query = (
            "SELECT CASE WHEN item.same IS NULL THEN item.status WHEN one.status = 'created' THEN 'already' "
            "ELSE one.status END, COUNT(*) FROM item LEFT JOIN item AS one ON one.row = item.same GROUP BY 1"
        )
        found = dict(self._base.execute(query).fetchall())
        return {status: found.get(status, 0) for status in STATUSES}

    def problems(self, most: int) -> list[dict[str, Any]]:
        """Return what was told of rows, in the file's order, at most so many: each ``{"row", "path", "title"}``."""
        query = (
            "SELECT row, path, title FROM problem UNION ALL SELECT item.row, path, title FROM item JOIN problem "
            "ON problem.row = item.same ORDER BY 1 LIMIT ?"
        )
        return [{"row": row, "path": path, "title": title} for row, path, title in self._base.execute(query, (most,))]

    def problems_of(self, number: int) -> list[dict[str, Any]]:
        """Return what was told of one row."""
        query = "SELECT path, title FROM problem WHERE row IN (?, (SELECT same FROM item WHERE row = ?))"
        found = self._base.execute(query, (number, number))
        return [{"row": number, "path": path, "title": title} for path, title in found]

    def refused(self) -> set[int]:
        """Return the rows that are refused; what is unknown may be recorded yet, and is nothing to send elsewhere."""
        query = (
            "SELECT item.row FROM item LEFT JOIN item AS one ON one.row = item.same "
            "WHERE COALESCE(one.status, item.status) = 'refused'"
        )
        return {row for (row,) in self._base.execute(query)}

    def _one(self, query: str, *values: Any) -> int:
        ((found,),) = self._base.execute(query, values)
        return int(found)


def customer_key(customer: dict[str, str]) -> str:
    """Return one text for what identifies a customer, whatever their name."""
    return json.dumps({name: customer[name] for name in sorted(customer) if name != "name"})


def _as_told(text: str) -> str:
    """Return text that may name a column of the file as a database can hold it, and a result."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:LONGEST_REASON]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
