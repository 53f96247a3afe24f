"""Check what the flow was given, before anything is sent: all problems at once, by the names of its inputs."""

from typing import Annotated, Any, Literal, Required, TypedDict

from f.kustomer.errors import invalid
from f.kustomer.inputs import DateTime, ExternalId, Field, check

WHO = ("email", "phone", "customerExternalId")
WHAT = ("text", "subject", "files")
SOURCES = ("s3", "file", "content", "externalUrl")


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
    if isinstance(given, dict) and not isinstance(given.get("files", []), list):
        given = {**given, "files": [given["files"]]}
    event, _, problems = check(given, Event, "flow", limit=None)
    files = {index: file for index, file in enumerate(given["files"]) if _is_file(file)} if "files" in event else {}
    problems += [(f"files[{index}]", wrong) for index, file in files.items() if (wrong := _wrong(file))]
    if not event.keys() & set(WHO):
        problems.append(("email", f"is missing: one of {', '.join(WHO)} is needed"))
    if not files and not event.keys() & {"text", "subject"}:
        problems.append(("text", f"is missing: one of {', '.join(WHAT)} is needed"))
    if problems:
        raise invalid([(path.removeprefix("flow."), what) for path, what in problems])


def _is_file(file: Any) -> bool:
    """Tells whether there is anything to upload: an empty file keeps nobody's message from being recorded."""
    return bool(file) and not (isinstance(file, dict) and file.get("content") == "")


def _wrong(file: Any) -> str | None:
    if isinstance(file, str) or (isinstance(file, dict) and file.keys() & set(SOURCES)):
        return None
    return f"must be a link, or an object with one of {', '.join(SOURCES)}"
