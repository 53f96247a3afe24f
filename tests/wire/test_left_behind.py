"""Whoever waits for an exchange stops in time; what goes on without him sends nothing and is nobody's answer."""

import base64
import gc
import random
import socket
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from f.kustomer.create_message import main
from f.kustomer.shared import wire
from f.kustomer.shared.errors import CannotConnect, NoAnswer, OddAnswer
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body, Step
from tests.other_steps.test_upload_attachment import place
from tests.standin.kustomer import Kustomer
from tests.wire.test_tls_and_odd_http import HEAD, Raw

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.timeout(10)
def test_a_message_that_was_not_sent_is_not_sent_later(
    run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the resolver answers, and the connection comes about, when nobody waits for it any longer."""
    monkeypatch.setattr(wire, "CONNECT_SECONDS", 0.2)
    resolve, resolved, heard = socket.getaddrinfo, threading.Event(), SimpleQueue[bytes]()

    def getaddrinfo(*arguments: object) -> object:
        resolved.wait()
        return resolve(*arguments)  # type: ignore[arg-type]

    with Raw(lambda raw, connection: heard.put(raw.request(connection))) as raw:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        error = run(message, baseUrl=f"http://localhost:{raw.port}").failed
        resolved.set()
        sent = [heard.get() for _ in range(3)]
    assert (type(error), error.outcome, error.attempts) == (CannotConnect, "not_sent", 3)
    assert "no connection in time" in str(error)
    assert [each.partition(b"\r\n\r\n")[2] for each in sent] == [b""] * 3


@pytest.mark.timeout(20)
def test_the_next_try_sends_the_whole_file_while_the_last_one_still_sends(
    kustomer: Kustomer, auth: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read the same file, and what nobody waits for any longer takes nothing more of it."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.5)
    content = random.Random(0).randbytes(8 << 20)
    begun, heard = threading.Event(), list[bytes]()

    def say(raw: Raw, connection: socket.socket) -> None:
        if not heard:
            heard.append(connection.recv(1 << 16))
            begun.wait()
            while connection.recv(1 << 20):  # as fast as the next one's bytes
                pass
            return
        begun.set()
        heard.append(raw.request(connection))
        connection.sendall(NO_CONTENT)

    with Raw(say) as host:
        kustomer.fault(place(f"http://127.0.0.1:{host.port}/"))
        upload(auth, {"content": base64.b64encode(content).decode(), "name": "a.bin"})  # type: ignore[arg-type]
    assert len(heard) == 2
    assert content in heard[1]


@pytest.mark.timeout(10)
def test_a_file_is_not_being_read_any_more_when_its_exchange_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly the disk gives it."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.1)
    reading, heard = list[bool](), SimpleQueue[bytes]()

    class SlowFile:
        def __len__(self) -> int:
            return 10

        def __iter__(self) -> Iterator[bytes]:
            yield b"12345"
            reading.append(True)
            threading.Event().wait(0.5)
            reading.append(False)
            yield b"67890"

    with Raw(lambda raw, connection: heard.put(raw.request(connection))) as host:
        with pytest.raises(wire.Failure) as caught:
            wire.exchange("POST", f"http://127.0.0.1:{host.port}/", {}, SlowFile())
        assert reading == [True, False]
    assert caught.value.problem is NoAnswer


def odd(raw: Raw, connection: socket.socket) -> None:
    """Answers in an unexpected way."""
    connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
    connection.recv(1)


def late(raw: Raw, connection: socket.socket) -> None:
    """Answers when nobody waits any longer."""
    threading.Event().wait(0.3)
    connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
    connection.recv(1)


def endless(raw: Raw, connection: socket.socket) -> None:
    """Answers for ever."""
    connection.sendall(HEAD + b"\r\n")
    while True:
        connection.sendall(b" ")
        threading.Event().wait(0.01)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("say", [odd, late, endless])
def test_a_connection_that_is_not_kept_is_closed(
    message: Body, auth: Body, monkeypatch: pytest.MonkeyPatch, say: Callable[[Raw, socket.socket], None]
) -> None:
    """At once, and not when the garbage collector comes: on a dedicated worker they would add up."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.2)

    def answer(raw: Raw, connection: socket.socket) -> None:
        raw.request(connection)
        say(raw, connection)

    gc.disable()
    try:
        with Raw(answer) as raw:
            with pytest.raises((OddAnswer, NoAnswer)):
                main(auth | {"baseUrl": f"http://127.0.0.1:{raw.port}"}, message)  # type: ignore[arg-type]
            raw.settle()
    finally:
        gc.enable()
