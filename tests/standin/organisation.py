"""What Kustomer's REST API documents: an organisation with its keys, limits, customers and timelines.

It answers requests and knows nothing of sockets; `tests.standin.kustomer` serves it. Facts come from
Kustomer's pages, cited where they stand; what no page says is said to be our choice.
"""

import base64
import json
import math
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

from tests.standin.faults import Answer
from tests.standin.refusals import MESSAGE, RefusedError, not_found, parse, refusal, refusal_at, validate

# A JSON:API resource: type, id, attributes, relationships, links.
Resource = dict[str, Any]

# What becomes of a message that a request creates: it is stored at once, or late, or not at all.
Effect = Literal["stored", "late", "none"]

# developer.kustomer.com/docs/concepts/rate-limits: the requests of an Enterprise organisation, and the
# messages that one client creates for one customer, each within 60 seconds.
ORG_LIMIT = 1000
CUSTOMER_LIMIT = 120
WINDOW = 60

# Lists: developer.kustomer.com/kustomer-api-docs/reference/getmessage gives 100 a page unless told.
PAGE_SIZE = 100

# developer.kustomer.com/api/core-resources: the roles that suffice, any one of them, permission or legacy.
MESSAGE_CREATE = frozenset({"org.permission.message.create", "org.user.message.write"})
MESSAGE_READ = frozenset({"org.permission.message.read", "org.user.message.read"})
CONVERSATION_READ = frozenset({"org.permission.conversation.read", "org.user.conversation.read"})
CUSTOMER_READ = frozenset({"org.permission.customer.read", "org.user.customer.read"})
ANY_KEY: frozenset[str] = frozenset()

# The page of create-message-by-customer-id says that these need org.admin; that of create-message is silent.
ADMIN_FIELDS = ("createdAt", "createdBy", "modifiedAt", "modifiedBy")

# Where a resource's relationships point; the customer's type is spelt in the plural in captured answers.
RELATED = {
    "org": ("org", "orgs"),
    "createdBy": ("user", "users"),
    "modifiedBy": ("user", "users"),
    "customer": ("customers", "customers"),
    "conversation": ("conversation", "conversations"),
}


@dataclass(frozen=True)
class Seen:
    """One request as it came: raw path with query, headers in any case, and the TCP connection's number."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


@dataclass(frozen=True)
class Key:
    """An API key, the machine user it belongs to (object-id), its roles, and why it is refused, if it is."""

    name: str
    token: str
    user: str
    roles: frozenset[str]
    refusal: str | None = None


@dataclass
class Window:
    """Counts what falls within one window of 60 seconds, which starts with the first thing counted."""

    start: float = -math.inf
    used: int = 0

    def take(self, limit: int, now: float) -> bool:
        """Count one more at `now` (epoch seconds), unless the limit is used up."""
        if not self.start <= now < self.start + WINDOW:
            self.start, self.used = now, 0
        if self.used >= limit:
            return False
        self.used += 1
        return True


@dataclass(frozen=True)
class Call:
    """A request of a known key that has passed the organisation's limit."""

    key: Key
    value: str  # what the path's variable part says, decoded
    query: str
    headers: Mapping[str, str]
    body: bytes
    effect: Effect


@dataclass(frozen=True)
class Route:
    """One documented call: any of `roles` suffices, and no roles means that any key does."""

    method: str
    path: re.Pattern[str]
    roles: frozenset[str]
    handle: Callable[["Organisation", Call], Answer]


class Organisation:
    """One organisation on Kustomer, with a seeded customer and her open conversation."""

    def __init__(self, *, unique_external_ids: bool = False) -> None:
        """Make keys and seeds.

        `unique_external_ids` refuses a message whose externalId is taken with 409. No page says what happens;
        unless told, the duplicate is stored, which is worst for the caller.
        """
        self.org_limit = ORG_LIMIT
        self.now: Callable[[], float] = time.time
        self.org, self.customer, self.conversation = (secrets.token_hex(12) for _ in range(3))
        self.messages: list[Resource] = []
        keys = list(_make_keys(self.org))
        self.keys = {key.name: key.token for key in keys}
        self._by_token = {key.token: key for key in keys}
        self._unique_external_ids = unique_external_ids
        self.clear()

    def clear(self) -> None:
        """Forget messages and what was counted; the seeds stay."""
        self.messages.clear()
        self._late: list[Resource] = []
        self._index: dict[tuple[str, str, str], Resource] = {}  # (collection, parameter, value)
        self._timelines: dict[str, list[Resource]] = {}
        self._org_window = Window()
        self._customer_windows: dict[tuple[str, str], Window] = defaultdict(Window)
        self._seed()

    def timeline(self, conversation: str) -> list[Resource]:
        """List the conversation's messages by `createdAt`, seeded ones included."""
        messages = list(self._timelines.get(conversation, ()))
        return sorted(messages, key=lambda message: _instant(message["attributes"]["createdAt"]))

    def answer(self, seen: Seen, effect: Effect = "stored") -> Answer:
        """Answer one request, with the headers that every answer has."""
        # Captured answers of Kustomer carry its pod, and CloudFront's id of the request.
        headers = {"X-Kustomer-Pod": "prod1", "X-Amz-Cf-Id": secrets.token_urlsafe(40) + "=="}
        try:
            key = self._authenticate(seen.headers.get("Authorization", ""))
            self._count(headers)
            answer = self._dispatch(key, seen, effect)
        except RefusedError as refused:
            answer = refused.answer
        return answer.under(headers)

    def _authenticate(self, authorization: str) -> Key:
        # developer.kustomer.com/docs/get-started/authentication: Authorization: Bearer <token>
        scheme, _, token = authorization.partition(" ")
        key = self._by_token.get(token)
        if scheme.lower() != "bearer" or key is None:
            raise refusal(401, "unauthorized", "Invalid or missing auth token")
        if key.refusal:
            raise refusal(401, "unauthorized", key.refusal)
        return key

    def _count(self, headers: dict[str, str]) -> None:
        """Count a request of the organisation; x-ratelimit-reset is in epoch seconds, and only on its 429."""
        within = self._org_window.take(self.org_limit, self.now())
        headers["x-ratelimit-limit"] = str(self.org_limit)
        headers["x-ratelimit-remaining"] = str(max(0, self.org_limit - self._org_window.used))
        if not within:
            headers["x-ratelimit-reset"] = str(math.ceil(self._org_window.start + WINDOW))
            raise refusal(429, "too_many_requests", "API rate limit of the organization exceeded")

    def _dispatch(self, key: Key, seen: Seen, effect: Effect) -> Answer:
        path, _, query = seen.path.partition("?")
        for route in ROUTES:
            found = route.path.fullmatch(path) if route.method == seen.method else None
            if found is None:
                continue
            if route.roles and not route.roles & key.roles:
                # The older errors page puts a missing role under 401; clients report 403, and so does this.
                raise refusal(403, "forbidden", f"Missing role: {' or '.join(sorted(route.roles))}")
            # Decoded once, as a path: '+' is a plus.
            value = unquote(found["value"]) if route.path.groups else ""
            return route.handle(self, Call(key, value, query, seen.headers, seen.body, effect))
        raise refusal_at(404, {"code": "notfound", "title": "Not Found"})

    def create_message(self, call: Call) -> Answer:
        """POST /v1/messages (developer.kustomer.com/api/core-resources/create-message).

        The message's customer and conversation may be unknown here: no page says that they are looked up.
        """
        given = parse(call.headers, call.body)
        validate(MESSAGE, given)
        if "org.admin" not in call.key.roles and (barred := [name for name in ADMIN_FIELDS if name in given]):
            raise refusal(403, "forbidden", f"Setting {', '.join(barred)} requires the role org.admin")
        message = self._message(given, call.key.user)
        self._refuse_taken(message)
        customer = _related(message, "customer")
        # The same page: a body with importedAt is exempt from the limit per customer.
        if customer and "importedAt" not in given and call.effect != "none":
            window = self._customer_windows[call.key.user, customer]
            if not window.take(CUSTOMER_LIMIT, self.now()):
                raise refusal(429, "too_many_requests", "Too many messages created for this customer")
        if call.effect == "stored":
            self._store(message)
        if call.effect == "late":
            self._late.append(message)
        return Answer.of(201, {"data": message})

    def look_up(self, call: Call, collection: str, parameter: str) -> Answer:
        """GET /v1/{collection}/{id}, or /v1/{collection}/{parameter}={value}: one resource, or 404."""
        found = self._index.get((collection, parameter, call.value))
        if found:
            return Answer.of(200, {"data": found})
        if call.effect == "stored" and collection == "messages":
            self._appear(parameter, call.value)
        raise not_found(parameter)

    def list_messages(self, call: Call) -> Answer:
        """GET /v1/conversations/{id}/messages?page=&pageSize=: a page of its timeline, links to others."""
        timeline = self.timeline(call.value)
        if not timeline and ("conversations", "id", call.value) not in self._index:
            raise not_found("id")
        page, size = _number(call.query, "page", 1), _number(call.query, "pageSize", PAGE_SIZE)
        last = max(1, math.ceil(len(timeline) / size))

        def link(at: int) -> str | None:
            path = f"/v1/conversations/{call.value}/messages?page={at}&pageSize={size}"
            return path if 1 <= at <= last else None

        return Answer.of(
            200,
            {
                "data": timeline[(page - 1) * size : page * size],
                "meta": {"page": page, "pageSize": size, "totalPages": last, "total": len(timeline)},
                "links": {
                    "self": link(page),
                    "first": link(1),
                    "prev": link(page - 1),
                    "next": link(page + 1),
                    "last": link(last),
                },
            },
        )

    def current_token(self, call: Call) -> Answer:
        """GET /v1/auth/tokens/current: any valid key (developer.kustomer.com/docs/get-started/quickstart)."""
        attributes = {
            "name": call.key.name,
            "roles": sorted(call.key.roles),
            "lastTokenChars": call.key.token[-4:],
            "userAgent": call.headers.get("User-Agent", ""),
            "lastAccessedAt": _timestamp(self.now()),
        }
        related = {"org": self.org, "user": call.key.user}
        return Answer.of(200, {"data": _resource("token", "auth/tokens", "current", attributes, related)})

    def _seed(self) -> None:
        """A customer with an open conversation of yesterday."""
        at = self.now() - 86_400
        email = "ada.lindqvist@example.com"
        customer: dict[str, Any] = {
            "name": "Ada Lindqvist",
            "externalId": "customer-1042",
            "createdAt": _timestamp(at),
            "emails": [{"email": email, "type": "home"}],
        }
        resource = _resource("customer", "customers", self.customer, customer, {"org": self.org})
        self._put("customers", resource)
        self._index["customers", "email", email] = resource
        conversation: dict[str, Any] = {
            "name": "Parcel 1042",
            "externalId": "thread-1042",
            "createdAt": _timestamp(at),
            "status": "open",
            "channels": ["chat"],
        }
        related = {"org": self.org, "customer": self.customer}
        resource = _resource("conversation", "conversations", self.conversation, conversation, related)
        self._put("conversations", resource)
        user = secrets.token_hex(12)
        both = {"channel": "chat", "app": "chat", "conversation": self.conversation}
        for later, direction, text in (
            (0, "in", "Hello, where is my parcel? It should have come on Monday."),
            (240, "out", "Hello Ada, I'm asking the carrier and will write to you today."),
        ):
            self._keep(self._message({**both, "direction": direction, "preview": text}, user, at + later))

    def _message(self, given: Mapping[str, Any], user: str, at: float | None = None) -> Resource:
        """Make a message of a valid body; no page says which defaults are filled in, captures have these."""
        now = _timestamp(self.now() if at is None else at)
        direction = given["direction"]
        position = "followup" if self._timelines.get(given.get("conversation", "")) else "initial"
        attributes = {
            "status": "received" if direction == "in" else "sent",
            "directionType": f"{position}-{direction}",
            "auto": False,
            "sentAt": now,
            "createdAt": now,
            "updatedAt": now,
            "modifiedAt": now,
            **{name: value for name, value in given.items() if name not in RELATED and name != "id"},
        }
        related = {"org": self.org, "createdBy": user, "modifiedBy": user}
        # A message without a customer belongs to its conversation's.
        conversation = self._index.get(("conversations", "id", given.get("conversation", "")))
        if conversation:
            related["customer"] = _related(conversation, "customer")
        related |= {name: given[name] for name in RELATED if name in given}
        return _resource("message", "messages", given.get("id", secrets.token_hex(12)), attributes, related)

    def _refuse_taken(self, message: Resource) -> None:
        # An id is the primary key, so that two messages can't share it; no page says what the answer is.
        taken = ["id"] if ("messages", "id", message["id"]) in self._index else []
        external = message["attributes"].get("externalId")
        if self._unique_external_ids and ("messages", "externalId", external) in self._index:
            taken.append("externalId")
        if taken:
            raise refusal_at(
                409, *({"source": {"parameter": t}, "code": "conflict", "title": "Conflict"} for t in taken)
            )

    def _store(self, message: Resource) -> None:
        self._keep(message)
        self.messages.append(message)

    def _keep(self, message: Resource) -> None:
        self._put("messages", message)
        if "conversation" in message["relationships"]:
            self._timelines.setdefault(_related(message, "conversation"), []).append(message)

    def _put(self, collection: str, resource: Resource) -> None:
        self._index[collection, "id", resource["id"]] = resource
        external = resource["attributes"].get("externalId")
        if external is not None:
            # Of duplicates, the first is found; which one Kustomer gives is not documented.
            self._index.setdefault((collection, "externalId", external), resource)

    def _appear(self, parameter: str, value: str) -> None:
        """Store the late message that a look-up has just missed."""
        for message in self._late:
            if value == (message["id"] if parameter == "id" else message["attributes"].get(parameter)):
                self._late.remove(message)
                self._store(message)
                return


def _routes() -> Iterator[Route]:
    def route(method: str, path: str, roles: frozenset[str], handle: Callable[[Organisation, Call], Answer]) -> Route:
        return Route(method, re.compile(path.replace("{value}", "(?P<value>[^/]+)")), roles, handle)

    def look_up(collection: str, parameter: str) -> Callable[[Organisation, Call], Answer]:
        return lambda organisation, call: organisation.look_up(call, collection, parameter)

    yield route("POST", "/v1/messages", MESSAGE_CREATE, Organisation.create_message)
    yield route("GET", "/v1/conversations/{value}/messages", MESSAGE_READ, Organisation.list_messages)
    yield route("GET", "/v1/auth/tokens/current", ANY_KEY, Organisation.current_token)
    for collection, roles in (
        ("messages", MESSAGE_READ),
        ("conversations", CONVERSATION_READ),
        ("customers", CUSTOMER_READ),
    ):
        # The older pages print externalid, the newer ones externalId.
        yield route("GET", f"/v1/{collection}/external[iI]d={{value}}", roles, look_up(collection, "externalId"))
        if collection == "customers":
            yield route("GET", "/v1/customers/email={value}", roles, look_up(collection, "email"))
        yield route("GET", f"/v1/{collection}/{{value}}", roles, look_up(collection, "id"))


# Every documented call that this server knows, the more specific path first.
ROUTES = tuple(_routes())


def _make_keys(org: str) -> Iterator[Key]:
    full = frozenset(
        f"org.permission.{name}"
        for name in (
            "message.create",
            "message.read",
            "conversation.create",
            "conversation.read",
            "conversation.update",
            "customer.create",
            "customer.read",
            "customer.update",
            "attachment.read",
        )
    )
    # Quoted from the older portal's getting-started page.
    pod = "Auth token associated with pod prod2 but request is being handled by prod1"
    for name, roles, why in (
        ("full", full, None),
        ("no_read", frozenset({"org.permission.message.create"}), None),
        ("no_create", frozenset({"org.permission.message.read"}), None),
        ("admin", full | {"org.admin"}, None),
        ("expired", full, "Auth token has expired"),
        ("elsewhere", full, pod),
    ):
        user = secrets.token_hex(12)
        claims = ({"alg": "HS256", "typ": "JWT"}, {"id": secrets.token_hex(12), "user": user, "org": org})
        parts = [base64.urlsafe_b64encode(json.dumps(c).encode()).decode().rstrip("=") for c in claims]
        yield Key(name, ".".join([*parts, secrets.token_urlsafe(32)]), user, roles, why)


def _resource(
    kind: str, collection: str, at: str, attributes: Mapping[str, Any], related: Mapping[str, str]
) -> Resource:
    relationships = {}
    for name, other in related.items():
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


def _related(resource: Resource, name: str) -> str:
    """The id that a relationship points to, or nothing."""
    found: str = resource["relationships"].get(name, {}).get("data", {}).get("id", "")
    return found


def _number(query: str, name: str, default: int) -> int:
    """Read a whole number of at least 1 from the query."""
    given = parse_qs(query).get(name, [str(default)])[0]
    if not re.fullmatch("0*[1-9][0-9]{0,8}", given):
        raise refusal_at(400, {"source": {"parameter": name}, "code": "badparam", "title": "Invalid type"})
    return int(given)


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _instant(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp.upper())
