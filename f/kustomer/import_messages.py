"""Import messages.

Puts a file of old messages onto Kustomer's timelines, a hundred a request, each once and with its date. It delivers
nothing to anybody. The calls are those of https://developer.kustomer.com/docs/guides/bulk-operations
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, BinaryIO, Literal, NamedTuple

from f.kustomer.check_connection import DATES
from f.kustomer.check_connection import main as check_key
from f.kustomer.history.file import WrongFile, records
from f.kustomer.history.jobs import Jobs
from f.kustomer.history.notes import Notes
from f.kustomer.history.pace import SMALLEST_LIMIT, Pace, clock
from f.kustomer.history.plan import Plan, requests_for, work
from f.kustomer.history.rows import Columns, Options, as_json, row_of, unused_columns, wrong_columns
from f.kustomer.history.threads import Import
from f.kustomer.shared.advice import invalid
from f.kustomer.shared.client import log, start
from f.kustomer.shared.errors import AccessDenied, InvalidInput, KustomerError, RecordKind
from f.kustomer.shared.inputs import Field, Number, kustomer, unless_blank
from f.kustomer.shared.storage import read
from f.kustomer.upload_attachment import S3Object, decoded, not_base64, s3_object

# More of them nobody reads, and a result has its limits; all refused rows stand in a file of their own.
MAX_PROBLEMS = 1_000
KEEP = 0.5
# Where the file of refused rows says why; when it is imported again, what is called so is left aside.
WHY = "_refused"


class History:
    """The file of old messages, and how to import it.

    First run it with check on: it says what is wrong with the file and how long it will take, and writes nothing. Then
    with a limit of 100, and look at some of these timelines in Kustomer. Then without a limit.
    """

    file: S3Object = Field(
        "The file in Windmill's object storage, of any length: CSV with a header line, or a JSON object a line, "
        "each of them packed with gzip if you like.",
        closed=False,
        tidy=s3_object,
        format="resource-s3_object",
        showExpr="!fields.content",
    )
    content: str = Field(
        "A small file of some thousand rows, dropped here. In a flow: its bytes as base64.",
        tidy=unless_blank,
        check=not_base64,
        contentEncoding="base64",
        showExpr="!fields.file?.s3",
    )
    name: str = Field(
        "Name of a file that was dropped, if it isn't plain from its content what it is.",
        example="history.csv",
        max_length=255,
        showExpr="fields.content",
    )
    app: str = Field(
        "A name for where the messages come from, the same in every run.",
        example="old-helpdesk",
        required=True,
        max_length=256,
    )
    check: bool = Field(
        "On: only say what is wrong with the file, and how long it will take. Nothing is written to Kustomer. Do "
        "this first.",
        example=True,
    )
    limit: int = Field(
        "Import whole conversations up to so many rows only, from the beginning of the file. Try 100 first, and "
        "look at these timelines in Kustomer; then leave it empty: what is there already is left as it is.",
        example=100,
        ge=1,
    )
    columns: Columns = Field(
        "Which of the file's columns is which. Left empty, the file's columns must be called like the fields here.",
        example={"messageId": "Message ID", "threadId": "Ticket"},
    )
    channel: Literal[
        "email", "sms", "chat", "facebook", "twitter-dm", "twitter-tweet", "voice", "instagram", "whatsapp"
    ] = Field("The channel of rows that don't say it.")
    direction: Literal["in", "out"] = Field(
        "The direction of rows that don't say it. in: from the customer to you. out: from you to the customer."
    )
    part: int = Field(
        "Which part of the file this run imports, counted from 0, where several share it.", example=0, ge=0
    )
    parts: int = Field("Into how many parts the file is cut.", example=1, ge=1)
    keep: Number = Field(
        "The share of your organisation's requests a minute that is left to your agents and everything else. Left "
        "empty: 0.5, which is half of them.",
        example=0.5,
        ge=0,
        le=0.95,
        placeholder="0.5",
    )
    fresh: bool = Field(
        "On: none of these messages was ever recorded in Kustomer, by this import or anything else. Then it "
        "doesn't look for each conversation first, and takes a sixth of the requests. Only for a file in the "
        "object storage.",
        example=False,
    )
    seconds: Number = Field(
        "End by itself before so many seconds are over, and say what is left. For a Windmill server that ends "
        "jobs: 800 on the cloud. Left empty, it takes the time that it needs.",
        example=800,
        ge=1,
    )

    @staticmethod
    def wrong_together(given: dict[str, Any]) -> str | None:
        """Return what is wrong with the fields beside each other, or None."""
        sources = [name for name in ("file", "content") if name in given]
        if len(sources) != 1:
            return f"must have one of file and content, not {' and '.join(sources) or 'none'}"
        if "content" in given and given.get("fresh"):
            return (
                "must not be fresh with a content: only beside a file in the object storage is noted what was recorded"
            )
        part, parts = given.get("part", 0), given.get("parts", 1)
        if isinstance(part, Number) and isinstance(parts, Number) and part >= parts:
            return "must have a part below parts: they are counted from 0"
        return None


IMPORT = RecordKind("import", not_sent_text="This run recorded nothing.", done_verb="done")
STEP = "f/kustomer/import_messages"
DATES_ROLE = DATES.roles[0]


class Key(NamedTuple):
    """What a key may do: whether it may set dates, and in which organisation, with how many requests a minute."""

    dates: bool
    organisation: str
    limit: int


def main(auth: kustomer, body: "History") -> dict[str, Any]:
    """Import a file of old messages, or one part of it; what is recorded already is left as it is.

    Return ``{"rows", "created", "already", "refused", "unknown", "left", "customers", "conversations", "requests",
    "seconds", "problems", "remarks", "again", "refused_rows"}``. ``rows`` is the sum of the five after it: ``left`` is
    for a later run, ``unknown`` may be recorded or not. ``problems`` are ``{"row", "path", "title"}``; ``again`` is
    true when running this again goes on where it ended; ``refused_rows`` is where refused rows were written, or
    None. With ``check`` it counts the whole file, ``requests`` are those that it will take, and there are
    ``threads``, ``work`` (``{"part", "parts"}`` for each job), ``first`` and ``last`` (dates) and ``hours`` besides.
    Raise the KustomerErrors of f.kustomer.shared.errors.
    """
    started = clock.now()
    given = start(auth, IMPORT, body, History).body
    with _opened(given) as file, closing(_plan(given)) as plan:
        unused = _read_rows(given, file, plan)
        key = _key(auth)
        remarks = _remarks(given, key, unused)
        if given.get("check"):
            return _result(plan, started, remarks) | _checked(plan, given, key)
        return _imported(auth, given, file, plan, key, remarks, started)


def _opened(given: dict[str, Any]) -> BinaryIO:
    return read(given["file"]) if "file" in given else BytesIO(decoded(given["content"]))


def _name(given: dict[str, Any]) -> str:
    return str(given["file"].get("filename") or given["file"]["s3"] if "file" in given else given.get("name", ""))


def _plan(given: dict[str, Any]) -> Plan:
    return Plan(with_data=False) if given.get("check") else Plan(given.get("part", 0), given.get("parts", 1))


def _read_rows(given: dict[str, Any], file: BinaryIO, plan: Plan) -> list[str]:
    """Read the file into the plan, and return the columns that are left aside. Raise InvalidInput."""
    try:
        found = records(file, _name(given))
        columns, header = given.get("columns"), found.columns
        if problems := wrong_columns(columns, header):
            raise invalid([(f"body.{path}", what) for path, what in problems])
        options = _options(given, header)
        for record in found:
            if record.value and record.value.pop(WHY, None) is not None:
                given.pop("fresh", None)  # of its thread, the import that refused it has likely recorded the rest
            plan.add(record.row, row_of(record, options))
    except WrongFile as error:
        path = "body.file" if "file" in given else "body.content"
        reason = {"code": "wrong_file", "title": str(error), "detail": None, "path": path}
        raise InvalidInput(f"This run sent nothing. {error}", outcome="not_sent", errors=[reason]) from None
    plan.choose(given.get("limit"))
    return unused_columns(columns, header or [])


def _options(given: dict[str, Any], header: list[str] | None) -> Options:
    return Options(given["app"], given.get("channel", ""), given.get("direction", ""), given.get("columns"), header)


def _key(auth: kustomer) -> Key:
    """Ask Kustomer what the key may do. Raise AccessDenied with all roles that it lacks."""
    told = check_key(auth)
    organisation = str(told["organisation"]["id"] or told["host"])
    limit = told["limit"]["requests"] or SMALLEST_LIMIT
    if told["steps"] is None:
        return Key(False, organisation, limit)
    lacking = next(each["missing"] for each in told["steps"] if each["step"] == STEP)
    if needed := [each for each in lacking if each["role"] != DATES_ROLE]:
        raise _denied(needed)
    return Key(not lacking, organisation, limit)


def _denied(needed: list[dict[str, str]]) -> AccessDenied:
    listed = ", ".join(f"{each['role']} (to {each['use']})" for each in needed)
    return AccessDenied(
        f"The key lacks roles that the import needs: {listed}. This run recorded nothing. Roles can't be changed: "
        "make a new key with all of them.",
        outcome="not_sent",
        errors=[
            {"code": "missing_role", "title": each["role"], "detail": each["use"], "path": None} for each in needed
        ],
    )


def _remarks(given: dict[str, Any], key: Key, unused: list[str]) -> list[str]:
    found = []
    if not key.dates:
        found.append(
            "The key lacks the role org.admin, so that Kustomer dates these records by their import; when a message "
            "was really sent stands in its sentAt only."
        )
    if "content" in given:
        found.append(
            "Nothing can be noted beside a file that was dropped: if this job is killed while Kustomer carries out a "
            "bulk job, the next run may record that one's messages, 100 at most, a second time."
        )
    if unused:
        found.append(f"Columns of the file that are left aside: {', '.join(unused)}.")
    return found


def _result(plan: Plan, started: float, remarks: list[str]) -> dict[str, Any]:
    """Return what came of it so far, by the plan."""
    return {
        "rows": plan.rows,
        **dict(plan.counts().items()),
        "customers": 0,
        "conversations": 0,
        "requests": 1,
        "seconds": round(clock.now() - started, 1),
        "problems": plan.problems(MAX_PROBLEMS),
        "remarks": remarks,
        "again": False,
        "refused_rows": None,
    }


def _checked(plan: Plan, given: dict[str, Any], key: Key) -> dict[str, Any]:
    """Return what an import will be like."""
    totals = plan.totals(in_turn=not key.dates)
    requests = requests_for(totals, given.get("fresh", False))
    return {
        "threads": totals.threads,
        "customers": totals.customers,
        "conversations": totals.threads,
        "work": work(plan.chosen),
        "first": _date(totals.first),
        "last": _date(totals.last),
        "requests": requests,
        "hours": round(requests / (key.limit * (1 - given.get("keep", KEEP))) / 60, 2),
    }


def _date(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _imported(
    auth: kustomer,
    given: dict[str, Any],
    file: BinaryIO,
    plan: Plan,
    key: Key,
    remarks: list[str],
    started: float,
) -> dict[str, Any]:
    notes = Notes(given.get("file"), _about(given, file, key), given.get("part", 0))
    notes.load()
    notes.begin(given.get("parts", 1), plan.all_threads() if "limit" in given else None)
    progress = Progress(plan, started)
    seconds = given["seconds"] - (clock.now() - started) if "seconds" in given else None
    pace = Pace(given.get("keep", KEEP), seconds, progress.show)
    done = Import(plan, Jobs(auth, pace, notes), dates=key.dates, fresh=given.get("fresh", False))
    done.run()
    progress.show(pace.remaining)
    if done.stopped:
        remarks = [*remarks, f"The import ended before its end: {done.stopped}"]
    refused_rows = None
    try:
        refused_rows = notes.write_refused(_refused_lines(given, file, plan))
    except KustomerError as error:  # what is recorded is to be told all the same
        remarks = [*remarks, f"The refused rows were not written beside the file: {error}"]
    return _result(plan, started, remarks) | {
        "customers": done.customers,
        "conversations": done.conversations,
        "requests": 1 + done.requests,
        "again": bool(done.stopped) and done.comes_on,
        "refused_rows": refused_rows,
    }


def _about(given: dict[str, Any], file: BinaryIO, key: Key) -> dict[str, Any]:
    """Return what makes an import this one: whatever changes what is recorded, where, or in which order."""
    if "file" not in given:
        return {}
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type] # BinaryIO lacks readinto there
    names = ("app", "columns", "channel", "direction", "limit", "parts")
    content = {"size": file.tell(), "sha256": digest.hexdigest()}
    return {**content, "organisation": key.organisation, **{name: given.get(name) for name in names}}


def _refused_lines(given: dict[str, Any], file: BinaryIO, plan: Plan) -> Iterator[str]:
    """Return the refused rows as lines of JSON, each with why: fit to be corrected and imported again."""
    wanted = plan.refused()
    if "file" not in given or not wanted:
        return
    found = records(file, _name(given))
    options = _options(given, found.columns)
    for record in found:
        if record.row in wanted:
            why = "; ".join(f"{each['path']} {each['title']}".strip() for each in plan.problems_of(record.row))
            row = as_json(record.value or {}, options)
            yield json.dumps({**row, WHY: f"row {record.row}: {why}"}, ensure_ascii=False)


class Progress:
    """Shows how far an import is: a line in the job's log, and the bar that Windmill shows on it."""

    def __init__(self, plan: Plan, started: float) -> None:
        """Take what is imported, and when that began."""
        self._plan, self._started, self._rows = plan, started, plan.chosen
        self._before = plan.rows - plan.counts()["left"]  # what was wrong in the file is not work
        self._bar = threading.Thread()
        self._shown = -1

    def show(self, remaining: int | None) -> None:
        """Show it now, with the requests that ``remaining`` says are left in this minute, where that is known."""
        rows = self._rows
        done = min(self._plan.rows - self._plan.counts()["left"] - self._before, rows)
        took = clock.now() - self._started
        to_go = took / done * (rows - done) if done else 0
        requests = "" if remaining is None else f", {remaining:,} requests left"
        time_to_go = f", about {int(to_go // 60)} min {int(to_go % 60)} s to go" if done else ""
        log(f"{done:,} of {rows:,} rows{requests}{time_to_go}")
        percent = min(99, 100 * done // rows) if rows else 99
        if percent > self._shown and not self._bar.is_alive():
            self._shown = percent
            # A server that doesn't answer keeps nobody from importing.
            self._bar = threading.Thread(target=_show_percent, args=(percent,), daemon=True)
            self._bar.start()


def _show_percent(percent: int) -> None:
    with suppress(Exception):  # outside of Windmill there is no bar
        import wmill

        windmill = wmill.Windmill()  # type: ignore[no-untyped-call]
        with windmill.client:
            windmill.set_progress(percent)
