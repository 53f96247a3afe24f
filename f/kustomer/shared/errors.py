"""Kustomer errors.

Shared by the Kustomer steps, not run by itself: what can keep a step from its result, and what stays out of
their words.

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
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

Outcome = Literal["not_sent", "rejected", "unknown"]
Reason = dict[str, str | None]

# Nobody reads longer ones.
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
        found |= {
            text,
            text.strip(),
            " ".join(text.split()),
            *(json.dumps(text, ensure_ascii=plain)[1:-1] for plain in (True, False)),
        }
    return sorted((form for form in found if len(form) >= SHORTEST_SECRET), key=len, reverse=True)
