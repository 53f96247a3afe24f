"""Kustomer client.

Shared by the Kustomer steps, not run by itself: sends requests, repeats those that are safe to repeat, and raises
errors that say what became of the message, or whatever else it was.

    KustomerError
    |-- InvalidInput    auth or body is wrong, so nothing was sent
    |-- FileNotRead     Windmill's object storage doesn't give the file, so nothing was sent
    |-- CannotConnect   there was no connection, so nothing was sent
    |   `-- NotTrusted  the server's certificate is not trusted
    |-- AccessDenied    401, 403: the key is not let in
    |-- RateLimited     429, for longer than a step may wait
    |-- Rejected        any other 4xx: the request is wrong
    |   `-- Conflict    409, or the externalId belongs to something else
    |-- ServerFailed    5xx, 408: it may have been recorded
    |-- NoAnswer        the connection broke or timed out: it may have been recorded
    `-- OddAnswer       an answer that is not Kustomer's, such as a redirect or a web page
"""

import io
import json
import math
import os
import random
import re
import socket
import ssl
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from f.kustomer.inputs import Connection, Problem, check, connection, to_json

# A ninth of what importing requests costs each job is a guesser of encodings for Response.text, which no step reads.
# Where it is missing, requests takes UTF-8 instead.
sys.modules.setdefault("charset_normalizer", None)  # type: ignore[arg-type]
warnings.filterwarnings("ignore", "Unable to find acceptable character detection")

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError
from urllib3.util import parse_url

if sys.modules["charset_normalizer"] is None:
    del sys.modules["charset_normalizer"]

# A TCP and TLS handshake takes well under a second; five leave room for a busy proxy.
CONNECT_SECONDS = 5.0
# Longer than Kustomer's slowest answers, shorter than anybody's patience; counts the whole answer, not each byte.
READ_SECONDS = 30.0
# Outlasts the one-minute window of every limit: https://developer.kustomer.com/docs/concepts/rate-limits
BUDGET_SECONDS = 75.0
# Waits of 2, 4, 8, 16 and 32 s add up to one window.
LIMITED_ATTEMPTS = 6
# What is down for longer than two short waits is better retried by the flow, which holds no worker.
OTHER_ATTEMPTS = 3
FIRST_WAIT_SECONDS = 2.0
# A fifth on top keeps parallel jobs from coming back in step.
JITTER = 0.2
# No documented limit lasts this long: such a header is taken for a mistake.
LONGEST_TOLD_SECONDS = 86_400.0
# Servers of Kustomer's kind close idle connections after 5 s; one closed under a request leaves its outcome unknown.
IDLE_SECONDS = 4.0
# A shorter text is a word that any answer may contain.
SECRET_LENGTH = 4
# Longer reasons, and more of them, nobody reads.
LONGEST_REASON = 1_000
LONGEST_LIST = 200

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}

Outcome = Literal["not_sent", "rejected", "unknown"]
Reason = dict[str, str | None]


class KustomerError(Exception):
    """Anything that kept a step from its result. Windmill shows the attributes as ``error.extra``.

    ``status`` is the HTTP status or None; ``outcome`` is what became of it: ``not_sent`` (nothing left the worker),
    ``rejected`` (Kustomer said no), ``unknown`` (it may be recorded); ``retryable`` is true when running the step
    again can't double anything and may help; ``retry_after`` is in seconds, or None; ``attempts`` counts the requests
    of this run, look-ups included; ``request_id`` is the server's name for the last one, or None; ``errors`` are
    the reasons, each ``{code, title, detail, path}`` of text or None.
    """

    def __init__(
        self,
        text: str,
        *,
        outcome: Outcome,
        retryable: bool = False,
        status: int | None = None,
        retry_after: float | None = None,
        attempts: int = 0,
        request_id: str | None = None,
        errors: list[Reason] | None = None,
    ) -> None:
        """Takes the text, which begins with the status where there is one, and the attributes."""
        super().__init__(text)
        self.status = status
        self.outcome = outcome
        self.retryable = retryable
        self.retry_after = retry_after
        self.attempts = attempts
        self.request_id = request_id
        self.errors = errors or []


class InvalidInput(KustomerError):
    """``auth`` or ``body`` is wrong: ``errors`` has every problem with its path. Nothing was sent."""


class FileNotRead(KustomerError):
    """A file could not be read from Windmill's object storage. Nothing was sent."""


class CannotConnect(KustomerError):
    """There was no connection: refused, timed out, host not found. Nothing was sent."""


class NotTrusted(CannotConnect):
    """The server's TLS certificate is not trusted. Nothing was sent, and trying again won't help."""


class AccessDenied(KustomerError):
    """401 or 403: the key is expired, lacks a role, or belongs elsewhere."""


class RateLimited(KustomerError):
    """429 for longer than a step may wait; ``retry_after`` where Kustomer told it."""


class Rejected(KustomerError):
    """Any other 4xx: the request itself is wrong."""


class Conflict(Rejected):
    """409, or what is recorded under this externalId is something else."""


class ServerFailed(KustomerError):
    """5xx or 408: Kustomer may have acted on the request, or not."""


class NoAnswer(KustomerError):
    """The connection broke or timed out before the whole answer came, or the run's time was used up."""


class OddAnswer(KustomerError):
    """An answer that is not Kustomer's: a redirect, a web page, a success without an id."""


class Thing(NamedTuple):
    """What a step makes, as its errors and logs speak of it, and what having two of it would mean.

    ``role`` is the one that making it takes; ``done`` and ``place`` say that it is there, ``unsent`` that it was not
    even tried; ``words`` are fields of the body whose text stays out of errors and logs; ``conflict`` is what to do
    about a 409, ``limit`` about a 429 that is not the organisation's; ``blind``: a key that may not look for it may
    still make it; ``harmless``: a second one disturbs nobody; ``peer`` is who makes it.
    """

    name: str
    role: str = ""
    done: str = "created"
    place: str = "in Kustomer"
    unsent: str = "Nothing was created."
    words: tuple[str, ...] = ()
    conflict: str = ""
    limit: str = "A limit of Kustomer's is used up."
    blind: bool = False
    harmless: bool = False
    peer: str = "Kustomer"


# What goes to the place that Kustomer names for an attachment's bytes.
FILE = Thing("file", done="uploaded", place="there", unsent="The file was not sent.", harmless=True, peer="its host")


# Nothing was stored, so any request may be repeated.
HARMLESS = frozenset({CannotConnect, RateLimited})
# It may have been stored, so only a look-up may be repeated.
UNCERTAIN = frozenset({ServerFailed, NoAnswer, OddAnswer})
PASSING = HARMLESS | {ServerFailed, NoAnswer}


def _outcome(so_far: Outcome, problem: type[KustomerError] | None) -> Outcome:
    """Tells what became of a message that was posted once more; nothing makes an unknown outcome known but a look."""
    if so_far == "unknown" or problem in UNCERTAIN:
        return "unknown"
    return so_far if problem in (CannotConnect, NotTrusted) else "rejected"


class Answer:
    """What came back: decoded JSON (None for anything else), or why nothing did; no ``problem`` is a success."""

    def __init__(
        self,
        problem: type[KustomerError] | None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        why: str = "",
    ) -> None:
        self.problem, self.status, self.headers, self.data, self.why = problem, status, headers or {}, data, why


def judge(status: int, data: Any) -> type[KustomerError] | None:
    """Tells what an answer means; only a 2xx with a JSON object that has ``data.id`` is a success (None).

    Statuses: https://developer.kustomer.com/kustomer-api-docs/reference/errors
    """
    if 200 <= status < 300:
        return None if isinstance(dig(data, "data", "id"), str) and data["data"]["id"] else OddAnswer
    if status in (401, 403):
        return AccessDenied
    if status == 429:
        return RateLimited
    if status == 409:
        return Conflict
    if status < 400:
        return OddAnswer
    return Rejected if status < 500 and status != 408 else ServerFailed


def told_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Returns the seconds that an answer asks to wait, or None where it asks for nothing sensible.

    ``now`` is in epoch seconds and counts where the answer has no date of its own. ``Retry-After`` (seconds or a date)
    goes before ``x-ratelimit-reset`` (epoch seconds or milliseconds, or seconds from now).
    https://developer.kustomer.com/docs/concepts/rate-limits
    """
    now = _http_date(headers.get("Date")) or now
    retry_after, reset = headers.get("Retry-After"), _number(headers.get("x-ratelimit-reset"))
    date = _http_date(retry_after)
    waits = [_number(retry_after), date and date - now]
    if reset is not None:
        waits.append(reset / 1000 - now if reset > 1e11 else reset - now if reset > 1e9 else reset)
    return next((wait for wait in waits if wait is not None and 0 < wait <= LONGEST_TOLD_SECONDS), None)


def next_wait(failures: int, told: float | None, left: float) -> float | None:
    """Returns the seconds to wait after so many ``failures``, or None where that is more than is ``left``."""
    wait = told or FIRST_WAIT_SECONDS * 2 ** (failures - 1)
    return wait if wait <= left else None


def reasons(data: Any) -> list[Reason]:
    """Reads the reasons from either of Kustomer's two error shapes, and from what resembles them.

    https://developer.kustomer.com/docs/concepts/errors
    """
    found = (data.get("errors") or data) if isinstance(data, dict) else data
    entries = found if isinstance(found, list) else [found]
    return [reason for entry in entries[:LONGEST_LIST] if any((reason := _reason(entry)).values())]


def _reason(entry: Any) -> Reason:
    if not isinstance(entry, dict):
        entry = {"detail": entry}
    source = entry.get("source")
    place = source if isinstance(source, dict) else {}
    found = {
        "code": entry.get("code"),
        "title": entry.get("title"),
        "detail": entry.get("detail") or entry.get("message") or entry.get("error"),
        "path": place.get("pointer") or place.get("parameter") or place.get("parameters"),
    }
    return {name: _told(value) for name, value in found.items()}


def _told(value: Any) -> str | None:
    if value in (None, "", [], {}):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _http_date(text: str | None) -> float | None:
    try:
        date = parsedate_to_datetime(text or "")
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def dig(data: Any, *names: str) -> Any:
    """Follows ``names`` into nested objects; None where one is missing or isn't an object."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _storable(value: Any) -> Any:
    """Replaces NUL and halves of surrogate pairs, which Windmill's database can't store in a result."""
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return re.sub("[\0\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value


def _decoded(content: bytes) -> Any:
    try:
        data = json.loads(content or b"{}")
        return _storable(data) if re.search(rb"\\u(?:0000|[dD][89a-fA-F])", content) else data
    except (ValueError, RecursionError):
        return None


def _no_answer(error: Exception, status: int | None, headers: Mapping[str, str], seconds: float) -> Answer:
    """Tells what a failure means by how far the request had come, not by the class of the exception."""
    if status is not None and status >= 400:
        return Answer(judge(status, None), status, headers)
    if _wire.begun:
        late = seconds >= READ_SECONDS
        why = (
            f"no complete answer within {READ_SECONDS:g} s" if late else "the connection broke before the answer was in"
        )
        return Answer(NoAnswer, status, headers, why=why)
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return Answer(NotTrusted, why="the file of trusted certificates can't be read")
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for kind, why, problem in (
        (requests.exceptions.ProxyError, "the proxy did not connect", CannotConnect),
        (ssl.SSLCertVerificationError, "the server's certificate is not trusted", NotTrusted),
        (NameResolutionError, "the host name was not found", CannotConnect),
        (ConnectionRefusedError, "the connection was refused", CannotConnect),
        ((ConnectTimeoutError, TimeoutError), f"no connection within {CONNECT_SECONDS:g} s", CannotConnect),
        (ssl.SSLError, "no secure connection (TLS) came about", CannotConnect),
    ):
        if any(isinstance(each, kind) for each in causes):
            return Answer(problem, why=why)
    return Answer(CannotConnect, why=f"no connection ({type(causes[-1]).__name__})")


def _happened(outcome: Outcome, thing: Thing) -> str:
    """Says what became of it."""
    if outcome == "not_sent":
        return thing.unsent
    if outcome == "rejected":
        return f"The {thing.name} was not {thing.done}."
    return f"It is unknown whether the {thing.name} was {thing.done}: it may be {thing.place}."


def _head(answer: Answer, sought: str, said: str, peer: str) -> str:
    """Says what happened: the status with the reasons given, or why there is no status."""
    if answer.status is None:
        lead: dict[Any, str] = {NoAnswer: f"No answer from {peer}: ", Conflict: "The ", OddAnswer: "Kustomer's answer "}
        return f"{lead.get(answer.problem, f'No connection to {peer}: ')}{answer.why}."
    name = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else "unknown status"
    where = f" on looking for the {sought}" if sought else "" if peer == "Kustomer" else f" from {peer}"
    return f"{answer.status} {name}{where}{answer.why and f', but {answer.why}'}{said and f': {said}'}."


def _sentence(reason: Reason) -> str:
    text = " - ".join(dict.fromkeys(filter(None, (reason["title"], reason["detail"])))) or reason["code"]
    return ": ".join(filter(None, (reason["path"], text)))


def _advice(answer: Answer, sought: str, said: str, thing: Thing) -> str:
    """Says what to do about an answer, beyond trying again."""
    if thing.peer != "Kustomer":
        return _upload_advice(answer, thing)
    if answer.problem is NotTrusted:
        return "Check baseUrl, and which certificates the worker trusts (REQUESTS_CA_BUNDLE)."
    if answer.problem is CannotConnect:
        return (
            "Check orgName and baseUrl of the kustomer resource, and that the worker, or its proxy, may connect there."
        )
    if answer.problem is AccessDenied:
        pod = "The key belongs to another pod: set orgName, or baseUrl. " if "pod" in said.lower() else ""
        role = f"org.permission.{thing.name}.read" if sought and thing.role else thing.role
        return (
            f"{pod}Check the key: it {role and f'needs the role {role}, '}must not be expired or revoked, may be bound "
            "to certain IP addresses, and works on its own organisation's host only (orgName, baseUrl). Roles can't be "
            "changed: make a new key."
        )
    if answer.problem is RateLimited:
        if sought or _number(answer.headers.get("x-ratelimit-remaining")) == 0:
            return "The organisation's limit of requests a minute, shared by all its keys and agents, is used up."
        return thing.limit
    if sought and answer.problem is Rejected:
        return f"Check the {sought}, and baseUrl."
    if answer.problem is Conflict:
        return thing.conflict
    if answer.problem is OddAnswer:
        return "This is not how Kustomer answers: check orgName, baseUrl and any proxy in between."
    if answer.status == 404:
        return "Check the ids in the body, and baseUrl: what they name is not in the key's organisation."
    if answer.status == 413:
        return "Shorten the longest fields, or attach the text as a file."
    if answer.problem is Rejected:
        return (
            "Correct what Kustomer names above." if said else "Kustomer gave no reason: check the body field by field."
        )
    return ""


def _upload_advice(answer: Answer, thing: Thing) -> str:
    if answer.problem is NotTrusted:
        return "Check which certificates the worker trusts (REQUESTS_CA_BUNDLE)."
    if answer.problem is CannotConnect:
        return f"Check that the worker, or its proxy, may connect to {thing.peer}."
    return "Check any proxy in between." if answer.problem is OddAnswer else ""


def _again(outcome: Outcome, retryable: bool, look: str, told: float | None, thing: Thing) -> str:
    """Says whether running the step again is safe."""
    if outcome == "unknown" and not look and not thing.harmless:
        return (
            f"Look in Kustomer before you run the step again, as it can't delete a {thing.name}. Given an externalId, "
            f"and a key with the role org.permission.{thing.name}.read, the step looks by itself."
        )
    why = f": it looks for the {look} first" if outcome == "unknown" and look else ""
    if thing.harmless:
        why = ": it makes another record, and one without a file is shown nowhere"
    if retryable or thing.harmless:
        return f"Running the step again{f' in {math.ceil(told)} s' if told else ''} is safe{why}."
    return f"After that, running the step again is safe{why}." if outcome == "unknown" else ""


def _may_upload(url: Any) -> bool:
    """Tells whether a file may go to this address: over https, or to this machine."""
    try:
        to = parse_url(url)  # as requests reads it
    except (ValueError, TypeError, AttributeError):
        return False
    if not to.host or to.auth:
        return False
    return to.scheme == "https" or (to.scheme == "http" and to.host in ("127.0.0.1", "localhost", "[::1]"))


def _say(text: str) -> None:
    """Writes one line to the job's log."""
    print(f"kustomer: {text}", flush=True)


class _Wire(threading.local):
    """Whether this thread's request has begun to leave, which an exception alone doesn't tell."""

    begun = False


_wire = _Wire()


class _Timed(io.RawIOBase):
    """Reads an answer from a socket, all of it by one deadline; the socket's own timeout begins anew with each byte."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._raw = sock, sock.makefile("rb", buffering=0)
        self._ends = time.monotonic() + READ_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(max(self._ends - time.monotonic(), 0.001))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock))


class _Watched:
    """A connection that notes when a request begins to leave, and bounds the time of the whole answer."""

    timeout: float | None
    response_class: type[HTTPResponse]
    is_closed: bool
    connect: Callable[[], None]

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.is_closed:  # connect first, so that a failure to connect is never taken for one after it
            self.connect()
        self.timeout = READ_SECONDS  # to send each piece of a large file; so far it was the time to connect
        self.response_class = _TimedResponse  # from here on: a proxy's answer has to come within the time to connect
        _wire.begun = True
        super().request(*args, **kwargs)  # type: ignore[misc]


class _WatchedHTTP(_Watched, HTTPConnection):
    pass


class _WatchedHTTPS(_Watched, HTTPSConnection):
    pass


class _Adapter(HTTPAdapter):
    """Makes watched connections, straight or through a proxy. urllib3 repeats nothing by itself."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _WatchedHTTPS if pool.scheme == "https" else _WatchedHTTP
        return pool


_adapter = _Adapter()
_last_used = 0.0


class _Request(NamedTuple):
    """A request as it is sent, and how to read the answer: status and content give the problem and the data."""

    method: str
    url: str
    headers: dict[str, str]
    body: Any
    read: Callable[[int, bytes], tuple[type[KustomerError] | None, Any]]


def _read(status: int, content: bytes) -> tuple[type[KustomerError] | None, Any]:
    data = _decoded(content)
    return judge(status, data), data


def _read_any(status: int, content: bytes) -> tuple[type[KustomerError] | None, Any]:
    """Reads what need not have an id of its own."""
    problem, data = _read(status, content)
    return None if 200 <= status < 300 and isinstance(dig(data, "data"), dict) else problem or OddAnswer, data


def _read_upload(status: int, content: bytes) -> tuple[type[KustomerError] | None, Any]:
    """Reads what S3 says, in XML: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""
    if 200 <= status < 300:
        return None if not content.strip() or b"<PostResponse" in content else OddAnswer, None
    problem = judge(status, None)
    found = dict(re.findall(r"<(Code|Message)>([^<]+)</", content.decode("utf-8", "replace")))
    data = {"errors": [{"code": found.get("Code"), "detail": found.get("Message")}]}
    if found.get("Code") == "RequestTimeout":  # a 400, for a file that came too slowly
        return ServerFailed, data
    return Rejected if problem in (AccessDenied, Conflict) else problem, data


def invalid(problems: list[Problem]) -> InvalidInput:
    """Builds the error for what is wrong with a step's arguments."""
    _say(f"nothing sent: {len(problems)} to correct in auth and body")
    shown = "; ".join(f"{path} {what}" for path, what in problems[:LONGEST_LIST])
    more = f"; and {len(problems) - LONGEST_LIST} more" if len(problems) > LONGEST_LIST else ""
    return InvalidInput(
        f"Nothing was sent. To correct: {shown}{more}.",
        outcome="not_sent",
        errors=[{"code": "invalid_input", "title": what, "detail": None, "path": path} for path, what in problems],
    )


def begin(auth: object, thing: Thing, body: object = None, shape: Any = None, limit: int | None = None) -> "Call":
    """Checks what a step was given and opens its run.

    ``body`` is checked by the TypedDict ``shape``; with ``limit``, in bytes, it may be sent as it is. Raises
    InvalidInput with every problem of both.
    """
    to, problems = connection(auth)
    value, encoded, wrong = check(body, shape, limit=limit) if shape else ({}, b"", [])
    problems += wrong
    if problems:
        raise invalid(problems)
    return Call(to, thing, value, encoded)


class Call:
    """One run of a step: what it may still spend, what it has found out.

    ``to`` is where it sends, ``body`` what the step was given, without what is empty.
    """

    def __init__(self, to: Connection, thing: Thing, body: dict[str, Any], encoded: bytes) -> None:
        self.to, self.body = to, body
        self._thing, self._encoded = thing, encoded
        self._texts = {word: body[word] for word in thing.words if word in body}
        self._hidden = list(self._texts.values())
        self._left = BUDGET_SECONDS
        self._started = time.monotonic()
        self._attempts = 0
        self._look = ""  # what a next run looks for, where it can
        self._outcome: Outcome = "not_sent"

    def read(self, path: str) -> Answer:
        """Reads what is at ``path``: the decoded answer with its headers. Raises KustomerError."""
        answer = self._ask(self._signed("GET", path, read=_read_any), PASSING)
        if answer.problem:
            raise self._error(answer, self._thing.name)
        return answer

    def find(
        self, path: str, keys: Mapping[str, str], differs: Callable[[Any, dict[str, Any]], list[str]] | None = None
    ) -> dict[str, Any] | None:
        """Looks in the collection at ``path`` by each of ``keys`` in turn, and returns the first answer that is there.

        Names and values as in ``/v1/customers/email={value}``; ``differs`` names the fields in which a found resource
        (the ``data`` of an answer) plainly is another one than the body. Raises KustomerError.
        """
        for name, value in keys.items():
            quoted = quote(value, safe="")
            if value in self._hidden:
                self.hide(quoted)
            if found := self._find(name, f"{path}/{name}={quoted}", differs):
                return found
        return None

    def create(
        self,
        path: str,
        keys: Mapping[str, str],
        differs: Callable[[Any, dict[str, Any]], list[str]] | None = None,
        body: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], bool]:
        """Makes one in the collection at ``path``, unless ``find`` finds it: returns the answer, and whether it is new.

        ``body`` is what to send, if not the step's own as it is. Without ``keys`` only what provably was not stored is
        sent again, but for what is harmless twice. Raises KustomerError.
        """
        self._look = " or ".join(keys)
        if found := self.find(path, keys, differs):
            return found, False
        request = self._signed("POST", path, self._encoded if body is None else to_json(body))
        for failures in range(1, OTHER_ATTEMPTS + 1):
            answer = self._ask(request, PASSING if self._thing.harmless else HARMLESS)
            if answer.problem is None:
                return self._done(answer, self._thing.done), True
            if not self._look or answer.problem not in UNCERTAIN | {Conflict}:
                break
            # A request that was cut off may still be on its way into the database: wait, then look.
            if answer.problem is not Conflict and not self._pause(answer, failures):
                break
            if found := self.find(path, keys, differs):
                return found, self._outcome == "unknown"
            if not self._look or answer.problem not in PASSING:
                break
        raise self._error(answer)

    def hide(self, *texts: str) -> None:
        """Keeps further texts out of errors and logs."""
        self._hidden += texts
        self.__dict__.pop("_words", None)

    def upload(self, place: Any, form: Callable[[dict[str, str]], tuple[Any, str]]) -> None:
        """Posts a file to where Kustomer says, without the key.

        ``place`` is the ``meta.upload`` of an answer; ``form`` makes of its fields the body, which can be read again
        for each try, and its content type. Raises KustomerError.
        """
        url, fields = dig(place, "url"), dig(place, "fields")
        self._thing, self._outcome = FILE, "not_sent"
        if not _may_upload(url) or not isinstance(fields, dict) or {type(each) for each in fields.values()} != {str}:
            raise self._error(Answer(OddAnswer, why="has no place to upload to"))
        self.hide(*(value for name, value in fields.items() if name.lower().startswith(("policy", "x-amz-"))))
        self._thing = FILE._replace(peer=f"the upload's host, {parse_url(url).host}")
        body, content_type = form(fields)
        answer = self._ask(_Request("POST", url, {"Content-Type": content_type}, body, _read_upload), PASSING)
        if answer.problem:
            raise self._error(answer)
        _say(f"{answer.status}, file uploaded, {self._spent()}")

    def _signed(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        read: Callable[[int, bytes], tuple[type[KustomerError] | None, Any]] = _read,
    ) -> _Request:
        signed = {**_HEADERS, "Authorization": f"Bearer {self.to.key}"}
        return _Request(method, self.to.base + path, signed, body, read)

    def _find(
        self, name: str, path: str, differs: Callable[[Any, dict[str, Any]], list[str]] | None
    ) -> dict[str, Any] | None:
        """Looks up what is there: the answer, or None where there is none or the key may not see it."""
        answer = self._ask(self._signed("GET", path), PASSING)
        thing = self._thing
        if answer.problem is None:
            if other := differs and differs(answer.data["data"], self.body):
                found = f"{thing.name} {self._clean(answer.data['data']['id'])}"
                why = f"{name} is already that of {found}, which has another {' and another '.join(other)}"
                reason = {"code": "external_id_taken", "title": why, "source": {"pointer": f"body.{name}"}}
                raise self._error(Answer(Conflict, None, answer.headers, {"errors": [reason]}, why), name)
            there = {word: dig(answer.data, "data", "attributes", word) for word in self._texts}
            changed = [word for word, text in self._texts.items() if there[word] not in (None, text)]
            return self._done(
                answer, "was there already" + (f", with another {' and '.join(changed)}" if changed else "")
            )
        # A gateway's page proves nothing, and neither does an empty answer once something was posted.
        first = self._outcome == "not_sent"
        own = isinstance(answer.data, dict) and (answer.data or first)
        if not own and (answer.status == 404 or (first and answer.problem is AccessDenied)):
            answer.problem = OddAnswer
        elif answer.problem is AccessDenied and thing.blind:
            self._look = ""
            role = f"org.permission.{thing.name}.read"
            _say(f"{answer.status} on looking for the {name} (role {role}): a second run may record it twice")
            return None
        # JSON:API also allows a success without data for what is absent: https://jsonapi.org/format/#fetching-resources
        elif answer.status == 404 or (answer.status == 200 and own and answer.data.get("data", answer) in (None, [])):
            return None
        raise self._error(answer, name)

    def _ask(self, request: _Request, repeat: frozenset[type[KustomerError]]) -> Answer:
        """Sends a request, and again while the answer's problem is one of ``repeat`` and the budget allows."""
        failures = Counter[type[KustomerError] | None]()
        while True:
            if self._left < 0:
                return Answer(NoAnswer, why=f"the {BUDGET_SECONDS:g} s of this run were used up")
            answer = self._exchange(request)
            if request.method == "POST":
                self._outcome = _outcome(self._outcome, answer.problem)
            failures[answer.problem] += 1
            attempts = LIMITED_ATTEMPTS if answer.problem is RateLimited else OTHER_ATTEMPTS
            if answer.problem not in repeat or failures[answer.problem] >= attempts:
                return answer
            if not self._pause(answer, failures[answer.problem]):
                return answer

    def _pause(self, answer: Answer, failures: int) -> bool:
        """Sleeps before the next request; False where that would take longer than the budget has left."""
        wait = next_wait(failures, told_wait(answer.headers, time.time()), self._left)
        if wait is None:
            return False
        wait = min(wait * random.uniform(1, 1 + JITTER), self._left)
        self._left -= wait
        _say(f"{answer.status or answer.why}; next try in {wait:.1f} s")
        time.sleep(wait)
        return True

    def _exchange(self, request: _Request) -> Answer:
        """Sends one request and reads the whole answer; never raises for what happens on the way."""
        global _last_used
        started = time.monotonic()
        if started - _last_used > IDLE_SECONDS:
            _adapter.close()
        self._attempts += 1
        _wire.begun = False
        status: int | None = None
        headers: Mapping[str, str] = {}
        try:
            method, url, signed, body, read = request
            response = _adapter.send(
                # Neither this nor the adapter looks for a netrc, keeps a cookie or follows a redirect: a Session would.
                requests.Request(method, url, signed, data=body).prepare(),
                stream=True,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True,
                # A proxy could read the key in plain http, which goes no further than this machine.
                proxies=get_environ_proxies(url) if url.startswith("https:") else {},
            )
            status, headers = response.status_code, response.headers
            content = response.content
        except Exception as error:
            answer = _no_answer(error, status, headers, time.monotonic() - started)
        else:
            problem, data = read(status, content)
            answer = Answer(problem, status, headers, data)
        finally:
            _last_used = time.monotonic()
            self._left -= _last_used - started
        return answer

    def _done(self, answer: Answer, what: str) -> dict[str, Any]:
        result: dict[str, Any] = answer.data
        _say(f"{answer.status}, {self._thing.name} {self._clean(result['data']['id'])} {what}, {self._spent()}")
        return result

    def _error(self, answer: Answer, sought: str = "") -> KustomerError:
        """Builds the error: what happened, what became of it, what to do. ``sought`` is the key of a look-up."""
        problem, thing, outcome = answer.problem or OddAnswer, self._thing, self._outcome
        errors = [{name: text and self._clean(text) for name, text in each.items()} for each in reasons(answer.data)]
        said = "; ".join(_sentence(reason) for reason in errors).rstrip(".")
        passing = problem in PASSING or (problem is OddAnswer and answer.status not in range(300, 400))
        # A form that has expired is made anew by the next run; what a look-up doesn't show yet, the next one may.
        passing = passing or (thing.peer != "Kustomer" and "expired" in said.lower())
        passing = passing or (problem is Conflict and bool(self._look) and not thing.blind)
        retryable = passing and (outcome != "unknown" or bool(self._look) or thing.harmless)
        told = told_wait(answer.headers, time.time())
        text = (
            _head(answer, sought, said, thing.peer),
            _happened(outcome, thing),
            _advice(answer, sought, said, thing),
            _again(outcome, retryable, self._look, told, thing),
        )
        names = ("x-request-id", "x-amz-cf-id", "x-amz-request-id")
        request_id = next(filter(None, map(answer.headers.get, names)), None)
        what = (
            f"{thing.name} {outcome.replace('_', ' ')}" if outcome != "not_sent" else thing.unsent.lower().rstrip(".")
        )
        _say(f"{answer.status or answer.why}; {what}, {self._spent()}")
        return problem(
            " ".join(filter(None, text)),
            outcome=outcome,
            retryable=retryable,
            status=answer.status,
            retry_after=told and round(told, 3),
            attempts=self._attempts,
            request_id=request_id and self._clean(request_id),
            errors=errors,
        )

    @cached_property
    def _words(self) -> list[str]:
        """What must not be quoted: the texts as they are, trimmed, and as JSON; the longest first."""
        texts = self._hidden
        quoted = (json.dumps(text, ensure_ascii=plain)[1:-1] for text in texts for plain in (True, False))
        forms = {*texts, *(text.strip() for text in texts), *quoted}
        return sorted((form for form in forms if len(form) >= SECRET_LENGTH), key=len, reverse=True)

    def _clean(self, text: str) -> str:
        """Makes text from outside fit for an error or a log: one line, not endless, without the key or the words."""
        # Also where the key is cut short: a long piece of it is no word.
        text = re.sub(r"[\w.+/=~-]{12,}", lambda piece: "[...]" if piece[0] in self.to.key else piece[0], text)
        text = text.replace(self.to.key, "[...]")
        for word in self._words:
            if word in text:  # a pattern of a whole message is costly to make, and re would keep it
                text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "[...]", text)
        return "".join(each if each.isprintable() else " " for each in text)[:LONGEST_REASON]

    def _spent(self) -> str:
        many = "" if self._attempts == 1 else "s"
        return f"{self._attempts} request{many}, {time.monotonic() - self._started:.2f} s"
