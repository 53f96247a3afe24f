"""What an organisation has on record: resources as Kustomer's API shows them, each found by what identifies it."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

# A JSON:API resource: type, id, attributes, relationships, links.
Resource = dict[str, Any]

# What becomes of something that a request creates: it is stored at once, or late, or not at all.
Effect = Literal["stored", "late", "none"]

COLLECTIONS = ("messages", "conversations", "customers", "attachments")

# Where a resource's relationships point; the customer's type is spelt in the plural in captured answers.
RELATED = {
    "org": ("org", "orgs"),
    "createdBy": ("user", "users"),
    "modifiedBy": ("user", "users"),
    "customer": ("customers", "customers"),
    "conversation": ("conversation", "conversations"),
}

# developer.kustomer.com/api/core-resources/get-customer-by-phone-number: the lists of identifiers that no two
# customers share (those that may be shared have lists of their own), with what tells their items apart.
_IDENTIFIERS = (
    ("externalIds", "externalId", ("externalId",)),
    ("emails", "email", ("email",)),
    ("phones", "phone", ("phone",)),
    ("whatsapps", "whatsapp", ("phone",)),
    ("socials", "social", ("type", "username")),
)
IDENTIFIERS = frozenset(parameter for _, parameter, _ in _IDENTIFIERS)


def resource(
    kind: str, collection: str, at: str, attributes: Mapping[str, Any], relations: Mapping[str, str]
) -> Resource:
    """Make the resource with the id `at` that has `relations` to other ids."""
    relationships = {}
    for name, other in relations.items():
        other_kind, other_collection = RELATED.get(name, (name, f"{name}s"))
        relationships[name] = {
            "links": {"self": f"/v1/{other_collection}/{other}"},
            "data": {"type": other_kind, "id": other},
        }
    return {
        "type": kind,
        "id": at,
        "attributes": attributes,
        "relationships": relationships,
        "links": {"self": f"/v1/{collection}/{at}"},
    }


def related(of: Resource, name: str) -> str:
    """The id that a relationship points to, or nothing."""
    found: str = of["relationships"].get(name, {}).get("data", {}).get("id", "")
    return found


def timestamp(seconds: float) -> str:
    """Write epoch seconds as Kustomer does."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Records:
    """Everything on record.

    Nothing here waits for anything, so of two requests that race for an identifier one comes first.
    """

    def __init__(self) -> None:
        """Start with nothing; `created` has what requests created, oldest first, seeds not among it."""
        self.created: dict[str, list[Resource]] = {collection: [] for collection in COLLECTIONS}
        self._found: dict[tuple[str, str, str], Resource] = {}  # (collection, parameter, value)
        # The messages of each conversation and each customer.
        self._timelines: defaultdict[tuple[str, str], list[Resource]] = defaultdict(list)
        self._stored: dict[str, float] = {}
        self._late: list[tuple[str, Resource, frozenset[str]]] = []

    def clear(self) -> None:
        """Forget everything."""
        for created in self.created.values():
            created.clear()
        self._found.clear()
        self._timelines.clear()
        self._stored.clear()
        self._late.clear()

    def find(self, collection: str, parameter: str, value: str) -> Resource | None:
        """Give the resource that `parameter` identifies, compared as text."""
        return self._found.get((collection, parameter, value))

    def stored(self, found: Resource) -> float:
        """Tell when a resource was put on record, in epoch seconds; seeds always were."""
        return self._stored.get(found["id"], -math.inf)

    def timeline(self, owner: str, at: str) -> list[Resource]:
        """List the messages of a conversation or a customer by `createdAt`."""
        messages = self._timelines.get((owner, at), ())
        return sorted(messages, key=lambda message: _instant(message["attributes"]["createdAt"]))

    def begun(self, conversation: str) -> bool:
        """Tell whether the conversation has messages."""
        return ("conversation", conversation) in self._timelines

    def taken(self, collection: str, new: Resource, unique: frozenset[str]) -> list[str]:
        """Name those of the `unique` parameters that identify another resource already."""
        found = identifiers(new["id"], new["attributes"])
        given = [(name, value) for name, value in found if name in unique]
        return list(dict.fromkeys(name for name, value in given if (collection, name, value) in self._found))

    def seed(self, collection: str, new: Resource) -> None:
        """Put on record what was there before."""
        for name, value in identifiers(new["id"], new["attributes"]):
            # Of duplicates, the first is found; which one Kustomer gives is not documented.
            self._found.setdefault((collection, name, value), new)
        if collection == "messages":
            for owner in ("conversation", "customer"):
                if at := related(new, owner):
                    self._timelines[owner, at].append(new)

    def create(self, collection: str, new: Resource, at: float) -> None:
        """Put on record what a request created, at a time in epoch seconds."""
        self.seed(collection, new)
        self._stored[new["id"]] = at
        self.created[collection].append(new)

    def delay(self, collection: str, new: Resource, unique: frozenset[str]) -> None:
        """Put it on record only once it was looked for."""
        self._late.append((collection, new, unique))

    def appear(self, collection: str, parameter: str, value: str, at: float) -> None:
        """Put on record the late one that a look-up has just missed, unless it came too late for its identifiers."""
        for late in self._late:
            found_in, new, unique = late
            if found_in == collection and (parameter, value) in identifiers(new["id"], new["attributes"]):
                self._late.remove(late)
                if not self.taken(collection, new, unique):
                    self.create(collection, new, at)
                return


def identifiers(at: str, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what a resource with the id `at` is found by: parameters and their values."""
    yield "id", at
    if attributes.get("externalId") is not None:
        yield "externalId", attributes["externalId"]
    for items, parameter, parts in _IDENTIFIERS:
        for item in attributes.get(items, ()):
            yield parameter, " ".join(item[part] for part in parts)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.upper())
