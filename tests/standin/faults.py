"""What goes back over the wire, and how that can go wrong: answers, and faults in delivering them."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

from aiohttp import web
from multidict import CIMultiDict

# On close, discard what is unsent and send RST instead of FIN (struct linger: on, 0 seconds).
_LINGER_NONE = struct.pack("ii", 1, 0)

# What CloudFront and Kustomer's own edge put on every answer, and what S3 puts there.
_EDGE = ("Date", "X-Kustomer-Pod", "X-Amz-Cf-Id", "x-amz-request-id", "x-amz-id-2")

_GATEWAY_TIMEOUT = b"<html><head><title>504 Gateway Timeout</title></head><body></body></html>"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: a status, headers, the body's bytes, and a reason phrase other than the usual."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None

    @classmethod
    def of(cls, status: int, value: Any) -> "Answer":
        """Answer with any JSON value, in UTF-8."""
        # A lone surrogate has no UTF-8; as a JSON escape it goes back the way it can only have come.
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
        return cls(status, body, {"Content-Type": "application/json; charset=utf-8"})

    def under(self, headers: Mapping[str, str] | None) -> "Answer":
        """Lay `headers` over the answer's own, whatever the case of their names."""
        merged = CIMultiDict(self.headers)
        merged.update(headers or {})
        return replace(self, headers=merged)

    def response(self) -> web.Response:
        """Give the answer as aiohttp sends it."""
        return web.Response(status=self.status, reason=self.reason, headers=self.headers, body=self.body)

    def wire(self, *, chunked: bool = False) -> tuple[bytes, bytes]:
        """Give head and body as bytes for the socket; the body's own framing is left to the caller."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.status != HTTPStatus.NO_CONTENT:  # RFC 9110, 8.6: not with 204
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode(), self.body


@dataclass(frozen=True)
class Fault:
    """One way in which a request fails; `Kustomer.fault` queues it for one request.

    Every constructor takes `on`, the method it applies to ("GET", "POST", "*" for any), and `at`, the beginning
    of the path ("/v1/customers"; `UPLOAD_PATH` for the host of uploads; "" for any). `store` says whether what
    the faulty request creates is stored, if it is valid, before the fault shows.
    """

    kind: Literal["answer", "reset", "close", "cut", "hang", "drip", "late_store"]
    on: str = "POST"
    store: bool = False
    given: Answer | None = None
    before_reading: bool = False
    chunked: bool = False
    seconds: float = 0
    at: str = ""

    def fits(self, method: str, path: str) -> bool:
        """Tell whether a request is one that this fault is meant for."""
        return self.on in (method, "*") and path.startswith(self.at)

    @classmethod
    def answer(
        cls,
        status: int,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        reason: str | None = None,
        on: str = "POST",
        at: str = "",
        store: bool = False,
    ) -> "Fault":
        """Answer `status` with `body`: bytes as they are (text/html), another value as JSON, None as empty.

        `headers` override every other, Content-Type and Date included. No x-ratelimit-… unless given.
        """
        if body is None or isinstance(body, bytes):
            given = Answer(status, body or b"", {} if body is None else {"Content-Type": "text/html"})
        else:
            given = Answer.of(status, body)
        given = replace(given.under(headers), reason=reason)
        return cls("answer", on, store, given, at=at)

    @classmethod
    def reset(cls, before_reading: bool = False, *, on: str = "POST", at: str = "", store: bool = False) -> "Fault":
        """Break the connection with a TCP RST, before the request's body is read or after it."""
        if before_reading and store:
            raise ValueError("what was not read can't be stored")
        return cls("reset", on, store, before_reading=before_reading, at=at)

    @classmethod
    def close(cls, *, on: str = "POST", at: str = "", store: bool = False) -> "Fault":
        """Close the connection in order (FIN) without a byte of answer."""
        return cls("close", on, store, at=at)

    @classmethod
    def cut(cls, *, chunked: bool = False, on: str = "POST", at: str = "", store: bool = False) -> "Fault":
        """Send the normal answer's head and half of its body, then close; framed by length or chunked.

        An answer without a body is cut before its status, as clients read on past what is missing after it.
        """
        return cls("cut", on, store, chunked=chunked, at=at)

    @classmethod
    def hang(cls, *, on: str = "POST", at: str = "", store: bool = False) -> "Fault":
        """Send nothing until `Kustomer.release`.

        Then a look-up, or a POST with `store`, gets its normal answer; another POST gets a closed connection.
        """
        return cls("hang", on, store, at=at)

    @classmethod
    def drip(cls, seconds: float, *, on: str = "POST", at: str = "", store: bool = False) -> "Fault":
        """Send the normal answer, head included, one byte at a time, each `seconds` after the one before."""
        return cls("drip", on, store, seconds=seconds, at=at)

    @classmethod
    def late_store(cls, *, at: str = "") -> "Fault":
        """Answer 504 at once; what was posted appears only once a look-up for it has been answered 404.

        Nothing looks for an uploaded file, so that one never appears.
        """
        return cls("late_store", at=at)


class _Sent(web.StreamResponse):
    """Tells aiohttp that the connection was dealt with here and is over."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def deliver(
    fault: Fault, request: web.BaseRequest, normal: Answer, released: asyncio.Event
) -> web.StreamResponse:
    """Send what `fault` leaves of the `normal` answer to `request`."""
    transport = request.transport
    edge = {name: normal.headers[name] for name in _EDGE if name in normal.headers}
    if fault.kind == "hang":
        await released.wait()
        return normal.response() if fault.store or request.method == "GET" else _close(request)
    if fault.kind == "late_store":
        return Answer(504, _GATEWAY_TIMEOUT, {"Content-Type": "text/html", **edge}).response()
    if fault.given:
        return replace(fault.given, headers={}).under(edge).under(fault.given.headers).response()
    if transport is None:  # the client went away first
        return _Sent()
    if fault.kind == "reset":
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        transport.abort()
        return _Sent()
    if fault.kind == "cut":
        transport.write(_half(normal, fault.chunked))
    if fault.kind == "drip":
        await _drip(transport, b"".join(normal.wire()), fault.seconds)
    return _close(request)


def _close(request: web.BaseRequest) -> web.StreamResponse:
    """Close in order; what was written before is sent first."""
    if request.transport is not None:
        request.transport.close()
    return _Sent()


def _half(answer: Answer, chunked: bool) -> bytes:
    """The head, and the first half of the body; where there is none, what comes before the status."""
    head, body = answer.wire(chunked=chunked)
    if not body:
        return head.partition(b" ")[0]
    half = body[: len(body) // 2]
    return head + (b"%x\r\n%b\r\n" % (len(half), half) if chunked else half)


async def _drip(transport: asyncio.Transport, data: bytes, seconds: float) -> None:
    for at in range(len(data)):
        if transport.is_closing():
            return
        transport.write(data[at : at + 1])
        await asyncio.sleep(seconds)
