"""A body is checked before anything is sent: every problem at once, each with its path, none with its value."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from f.kustomer.create_message import Message
from f.kustomer.shared.errors import InvalidInput, KustomerError
from f.kustomer.shared.inputs import MAX_BODY_BYTES
from tests.conftest import Body, Step
from tests.standin.kustomer import Kustomer

ID = "65a1b2c3d4e5f60718293a4b"
OTHER_ID = "65A1B2C3D4E5F60718293A4C"
FILE: Body = {"_id": ID, "name": "invoice.pdf", "contentType": "application/pdf", "contentLength": 48213}
AT = "2026-01-31T09:30:00.000Z"
# One right value for every field that the form doesn't require.
OPTIONAL: Body = {
    "id": ID,
    "externalId": "<CAF1042@mail.acme.example>",
    "customer": ID,
    "conversation": ID,
    "reference": {"message": ID, "type": "replyAll"},
    "preview": "Hello, where is my order 1042?",
    "subject": "Order 1042",
    "size": 20480,
    "related": "case-77",
    "status": "error",
    "error": {
        "status": 550,
        "code": "invalid-recipient",
        "title": "Mailbox not found",
        "detail": "Nobody lives there.",
        "source": {"parameter": "to"},
        "meta": {"try": 2},
        "links": {"about": None},
    },
    "errorAt": AT,
    "auto": True,
    "sentAt": AT,
    "source": "bulk",
    "shortcuts": [ID, OTHER_ID],
    "kbArticles": [ID],
    "attachments": [{**FILE, "sourceId": OTHER_ID}],
    "location": {
        "name": "Berlin store",
        "address": "Torstr. 1",
        "address2": "Building B",
        "address3": "3rd floor",
        "latitude": 52.53,
        "longitude": 13.4,
        "countryCode": "DE",
        "countryName": "Germany",
        "regionCode": "BE",
        "regionName": "Brandenburg",
        "cityName": "Berlin",
        "zipCode": "10115",
        "areaCode": "030",
    },
    "meta": {"from": "ada@example.com", "to": [{"email": "help@acme.example"}]},
    "custom": {"orderNumberStr": "1042", "oldNum": None},
    "sentiment": {"polarity": -1, "confidence": 0.8},
    "createdAt": AT,
    "modifiedAt": AT,
    "createdBy": ID,
    "modifiedBy": ID,
    "importedAt": AT,
    "lang": "en_us",
    "queue": {"id": ID, "external": "amazon-connect"},
}
Refused = dict[str | None, str | None]


def refused(error: KustomerError) -> Refused:
    """What is wrong at which path; the test fails for anything but a refusal before sending."""
    assert isinstance(error, InvalidInput)
    assert (error.outcome, error.retryable, error.attempts, error.status) == ("not_sent", False, 0, None)
    assert (error.retry_after, error.request_id) == (None, None)
    assert all(set(each) == {"code", "title", "detail", "path"} for each in error.errors)
    assert all(f"{each['path']} {each['title']}" in str(error) for each in error.errors)
    assert str(error).isprintable()
    return {each["path"]: each["title"] for each in error.errors}


def nested(path: str, value: object) -> Body:
    """A body's part that has ``value`` at a dotted path, in which a number is a place in a list."""
    for name in reversed(path.split(".")):
        value = [FILE] * int(name) + [value] if name.isdigit() else {name: value}
    return value  # type: ignore[return-value]


def at(path: str, value: object) -> Body:
    """Like ``nested``, with right values beside it where the objects require some."""
    name, _, rest = path.partition(".")
    if rest and name in ("reference", "sentiment"):
        return {name: {**OPTIONAL[name], rest: value}}
    if name == "attachments" and rest.startswith("0."):
        return {name: [{**FILE, rest.removeprefix("0."): value}]}
    return nested(path, value)


def shown(path: str) -> str:
    """How an error writes a path: places in lists in brackets."""
    return "".join(f"[{name}]" if name.isdigit() else f".{name}" for name in f"body.{path}".split("."))[1:]


def size_of(body: object) -> int:
    """The bytes of a body's JSON in UTF-8."""
    return len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


# What is right


def test_every_published_field_is_accepted_and_sent(run: Step, message: Body, kustomer: Kustomer) -> None:
    """No field of Kustomer's schema is unknown here, and none is changed on the way."""
    assert set(OPTIONAL) | set(message) == set(Message.__annotations__)
    body = {**OPTIONAL, **message}
    assert run(body, apiKey=kustomer.keys["admin"]).id
    assert json.loads(kustomer.posts[-1].body) == body


def test_the_three_required_fields_are_enough(run: Step) -> None:
    """Whatever else a message needs is Kustomer's to say."""
    assert run({"channel": "voice", "app": "a", "direction": "out"}).id


@pytest.mark.parametrize("text", ["é", "😀", "\ud83d", "\ude00 \ud83d", "\0\x1f\x7f\u2028", "\\\ud800\\u0041", '"\\"'])
def test_any_text_arrives_as_it_was(run: Step, message: Body, kustomer: Kustomer, text: str) -> None:
    """Half a surrogate pair too: a text that was cut in the middle of an emoji has one."""
    body = message | {"preview": text, "meta": {text: [text]}, "location": {text: text}, "subject": text}
    assert run(body).id
    assert json.loads(kustomer.posts[-1].body) == body


def test_half_a_character_is_refused_in_an_external_id(run: Step, message: Body) -> None:
    """No look-up could ask for it, and so the message would be recorded with each run: narrower than published."""
    assert "half of a character" in str(run(message | {"externalId": "order-\ud83d"}).failed)


def test_a_location_takes_fields_of_its_own(run: Step, message: Body, kustomer: Kustomer) -> None:
    """The published schema leaves this one object open."""
    body = message | {"location": {"floor": 3, "city": "Berlin", "body": {"any": [1, "thing"]}}}
    assert run(body).id
    assert json.loads(kustomer.posts[-1].body) == body


# What is missing


@pytest.mark.parametrize("name", ["channel", "app", "direction"])
def test_a_missing_required_field_is_refused(run: Step, message: Body, name: str) -> None:
    """These three are all that Kustomer requires."""
    del message[name]
    assert refused(run(message).failed) == {f"body.{name}": "is missing"}


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        ({"reference": {"type": "reply"}}, ["body.reference.message"]),
        ({"reference": {"message": ID}}, ["body.reference.type"]),
        ({"sentiment": {"polarity": 0}}, ["body.sentiment.confidence"]),
        ({"sentiment": {"confidence": 0}}, ["body.sentiment.polarity"]),
        (
            {"attachments": [FILE, {"sourceId": ID}]},
            [f"body.attachments[1].{name}" for name in ("_id", "contentLength", "contentType", "name")],
        ),
    ],
    ids=str,
)
def test_a_missing_field_of_an_inner_object_is_refused(
    run: Step, message: Body, part: Body, missing: list[str]
) -> None:
    """Each is told at its own place."""
    assert refused(run(message | part).failed) == dict.fromkeys(missing, "is missing")


def test_a_queue_needs_an_id_or_a_name(run: Step, message: Body) -> None:
    """Either will do, both will do, neither won't."""
    assert run(message | {"queue": {"id": ID}}).id
    assert run(message | {"queue": {"external": "amazon-connect"}}).id
    assert "body.queue" in refused(run(message | {"queue": {"name": "first"}}).failed)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (None, "is missing"),
        ("$res:f/kustomer/body", "did not resolve"),
        ("$var:f/kustomer/body", "did not resolve"),
        ("", "must be an object"),
        ("Where is my order?", "must be an object"),
        ('{"channel": "email"}', "must be an object"),
        ([], "must be an object"),
        ([{"channel": "email"}], "must be an object"),
        (0, "must be an object"),
        (1.5, "must be an object"),
        (math.nan, "must be an object"),
        (True, "must be an object"),
        (False, "must be an object"),
    ],
    ids=repr,
)
def test_a_body_that_is_not_an_object_is_refused(run: Step, kustomer: Kustomer, body: object, what: str) -> None:
    """Missing, unresolved or of another type: one problem, at body."""
    problems = refused(run(body).failed)
    assert list(problems) == ["body"]
    assert what in str(problems["body"])
    assert kustomer.requests == []


# Types

TEXT, NUMBER, SWITCH, LIST, OBJECT = "text", 1.5, True, ["text"], {"inner": "text"}
TYPED = {
    "text": (
        ["preview", "subject", "externalId", "related", "lang", "app", "channel", "direction", "status", "source"]
        + ["sentAt", "errorAt", "createdAt", "modifiedAt", "importedAt", "id", "customer", "conversation"]
        + ["createdBy", "modifiedBy", "reference.message", "reference.type", "queue.id", "queue.external"]
        + ["error.code", "error.title", "error.detail", "shortcuts.0", "kbArticles.0", "location.name"]
        + ["attachments.0._id", "attachments.0.name", "attachments.0.contentType", "attachments.0.sourceId"]
        + [f"location.{name}" for name, value in OPTIONAL["location"].items() if isinstance(value, str)],
        [0, NUMBER, False, SWITCH, LIST, OBJECT],
    ),
    "a number": (
        [
            "size",
            "error.status",
            "location.latitude",
            "location.longitude",
            "attachments.0.contentLength",
            "sentiment.polarity",
            "sentiment.confidence",
        ],
        [TEXT, "1", False, SWITCH, LIST, OBJECT],
    ),
    "true or false": (["auto"], [TEXT, "true", 0, 1, LIST, OBJECT]),
    "a list": (["shortcuts", "kbArticles", "attachments"], [TEXT, ID, 0, SWITCH, OBJECT]),
    "an object": (
        [
            "reference",
            "error",
            "location",
            "meta",
            "custom",
            "sentiment",
            "queue",
            "error.source",
            "error.meta",
            "error.links",
        ],
        [TEXT, "{}", 0, NUMBER, False, LIST],
    ),
}


@pytest.mark.parametrize(
    ("path", "kind", "value"),
    [
        pytest.param(path, kind, value, id=f"{path}={value!r}")
        for kind, (paths, values) in TYPED.items()
        for path in paths
        for value in values
    ],
)
def test_a_value_of_the_wrong_type_is_refused(run: Step, message: Body, path: str, kind: str, value: object) -> None:
    """The error names the right type at the value's own path, and says nothing else."""
    problems = refused(run(message | at(path, value)).failed)
    assert list(problems) == [shown(path)]
    assert f"must be {kind}" in str(problems[shown(path)])


@pytest.mark.parametrize("value", [0, NUMBER, False, [ID]], ids=repr)
def test_an_attachment_that_is_neither_id_nor_object_is_refused(run: Step, message: Body, value: object) -> None:
    """A list of attachments holds ids or objects."""
    assert list(refused(run(message | {"attachments": [value]}).failed)) == ["body.attachments[0]"]


# Enumerations and unknown keys


@pytest.mark.parametrize(
    ("path", "value", "meant"),
    [
        ("channel", "Email", "email"),
        ("channel", "e-mail", "email"),
        ("channel", " email ", "email"),
        ("channel", "SMS", "sms"),
        ("channel", "twitter_dm", "twitter-dm"),
        ("channel", "WhatsApp", "whatsapp"),
        ("direction", "IN", "in"),
        ("direction", "inbound", "in"),
        ("direction", "incoming", "in"),
        ("direction", "outbound", "out"),
        ("direction", "outgoing", "out"),
        ("status", "recieved", "received"),
        ("status", "Sent", "sent"),
        ("source", "bulks", "bulk"),
        ("reference.type", "reply-all", "replyAll"),
        ("reference.type", "forwarded", "forward"),
        ("queue.external", "amazon_connect", "amazon-connect"),
    ],
)
def test_a_value_outside_an_enumeration_is_refused_with_the_nearest(
    run: Step, message: Body, path: str, value: str, meant: str
) -> None:
    """The guess is one of the right values, which are all named too."""
    problems = refused(run(message | at(path, value)).failed)
    assert list(problems) == [shown(path)]
    assert f"did you mean {meant!r}" in str(problems[shown(path)])


@pytest.mark.parametrize("value", ["zzz", "fax", "\ud800", "x" * 50_000, "\n"], ids=lambda value: ascii(value[:9]))
def test_a_value_that_is_like_none_gets_the_whole_enumeration(run: Step, message: Body, value: str) -> None:
    """No guess is better than a wild one."""
    title = str(refused(run(message | {"direction": value}).failed)["body.direction"])
    assert "in, out" in title
    assert "did you mean" not in title


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("body", "preview"),
        ("text", "preview"),
        ("html", "preview"),
        ("from", "meta"),
        ("threadId", "conversation"),
        ("attachments.0.mimeType", "contentType"),
        ("Body", "preview"),
        ("TEXT", "preview"),
        ("previw", "preview"),
        ("Preview", "preview"),
        ("external_id", "externalId"),
        ("externalID", "externalId"),
        ("conversationId", "conversation"),
        ("conversation_id", "conversation"),
        ("customerId", "customer"),
        ("customers", "customer"),
        ("sent_at", "sentAt"),
        ("chanel", "channel"),
        ("reference.mesage", "message"),
        ("error.details", "detail"),
        ("attachments.0.id", "_id"),
        ("attachments.0.content_type", "contentType"),
        ("sentiment.confidance", "confidence"),
        ("queue.externals", "external"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_likely_meant(run: Step, message: Body, path: str, meant: str) -> None:
    """At every depth at which the published schema is closed."""
    problems = refused(run(message | at(path, ID)).failed)
    assert f"did you mean {meant!r}" in str(problems[shown(path)])


@pytest.mark.parametrize("name", ["directionType", "rev", "redacted", "assignedUsers", "zzz", "{}", "$ref", "0", "é"])
def test_an_unknown_key_that_is_like_none_is_refused_all_the_same(run: Step, message: Body, name: str) -> None:
    """What a message has when read can't be given when it is made."""
    assert len(refused(run(message | {name: 1}).failed)) == 1


@pytest.mark.parametrize("name", ["a\nb", "a\r\nb", "\0", "\ud800", "\u202e", "\u2028", "x" * 10_000, "a b", "a.b[0]"])
def test_an_odd_key_can_not_break_the_error(run: Step, message: Body, name: str) -> None:
    """The error stays one printable line of bounded length, in any encoding's reach."""
    error = run(message | {name: 1, "error": {name: 1}, "location": {name: math.nan}}).failed
    assert len(refused(error)) == 3
    assert len(str(error).encode()) < 3_000


# Limits

LIMITS = {
    "externalId": 256,
    "preview": 10_240,
    "subject": 256,
    "lang": 100,
    "location.address": 256,
    "location.address2": 256,
    "location.address3": 256,
    "location.countryName": 64,
    "location.regionCode": 2,
    "location.regionName": 128,
    "location.cityName": 128,
    "location.zipCode": 30,
    "location.areaCode": 30,
}


@pytest.mark.parametrize("character", ["x", "é", "€", "😀", "\n", " "], ids=ascii)
@pytest.mark.parametrize(("path", "limit"), LIMITS.items())
def test_a_text_may_be_as_long_as_published_and_no_longer(
    run: Step, message: Body, path: str, limit: int, character: str
) -> None:
    """Limits of single texts count characters, whatever their bytes. An id has to have something to see."""
    first = "x" if path == "externalId" else ""
    assert run(message | nested(path, first + character * (limit - len(first)))).id
    problems = refused(run(message | nested(path, character * (limit + 1))).failed)
    assert list(problems) == [shown(path)]
    assert f"{limit:,}" in str(problems[shown(path)])


@pytest.mark.parametrize("path", ["app", "related", "error.detail", "location.name", "attachments.0.name"])
def test_a_text_without_a_published_limit_may_be_long(run: Step, message: Body, path: str) -> None:
    """A limit that nobody published would refuse what Kustomer takes."""
    assert run(message | at(path, "x" * 50_000)).id


@pytest.mark.parametrize("name", ["meta", "custom"])
def test_a_free_form_object_has_at_most_100_keys(run: Step, message: Body, name: str) -> None:
    """Empty values count, and keys further inside don't."""
    keys: Body = dict.fromkeys(map(str, range(99)), "") | {"inside": dict.fromkeys(map(str, range(300)), 1)}
    assert run(message | {name: keys}).id
    assert list(refused(run(message | {name: keys | {"more": None}}).failed)) == [f"body.{name}"]


@pytest.mark.parametrize("name", ["source", "meta", "links"])
def test_the_free_form_objects_of_an_error_have_no_limit_of_keys(run: Step, message: Body, name: str) -> None:
    """The published schema gives none."""
    assert run(message | {"error": {name: dict.fromkeys(map(str, range(101)), 1)}}).id


@pytest.mark.parametrize("filler", ["x", "é", "€", "😀", '"', "\n", "\ud800"], ids=ascii)
def test_the_encoded_body_may_have_100_000_bytes_and_no_more(
    run: Step, message: Body, kustomer: Kustomer, filler: str
) -> None:
    """Kustomer's limit is in bytes of UTF-8, escapes included, so 100,000 characters may be too many."""
    width = {"é": 2, "€": 3, "😀": 4, '"': 2, "\n": 2, "\ud800": 6}.get(filler, 1)
    room = MAX_BODY_BYTES - size_of(message | {"related": ""})
    full = message | {"related": filler * (room // width) + "x" * (room % width)}
    assert run(full).id
    assert len(kustomer.posts[-1].body) == MAX_BODY_BYTES == 100_000
    assert list(refused(run(full | {"related": full["related"] + "x"}).failed)) == ["body"]


def test_what_is_dropped_does_not_count_towards_the_size(run: Step, message: Body) -> None:
    """Only what would be sent is measured."""
    assert run(message | {"location": {f"unused{number}": "" for number in range(10_000)}}).id


# Formats

IDS = [
    "id",
    "customer",
    "conversation",
    "createdBy",
    "modifiedBy",
    "reference.message",
    "queue.id",
    "shortcuts.0",
    "kbArticles.0",
    "attachments.0._id",
    "attachments.0.sourceId",
]


@pytest.mark.parametrize("path", [*IDS, "attachments.0"])
def test_an_id_has_24_hex_characters(run: Step, message: Body, kustomer: Kustomer, path: str) -> None:
    """In small or capital letters, wherever the published schema wants an id."""
    for right in (ID, OTHER_ID, "0" * 24):
        kustomer.clear()
        assert run(message | at(path, right), apiKey=kustomer.keys["admin"]).id


@pytest.mark.parametrize(
    "wrong",
    [
        ID[1:],
        ID + "0",
        ID[1:] + "g",
        f" {ID}",
        f"{ID} ",
        f"{ID}\n",
        f"\n{ID[1:]}",
        f"{ID[1:]}\u0664",
        f"{ID[1:]}\uff11",
        "Ada Lindqvist",
        "b7d6e7a4-3c1f-4a55-9d7e-0d1f2a3b4c5d",
        f"$res:{ID}",
        f"https://acme.kustomerapp.com/{ID}",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("path", [*IDS, "attachments.0"])
def test_what_is_no_id_is_refused(run: Step, message: Body, path: str, wrong: str) -> None:
    """A name, a link or a pasted blank is told before Kustomer looks for it in vain."""
    assert list(refused(run(message | at(path, wrong)).failed)) == [shown(path)]


DATES = ["sentAt", "errorAt", "createdAt", "modifiedAt", "importedAt"]


@pytest.mark.parametrize(
    "right",
    [
        AT,
        "2026-01-31T09:30:00Z",
        "2026-01-31T09:30:00.1Z",
        "2026-01-31T09:30:00.123456789Z",
        "2026-01-31T09:30:00+00:00",
        "2026-01-31T09:30:00-00:00",
        "2026-01-31T09:30:00+05:45",
        "2026-01-31T09:30:00.5-12:00",
        "2026-01-31T09:30:00+23:59",
        "2024-02-29T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.999-12:00",
        "2026-01-31t09:30:00z",
        "2026-01-31T09:30:00z",
    ],
)
@pytest.mark.parametrize("name", DATES)
def test_a_date_time_of_the_published_format_is_accepted(
    run: Step, message: Body, kustomer: Kustomer, name: str, right: str
) -> None:
    """Any fraction, any zone, in the letters of either case that RFC 3339 allows."""
    assert run(message | {name: right}, apiKey=kustomer.keys["admin"]).id


@pytest.mark.parametrize(
    "wrong",
    [
        "2026-01-31",
        "09:30:00Z",
        "2026-01-31T09:30:00",
        "2026-01-31T09:30Z",
        "2026-01-31 09:30:00Z",
        "2026-01-31  09:30:00Z",
        "20260131T093000Z",
        "2026-W05-6T09:30:00Z",
        "2026-01-31T09:30:00+0100",
        "2026-01-31T09:30:00+01",
        "2026-01-31T09:30:00+10:75",
        "2026-01-31T09:30:00+24:00",
        "2026-01-31T09:30:00+01:00:00",
        "2026-01-31T09:30:00,5Z",
        "2026-01-31T09:30:00.Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T09:60:00Z",
        "2026-01-31T09:30:61Z",
        "2026-02-29T09:30:00Z",
        "2026-13-01T09:30:00Z",
        "2026-00-10T09:30:00Z",
        "2026-01-00T09:30:00Z",
        "0000-01-31T09:30:00Z",
        "12026-01-31T09:30:00Z",
        "-2026-01-31T09:30:00Z",
        "2026-1-31T9:30:00Z",
        f" {AT}",
        f"{AT}\n",
        f"{AT} ",
        "2026-01-31T09:30:00 Z",
        "2026-01-31T09:30:00 UTC",
        "\u0662\u0660\u0662\u0666-01-31T09:30:00Z",
        "1769851800",
        "now",
        "31.01.2026 09:30",
        "Sat, 31 Jan 2026 09:30:00 GMT",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("name", DATES)
def test_what_is_no_date_time_with_a_zone_is_refused(run: Step, message: Body, name: str, wrong: str) -> None:
    """A time without a zone would be somebody's guess, a day that isn't in the calendar Kustomer's."""
    assert list(refused(run(message | {name: wrong}).failed)) == [f"body.{name}"]


@pytest.mark.parametrize("right", ["DE", "de", "Us"])
def test_a_country_code_is_two_letters(run: Step, message: Body, right: str) -> None:
    """In either case."""
    assert run(message | {"location": {"countryCode": right}}).id


@pytest.mark.parametrize("wrong", ["D", "DEU", "D1", "49", "+4", " D", "DE ", "DE\n", "ÄÖ", "🇩🇪", "\uff24\uff25", "--"])
def test_a_country_code_of_anything_else_is_refused(run: Step, message: Body, wrong: str) -> None:
    """Kustomer's schema takes any two characters; those that are no letters are a mistake."""
    assert list(refused(run(message | {"location": {"countryCode": wrong}}).failed)) == ["body.location.countryCode"]


# Numbers


@pytest.mark.parametrize(
    ("polarity", "confidence"), [(-1, -1), (0, 0), (1, 1), (1.0, -1.0), (-1.0, 0.001), (0.0, 1.0), (-0.0, -0.0)]
)
def test_a_sentiment_within_its_bounds_is_accepted(
    run: Step, message: Body, polarity: float, confidence: float
) -> None:
    """Both ends are right."""
    assert run(message | {"sentiment": {"polarity": polarity, "confidence": confidence}}).id


@pytest.mark.parametrize(
    ("path", "wrong"),
    [("sentiment.confidence", each) for each in (1.0000001, -1.0000001, 2, -2, 80, 10**30, -(10**30), 1e300)]
    + [("sentiment.polarity", each) for each in (0.5, -0.999, 2, -2, 10**30, 1e300)],
)
def test_a_sentiment_out_of_bounds_is_refused(run: Step, message: Body, path: str, wrong: float) -> None:
    """A percentage is no confidence, and half a mood no polarity."""
    assert list(refused(run(message | at(path, wrong)).failed)) == [shown(path)]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "path",
    [
        "size",
        "error.status",
        "location.latitude",
        "location.altitude",
        "location.track.0.x",
        "sentiment.confidence",
        "sentiment.polarity",
        "attachments.0.contentLength",
        "meta.a",
        "meta.a.b.c",
        "meta.a.0",
        "custom.ratioNum",
        "error.source.x",
        "error.meta.x",
        "error.links.x",
        "preview",
        "auto",
        "shortcuts",
        "meta",
        "channel",
        "unknown",
    ],
)
def test_a_number_that_json_does_not_know_is_refused_wherever_it_is(
    run: Step, message: Body, path: str, number: float
) -> None:
    """Not a number, or infinite: at its own place and once, also inside free-form objects."""
    error = run(message | at(path, number)).failed
    assert list(refused(error)) == [shown(path)]
    assert len(error.errors) == 1


@pytest.mark.parametrize(
    "value",
    [b"bytes", {1, 2}, datetime(2026, 1, 31, tzinfo=UTC), Decimal("1.5"), object(), {(1, 2): "key"}],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("place", ["preview", "meta", "custom", "location", "unknown"])
def test_what_json_does_not_know_is_refused(run: Step, message: Body, place: str, value: object) -> None:
    """A script that calls the step may hand over any Python value."""
    part = {place: value} if place in ("preview", "unknown") else {place: {"inside": [value]}}
    assert refused(run(message | part).failed)


# Attachments


@pytest.mark.parametrize(
    "right",
    [[ID], [ID, OTHER_ID], [FILE], [FILE, {**FILE, "_id": OTHER_ID}], [FILE, {**FILE, "sourceId": ID}]],
    ids=str,
)
def test_attachments_are_ids_or_objects(run: Step, message: Body, right: list[Any]) -> None:
    """Either form will do, also for the same file under two names."""
    assert run(message | {"attachments": right}).id


@pytest.mark.parametrize(
    "wrong",
    [
        [ID, FILE],
        [FILE, ID],
        [FILE, {**FILE, "_id": OTHER_ID}, ID],
        [ID, ID],
        [ID, OTHER_ID, ID],
        [FILE, FILE],
        [FILE, dict(reversed(FILE.items()))],
        [FILE, {**FILE, "contentLength": 48213.0}],
        [FILE, {**FILE, "sourceId": ""}],
        [ID, None, "", ID],
    ],
    ids=str,
)
def test_mixed_or_repeated_attachments_are_refused(run: Step, message: Body, wrong: list[Any]) -> None:
    """Also what is the same only for JSON, or once its empty fields are gone."""
    assert list(refused(run(message | {"attachments": wrong}).failed)) == ["body.attachments"]


# All at once


def test_all_problems_come_in_one_error(run: Step, kustomer: Kustomer) -> None:
    """One problem hides no other, at whatever depth; not even a look-up leaves the worker."""
    error = run(
        {
            "channel": "fax",
            "body": "Hello",
            "externalId": "x" * 257,
            "conversation": "1042",
            "sentAt": "yesterday",
            "auto": "yes",
            "size": math.inf,
            "error": {"status": "550", "reason": "full", "meta": {"tries": [1, math.nan]}},
            "reference": {"message": "1", "kind": "reply"},
            "attachments": [ID, {"_id": "1", "id": ID, "name": 5}],
            "shortcuts": [ID, "2", 3],
            "location": {"countryCode": "D1", "cityName": "x" * 129, "depth": -math.inf},
            "sentiment": {"polarity": 0.5, "confidence": 2},
            "queue": {"name": "first"},
            "meta": dict.fromkeys(map(str, range(101)), math.nan),
        },
        orgName="evil.example",
    ).failed
    assert {f"body.meta.{number}" for number in range(101)} < set(refused(error))
    assert {path for path in refused(error) if not str(path).startswith("body.meta.")} == {
        "auth.orgName",
        "body.channel",
        "body.body",
        "body.externalId",
        "body.conversation",
        "body.sentAt",
        "body.auto",
        "body.size",
        "body.error.status",
        "body.error.reason",
        "body.error.meta.tries[1]",
        "body.reference.message",
        "body.reference.kind",
        "body.reference.type",
        "body.attachments",
        "body.attachments[1]._id",
        "body.attachments[1].id",
        "body.attachments[1].name",
        "body.attachments[1].contentType",
        "body.attachments[1].contentLength",
        "body.shortcuts[1]",
        "body.shortcuts[2]",
        "body.location.countryCode",
        "body.location.cityName",
        "body.location.depth",
        "body.sentiment.polarity",
        "body.sentiment.confidence",
        "body.queue",
        "body.queue.name",
        "body.meta",
        "body.direction",
        "body.app",
    }
    assert kustomer.requests == []


def test_a_body_that_is_too_large_has_its_other_problems_told_too(run: Step, message: Body) -> None:
    """The size is one problem among others, whatever they are."""
    large = message | {"related": "x" * MAX_BODY_BYTES, "text": "Hello"}
    assert set(refused(run(large).failed)) == {"body", "body.text"}


def test_nothing_is_asked_or_looked_up_for_a_wrong_body(run: Step, message: Body, kustomer: Kustomer) -> None:
    """An externalId, which would be looked for first, doesn't come that far."""
    assert refused(run(message | {"externalId": "acme-1", "size": "large"}).failed)
    assert kustomer.requests == []


@pytest.mark.parametrize("depth", [500, 980, 3_000])
@pytest.mark.parametrize("number", [1, math.nan], ids=repr)
@pytest.mark.parametrize("kind", ["objects", "lists"])
@pytest.mark.parametrize("place", ["meta", "location", "preview", "unknown"])
def test_no_depth_breaks_the_check(run: Step, message: Body, place: str, kind: str, number: float, depth: int) -> None:
    """However deep a body is nested, the step records it or refuses it, and raises nothing else."""
    deep: object = 1
    for _ in range(depth):
        deep = {"a": deep} if kind == "objects" else [deep]
    found = run(message | {place: {"first": number, "deep": deep}})
    assert found.stored or refused(found.failed)
    assert found.stored or (place, number, depth) != ("meta", 1, 500)


# What an error doesn't say

WORDS = "Zq9-Ada's words"
LONG = WORDS * 1_000


@pytest.mark.parametrize(
    "part",
    [
        {path.split(".")[0]: at(path, value)[path.split(".")[0]]}
        for path in [*IDS, *DATES, *LIMITS, "channel", "direction", "status", "reference.type", "queue.external"]
        for value in (LONG, [WORDS])
    ]
    + [at(path, WORDS) for path in ("size", "auto", "location.countryCode", "meta", "shortcuts", "attachments")]
    + [{"body": WORDS}, {"error": {"text": WORDS}}, {"attachments": [{"id": WORDS}, WORDS, WORDS]}]
    + [{"preview": {"text": WORDS}}, {"meta": {"a": [WORDS, math.nan]}}, {"related": LONG * 10}],
    ids=lambda part: next(iter(part)),
)
def test_an_error_never_quotes_a_value(
    run: Step, message: Body, capsys: pytest.CaptureFixture[str], part: Body
) -> None:
    """It might be the message's text: neither the error, nor its attributes, nor the job's log show it."""
    error = run(message | part).failed
    assert refused(error)
    log = capsys.readouterr()
    everything = f"{error!r} {error} {vars(error)} {log.out} {log.err}"
    assert "Zq9" not in everything
    assert "Ada" not in everything


@pytest.mark.parametrize("body", [WORDS, [WORDS], f"$res:{WORDS}"], ids=type)
def test_a_body_of_the_wrong_type_is_not_quoted(run: Step, capsys: pytest.CaptureFixture[str], body: object) -> None:
    """A text in place of the body likely is the message's."""
    error = run(body).failed
    assert refused(error)
    assert "Zq9" not in f"{error!r} {vars(error)} {capsys.readouterr()}"
