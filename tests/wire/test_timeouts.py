"""A run ends in time, whatever a server does: each answer, the attempts and the whole are limited."""

import socket
import threading
import time
from typing import Any

import pytest

from f.kustomer import client, wire
from f.kustomer.create_message import main
from f.kustomer.errors import CannotConnect, NoAnswer
from tests.conftest import Body, Step
from tests.standin.kustomer import Fault, Kustomer

EXTERNAL_ID = {"externalId": "order-1042"}
# Instead of the 30 s for an answer and the 5 s for a connection.
READ = 0.25
CONNECT = 0.2
# What a busy machine may take beyond a limit.
SLACK = 1.0

with_and_without_external_id = pytest.mark.parametrize("extra", [{}, EXTERNAL_ID], ids=["no externalId", "externalId"])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    monkeypatch.setattr(wire, "READ_SECONDS", READ)
    monkeypatch.setattr(wire, "CONNECT_SECONDS", CONNECT)


class Clock:
    """Real seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Until now."""
        return time.monotonic() - self._started


# The answer


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
def test_a_post_that_hangs_is_given_up_as_unknown(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], store: bool
) -> None:
    """It may be stored all the same; without an externalId nobody can tell."""
    kustomer.fault(Fault.hang(store=store))
    clock = Clock()
    error = run(message).failed
    assert READ <= clock.seconds < READ + SLACK
    assert (type(error), error.status, error.outcome, error.retryable) == (NoAnswer, None, "unknown", False)
    assert (error.attempts, len(kustomer.posts), waits) == (1, 1, [])
    assert "no complete answer within" in str(error)
    assert "unknown whether the message was recorded" in str(error)


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
def test_a_post_that_hangs_is_looked_for(kustomer: Kustomer, run: Step, message: Body, store: bool) -> None:
    """With an externalId it is there once, whether or not the first post was stored."""
    kustomer.fault(Fault.hang(store=store))
    found = run(message | EXTERNAL_ID)
    assert (found.id, found.stored) == (kustomer.messages[0]["id"], 1)
    assert [seen.method for seen in kustomer.requests] == ["GET", "POST", "GET", *([] if store else ["POST"])]


def test_a_server_that_never_answers_is_given_up(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float]
) -> None:
    """Three look-ups, and nothing is sent."""
    kustomer.fault(*[Fault.hang(on="*")] * 20)
    clock = Clock()
    error = run(message | EXTERNAL_ID).failed
    assert clock.seconds < 3 * READ + SLACK
    assert (type(error), error.outcome, error.retryable, error.attempts) == (NoAnswer, "not_sent", True, 3)
    assert len(waits) == 2
    kustomer.release()


@with_and_without_external_id
def test_a_post_that_hangs_for_ever_is_given_up(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], extra: Body
) -> None:
    """Three posts with an externalId, one without; a later run records once."""
    kustomer.fault(*[Fault.hang()] * (3 if extra else 1))
    clock = Clock()
    error = run(message | extra).failed
    assert clock.seconds < 3 * READ + SLACK
    assert (type(error), error.outcome, error.retryable) == (NoAnswer, "unknown", bool(extra))
    assert (len(kustomer.posts), len(waits)) == ((3, 3) if extra else (1, 0))
    if extra:
        assert run(message | extra).stored == 1


@with_and_without_external_id
def test_an_answer_that_drips_is_cut_off(kustomer: Kustomer, run: Step, message: Body, extra: Body) -> None:
    """The limit counts the whole answer: a byte now and then does not start it anew."""
    kustomer.fault(Fault.drip(READ / 4, store=True))
    clock = Clock()
    found = run(message | extra)
    assert READ <= clock.seconds < READ + SLACK
    assert found.stored == 1
    if not extra:
        assert (type(found.failed), found.failed.outcome, found.failed.retryable) == (NoAnswer, "unknown", False)
        assert "no complete answer within" in str(found.failed)


def test_a_look_up_that_drips_is_cut_off(kustomer: Kustomer, run: Step, message: Body) -> None:
    """And repeated."""
    kustomer.fault(Fault.drip(READ / 4, on="GET"))
    clock = Clock()
    assert run(message | EXTERNAL_ID).stored == 1
    assert READ <= clock.seconds < READ + SLACK


def test_an_answer_that_is_slow_but_in_time_is_taken(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is no shorter than it says."""
    monkeypatch.setattr(wire, "READ_SECONDS", 20.0)
    kustomer.fault(Fault.drip(0, store=True))
    assert run(message).stored == 1


def test_no_limit_outlives_its_answer(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would cut off whatever uses the kept connection next."""
    monkeypatch.setattr(wire, "READ_SECONDS", 20.0)
    assert run(message).stored == run(message | EXTERNAL_ID).stored == 1
    assert len({seen.connection for seen in kustomer.requests}) == 1
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(READ)
            assert not thread.is_alive()


# The connection


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take its time, so that only the limit of connecting is left."""
    monkeypatch.setattr(wire, "READ_SECONDS", 20.0)


@pytest.mark.usefixtures("patient")
@with_and_without_external_id
def test_a_connection_that_does_not_come_about_is_given_up(
    run: Step, message: Body, waits: list[float], deaf: int, extra: Body
) -> None:
    """Three tries, as nothing can have been sent."""
    clock = Clock()
    error = run(message | extra, baseUrl=f"http://127.0.0.1:{deaf}").failed
    assert 3 * CONNECT <= clock.seconds < 3 * CONNECT + SLACK
    assert (type(error), error.status, error.outcome, error.retryable) == (CannotConnect, None, "not_sent", True)
    assert (error.attempts, len(waits)) == (3, 2)
    assert "no connection within" in str(error)


@pytest.mark.usefixtures("patient")
def test_a_slow_tls_handshake_is_given_up(run: Step, message: Body) -> None:
    """A server that accepts, and then says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clock = Clock()
        error = run(message, baseUrl=f"https://127.0.0.1:{listener.getsockname()[1]}").failed
    assert 3 * CONNECT <= clock.seconds < 3 * CONNECT + SLACK
    assert (type(error), error.outcome, error.retryable) == (CannotConnect, "not_sent", True)


# The attempts and the whole


@with_and_without_external_id
@pytest.mark.parametrize(
    "faults",
    [
        [Fault.answer(503, on="*")],
        [Fault.answer(429, on="*")],
        [Fault.answer(429, on="*", headers={"Retry-After": "0.001"})],
        [Fault.answer(429, on="*", headers={"Retry-After": "0.001"}), Fault.answer(503, on="*")],
        [Fault.answer(429, headers={"Retry-After": "0.001"}), Fault.answer(503), Fault.reset()],
        [Fault.answer(429, on="GET", headers={"Retry-After": "0.001"}), Fault.answer(503), Fault.answer(404, on="GET")],
        [Fault.close(on="*"), Fault.answer(503, on="*", headers={"Retry-After": "0.001"}), Fault.answer(429, on="*")],
    ],
    ids=["503", "429", "429 in a moment", "429 and 503", "posts only", "limited look-ups", "mixed"],
)
def test_a_server_that_always_fails_is_given_up(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], faults: list[Fault], extra: Body
) -> None:
    """After three uncertain posts at most, few requests, and 75 s of waiting in all."""
    kustomer.fault(*faults * 50)
    error = run(message | extra).failed
    assert error.attempts == len(kustomer.requests) <= 40
    assert sum(waits) <= 75
    assert len(kustomer.posts) <= (18 if extra else 8)
    assert kustomer.messages == []


def test_waiting_and_asking_share_the_budget(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What slow answers have taken is not there for waiting."""
    monkeypatch.setattr(client, "BUDGET_SECONDS", 6.2)
    kustomer.fault(*[Fault.hang(on="GET")] * 9)
    clock = Clock()
    error = run(message | EXTERNAL_ID).failed
    assert (error.outcome, error.attempts, len(waits)) == ("not_sent", 2, 1)
    assert sum(waits) + clock.seconds <= 6.2 + READ + SLACK


def test_nothing_is_sent_once_the_budget_is_used_up(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what had been sent stays unknown."""
    monkeypatch.setattr(client, "BUDGET_SECONDS", 2 * READ)
    monkeypatch.setattr(client, "FIRST_WAIT_SECONDS", 0.001)
    kustomer.fault(*[Fault.hang()] * 9)
    clock = Clock()
    error = run(message | EXTERNAL_ID).failed
    assert clock.seconds < 3 * READ + SLACK
    assert len(kustomer.posts) <= 2
    assert (error.outcome, error.retryable) == ("unknown", True)
    assert "unknown whether the message was recorded" in str(error)


def test_many_runs_at_once_do_not_disturb_each_other(kustomer: Kustomer, auth: Body, message: Body) -> None:
    """The limit of one that hangs cuts off that one only."""
    kustomer.fault(Fault.hang())
    results: list[Any] = []

    def one(number: int) -> None:
        try:
            results.append(main(auth, message | {"subject": f"Order {number}"})["data"]["attributes"]["subject"])  # type: ignore[arg-type]
        except NoAnswer as error:
            results.append(error.outcome)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    assert results.count("unknown") == 1
    assert sorted(set(results) - {"unknown"}) == sorted(each["attributes"]["subject"] for each in kustomer.messages)
    assert len(kustomer.posts) == 12


def test_the_numbers_are_those_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 s to connect, 30 s for the whole answer, 75 s in all, six attempts at a limit and three at all else."""
    monkeypatch.undo()
    assert (wire.CONNECT_SECONDS, wire.READ_SECONDS, client.BUDGET_SECONDS) == (5, 30, 75)
    assert (client.LIMITED_ATTEMPTS, client.OTHER_ATTEMPTS) == (6, 3)
