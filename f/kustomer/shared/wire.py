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
"""

import functools
import http.client
import io
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from http.client import HTTPResponse
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url, get_environ_proxies, prepend_scheme_if_needed, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError
from urllib3.exceptions import SSLError as CertificatesNotRead
from urllib3.util import parse_url
from urllib3.util.ssltransport import SSLTransport

from f.kustomer.shared.errors import BadProxy, CannotConnect, KustomerError, NoAnswer, NotTrusted, OddAnswer

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
# A TLS record carries as much, so that no single write outlasts the time that is left.
_PIECE_BYTES = 16_384
_READ_BYTES = 65_536
# A whole answer has none of these; what follows them belongs to nothing.
_BODILESS = frozenset({204, 205, 304})


def file_pace() -> tuple[float, float]:
    """Return the least bytes of a file that must move in a number of seconds, for it to go on."""
    return SLOWEST_BYTES_PER_SECOND * READ_SECONDS, READ_SECONDS


class Failure(Exception):
    """Why there is no answer: ``problem`` is its class, ``why`` says it in words.

    With a CannotConnect nothing was sent; with any other the request had begun to leave. ``status`` and ``headers``
    are those of an answer that broke off.
    """

    def __init__(
        self,
        problem: type[KustomerError],
        why: str,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take what the attributes hold."""
        super().__init__(why)
        self.problem, self.why, self.status, self.headers = problem, why, status, headers or {}


class _TooLarge(Exception):
    """More bytes came than an answer may have."""


class Reply:
    """A whole answer: its status, headers and decoded bytes, and what it came on."""

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes, connection: Any, pool: Any) -> None:
        self.status, self.headers, self.content = status, headers, content
        self._connection, self._pool = connection, pool

    def settle(self, expected: bool) -> None:
        """Keep the connection for a next request if the answer is of an ``expected`` kind, and close it otherwise.

        What answers in another way may send more of it, which would be taken for the answer to the next request.
        """
        if expected and self.status not in _BODILESS and not self._connection.bytes_left_over:
            self._pool._put_conn(self._connection)
        else:
            self._connection.close()


class _Incoming(io.RawIOBase):
    """The bytes of one answer: no read outlasts the connection's deadline, and there are not more than may be."""

    def __init__(self, connection: Any, sock: socket.socket) -> None:
        self._connection, self._sock, self._raw = connection, sock, sock.makefile("rb", buffering=0)
        self._received = 0
        self._counted_from = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        # A server that sends without a pause never runs into the socket's own timeout.
        self._sock.settimeout(self._connection.seconds_left())
        if self._received - self._counted_from > MAX_ANSWER_BYTES:
            raise _TooLarge
        count = self._raw.readinto(buffer)
        self._received += count or 0
        return count

    def tell(self) -> int:
        return self._received

    def restart_count(self) -> None:
        """Count from here: what came before was only informational."""
        self._counted_from = self._received

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Buffered(io.BufferedReader):
    """Notes on its connection when the server had sent more than the answer that was read."""

    def __init__(self, incoming: _Incoming, connection: Any) -> None:
        super().__init__(incoming)
        self._incoming, self._connection = incoming, connection

    def close(self) -> None:
        if not self.closed:
            self._connection.bytes_left_over = self.tell() < self._incoming.tell()
        super().close()


class _Response(HTTPResponse):
    """Reads past informational answers, and from a socket with a deadline."""

    def __init__(self, sock: socket.socket, *args: Any, connection: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._incoming = _Incoming(connection, sock)
        self.fp = _Buffered(self._incoming, connection)

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == 101:  # what follows a 101 is no HTTP
                return version, status, reason
            http.client.parse_headers(self.fp)
            self._incoming.restart_count()


class _Connection:
    """A connection with one deadline for each phase of an exchange."""

    sock: Any
    proxy: Any
    host: str
    port: int
    is_closed: bool
    close: Callable[[], None]
    response_class: Any
    _dns_host: str
    socket_options: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.response_class = functools.partial(_Response, connection=self)
        self.bytes_left_over = self.broke_off = False
        self._used_at, self._process = 0.0, 0
        self._ends, self._is_file = 0.0, False
        self._sent = self._sent_in_time = 0

    def seconds_left(self) -> float:
        """Return the seconds to the deadline. Raise TimeoutError at its end."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    @property
    def is_connected(self) -> bool:
        """Whether a next request may use this connection; urllib3 asks before it does."""
        fresh = time.monotonic() - self._used_at < IDLE_SECONDS
        # After a fork two processes would read each other's answers.
        unused = fresh and self._process == os.getpid() and not _held_by_tls(self.sock)
        return unused and super().is_connected  # type: ignore[misc]

    def connect(self) -> None:
        """Connect. Raise a Failure with a CannotConnect, and nothing else."""
        self._ends, self._process = time.monotonic() + CONNECT_SECONDS, os.getpid()
        try:
            super().connect()  # type: ignore[misc]
        except Failure:
            raise
        except Exception as error:
            raise _not_connected(error) from None

    def request(self, method: str, url: str, body: Any = None, **kwargs: Any) -> None:
        """Send a request. Raise a Failure with a NoAnswer, but where an early answer may be there to read."""
        if self.is_closed:  # a failure to connect is never taken for one after it
            self.connect()
        self.bytes_left_over = self.broke_off = False
        self._is_file = body is not None and not isinstance(body, bytes)
        self._sent = 0
        self._start_clock()
        try:
            super().request(method, url, body=body, **kwargs)  # type: ignore[misc]
        except (BrokenPipeError, ConnectionResetError):
            self.broke_off = True
            raise  # urllib3 reads on
        except Exception as error:
            raise self._broken(error) from None

    def send(self, data: Any) -> None:
        """Send a part of a request; a file gets READ_SECONDS more for each share of it that went fast enough."""
        whole = memoryview(data).cast("B")
        for at in range(0, len(whole), _PIECE_BYTES):
            piece = whole[at : at + _PIECE_BYTES]
            self.sock.settimeout(self.seconds_left())
            super().send(piece)  # type: ignore[misc]
            self._sent += len(piece)
            if self._is_file and self._sent - self._sent_in_time >= file_pace()[0]:
                self._start_clock()

    def getresponse(self) -> Any:
        """Read the head of the answer. Raise a Failure with a NoAnswer or an OddAnswer."""
        if self._is_file:
            self._start_clock(min(self._sent, _SOCKET_BYTES) / SLOWEST_BYTES_PER_SECOND)
        try:
            return super().getresponse()  # type: ignore[misc]
        except Exception as error:
            raise self._broken(error) from None

    def read(self, response: Any) -> bytes:
        """Read the body of the answer, decoded. Raise a Failure with its status and headers."""
        content = bytearray()
        try:
            for chunk in response.stream(_READ_BYTES, decode_content=True):
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise _TooLarge
        except Exception as error:
            self.close()
            raise self._broken(error, response.status, response.headers) from None
        self._used_at = time.monotonic()
        return bytes(content)

    def _start_clock(self, longer: float = 0.0) -> None:
        self._ends, self._sent_in_time = time.monotonic() + READ_SECONDS + longer, self._sent

    def _broken(self, error: Exception, status: int | None = None, headers: Any = None) -> Failure:
        """Say how an exchange came to its end after the request had begun to leave."""
        if isinstance(error, _TooLarge):
            return Failure(OddAnswer, TOO_LARGE, status, headers)
        if isinstance(error, DecodeError):
            return Failure(OddAnswer, "can't be decompressed", status, headers)
        if time.monotonic() >= self._ends:
            return Failure(NoAnswer, f"no complete answer within {READ_SECONDS:g} s", status, headers)
        return Failure(NoAnswer, "the connection broke before the answer was in", status, headers)

    def _new_conn(self) -> socket.socket:
        """Connect to the first address of the host, or of the proxy, that answers, within one time for them all."""
        try:
            return self._first_address()
        except OSError as error:
            if not self.proxy:
                raise
            failure = _not_connected(error)
            raise Failure(CannotConnect, f"the proxy {_shown(self.proxy)} can't be reached: {failure.why}") from None

    def _first_address(self) -> socket.socket:
        found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        last: OSError | None = None
        for at, (*kind, _, address) in enumerate(found):
            sock = None
            try:
                sock = socket.socket(*kind)  # refused for IPv6 where the system has none
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                # A dead address leaves its share of the time to those behind it.
                sock.settimeout(self.seconds_left() / (len(found) - at))
                sock.connect(address)
                sock.settimeout(self.seconds_left())
                return sock
            except OSError as error:
                if sock:
                    sock.close()
                last = error
        raise last or OSError("no address")

    def _tunnel(self) -> None:
        """Ask the proxy for a connection to the host."""
        try:
            super()._tunnel()  # type: ignore[misc]
        except Exception as error:
            raise _not_tunnelled(error, self.proxy) from None


class _PlainConnection(_Connection, HTTPConnection):  # type: ignore[misc]
    pass


class _TlsConnection(_Connection, HTTPSConnection):  # type: ignore[misc]
    def _connect_tls_proxy(self, hostname: str, sock: Any) -> Any:
        """Connect to a proxy by TLS. What urllib3 reads within it, it reads in many steps, each in the whole time."""
        outer: Any = super()._connect_tls_proxy(hostname, sock)

        def in_time(use: Callable[..., Any]) -> Callable[..., Any]:
            def used(*arguments: Any) -> Any:
                outer.settimeout(self.seconds_left())
                return use(*arguments)

            return used

        outer.recv, outer.sendall = in_time(outer.recv), in_time(outer.sendall)
        return outer


class _Adapter(HTTPAdapter):
    """Makes our connections, straight or through a proxy. urllib3 repeats nothing by itself."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _TlsConnection if pool.scheme == "https" else _PlainConnection
        return pool

    def build_response(self, _: Any, response: Any) -> Any:
        """Return urllib3's own response: a requests.Response keeps cookies, and guesses encodings."""
        return response


_adapter = _Adapter()


def exchange(method: str, url: str, headers: dict[str, str], body: Any = None) -> Reply:
    """Send one request and read its whole answer, whatever its status. Raise Failure.

    ``body`` is bytes, or a file as an iterable of bytes that has a length. Whoever reads the reply must ``settle`` it.
    """
    # A proxy could read the key in plain http, which goes no further than this machine.
    proxies = get_environ_proxies(url) if url.startswith("https:") else {}
    _check_proxy(select_proxy(url, proxies))
    try:
        response: Any = _adapter.send(
            # Neither this nor the adapter looks for a netrc, keeps a cookie or follows a redirect: a Session would.
            requests.Request(method, url, headers, data=body).prepare(),
            stream=True,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True,
            proxies=proxies,
        )
    except requests.RequestException as error:
        raise Failure(CannotConnect, f"no connection ({type(error).__name__})") from None
    except OSError:  # what requests raises before it connects, and only for this
        raise Failure(NotTrusted, "the file of trusted certificates can't be read") from None
    # At the end of the body urllib3 would give the connection to others before anybody has looked at the answer.
    connection, pool, response._pool = response.connection, response._pool, None
    if connection.broke_off and response.status < 300:  # only a refusal can do without the rest
        connection.close()
        raise Failure(NoAnswer, "the connection broke before the whole request was sent")
    return Reply(response.status, response.headers, connection.read(response), connection, pool)


def _held_by_tls(sock: Any) -> int:
    """Count the bytes that have come and that nobody can see waiting, as they are in TLS's own memory."""
    if isinstance(sock, SSLTransport):  # within the TLS of a proxy
        return sock.sslobj.pending() + sock.incoming.pending + _held_by_tls(sock.socket)
    return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0


def _not_connected(error: Exception) -> Failure:
    """Say why there is no connection, by the exception that the socket or TLS raised."""
    for kind, problem, why in (
        (ssl.SSLCertVerificationError, NotTrusted, "the server's certificate is not trusted"),
        (ssl.SSLError, CannotConnect, "no secure connection (TLS) came about"),
        (socket.gaierror, CannotConnect, "the host name was not found"),
        (ConnectionRefusedError, CannotConnect, "the connection was refused"),
        (TimeoutError, CannotConnect, f"no connection within {CONNECT_SECONDS:g} s"),
        (CertificatesNotRead, NotTrusted, "the file of trusted certificates can't be read"),
    ):
        if isinstance(error, kind):
            return Failure(problem, why)
    return Failure(CannotConnect, f"no connection ({type(error).__name__})")


def _check_proxy(proxy: str | None) -> None:
    """Raise a Failure for a proxy that can't be one."""
    if not proxy:
        return
    try:
        address = parse_url(prepend_scheme_if_needed(proxy, "http"))  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        raise Failure(BadProxy, "the proxy's address is malformed (scheme, host or port)") from None
    if address.scheme not in ("http", "https"):
        raise Failure(BadProxy, f"the proxy {_shown(address)} has the scheme {address.scheme}, not http or https")
    if not address.host:
        raise Failure(BadProxy, "the proxy's address has no host")
    try:
        "".join(get_auth_from_url(proxy)).encode("latin-1")
    except UnicodeError:
        why = f"the user name or password for the proxy {_shown(address)} has a letter that can't be sent (Latin-1)"
        raise Failure(BadProxy, why) from None


def _not_tunnelled(error: Exception, proxy: Any) -> Failure:
    """Say what a proxy did instead of connecting."""
    status = re.match(r"Tunnel connection failed: (\d{3})", str(error))
    if status and status[1] == "407":
        return Failure(BadProxy, f"the proxy {_shown(proxy)} wants a user name and password, or others (407)")
    if isinstance(error, TimeoutError):
        return Failure(CannotConnect, f"the proxy {_shown(proxy)} did not connect within {CONNECT_SECONDS:g} s")
    return Failure(CannotConnect, f"the proxy {_shown(proxy)} did not connect{f' ({status[1]})' if status else ''}")


def _shown(proxy: Any) -> str:
    """Name a proxy without its user name and password."""
    return f"{proxy.host}:{proxy.port}" if proxy.port else str(proxy.host)
