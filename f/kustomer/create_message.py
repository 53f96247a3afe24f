"""Create message.

Records a message on a customer's Kustomer timeline, once. It delivers nothing to the customer. Fields and limits are
those of https://developer.kustomer.com/api/core-resources/create-message
"""

from datetime import datetime
from typing import Any, Literal

from f.kustomer.shared.client import (
    MAX_BODY_BYTES,
    DateTime,
    ExternalId,
    Field,
    Number,
    ObjectId,
    RecordKind,
    dig,
    kustomer,
    start,
)


class Reference:
    """The e-mail that a message answers or forwards."""

    message: ObjectId = Field(
        "Id in Kustomer of the message that this one answers or forwards.",
        example="65a1b2c3d4e5f60718293a4b",
        required=True,
    )
    type: Literal["reply", "replyAll", "forward"] = Field(
        "What this message is to that one.", example="reply", required=True, showExpr="fields.message"
    )


class DeliveryError:
    """Why a message was not delivered."""

    status: Number = Field("Status number that the channel reported.", example=550)
    code: str = Field("Short code of the failure.", example="invalid-recipient")
    title: str = Field("The failure in a few words.", example="Mailbox not found")
    detail: str = Field("The failure in full.", example="The mail server does not know this address.")
    source: dict[str, Any] = Field("What caused it, any JSON object.", example={"parameter": "to"})
    meta: dict[str, Any] = Field("Anything else about it, any JSON object.", example={"try": 2})
    links: dict[str, Any] = Field(
        "Pages about it, any JSON object.", example={"about": "https://status.acme.example/550"}
    )


class Attachment:
    """A file that was uploaded to Kustomer before."""

    _id: ObjectId = Field(
        "Id that Kustomer gave the file when it was uploaded.", example="65a1b2c3d4e5f60718293a4c", required=True
    )
    name: str = Field("File name that is shown.", example="invoice.pdf", required=True)
    contentType: str = Field("Media type of the file.", example="application/pdf", required=True)
    contentLength: Number = Field("Size of the file in bytes.", example=48213, required=True)
    sourceId: ObjectId = Field(
        "Id in Kustomer of the attachment this one was copied from.", example="65a1b2c3d4e5f60718293a4d"
    )


_PLACE = "fields.name || fields.cityName || fields.countryCode"


class Location:
    """Where the sender was."""

    name: str = Field("Name of the place.", example="Berlin store")
    cityName: str = Field("City.", example="Berlin", max_length=128)
    countryCode: str = Field(
        "Country as two letters.",
        example="DE",
        pattern="^[A-Za-z]{2}$",
        customErrorMessage="must be two letters, such as DE",
    )
    countryName: str = Field("Country.", example="Germany", max_length=64, showExpr=_PLACE)
    regionCode: str = Field("Short code of the region.", example="BE", max_length=2, showExpr=_PLACE)
    regionName: str = Field("State or region.", example="Brandenburg", max_length=128, showExpr=_PLACE)
    zipCode: str = Field("Postal code.", example="10115", max_length=30, showExpr=_PLACE)
    areaCode: str = Field("Telephone area code.", example="030", max_length=30, showExpr=_PLACE)
    address: str = Field("Street and number.", example="Torstr. 1", max_length=256, showExpr=_PLACE)
    address2: str = Field("Second address line.", example="Building B", max_length=256, showExpr=_PLACE)
    address3: str = Field("Third address line.", example="3rd floor", max_length=256, showExpr=_PLACE)
    latitude: Number = Field("Degrees north of the equator.", example=52.53, showExpr=_PLACE)
    longitude: Number = Field("Degrees east of Greenwich.", example=13.4, showExpr=_PLACE)


class Sentiment:
    """How the sender feels, as measured elsewhere."""

    polarity: Number = Field(
        "How the text sounds: -1 is negative, 0 neutral, 1 positive.",
        example=-1,
        required=True,
        check=lambda value: None if value in (-1, 0, 1) else "must be -1, 0 or 1",
    )
    confidence: Number = Field(
        "How sure that is, from -1 to 1.", example=0.8, required=True, ge=-1, le=1, showExpr="fields.polarity != null"
    )


class Queue:
    """Where routing puts the conversation: one of Kustomer's queues, or an external one."""

    id: ObjectId = Field("Id of a queue, from Settings > Queues and routing.", example="65a1b2c3d4e5f60718293a4e")
    external: Literal["amazon-connect"] = Field(
        "An external routing system, instead of an id.", example="amazon-connect"
    )


def _one_form(attachments: list[Any]) -> str | None:
    """Return what is wrong where ids are mixed with objects, or repeated: the published schema refuses both."""
    if len({isinstance(each, str) for each in attachments}) > 1:
        return "must be all ids or all objects, not mixed"
    try:
        once = {each if isinstance(each, str) else frozenset(each.items()) for each in attachments}
    except (AttributeError, TypeError):
        return None  # something in it has the wrong type, which is told by itself
    return "has the same attachment twice" if len(once) < len(attachments) else None


Channel = Literal["email", "sms", "chat", "facebook", "twitter-dm", "twitter-tweet", "voice", "instagram", "whatsapp"]
Direction = Literal["in", "out"]
_IMPORT = "fields.importedAt"
_ADMIN = "The key needs the role org.admin to set it; Kustomer sets it otherwise."


class Message:
    """The message to put on the timeline. Recording it delivers nothing to the customer."""

    channel: Channel = Field(
        "Channel on which the message was exchanged, such as email.", example="email", required=True
    )
    direction: Direction = Field(
        "in: from the customer to you. out: from you to the customer.", example="in", required=True
    )
    app: str = Field(
        "A name for what records the message, the same in every step of one integration; your choice. "
        "Leave Kustomer's own names (postmark, gmail, twilio, chat) to Kustomer.",
        example="acme-inbox",
        required=True,
    )
    conversation: ObjectId = Field(
        "Id of the conversation that gets the message, which must exist. You find it at the end of the address of "
        "the open conversation in Kustomer, or as data.id in an earlier step.",
        example="65a1b2c3d4e5f60718293a4f",
    )
    customer: ObjectId = Field(
        "Id of the customer. You find it after /customers/ in the address of the open timeline, or as data.id in "
        "an earlier step.",
        example="65a1b2c3d4e5f60718293a50",
    )
    preview: str = Field(
        "The text of the message, as it is to stand on the timeline. Recording it does not send it to anybody.",
        example="Hello, where is my order 1042?",
        max_length=10_240,
        title="preview (the text)",
        minRows=5,
    )
    subject: str = Field("Subject line.", example="Order 1042", max_length=256)
    externalId: ExternalId = Field(
        "The message's own id where it comes from, one for each message. With it, running the step twice records "
        "the message once; fill it in whenever there is one.",
        example="<CAF1042@mail.acme.example>",
    )
    sentAt: DateTime = Field("When the message was really sent, if not now.", example="2026-01-31T09:30:00.000Z")
    status: Literal["sent", "received", "error"] = Field(
        "received for what came in, sent for what went out, error for what was not delivered.", example="received"
    )
    error: DeliveryError = Field(
        "Why the message was not delivered.",
        example={"code": "invalid-recipient"},
        showExpr="fields.status === 'error'",
    )
    errorAt: DateTime = Field(
        "When delivery failed.", example="2026-01-31T09:30:05.000Z", showExpr="fields.status === 'error'"
    )
    reference: Reference = Field(
        "The e-mail that this one answers or forwards.",
        example={"message": "65a1b2c3d4e5f60718293a4b", "type": "reply"},
        showExpr="fields.channel === 'email'",
    )
    attachments: list[Attachment | ObjectId] = Field(
        "Files uploaded to Kustomer before. In a flow, a list of their ids will do too.",
        example=[
            {
                "_id": "65a1b2c3d4e5f60718293a4c",
                "name": "invoice.pdf",
                "contentType": "application/pdf",
                "contentLength": 48213,
            }
        ],
        check=_one_form,
    )
    auto: bool = Field("On for a message that a machine wrote: it is left out of reports on agents.", example=True)
    meta: dict[str, Any] = Field(
        "What the channel knows besides, any JSON object. For e-mail: from, to, cc.",
        example={"from": "ada@example.com", "to": [{"email": "help@acme.example"}]},
        max_length=100,
    )
    custom: dict[str, Any] = Field(
        "Your organisation's own message attributes, by their names in Settings > Klasses. The end of a name tells "
        "its type: Str, Txt, Num, At, Bool, Url.",
        example={"orderNumberStr": "1042"},
        max_length=100,
    )
    location: Location = Field(
        "Where the sender was.", example={"cityName": "Berlin", "countryCode": "DE"}, closed=False
    )
    lang: str = Field(
        "Language of the text.", example="en_us", max_length=100, showExpr="fields.preview || fields.lang"
    )
    sentiment: Sentiment = Field(
        "How the sender feels, if something has measured it.",
        example={"polarity": -1, "confidence": 0.8},
        showExpr="fields.preview && fields.direction === 'in'",
    )
    queue: Queue = Field(
        "Queue that routing puts the conversation into.",
        example={"id": "65a1b2c3d4e5f60718293a4e"},
        check=lambda value: None if {"id", "external"} & value.keys() else "must have an id or external",
        showExpr="fields.conversation && fields.direction === 'in'",
    )
    source: Literal["bulk", "satisfaction"] = Field(
        "Only for a bulk message or a satisfaction survey.", example="bulk", showExpr="fields.direction === 'out'"
    )
    shortcuts: list[ObjectId] = Field(
        "Ids of the shortcuts (text blocks) that were used.",
        example=["65a1b2c3d4e5f60718293a51"],
        showExpr="fields.direction === 'out'",
    )
    kbArticles: list[ObjectId] = Field(
        "Ids of the knowledge base articles that were used.",
        example=["65a1b2c3d4e5f60718293a52"],
        showExpr="fields.direction === 'out'",
    )
    importedAt: DateTime = Field(
        "Only for importing old messages: when it is imported. It lifts the limit of 120 messages a minute for one "
        "customer, and shows the fields that an import needs.",
        example="2026-02-01T00:00:00.000Z",
    )
    createdAt: DateTime = Field(
        f"When the record was made. {_ADMIN}", example="2019-05-04T08:00:00.000Z", showExpr=_IMPORT
    )
    createdBy: ObjectId = Field(
        f"Id of the user who made the record. {_ADMIN}", example="65a1b2c3d4e5f60718293a53", showExpr=_IMPORT
    )
    modifiedAt: DateTime = Field(
        f"When the record was last changed. {_ADMIN}", example="2019-05-04T08:00:00.000Z", showExpr=_IMPORT
    )
    modifiedBy: ObjectId = Field(
        f"Id of the user who last changed the record. {_ADMIN}", example="65a1b2c3d4e5f60718293a53", showExpr=_IMPORT
    )
    id: ObjectId = Field(
        "Id for the new message in Kustomer, if it must be a certain one; Kustomer makes one otherwise.",
        example="65a1b2c3d4e5f60718293a54",
        showExpr=_IMPORT,
    )
    size: Number = Field("Size of the original message, in bytes.", example=20480, showExpr=_IMPORT)
    related: str = Field(
        "A related id of your own; Kustomer does not say what it does with it.", example="case-77", showExpr=_IMPORT
    )


MESSAGE = RecordKind(
    "message",
    role="org.permission.message.create (and org.admin for createdAt, createdBy, modifiedAt, modifiedBy)",
    done_verb="recorded",
    place="on the timeline",
    not_sent_text="This run did not send the message.",
    redact=("preview", "subject"),
    conflict="Give each message an externalId (and id) of its own.",
    limit="The limit of 120 messages a minute for one customer is likely used up; importedAt exempts old ones.",
    create_without_read=True,
)


def main(auth: kustomer, body: "Message") -> dict[str, Any]:
    """Record a message on a customer's conversation timeline and return Kustomer's answer.

    Nothing is delivered to the customer. ``auth`` is a ``kustomer`` resource; ``body`` is the message, in which empty
    fields count as not given. Return ``{"data": {"id", "type", "attributes", "relationships", "links"}}``; with an
    ``externalId`` that is recorded already, the message which is there. Raise the KustomerErrors of
    f.kustomer.shared.errors.
    """
    run = start(auth, MESSAGE, body, Message, limit=MAX_BODY_BYTES)
    keys = [("externalId", run.body["externalId"])] if "externalId" in run.body else []
    answer, _ = run.create("/v1/messages", keys, differences)
    return answer


def differences(found: dict[str, Any], message: dict[str, Any]) -> list[str]:
    """Name the fields in which the message found under an externalId plainly is another one.

    A merged customer or an edited text by itself makes no other message; both together do, and so does another text
    at another time.
    """
    there = {name: dig(found, "attributes", name) for name in ("externalId", "channel", "direction", "app")}
    there |= {name: related(found, name) for name in ("conversation", "customer")}
    wanted = {**message, **{name: message.get(name, "").lower() for name in ("conversation", "customer")}}
    other = [name for name, value in there.items() if value and wanted.get(name) and value != wanted[name]]
    changed = rewritten(found, message)
    if "customer" in other or ("sentAt" in changed and len(changed) > 1):
        return [*other, *changed] if changed else [name for name in other if name != "customer"]
    return other


def rewritten(found: dict[str, Any], message: dict[str, Any]) -> list[str]:
    """Name what was written, attached or sent otherwise in the message found under an externalId."""
    same = {"preview": _words, "subject": _words, "sentAt": _second, "attachments": _names}
    there = {name: same[name](dig(found, "attributes", name)) for name in same}
    return [
        name
        for name, value in there.items()
        if value is not None and name in message and value != same[name](message[name])
    ]


def related(found: dict[str, Any], name: str) -> str:
    """Return the id of what a message belongs to, or ""."""
    return str(dig(found, "relationships", name, "data", "id") or "").lower()


def _words(text: Any) -> list[str] | None:
    """Return the words of a text, as not every channel keeps its blanks; None for what is none."""
    return text.split() if isinstance(text, str) else None


def _second(moment: Any) -> datetime | None:
    """Return a moment without the fractions of its second, which not every channel keeps; None for what is none."""
    try:
        return datetime.fromisoformat(moment.upper()).replace(microsecond=0)
    except (AttributeError, ValueError):
        return None


def _names(attachments: Any) -> list[str] | None:
    """Return the names of attachments, in any order; None for what is no list of them."""
    if not isinstance(attachments, list):
        return None
    names = [name for each in attachments if isinstance(name := dig(each, "name"), str)]
    return sorted(names) if len(names) == len(attachments) else None
