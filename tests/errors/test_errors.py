"""Errors are data that a flow can branch on, and text that a support engineer can act on."""

import inspect
import json
import re

import pytest

from f.kustomer.shared import errors
from f.kustomer.shared.errors import KustomerError
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body, Step
from tests.standin.kustomer import Fault, Kustomer

ATTRIBUTES = {"status", "outcome", "retryable", "retry_after", "attempts", "request_id", "errors"}
JSON_API = {
    "errors": [
        {
            "status": 400,
            "code": "badparam",
            "title": "Additional properties not allowed",
            "detail": "/properties/custom/additionalProperties",
            "source": {"parameter": "shoeSizeNum"},
        },
        {"status": 400, "code": "badparam", "title": "Wrong type", "source": {"pointer": "/custom/orderNum"}},
    ]
}
PLAIN = {"errors": [{"code": "bad_request", "message": "custom.shoeSizeNum is not defined", "meta": {"a": 1}}]}


def every_error() -> list[type[KustomerError]]:
    """Every class that a step may raise."""
    return [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, KustomerError)]


def one_of_each(kustomer: Kustomer, run: Step, message: Body) -> list[KustomerError]:
    """One error of each class, raised by a step itself."""
    known = {**message, "externalId": "acme-1"}
    run(known)
    keys = kustomer.keys
    found = [
        run({}).failed,
        run(message, baseUrl="https://nowhere.invalid").failed,
        run(message, baseUrl=kustomer.url.replace("http:", "https:")).failed,
        run(message, apiKey=keys["expired"]).failed,
        run(message, apiKey=keys["no_create"]).failed,
        run({**known, "channel": "sms"}).failed,
    ]
    for fault in (
        Fault.answer(400, JSON_API),
        Fault.answer(429, {"errors": [{"code": "rate", "message": "slow down"}]}, headers={"Retry-After": "3600"}),
        Fault.answer(500, b"<html>"),
        Fault.close(),
        Fault.answer(200, b"<html>"),
    ):
        kustomer.fault(fault)
        found.append(run(message).failed)
    with pytest.raises(KustomerError) as raised:  # outside of Windmill there is no object storage
        upload({"apiKey": keys["full"], "baseUrl": kustomer.url}, {"file": {"s3": "invoice.pdf"}})  # type: ignore[arg-type]
    return [*found, raised.value]


def test_attributes_are_the_same_seven_whatever_happens(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A flow's expression finds each attribute at every error, of one type, and nothing else."""
    found = one_of_each(kustomer, run, message)
    assert {type(each) for each in found} >= set(every_error()) - {
        KustomerError,
        errors.NotTrusted,
        errors.BadProxy,
        errors.FileNotWritten,
    }
    for error in found:
        assert set(vars(error)) == ATTRIBUTES
        assert error.outcome in ("not_sent", "rejected", "unknown")
        assert type(error.retryable) is bool
        assert type(error.attempts) is int
        assert error.status is None or type(error.status) is int
        assert error.retry_after is None or type(error.retry_after) is float
        assert error.request_id is None or type(error.request_id) is str
        for reason in error.errors:
            assert set(reason) == {"code", "title", "detail", "path"}
            assert all(value is None or type(value) is str for value in reason.values())


def test_attributes_are_plain_json(kustomer: Kustomer, run: Step, message: Body) -> None:
    """What Windmill stores as error.extra is what was raised: strict JSON loses nothing of it."""
    for error in one_of_each(kustomer, run, message):
        assert json.loads(json.dumps(vars(error), allow_nan=False)) == vars(error)


def test_text_begins_with_the_status_and_ends_with_what_to_do(kustomer: Kustomer, run: Step, message: Body) -> None:
    """The text alone is enough: what happened, what became of the message, and one more sentence."""
    for error in one_of_each(kustomer, run, message):
        text = str(error)
        if error.status is not None:
            assert text.startswith(f"{error.status} ")
        said = {
            "not_sent": "did not send the message|sent nothing|Nothing of it was sent",
            "rejected": "has not recorded the message",
            "unknown": "unknown whether",
        }[error.outcome]
        after = re.split(said, text, maxsplit=1)[1]
        assert len(after) > 30
        assert text.endswith(".")
        assert "  " not in text
        assert ".." not in text


def test_every_error_says_once_when_it_is_raised() -> None:
    """Each class has a sentence of its own, and its place in the tree at the top of the module."""
    for error in every_error():
        assert error.__doc__
        assert error.__name__ in str(errors.__doc__)


@pytest.mark.parametrize("answer", [JSON_API, PLAIN])
def test_reasons_of_both_error_shapes_are_told_whole(
    kustomer: Kustomer, run: Step, message: Body, answer: Body
) -> None:
    """Every reason that Kustomer gives stands in the text and in errors, with its place."""
    kustomer.fault(Fault.answer(400, answer))
    error = run(message).failed
    assert len(error.errors) == len(answer["errors"])
    for given, told in zip(answer["errors"], error.errors, strict=True):
        assert told["code"] == given["code"]
        for part in (given.get("title"), given.get("detail"), given.get("message"), *given.get("source", {}).values()):
            assert part is None or part in str(error)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("no_create", ["org.permission.message.create", "IP addresses", "orgName"]),
        ("expired", ["expired", "org.permission.message.create"]),
        ("elsewhere", ["pod", "orgName", "baseUrl"]),
    ],
)
def test_refused_key_is_told_what_to_check(
    kustomer: Kustomer, run: Step, message: Body, key: str, words: list[str]
) -> None:
    """Role, expiry, IP restriction and the organisation's host are named, as Kustomer doesn't say which it is."""
    error = run(message, apiKey=kustomer.keys[key]).failed
    assert isinstance(error, errors.AccessDenied)
    assert [word for word in words if word not in str(error)] == []


def test_rate_limit_error_tells_which_limit_it_is(kustomer: Kustomer, run: Step, message: Body) -> None:
    """The organisation's budget and a customer's limit need different remedies."""
    kustomer.org_limit = 0
    assert "organisation's limit" in str(run(message).failed)
    kustomer.org_limit = 10_000
    for _ in range(120):
        run(message)
    error = run(message).failed
    assert "120 messages a minute for one customer" in str(error)
    assert run({**message, "importedAt": "2026-01-31T09:30:00.000Z"}).stored == 1


def test_request_id_of_the_server_is_kept(kustomer: Kustomer, run: Step, message: Body) -> None:
    """Kustomer's support asks for it."""
    kustomer.fault(Fault.answer(400, PLAIN, headers={"X-Amz-Cf-Id": "cf-id-1"}))
    assert run(message).failed.request_id == "cf-id-1"


def test_log_has_a_line_for_each_wait_and_one_for_the_result(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody has to guess what a job did for half a minute, and every line says who wrote it."""
    kustomer.fault(*[Fault.answer(429)] * 2)
    found = run(message)
    *waited, result = capsys.readouterr().out.splitlines()
    assert [line for line in (*waited, result) if not line.startswith("kustomer: ")] == []
    assert len(waited) == len(waits) == 2
    for line, wait in zip(waited, waits, strict=True):
        assert "429" in line
        assert f"{wait:.1f} s" in line
    assert re.fullmatch(rf"kustomer: 201, message {found.id} recorded, 3 requests, \d+\.\d\d s", result)


def test_log_ends_with_the_outcome_of_a_failure(
    kustomer: Kustomer, run: Step, message: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line tells what became of the message."""
    kustomer.fault(Fault.answer(500))
    assert run(message).failed
    assert re.fullmatch(r"kustomer: 500; message unknown, 1 request, \d+\.\d\d s\n", capsys.readouterr().out)


def test_log_tells_that_a_found_message_has_another_text(
    run: Step, message: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who gives a thread's id as externalId learns why the second message is missing."""
    run({**message, "externalId": "thread-1"})
    capsys.readouterr()
    run({**message, "externalId": "thread-1", "preview": "And another thing"})
    assert "was there already, with another preview, 1 request" in capsys.readouterr().out
