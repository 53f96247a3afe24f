"""Record message.

Puts a message on a customer's timeline in Kustomer, with its files: finds the customer and the conversation or makes
them, uploads the files, records the message once. It delivers nothing to the customer.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from f.kustomer.create_message import (
    MESSAGE,
    Channel,
    Direction,
    Message,
    differences,
    related,
    rewritten,
)
from f.kustomer.find_conversation import CONVERSATION, find_conversation
from f.kustomer.find_customer import CUSTOMER, find_customer
from f.kustomer.shared.client import (
    MAX_BODY_BYTES,
    CustomerId,
    ExternalId,
    Field,
    Keys,
    KustomerError,
    Problem,
    Run,
    SentAt,
    ThreadId,
    check,
    dig,
    given,
    kustomer,
    log,
    start_checked,
    unless_blank,
)
from f.kustomer.shared.contacts import Email, Phone
from f.kustomer.upload_attachment import (
    ATTACHMENT,
    File,
    attach,
    decoded,
    described,
    links,
    not_a_link,
    s3_object,
)

# What Kustomer takes: https://developer.kustomer.com/api/core-resources/create-message
TEXT_LENGTH = 10_240
LINE_LENGTH = 256
# Where a longer text ends: it is cut between two words, unless one is longer than so many characters.
_MORE = " […]"
_LONGEST_WORD = 100
_NOT_SENT = f"{MESSAGE.not_sent_text} An earlier run may have recorded it."
# Kustomer's errors name its own fields, where people know those of the form.
_RECORDED = MESSAGE._replace(conflict="Give each message a messageId of its own; Kustomer calls it externalId.")
# Each holds a connection, and a file on the worker's disk.
FILES_AT_ONCE = 5

# What a file may say of itself without saying where its bytes are.
_DETAILS = {"name", "contentType", "contentLength", "filename", "storage"}


def _says_where(item: dict[str, Any]) -> bool:
    inner = item.get("file")
    if isinstance(inner, dict):
        item = {**item, "file": _says_where(inner) or None}
    return any(given(unless_blank(value)) for name, value in item.items() if name not in _DETAILS)


def _as_file(item: Any) -> Any:
    """Return an item of ``files`` as upload_attachment takes it, a link as it is, and what is no file as nothing."""
    item = s3_object(unless_blank(item))
    if not isinstance(item, dict):
        return item
    if not _says_where(item):
        return {}
    if not given(item.get("s3")) or given(item.get("file")):
        return item
    own = {name: value for name, value in item.items() if name in File.__annotations__}
    return {**own, "file": {name: value for name, value in item.items() if name not in own}}


def _as_list(files: Any) -> Any:
    return [link for item in (files if isinstance(files, list) else [files]) for link in links(item)]


_EventFile = Annotated[File | Annotated[str, Field(check=not_a_link)], Field(tidy=_as_file)]


class Event:
    """What was written, who wrote it and where. One of email, phone and customerExternalId is needed."""

    channel: Channel = Field("Channel on which the message was exchanged.", example="email", required=True)
    messageId: ExternalId = Field(
        "The message's own id where it comes from, one for each message. Running this twice with the same one "
        "records once.",
        example="<CAF1044@mail.acme.example>",
        required=True,
    )
    threadId: ThreadId = Field(
        "The id of the thread, the same for all its messages. For e-mail: the Message-ID of the first one. Left "
        "empty, the message begins a thread.",
        example="<CAF1042@mail.acme.example>",
    )
    email: Email = Field(
        "E-mail address of the customer. One of email, phone and customerExternalId is needed.",
        example="ada@example.com",
    )
    phone: Phone = Field("Phone number of the customer, with the country's code.", example="+49 30 1234567")
    customerExternalId: CustomerId = Field(
        "Id of the customer in your own system, such as the shop.", example="customer-1042"
    )
    name: str = Field(
        "Name for a customer who is new; one who is found keeps theirs.", example="Ada Lindqvist", tidy=unless_blank
    )
    subject: str = Field("Subject line; a new conversation is named by it.", example="Order 1042")
    text: str = Field(
        f"The text of the message, as it is to stand on the timeline. A longer one is cut to {TEXT_LENGTH:,} "
        "characters.",
        example="Hello, where is my order 1042?",
        minRows=5,
    )
    files: list[_EventFile] = Field(
        "Files that came with the message, in Windmill's object storage. A flow or a webhook may also give links, "
        "or what Upload attachment takes.",
        tidy=_as_list,
        items={"type": "resource", "resourceType": "s3_object"},
    )
    direction: Direction = Field(
        "in: from the customer to you. out: from you to the customer. Left empty: in.", example="in", tidy=unless_blank
    )
    sentAt: SentAt = Field("When it was really sent, if not now.", example="2026-01-31T09:30:00.000Z")
    app: str = Field(
        "A name for what records the messages, the same in every run. Left empty: windmill.",
        example="acme-inbox",
        tidy=unless_blank,
    )
    meta: dict[str, Any] = Message.meta
    custom: dict[str, Any] = Message.custom
    lang: str = Field("Language of the text.", example="en_us", max_length=100)


def main(auth: kustomer, body: "Event") -> dict[str, Any]:
    """Put a message on a customer's timeline, with its files, once for each ``messageId``.

    Return ``{"message", "conversation", "customer"}``, each ``{"id": text, "created": bool}``, and ``"attachments"``, a
    list of what upload_attachment returns; of a message that was there already, what Kustomer says of it. Raise the
    KustomerErrors of f.kustomer.shared.errors.
    """
    event, wrong = check_event(body)
    run = start_checked(auth, _RECORDED, {} if wrong else message_of(event), wrong)
    run.hide(*texts_of(event))
    files, left_out = file_places(body)
    for path in left_out:
        log(f"{path} is left out: nothing in it says where its bytes are")
    keys = [("externalId", event["messageId"])]
    look_up = run.look("/v1/messages", keys, lambda found, message: _others(run, event, found, message))
    if look_up.record:
        return _was_there(look_up.record["data"], event)
    return _record(run, event, files, () if look_up.not_allowed else keys)


def _others(run: Run, event: dict[str, Any], found: dict[str, Any], message: dict[str, Any]) -> list[str]:
    """Name the fields in which the message found under a messageId is somebody else's, or of another thread."""
    message = {**message, **_attached(event)}
    other, changed = differences(found, message), rewritten(found, message)
    if other or not changed:
        return other
    customer = customer_of(event)
    with _telling(run, _NOT_SENT):
        who = find_customer(run.part(CUSTOMER, customer), customer)["id"] or "nobody"
    if who.lower() != related(found, "customer"):
        return ["customer", *changed]
    # The same customer may write in two chats whose ids count anew.
    conversation = conversation_of(event)
    if "threadId" not in event or not related(found, "conversation"):
        return []
    with _telling(run, _NOT_SENT):
        where = find_conversation(run.part(CONVERSATION, conversation), conversation)["id"] or "nowhere"
    return ["conversation", *changed] if where.lower() != related(found, "conversation") else []


def _was_there(found: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    if rewritten(found, _attached(event)):
        log("the message has other files than those given, of which none is added")
    belongs = {name: dig(found, "relationships", name, "data", "id") for name in ("conversation", "customer")}
    return {
        "message": {"id": found["id"], "created": False},
        **{name: {"id": each, "created": False} for name, each in belongs.items()},
        "attachments": _attachments(found),
    }


def _attachments(found: dict[str, Any]) -> Any:
    return dig(found, "attributes", "attachments") or []


def _record(run: Run, event: dict[str, Any], files: list[str], keys: Keys) -> dict[str, Any]:
    """Find or make all that a new message needs, and record it; ``files`` are the paths of its files."""
    made: list[str] = []
    with _telling(run, _NOT_SENT, made):
        who = {**customer_of(event), "create": True}
        customer = find_customer(run.part(CUSTOMER, who), who)
        made += [f"customer {customer['id']}"] if customer["created"] else []
        where = {**conversation_of(event), "customer": customer["id"], "create": True}
        conversation = find_conversation(run.part(CONVERSATION, where), where)
        made += [f"conversation {conversation['id']}"] if conversation["created"] else []
        attachments = _attach(run, dict(zip(files, event.get("files", []), strict=True)))
    if conversation["customer"] not in (None, customer["id"]):
        log("the thread is with another customer than who wrote, whom the message is recorded with")
        customer = {"id": conversation["customer"], "created": False}
    whole = {**message_of(event), "conversation": conversation["id"], "customer": customer["id"]}
    whole |= {"attachments": attachments} if attachments else {}
    with _telling(run, "", made):
        answer, new = run.create("/v1/messages", keys, lambda found, _: differences(found, whole), whole)
    return {
        "message": {"id": answer["data"]["id"], "created": new},
        "conversation": {name: conversation[name] for name in ("id", "created")},
        "customer": customer,
        "attachments": attachments if new else _attachments(answer["data"]),
    }


@contextmanager
def _telling(run: Run, not_sent: str, made: Sequence[str] = ()) -> Iterator[None]:
    """Say in an error what was made so far; with ``not_sent``, that it came before the message was sent."""
    try:
        yield
    except KustomerError as error:
        so_far = f"So far this run has made {' and '.join(made)}, which running it again finds." if made else ""
        error.args = (" ".join(filter(None, (str(error), not_sent, so_far))),)
        error.attempts = run.requests
        error.outcome = "not_sent" if not_sent else error.outcome
        raise


def _attach(run: Run, files: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Make an attachment of each file, by its path; some at once, and in order."""
    if not files:
        return []
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait  # 8 ms, which only files pay

    parts = {path: run.part(ATTACHMENT, file) for path, file in files.items()}
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        jobs = {path: pool.submit(attach, part, files[path], path) for path, part in parts.items()}
        for waiting in wait(jobs.values(), return_when=FIRST_EXCEPTION).not_done:
            waiting.cancel()
    failed = [(path, error) for path, job in jobs.items() if not job.cancelled() and (error := job.exception())]
    if not failed:
        return [job.result() for job in jobs.values()]
    # Of several, one that running again doesn't cure, else the one to wait for the longest.
    path, error = min(failed, key=lambda each: _urgency(each[1]))
    error.args = (f"{error} It was {path} that failed.",)
    raise error


def _urgency(error: BaseException) -> tuple[bool, float]:
    return getattr(error, "retryable", False), -(getattr(error, "retry_after", None) or 0)


def check_event(body: object) -> tuple[dict[str, Any], list[Problem]]:
    """Return an event without what is empty, and all that is wrong with it, by the paths of its fields.

    ``files`` are as upload_attachment takes them. With no problems, the message fits what Kustomer takes, with all its
    attachments.
    """
    event, problems = check(body, Event, limit=None)
    if not any(path == "body" for path, _ in problems):
        if not event.keys() & {"email", "phone", "customerExternalId"}:
            problems.append(("email", "is missing: one of email, phone and customerExternalId is needed"))
        if not event.keys() & {"text", "subject", "files"}:
            problems.append(("text", "is missing: one of text, subject and files is needed"))
    if "files" in event and not problems:
        event["files"] = [{"externalUrl": each} if isinstance(each, str) else each for each in event["files"]]
    if not problems:
        attachments = [{"_id": f"{index:024x}", **_foreseen(file)} for index, file in enumerate(event.get("files", []))]
        whole = {**message_of(event), "conversation": "0" * 24, "customer": "0" * 24, "attachments": attachments}
        _, problems = check(whole, Message, limit=MAX_BODY_BYTES)
    return event, [(path.removeprefix("body."), what) for path, what in problems]


def file_places(body: Any) -> tuple[list[str], list[str]]:
    """Return the paths of those items of an event's ``files`` that are files, and of those that only have a name."""
    items = [(f"files[{index}]", item) for index, item in enumerate(_as_list(body.get("files"))) if given(item)]
    files = [path for path, item in items if given(_as_file(item))]
    return files, [path for path, _ in items if path not in files]


def texts_of(event: dict[str, Any]) -> list[str]:
    """Return what people wrote in an event, at any depth: what stays out of errors and logs."""
    texts: list[str] = []
    rest = [event[name] for name in event.keys() - {"channel", "direction", "app", "sentAt", "lang", "files"}]
    rest += [file[name] for file in event.get("files", []) for name in file.keys() - {"content", "contentType"}]
    while rest:
        value = rest.pop()
        texts += [value] if isinstance(value, str) else []
        rest += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return texts


def _attached(event: dict[str, Any]) -> dict[str, Any]:
    """Return the attachments of a message as far as they are known before they are made; nothing without files."""
    return {"attachments": [_foreseen(file) for file in event["files"]]} if "files" in event else {}


def _foreseen(file: dict[str, Any]) -> dict[str, Any]:
    """Return what the message will say of a file; nothing is longer of one in the storage, which isn't read yet."""
    if "content" in file:
        content = decoded(file["content"])
        return described(file, len(content), content[:16])
    return described(file, file.get("contentLength", 0) if "externalUrl" in file else 2**53)


def customer_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return who wrote an event, as find_customer takes it."""
    names = {"email": "email", "phone": "phone", "customerExternalId": "externalId", "name": "name"}
    customer = {ours: event[name] for name, ours in names.items() if name in event}
    return {**customer, "name": cut(event["name"], LINE_LENGTH)} if "name" in event else customer


def conversation_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return the thread of an event, as find_conversation takes it, but for the customer."""
    conversation = {"externalId": event.get("threadId") or event["messageId"]}
    return {**conversation, "name": cut(event["subject"], LINE_LENGTH)} if "subject" in event else conversation


def message_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return the message of an event, as create_message takes it, but for whom, where and with which attachments."""
    message = {
        "channel": event["channel"],
        "direction": event.get("direction") or "in",
        "app": event.get("app") or "windmill",
        "externalId": event["messageId"],
        "subject": cut(event.get("subject", ""), LINE_LENGTH),
        "preview": cut(event.get("text", ""), TEXT_LENGTH),
    }
    message |= {name: event[name] for name in ("sentAt", "meta", "custom", "lang") if name in event}
    return {name: value for name, value in message.items() if value != ""}


def cut(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters as it is, and the beginning of a longer one with a mark.

    NUL, which a file may hold, becomes U+FFFD, as in answers.
    """
    text = text.replace("\0", "\ufffd")
    if len(text) <= limit:
        return text
    room = limit - len(_MORE)
    last_blank = re.search(rf"\s\S{{0,{_LONGEST_WORD}}}$", text[: room + 1])
    return text[: last_blank.start() if last_blank else room] + _MORE
