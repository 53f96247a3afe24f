"""The check of a body against Kustomer's published schema, an independent copy of it, on many generated bodies."""

import copy
import ipaddress
import json
import re
from datetime import datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from jsonschema import Draft202012Validator

from f.kustomer.create_message import Message
from f.kustomer.shared.inputs import MAX_BODY_BYTES, check, connection, to_json
from tests.standin.refusals import MESSAGE

Json = Any
Place = tuple[str | int, ...]

# Hypothesis keeps tables of its own, which have no place in a checkout.
set_hypothesis_home_dir(Path(gettempdir(), "hypothesis"))
# The same bodies in every run, and nothing kept between runs.
PROVE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# An organisation names its attributes and their types itself, so these are Kustomer's to check.
_SCHEMA: Json = copy.deepcopy(MESSAGE.schema)
del _SCHEMA["properties"]["custom"]["patternProperties"]
PUBLISHED = Draft202012Validator(_SCHEMA, format_checker=MESSAGE.format_checker)

# Whose insides are data.
FREE: tuple[Place, ...] = (("meta",), ("custom",), ("error", "source"), ("error", "meta"), ("error", "links"))


def pruned(value: Json, at: Place = ()) -> Json:
    """What the form is promised: all that is empty, or becomes so, is left out."""
    if at == ("externalId",) and isinstance(value, str):
        # What a header has around an id, and its folds, are not of it.
        return re.sub(r"\r?\n(?=[ \t])", "", value.strip()) or value
    if isinstance(value, dict) and at not in FREE:
        parts = {name: pruned(each, (*at, name)) for name, each in value.items()}
        return {name: each for name, each in parts.items() if not is_empty(each)}
    if isinstance(value, list):
        return [each for each in (pruned(each, (*at, 0)) for each in value) if not is_empty(each)]
    return value


def is_empty(value: Json) -> bool:
    """What a form submits for a field that nobody touched."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def size_of(body: Json) -> int:
    """The bytes of the body's JSON in UTF-8, in which half a surrogate pair takes the six of an escape."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return len(re.sub("[\ud800-\udfff]", "_" * 6, text).encode())


def faults(body: Json) -> set[str]:
    """The fields at the top of a pruned body that the published schema refuses, or our narrowing of it."""
    found = set()
    for error in PUBLISHED.iter_errors(body):
        if error.absolute_path:
            found.add(str(error.absolute_path[0]))
        elif error.validator == "required":
            found |= {name for name in _SCHEMA["required"] if name not in body}
        else:
            found |= {name for name in body if name not in _SCHEMA["properties"]}
    place = body.get("location")
    code = place.get("countryCode") if isinstance(place, dict) else None
    if isinstance(code, str) and not re.fullmatch("[A-Za-z]{2}", code):
        found.add("location")
    external_id = body.get("externalId")
    if isinstance(external_id, str) and external_id and not is_an_id(external_id):
        found.add("externalId")
    return found


def is_an_id(text: str) -> bool:
    """Whether a text can be looked for, and is not what a program writes for nothing (the short words of those)."""
    seen = any(each.isprintable() and not each.isspace() for each in text)
    nothing = {"na", "n/a", "n.a.", "nan", "nat", "nil", "#na", "#nv", "null", "none", "\\n"}
    plain = text.strip(" <>()[]{}'\"").lower()
    number = re.fullmatch(r"\d+([.,]\d+)?e\+\d+|\d{3,}\.0+", plain)
    template = re.search(r"\{\{[^{}]*}}|\${[^{}]*}|<%.*%>|\{%.*%}|^[0-]{24,}$", text)
    empty = re.fullmatch(r"[\s\u2010-\u2015\u2800<>()\[\]{}'\"-]*", text) or re.search("[\0\ud800-\udfff]", text)
    return seen and plain not in nothing and not (number or template or empty)


# Bodies

# Any code point: astral ones, controls, and the halves of surrogate pairs.
CHARACTERS = st.characters(exclude_categories=()) | st.sampled_from("é€😀\ud83d\ude00\0\n\u2028\"\\ '")


def text(limit: int | None = None, least: int = 1) -> st.SearchStrategy[str]:
    """Text of up to so many characters, often of exactly so many."""
    short = st.text(CHARACTERS, min_size=least, max_size=min(limit or 40, 40))
    if limit is None:
        return short
    return short | st.builds(lambda one, less: one * (limit - less), CHARACTERS, st.sampled_from([0, 0, 1]))


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.sampled_from([0, -0.0, 1, 0.1, 1e300, 2**70]) | st.integers() | FLOATS
LEAVES = st.none() | st.booleans() | NUMBERS | text(least=0)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text(least=0), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(text(least=0), JSON, max_size=4)
IDS = st.text("0123456789abcdefABCDEF", min_size=24, max_size=24)
DATE_TIMES = st.builds(
    "{:%Y-%m-%dT%H:%M:%S}{}{}".format,
    st.datetimes(min_value=datetime(1000, 1, 1)),
    st.sampled_from(["", ".0", ".702", ".123456", ".123456789"]),
    st.sampled_from(["Z", "+00:00", "-00:00", "+05:45", "-12:00", "+23:59", "-23:59"]),
)
# RFC 3339 allows small letters.
DATE_TIMES |= DATE_TIMES.map(str.lower)
HUNDRED = st.just(dict.fromkeys(map(str, range(100)), ""))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """An object with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


FILES = st.fixed_dictionaries(
    {"_id": IDS, "name": text(), "contentType": text(), "contentLength": NUMBERS}, optional={"sourceId": IDS}
)
PLACES = some(
    name=text(),
    address=text(256),
    address2=text(256),
    address3=text(256),
    latitude=NUMBERS,
    longitude=NUMBERS,
    countryCode=st.from_regex("[A-Za-z]{2}", fullmatch=True),
    countryName=text(64),
    regionCode=text(2),
    regionName=text(128),
    cityName=text(128),
    zipCode=text(30),
    areaCode=text(30),
)
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "id": IDS,
    "externalId": text(256).map(lambda name: re.sub("[\0\ud800-\udfff]", "_", name)).filter(is_an_id),
    "customer": IDS,
    "conversation": IDS,
    "reference": st.fixed_dictionaries({"message": IDS, "type": st.sampled_from(["reply", "replyAll", "forward"])}),
    "preview": text(10_240),
    "subject": text(256),
    "size": NUMBERS,
    "related": text(),
    "status": st.sampled_from(["sent", "received", "error"]),
    "error": some(
        status=NUMBERS, code=text(), title=text(), detail=text(), source=OBJECTS, meta=OBJECTS, links=OBJECTS
    ),
    "errorAt": DATE_TIMES,
    "auto": st.booleans(),
    "sentAt": DATE_TIMES,
    "source": st.sampled_from(["bulk", "satisfaction"]),
    "shortcuts": st.lists(IDS | st.just("0" * 24), max_size=4),
    "kbArticles": st.lists(IDS, max_size=4),
    "attachments": st.lists(IDS, unique=True, max_size=4) | st.lists(FILES, unique_by=lambda f: f["_id"], max_size=3),
    "location": PLACES | st.builds(lambda known, more: {**more, **known}, PLACES, OBJECTS),
    "meta": OBJECTS | HUNDRED,
    "custom": OBJECTS | HUNDRED,
    "sentiment": st.fixed_dictionaries(
        {
            "polarity": st.sampled_from([-1, 0, 1, 1.0, -0.0]),
            "confidence": st.sampled_from([-1, 0, 1]) | st.floats(-1, 1),
        }
    ),
    "createdAt": DATE_TIMES,
    "modifiedAt": DATE_TIMES,
    "createdBy": IDS,
    "modifiedBy": IDS,
    "importedAt": DATE_TIMES,
    "lang": st.none() | text(100),
    "queue": st.fixed_dictionaries({"id": IDS}, optional={"external": st.just("amazon-connect")})
    | st.just({"external": "amazon-connect"}),
}
REQUIRED: dict[str, st.SearchStrategy[Any]] = {
    "channel": st.sampled_from(_SCHEMA["properties"]["channel"]["enum"]),
    "app": text(),
    "direction": st.sampled_from(["in", "out"]),
}
EMPTIES: st.SearchStrategy[Json] = st.sampled_from([None, "", [], {}, [""], {"a": None}, [{"a": [{}]}]])
BODIES = st.builds(
    lambda required, optional, empty: {**empty, **optional, **required},
    st.fixed_dictionaries(REQUIRED),
    some(**OPTIONAL),
    st.dictionaries(st.sampled_from(sorted(OPTIONAL)), EMPTIES, max_size=3),
)

# Wrong more often than not, and near to right.
ODD = st.one_of(
    LEAVES,
    EMPTIES,
    OBJECTS,
    st.lists(LEAVES, max_size=3),
    IDS,
    DATE_TIMES,
    st.sampled_from([-1, 0, 1, 2, 0.5, -1.01, True, False, "1", "in", "IN", "reply", "D1", "É1", "x" * 24, "0" * 25]),
    st.sampled_from(
        [
            "2026-01-31",
            "2026-01-31T09:30:00",
            "2026-02-30T09:30:00Z",
            "2026-01-31 09:30:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T09:30:00+24:00",
            "2026-01-31T09:30:00+10:60",
            "2026-01-31t09:30:00z",
        ]
    ),
    st.sampled_from([3, 31, 65, 101, 129, 257, 10_241]).map("x".__mul__),
    st.sampled_from([101, 200]).map(lambda many: dict.fromkeys(map(str, range(many)), 1)),
)
NAMES = st.sampled_from(["body", "text", "id", "_id", "status", "name", "type", "extra", "", "a b"]) | text(least=0)


def test_the_generated_bodies_have_every_published_field() -> None:
    """A field that Kustomer adds to its schema is missing here by name."""
    assert set(REQUIRED) | set(OPTIONAL) == set(_SCHEMA["properties"])
    assert set(REQUIRED) == set(_SCHEMA["required"])


@pytest.mark.parametrize(
    ("field", "inner"),
    [("channel", ""), ("direction", ""), ("status", ""), ("source", ""), ("reference", "type"), ("queue", "external")],
)
def test_an_enumeration_names_the_published_values_and_no_others(field: str, inner: str) -> None:
    """What is refused says what would be right, and that is all that Kustomer publishes."""
    published = _SCHEMA["properties"][field]
    values = (published["properties"][inner] if inner else published)["enum"]
    problems = dict(check({field: {inner: "zzz"} if inner else "zzz"}, Message)[1])
    assert problems[f"body.{field}{inner and f'.{inner}'}"] == f"must be one of {', '.join(values)}"


@PROVE
@given(BODIES)
def test_whatever_the_published_schema_accepts_is_accepted_and_sent_as_it_is(body: Json) -> None:
    """All that is dropped is what is empty, and only the size may be a problem."""
    before = copy.deepcopy(body)
    left = pruned(body)
    value, problems = check(body, Message)
    assert faults(left) == set()
    assert {path for path, _ in problems} == ({"body"} if size_of(left) > MAX_BODY_BYTES else set())
    assert value == left
    encoded = to_json(value)
    assert len(encoded) == size_of(left)
    # By way of JSON's own escapes: two halves of a surrogate pair that meet are one character.
    assert json.dumps(json.loads(encoded)) == json.dumps(json.loads(json.dumps(left)))
    assert json.dumps(body) == json.dumps(before)


def places(value: Json, at: Place = ()) -> list[Place]:
    """The paths of all values of a body, itself included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for name, each in inner for path in places(each, (*at, name)))]


@st.composite
def mutated(draw: st.DrawFn) -> Json:
    """A right body in which up to three places were replaced, removed, added to or drawn out."""
    body = copy.deepcopy(draw(BODIES))
    for _ in range(draw(st.integers(1, 3))):
        # By the field first, so that a long list draws no more mistakes than a short text.
        field = draw(st.sampled_from(sorted(body)))
        *path, last = draw(st.sampled_from([(field, *inner) for inner in places(body[field])]))
        holder = body
        for name in path:
            holder = holder[name]
        target = holder[last]
        kind = draw(st.sampled_from(["replace", "remove", "add", "draw out", "retype"]))
        if kind == "remove" and len(body) > 1:
            del holder[last]
        elif kind == "add":
            into = target if isinstance(target, dict) else holder if isinstance(holder, dict) else body
            into[draw(NAMES)] = draw(ODD)
        elif kind == "draw out" and isinstance(target, str):
            holder[last] = target + target[-1:] * draw(st.sampled_from([1, 2, 100_000]))
        elif kind == "draw out" and isinstance(target, list):
            holder[last] = target + target[-1:]
        elif kind == "retype":
            holder[last] = draw(st.sampled_from([[target], {"id": target}, str(target), {"a": ""}]))
        else:
            holder[last] = draw(ODD)
    return body


@settings(PROVE, max_examples=500)
@given(mutated())
def test_a_body_is_refused_just_where_the_published_schema_refuses_it(body: Json) -> None:
    """The same fields are at fault for both, all of them, and besides them only the size."""
    left = pruned(body)
    value, problems = check(body, Message)
    told = {path for path, _ in problems}
    wrong = faults(left)
    event(f"{len(wrong)} fields wrong")
    assert value == left
    assert ("body" in told) == (size_of(left) > MAX_BODY_BYTES)
    known = {match[1] for path in told if (match := re.match(r"body\.(\w+)", path)) and match[1] in OPTIONAL | REQUIRED}
    assert known == wrong & set(OPTIONAL | REQUIRED)
    assert bool(told - {"body"}) == bool(wrong)


# Anything at all

LOOSE = st.recursive(
    LEAVES | st.floats() | ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def verdict(problems: list[tuple[str, str]]) -> bool:
    """Whether all is right; problems must be one printable line each, under the path of what was checked."""
    for path, what in problems:
        assert re.match(r"(body|auth)([.\[]|$)", path)
        assert what
        assert f"{path} {what}".isprintable()
    return not problems


@PROVE
@given(LOOSE | st.dictionaries(st.sampled_from(sorted(OPTIONAL | REQUIRED)), LOOSE) | BODIES.map(lambda body: [body]))
def test_any_json_at_all_gets_a_verdict(body: Json) -> None:
    """The check raises nothing, and passes nothing that isn't JSON or that Kustomer refuses."""
    value, problems = check(body, Message)
    if verdict(problems):
        assert faults(json.loads(to_json(value), parse_constant=lambda name: 1 / 0)) == set()


HOSTS = ["localhost", "127.0.0.1", "127.", "[::1]", "evil.example", "acme", ".api", ".kustomerapp.com"]
SIGNS = [
    "https://",
    "http://",
    "//",
    "/",
    "@",
    ":",
    "8080",
    "/v1",
    "?",
    "#",
    "\\",
    "%",
    ".",
    "-",
    " ",
    "\n",
    "é",
    "\u212a",
]
SPELLED = st.lists(st.sampled_from(HOSTS + SIGNS), max_size=5).map("".join)
ADDRESSES = st.builds("{}{}{}".format, st.sampled_from(["https://", "http://"]), st.sampled_from(HOSTS), SPELLED)
KEYS = st.sampled_from(["eyJ.k", "Bearer eyJ.k", "$var:u/ada/key"]) | text(least=0)
RESOURCES = st.fixed_dictionaries({"apiKey": st.just("eyJ.k")}, optional={"orgName": SPELLED, "baseUrl": ADDRESSES})
ANY_RESOURCES = some(apiKey=KEYS | LOOSE, orgName=SPELLED | LOOSE, baseUrl=SPELLED | LOOSE, extra=LOOSE)


@PROVE
@given(ANY_RESOURCES | LOOSE)
def test_any_json_at_all_in_place_of_the_resource_gets_a_verdict(auth: Json) -> None:
    """The check raises nothing, and passes no key that a header can't carry."""
    to, problems = connection(auth)
    if verdict(problems):
        assert re.fullmatch("[!-~]+", to.key)


@settings(PROVE, max_examples=600)
@given(RESOURCES)
def test_no_resource_sends_the_key_in_clear_text_or_to_a_host_it_does_not_name(auth: Json) -> None:
    """Two readers of the address that comes out agree on its host, which is Kustomer's or the one that is given."""
    to, problems = connection(auth)
    if not verdict(problems):
        return
    parts = urlsplit(to.base)
    host = parts.hostname or ""
    event(f"{parts.scheme} with {' and '.join(sorted(auth))}")
    assert parts.username is None
    assert parts.query == parts.fragment == ""
    assert not to.base.endswith("/")
    assert parts.scheme == "https" or host == "localhost" or ipaddress.ip_address(host).is_loopback
    if not auth.get("baseUrl"):
        assert re.fullmatch(r"(.+\.)?api\.kustomerapp\.com", host)
    elif "evil" not in auth["baseUrl"]:
        assert "evil" not in host
    else:
        assert auth["baseUrl"].strip().lower().startswith(f"{parts.scheme}://")
