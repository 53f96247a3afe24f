"""A run ends in time, whatever a server does: connecting, sending, each answer, the attempts and the whole."""

import base64
import itertools
import socket
import threading
import time
from typing import Any

import pytest

from f.kustomer.create_message import main
from f.kustomer.shared import client, storage, wire
from f.kustomer.shared.errors import CannotConnect, FileNotRead, FileNotWritten, KustomerError, NoAnswer
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body, Step
from tests.other_steps.test_upload_attachment import place
from tests.standin.adversary import Adversary, Script, answer, created, hold, read, send, send_for_ever, wait
from tests.standin.kustomer import Fault, Kustomer
from tests.wire.conftest import SLACK, ends

EXTERNAL_ID = {"externalId": "order-1042"}
# Instead of the 30 s for an answer and the 5 s for a connection.
READ = 0.3
CONNECT = 0.2
# Between the pieces of what drips: several come within any limit.
DRIP = 0.02

PATIENT = 20.0
FILE = {"file": {"s3": "inbox/invoice.pdf"}}
MIB = 1 << 20
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"

with_and_without_external_id = pytest.mark.parametrize("extra", [{}, EXTERNAL_ID], ids=["no externalId", "externalId"])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a test can wait for."""
    monkeypatch.setattr(wire, "READ_SECONDS", READ)


@pytest.fixture
def soon_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for connecting, and no other limit: an answer may take its time."""
    monkeypatch.setattr(wire, "CONNECT_SECONDS", CONNECT)
    monkeypatch.setattr(wire, "READ_SECONDS", PATIENT)


def not_connected(error: KustomerError) -> None:
    """Hold what an error says after three tries to connect."""
    assert (type(error), error.outcome, error.retryable) == (CannotConnect, "not_sent", True)
    assert (error.status, error.attempts) == (None, 3)


# The answer


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
def test_a_post_that_hangs_is_given_up_as_unknown(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], store: bool
) -> None:
    """It may be stored all the same; without an externalId nobody can tell."""
    kustomer.fault(Fault.hang(store=store))
    with ends(READ, READ):
        error = run(message).failed
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
    with ends(0, 3 * READ):
        error = run(message | EXTERNAL_ID).failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (NoAnswer, "not_sent", True, 3)
    assert len(waits) == 2
    kustomer.release()


@with_and_without_external_id
def test_a_post_that_hangs_for_ever_is_given_up(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], extra: Body
) -> None:
    """Three posts with an externalId, one without; a later run records once."""
    kustomer.fault(*[Fault.hang()] * (3 if extra else 1))
    with ends(0, 3 * READ):
        error = run(message | extra).failed
    assert (type(error), error.outcome, error.retryable) == (NoAnswer, "unknown", bool(extra))
    assert (len(kustomer.posts), len(waits)) == ((3, 3) if extra else (1, 0))
    if extra:
        assert run(message | extra).stored == 1


@with_and_without_external_id
def test_an_answer_that_drips_is_cut_off(kustomer: Kustomer, run: Step, message: Body, extra: Body) -> None:
    """The limit counts the whole answer: a byte now and then does not start it anew."""
    kustomer.fault(Fault.drip(READ / 4, store=True))
    with ends(READ, READ):
        found = run(message | extra)
    assert found.stored == 1
    if not extra:
        assert (type(found.failed), found.failed.outcome, found.failed.retryable) == (NoAnswer, "unknown", False)
        assert "no complete answer within" in str(found.failed)


def test_a_look_up_that_drips_is_cut_off(kustomer: Kustomer, run: Step, message: Body) -> None:
    """And repeated."""
    kustomer.fault(Fault.drip(READ / 4, on="GET"))
    with ends(READ, READ):
        assert run(message | EXTERNAL_ID).stored == 1


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
    before = set(threading.enumerate())
    assert run(message).stored == 1
    for thread in set(threading.enumerate()) - before:
        thread.join(READ)
        assert not thread.is_alive()


# Connecting


@pytest.mark.usefixtures("soon_connected")
@with_and_without_external_id
def test_a_connection_that_does_not_come_about_is_given_up(
    run: Step, message: Body, waits: list[float], deaf: int, extra: Body
) -> None:
    """Three tries, as nothing can have been sent."""
    with ends(3 * CONNECT / 2, 3 * CONNECT):
        error = run(message | extra, baseUrl=f"http://127.0.0.1:{deaf}").failed
    assert (type(error), error.status, error.outcome, error.retryable) == (CannotConnect, None, "not_sent", True)
    assert (error.attempts, len(waits)) == (3, 2)
    assert "no connection in time" in str(error)


def resolving(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let localhost have an address for each of these ports."""
    resolve = socket.getaddrinfo
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    def getaddrinfo(host: Any, *others: Any, **more: Any) -> Any:
        return found if host == "localhost" else resolve(host, *others, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("soon_connected")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_many_dead_addresses_take_no_longer_than_one(
    run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, waits: list[float], deaf: int, scheme: str
) -> None:
    """There is one limit for connecting, whatever the resolver says."""
    resolving(monkeypatch, *[deaf] * 8)
    with ends(3 * CONNECT, 3 * CONNECT):
        not_connected(run(message, baseUrl=f"{scheme}://localhost:{deaf}").failed)
    assert len(waits) == 2


@pytest.mark.usefixtures("soon_connected")
def test_a_live_address_after_a_dead_one_is_reached(
    adversary: Adversary, auth: Body, message: Body, monkeypatch: pytest.MonkeyPatch, deaf: int
) -> None:
    """As where the host has IPv6 and the worker's line hasn't: no address takes all the time that there is."""
    stage = adversary.play([read(), send(created("65a1b2c3d4e5f60718293a4b"))])
    resolving(monkeypatch, deaf, stage.port)
    with ends(0, CONNECT):
        answered = main(auth | {"baseUrl": f"http://localhost:{stage.port}"}, message)  # type: ignore[arg-type]
    assert answered["data"]["id"] == "65a1b2c3d4e5f60718293a4b"


def test_a_refused_address_is_passed_over(
    adversary: Adversary, auth: Body, message: Body, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    """As where localhost is ::1 first, and the server has but 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed: int = listener.getsockname()[1]
    stage = adversary.play([read(), send(created("65a1b2c3d4e5f60718293a4b"))])
    resolving(monkeypatch, closed, stage.port)
    main(auth | {"baseUrl": f"http://localhost:{stage.port}"}, message)  # type: ignore[arg-type]
    assert (len(stage.requests), waits) == (1, [])


def test_an_address_of_a_kind_that_the_system_lacks_is_passed_over(
    adversary: Adversary, auth: Body, message: Body, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    """As where the resolver knows an IPv6 address of the host, and the worker's system has no IPv6."""
    stage = adversary.play([read(), send(created("65a1b2c3d4e5f60718293a4b"))])
    found = [(family, socket.SOCK_STREAM, 6, "", ("127.0.0.1", stage.port)) for family in (99, socket.AF_INET)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    main(auth | {"baseUrl": f"http://localhost:{stage.port}"}, message)  # type: ignore[arg-type]
    assert (len(stage.requests), waits) == (1, [])


HANDSHAKES: dict[str, Script] = {
    "a record": [send(b"\x16\x03\x03\x3f\xff"), send_for_ever(b"\x02", DRIP)],
    "records": [send_for_ever(b"\x16\x03\x03\x00\x01\x02", DRIP)],
    "alerts": [send_for_ever(b"\x15\x03\x03\x00\x02\x01\x5a", DRIP)],
    "nothing": [hold()],
}


@pytest.mark.timeout(10)
@pytest.mark.usefixtures("soon_connected")
@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_that_drips_is_given_up(adversary: Adversary, run: Step, message: Body, name: str) -> None:
    """It is a part of connecting, also where the server says nothing at all."""
    stage = adversary.play(HANDSHAKES[name])
    with ends(0, 3 * CONNECT):
        not_connected(run(message, baseUrl=f"https://127.0.0.1:{stage.port}").failed)


ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n"
PROXIES: dict[str, Script] = {
    "drips headers": [read(), send(ESTABLISHED), send_for_ever(b"X-A: b\r\n", DRIP)],
    "drips a header": [read(), send(ESTABLISHED + b"X-A: "), send_for_ever(b"b", DRIP)],
    "drips a status": [read(), send(b"HTTP/1.1 "), send_for_ever(b"2", DRIP)],
    "drips informational answers": [read(), send_for_ever(b"HTTP/1.1 102 Processing\r\n\r\n", DRIP)],
    "rushes informational answers": [read(), send_for_ever(b"HTTP/1.1 100 Continue\r\n\r\n")],
    "drips a page": [read(), send(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), send_for_ever(b"x", DRIP)],
    "rushes a page": [read(), send(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), send_for_ever(b"x")],
    "connects, and drips a handshake": [read(), send(ESTABLISHED + b"\r\n"), *HANDSHAKES["a record"]],
    "does not answer": [read(), hold()],
    "does not read": [hold()],
}


@pytest.mark.timeout(10)
@pytest.mark.usefixtures("soon_connected")
@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_has_no_more_time_than_there_is_to_connect(
    adversary: Adversary, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Until it has connected, nothing is sent, and a byte now and then gives it no more time."""
    stage = adversary.play(PROXIES[name])
    monkeypatch.setenv("HTTPS_PROXY", stage.url)
    with ends(0, 3 * CONNECT):
        not_connected(run(message, baseUrl="https://nowhere.invalid").failed)
    assert [each.data for each in stage.requests if not each.data.startswith(b"CONNECT ")] == []


# Sending a message


@pytest.mark.timeout(10)
@pytest.mark.parametrize("steps", [[hold()], [read(bytes_per_second=5_000)]], ids=["not at all", "slowly"])
def test_a_request_that_is_not_read_is_given_up(
    adversary: Adversary, run: Step, message: Body, steps: Script, waits: list[float]
) -> None:
    """What had left of it may have been enough."""
    stage = adversary.play(steps)
    with ends(0, 2 * READ):
        error = run(
            {**message, "preview": "\U0001f600" * 10_000, "meta": {"x": "y" * 50_000}}, baseUrl=stage.url
        ).failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (NoAnswer, "unknown", False, 1)
    assert waits == []


# Uploads: a rule of their own

RATE = 3 * MIB // 2  # instead of 64 kB/s


@pytest.fixture
def content() -> Body:
    """A file that no socket's buffers take whole."""
    return {"content": base64.b64encode(bytes(12 * MIB)).decode(), "name": "backup.bin"}


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that a file must get on in any READ_SECONDS, and one try."""
    monkeypatch.setattr(wire, "SLOWEST_BYTES_PER_SECOND", RATE)
    monkeypatch.setattr(client, "OTHER_ATTEMPTS", 1)


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("rule")
@pytest.mark.parametrize("part", [0.01, 0.7])
def test_an_upload_s_host_that_reads_too_slowly_is_given_up(
    adversary: Adversary, kustomer: Kustomer, auth: Body, content: Body, part: float
) -> None:
    """After what the system buffers, two windows show it, though every one of them has seen some bytes go."""
    stage = adversary.play([read(bytes_per_second=RATE * part), send(NO_CONTENT)])
    kustomer.fault(place(stage.url))
    with ends(READ, 4.0), pytest.raises(NoAnswer) as caught:
        upload(auth, content)  # type: ignore[arg-type]
    assert (caught.value.outcome, caught.value.retryable) == ("unknown", True)


@pytest.mark.usefixtures("rule")
def test_an_upload_that_gets_on_may_take_longer_than_all_else(
    adversary: Adversary, kustomer: Kustomer, auth: Body, content: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the time for an answer nor the budget of a run is for transferring a file."""
    monkeypatch.setattr(wire, "READ_SECONDS", 1.0)
    monkeypatch.setattr(wire, "SLOWEST_BYTES_PER_SECOND", RATE // 8)
    monkeypatch.setattr(client, "BUDGET_SECONDS", 0.7)
    monkeypatch.setattr(client, "OTHER_ATTEMPTS", 2)
    monkeypatch.setattr(client, "FIRST_WAIT_SECONDS", 0.001)
    slow = [read(bytes_per_second=8 * MIB), send(answer("503 Slow Down"))]
    fast = [read(), send(NO_CONTENT)]
    stage = adversary.play([*slow, *fast], fast)
    kustomer.fault(place(stage.url))
    with ends(1.0, PATIENT):
        assert upload(auth, content)["contentLength"] == 12 * MIB  # type: ignore[arg-type]


@pytest.mark.usefixtures("rule")
def test_an_upload_s_host_has_its_time_to_answer(
    adversary: Adversary, kustomer: Kustomer, auth: Body, content: Body
) -> None:
    """It begins when the file is sent, also that part of it which the system still holds."""
    stage = adversary.play([read(), wait(3 * READ), send(NO_CONTENT)])
    kustomer.fault(place(stage.url))
    with ends(3 * READ, PATIENT):
        assert upload(auth, content)["contentLength"] == 12 * MIB  # type: ignore[arg-type]


@pytest.mark.usefixtures("rule")
def test_an_upload_s_host_that_does_not_answer_is_given_up(
    adversary: Adversary, kustomer: Kustomer, auth: Body, content: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After that time."""
    monkeypatch.setattr(wire, "SLOWEST_BYTES_PER_SECOND", 4 * RATE)
    stage = adversary.play([read(), hold()])
    kustomer.fault(place(stage.url))
    with ends(READ, 4.0), pytest.raises(NoAnswer) as caught:
        upload(auth, content)  # type: ignore[arg-type]
    assert "no complete answer within" in str(caught.value)


# Windmill's object storage


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What a job knows of its workspace, but for the address."""
    monkeypatch.setenv("WM_TOKEN", "token-of-the-job")
    monkeypatch.setenv("WM_WORKSPACE", "acme")
    monkeypatch.setenv("SSL_CERT_DIR", "/")
    return monkeypatch


BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
STORAGES: dict[str, Script] = {
    "headers": [read(), send(BEGUN), send_for_ever(b"X-A: b\r\n", DRIP)],
    "a header": [read(), send(BEGUN + b"X-A: "), send_for_ever(b"b", DRIP)],
    "informational answers": [read(), send_for_ever(b"HTTP/1.1 102 Processing\r\n\r\n", DRIP)],
    "a file": [read(), send(BEGUN + b"Content-Length: 99999999\r\n\r\n"), send_for_ever(b"x", DRIP)],
    "a file of no length": [read(), send(BEGUN + b"\r\n"), send_for_ever(b"x", DRIP)],
    "chunks": [read(), send(BEGUN + b"Transfer-Encoding: chunked\r\n\r\n"), send_for_ever(b"1\r\nx\r\n", DRIP)],
    "an error": [read(), send(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"), send_for_ever(b"x", DRIP)],
    "nothing": [read(), hold()],
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", STORAGES)
def test_a_storage_that_drips_is_given_up(
    adversary: Adversary, kustomer: Kustomer, auth: Body, job: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing is sent of a file that doesn't come, and another run may fare better."""
    stage = adversary.play(STORAGES[name])
    job.setenv("BASE_INTERNAL_URL", stage.url)
    with ends(0, 3 * READ), pytest.raises(FileNotRead) as caught:
        upload(auth, FILE)  # type: ignore[arg-type]
    assert (caught.value.outcome, caught.value.retryable, kustomer.requests) == ("not_sent", True, [])


def test_a_storage_that_gets_on_may_take_longer(
    adversary: Adversary, kustomer: Kustomer, auth: Body, job: pytest.MonkeyPatch
) -> None:
    """It is held to the same rule as an upload."""
    job.setattr(wire, "READ_SECONDS", 1.0)
    job.setattr(wire, "SLOWEST_BYTES_PER_SECOND", 1_000)
    pieces = itertools.chain.from_iterable([send(b"x" * 1_000), wait(DRIP)] for _ in range(60))
    stage = adversary.play([read(), send(BEGUN + b"Content-Length: 60000\r\n\r\n"), *pieces])
    job.setenv("BASE_INTERNAL_URL", stage.url)
    with ends(1.1, PATIENT):
        assert upload(auth, FILE)["contentLength"] == 60_000  # type: ignore[arg-type]


def test_many_dead_addresses_of_the_storage_take_no_longer_than_one(
    kustomer: Kustomer, auth: Body, job: pytest.MonkeyPatch, deaf: int
) -> None:
    """A file of which nothing moves has one limit, wherever it hangs."""
    resolving(job, *[deaf] * 8)
    job.setenv("BASE_INTERNAL_URL", f"http://localhost:{deaf}")
    with ends(READ, READ), pytest.raises(FileNotRead) as caught:
        upload(auth, FILE)  # type: ignore[arg-type]
    assert (caught.value.outcome, caught.value.retryable, kustomer.requests) == ("not_sent", True, [])


def test_a_storage_that_takes_a_file_and_says_nothing_is_given_up(
    adversary: Adversary, job: pytest.MonkeyPatch
) -> None:
    """Whether it has written it is not said."""
    job.setenv("BASE_INTERNAL_URL", adversary.play([read(), hold()]).url)
    with ends(READ, READ), pytest.raises(FileNotWritten, match=r"less than 64 kB/s over 0\.3 s") as caught:
        storage.write({"s3": "inbox/rows.csv"}, b"a,b")
    assert "was sent" not in str(caught.value)


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
    started = time.monotonic()
    error = run(message | EXTERNAL_ID).failed
    assert (error.outcome, error.attempts, len(waits)) == ("not_sent", 2, 1)
    assert sum(waits) + time.monotonic() - started <= 6.2 + READ + SLACK


def test_nothing_is_sent_once_the_budget_is_used_up(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what had been sent stays unknown."""
    monkeypatch.setattr(client, "BUDGET_SECONDS", 2 * READ)
    monkeypatch.setattr(client, "FIRST_WAIT_SECONDS", 0.001)
    kustomer.fault(*[Fault.hang()] * 9)
    with ends(0, 3 * READ):
        error = run(message | EXTERNAL_ID).failed
    assert len(kustomer.posts) <= 2
    assert (error.outcome, error.retryable) == ("unknown", True)
    assert "unknown whether the message was recorded" in str(error)


def test_nothing_is_sent_after_a_look_up_that_used_up_the_budget(
    adversary: Adversary, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However good its answer was."""
    monkeypatch.setattr(client, "BUDGET_SECONDS", READ / 3)
    absent = send(answer("404 Not Found", b'{"errors": [{"code": "notfound"}]}'))
    stage = adversary.play([read(), wait(READ / 2), absent, read(), send(created("65a1b2c3d4e5f60718293a4b"))])
    error = run(message | EXTERNAL_ID, baseUrl=stage.url).failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (NoAnswer, "not_sent", True, 1)
    assert "were used up" in str(error)
    assert len(stage.requests) == 1


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
