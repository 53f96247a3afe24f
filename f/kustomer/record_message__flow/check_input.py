"""Check what the flow was given, before anything is sent: all problems at once, by the names of its inputs."""

from typing import Annotated, Any, Literal, Required, TypedDict

from f.kustomer.client import invalid
from f.kustomer.inputs import DateTime, ExternalId, Field, Problem, check

WHO = ("email", "phone", "customerExternalId")
WHAT = ("text", "subject", "files")


class Event(TypedDict, total=False):
    """The flow's inputs but for auth; what they mean stands in the flow's form."""

    channel: Required[
        Literal["email", "sms", "chat", "facebook", "twitter-dm", "twitter-tweet", "voice", "instagram", "whatsapp"]
    ]
    messageId: Required[ExternalId]
    threadId: ExternalId
    email: str
    phone: str
    customerExternalId: ExternalId
    name: str
    subject: str
    text: Annotated[str, Field(also=("body", "preview", "message", "content", "html"))]
    files: Annotated[list, Field(also=("attachments", "file"))]  # type: ignore[type-arg] # of what its own step checks
    direction: Literal["in", "out"]
    sentAt: Annotated[DateTime, Field(also=("date", "timestamp"))]
    app: str


def main(given: Any) -> None:
    """Raises InvalidInput with every problem of ``given``, the flow's inputs."""
    if isinstance(given, dict) and "files" in given and not isinstance(given["files"], list):
        given = {**given, "files": [given["files"]]}
    event, _, problems = check(given, Event, "flow", limit=None)
    problems += _unsaid(event)
    for index, file in enumerate(event.get("files", [])):
        sources = {"s3", "file", "content", "externalUrl"}
        if not isinstance(file, str) and not (isinstance(file, dict) and sources & file.keys()):
            problems.append(
                (f"flow.files[{index}]", f"must be a link, or an object with one of {', '.join(sorted(sources))}")
            )
    if problems:
        raise invalid([(path.removeprefix("flow."), what) for path, what in problems])


def _unsaid(event: dict[str, Any]) -> list[Problem]:
    """Finds that it is not said who wrote, or what."""
    found = []
    if not event.keys() & set(WHO):
        found.append(("email", f"is missing: one of {', '.join(WHO)} is needed"))
    if not event.keys() & set(WHAT):
        found.append(("text", f"is missing: one of {', '.join(WHAT)} is needed"))
    return found
