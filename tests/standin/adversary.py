"""A server that breaks every rule: raw sockets, in a process of their own, that play scripts made of a few steps.

In the tests' own process, endless answers would wait for the client, and huge ones would count as its memory.
A script is what happens on one connection: a list of the steps below, and at its end the connection is closed.

`python -m tests.standin.adversary` takes commands as lines of JSON until its input closes; bytes are Latin-1 there.
"""

import contextlib
import json
import pathlib
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Sequence
from typing import IO, Any, NamedTuple, Self, cast

ROOT = pathlib.Path(__file__).resolve().parents[2]

Step = list[Any]
Script = Sequence[Step]

# What the kernel keeps of what a script doesn't read: little, so that the sender notices.
_RECEIVE_BUFFER = 1 << 16
# What is sent at once of bytes that are sent for ever, and how much of a request is told.
_BLOCK = 1 << 16
_TOLD = 1 << 18
# On close, discard what is unsent and send RST instead of FIN (struct linger: on, 0 seconds).
_LINGER_NONE = struct.pack("ii", 1, 0)
# How much a slow reader reads at once.
_SIP = 1 << 13


def read(bytes_per_second: float = 0) -> Step:
    """Read one whole request; 0 is as fast as it comes."""
    return ["read", bytes_per_second]


def send(data: bytes, times: int = 1) -> Step:
    """Send bytes, so many times over."""
    return ["send", data.decode("latin-1"), times]


def send_for_ever(data: bytes, pause: float = 0) -> Step:
    """Send bytes over and over, pausing so many seconds in between; 0 is as fast as they go."""
    return ["send_for_ever", data.decode("latin-1"), pause]


def wait(seconds: float) -> Step:
    """Do nothing for so long."""
    return ["wait", seconds]


def hold() -> Step:
    """Keep the connection open, and neither read nor send any more."""
    return ["hold"]


def reset() -> Step:
    """Break the connection with a TCP RST."""
    return ["reset"]


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """A whole, well-formed answer, such as ``answer("404 Not Found", b"{}")``; the headers are added to its own."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def made(identifier: str) -> bytes:
    """The JSON of what has been created under this id."""
    return json.dumps({"data": {"type": "message", "id": identifier, "attributes": {}}}).encode()


def created(identifier: str) -> bytes:
    """A whole, well-formed answer that says so."""
    return answer("201 Created", made(identifier))


class Heard(NamedTuple):
    """A request as it came: on which connection (from 0), and its bytes, of which only the first are told."""

    connection: int
    data: bytes


class Stage:
    """A port on which scripts are played: one for each connection in turn, and the last for all after it."""

    def __init__(self, adversary: "Adversary", number: int, port: int) -> None:
        self._adversary, self._number, self.port = adversary, number, port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def requests(self) -> list[Heard]:
        """What was read so far, in order."""
        heard = self._adversary.ask(do="heard", stage=self._number)
        return [Heard(connection, data.encode("latin-1")) for connection, data in heard]

    @property
    def connections(self) -> int:
        """How many there have been."""
        return int(self._adversary.ask(do="connections", stage=self._number))

    def settle(self) -> None:
        """Wait until every script waits for a request, holds, or is over: all that it had to send is sent."""
        self._adversary.ask(do="settle", stage=self._number)


class Adversary:
    """The process; it runs while used as a context manager."""

    def __enter__(self) -> Self:
        """Start it."""
        command = [sys.executable, "-m", "tests.standin.adversary"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, with all that it plays."""
        with self._process:
            cast(IO[bytes], self._process.stdin).close()

    def play(self, *scripts: Script, tls: pathlib.Path | None = None) -> Stage:
        """Open a stage for these scripts; with ``tls``, a PEM file of key and certificates, for HTTPS."""
        number, port = self.ask(do="play", scripts=scripts, tls=str(tls or ""))
        return Stage(self, number, port)

    def clear(self) -> None:
        """Close all stages, with their connections."""
        self.ask(do="clear")

    def ask(self, **command: Any) -> Any:
        """Give a command, and wait for what comes back."""
        stdin, stdout = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        stdin.write(json.dumps(command).encode() + b"\n")
        stdin.flush()
        return json.loads(stdout.readline())


class _Stage:
    """The stage where it is played."""

    def __init__(self, scripts: list[Script], tls: str) -> None:
        self._scripts = scripts
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
        if self._tls:
            self._tls.load_cert_chain(tls)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._ended = threading.Event()
        self._settled = threading.Condition()
        self._busy = 0
        self.port: int = self._listener.getsockname()[1]
        self.heard: list[tuple[int, str]] = []
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def settle(self) -> bool:
        with self._settled:
            return self._settled.wait_for(lambda: not self._busy, 10)

    def end(self) -> None:
        self._ended.set()
        for each in (self._listener, *self.connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                number = len(self.connections)
                self.connections.append(connection)
                self._count(1)
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                for name, *arguments in self._scripts[min(number, len(self._scripts) - 1)]:
                    getattr(self, f"_{name}")(connection, number, *arguments)
        except (OSError, EOFError):
            connection.close()
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._settled:
            self._busy += more
            self._settled.notify_all()

    def _read(self, connection: socket.socket, number: int, bytes_per_second: float) -> None:
        at_once = _SIP if bytes_per_second else _BLOCK
        self._count(-1)
        try:
            data = connection.recv(at_once)
        finally:
            self._count(1)
        begun, told, came, missing = time.monotonic(), b"", 0, _BLOCK
        while data:
            missing = missing - len(data) if b"\r\n\r\n" in told else _missing(told + data)
            told = (told + data)[:_TOLD] if len(told) < _TOLD else told
            came += len(data)
            if missing <= 0:
                break
            if bytes_per_second:
                self._ended.wait(max(0.0, came / bytes_per_second - (time.monotonic() - begun)))
            data = connection.recv(min(at_once, missing))
        if not told:
            raise EOFError
        self.heard.append((number, told.decode("latin-1")))

    def _send(self, connection: socket.socket, _: int, text: str, times: int) -> None:
        data = text.encode("latin-1")
        for _ in range(times):
            connection.sendall(data)

    def _send_for_ever(self, connection: socket.socket, _: int, text: str, pause: float) -> None:
        data = text.encode("latin-1")
        data *= 1 if pause else -(-_BLOCK // len(data))
        while not (pause and self._ended.wait(pause)):
            connection.sendall(data)

    def _wait(self, _: socket.socket, __: int, seconds: float) -> None:
        self._ended.wait(seconds)

    def _hold(self, _: socket.socket, __: int) -> None:
        self._count(-1)
        self._ended.wait()
        self._count(1)

    def _reset(self, connection: socket.socket, _: int) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        connection.close()


def _missing(data: bytes) -> int:
    """At most how many bytes are missing of a request that begins so."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return _BLOCK
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
    return length - len(body)


def main() -> None:
    """Take commands until the input closes."""
    stages: list[_Stage] = []
    for line in sys.stdin:
        command = types.SimpleNamespace(**json.loads(line))
        reply: Any = None
        if command.do == "play":
            stages.append(_Stage(command.scripts, command.tls))
            reply = (len(stages) - 1, stages[-1].port)
        elif command.do == "clear":
            for stage in stages:
                stage.end()
        elif command.do == "settle":
            reply = stages[command.stage].settle()
        elif command.do == "heard":
            reply = stages[command.stage].heard
        elif command.do == "connections":
            reply = len(stages[command.stage].connections)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
