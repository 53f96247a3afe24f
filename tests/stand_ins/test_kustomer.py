"""The stand-in for Kustomer does what Kustomer's documentation says of its server, and fails as told."""

import gc
import http.client
import json
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.stand_ins.conftest import ask
from tests.standin.kustomer import Fault, Kustomer

BODY = {"channel": "chat", "app": "acme-inbox", "direction": "in", "preview": "Where is my parcel?"}


def post(kustomer: Kustomer, key: str = "full", **fields: Any) -> requests.Response:
    """Post a message to the seeded conversation."""
    body = BODY | {"conversation": kustomer.conversation} | fields
    return ask(kustomer, "POST", "/v1/messages", key, json=body)


def create(kustomer: Kustomer, collection: str, key: str = "full", **fields: Any) -> requests.Response:
    """Create a customer or a conversation."""
    return ask(kustomer, "POST", f"/v1/{collection}", key, json=fields)


def refusal(response: requests.Response) -> list[tuple[str | None, str]]:
    """What an error answer says: each entry's place and code."""
    return [(error.get("source", {}).get("parameter"), error["code"]) for error in response.json()["errors"]]


# Messages


def test_a_message_is_stored_and_answered_whole(kustomer: Kustomer) -> None:
    """The 201 answer holds what was given, what Kustomer adds, and where it belongs."""
    response = post(kustomer, externalId="1", sentAt="2026-01-02T03:04:05.000Z", meta={"a": 1}, lang=None)
    message = response.json()["data"]
    assert response.status_code == 201
    assert kustomer.messages == [message]
    assert message["type"] == "message"
    assert message["links"]["self"] == f"/v1/messages/{message['id']}"
    given = BODY | {"externalId": "1", "sentAt": "2026-01-02T03:04:05.000Z", "meta": {"a": 1}, "lang": None}
    added = {"status": "received", "directionType": "followup-in"}
    assert message["attributes"].items() >= (given | added).items()
    related = {name: value["data"]["id"] for name, value in message["relationships"].items()}
    assert related["conversation"] == kustomer.conversation
    assert related["customer"] == kustomer.customer


def test_a_sent_message_has_the_status_sent(kustomer: Kustomer) -> None:
    """The status follows the direction, unless given."""
    assert post(kustomer, direction="out").json()["data"]["attributes"]["status"] == "sent"
    assert post(kustomer, direction="out", status="error").json()["data"]["attributes"]["status"] == "error"


def test_the_timeline_goes_by_time_and_begins_with_the_seeds(kustomer: Kustomer) -> None:
    """A backdated message comes first, an ordinary one last."""
    new = post(kustomer).json()["data"]
    old = post(kustomer, "admin", createdAt="2020-01-01T00:00:00+01:00").json()["data"]
    timeline = kustomer.timeline(kustomer.conversation)
    assert [timeline[0], timeline[-1]] == [old, new]
    assert len(timeline) == 4
    assert kustomer.messages == [new, old]


@pytest.mark.parametrize(
    "external_id",
    ["plain", "thread/1 + <a@b>?x=é", "100%", "%2F", "a+b", "externalId=1", "a&b=c#d", " ", "..", "\U0001f4e6"],
)
def test_a_message_is_found_by_any_external_id(kustomer: Kustomer, external_id: str) -> None:
    """The id in the path is decoded once, and a plus that is not encoded is a plus."""
    stored = post(kustomer, externalId=external_id).json()["data"]
    for safe in ("", "+"):
        path = f"/v1/messages/externalId={quote(external_id, safe=safe)}"
        assert ask(kustomer, "GET", path).json()["data"] == stored
        assert kustomer.gets[-1].path == path


def test_a_message_is_found_by_id(kustomer: Kustomer) -> None:
    """One that was posted, and a seeded one."""
    for message in post(kustomer).json()["data"], kustomer.timeline(kustomer.conversation)[0]:
        assert ask(kustomer, "GET", f"/v1/messages/{message['id']}").json()["data"] == message


@pytest.mark.parametrize("preview", ["\0", "\ud800", "e\u0301", "\u202e\U0001f469\u200d\U0001f4bb", "<b>&amp;"])
def test_a_text_comes_back_as_it_went(kustomer: Kustomer, preview: str) -> None:
    """Nothing is cleaned, normalised or escaped."""
    assert post(kustomer, preview=preview).json()["data"]["attributes"]["preview"] == preview


def test_an_external_id_taken_twice_gives_a_duplicate(kustomer: Kustomer) -> None:
    """No page says what happens: by default, what is worst for the caller."""
    first, second = post(kustomer, externalId="1"), post(kustomer, externalId="1")
    assert (first.status_code, second.status_code, len(kustomer.messages)) == (201, 201, 2)


def test_unique_external_ids_refuse_the_second() -> None:
    """The other possibility, on demand."""
    with Kustomer(unique_external_ids=True) as kustomer:
        first, second = post(kustomer, externalId="1"), post(kustomer, externalId="1")
        assert (first.status_code, second.status_code, len(kustomer.messages)) == (201, 409, 1)
        assert post(kustomer).status_code == post(kustomer).status_code == 201


def test_an_id_taken_twice_is_refused(kustomer: Kustomer) -> None:
    """A chosen id is the message's id, and only once."""
    assert post(kustomer, id="0" * 24).json()["data"]["id"] == "0" * 24
    second = post(kustomer, id="0" * 24)
    assert (second.status_code, refusal(second)) == (409, [("id", "conflict")])


# Customers


GRACE: dict[str, Any] = {
    "name": "Grace",
    "externalId": "1",
    "externalIds": [{"externalId": "2", "verified": True}],
    "emails": [{"email": "Grace@example.com", "type": "work", "verified": True}, {"email": "g+1@example.com"}],
    "phones": [{"phone": "+46 8 123 45 67", "type": "mobile"}],
}


def test_a_customer_is_stored_and_answered_whole(kustomer: Kustomer) -> None:
    """With what was given, when and by whom."""
    response = create(kustomer, "customers", **GRACE, custom={"sizeNum": 1})
    customer = response.json()["data"]
    assert response.status_code == 201
    assert kustomer.customers == [customer]
    assert (customer["type"], customer["links"]["self"]) == ("customer", f"/v1/customers/{customer['id']}")
    assert customer["attributes"].items() >= (GRACE | {"custom": {"sizeNum": 1}, "tags": []}).items()
    assert {"createdAt", "updatedAt", "modifiedAt"} <= set(customer["attributes"])
    assert {"org", "createdBy", "modifiedBy"} == set(customer["relationships"])


def test_a_customer_needs_nothing(kustomer: Kustomer) -> None:
    """Not even a name, and any number may have none."""
    assert create(kustomer, "customers").status_code == create(kustomer, "customers", name=None).status_code == 201
    for _ in range(2):
        assert create(kustomer, "customers", externalId=None).status_code == 201


@pytest.mark.parametrize(
    "identifier",
    [
        "email=Grace%40example.com",
        "email=g+1@example.com",
        "phone=%2B46%208%20123%2045%2067",
        "externalId=1",
        "externalId=2",
        "externalid=2",
    ],
)
def test_a_customer_is_found_by_any_identifier(kustomer: Kustomer, identifier: str) -> None:
    """E-mails, phones and external ids, the second of each too, and the id."""
    stored = create(kustomer, "customers", **GRACE).json()["data"]
    for path in (f"/v1/customers/{identifier}", f"/v1/customers/{stored['id']}"):
        assert ask(kustomer, "GET", path).json()["data"] == stored


@pytest.mark.parametrize(
    "identifier",
    ["email=grace@example.com", "email=Grace@example.com%20", "phone=%2B4681234567", "externalId=01", "email=1"],
)
def test_identifiers_are_compared_as_text(kustomer: Kustomer, identifier: str) -> None:
    """Nothing is normalised."""
    create(kustomer, "customers", **GRACE)
    assert ask(kustomer, "GET", f"/v1/customers/{identifier}").status_code == 404


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({"emails": [{"email": "new@example.com"}, {"email": "g+1@example.com"}]}, ["email"]),
        ({"phones": [{"phone": "+46 8 123 45 67"}]}, ["phone"]),
        ({"externalId": "2"}, ["externalId"]),
        ({"externalIds": [{"externalId": "1"}]}, ["externalId"]),
        ({"externalId": "customer-1042"}, ["externalId"]),
        (GRACE, ["externalId", "email", "phone"]),
        ({"whatsapps": [{"phone": "+4681234567"}]}, ["whatsapp"]),
        ({"socials": [{"type": "twitter", "username": "@grace"}]}, ["social"]),
    ],
)
def test_customers_share_no_identifier(kustomer: Kustomer, fields: dict[str, Any], parameters: list[str]) -> None:
    """Every list of them is compared, seeds included; all that is taken is told, and nothing is stored."""
    more: dict[str, Any] = {
        "whatsapps": [{"phone": "+4681234567"}],
        "socials": [{"type": "twitter", "username": "@grace"}],
    }
    create(kustomer, "customers", **GRACE, **more)
    refused = create(kustomer, "customers", **fields)
    assert (refused.status_code, refusal(refused)) == (409, [(name, "conflict") for name in parameters])
    assert refused.json()["errors"][0]["status"] == 409
    assert len(kustomer.customers) == 1


def test_some_identifiers_may_be_shared(kustomer: Kustomer) -> None:
    """Those in the lists that say so, one's own, and all of them on demand."""
    for _ in range(2):
        assert create(kustomer, "customers", sharedEmails=[{"email": "info@acme.example"}]).status_code == 201
    own = [{"email": "g@example.com", "type": "work"}, {"email": "g@example.com", "type": "home"}]
    assert create(kustomer, "customers", emails=own).status_code == 201
    with Kustomer(unique_identifiers=False) as lax:
        first, second = create(lax, "customers", **GRACE), create(lax, "customers", **GRACE)
        assert (first.status_code, second.status_code, len(lax.customers)) == (201, 201, 2)
        assert ask(lax, "GET", "/v1/customers/externalId=1").json() == first.json()


def test_of_customers_created_at_once_one_is_stored(kustomer: Kustomer) -> None:
    """A race is decided, and the others are told of the conflict."""
    statuses: list[int] = []

    def race() -> None:
        statuses.append(create(kustomer, "customers", **GRACE).status_code)

    threads = [threading.Thread(target=race) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [409] * 9
    assert len(kustomer.customers) == 1


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("name", "x" * 256, "x" * 257),
        ("externalId", "x", ""),
        ("emails", [{"email": "a@b"}], [{"email": "a@b", "name": "A"}]),
        ("emails", [], ["a@b"]),
        ("emails", [{"email": "a@b"}], [{"type": "home"}]),
        ("emails", [{"email": "a@b"}], [{"email": "a b@c"}]),
        ("phones", [{"phone": "(08) 123"}], [{"phone": "none"}]),
        ("phones", [{"phone": "08", "type": "fax"}], [{"phone": "08", "type": "pager"}]),
        ("gender", None, "x"),
        ("birthdayAt", "2000-01-01T00:00:00Z", "2000-01-01"),
        ("tags", ["a", "b"], ["a", "a"]),
        ("custom", {"aNum": None}, {"aNum": "1"}),
        ("createdAt", "2000-01-01T00:00:00Z", None),
    ],
)
def test_a_customer_keeps_to_its_schema(kustomer: Kustomer, field: str, good: Any, bad: Any) -> None:
    """Both sides of the boundary; what is refused is not stored."""
    assert create(kustomer, "customers", **{field: bad}).status_code == 400
    assert kustomer.customers == []
    assert create(kustomer, "customers", **{field: good}).status_code == 201


@pytest.mark.parametrize("collection", ["customers", "conversations"])
def test_an_unknown_field_is_refused(kustomer: Kustomer, collection: str) -> None:
    """By its name."""
    refused = create(kustomer, collection, customer=kustomer.customer, email="a@b")
    parameters = {"customers": ["customer", "email"], "conversations": ["email"]}[collection]
    assert (refused.status_code, refusal(refused)) == (400, [(name, "badparam") for name in parameters])


# Conversations


def test_a_conversation_is_stored_and_answered_whole(kustomer: Kustomer) -> None:
    """Open unless told, and its customer's; messages go to it from then on."""
    given: dict[str, Any] = {"name": "Lamp", "externalId": "t", "priority": 3, "direction": "in", "tags": ["lamp"]}
    response = create(kustomer, "conversations", customer=kustomer.customer, **given)
    conversation = response.json()["data"]
    assert response.status_code == 201
    assert kustomer.conversations == [conversation]
    assert (conversation["type"], conversation["links"]["self"]) == (
        "conversation",
        f"/v1/conversations/{conversation['id']}",
    )
    assert conversation["attributes"].items() >= (given | {"status": "open", "messageCount": 0}).items()
    assert "customer" not in conversation["attributes"]
    assert conversation["relationships"]["customer"]["data"]["id"] == kustomer.customer
    for found in ("externalId=t", conversation["id"]):
        assert ask(kustomer, "GET", f"/v1/conversations/{found}").json()["data"] == conversation
    message = post(kustomer, conversation=conversation["id"]).json()["data"]
    assert message["relationships"]["customer"]["data"]["id"] == kustomer.customer
    assert message["attributes"]["directionType"] == "initial-in"
    assert kustomer.timeline(conversation["id"]) == [message]


def test_a_conversation_needs_a_known_customer(kustomer: Kustomer) -> None:
    """Any that was created will do; without one it is refused, with an unknown one not found."""
    missing = create(kustomer, "conversations", name="Lamp")
    assert (missing.status_code, refusal(missing)) == (400, [("customer", "badparam")])
    unknown = create(kustomer, "conversations", customer="0" * 24)
    assert (unknown.status_code, refusal(unknown)) == (404, [("customer", "notfound")])
    assert kustomer.conversations == []
    customer = create(kustomer, "customers").json()["data"]["id"]
    assert create(kustomer, "conversations", customer=customer).status_code == 201


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("status", "done", "snoozed"),
        ("priority", 5, 6),
        ("priority", 1, 1.5),
        ("direction", "out", "inbound"),
        ("externalId", "x" * 256, "x" * 257),
        ("assignedUsers", ["a" * 24], ["a"]),
        ("tags", ["\u00e9 1"], [" "]),
        ("replyChannel", None, 1),
        ("custom", {"orderStr": "1"}, {"orderStr": 1}),
        ("queue", {"external": "amazon-connect"}, {}),
    ],
)
def test_a_conversation_keeps_to_its_schema(kustomer: Kustomer, field: str, good: Any, bad: Any) -> None:
    """Both sides of the boundary; what is refused is not stored."""
    assert create(kustomer, "conversations", customer=kustomer.customer, **{field: bad}).status_code == 400
    assert kustomer.conversations == []
    assert create(kustomer, "conversations", customer=kustomer.customer, **{field: good}).status_code == 201


def test_a_conversation_taken_twice_is_refused_by_its_id_only(kustomer: Kustomer) -> None:
    """No page says what happens to an externalId: by default, what is worst for the caller."""
    given = {"customer": kustomer.customer, "externalId": "t"}
    assert create(kustomer, "conversations", **given, id="0" * 24).json()["data"]["id"] == "0" * 24
    second = create(kustomer, "conversations", **given, id="0" * 24)
    assert (second.status_code, refusal(second)) == (409, [("id", "conflict")])
    assert create(kustomer, "conversations", **given).status_code == 201
    assert len(kustomer.conversations) == 2
    with Kustomer(unique_external_ids=True) as strict:
        refused = create(strict, "conversations", customer=strict.customer, externalId="thread-1042")
        assert (refused.status_code, refusal(refused)) == (409, [("externalId", "conflict")])
        assert post(strict, externalId="thread-1042").status_code == 201


# Keys


def test_a_key_can_be_made_with_any_roles(kustomer: Kustomer) -> None:
    """Exactly these, and it says of itself what it is told to."""
    token = kustomer.key("org.user.customer.write", "org.user.customer.read", name="sync", expiresAt="2030-01-01")
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "test"}
    created = ask(kustomer, "POST", "/v1/customers", headers=headers, json={"externalId": "1"})
    assert created.status_code == 201
    assert ask(kustomer, "GET", "/v1/customers/externalId=1", headers=headers).status_code == 200
    assert ask(kustomer, "POST", "/v1/messages", headers=headers, json=BODY).status_code == 403
    said = ask(kustomer, "GET", "/v1/auth/tokens/current", headers=headers).json()["data"]
    times = {said["attributes"].pop(name) for name in ("createdAt", "updatedAt", "lastAccessedAt")}
    assert all(time.endswith("Z") for time in times)
    assert said["attributes"] == {
        "name": "sync",
        "roles": ["org.user.customer.read", "org.user.customer.write"],
        "lastTokenChars": token[-4:],
        "ipAddress": "127.0.0.1",
        "userAgent": "test",
        "expiresAt": "2030-01-01",
    }
    author = created.json()["data"]["relationships"]["createdBy"]
    assert said["relationships"]["user"]["data"] == author["data"]
    assert said["relationships"]["org"]["data"]["id"] == kustomer.org


@pytest.mark.parametrize(
    ("role", "customers", "conversations"),
    [
        ("org.permission.customer.create", 201, 403),
        ("org.user.customer.write", 201, 403),
        ("org.permission.conversation.create", 403, 201),
        ("org.user.conversation.write", 403, 201),
        ("org.permission.customer.update", 403, 403),
        ("org.admin", 403, 403),
    ],
)
def test_creating_needs_a_role(kustomer: Kustomer, role: str, customers: int, conversations: int) -> None:
    """That of the collection."""
    headers = {"Authorization": f"Bearer {kustomer.key(role)}"}
    assert ask(kustomer, "POST", "/v1/customers", headers=headers, json={}).status_code == customers
    body = {"customer": kustomer.customer}
    assert ask(kustomer, "POST", "/v1/conversations", headers=headers, json=body).status_code == conversations
    assert kustomer.posts == []


@pytest.mark.parametrize(
    ("key", "reads", "creates"),
    [
        ("full", 200, 201),
        ("admin", 200, 201),
        ("no_read", 403, 201),
        ("no_create", 200, 403),
        ("expired", 401, 401),
        ("elsewhere", 401, 401),
    ],
)
def test_a_key_may_do_what_its_roles_say(kustomer: Kustomer, key: str, reads: int, creates: int) -> None:
    """Missing roles give 403; a key that is no good gives 401; and then nothing is stored."""
    path = f"/v1/conversations/{kustomer.conversation}/messages"
    assert ask(kustomer, "GET", path, key).status_code == reads
    assert post(kustomer, key).status_code == creates
    assert len(kustomer.messages) == (creates == 201)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer eyJ.no.key", "Basic {}", "{}", "Bearer {}x"])
def test_a_missing_or_unknown_key_is_refused(kustomer: Kustomer, header: str) -> None:
    """In the shape that most endpoints use, and without the organisation's budget."""
    headers = {"Authorization": header.format(kustomer.keys["full"])}
    response = ask(kustomer, "POST", "/v1/messages", json=BODY, headers=headers)
    assert (response.status_code, refusal(response)) == (401, [(None, "unauthorized")])
    assert "x-ratelimit-limit" not in response.headers


def test_a_key_of_the_other_pod_is_told_so(kustomer: Kustomer) -> None:
    """The text is the one that Kustomer's old getting-started page quotes."""
    text = "Auth token associated with pod prod2 but request is being handled by prod1"
    assert post(kustomer, "elsewhere").json()["errors"][0]["message"] == text


def test_every_valid_key_can_look_at_itself(kustomer: Kustomer) -> None:
    """Whatever its roles."""
    response = ask(kustomer, "GET", "/v1/auth/tokens/current", "no_read")
    attributes = response.json()["data"]["attributes"]
    assert attributes["roles"] == ["org.permission.message.create"]
    assert kustomer.keys["no_read"].endswith(attributes["lastTokenChars"])
    assert ask(kustomer, "GET", "/v1/auth/tokens/current", "expired").status_code == 401


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("createdAt", "2020-01-01T00:00:00Z"),
        ("modifiedAt", "2020-01-01T00:00:00Z"),
        ("createdBy", "a" * 24),
        ("modifiedBy", "a" * 24),
    ],
)
def test_authorship_and_record_times_need_an_admin(kustomer: Kustomer, field: str, value: str) -> None:
    """The role org.admin and no other."""
    assert post(kustomer, **{field: value}).status_code == 403
    message = post(kustomer, "admin", **{field: value}).json()["data"]
    related = message["relationships"].get(field, {"data": {"id": None}})
    assert value in (message["attributes"].get(field), related["data"]["id"])
    assert len(kustomer.messages) == 1


# Validation


def test_a_refusal_has_the_captured_shape(kustomer: Kustomer) -> None:
    """As Kustomer answered an undefined attribute, but for the schema's path."""
    response = post(kustomer, body="text")
    assert response.status_code == 400
    assert response.json() == {
        "errors": [
            {
                "status": 400,
                "source": {"parameter": "body"},
                "code": "badparam",
                "title": "Additional properties not allowed",
                "detail": "/additionalProperties",
            }
        ]
    }


def test_every_violation_is_told(kustomer: Kustomer) -> None:
    """Each property at fault has its own entry."""
    response = ask(kustomer, "POST", "/v1/messages", json={"preview": 1, "body": "", "text": "", "app": "a"})
    assert sorted(str(name) for name, _ in refusal(response)) == ["body", "channel", "direction", "preview", "text"]


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("channel", "whatsapp", "form"),
        ("direction", "out", "inbound"),
        ("preview", "x" * 10_240, "x" * 10_241),
        ("subject", "x" * 256, "x" * 257),
        ("externalId", "x" * 256, "x" * 257),
        ("conversation", "A" * 24, "a" * 23),
        ("customer", "0" * 24, "g" * 24),
        ("sentAt", "2026-01-02T03:04:05+01:00", "2026-01-02 03:04"),
        ("importedAt", "2026-01-02T03:04:05.123Z", "2026-02-30T00:00:00Z"),
        ("auto", True, "true"),
        ("lang", None, 1),
        ("source", "bulk", "import"),
        ("meta", {str(n): n for n in range(100)}, {str(n): n for n in range(101)}),
        ("custom", {"orderNum": 1, "anythingStr": None}, {"orderNum": "1"}),
        ("attachments", ["a" * 24], ["a" * 24, "a" * 24]),
        ("queue", {"external": "amazon-connect"}, {}),
        ("reference", {"message": "a" * 24, "type": "reply"}, {"type": "reply"}),
    ],
)
def test_a_field_keeps_to_its_schema(kustomer: Kustomer, field: str, good: Any, bad: Any) -> None:
    """Both sides of the boundary; what is refused is not stored."""
    assert post(kustomer, **{field: bad}).status_code == 400
    assert kustomer.messages == []
    assert post(kustomer, **{field: good}).status_code == 201


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'{"a": NaN}', b'{"a": -Infinity}', b"\xff{}", b"\xef\xbb\xbf{}", b"[" * 99_000],
    ids=repr,
)
def test_what_is_not_a_json_object_is_refused(kustomer: Kustomer, data: bytes) -> None:
    """Strictly, as JSON in UTF-8 is defined."""
    response = ask(kustomer, "POST", "/v1/messages", data=data, headers={"Content-Type": "application/json"})
    assert (response.status_code, refusal(response)) == (400, [(None, "bad_request")])


@pytest.mark.parametrize("given", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(kustomer: Kustomer, given: str) -> None:
    """JSON has to say that it is JSON; a charset may follow."""
    data = json.dumps(BODY)
    refused = ask(kustomer, "POST", "/v1/messages", data=data, headers={"Content-Type": given})
    assert refused.status_code == 400
    spelt = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert ask(kustomer, "POST", "/v1/messages", data=data, headers=spelt).status_code == 201


def test_a_body_above_100_kb_is_refused(kustomer: Kustomer) -> None:
    """One byte over the limit is too much, and so is more than the server's own buffers hold."""
    for size, status in ((100_000, 201), (100_001, 413), (3_000_000, 413)):
        data = json.dumps(BODY).encode().ljust(size)
        headers = {"Content-Type": "application/json"}
        assert ask(kustomer, "POST", "/v1/messages", data=data, headers=headers).status_code == status
        assert kustomer.posts[-1].body == data


# Look-ups


@pytest.mark.parametrize(
    "path",
    [
        "/v1/customers/email=ada.lindqvist%40example.com",
        "/v1/customers/externalId=customer-1042",
        "/v1/customers/{customer}",
        "/v1/conversations/externalid=thread-1042",
        "/v1/conversations/{conversation}",
    ],
)
def test_the_seeds_are_found(kustomer: Kustomer, path: str) -> None:
    """By every identifier they have, in the older and the newer spelling."""
    found = ask(kustomer, "GET", path.format(customer=kustomer.customer, conversation=kustomer.conversation))
    assert found.json()["data"]["id"] in (kustomer.customer, kustomer.conversation)


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/messages/externalId=none", "externalId"),
        ("/v1/messages/externalId%3Dnone", "id"),
        ("/v1/customers/email=none", "email"),
        ("/v1/conversations/none", "id"),
        ("/v1/conversations/none/messages", "id"),
        ("/v1/nothing", None),
        ("/v1/messages/", None),
    ],
)
def test_what_is_not_there_is_answered_404(kustomer: Kustomer, path: str, parameter: str | None) -> None:
    """In the captured shape, naming the parameter."""
    response = ask(kustomer, "GET", path)
    assert (response.status_code, refusal(response)) == (404, [(parameter, "notfound")])
    assert response.json()["errors"][0]["title"] == "Not Found"


def test_an_unknown_path_is_answered_404_to_a_post(kustomer: Kustomer) -> None:
    """Nothing else is created by accident."""
    assert ask(kustomer, "POST", "/v1/messages/batch", json=[BODY]).status_code == 404
    assert (kustomer.messages, kustomer.posts) == ([], [])


def test_a_timeline_is_listed_by_pages(kustomer: Kustomer) -> None:
    """Following `next` until null gives every message once."""
    post(kustomer)
    path, listed = f"/v1/conversations/{kustomer.conversation}/messages?pageSize=2", []
    while path:
        page = ask(kustomer, "GET", path).json()
        listed += page["data"]
        path = page["links"]["next"]
    assert listed == kustomer.timeline(kustomer.conversation)
    assert page["meta"]["page"] == 2
    assert ask(kustomer, "GET", f"{page['links']['first']}0&page=0").status_code == 200
    assert ask(kustomer, "GET", page["links"]["first"].replace("page=1", "page=0")).status_code == 400


# Limits


def test_a_customer_gets_120_messages_a_minute_from_one_client(kustomer: Kustomer) -> None:
    """Not one more, except imported, from another client, to another customer, or a minute later."""
    kustomer.now = lambda: 1_800_000_000
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {kustomer.keys['full']}"
    body = BODY | {"customer": kustomer.customer}
    for _ in range(120):
        assert session.post(f"{kustomer.url}/v1/messages", json=body, timeout=5).status_code == 201
    session.close()
    refused = post(kustomer)
    assert refused.status_code == 429
    assert int(refused.headers["x-ratelimit-remaining"]) > 0
    assert "Retry-After" not in refused.headers
    assert post(kustomer, importedAt="2026-01-02T03:04:05Z").status_code == 201
    assert post(kustomer, "no_read").status_code == 201
    assert post(kustomer, customer="0" * 24).status_code == 201
    kustomer.now = lambda: 1_800_000_060
    assert post(kustomer).status_code == 201
    assert len(kustomer.messages) == 124


def test_a_customer_gets_120_conversations_a_minute_from_one_client(kustomer: Kustomer) -> None:
    """Apart from the messages; not one more, except imported or from another client."""
    kustomer.now = lambda: 1_800_000_000
    given = {"customer": kustomer.customer}
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {kustomer.keys['full']}"
        for _ in range(120):
            assert session.post(f"{kustomer.url}/v1/conversations", json=given, timeout=5).status_code == 201
    assert create(kustomer, "conversations", **given).status_code == 429
    assert create(kustomer, "conversations", **given, importedAt="2026-01-02T03:04:05Z").status_code == 201
    assert create(kustomer, "conversations", "admin", **given).status_code == 201
    assert post(kustomer).status_code == 201
    assert len(kustomer.conversations) == 122


def test_the_organisation_shares_one_budget(kustomer: Kustomer) -> None:
    """Every request of every valid key counts; the refusal says when the window ends (epoch seconds)."""
    kustomer.now = lambda: 1_800_000_000.25
    kustomer.org_limit = 3
    posted, failed, missed = post(kustomer), post(kustomer, preview=1), ask(kustomer, "GET", "/v1/x", "no_read")
    left = [response.headers["x-ratelimit-remaining"] for response in (posted, failed, missed)]
    assert left == ["2", "1", "0"]
    refused = post(kustomer, importedAt="2026-01-02T03:04:05Z")
    limits = {name: value for name, value in refused.headers.items() if name.startswith("x-ratelimit")}
    assert refused.status_code == 429
    assert limits == {
        "x-ratelimit-limit": "3",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1800000061",
    }
    kustomer.now = lambda: 1_800_000_060.25
    assert post(kustomer).headers["x-ratelimit-remaining"] == "2"


# Faults


BREAKS: dict[str, Callable[..., Fault]] = {
    "reset": Fault.reset,
    "close": Fault.close,
    "cut": Fault.cut,
    "cut chunked": lambda store: Fault.cut(chunked=True, store=store),
    "answer": lambda store: Fault.answer(502, b"<h1>Bad Gateway</h1>", store=store),
}


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("name", BREAKS)
def test_a_fault_stores_only_if_told(kustomer: Kustomer, name: str, store: bool) -> None:
    """It takes one request; the next is served."""
    kustomer.fault(BREAKS[name](store=store))
    if name == "answer":
        assert post(kustomer).status_code == 502
    else:
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            post(kustomer)
    assert len(kustomer.messages) == store
    assert post(kustomer).status_code == 201
    assert len(kustomer.posts) == 2


def test_a_fault_stores_nothing_invalid(kustomer: Kustomer) -> None:
    """Storing means what it always means."""
    kustomer.fault(Fault.answer(500, store=True), Fault.answer(500, store=True))
    assert post(kustomer, preview=1).status_code == post(kustomer, "no_create").status_code == 500
    assert kustomer.messages == []


def raw(kustomer: Kustomer, body: bytes = b"{}", length: int | None = None) -> socket.socket:
    """Open a connection and send a POST whose body may be less than announced."""
    host, _, port = kustomer.url.removeprefix("http://").partition(":")
    opened = socket.create_connection((host, int(port)), timeout=5)
    head = f"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {kustomer.keys['full']}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    opened.sendall(head.encode() + body)
    return opened


def test_a_reset_is_a_reset_even_before_the_body(kustomer: Kustomer) -> None:
    """RST, not FIN, while the client still has a body to send."""
    kustomer.fault(Fault.reset(), Fault.reset(before_reading=True))
    for length in (None, 1_000_000):
        with raw(kustomer, length=length) as opened, pytest.raises(ConnectionResetError):
            opened.recv(1)
    assert [seen.body for seen in kustomer.posts] == [b"{}", b""]
    with pytest.raises(ValueError, match="not read"):
        Fault.reset(before_reading=True, store=True)


def test_a_close_is_in_order(kustomer: Kustomer) -> None:
    """FIN, and not a byte before it."""
    kustomer.fault(Fault.close())
    with raw(kustomer) as opened:
        assert opened.recv(1) == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_comes_in_the_middle_of_a_created_answer(kustomer: Kustomer, chunked: bool) -> None:
    """Status 201, framing for the whole, half of the JSON."""
    kustomer.fault(Fault.cut(chunked=chunked, store=True))
    body = json.dumps(BODY).encode()
    with raw(kustomer, body) as opened, opened.makefile("rb") as stream:
        head, _, part = stream.read().partition(b"\r\n\r\n")
    whole = json.dumps({"data": kustomer.messages[0]}, ensure_ascii=False).encode()
    half = whole[: len(whole) // 2]
    assert head.startswith(b"HTTP/1.1 201 Created\r\n")
    if chunked:
        assert b"\r\nTransfer-Encoding: chunked" in head
        assert part == b"%x\r\n%b\r\n" % (len(half), half)
    else:
        assert b"\r\nContent-Length: %d" % len(whole) in head
        assert part == half


def test_an_answer_is_sent_as_given(kustomer: Kustomer) -> None:
    """Bytes as HTML, values as JSON, nothing as nothing; headers override in any case."""
    kustomer.fault(
        Fault.answer(503, b"<html>", {"Retry-After": "7", "date": "never", "x-amz-cf-id": "mine"}),
        Fault.answer(429, {"errors": []}, {"content-type": "application/problem+json"}, reason="Slow down"),
        Fault.answer(302, headers={"Location": "/elsewhere"}),
    )
    html, problem = post(kustomer), post(kustomer)
    empty = ask(kustomer, "POST", "/v1/messages", json=BODY, allow_redirects=False)
    assert (html.status_code, html.content, html.headers["Content-Type"]) == (503, b"<html>", "text/html")
    assert (html.headers["Retry-After"], html.headers["Date"]) == ("7", "never")
    assert html.headers["X-Amz-Cf-Id"] == "mine"
    assert "x-ratelimit-remaining" not in html.headers
    assert (problem.reason, problem.json()) == ("Slow down", {"errors": []})
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert (empty.status_code, empty.content, empty.headers["Location"]) == (302, b"", "/elsewhere")


def test_faults_wait_for_their_method(kustomer: Kustomer) -> None:
    """In order, among those of the request's method."""
    kustomer.fault(Fault.answer(500), Fault.answer(501, on="GET"), Fault.answer(502, on="*"))
    path = f"/v1/messages/{kustomer.timeline(kustomer.conversation)[0]['id']}"
    statuses = [ask(kustomer, "GET", path).status_code for _ in range(3)]
    assert statuses == [501, 502, 200]
    assert [post(kustomer).status_code for _ in range(2)] == [500, 201]


def test_faults_wait_for_their_place(kustomer: Kustomer) -> None:
    """The beginning of the path, as it comes over the wire."""
    kustomer.fault(
        Fault.answer(500, at="/v1/customers"),
        Fault.answer(501, on="GET", at="/v1/customers/email="),
        Fault.answer(502, on="*", at="/v1/conversations"),
    )
    assert post(kustomer).status_code == 201
    assert ask(kustomer, "GET", f"/v1/customers/{kustomer.customer}").status_code == 200
    assert ask(kustomer, "GET", "/v1/customers/email=ada.lindqvist@example.com").status_code == 501
    assert ask(kustomer, "GET", f"/v1/conversations/{kustomer.conversation}").status_code == 502
    assert [create(kustomer, "customers").status_code for _ in range(2)] == [500, 201]


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("collection", ["customers", "conversations"])
def test_a_fault_stores_other_things_only_if_told(kustomer: Kustomer, collection: str, name: str, store: bool) -> None:
    """As it does messages."""
    fields = {"customer": kustomer.customer} if collection == "conversations" else {}
    kustomer.fault(BREAKS[name](store=store))
    if name == "answer":
        assert create(kustomer, collection, **fields).status_code == 502
    else:
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            create(kustomer, collection, **fields)
    stored = {"customers": kustomer.customers, "conversations": kustomer.conversations}[collection]
    assert len(stored) == store
    assert create(kustomer, collection, **fields).status_code == 201


def answers_now(connection: http.client.HTTPConnection) -> bool:
    """Tell whether anything has come, a closed connection included."""
    return bool(select.select([connection.sock], [], [], 0)[0])


def hanging(kustomer: Kustomer, method: str, path: str, body: str = "") -> http.client.HTTPConnection:
    """Send a request whose answer is held back, and return once the server has it."""
    connection = http.client.HTTPConnection(kustomer.url.removeprefix("http://"), timeout=5)
    headers = {"Authorization": f"Bearer {kustomer.keys['full']}", "Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    # The server takes requests as they come: when this one is answered, the other has been taken.
    ask(kustomer, "GET", "/v1/auth/tokens/current")
    assert len(kustomer.requests) == 2
    return connection


@pytest.mark.parametrize("store", [False, True])
def test_a_hanging_post_ends_when_released(kustomer: Kustomer, store: bool) -> None:
    """With its answer if the message was stored, without one otherwise."""
    kustomer.fault(Fault.hang(store=store))
    connection = hanging(kustomer, "POST", "/v1/messages", json.dumps(BODY))
    assert (len(kustomer.messages), answers_now(connection)) == (store, False)
    kustomer.release()
    if store:
        assert connection.getresponse().status == 201
    else:
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
    connection.close()


def test_a_hanging_look_up_is_answered_when_released(kustomer: Kustomer) -> None:
    """Its answer was only held back."""
    kustomer.fault(Fault.hang(on="GET"))
    connection = hanging(kustomer, "GET", f"/v1/customers/{kustomer.customer}")
    assert not answers_now(connection)
    kustomer.release()
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("fault", [Fault.hang(), Fault.drip(3600)], ids=["hang", "drip"])
def test_stopping_does_not_wait_for_requests(fault: Fault) -> None:
    """Whoever still waits for an answer is cut off."""
    with Kustomer() as kustomer:
        kustomer.fault(fault)
        connection = hanging(kustomer, "POST", "/v1/messages", json.dumps(BODY))
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        connection.getresponse()
    connection.close()


def test_a_dripping_answer_comes_byte_by_byte(kustomer: Kustomer) -> None:
    """The normal answer, whole in the end; slowly enough, one byte is all there is."""
    kustomer.fault(Fault.drip(0, store=True), Fault.drip(3600))
    assert post(kustomer).json()["data"] == kustomer.messages[0]
    with raw(kustomer, json.dumps(BODY).encode()) as opened:
        assert opened.recv(100) == b"H"
        opened.setblocking(False)
        with pytest.raises(BlockingIOError):
            opened.recv(100)


def test_a_late_message_appears_after_a_look_up_missed_it(kustomer: Kustomer) -> None:
    """Answered 504; a look-up for another message doesn't bring it."""
    kustomer.fault(Fault.late_store())
    assert post(kustomer, externalId="late").status_code == 504
    statuses = [
        ask(kustomer, "GET", f"/v1/messages/externalId={external_id}").status_code
        for external_id in ("other", "late", "late")
    ]
    assert statuses == [404, 404, 200]
    assert [message["attributes"]["externalId"] for message in kustomer.messages] == ["late"]


@pytest.mark.parametrize(
    ("collection", "parameter", "value", "fields"),
    [
        ("customers", "email", "new@example.com", {"emails": [{"email": "new@example.com"}]}),
        ("customers", "phone", "08", {"phones": [{"phone": "08"}]}),
        ("customers", "externalId", "late", {"externalId": "late"}),
        ("conversations", "externalId", "late", {"externalId": "late"}),
    ],
)
def test_anything_late_appears_after_a_look_up_missed_it(
    kustomer: Kustomer, collection: str, parameter: str, value: str, fields: dict[str, Any]
) -> None:
    """By any of its identifiers, but not by another collection's."""
    if collection == "conversations":
        fields = fields | {"customer": kustomer.customer}
    kustomer.fault(Fault.late_store(at=f"/v1/{collection}"))
    assert post(kustomer).status_code == 201
    assert create(kustomer, collection, **fields).status_code == 504
    paths = ("/v1/messages/externalId=late", *[f"/v1/{collection}/{parameter}={value}"] * 2)
    assert [ask(kustomer, "GET", path).status_code for path in paths] == [404, 404, 200]
    stored = {"customers": kustomer.customers, "conversations": kustomer.conversations}[collection]
    assert len(stored) == 1


def test_what_comes_late_comes_too_late_for_a_taken_identifier(kustomer: Kustomer) -> None:
    """The one that was created in the meantime stays the only one."""
    kustomer.fault(Fault.late_store())
    assert create(kustomer, "customers", externalId="1", phones=[{"phone": "08"}]).status_code == 504
    first = create(kustomer, "customers", externalId="1").json()["data"]
    assert [ask(kustomer, "GET", "/v1/customers/phone=08").status_code for _ in range(2)] == [404, 404]
    assert kustomer.customers == [first]


# The server


def test_connections_are_kept_and_told_apart(kustomer: Kustomer) -> None:
    """A session's requests share a connection; another session has its own."""
    for _ in range(2):
        with requests.Session() as session:
            for _ in range(2):
                session.get(f"{kustomer.url}/v1/x", timeout=5)
    first, second, third, fourth = (seen.connection for seen in kustomer.requests)
    assert (first, third) == (second, fourth)
    assert first != third


def test_a_request_is_seen_as_it_came(kustomer: Kustomer) -> None:
    """Raw path and query, headers in any case, the body's bytes."""
    ask(kustomer, "POST", "/v1/a%2Fb+c?d=%20", data=b"\x00\xff", headers={"X-Test": "1"})
    (seen,) = kustomer.requests
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/a%2Fb+c?d=%20", b"\x00\xff")
    assert seen.headers["x-test"] == seen.headers["X-TEST"] == "1"


def test_every_answer_has_an_id_of_its_own(kustomer: Kustomer) -> None:
    """Good or bad, faults included."""
    kustomer.fault(Fault.answer(500))
    answers = [post(kustomer), post(kustomer), post(kustomer, "expired")]
    assert len({answer.headers["X-Amz-Cf-Id"] for answer in answers}) == 3
    assert {answer.headers["X-Kustomer-Pod"] for answer in answers} == {"prod1"}


def test_clearing_forgets_everything_but_the_seeds(kustomer: Kustomer) -> None:
    """Messages, late ones too, customers, conversations, requests, faults and counts; keys stay."""
    kustomer.fault(Fault.late_store())
    post(kustomer, externalId="late")
    post(kustomer, externalId="1")
    create(kustomer, "customers", externalId="1")
    create(kustomer, "conversations", customer=kustomer.customer, externalId="1")
    token = kustomer.key()
    kustomer.fault(Fault.answer(500, on="*"))
    kustomer.clear()
    assert (kustomer.messages, kustomer.customers, kustomer.conversations, kustomer.requests) == ([], [], [], [])
    for path in ("/v1/customers/externalId=1", "/v1/conversations/externalId=1"):
        assert ask(kustomer, "GET", path).status_code == 404
    for path in ("/v1/customers/externalId=customer-1042", "/v1/conversations/externalId=thread-1042"):
        assert ask(kustomer, "GET", path).status_code == 200
    headers = {"Authorization": f"Bearer {token}"}
    assert ask(kustomer, "GET", "/v1/auth/tokens/current", headers=headers).status_code == 200
    for external_id in ("1", "late", "late"):
        response = ask(kustomer, "GET", f"/v1/messages/externalId={external_id}")
        assert response.status_code == 404
    assert response.headers["x-ratelimit-remaining"] == "992"
    assert len(kustomer.timeline(kustomer.conversation)) == 2


def test_many_clients_at_once_are_all_recorded(kustomer: Kustomer) -> None:
    """Nothing is lost between threads."""
    threads = [threading.Thread(target=post, args=(kustomer,), kwargs={"externalId": str(n)}) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = {message["attributes"]["externalId"] for message in kustomer.messages}
    assert stored == {str(n) for n in range(20)}
    assert len(kustomer.posts) == 20


def test_stopping_leaves_no_connection_open(tls: tuple[ssl.SSLContext, str]) -> None:
    """Not even that of a client which stays and answers nothing."""
    context, authority = tls
    with requests.Session() as session:
        with Kustomer(tls=context) as kustomer:
            session.get(kustomer.url, verify=authority, timeout=5)
        # An unclosed transport would warn here, which is an error in tests.
        gc.collect()


def test_tls_is_served_and_broken(tls: tuple[ssl.SSLContext, str]) -> None:
    """As localhost, with the certificate given; faults work there too."""
    context, authority = tls
    with Kustomer(tls=context) as kustomer:
        assert kustomer.url.startswith("https://localhost:")
        path = f"/v1/customers/{kustomer.customer}"
        trusted = {"verify": authority}
        assert ask(kustomer, "GET", path, **trusted).status_code == 200
        for fault in (Fault.reset(on="GET"), Fault.close(on="GET"), Fault.cut(on="GET")):
            kustomer.fault(fault)
            with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
                ask(kustomer, "GET", path, **trusted)


def test_it_serves_as_a_process_until_its_input_closes() -> None:
    """One line says all that a client needs."""
    command = [sys.executable, "-m", "tests.standin.kustomer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        headers = {"Authorization": f"Bearer {ready['keys']['full']}"}
        body = BODY | {"conversation": ready["conversation"], "customer": ready["customer"]}
        response = requests.post(f"{ready['url']}/v1/messages", json=body, headers=headers, timeout=5)
        assert response.status_code == 201
        process.communicate(timeout=5)
    assert process.returncode == 0
