"""History notes.

Shared by the steps that import old messages, not run by itself: what a job writes beside the file in Windmill's object
storage, so that the next one knows what this one has begun, even when it was killed. For ``inbox/old.csv`` that is
``inbox/old.csv.import/``.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable
from typing import Any

from f.kustomer.shared.errors import FileNotRead
from f.kustomer.shared.storage import read, write

# A bulk job that isn't done after a day never will be.
GIVEN_UP_SECONDS = 86_400.0

Note = dict[str, Any]


class Notes:
    """The notes on one part of a file's import, which are those of this very import: the same file, columns and so on.

    ``done`` is the row in which the last thread appears first of those that are recorded, ``begun`` that of the last
    one of which something may be recorded, ``again`` are those before that are not recorded as a whole. ``under_way``
    says what was submitted, and whose end nobody has seen; ``slowest`` are the seconds that the slowest job took;
    ``recorded_at`` is when an import of this file has last recorded something, in epoch seconds.
    """

    def __init__(self, file: dict[str, Any] | None, about: Note, part: int) -> None:
        """Take the file in the object storage, if it is one, and what the import is about: JSON."""
        self._file, self._about, self._part = file, about, part
        self._plan = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
        self._runs: list[Note] = []
        self.done, self.begun, self.again = 0, 0, list[int]()
        self.under_way: Note | None = None
        self.slowest = self.recorded_at = 0.0

    def load(self) -> None:
        """Read what earlier jobs have noted. Raise FileNotRead where nobody can tell whether they have."""
        found = self._read("begun.json")
        self._runs = found.get("runs", []) if found else []
        own = self._read(self._name(self._plan, self._part))
        if own and own.get("about") == self._about:
            self.done, self.begun, self.again = own["done"], own["begun"], own["again"]
            self.under_way, self.slowest, self.recorded_at = own["under_way"], own["slowest"], own["recorded_at"]

    def others_under_way(self) -> list[Note]:
        """Return what other imports of a file of this name had under way when they ended."""
        found: list[Note] = []
        for run in self._others():
            for part in range(run["parts"]):
                note = self._read(self._name(run["plan"], part)) or {"recorded_at": 0, "under_way": None}
                self.recorded_at = max(note["recorded_at"], self.recorded_at)
                found += filter(None, [note["under_way"]])
        return found

    def touched(self) -> set[str] | None:
        """Return the threads, by ``thread_name``, of which other imports may have recorded something; None is any."""
        others = self._others()
        if any(run["threads"] is None for run in others):
            return None
        return {thread for run in others for thread in run["threads"]}

    def begin(self, parts: int, threads: Iterable[str] | None) -> None:
        """Note that this import begins, before anything of it is sent: all threads, or only these."""
        if self._file is None or any(run["plan"] == self._plan for run in self._runs):
            return
        names = None if threads is None else [thread_name(each) for each in threads]
        about = {"organisation": self._about["organisation"], "plan": self._plan}
        self._runs.append({**about, "parts": parts, "threads": names})
        self._write("begun.json", {"runs": self._runs})

    def submitting(self, kind: str, threads: Iterable[str], rows: Iterable[int]) -> None:
        """Note what is about to be submitted."""
        self.under_way = {"kind": kind, "job": None, "at": time.time(), "threads": list(threads), "rows": list(rows)}
        self.save()

    def submitted(self, job: str) -> None:
        """Note the id of the job that was submitted."""
        if self.under_way:
            self.under_way["job"] = job
            self.save()

    def ended(self) -> None:
        """Note that what was submitted has ended."""
        self.under_way, self.recorded_at = None, time.time()

    def save(self) -> None:
        """Write the note of this part."""
        if self._file is None:
            return
        self._write(
            self._name(self._plan, self._part),
            {
                "about": self._about,
                "done": self.done,
                "begun": self.begun,
                "again": self.again,
                "under_way": self.under_way,
                "slowest": self.slowest,
                "recorded_at": self.recorded_at,
            },
        )

    def write_refused(self, lines: Iterable[str]) -> str | None:
        """Write the rows that were refused, to be corrected and imported again; return where."""
        if self._file is None:
            return None
        content = "".join(f"{line}\n" for line in lines)
        return self._write(f"refused-{self._part:04}.ndjson", content) if content else None

    def _others(self) -> list[Note]:
        """Return the other imports into the same organisation: a trial in a sandbox has recorded nothing elsewhere."""
        here = self._about.get("organisation")
        return [run for run in self._runs if run["plan"] != self._plan and run["organisation"] == here]

    @staticmethod
    def _name(plan: str, part: int) -> str:
        return f"part-{part:04}-{plan}.json"

    def _place(self, name: str) -> dict[str, Any]:
        file = self._file or {}
        return {**{key: file[key] for key in ("storage",) if key in file}, "s3": f"{file['s3']}.import/{name}"}

    def _read(self, name: str) -> Note | None:
        if self._file is None:
            return None
        try:
            with read(self._place(name)) as content:
                found = json.load(content)
        except FileNotRead as error:
            if error.status == 404 or re.search("(?i)not found|no such ?key|does not exist", str(error)):
                return None
            raise
        except ValueError:  # nobody's note of ours
            return None
        return found if isinstance(found, dict) else None

    def _write(self, name: str, content: str | Note) -> str:
        place = self._place(name)
        text = content if isinstance(content, str) else json.dumps(content)
        write(place, text.encode("utf-8", "backslashreplace"))
        return str(place["s3"])


def thread_name(thread: str) -> str:
    """Return a short name for a thread, as a list of ids may be long."""
    return hashlib.sha256(thread.encode("utf-8", "surrogatepass")).hexdigest()[:16]
