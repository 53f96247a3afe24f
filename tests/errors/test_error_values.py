"""Errors are values: they can be copied, pickled and stored, and have an end, however much was wrong."""

import copy
import inspect
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from f.kustomer.shared import errors
from f.kustomer.shared.errors import InvalidInput, KustomerError
from tests.conftest import Body, Step
from tests.errors.test_errors import one_of_each
from tests.standin.kustomer import Fault, Kustomer

# What Windmill stores of an error at most, in bytes: its text, and the same once more as data.
MOST_BYTES = 2_000_000

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle, oldest": lambda error: pickle.loads(pickle.dumps(error, 0)),  # noqa: S301 - it is our own
    "pickle, usual": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301
    "pickle, newest": lambda error: pickle.loads(pickle.dumps(error, pickle.HIGHEST_PROTOCOL)),  # noqa: S301
}
REASON = {"code": "badparam", "title": "Wrong", "detail": None, "path": "body.app"}
CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, KustomerError)]


def same(one: KustomerError, other: KustomerError) -> None:
    """Hold that two errors are equal in all that anybody sees of them, and not the same object."""
    assert one is not other
    assert type(one) is type(other)
    assert (str(one), repr(one), one.args, vars(one)) == (str(other), repr(other), other.args, vars(other))


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives(kind: type[KustomerError], way: str) -> None:
    """Pools of processes, caches and test tools copy what was raised."""
    error = kind(
        "503 Service Unavailable.",
        outcome="unknown",
        retryable=True,
        status=503,
        retry_after=2.5,
        attempts=3,
        request_id="id-1",
        errors=[dict(REASON)],
    )
    same(COPIES[way](error), error)


def test_an_error_that_was_raised_survives(kustomer: Kustomer, run: Step, message: Body) -> None:
    """With all that the client has filled in."""
    for error in one_of_each(kustomer, run, message):
        for way in COPIES.values():
            same(way(error), error)


def test_a_deep_copy_shares_nothing() -> None:
    """What is done to one leaves the other alone."""
    error = KustomerError("No.", outcome="rejected", errors=[dict(REASON)])
    copy.deepcopy(error).errors[0]["code"] = "other"
    assert error.errors == [REASON]


def nested(depth: int, value: Any) -> Any:
    """A value deep inside objects of long names."""
    for level in range(depth):
        value = {f"a_long_name_of_a_field_at_level_{level:08}": value}
    return value


WRONG: dict[str, Callable[[], Body]] = {
    "names": lambda: {f"name{number}": "x" for number in range(30_000)},
    "long names": lambda: {f"{number}" * 20_000: "x" for number in range(10)},
    "values": lambda: {"attachments": [{"a": 1}] * 20_000},
    "deep values": lambda: {"meta": nested(200, [float("nan")] * 1_000)},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_told_of_a_wrong_body_has_an_end(run: Step, message: Body, name: str) -> None:
    """Nobody corrects more at once, and no database wants it; how much there is more is told."""
    error = run(message | WRONG[name]()).failed
    assert type(error) is InvalidInput
    assert 1 <= len(error.errors) <= 201
    assert len(json.dumps([str(error), vars(error)])) < MOST_BYTES


LONG = "x" * 20_000


@pytest.mark.parametrize(
    "said",
    [
        {"errors": [{"code": LONG, "title": LONG, "detail": LONG, "source": {"pointer": LONG}}] * 100},
        {"errors": [{"title": {LONG: [LONG] * 100}}] * 4},
        {"errors": ["\x07" * 20_000] * 60},
        [["\u20ac" * 20_000]] * 100,
    ],
    ids=["every field", "objects", "odd characters", "wide characters"],
)
def test_what_is_told_of_kustomer_s_reasons_has_an_end(kustomer: Kustomer, run: Step, message: Body, said: Any) -> None:
    """Whatever it says."""
    kustomer.fault(Fault.answer(400, said))
    error = run(message).failed
    assert 1 <= len(error.errors) <= 201
    assert len(json.dumps([str(error), vars(error)], ensure_ascii=False).encode()) < MOST_BYTES
