"""A stand-in for Kustomer's servers: an organisation behind a real HTTP server, with faults on demand.

A second server takes the organisation's files, as Amazon S3 does for Kustomer.

`python -m tests.standin.kustomer` serves until its input closes.
"""

import asyncio
import itertools
import json
import ssl
import sys
import threading

from aiohttp import web

from tests.standin.access import Seen
from tests.standin.bulk import Bulk
from tests.standin.faults import Answer, Fault, deliver
from tests.standin.limit import ORG_LIMIT
from tests.standin.organisation import Organisation
from tests.standin.records import Effect
from tests.standin.uploads import UPLOAD_PATH, StoredFile

__all__ = ["UPLOAD_PATH", "Bulk", "Fault", "Kustomer", "Seen", "StoredFile"]

# Requests still running at the end are cut short (seconds): nobody waits for them.
_SHUTDOWN = 0.01

# What is never sent, as the request was not even read.
_UNREAD = Answer(500)


class Kustomer(Organisation):
    """One organisation on Kustomer, served on free ports of 127.0.0.1 while used as a context manager.

    `url` is its base, `requests` what it was asked, in order. `upload_url` is where forms with files go, and
    `upload_requests` what came there, without bodies. The servers run in a thread of their own, which records a
    request and stores what it creates before it sends any answer.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        unique_external_ids: bool = False,
        unique_identifiers: bool = True,
        limit: int = ORG_LIMIT,
        agents: int = 0,
    ) -> None:
        """Prepare; with `tls` it serves HTTPS, as localhost. For the other options see `Organisation`."""
        self.url = ""
        self.requests: list[Seen] = []
        self.upload_requests: list[Seen] = []
        self._tls = tls
        self._faults: list[Fault] = []
        self._connections: dict[object, int] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._started = threading.Event()
        super().__init__(
            unique_external_ids=unique_external_ids,
            unique_identifiers=unique_identifiers,
            limit=limit,
            agents=agents,
        )

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
        """Queue faults; each is used up by the first request that it fits and that no earlier fault takes."""
        self._faults.extend((fault, *more))

    def release(self) -> None:
        """Let the requests that hang now come to their end."""
        self._loop.call_soon_threadsafe(self._let_go)

    def clear(self) -> None:
        """Forget what was created, requests, faults and what was counted; seeds and keys stay."""
        self.requests.clear()
        self.upload_requests.clear()
        self._faults.clear()
        super().clear()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._released, self._stopping = asyncio.Event(), asyncio.Event()
        servers = [web.Server(handle, access_log=None) for handle in (self._handle, self._handle_upload)]
        runners = [web.ServerRunner(server, shutdown_timeout=_SHUTDOWN) for server in servers]
        self.url, upload_host = [await self._start(runner) for runner in runners]
        self.upload_url = upload_host + UPLOAD_PATH
        self._started.set()
        await self._stopping.wait()
        # A TLS connection that closes in order waits for its peer, longer than the loop lives.
        for connection in itertools.chain.from_iterable(server.connections for server in servers):
            if connection.transport is not None:
                connection.transport.abort()
        self._let_go()
        for runner in runners:
            await runner.cleanup()

    async def _start(self, runner: web.ServerRunner) -> str:
        """Serve on a free port, and give the base of its URLs."""
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        port = runner.addresses[0][1]
        return f"https://localhost:{port}" if self._tls else f"http://127.0.0.1:{port}"

    def _let_go(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        fault = self._take_fault(request)
        unread = fault is not None and fault.before_reading
        seen = self._seen(request, b"" if unread else await request.content.read())
        self.requests.append(seen)
        answer = self.answer(seen, _effect(fault))
        return await self._send(fault, request, answer)

    async def _handle_upload(self, request: web.BaseRequest) -> web.StreamResponse:
        fault = self._take_fault(request)
        self.upload_requests.append(self._seen(request, b""))
        if fault is not None and fault.before_reading:
            return await self._send(fault, request, _UNREAD)
        answer, upload = await self._bucket.answer(request)
        if upload is not None and _effect(fault) == "stored":
            self.keep_file(*upload)
        return await self._send(fault, request, answer)

    async def _send(self, fault: Fault | None, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        if fault is None:
            return answer.response()
        return await deliver(fault, request, answer, self._released)

    def _seen(self, request: web.BaseRequest, body: bytes) -> Seen:
        # Keeping the connection's handler as a key keeps its number from being given twice.
        connection = self._connections.setdefault(request.protocol, len(self._connections) + 1)
        return Seen(request.method, request.raw_path, request.headers, body, connection)

    def _take_fault(self, request: web.BaseRequest) -> Fault | None:
        for at, fault in enumerate(self._faults):
            if fault.fits(request.method, request.raw_path):
                return self._faults.pop(at)
        return None


def _effect(fault: Fault | None) -> Effect:
    """What becomes of what a request creates that meets this fault."""
    if fault is None or fault.store:
        return "stored"
    return "late" if fault.kind == "late_store" else "none"


def main() -> None:
    """Serve until the input closes, after one line of JSON with what a client needs."""
    with Kustomer() as kustomer:
        ready = {name: getattr(kustomer, name) for name in ("url", "keys", "customer", "conversation")}
        print(json.dumps(ready), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
