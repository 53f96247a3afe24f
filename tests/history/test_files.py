"""Files of a row are there before its message; files of rows that were refused import once they are corrected."""

import csv
import io
import json
from typing import Any

import pytest

from f.kustomer.shared import storage
from f.kustomer.shared.errors import FileNotWritten, InvalidInput
from tests.history.conftest import KEY, Site, history
from tests.standin.faults import Fault
from tests.standin.kustomer import UPLOAD_PATH

TABLE = "inbox/history.csv"
LINK = "https://files.acme.example/invoice.pdf"


def attached(site: Site, message_id: str) -> list[str]:
    """The names of a message's attachments."""
    (found,) = [each for each in site.kustomer.messages if each["attributes"]["externalId"] == message_id]
    return [each["name"] for each in found["attributes"].get("attachments", [])]


def test_links_and_stored_files_are_attached(site: Site) -> None:
    """Made before the message, which takes them along."""
    rows: list[Any] = history(5, threads=2)
    site.files["inbox/photo.png"] = b"\x89PNG\r\n" + b"x" * 5_000
    rows[1]["files"] = [LINK, {"s3": "inbox/photo.png"}]
    site.put(rows)
    assert site.run()["created"] == 5
    assert attached(site, rows[1]["messageId"]) == ["invoice.pdf", "photo.png"]
    (stored,) = site.kustomer.files.values()
    assert stored.size == 5_006
    site.assert_once(rows)


def test_files_that_fail_one_after_the_other_leave_the_rest_to_the_next_run(site: Site) -> None:
    """Where the upload's host is down, each takes a while, and leaves an attachment without its file."""
    rows: list[Any] = history(40, threads=4)
    for row in rows[:30]:
        row["files"] = [{"s3": "inbox/photo.png"}]
    rows[0]["files"] = rows[1]["files"] = rows[2]["files"] = rows[3]["files"] = [{"s3": "missing"}]
    site.files["inbox/photo.png"] = b"hello"
    site.put(rows)
    site.kustomer.fault(*[Fault.answer(503, b"", at=UPLOAD_PATH) for _ in range(200)])
    result = site.run()
    site.kustomer._faults.clear()
    assert (result["created"], result["left"]) == (10, 30)
    assert len(site.kustomer.attachments) == 3
    assert sum(each["rows"] for each in result["reasons"]) == 30
    site.files["missing"] = b"hello"
    assert site.run()["created"] == 30
    site.assert_once(rows)


@pytest.mark.parametrize("broken", ["missing", "refused", "upload"])
def test_a_file_that_fails_leaves_its_message_to_the_next_run(site: Site, broken: str) -> None:
    """Not without its file; all others are recorded."""
    rows: list[Any] = history(12, threads=2)
    rows[4]["files"] = [LINK, {"s3": "inbox/photo.png"}]
    if broken != "missing":
        site.files["inbox/photo.png"] = b"hello"
    site.put(rows)
    if broken == "refused":
        site.kustomer.fault(Fault.answer(400, {"errors": [{"message": f"no such type: {LINK}"}]}, at="/v1/attachments"))
    if broken == "upload":
        site.kustomer.fault(Fault.answer(403, b"<Error><Code>AccessDenied</Code></Error>", at=UPLOAD_PATH))
    result = site.run()
    assert (result["created"], result["left"], result["refused"]) == (11, 1, 0)
    (problem,) = result["reasons"]
    assert problem["example"] == 5
    assert LINK not in problem["title"], "whoever has it may have the file"
    assert problem["path"] == ("files[0]" if broken == "refused" else "files[1]")
    site.files["inbox/photo.png"] = b"hello"
    again = site.run()
    assert (again["created"], again["already"]) == (1, 11)
    assert attached(site, rows[4]["messageId"]) == ["invoice.pdf", "photo.png"]
    site.assert_once(rows)


COLUMNS = {
    "messageId": "Message",
    "threadId": "Ticket",
    "sentAt": "Created",
    "email": "Requester",
    "text": "Body",
    "files": "Attachments",
    "meta": "Headers",
}


def test_refused_rows_of_a_csv_import_once_they_are_corrected(site: Site) -> None:
    """As lines of JSON, with the same settings: cells that hold a list or an object hold it there, too."""
    text = io.StringIO()
    table = csv.writer(text, delimiter=";")
    table.writerow([*COLUMNS.values(), "Internal"])
    table.writerow(["1", "t", "2020-01-31 09:30:00Z", "Ada@Example.com", 'Hello "you"\nand you', LINK, "", "x"])
    headers = json.dumps({"a": 1})
    table.writerow(["2", "t", "2020-01-31 09:31:00", "ada@example.com", "No zone", f"{LINK} {LINK}", headers, "x"])
    site.files[KEY] = text.getvalue().encode()
    given: Any = {"columns": COLUMNS, "channel": "email", "direction": "in"}
    result = site.run(**given)
    assert (result["created"], result["refused"]) == (1, 1)
    assert "Columns of the file that are left aside: Internal." in result["remarks"]
    refused = site.files[result["refused_rows"]].decode()
    assert "Internal" not in refused
    assert "row 3: sentAt has no zone" in refused, "as the spreadsheet counts, in which the quoted text takes one row"
    site.files["corrected"] = refused.replace("09:31:00", "09:31:00Z").encode()
    again = site.run(**given, file={"s3": "corrected"})
    assert again["created"] == 1
    (thread,) = site.timelines().values()
    assert thread == ['Hello "you"\nand you', "No zone"]
    assert attached(site, "2") == ["invoice.pdf"] * 2
    assert site.kustomer.messages[-1]["attributes"]["meta"] == {"a": 1}


def test_a_line_that_can_not_be_read_is_told_among_the_refused_ones(site: Site) -> None:
    """With its number, as nothing of it can be written."""
    rows = history(3)
    site.put(rows)
    site.files[KEY] = site.files[KEY] + b"{not json}\n[1]\n"
    result = site.run()
    assert (result["created"], result["refused"]) == (3, 2)
    lines = [json.loads(line) for line in site.files[result["refused_rows"]].splitlines()]
    assert [list(line) for line in lines] == [["_refused"]] * 2
    assert [line["_refused"].partition(":")[0] for line in lines] == ["row 4", "row 5"]


def test_corrections_are_never_overwritten(site: Site) -> None:
    """The next run has refused rows too, and writes them elsewhere."""
    rows = history(5)
    site.put([*rows, {**rows[0], "messageId": "6", "sentAt": "soon"}])
    first = site.run()["refused_rows"]
    site.files[first] = site.files[first].replace(b"soon", rows[0]["sentAt"].encode())
    corrected = site.files[first]
    site.kustomer.advance(60)
    second = site.run()["refused_rows"]
    assert second != first
    assert site.files[first] == corrected
    assert site.run(file={"s3": first})["created"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"PK\x03\x04xl/workbook", "workbook"), (b"<html>", "web page"), (b"[\n{}]", "JSON array")],
)
def test_a_file_that_is_something_else_is_named_and_nothing_is_sent(site: Site, content: bytes, said: str) -> None:
    """Not even a look at the key."""
    site.files[KEY] = content
    for check in (True, False):
        with pytest.raises(InvalidInput, match=said) as raised:
            site.run(check=check)
        assert raised.value.errors[0]["path"] == "body.file"
    assert site.kustomer.requests == []


def test_a_header_alone_is_no_rows(site: Site) -> None:
    """And no error."""
    site.files[KEY] = b"messageId,threadId,sentAt,email,text,direction,channel\n"
    assert site.run()["rows"] == 0
    assert site.run(check=True)["work"] == [{"part": 0}]


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("Export of tickets, 2019\n", "has 2 cells in its first row, and 7 in the second one"),
        ("Export of tickets\n", "has 1 cells in its first row, and 7 in the second one"),
        ("Export of tickets;;;;;;\n", "has 1 cells in its first row, and 7 in the second one"),
    ],
)
def test_a_title_above_the_header_is_told(site: Site, before: str, said: str) -> None:
    """Beside the columns that are missing, of which it is the cause."""
    separator = ";" if ";" in before else ","
    header = "messageId,threadId,sentAt,email,text,direction,channel\n1,2,3,4,5,6,7\n".replace(",", separator)
    site.files[TABLE] = (before + header).encode()
    with pytest.raises(InvalidInput, match=said) as raised:
        site.run(file={"s3": TABLE})
    assert raised.value.errors[0]["path"] == "body.file"
    site.files[TABLE] = header.encode()
    assert site.run(file={"s3": TABLE})["refused"] == 1


@pytest.mark.parametrize("separator", ["|", ":"])
def test_columns_that_are_apart_by_something_else_are_told(site: Site, separator: str) -> None:
    """One column is none of these."""
    site.files[TABLE] = separator.join(["messageId", "threadId", "sentAt", "email", "text"]).encode()
    with pytest.raises(InvalidInput, match="commas, semicolons or tabs"):
        site.run(file={"s3": TABLE})


def test_keys_that_nothing_is_mapped_to_are_named_and_internal_notes_refused(site: Site) -> None:
    """Of JSON lines, as of a CSV; what marks a note counts whether it is mapped or not."""
    names = {"messageId": "id", "threadId": "ticket", "sentAt": "at", "email": "who", "text": "body"}
    rows = history(4)
    lines: list[Any] = [{theirs: row[ours] for ours, theirs in names.items()} | {"queue": "vip"} for row in rows]
    lines[1] |= {"private": True}
    lines[2] |= {"Private": "false"}
    site.put(lines)
    result = site.run(columns=names, channel="email", direction="in")
    assert (result["created"], result["refused"]) == (3, 1)
    assert "internal note" in result["reasons"][0]["title"]
    assert "Columns of the file that are left aside: queue." in result["remarks"]


def test_all_wrong_columns_are_told_at_once(site: Site) -> None:
    """By the names of the form, with the column that is likely meant."""
    site.files[KEY] = b"Message ID;Ticket;Date;Mail\n1;2;3;4\n"
    with pytest.raises(InvalidInput) as raised:
        site.run(
            columns={"messageId": "Mesage ID", "threadId": "Tiket", "sentAt": "Date", "email": "Mail", "text": "x"}
        )
    paths = [each["path"] for each in raised.value.errors]
    assert paths == ["body.columns.messageId", "body.columns.threadId", "body.columns.text"]
    assert "'Message ID'" in str(raised.value)
    assert site.kustomer.requests == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"content": "e30="}, "one of file and content"),
        ({"file": None}, "one of file and content, not none"),
        ({"part": 1}, "part must be less than 1"),
        ({"part": "0"}, "part must be a number"),
        ({"part": 0.5}, "part must be a whole number"),
        ({"limit": 1.5}, "limit must be a whole number"),
        ({"limit": 10, "part": 1}, "a part other than 0"),
        ({"keep": 1}, "keep"),
        ({"limit": 0}, "limit"),
        ({"app": ""}, "app is missing"),
        ({"file": None, "content": "e30=", "fresh": True}, "fresh"),
        ({"file": None, "content": "%%"}, "base64"),
        ({"chanel": "email"}, "did you mean 'channel'"),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_settings_is_told(site: Site, given: Any, said: str) -> None:
    """Before anything is read or sent."""
    site.put(history(1))
    with pytest.raises(InvalidInput, match=said):
        site.run(**{"file": {"s3": KEY}, **given})
    assert site.kustomer.requests == []


def test_what_is_recorded_is_told_where_the_refused_rows_can_not_be_written(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage may fail at the very end; the error doesn't say that nothing was sent."""

    def full(stored: dict[str, Any], content: Any) -> None:
        if "refused" in stored["s3"]:
            raise storage._failure(FileNotWritten, "written to", storage._Refusal(507, "full"), "body.file")
        site.files[stored["s3"]] = content

    monkeypatch.setattr(storage, "write", full)
    site.put([*history(5), {"messageId": "odd"}])
    result = site.run()
    assert (result["created"], result["refused"], result["refused_rows"]) == (5, 1, None)
    assert "507" in result["remarks"][-1]
    assert "Nothing of it was sent" not in result["remarks"][-1]
