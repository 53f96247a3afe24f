"""Every path has an end: connecting, a proxy, sending, an upload and Windmill's storage, however slow they are."""

import base64
import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from f.kustomer import client, wire
from f.kustomer.create_message import main
from f.kustomer.errors import CannotConnect, FileNotRead, KustomerError, NoAnswer
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body, Step
from tests.other_steps.test_upload_attachment import place
from tests.standin.adversary import Adversary, Script, created, hold, read, send, send_for_ever
from tests.standin.kustomer import Kustomer

# Instead of the 30 s for an answer and the 5 s for a connection.
READ = 0.3
CONNECT = 0.3
# What a busy machine may take beyond a limit.
SLACK = 1.0
# Between the pieces of what drips: several come within any limit.
DRIP = 0.02

PATIENT = 20.0
FILE = {"file": {"s3": "inbox/invoice.pdf"}}
MIB = 1 << 20
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for, and no proxy but the test's own."""
    monkeypatch.setattr(wire, "READ_SECONDS", READ)
    monkeypatch.setattr(wire, "CONNECT_SECONDS", CONNECT)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextmanager
def ends(least: float, most: float) -> Iterator[None]:
    """Hold that what is done inside takes so many seconds, give or take a busy machine."""
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started < most + SLACK


def not_connected(error: KustomerError) -> None:
    """Hold what an error says after three tries to connect."""
    assert (type(error), error.outcome, error.retryable) == (CannotConnect, "not_sent", True)
    assert (error.status, error.attempts) == (None, 3)


# Connecting


def resolving(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let localhost have an address for each of these ports."""
    resolve = socket.getaddrinfo
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    def getaddrinfo(host: Any, *others: Any, **more: Any) -> Any:
        return found if host == "localhost" else resolve(host, *others, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_many_dead_addresses_take_no_longer_than_one(
    run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, waits: list[float], deaf: int, scheme: str
) -> None:
    """There is one limit for connecting, whatever the resolver says."""
    resolving(monkeypatch, *[deaf] * 8)
    with ends(3 * CONNECT, 3 * CONNECT):
        not_connected(run(message, baseUrl=f"{scheme}://localhost:{deaf}").failed)
    assert len(waits) == 2


@pytest.mark.parametrize("before", [1, 3])
def test_a_live_address_after_a_dead_one_is_reached(
    adversary: Adversary, auth: Body, message: Body, monkeypatch: pytest.MonkeyPatch, deaf: int, before: int
) -> None:
    """No address takes all the time that there is."""
    stage = adversary.play([read(), send(created("65a1b2c3d4e5f60718293a4b"))])
    resolving(monkeypatch, *[deaf] * before, stage.port)
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
@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_that_drips_is_given_up(adversary: Adversary, run: Step, message: Body, name: str) -> None:
    """It is a part of connecting."""
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
@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_has_no_more_time_than_there_is_to_connect(
    adversary: Adversary, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Until it has connected, nothing is sent, and a byte now and then gives it no more time."""
    monkeypatch.setattr(wire, "READ_SECONDS", PATIENT)
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
    with ends(READ, 2 * READ):
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
    with ends(READ, 3 * READ), pytest.raises(NoAnswer) as caught:
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
    stage = adversary.play([read(bytes_per_second=8 * MIB), send(NO_CONTENT)])
    kustomer.fault(place(stage.url))
    with ends(1.0, PATIENT):
        assert upload(auth, content)["contentLength"] == 12 * MIB  # type: ignore[arg-type]


@pytest.mark.timeout(10)
@pytest.mark.usefixtures("rule")
def test_an_upload_s_host_has_its_time_to_answer(
    adversary: Adversary, kustomer: Kustomer, auth: Body, content: Body
) -> None:
    """It begins when the file is sent, also that part of it which the system still holds, and ends."""
    stage = adversary.play([read(), hold()])
    kustomer.fault(place(stage.url))
    with ends(READ, 3 * READ + 4 * MIB / RATE), pytest.raises(NoAnswer) as caught:
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
    job.setattr(wire, "SLOWEST_BYTES_PER_SECOND", 1_000)
    pieces = itertools.chain.from_iterable([send(b"x" * 1_000), ["wait", DRIP]] for _ in range(40))
    stage = adversary.play([read(), send(BEGUN + b"Content-Length: 40000\r\n\r\n"), *pieces])
    job.setenv("BASE_INTERNAL_URL", stage.url)
    with ends(2 * READ, PATIENT):
        assert upload(auth, FILE)["contentLength"] == 40_000  # type: ignore[arg-type]


def test_many_dead_addresses_of_the_storage_take_no_longer_than_one(
    kustomer: Kustomer, auth: Body, job: pytest.MonkeyPatch, deaf: int
) -> None:
    """It has the same time to connect."""
    resolving(job, *[deaf] * 8)
    job.setenv("BASE_INTERNAL_URL", f"http://localhost:{deaf}")
    with ends(0, 2 * CONNECT), pytest.raises(FileNotRead) as caught:
        upload(auth, FILE)  # type: ignore[arg-type]
    assert (caught.value.outcome, caught.value.retryable, kustomer.requests) == ("not_sent", True, [])
