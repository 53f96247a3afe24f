"""Kustomer inputs.

Shared by the Kustomer steps, not run by itself: checks what a step is given before anything is sent. A body is
described once, by a class whose fields have a type and a Field; the checks here and the step's form both come from it.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from types import UnionType
from typing import Annotated, Any, Literal, Required, TypedDict, Union, get_args, get_origin, get_type_hints

# 413 starts at 100 kB, read as the smaller 1000: https://developer.kustomer.com/kustomer-api-docs/reference/errors
MAX_BODY_BYTES = 100_000
DEFAULT_BASE = "https://api.kustomerapp.com"

# Where, and what is wrong there: ``("body.reference.type", "is missing")``.
Problem = tuple[str, str]

_pattern = cache(re.compile)


class FieldInfo:
    """What a Field says, by name."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about


def Field(  # noqa: N802 (as in pydantic)
    description: str = "",
    *,
    example: Any = None,
    required: bool = False,
    max_length: int | None = None,
    pattern: str | None = None,
    ge: float | None = None,
    le: float | None = None,
    closed: bool = True,
    tidy: Callable[[Any], Any] | None = None,
    check: Callable[[Any], str | None] | None = None,
    **form: Any,
) -> Any:
    """Say of a field what its type doesn't: ``subject: str = Field("Subject line.", max_length=256)``.

    ``example`` is a right value; a field that is not ``required`` may be left out; ``max_length`` counts characters, or
    the keys of an object; ``pattern`` matches the whole text and goes with the form's ``customErrorMessage``; ``ge``
    and ``le`` are the least and the greatest number; ``closed`` is false for an object that takes unknown keys;
    ``tidy`` returns what is taken for a value, before anything else looks at it, and so must take any; ``check``
    returns what is wrong with a value of the right type, without quoting it, or None; ``form`` are further keys of
    Windmill's schema dialect (https://www.windmill.dev/docs/core_concepts/json_schema_and_parsing).
    """
    about = {"description": description, "example": example, "required": required, "max_length": max_length}
    about |= {"ge": ge, "le": le, "closed": closed, "tidy": tidy, "check": check, **form, "pattern": pattern}
    return FieldInfo({name: value for name, value in about.items() if value is not None})


def _instant(value: str) -> str | None:
    try:
        if _pattern(r"(?ai)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:[0-5]\d)").fullmatch(value):
            datetime.fromisoformat(value.upper())
            return None
    except ValueError:
        pass
    return "must be an ISO 8601 date-time with a zone, such as 2026-01-31T09:30:00.000Z"


def not_sent_yet(moment: datetime) -> str | None:
    """Return what is wrong with a moment at which something was sent, or None.

    A clock may be wrong by hours; what is of another day would stand on top of the timeline until then.
    """
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    return "is more than a day ahead: give the date at which it was sent" if moment > tomorrow else None


def _sent(value: str) -> str | None:
    return _instant(value) or not_sent_yet(datetime.fromisoformat(value.upper()))


# What programs write where there is nothing, in small letters and without brackets and quotes around it. As an id it
# would be that of all who have none, so that strangers shared a conversation.
_NOTHING = {
    *("undefined", "null", "none", "nan", "nat", "nil", "na", "n/a", "n.a.", "\\n", "no value", "dbnull", "%!s(<nil"),
    *("object object", "object undefined", "object null", "undefined undefined", "null null"),
    *("#n/a", "#na", "#ref!", "#name?", "#value!", "#null!", "#num!", "#div/0!", "#error!", "#spill!"),
    *("#nv", "#wert!", "#bezug!"),
}
# What a message may be called where they are counted, and no person and no thread is.
_NOBODY = {"0", "-1", "guest", "anonymous", "unknown"}
_DESTROYED = "is a number that a spreadsheet or a program made of the id: export it again, as text"
_NO_ID = "is no id, but what a program writes for nothing: leave it out"
# Dashes, brackets and quotes only, zeros, an id made of nothing, and a template that nobody has filled in.
_EMPTY = (
    r"^[\s\u2010-\u2015\u2800<>()\[\]{}'\"-]*$|^[0-]{24,}$|^<?undefined[@:/-]"
    r"|\{\{[^{}]*\}\}|\$\{[^{}]*\}|<%.*%>|\{%.*%\}"
)
# How spreadsheets and data frames write a long number.
_NUMBER = r"\d+([.,]\d+)?e\+\d+|\d{3,}\.0+"


def not_an_id(text: str) -> str | None:
    """Return what keeps a text from being the id of a message, without quoting it, or None."""
    if text.encode("utf-8", "ignore").decode() != text:
        return "has half of a character in it (a broken emoji): take it out"
    if "\0" in text:  # answers are read without it, so that the id would not be known again
        return "has a NUL character in it: take it out"
    if not any(each.isprintable() and not each.isspace() for each in text):
        return "is blank: leave it out, or give an id"
    plain = text.strip(" <>()[]{}'\"").lower()
    if plain in _NOTHING or re.search(_EMPTY, text.lower()):
        return _NO_ID
    return _DESTROYED if re.fullmatch(_NUMBER, plain) else None


def not_somebodys_id(text: str) -> str | None:
    """Return what keeps a text from being the id of a customer or a thread, without quoting it, or None."""
    return _NO_ID if text.strip().lower() in _NOBODY else not_an_id(text)


def given(value: Any) -> bool:
    """Tell whether anything is left of a value once all that is empty is taken out of it."""
    return bool(_pruned([value], None)[0])


def unless_blank(value: Any) -> Any:
    """Return ``""``, which is not given, for a text of blanks only, and any other value as it is."""
    return "" if isinstance(value, str) and value.isspace() else value


def _unfolded(external_id: Any) -> Any:
    """Take off what a header may have around an id, and the line breaks of folding within it.

    https://www.rfc-editor.org/rfc/rfc5322#section-2.2.3
    """
    if not isinstance(external_id, str):
        return external_id
    return re.sub(r"\r?\n(?=[ \t])", "", external_id.strip()) or external_id  # a blank one is told


def _first_reference(thread_id: Any) -> Any:
    """Return the first of several ids in angle brackets: of an e-mail's References, it began the thread.

    https://www.rfc-editor.org/rfc/rfc5322#section-3.6.4
    """
    thread_id = _unfolded(thread_id)
    several = re.fullmatch(r"(<[^<>]+>)(?:[\s,]*<[^<>]+>)+", thread_id) if isinstance(thread_id, str) else None
    return several[1] if several else thread_id


Number = int | float
ExternalId = Annotated[str, Field(max_length=256, tidy=_unfolded, check=not_an_id)]
CustomerId = Annotated[str, Field(max_length=256, tidy=_unfolded, check=not_somebodys_id)]
ThreadId = Annotated[str, Field(max_length=256, tidy=_first_reference, check=not_somebodys_id)]
DateTime = Annotated[str, Field(check=_instant, format="date-time")]
SentAt = Annotated[str, Field(check=_sent, format="date-time")]
ObjectId = Annotated[
    str,
    Field(
        pattern="^[0-9a-fA-F]{24}$",
        customErrorMessage="must be a Kustomer id: 24 characters, 0-9 and a-f, no blanks around it",
    ),
]


class kustomer(TypedDict, total=False):
    """The Kustomer key to use: a resource of type kustomer."""

    apiKey: Required[str]
    orgName: str
    baseUrl: str


_KINDS: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    Literal: "text",
}


class Node:
    """What one place in a body may hold, read once from its type hint and its Field.

    ``about`` is what the Field says, by name; ``kind`` is the type in plain words; ``options`` are those of a Literal,
    ``item`` is what a list holds, ``shape`` is the class of an object, ``alternative`` the plain type in a union with
    one; ``free_form`` marks a dict; ``rules`` say what is wrong with a value of the right type, or None.
    """

    def __init__(self, hint: Any, field: FieldInfo | None = None) -> None:
        hint, *told = get_args(hint) if get_origin(hint) in (Annotated, Required) else (hint,)
        self.about: dict[str, Any] = {}
        for each in [*told, field] if field else told:
            self.about |= each.about
        origin, arguments = get_origin(hint), get_args(hint)
        first, *others = arguments if origin in (Union, UnionType) else (hint,)
        self.kind = _KINDS.get(origin or first) or _KINDS.get(first, "an object")
        self.options: tuple[str, ...] = arguments if origin is Literal else ()
        self.item = Node(arguments[0]) if origin is list else None
        self.free_form = origin is dict
        self.shape = first if isinstance(first, type) and first not in _KINDS else None
        self.alternative = Node(others[0]) if self.shape and others else None
        self.closed = self.about.get("closed", True)
        self.tidy = self.about.get("tidy")
        self.rules = list(self._rules())
        # The types of which any value is right, so that most values need no closer look.
        self.unchecked_types = (
            [] if self.shape or self.rules else [each for each, kind in _KINDS.items() if kind == self.kind]
        )

    @cached_property
    def fields(self) -> dict[str, "Node"]:
        """The fields of an object, in their order; none for anything else."""
        hints = get_type_hints(self.shape, include_extras=True) if self.shape else {}
        return {name: Node(hint, getattr(self.shape, name, None)) for name, hint in hints.items()}

    @cached_property
    def required(self) -> frozenset[str]:
        """The names of those fields that must be given."""
        said = {name for name, each in self.fields.items() if each.about.get("required")}
        return frozenset(said | getattr(self.shape, "__required_keys__", frozenset()))

    def _rules(self) -> Iterator[Callable[[Any], str | None]]:
        if self.options:
            yield self._not_an_option
        if "max_length" in self.about:
            yield self._too_long
        if "pattern" in self.about:
            yield self._another_pattern
        if self.about.keys() & {"ge", "le"}:
            yield self._out_of_range
        checks = self.about.get("check"), getattr(self.shape, "wrong_together", None)
        yield from filter(None, checks)

    def _not_an_option(self, value: str) -> str | None:
        if value in self.options:
            return None
        from f.kustomer.shared.advice import nearest

        guess = nearest(value, self.options)
        return f"must be one of {', '.join(self.options)}{guess and f': did you mean {guess!r}?'}"

    def _too_long(self, value: str | dict[str, Any]) -> str | None:
        if len(value) <= self.about["max_length"]:
            return None
        unit = "keys" if isinstance(value, dict) else "characters"
        return f"has {len(value):,} {unit}, at most {self.about['max_length']:,} are allowed"

    def _another_pattern(self, value: str) -> str | None:
        return None if _pattern(self.about["pattern"]).fullmatch(value) else self.about["customErrorMessage"]

    def _out_of_range(self, value: float) -> str | None:
        least, greatest = self.about.get("ge", -math.inf), self.about.get("le", math.inf)
        if least <= value <= greatest:
            return None
        if greatest == math.inf:
            return f"must be {least:g} or more"
        return f"must be {greatest:g} or less" if least == -math.inf else f"must be from {least:g} to {greatest:g}"


_node = cache(Node)


def check(
    body: object, shape: type, path: str = "body", limit: int | None = MAX_BODY_BYTES
) -> tuple[dict[str, Any], list[Problem]]:
    """Prune and check ``body`` by the class ``shape``: return what is left of it, and all problems.

    Null, ``""``, ``[]``, ``{}`` and what becomes empty are dropped at every depth, but nothing inside a free-form
    object (``dict[str, Any]``). ``limit`` is in bytes of JSON; None is for what isn't sent as it is. Never raise.
    """
    if not isinstance(body, dict):
        return {}, [(path, _not_an_object(body))]
    node = _node(shape)
    try:
        value, wrong = _pruned(body, node)
        problems = [(path + where, what) for where, what in [*wrong, *_wrong(value, node)]]
        length = 0 if limit is None else len(_encoded(value, path, problems))
    except RecursionError:
        return {}, [(path, "is nested too deeply: use fewer levels")]
    if limit is not None and length > limit:
        size = f"has {length:,} bytes as JSON, at most {limit:,} are allowed"
        problems.append((path, f"{size}: shorten the longest fields, or attach the text as a file"))
    return value, problems


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def to_json(value: Any) -> bytes:
    """Encode what may be sent as UTF-8 JSON. Raise TypeError or ValueError for what JSON can't carry."""
    # Half a surrogate pair has no UTF-8; as an escape it is valid JSON, which JSON.stringify sends too.
    return _json(value).encode("utf-8", "backslashreplace")


def _encoded(value: dict[str, Any], path: str, problems: list[Problem]) -> bytes:
    """Encode a body, or note where something is that JSON can't carry."""
    try:
        return to_json(value)
    except (TypeError, ValueError):
        known = {where for where, _ in problems}
        problems += [(where, what) for where, what in _not_json(value, path) if where not in known]
        return b""


def _not_json(value: Any, path: str) -> list[Problem]:
    """Return what JSON can't carry, such as an infinite number: only a script that calls the step can give it."""
    with suppress(TypeError, ValueError):
        to_json(value)
        return []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    within = [problem for name, each in pairs for problem in _not_json(each, path + _place(name))]
    return within or [(path, "can't be written as JSON")]


def _pruned(value: Any, node: Node | None) -> tuple[Any, list[Problem]]:
    """Return what is left of an object or a list, and what is wrong within it, by places such as ``.files[1].name``."""
    is_list = isinstance(value, list)
    fields, item = (node.fields, node.item) if node else ({}, None)
    pairs: Iterable[tuple[Any, Any]] = enumerate(value) if is_list else value.items()
    kept, problems = {}, []
    for name, each in pairs:
        inner = item if is_list else fields.get(name)
        wrong: list[Problem] = []
        if inner and inner.tidy:
            each = inner.tidy(each)
        if isinstance(each, list) or (isinstance(each, dict) and not (inner and inner.free_form)):
            each, wrong = _pruned(each, inner)
        if not each and each != 0:  # False and 0 are answers, the rest is what a form leaves untouched
            continue
        kept[name] = each
        if inner and type(each) not in inner.unchecked_types:
            wrong += _wrong(each, inner)
        if wrong:
            problems += [(_place(name) + where, what) for where, what in wrong]
    return list(kept.values()) if is_list else kept, problems


def _wrong(value: Any, node: Node) -> list[Problem]:
    """Return what is wrong with a value as a whole, without quoting it: ``[("", "must be text, not a number")]``."""
    kind = _KINDS.get(type(value))
    if kind != node.kind:
        other = node.alternative
        if other and kind == other.kind:
            return _wrong(value, other)
        wanted = f"{node.kind} or {other.kind}" if other else node.kind
        return [("", f"must be {wanted}, not {kind or type(value).__name__}")]
    problems = _wrong_names(value, node) if node.shape else []
    for rule in node.rules:
        if wrong := rule(value):
            return [*problems, ("", wrong)]
    return problems


def _wrong_names(value: dict[Any, Any], node: Node) -> list[Problem]:
    """Return which fields of an object are unknown, and which are missing."""
    unknown = value.keys() - node.fields.keys() if node.closed else ()
    missing = node.required - value.keys()
    if not unknown and not missing:
        return []
    from f.kustomer.shared.advice import unknown_name

    return [
        *((_place(name), unknown_name(name, node.fields)) for name in value if name in unknown),
        *((_place(name), "is missing") for name in node.fields if name in missing),
    ]


def _not_an_object(value: object) -> str:
    if value is None:
        return "is missing"
    if isinstance(value, str) and value.startswith(("$res:", "$var:")):
        return "is a reference that Windmill did not resolve: check that it exists and that you may read it"
    return f"must be an object, not {_KINDS.get(type(value), type(value).__name__)}"


def _place(name: object) -> str:
    """Return how a path goes on, without a key that looks like a text or a secret rather than a name."""
    if isinstance(name, int):
        return f"[{name}]"
    return f".{name}" if isinstance(name, str) and re.fullmatch(r"[\w-]{1,40}", name) else ".(an odd name)"


class Connection:
    """Where to send (``base``, without a slash at the end) and with which ``key``, which its repr doesn't show."""

    def __init__(self, base: str, key: str) -> None:
        self.base, self.key = base, key


def connection(auth: object) -> tuple[Connection, list[Problem]]:
    """Check a ``kustomer`` resource and return where its key may go, and all problems. Never raise.

    The base is ``baseUrl`` where given, else the host of ``orgName``, else ``https://api.kustomerapp.com``
    (https://developer.kustomer.com/docs/get-started/authentication). What is often pasted along is taken off: blanks,
    ``Bearer``, the rest of an organisation's address, ``/v1``.
    """
    value, problems = check(auth, kustomer, "auth", limit=None)
    wrong = {where for where, _ in problems}
    found = {"apiKey": "", "orgName": "", "baseUrl": ""}
    for name, read in (("apiKey", _key), ("orgName", _org_base), ("baseUrl", _base)):
        if name in value and f"auth.{name}" not in wrong:
            try:
                if unresolved := re.search(r"\$(res|var):", value[name]):
                    raise ValueError(_not_an_object(unresolved[0]))
                found[name] = read(value[name].strip())
            except ValueError as error:
                problems.append((f"auth.{name}", str(error)))
    return Connection(found["baseUrl"] or found["orgName"] or DEFAULT_BASE, found["apiKey"]), problems


def _key(text: str) -> str:
    first, *rest = text.split(None, 1) or [""]
    key = "".join(rest) if first.lower() == "bearer" else text
    if not key:
        raise ValueError("is empty: copy the key from Kustomer, Settings > Security > API Keys")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("has a blank, a line break or a special character in it: copy the whole key again")
    return key


_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


def _org_base(text: str) -> str:
    page = rf"(?ai)(?:https?://)?({_LABEL})(?:\.api)?\.kustomerapp\.com(?:[/?#].*)?"
    found = re.fullmatch(page, text) or re.fullmatch(f"(?ai)({_LABEL})", text)
    if not found or found[1].lower() in ("api", "www"):
        raise ValueError("must be the name before .kustomerapp.com in your address bar, such as acme; or use baseUrl")
    return f"https://{found[1].lower()}.api.kustomerapp.com"


def _base(text: str) -> str:
    address = rf"(?ai)(https?)://({_LABEL}(?:\.{_LABEL})*|\[::1\])(:\d{{1,5}})?((?:/[\w.~-]+)*?)(?:/v1)?/*"
    found = re.fullmatch(address, text)
    if not found or int((found[3] or ":0")[1:]) > 65_535:
        raise ValueError("must be an address such as https://api.prod2.kustomerapp.com, without user name or query")
    scheme, host = found[1].lower(), found[2].lower()
    octet = r"\.(25[0-5]|2[0-4]\d|1?\d?\d)"
    if scheme == "http" and not re.fullmatch(rf"localhost|127({octet}){{3}}|\[::1\]", host, re.A):
        raise ValueError("must begin with https:// to keep the key secret (http is for this machine only)")
    return f"{scheme}://{host}{found[3] or ''}{found[4]}"
