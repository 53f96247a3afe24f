"""What Kustomer's REST API documents: an organisation with its customers, conversations, timelines and files.

It answers requests and knows nothing of sockets; `tests.standin.kustomer` serves it. Facts come from
Kustomer's pages, cited where they stand; what no page says is said to be our choice.
"""

import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.standin.access import Access, Call, Key, Route, Seen
from tests.standin.bulk import Item, Jobs
from tests.standin.faults import Answer
from tests.standin.limit import ORG_LIMIT, Window
from tests.standin.lists import listed
from tests.standin.records import IDENTIFIERS, Effect, Records, Resource, related, resource, timestamp
from tests.standin.refusals import (
    ATTACHMENT,
    CONVERSATION,
    CUSTOMER,
    MESSAGE,
    conflict,
    not_found,
    parse,
    refusal,
    validate,
)
from tests.standin.shapes import Shapes
from tests.standin.uploads import Bucket, StoredFile

# developer.kustomer.com/docs/concepts/rate-limits: the messages, and the conversations, that one client creates
# for one customer within 60 seconds.
CUSTOMER_LIMIT = 120

# No page says how long an upload's policy lasts; this is the default of the library whose forms Kustomer's look
# like (github.com/aws/aws-sdk-js/issues/1518).
POLICY_SECONDS = 3600

# developer.kustomer.com/api/core-resources: the roles that suffice, any one of them, permission or legacy.
MESSAGE_CREATE = frozenset({"org.permission.message.create", "org.user.message.write"})
MESSAGE_READ = frozenset({"org.permission.message.read", "org.user.message.read"})
CONVERSATION_CREATE = frozenset({"org.permission.conversation.create", "org.user.conversation.write"})
CONVERSATION_READ = frozenset({"org.permission.conversation.read", "org.user.conversation.read"})
CUSTOMER_CREATE = frozenset({"org.permission.customer.create", "org.user.customer.write"})
CUSTOMER_READ = frozenset({"org.permission.customer.read", "org.user.customer.read"})
ATTACHMENT_CREATE = MESSAGE_CREATE | {"org.permission.note.create", "org.user.note.write"}
BULK_READ = frozenset({"org.permission.bulk.read", "org.user.bulk.read"})
ATTACHMENT_READ = frozenset({"org.permission.attachment.read", "org.user.attachment.read"})
ANY_KEY: frozenset[str] = frozenset()

# The page of create-message-by-customer-id says that these need org.admin; that of create-message is silent, and
# so are those of customers and conversations, which have no such rule here.
ADMIN_FIELDS = ("createdAt", "createdBy", "modifiedAt", "modifiedBy")


class Organisation(Access):
    """One organisation on Kustomer, with a seeded customer and her open conversation."""

    def __init__(
        self,
        *,
        unique_external_ids: bool = False,
        unique_identifiers: bool = True,
        limit: int = ORG_LIMIT,
        agents: int = 0,
    ) -> None:
        """Make seeds.

        `unique_external_ids` refuses a message or conversation whose externalId is taken with 409. No page says
        what happens; unless told, the duplicate is stored, which is worst for the caller. That customers don't
        share identifiers is documented; without `unique_identifiers` they do. For `limit` and `agents` see `Access`.
        """
        super().__init__(self._routes_of_calls(), limit, agents)
        self.customer, self.conversation = (secrets.token_hex(12) for _ in range(2))
        self.policy_seconds: float = POLICY_SECONDS
        self.upload_url = ""
        # Seconds until look-ups and lists show what was stored; identifiers are taken at once. Not documented.
        self.lag: float = 0
        self.files: dict[str, StoredFile] = {}
        self._bucket = Bucket(lambda: self.now())
        self._records = Records()
        self._shapes = Shapes(self.org, self._records)
        self.attachments = self._records.created["attachments"]
        # An id is the primary key, so that two can't share it.
        unique = frozenset({"id", "externalId"} if unique_external_ids else {"id"})
        self._unique = {
            "messages": unique,
            "conversations": unique,
            "customers": IDENTIFIERS if unique_identifiers else frozenset(),
        }
        self.jobs = Jobs(self._store, self.org, lambda: self.now())
        self.clear()

    def clear(self) -> None:
        """Forget what was created and what was counted; seeds and keys stay."""
        super().clear()
        self._records.clear()
        self.jobs.clear()
        self.files.clear()
        self._customer_windows: dict[tuple[str, str, str], Window] = defaultdict(Window)
        self._seed()

    @property
    def messages(self) -> list[Resource]:
        """The messages that requests have created by now, oldest first, seeds not among them."""
        return self._created("messages")

    @property
    def conversations(self) -> list[Resource]:
        """The conversations that requests have created by now."""
        return self._created("conversations")

    @property
    def customers(self) -> list[Resource]:
        """The customers that requests have created by now."""
        return self._created("customers")

    def timeline(self, conversation: str) -> list[Resource]:
        """List the conversation's messages by `createdAt`, seeded ones included."""
        with self.lock:
            self.jobs.run()
            return self._records.timeline("conversation", conversation)

    def answer(self, seen: Seen, effect: Effect = "stored") -> Answer:
        """Answer one request, after what its bulk jobs have done by now."""
        with self.lock:
            self.jobs.run()
            return super().answer(seen, effect)

    def keep_file(self, attachment: str, file: StoredFile) -> None:
        """Keep what was uploaded; S3 replaces what it has under the same key."""
        self.files[attachment] = file
        # When Kustomer learns of an upload is not documented: at once is our choice.
        if found := self._records.find("attachments", "id", attachment):
            found["attributes"]["uploaded"] = True

    def create_message(self, call: Call) -> Answer:
        """POST /v1/messages (developer.kustomer.com/api/core-resources/create-message).

        The message's customer and conversation may be unknown here: no page says that they are looked up.
        """
        given = parse(call.headers, call.body)
        validate(MESSAGE, given)
        return self._create(call, "messages", given)

    def create_conversation(self, call: Call) -> Answer:
        """POST /v1/conversations (developer.kustomer.com/api/core-resources/create-conversation).

        That an unknown customer is answered 404, as a look-up of one is, is our choice.
        """
        given = parse(call.headers, call.body)
        validate(CONVERSATION, given)
        return self._create(call, "conversations", given)

    def create_customer(self, call: Call) -> Answer:
        """POST /v1/customers (developer.kustomer.com/api/core-resources/create-customer)."""
        given = parse(call.headers, call.body)
        validate(CUSTOMER, given)
        return self._create(call, "customers", given)

    def create_attachment(self, call: Call) -> Answer:
        """POST /v1/attachments (developer.kustomer.com/api/core-resources/create-attachment).

        The names of the form's fields and the shape of the key are those of the published example. Nothing is
        said of a contentLength that no file can have: it is taken, and the upload fails.
        """
        given = parse(call.headers, call.body)
        validate(ATTACHMENT, given)
        attachment = self._shapes.attachment(given)
        if call.effect == "stored":
            self._records.create("attachments", attachment, self.now())
        if "externalUrl" in given:
            return Answer.of(201, {"data": attachment})
        fields = self._bucket.form(
            key=f"attachments/{self.org}/{attachment['id']}-{given['name']}",
            attachment=attachment["id"],
            content_type=given["contentType"],
            size=given["contentLength"],
            seconds=self.policy_seconds,
        )
        return Answer.of(201, {"data": attachment, "meta": {"upload": {"url": self.upload_url, "fields": fields}}})

    def look_up(self, call: Call, collection: str, parameter: str) -> Answer:
        """GET /v1/{collection}/{id}, or /v1/{collection}/{parameter}={value}: one resource, or 404."""
        found = self._records.find(collection, parameter, call.value)
        if found and self._shown(found):
            return Answer.of(200, {"data": found})
        if call.effect == "stored":
            self._records.appear(collection, parameter, call.value, self.now())
            self.jobs.appear(collection, parameter, call.value)
        raise not_found(parameter)

    def list_messages(self, call: Call, owner: str) -> Answer:
        """GET /v1/conversations/{id}/messages?page=&pageSize=&sort=, and the same for customers.

        What comes late appears only in the next list.
        """
        messages = [each for each in self._records.timeline(owner, call.value) if self._shown(each)]
        found = self._records.find(f"{owner}s", "id", call.value)
        if not messages and not (found and self._shown(found)):
            raise not_found("id")
        answer = listed(call, f"/v1/{owner}s/{call.value}/messages", messages)
        self.jobs.appear("messages", owner, call.value)
        return answer

    def current_token(self, call: Call) -> Answer:
        """GET /v1/auth/tokens/current: any valid key (developer.kustomer.com/docs/get-started/quickstart)."""
        created = timestamp(call.key.created)
        attributes = {
            "name": call.key.name,
            "roles": sorted(call.key.roles),
            "lastTokenChars": call.key.token[-4:],
            "ipAddress": "127.0.0.1",  # nobody else can ask
            "userAgent": call.headers.get("User-Agent", ""),
            "createdAt": created,
            "updatedAt": created,
            "lastAccessedAt": timestamp(self.now()),
            **call.key.attributes,
        }
        relations = {"org": self.org, "user": call.key.user}
        return Answer.of(200, {"data": resource("token", "auth/tokens", "current", attributes, relations)})

    def _created(self, collection: str) -> list[Resource]:
        with self.lock:
            self.jobs.run()
            return self._records.created[collection]

    def _shown(self, found: Resource) -> bool:
        """Tell whether look-ups and lists show what is on record already."""
        return self.now() >= self._records.stored(found) + self.lag

    def _reopen(self, new: Resource) -> None:
        """Reopen an inbound message's conversation (docs/concepts/conversations-and-messages of the portal)."""
        conversation = self._records.find("conversations", "id", related(new, "conversation"))
        given = new["attributes"]
        if conversation and given.get("direction") == "in":
            conversation["attributes"]["status"] = "open"

    def _admit(self, key: Key, collection: str, given: Mapping[str, Any]) -> None:
        """Refuse what only an administrator may set."""
        barred = [name for name in ADMIN_FIELDS if name in given] if collection == "messages" else []
        if barred and "org.admin" not in key.roles:
            raise refusal(403, "forbidden", f"Setting {', '.join(barred)} requires the role org.admin")

    def _create(self, call: Call, collection: str, given: Mapping[str, Any]) -> Answer:
        """Create what a valid body gives."""
        self._admit(call.key, collection, given)
        return Answer.of(201, {"data": self._store(collection, given, call.key.user, self.now(), call.effect)})

    def _store(
        self, collection: str, given: Mapping[str, Any], user: str, at: float, effect: Effect = "stored"
    ) -> Resource:
        """Store what a valid body gives, unless an identifier is taken or the customer's limit is used up."""
        if collection == "conversations" and not self._records.find("customers", "id", given["customer"]):
            raise not_found("customer")
        make = {
            "messages": self._shapes.message,
            "conversations": self._shapes.conversation,
            "customers": self._shapes.customer,
        }
        new, unique = make[collection](given, user, at), self._unique[collection]
        if taken := self._records.taken(collection, new, unique):
            raise conflict(taken)
        customer = related(new, "customer")
        # The pages of create-message and create-conversation: a body with importedAt is exempt from the limit.
        if customer and "importedAt" not in new["attributes"] and effect != "none":
            window = self._customer_windows[collection, user, customer]
            if not window.take(CUSTOMER_LIMIT, at):
                raise refusal(429, "too_many_requests", f"Too many {collection} created for this customer")
        if effect == "stored":
            self._records.create(collection, new, at)
            self._reopen(new)
        if effect == "late":
            self._records.delay(collection, new, unique)
        return new

    def _seed(self) -> None:
        """A customer with an open conversation of yesterday."""
        at = self.now() - 86_400
        user = secrets.token_hex(12)
        customer = {
            "id": self.customer,
            "name": "Ada Lindqvist",
            "externalId": "customer-1042",
            "emails": [{"email": "ada.lindqvist@example.com", "type": "home"}],
        }
        self._records.seed("customers", self._shapes.customer(customer, user, at))
        conversation = {
            "id": self.conversation,
            "customer": self.customer,
            "name": "Parcel 1042",
            "externalId": "thread-1042",
            "channels": ["chat"],
        }
        self._records.seed("conversations", self._shapes.conversation(conversation, user, at))
        both = {"channel": "chat", "app": "chat", "conversation": self.conversation}
        for later, direction, text in (
            (0, "in", "Hello, where is my parcel? It should have come on Monday."),
            (240, "out", "Hello Ada, I'm asking the carrier and will write to you today."),
        ):
            message = self._shapes.message({**both, "direction": direction, "preview": text}, user, at + later)
            self._records.seed("messages", message)

    def _routes_of_calls(self) -> Iterator[Route]:
        """Every documented call that this server knows, the more specific path first."""

        def route(method: str, path: str, roles: frozenset[str], handle: Callable[[Call], Answer]) -> Route:
            return Route(method, re.compile(path.replace("{value}", "(?P<value>[^/]+)")), roles, handle)

        def look_up(collection: str, parameter: str) -> Callable[[Call], Answer]:
            return lambda call: self.look_up(call, collection, parameter)

        def messages_of(owner: str) -> Callable[[Call], Answer]:
            return lambda call: self.list_messages(call, owner)

        def submit(collection: str) -> Callable[[Call], Answer]:
            def admit(call: Call) -> Callable[[Item], None]:
                return lambda item: self._admit(call.key, collection, item)

            return lambda call: self.jobs.submit(call, collection, admit(call))

        yield route("POST", "/v1/messages", MESSAGE_CREATE, self.create_message)
        yield route("POST", "/v1/conversations", CONVERSATION_CREATE, self.create_conversation)
        yield route("POST", "/v1/customers", CUSTOMER_CREATE, self.create_customer)
        yield route("POST", "/v1/attachments", ATTACHMENT_CREATE, self.create_attachment)
        for collection, roles in (
            ("messages", MESSAGE_CREATE),
            ("conversations", CONVERSATION_CREATE),
            ("customers", CUSTOMER_CREATE),
        ):
            yield route("POST", f"/v1/{collection}/bulk", roles, submit(collection))
        yield route("GET", "/v1/bulk/{value}", BULK_READ, lambda call: self.jobs.read(call))
        yield route("GET", "/v1/bulk/{value}/batches", BULK_READ, lambda call: self.jobs.read_batches(call))
        for owner in ("conversation", "customer"):
            yield route("GET", f"/v1/{owner}s/{{value}}/messages", MESSAGE_READ, messages_of(owner))
        yield route("GET", "/v1/auth/tokens/current", ANY_KEY, self.current_token)
        yield route("GET", "/v1/customers/email={value}", CUSTOMER_READ, look_up("customers", "email"))
        yield route("GET", "/v1/customers/phone={value}", CUSTOMER_READ, look_up("customers", "phone"))
        for collection, roles in (
            ("messages", MESSAGE_READ),
            ("conversations", CONVERSATION_READ),
            ("customers", CUSTOMER_READ),
        ):
            # The older pages print externalid, the newer ones externalId.
            yield route("GET", f"/v1/{collection}/external[iI]d={{value}}", roles, look_up(collection, "externalId"))
            yield route("GET", f"/v1/{collection}/{{value}}", roles, look_up(collection, "id"))
        yield route("GET", "/v1/attachments/{value}", ATTACHMENT_READ, look_up("attachments", "id"))
