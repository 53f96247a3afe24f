"""Every failure says truly what became of the message, and no retry doubles it."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f.kustomer.record_message import main as record
from f.kustomer.shared.advice import reasons
from f.kustomer.shared.client import read_record
from f.kustomer.shared.errors import (
    AccessDenied,
    CannotConnect,
    Conflict,
    KustomerError,
    NoAnswer,
    OddAnswer,
    RateLimited,
    Rejected,
    ServerFailed,
)
from tests.conftest import Body, Run, Step, within
from tests.standin.kustomer import UPLOAD_PATH, Fault, Kustomer

Problem = type[KustomerError]

EXTERNAL_ID = {"externalId": "<CAF+1042/é@mail.acme.example>"}
WORDS = {
    "not_sent": "This run did not send the message.",
    "rejected": "This run has not recorded the message.",
    "unknown": "It is unknown whether the message was recorded: it may be on the timeline.",
}

with_and_without_external_id = pytest.mark.parametrize("extra", [{}, EXTERNAL_ID], ids=["no externalId", "externalId"])

# What may have been recorded: each fault, and the class and the status of its error.
BROKEN: dict[str, tuple[Callable[[bool], Fault], Problem, int | None]] = {
    "reset": (lambda store: Fault.reset(store=store), NoAnswer, None),
    "close": (lambda store: Fault.close(store=store), NoAnswer, None),
    "cut by length": (lambda store: Fault.cut(store=store), NoAnswer, 201),
    "cut in a chunk": (lambda store: Fault.cut(chunked=True, store=store), NoAnswer, 201),
    "408": (lambda store: Fault.answer(408, b"<h1>Request Timeout</h1>", store=store), ServerFailed, 408),
    "500": (lambda store: Fault.answer(500, {"errors": [{"code": "oops"}]}, store=store), ServerFailed, 500),
    "501": (lambda store: Fault.answer(501, store=store), ServerFailed, 501),
    "502": (lambda store: Fault.answer(502, b"<h1>Bad Gateway</h1>", store=store), ServerFailed, 502),
    "503": (lambda store: Fault.answer(503, {"message": "busy"}, store=store), ServerFailed, 503),
    "504": (lambda store: Fault.answer(504, b"\xff\xfe", store=store), ServerFailed, 504),
    "599": (lambda store: Fault.answer(599, [], store=store), ServerFailed, 599),
}
NOT_A_SUCCESS: dict[str, tuple[int, Any]] = {
    "empty": (201, None),
    "no content": (204, None),
    "a web page": (200, b"<html><body>Log in to the network</body></html>"),
    "text": (200, "ok"),
    "null": (200, b"null"),
    "a number": (200, 1),
    "a list": (201, [{"data": {"id": "1"}}]),
    "an empty object": (201, {}),
    "no data": (201, {"id": "65a1b2c3d4e5f60718293a4b"}),
    "null data": (201, {"data": None}),
    "a list as data": (201, {"data": [{"id": "1"}]}),
    "text as data": (201, {"data": "id"}),
    "no id": (201, {"data": {"type": "message"}}),
    "a number as id": (201, {"data": {"id": 1}}),
    "null as id": (201, {"data": {"id": None}}),
    "an empty id": (201, {"data": {"id": ""}}),
    "a list as id": (201, {"data": {"id": ["1"]}}),
    "half of it": (201, b'{"data": {"id": "1"}'),
    "two of it": (201, b'{"data": {"id": "1"}} {"data": {"id": "2"}}'),
    "broken UTF-8": (201, b'{"data": {"id": "\xff"}}'),
    "a number too long to read": (201, b'{"data": {"id": "1", "n": ' + b"1" * 5000 + b"}}"),
    "nested too deeply": (201, b'{"data": {"id": "1", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"),
    "another 2xx": (299, b""),
}


unique_external_ids = pytest.mark.parametrize(
    "kustomer", [{"unique_external_ids": True}], ids=["unique"], indirect=True
)


def told(found: Run) -> KustomerError:
    """Holds the error's parts against one another, its attempts against the requests, and returns it."""
    error = found.failed
    text = str(error)
    assert text.startswith(f"{error.status} " if error.status else ("No ", "The externalId "))
    assert [outcome for outcome, words in WORDS.items() if words in text] == [error.outcome]
    assert error.attempts == found.requests
    assert json.loads(json.dumps(vars(error), allow_nan=False)) == vars(error)
    assert all(set(each) == {"code", "title", "detail", "path"} for each in error.errors)
    return error


def methods(kustomer: Kustomer) -> list[str]:
    """What the server was asked, in order."""
    return [seen.method for seen in kustomer.requests]


# Without an externalId


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_off_post_without_an_external_id_is_unknown_and_never_repeated(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], name: str, store: bool
) -> None:
    """Nothing tells whether it was stored, so that only a person can look."""
    fault, problem, status = BROKEN[name]
    kustomer.fault(fault(store))
    found = run(message)
    error = told(found)
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "unknown", False)
    assert (error.attempts, found.stored, waits) == (1, int(store), [])
    assert "Look in Kustomer before you run the step again" in str(error)


@pytest.mark.parametrize("name", NOT_A_SUCCESS)
def test_what_is_not_kustomers_success_is_unknown(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], name: str
) -> None:
    """A 2xx counts only with a JSON object that has data.id."""
    status, body = NOT_A_SUCCESS[name]
    kustomer.fault(Fault.answer(status, body, store=True))
    found = run(message)
    error = told(found)
    assert (type(error), error.status, error.outcome, error.retryable) == (OddAnswer, status, "unknown", False)
    assert (error.attempts, found.stored, waits) == (1, 1, [])


def test_a_reset_before_the_server_reads_is_not_repeated(kustomer: Kustomer, run: Step, message: Body) -> None:
    """The worker can't know that nobody had read the message."""
    kustomer.fault(Fault.reset(before_reading=True))
    found = run(message)
    error = told(found)
    assert (type(error), error.outcome, error.attempts, found.stored) == (NoAnswer, "unknown", 1, 0)


# With an externalId


@pytest.mark.parametrize("name", BROKEN)
def test_a_message_that_was_stored_is_found_after_a_broken_off_post(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], name: str
) -> None:
    """The step waits, looks again and returns the one that is there."""
    kustomer.fault(BROKEN[name][0](True))
    found = run(message | EXTERNAL_ID)
    assert found.id == kustomer.messages[0]["id"]
    assert (found.stored, methods(kustomer)) == (1, ["GET", "POST", "GET"])
    assert within(waits, 2)


@pytest.mark.parametrize("name", [*BROKEN, "reset unread"])
def test_a_message_that_was_not_stored_is_posted_again_after_looking(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], name: str
) -> None:
    """There is a look-up between any two posts."""
    kustomer.fault(Fault.reset(before_reading=True) if name == "reset unread" else BROKEN[name][0](False))
    found = run(message | EXTERNAL_ID)
    assert found.id == kustomer.messages[0]["id"]
    assert (found.stored, methods(kustomer)) == (1, ["GET", "POST", "GET", "POST"])
    assert within(waits, 2)


@pytest.mark.parametrize("name", BROKEN)
def test_a_post_that_fails_for_ever_is_given_up_as_unknown(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], name: str
) -> None:
    """Three posts, each looked for; later the step may be run again, and then records once."""
    fault, problem, status = BROKEN[name]
    kustomer.fault(*[fault(False)] * 3)
    found = run(message | EXTERNAL_ID)
    error = told(found)
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "unknown", True)
    assert methods(kustomer) == ["GET", *["POST", "GET"] * 3]
    assert within(waits, 2, 4, 8)
    assert "Running the step again is safe: it looks for the externalId first" in str(error)
    assert run(message | EXTERNAL_ID).id == kustomer.messages[0]["id"]
    assert len(kustomer.messages) == 1


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize("name", NOT_A_SUCCESS)
def test_an_odd_success_is_looked_for_and_never_posted_again(
    kustomer: Kustomer, run: Step, message: Body, name: str, store: bool
) -> None:
    """It says success, so that posting again would likely double it; running the step again looks first."""
    status, body = NOT_A_SUCCESS[name]
    kustomer.fault(Fault.answer(status, body, store=store))
    found = run(message | EXTERNAL_ID)
    assert (found.stored, methods(kustomer)) == (int(store), ["GET", "POST", "GET"])
    if not store:
        error = told(found)
        assert (type(error), error.status, error.outcome, error.retryable) == (OddAnswer, status, "unknown", True)
    assert run(message | EXTERNAL_ID).id == kustomer.messages[0]["id"]
    assert len(kustomer.messages) == 1


def test_a_step_that_is_run_twice_records_once(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A flow's retry, a webhook delivered again, a restarted worker: the second run returns the first's message."""
    first, second = run(message | EXTERNAL_ID), run(message | EXTERNAL_ID)
    assert (first.stored, second.stored, second.requests) == (1, 0, 1)
    assert first.answer == second.answer
    assert first.id == second.id


def test_a_conversation_in_capitals_is_the_same_conversation(run: Step, message: Body) -> None:
    """An id is hexadecimal, in either case."""
    body = message | EXTERNAL_ID | {"conversation": message["conversation"].upper()}
    recorded = run(body).id
    assert run(body).id == run(message | EXTERNAL_ID).id == recorded


@pytest.mark.parametrize("external_id", ["a/b?c=d#e", "100%", "%2F", "a+b c", "..", "é", "\U0001f4e6", "=" * 256])
def test_any_external_id_is_found_again(run: Step, message: Body, external_id: str) -> None:
    """It is percent-encoded whole, as one segment of the path."""
    body = message | {"externalId": external_id}
    assert run(body).id == run(body).id


def test_an_external_id_that_no_address_can_hold_is_not_recorded_twice(
    kustomer: Kustomer, run: Step, message: Body
) -> None:
    """Half a surrogate pair has no UTF-8, so that no look-up can ask for it."""
    for _ in range(2):
        run(message | {"externalId": "order-\ud800"})
    assert len(kustomer.messages) <= 1


def test_a_gateway_s_404_page_after_a_post_is_no_proof(kustomer: Kustomer, run: Step, message: Body) -> None:
    """Only Kustomer's own answer says that nothing is there; posting on anybody else's could double the message."""
    page = Fault.answer(404, b"<h1>Not Found</h1>", on="GET")
    kustomer.fault(Fault.answer(404, on="GET"), Fault.answer(504, store=True), page)
    error = run(message | EXTERNAL_ID).failed
    assert (error.outcome, error.retryable) == ("unknown", True)
    assert run(message | EXTERNAL_ID).stored == 0
    assert len(kustomer.messages) == 1


def test_a_late_message_is_doubled_only_where_kustomer_lets_it_be(kustomer: Kustomer, run: Step, message: Body) -> None:
    """What appears after the look-up that follows a 504 can't be seen by it; running the step again adds none."""
    kustomer.fault(Fault.late_store())
    found = run(message | EXTERNAL_ID)
    assert found.id == kustomer.messages[-1]["id"]
    assert (found.stored, methods(kustomer)) == (2, ["GET", "POST", "GET", "POST"])
    assert run(message | EXTERNAL_ID).stored == 0


@unique_external_ids
def test_a_late_message_is_found_where_external_ids_are_unique(kustomer: Kustomer, run: Step, message: Body) -> None:
    """The second post is refused with 409, upon which the step looks again and returns the late message."""
    kustomer.fault(Fault.late_store())
    found = run(message | EXTERNAL_ID)
    assert found.id == kustomer.messages[0]["id"]
    assert (found.stored, methods(kustomer)) == (1, ["GET", "POST", "GET", "POST", "GET"])


# Looking up

# Answers to a look-up that say nothing about the message: fault, class, status, requests, retryable.
LOOK_UP_FAILS: dict[str, tuple[Fault, Problem, int | None, int, bool]] = {
    "500": (Fault.answer(500, on="GET"), ServerFailed, 500, 3, True),
    "503 page": (Fault.answer(503, b"<h1>Busy</h1>", on="GET"), ServerFailed, 503, 3, True),
    "408": (Fault.answer(408, on="GET"), ServerFailed, 408, 3, True),
    "reset": (Fault.reset(on="GET"), NoAnswer, None, 3, True),
    "close": (Fault.close(on="GET"), NoAnswer, None, 3, True),
    "429 for an hour": (Fault.answer(429, headers={"Retry-After": "3600"}, on="GET"), RateLimited, 429, 1, True),
    "400": (Fault.answer(400, {"errors": [{"code": "badparam"}]}, on="GET"), Rejected, 400, 1, False),
    "500 with null data": (Fault.answer(500, {"data": None}, on="GET"), ServerFailed, 500, 3, True),
    "400 with empty data": (Fault.answer(400, {"data": []}, on="GET"), Rejected, 400, 1, False),
    "a redirect": (Fault.answer(302, headers={"Location": "/v1/here"}, on="GET"), OddAnswer, 302, 1, False),
    "a web page": (Fault.answer(200, b"<html>Log in</html>", on="GET"), OddAnswer, 200, 1, True),
    "empty": (Fault.answer(200, on="GET"), OddAnswer, 200, 1, True),
    "204": (Fault.answer(204, on="GET"), OddAnswer, 204, 1, True),
    "null": (Fault.answer(200, b"null", on="GET"), OddAnswer, 200, 1, True),
    "empty object": (Fault.answer(200, {}, on="GET"), OddAnswer, 200, 1, True),
    "object without data": (Fault.answer(200, {"status": "maintenance"}, on="GET"), OddAnswer, 200, 1, True),
    "text": (Fault.answer(200, "ok", on="GET"), OddAnswer, 200, 1, True),
    "a number": (Fault.answer(200, 1, on="GET"), OddAnswer, 200, 1, True),
    "true": (Fault.answer(200, b"true", on="GET"), OddAnswer, 200, 1, True),
    "a list": (Fault.answer(200, [1], on="GET"), OddAnswer, 200, 1, True),
    "a list of messages": (Fault.answer(200, {"data": [{"id": "1"}]}, on="GET"), OddAnswer, 200, 1, True),
    "false as data": (Fault.answer(200, {"data": False}, on="GET"), OddAnswer, 200, 1, True),
}


@pytest.mark.parametrize("name", LOOK_UP_FAILS)
def test_nothing_is_sent_until_the_look_up_has_an_answer(
    kustomer: Kustomer, run: Step, message: Body, name: str
) -> None:
    """Who can't look can't know that a message isn't there already."""
    fault, problem, status, requests, retryable = LOOK_UP_FAILS[name]
    kustomer.fault(*[fault] * requests)
    error = told(run(message | EXTERNAL_ID))
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "not_sent", retryable)
    assert methods(kustomer) == ["GET"] * requests
    assert run(message | EXTERNAL_ID).stored == 1


@pytest.mark.parametrize("name", LOOK_UP_FAILS)
def test_nothing_is_sent_again_until_the_look_up_has_an_answer(
    kustomer: Kustomer, run: Step, message: Body, name: str
) -> None:
    """A message that was stored under a 504 isn't doubled because the look-up after it went wrong."""
    fault, problem, status, requests, retryable = LOOK_UP_FAILS[name]
    missing = Fault.answer(404, on="GET")
    kustomer.fault(missing, Fault.answer(504, store=True), *[fault] * requests)
    found = run(message | EXTERNAL_ID)
    error = told(found)
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "unknown", retryable)
    assert methods(kustomer) == ["GET", "POST", *["GET"] * requests]
    assert run(message | EXTERNAL_ID).id == kustomer.messages[0]["id"]
    assert len(kustomer.messages) == 1


@pytest.mark.parametrize(
    "missing",
    [
        Fault.answer(404, on="GET"),
        Fault.answer(404, {"errors": "none"}, on="GET"),
        Fault.answer(200, {"data": None}, on="GET"),
        Fault.answer(200, {"data": []}, on="GET"),
    ],
    ids=["404", "404 object", "null data", "empty data"],
)
def test_a_message_that_is_not_there_is_recorded(kustomer: Kustomer, run: Step, message: Body, missing: Fault) -> None:
    """Whatever way the look-up says that there is none."""
    kustomer.fault(missing)
    assert run(message | EXTERNAL_ID).stored == 1
    assert methods(kustomer) == ["GET", "POST"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_gateway_s_page_is_no_answer_to_the_look_up(
    kustomer: Kustomer, run: Step, message: Body, status: int
) -> None:
    """What an earlier run recorded can't be ruled out by somebody else's page, so nothing is sent."""
    kustomer.fault(Fault.answer(status, b"<h1>No</h1>", on="GET"))
    error = run(message | EXTERNAL_ID).failed
    assert (type(error), error.outcome, error.retryable) == (OddAnswer, "not_sent", True)
    assert run(message | EXTERNAL_ID).stored == 1


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("name", ["500", "503 page", "408", "reset", "close"])
def test_a_look_up_that_fails_for_a_moment_is_repeated(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], name: str, failures: int
) -> None:
    """Looking changes nothing, so that any passing failure may be repeated."""
    kustomer.fault(*[LOOK_UP_FAILS[name][0]] * failures)
    assert run(message | EXTERNAL_ID).stored == 1
    assert methods(kustomer) == [*["GET"] * (failures + 1), "POST"]
    assert within(waits, *(2, 4)[:failures])


# Another message under the same externalId


@pytest.mark.parametrize(
    ("name", "value"),
    [("conversation", "0" * 24), ("channel", "sms"), ("direction", "out"), ("app", "acme-outbox")],
)
def test_another_message_is_a_conflict(kustomer: Kustomer, run: Step, message: Body, name: str, value: str) -> None:
    """The step neither returns it as its own nor adds a second one under that externalId."""
    there = run(message | EXTERNAL_ID).id
    error = told(run(message | EXTERNAL_ID | {name: value}))
    assert (type(error), error.status, error.outcome, error.retryable) == (Conflict, None, "not_sent", False)
    assert there in str(error)
    assert f"another {name}" in str(error)
    assert [each["path"] for each in error.errors] == ["body.externalId"]
    assert len(kustomer.posts) == 1


@pytest.mark.parametrize("name", ["preview", "subject", "customer", "status", "sentAt", "custom"])
def test_a_message_that_was_edited_is_still_the_same(run: Step, message: Body, name: str) -> None:
    """Texts and times are changed in Kustomer, customers are merged: none of it makes another message."""
    values: Body = {"customer": "0" * 24, "status": "error", "sentAt": "2026-01-31T09:30:00Z", "custom": {"aStr": "1"}}
    first = run(message | EXTERNAL_ID)
    assert run(message | EXTERNAL_ID | {name: values.get(name, "changed")}).answer == first.answer


def test_a_message_found_without_details_is_taken_for_the_same(kustomer: Kustomer, run: Step, message: Body) -> None:
    """Only what plainly differs is a conflict."""
    stored = run(message | EXTERNAL_ID).id
    bares: list[Body] = [
        {},
        {"attributes": None, "relationships": []},
        {"relationships": {"conversation": {"data": None}}},
    ]
    for bare in bares:
        kustomer.fault(Fault.answer(200, {"data": {"id": stored} | bare}, on="GET"))
        assert run(message | EXTERNAL_ID).id == stored
    assert len(kustomer.posts) == 1


def test_another_message_found_after_an_uncertain_post_leaves_it_unknown(
    kustomer: Kustomer, run: Step, message: Body
) -> None:
    """The post may have been recorded beside the other one."""
    run(message | EXTERNAL_ID)
    kustomer.fault(Fault.answer(404, on="GET"), Fault.answer(504, store=True))
    error = told(run(message | EXTERNAL_ID | {"channel": "sms"}))
    assert (type(error), error.outcome, error.retryable) == (Conflict, "unknown", False)


@unique_external_ids
def test_a_message_recorded_at_the_same_moment_is_returned(kustomer: Kustomer, run: Step, message: Body) -> None:
    """Two runs at once: the 409 of the later one is looked up."""
    first = run(message | EXTERNAL_ID)
    kustomer.fault(Fault.answer(404, on="GET"))
    assert run(message | EXTERNAL_ID).id == first.id
    assert methods(kustomer)[2:] == ["GET", "POST", "GET"]


@unique_external_ids
def test_another_message_recorded_at_the_same_moment_is_a_conflict(
    kustomer: Kustomer, run: Step, message: Body
) -> None:
    """This one left the worker and was refused."""
    run(message | EXTERNAL_ID)
    kustomer.fault(Fault.answer(404, on="GET"))
    error = told(run(message | EXTERNAL_ID | {"channel": "sms"}))
    assert (type(error), error.outcome, error.retryable) == (Conflict, "rejected", False)


@pytest.mark.parametrize("name", ["500", "reset", "429 for an hour", "a web page"])
def test_a_refused_message_stays_rejected_when_the_look_up_after_it_fails(
    kustomer: Kustomer, run: Step, message: Body, name: str
) -> None:
    """After a 409 the step looks; a failure of that look-up doesn't undo that the message had been sent."""
    fault, _, _, requests, _ = LOOK_UP_FAILS[name]
    kustomer.fault(Fault.answer(404, on="GET"), Fault.answer(409), *[fault] * requests)
    error = told(run(message | EXTERNAL_ID))
    assert error.outcome == "rejected"


@with_and_without_external_id
def test_a_conflict_without_a_message_is_rejected(kustomer: Kustomer, run: Step, message: Body, extra: Body) -> None:
    """Such as an id that is taken: looking for the externalId finds nothing."""
    run(message | {"id": "1" * 24})
    error = told(run(message | extra | {"id": "1" * 24}))
    assert (type(error), error.status, error.outcome, error.retryable) == (Conflict, 409, "rejected", False)
    assert len(kustomer.posts) == 2


# A key that may not read


def test_a_key_that_may_not_read_still_records(
    kustomer: Kustomer, run: Step, message: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one line in the log on what that costs."""
    found = run(message | EXTERNAL_ID, apiKey=kustomer.keys["no_read"])
    assert found.id == kustomer.messages[0]["id"]
    assert methods(kustomer) == ["GET", "POST"]
    lines = [line for line in capsys.readouterr().out.splitlines() if "org.permission.message.read" in line]
    assert len(lines) == 1
    assert "a second run may record it twice" in lines[0]


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_key_that_may_not_read_never_repeats_what_is_uncertain(
    kustomer: Kustomer, run: Step, message: Body, name: str, store: bool
) -> None:
    """As without an externalId; the error names the role that would help."""
    kustomer.fault(BROKEN[name][0](store))
    error = told(run(message | EXTERNAL_ID, apiKey=kustomer.keys["no_read"]))
    assert (error.outcome, error.retryable, methods(kustomer)) == ("unknown", False, ["GET", "POST"])
    assert "org.permission.message.read" in str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_may_no_longer_read_does_not_post_again(
    kustomer: Kustomer, run: Step, message: Body, status: int
) -> None:
    """Its look-up after the uncertain post is refused."""
    missing, refused = Fault.answer(404, on="GET"), Fault.answer(status, on="GET")
    kustomer.fault(missing, Fault.answer(504, store=True), refused)
    error = told(run(message | EXTERNAL_ID))
    assert (type(error), error.status, error.outcome, error.retryable) == (ServerFailed, 504, "unknown", False)
    assert methods(kustomer) == ["GET", "POST", "GET"]


def test_a_key_that_may_not_read_waits_for_a_limit(kustomer: Kustomer, run: Step, message: Body) -> None:
    """What was refused with 429 is not uncertain."""
    kustomer.fault(Fault.answer(429))
    assert run(message | EXTERNAL_ID, apiKey=kustomer.keys["no_read"]).stored == 1


# Not stored for certain


@with_and_without_external_id
@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (400, Rejected),
        (401, AccessDenied),
        (402, Rejected),
        (403, AccessDenied),
        (404, Rejected),
        (405, Rejected),
        (410, Rejected),
        (413, Rejected),
        (415, Rejected),
        (422, Rejected),
        (431, Rejected),
        (499, Rejected),
    ],
)
def test_a_refused_message_is_rejected_and_not_repeated(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], status: int, problem: Problem, extra: Body
) -> None:
    """The same request would be refused again."""
    kustomer.fault(Fault.answer(status, {"errors": [{"title": "No", "detail": "not that one"}]}))
    error = told(run(message | extra))
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "rejected", False)
    assert "No - not that one" in str(error)
    assert (len(kustomer.posts), waits) == (1, [])


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
def test_a_refusal_after_an_uncertain_post_leaves_it_unknown(
    kustomer: Kustomer, run: Step, message: Body, status: int
) -> None:
    """What refuses the second post says nothing about the first."""
    kustomer.fault(Fault.answer(502), Fault.answer(status))
    error = told(run(message | EXTERNAL_ID))
    assert (error.status, error.outcome, error.retryable) == (status, "unknown", False)


@with_and_without_external_id
@pytest.mark.parametrize(
    ("base", "why"),
    [("http://127.0.0.1:{free}", "refused"), ("https://nowhere.invalid", "host name was not found")],
    ids=["refused", "name not found"],
)
def test_a_message_without_a_connection_is_not_sent(
    run: Step, message: Body, waits: list[float], free_port: int, base: str, why: str, extra: Body
) -> None:
    """Three tries, as nothing can be doubled; after them the step may be run again."""
    error = run(message | extra, baseUrl=base.format(free=free_port)).failed
    assert (type(error), error.status, error.outcome, error.retryable) == (CannotConnect, None, "not_sent", True)
    assert str(error).startswith("No connection to Kustomer")
    assert why in str(error)
    assert error.attempts == 3
    assert within(waits, 2, 4)


# Answers with odd reasons

DEEP = b'{"errors": [{"detail": ' + b"[" * 400 + b"]" * 400 + b"}]}"
ODD_REASONS: list[Any] = [
    None,
    b"",
    b"null",
    b"<html><body>nginx</body></html>",
    b"\x00\xff\xfe",
    b"{",
    b"NaN",
    DEEP,
    b"[" * 100_000,
    "text",
    7,
    True,
    [],
    [None],
    ["a", 1, None, [], {}, [["b"]]],
    {},
    {"errors": None},
    {"errors": "a string"},
    {"errors": 5},
    {"errors": {"detail": "a dict"}},
    {"errors": {"preview": ["is too long"]}},
    {"errors": [1, 2.5, None, True, "text"]},
    {"errors": [[["nested"]], {"detail": {"a": [{"b": False}]}}]},
    {"errors": [{"code": 1, "title": ["a"], "detail": {"b": 2}, "source": "text"}]},
    {"errors": [{"code": "c", "source": {"pointer": {"a": 1}, "parameter": 3, "parameters": ["x", "y"]}}]},
    {"errors": [{"source": {"parameter": "preview"}}]},
    {"errors": [{"title": "\0 \ud800 \u202e\n\r\x1b[31m", "detail": "x" * 100_000}]},
    {"errors": [{"detail": False, "message": 0}]},
]


@pytest.mark.parametrize(
    ("status", "problem", "outcome"),
    [(403, AccessDenied, "rejected"), (422, Rejected, "rejected"), (503, ServerFailed, "unknown")],
)
@pytest.mark.parametrize("reason", ODD_REASONS, ids=lambda reason: repr(reason)[:40])
def test_no_reason_is_too_odd_for_an_error(
    kustomer: Kustomer, run: Step, message: Body, status: int, problem: Problem, outcome: str, reason: Any
) -> None:
    """Class, status and outcome don't depend on what the body holds, and the text never says None."""
    kustomer.fault(Fault.answer(status, reason))
    error = told(run(message))
    assert (type(error), error.status, error.outcome) == (problem, status, outcome)
    assert "None" not in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 10_000
    assert all(value is None or isinstance(value, str) for each in error.errors for value in each.values())


# All short sequences of faults

POST_FAULTS = {
    "429": Fault.answer(429, headers={"Retry-After": "1"}),
    "400": Fault.answer(400),
    "503": Fault.answer(503),
    "503 stored": Fault.answer(503, store=True),
    "reset": Fault.reset(),
    "closed stored": Fault.close(store=True),
    "empty stored": Fault.answer(201, store=True),
}
LOOK_UP_FAULTS = {
    "429": Fault.answer(429, headers={"Retry-After": "1"}, on="GET"),
    "500": Fault.answer(500, on="GET"),
    "403": Fault.answer(403, on="GET"),
}
# After these the message may be there.
STORED = ("503 stored", "closed stored", "empty stored")
UNCERTAIN = {"503", "503 stored", "reset", "closed stored", "empty stored"}
Names = tuple[str, ...]


def sequences(names: Sequence[str], longest: int) -> Iterator[Names]:
    """All sequences of names, the empty one included."""
    for length in range(longest + 1):
        yield from product(names, repeat=length)


def faulty(first: str, names: Sequence[str], longest: int) -> Iterator[tuple[Names, Names]]:
    """All sequences of faults of posts that begin with ``first``, beside those of look-ups, at most so many in all."""
    for posts in sequences(list(POST_FAULTS), longest):
        if posts[:1] == ((first,) if first else ()):
            for look_ups in sequences(names, longest - len(posts)):
                yield posts, look_ups


@pytest.mark.parametrize("first", POST_FAULTS)
def test_no_sequence_of_faults_makes_a_message_without_an_external_id_untrue(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], first: str
) -> None:
    """429 is waited out; the first other fault decides, and nothing is sent after it."""
    for posts, _ in faulty(first, (), 3):
        kustomer.clear()
        kustomer.fault(*[POST_FAULTS[name] for name in posts])
        waits.clear()
        found = run(message)
        limited, decisive = next(((n, name) for n, name in enumerate(posts) if name != "429"), (len(posts), None))
        assert (found.requests, found.stored) == (limited + 1, decisive in (None, *STORED)), posts
        assert within(waits, *[1] * limited), posts
        if decisive is None:
            assert found.id == kustomer.messages[0]["id"], posts
        else:
            error = told(found)
            outcome = "unknown" if decisive in UNCERTAIN else "rejected"
            assert (error.outcome, error.retryable) == (outcome, False), posts


@pytest.mark.parametrize("first", ["", *POST_FAULTS])
def test_no_sequence_of_faults_doubles_a_message_with_an_external_id(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], first: str
) -> None:
    """However posts and look-ups fail: what is said is true, and running the step while it says so records once."""
    for sequence in faulty(first, list(LOOK_UP_FAULTS), 3):
        posts, look_ups = sequence
        faults = [*[POST_FAULTS[name] for name in posts], *[LOOK_UP_FAULTS[name] for name in look_ups]]
        kustomer.clear()
        kustomer.fault(*faults or [Fault.answer(404, on="DELETE")])
        for _ in range(5):
            waits.clear()
            before = len(kustomer.posts)
            found = run(message | EXTERNAL_ID)
            met = posts[before : len(kustomer.posts)]
            assert len(kustomer.messages) <= 1, sequence
            assert sum(waits) <= 75, sequence
            assert looked_between(kustomer, posts), sequence
            if found.error is None:
                break
            error = told(found)
            uncertain, sent = UNCERTAIN & set(met), len(kustomer.posts) > before
            outcome = "unknown" if uncertain else "rejected" if sent else "not_sent"
            assert error.outcome == outcome, sequence
            if not error.retryable:
                break
        assert found.error is None or not found.error.retryable, sequence
        passing = not {"400", "403"} & {*posts, *look_ups}
        if passing:
            assert len(kustomer.messages) == 1, sequence
        if passing and len(faults) <= 2 and "empty stored" not in posts:
            assert len(kustomer.requests) == found.requests, f"{sequence} took more than one run"


def looked_between(kustomer: Kustomer, posts: Names) -> bool:
    """Whether no post followed an uncertain one without a look-up between."""
    asked = "".join(method[0] for method in methods(kustomer)).split("P")[1:]
    return all("G" in after for name, after in zip(posts, asked[:-1], strict=False) if name in UNCERTAIN)


# What answers mean


def classified(status: int, data: Any) -> Problem | None:
    """What an answer with this JSON means."""
    return read_record(status, json.dumps(data).encode())[0]


@pytest.mark.parametrize(
    ("statuses", "problem"),
    [
        ([100, 101, 103, 199, 300, 301, 302, 303, 304, 307, 308, 399], OddAnswer),
        ([401, 403], AccessDenied),
        ([409], Conflict),
        ([429], RateLimited),
        ([400, 402, 404, 405, 407, 410, 413, 418, 422, 425, 451, 499], Rejected),
        ([408, 500, 501, 502, 503, 504, 520, 599, 600, 999], ServerFailed),
    ],
)
@pytest.mark.parametrize("data", [None, {}, [], {"data": {"id": "1"}}, {"errors": []}, "text"], ids=repr)
def test_a_status_means_the_same_whatever_the_body(statuses: list[int], problem: Problem, data: Any) -> None:
    """Not even a body that looks like a success changes it."""
    assert {classified(status, data) for status in statuses} == {problem}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_a_success_has_an_id(status: int) -> None:
    """A JSON object, data an object, its id some text; more may be in it."""
    assert classified(status, {"data": {"id": "1", "more": float("nan")}, "more": 1}) is None
    odd: list[Any] = [None, {}, [], "id", 1, {"data": 1}, {"data": {}}, {"data": {"id": ""}}, {"data": {"id": 1}}]
    for data in odd:
        assert classified(status, data) is OddAnswer, data


def reason(code: str | None, title: str | None, detail: str | None, path: str | None) -> dict[str, str | None]:
    """One reason as the step gives it."""
    return {"code": code, "title": title, "detail": detail, "path": path}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"errors": [{"code": "bad_request", "message": "No such channel", "meta": {}}]},
            [reason("bad_request", None, "No such channel", None)],
        ),
        (
            {
                "errors": [
                    {"status": 400, "code": "badparam", "title": "T", "detail": "/d", "source": {"parameter": "p"}}
                ]
            },
            [reason("badparam", "T", "/d", "p")],
        ),
        ({"errors": [{"title": "T", "source": {"pointer": "/a", "parameter": "b"}}]}, [reason(None, "T", None, "/a")]),
        ({"errors": [{"title": "T", "source": {"parameters": "c"}}]}, [reason(None, "T", None, "c")]),
        ({"errors": [{"detail": "D", "message": "M"}]}, [reason(None, None, "D", None)]),
        (
            {"errors": [{"title": "A"}, {}, {"title": "B"}]},
            [reason(None, "A", None, None), reason(None, "B", None, None)],
        ),
        ({"errors": ["A", 2]}, [reason(None, None, "A", None), reason(None, None, "2", None)]),
        ({"errors": "A"}, [reason(None, None, "A", None)]),
        ({"message": "A", "code": "c"}, [reason("c", None, "A", None)]),
        (["A"], [reason(None, None, "A", None)]),
        ("A", [reason(None, None, "A", None)]),
        ({"errors": [{"code": 17, "title": True}]}, [reason("17", "true", None, None)]),
        ({"errors": [{"title": "T", "source": "text"}]}, [reason(None, "T", None, None)]),
        ({"errors": [{"title": None, "detail": "", "code": [], "source": {}}]}, []),
        ({"errors": []}, []),
        ({"errors": None}, []),
        ({}, []),
        ([], []),
        (None, []),
        ("", []),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_reasons_are_read_from_either_shape(data: Any, expected: list[dict[str, str | None]]) -> None:
    """All of them, in order, as text or None."""
    assert reasons(data) == expected


PLACES = ["/v1/customers", "/v1/conversations", "/v1/attachments", UPLOAD_PATH]


@pytest.mark.parametrize("status", [400, 503])
@pytest.mark.parametrize("place", PLACES)
def test_what_a_message_needs_says_nothing_of_the_message(
    kustomer: Kustomer, auth: Body, place: str, status: int
) -> None:
    """Whatever became of a customer, a conversation or a file: the message was not sent."""
    kustomer.fault(*[Fault.answer(status, at=place)] * 4)
    event = {"channel": "email", "messageId": "1", "email": "grace@example.com", "files": [{"content": "AAAA"}]}
    with pytest.raises(KustomerError) as caught:
        record(auth, event)  # type: ignore[arg-type]
    error = caught.value
    assert (error.outcome, error.retryable, kustomer.posts) == ("not_sent", status == 503, [])
    assert "This run did not send the message." in str(error)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["errors", "code", "title", "source", "x"]), inner),
)


@settings(database=None, deadline=None, max_examples=100)
@given(st.sampled_from([200, 201, 400, 429, 503]), JSON_VALUES)
def test_any_json_can_be_judged_and_read(status: int, data: Any) -> None:
    """Nothing that a server sends makes these raise."""
    problem = classified(status, data)
    assert issubclass(problem, KustomerError) if problem else status < 300
    for each in reasons(data):
        assert set(each) == {"code", "title", "detail", "path"}
        assert any(each.values())
        assert all(value is None or isinstance(value, str) for value in each.values())
