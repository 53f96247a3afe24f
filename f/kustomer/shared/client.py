"""Kustomer client.

Shared by the Kustomer steps, not run by itself: one run of a step sends, waits, looks, creates and uploads. It repeats
what is safe to repeat, and raises errors that say what became of the message, or whatever else it was.
"""

import itertools
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from f.kustomer.shared.errors import (
    NOT_STORED,
    TRANSIENT,
    UNCERTAIN,
    AccessDenied,
    Answer,
    CannotConnect,
    Conflict,
    KustomerError,
    NoAnswer,
    OddAnswer,
    Outcome,
    ProblemClass,
    RateLimited,
    RecordKind,
    Redactor,
    Rejected,
    ServerFailed,
    classify,
)
from f.kustomer.shared.inputs import (
    MAX_BODY_BYTES,
    Connection,
    CustomerId,
    DateTime,
    ExternalId,
    Field,
    Number,
    ObjectId,
    Problem,
    SentAt,
    ThreadId,
    check,
    connection,
    given,
    kustomer,
    to_json,
    unless_blank,
)
from f.kustomer.shared.wire import CHUNK_BYTES, TOO_LARGE, Failure, exchange

# The face of what lies below for the steps, which import from here only.
__all__ = (
    "CHUNK_BYTES",
    "MAX_BODY_BYTES",
    "AccessDenied",
    "Answer",
    "Conflict",
    "CustomerId",
    "DateTime",
    "ExternalId",
    "Field",
    "Keys",
    "KustomerError",
    "Number",
    "ObjectId",
    "OddAnswer",
    "Problem",
    "ProblemClass",
    "RateLimited",
    "RecordKind",
    "Redactor",
    "Rejected",
    "Request",
    "Run",
    "SentAt",
    "ServerFailed",
    "ThreadId",
    "check",
    "classify",
    "dig",
    "from_json",
    "given",
    "kustomer",
    "log",
    "start",
    "start_checked",
    "to_json",
    "unless_blank",
    "until_reset",
)

# For waiting and repeating around one thing; outlasts the one-minute window of every limit:
# https://developer.kustomer.com/docs/concepts/rate-limits
BUDGET_SECONDS = 75.0
# Waits of 2, 4, 8, 16 and 32 s add up to one window.
LIMITED_ATTEMPTS = 6
# What is down for longer than two short waits is better retried by the flow, which holds no worker.
OTHER_ATTEMPTS = 3
FIRST_WAIT_SECONDS = 2.0
# A fifth on top keeps parallel jobs from coming back in step.
JITTER = 0.2
# No documented limit lasts this long: such a header is taken for a mistake.
LONGEST_WAIT_SECONDS = 86_400.0
# What has just been looked for is not looked for again. Nobody delivers a message anew within so short a time.
FRESH_SECONDS = 5.0
# Kustomer gives as many unless told: https://developer.kustomer.com/kustomer-api-docs/reference/getmessage
PAGE_SIZE = 100

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}

# Names and values to look for, in this order: ``[("externalId", "order-1042"), ("email", "ada@example.com")]``.
Keys = Sequence[tuple[str, str]]
# Names the fields in which a record that is there (the ``data`` of an answer) plainly is another one than the body.
Differs = Callable[[Any, dict[str, Any]], list[str]]
# How to read an answer: its status and content give the problem and the data.
Read = Callable[[int, bytes], tuple[ProblemClass | None, Any]]


class Request:
    """A request as it is sent, and how to read its answer."""

    def __init__(self, method: str, url: str, headers: dict[str, str], body: Any, read: Read) -> None:
        self.method, self.url, self.headers, self.body, self.read = method, url, headers, body, read


class LookUp:
    """What a look-up says: the ``record`` that is there, None for none, or that the key may not look."""

    def __init__(self, record: dict[str, Any] | None = None, not_allowed: bool = False) -> None:
        self.record, self.not_allowed = record, not_allowed


ABSENT, NOT_ALLOWED = LookUp(), LookUp(not_allowed=True)


# What an answer means


def read_record(status: int, content: bytes) -> tuple[ProblemClass | None, Any]:
    """Read an answer that has one resource: a success is a JSON object that has ``data.id``."""
    data = from_json(content)
    found = dig(data, "data", "id")
    has_id = isinstance(found, str) and found and "\ufffd" not in found
    return classify(status) or (None if has_id else OddAnswer), data


def read_own(sent: Any, status: int, content: bytes) -> tuple[ProblemClass | None, Any]:
    """Read the answer to what was ``sent``, as ``read_record`` does: one with another externalId is somebody else's."""
    problem, data = read_record(status, content)
    answered = dig(data, "data", "attributes", "externalId")
    wanted = sent.get("externalId") if isinstance(sent, dict) else None
    is_other = problem is None and wanted and isinstance(answered, str) and answered != wanted
    return OddAnswer if is_other else problem, data


def read_object(status: int, content: bytes) -> tuple[ProblemClass | None, Any]:
    """Read an answer whose ``data`` is an object that need not have an id."""
    return _read_data(status, content, dict)


def read_list(status: int, content: bytes) -> tuple[ProblemClass | None, Any]:
    """Read an answer whose ``data`` is a list of resources."""
    problem, data = _read_data(status, content, list)
    return problem or (None if all(isinstance(each, dict) for each in data["data"]) else OddAnswer), data


def _read_data(status: int, content: bytes, shape: type) -> tuple[ProblemClass | None, Any]:
    data = from_json(content)
    return classify(status) or (None if isinstance(dig(data, "data"), shape) else OddAnswer), data


def look_up_without_record(answer: Answer, outcome: Outcome, kind: RecordKind) -> LookUp | ProblemClass:
    """Tell what a look-up says that has brought no record, or why nobody can tell.

    ``outcome`` is what became so far of what is looked for.
    """
    nothing_posted = outcome == "not_sent"
    # A gateway's page proves nothing, and neither does an empty answer once something was posted.
    own = isinstance(answer.data, dict) and (bool(answer.data) or nothing_posted)
    if answer.problem is AccessDenied and (own or not nothing_posted):
        return NOT_ALLOWED if kind.create_without_read else AccessDenied
    if own:
        # JSON:API allows a success without data for what is absent: https://jsonapi.org/format/#fetching-resources
        nothing = answer.status == 200 and answer.data.get("data", "nothing said") in (None, [])
        if answer.status == 404 or nothing:
            return ABSENT
    elif answer.status in (401, 403, 404):
        return OddAnswer
    return answer.problem or OddAnswer


def retry_after(status: int | None, headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait, or None where it asks for nothing sensible.

    ``now`` is in epoch seconds and counts where the answer has no date of its own. ``Retry-After`` (seconds or a date)
    counts on a 429 and a 503. After it, ``x-ratelimit-reset`` (epoch seconds or milliseconds, or seconds from now)
    counts on a 429 alone, and not while the organisation has requests left, as it is another limit's then.
    https://developer.kustomer.com/docs/concepts/rate-limits
    """
    if status not in (429, 503):
        return None
    now = _http_date(headers.get("Date")) or now
    asked = headers.get("Retry-After")
    date = _http_date(asked)
    waits = [_number(asked), date and date - now]
    if status == 429 and headers.get("x-ratelimit-remaining") in (None, "0"):
        waits.append(until_reset(headers, now))
    return next((wait for wait in waits if wait is not None and 0 < wait <= LONGEST_WAIT_SECONDS), None)


def until_reset(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds until the organisation's limit begins anew, or None where an answer doesn't say.

    ``now`` is in epoch seconds and counts where the answer has no date of its own.
    """
    now = _http_date(headers.get("Date")) or now
    reset = _number(headers.get("x-ratelimit-reset"))
    if reset is None:
        return None
    if reset > 1e11:
        return reset / 1000 - now
    return reset - now if reset > 1e9 else reset


def backoff(failures: int, asked: float | None, left: float, jitter: float) -> float | None:
    """Return the seconds to wait after so many ``failures``, or None where that is more than is ``left``.

    ``asked`` are those that the answer asks for, ``jitter`` is a random share to wait longer.
    """
    wait = asked or FIRST_WAIT_SECONDS * 2 ** (failures - 1)
    return min(wait * (1 + jitter), left) if wait <= left else None


def may_post_again(failures: Mapping[ProblemClass | None, int], last: ProblemClass, absent: bool) -> bool:
    """Tell whether what was posted in vain is posted once more, after so many ``failures`` of each kind.

    ``absent`` says that a look has not shown it, or that having two of it disturbs nobody.
    """
    if last in NOT_STORED:
        return failures[last] < (LIMITED_ATTEMPTS if last is RateLimited else OTHER_ATTEMPTS)
    return absent and last in TRANSIENT and sum(failures[each] for each in UNCERTAIN) < OTHER_ATTEMPTS


def outcome_after(so_far: Outcome, problem: ProblemClass | None) -> Outcome:
    """Tell what became of what was posted once more; nothing makes an unknown outcome known but a look."""
    if so_far == "unknown" or problem in UNCERTAIN:
        return "unknown"
    return so_far if problem is not None and issubclass(problem, CannotConnect) else "rejected"


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
    """Follow ``names`` into nested objects; None where one is missing or isn't an object."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def from_json(content: bytes) -> Any:
    """Decode JSON from outside; None where it is none. What no database can store becomes U+FFFD."""
    try:
        data = json.loads(content.decode("utf-8-sig", "replace") or "{}")
        return _storable(data) if re.search(rb"\\u(?:0000|[dD][89a-fA-F])", content) else data
    except (ValueError, RecursionError):
        return None


def _storable(value: Any) -> Any:
    """Replace NUL and halves of surrogate pairs, which Windmill's database can't store in a result."""
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return re.sub("[\0\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value


def _from_failure(failure: Failure) -> Answer:
    """Read why there is no whole answer; a status that was already told counts where it is a refusal."""
    if failure.status is not None and failure.status >= 400:
        return Answer(classify(failure.status), failure.status, failure.headers)
    return Answer(failure.problem, failure.status, failure.headers, why=failure.why)


def log(text: str) -> None:
    """Write one line to the job's log; a log that can't be written doesn't lose what was recorded."""
    line = f"kustomer: {text}"
    with suppress(OSError, ValueError):
        try:
            print(line, flush=True)
        except UnicodeEncodeError:
            print(line.encode("ascii", "backslashreplace").decode(), flush=True)


# A run


class Session:
    """What the parts of one Windmill job share: where they send, what stays out of errors, how often they have sent."""

    def __init__(self, to: Connection) -> None:
        """Take where to send, and with which key."""
        self.to = to
        self.redact = Redactor(to.key)
        self.started = time.monotonic()
        self._counted = itertools.count(1)
        self.requests = 0

    def count(self) -> None:
        """Count one request, also when several threads send."""
        self.requests = next(self._counted)

    @property
    def spent(self) -> str:
        """What the job has taken so far, for its log."""
        many = "" if self.requests == 1 else "s"
        return f"{self.requests} request{many}, {time.monotonic() - self.started:.2f} s"


def start(
    auth: object, kind: RecordKind, body: object = None, shape: type | None = None, limit: int | None = None
) -> "Run":
    """Check what a step was given and open its run.

    ``body`` is checked by the type ``shape``, and has at most ``limit`` bytes as JSON. Raise InvalidInput with every
    problem of both.
    """
    value, problems = check(body, shape, limit=limit) if shape else ({}, [])
    return start_checked(auth, kind, value, problems)


def start_checked(auth: object, kind: RecordKind, body: dict[str, Any], problems: list[Problem]) -> "Run":
    """Open the run of a step that has checked its body by itself, with these problems.

    Raise InvalidInput with them, and every problem of ``auth``.
    """
    to, wrong = connection(auth)
    if wrong := [*wrong, *problems]:
        log(f"nothing sent: {len(wrong)} to correct in auth and body")
        from f.kustomer.shared.advice import invalid

        raise invalid(wrong)
    return Run(Session(to), kind, body)


class Run:
    """One thing that a job does: what it may still spend, and what has become of it.

    ``to`` is where it sends, ``body`` what it was given, without what is empty, ``headers`` are those of its last
    answer.
    """

    def __init__(self, session: Session, kind: RecordKind, body: dict[str, Any]) -> None:
        """Take what it shares with the other parts of its job, what it makes, and the body."""
        self.to, self.body = session.to, body
        self.headers: Mapping[str, str] = {}
        self._session, self._kind = session, kind
        self._texts = {name: body[name] for name in kind.redact if name in body}
        self.hide(*self._texts.values())
        self._budget = self._budget_left = BUDGET_SECONDS
        self._outcome: Outcome = "not_sent"
        self._lookup_keys = ""  # what a next run looks for, where it can
        self._absent: tuple[str, Keys, float] = "", (), -math.inf  # where, which keys, and when a look showed nothing

    @property
    def requests(self) -> int:
        """How many requests the job has sent so far."""
        return self._session.requests

    @property
    def spent(self) -> str:
        """What the job has taken so far, for its log."""
        return self._session.spent

    def part(self, kind: RecordKind, body: dict[str, Any]) -> "Run":
        """Return a run for something else that the same job makes, with a budget of its own; fit for another thread."""
        return Run(self._session, kind, body)

    def hide(self, *texts: str) -> None:
        """Keep further texts out of errors and logs."""
        self._session.redact.hide(*texts)

    def hurry(self, seconds: float) -> None:
        """Wait and repeat no longer than so many seconds."""
        self._budget = self._budget_left = min(seconds, BUDGET_SECONDS)

    def read(self, path: str) -> Answer:
        """Read what is at ``path``: the decoded answer with its headers. Raise KustomerError."""
        answer = self.send(self._signed("GET", path, read=read_object))
        if answer.problem:
            raise self.error(answer, self._kind.name)
        return answer

    def list(self, path: str) -> Iterator[dict[str, Any]]:
        """Read the list at ``path``, all of its pages: the resources. Raise KustomerError.

        A page that is too large is asked for again in smaller ones. Each has the budget of a run.
        """
        page, size = 1, PAGE_SIZE
        before: Any = []
        while True:
            self._budget_left = self._budget
            answer = self.send(self._signed("GET", f"{path}?page={page}&pageSize={size}", read=read_list))
            if answer.why == TOO_LARGE and size > 1:
                # Each size divides those before it, so that a page of the new one begins where the old one did.
                smaller = next(each for each in (50, 10, 5, 1) if each < size)
                page, size = (page - 1) * size // smaller + 1, smaller
                continue
            if answer.problem:
                raise self.error(answer, self._kind.name)
            resources = answer.data["data"]
            if not resources or resources == before:  # some servers repeat their last page for ever
                return
            yield from resources
            before = resources
            if len(resources) < size and not dig(answer.data, "links", "next"):
                return
            page += 1

    def find(self, path: str, keys: Keys, differs: Differs | None = None) -> dict[str, Any] | None:
        """Look in the collection at ``path`` by each of ``keys`` in turn, and return the first answer that has one.

        Names and values go as in ``/v1/customers/email={value}``. Raise KustomerError.
        """
        return self._look(path, keys, differs).record

    def look(self, path: str, keys: Keys, differs: Differs | None = None) -> LookUp:
        """Look as ``find`` does for what is to be made, and tell whether the key may look. Raise KustomerError."""
        self._lookup_keys = " or ".join(dict.fromkeys(name for name, _ in keys))
        look_up = self._look(path, keys, differs)
        if look_up.not_allowed:
            self._lookup_keys = ""
        return look_up

    def _look(self, path: str, keys: Keys, differs: Differs | None) -> LookUp:
        for name, value in keys:
            quoted = quote(value, safe="")
            if self._session.redact.hides(value):
                self.hide(quoted)
            look_up = self._look_by(name, f"{path}/{name}={quoted}", differs)
            if look_up is not ABSENT:
                return look_up
        self._absent = path, keys, time.monotonic()
        return ABSENT

    def create(
        self, path: str, keys: Keys = (), differs: Differs | None = None, body: Any = None
    ) -> tuple[dict[str, Any], bool]:
        """Make one in the collection at ``path``, unless ``look`` finds it: return the answer, and whether it is new.

        ``body`` is what to send, if not the run's own. Without ``keys`` only what provably was not stored is sent
        again, but for what may be there twice. Raise KustomerError.
        """
        sent = self.body if body is None else body
        request = self._signed("POST", path, to_json(sent), lambda *answer: read_own(sent, *answer))
        failures = Counter[ProblemClass | None]()
        answer: Answer | None = None
        while True:
            if keys and not self._is_known_absent(path, keys):
                look_up = self.look(path, keys, differs)
                if look_up.record:
                    return look_up.record, self._outcome == "unknown"
                if look_up.not_allowed:
                    keys = ()
            absent = bool(keys) or self._kind.duplicates_ok
            if answer and answer.problem and not may_post_again(failures, answer.problem, absent):
                raise self.error(answer)
            answer = self._send(request)
            if answer.problem is None:
                return self._done(answer, self._kind.done_verb), True
            failures[answer.problem] += 1
            looks = bool(keys) and answer.problem in UNCERTAIN | {Conflict}
            if looks:  # what was absent may be there by now
                self._absent = "", (), -math.inf
            elif not may_post_again(failures, answer.problem, absent):
                raise self.error(answer)
            # A request that was cut off may still be on its way into the database: wait, then look.
            if answer.problem is not Conflict and not self._sleep_before_retry(answer, failures[answer.problem]):
                raise self.error(answer)

    def _is_known_absent(self, path: str, keys: Keys) -> bool:
        where, what, when = self._absent
        return (where, what) == (path, keys) and time.monotonic() - when <= FRESH_SECONDS

    def _signed(self, method: str, path: str, body: bytes | None = None, read: Read = read_record) -> Request:
        signed = {**_HEADERS, "Authorization": f"Bearer {self.to.key}"}
        return Request(method, self.to.base + path, signed, body, read)

    def _look_by(self, name: str, path: str, differs: Differs | None) -> LookUp:
        """Look one up. Raise KustomerError where nobody can tell whether it is there, or it is another one."""
        answer = self.send(self._signed("GET", path))
        if answer.problem is None:
            return self._there(name, answer, differs)
        look_up = look_up_without_record(answer, self._outcome, self._kind)
        if not isinstance(look_up, LookUp):
            raise self.error(Answer(look_up, answer.status, answer.headers, answer.data, answer.why), name)
        if look_up.not_allowed:
            role = f"role {self._kind.read_role}"
            log(f"{answer.status} on looking for the {self._kind.name} ({role}): a second run may record it twice")
        return look_up

    def _there(self, name: str, answer: Answer, differs: Differs | None) -> LookUp:
        """Return what is there under a key. Raise Conflict where it is another one than the body."""
        if other := differs and differs(answer.data["data"], self.body):
            record = f"{self._kind.name} {self._session.redact(answer.data['data']['id'])}"
            why = f"{name} is already that of {record}, which has another {' and another '.join(other)}"
            reason = {"code": "external_id_taken", "title": why, "source": {"pointer": f"body.{name}"}}
            raise self.error(Answer(Conflict, None, answer.headers, {"errors": [reason]}, why), name)
        there = {text: dig(answer.data, "data", "attributes", text) for text in self._texts}
        changed = [each for each, text in self._texts.items() if there[each] not in (None, text)]
        but = f", with another {' and '.join(changed)}" if changed else ""
        return LookUp(self._done(answer, f"was there already{but}"))

    def send(self, request: Request) -> Answer:
        """Send what may be sent twice, and again while that may help and the budget allows; never raise."""
        failures = Counter[ProblemClass | None]()
        while True:
            answer = self._send(request)
            failures[answer.problem] += 1
            if answer.problem is None or not may_post_again(failures, answer.problem, absent=True):
                return answer
            if not self._sleep_before_retry(answer, failures[answer.problem]):
                return answer

    def _sleep_before_retry(self, answer: Answer, failures: int) -> bool:
        """Sleep before the next request; return False where that would take longer than the budget has left."""
        asked = retry_after(answer.status, answer.headers, time.time())
        wait = backoff(failures, asked, self._budget_left, random.uniform(0, JITTER))
        if wait is None:
            return False
        self._budget_left -= wait
        log(f"{answer.status or answer.why}; next try in {wait:.1f} s")
        time.sleep(wait)
        return True

    def _send(self, request: Request) -> Answer:
        """Send one request and read the whole answer; never raise for what happens on the way."""
        if self._budget_left < 0:
            return Answer(NoAnswer, why=f"the {self._budget:.0f} s of this run were used up")
        self._session.count()
        started = time.monotonic()
        try:
            reply = exchange(request.method, request.url, request.headers, request.body)
        except Failure as failure:
            answer = _from_failure(failure)
        else:
            problem, data = request.read(reply.status, reply.content)
            # What Kustomer says in its own way ends where it says so; of anything else more may follow.
            reply.settle(problem is None or (reply.status in range(400, 500) and isinstance(data, dict) and bool(data)))
            answer = Answer(problem, reply.status, reply.headers, data)
        if isinstance(request.body, bytes | None):  # a file's time is bounded by its size
            self._budget_left -= time.monotonic() - started
        if request.method == "POST":
            self._outcome = outcome_after(self._outcome, answer.problem)
        self.headers = answer.headers
        return answer

    def _done(self, answer: Answer, what: str) -> dict[str, Any]:
        result: dict[str, Any] = answer.data
        if not self._kind.quiet:
            record = f"{self._kind.name} {self._session.redact(result['data']['id'])}"
            log(f"{answer.status}, {record} {what}, {self._session.spent}")
        return result

    def error(self, answer: Answer, sought: str = "") -> KustomerError:
        """Build the error that an answer comes to. ``sought`` is the key of a look-up."""
        from f.kustomer.shared.advice import explain  # a sixth of all that is compiled, which only a failure needs

        session, kind, outcome = self._session, self._kind, self._outcome
        log(f"{answer.status or answer.why}; {kind.name} {outcome.replace('_', ' ')}, {session.spent}")
        asked = retry_after(answer.status, answer.headers, time.time())
        return explain(answer, kind, outcome, sought, self._lookup_keys, asked, session.requests, session.redact)
