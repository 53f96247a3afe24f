"""The step as a Windmill job: arguments in, a result or an error out, with nothing but the deployed locks."""

from typing import Any

import pytest

from tests.conftest import Body
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

STEP = "f/kustomer/create_message"


def test_job_records_the_message_and_returns_the_answer(
    kustomer: Kustomer, windmill: Workspace, auth: Body, message: Body
) -> None:
    """The job's result is Kustomer's answer, and its log has one line."""
    job = worker.run(STEP, {"auth": auth, "body": message}, workspace=windmill)
    assert job.ok, job.error
    assert [each["id"] for each in kustomer.messages] == [job.result["data"]["id"]]
    assert job.logs.count("\n") == 1


def test_job_run_twice_records_once(kustomer: Kustomer, windmill: Workspace, auth: Body, message: Body) -> None:
    """A retried flow step or a redelivered webhook finds what the first run left."""
    args = {"auth": auth, "body": {**message, "externalId": "thread/1 + <a@b>?x=é"}}
    first, second = (worker.run(STEP, args, workspace=windmill) for _ in range(2))
    assert first.ok
    assert second.ok
    assert first.result["data"]["id"] == second.result["data"]["id"]
    assert len(kustomer.messages) == 1


def test_shared_modules_cost_one_call_each(kustomer: Kustomer, windmill: Workspace, auth: Body, message: Body) -> None:
    """A job asks the Windmill server for the four shared modules and the folder that they are in, once each."""
    before = len(windmill.requests)
    worker.run(STEP, {"auth": auth, "body": message}, workspace=windmill)
    paths = sorted(each.path.rpartition("/")[2] for each in windmill.requests[before:])
    assert paths == ["client.py", "errors.py", "inputs.py", "shared.py", "wire.py"]


def test_failed_job_tells_a_flow_what_to_do(kustomer: Kustomer, windmill: Workspace, auth: Body, message: Body) -> None:
    """What retry_if and a failure module read is there: error.name and error.extra."""
    kustomer.fault(Fault.answer(429, headers={"Retry-After": "600"}))
    error = _failed({"auth": auth, "body": message}, windmill)
    assert error["name"] == "RateLimited"
    assert error["extra"] == {
        "status": 429,
        "outcome": "rejected",
        "retryable": True,
        "retry_after": 600.0,
        "attempts": 1,
        "request_id": error["extra"]["request_id"],
        "errors": [],
    }


@pytest.mark.parametrize("args", [{}, {"auth": None, "body": None}, {"auth": "$res:f/kustomer/api", "body": "x"}])
def test_missing_arguments_are_told_one_by_one(windmill: Workspace, args: dict[str, Any]) -> None:
    """Windmill passes None for what is missing: each gets its own line, and nothing is sent."""
    error = _failed(args, windmill)
    assert error["name"] == "InvalidInput"
    assert [each["path"] for each in error["extra"]["errors"]] == ["auth", "body"]


def _failed(args: dict[str, Any], windmill: Workspace) -> dict[str, Any]:
    job = worker.run(STEP, args, workspace=windmill)
    assert not job.ok
    assert job.error is not None
    return job.error
