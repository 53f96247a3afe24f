"""A 429 is waited out as it says, within a budget; a longer wait is the flow's, which holds no worker."""

import random
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f.kustomer.shared import client
from f.kustomer.shared.client import backoff, retry_after
from f.kustomer.shared.errors import KustomerError, RateLimited
from tests.conftest import Body, Run, Step, within
from tests.standin.kustomer import Fault, Kustomer

EXTERNAL_ID = {"externalId": "order-1042"}
BUDGET = 75
# Noon of a Friday, in epoch seconds.
NOW = 1_800_014_400.0

with_and_without_external_id = pytest.mark.parametrize("extra", [{}, EXTERNAL_ID], ids=["no externalId", "externalId"])


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Tokyo"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The worker's time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def limited(on: str = "POST", **headers: str) -> Fault:
    """A 429 in Kustomer's shape; an underscore in a header's name stands for a hyphen."""
    body = {"errors": [{"code": "too_many_requests", "message": "Too many requests"}]}
    return Fault.answer(429, body, {name.replace("_", "-"): value for name, value in headers.items()}, on=on)


def given_up(found: Run, requests: int, retry_after: float | None, outcome: str = "rejected") -> KustomerError:
    """Holds what a step says that gives up on a limit: safe to run again, and when."""
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (RateLimited, 429, outcome, True)
    assert (error.attempts, found.requests, found.stored) == (requests, requests, 0)
    assert error.retry_after == (None if retry_after is None else pytest.approx(retry_after, abs=2))
    assert str(error).startswith("429 Too Many Requests")
    assert "Running the step again" in str(error)
    return error


# Waiting


@with_and_without_external_id
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_a_limit_is_waited_out_by_backing_off(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], times: int, extra: Body
) -> None:
    """Nothing was stored, so that posting again is safe without an externalId too."""
    kustomer.fault(*[limited()] * times)
    found = run(message | extra)
    assert found.id == kustomer.messages[0]["id"]
    assert (found.stored, len(kustomer.posts)) == (1, times + 1)
    assert within(waits, *(2, 4, 8, 16, 32)[:times])


@pytest.mark.parametrize("times", [1, 3, 5])
def test_a_limited_look_up_is_waited_out(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], times: int
) -> None:
    """And then the message is posted, once."""
    kustomer.fault(*[limited("GET")] * times)
    found = run(message | EXTERNAL_ID)
    assert (found.stored, len(kustomer.gets), len(kustomer.posts)) == (1, times + 1, 1)
    assert within(waits, *(2, 4, 8, 16, 32)[:times])


@with_and_without_external_id
def test_a_limit_without_end_is_given_up_after_six_attempts(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], extra: Body
) -> None:
    """By then a window of a minute has passed."""
    kustomer.fault(*[limited()] * 50)
    given_up(run(message | extra), 6 + len(extra), None)
    assert within(waits, 2, 4, 8, 16, 32)
    assert 60 < sum(waits) <= BUDGET


def test_a_limit_without_end_on_looking_sends_nothing(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float]
) -> None:
    """The message has not left the worker."""
    kustomer.fault(*[limited("GET")] * 50)
    given_up(run(message | EXTERNAL_ID), 6, None, "not_sent")
    assert sum(waits) <= BUDGET


def test_look_up_and_post_share_one_budget(kustomer: Kustomer, run: Step, message: Body, waits: list[float]) -> None:
    """What waiting to look has taken is not there for waiting to post."""
    kustomer.fault(*[limited("GET")] * 4, *[limited()] * 50)
    error = run(message | EXTERNAL_ID).failed
    assert (type(error), error.outcome, error.retryable) == (RateLimited, "rejected", True)
    assert within(waits, 2, 4, 8, 16, 2, 4, 8, 16)
    assert sum(waits) <= BUDGET


def test_jobs_do_not_come_back_in_step(kustomer: Kustomer, run: Step, message: Body, waits: list[float]) -> None:
    """Up to a fifth is added at random."""
    for _ in range(10):
        kustomer.fault(limited(Retry_After="10"))
        run(message)
    assert all(10 <= wait <= 12 for wait in waits)
    assert len(set(waits)) == 10


@with_and_without_external_id
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "60"}, 60),
        ({"Retry-After": "{date:20}"}, 20),
        ({"x-ratelimit-reset": "{epoch:20}"}, 20),
        ({"x-ratelimit-reset": "{milliseconds:20}"}, 20),
        ({"x-ratelimit-reset": "20"}, 20),
        ({"Retry-After": "5", "x-ratelimit-reset": "{epoch:50}"}, 5),
        ({"Retry-After": "soon", "x-ratelimit-reset": "{epoch:50}"}, 50),
    ],
    ids=str,
)
def test_a_limit_is_waited_out_as_told(
    kustomer: Kustomer,
    run: Step,
    message: Body,
    waits: list[float],
    headers: dict[str, str],
    told: float,
    extra: Body,
) -> None:
    """By the server's clock, here an hour ahead of the worker's."""
    server = int(time.time()) + 3600
    kustomer.fault(limited(**stamped(headers, server), Date=formatdate(server, usegmt=True)))
    assert run(message | extra).stored == 1
    assert within(waits, told)


def stamped(headers: dict[str, str], now: int) -> dict[str, str]:
    """Fills in times so many seconds after now."""
    written: dict[str, Callable[[int], str]] = {
        "date": lambda at: formatdate(at, usegmt=True),
        "epoch": str,
        "milliseconds": lambda at: f"{at}000",
    }
    filled = {}
    for name, value in headers.items():
        kind, _, seconds = value.strip("{}").partition(":")
        filled[name] = written[kind](now + int(seconds)) if kind in written else value
    return filled


@with_and_without_external_id
@pytest.mark.parametrize("jitter", [0, 1], ids=["least jitter", "most jitter"])
@pytest.mark.parametrize("seconds", [1, 60, 63, 70, 74.5])
def test_a_wait_that_fits_into_the_budget_is_followed_by_a_request(
    kustomer: Kustomer,
    run: Step,
    message: Body,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    jitter: int,
    extra: Body,
) -> None:
    """Whatever jitter adds: no worker sleeps for more than a minute, and then doesn't even ask."""
    monkeypatch.setattr(random, "uniform", lambda *ends: ends[jitter])
    kustomer.fault(limited(Retry_After=str(seconds)))
    assert run(message | extra).stored == 1
    assert within(waits, seconds)
    assert sum(waits) <= BUDGET


# Handing back


@with_and_without_external_id
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Retry-After": "76"}, 76),
        ({"Retry-After": "3600"}, 3600),
        ({"Retry-After": "86400"}, 86400),
        ({"Retry-After": "{date:3600}"}, 3600),
        ({"x-ratelimit-reset": "{epoch:3600}"}, 3600),
        ({"x-ratelimit-reset": "{milliseconds:3600}"}, 3600),
        ({"x-ratelimit-reset": "3600"}, 3600),
    ],
    ids=str,
)
def test_a_wait_beyond_the_budget_is_handed_back_at_once(
    kustomer: Kustomer,
    run: Step,
    message: Body,
    waits: list[float],
    headers: dict[str, str],
    told: float,
    extra: Body,
) -> None:
    """No worker sleeps for it: the error says how long the flow has to."""
    kustomer.fault(limited(**stamped(headers, int(time.time()))))
    error = given_up(run(message | extra), 1 + len(extra), told)
    assert waits == []
    assert f"again in {error.retry_after:.0f} s" in str(error) or f"again in {told} s" in str(error)
    assert run(message | extra).stored == 1


def test_a_wait_beyond_the_budget_on_looking_is_handed_back_at_once(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float]
) -> None:
    """Nothing is sent before it is over."""
    kustomer.fault(limited("GET", Retry_After="3600"))
    given_up(run(message | EXTERNAL_ID), 1, 3600, "not_sent")
    assert waits == []


def test_a_wait_beyond_what_is_left_is_handed_back(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float]
) -> None:
    """The second 40 s no longer fit into 75 s."""
    kustomer.fault(*[limited(Retry_After="40")] * 9)
    given_up(run(message), 2, 40)
    assert within(waits, 40)


@pytest.mark.parametrize("seconds", [0.001, 1, 13, 20, 25, 37, 74])
@with_and_without_external_id
def test_all_waits_together_keep_within_the_budget(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], seconds: float, extra: Body
) -> None:
    """Whatever a server tells, again and again, to look-ups and posts."""
    kustomer.fault(*[limited("*", Retry_After=str(seconds))] * 50)
    error = run(message | extra).failed
    assert (type(error), error.retry_after, error.retryable) == (RateLimited, seconds, True)
    assert len(waits) == error.attempts - 1 == min(5, int(BUDGET // seconds), len(waits))
    assert sum(waits) <= BUDGET
    assert all(seconds <= wait <= seconds * 1.2 for wait in waits)


# Kustomer's own limits


def test_the_organisations_limit_is_waited_out(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    """x-ratelimit-reset says when its minute is over."""
    start = int(time.time())
    clock = [float(start)]
    kustomer.now = lambda: clock[0]
    kustomer.org_limit = 1
    assert run(message).stored == 1

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    assert run(message).stored == 1
    assert len(waits) == 1
    assert 55 <= waits[0] <= BUDGET


def test_a_customers_limit_is_waited_out(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    """Its 429 says nothing on how long: backing off outlasts the minute."""
    clock = [time.time()]
    kustomer.now = lambda: clock[0]
    for _ in range(120):
        run(message)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    assert run(message).stored == 1
    assert within(waits, 2, 4, 8, 16, 32)


def test_the_error_says_which_limit(kustomer: Kustomer, run: Step, message: Body) -> None:
    """Nothing left of the organisation's requests, or else the limit for one customer."""
    told = {"Retry_After": "3600"}
    kustomer.fault(limited(**told, x_ratelimit_remaining="0"))
    assert "The organisation's limit" in str(run(message).failed)
    kustomer.fault(limited(**told, x_ratelimit_remaining="950"))
    assert "for one customer" in str(run(message).failed)
    kustomer.fault(limited("GET", **told, x_ratelimit_remaining="950"))
    assert "for one customer" not in str(run(message | EXTERNAL_ID).failed), "a look-up creates nothing"


def test_a_busy_server_is_given_the_time_that_it_asks_for(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float]
) -> None:
    """503 may have Retry-After too, on looking and on posting."""
    kustomer.fault(
        Fault.answer(503, headers={"Retry-After": "9"}, on="GET"), Fault.answer(503, headers={"Retry-After": "7"})
    )
    assert run(message | EXTERNAL_ID).stored == 1
    assert within(waits, 9, 7)


# Odd headers

SENSIBLE = {
    "30": 30,
    " 30 ": 30,
    "30.5": 30.5,
    "030": 30,
    "1e1": 10,
    "0.001": 0.001,
    "86400": 86_400,
    "Fri, 15 Jan 2027 12:00:30 GMT": 30,
    "Friday, 15-Jan-27 12:00:30 GMT": 30,
    "Fri Jan 15 12:00:30 2027": 30,
    "Fri, 15 Jan 2027 12:00:30 +0000": 30,
    "Fri, 15 Jan 2027 12:00:30 -0000": 30,
    "Fri, 15 Jan 2027 14:00:30 +0200": 30,
    "Frx, 15 Jan 2027 12:00:30 GMT": 30,
    "15 Jan 2027 12:00:30 GMT": 30,
    "Sat, 16 Jan 2027 12:00:00 GMT": 86_400,
}
SENSELESS = [
    "",
    " ",
    "0",
    "-0",
    "0.0",
    "-10",
    "-0.001",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "Infinity",
    "1e400",
    "86400.001",
    "86401",
    "99999999999999999999999999",
    "9" * 5000,
    "soon",
    "30s",
    "PT30S",
    "0x1e",
    "1,5",
    "30, 30",
    "30;q=1",
    "null",
    "None",
    "[30]",
    "\t",
    ",",
    ":",
    "GMT",
    "Fri, 15 Jan 2027 11:59:30 GMT",
    "Fri, 15 Jan 2027 12:00:00 GMT",
    "Sat, 16 Jan 2027 12:00:01 GMT",
    "Fri, 15 Jan 100000 12:00:30 GMT",
    "Fri, 15 Jan 9999 12:00:30 GMT",
    "Fri, 15 Jan 0000 12:00:30 GMT",
    "Fri, 01 Jan 0001 00:00:00 +2300",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 99 Jan 2027 12:00:30 GMT",
    "Fri, 15 Foo 2027 12:00:30 GMT",
    "Fri, 15 Jan 2027 25:61:61 GMT",
    "Fri, 15 Jan 2027 12:00:30 +99999999999999",
    "Fri, 15 Jan 2027",
    "2027-01-15T12:00:30Z",
]


@pytest.mark.parametrize(("text", "seconds"), SENSIBLE.items())
def test_retry_after_is_read_in_seconds_or_as_a_date(text: str, seconds: float) -> None:
    """In every form of HTTP's dates, and with the slips that are often seen in them."""
    assert retry_after(429, {"Retry-After": text}, NOW) == seconds


@pytest.mark.parametrize(
    "text", ["Fri, 15 Jan 2027 12:00:30 GMT", "Friday, 15-Jan-27 12:00:30 GMT", "Fri Jan 15 12:00:30 2027"]
)
def test_a_date_means_the_same_in_every_zone(zone: str, text: str) -> None:
    """HTTP's dates are in UTC, also the oldest form, which doesn't say so."""
    assert retry_after(429, {"Retry-After": text}, NOW) == 30


@pytest.mark.parametrize("text", SENSELESS, ids=lambda text: repr(text)[:30])
def test_a_senseless_retry_after_counts_as_none(text: str) -> None:
    """So that the reset is asked, and then the backoff."""
    assert retry_after(429, {"Retry-After": text}, NOW) is None
    assert retry_after(429, {"Retry-After": text, "x-ratelimit-reset": str(NOW + 30)}, NOW) == 30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (str(int(NOW) + 30), 30),
        (f"{int(NOW) + 30}000", 30),
        (f"{int(NOW) + 30}.5", 30.5),
        (str(int(NOW) + 86_400), 86_400),
        (str(int(NOW) + 86_401), None),
        (f"{int(NOW) + 86_401}000", None),
        ("30", 30),
        ("86400", 86_400),
        ("86401", None),
        ("999999999", None),
        ("1000000001", None),
        ("99999999999", None),
        ("100000000001", None),
        (str(int(NOW)), None),
        (str(int(NOW) - 1), None),
        (f"{int(NOW) - 1}000", None),
        ("0", None),
        ("-30", None),
        ("-1800014430", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("1e400", None),
        ("", None),
        ("soon", None),
        ("Fri, 15 Jan 2027 12:00:30 GMT", None),
    ],
)
def test_the_reset_is_read_in_seconds_milliseconds_or_from_now(text: str, seconds: float | None) -> None:
    """By its size, as no page tells its unit."""
    assert retry_after(429, {"x-ratelimit-reset": text}, NOW) == seconds


def test_the_servers_clock_goes_before_the_workers() -> None:
    """A wrong clock on either side makes no wait longer; an odd one is left aside."""
    ahead = {"Date": "Fri, 15 Jan 2027 18:00:00 GMT", "Retry-After": "Fri, 15 Jan 2027 18:00:30 GMT"}
    assert retry_after(429, ahead, NOW) == 30
    assert retry_after(429, {**ahead, "Date": "now"}, NOW) == 6 * 3600 + 30
    assert retry_after(429, {"Date": ahead["Date"], "x-ratelimit-reset": str(NOW + 6 * 3600 + 30)}, NOW) == 30
    assert retry_after(429, {"Date": ahead["Date"], "Retry-After": "30"}, NOW) == 30
    assert retry_after(429, {}, NOW) is None


HEADER = st.text() | st.from_regex(
    r"\w{3},? \d{1,9} (Jan|feb|x) -?\d{1,6} \d{1,3}:\d{1,3}(:\d{1,12})? ?([+-]\d{0,12}|GMT|EST|-0000)?", fullmatch=True
)


@settings(database=None, deadline=None, max_examples=100)
@given(HEADER, HEADER, HEADER, st.floats(0, 4e9))
def test_no_header_makes_reading_it_fail(retry_after: str, reset: str, date: str, now: float) -> None:
    """It gives a sensible wait, or none."""
    wait = client.retry_after(429, {"Retry-After": retry_after, "x-ratelimit-reset": reset, "Date": date}, now)
    assert wait is None or 0 < wait <= 86_400


@pytest.mark.parametrize(
    "value", [text for text in SENSELESS if text.isprintable()] + ["\xff", "é"], ids=lambda text: repr(text)[:30]
)
def test_no_header_hides_a_429(kustomer: Kustomer, run: Step, message: Body, waits: list[float], value: str) -> None:
    """Over the wire: the step backs off, and what it says in the end is 429."""
    names = ("Retry-After", "x-ratelimit-reset", "x-ratelimit-remaining", "Date")
    kustomer.fault(*[limited(**dict.fromkeys(names, value))] * 6)
    found = run(message)
    given_up(found, 6, None)
    assert within(waits, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("reason", [None, b"<h1>Slow down</h1>", b"\xff", [], {"errors": "limit"}, b"null"], ids=repr)
def test_no_body_hides_a_429(kustomer: Kustomer, run: Step, message: Body, waits: list[float], reason: Any) -> None:
    """The status alone decides."""
    kustomer.fault(Fault.answer(429, reason, {"Retry-After": "5"}))
    assert run(message).stored == 1
    assert within(waits, 5)


# How long


@pytest.mark.parametrize(
    ("failures", "told", "left", "wait"),
    [
        (1, None, 75, 2),
        (2, None, 75, 4),
        (3, None, 75, 8),
        (4, None, 75, 16),
        (5, None, 75, 32),
        (6, None, 75, 64),
        (7, None, 75, None),
        (1, 7, 75, 7),
        (5, 7, 75, 7),
        (1, 0.25, 75, 0.25),
        (1, 75, 75, 75),
        (1, 75.001, 75, None),
        (1, 3600, 75, None),
        (1, None, 2, 2),
        (1, None, 1.999, None),
        (1, 5, 0, None),
        (1, 5, -30, None),
    ],
)
def test_the_next_wait_is_as_told_or_twice_the_last(
    failures: int, told: float | None, left: float, wait: float | None
) -> None:
    """Never more than is left."""
    assert backoff(failures, told, left, 0) == wait


def test_the_numbers_are_those_promised() -> None:
    """A budget that outlasts the one-minute window by little, six attempts, a fifth of jitter, a day at most."""
    assert (client.BUDGET_SECONDS, client.LIMITED_ATTEMPTS, client.JITTER) == (BUDGET, 6, 0.2)
    backing_off = sum(backoff(n, None, BUDGET, 0) or 0 for n in range(1, client.LIMITED_ATTEMPTS))
    assert backing_off > 60
    assert backing_off * (1 + client.JITTER) <= BUDGET
