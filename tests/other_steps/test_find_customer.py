"""A customer is found by what identifies them, and made once where nobody is there, whatever goes wrong on the way."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import pytest

from f.kustomer import wire
from f.kustomer.errors import AccessDenied, Conflict, InvalidInput, KustomerError, OddAnswer, RateLimited, Rejected
from f.kustomer.find_customer import Customer, main
from tests.conftest import Body
from tests.create_message.test_outcomes import BROKEN, LOOK_UP_FAILS, NOT_A_SUCCESS, within
from tests.errors.test_key_stays_secret import spilled
from tests.stand_ins.test_kustomer import create
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

T = TypeVar("T")

step: Callable[[Any, Any], Body] = main

GRACE: Body = {"email": "grace@example.com", "create": True}
IDENTIFIERS = {"externalId": "shop/77", "email": "grace@example.com", "phone": "+4930765432"}
NOBODY = {"id": None, "created": False}
# Of the many answers that aren't Kustomer's, some of each kind.
ODD_SUCCESSES = ("empty", "no content", "a web page", "an empty object", "a list", "null data", "no id")
NO_ANSWERS = ("500", "reset", "429 for an hour", "400", "a redirect", "a web page", "empty", "a list of messages")
# The answer to a look-up as captured from Kustomer.
MISSING = Fault.answer(404, {"errors": [{"status": 404, "code": "notfound", "title": "Not Found"}]}, on="GET")

stored_or_not = pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
create_or_not = pytest.mark.parametrize("create", [False, True], ids=["create off", "create on"])
shared_identifiers = pytest.mark.parametrize(
    "kustomer", [{"unique_identifiers": False}], ids=["identifiers are shared"], indirect=True
)


@pytest.fixture
def kustomer(request: pytest.FixtureRequest) -> Iterator[Kustomer]:
    """A stand-in of the test's own, with the options that it asks for."""
    with Kustomer(**getattr(request, "param", {})) as server:
        yield server


@dataclass(frozen=True)
class Run:
    """What one run of a step came to: its result or its error, what it asked, and how many it stored."""

    result: Body | None
    error: KustomerError | None
    asked: list[str]
    stored: int

    @property
    def found(self) -> Body:
        """The result; the test fails where there is none."""
        assert self.result is not None, f"the step failed: {self.error!r}"
        return self.result

    @property
    def failed(self) -> KustomerError:
        """The error; the test fails where there is none."""
        assert self.error is not None, f"the step succeeded: {self.result}"
        return self.error


Step = Callable[..., Run]


def audited(step: Callable[[Any, Any], Body], kustomer: Kustomer, stored: Sequence[Body], auth: Body) -> Step:
    """Makes runs of a step, each held against what the stand-in has seen and ``stored``."""

    def run(body: object, **other: object) -> Run:
        requests, before = len(kustomer.requests), len(stored)
        result, error = None, None
        try:
            result = step({**auth, **other}, body)
        except KustomerError as raised:
            error = raised
        asked = [f"{seen.method} {seen.path}" for seen in kustomer.requests[requests:]]
        found = Run(result, error, asked, len(stored) - before)
        if result and result["created"]:
            assert result["id"] in {each["id"] for each in stored}
        if error:
            assert error.attempts == len(asked)
            assert json.loads(json.dumps(vars(error), allow_nan=False)) == vars(error)
            assert (error.outcome != "not_sent") == any(each.startswith("POST ") for each in asked)
            assert error.outcome == "unknown" or found.stored == 0, "it was stored"
        return found

    return run


@pytest.fixture
def find(kustomer: Kustomer, auth: Body) -> Step:
    """Runs the step and holds what it says against what the stand-in has seen and stored."""
    return audited(step, kustomer, kustomer.customers, auth)


def at_once(number: int, run: Callable[[], T]) -> list[T]:
    """What so many runs come to that start together."""
    gate = threading.Barrier(number)

    def started(_: int) -> T:
        gate.wait()
        return run()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(started, range(number)))


def all_look_first(kustomer: Kustomer, *runs: Callable[[], T]) -> list[T]:
    """What runs come to of which each has looked, in vain, before any goes on."""
    kustomer.fault(*[Fault.hang(on="GET")] * len(runs))
    with ThreadPoolExecutor(len(runs)) as pool:
        jobs = [pool.submit(run) for run in runs]
        ends = time.monotonic() + 20
        while len(kustomer.requests) < len(runs) and time.monotonic() < ends:
            threading.Event().wait(0.001)
        kustomer.release()
        return [job.result() for job in jobs]


def look(name: str, value: str) -> str:
    """The look-up of one identifier."""
    return f"GET /v1/customers/{name}={quote(value, safe='')}"


def posted(kustomer: Kustomer) -> list[Any]:
    """The bodies that were posted, as they came over the wire."""
    return [json.loads(seen.body) for seen in kustomer.requests if seen.method == "POST"]


POST = "POST /v1/customers"
LOOK = look("email", "grace@example.com")


# Finding


@create_or_not
@pytest.mark.parametrize(("name", "value"), IDENTIFIERS.items())
def test_any_one_identifier_finds_a_customer_in_one_request(find: Step, name: str, value: str, create: bool) -> None:
    """Whether or not one who isn't there would be made."""
    there = find({name: value, "create": True}).found["id"]
    again = find({name: value, "create": create})
    assert again.found == {"id": there, "created": False}
    assert (again.asked, again.stored) == ([look(name, value)], 0)


@pytest.mark.parametrize(
    ("there", "first"),
    [
        (("externalId", "email", "phone"), "externalId"),
        (("externalId", "email"), "externalId"),
        (("externalId", "phone"), "externalId"),
        (("email", "phone"), "email"),
        (("externalId",), "externalId"),
        (("email",), "email"),
        (("phone",), "phone"),
    ],
    ids=str,
)
@create_or_not
def test_of_several_customers_the_first_by_external_id_email_and_phone_is_taken(
    find: Step, there: Sequence[str], first: str, create: bool
) -> None:
    """In this order, whatever the order in the body, and no further than the first who is there."""
    ids = {name: find({name: IDENTIFIERS[name], "create": True}).found["id"] for name in there}
    found = find(dict(reversed(IDENTIFIERS.items())) | {"create": create})
    assert found.found == {"id": ids[first], "created": False}
    names = list(IDENTIFIERS)
    assert found.asked == [look(name, IDENTIFIERS[name]) for name in names[: names.index(first) + 1]]


@pytest.mark.parametrize("off", [{}, {"create": False}, {"create": None}, {"create": ""}], ids=str)
@pytest.mark.parametrize("names", [["externalId"], ["email"], ["phone"], [*IDENTIFIERS]], ids=str)
def test_nobody_is_no_error_where_create_is_off(find: Step, names: list[str], off: Body) -> None:
    """Each identifier is looked for once, and nothing is made."""
    found = find({name: IDENTIFIERS[name] for name in names} | off)
    assert found.found == NOBODY
    assert found.asked == [look(name, IDENTIFIERS[name]) for name in names]


def test_a_customer_who_is_found_is_left_as_they_are(kustomer: Kustomer, find: Step) -> None:
    """Another name, phone or externalId beside the e-mail that found them changes nothing in Kustomer."""
    find(GRACE | {"name": "Grace Hopper"})
    before = json.dumps(kustomer.customers)
    assert find(GRACE | IDENTIFIERS | {"name": "Somebody Else"}).found["created"] is False
    assert json.dumps(kustomer.customers) == before
    assert [seen.method for seen in kustomer.requests] == ["GET", "POST", "GET", "GET"]


# Spelling

PHONES = {
    "+4930765432": [
        "+49 30 765432",
        " +49 30 765432\n",
        "0049 30 765432",
        "\t0049-30-765432",
        "tel:+4930765432",
        "whatsapp:+49 30 765432",
        "+49 (0)30 765432",
        "+49(0)30/765432",
        "0049 (0) 30 - 765 432",
        "(+49) 30 765432",
        "(+49)(0)30 765432",
        "(0049) 30 765432",
        "+49.30.765.432",
        "+49\N{NO-BREAK SPACE}30\N{NARROW NO-BREAK SPACE}765432",
        "+49 30 765\N{EN DASH}432",
        "+49\N{NON-BREAKING HYPHEN}30\N{NON-BREAKING HYPHEN}765432",
    ],
    "12345": ["1-23-45"],
    "+123456789012345": ["+1234 5678 9012 345"],
    "+15550100100": ["+1 (555) 010-0100", "001 555 010 0100"],
    "030765432": ["030 765432", "(030) 76 54 32", "030/765-432", "(0)30 765432"],
}
SPELLINGS = {
    "email": {
        "grace@example.com": [
            "Grace@Example.COM",
            "GRACE@EXAMPLE.COM",
            " grace@example.com\n",
            "\tgrace@example.com\N{NO-BREAK SPACE}",
        ],
        "grüße@x.example": ["GRÜßE@X.example"],
        '"grace hopper"@x.example': ['"Grace Hopper"@x.example'],
    },
    "phone": PHONES,
    "externalId": {"<g1@x.example>": [" <g1@x.example>\r\n", "\r\n\t<g1@x.example>"], "a b": ["a\r\n b"]},
}


@pytest.mark.parametrize(
    ("name", "plain", "spelling"),
    [
        (name, plain, spelling)
        for name, each in SPELLINGS.items()
        for plain, spellings in each.items()
        for spelling in spellings
    ],
    ids=ascii,
)
def test_one_address_or_number_is_one_customer_however_it_is_spelled(
    kustomer: Kustomer, find: Step, name: str, plain: str, spelling: str
) -> None:
    """What is looked for and what is stored are spelled alike."""
    made = find({name: spelling, "create": True})
    assert made.asked == [look(name, plain), POST]
    assert posted(kustomer) == [{name: plain} if name == "externalId" else {f"{name}s": [{name: plain}]}]
    assert find({name: plain}).found == find({name: spelling}).found == {"id": made.found["id"], "created": False}


BOTH = [look("email", f"ada@{domain}") for domain in ("xn--bcher-kva.example", "bücher.example")]


@pytest.mark.parametrize("email", ["Ada@BÜCHER.example", "ada@bu\N{COMBINING DIAERESIS}cher.example"], ids=ascii)
def test_an_address_with_two_spellings_is_looked_for_in_both(kustomer: Kustomer, find: Step, email: str) -> None:
    """A new customer gets the one in ASCII."""
    made = find({"email": email, "create": True})
    assert made.asked == [*BOTH, POST]
    assert posted(kustomer) == [{"emails": [{"email": "ada@xn--bcher-kva.example"}]}]
    assert find({"email": email}).found == {"id": made.found["id"], "created": False}


@pytest.mark.parametrize("email", ["ada@bücher.example", "ada@xn--bcher-kva.example"], ids=ascii)
def test_a_customer_who_was_stored_with_the_other_spelling_is_found(kustomer: Kustomer, find: Step, email: str) -> None:
    """As somebody else has made them, or a step before there was one spelling."""
    there = create(kustomer, "customers", emails=[{"email": "ada@bücher.example"}]).json()["data"]["id"]
    found = find({"email": email, "create": True})
    assert (found.found, found.asked) == ({"id": there, "created": False}, BOTH)


@pytest.mark.parametrize(
    ("name", "value", "encoded"),
    [
        ("email", "a+b@x.example", "a%2Bb%40x.example"),
        ("email", "a/b?c#d%20&e=f@x.example", "a%2Fb%3Fc%23d%2520%26e%3Df%40x.example"),
        ("email", "jö@mueller.example", "j%C3%B6%40mueller.example"),
        ("email", "\N{PACKAGE}@x.example", "%F0%9F%93%A6%40x.example"),
        ("phone", "+4930765432", "%2B4930765432"),
        ("externalId", "a/b?c#d%", "a%2Fb%3Fc%23d%25"),
        ("externalId", "a+b = c&d", "a%2Bb%20%3D%20c%26d"),
        ("externalId", "../..", "..%2F.."),
        ("externalId", "%2F", "%252F"),
        ("externalId", "größe \N{PACKAGE}", "gr%C3%B6%C3%9Fe%20%F0%9F%93%A6"),
        ("externalId", "Ab1-._~", "Ab1-._~"),
        ("externalId", "=" * 256, "%3D" * 256),
    ],
    ids=ascii,
)
def test_a_value_is_one_percent_encoded_segment_of_the_address(find: Step, name: str, value: str, encoded: str) -> None:
    """So that whoever is made under it is found under it."""
    made = find({name: value, "create": True})
    assert made.asked == [f"GET /v1/customers/{name}={encoded}", POST]
    assert find({name: value}).found == {"id": made.found["id"], "created": False}


# Making one


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"email": "grace@example.com"}, {"emails": [{"email": "grace@example.com"}]}),
        ({"phone": "+4930765432"}, {"phones": [{"phone": "+4930765432"}]}),
        ({"externalId": "shop/77"}, {"externalId": "shop/77"}),
        (
            {"externalId": "shop/77", "name": "Gräce \N{PACKAGE}"},
            {"externalId": "shop/77", "name": "Gräce \N{PACKAGE}"},
        ),
        (
            {**IDENTIFIERS, "name": " Grace Hopper "},
            {
                "name": " Grace Hopper ",
                "externalId": "shop/77",
                "emails": [{"email": "grace@example.com"}],
                "phones": [{"phone": "+4930765432"}],
            },
        ),
    ],
    ids=str,
)
def test_what_is_known_of_a_new_customer_is_posted_and_nothing_else(
    kustomer: Kustomer, find: Step, auth: Body, body: Body, sent: Body
) -> None:
    """In the shape that Kustomer documents, after one look-up for each identifier."""
    made = find(body | {"create": True})
    assert made.found == {"id": kustomer.customers[0]["id"], "created": True}
    assert made.asked == [*[look(name, IDENTIFIERS[name]) for name in IDENTIFIERS if name in body], POST]
    assert posted(kustomer) == [sent]
    headers = kustomer.requests[-1].headers
    assert (headers["Authorization"], headers["Content-Type"]) == (f"Bearer {auth['apiKey']}", "application/json")


def test_a_step_that_is_run_twice_makes_one_customer(find: Step) -> None:
    """A flow's retry or a webhook delivered again finds whom the first run made."""
    first, second = find(GRACE), find(GRACE)
    assert (first.asked, second.asked) == ([LOOK, POST], [LOOK])
    assert (first.found, second.found) == (
        {"id": first.found["id"], "created": True},
        {"id": first.found["id"], "created": False},
    )


def test_the_longest_name_that_kustomer_takes_is_sent(kustomer: Kustomer, find: Step) -> None:
    """256 characters, whatever their number of bytes."""
    assert find(GRACE | {"name": "\N{PACKAGE}" * 256}).stored == 1


# Two runs at once


def test_two_runs_that_both_looked_in_vain_make_one_customer(kustomer: Kustomer, auth: Body) -> None:
    """Kustomer refuses the second post, upon which that run looks again and returns whom the first one made."""
    runs = all_look_first(kustomer, *[lambda: step(auth, GRACE)] * 2)
    assert len(kustomer.customers) == 1
    assert [each["id"] for each in runs] == [kustomer.customers[0]["id"]] * 2
    assert sorted(each["created"] for each in runs) == [False, True]
    assert sorted(f"{seen.method} {seen.path}" for seen in kustomer.requests) == [*[LOOK] * 3, *[POST] * 2]


def test_two_runs_that_share_one_identifier_make_one_customer(kustomer: Kustomer, auth: Body) -> None:
    """Also where one of them knows more of the customer than the other."""
    runs = all_look_first(
        kustomer, lambda: step(auth, GRACE), lambda: step(auth, {**IDENTIFIERS, "name": "Grace", "create": True})
    )
    assert len(kustomer.customers) == 1
    assert [each["id"] for each in runs] == [kustomer.customers[0]["id"]] * 2
    assert sorted(each["created"] for each in runs) == [False, True]


def test_many_runs_at_once_make_one_customer(kustomer: Kustomer, auth: Body) -> None:
    """However their requests come in."""
    runs = at_once(8, lambda: step(auth, {**IDENTIFIERS, "create": True}))
    assert len(kustomer.customers) == 1
    assert {each["id"] for each in runs} == {kustomer.customers[0]["id"]}
    assert [each["created"] for each in runs].count(True) == 1


@shared_identifiers
def test_two_runs_at_once_make_two_customers_where_kustomer_lets_them(kustomer: Kustomer, auth: Body) -> None:
    """Nothing but Kustomer's refusal keeps them apart; later runs all find the same one."""
    runs = all_look_first(kustomer, *[lambda: step(auth, GRACE)] * 2)
    assert {each["id"] for each in runs} == {each["id"] for each in kustomer.customers}
    assert [each["created"] for each in runs] == [True, True]
    assert step(auth, GRACE) == {"id": kustomer.customers[0]["id"], "created": False}


# What goes wrong on the way


@pytest.mark.parametrize("name", BROKEN)
def test_a_customer_who_was_stored_is_found_after_a_broken_off_post(
    kustomer: Kustomer, find: Step, waits: list[float], name: str
) -> None:
    """The step waits and looks again before it would post again."""
    kustomer.fault(BROKEN[name][0](True))
    found = find(GRACE)
    assert found.found == {"id": kustomer.customers[0]["id"], "created": True}
    assert (found.asked, found.stored) == ([LOOK, POST, LOOK], 1)
    assert within(waits, 2)


@pytest.mark.parametrize("name", [*BROKEN, "reset unread"])
def test_a_customer_who_was_not_stored_is_posted_again_after_looking(
    kustomer: Kustomer, find: Step, waits: list[float], name: str
) -> None:
    """There is a look-up between any two posts."""
    kustomer.fault(Fault.reset(before_reading=True) if name == "reset unread" else BROKEN[name][0](False))
    found = find(GRACE)
    assert found.found == {"id": kustomer.customers[0]["id"], "created": True}
    assert (found.asked, found.stored) == ([LOOK, POST, LOOK, POST], 1)
    assert within(waits, 2)


@pytest.mark.parametrize("name", BROKEN)
def test_a_post_that_fails_for_ever_is_given_up_as_unknown(
    kustomer: Kustomer, find: Step, waits: list[float], name: str
) -> None:
    """Nobody is there, and nobody could know; the next run looks first, and makes one."""
    fault, problem, status = BROKEN[name]
    kustomer.fault(*[fault(False)] * 3)
    found = find(GRACE)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "unknown", True)
    assert (found.asked, found.stored) == ([LOOK, *[POST, LOOK] * 3], 0)
    assert within(waits, 2, 4, 8)
    assert "unknown whether the customer was created" in str(error)
    assert "Running the step again is safe: it looks for the email first" in str(error)
    assert find(GRACE).found["created"]
    assert len(kustomer.customers) == 1


@pytest.mark.parametrize(
    "fault",
    [Fault.hang(), Fault.hang(store=True), Fault.drip(0.2, store=True)],
    ids=["hangs", "hangs, stored", "drips, stored"],
)
def test_a_post_without_an_answer_in_time_is_looked_for(
    kustomer: Kustomer, find: Step, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Its customer is there once, whether or not the first post was stored."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.4)
    kustomer.fault(fault)
    found = find(GRACE)
    assert found.found == {"id": kustomer.customers[0]["id"], "created": True}
    assert (found.asked, found.stored) == ([LOOK, POST, LOOK, *([] if fault.store else [POST])], 1)


@stored_or_not
@pytest.mark.parametrize("name", [*ODD_SUCCESSES, "a redirect"])
def test_an_odd_success_is_looked_for_and_never_posted_again(
    kustomer: Kustomer, find: Step, name: str, store: bool
) -> None:
    """What was stored is found; what was not is unknown until the next run has looked."""
    status, body = NOT_A_SUCCESS.get(name, (302, b"<h1>Found</h1>"))
    kustomer.fault(Fault.answer(status, body, {"Location": "/v1/customers"}, store=store))
    found = find(GRACE)
    assert (found.asked, found.stored) == ([LOOK, POST, LOOK], int(store))
    if store:
        assert found.found == {"id": kustomer.customers[0]["id"], "created": True}
    else:
        error = found.failed
        assert (type(error), error.status, error.outcome) == (OddAnswer, status, "unknown")
        assert error.retryable == (name != "a redirect")
        assert find(GRACE).found["created"]
    assert len(kustomer.customers) == 1


def test_a_customer_who_appears_late_is_made_once(kustomer: Kustomer, find: Step) -> None:
    """Kustomer refuses the second post, upon which the step looks again; it was this run that made them."""
    kustomer.fault(Fault.late_store())
    found = find(GRACE)
    assert (found.asked, found.stored) == ([LOOK, POST, LOOK, POST, LOOK], 1)
    assert found.found == {"id": kustomer.customers[0]["id"], "created": True}


@shared_identifiers
def test_a_customer_who_appears_late_is_made_twice_where_kustomer_lets_them_be(kustomer: Kustomer, find: Step) -> None:
    """No look-up can see who isn't there yet; running the step again makes no third one."""
    kustomer.fault(Fault.late_store())
    assert find(GRACE).stored == 2
    assert find(GRACE).found["id"] == kustomer.customers[0]["id"]
    assert len(kustomer.customers) == 2


@pytest.mark.parametrize(
    ("name", "create"), [*[(name, False) for name in LOOK_UP_FAILS], *[(name, True) for name in NO_ANSWERS]]
)
def test_nobody_is_taken_for_missing_while_the_look_up_has_no_answer(
    kustomer: Kustomer, find: Step, name: str, create: bool
) -> None:
    """Neither is nobody returned nor anybody made, until Kustomer itself says who is there."""
    fault, problem, status, requests, retryable = LOOK_UP_FAILS[name]
    there = find(GRACE).found["id"]
    kustomer.fault(*[fault] * requests)
    found = find(GRACE | {"create": create})
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "not_sent", retryable)
    assert found.asked == [LOOK] * requests
    assert "This run created nothing" in str(error)
    assert find(GRACE | {"create": create}).found == {"id": there, "created": False}


@create_or_not
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_gateway_s_page_does_not_say_that_nobody_is_there(
    kustomer: Kustomer, find: Step, status: int, create: bool
) -> None:
    """Only Kustomer's own 404 does."""
    kustomer.fault(Fault.answer(status, b"<h1>Not Found</h1>", on="GET"))
    error = find(GRACE | {"create": create}).failed
    assert (type(error), error.status, error.outcome, error.retryable) == (OddAnswer, status, "not_sent", True)


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_nothing_is_posted_again_until_the_look_up_has_an_answer(kustomer: Kustomer, find: Step, name: str) -> None:
    """A customer who was stored under a 504 isn't made again because the look-up after it went wrong."""
    fault, problem, status, requests, retryable = LOOK_UP_FAILS[name]
    kustomer.fault(MISSING, Fault.answer(504, store=True), *[fault] * requests)
    found = find(GRACE)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "unknown", retryable)
    assert (found.asked, found.stored) == ([LOOK, POST, *[LOOK] * requests], 1)
    assert find(GRACE).found == {"id": kustomer.customers[0]["id"], "created": False}


@pytest.mark.parametrize("on", ["GET", "POST"])
def test_a_limit_is_waited_out_as_told(kustomer: Kustomer, find: Step, waits: list[float], on: str) -> None:
    """Nothing was stored, so that a look-up and a post may both be repeated."""
    kustomer.fault(*[Fault.answer(429, headers={"Retry-After": "7"}, on=on)] * 2)
    found = find(GRACE)
    assert (found.stored, len(found.asked)) == (1, 4)
    assert within(waits, 7, 7)


@pytest.mark.parametrize(("on", "outcome"), [("GET", "not_sent"), ("POST", "rejected")])
def test_a_longer_wait_is_the_flow_s(kustomer: Kustomer, find: Step, waits: list[float], on: str, outcome: str) -> None:
    """It is handed back at once, and running the step after it makes the customer."""
    kustomer.fault(Fault.answer(429, headers={"Retry-After": "600"}, on=on))
    error = find(GRACE).failed
    assert (type(error), error.outcome, error.retryable, error.retry_after) == (RateLimited, outcome, True, 600)
    assert waits == []
    assert find(GRACE).stored == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refused_customer_is_rejected(kustomer: Kustomer, find: Step, status: int) -> None:
    """The same request would be refused again; Kustomer's reason is told."""
    kustomer.fault(Fault.answer(status, {"errors": [{"title": "No", "detail": "not that one"}]}))
    found = find(GRACE)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (Rejected, status, "rejected", False)
    assert "No - not that one" in str(error)
    assert found.asked == [LOOK, POST]


def test_a_conflict_that_no_look_up_explains_is_told(kustomer: Kustomer, find: Step) -> None:
    """Somebody has the identifier whom a look-up doesn't show, yet or at all: the next run looks again."""
    kustomer.fault(Fault.answer(409))
    found = find(GRACE)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (Conflict, 409, "rejected", True)
    assert found.asked == [LOOK, POST, LOOK]
    assert "look in Kustomer for who has this" in str(error)


# What the key may do


@create_or_not
def test_a_key_that_may_not_look_makes_nobody(kustomer: Kustomer, find: Step, create: bool) -> None:
    """It can't know who is there already, so nothing is posted, and the error names the role that it lacks."""
    found = find(GRACE | {"create": create}, apiKey=kustomer.key("org.permission.customer.create"))
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (AccessDenied, 403, "not_sent", False)
    assert "needs the role org.permission.customer.read" in str(error)
    assert found.asked == [LOOK]


def test_a_key_that_may_not_create_is_told_so(kustomer: Kustomer, find: Step) -> None:
    """It finds who is there; the error of making one names the role that it lacks."""
    key = kustomer.key("org.permission.customer.read")
    found = find(GRACE, apiKey=key)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (AccessDenied, 403, "rejected", False)
    assert "needs the role org.permission.customer.create" in str(error)
    assert found.asked == [LOOK, POST]
    find(GRACE)
    assert find(GRACE, apiKey=key).found["created"] is False


def test_a_key_that_may_no_longer_look_does_not_post_again(kustomer: Kustomer, find: Step) -> None:
    """What became of an uncertain post stays unknown then."""
    refused = Fault.answer(403, {"errors": [{"code": "forbidden"}]}, on="GET")
    kustomer.fault(MISSING, Fault.answer(504, store=True), refused)
    found = find(GRACE)
    error = found.failed
    assert (type(error), error.status, error.outcome) == (AccessDenied, 403, "unknown")
    assert found.asked == [LOOK, POST, LOOK]
    assert find(GRACE).found == {"id": kustomer.customers[0]["id"], "created": False}


# What is refused without being sent

NEEDED = "must have an email, a phone or an externalId"
NO_EMAIL = "must be an e-mail address such as ada@example.com, without a name"
NO_PHONE = "must be a phone number such as +49 30 1234567"
NO_COUNTRY = "must have a country's code that exists, and a number behind it, as in +49 30 1234567"
NOT_POSSIBLE = "begins with 00 and is no possible number abroad: give it as in +49 30 1234567"
UNSEEN = "has an invisible or broken character in it: type it anew"


@pytest.mark.parametrize(
    ("body", "path", "problem"),
    [
        (None, "body", "is missing"),
        ("grace@example.com", "body", "must be an object, not text"),
        ({}, "body", NEEDED),
        ({"create": True, "name": "Grace Hopper"}, "body", NEEDED),
        ({"email": " ", "name": "x"}, "body.email", NO_EMAIL),
        *[
            ({"email": email}, "body.email", NO_EMAIL)
            for email in (
                "grace",
                "Grace Hopper <grace@example.com>",
                "<grace@example.com>",
                "grace@example.com, ada@example.com",
                "grace @example.com",
                "a@b@c",
                "@example.com",
                "grace@",
            )
        ],
        *[
            ({"email": email}, "body.email", UNSEEN)
            for email in (
                "grace@example.com\N{ZERO WIDTH SPACE}",
                "\N{LEFT-TO-RIGHT EMBEDDING}grace@example.com\N{POP DIRECTIONAL FORMATTING}",
                "grace\0@example.com",
                "grace\ud800@example.com",
            )
        ],
        ({"email": ["grace@example.com"]}, "body.email", "must be text, not a list"),
        *[
            ({"phone": phone}, "body.phone", NO_PHONE)
            for phone in (
                "grace",
                "1234",
                "+1234",
                "+1234567890123456",
                "+49 30 765432 ext. 5",
                "+49 30 765432, 030 765432",
                "030 765432 +49 30 765432",
                "++49 30 765432",
                "\N{ARABIC-INDIC DIGIT ONE}2345678",
                "+49 30 765432\ud800",
            )
        ],
        ({"phone": "+999 30 765432"}, "body.phone", NO_COUNTRY),
        ({"phone": "0049 30"}, "body.phone", NO_PHONE),
        ({"phone": "0049 301"}, "body.phone", NOT_POSSIBLE),
        ({"phone": 4930765432}, "body.phone", "must be text, not a number"),
        ({"externalId": "x" * 257}, "body.externalId", "has 257 characters, at most 256 are allowed"),
        (
            {"externalId": "\ud83d"},
            "body.externalId",
            "has half of a character in it (a broken emoji): take it out",
        ),
        ({"externalId": 77}, "body.externalId", "must be text, not a number"),
        (GRACE | {"name": "x" * 257}, "body.name", "has 257 characters, at most 256 are allowed"),
        (GRACE | {"create": "yes"}, "body.create", "must be true or false, not text"),
        (GRACE | {"create": 1}, "body.create", "must be true or false, not a number"),
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


@pytest.mark.parametrize("half", ["\ud83d", "\ud83d Grace"])
def test_a_name_may_be_any_text(find: Step, half: str) -> None:
    """Nothing looks for it, so that a broken emoji in it is no reason to make nobody."""
    assert find(GRACE | {"name": half}).found["created"]


def test_every_problem_is_told_at_once(find: Step) -> None:
    """Those of the resource too."""
    body = {"email": "grace", "phone": "1", "externalId": 7, "create": "on", "name": [1], "e-mail": "x"}
    found = find(body, apiKey=" ", orgName="a b")
    paths = ["auth.apiKey", "auth.orgName", *[f"body.{name}" for name in body]]
    assert sorted(str(each["path"]) for each in found.failed.errors) == sorted(paths)
    assert found.asked == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mail", "email"),
        ("Email", "email"),
        ("e-mail", "email"),
        ("emailAddress", "email"),
        ("email_address", "email"),
        ("from", "email"),
        ("emails", "email"),
        ("phoneNumber", "phone"),
        ("phone_number", "phone"),
        ("mobile", "phone"),
        ("tel", "phone"),
        ("phones", "phone"),
        ("external_id", "externalId"),
        ("externalID", "externalId"),
        ("id", "externalId"),
        ("customerId", "externalId"),
        ("fullName", "name"),
        ("display_name", "name"),
        ("names", "name"),
    ],
)
def test_an_unknown_field_is_told_with_the_one_that_is_meant(find: Step, name: str, meant: str) -> None:
    """Common mistakes and other spellings lead to the right name."""
    found = find(GRACE | {name: "x"})
    assert [(each["path"], each["title"]) for each in found.failed.errors] == [
        (f"body.{name}", f"is not a known field: did you mean {meant!r}?")
    ]
    assert found.asked == []


@pytest.mark.parametrize("empty", [None, "", [], {}], ids=repr)
def test_fields_that_nobody_touched_count_as_not_given(kustomer: Kustomer, find: Step, empty: object) -> None:
    """A form submits them in any spelling of empty; one that is wholly untouched names what is needed."""
    untouched = dict.fromkeys(Customer.__annotations__, empty)
    error = find(untouched).failed
    assert [(each["path"], each["title"]) for each in error.errors] == [("body", NEEDED)]
    assert find(untouched | {"email": "grace@example.com"}).found == NOBODY
    assert find(untouched | GRACE).stored == 1
    assert posted(kustomer) == [{"emails": [{"email": "grace@example.com"}]}]


# What stays inside

SECRET: Body = {
    "email": " Grace.Hopper@Example.com",
    "phone": "+49 (0)30 765-432",
    "externalId": "shop-grace-77",
    "name": 'Grace "Amazing" Höpper\nRear Admiral',
    "create": True,
}
TIDIED = ["grace.hopper@example.com", "+4930765432", "4930765432"]
QUOTED = [str(each).strip() for each in SECRET.values() if each is not True] + TIDIED
ANSWERS: list[Callable[[str, str], Fault]] = [
    lambda said, on: Fault.answer(400, {"errors": [{"title": said, "detail": said, "code": said}]}, on=on),
    lambda said, on: Fault.answer(400, {"errors": [{"source": {"parameter": said}}, said, [said]]}, on=on),
    lambda said, on: Fault.answer(401, {"errors": [{"message": json.dumps(said)}]}, on=on),
    lambda said, on: Fault.answer(403, {"message": json.dumps(said, ensure_ascii=False)}, on=on),
    lambda said, on: Fault.answer(409, {"errors": [{"detail": f"taken: {said}"}]}, on=on),
    lambda said, on: Fault.answer(429, {"message": said}, {"Retry-After": "600", "x-request-id": TIDIED[0]}, on=on),
    lambda said, on: Fault.answer(500, {"message": said}, on=on),
    lambda said, on: Fault.answer(503, said.encode(), on=on),
    lambda said, on: Fault.answer(302, said.encode(), {"Location": f"/{quote(said)}"}, on=on),
    lambda said, on: Fault.answer(200, {"data": {"id": "", "attributes": {"name": said}}}, on=on),
    lambda said, on: Fault.answer(200, [said], on=on),
]


@pytest.mark.parametrize("on", ["GET", "POST"])
def test_nothing_that_identifies_anybody_is_in_an_error_or_the_log(
    kustomer: Kustomer, find: Step, auth: Body, capsys: pytest.CaptureFixture[str], on: str
) -> None:
    """Not the key, e-mail, phone, id or name, as given or as looked for, even where Kustomer quotes them."""
    secrets = [*QUOTED, auth["apiKey"]]
    said = " ".join(f"{each!s}, ({each})" for each in secrets)
    for answer in ANSWERS:
        kustomer.clear()
        kustomer.fault(*[answer(said, on)] * 9)
        error = find(SECRET).failed
        assert spilled(error, *secrets) == [], answer(said, on)
    assert spilled(KustomerError("".join(capsys.readouterr()), outcome="unknown"), *secrets) == []


@pytest.mark.parametrize("given", [{"email": "a+b@x.example"}, {"phone": "+49 30 765432"}], ids=str)
def test_an_address_of_a_look_up_is_not_shown(kustomer: Kustomer, find: Step, given: Body) -> None:
    """Kustomer, or a proxy, may quote what it was asked for, in which e-mail and phone stand percent-encoded."""
    path = find(given).asked[0].split()[1]
    kustomer.fault(Fault.answer(400, {"errors": [{"message": f"Cannot GET {path}"}]}, on="GET"))
    assert spilled(find(given).failed, path.partition("=")[2]) == []


def test_what_is_wrong_is_not_quoted(find: Step) -> None:
    """A value, or a name that looks like one, stays inside."""
    error = find({"email": "Grace <grace@example.com>", "phone": "030 GRACE", "grace@example.com": "x"}).failed
    assert len(error.errors) == 3
    assert spilled(error, "grace", "Grace", "GRACE") == []


def test_the_log_of_a_success_names_nobody(find: Step, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the id in Kustomer, for one who is made and one who is found, also under another name."""
    there = find(SECRET).found["id"]
    find(SECRET | {"name": "Somebody Else"})
    log = capsys.readouterr().out
    assert log.count(there) == 2
    assert [each for each in [*QUOTED, "Somebody"] if each in log] == []


# As a job


def test_job_makes_a_customer_once(kustomer: Kustomer, auth: Body) -> None:
    """With nothing but the deployed lock, and with the result that a flow reads."""
    with Workspace(scripts_from=worker.ROOT) as workspace:
        jobs = [
            worker.run("f/kustomer/find_customer", {"auth": auth, "body": SECRET}, workspace=workspace)
            for _ in range(2)
        ]
    there = kustomer.customers[0]["id"]
    assert [job.result for job in jobs] == [{"id": there, "created": True}, {"id": there, "created": False}]
    assert [each for each in [*QUOTED, auth["apiKey"]] if each in jobs[0].logs + jobs[1].logs] == []
    assert len(kustomer.customers) == 1
