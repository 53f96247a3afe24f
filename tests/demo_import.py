"""Import a history of 300 messages, three of them wrong, as a Windmill worker does, and show what came of it.

The second half of `make demo`. The three jobs are those of the flow import_history: the check, the import of the one
part that so short a file has, and the report.
"""

import csv
import io
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.show import WIDTH, failure, log, show, timeline, timeline_title
from tests.standin.kustomer import Bulk, Kustomer
from tests.standin.windmill import Workspace
from tests.standin.worker import ROOT, Job, run

IMPORT = "f/kustomer/import_messages"
REPORT = "f/kustomer/import_report"

FILE = "inbox/helpdesk-2019.csv"
COLUMNS = {
    "messageId": "Message ID",
    "threadId": "Ticket",
    "sentAt": "Created at",
    "name": "Requester",
    "email": "Requester e-mail",
    "direction": "Direction",
    "subject": "Subject",
    "text": "Body",
}
# The oldest messages of a helpdesk that is given up. `fresh`, as none of them was ever recorded.
HISTORY: dict[str, Any] = {
    "file": {"s3": FILE},
    "app": "helpdesk",
    "columns": COLUMNS,
    "channel": "email",
    "fresh": True,
}

ROWS, THREADS = 300, 50
CUSTOMERS = ["Ada Lindqvist", "Grace Hopper", "Jürgen Weiß", "Zoë Núñez", "Linus Berg", "Mary Kay", "Ana Šimić"]
SUBJECTS = ["Lamp", "Parcel", "Invoice", "Chair", "Return"]
TALK = [
    "Hello,\nwhere is the {}; it should be here?",
    'We ask the carrier where "the {}" is.',
    "Still no {}. What now?",
    "Another {} goes out to you today.",
    "The {} came. Thank you!",
    "Enjoy the {}!",
]
# What goes wrong in a spreadsheet, by the row of the file: a column, and what it made of it.
WRONG = {18: ("Created at", "2019-03-04 17:00"), 77: ("Ticket", "3.60012E+11"), 240: ("Requester e-mail", "none")}


def as_csv() -> bytes:
    """Return the file as a spreadsheet saves it: with semicolons, CRLF, a byte-order mark and quoted line breaks."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS.values()), delimiter=";", lineterminator="\r\n")
    writer.writeheader()
    for number in range(ROWS):
        row = _row(number)
        if found := WRONG.get(number + 2):  # the header is row 1
            row |= dict([found])
        writer.writerow(row)
    return text.getvalue().encode("utf-8-sig")


def _row(number: int) -> dict[str, str]:
    turn, thread = divmod(number, THREADS)
    name = CUSTOMERS[thread % len(CUSTOMERS)]
    subject = SUBJECTS[thread % len(SUBJECTS)]
    sent = datetime(2019, 3, 4, 8, tzinfo=UTC) + timedelta(minutes=50 * number)
    told = {
        "messageId": f"m-{50_000 + number}",
        "threadId": str(1000 + thread),
        "sentAt": sent.isoformat(sep=" "),
        "name": name,
        "email": f"{name.split()[0].lower().encode('ascii', 'ignore').decode()}@example.com",
        "direction": ("in", "out")[turn % 2],
        "subject": f"{'Re: ' if turn else ''}{subject} {1000 + thread}",
        "text": TALK[turn].format(subject.lower()),
    }
    return {COLUMNS[name]: value for name, value in told.items()}


def jobs(kustomer: Kustomer) -> Iterator[Job]:
    """Run the flow's jobs, with what a worker has, as long as they succeed: the check, the import, the report."""
    # Bulk jobs are quick, and the key may date what it records.
    kustomer.jobs.bulk = Bulk(delay=0, per_item=0)
    auth = {"apiKey": kustomer.keys["admin"], "baseUrl": kustomer.url}
    with Workspace(scripts_from=ROOT) as workspace:
        workspace.store(FILE, as_csv())
        check = run(IMPORT, {"auth": auth, "body": {**HISTORY, "check": True}}, workspace=workspace)
        yield check
        part = run(IMPORT, {"auth": auth, "body": HISTORY}, workspace=workspace)
        yield part
        yield run(REPORT, {"body": {"check": check.result, "rounds": [{"parts": [part.result]}]}}, workspace=workspace)


def beginning() -> Iterator[str]:
    """Give the file's first lines."""
    lines = as_csv().decode("utf-8-sig").splitlines()
    yield from (f"  {textwrap.shorten(line, WIDTH - 2, placeholder=' …')}" for line in lines[:3])
    yield "  …"


def checked(job: Job) -> Iterator[str]:
    """Give what the check says of the file, in words."""
    told = job.result
    right = f"{told['left']} to import in about {told['requests']} requests"
    yield f"  {told['rows']} rows: {right}, {told['refused']} refused"
    yield f"  {told['threads']} conversations of {told['customers']} customers, {told['first']} to {told['last']}"
    yield from (f"  row {each['example']}: {each['path']} {each['title']}" for each in told["reasons"])


def last_lines(kustomer: Kustomer, most: int = 3) -> Iterator[str]:
    """Give the end of the timeline of the file's first thread."""
    first = next(each for each in kustomer.conversations if each["attributes"]["externalId"] == "1000")
    messages = kustomer.timeline(first["id"])
    yield timeline_title(first["id"])
    yield "  …"
    yield from list(timeline(messages, {each["id"] for each in messages}, years=True))[-most:]


def main() -> int:
    """Run the jobs; the exit status says whether all right rows are recorded once, and the wrong ones told."""
    with Kustomer() as kustomer:
        show(beginning(), f"A history of {ROWS} messages, three of them wrong: {FILE}")
        running = jobs(kustomer)
        for title, lines in (("The check", checked), ("The import", log)):
            job = next(running)
            if job.error:
                show(failure(job), file=sys.stderr)
                return 1
            show(lines(job), f"{title}: {IMPORT}, {job.seconds:.1f} s")
        result, report = job.result, next(running)
        # It fails, as not all rows are recorded, so that nobody overlooks what it says.
        show(
            textwrap.indent((report.error or {"message": "(none)"})["message"], "  ").splitlines(),
            "The report, with which the flow ends as failed",
        )
        show(last_lines(kustomer))
        recorded = len(kustomer.messages)
    if (recorded, result["refused"]) != (ROWS - len(WRONG), len(WRONG)):
        print(f"{recorded} messages were recorded, and {result['refused']} rows refused.", file=sys.stderr)
        return 1
    print(f"{ROWS} rows in {result['requests']} requests: {recorded} messages, {len(WRONG)} rows to correct.")
    return 0
