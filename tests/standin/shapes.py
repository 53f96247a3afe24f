"""What Kustomer makes of a valid body: resources with the defaults that captured answers show."""

import secrets
from collections.abc import Mapping
from typing import Any

from tests.standin.records import RELATED, Records, Resource, related, resource, timestamp

Given = Mapping[str, Any]


class Shapes:
    """Makes an organisation's resources; whoever makes one is a `user`, and `at` is when, in epoch seconds."""

    def __init__(self, org: str, records: Records) -> None:
        """Make what belongs to this organisation and fits what it has on record."""
        self._org, self._records = org, records

    def message(self, given: Given, user: str, at: float) -> Resource:
        """Make a message; no page says which defaults are filled in, captures have these.

        That one without a direction, as in a bulk job, is taken for the customer's is our choice.
        """
        direction = given.get("direction", "in")
        position = "followup" if self._records.begun(given.get("conversation", "")) else "initial"
        attributes = {
            "direction": direction,
            "status": "received" if direction == "in" else "sent",
            "directionType": f"{position}-{direction}",
            "auto": False,
            "sentAt": timestamp(at),
        }
        # A message without a customer belongs to its conversation's.
        conversation = self._records.find("conversations", "id", given.get("conversation", ""))
        owner = {"customer": related(conversation, "customer")} if conversation else {}
        return self._resource("message", {**attributes, **given}, user, at, owner)

    def conversation(self, given: Given, user: str, at: float) -> Resource:
        """Make a conversation; what is counted in it stays at nothing here."""
        attributes: dict[str, Any] = {
            "status": "open",
            "channels": [],
            "messageCount": 0,
            "noteCount": 0,
            "satisfaction": 0,
            "tags": [],
            "assignedUsers": [],
            "assignedTeams": [],
            "rev": 1,
        }
        return self._resource("conversation", {**attributes, **given}, user, at)

    def customer(self, given: Given, user: str, at: float) -> Resource:
        """Make a customer, with lists and the revision that captured answers have."""
        lists = ("externalIds", "emails", "phones", "socials", "urls", "locations", "tags")
        shared = ("sharedExternalIds", "sharedEmails", "sharedPhones", "sharedSocials")
        attributes = {**{name: [] for name in (*lists, *shared)}, "rev": 1}
        return self._resource("customer", {**attributes, **given}, user, at)

    def attachment(self, given: Given) -> Resource:
        """Make an attachment; its page says what an externalUrl changes."""
        external = given.get("externalUrl")
        attributes = {name: given[name] for name in ("name", "contentType", "contentLength")}
        attributes |= {"uploaded": external is not None, "redacted": False}
        attachment = resource("attachment", "attachments", secrets.token_hex(12), attributes, {"org": self._org})
        if external is not None and given.get("renderMode") != "metadata_only":
            attachment["links"]["related"] = external
        return attachment

    def _resource(
        self, kind: str, given: Given, user: str, at: float, relations: Mapping[str, str] | None = None
    ) -> Resource:
        """Make a resource of what a body gives; else it was made then, by `user`, and has these `relations`."""
        made = timestamp(at)
        attributes = {
            "createdAt": made,
            "updatedAt": made,
            "modifiedAt": made,
            **{name: value for name, value in given.items() if name not in RELATED and name != "id"},
        }
        named = {name: given[name] for name in RELATED if name in given}
        all_relations = {"org": self._org, "createdBy": user, "modifiedBy": user, **(relations or {}), **named}
        return resource(kind, f"{kind}s", given.get("id", secrets.token_hex(12)), attributes, all_relations)
