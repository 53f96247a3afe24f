"""Record an e-mail with a file, its answer, and the e-mail again, as a Windmill worker does, and show the timeline.

Run by `make demo`, which then imports a history. Kustomer and the Windmill server are stand-ins on this machine; each
job is a real process.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests import demo_import
from tests.show import WIDTH, as_json, failure, log, show, timeline, timeline_title
from tests.standin.kustomer import Kustomer
from tests.standin.windmill import Workspace
from tests.standin.worker import ROOT, Job, run

STEP = "f/kustomer/record_message"
PHOTO = "inbox/2026/dark-lamp.jpg"


def events(now: datetime) -> list[tuple[str, dict[str, Any]]]:
    """What a mail trigger hands to the step: an e-mail from somebody new, the team's answer, the first one again."""
    first = {
        "channel": "email",
        "messageId": "<CAF9+2vq7=1042@mail.example.com>",
        "email": "Grace.Hopper@example.com",
        "name": "Grace Hopper",
        "subject": "Lamp 1042",
        "text": "The lamp came today, and it stays dark. I send you a photo. Can you send me another one?",
        "files": [{"s3": PHOTO}],
        "sentAt": _ago(now, 30),
        "app": "acme-inbox",
    }
    answer = {
        "channel": "email",
        "direction": "out",
        "messageId": "<1043@help.acme.example>",
        "threadId": first["messageId"],
        "email": "grace.hopper@example.com",
        "subject": "Re: Lamp 1042",
        "text": "Hello Grace, another lamp goes out to you today.",
        "sentAt": _ago(now, 5),
        "app": "acme-inbox",
    }
    return [
        ("An e-mail with a file, from somebody new", first),
        ("The answer, by the same thread", answer),
        ("The first e-mail, delivered again", first),
    ]


def _ago(now: datetime, minutes: int) -> str:
    sent = now - timedelta(minutes=minutes)
    return sent.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def deliver(kustomer: Kustomer, now: datetime) -> Iterator[tuple[str, dict[str, Any], Job]]:
    """Run a job for each event, with what a worker has: give its title, its body and what became of it."""
    auth = {"apiKey": kustomer.keys["full"], "baseUrl": kustomer.url}
    with Workspace(scripts_from=ROOT) as workspace:
        workspace.store(PHOTO, b"\xff\xd8\xff\xe0" + bytes(48_000))
        for title, body in events(now):
            yield title, body, run(STEP, {"auth": auth, "body": body}, workspace=workspace)


def arguments(body: dict[str, Any]) -> Iterator[str]:
    """The body, a line for each field."""
    for name, value in body.items():
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"  {name:<13} {textwrap.shorten(text, WIDTH - 16, placeholder=' …')}"


def shown_timeline(kustomer: Kustomer, job: Job) -> list[str]:
    """The timeline after a job, with what it has recorded marked as new."""
    message, conversation = job.result["message"], job.result["conversation"]["id"]
    new = {message["id"]} if message["created"] else set()
    return [timeline_title(conversation), *timeline(kustomer.timeline(conversation), new)]


def record() -> int:
    """Run the jobs; the exit status says whether all succeeded, with each message once on the timeline."""
    results = []
    with Kustomer() as kustomer:
        for title, body, job in deliver(kustomer, datetime.now(UTC)):
            show(arguments(body), f"{title}: {STEP} gets")
            if job.error:
                show(failure(job), file=sys.stderr)
                return 1
            results.append(job.result)
            show(log(job), f"The job, {job.seconds:.2f} s with its whole process")
            show(as_json(job.result), "Result")
            show(shown_timeline(kustomer, job))
        recorded = len(kustomer.messages)
    if recorded != 2 or results[0]["message"]["id"] != results[2]["message"]["id"]:
        print(f"Two messages should be there, but {recorded} were recorded.", file=sys.stderr)
        return 1
    print("Three jobs, two messages.", end="\n\n")
    return 0


def main() -> int:
    """Record messages, then import a history; the exit status says whether both went well."""
    return record() or demo_import.main()


if __name__ == "__main__":
    sys.exit(main())
