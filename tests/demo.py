"""Put an e-mail on a conversation's timeline, as a Windmill worker runs the step, and show the timeline.

Run by `make demo`. Kustomer and the Windmill server are stand-ins on this machine; the job is a real process.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.show import WIDTH, failure, log, show, timeline, timeline_title
from tests.standin.kustomer import Kustomer
from tests.standin.windmill import Workspace
from tests.standin.worker import ROOT, Job, run

STEP = "f/kustomer/create_message"


def email(kustomer: Kustomer, now: datetime) -> dict[str, Any]:
    """A customer's answer by e-mail, five minutes old, as a mail trigger would hand it to the flow."""
    sent = now - timedelta(minutes=5)
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


def answer(job: Job) -> Iterator[str]:
    """The heart of the job's answer."""
    message = job.result["data"]
    conversation = message["relationships"]["conversation"]["data"]["id"]
    yield f"  id {message['id']}, {message['attributes']['status']}, in conversation {conversation}"
    yield f"  took {job.seconds:.2f} s, the whole process"


def main() -> int:
    """Run the job twice; the exit status says whether both succeeded with one message on the timeline."""
    with Kustomer() as kustomer, Workspace(scripts_from=ROOT) as workspace:
        auth = {"apiKey": kustomer.keys["full"], "baseUrl": kustomer.url}
        body = email(kustomer, datetime.now(UTC))
        known = len(kustomer.timeline(kustomer.conversation))
        show(arguments(auth, body), f"{STEP} gets")
        ids = []
        for title in "The job", "The same job again, as after a retry":
            job = run(STEP, {"auth": auth, "body": body}, workspace=workspace)
            if job.error:
                show(failure(job), file=sys.stderr)
                return 1
            ids.append(job.result["data"]["id"])
            show(log(job), title)
            show(answer(job), "Answer")
            show(timeline(kustomer.timeline(kustomer.conversation), ids), timeline_title(kustomer.conversation))
        added = len(kustomer.timeline(kustomer.conversation)) - known
    if added != 1 or ids[0] != ids[1]:
        print(f"The message should be there once, but {added} were added.", file=sys.stderr)
        return 1
    print("Two jobs, one message.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
