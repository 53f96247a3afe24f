"""What both find steps promise: they find what is there, and make one, once, where nothing is, whatever goes wrong."""

import copy
import json
from collections.abc import Sequence
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest

from f.kustomer.shared import wire
from f.kustomer.shared.errors import AccessDenied, Conflict, KustomerError, OddAnswer, RateLimited, Rejected
from tests.conftest import Body, spilled, within
from tests.create_message.test_outcomes import BROKEN, LOOK_UP_FAILS, NOT_A_SUCCESS
from tests.other_steps.conftest import Find, all_look_first, at_once, problems
from tests.other_steps.test_find_conversation import CONVERSATION
from tests.other_steps.test_find_customer import CUSTOMER
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

# Of the many answers that aren't Kustomer's, some of each kind.
ODD_SUCCESSES = ("empty", "no content", "a web page", "an empty object", "a list", "null data", "no id")
NO_ANSWERS = ("500", "reset", "429 for an hour", "400", "a redirect", "a web page", "empty", "a list of messages")
# The answer to a look-up as captured from Kustomer.
MISSING = Fault.answer(404, {"errors": [{"status": 404, "code": "notfound", "title": "Not Found"}]}, on="GET")

create_or_not = pytest.mark.parametrize("create", [False, True], ids=["create off", "create on"])


def kustomers(unique: bool) -> pytest.MarkDecorator:
    """Let Kustomer refuse a second record with the same key, or not."""
    options = {"unique_external_ids": unique, "unique_identifiers": unique}
    return pytest.mark.parametrize("kustomer", [options], ids=["unique" if unique else "shared"], indirect=True)


@pytest.fixture(params=[CUSTOMER, CONVERSATION], ids=lambda finder: str(finder.record))
def find(request: pytest.FixtureRequest, kustomer: Kustomer, auth: Body) -> Find:
    """Each of the steps."""
    return Find(request.param, kustomer, auth)


def kind(error: KustomerError) -> tuple[type[KustomerError], int | None, str, bool]:
    """What a flow decides by."""
    return type(error), error.status, error.outcome, error.retryable


# Finding


@pytest.mark.parametrize("off", [{}, {"create": False}, {"create": None}, {"create": ""}], ids=str)
def test_nothing_there_is_no_error_where_create_is_off(find: Find, off: Body) -> None:
    """One look-up, and nothing is made, however much is known of it."""
    for body in (find.of.key, find.of.key | find.somebody | {"name": "x"}):
        found = find(body | off)
        assert (found.found, found.asked, found.stored) == (find.nobody, [find.look], 0)


def test_what_is_found_is_left_as_it_is(find: Find) -> None:
    """Nothing else that is given changes it in Kustomer."""
    find(find.body | {"name": "Order 1042"})
    before = json.dumps(find.stored)
    found = find(find.body | find.of.others)
    assert found.found == find.only(False)
    assert json.dumps(find.stored) == before
    assert [each for each in found.asked if not each.startswith("GET ")] == []


@pytest.mark.parametrize(
    ("external_id", "encoded"),
    [
        ("a+b@x.example", "a%2Bb%40x.example"),
        ("a/b?c#d%", "a%2Fb%3Fc%23d%25"),
        ("a+b = c&d", "a%2Bb%20%3D%20c%26d"),
        ("../..", "..%2F.."),
        ("%2F", "%252F"),
        ("größe \N{PACKAGE}", "gr%C3%B6%C3%9Fe%20%F0%9F%93%A6"),
        ("Ab1-._~", "Ab1-._~"),
        ("=" * 256, "%3D" * 256),
    ],
    ids=ascii,
)
def test_an_external_id_is_one_percent_encoded_segment_of_the_address(
    find: Find, external_id: str, encoded: str
) -> None:
    """So that what is made under it is found under it."""
    made = find({"externalId": external_id} | find.of.make | find.somebody)
    assert made.asked == [f"GET /v1/{find.of.record}s/externalId={encoded}", find.post]
    assert find({"externalId": external_id}).found == made.found | {"created": False}


# Making one


@pytest.mark.parametrize("more", [{}, {"name": "Order 1042"}, {"name": " \N{PACKAGE}" * 128}], ids=ascii)
def test_what_is_known_of_a_new_one_is_posted_and_nothing_else(find: Find, auth: Body, more: Body) -> None:
    """After one look-up: its key, and its name where there is one, up to the longest."""
    made = find(find.body | more)
    assert (made.found, made.asked) == (find.only(True), [find.look, find.post])
    assert find.posted == [find.sent | more]
    headers = find.kustomer.requests[-1].headers
    assert (headers["Authorization"], headers["Content-Type"]) == (f"Bearer {auth['apiKey']}", "application/json")


@kustomers(unique=False)
def test_a_step_that_is_run_twice_makes_one(find: Find) -> None:
    """A flow's retry, a webhook delivered again, a thread's next message find what the first run made."""
    first, second = find(find.body), find(find.body)
    assert (first.asked, second.asked) == ([find.look, find.post], [find.look])
    assert (first.found, second.found) == (find.only(True), find.only(False))


def test_the_body_that_was_given_is_left_as_it_was(find: Find) -> None:
    """A step's input is the flow's."""
    given = find.of.secret | find.somebody
    before = copy.deepcopy(given)
    assert find(given).found["created"]
    assert given == before


# Two runs at once


@kustomers(unique=True)
def test_two_runs_that_both_looked_in_vain_make_one(find: Find) -> None:
    """Where Kustomer refuses the second post, that run looks again and returns what the first one made."""
    runs = all_look_first(find.kustomer, *[lambda: find.of.step(find.auth, find.body)] * 2)
    assert sorted(runs, key=lambda each: bool(each["created"])) == [find.only(False), find.only(True)]
    asked = sorted(f"{seen.method} {seen.path}" for seen in find.kustomer.requests)
    assert asked == [*[find.look] * 3, *[find.post] * 2]


@kustomers(unique=True)
def test_many_runs_at_once_make_one(find: Find) -> None:
    """Where Kustomer refuses a second one, however the requests come in."""
    runs = at_once(*[lambda: find.of.step(find.auth, find.body)] * 8)
    assert {each["id"] for each in runs} == {find.only(True)["id"]}
    assert [each["created"] for each in runs].count(True) == 1


@kustomers(unique=False)
def test_two_runs_at_once_make_two_where_kustomer_lets_them(find: Find) -> None:
    """Nothing but Kustomer's refusal could keep them apart; later runs all find the same one."""
    runs = all_look_first(find.kustomer, *[lambda: find.of.step(find.auth, find.body)] * 2)
    assert [each["created"] for each in runs] == [True, True]
    assert {each["id"] for each in runs} == {each["id"] for each in find.stored}
    assert len(find.stored) == 2
    assert [find(find.body).found["id"] for _ in range(2)] == [find.stored[0]["id"]] * 2


# What goes wrong on the way


@kustomers(unique=False)
@pytest.mark.parametrize("name", BROKEN)
def test_what_was_stored_is_found_after_a_broken_off_post(find: Find, waits: list[float], name: str) -> None:
    """The step waits and looks again before it would post again."""
    find.kustomer.fault(BROKEN[name][0](True))
    found = find(find.body)
    assert (found.found, found.asked) == (find.only(True), [find.look, find.post, find.look])
    assert within(waits, 2)


@kustomers(unique=False)
@pytest.mark.parametrize("name", [*BROKEN, "reset unread"])
def test_what_was_not_stored_is_posted_again_after_looking(find: Find, waits: list[float], name: str) -> None:
    """There is a look-up between any two posts."""
    find.kustomer.fault(Fault.reset(before_reading=True) if name == "reset unread" else BROKEN[name][0](False))
    found = find(find.body)
    assert (found.found, found.asked) == (find.only(True), [find.look, find.post] * 2)
    assert within(waits, 2)


@pytest.mark.parametrize("name", BROKEN)
def test_a_post_that_fails_for_ever_is_given_up_as_unknown(find: Find, waits: list[float], name: str) -> None:
    """There is none, and nobody could know; the next run looks first, and makes one."""
    fault, problem, status = BROKEN[name]
    find.kustomer.fault(*[fault(False)] * 3)
    found = find(find.body)
    assert kind(found.failed) == (problem, status, "unknown", True)
    assert (found.asked, found.stored) == ([find.look, *[find.post, find.look] * 3], 0)
    assert within(waits, 2, 4, 8)
    (key,) = find.of.key
    assert f"unknown whether the {find.of.record} was created" in str(found.failed)
    assert f"Running the step again is safe: it looks for the {key} first" in str(found.failed)
    assert find(find.body).found == find.only(True)


@kustomers(unique=False)
@pytest.mark.parametrize(
    "fault",
    [Fault.hang(), Fault.hang(store=True), Fault.drip(0.1, store=True)],
    ids=["hangs", "hangs, stored", "drips, stored"],
)
def test_a_post_without_an_answer_in_time_is_looked_for(
    find: Find, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """What it makes is there once, whether or not the first post was stored."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.25)
    find.kustomer.fault(fault)
    found = find(find.body)
    assert found.found == find.only(True)
    assert found.asked == [find.look, find.post, find.look, *([] if fault.store else [find.post])]


@kustomers(unique=False)
@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize("name", [*ODD_SUCCESSES, "a redirect"])
def test_an_odd_success_is_looked_for_and_never_posted_again(find: Find, name: str, store: bool) -> None:
    """What was stored is found; what was not is unknown until the next run has looked."""
    status, body = NOT_A_SUCCESS.get(name, (302, b"<h1>Found</h1>"))
    find.kustomer.fault(Fault.answer(status, body, {"Location": f"/v1/{find.of.record}s"}, store=store))
    found = find(find.body)
    assert (found.asked, found.stored) == ([find.look, find.post, find.look], int(store))
    if not store:
        assert kind(found.failed) == (OddAnswer, status, "unknown", name != "a redirect")
        found = find(find.body)
    assert found.found == find.only(True)


@kustomers(unique=True)
def test_what_appears_late_is_made_once(find: Find) -> None:
    """Where Kustomer refuses the second post, the step looks again; it was this run that made it."""
    find.kustomer.fault(Fault.late_store())
    found = find(find.body)
    assert found.asked == [find.look, find.post, find.look, find.post, find.look]
    assert found.found == find.only(True)


@kustomers(unique=False)
def test_what_appears_late_is_made_twice_where_kustomer_lets_it_be(find: Find) -> None:
    """No look-up can see what isn't there yet; running the step again makes no third one."""
    find.kustomer.fault(Fault.late_store())
    assert find(find.body).stored == 2
    again = find(find.body)
    assert (again.found["id"], again.stored) == (find.stored[0]["id"], 0)


@kustomers(unique=False)
@pytest.mark.parametrize(("name", "create"), [*product(LOOK_UP_FAILS, [False]), *product(NO_ANSWERS, [True])])
def test_nothing_is_taken_for_missing_while_the_look_up_has_no_answer(find: Find, name: str, create: bool) -> None:
    """Neither is nobody returned nor anything made, until Kustomer itself says what is there."""
    fault, problem, status, requests, retryable = LOOK_UP_FAILS[name]
    find(find.body)
    find.kustomer.fault(*[fault] * requests)
    found = find(find.body | {"create": create})
    assert kind(found.failed) == (problem, status, "not_sent", retryable)
    assert found.asked == [find.look] * requests
    assert f"This run created no {find.of.record}." in str(found.failed)
    assert find(find.body | {"create": create}).found == find.only(False)


@create_or_not
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_gateway_s_page_does_not_say_that_nothing_is_there(find: Find, status: int, create: bool) -> None:
    """Only Kustomer's own 404 does."""
    find.kustomer.fault(Fault.answer(status, b"<h1>Not Found</h1>", on="GET"))
    assert kind(find(find.body | {"create": create}).failed) == (OddAnswer, status, "not_sent", True)


@kustomers(unique=False)
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_nothing_is_posted_again_until_the_look_up_has_an_answer(find: Find, name: str) -> None:
    """What was stored under a 504 isn't made again because the look-up after it went wrong."""
    fault, problem, status, requests, retryable = LOOK_UP_FAILS[name]
    find.kustomer.fault(MISSING, Fault.answer(504, store=True), *[fault] * requests)
    found = find(find.body)
    assert kind(found.failed) == (problem, status, "unknown", retryable)
    assert (found.asked, found.stored) == ([find.look, find.post, *[find.look] * requests], 1)
    assert find(find.body).found == find.only(False)


@kustomers(unique=False)
@pytest.mark.parametrize("page", [b"<h1>Not Found</h1>", b"{}"], ids=["a page", "nothing said"])
def test_a_404_after_a_post_is_no_proof_unless_kustomer_says_it(find: Find, page: bytes) -> None:
    """Posting on anybody else's would make a second one."""
    find.kustomer.fault(MISSING, Fault.answer(504, store=True), Fault.answer(404, page, on="GET"))
    found = find(find.body)
    assert kind(found.failed) == (OddAnswer, 404, "unknown", True)
    assert found.asked == [find.look, find.post, find.look]
    assert find(find.body).found == find.only(False)


@kustomers(unique=False)
@pytest.mark.parametrize("on", ["GET", "POST"])
def test_a_limit_is_waited_out_as_told(find: Find, waits: list[float], on: str) -> None:
    """Nothing was stored, so that a look-up and a post may both be repeated."""
    find.kustomer.fault(*[Fault.answer(429, headers={"Retry-After": "7"}, on=on)] * 2)
    found = find(find.body)
    assert (found.found, len(found.asked)) == (find.only(True), 4)
    assert within(waits, 7, 7)


@pytest.mark.parametrize(("on", "outcome"), [("GET", "not_sent"), ("POST", "rejected")])
def test_a_longer_wait_is_the_flow_s(find: Find, waits: list[float], on: str, outcome: str) -> None:
    """It is handed back at once, and running the step after it makes one."""
    find.kustomer.fault(Fault.answer(429, headers={"Retry-After": "600"}, on=on))
    error = find(find.body).failed
    assert (*kind(error), error.retry_after, waits) == (RateLimited, 429, outcome, True, 600, [])
    assert find(find.body).found == find.only(True)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_kustomer_refuses_is_rejected(find: Find, status: int) -> None:
    """The same request would be refused again; Kustomer's reason is told."""
    find.kustomer.fault(Fault.answer(status, {"errors": [{"title": "No", "detail": "not that one"}]}))
    found = find(find.body)
    assert kind(found.failed) == (Rejected, status, "rejected", False)
    assert "No - not that one" in str(found.failed)
    assert found.asked == [find.look, find.post]


def test_a_conflict_that_no_look_up_explains_is_told(find: Find) -> None:
    """Something has the key that a look-up doesn't show, yet or at all: the next run looks again."""
    find.kustomer.fault(Fault.answer(409))
    found = find(find.body)
    assert kind(found.failed) == (Conflict, 409, "rejected", True)
    assert found.asked == [find.look, find.post, find.look]
    assert find.of.conflict in str(found.failed)


# What the key may do


@create_or_not
def test_a_key_that_may_not_look_makes_none(find: Find, create: bool) -> None:
    """It can't know what is there already, so nothing is posted, and the error names the role that it lacks."""
    key = find.kustomer.key(f"org.permission.{find.of.record}.create")
    found = find(find.body | {"create": create}, apiKey=key)
    assert kind(found.failed) == (AccessDenied, 403, "not_sent", False)
    assert f"needs the role org.permission.{find.of.record}.read" in str(found.failed)
    assert found.asked == [find.look]


def test_a_key_that_may_not_create_is_told_so(find: Find) -> None:
    """It finds what is there; the error of making one names the role that it lacks."""
    key = find.kustomer.key(f"org.permission.{find.of.record}.read")
    found = find(find.body, apiKey=key)
    assert kind(found.failed) == (AccessDenied, 403, "rejected", False)
    assert f"needs the role org.permission.{find.of.record}.create" in str(found.failed)
    assert found.asked == [find.look, find.post]
    find(find.body)
    assert find(find.body, apiKey=key).found == find.only(False)


def test_a_key_that_may_no_longer_look_does_not_post_again(find: Find) -> None:
    """What became of an uncertain post stays unknown then."""
    refused = Fault.answer(403, {"errors": [{"code": "forbidden"}]}, on="GET")
    find.kustomer.fault(MISSING, Fault.answer(504, store=True), refused)
    found = find(find.body)
    assert kind(found.failed)[:3] == (AccessDenied, 403, "unknown")
    assert found.asked == [find.look, find.post, find.look]
    assert find(find.body).found == find.only(False)


# What is refused without being sent


@pytest.mark.parametrize(
    ("body", "path", "problem"),
    [
        (None, "body", "is missing"),
        ("grace@example.com", "body", "must be an object, not text"),
        (["<CAF1042@mail.acme.example>"], "body", "must be an object, not a list"),
        ({"externalId": "x" * 257}, "body.externalId", "has 257 characters, at most 256 are allowed"),
        (
            {"externalId": "thread \ud83d"},
            "body.externalId",
            "has half of a character in it (a broken emoji): take it out",
        ),
        ({"externalId": 77}, "body.externalId", "must be text, not a number"),
        ({"name": "x" * 257}, "body.name", "has 257 characters, at most 256 are allowed"),
        ({"create": "yes"}, "body.create", "must be true or false, not text"),
        ({"create": 0}, "body.create", "must be true or false, not a number"),
        ({"create": 1}, "body.create", "must be true or false, not a number"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_kustomer_could_not_take_is_told_without_asking(find: Find, body: object, path: str, problem: str) -> None:
    """One path and what is wrong there, without quoting it."""
    assert problems(find(find.body | body if isinstance(body, dict) else body)) == [(path, problem)]


def test_every_problem_is_told_at_once(find: Find) -> None:
    """Those of the resource too."""
    paths = ["auth.apiKey", "auth.orgName", *[f"body.{name}" for name in find.of.wrong]]
    told = problems(find(find.of.wrong, apiKey=" ", orgName="a b"))
    assert sorted(str(path) for path, _ in told) == sorted(paths)


def test_an_unknown_field_is_told_with_the_one_that_is_meant(find: Find) -> None:
    """Common mistakes and other spellings lead to the right name."""
    for meant, names in find.of.mistaken.items():
        for name in names:
            told = problems(find(find.of.key | {name: "x"}))
            assert told == [(f"body.{name}", f"is not a known field: did you mean {meant!r}?")]


@pytest.mark.parametrize("empty", [None, "", [], {}], ids=repr)
def test_fields_that_nobody_touched_count_as_not_given(find: Find, empty: object) -> None:
    """A form submits them in any spelling of empty; one that is wholly untouched names what is needed."""
    untouched = dict.fromkeys(find.of.shape.__annotations__, empty)
    assert problems(find(untouched)) == [find.of.needed]
    assert find(untouched | find.of.key).found == find.nobody
    assert find(untouched | find.body).found == find.only(True)
    assert find.posted == [find.sent]


# What stays inside


def answers(secrets: Sequence[str], on: str) -> list[Fault]:
    """Answers that throw back what they were sent, as it is and as JSON, in every place."""
    said = " ".join(f"{each}, ({each})" for each in secrets)
    quoted, plain = json.dumps([*secrets, said]), json.dumps(dict.fromkeys(secrets, said), ensure_ascii=False)
    reason: Any = {"code": said, "title": said, "detail": said, "source": {"pointer": said}}
    every = {"errors": [reason, said, [said], {"message": quoted}, {"source": {"parameter": said}}, {"detail": plain}]}
    names = [each for each in secrets if each.isascii() and each.isprintable()]
    return [
        *[Fault.answer(status, every, on=on) for status in (400, 401, 403, 409, 500)],
        *[Fault.answer(429, every, {"Retry-After": "600", "x-request-id": each}, on=on) for each in names],
        Fault.answer(403, {"message": plain}, on=on),
        Fault.answer(500, {"message": said}, on=on),
        Fault.answer(503, said.encode(), on=on),
        Fault.answer(302, said.encode(), {"Location": f"/{quote(said)}"}, on=on),
        Fault.answer(200, {"data": {"id": "", "attributes": {"name": said}}}, on=on),
        Fault.answer(200, [said], on=on),
    ]


@pytest.mark.parametrize("on", ["GET", "POST"])
def test_neither_the_key_nor_what_is_private_is_in_an_error_or_the_log(
    find: Find, auth: Body, capsys: pytest.CaptureFixture[str], on: str
) -> None:
    """Not as given, nor as looked for, even where Kustomer quotes it."""
    secrets = [*find.of.hidden, auth["apiKey"]]
    for answer in answers(secrets, on):
        find.kustomer.clear()
        find.kustomer.fault(*[answer] * 9)
        assert spilled(find(find.of.secret | find.somebody).failed, *secrets) == [], answer
    assert spilled(KustomerError("".join(capsys.readouterr())), *secrets) == []


def test_the_log_of_a_success_has_only_the_id(find: Find, capsys: pytest.CaptureFixture[str]) -> None:
    """For one that is made and one that is found, also under another name."""
    body = find.of.secret | find.somebody
    there = find(body).found["id"]
    find(body | {"name": "Somebody Else"})
    log = capsys.readouterr().out
    assert log.count(there) == 2
    assert spilled(KustomerError(log), *find.of.hidden, "Somebody") == []


# As a job


def test_job_makes_one_once(find: Find, windmill: Workspace, auth: Body) -> None:
    """With nothing but the deployed lock, and with the result that a flow reads."""
    args = {"auth": auth, "body": find.of.secret | find.somebody}
    jobs = [worker.run(f"f/kustomer/find_{find.of.record}", args, workspace=windmill) for _ in range(2)]
    assert [job.result for job in jobs] == [find.only(True), find.only(False)]
    assert spilled(KustomerError(jobs[0].logs + jobs[1].logs), *find.of.hidden, auth["apiKey"]) == []
