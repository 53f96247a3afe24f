"""Put an e-mail on a conversation's timeline, as a Windmill worker runs the step, and show the timeline.

Run by `make demo`. Kustomer and the Windmill server are stand-ins on this machine; the job is a real process.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.standin.kustomer import Kustomer
from tests.standin.windmill import Workspace
from tests.standin.worker import ROOT, Job, run

STEP = "f/kustomer/create_message"
WIDTH = 100
ARROWS = {"in": "→", "out": "←"}


def email(kustomer: Kustomer) -> dict[str, Any]:
    """A customer's answer by e-mail, five minutes old, as a mail trigger would hand it to the flow."""
    sent = datetime.now(UTC) - timedelta(minutes=5)
    return {
        "channel": "email",
        "app": "acme-inbox",
        "direction": "in",
        "conversation": kustomer.conversation,
        "customer": kustomer.customer,
        "externalId": "<CAF9+2vq7=1042@mail.example.com>",
        "subject": "Re: Parcel 1042",
        "preview": "The carrier says it came on Monday, but it is not here. Can you send the lamp again?",
        "sentAt": sent.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "lang": "en",
        "meta": {
            "from": "ada.lindqvist@example.com",
            "to": [{"email": "help@acme.example"}],
            "subject": "Re: Parcel 1042",
        },
    }


def arguments(auth: dict[str, str], body: dict[str, Any]) -> Iterator[str]:
    """The arguments, a line each, without the key."""
    for name, value in (auth | {"apiKey": "********"}).items():
        yield f"  auth.{name:<13} {value}"
    for name, value in body.items():
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"  body.{name:<13} {textwrap.shorten(text, WIDTH - 21, placeholder=' …')}"


def outcome(job: Job) -> Iterator[str]:
    """The job's log and the heart of its answer."""
    yield f"  log       {'(empty)' if not job.logs.strip() else ''}".rstrip()
    yield from textwrap.indent(job.logs.rstrip(), "    ").splitlines()
    message = job.result["data"]
    conversation = message["relationships"]["conversation"]["data"]["id"]
    yield f"  answer    id {message['id']}, {message['attributes']['status']}, in conversation {conversation}"
    yield f"  took      {job.seconds:.2f} s, the whole process"


def failure(job: Job) -> Iterator[str]:
    """The job's error as Windmill shows it: name, text and attributes."""
    error = job.error or {}
    yield f"{error['name']}: {error['message']}"
    if "extra" in error:
        yield json.dumps(error["extra"], indent=2)


def timeline(kustomer: Kustomer, new: str) -> Iterator[str]:
    """The conversation as an agent reads it; `new` is the id of the message to mark."""
    yield f"Timeline of conversation {kustomer.conversation}  (→ from the customer, ← from the team)"
    for message in kustomer.timeline(kustomer.conversation):
        told = message["attributes"]
        at = datetime.fromisoformat(told["sentAt"]).strftime("%d %b %H:%M")
        mark = "*" if message["id"] == new else " "
        head = f"{mark} {at}  {ARROWS[told['direction']]} {told['channel']:<6} {told['app']:<11} "
        text = ": ".join(told[part] for part in ("subject", "preview") if part in told)
        yield from textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def show(lines: Iterator[str], title: str = "") -> None:
    """Print a block under its title."""
    print("\n".join([title, *lines] if title else lines), end="\n\n")


def main() -> int:
    """Run the job twice; the exit status says whether both succeeded with one message on the timeline."""
    with Kustomer() as kustomer, Workspace(scripts_from=ROOT) as workspace:
        auth = {"apiKey": kustomer.keys["full"], "baseUrl": kustomer.url}
        body = email(kustomer)
        known = len(kustomer.timeline(kustomer.conversation))
        show(arguments(auth, body), f"{STEP} gets")
        ids = []
        for title in "The job", "The same job again, as after a retry":
            job = run(STEP, {"auth": auth, "body": body}, workspace=workspace)
            if job.error:
                print(*failure(job), sep="\n", file=sys.stderr)
                return 1
            ids.append(job.result["data"]["id"])
            show(outcome(job), title)
            show(timeline(kustomer, ids[-1]))
        added = len(kustomer.timeline(kustomer.conversation)) - known
    if added != 1 or ids[0] != ids[1]:
        print(f"The message should be there once, but {added} were added.", file=sys.stderr)
        return 1
    print("Two jobs, one message.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
