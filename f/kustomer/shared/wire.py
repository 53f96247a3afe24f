# py: ==3.12.*
# requirements:
# certifi==2026.10.19.post1
# charset-normalizer==3.5.3
# idna==3.20
# requests==2.34.2
# urllib3==2.8.0
"""Kustomer wire.

Shared by the Kustomer steps, not run by itself: sends one request and reads its one answer, whole, within limits of
time and size, over connections that are kept only while nothing else can be on them.

requests has a time for each read and none for all of them, so that a thread does the exchange and whoever waits for it
stops waiting. No thread can be stopped: one that is left behind sends no more of a message, ends with its server's
silence, and has an adapter, with its connection, that nobody else is given. What comes together with the end of an
answer is dropped; past the first 8 kB of a TLS record it can't be seen, and would be read as the next answer.
"""

import functools
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ContentDecodingError, ProxyError, SSLError
from urllib3.exceptions import NewConnectionError
from urllib3.util import parse_url

from f.kustomer.shared.errors import BadProxy, CannotConnect, NoAnswer, NotTrusted, OddAnswer, ProblemClass

# For all addresses of the host, a proxy and TLS together. All that takes well under a second; five leave room.
CONNECT_SECONDS = 5.0
# Longer than Kustomer's slowest answers, shorter than anybody's patience; for a request and its whole answer.
READ_SECONDS = 30.0
# A file must go at this rate over each READ_SECONDS, and its answer then has as long; a slower line is as good as dead.
SLOWEST_BYTES_PER_SECOND = 64_000
# A hundred messages with the longest texts are a tenth of it.
MAX_ANSWER_BYTES = 10_000_000
# A piece of a file: large enough to be quick, small enough for a worker with little memory.
CHUNK_BYTES = 1 << 18
# Servers of Kustomer's kind close idle connections after 5 s; one closed under a request leaves its outcome unknown.
IDLE_SECONDS = 4.0
TOO_LARGE = f"is larger than {MAX_ANSWER_BYTES / 1e6:g} MB"

# Linux may hold so many bytes of a file that was sent (tcp_wmem): they still have to leave before the answer can come.
_SOCKET_BYTES = 4_194_304
# What is sent or read at once of all that is no file.
_PIECE_BYTES = 1 << 14
# A whole answer has none of these; what follows them belongs to nothing.
_BODILESS = frozenset({204, 205, 304})


class Failure(Exception):
    """Why there is no answer: ``problem`` is its class, ``why`` says it in words.

    With a CannotConnect nothing was sent; with any other the request had begun to leave. ``status`` and ``headers``
    are those of an answer that broke off.
    """

    def __init__(self, problem: ProblemClass, why: str, response: requests.Response | None = None) -> None:
        """Take the problem, and what there is of an answer."""
        super().__init__(why)
        self.problem, self.why = problem, why
        self.status: int | None = None if response is None else response.status_code
        self.headers: Mapping[str, str] = {} if response is None else response.headers


class Reply:
    """A whole answer: its status, headers and decoded bytes."""

    def __init__(self, response: requests.Response, content: bytes, keep: Callable[[], None]) -> None:
        """Take the answer, and what keeps its connection."""
        self.status, self.headers, self.content = response.status_code, response.headers, content
        self._keep = keep

    def settle(self, expected: bool) -> None:
        """Keep the connection for a next request if the answer is of an ``expected`` kind; else it goes with this.

        What answers in another way may send more of it, which would be taken for the answer to the next request.
        """
        if expected and self.status not in _BODILESS:
            self._keep()


def time_for(size: int) -> float:
    """Return the seconds in which so many bytes of a file must have left or come, and the answer to them."""
    return READ_SECONDS + size / SLOWEST_BYTES_PER_SECOND


class Watch:
    """Waits for what a thread does, as long as it moves."""

    def __init__(self, seconds: float) -> None:
        """Give the work so many seconds, until it is given more."""
        self.lock, self.over = threading.Lock(), False
        self._news = SimpleQueue[bool]()  # whether the work is done, or has another time
        self._ends, self._moved = 0.0, 0
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Wait for so many seconds from now on."""
        self._ends = time.monotonic() + seconds
        self._news.put(False)

    def moved(self, count: int) -> None:
        """Count bytes of a file: for as many as must move in READ_SECONDS the work is given as long again."""
        self._moved += count
        if self._moved >= SLOWEST_BYTES_PER_SECOND * READ_SECONDS:
            self._moved = 0
            self.allow(READ_SECONDS)

    def run(self, work: Callable[[], None]) -> Exception | None:
        """Do ``work`` in a thread, and return what it raises, or a TimeoutError where its time has ended."""
        failed: Exception | None = None

        def attempt() -> None:
            nonlocal failed
            try:
                work()
            except Exception as error:
                failed = error
            self._news.put(True)

        try:
            threading.Thread(target=attempt, daemon=True).start()
            while not self._news.get(timeout=max(0.0, self._ends - time.monotonic())):
                pass
            return failed
        except Empty:
            return TimeoutError(f"less than {SLOWEST_BYTES_PER_SECOND / 1000:g} kB/s over {READ_SECONDS:g} s")
        except RuntimeError as error:  # the system gives no thread
            return error
        finally:
            with self.lock:
                self.over = True


class _Body:
    """What a request sends, piece by piece: none of it leaves when nobody waits any longer."""

    def __init__(self, content: Any, watch: Watch) -> None:
        self._content, self._watch = content, watch
        self.is_file = not isinstance(content, bytes)
        self.begun = self.complete = False

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        content = self._content
        cut = (content[at : at + _PIECE_BYTES] for at in range(0, len(content), _PIECE_BYTES))
        pieces = iter(content) if self.is_file else cut
        while piece := self._next(pieces):
            yield piece
            if self.is_file:
                self._watch.moved(len(piece))
        self.complete = True
        if self.is_file:
            self._watch.allow(time_for(min(len(self), _SOCKET_BYTES)))

    def _next(self, pieces: Iterator[bytes]) -> bytes:
        with self._watch.lock:  # what is left behind must not read the file that the next try reads
            if self._watch.over:
                raise TimeoutError
            if not self.begun:
                self.begun = True
                self._watch.allow(READ_SECONDS)
            return next(pieces, b"")


# Knows which proxies and certificates are set, as for everything that uses requests.
_environment = requests.Session()
# What nobody uses: for which origin, the adapter with its one connection, since when, and in which process, as after a
# fork two would read each other's answers. Several threads append and pop.
_idle: list[tuple[object, HTTPAdapter, float, int]] = []


def exchange(method: str, url: str, headers: dict[str, str], body: Any = None) -> Reply:
    """Send one request and read its whole answer, whatever its status. Raise Failure.

    ``body`` is bytes, or a file as an iterable of bytes that has a length. Whoever reads the reply may ``settle`` it.
    """
    settings: Any = {"stream": True}
    if url.startswith("https:"):  # a proxy could read the key in plain http, which goes no further than this machine
        settings = _environment.merge_environment_settings(url, {}, True, None, None)
    proxy = _proxy_name(settings.get("proxies", {}))
    origin = urlsplit(url)[:2], settings
    adapter = _adapter(origin)
    watch = Watch(CONNECT_SECONDS if body else READ_SECONDS)
    sent = _Body(body, watch) if body else None
    # No read is the first to give up: whoever waits for all of them is.
    patience = time_for(_SOCKET_BYTES)
    # For each address, step of TLS and write; a dead address leaves time for a live one behind it.
    connecting = patience if sent and sent.is_file else CONNECT_SECONDS / 2
    response: Any = None
    content = bytearray()

    def talk() -> None:
        nonlocal response
        # Neither this nor the adapter looks for a netrc, keeps a cookie or follows a redirect: a Session would.
        request = requests.Request(method, url, headers, data=sent).prepare()
        with adapter.send(request, timeout=(connecting, patience), **settings) as response:
            if sent and not sent.complete and response.status_code < 300:  # only a refusal can do without the rest
                raise Failure(NoAnswer, "the connection broke before the whole request was sent")
            for piece in response.iter_content(_PIECE_BYTES):
                content.extend(piece)
                if len(content) > MAX_ANSWER_BYTES:
                    raise Failure(OddAnswer, TOO_LARGE, response)

    if error := watch.run(talk):
        with suppress(AttributeError, OSError, RuntimeError, ValueError):  # there is none, or nothing of it to come
            response.raw.shutdown()
        has_left = response is not None or (sent.begun if sent else _may_have_left(error))
        raise _broken(error, response) if has_left else _not_connected(error, proxy)
    keep = functools.partial(_idle.append, (origin, adapter, time.monotonic(), os.getpid()))
    return Reply(response, bytes(content), keep)


def _adapter(origin: object) -> HTTPAdapter:
    """Return the adapter that was last in use, where its connection is to this origin and fresh; else a new one."""
    with suppress(IndexError):
        while True:  # what is of no use now is dropped, so that nothing stays open for long
            to, adapter, since, process = _idle.pop()
            if to == origin and process == os.getpid() and time.monotonic() - since < IDLE_SECONDS:
                return adapter
    return HTTPAdapter(pool_connections=1, pool_maxsize=1)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__context__


def _may_have_left(error: Exception) -> bool:
    """Tell of a request without a body whether it may have left, which only the exceptions can say."""
    before = (requests.Timeout, ProxyError, SSLError, NewConnectionError)
    return type(error) is not OSError and not any(isinstance(each, before) for each in _causes(error))


def _broken(error: Exception, response: requests.Response | None) -> Failure:
    """Say what kept the whole answer from coming after the request had begun to leave."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ContentDecodingError):
        return Failure(OddAnswer, "can't be decompressed", response)
    if isinstance(error, TimeoutError):
        return Failure(NoAnswer, f"no complete answer within {READ_SECONDS:g} s", response)
    return Failure(NoAnswer, "the connection broke before the answer was in", response)


def _not_connected(error: Exception, proxy: str) -> Failure:
    """Say why there is no connection, by what the socket, TLS or the proxy said."""
    refused = re.search(r"Tunnel connection failed: (\d{3})", str(error))
    if refused and refused[1] == "407":
        return Failure(BadProxy, f"the proxy {proxy} wants a user name and password, or others (407)")
    if refused:
        return Failure(CannotConnect, f"the proxy {proxy} did not connect ({refused[1]})")
    causes = list(_causes(error))
    if type(error) is OSError or any(getattr(each, "library", "") == "X509" for each in causes):
        return Failure(NotTrusted, "the file of trusted certificates can't be read")
    through = f" (proxy {proxy})" if proxy else ""
    for kind, problem, why in (
        (ssl.SSLCertVerificationError, NotTrusted, "the server's certificate is not trusted: {0.verify_message}"),
        (ssl.SSLError, CannotConnect, "no secure connection (TLS) came about"),
        (socket.gaierror, CannotConnect, "the host name was not found"),
        (ConnectionRefusedError, CannotConnect, "the connection was refused"),
        (TimeoutError, CannotConnect, "no connection in time"),
    ):
        if found := next((each for each in causes if isinstance(each, kind)), None):
            return Failure(problem, why.format(found).rstrip(".") + through)
    return Failure(CannotConnect, f"no connection ({type(error).__name__}){through}")


def _proxy_name(proxies: Mapping[str, str]) -> str:
    """Name the proxy that is set, without its user name and password. Raise a Failure for what can't be one."""
    proxy = proxies.get("https") or proxies.get("all")
    if not proxy:
        return ""
    try:
        address = parse_url(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        raise Failure(BadProxy, "the proxy's address is malformed (scheme, host or port)") from None
    name = address.netloc
    if not name:
        raise Failure(BadProxy, "the proxy's address has no host")
    if address.scheme not in ("http", "https"):
        raise Failure(BadProxy, f"the proxy {name} has the scheme {address.scheme}, not http or https")
    if any(letter > "\xff" for letter in unquote(address.auth or "")):
        why = f"the user name or password for the proxy {name} has a letter that can't be sent (Latin-1)"
        raise Failure(BadProxy, why)
    return name
