"""Import messages.

Puts a file of old messages onto Kustomer's timelines, a hundred a request, each once and with its date. It delivers
nothing to anybody. The calls are those of https://developer.kustomer.com/docs/guides/bulk-operations
"""

import hashlib
import json
import tempfile
import threading
from collections import Counter
from contextlib import closing, suppress
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, BinaryIO, Literal

from f.kustomer.history.file import WrongFile, records
from f.kustomer.history.jobs import SMALLEST_LIMIT, BulkJobs, Notes, Pace, beside, clock
from f.kustomer.history.plan import Plan, parts_of
from f.kustomer.history.rows import Columns, Options, as_json, row_of, unused_columns, wrong_columns
from f.kustomer.history.threads import Part
from f.kustomer.shared.client import (
    AccessDenied,
    Field,
    KustomerError,
    Number,
    Problem,
    RecordKind,
    kustomer,
    log,
    start,
    unless_blank,
)
from f.kustomer.upload_attachment import S3Object, decoded, not_base64, s3_object

KEEP = 0.5
# Nobody reads more names of columns that are left aside.
MOST_NAMES = 50
FRESH_IS_OFF = "Another import was here before, as the notes beside the file say, so that fresh is off."
# Where the file of refused rows says why; when it is imported again, what is called so is left aside.
WHY = "_refused"


def _whole(number: float) -> str | None:
    return None if number == int(number) else "must be a whole number"


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
        check=_whole,
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
        "Which part of the file this run imports, counted from 0. Left empty: all of them, one after the other.",
        example=0,
        ge=0,
        check=_whole,
    )
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
        return "must not have a limit with a part other than 0" if "limit" in given and given.get("part") else None


IMPORT = RecordKind("import", not_sent_text="This run recorded nothing.", done_verb="done")
STEP = "f/kustomer/import_messages"


def main(auth: kustomer, body: "History") -> dict[str, Any]:
    """Import a file of old messages, or one part of it; what is recorded already is left as it is.

    Return ``{"rows", "created", "already", "refused", "unknown", "left", "customers", "conversations", "requests",
    "seconds", "reasons", "other_customers", "remarks", "again", "refused_rows"}``. ``rows`` is the sum of the five
    after it: ``left`` is for a later run, ``unknown`` may be recorded or not. ``reasons`` are ``{"rows", "example",
    "path", "title"}``: of how many rows it is told, and the first of them; ``other_customers`` is ``{"threads",
    "rows"}``: threads in which rows name somebody else than the thread's customer, and examples; ``again`` is true when
    running this again goes on where it ended; ``refused_rows`` is where refused rows were written, or None. With
    ``check`` it counts the whole file, ``requests`` are those that it will take, and there are ``threads``, ``work``
    (``{"part"}`` for each job), ``first`` and ``last`` (dates) and ``hours`` besides. Raise the KustomerErrors of
    f.kustomer.shared.errors.
    """
    started = clock.now()
    given = start(auth, IMPORT, body, History).body
    with _opened(given) as file, closing(_plan(given, file)) as plan:
        remarks = _read_rows(given, file, plan)
        organisation, limit = _key_for_import(auth)
        if given.get("check"):
            result = _result(plan, remarks) | _checked(plan, given, limit)
        else:
            result = _imported(auth, given, file, plan, organisation, remarks, started)
    return {**result, "seconds": round(clock.now() - started, 1)}


def _opened(given: dict[str, Any]) -> BinaryIO:
    if "content" in given:
        return BytesIO(decoded(given["content"]))
    from f.kustomer.shared.storage import read

    return read(given["file"])


def _name(given: dict[str, Any]) -> str:
    return str(given["file"].get("filename") or given["file"]["s3"] if "file" in given else given.get("name", ""))


def _invalid(*problems: Problem) -> KustomerError:
    from f.kustomer.shared.advice import invalid

    return invalid([(f"body.{path}", what) for path, what in problems])


def _file(given: dict[str, Any]) -> str:
    return "file" if "file" in given else "content"


def _plan(given: dict[str, Any], file: BinaryIO) -> Plan:
    """Return the plan of what is imported, which is yet to be filled. Raise InvalidInput."""
    if given.get("check") or "part" not in given:
        return Plan(with_data=not given.get("check"))
    try:
        parts = parts_of(sum(1 for _ in records(file, _name(given))))
    except WrongFile as error:
        raise _invalid((_file(given), str(error))) from None
    if given["part"] >= parts:
        raise _invalid(("part", f"must be less than {parts}: the file has so many parts, counted from 0"))
    return Plan(int(given["part"]), parts)


def _read_rows(given: dict[str, Any], file: BinaryIO, plan: Plan) -> list[str]:
    """Read the file into the plan, and return what is to be remarked on it. Raise InvalidInput."""
    columns = given.get("columns")
    try:
        rows = records(file, _name(given))
        if problems := wrong_columns(columns, rows.columns):
            odd = [(_file(given), rows.odd_header)] if rows.odd_header else []
            raise _invalid(*odd, *problems)
        options = _options(given, rows.columns)
        names = dict.fromkeys(rows.columns or [])
        for record in rows:
            if record.value and record.value.pop(WHY, None) is not None:
                given.pop("fresh", None)  # of its thread, the import that refused it has likely recorded the rest
            if columns and record.value and rows.columns is None and len(names) < MOST_NAMES:
                names |= dict.fromkeys(record.value)
            plan.add(record.row, row_of(record, options))
    except WrongFile as error:
        raise _invalid((_file(given), str(error))) from None
    plan.choose(int(given["limit"]) if "limit" in given else None)
    remarks = []
    if "content" in given:
        remarks.append(
            "Nothing can be noted beside a file that was dropped: if this job is killed while Kustomer carries out a "
            "bulk job, the next run may record that one's messages, 100 at most, a second time."
        )
    if unused := unused_columns(columns, list(names)):
        remarks.append(f"Columns of the file that are left aside: {', '.join(unused[:MOST_NAMES])}.")
    return remarks


def _options(given: dict[str, Any], header: list[str] | None) -> Options:
    return Options(given["app"], given.get("channel", ""), given.get("direction", ""), given.get("columns"), header)


def _key_for_import(auth: kustomer) -> tuple[str, int]:
    """Ask Kustomer whose the key is: return the organisation, and how many requests a minute it may send.

    Raise AccessDenied with all roles that the key lacks.
    """
    from f.kustomer.check_connection import main as check_key

    answer = check_key(auth)
    if lacking := [need for each in answer["steps"] or [] if each["step"] == STEP for need in each["missing"]]:
        listed = ", ".join(f"{each['role']} (to {each['use']})" for each in lacking)
        raise AccessDenied(
            f"The key lacks roles that the import needs: {listed}. This run recorded nothing. Roles can't be changed: "
            "make a new key with all of them.",
            outcome="not_sent",
            errors=[
                {"code": "missing_role", "title": each["role"], "detail": each["use"], "path": None} for each in lacking
            ],
        )
    return str(answer["organisation"]["id"] or answer["host"]), answer["limit"]["requests"] or SMALLEST_LIMIT


def _result(plan: Plan, remarks: list[str]) -> dict[str, Any]:
    """Return what came of it so far, by the plan."""
    return {
        "rows": plan.rows,
        **{str(status): number for status, number in plan.counts().items()},
        "customers": 0,
        "conversations": 0,
        "requests": 1,
        "reasons": plan.reasons(),
        "other_customers": plan.other_customers(),
        "remarks": remarks,
        "again": False,
        "refused_rows": None,
    }


def _checked(plan: Plan, given: dict[str, Any], limit: int) -> dict[str, Any]:
    """Return what an import will be like."""
    forecast = plan.forecast(given.get("fresh", False))
    parts = 1 if "limit" in given else plan.parts
    return {
        "threads": forecast.threads,
        "customers": forecast.customers,
        "conversations": forecast.threads,
        "work": [{"part": part} for part in range(parts)],
        "first": _date(forecast.first),
        "last": _date(forecast.last),
        "requests": forecast.requests,
        "hours": round(forecast.requests / (limit * (1 - given.get("keep", KEEP))) / 60, 2),
    }


def _date(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _imported(
    auth: kustomer,
    given: dict[str, Any],
    file: BinaryIO,
    plan: Plan,
    organisation: str,
    remarks: list[str],
    started: float,
) -> dict[str, Any]:
    progress = Progress(plan, started)
    identity = _identity(given, file)
    numbers, again = Counter(requests=1), False
    parts = [int(given["part"])] if "part" in given else [0] if "limit" in given else list(range(plan.parts))
    for part in parts:
        notes = Notes(given.get("file"), identity, organisation, part, plan.parts)

        def tick(remaining: int | None, notes: Notes = notes) -> None:
            progress.show(remaining)
            notes.sign()

        seconds = given["seconds"] - (clock.now() - started) if "seconds" in given else None
        jobs = BulkJobs(auth, plan, Pace(given.get("keep", KEEP), seconds, tick), notes)
        one = Part(plan, jobs, part, given.get("fresh", False))
        try:
            one.run()
        except KustomerError as error:  # it could not begin
            if part == parts[0]:
                raise
            one.stopped = str(error)
        progress.show(jobs.pace.remaining)
        numbers.update(requests=jobs.requests, customers=one.customers, conversations=one.conversations)
        if given.get("fresh") and notes.others and FRESH_IS_OFF not in remarks:
            remarks = [*remarks, FRESH_IS_OFF]
        if one.stopped:
            remarks, again = [*remarks, f"The import ended before its end: {one.stopped}"], one.comes_on
            break
    refused_rows = None
    try:
        refused_rows = _write_refused(given, file, plan)
    except KustomerError as error:  # what is recorded is to be told all the same
        remarks = [*remarks, f"The refused rows were not written beside the file: {error}"]
    return _result(plan, remarks) | numbers | {"again": again, "refused_rows": refused_rows}


def _identity(given: dict[str, Any], file: BinaryIO) -> str:
    """Return what makes an import this one: the file's content, and what changes what is recorded of it."""
    file.seek(0)
    content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type] # BinaryIO lacks readinto there
    about = [content, *(given.get(name) for name in ("app", "columns", "channel", "direction"))]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _write_refused(given: dict[str, Any], file: BinaryIO, plan: Plan) -> str | None:
    """Write the refused rows beside the file as lines of JSON, each with why, and return where.

    They are fit to be corrected and imported again. Each run has a file of its own, as an earlier one may be corrected.
    """
    refused = plan.refused()
    row, why = next(refused, (0, ""))
    if "file" not in given or not row:
        return None
    from f.kustomer.shared.storage import write

    rows = records(file, _name(given))
    options = _options(given, rows.columns)
    with tempfile.TemporaryFile() as lines:
        for record in rows:
            if record.row == row:
                told = {**as_json(record.value or {}, options), WHY: f"row {row}: {why}"}
                lines.write(json.dumps(told, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
                row, why = next(refused, (0, ""))
        lines.seek(0)
        now = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"[:-3]
        place = beside(given["file"], f"refused-{given.get('part', 0):04.0f}-{now}Z.ndjson")
        write(place, lines)
    return str(place["s3"])


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
