"""Connections are kept while they are fresh, keys never."""

from collections.abc import Iterator

import pytest

from f.kustomer import wire
from tests.conftest import Body, Step
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace


def connections(kustomer: Kustomer) -> int:
    """How many connections the requests so far came in on."""
    return len({each.connection for each in kustomer.requests})


def test_calls_in_a_row_share_a_connection(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A dedicated worker pays for TCP and TLS once."""
    for number in range(5):
        run({**message, "externalId": f"acme-{number}"})
    assert len(kustomer.requests) == 10
    assert connections(kustomer) == 1


def test_connection_that_has_been_idle_is_not_used_again(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may be closing it at that moment, and then nobody knows what became of the message."""
    run(message)
    monkeypatch.setattr(wire, "IDLE_SECONDS", 0.0)
    run(message)
    assert connections(kustomer) == 2


@pytest.mark.parametrize("fault", [Fault.cut(), Fault.close(), Fault.reset(), Fault.answer(500, b"<html>")])
def test_connection_is_not_confused_by_a_broken_answer(
    kustomer: Kustomer, run: Step, message: Body, fault: Fault
) -> None:
    """What was left unread of one answer is never taken for the next one."""
    kustomer.fault(fault)
    assert run(message).failed
    assert run(message).stored == 1


@pytest.fixture
def dedicated(kustomer: Kustomer) -> Iterator[worker.Dedicated]:
    """A dedicated worker, whose process keeps the step's module from one job to the next."""
    with (
        Workspace(scripts_from=worker.ROOT) as workspace,
        worker.Dedicated("f/kustomer/create_message", workspace=workspace) as running,
    ):
        yield running


def test_dedicated_worker_uses_each_job_s_own_key(
    kustomer: Kustomer, dedicated: worker.Dedicated, auth: Body, message: Body
) -> None:
    """No key sticks to the connection, the module or a failure."""
    order = ["full", "no_read", "expired", "admin", "no_create", "full"]
    jobs = [dedicated.call({"auth": {**auth, "apiKey": kustomer.keys[name]}, "body": message}) for name in order]
    assert [each.headers["Authorization"] for each in kustomer.posts] == [f"Bearer {kustomer.keys[n]}" for n in order]
    assert [job.ok for job in jobs] == [True, True, False, True, False, True]
    assert connections(kustomer) == 1


def test_dedicated_worker_tells_the_essentials_without_extra(
    kustomer: Kustomer, dedicated: worker.Dedicated, auth: Body, message: Body
) -> None:
    """There an error has no attributes: its name and text still tell the cause, the status and the outcome."""
    kustomer.fault(Fault.answer(500))
    error = dedicated.call({"auth": auth, "body": message}).error
    assert error is not None
    assert "extra" not in error
    assert error["name"] == "ServerFailed"
    assert error["message"].startswith("500 Internal Server Error. It is unknown whether the message was recorded")
