"""Run any step on input of your own against the stand-ins, and show the answer and the timelines.

Run by `make try STEP=create_message BODY='{...}'`; `BODY=@event.json` reads a file. The step runs as on a Windmill
worker, and its key, Kustomer and Windmill's object storage are stand-ins on this machine. In a body, "CUSTOMER" and
"CONVERSATION" stand for the ids of a customer and a conversation that are there, and a file of this machine is also
in the object storage (`{"s3": "Downloads/photo.jpg"}`).
"""

import importlib
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import Any, get_type_hints

from f.kustomer.shared.inputs import Node
from tests.lock import ROOT, STEPS
from tests.show import as_json, failure, log, show, timeline, timeline_title
from tests.standin.kustomer import Bulk, Kustomer
from tests.standin.records import related
from tests.standin.windmill import Workspace
from tests.standin.worker import Job, run

# Files that are in the workspace's object storage from the beginning.
INVOICE, HISTORY = "inbox/invoice.pdf", "inbox/history.csv"
STORED = {
    INVOICE: b"%PDF-1.4\n% Invoice for order 1042: 12.00 EUR\n%%EOF\n",
    HISTORY: b"""\
messageId,threadId,email,name,channel,direction,sentAt,subject,text
m-1,t-1,ada@example.com,Ada Lindqvist,email,in,2019-05-04T08:00:00Z,Lamp,"The lamp is dark, and it is new."
m-2,t-1,ada@example.com,Ada Lindqvist,email,out,2019-05-04T09:30:00Z,Re: Lamp,We send you another one today.
m-3,t-2,grace@example.com,Grace Hopper,chat,in,2020-02-29T12:00:00Z,,Do you deliver to ships?
""",
}
# What is shown for a step whose form has no example that says what it does.
EXAMPLES: dict[str, dict[str, Any]] = {
    "import_report": {
        "check": {"rows": 300},
        "rounds": [
            {
                "parts": [
                    {"rows": 300, "created": 297, "already": 3, "refused": 0, "unknown": 0, "left": 0}
                    | {"reasons": [], "remarks": [], "refused_rows": None, "again": False}
                ]
            }
        ],
    }
}
# Fields with an id of what is there from the beginning.
SEEDED = ("customer", "conversation")
# Longer than any job takes (seconds).
TIMEOUT = 900
# What fits on a screen; a history may have hundreds of each.
TIMELINES = 3
LINES = 10  # of a timeline
REASONS = 5
REFUSED = 3


class MistakeError(Exception):
    """What to type instead of what was typed."""


def steps() -> dict[str, Any]:
    """Return each step's `main` by its name."""
    return {file.stem: importlib.import_module(f"f.kustomer.{file.stem}").main for file in STEPS}


def example(body: Any, stored: str = INVOICE) -> dict[str, Any]:
    """Return a short body of this type, made of the form's examples, with `stored` for a file.

    It has the first fields, up to one that is more than a line in the form, and those that are needed.
    """
    found: dict[str, Any] = {}
    node = Node(body)
    first = True
    for name, field in node.fields.items():
        if first and field.about.get("format") == "resource-s3_object":
            found[name] = {"s3": stored}
        first = first and field.kind not in ("an object", "a list")
        if (first or name in node.required) and "example" in field.about:
            found[name] = name.upper() if name in SEEDED else field.about["example"]
    return found


def read_body(text: str) -> Any:
    """Return the JSON that is typed, or that is in the file named after an @. Raise MistakeError, saying where."""
    source = "BODY"
    if text.startswith("@"):
        source = text[1:]
        try:
            text = pathlib.Path(source).expanduser().read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise MistakeError(f"{source} can't be read: {error}") from None
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        start = max(0, error.colno - 60)
        where = f"{source} is not JSON, line {error.lineno}, column {error.colno}: {error.msg}"
        caret = " " * (error.colno - 1 - start) + "^"
        raise MistakeError(f"{where}\n\n  {line[start : error.colno + 40]}\n  {caret}") from None
    except (ValueError, RecursionError) as error:
        raise MistakeError(f"{source} is not JSON: {error}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


def filled_in(value: Any, ids: dict[str, str]) -> Any:
    """Return the body with the placeholders replaced by the `ids` that they stand for, at every depth."""
    if isinstance(value, dict):
        return {name: filled_in(each, ids) for name, each in value.items()}
    if isinstance(value, list):
        return [filled_in(each, ids) for each in value]
    return ids.get(value, value) if isinstance(value, str) else value


def files_named(value: Any) -> Iterator[pathlib.Path]:
    """Give the files of this machine that the body asks the object storage for, at every depth."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from files_named(each)
    if isinstance(value, dict) and isinstance(value.get("s3"), str) and os.path.isfile(value["s3"]):
        yield pathlib.Path(value["s3"])


def list_steps(step: str, known: Iterable[str]) -> Iterator[str]:
    """Give what may be typed where there is no step of that name."""
    yield f"There is no step {step!r}. The steps are:" if step else "Which step? They are:"
    yield ""
    yield from (f"  make try STEP={name}" for name in known)


def example_of_use(step: str, main: Any) -> Iterator[str]:
    """Give what may be typed where the body is missing."""
    hint = get_type_hints(main, include_extras=True)["body"]
    fields = EXAMPLES.get(step) or example(hint, HISTORY if step.startswith("import") else INVOICE)
    body = json.dumps(fields, indent=2, ensure_ascii=False)
    yield f"{step} takes a BODY: the fields of its form as JSON, or a file with them (BODY=@event.json). For example:"
    yield ""
    yield f"make try STEP={step} BODY={shlex.quote(body)}"
    yield ""
    yield "CUSTOMER and CONVERSATION stand for ids of what is there. For a file in the object storage, there are"
    yield f"{' and '.join(STORED)}, and those of this machine by their paths."


def show_timelines(kustomer: Kustomer, otherwise: list[str], years: bool) -> None:
    """Show some of the conversations that the job made or added to, if any, `otherwise` others."""
    new = {message["id"] for message in kustomer.messages}
    made = [each["id"] for each in kustomer.conversations]
    added_to = [related(message, "conversation") for message in kustomer.messages]
    touched = [each for each in dict.fromkeys([*made, *added_to]) if each] or otherwise
    for conversation in touched[:TIMELINES]:
        lines = timeline(kustomer.timeline(conversation), new, years=years)
        show(first(lines, LINES, "lines"), timeline_title(conversation))
    if len(touched) > TIMELINES:
        show([f"And {len(touched) - TIMELINES:,} more conversations."])
    if apart := [message for message in kustomer.messages if not related(message, "conversation")]:
        show(timeline(apart, new), "In no conversation")


def first(lines: Iterable[str], most: int, what: str) -> Iterator[str]:
    """Give the first lines, and say how many more there are."""
    lines = list(lines)
    yield from lines[:most]
    if len(lines) > most:
        yield f"And {len(lines) - most:,} more {what}."


def show_job(job: Job) -> None:
    """Show the job's log, and its answer or its error."""
    show(log(job), f"Log, of {job.seconds:.2f} s")
    if not job.ok:
        show(failure(job), "Error")
        return
    result = job.result
    reasons = result.get("reasons", [])
    shown = {**result, "reasons": reasons[:REASONS]} if reasons else result
    show(as_json(shown), "Answer")
    if len(reasons) > REASONS:
        show([f"And {len(reasons) - REASONS:,} more reasons."])
    if "md" in result:
        show(result["md"].splitlines(), "As Windmill shows it")


def show_refused(job: Job, workspace: Workspace) -> None:
    """Show the rows of a history that the job has written into the object storage, to be corrected."""
    place = job.result.get("refused_rows") if job.ok else None
    if place:
        rows = workspace.stored()[place].decode().splitlines()
        show(first(rows, REFUSED, "rows"), f"{place} in the object storage")


def main() -> int:
    """Run what the environment's STEP and TRY_BODY ask for; the exit status says whether the job succeeded."""
    step, typed = pathlib.PurePath(os.environ.get("STEP", "")).stem, os.environ.get("TRY_BODY", "")
    known = steps()
    if step not in known:
        show(list_steps(step, known))
        return 2 if step else 0
    takes_body = "body" in get_type_hints(known[step])
    if takes_body and not typed:
        show(example_of_use(step, known[step]))
        return 0
    try:
        args = {"body": read_body(typed)} if takes_body else {}
    except MistakeError as mistake:
        show([str(mistake)])
        return 2
    with Kustomer() as kustomer, Workspace(scripts_from=ROOT) as workspace:
        for path, content in [*STORED.items(), *((str(file), file.read_bytes()) for file in files_named(args))]:
            workspace.store(path, content)
        ids = {name.upper(): getattr(kustomer, name) for name in SEEDED}
        show([f"  {name:<13} {each}" for name, each in ids.items()], "There already")
        # Dates can be set by an import whose key is an administrator's. Nobody need wait for the bulk jobs here.
        imports = step.startswith("import")
        kustomer.jobs.bulk = Bulk(order="given", delay=0, per_item=0)
        auth = {"apiKey": kustomer.keys["admin" if imports else "full"], "baseUrl": kustomer.url}
        given = {"auth": auth, **filled_in(args, ids)}
        job = run(f"f/kustomer/{step}", given, workspace=workspace, timeout=TIMEOUT)
        show_job(job)
        show_refused(job, workspace)
        show_timelines(kustomer, [] if imports else [kustomer.conversation], years=imports)
    return 0 if job.ok else 1


if __name__ == "__main__":
    sys.exit(main())
