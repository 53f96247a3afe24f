"""What APIs send with every answer about their limits counts on a 429 only; Retry-After counts on a 503 too."""

import pytest

from tests.conftest import Body, Step, within
from tests.standin.kustomer import Fault, Kustomer

EXTERNAL_ID = {"externalId": "order-1042"}
RESET = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}
RETRY_AFTER = {"Retry-After": "9"}
BOTH = RESET | RETRY_AFTER

FINAL = [400, 401, 403, 404, 409, 410, 413, 422]
PASSING = [408, 500, 502, 503, 504]

headers = pytest.mark.parametrize("headers", [RESET, RETRY_AFTER, BOTH], ids=["reset", "Retry-After", "both"])


def answering(status: int, headers: dict[str, str], on: str = "POST") -> Fault:
    """An answer of Kustomer's that tells of limits."""
    return Fault.answer(status, {"errors": [{"code": "badparam", "title": "Wrong"}]}, headers, on=on)


def told(status: int, headers: dict[str, str]) -> float | None:
    """The seconds that such an answer asks to wait."""
    if status in (429, 503) and "Retry-After" in headers:
        return 9
    return 60 if status == 429 and "x-ratelimit-reset" in headers else None


@headers
@pytest.mark.parametrize("status", [200, 201, 302, *FINAL, *PASSING])
def test_an_answer_to_a_message_tells_of_no_limit(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], status: int, headers: dict[str, str]
) -> None:
    """Whoever reads retry_after would wait for nothing."""
    kustomer.fault(answering(status, headers))
    error = run(message).failed
    assert (error.status, error.retry_after, waits) == (status, told(status, headers), [])
    assert "60 s" not in str(error)


@headers
@pytest.mark.parametrize("status", [429, *PASSING])
def test_a_look_up_is_repeated_when_its_answer_says(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], status: int, headers: dict[str, str]
) -> None:
    """Else after two seconds."""
    kustomer.fault(answering(status, headers, on="GET"))
    assert run(message | EXTERNAL_ID).stored == 1
    assert within(waits, told(status, headers) or 2)


@headers
@pytest.mark.parametrize("status", [429, *PASSING])
def test_a_message_is_looked_for_when_its_answer_says(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], status: int, headers: dict[str, str]
) -> None:
    """Else after two seconds."""
    kustomer.fault(answering(status, headers))
    assert run(message | EXTERNAL_ID).stored == 1
    assert within(waits, told(status, headers) or 2)
