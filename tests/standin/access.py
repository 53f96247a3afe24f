"""Who may ask an organisation on Kustomer what, and how often: keys, roles and the organisation's limit.

Facts come from Kustomer's pages, cited where they stand; what no page says is said to be our choice.
"""

import base64
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

from tests.standin.faults import Answer
from tests.standin.limit import ORG_LIMIT, Budget
from tests.standin.records import Effect
from tests.standin.refusals import RefusedError, refusal, refusal_at

# What a key with every role that is needed here may do.
_FULL = frozenset(
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
        "bulk.read",
    )
)

# Quoted from the older portal's getting-started page.
_OTHER_POD = "Auth token associated with pod prod2 but request is being handled by prod1"


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
    """An API key: the machine user it belongs to (object-id), its roles, and why it is refused, if it is."""

    name: str
    token: str
    user: str
    roles: frozenset[str]
    created: float
    refusal: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


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
    handle: Callable[[Call], Answer]


class Access:
    """The way in: a request gets to its call if its key, the limit and the key's roles let it."""

    def __init__(self, routes: Iterable[Route], limit: int = ORG_LIMIT, agents: int = 0) -> None:
        """Make keys; of the routes that fit a request, the first is taken.

        `limit` is the organisation's, in requests a minute, of which its agents use up so many.
        """
        # Whether every answer has x-ratelimit-reset, as the portal's sample has, or only the refusal, as clients say.
        self.tell_reset = True
        self.now: Callable[[], float] = time.time
        # Requests are answered in a thread of their own, while a test looks and turns the clock.
        self.lock = threading.RLock()
        self.org = secrets.token_hex(12)
        self._routes = tuple(routes)
        self._budget = Budget(limit, agents)
        self._by_token: dict[str, Key] = {}
        self.keys = {
            name: self._mint(name, roles, why)
            for name, roles, why in (
                ("full", _FULL, None),
                ("no_read", frozenset({"org.permission.message.create"}), None),
                ("no_create", frozenset({"org.permission.message.read"}), None),
                ("admin", _FULL | {"org.admin"}, None),
                ("expired", _FULL, "Auth token has expired"),
                ("elsewhere", _FULL, _OTHER_POD),
            )
        }

    def key(self, *roles: str, name: str = "a key", **attributes: Any) -> str:
        """Make another key with exactly these roles; `attributes` are what it says of itself besides."""
        return self._mint(name, frozenset(roles), attributes=attributes)

    @property
    def org_limit(self) -> int:
        """The organisation's requests a minute, of agents and integrations together."""
        return self._budget.limit

    @org_limit.setter
    def org_limit(self, limit: int) -> None:
        self._budget.limit = limit

    @property
    def lowest_remaining(self) -> int:
        """The fewest requests that any answer said were left."""
        return self._budget.lowest

    @property
    def agents_refused(self) -> int:
        """How many requests of agents have found nothing left by now."""
        with self.lock:
            self._budget.let_agents_work(self.now())
            return self._budget.agents_refused

    def advance(self, seconds: float) -> None:
        """Hold the clock, if it isn't held yet, and let so many seconds pass on it."""
        with self.lock:
            at = self.now() + seconds
            self.now = lambda: at

    def clear(self) -> None:
        """Forget what was counted; the keys stay."""
        self._budget.clear()

    def answer(self, seen: Seen, effect: Effect = "stored") -> Answer:
        """Answer one request, with the headers that every answer has."""
        # Captured answers of Kustomer carry its pod, and CloudFront's id of the request.
        headers = {
            "Date": formatdate(self.now(), usegmt=True),
            "X-Kustomer-Pod": "prod1",
            "X-Amz-Cf-Id": secrets.token_urlsafe(40) + "==",
        }
        try:
            key = self._authenticate(seen.headers.get("Authorization", ""))
            self._count(headers)
            answer = self._dispatch(key, seen, effect)
        except RefusedError as refused:
            answer = refused.answer
        return answer.under(headers)

    def _mint(
        self, name: str, roles: frozenset[str], why: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> str:
        user = secrets.token_hex(12)
        claims = ({"alg": "HS256", "typ": "JWT"}, {"id": secrets.token_hex(12), "user": user, "org": self.org})
        parts = [base64.urlsafe_b64encode(json.dumps(c).encode()).decode().rstrip("=") for c in claims]
        token = ".".join([*parts, secrets.token_urlsafe(32)])
        self._by_token[token] = Key(name, token, user, roles, self.now(), why, attributes or {})
        return token

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
        """Count a request of the organisation. That x-ratelimit-reset is in epoch seconds is our choice."""
        within = self._budget.take(self.now())
        headers["x-ratelimit-limit"] = str(self._budget.limit)
        headers["x-ratelimit-remaining"] = str(self._budget.remaining)
        if self.tell_reset or not within:
            headers["x-ratelimit-reset"] = str(self._budget.resets)
        if not within:
            raise refusal(429, "too_many_requests", "API rate limit of the organization exceeded")

    def _dispatch(self, key: Key, seen: Seen, effect: Effect) -> Answer:
        path, _, query = seen.path.partition("?")
        for route in self._routes:
            found = route.path.fullmatch(path) if route.method == seen.method else None
            if found is None:
                continue
            if route.roles and not route.roles & key.roles:
                # The older errors page puts a missing role under 401; clients report 403, and so does this.
                raise refusal(403, "forbidden", f"Missing role: {' or '.join(sorted(route.roles))}")
            # Decoded once, as a path: '+' is a plus.
            value = unquote(found["value"]) if route.path.groups else ""
            return route.handle(Call(key, value, query, seen.headers, seen.body, effect))
        raise refusal_at(404, {"code": "notfound", "title": "Not Found"})
