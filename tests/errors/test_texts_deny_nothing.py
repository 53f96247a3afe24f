"""An error says what this run did, and never that a message isn't there: an earlier run may have recorded it."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from f.kustomer.find_conversation import main as find_conversation
from f.kustomer.find_customer import main as find_customer
from f.kustomer.shared.errors import KustomerError
from tests.conftest import Body, Step
from tests.errors.test_errors import one_of_each
from tests.standin.kustomer import Fault, Kustomer

EXTERNAL_ID = {"externalId": "order-1042"}

# How a text denies that something happened; it may only do so of this run.
DENIAL = re.compile(
    r"\b(was|were|is|been) (not|never) (sent|recorded|created|changed|uploaded|made|stored|there)\b"
    r"|\bnothing (was|is|has)\b|\bno (message|record) (was|is|has)\b"
)
EARLIER = re.compile(r"\bearlier run\b[^.]*\bmay have recorded\b|\bmay have been recorded by an earlier run\b")


def denials(error: KustomerError) -> list[str]:
    """The sentences that speak for other runs too."""
    sentences = re.split(r"(?<=[.:;]) ", str(error))
    return [each for each in sentences if DENIAL.search(each.lower()) and "this run" not in each.lower()]


REASON = {"errors": [{"code": "badparam", "title": "Wrong"}]}
# How a run's look-up fails, so that it sends nothing and learns nothing.
FAILED: dict[str, Callable[[], list[Fault]]] = {
    "503": lambda: [Fault.answer(503, on="GET")] * 3,
    "500 with a page": lambda: [Fault.answer(500, b"<html>", on="GET")] * 3,
    "closed": lambda: [Fault.close(on="GET")] * 3,
    "reset": lambda: [Fault.reset(on="GET")] * 3,
    "429 for an hour": lambda: [Fault.answer(429, REASON, {"Retry-After": "3600"}, on="GET")],
    "400": lambda: [Fault.answer(400, REASON, on="GET")],
    "a page": lambda: [Fault.answer(200, b"<html>", on="GET")],
    "404 with a page": lambda: [Fault.answer(404, b"<html>", on="GET")],
    "302": lambda: [Fault.answer(302, headers={"Location": "/"}, on="GET")],
}


@pytest.fixture
def recorded(kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier run, whose message is recorded, and which could not learn it."""
    look_ups = [Fault.answer(503, on="GET")] * 3

    def sleep(_: float) -> None:
        while look_ups:
            kustomer.fault(look_ups.pop())

    with monkeypatch.context() as changed:
        changed.setattr(time, "sleep", sleep)
        kustomer.fault(Fault.answer(503, store=True))
        error = run(message | EXTERNAL_ID).failed
    assert (error.outcome, error.retryable, len(kustomer.messages)) == ("unknown", True, 1)
    assert denials(error) == []


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("name", FAILED)
def test_the_last_try_does_not_speak_for_all(kustomer: Kustomer, run: Step, message: Body, name: str) -> None:
    """The first one's message is on the timeline, and people act on the last one's words."""
    kustomer.fault(*FAILED[name]())
    error = run(message | EXTERNAL_ID).failed
    assert error.outcome == "not_sent"
    assert denials(error) == []
    assert EARLIER.search(str(error))
    assert [each["attributes"]["externalId"] for each in kustomer.messages] == ["order-1042"]


@pytest.mark.usefixtures("recorded")
def test_a_try_without_a_connection_does_not_speak_for_all(run: Step, message: Body, free_port: int) -> None:
    """Nor one whose proxy is wrong."""
    for base in (f"http://127.0.0.1:{free_port}", "https://nowhere.invalid", f"https://127.0.0.1:{free_port}"):
        error = run(message | EXTERNAL_ID, baseUrl=base).failed
        assert error.outcome == "not_sent"
        assert denials(error) == []
        assert EARLIER.search(str(error))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 429])
@pytest.mark.parametrize("extra", [{}, EXTERNAL_ID], ids=["no externalId", "externalId"])
def test_a_refusal_is_that_of_this_run(kustomer: Kustomer, run: Step, message: Body, status: int, extra: Body) -> None:
    """Kustomer says no to a second message as readily as to the first."""
    kustomer.fault(Fault.answer(status, REASON, {"Retry-After": "3600"}))
    error = run(message | extra).failed
    assert error.outcome == "rejected"
    assert denials(error) == []


def test_without_an_external_id_no_run_is_guessed_at(kustomer: Kustomer, run: Step, message: Body) -> None:
    """There is nothing by which two runs would be about the same message."""
    kustomer.fault(Fault.answer(400, REASON))
    assert "earlier" not in str(run(message).failed)


def test_no_error_of_any_kind_speaks_for_other_runs(kustomer: Kustomer, run: Step, message: Body) -> None:
    """Wrong input, files and connections included."""
    assert [denials(error) for error in one_of_each(kustomer, run, message)] == [[]] * 12


STEPS: dict[str, Callable[[Body, Kustomer], Any]] = {
    "customer": lambda auth, _: find_customer(auth, {"email": "jane@acme.example", "create": True}),  # type: ignore[arg-type]
    "conversation": lambda auth, kustomer: find_conversation(
        auth,  # type: ignore[arg-type]
        {"customer": kustomer.customer, "externalId": "thread-1", "create": True},  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", [400, 401, 429, 503])
@pytest.mark.parametrize("on", ["GET", "POST"])
def test_no_step_speaks_for_other_runs(kustomer: Kustomer, auth: Body, step: str, status: int, on: str) -> None:
    """A customer, or a conversation, may be there as well."""
    kustomer.fault(*[Fault.answer(status, REASON, {"Retry-After": "3600"}, on=on)] * 3)
    with pytest.raises(KustomerError) as caught:
        STEPS[step](auth, kustomer)
    assert caught.value.outcome in ("not_sent", "rejected") or (status, on) == (503, "POST")
    assert denials(caught.value) == []
