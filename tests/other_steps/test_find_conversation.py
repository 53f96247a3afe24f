"""A thread's conversation is found by the thread's id; where there is none, one is made, once if Kustomer allows it."""

import copy
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from f.kustomer import wire
from f.kustomer.errors import AccessDenied, Conflict, InvalidInput, OddAnswer, RateLimited, Rejected
from f.kustomer.find_conversation import Conversation, main
from tests.conftest import Body
from tests.create_message.test_outcomes import BROKEN, LOOK_UP_FAILS, NOT_A_SUCCESS, unique_external_ids, within
from tests.errors.test_key_stays_secret import spilled
from tests.other_steps.test_find_customer import (
    MISSING,
    NO_ANSWERS,
    ODD_SUCCESSES,
    Step,
    all_look_first,
    at_once,
    audited,
    create_or_not,
    posted,
    stored_or_not,
)
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

EXTERNAL_ID = "<CAF1042@mail.acme.example>"
NONE = {"id": None, "created": False, "customer": None}
POST = "POST /v1/conversations"
LOOK = "GET /v1/conversations/externalId=%3CCAF1042%40mail.acme.example%3E"
# Of a customer in another organisation, or of nobody.
STRANGER = "0" * 24


def step(auth: Any, body: Any) -> Body:
    """The step, for arguments of any kind."""
    return main(auth, body)


@pytest.fixture
def kustomer(request: pytest.FixtureRequest) -> Iterator[Kustomer]:
    """A stand-in of the test's own, with the options that it asks for."""
    with Kustomer(**getattr(request, "param", {})) as server:
        yield server


@pytest.fixture
def find(kustomer: Kustomer, auth: Body) -> Step:
    """Runs the step and holds what it says against what the stand-in has seen and stored."""
    return audited(step, kustomer, kustomer.conversations, auth)


@pytest.fixture
def thread(kustomer: Kustomer) -> Body:
    """A thread whose conversation is to be made where there is none."""
    return {"externalId": EXTERNAL_ID, "customer": kustomer.customer, "create": True}


def only(kustomer: Kustomer, created: bool) -> Body:
    """The result that names the one conversation which was made."""
    assert len(kustomer.conversations) == 1
    return {"id": kustomer.conversations[0]["id"], "created": created, "customer": kustomer.customer}


# Finding


@pytest.mark.parametrize("more", [{}, {"create": False}, {"create": True, "customer": STRANGER}], ids=str)
def test_a_conversation_is_found_in_one_request(find: Step, kustomer: Kustomer, more: Body) -> None:
    """With whom it is: not always the customer who was given, as threads are handed on and customers merged."""
    found = find({"externalId": "thread-1042", **more})
    assert found.found == {"id": kustomer.conversation, "created": False, "customer": kustomer.customer}
    assert (found.asked, found.stored) == (["GET /v1/conversations/externalId=thread-1042"], 0)


@pytest.mark.parametrize(
    "more", [{}, {"create": False}, {"create": None}, {"customer": STRANGER, "name": "x"}], ids=str
)
def test_no_conversation_is_no_error_where_create_is_off(find: Step, more: Body) -> None:
    """One look-up, and nothing is made."""
    found = find({"externalId": EXTERNAL_ID, **more})
    assert (found.found, found.asked) == (NONE, [LOOK])


@pytest.mark.parametrize(
    "bare",
    [{}, {"relationships": None}, {"relationships": []}, {"relationships": {"customer": {"data": None}}}],
    ids=str,
)
@create_or_not
def test_a_conversation_without_a_customer_is_found_too(
    find: Step, kustomer: Kustomer, thread: Body, bare: Body, create: bool
) -> None:
    """Its customer is nobody then, and not the one who was given."""
    kustomer.fault(Fault.answer(200, {"data": {"id": "1" * 24, **bare}}, on="GET"))
    assert find(thread | {"create": create}).found == {"id": "1" * 24, "created": False, "customer": None}


def test_a_conversation_that_is_found_is_left_as_it_is(find: Step, kustomer: Kustomer, thread: Body) -> None:
    """Another name or customer changes nothing in Kustomer."""
    find(thread | {"name": "Order 1042"})
    before = json.dumps(kustomer.conversations)
    assert find(thread | {"name": "Order 1043", "customer": STRANGER}).found == only(kustomer, False)
    assert json.dumps(kustomer.conversations) == before


@pytest.mark.parametrize(
    "external_id",
    ["a+b@x.example", "a/b?c#d%", "a b", "../..", "%2F", "größe", "\N{PACKAGE}", "Ab1-._~", "=" * 256],
    ids=ascii,
)
def test_an_external_id_is_one_percent_encoded_segment_of_the_address(
    find: Step, thread: Body, external_id: str
) -> None:
    """So that what is made under it is found under it."""
    made = find(thread | {"externalId": external_id})
    assert made.asked == [f"GET /v1/conversations/externalId={quote(external_id, safe='')}", POST]
    assert find({"externalId": external_id}).found == made.found | {"created": False}


# Making one


@pytest.mark.parametrize("more", [{}, {"name": "Order 1042"}, {"name": " \N{PACKAGE}" * 128}], ids=ascii)
def test_what_is_known_of_a_new_conversation_is_posted_and_nothing_else(
    find: Step, kustomer: Kustomer, thread: Body, auth: Body, more: Body
) -> None:
    """After one look-up: the thread's id, the customer, and its name where there is one."""
    made = find(thread | more)
    assert (made.found, made.asked) == (only(kustomer, True), [LOOK, POST])
    assert posted(kustomer) == [{"externalId": EXTERNAL_ID, "customer": kustomer.customer, **more}]
    headers = kustomer.requests[-1].headers
    assert (headers["Authorization"], headers["Content-Type"]) == (f"Bearer {auth['apiKey']}", "application/json")


def test_a_step_that_is_run_twice_makes_one_conversation(find: Step, kustomer: Kustomer, thread: Body) -> None:
    """Every later message of a thread finds what the first one made."""
    first, second = find(thread), find(thread)
    assert (first.asked, second.asked) == ([LOOK, POST], [LOOK])
    assert (first.found, second.found) == (only(kustomer, True), only(kustomer, False))


def test_the_body_that_was_given_is_left_as_it_was(find: Step, thread: Body) -> None:
    """A step's input is the flow's."""
    before = copy.deepcopy(thread)
    assert find(thread).found["created"]
    assert thread == before


def test_an_unknown_customer_is_rejected(find: Step, kustomer: Kustomer, thread: Body) -> None:
    """The error says that the id is of another organisation."""
    error = find(thread | {"customer": STRANGER}).failed
    assert (type(error), error.status, error.outcome, error.retryable) == (Rejected, 404, "rejected", False)
    assert "Check the ids in the body" in str(error)
    assert kustomer.conversations == []


# Two runs at once


@unique_external_ids
def test_two_runs_that_both_looked_in_vain_make_one_conversation(kustomer: Kustomer, auth: Body, thread: Body) -> None:
    """Where Kustomer refuses the second post, that run looks again and returns what the first one made."""
    runs = all_look_first(kustomer, *[lambda: step(auth, thread)] * 2)
    assert sorted(runs, key=lambda each: bool(each["created"])) == [only(kustomer, False), only(kustomer, True)]
    assert sorted(f"{seen.method} {seen.path}" for seen in kustomer.requests) == [*[LOOK] * 3, *[POST] * 2]


@unique_external_ids
def test_many_runs_at_once_make_one_conversation(kustomer: Kustomer, auth: Body, thread: Body) -> None:
    """Where Kustomer refuses a second one, however the requests come in."""
    runs = at_once(8, lambda: step(auth, thread))
    assert {each["id"] for each in runs} == {kustomer.conversations[0]["id"]}
    assert [each["created"] for each in runs].count(True) == len(kustomer.conversations) == 1


def test_two_runs_at_once_make_two_conversations_where_kustomer_lets_them(
    kustomer: Kustomer, auth: Body, thread: Body
) -> None:
    """Nothing but Kustomer's refusal could keep them apart; later runs all find the same one."""
    runs = all_look_first(kustomer, *[lambda: step(auth, thread)] * 2)
    assert [each["created"] for each in runs] == [True, True]
    assert {each["id"] for each in runs} == {each["id"] for each in kustomer.conversations}
    assert [step(auth, thread)["id"] for _ in range(2)] == [kustomer.conversations[0]["id"]] * 2


# What goes wrong on the way


@pytest.mark.parametrize("name", BROKEN)
def test_a_conversation_that_was_stored_is_found_after_a_broken_off_post(
    kustomer: Kustomer, find: Step, thread: Body, waits: list[float], name: str
) -> None:
    """The step waits and looks again before it would post again."""
    kustomer.fault(BROKEN[name][0](True))
    found = find(thread)
    assert (found.found, found.asked) == (only(kustomer, True), [LOOK, POST, LOOK])
    assert within(waits, 2)


@pytest.mark.parametrize("name", [*BROKEN, "reset unread"])
def test_a_conversation_that_was_not_stored_is_posted_again_after_looking(
    kustomer: Kustomer, find: Step, thread: Body, waits: list[float], name: str
) -> None:
    """There is a look-up between any two posts."""
    kustomer.fault(Fault.reset(before_reading=True) if name == "reset unread" else BROKEN[name][0](False))
    found = find(thread)
    assert (found.found, found.asked) == (only(kustomer, True), [LOOK, POST, LOOK, POST])
    assert within(waits, 2)


@pytest.mark.parametrize("name", BROKEN)
def test_a_post_that_fails_for_ever_is_given_up_as_unknown(
    kustomer: Kustomer, find: Step, thread: Body, waits: list[float], name: str
) -> None:
    """There is none, and nobody could know; the next run looks first, and makes one."""
    fault, problem, status = BROKEN[name]
    kustomer.fault(*[fault(False)] * 3)
    found = find(thread)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "unknown", True)
    assert (found.asked, found.stored) == ([LOOK, *[POST, LOOK] * 3], 0)
    assert within(waits, 2, 4, 8)
    assert "unknown whether the conversation was created" in str(error)
    assert "Running the step again is safe: it looks for the externalId first" in str(error)
    assert find(thread).found == only(kustomer, True)


@pytest.mark.parametrize(
    "fault",
    [Fault.hang(), Fault.hang(store=True), Fault.drip(0.2, store=True)],
    ids=["hangs", "hangs, stored", "drips, stored"],
)
def test_a_post_without_an_answer_in_time_is_looked_for(
    kustomer: Kustomer, find: Step, thread: Body, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Its conversation is there once, whether or not the first post was stored."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.4)
    kustomer.fault(fault)
    found = find(thread)
    assert found.found == only(kustomer, True)
    assert (found.asked, found.stored) == ([LOOK, POST, LOOK, *([] if fault.store else [POST])], 1)


@stored_or_not
@pytest.mark.parametrize("name", [*ODD_SUCCESSES, "a redirect"])
def test_an_odd_success_is_looked_for_and_never_posted_again(
    kustomer: Kustomer, find: Step, thread: Body, name: str, store: bool
) -> None:
    """What was stored is found; what was not is unknown until the next run has looked."""
    status, body = NOT_A_SUCCESS.get(name, (302, b"<h1>Found</h1>"))
    kustomer.fault(Fault.answer(status, body, {"Location": "/v1/conversations"}, store=store))
    found = find(thread)
    assert found.asked == [LOOK, POST, LOOK]
    if store:
        assert found.found == only(kustomer, True)
    else:
        error = found.failed
        assert (type(error), error.status, error.outcome) == (OddAnswer, status, "unknown")
        assert error.retryable == (name != "a redirect")
        assert find(thread).found == only(kustomer, True)


@unique_external_ids
def test_a_conversation_that_appears_late_is_made_once(kustomer: Kustomer, find: Step, thread: Body) -> None:
    """Where Kustomer refuses the second post, the step looks again; it was this run that made it."""
    kustomer.fault(Fault.late_store())
    found = find(thread)
    assert found.asked == [LOOK, POST, LOOK, POST, LOOK]
    assert found.found == only(kustomer, True)


def test_a_conversation_that_appears_late_is_made_twice_where_kustomer_lets_it_be(
    kustomer: Kustomer, find: Step, thread: Body
) -> None:
    """No look-up can see what isn't there yet; running the step again makes no third one."""
    kustomer.fault(Fault.late_store())
    assert find(thread).stored == 2
    again = find(thread)
    assert (again.found["id"], again.stored) == (kustomer.conversations[0]["id"], 0)


@pytest.mark.parametrize(
    ("name", "create"), [*[(name, False) for name in NO_ANSWERS], *[(name, True) for name in NO_ANSWERS]]
)
def test_no_conversation_is_taken_for_missing_while_the_look_up_has_no_answer(
    kustomer: Kustomer, find: Step, thread: Body, name: str, create: bool
) -> None:
    """Neither is none returned nor one made, until Kustomer itself says what is there."""
    fault, problem, status, requests, retryable = LOOK_UP_FAILS[name]
    there = find(thread).found
    kustomer.fault(*[fault] * requests)
    found = find(thread | {"create": create})
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "not_sent", retryable)
    assert found.asked == [LOOK] * requests
    assert find(thread | {"create": create}).found == there | {"created": False}


@create_or_not
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_gateway_s_page_does_not_say_that_there_is_none(
    kustomer: Kustomer, find: Step, thread: Body, status: int, create: bool
) -> None:
    """Only Kustomer's own 404 does."""
    kustomer.fault(Fault.answer(status, b"<h1>Not Found</h1>", on="GET"))
    error = find(thread | {"create": create}).failed
    assert (type(error), error.status, error.outcome, error.retryable) == (OddAnswer, status, "not_sent", True)


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_nothing_is_posted_again_until_the_look_up_has_an_answer(
    kustomer: Kustomer, find: Step, thread: Body, name: str
) -> None:
    """What was stored under a 504 isn't made again because the look-up after it went wrong."""
    fault, problem, status, requests, retryable = LOOK_UP_FAILS[name]
    kustomer.fault(MISSING, Fault.answer(504, store=True), *[fault] * requests)
    found = find(thread)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "unknown", retryable)
    assert (found.asked, found.stored) == ([LOOK, POST, *[LOOK] * requests], 1)
    assert find(thread).found == only(kustomer, False)


@pytest.mark.parametrize("on", ["GET", "POST"])
def test_a_limit_is_waited_out_as_told(
    kustomer: Kustomer, find: Step, thread: Body, waits: list[float], on: str
) -> None:
    """Nothing was stored, so that a look-up and a post may both be repeated."""
    kustomer.fault(*[Fault.answer(429, headers={"Retry-After": "7"}, on=on)] * 2)
    found = find(thread)
    assert (found.found, len(found.asked)) == (only(kustomer, True), 4)
    assert within(waits, 7, 7)


@pytest.mark.parametrize(("on", "outcome"), [("GET", "not_sent"), ("POST", "rejected")])
def test_a_longer_wait_is_the_flow_s(
    kustomer: Kustomer, find: Step, thread: Body, waits: list[float], on: str, outcome: str
) -> None:
    """It is handed back at once, and running the step after it makes the conversation."""
    kustomer.fault(Fault.answer(429, headers={"Retry-After": "600"}, on=on))
    error = find(thread).failed
    assert (type(error), error.outcome, error.retryable, error.retry_after) == (RateLimited, outcome, True, 600)
    assert waits == []
    assert find(thread).found == only(kustomer, True)


def test_the_limit_of_one_customer_is_named(kustomer: Kustomer, find: Step, thread: Body, waits: list[float]) -> None:
    """Kustomer lets one client make 120 conversations a minute for one customer; the wait for it outlasts that."""
    for number in range(120):
        find(thread | {"externalId": str(number)})
    error = find(thread).failed
    assert (type(error), error.outcome, error.retryable) == (RateLimited, "rejected", True)
    assert "120 conversations a minute for one customer" in str(error)
    assert sum(waits) > 60


def test_a_conflict_that_no_look_up_explains_is_told(kustomer: Kustomer, find: Step, thread: Body) -> None:
    """Something has the externalId that a look-up doesn't show, yet or at all: the next run looks again."""
    kustomer.fault(Fault.answer(409))
    found = find(thread)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (Conflict, 409, "rejected", True)
    assert found.asked == [LOOK, POST, LOOK]
    assert "look in Kustomer for the conversation with this externalId" in str(error)


# What the key may do


@create_or_not
def test_a_key_that_may_not_look_makes_none(kustomer: Kustomer, find: Step, thread: Body, create: bool) -> None:
    """It can't know what is there already, so nothing is posted, and the error names the role that it lacks."""
    found = find(thread | {"create": create}, apiKey=kustomer.key("org.permission.conversation.create"))
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (AccessDenied, 403, "not_sent", False)
    assert "needs the role org.permission.conversation.read" in str(error)
    assert found.asked == [LOOK]


def test_a_key_that_may_not_create_is_told_so(kustomer: Kustomer, find: Step, thread: Body) -> None:
    """It finds what is there; the error of making one names the role that it lacks."""
    key = kustomer.key("org.permission.conversation.read")
    found = find(thread, apiKey=key)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (AccessDenied, 403, "rejected", False)
    assert "needs the role org.permission.conversation.create" in str(error)
    assert found.asked == [LOOK, POST]
    assert find({"externalId": "thread-1042"}, apiKey=key).found["id"] == kustomer.conversation


def test_a_key_that_may_no_longer_look_does_not_post_again(kustomer: Kustomer, find: Step, thread: Body) -> None:
    """What became of an uncertain post stays unknown then."""
    refused = Fault.answer(403, {"errors": [{"code": "forbidden"}]}, on="GET")
    kustomer.fault(MISSING, Fault.answer(504, store=True), refused)
    found = find(thread)
    error = found.failed
    assert (type(error), error.status, error.outcome) == (AccessDenied, 403, "unknown")
    assert found.asked == [LOOK, POST, LOOK]
    assert find(thread).found == only(kustomer, False)


# What is refused without being sent

SOMEBODY = "a" * 24
NO_ID = "must be a Kustomer id: 24 characters, 0-9 and a-f, no blanks around it"
NO_CUSTOMER = "must have a customer, or create off: a new conversation is with somebody"


@pytest.mark.parametrize(
    ("body", "path", "problem"),
    [
        (None, "body", "is missing"),
        ([EXTERNAL_ID], "body", "must be an object, not a list"),
        ({}, "body.externalId", "is missing"),
        ({"create": True, "customer": SOMEBODY}, "body.externalId", "is missing"),
        ({"externalId": EXTERNAL_ID, "create": True}, "body", NO_CUSTOMER),
        ({"externalId": EXTERNAL_ID, "create": True, "customer": ""}, "body", NO_CUSTOMER),
        ({"externalId": "x" * 257}, "body.externalId", "has 257 characters, at most 256 are allowed"),
        (
            {"externalId": "thread \ud83d"},
            "body.externalId",
            "has half of a character in it (a broken emoji): take it out",
        ),
        ({"externalId": 1042}, "body.externalId", "must be text, not a number"),
        ({"externalId": EXTERNAL_ID, "customer": "ada@example.com"}, "body.customer", NO_ID),
        ({"externalId": EXTERNAL_ID, "customer": f" {SOMEBODY}"}, "body.customer", NO_ID),
        ({"externalId": EXTERNAL_ID, "customer": {"id": SOMEBODY}}, "body.customer", "must be text, not an object"),
        ({"externalId": EXTERNAL_ID, "name": "x" * 257}, "body.name", "has 257 characters, at most 256 are allowed"),
        ({"externalId": EXTERNAL_ID, "create": 0}, "body.create", "must be true or false, not a number"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_kustomer_could_not_take_is_told_without_asking(find: Step, body: object, path: str, problem: str) -> None:
    """One path and what is wrong there, without quoting it."""
    found = find(body)
    error = found.failed
    assert isinstance(error, InvalidInput)
    assert [(each["path"], each["title"]) for each in error.errors] == [(path, problem)]
    assert (found.asked, error.outcome, error.retryable) == ([], "not_sent", False)


def test_every_problem_is_told_at_once(find: Step) -> None:
    """Those of the resource too."""
    body = {"externalId": 7, "create": "on", "customer": "x", "name": [1], "thread": "x"}
    found = find(body, apiKey=" ", orgName="a b")
    paths = ["auth.apiKey", "auth.orgName", *[f"body.{name}" for name in body]]
    assert sorted(str(each["path"]) for each in found.failed.errors) == sorted(paths)
    assert found.asked == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("external_id", "externalId"),
        ("externalID", "externalId"),
        ("thread", "externalId"),
        ("threadId", "externalId"),
        ("thread_id", "externalId"),
        ("id", "externalId"),
        ("conversationId", "externalId"),
        ("customerId", "customer"),
        ("customer_id", "customer"),
        ("subject", "name"),
        ("title", "name"),
        ("created", "create"),
    ],
)
def test_an_unknown_field_is_told_with_the_one_that_is_meant(find: Step, name: str, meant: str) -> None:
    """Common mistakes and other spellings lead to the right name."""
    found = find({"externalId": EXTERNAL_ID, name: "x"})
    assert [(each["path"], each["title"]) for each in found.failed.errors] == [
        (f"body.{name}", f"is not a known field: did you mean {meant!r}?")
    ]
    assert found.asked == []


@pytest.mark.parametrize("empty", [None, "", [], {}], ids=repr)
def test_fields_that_nobody_touched_count_as_not_given(
    kustomer: Kustomer, find: Step, thread: Body, empty: object
) -> None:
    """A form submits them in any spelling of empty; one that is wholly untouched names what is needed."""
    untouched = dict.fromkeys(Conversation.__annotations__, empty)
    error = find(untouched).failed
    assert [(each["path"], each["title"]) for each in error.errors] == [("body.externalId", "is missing")]
    assert find(untouched | {"externalId": EXTERNAL_ID}).found == NONE
    assert find(untouched | thread).found == only(kustomer, True)
    assert posted(kustomer) == [{"externalId": EXTERNAL_ID, "customer": kustomer.customer}]


# What stays inside

NAME = 'My card is\n"4111 1111 1111 1111", hélp'


@pytest.mark.parametrize("on", ["GET", "POST"])
def test_neither_key_nor_name_is_in_an_error_or_the_log(
    kustomer: Kustomer, find: Step, thread: Body, auth: Body, capsys: pytest.CaptureFixture[str], on: str
) -> None:
    """Not even where Kustomer quotes them, as they are or as JSON."""
    key = auth["apiKey"]
    for said in (f"{NAME}, Bearer {key}", json.dumps([NAME, key]), json.dumps({key: NAME}, ensure_ascii=False)):
        for status in (400, 401, 409, 429, 500):
            reason = {"code": said, "title": said, "detail": said, "source": {"pointer": said}}
            told = Fault.answer(status, {"errors": [reason, said]}, {"Retry-After": "600", "x-request-id": key}, on=on)
            kustomer.clear()
            kustomer.fault(*[told] * 3)
            assert spilled(find(thread | {"name": NAME}).failed, NAME, key) == [], told
    log = capsys.readouterr().out
    assert [each for each in (key, "4111", "hélp") if each in log] == []


def test_the_log_of_a_success_has_no_name(find: Step, thread: Body, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the id in Kustomer, for one that is made and one that is found, also under another name."""
    there = find(thread | {"name": NAME}).found["id"]
    find(thread | {"name": "Order 1042"})
    log = capsys.readouterr().out
    assert log.count(there) == 2
    assert [each for each in ("4111", "Order 1042") if each in log] == []


# As a job


def test_job_makes_a_conversation_once(kustomer: Kustomer, auth: Body, thread: Body) -> None:
    """With nothing but the deployed lock, and with the result that a flow reads."""
    with Workspace(scripts_from=worker.ROOT) as workspace:
        jobs = [
            worker.run("f/kustomer/find_conversation", {"auth": auth, "body": thread}, workspace=workspace)
            for _ in range(2)
        ]
    assert [job.result for job in jobs] == [only(kustomer, True), only(kustomer, False)]
    assert auth["apiKey"] not in jobs[0].logs + jobs[1].logs
