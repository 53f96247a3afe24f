"""What the demo and a step tried from the terminal print alike: a job's log, its error and the timelines."""

import json
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any, TextIO

from tests.standin.records import Resource
from tests.standin.worker import Job

WIDTH = 100
ARROWS = {"in": "→", "out": "←"}


def show(lines: Iterable[str], title: str = "", file: TextIO | None = None) -> None:
    """Print a block under its title; what the terminal's encoding lacks is written as an escape."""
    file = file or sys.stdout
    text = "\n".join([title, *lines] if title else lines)
    encoding = file.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end="\n\n", file=file)


def as_json(value: Any) -> Iterator[str]:
    """Give a value as indented JSON, a line each."""
    yield from json.dumps(value, indent=2, ensure_ascii=False).splitlines()


def log(job: Job) -> Iterator[str]:
    """Give the job's log, a line each."""
    yield from textwrap.indent(job.logs.rstrip() or "(empty)", "  ").splitlines()


def failure(job: Job) -> Iterator[str]:
    """Give the job's error as Windmill shows it: name, message and extra."""
    error = job.error or {}
    yield f"{error['name']}: {error['message']}"
    if "extra" in error:
        yield from as_json({"extra": error["extra"]})


def timeline(messages: Iterable[Resource], new: Collection[str], *, years: bool = False) -> Iterator[str]:
    """Give a conversation's messages as an agent reads them; `new` are the ids of the messages to mark.

    Old messages are shown with their `years`.
    """
    day = "%d %b %Y" if years else "%d %b"
    for message in messages:
        told = message["attributes"]
        at = datetime.fromisoformat(told["sentAt"].upper()).strftime(f"{day} %H:%M")
        mark = "*" if message["id"] in new else " "
        head = f"{mark} {at}  {ARROWS[told['direction']]} {told['channel']:<6} {told['app']:<11} "
        text = ": ".join(told[part] for part in ("subject", "preview") if part in told)
        files = "".join(f" [{name}]" for name in _file_names(told.get("attachments", ())))
        below = " " * len(head)
        yield from textwrap.wrap(
            (text + files).strip() or "(no text)", WIDTH, initial_indent=head, subsequent_indent=below
        )


def timeline_title(conversation: str) -> str:
    """Give the line above a conversation's timeline."""
    return f"Timeline of conversation {conversation}  (→ from the customer, ← from the team, * new)"


def _file_names(attachments: Iterable[Any]) -> Iterator[str]:
    """Give the names of a message's files; of a file that is given by its id only, the id."""
    for each in attachments:
        yield each if isinstance(each, str) else each["name"]
