"""Kustomer errors.

Shared by the Kustomer steps, not run by itself: what can keep a step from its result, and what to do about it.

    KustomerError
    |-- InvalidInput    auth or body is wrong, so nothing was sent
    |-- FileNotRead     Windmill's object storage doesn't give the file, so nothing was sent
    |-- FileNotWritten  Windmill's object storage doesn't take a file
    |-- CannotConnect   there was no connection, so nothing was sent
    |   |-- NotTrusted  the server's certificate is not trusted
    |   `-- BadProxy    the worker's proxy setting is wrong, or lacks a password
    |-- AccessDenied    401, 403: the key is not let in
    |-- RateLimited     429, for longer than a step may wait
    |-- Rejected        any other 4xx: the request is wrong
    |   `-- Conflict    409, or the externalId belongs to something else
    |-- ServerFailed    5xx, 408: it may have been recorded
    |-- NoAnswer        the connection broke or timed out: it may have been recorded
    `-- OddAnswer       an answer that is not Kustomer's, such as a redirect or a web page
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

# Where, and what is wrong there: ``("body.reference.type", "is missing")``.
Problem = tuple[str, str]
Outcome = Literal["not_sent", "rejected", "unknown"]
Reason = dict[str, str | None]

# Nobody reads more reasons, or longer ones.
LONGEST_LIST = 200
LONGEST_REASON = 1_000
# Redacting shorter texts would blank ordinary words in Kustomer's answers.
SHORTEST_SECRET = 4
# A shorter text is a word, which stands for itself only where no letter touches it.
SHORTEST_TEXT = 8
# A piece of a key of this length is no word; whoever has it has a part of the secret.
KEY_PIECE = 12


class KustomerError(Exception):
    """Anything that kept a step from its result. Windmill shows the attributes as ``error.extra``.

    ``status`` is the HTTP status or None; ``outcome`` is what became of it: ``not_sent`` (this run sent nothing),
    ``rejected`` (Kustomer said no to this run), ``unknown`` (it may be recorded); ``retryable`` is true when running
    the step again can't double anything and may help; ``retry_after`` is in seconds, or None; ``attempts`` counts the
    requests of this run, look-ups included; ``request_id`` is the server's name for the last one, or None; ``errors``
    are the reasons, each ``{code, title, detail, path}`` of text or None.
    """

    def __init__(
        self,
        text: str,
        *,
        outcome: Outcome = "unknown",
        retryable: bool = False,
        status: int | None = None,
        retry_after: float | None = None,
        attempts: int = 0,
        request_id: str | None = None,
        errors: list[Reason] | None = None,
    ) -> None:
        """Take the text, which begins with the status where there is one, and the attributes."""
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


class FileNotWritten(KustomerError):
    """A file could not be written to Windmill's object storage. Nothing was sent."""


class CannotConnect(KustomerError):
    """There was no connection: refused, timed out, host not found. Nothing was sent."""


class NotTrusted(CannotConnect):
    """The server's TLS certificate is not trusted. Nothing was sent, and trying again won't help."""


class BadProxy(CannotConnect):
    """The worker's proxy can't be used as it is set. Nothing was sent, and trying again won't help."""


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
    """An answer that is not Kustomer's: a redirect, a web page, one without an end, a success without an id."""


ProblemClass = type[KustomerError]

# Nothing was stored, so any request may be repeated.
NOT_STORED = frozenset({CannotConnect, RateLimited})
# It may have been stored, so only a look-up may be repeated.
UNCERTAIN = frozenset({ServerFailed, NoAnswer, OddAnswer})
TRANSIENT = NOT_STORED | {ServerFailed, NoAnswer}


class RecordKind(NamedTuple):
    """What a step makes, as its errors and logs speak of it, and what having two of it would mean.

    ``role`` is the one that making it takes; ``done_verb`` and ``place`` say that it is there, ``not_sent_text`` that
    this run did not even try; ``redact`` are fields of the body whose text stays out of errors and logs; ``conflict``
    is what to do about a 409, ``limit`` about a 429 that is not the organisation's; ``create_without_read``: a key that
    may not look for it may still make it; ``duplicates_ok``: a second one disturbs nobody; ``quiet``:
    there are too many for a line in the log about each; ``server`` is who makes it.
    """

    name: str
    role: str = ""
    done_verb: str = "created"
    place: str = "in Kustomer"
    not_sent_text: str = ""
    redact: tuple[str, ...] = ()
    conflict: str = ""
    limit: str = "A limit of Kustomer's is used up."
    create_without_read: bool = False
    duplicates_ok: bool = False
    quiet: bool = False
    server: str = "Kustomer"

    @property
    def read_role(self) -> str:
        """The role that looking for it takes."""
        return self.role and f"org.permission.{self.name}.read"


class Answer:
    """What came back: decoded JSON (None for anything else), or why nothing did; no ``problem`` is a success."""

    def __init__(
        self,
        problem: ProblemClass | None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        why: str = "",
    ) -> None:
        self.problem, self.status, self.headers, self.data, self.why = problem, status, headers or {}, data, why


def classify(status: int) -> ProblemClass | None:
    """Tell what a status means; None is a success.

    https://developer.kustomer.com/kustomer-api-docs/reference/errors
    """
    if 200 <= status < 300:
        return None
    if status in (401, 403):
        return AccessDenied
    if status == 429:
        return RateLimited
    if status == 409:
        return Conflict
    if status < 400:
        return OddAnswer
    return Rejected if status < 500 and status != 408 else ServerFailed


def may_retry(answer: Answer, kind: RecordKind, outcome: Outcome, looks: bool, said: str) -> bool:
    """Tell whether running the step again can't double anything, and may help."""
    if outcome == "unknown" and not looks and not kind.duplicates_ok:
        return False
    if answer.problem in TRANSIENT:
        return True
    if answer.problem is OddAnswer:
        return answer.status not in range(300, 400)
    if answer.problem is Conflict:  # what a look-up doesn't show yet, the next one may
        return looks and not kind.create_without_read
    # A form that has expired is made anew by the next run.
    return kind.server != "Kustomer" and "expired" in said.lower()


class Redactor:
    """Makes text from outside fit for an error or a log: one line, of a bounded length, without the secrets.

    A secret is the ``key``, any long piece of it, and each text that was hidden, as it is or as JSON.
    """

    def __init__(self, key: str) -> None:
        """Take the key; texts are added by ``hide``."""
        self._key = key
        self._pieces = {key[at : at + KEY_PIECE] for at in range(len(key) - KEY_PIECE + 1)}
        self._texts: list[str] = []
        # Of how many texts, and their forms: one value, as several threads read and write it.
        self._forms: tuple[int, list[str]] = 0, []

    def hide(self, *texts: str) -> None:
        """Keep further texts out."""
        self._texts.extend(texts)

    def hides(self, text: str) -> bool:
        """Tell whether this text is kept out."""
        return text in self._texts

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        text = self._without_key(text)
        for form in self._all_forms():
            if len(form) >= SHORTEST_TEXT:
                text = text.replace(form, "[...]")
            elif form in text:
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "[...]", text)
        return "".join(each if each.isprintable() else " " for each in text)[:LONGEST_REASON]

    def _all_forms(self) -> list[str]:
        of, forms = self._forms
        if of != len(self._texts):
            texts = tuple(self._texts)
            forms = _forms(texts)
            self._forms = len(texts), forms
        return forms

    def _without_key(self, text: str) -> str:
        """Blank the key, and whatever is a piece of it of KEY_PIECE characters or more."""
        text = text.replace(self._key, "[...]") if self._key else text
        starts = [at for at in range(len(text) - KEY_PIECE + 1) if text[at : at + KEY_PIECE] in self._pieces]
        if not starts:
            return text
        secret = {at for start in starts for at in range(start, start + KEY_PIECE)}
        masked = "".join("\0" if at in secret else each for at, each in enumerate(text))
        return re.sub("\0+", "[...]", masked)


def _forms(texts: Iterable[str]) -> list[str]:
    """Return each text as it may be quoted: as it is, trimmed, and as JSON; the longest first."""
    found = set()
    for text in texts:
        found |= {text, text.strip(), *(json.dumps(text, ensure_ascii=plain)[1:-1] for plain in (True, False))}
    return sorted((form for form in found if len(form) >= SHORTEST_SECRET), key=len, reverse=True)


# What to do about an error, beyond trying again. Of the rows for an error's class, the first holds whose situation is
# given ("" always is). {access} says what the key needs, {sought} what was looked for, {server} who should answer;
# {limit} and {conflict} are those of the kind of record.
ADVICE: tuple[tuple[ProblemClass, str, str], ...] = (
    (BadProxy, "", "Correct the proxy that the worker is set to use (HTTPS_PROXY), or except the host (NO_PROXY)."),
    (NotTrusted, "upload", "Check which certificates the worker trusts (REQUESTS_CA_BUNDLE)."),
    (NotTrusted, "", "Check baseUrl, and which certificates the worker trusts (REQUESTS_CA_BUNDLE)."),
    (CannotConnect, "upload", "Check that the worker, or its proxy, may connect to {server}."),
    (
        CannotConnect,
        "",
        "Check orgName and baseUrl of the kustomer resource, and that the worker, or its proxy, may connect there.",
    ),
    (OddAnswer, "upload", "Check any proxy in between."),
    (OddAnswer, "", "This is not how Kustomer answers: check orgName, baseUrl and any proxy in between."),
    (Rejected, "upload", ""),
    (AccessDenied, "pod", "The key belongs to another pod: set orgName, or baseUrl. {access}"),
    (AccessDenied, "", "{access}"),
    (
        RateLimited,
        "organisation",
        "The organisation's limit of requests a minute, shared by all its keys and agents, is used up.",
    ),
    (RateLimited, "", "{limit}"),
    (Conflict, "", "{conflict}"),
    (Rejected, "look-up", "Check the {sought}, and baseUrl."),
    (Rejected, "404", "Check the ids in the body, and baseUrl: what they name is not in the key's organisation."),
    (Rejected, "413", "Shorten the longest fields, or attach the text as a file."),
    (Rejected, "reason", "Correct what Kustomer names above."),
    (Rejected, "", "Kustomer gave no reason: check the body field by field."),
)
_ACCESS = (
    "Check the key: it {needs}must not be expired or revoked, may be bound to certain IP addresses, and works on its "
    "own organisation's host only (orgName, baseUrl). Roles can't be changed: make a new key."
)


def explain(
    answer: Answer,
    kind: RecordKind,
    outcome: Outcome,
    sought: str,
    lookup_keys: str,
    asked: float | None,
    attempts: int,
    redact: Redactor,
) -> KustomerError:
    """Build the error that an answer comes to: what happened, what became of it, what to do, whether again is safe.

    ``sought`` is the key of a look-up that failed, ``lookup_keys`` are those that the next run looks for, ``asked`` are
    the seconds that the answer asks to wait, ``attempts`` the requests so far.
    """
    errors = [{name: text and redact(text) for name, text in each.items()} for each in reasons(answer.data)]
    said = "; ".join(sentence(reason) for reason in errors).rstrip(".")
    retryable = may_retry(answer, kind, outcome, bool(lookup_keys), said)
    problem = answer.problem or OddAnswer
    text = (
        _head(answer, kind, sought, said),
        _happened(outcome, kind, bool(lookup_keys)),
        _advice(problem, _situations(answer, sought, said, kind.server), kind, sought),
        _again(outcome, retryable, lookup_keys, asked, kind),
    )
    names = ("x-request-id", "x-amz-cf-id", "x-amz-request-id")
    request_id = next(filter(None, map(answer.headers.get, names)), None)
    return problem(
        " ".join(filter(None, text)),
        outcome=outcome,
        retryable=retryable,
        status=answer.status,
        retry_after=asked and round(asked, 3),
        attempts=attempts,
        request_id=request_id and redact(request_id),
        errors=errors,
    )


def _head(answer: Answer, kind: RecordKind, sought: str, said: str) -> str:
    """Say what happened: the status with the reasons given, or why there is no status."""
    server = kind.server
    if answer.status is None:
        lead: dict[Any, str] = {
            NoAnswer: f"No answer from {server}: ",
            Conflict: "The ",
            OddAnswer: f"{server}'s answer ",
        }
        return f"{lead.get(answer.problem, f'No connection to {server}: ')}{answer.why}."
    name = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else "unknown status"
    where = "" if server == "Kustomer" else f" from {server}"
    if sought:
        where = f" on looking for the {kind.name}{'' if sought == kind.name else f' by {sought}'}"
    link = ", but the answer " if answer.problem is OddAnswer else ", but "
    return f"{answer.status} {name}{where}{answer.why and link + answer.why}{said and f': {said}'}."


def _happened(outcome: Outcome, kind: RecordKind, looks: bool) -> str:
    """Say what became of it in this run, without a word on what an earlier one may have done."""
    if outcome == "unknown":
        return f"It is unknown whether the {kind.name} was {kind.done_verb}: it may be {kind.place}."
    text = f"This run has not {kind.done_verb} the {kind.name}."
    if outcome == "not_sent":  # of one thing only: the same job may have made others
        text = kind.not_sent_text or f"This run created no {kind.name}."
    return f"{text} An earlier run may have {kind.done_verb} it." if looks else text


def _situations(answer: Answer, sought: str, said: str, server: str) -> set[str]:
    """Name what decides between the rows of ADVICE."""
    found = {
        "": True,
        "upload": server != "Kustomer",
        "look-up": bool(sought),
        "pod": "pod" in said.lower(),
        "organisation": bool(sought) or answer.headers.get("x-ratelimit-remaining") == "0",
        "reason": bool(said),
        str(answer.status): True,
    }
    return {name for name, holds in found.items() if holds}


def _again(outcome: Outcome, retryable: bool, looks: str, asked: float | None, kind: RecordKind) -> str:
    """Say whether running the step again is safe."""
    if outcome == "unknown" and not looks and not kind.duplicates_ok:
        return (
            f"Look in Kustomer before you run the step again, as it can't delete a {kind.name}. Given an externalId, "
            f"and a key with the role {kind.read_role}, the step looks by itself."
        )
    why = f": it looks for the {looks} first" if outcome == "unknown" and looks else ""
    if kind.duplicates_ok:
        why = ": it makes another record, and one without a file is shown nowhere"
    if retryable or kind.duplicates_ok:
        return f"Running the step again{f' in {math.ceil(asked)} s' if asked else ''} is safe{why}."
    return f"After that, running the step again is safe{why}." if outcome == "unknown" else ""


def _advice(problem: ProblemClass, situations: set[str], kind: RecordKind, sought: str) -> str:
    """Return what to do, or "" where there is nothing beyond trying again."""
    role = kind.read_role if sought else kind.role
    access = _ACCESS.format(needs=role and f"needs the role {role}, ")
    texts = (text for row, situation, text in ADVICE if issubclass(problem, row) and situation in situations)
    return next(texts, "").format(
        access=access, sought=sought, server=kind.server, limit=kind.limit, conflict=kind.conflict
    )


def invalid(problems: list[Problem]) -> InvalidInput:
    """Build the error for what is wrong with a step's arguments."""
    told = [(path[:LONGEST_REASON], what[:LONGEST_REASON]) for path, what in problems[:LONGEST_LIST]]
    shown = "; ".join(f"{path} {what}" for path, what in told)
    more = f"; and {len(problems) - LONGEST_LIST} more" if len(problems) > LONGEST_LIST else ""
    return InvalidInput(
        f"This run sent nothing. To correct: {shown}{more}.",
        outcome="not_sent",
        errors=[{"code": "invalid_input", "title": what, "detail": None, "path": path} for path, what in told],
    )


def reasons(data: Any) -> list[Reason]:
    """Read the reasons from either of Kustomer's two error shapes, and from what resembles them.

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
    return {name: _as_text(value) for name, value in found.items()}


def _as_text(value: Any) -> str | None:
    if value in (None, "", [], {}):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sentence(reason: Reason) -> str:
    """Write a reason in one line: where, and what."""
    text = " - ".join(dict.fromkeys(filter(None, (reason["title"], reason["detail"])))) or reason["code"]
    return ": ".join(filter(None, (reason["path"], text)))
