"""A row means one message, by the rules of record_message; what it leaves open is told, and nothing is guessed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f.kustomer.create_message import Message
from f.kustomer.history.file import Record
from f.kustomer.history.plan import Row
from f.kustomer.history.rows import Columns, HistoryRow, Options, row_of, unused_columns, wrong_columns
from f.kustomer.record_message import LINE_LENGTH, TEXT_LENGTH
from f.kustomer.shared.inputs import Node, check, to_json

RIGHT: dict[str, Any] = {
    "messageId": "<CAF1042@mail.acme.example>",
    "threadId": "ticket-7",
    "email": "Ada@Example.com ",
    "channel": "email",
    "direction": "in",
    "text": "Hello, where is my order 1042?",
    "sentAt": "2019-05-04T10:00:00+02:00",
}
HEADER = list(RIGHT)


def read(row: dict[str, Any], options: Options | None = None) -> Row:
    """Return the message that a row is; the test fails where it is refused."""
    found = row_of(Record(7, row, None), options or Options("acme-inbox"))
    assert isinstance(found, Row), found
    return found


def refused(row: dict[str, Any], options: Options | None = None) -> dict[str, str]:
    """Return what is wrong with a row by the names of its fields; the test fails where it is right."""
    found = row_of(Record(7, row, None), options or Options("acme-inbox"))
    assert isinstance(found, list), found
    told = dict(found)
    assert len(told) == len(found) > 0, "one thing is told twice"
    return told


def without(name: str) -> dict[str, Any]:
    """Return a right row without one of its fields."""
    return {ours: each for ours, each in RIGHT.items() if ours != name}


def test_a_row_is_what_record_message_would_send() -> None:
    """But for the ids of the customer, the conversation and the files, and the dates of the import."""
    assert read(RIGHT) == Row(
        number=7,
        message_id="<CAF1042@mail.acme.example>",
        thread_id="ticket-7",
        customer={"email": "ada@example.com"},
        sent_at="2019-05-04T08:00:00.000Z",
        at=1556956800.0,
        body={
            "channel": "email",
            "direction": "in",
            "app": "acme-inbox",
            "externalId": "<CAF1042@mail.acme.example>",
            "preview": "Hello, where is my order 1042?",
            "sentAt": "2019-05-04T08:00:00.000Z",
        },
        files=[],
    )


def test_every_field_of_a_row_arrives() -> None:
    """Ids, phones and e-mails are spelled as the find steps spell them."""
    more = {
        "phone": "+49 (0)30 1234567",
        "customerExternalId": " customer-1042\n",
        "name": "Ada Lindqvist",
        "subject": "Order 1042",
        "meta": {"to": "help@acme.example"},
        "custom": {"orderNumberStr": "1042"},
        "lang": "en_us",
        "app": "old-desk",
        "private": False,
        "files": ["https://files.acme.example/a.pdf", {"s3": "inbox/b.pdf"}],
    }
    assert set(more) | set(RIGHT) == set(Node(HistoryRow).fields)
    row = read(RIGHT | more)
    assert row.customer == {
        "email": "ada@example.com",
        "phone": "+49301234567",
        "externalId": "customer-1042",
        "name": "Ada Lindqvist",
    }
    assert {name: row.body[name] for name in ("subject", "meta", "custom", "lang", "app")} == {
        name: more[name] for name in ("subject", "meta", "custom", "lang", "app")
    }
    assert row.files == [{"externalUrl": "https://files.acme.example/a.pdf"}, {"file": {"s3": "inbox/b.pdf"}}]


def test_all_that_is_wrong_with_a_row_is_told_at_once_and_never_quoted() -> None:
    """The report of an import lies about for longer than its file."""
    told = refused(
        {
            "messageId": "3.60012E+11",
            "email": "ada.secret",
            "phone": "secret",
            "channel": "secret",
            "direction": "secret",
            "sentAt": "secret",
            "private": "secret",
            "meta": "secret",
            "files": ["secret"],
            "text": 7,
            "very secret": 1,
        }
    )
    names = {"messageId", "threadId", "email", "phone", "channel", "direction", "sentAt", "private", "meta", "text"}
    assert told.keys() == {*names, "files[0]", "(an odd name)"}
    assert "secret" not in str(told)


@pytest.mark.parametrize("name", ["messageId", "threadId", "channel", "direction", "sentAt", "email", "text"])
@pytest.mark.parametrize("empty", [None, "", "  \n"])
def test_what_is_missing_is_told_at_its_name(name: str, empty: str | None) -> None:
    """A blank cell is an empty one."""
    assert refused(without(name))[name].startswith("is missing")
    assert refused({**RIGHT, name: empty}) == refused(without(name))


@pytest.mark.parametrize("person", [{"phone": "+49 30 1234567"}, {"customerExternalId": "7"}, {"email": "a@b.example"}])
@pytest.mark.parametrize("content", [{"text": "a"}, {"subject": "a"}, {"files": "https://files.acme.example/a"}])
def test_one_identifier_and_one_content_are_enough(person: dict[str, Any], content: dict[str, Any]) -> None:
    """Any of them."""
    assert read({**without("email"), **person}).customer
    assert read({**without("text"), **content})


def test_what_stands_for_all_rows_counts_only_where_a_cell_is_empty() -> None:
    """A channel or direction that isn't known is told all the same."""
    options = Options("acme-inbox", channel="chat", direction="out")
    assert read({**RIGHT, "channel": "", "direction": " "}, options).body["channel"] == "chat"
    assert read({**RIGHT, "channel": None}, options).body["direction"] == "in"
    assert refused({**RIGHT, "channel": "web", "direction": False}, options).keys() == {"channel", "direction"}


@pytest.mark.parametrize(("written", "read_as"), [(" Email ", "email"), ("SMS", "sms"), ("Twitter-DM", "twitter-dm")])
def test_case_and_blanks_make_no_other_channel(written: str, read_as: str) -> None:
    """Spreadsheets begin words with a capital."""
    assert read({**RIGHT, "channel": written, "direction": " Out"}).body["channel"] == read_as


@pytest.mark.parametrize(("name", "value"), [("channel", "mail"), ("channel", "web"), ("direction", "incoming")])
def test_a_channel_or_direction_is_never_guessed(name: str, value: str) -> None:
    """What is likely meant is said, and that is all."""
    assert refused({**RIGHT, name: value})[name].startswith("must be one of ")


@pytest.mark.parametrize(
    ("written", "sent_at"),
    [
        ("2019-05-04T08:00:00.000Z", "2019-05-04T08:00:00.000Z"),
        ("2019-05-04t08:00:00z", "2019-05-04T08:00:00.000Z"),
        (" 2019-05-04 10:00:00.123456+02 ", "2019-05-04T08:00:00.123Z"),
        ("2019-05-04 08:00 UTC", "2019-05-04T08:00:00.000Z"),
        ("2019-05-04T08:00:00.123456789-0330", "2019-05-04T11:30:00.123Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_date_with_a_zone_is_read_as_databases_write_it(written: str, sent_at: str) -> None:
    """It is sent in UTC, as Kustomer writes it."""
    row = read({**RIGHT, "sentAt": written})
    assert row.sent_at == row.body["sentAt"] == sent_at


@pytest.mark.parametrize("zoneless", ["2019-05-04T10:00:00", "2019-05-04 10:00", "2019-05-04 10:00:00.000"])
def test_a_date_without_a_zone_is_told(zoneless: str) -> None:
    """Nobody can know which was meant."""
    assert "has no zone" in refused({**RIGHT, "sentAt": zoneless})["sentAt"]


@pytest.mark.parametrize(
    "other",
    [
        *["04.05.2019 10:00", "2019-05-04", "2019-13-04T10:00:00Z", "2019-05-04T24:00:01Z", "0001-01-01T00:00:00Z"],
        *["0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-14:00", "1969-12-31T23:59:59Z", "43589.416", "nan"],
        "2262-04-11T23:47:16Z",
        *["2019-05-04T10:00:00+25:00", "٢٠١٩-05-04T10:00:00Z", 1556956800, 1556956800.5, True, [], {"at": 1}],
    ],
)
def test_what_is_no_date_is_told(other: Any) -> None:
    """Numbers too, which may count seconds, milliseconds or a spreadsheet's days."""
    assert "sentAt" in refused({**RIGHT, "sentAt": other})


@pytest.mark.parametrize("name", ["messageId", "threadId", "customerExternalId"])
@pytest.mark.parametrize("value", [1042, 1, 12345678901234567890])
def test_a_whole_number_is_an_id(name: str, value: int) -> None:
    """JSON of databases has them so."""
    row = read({**RIGHT, name: value})
    assert str(value) in (row.message_id, row.thread_id, row.customer.get("externalId"))


@pytest.mark.parametrize("name", ["messageId", "threadId", "customerExternalId"])
@pytest.mark.parametrize("value", ["3.60012E+11", "3,60012e+11", "4E+15", "1042.0", 1042.0, 3.60012e11, True, ["1"]])
def test_an_id_that_a_spreadsheet_destroyed_is_told(name: str, value: Any) -> None:
    """Many ids have become the same, and none can be found again."""
    assert name in refused({**RIGHT, name: value})


@pytest.mark.parametrize("name", ["messageId", "threadId", "customerExternalId"])
def test_an_id_with_a_nul_is_told(name: str) -> None:
    """Answers are read without it, so that what is recorded would not be known again."""
    assert "NUL" in refused({**RIGHT, name: "a\0b"})[name]


@pytest.mark.parametrize("value", ["nan", "NaN", "None", "NULL", "null", "undefined", " nan ", "N/A", "-"])
def test_a_word_for_nothing_is_no_id(value: str) -> None:
    """It would be the one thread, or the one customer, of all rows that have none: as in every step."""
    for name in ("messageId", "threadId", "customerExternalId"):
        assert "leave it out" in refused({**RIGHT, name: value})[name]
    assert refused({**RIGHT, "email": value, "phone": value}).keys() == {"email", "phone"}
    assert read({**RIGHT, "text": value}).body["preview"] == value


@pytest.mark.parametrize("value", ["1E5", "12E45", "1.0.0", "0042", "Null-7"])
def test_an_id_that_only_looks_odd_is_kept(value: str) -> None:
    """Leading zeros too."""
    assert read({**RIGHT, "messageId": value}).message_id == value


@pytest.mark.parametrize("value", [True, "true", "TRUE", " Yes", "1", 1])
def test_an_internal_note_is_refused(value: Any) -> None:
    """The customer's timeline would show it as a message."""
    assert "internal note" in refused({**RIGHT, "private": value})["private"]


@pytest.mark.parametrize("value", [False, "false", "FALSE", "no", "0", 0, "", None])
def test_a_row_that_is_not_private_is_a_message(value: Any) -> None:
    """Databases write false in many ways."""
    assert read({**RIGHT, "private": value}) == read(RIGHT)


@pytest.mark.parametrize("value", ["maybe", 2, 0.5, [True], {"a": 1}, []])
def test_whether_a_row_is_private_is_never_guessed(value: Any) -> None:
    """A note that is shown can't be taken back."""
    assert "private" in refused({**RIGHT, "private": value})


@pytest.mark.parametrize(
    ("name", "meant"), [("body", "text"), ("attachments", "files"), ("externalid", "messageId"), ("sent", "sentAt")]
)
def test_an_unknown_name_refuses_a_json_row_with_the_one_that_is_likely_meant(name: str, meant: str) -> None:
    """Else the text would be missing, and nobody would know."""
    assert refused({**RIGHT, name: "x"}) == {name: f"is not a known field: did you mean {meant!r}?"}


@pytest.mark.parametrize("name", ["message_id", "MESSAGEID", " Message Id ", "message-id"])
def test_case_blanks_and_underscores_make_no_other_name(name: str) -> None:
    """Neither in JSON nor in a CSV."""
    row = {**without("messageId"), name: "m-1"}
    assert read(row).message_id == "m-1"
    assert wrong_columns(None, list(row)) == []
    assert read(row, Options("acme-inbox", header=list(row))).message_id == "m-1"


def test_a_name_that_is_given_twice_is_told() -> None:
    """Which one counts is not for us to say."""
    assert "is given twice" in refused({**RIGHT, "message_id": "2"})["messageId"]
    assert dict(wrong_columns(None, [*HEADER, "Message ID"])).keys() == {"columns.messageId"}


def test_with_columns_only_what_they_name_counts() -> None:
    """In JSON too, where an export has many more names than a message."""
    columns = {"messageId": "Id", "threadId": "Id", "email": "From", "sentAt": "When", "text": "Body"}
    given = {
        "Id": "1",
        "From": "a@b.example",
        "When": "2019-05-04T08:00:00Z",
        "Body": "a",
        "channel": "x",
        "other": "y",
    }
    for header in (None, list(given)):
        options = Options("acme-inbox", "email", "in", columns, header)
        assert wrong_columns(columns, header) == []
        row = read(given, options)
        assert (row.message_id, row.thread_id, row.body["channel"], row.body["preview"]) == ("1", "1", "email", "a")


def test_all_wrong_mappings_are_told_at_once() -> None:
    """With what is likely meant, in the file and among our names."""
    columns = {"messageId": "Mesage ID", "sentat": "Date", "text": "Nowhere", "email": "Mail"}
    told = dict(wrong_columns(columns, ["Message ID", "Date", "Mail", "mail"]))
    assert told == {
        "columns.sentat": "is not a known field: did you mean 'sentAt'?",
        "columns.messageId": "is no column of the file: did you mean 'Message ID'?",
        "columns.text": "is no column of the file",
        "columns.email": "is what several columns of the file are called: rename all but one",
        "columns.threadId": told["columns.threadId"],
        "columns.sentAt": "is missing",
    }
    assert told["columns.threadId"].startswith("is missing: where every message is to be a conversation")


def test_columns_of_json_lines_are_checked_against_the_names_that_occur() -> None:
    """Before these are known, what the columns say by themselves is checked."""
    columns = {"messageId": "id", "threadId": "id", "email": "from", "sentAt": "at", "text": "bodyy"}
    assert wrong_columns(None, None) == []
    assert wrong_columns(columns, None) == []
    assert dict(wrong_columns({"messageId": "id"}, None)).keys() == {
        *("columns.threadId", "columns.sentAt", "columns.email", "columns.text")
    }
    assert wrong_columns(columns, ["id", "from", "at", "body"]) == [
        ("columns.text", "is no column of the file: did you mean 'body'?")
    ]


def test_a_csv_without_what_a_message_needs_is_told_before_its_rows() -> None:
    """With the column that is likely meant; a text that would be left aside counts as missing."""
    told = dict(wrong_columns(None, ["Message-Id", "Conversation", "E-Mail-Address", "Timestamp", "subject", "Body"]))
    assert told.keys() == {"columns.threadId", "columns.sentAt", "columns.email", "columns.text"}
    for name, meant in (("threadId", "Conversation"), ("sentAt", "Timestamp"), ("text", "Body")):
        assert told[f"columns.{name}"].endswith(f"did you mean {meant!r}?")


def test_columns_of_a_csv_that_nobody_named_are_left_aside_and_listed_once() -> None:
    """As they are written; those without a heading say nothing."""
    assert read({**RIGHT, "Queue": "vip", "": "x"}, Options("acme-inbox", header=[*HEADER, "Queue", ""])) == read(RIGHT)
    assert unused_columns(None, ["messageId", "Queue", "", " ", "Queue", "text"]) == ["Queue"]
    assert unused_columns({"messageId": "queue", "text": "Gone"}, ["Message Id", "Queue"]) == ["Message Id"]


def test_every_field_of_a_row_can_be_mapped() -> None:
    """The form offers exactly these."""
    assert Node(Columns).fields.keys() == Node(HistoryRow).fields.keys()


CSV = Options("acme-inbox", header=[*HEADER, "files", "meta", "custom", "subject"])


@pytest.mark.parametrize("between", [" ", "\n", " | ", ",", ";", ", "])
def test_a_cell_holds_links_with_something_between_them(between: str) -> None:
    """Addresses of files in the object storage too."""
    links = ("https://files.acme.example/a,1;2.pdf", "s3:///inbox/b.pdf", "https://files.acme.example/c")
    cell = f" {between.join(links)} "
    assert read({**RIGHT, "files": cell}, CSV).files == [
        {"externalUrl": "https://files.acme.example/a,1;2.pdf"},
        {"file": {"s3": "inbox/b.pdf"}},
        {"externalUrl": "https://files.acme.example/c"},
    ]
    assert refused({**RIGHT, "files": "https://files.acme.example/a invoice.pdf"}, CSV).keys() == {"files[0]"}


def test_a_cell_holds_a_json_object() -> None:
    """For meta and custom, where the channel and the organisation say what is in it."""
    row = {**RIGHT, "meta": '{"to": ["a"]}', "custom": ' {"aNum": 1.5} '}
    assert read(row, CSV).body["meta"] == {"to": ["a"]}
    assert read(row, CSV).body["custom"] == {"aNum": 1.5}
    for wrong in ("to: a", '{"a": NaN}', "[" * 100_000, "[1]", '{"a": 1, "a": 2}'):
        assert refused({**RIGHT, "meta": wrong}, CSV).keys() == {"meta"}
    assert read({**RIGHT, "meta": "", "custom": " "}, CSV) == read(RIGHT)


def test_texts_that_are_too_long_are_cut_visibly() -> None:
    """As record_message does, so that a long e-mail isn't missing."""
    row = read({**RIGHT, "text": "a" * 50_000, "subject": "b" * 999, "name": "c" * 999})
    assert row.body["preview"] == "a" * (TEXT_LENGTH - 4) + " […]"
    assert row.body["subject"] == "b" * (LINE_LENGTH - 4) + " […]"
    assert row.customer["name"] == "c" * (LINE_LENGTH - 4) + " […]"


@pytest.mark.parametrize("name", ["meta", "custom"])
def test_a_message_that_no_job_can_carry_is_told(name: str) -> None:
    """With the names of its fields; ids, dates and files come on top."""
    assert read({**RIGHT, name: {"aStr": "x" * 80_000}})
    assert "bytes" in refused({**RIGHT, name: {"aStr": "x" * 95_000}})[name]


def encoded(body: Any, frames: int) -> bytes:
    """Return the JSON of a body, written from so much further up the stack."""
    return encoded(body, frames - 1) if frames else to_json({"": [body]})


TOO_DEEP = ("meta", "is nested too deeply: use fewer levels")


def test_what_is_nested_too_deeply_to_be_written_with_others_is_told() -> None:
    """A job is written from further up the stack, where one bad row would end all."""
    deep: Any = "x"
    for level in range(6_000):  # how many are too many differs from one Python to the next
        deep = [deep]
        if level % 7:
            continue
        found = row_of(Record(7, {**RIGHT, "meta": {"a": deep}}, None), Options("acme-inbox"))
        if isinstance(found, Row):
            assert encoded(found.body, 40)
        else:
            assert found == [TOO_DEEP]
    for _ in range(100_000):
        deep = [deep]
    assert row_of(Record(7, {**RIGHT, "meta": {"a": deep}}, None), Options("acme-inbox")) == [TOO_DEEP]
    assert refused({**RIGHT, "files": [deep]}) == {"row": "is nested too deeply: use fewer levels"}


def test_a_line_that_could_not_be_read_is_told_as_it_is() -> None:
    """The reader of files has said what is wrong."""
    assert row_of(Record(7, None, "is not JSON"), CSV) == [("row", "is not JSON")]


texts = st.text() | st.sampled_from([*RIGHT.values(), "nan", "1E+5", "true", "[]", "{}", "s3:///a", "\ud800", "\0"])
anything = st.recursive(
    texts | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
names = st.sampled_from([*Node(HistoryRow).fields, "Message_ID", "body"]) | st.text(max_size=5)


@given(st.dictionaries(names, anything, max_size=6), st.booleans())
def test_whatever_a_row_holds_it_is_a_message_that_kustomer_takes_or_its_faults_are_told(
    changes: dict[str, Any], is_csv: bool
) -> None:
    """By create_message's own rules; nothing is raised, and what Kustomer would refuse is never sent."""
    row = {**RIGHT, **{name: str(each) if is_csv else each for name, each in changes.items()}}
    found = row_of(Record(2, row, None), Options("acme-inbox", header=list(row) if is_csv else None))
    if isinstance(found, Row):
        assert check(found.body, Message)[1] == []
        assert to_json(found.body)
        assert found.customer.keys() & {"email", "phone", "externalId"}
        assert found.message_id
        assert found.thread_id
    else:
        assert found
        assert all(path and what for path, what in found)


@given(st.dictionaries(names, names | st.text(max_size=5) | st.none()) | st.none(), st.lists(names) | st.none())
def test_whatever_the_columns_only_right_ones_are_taken(
    columns: dict[str, Any] | None, header: list[str] | None
) -> None:
    """Where nothing is told, every needed field has one column."""
    if not wrong_columns(columns, header) and header is not None:
        options = Options("a", "email", "in", columns, header)
        ours = {each for theirs in header for each in options.names.get(theirs.casefold().strip(), [])}
        assert {"messageId", "threadId", "sentAt"} <= {*ours, *options.names.get("messageid", [])}
