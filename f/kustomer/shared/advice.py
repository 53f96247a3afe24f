"""Kustomer advice.

Shared by the Kustomer steps, not run by itself, and fetched once something has failed: what an error says. That is what
happened, what became of the message, what to do, and whether running the step again is safe.
"""

import json
import math
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Any

from f.kustomer.shared.errors import (
    LONGEST_REASON,
    TRANSIENT,
    AccessDenied,
    Answer,
    BadProxy,
    CannotConnect,
    Conflict,
    InvalidInput,
    KustomerError,
    NoAnswer,
    NotTrusted,
    OddAnswer,
    Outcome,
    ProblemClass,
    RateLimited,
    Reason,
    RecordKind,
    Redactor,
    Rejected,
)
from f.kustomer.shared.inputs import Problem

# What people call a field by mistake, in lower case: of several, the first that the object has is meant. Misprints and
# other spellings are known without it.
MISTAKEN_NAMES = {
    "preview": ("body", "content", "html", "message", "text"),
    "text": ("body", "content", "html", "message", "preview"),
    "email": ("from",),
    "meta": ("cc", "from", "to"),
    "conversation": ("conversationid", "thread", "threadid"),
    "threadId": ("conversation", "conversationid", "thread"),
    "customer": ("customerid",),
    "customerExternalId": ("customerid",),
    "messageId": ("externalid", "id"),
    "externalId": ("conversation", "conversationid", "customerid", "id", "messageid", "thread", "threadid"),
    "subject": ("title",),
    "name": ("subject", "title"),
    "sentAt": ("date", "timestamp"),
    "files": ("attachments",),
    "file": ("s3",),
    "externalUrl": ("url",),
    "contentType": ("mimetype",),
    "contentLength": ("size",),
    "apiKey": ("key", "token"),
}

# Nobody reads more reasons.
LONGEST_LIST = 200

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
    (Rejected, "402", "Ask whoever runs your Kustomer account: this is about its plan or its bills."),
    (Rejected, "405", "This is not how Kustomer answers: check orgName, baseUrl and any proxy in between."),
    (Rejected, "410", "This is not how Kustomer answers: check orgName, baseUrl and any proxy in between."),
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


def unknown_name(name: Any, fields: Collection[str]) -> str:
    """Say which known name is likely meant: another spelling, a common mistake, or the nearest."""
    plain = str(name).lower().replace("_", "")
    spelled = {known.lower().replace("_", ""): known for known in fields}
    meant = next((known for known, names in MISTAKEN_NAMES.items() if plain in names and known in fields), None)
    guess = spelled.get(plain) or meant or spelled.get(nearest(plain, spelled))
    hint = f"did you mean {guess!r}?" if guess else f"known are {', '.join(fields)}"
    return f"is not a known field: {hint}"


def nearest(value: str, known: Iterable[str]) -> str:
    """Return the most alike of ``known``, else one that ``value`` begins with, else nothing."""
    from difflib import get_close_matches  # only a mistake pays for it

    begins = [each for each in known if value.lower().startswith(each)]
    return next(iter([*get_close_matches(value.lower(), list(known), 1), *begins]), "")


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
