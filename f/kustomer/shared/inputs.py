"""Kustomer inputs.

Shared by the Kustomer steps, not run by itself: checks what a step is given before anything is sent. A body is
described once, by a TypedDict whose fields carry a Field; the checks here and the step's form both come from it.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import cache, cached_property
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict, Union, get_args, get_origin, is_typeddict

from f.kustomer.shared.errors import Problem

# 413 starts at 100 kB, read as the smaller 1000: https://developer.kustomer.com/kustomer-api-docs/reference/errors
MAX_BODY_BYTES = 100_000
DEFAULT_BASE = "https://api.kustomerapp.com"

_pattern = cache(re.compile)


class Field:
    """What the check and the form know of a field besides its type.

    ``example`` is a right value; ``max_length`` counts characters, or the keys of an object; ``pattern`` matches the
    whole text and goes with the form's ``customErrorMessage``; ``ge`` and ``le`` are the least and the greatest
    number; ``mistaken_names`` are those that people use for it by mistake, in lower case; ``closed`` is false for an
    object that takes unknown keys; ``tidy`` returns what is taken for a value, before anything else looks at it, and so
    must take any; ``check`` returns what is wrong with a value of the right type, or None; ``form`` are further keys of
    Windmill's schema dialect (https://www.windmill.dev/docs/core_concepts/json_schema_and_parsing).
    """

    def __init__(
        self,
        description: str = "",
        *,
        example: Any = None,
        max_length: int | None = None,
        pattern: str | None = None,
        ge: float | None = None,
        le: float | None = None,
        mistaken_names: Iterable[str] = (),
        closed: bool = True,
        tidy: Callable[[Any], Any] | None = None,
        check: Callable[[Any], str | None] | None = None,
        **form: Any,
    ) -> None:
        self.description, self.example, self.form = description, example, form
        self.max_length, self.pattern, self.check = max_length, pattern, check
        self.ge, self.le = ge, le
        self.mistaken_names, self.closed, self.tidy = mistaken_names, closed, tidy

    def rules(self) -> Iterator[Callable[[Any], str | None]]:
        """The checks for a value of the right type: each says what is wrong, without quoting it, or None."""
        if self.max_length is not None:
            yield self._too_long
        if self.pattern:
            match, wrong = _pattern(self.pattern).fullmatch, str(self.form["customErrorMessage"])
            yield lambda value: None if match(value) else wrong
        if self.ge is not None or self.le is not None:
            yield self._out_of_range
        if self.check:
            yield self.check

    def _too_long(self, value: str | dict[str, Any]) -> str | None:
        if len(value) <= (self.max_length or 0):
            return None
        unit = "keys" if isinstance(value, dict) else "characters"
        return f"has {len(value):,} {unit}, at most {self.max_length:,} are allowed"

    def _out_of_range(self, value: float) -> str | None:
        least, greatest = (-math.inf if self.ge is None else self.ge), (math.inf if self.le is None else self.le)
        if least <= value <= greatest:
            return None
        if self.le is None:
            return f"must be {least:g} or more"
        return f"must be {greatest:g} or less" if self.ge is None else f"must be from {least:g} to {greatest:g}"


def _instant(value: str) -> str | None:
    try:
        if _pattern(r"(?ai)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:[0-5]\d)").fullmatch(value):
            datetime.fromisoformat(value.upper())
            return None
    except ValueError:
        pass
    return "must be an ISO 8601 date-time with a zone, such as 2026-01-31T09:30:00.000Z"


def _can_be_looked_up(external_id: str) -> str | None:
    """Return what keeps a text from being an id, or None.

    That is half a surrogate pair, which has no UTF-8 and so no address, or nothing that can be seen.
    """
    if external_id.encode("utf-8", "ignore").decode() != external_id:
        return "has half of a character in it (a broken emoji): take it out"
    seen = any(each.isprintable() and not each.isspace() for each in external_id)
    return None if seen else "is blank: leave it out, or give an id"


def given(value: Any) -> bool:
    """Tell whether anything is left of a value once all that is empty is taken out of it."""
    return bool(_pruned_list([value], None, "", []))


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


Number = int | float
ExternalId = Annotated[str, Field(max_length=256, tidy=_unfolded, check=_can_be_looked_up)]
DateTime = Annotated[str, Field(check=_instant, format="date-time")]
ObjectId = Annotated[
    str,
    Field(
        pattern="^[0-9a-fA-F]{24}$",
        customErrorMessage="must be a Kustomer id: 24 characters, 0-9 and a-f, no blanks around it",
    ),
]


class kustomer(TypedDict, total=False):
    """The Kustomer key to use: a resource of type kustomer."""

    apiKey: Required[Annotated[str, Field(mistaken_names=("key", "token", "apitoken", "accesstoken", "password"))]]
    orgName: Annotated[str, Field(mistaken_names=("org", "organization", "organisation", "subdomain"))]
    baseUrl: Annotated[str, Field(mistaken_names=("url", "host", "server"))]


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
    """What one place in a body may hold, read once from its type hint.

    ``kind`` is its type in plain words; ``options`` are those of a Literal, ``item`` is what a list holds, ``fields``
    and ``required`` are those of a TypedDict, ``alternative`` is the plain type in a union with one; ``free_form``
    marks a dict.
    """

    def __init__(self, hint: Any) -> None:
        if get_origin(hint) in (Required, NotRequired):
            hint = get_args(hint)[0]
        self.about: tuple[Field, ...] = getattr(hint, "__metadata__", ())
        hint = hint.__origin__ if self.about else hint
        origin, arguments = get_origin(hint), get_args(hint)
        first, *others = arguments if origin in (Union, UnionType) else (hint,)
        self.shape = first if is_typeddict(first) else None
        self.required: frozenset[str] = first.__required_keys__ if self.shape else frozenset()
        self.alternative = Node(others[0]) if self.shape and others else None
        self.free_form = origin is dict
        self.item = Node(arguments[0]) if origin is list else None
        self.options: tuple[str, ...] = arguments if origin is Literal else ()
        self.kind = _KINDS.get(origin or first) or _KINDS.get(first, "an object")
        self.rules = [rule for each in self.about for rule in each.rules()]
        # The types of which any value is right, so that most leaves need no closer look.
        self.unchecked_types = (
            [] if self.options or self.rules else [each for each, kind in _KINDS.items() if kind == self.kind]
        )
        self.closed = all(each.closed for each in self.about)
        self.mistaken_names = [name for each in self.about for name in each.mistaken_names]
        self.tidy = next((each.tidy for each in self.about if each.tidy), None)

    @cached_property
    def fields(self) -> dict[str, "Node"]:
        """The fields of a TypedDict, in their order; none for anything else."""
        return {name: Node(hint) for name, hint in self.shape.__annotations__.items()} if self.shape else {}


_node = cache(Node)


def check(
    body: object, shape: Any, path: str = "body", limit: int | None = MAX_BODY_BYTES
) -> tuple[dict[str, Any], bytes, list[Problem]]:
    """Prune and check ``body`` by the TypedDict ``shape``: return what to send, as UTF-8 JSON too, and all problems.

    Null, ``""``, ``[]``, ``{}`` and what becomes empty are dropped at every depth, but nothing inside a free-form
    object (``dict[str, Any]``). ``limit`` is in bytes of JSON; None is for what isn't sent as it is, and so isn't
    encoded. Never raise.
    """
    if not isinstance(body, dict):
        return {}, b"", [(path, _not_an_object(body))]
    problems: list[Problem] = []
    node = _node(shape)
    try:
        value = _pruned_object(body, node, path, problems)
        _finish_object(value, node, path, problems)
        encoded = b"" if limit is None else _encoded(value, path, problems)
    except RecursionError:
        return {}, b"", [(path, "is nested too deeply: use fewer levels")]
    if limit is not None and len(encoded) > limit:
        size = f"has {len(encoded):,} bytes as JSON, at most {limit:,} are allowed"
        problems.append((path, f"{size}: shorten the longest fields, or attach the text as a file"))
    return value, encoded, problems


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def to_json(value: dict[str, Any]) -> bytes:
    """Encode what may be sent as UTF-8 JSON. Raise TypeError or ValueError for what JSON can't carry."""
    # Half a surrogate pair has no UTF-8; as an escape it is valid JSON, which JSON.stringify sends too.
    return _json(value).encode("utf-8", "backslashreplace")


def _encoded(value: dict[str, Any], path: str, problems: list[Problem]) -> bytes:
    """Encode a body, noting what JSON can't carry; then the bytes are good for their number only."""
    try:
        return to_json(value)
    except (TypeError, ValueError):
        told = {where for where, _ in problems}
        problems += [each for each in _not_json(value, path) if each[0] not in told]
        if not problems:
            problems.append((path, "can't be written as JSON"))
        with suppress(ValueError):
            return json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode("utf-8", "backslashreplace")
        return b""


def _pruned(value: Any, node: Node | None, path: str, problems: list[Problem]) -> Any:
    """Return what is left of an object or a list, noting what is wrong with it; what is empty is right."""
    left: Any = value
    if isinstance(value, list):
        left = _pruned_list(value, node and node.item, path, problems)
    elif not (node and node.free_form):
        left = _pruned_object(value, node, path, problems)
        if left and node and node.shape:
            _finish_object(left, node, path, problems)
            return left
    if left and node and (wrong := _wrong(left, node)):
        problems.append((path, wrong))
    return left


def _pruned_object(value: dict[Any, Any], node: Node | None, path: str, problems: list[Problem]) -> dict[str, Any]:
    fields = node.fields if node else {}
    kept = {}
    for name, each in value.items():
        inner = fields.get(name)
        if inner and inner.tidy:
            each = inner.tidy(each)
        if isinstance(each, (dict, list)):
            if left := _pruned(each, inner, f"{path}.{name if inner else _shown(name)}", problems):
                kept[name] = left
        elif each or each == 0:  # False and 0 are answers, the rest is what a form leaves untouched
            kept[name] = each
            if inner and type(each) not in inner.unchecked_types and (wrong := _wrong(each, inner)):
                problems.append((f"{path}.{name}", wrong))
    return kept


def _pruned_list(value: list[Any], item: Node | None, path: str, problems: list[Problem]) -> list[Any]:
    kept = []
    for index, each in enumerate(value):
        if item and item.tidy:
            each = item.tidy(each)
        if isinstance(each, (dict, list)):
            if left := _pruned(each, item, f"{path}[{index}]", problems):
                kept.append(left)
        elif each or each == 0:
            kept.append(each)
            if item and (wrong := _wrong(each, item)):
                problems.append((f"{path}[{index}]", wrong))
    return kept


def _finish_object(value: dict[str, Any], node: Node, path: str, problems: list[Problem]) -> None:
    """Note what is wrong with an object as a whole, once its fields are pruned."""
    if node.closed and not value.keys() <= node.fields.keys():
        problems += [_unknown(name, node.fields, path) for name in value if name not in node.fields]
    if not node.required <= value.keys():
        problems += [(f"{path}.{name}", "is missing") for name in node.fields if name in node.required - value.keys()]
    for rule in node.rules:
        if wrong := rule(value):
            problems.append((path, wrong))


def _wrong(value: Any, node: Node) -> str | None:
    """Return what is wrong with the type or the limits of a value, without quoting it, or None."""
    kind = _KINDS.get(type(value))
    if kind != node.kind:
        if node.alternative and kind == node.alternative.kind:
            return _wrong(value, node.alternative)
        wanted = f"{node.kind} or {node.alternative.kind}" if node.alternative else node.kind
        return f"must be {wanted}, not {kind or type(value).__name__}"
    if node.options and value not in node.options:
        guess = _nearest(value, node.options)
        return f"must be one of {', '.join(node.options)}{guess and f': did you mean {guess!r}?'}"
    for rule in node.rules:
        if wrong := rule(value):
            return wrong
    return None


def _unknown(name: Any, fields: dict[str, Node], path: str) -> Problem:
    """Say which known name is likely meant: a listed mistake, another spelling, or the nearest."""
    plain = str(name).lower().replace("_", "")
    spelled = {known.lower().replace("_", ""): known for known in fields}
    meant = next((known for known, node in fields.items() if plain in node.mistaken_names), None)
    guess = spelled.get(plain) or meant or spelled.get(_nearest(plain, spelled))
    hint = f"did you mean {guess!r}?" if guess else f"known are {', '.join(fields)}"
    return f"{path}.{_shown(name)}", f"is not a known field: {hint}"


def _nearest(value: str, known: Iterable[str]) -> str:
    """Return the most alike of ``known``, else one that ``value`` begins with, else nothing."""
    from difflib import get_close_matches  # only a mistake pays for it

    begins = [each for each in known if value.lower().startswith(each)]
    return next(iter([*get_close_matches(value.lower(), list(known), 1), *begins]), "")


def _not_json(value: Any, path: str) -> Iterator[Problem]:
    """Find what JSON can't carry, also inside free-form objects."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _not_json(each, f"{path}.{_shown(name)}")
            if not isinstance(name, str):
                yield f"{path}.{_shown(name)}", f"must have text for a name, not {type(name).__name__}"
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _not_json(each, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, "must be a finite number"
    elif value is not None and type(value) not in _KINDS:
        yield path, f"must be JSON, not {type(value).__name__}"


def _not_an_object(value: object) -> str:
    if value is None:
        return "is missing"
    if isinstance(value, str) and value.startswith(("$res:", "$var:")):
        return "is a reference that Windmill did not resolve: check that it exists and that you may read it"
    return f"must be an object, not {_KINDS.get(type(value), type(value).__name__)}"


def _shown(name: object) -> str:
    """Render a key from outside; one that looks like a text or a secret rather than a name isn't shown."""
    return name if isinstance(name, str) and re.fullmatch(r"[\w-]{1,40}", name) else "(an odd name)"


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
    value, _, problems = check(auth, kustomer, "auth", limit=None)
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
