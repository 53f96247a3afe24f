"""A stand-in for Kustomer's server: an organisation behind a real HTTP server, with faults on demand.

`python -m tests.standin.kustomer [--tls CERT KEY]` serves until its input closes.
"""

import argparse
import asyncio
import json
import ssl
import sys
import threading

from aiohttp import web

from tests.standin.faults import Fault, deliver
from tests.standin.organisation import Effect, Organisation, Seen

__all__ = ["Fault", "Kustomer", "Seen"]

# Requests still running at the end are cut short (seconds): nobody waits for them.
_SHUTDOWN = 0.01


class Kustomer(Organisation):
    """One organisation on Kustomer, served on a free port of 127.0.0.1 while used as a context manager.

    `url` is its base, `requests` what it was asked, in order. The server runs in a thread of its own, which
    records a request and stores its message before it sends any answer.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, unique_external_ids: bool = False) -> None:
        """Prepare; with `tls` it serves HTTPS, as localhost. For `unique_external_ids` see `Organisation`."""
        self.url = ""
        self.requests: list[Seen] = []
        self._tls = tls
        self._faults: list[Fault] = []
        self._connections: dict[object, int] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._started = threading.Event()
        super().__init__(unique_external_ids=unique_external_ids)

    def __enter__(self) -> "Kustomer":
        """Start to serve."""
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, breaking what connections are left."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def posts(self) -> list[Seen]:
        """The requests that tried to create a message."""
        return [seen for seen in self.requests if (seen.method, seen.path) == ("POST", "/v1/messages")]

    @property
    def gets(self) -> list[Seen]:
        """The look-ups."""
        return [seen for seen in self.requests if seen.method == "GET"]

    def fault(self, fault: Fault, *more: Fault) -> None:
        """Queue faults; each is used up by the first request of its method that no earlier fault takes."""
        self._faults.extend((fault, *more))

    def release(self) -> None:
        """Let the requests that hang now come to their end."""
        self._loop.call_soon_threadsafe(self._let_go)

    def clear(self) -> None:
        """Forget messages, requests, faults and what was counted; the seeds stay."""
        self.requests.clear()
        self._faults.clear()
        super().clear()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._released, self._stopping = asyncio.Event(), asyncio.Event()
        server = web.Server(self._handle, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        port = runner.addresses[0][1]
        self.url = f"https://localhost:{port}" if self._tls else f"http://127.0.0.1:{port}"
        self._started.set()
        await self._stopping.wait()
        # A TLS connection that closes in order waits for its peer, longer than the loop lives.
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        self._let_go()
        await runner.cleanup()

    def _let_go(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        fault = self._take_fault(request.method)
        unread = fault is not None and fault.before_reading
        body = b"" if unread else await request.content.read()
        # Keeping the connection's handler as a key keeps its number from being given twice.
        connection = self._connections.setdefault(request.protocol, len(self._connections) + 1)
        seen = Seen(request.method, request.raw_path, request.headers, body, connection)
        self.requests.append(seen)
        answer = self.answer(seen, _effect(fault))
        if fault is None:
            return answer.response()
        return await deliver(fault, request, answer, self._released)

    def _take_fault(self, method: str) -> Fault | None:
        for at, fault in enumerate(self._faults):
            if fault.on in (method, "*"):
                return self._faults.pop(at)
        return None


def _effect(fault: Fault | None) -> Effect:
    """What becomes of a message whose request meets this fault."""
    if fault is None or fault.store:
        return "stored"
    return "late" if fault.kind == "late_store" else "none"


def main() -> None:
    """Serve until the input closes, after one line of JSON with what a client needs."""
    parser = argparse.ArgumentParser(description="A stand-in for Kustomer's REST API.")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="serve HTTPS with these PEM files")
    files = parser.parse_args().tls
    tls = None
    if files:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*files)
    with Kustomer(tls) as kustomer:
        ready = {name: getattr(kustomer, name) for name in ("url", "keys", "customer", "conversation")}
        print(json.dumps(ready), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
