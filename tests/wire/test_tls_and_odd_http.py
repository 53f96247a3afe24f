"""What is between the worker and Kustomer: connections, TLS, proxies, redirects, and answers that are hardly HTTP."""

import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest
import trustme

from f.kustomer.create_message import main
from f.kustomer.shared import errors, wire
from f.kustomer.shared.errors import (
    AccessDenied,
    CannotConnect,
    KustomerError,
    NoAnswer,
    NotTrusted,
    OddAnswer,
    RateLimited,
    Rejected,
    ServerFailed,
)
from tests.conftest import Body, Run, Step
from tests.standin.kustomer import Fault, Kustomer

Problem = type[KustomerError]

EXTERNAL_ID = {"externalId": "order-1042"}
DRIP = 0.02  # seconds between two bytes
UNKNOWN = "It is unknown whether the message was recorded: it may be on the timeline."

with_and_without_external_id = pytest.mark.parametrize("extra", [{}, EXTERNAL_ID], ids=["no externalId", "externalId"])


class Raw:
    """A listener that lets ``say`` deal with each connection; ``heard`` is all that came over them."""

    def __init__(self, say: Callable[["Raw", socket.socket], None], port: int = 0) -> None:
        self._say = say
        self._listener = socket.create_server(("127.0.0.1", port))
        self._connections: list[socket.socket] = []
        self._serving: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self.port: int = self._listener.getsockname()[1]
        self.heard = b""
        self._accepting.start()

    def __enter__(self) -> Self:
        """It serves already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops, with every connection."""
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.settle()

    def settle(self) -> None:
        """Waits until every connection so far is dealt with."""
        while self._serving:
            self._serving.pop().join()

    def request(self, connection: socket.socket) -> bytes:
        """Reads one whole request."""
        data = b""
        while b"\r\n\r\n" not in data and (more := connection.recv(65_536)):
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"), 0)
        while len(body) < length and (more := connection.recv(65_536)):
            body += more
            data += more
        self.heard += data
        return data

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._serving.append(thread)  # before it starts, so that settle() never misses it
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._say(self, connection)


def saying(answer: bytes) -> Callable[[Raw, socket.socket], None]:
    """Reads a request and answers these bytes."""

    def say(raw: Raw, connection: socket.socket) -> None:
        raw.request(connection)
        connection.sendall(answer)

    return say


def relaying(port: int) -> Callable[[Raw, socket.socket], None]:
    """Passes everything on to that port of this machine, and back."""

    def say(_: Raw, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as target:
            relay(connection, target)

    return say


def tunnelling(raw: Raw, connection: socket.socket) -> None:
    """A proxy: connects as CONNECT says, and passes on what it can't read."""
    port = int(raw.request(connection).split()[1].rpartition(b":")[2])
    with socket.create_connection(("127.0.0.1", port)) as target:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        relay(connection, target)


def relay(one: socket.socket, other: socket.socket) -> None:
    """Passes bytes both ways until either end closes."""
    to = {one: other, other: one}
    while True:
        for ready in select.select([one, other], [], [])[0]:
            data = ready.recv(65_536)
            if not data:
                return
            to[ready].sendall(data)


def secure_proxy(context: ssl.SSLContext, port: int, drips: Callable[[], bool]) -> Callable[[Raw, socket.socket], None]:
    """A proxy that is reached by TLS, and connects to that port; what comes back drips while ``drips`` says so."""

    def say(raw: Raw, connection: socket.socket) -> None:
        with (
            context.wrap_socket(connection, server_side=True) as secure,
            socket.create_connection(("127.0.0.1", port)) as target,
        ):
            raw.request(secure)
            secure.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            forward = threading.Thread(target=pass_on, args=(secure, target))
            forward.start()
            pass_on(target, secure, drips)
            secure.shutdown(socket.SHUT_RDWR)
            forward.join()

    return say


def pass_on(source: socket.socket, target: socket.socket, drips: Callable[[], bool] = lambda: False) -> None:
    """Passes bytes on one way until either end closes."""
    with suppress(OSError):
        while data := source.recv(65_536):
            size = 1 if drips() else len(data)
            for at in range(0, len(data), size):
                target.sendall(data[at : at + size])
                threading.Event().wait(DRIP if drips() else 0)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def port_of(kustomer: Kustomer) -> int:
    """Where the stand-in listens."""
    return int(kustomer.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """An authority that signs certificates."""
    return trustme.CA()


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """No authorities but the test's own."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def tls_for(ca: trustme.CA, host: str, until: datetime | None = None) -> ssl.SSLContext:
    """What a server needs to speak TLS for a host."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(host, not_after=until).configure_cert(context)
    return context


def securely(context: ssl.SSLContext, answer: bytes) -> Callable[[Raw, socket.socket], None]:
    """Reads a request and answers these bytes, over TLS."""

    def say(raw: Raw, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            raw.request(secure)
            secure.sendall(answer)

    return say


@pytest.fixture
def kustomer(request: pytest.FixtureRequest, ca: trustme.CA) -> Iterator[Kustomer]:
    """A stand-in, which serves HTTPS where the test says so."""
    with Kustomer(tls_for(ca, "localhost") if getattr(request, "param", None) else None) as server:
        yield server


@pytest.fixture
def trusted(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker trusts the authority, as REQUESTS_CA_BUNDLE says."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))


over_tls = pytest.mark.parametrize("kustomer", ["TLS"], indirect=True)


def not_sent(found: Run, problem: Problem = CannotConnect, attempts: int = 3) -> str:
    """Holds what an error says when the message was not sent, and returns its text."""
    error = found.failed
    assert (type(error), error.status, error.outcome, error.attempts) == (problem, None, "not_sent", attempts)
    assert error.retryable is (problem in (CannotConnect, NoAnswer))
    assert "This run did not send the message." in str(error)
    assert found.requests == 0
    return str(error)


# Answers that are hardly HTTP

HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
DONE = b'{"data": {"id": "65a1b2c3d4e5f60718293a4b"}}'
LENGTH = b"Content-Length: %d\r\n" % len(DONE)
ACCEPTED = HEAD + LENGTH + b"\r\n" + DONE
BROKEN: dict[str, tuple[bytes, Problem, int | None]] = {
    "not HTTP": (b"220 mail.acme.example ESMTP\r\n", NoAnswer, None),
    "a page without a head": (b"<html>It works!</html>", NoAnswer, None),
    "only blank lines": (b"\r\n\r\n\r\n\r\n", NoAnswer, None),
    "a head that ends early": (HEAD, OddAnswer, 201),
    "status 99": (b"HTTP/1.1 099 Odd\r\n\r\n", NoAnswer, None),
    "status 1000": (b"HTTP/1.1 1000 Odd\r\n\r\n", NoAnswer, None),
    "status two hundred": (b"HTTP/1.1 OK OK\r\n\r\n", NoAnswer, None),
    "too many headers": (HEAD + b"X-A: b\r\n" * 200 + b"\r\n" + DONE, NoAnswer, None),
    "too long a header": (HEAD + b"X-A: " + b"b" * 70_000 + b"\r\n\r\n" + DONE, NoAnswer, None),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + DONE, NoAnswer, None),
    "too long a length": (HEAD + b"Content-Length: 999\r\n\r\n" + DONE, NoAnswer, 201),
    "no chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", NoAnswer, 201),
    "a chunk of no size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + DONE, NoAnswer, 201),
    "not gzip": (HEAD + LENGTH + b"Content-Encoding: gzip\r\n\r\n" + DONE, OddAnswer, 201),
    "a switch of protocols": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", OddAnswer, 101),
    "503 cut off": (b"HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\n<h1>", ServerFailed, 503),
    "a redirect cut off": (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 99\r\n\r\n<h1>", NoAnswer, 302),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_is_hardly_http_is_unknown(run: Step, message: Body, waits: list[float], name: str) -> None:
    """The message has left the worker, and is not sent again."""
    answer, problem, status = BROKEN[name]
    with Raw(saying(answer)) as raw:
        error = run(message, baseUrl=f"http://127.0.0.1:{raw.port}").failed
    assert (type(error), error.outcome, error.retryable) == (problem, "unknown", False)
    if status:
        assert (error.status, str(error)[:4]) == (status, f"{status} ")
    assert (error.attempts, raw.heard.count(b"POST "), waits) == (1, 1, [])
    assert UNKNOWN in str(error)


@pytest.mark.parametrize(
    ("status", "problem"), [(400, Rejected), (401, AccessDenied), (403, AccessDenied), (404, Rejected), (422, Rejected)]
)
@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 99\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n9\r\n{", b"Content-Encoding: gzip\r\n\r\n{"],
)
def test_a_refusal_whose_reasons_are_cut_off_is_a_refusal(
    run: Step, message: Body, status: int, problem: Problem, rest: bytes
) -> None:
    """Its status was read: nothing was recorded."""
    with Raw(saying(b"HTTP/1.1 %d No\r\n" % status + rest)) as raw:
        error = run(message, baseUrl=f"http://127.0.0.1:{raw.port}").failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, "rejected", False)
    assert str(error).startswith(f"{status} ")


def test_a_limit_whose_reasons_are_cut_off_is_a_limit(run: Step, message: Body, waits: list[float]) -> None:
    """It is waited out as it says."""
    with Raw(saying(b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 99\r\n\r\n{")) as raw:
        error = run(message, baseUrl=f"http://127.0.0.1:{raw.port}").failed
    assert (type(error), error.status, error.outcome, error.retryable) == (RateLimited, 429, "rejected", True)
    assert (error.retry_after, error.attempts, len(waits)) == (3, 6, 5)


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"\r\n" + DONE,
        ACCEPTED,
        HEAD + LENGTH + b"\r\n" + DONE + b"HTTP/1.1 500 Another\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(DONE), DONE),
        b"HTTP/1.0 201 Created\r\n\r\n" + DONE,
        b"HTTP/1.1 201\r\n\r\n" + DONE,
        b"HTTP/1.1 201 Cr\xe9\xe9 \xf0\x9f\r\nX: \xff\r\n" + LENGTH + b"\r\n" + DONE,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + HEAD + LENGTH + b"\r\n" + DONE,
        HEAD + LENGTH + b"no colon here\r\n\r\n" + DONE,
        HEAD.replace(b"application/json", b"text/html; charset=utf-16") + LENGTH + b"\r\n" + DONE,
    ],
    ids=lambda answer: repr(answer[:60]),
)
def test_a_success_is_a_success_in_any_framing(message: Body, auth: Body, answer: bytes) -> None:
    """What counts is a 2xx and data.id."""
    with Raw(saying(answer)) as raw:
        result = main(auth | {"baseUrl": f"http://127.0.0.1:{raw.port}"}, message)  # type: ignore[arg-type]
    assert result == json.loads(DONE)


def test_bytes_after_an_answer_are_not_taken_for_the_next(message: Body, auth: Body) -> None:
    """A kept connection with something left on it is not used again."""
    numbers = iter(range(9))

    def say(raw: Raw, connection: socket.socket) -> None:
        while raw.request(connection):
            number = next(numbers)
            body = b'{"data": {"id": "%d"}}' % number
            answer = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
            connection.sendall(answer if number else answer * 2)

    with Raw(say) as raw:
        ids = [
            main(auth | {"baseUrl": f"http://127.0.0.1:{raw.port}"}, message)["data"]["id"]  # type: ignore[arg-type]
            for _ in range(3)
        ]
        assert ids == ["0", "1", "2"]


def test_a_connection_that_the_server_has_closed_is_not_used(message: Body, auth: Body) -> None:
    """It would leave the next message unknown; here every answer is the connection's last without saying so."""
    with Raw(saying(ACCEPTED)) as raw:
        for _ in range(5):
            assert main(auth | {"baseUrl": f"http://127.0.0.1:{raw.port}"}, message)["data"]["id"]  # type: ignore[arg-type]
            raw.settle()
        assert raw.heard.count(b"POST ") == 5


# Connections that come and go


def test_a_message_is_sent_once_the_server_is_back(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is tried again, also without an externalId."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    doors: list[Raw] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            doors.append(Raw(relaying(port_of(kustomer)), port))

    monkeypatch.setattr(time, "sleep", sleep)
    try:
        found = run(message, baseUrl=f"http://127.0.0.1:{port}")
    finally:
        for door in doors:
            door.__exit__()
    assert (found.id, found.stored, found.requests) == (kustomer.messages[0]["id"], 1, 1)
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("extra", "fault", "outcome", "stored"),
    [
        ({}, Fault.answer(429), "rejected", 0),
        (EXTERNAL_ID, Fault.answer(429), "rejected", 0),
        (EXTERNAL_ID, Fault.answer(504), "unknown", 0),
        (EXTERNAL_ID, Fault.answer(504, store=True), "unknown", 1),
        (EXTERNAL_ID, Fault.answer(503, on="GET"), "not_sent", 0),
    ],
    ids=["429", "429 with externalId", "504", "504 stored", "look-up 503"],
)
def test_a_server_that_goes_away_does_not_change_what_became_of_the_message(
    kustomer: Kustomer,
    run: Step,
    message: Body,
    monkeypatch: pytest.MonkeyPatch,
    extra: Body,
    fault: Fault,
    outcome: str,
    stored: int,
) -> None:
    """The last try found no connection, but an earlier one had sent the message."""
    kustomer.fault(fault)
    with Raw(relaying(port_of(kustomer))) as door:
        monkeypatch.setattr(time, "sleep", lambda _: door.__exit__())
        found = run(message | extra, baseUrl=f"http://127.0.0.1:{door.port}")
    error = found.failed
    assert (type(error), error.outcome, error.retryable, found.stored) == (CannotConnect, outcome, True, stored)


# Redirects

LOCATIONS = {
    "here": "/v1/messages",
    "elsewhere": "{other}/v1/messages",
    "nowhere": "https://user:password@nowhere.invalid/v1/messages",
    "no scheme": "//",
    "half an address": "http://[::1",
    "no such port": "http://127.0.0.1:99999999/",
    "another scheme": "file:///etc/passwd",
    "not ASCII": "http://\xff\xfe/",
    "blank": " ",
    "empty": "",
}


@pytest.mark.parametrize(
    ("status", "location"),
    [
        *[(status, "elsewhere") for status in (300, 301, 302, 303, 304, 305, 307, 308)],
        *[(status, location) for status in (302, 307) for location in LOCATIONS if location != "elsewhere"],
    ],
)
def test_a_redirect_is_not_followed(
    kustomer: Kustomer, run: Step, message: Body, waits: list[float], status: int, location: str
) -> None:
    """Neither key nor message go to another server, and its answer is not taken for Kustomer's."""
    with Kustomer() as other:
        kustomer.fault(Fault.answer(status, headers={"Location": LOCATIONS[location].format(other=other.url)}))
        error = run(message).failed
        assert other.requests == []
    assert (type(error), error.status, error.outcome, error.retryable) == (OddAnswer, status, "unknown", False)
    assert str(error).startswith(f"{status} ")
    assert UNKNOWN in str(error)
    assert (len(kustomer.requests), waits) == (1, [])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirected_look_up_is_not_followed(kustomer: Kustomer, run: Step, message: Body, status: int) -> None:
    """Nothing is sent where nothing could be looked up."""
    with Kustomer() as other:
        kustomer.fault(Fault.answer(status, headers={"Location": f"{other.url}/v1/messages/1"}, on="GET"))
        error = run(message | EXTERNAL_ID).failed
        assert other.requests == []
    assert (type(error), error.status, error.outcome) == (OddAnswer, status, "not_sent")
    assert [seen.method for seen in kustomer.requests] == ["GET"]


@with_and_without_external_id
def test_a_redirect_that_recorded_the_message_is_told_truly(
    kustomer: Kustomer, run: Step, message: Body, extra: Body
) -> None:
    """With an externalId it is found."""
    kustomer.fault(Fault.answer(303, headers={"Location": "/v1/messages/1"}, store=True))
    found = run(message | extra)
    assert found.stored == len(kustomer.posts) == 1
    assert found.id == kustomer.messages[0]["id"] if extra else found.failed.outcome == "unknown"


# TLS


@over_tls
@pytest.mark.usefixtures("trusted")
@with_and_without_external_id
def test_a_trusted_server_gets_the_message(kustomer: Kustomer, run: Step, message: Body, extra: Body) -> None:
    """REQUESTS_CA_BUNDLE says whom else to trust."""
    assert run(message | extra).id == kustomer.messages[0]["id"]


@over_tls
def test_curls_variable_counts_too(
    run: Step, message: Body, ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for requests."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "ca.pem"))
    assert run(message).stored == 1


@with_and_without_external_id
def test_an_untrusted_server_gets_nothing(
    run: Step, message: Body, waits: list[float], ca: trustme.CA, extra: Body
) -> None:
    """Trying again would not help, and the error says what would."""
    with Raw(securely(tls_for(ca, "localhost"), ACCEPTED)) as raw:
        text = not_sent(run(message | extra, baseUrl=f"https://localhost:{raw.port}"), NotTrusted, 1)
    assert "the server's certificate is not trusted: unable to get local issuer certificate." in text
    assert "REQUESTS_CA_BUNDLE" in text
    assert (raw.heard, waits) == (b"", [])


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("host", "until", "why"),
    [
        ("api.kustomerapp.example", None, "Hostname mismatch, certificate is not valid for 'localhost'."),
        ("localhost", datetime(2020, 1, 1, tzinfo=UTC), "certificate has expired."),
    ],
    ids=["another host's", "expired"],
)
def test_a_certificate_must_be_valid_for_host_and_time(
    run: Step, message: Body, ca: trustme.CA, host: str, until: datetime | None, why: str
) -> None:
    """A trusted authority is not enough, and the error says what is missing."""
    with Raw(securely(tls_for(ca, host, until), ACCEPTED)) as raw:
        text = not_sent(run(message, baseUrl=f"https://localhost:{raw.port}"), NotTrusted, 1)
    assert f"the server's certificate is not trusted: {why} This run" in text
    assert raw.heard == b""


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["missing", "empty", "odd"])
def test_an_odd_bundle_sends_nothing(
    run: Step, message: Body, ca: trustme.CA, content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the worker's own mistake, which may not come out as anything else than an error of the step."""
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with Raw(securely(tls_for(ca, "localhost"), ACCEPTED)) as raw:
        error = run(message, baseUrl=f"https://localhost:{raw.port}").failed
    assert (type(error), error.outcome, error.retryable, raw.heard) == (NotTrusted, "not_sent", False, b"")
    assert "the file of trusted certificates can't be read" in str(error)


def test_https_to_a_plain_port_sends_nothing(kustomer: Kustomer, run: Step, message: Body, waits: list[float]) -> None:
    """There is no handshake, so that neither key nor message leave."""
    not_sent(run(message, baseUrl=kustomer.url.replace("http://", "https://")))
    assert len(waits) == 2


def test_plain_http_to_a_tls_port_is_no_success(run: Step, message: Body, ca: trustme.CA) -> None:
    """The request left, so that the step can't know."""
    with Raw(securely(tls_for(ca, "localhost"), ACCEPTED)) as raw:
        error = run(message, baseUrl=f"http://localhost:{raw.port}").failed
    assert (type(error), error.outcome, error.retryable) == (NoAnswer, "unknown", False)
    assert raw.heard == b""


HANDSHAKES = {
    "closed at once": b"",
    "closed after the hello": b"",
    "not TLS": b"HTTP/1.1 400 Bad Request\r\n\r\nThis port speaks no TLS",
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "half a hello": b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03",
}


@with_and_without_external_id
@pytest.mark.parametrize(
    ("name", "reset"),
    # Without a reset at once: there Python's own ssl module leaves a socket to the garbage collector.
    [(name, reset) for name in HANDSHAKES for reset in (False, True) if (name, reset) != ("closed at once", True)],
)
def test_a_handshake_that_breaks_off_sends_nothing(
    run: Step, message: Body, name: str, reset: bool, extra: Body
) -> None:
    """However it ends. Of a look-up that was reset, the libraries don't say whether it had left."""

    def say(_: Raw, connection: socket.socket) -> None:
        if name != "closed at once":
            connection.recv(65_536)
        connection.sendall(HANDSHAKES[name])
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with Raw(say) as raw:
        found = run(message | extra, baseUrl=f"https://127.0.0.1:{raw.port}")
    not_sent(found, NoAnswer if extra and reset and isinstance(found.failed, NoAnswer) else CannotConnect)


@over_tls
@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize("kind", ["reset", "close", "cut", "hang", "drip"])
def test_a_secure_connection_that_breaks_is_unknown(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, kind: str, store: bool
) -> None:
    """TLS changes nothing about what may have been recorded, nor about the limit of an answer."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.3)
    make: dict[str, Callable[[], Fault]] = {
        "reset": lambda: Fault.reset(store=store),
        "close": lambda: Fault.close(store=store),
        "cut": lambda: Fault.cut(store=store),
        "hang": lambda: Fault.hang(store=store),
        "drip": lambda: Fault.drip(0.1, store=store),
    }
    kustomer.fault(make[kind]())
    started = time.monotonic()
    found = run(message)
    assert time.monotonic() - started < 2
    error = found.failed
    assert (type(error), error.outcome, error.retryable) == (NoAnswer, "unknown", False)
    assert (found.requests, found.stored) == (1, int(store))
    kustomer.fault(make[kind]())
    assert run(message | EXTERNAL_ID).stored == 1


# Proxies


@over_tls
@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_passes_on_what_it_cannot_read(
    kustomer: Kustomer, run: Step, message: Body, auth: Body, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It learns the host and nothing else."""
    with Raw(tunnelling) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert run(message | EXTERNAL_ID).id == kustomer.messages[0]["id"]
        assert proxy.heard.startswith(f"CONNECT localhost:{port_of(kustomer)} HTTP/1".encode())
        assert b"Bearer" not in proxy.heard
        assert auth["apiKey"].encode() not in proxy.heard


@over_tls
@pytest.mark.usefixtures("trusted")
def test_a_connection_that_breaks_behind_a_proxy_is_unknown(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tunnel stood, so that the message had left."""
    kustomer.fault(Fault.reset(store=True))
    with Raw(tunnelling) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        error = run(message).failed
    assert (type(error), error.outcome, error.retryable) == (NoAnswer, "unknown", False)


@over_tls
@pytest.mark.usefixtures("trusted")
def test_a_proxy_may_be_reached_by_tls(
    kustomer: Kustomer, run: Step, message: Body, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is TLS within TLS, also to the end of an answer that is the connection's last."""
    with Raw(secure_proxy(tls_for(ca, "localhost"), port_of(kustomer), lambda: False)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        assert run(message | EXTERNAL_ID).id == run(message | EXTERNAL_ID).id
        assert len({seen.connection for seen in kustomer.requests}) == 1
        kustomer.fault(Fault.answer(201, {"data": {"id": "7"}}, {"Connection": "close"}))
        assert main({"apiKey": kustomer.keys["full"], "baseUrl": kustomer.url}, message)["data"] == {"id": "7"}  # type: ignore[arg-type]


@over_tls
@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("part", ["handshake", "answer"])
def test_a_proxy_that_is_reached_by_tls_gives_nothing_more_time(
    kustomer: Kustomer, run: Step, message: Body, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """However slowly the bytes of the TLS within come."""
    monkeypatch.setattr(wire, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(wire, "READ_SECONDS", 0.5)
    over: list[KustomerError] = []
    drips = {"handshake": lambda: not over, "answer": lambda: bool(kustomer.requests) and not over}[part]
    with Raw(secure_proxy(tls_for(ca, "localhost"), port_of(kustomer), drips)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        started = time.monotonic()
        over.append(run(message).failed)
        assert time.monotonic() - started < 3
    problem = {"handshake": (CannotConnect, "not_sent"), "answer": (NoAnswer, "unknown")}[part]
    assert (type(over[0]), over[0].outcome) == problem
    assert len(kustomer.requests) == (part == "answer")


@with_and_without_external_id
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n<h1>Bad Gateway</h1>",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
        b"not HTTP\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>Log in</html>",
    ],
    ids=repr,
)
def test_a_proxy_that_does_not_connect_gets_no_message(
    run: Step, message: Body, auth: Body, monkeypatch: pytest.MonkeyPatch, answer: bytes, extra: Body
) -> None:
    """Whatever it answers to CONNECT. What is no HTTP at all looks as if a look-up had left, and a message hasn't."""
    with Raw(saying(answer)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        problem = NoAnswer if extra and not answer.startswith(b"HTTP/") else CannotConnect
        not_sent(run(message | extra, baseUrl="https://nowhere.invalid"), problem)
        assert proxy.heard.count(b"CONNECT nowhere.invalid:443 ") == 3
        assert b"POST" not in proxy.heard
        assert auth["apiKey"].encode() not in proxy.heard


def test_a_proxy_that_refuses_is_named_as_the_cause(run: Step, message: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one would look for the mistake in orgName and baseUrl."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    assert "proxy" in not_sent(run(message, baseUrl="https://nowhere.invalid"))


def test_missing_certificates_are_named_as_the_cause(run: Step, message: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of the worker that names them, not the resource, has to be mended."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/certificates.pem")
    error = run(message, baseUrl="https://nowhere.invalid").failed
    assert (type(error), error.outcome, error.retryable) == (errors.NotTrusted, "not_sent", False)
    assert "REQUESTS_CA_BUNDLE" in str(error)


def test_a_proxy_that_hangs_is_given_up_in_the_time_to_connect(
    run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has connected, no answer of Kustomer's is waited for."""
    monkeypatch.setattr(wire, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(wire, "READ_SECONDS", 20.0)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        started = time.monotonic()
        not_sent(run(message, baseUrl="https://nowhere.invalid"))
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_plain_http_goes_through_no_proxy(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It would read the key."""
    with Raw(saying(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert run(message | EXTERNAL_ID).id == kustomer.messages[0]["id"]
        assert proxy.heard == b""


@over_tls
@pytest.mark.usefixtures("trusted")
def test_a_host_may_be_excepted_from_the_proxy(run: Step, message: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NO_PROXY says."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert run(message).stored == 1
