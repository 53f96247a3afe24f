"""Find conversation.

Finds a conversation in Kustomer by the externalId of its thread, and on request makes one that is not there. Calls are
those of https://developer.kustomer.com/kustomer-api-docs/reference/createaconversation and its neighbours.
"""

from typing import Any

from f.kustomer.shared.client import Field, ObjectId, RecordKind, Run, ThreadId, dig, kustomer, start


class Conversation:
    """Which conversation: the thread that its messages belong to."""

    externalId: ThreadId = Field(
        "The thread's own id where it comes from, the same for all its messages. For e-mail: the Message-ID of "
        "the first one.",
        example="<CAF1042@mail.acme.example>",
        required=True,
    )
    create: bool = Field("On: when there is none, make a new conversation. Off: return no id then.", example=True)
    customer: ObjectId = Field(
        "Id in Kustomer of the customer whom a new conversation is with; needed to make one.",
        example="65a1b2c3d4e5f60718293a50",
        showExpr="fields.create",
    )
    name: str = Field(
        "Name of a new conversation. One that is found keeps its own.",
        example="Order 1042",
        max_length=256,
        showExpr="fields.create",
    )

    @staticmethod
    def wrong_together(conversation: dict[str, Any]) -> str | None:
        """Return what is wrong where a new conversation would be with nobody."""
        missing = conversation.get("create") and "customer" not in conversation
        return "must have a customer, or create off: a new conversation is with somebody" if missing else None


CONVERSATION = RecordKind(
    "conversation",
    role="org.permission.conversation.create",
    redact=("name",),
    conflict="If that goes on, look in Kustomer for the conversation with this externalId: a look-up doesn't show it.",
    limit="The limit of 120 conversations a minute for one customer is likely used up.",
)


def main(auth: kustomer, body: "Conversation") -> dict[str, Any]:
    """Find the conversation of a thread, or make one if ``create`` is on.

    Return ``{"id": text or None, "created": bool, "customer": text or None}``; None is no conversation. ``customer``
    is whom it is with: for one that is found, not always who was given. Raise the KustomerErrors of
    f.kustomer.shared.errors.
    """
    run = start(auth, CONVERSATION, body, Conversation)
    return find_conversation(run, run.body)


def find_conversation(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    """Find the conversation that is ``given``, or make it, as ``main`` does; ``run`` is one for CONVERSATION."""
    keys = [("externalId", given["externalId"])]
    if given.get("create"):
        new = {name: value for name, value in given.items() if name != "create"}
        found, created = run.create("/v1/conversations", keys, body=new)
    else:
        found, created = run.find("/v1/conversations", keys) or {}, False
    return {
        "id": dig(found, "data", "id"),
        "created": created,
        "customer": dig(found, "data", "relationships", "customer", "data", "id"),
    }
