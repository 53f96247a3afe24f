"""A conversation is found by its thread's id, with whom it is, and made with a customer only."""

from collections.abc import Callable
from typing import Any

import pytest

from f.kustomer.find_conversation import Conversation, main
from f.kustomer.shared.errors import RateLimited, Rejected
from tests.conftest import Body
from tests.other_steps.conftest import Find, Finder, problems
from tests.stand_ins.test_kustomer import create
from tests.standin.kustomer import Fault, Kustomer

EXTERNAL_ID = "<CAF1042@mail.acme.example>"
NAME = 'My card is\n"4111 1111 1111 1111", hélp'
# Of a customer in another organisation, or of nobody.
STRANGER = "0" * 24

step: Callable[[Any, Any], Body] = main

CONVERSATION = Finder(
    record="conversation",
    step=step,
    shape=Conversation,
    key={"externalId": EXTERNAL_ID},
    make={"create": True},
    sent={"externalId": EXTERNAL_ID},
    others={"customer": STRANGER, "name": "Order 1043"},
    secret={"externalId": EXTERNAL_ID, "name": NAME, "create": True},
    hidden=[NAME],
    needed=("body.externalId", "is missing"),
    wrong={"externalId": 7, "create": "on", "customer": "x", "name": [1], "thread": "x"},
    mistaken={
        "externalId": ("external_id", "externalID", "thread", "threadId", "thread_id", "id", "conversationId"),
        "customer": ("customerId", "customer_id"),
        "name": ("subject", "title"),
        "create": ("created",),
    },
    conflict="look in Kustomer for the conversation with this externalId",
)


@pytest.fixture
def find(kustomer: Kustomer, auth: Body) -> Find:
    """The step."""
    return Find(CONVERSATION, kustomer, auth)


# Finding


@pytest.mark.parametrize("more", [{}, {"create": False}, {"create": True, "customer": STRANGER}], ids=str)
def test_a_conversation_is_found_in_one_request(find: Find, kustomer: Kustomer, more: Body) -> None:
    """With whom it is: not always the customer who was given, as threads are handed on and customers merged."""
    found = find({"externalId": "thread-1042", **more})
    assert found.found == {"id": kustomer.conversation, "created": False, "customer": kustomer.customer}
    assert (found.asked, found.stored) == (["GET /v1/conversations/externalId=thread-1042"], 0)


@pytest.mark.parametrize(
    "bare",
    [{}, {"relationships": None}, {"relationships": []}, {"relationships": {"customer": {"data": None}}}],
    ids=str,
)
@pytest.mark.parametrize("create", [False, True], ids=["create off", "create on"])
def test_a_conversation_without_a_customer_is_found_too(
    find: Find, kustomer: Kustomer, bare: Body, create: bool
) -> None:
    """Its customer is nobody then, and not the one who was given."""
    kustomer.fault(Fault.answer(200, {"data": {"id": "1" * 24, **bare}}, on="GET"))
    assert find(find.body | {"create": create}).found == {"id": "1" * 24, "created": False, "customer": None}


# Making one


def test_an_unknown_customer_is_rejected(find: Find, kustomer: Kustomer) -> None:
    """The error says that the id is of another organisation."""
    error = find(find.body | {"customer": STRANGER}).failed
    assert (type(error), error.status, error.outcome, error.retryable) == (Rejected, 404, "rejected", False)
    assert "Check the ids in the body" in str(error)
    assert kustomer.conversations == []


def test_the_limit_of_one_customer_is_named(kustomer: Kustomer, find: Find, waits: list[float]) -> None:
    """Kustomer lets one client make 120 conversations a minute for one customer; the wait for it outlasts that."""
    for number in range(120):
        create(kustomer, "conversations", customer=find.body["customer"], externalId=f"thread-{number}")
    error = find(find.body).failed
    assert (type(error), error.outcome, error.retryable) == (RateLimited, "rejected", True)
    assert "120 conversations a minute for one customer" in str(error)
    assert sum(waits) > 60


# What is refused without being sent

SOMEBODY = "a" * 24
NO_ID = "must be a Kustomer id: 24 characters, 0-9 and a-f, no blanks around it"
NO_CUSTOMER = "must have a customer, or create off: a new conversation is with somebody"


@pytest.mark.parametrize(
    ("body", "path", "problem"),
    [
        ({}, "body.externalId", "is missing"),
        ({"create": True, "customer": SOMEBODY}, "body.externalId", "is missing"),
        ({"externalId": EXTERNAL_ID, "create": True}, "body", NO_CUSTOMER),
        ({"externalId": EXTERNAL_ID, "create": True, "customer": ""}, "body", NO_CUSTOMER),
        ({"externalId": EXTERNAL_ID, "customer": "ada@example.com"}, "body.customer", NO_ID),
        ({"externalId": EXTERNAL_ID, "customer": f" {SOMEBODY}"}, "body.customer", NO_ID),
        ({"externalId": EXTERNAL_ID, "customer": {"id": SOMEBODY}}, "body.customer", "must be text, not an object"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_kustomer_could_not_take_is_told_without_asking(find: Find, body: object, path: str, problem: str) -> None:
    """One path and what is wrong there, without quoting it."""
    assert problems(find(body)) == [(path, problem)]
