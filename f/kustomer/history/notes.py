"""History notes.

Shared by the steps that import old messages, not run by itself: what a job writes beside the file in Windmill's object
storage, one small note for each part, so that the next one knows what this one has begun, even when it was killed. For
``inbox/old.csv`` that is ``inbox/old.csv.import/``.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Iterable
from typing import Any

from f.kustomer.shared.errors import FileNotRead, KustomerError

# A run that has given no sign of life for so long is dead; a living one gives one twice as often and more.
DEAD_SECONDS = 120.0
SIGN_SECONDS = 50.0
# Between a claim and what is sent first, so that of two runs that begin at once one sees the other.
CLAIM_SECONDS = 2.0

Note = dict[str, Any]
FIELDS = ("import", "parts", "done", "begun", "behind", "under_way", "inherited", "others", "recorded_at", "at_work")


class AtWork(KustomerError):
    """Another run imports this part of the file just now. Nothing was sent."""


class Notes:
    """The note on one part of an import into one organisation.

    ``done`` is the row in which the last thread appears first of those that are done, ``behind`` those before that
    are not recorded as a whole; ``begun`` that of the last one of which something may be recorded. ``under_way``
    says what was submitted, and whose end nobody has seen: ``kind``, ``job``, ``at``, ``rows``, ``threads``, and
    when it was first looked for without all of it being there; ``inherited`` are those of imports that were here
    before, as ``others`` tells. ``recorded_at`` is when something was recorded last. Times are in epoch seconds.
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
                f"Another run imports this file just now (Windmill's job {at_work['job']}), and has given a sign of "
                f"life {max(seconds, 0):.0f} s ago. This run sent nothing. If that job was killed, run the import "
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
