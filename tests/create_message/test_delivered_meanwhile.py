"""A message that is delivered again while a run is still at work on it is recorded once."""

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from f.kustomer.create_message import main as create
from f.kustomer.record_message import main as record
from f.kustomer.shared.client import start
from f.kustomer.shared.errors import RecordKind
from tests.conftest import Body, Step
from tests.standin.kustomer import UPLOAD_PATH, Fault, Kustomer

# Longer than what was looked for counts as just looked for, shorter than any request may take.
LATER = 20.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds by which the clock has been put forward."""
    forward: list[float] = []
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + sum(forward))
    return forward


@pytest.fixture
def event() -> Body:
    """An e-mail with a file."""
    return {
        "channel": "email",
        "messageId": "<CAF1044@mail.acme.example>",
        "email": "grace@example.com",
        "text": "Hello, where is my order 1042?",
        "files": [{"name": "order.txt", "content": base64.b64encode(b"1042").decode()}],
    }


def test_while_its_file_is_uploaded(kustomer: Kustomer, auth: Body, event: Body, clock: list[float]) -> None:
    """A webhook that gets no answer in time delivers again; an upload may take minutes."""
    step: Any = record
    kustomer.fault(Fault.hang(at=UPLOAD_PATH, store=True))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(step, auth, event)
        while not kustomer.upload_requests and not first.done():
            threading.Event().wait(0.01)
        second = step(auth, event)
        clock.append(LATER)
        kustomer.release()
        found = first.result()
    (message,) = kustomer.messages
    assert second["message"] == {"id": message["id"], "created": True}
    assert found["message"] == {"id": message["id"], "created": False}
    assert found["attachments"] == second["attachments"] == message["attributes"]["attachments"]


def test_while_a_limit_is_waited_out(
    kustomer: Kustomer, run: Step, auth: Body, message: Body, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    """When the wait is over, the other run has recorded it."""
    message["externalId"] = "<CAF1044@mail.acme.example>"
    kustomer.fault(Fault.answer(429, headers={"Retry-After": str(LATER)}))

    def sleep(seconds: float) -> None:
        clock.append(seconds)
        create(auth, message)  # type: ignore[arg-type]

    monkeypatch.setattr(time, "sleep", sleep)
    assert run(message).id == kustomer.messages[0]["id"]
    assert len(kustomer.messages) == 1


def test_a_limit_that_was_waited_out_shortly_costs_no_look_up(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float]
) -> None:
    """Limits are scarce enough."""
    kustomer.fault(Fault.answer(429, headers={"Retry-After": "1"}))
    assert run({**message, "externalId": "<CAF1044@mail.acme.example>"}).stored == 1
    assert (len(waits), [seen.method for seen in kustomer.requests]) == (1, ["GET", "POST", "POST"])


def test_what_was_looked_for_is_no_look_for_another(kustomer: Kustomer, auth: Body) -> None:
    """One run may make several things."""
    run = start(auth, RecordKind("conversation"))
    for name in ("1", "2"):
        body = {"customer": kustomer.customer, "externalId": name}
        assert run.create("/v1/conversations", [("externalId", name)], body=body)[1]
    assert [seen.method for seen in kustomer.requests] == ["GET", "POST", "GET", "POST"]
