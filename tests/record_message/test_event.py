"""An event is checked as a whole before anything is sent, and becomes what the single steps take."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from f.kustomer.create_message import Message
from f.kustomer.find_conversation import Conversation
from f.kustomer.find_customer import Customer
from f.kustomer.record_message import (
    Event,
    check_event,
    conversation_of,
    customer_of,
    cut,
    file_places,
    message_of,
    texts_of,
)
from f.kustomer.shared.inputs import check
from f.kustomer.upload_attachment import File
from tests.conftest import Body

HELLO = base64.b64encode(b"Hello").decode()
LINK = "https://files.acme.example/invoice.pdf"
NEEDED: Body = {"channel": "email", "messageId": "<m1@x.example>", "email": "ada@x.example", "text": "Hello"}
FULL: Body = {
    **NEEDED,
    "threadId": "<t1@x.example>",
    "phone": "+49 30 1234567",
    "customerExternalId": "customer-1042",
    "name": "Ada Lindqvist",
    "subject": "Order 1042",
    "files": [LINK],
    "direction": "out",
    "sentAt": "2026-01-31T09:30:00Z",
    "app": "acme-inbox",
    "meta": {"from": "ada@x.example", "empty": ""},
    "custom": {"orderStr": "1042"},
    "lang": "en_us",
}


def checked(event: Body) -> Body:
    """The event that is left of one in which nothing is wrong."""
    found, problems = check_event(event)
    assert problems == []
    return found


def wrong(event: Any) -> dict[str, str]:
    """What is wrong with an event: path -> what."""
    return dict(check_event(event)[1])


# What counts as given


@pytest.mark.parametrize("empty", [None, "", [], {}], ids=repr)
def test_input_that_nobody_touched_counts_as_not_given(empty: object) -> None:
    """In any spelling of empty, so that the message is the same as without it."""
    optional = dict.fromkeys(Event.__annotations__.keys() - NEEDED.keys(), empty)
    assert checked({**optional, **NEEDED}) == checked(NEEDED) == NEEDED


@pytest.mark.parametrize("name", ["name", "app", "direction"])
def test_blank_text_counts_as_not_given_where_it_says_nothing(name: str) -> None:
    """A name of blanks is nobody's."""
    assert checked({**NEEDED, name: " \t"}) == NEEDED


NO_FILES: list[Any] = [
    "",
    None,
    {},
    [],
    [""],
    [None],
    [{}],
    [[]],
    ["  "],
    [{"s3": ""}],
    [{"file": {}}],
    [{"file": {"s3": None}}],
]
NAMED_ONLY: list[Body] = [
    {"content": None, "name": "a"},
    {"content": "", "name": "a.txt", "contentType": "text/plain"},
    {"s3": "", "filename": "a", "storage": "b"},
    {"file": {"s3": "", "filename": "a.pdf"}},
    {"externalUrl": " ", "name": "a"},
    {"name": 5},
]


@pytest.mark.parametrize("files", [*NO_FILES, *([each] for each in NAMED_ONLY)], ids=repr)
def test_what_is_no_file_does_not_keep_a_message_from_being_recorded(files: object) -> None:
    """Alone, and beside one that is."""
    assert checked({**NEEDED, "files": files}) == NEEDED
    beside = files if isinstance(files, list) else [files]
    assert checked({**NEEDED, "files": [*beside, LINK, *beside]})["files"] == [{"externalUrl": LINK}]


@pytest.mark.parametrize("item", NAMED_ONLY, ids=repr)
def test_item_that_is_left_out_is_known_by_its_place(item: Body) -> None:
    """So that a log can say so; what is wholly empty says nothing."""
    files = [LINK, None, item, "", {"s3": ""}, {"content": HELLO}]
    assert file_places({"files": files}) == (["files[0]", "files[5]"], ["files[2]"])
    assert file_places({"files": item}) == ([], ["files[0]"])
    assert file_places({}) == ([], [])


FILES: list[tuple[Any, Body]] = [
    (LINK, {"externalUrl": LINK}),
    ("s3:///inbox/a.pdf", {"file": {"s3": "inbox/a.pdf"}}),
    (" s3://archive/inbox/a.pdf\n", {"file": {"s3": "inbox/a.pdf", "storage": "archive"}}),
    ({"s3": "a"}, {"file": {"s3": "a"}}),
    (
        {"s3": "a", "storage": "b", "filename": "c", "presigned": "d", "name": "Order_225/2385.pdf"},
        {"file": {"s3": "a", "storage": "b", "filename": "c", "presigned": "d"}, "name": "Order_225/2385.pdf"},
    ),
    ({"s3": "a", "contentType": "a/b", "file": {}}, {"file": {"s3": "a"}, "contentType": "a/b"}),
    ({"file": {"s3": "a"}, "name": " "}, {"file": {"s3": "a"}}),
    ({"file": "s3:///inbox/a.pdf"}, {"file": {"s3": "inbox/a.pdf"}}),
    ({"content": HELLO, "name": "a/b.txt"}, {"content": HELLO, "name": "a/b.txt"}),
    ({"externalUrl": LINK, "content": "", "contentLength": 0}, {"externalUrl": LINK, "contentLength": 0}),
    ({"externalUrl": "", "content": HELLO, "s3": ""}, {"content": HELLO}),
]


@pytest.mark.parametrize(("item", "file"), FILES, ids=repr)
def test_file_becomes_what_upload_attachment_takes(item: Any, file: Body) -> None:
    """Alone and in a list, in order."""
    assert checked({**NEEDED, "files": item})["files"] == [file]
    assert checked({**NEEDED, "files": [LINK, item]})["files"] == [{"externalUrl": LINK}, file]
    assert check(file, File)[1] == []


X, Y = "https://a.example/x.pdf", "https://a.example/y.pdf"


@pytest.mark.parametrize("between", [",", ";", ", ", "; ", " ", "\n", "\r\n", " | ", ",\r\n"], ids=repr)
@pytest.mark.parametrize("after", ["", ",", ", ", ";\n"], ids=repr)
def test_links_that_stand_in_one_text_are_links_of_their_own(between: str, after: str) -> None:
    """As an export joins them; one address of them all would be a dead one."""
    joined = f"{X}{between}{Y}{after}"
    for given in (joined, [joined]):
        assert checked({**NEEDED, "files": given})["files"] == [{"externalUrl": X}, {"externalUrl": Y}]
    stored = f"s3:///inbox/a.pdf{between}{Y}{between}s3://archive/b.pdf{after}"
    files: list[Body] = [
        {"file": {"s3": "inbox/a.pdf"}},
        {"externalUrl": Y},
        {"file": {"s3": "b.pdf", "storage": "archive"}},
    ]
    assert checked({**NEEDED, "files": stored})["files"] == files


@pytest.mark.parametrize(
    "link", [f"{X}?a=1,2;b", "https://a.example/a,b;c.pdf", f"{X}?u=https://b.example/", "https://a.example/a|b"]
)
def test_separator_within_a_link_is_the_link_s(link: str) -> None:
    """It doesn't stand before another address."""
    assert checked({**NEEDED, "files": link})["files"] == [{"externalUrl": link}]


@pytest.mark.parametrize("text", [f"{X},y.pdf and z.pdf", f"see {X}", f"{X} {X[8:]}", f"{X},http://a.example/y.pdf"])
def test_what_may_be_several_links_or_none_is_told(text: str) -> None:
    """Nobody guesses."""
    assert wrong({**NEEDED, "files": text})


def test_texts_of_an_event_are_what_people_wrote() -> None:
    """At any depth, and of its files all but their bytes; what only a few words can stand for is no secret."""
    deep: Any = "deep"
    for _ in range(300):
        deep = {"a": [deep]}
    files = [LINK, {"content": HELLO, "name": "a.txt", "contentType": "text/plain"}, {"s3": "k", "storage": "st"}]
    texts = texts_of(checked({**FULL, "files": files, "custom": {"x": deep}}))
    written = ["<m1@x.example>", "ada@x.example", "Hello", "<t1@x.example>", "+49 30 1234567", "customer-1042"]
    written += ["Ada Lindqvist", "Order 1042", LINK, "a.txt", "ada@x.example", "", "deep", "k", "st"]
    assert sorted(texts) == sorted(written)


# What is wrong

HTTPS = "must be an address that begins with https://, without blanks, user name or password"
BASE64 = "must be base64: the bytes of the file as text"


@pytest.mark.parametrize(
    ("item", "path", "what"),
    [
        ("http://files.acme.example/a", "files[1]", HTTPS),
        ("https://ada:secret@files.acme.example/a", "files[1]", HTTPS),
        ("invoice.pdf", "files[1]", HTTPS),
        ("s3://inbox", "files[1]", "give what is in Windmill's object storage as file"),
        (5, "files[1]", "must be an object or text, not a number"),
        ([LINK], "files[1]", "must be an object or text, not a list"),
        ({"externalUrl": "s3:///a.pdf"}, "files[1].externalUrl", "give what is in Windmill's object storage as file"),
        ({"externalUrl": "http://a.example"}, "files[1].externalUrl", HTTPS),
        ({"content": "a b"}, "files[1].content", BASE64),
        ({"content": "="}, "files[1].content", BASE64),
        ({"content": HELLO, "externalUrl": LINK}, "files[1]", "not content and externalUrl"),
        ({"s3": "a", "content": HELLO}, "files[1]", "not file and content"),
        ({"s3": 5}, "files[1].file.s3", "must be text, not a number"),
        ({"url": LINK}, "files[1].url", "did you mean 'externalUrl'?"),
        ({"url": LINK}, "files[1]", "must have one of file, content and externalUrl, not none"),
        ({"file": "invoice.pdf"}, "files[1].file", "must be an object, not text"),
        ({"content": HELLO, "contentType": "pdf"}, "files[1].contentType", "must be a media type"),
    ],
    ids=repr,
)
def test_wrong_file_is_told_by_its_place(item: Any, path: str, what: str) -> None:
    """Counted as it was given, and without being quoted."""
    found = wrong({**NEEDED, "files": ["", item]})
    assert what in found[path]
    assert "secret" not in json.dumps(found)


def test_all_that_is_wrong_is_told_at_once_by_the_names_of_the_inputs() -> None:
    """With what is missing."""
    event = {
        "channel": "fax",
        "email": "ada",
        "phone": "1",
        "sentAt": "now",
        "body": "x",
        "files": ["a", {"content": "!"}],
    }
    paths = ["body", "channel", "email", "files[0]", "files[1].content", "messageId", "phone", "sentAt"]
    assert sorted(wrong(event)) == paths
    assert wrong(event)["body"] == "is not a known field: did you mean 'text'?"
    needed = {"email": "email, phone and customerExternalId", "text": "text, subject and files"}
    missing = {name: f"is missing: one of {names} is needed" for name, names in needed.items()}
    assert wrong({}) == {"channel": "is missing", "messageId": "is missing", **missing}
    assert wrong({**NEEDED, "text": "", "files": NAMED_ONLY}) == {"text": missing["text"]}


@pytest.mark.parametrize("event", [None, [], "text", 5], ids=repr)
def test_what_is_no_event_is_told_as_such(event: object) -> None:
    """And nothing else of it."""
    assert wrong(event).keys() == {"body"}


NO_IDS = [
    *("undefined", "null", "None", "NaN", "nan", "nil", "n/a", "N/A", "NA", "-", "--", "(null)", "[NULL]", "<null>"),
    *("\\N", "#N/A", "#REF!", "#NAME?", "#VALUE!", "[object Object]", "<>", " <undefined> ", "{}", "NaT"),
    *("00000000-0000-0000-0000-000000000000", "{{thread_id}}", "${threadId}", "chat-{{ id }}", "<${id}@x.example>"),
    *(
        "<undefined@mail.example>",
        '"undefined"',
        "<no value>",
        "0" * 32,
        "\u2800",
        "---",
        "[object Undefined]",
        "#WERT!",
    ),
    *("<%= id %>", "%!s(<nil>)", "undefined-undefined"),
]
NO_ID = "is no id, but what a program writes for nothing: leave it out"


@pytest.mark.parametrize("text", NO_IDS)
@pytest.mark.parametrize("name", ["messageId", "threadId", "customerExternalId"])
def test_word_for_nothing_is_no_id(name: str, text: str) -> None:
    """All who have none would share one conversation, or one would lose their message as there already."""
    assert wrong({**NEEDED, name: text}) == {name: NO_ID}


@pytest.mark.parametrize("text", ["1.23457E+14", "1,2e+11", "1001.0", "12345.00"])
def test_number_that_a_spreadsheet_made_of_an_id_is_told(text: str) -> None:
    """Many ids become the same one."""
    made = "is a number that a spreadsheet or a program made of the id: export it again, as text"
    assert wrong({**NEEDED, "messageId": text, "threadId": text}) == {"messageId": made, "threadId": made}


@pytest.mark.parametrize("text", ["0", "-1", "guest", " Guest ", "anonymous"])
def test_what_nobody_is_called_is_no_persons_and_no_threads_id(text: str) -> None:
    """Though a message may be the first of those that are counted from 0."""
    assert wrong({**NEEDED, "threadId": text, "customerExternalId": text}) == dict.fromkeys(
        ["threadId", "customerExternalId"], NO_ID
    )
    assert wrong({**NEEDED, "messageId": text}) == {}


@pytest.mark.parametrize(
    "text",
    ["None-1", "null@x.example", "nan 5", "guest-7", "00", "10", "#1042", "a{b}", "$5", "e-1", "n.a"],
)
def test_id_that_has_such_a_word_in_it_is_one(text: str) -> None:
    """Only the whole of it says nothing; and nobody's name or subject is an id."""
    ids = dict.fromkeys(["messageId", "threadId", "customerExternalId"], text)
    assert wrong({**NEEDED, **ids, "name": "None", "subject": "NA", "text": "null"}) == {}


@pytest.mark.parametrize(
    ("given", "thread"),
    [
        ("<a@x.example>\r\n <c@x.example>", "<a@x.example>"),
        ("<a@x.example> <b@x.example>\t<c@x.example>", "<a@x.example>"),
        ("<a@x.example><b@x.example>", "<a@x.example>"),
        ("<a@x.example>, <b@x.example>", "<a@x.example>"),
        ("<a b@x.example>", "<a b@x.example>"),
        ("<a@x.example> and more", "<a@x.example> and more"),
        ("a@x.example b@x.example", "a@x.example b@x.example"),
    ],
)
def test_thread_of_several_references_is_the_first_one(given: str, thread: str) -> None:
    """It began the thread, and each reply has one more; a message has one id."""
    assert conversation_of(checked({**NEEDED, "threadId": given}))["externalId"] == thread


def test_message_of_another_day_is_told() -> None:
    """It would stand on top of the timeline until then; a clock may be wrong by hours."""
    now = datetime.now(UTC)
    ahead = "is more than a day ahead: give the date at which it was sent"
    for days in (1.1, 30, 365_000):
        assert wrong({**NEEDED, "sentAt": (now + timedelta(days)).isoformat()}) == {"sentAt": ahead}
    assert wrong({**NEEDED, "sentAt": "9999-12-31T23:59:59Z"}) == {"sentAt": ahead}
    for days in (0.9, 0, -30):
        assert wrong({**NEEDED, "sentAt": (now + timedelta(days)).isoformat()}) == {}


def test_nul_in_a_text_becomes_a_mark() -> None:
    """As in answers; an id with one would not be known again."""
    event = checked(
        {
            **NEEDED,
            "text": "a\0b",
            "subject": "\0",
            "name": "A\0",
        }
    )
    assert (message_of(event)["preview"], message_of(event)["subject"]) == ("a\ufffdb", "\ufffd")
    assert (customer_of(event)["name"], conversation_of(event)["name"]) == ("A\ufffd", "\ufffd")
    assert wrong({**NEEDED, "messageId": "a\0"}) == {"messageId": "has a NUL character in it: take it out"}


@pytest.mark.parametrize("name", ["messageId", "threadId", "customerExternalId"])
def test_blank_id_is_told(name: str) -> None:
    """A thread of blanks would be everybody's."""
    assert wrong({**NEEDED, name: " "}) == {name: "is blank: leave it out, or give an id"}


def test_message_too_large_with_its_attachments_is_told_before_any_is_uploaded() -> None:
    """An attachment adds its id, name, type and size to the message."""
    events = [
        {**NEEDED, "text": "x" * 9_000, "files": [{"s3": f"{'n' * 200}{i}"} for i in range(n)]} for n in (200, 500)
    ]
    assert wrong(events[0]) == {}
    found = wrong(events[1])
    assert list(found) == ["body"]
    assert "bytes as JSON, at most 100,000 are allowed" in found["body"]
    assert wrong({**NEEDED, "meta": {"x": "x" * 100_000}}).keys() == {"body"}
    assert wrong({**NEEDED, "meta": {"x": float("nan")}}).keys() == {"meta.x"}


# What it becomes


def test_whole_event_becomes_what_the_steps_take() -> None:
    """Every input stands where its step expects it."""
    event = checked(FULL)
    assert customer_of(event) == {
        "email": "ada@x.example",
        "phone": "+49 30 1234567",
        "externalId": "customer-1042",
        "name": "Ada Lindqvist",
    }
    assert conversation_of(event) == {"externalId": "<t1@x.example>", "name": "Order 1042"}
    assert message_of(event) == {
        "channel": "email",
        "direction": "out",
        "app": "acme-inbox",
        "externalId": "<m1@x.example>",
        "subject": "Order 1042",
        "preview": "Hello",
        "sentAt": "2026-01-31T09:30:00Z",
        "meta": {"from": "ada@x.example", "empty": ""},
        "custom": {"orderStr": "1042"},
        "lang": "en_us",
    }
    for body, shape in (
        (customer_of(event), Customer),
        (conversation_of(event), Conversation),
        (message_of(event), Message),
    ):
        assert check(body, shape)[1] == []


def test_event_of_the_least_becomes_what_the_steps_take() -> None:
    """The message begins a thread; it came in."""
    event = checked(NEEDED)
    assert customer_of(event) == {"email": "ada@x.example"}
    assert conversation_of(event) == {"externalId": "<m1@x.example>"}
    assert message_of(event) == {
        "channel": "email",
        "direction": "in",
        "app": "windmill",
        "externalId": "<m1@x.example>",
        "preview": "Hello",
    }


@pytest.mark.parametrize("given", [" <t1@x.example>\r\n", "\r\n <t1@x.example>", "<t1@\r\n x.example>"], ids=repr)
def test_padded_or_folded_id_is_one_id(given: str) -> None:
    """As headers of e-mails have them; what is folded within keeps its blank."""
    event = checked({**NEEDED, "messageId": given, "threadId": given, "customerExternalId": given})
    ids = {message_of(event)["externalId"], conversation_of(event)["externalId"], customer_of(event)["externalId"]}
    assert ids == {given.replace("\r\n", "").strip()}


def test_too_long_texts_are_cut_to_what_the_steps_take() -> None:
    """Visibly, and as short as Kustomer wants them."""
    event = checked({**NEEDED, "text": "x" * 30_000, "subject": "y" * 300, "name": "z" * 300})
    assert message_of(event)["preview"] == "x" * 10_236 + " […]"
    assert message_of(event)["subject"] == conversation_of(event)["name"] == "y" * 252 + " […]"
    assert customer_of(event)["name"] == "z" * 252 + " […]"
    assert check(message_of(event), Message)[1] == []


def test_what_kustomer_takes_whole_is_not_cut() -> None:
    """To the last character."""
    event = checked({**NEEDED, "text": "x" * 10_240, "subject": "y" * 256, "name": "z" * 256})
    assert message_of(event)["preview"] == event["text"]
    assert message_of(event)["subject"] == conversation_of(event)["name"] == event["subject"]
    assert customer_of(event)["name"] == event["name"]


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("", 10, ""),
        ("one two three four", 18, "one two three four"),
        ("one two three four", 17, "one two three […]"),
        ("one two three four", 16, "one two […]"),
        ("one two\nthree four", 12, "one two […]"),
        ("word " * 9, 13, "word word […]"),
        ("one " + "x" * 200, 190, "one " + "x" * 182 + " […]"),
        ("字" * 20, 14, "字" * 10 + " […]"),
    ],
)
def test_longer_text_ends_with_a_word_and_a_mark(text: str, limit: int, shown: str) -> None:
    """And fits; where there are no words near, it ends where it must."""
    assert cut(text, limit) == shown
