"""Record message.

Puts a message on a customer's timeline in Kustomer, with its files: finds the customer and the conversation or makes
them, uploads the files, records the message once. It delivers nothing to the customer.
"""

from itertools import takewhile
from typing import Annotated, Any, Required, TypedDict
from unicodedata import category

from f.kustomer.contacts import Email, Phone
from f.kustomer.create_message import Channel, Custom, Direction, Message, Meta
from f.kustomer.errors import Problem
from f.kustomer.inputs import (
    MAX_BODY_BYTES,
    DateTime,
    ExternalId,
    Field,
    check,
    given,
    unless_blank,
)
from f.kustomer.upload_attachment import File, decoded, described, not_a_link, not_one, s3_object

# Of a longer text so much is recorded, and a mark that there was more; Kustomer takes 10,240 and 256 characters:
# https://developer.kustomer.com/api/core-resources/create-message
TEXT_LENGTH = 10_200
LINE_LENGTH = 250
_MORE = " […]"

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
    return files if isinstance(files, list) else [files]


_EventFile = Annotated[File | Annotated[str, Field(check=not_a_link)], Field(tidy=_as_file, check=not_one)]


class Event(TypedDict, total=False):
    """What was written, who wrote it and where. One of email, phone and customerExternalId is needed."""

    channel: Required[Annotated[Channel, Field("Channel on which the message was exchanged.", example="email")]]
    messageId: Required[
        Annotated[
            ExternalId,
            Field(
                "The message's own id where it comes from, one for each message. Running this twice with the same one "
                "records once.",
                example="<CAF1044@mail.acme.example>",
                mistaken_names=("id", "externalid"),
            ),
        ]
    ]
    threadId: Annotated[
        ExternalId,
        Field(
            "The id of the thread, the same for all its messages. For e-mail: the Message-ID of the first one. Left "
            "empty, the message begins a thread.",
            example="<CAF1042@mail.acme.example>",
            mistaken_names=("thread", "conversation", "conversationid"),
        ),
    ]
    email: Annotated[
        Email,
        Field(
            "E-mail address of the customer. One of email, phone and customerExternalId is needed.",
            example="ada@example.com",
            mistaken_names=("mail", "emailaddress", "from"),
        ),
    ]
    phone: Annotated[
        Phone,
        Field(
            "Phone number of the customer, with the country's code.",
            example="+49 30 1234567",
            mistaken_names=("phonenumber", "mobile", "tel"),
        ),
    ]
    customerExternalId: Annotated[
        ExternalId,
        Field(
            "Id of the customer in your own system, such as the shop.",
            example="customer-1042",
            mistaken_names=("customer", "customerid", "userid"),
        ),
    ]
    name: Annotated[
        str,
        Field(
            "Name for a customer who is new; one who is found keeps theirs.",
            example="Ada Lindqvist",
            tidy=unless_blank,
            mistaken_names=("fullname", "displayname", "customername"),
        ),
    ]
    subject: Annotated[
        str, Field("Subject line; a new conversation is named by it.", example="Order 1042", mistaken_names=("title",))
    ]
    text: Annotated[
        str,
        Field(
            "The text of the message, as it is to stand on the timeline. Of a longer text the first "
            f"{TEXT_LENGTH:,} characters are recorded.",
            example="Hello, where is my order 1042?",
            mistaken_names=("body", "preview", "message", "content", "html"),
            minRows=5,
        ),
    ]
    files: Annotated[
        list[_EventFile],
        Field(
            "Files that came with the message, in Windmill's object storage. A flow or a webhook may also give links, "
            "or what Upload attachment takes.",
            tidy=_as_list,
            mistaken_names=("attachments", "file"),
            items={"type": "resource", "resourceType": "s3_object"},
        ),
    ]
    direction: Annotated[
        Direction,
        Field(
            "in: from the customer to you. out: from you to the customer. Left empty: in.",
            example="in",
            tidy=unless_blank,
        ),
    ]
    sentAt: Annotated[
        DateTime,
        Field(
            "When it was really sent, if not now.",
            example="2026-01-31T09:30:00.000Z",
            mistaken_names=("date", "timestamp"),
        ),
    ]
    app: Annotated[
        str,
        Field(
            "A name for what records the messages, the same in every run. Left empty: windmill.",
            example="acme-inbox",
            tidy=unless_blank,
        ),
    ]
    meta: Meta
    custom: Custom
    lang: Annotated[
        str, Field("Language of the text.", example="en_us", max_length=100, mistaken_names=("language", "locale"))
    ]


def check_event(body: object) -> tuple[dict[str, Any], list[Problem]]:
    """Return an event without what is empty, and all that is wrong with it, by the paths of its fields.

    ``files`` are as upload_attachment takes them. With no problems, the message fits what Kustomer takes, with all its
    attachments.
    """
    event, _, problems = check(body, Event, limit=None)
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
        _, _, problems = check(whole, Message, limit=MAX_BODY_BYTES)
    return event, [(path.removeprefix("body."), what) for path, what in problems]


def no_files(body: dict[str, Any]) -> list[str]:
    """Return the paths of those items of an event's ``files`` that say something, but not where the bytes are."""
    items = enumerate(_as_list(body.get("files")))
    return [f"files[{index}]" for index, item in items if given(item) and not given(_as_file(item))]


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
    """Return a text of at most ``limit`` characters as it is, and of a longer one the beginning, with a mark.

    No emoji, flag or letter with accents is cut in two, unless it is longer than all that may be recorded.
    """
    if len(text) <= limit:
        return text
    end = limit
    while end and _within_a_character(text, end):
        end -= 1
    return text[: end or limit] + _MORE


# Joined emoji, their skin tones, the tags of some flags, and the vowels and ends of Korean syllables.
_JOINER = "\u200d"
_JOINED = {_JOINER, *map(chr, [*range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080), *range(0x1160, 0x1200)])}
_FLAG_LETTERS = {*map(chr, range(0x1F1E6, 0x1F200))}


def _within_a_character(text: str, index: int) -> bool:
    """Tell whether what is seen as one character goes on at ``index``: https://www.unicode.org/reports/tr29."""
    before, after = text[index - 1], text[index]
    if after in _JOINED or before == _JOINER or category(after).startswith("M"):
        return True
    if (before, after) == ("\r", "\n") or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff"):
        return True
    if after not in _FLAG_LETTERS:
        return False
    # Two letters are a flag, so that the third one begins another.
    letters = takewhile(_FLAG_LETTERS.__contains__, reversed(text[:index]))
    return sum(1 for _ in letters) % 2 == 1
