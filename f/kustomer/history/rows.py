"""Kustomer history rows.

Shared by the import of old messages, not run by itself: says what a row of a file means, by the rules of
record_message, and what is wrong with it. Nothing is guessed: what a row leaves open is told.
"""

import re
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from f.kustomer.history.file import Record, decode
from f.kustomer.history.plan import Row
from f.kustomer.record_message import Event, customer_of, message_of
from f.kustomer.shared.contacts import emails, phone
from f.kustomer.shared.inputs import Field, Problem, check, not_sent_yet, to_json

# A bulk job takes 95 kB, of which one message leaves room for its ids, dates and files.
MAX_MESSAGE_BYTES = 90_000
_CUSTOMER = {"email", "phone", "customerExternalId"}
# Ids that may be numbers, and were perhaps once.
_IDS = ("messageId", "threadId", "customerExternalId")
_CONTENTS = {"text", "subject", "files"}


class HistoryRow(Event):
    """A row by our names: the event that record_message takes, of which threadId and sentAt are needed too."""

    private: bool


class Columns:
    """Which of the file's columns is which of ours; several of ours may be in one column."""

    messageId: str = Field("Column with the message's own id, one for each message.", example="Message ID")
    threadId: str = Field(
        "Column with the id of the conversation, the same for all its messages. Where every message is to be a "
        "conversation of its own, the column with the message's id.",
        example="Ticket",
    )
    sentAt: str = Field("Column with the date, time and zone at which it was sent.", example="Created at")
    email: str = Field("Column with the customer's e-mail address.", example="Requester e-mail")
    phone: str = Field("Column with the customer's phone number.", example="Mobile")
    customerExternalId: str = Field("Column with the customer's id in your own system.", example="Customer number")
    name: str = Field("Column with the customer's name.", example="Requester")
    channel: str = Field("Column with the channel: email, sms, chat and so on.", example="Via")
    direction: str = Field("Column that says in (from the customer) or out (to them).", example="Direction")
    subject: str = Field("Column with the subject line.", example="Subject")
    text: str = Field("Column with the text of the message.", example="Body")
    files: str = Field(
        "Column with links to files, or s3:// addresses, with blanks between them.", example="Attachments"
    )
    meta: str = Field("Column with what the channel knows besides, a JSON object.", example="Headers")
    custom: str = Field("Column with your own message attributes, a JSON object.", example="Attributes")
    lang: str = Field("Column with the language of the text, such as en_us.", example="Language")
    app: str = Field("Column with a name for what recorded the message, if it differs.", example="System")
    private: str = Field("Column that says whether a row is an internal note: true or false.", example="Note")


_FIELDS = tuple(Columns.__annotations__)


class Options:
    """How rows are read: ``app`` for all of them, ``channel`` and ``direction`` where the cell is empty.

    ``columns`` are the user's, None if there are none; ``header`` is a CSV's, None for JSON lines.
    """

    def __init__(
        self,
        app: str,
        channel: str = "",
        direction: str = "",
        columns: dict[str, str] | None = None,
        header: list[str] | None = None,
    ) -> None:
        self.defaults = {"app": app, "channel": channel, "direction": direction}
        self.names = _column_names(columns)
        self.is_csv = header is not None
        # What else a file has is left aside, and named once, where somebody has said what counts.
        self.known_only = not columns and not self.is_csv


def _column_names(columns: dict[str, str] | None) -> dict[str, list[str]]:
    """Return our names by theirs, as ``_plain`` writes these; without ``columns`` theirs are ours.

    What marks internal notes counts in any case, as nobody wants these to be shown.
    """
    found: dict[str, list[str]] = {}
    for ours, theirs in ({"private": "private", **columns} if columns else {name: name for name in _FIELDS}).items():
        if ours in _FIELDS and isinstance(theirs, str) and theirs.strip():
            found.setdefault(_plain(theirs), []).append(ours)
    return found


@lru_cache(1_000)
def _plain(name: str) -> str:
    """Write a column's name so that case, blanks, hyphens and underscores make no difference."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def wrong_columns(columns: dict[str, Any] | None, header: list[str] | None) -> list[Problem]:
    """Return all that keeps a file with this ``header`` from being read by ``columns`` (ours to theirs).

    ``header`` is None where it isn't known: of JSON lines, until all of them are read. Then it may be every name that
    occurs in them.
    """
    given, problems = check(columns or {}, Columns, "columns", limit=None)
    names = _column_names(given)
    if header is None and not given:
        return problems
    headings = [_plain(each) for each in header or []]
    pairs = [(ours, theirs) for theirs, all_ours in names.items() for ours in all_ours]
    for ours, theirs in pairs:
        if header is not None and ours in given and theirs not in headings:
            problems.append((f"columns.{ours}", f"is no column of the file{_meant([given[ours]], header)}"))
        if headings.count(theirs) > 1:
            problems.append((f"columns.{ours}", "is what several columns of the file are called: rename all but one"))
    there = {ours for ours, theirs in pairs if given or theirs in headings}
    return problems + _columns_missing(there, header or [], bool(given))


def _columns_missing(there: set[str], header: list[str], given: bool) -> list[Problem]:
    """Return which needed fields no column is for, with the column of the file that is likely meant."""
    from f.kustomer.shared.advice import MISTAKEN_NAMES

    free = [] if given else [each for each in header if _plain(each) not in _column_names(None)]
    wanted = [name for name in ("messageId", "threadId", "sentAt") if name not in there]
    wanted += [] if there & _CUSTOMER else ["email"]
    # Without it messages would be recorded by their subjects only, and nobody sees what is missing.
    if "text" not in there and (not there & _CONTENTS or any(_plain(each) in MISTAKEN_NAMES["text"] for each in free)):
        wanted.append("text")
    why = {
        "threadId": ": where every message is to be a conversation of its own, name the column with its id",
        "email": ": one of email, phone and customerExternalId is needed",
    }
    return [
        (f"columns.{name}", f"is missing{why.get(name, '')}{_meant([name, *MISTAKEN_NAMES.get(name, ())], free)}")
        for name in wanted
    ]


def _meant(names: list[str], header: list[str]) -> str:
    """Return a question for the heading that is most like one of ``names``, or nothing."""
    headings = {_plain(each): each for each in reversed(header)}
    close = [found for name in names for found in get_close_matches(_plain(name), headings, 1, 0.7)]
    return f": did you mean {headings[close[0]]!r}?" if close else ""


def unused_columns(columns: dict[str, Any] | None, header: list[str]) -> list[str]:
    """Return the headings, each once, of the columns that are left aside."""
    names = _column_names(columns)
    return [each for each in dict.fromkeys(header) if each.strip() and _plain(each) not in names]


def row_of(record: Record, options: Options) -> Row | list[Problem]:
    """Return the message that a row of a file is, or all that is wrong with it, without quoting it."""
    if record.value is None:
        return [("row", record.problem or "is empty")]
    given, problems = _named(record.value, options)
    private = _private(given.pop("private", None))
    instant, undated = _moment_sent(given.pop("sentAt", None))
    for name in ("meta", "custom"):
        if isinstance(given.get(name), str):
            given[name] = _object(given[name])
    row, wrong = check(_tidied(given, options), HistoryRow, "row", limit=None)
    problems += [(path.removeprefix("row."), what) for path, what in wrong]
    problems += [(path, what) for path, what in (("private", private), ("sentAt", undated)) if what]
    problems += _incomplete(row, {path for path, _ in problems})
    if problems or not instant:
        return problems
    return _row(record.row, row, instant)


def as_json(value: dict[str, Any], options: Options) -> dict[str, Any]:
    """Return a row as a line of JSON that is read as it was; empty and unused columns of a CSV are left out."""
    if not options.is_csv:
        return value
    return {theirs: cell for theirs, cell in value.items() if cell and _plain(theirs) in options.names}


def _named(value: dict[str, Any], options: Options) -> tuple[dict[str, Any], list[Problem]]:
    """Return a row by our names. One that is no name of ours stays only where every name must be known."""
    found: dict[str, Any] = {}
    problems = []
    for theirs, each in value.items():
        all_ours = options.names.get(_plain(theirs)) or ([theirs] if options.known_only else [])
        for ours in all_ours:
            if ours in found:
                problems.append((ours, "is given twice, under names that differ in case, blanks or underscores only"))
            found[ours] = each
    return found, problems


def _tidied(given: dict[str, Any], options: Options) -> dict[str, Any]:
    """Return a row in which ids are text, blanks are no values, and what it leaves empty is as for all rows."""
    row = {name: each for name, each in given.items() if not (isinstance(each, str) and each.isspace())}
    for name in _IDS:
        if type(row.get(name)) is int:
            row[name] = str(row[name])
    for name, default in options.defaults.items():
        each = row.get(name)
        each = each if each or each == 0 else default
        row[name] = each.strip().lower() if isinstance(each, str) and name != "app" else each
    return row


def _object(text: str) -> Any:
    """Return the JSON object that a cell holds, or what isn't one as it is."""
    try:
        return decode(text)
    except (ValueError, RecursionError):
        return text


def _private(value: Any) -> str | None:
    """Return what is wrong with a row that is marked ``value``: an internal note would be shown as a message."""
    plain = str(value).strip().lower() if isinstance(value, str | int) else value
    if plain in (None, "", "false", "no", "0"):
        return None
    if plain in ("true", "yes", "1"):
        return "marks an internal note, which is no message: leave the row out"
    return "must be true or false"


# ISO 8601 as databases write it too: with a blank for the T, without seconds, with a shorter zone.
_DATE_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?) ?(Z|z|UTC|[+-]\d\d(?::?\d\d)?)?")
_NO_DATE = "must be a date and time with a zone, such as 2026-01-31T09:30:00.000Z"


def _moment_sent(value: Any) -> tuple[datetime | None, str | None]:
    """Return the time that a text says, in UTC; or None, and what is wrong with it."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None, "is missing"
    found = _DATE_TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        return None, _NO_DATE
    day, time, zone = found.groups()
    if not zone:
        return None, "has no zone: add Z for UTC, or one such as +02:00"
    try:
        read = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone.isalpha() else zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None, _NO_DATE
    # Some databases write the year 1 where there is no date.
    wrong = "is before 1970: give the date at which it was sent" if read.year < 1970 else not_sent_yet(read)
    return (None, wrong) if wrong else (read, None)


def _incomplete(row: dict[str, Any], told: set[str]) -> list[Problem]:
    """Return what a row lacks or can't have as a whole, but for what is ``told`` already."""
    if "row" in told:  # then nothing is left of it
        return []
    problems = []
    if "threadId" not in row:
        problems.append(("threadId", "is missing: the id of the conversation, the same for all its messages"))
    if "direction" not in row:  # which record_message takes for in
        problems.append(("direction", "is missing"))
    if not row.keys() & _CUSTOMER:
        problems.append(("email", "is missing: one of email, phone and customerExternalId is needed"))
    if not row.keys() & _CONTENTS:
        problems.append(("text", "is missing: one of text, subject and files is needed"))
    return [problem for problem in problems if problem[0] not in told]


def _row(number: int, row: dict[str, Any], instant: datetime) -> Row | list[Problem]:
    """Return a row that is right; or the one thing that is wrong with it as a whole, its size."""
    sent_at = f"{instant.isoformat(timespec='milliseconds')[:-6]}Z"
    body = message_of({**row, "sentAt": sent_at})
    if wrong := _too_large(body):
        return wrong
    customer = customer_of(row)
    if "email" in customer:
        customer["email"] = emails(customer["email"])[0]
    if "phone" in customer:
        customer["phone"] = phone(customer["phone"])
    files = [{"externalUrl": each} if isinstance(each, str) else each for each in row.get("files", [])]
    return Row(number, row["messageId"], row["threadId"], customer, sent_at, instant.timestamp(), body, files)


def _too_large(body: dict[str, Any]) -> list[Problem]:
    large = body.keys() & {"meta", "custom"}
    if not large:
        return []  # all else is short enough, once it is cut
    # A job encodes it with many others, from a place where less of the stack is left.
    deeper = body
    for _ in range(50):
        deeper = {"": deeper}
    try:
        length = len(to_json(deeper)) - 50 * len('{"":}')
    except RecursionError:
        return [(min(large), "is nested too deeply: use fewer levels")]
    if length <= MAX_MESSAGE_BYTES:
        return []
    return [(min(large), f"makes a message of {length:,} bytes, at most {MAX_MESSAGE_BYTES:,} are allowed")]
