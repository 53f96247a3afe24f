"""The demo shows what it says."""

import contextlib
import csv
import io
import re

import pytest

from tests import demo, demo_import


@pytest.fixture(scope="module")
def shown() -> tuple[str, str]:
    """What the demo prints: of the messages, and of the history."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert demo.main() == 0
    messages, end, history = output.getvalue().partition("Three jobs, two messages.\n\n")
    assert end
    return messages, history


def test_demo_records_each_message_once_and_shows_it_on_the_timeline(shown: tuple[str, str]) -> None:
    """It ends well, shows the timeline after each job with what is new, and the file."""
    timelines = [each.splitlines() for each in shown[0].split("Timeline of conversation ")[1:]]
    assert [sum(line.startswith("*") for line in each) for each in timelines] == [1, 1, 0]
    assert [sum(" email  acme-inbox " in line for line in each) for each in timelines] == [1, 2, 2]
    assert "dark-lamp.jpg" in shown[0].partition("Timeline of conversation ")[2]


def test_demo_tells_the_wrong_rows_of_a_history_and_imports_the_rest(shown: tuple[str, str]) -> None:
    """The check tells the same rows as the report, by the numbers that a spreadsheet shows; the progress is seen."""
    found = re.fullmatch(
        r".*^The check(.*)^The import(.*)^The report(.*)^Timeline.*", shown[1], re.DOTALL | re.MULTILINE
    )
    assert found
    check, done, report = found.groups()
    wrong = [str(row) for row in demo_import.WRONG]
    assert "300 rows: 297 to import" in check
    assert re.findall(r"^  row (\d+): ", check, re.MULTILINE) == wrong
    assert "297 of 297 rows, " in done
    assert "| 297 | recorded by this import |" in report
    assert re.findall(r"^  \| 1 \| .* \| (\d+) \|$", report, re.MULTILINE) == wrong


def test_demo_of_a_history_is_read_at_a_glance_and_ends_with_a_timeline(shown: tuple[str, str]) -> None:
    """A screen of it, with the last messages of one conversation and their old dates."""
    lines = shown[1].splitlines()
    timeline = shown[1].partition("Timeline of conversation ")[2].splitlines()[1:-2]
    assert len(lines) <= 46
    assert max(map(len, lines)) <= 110
    assert [line[:13] for line in timeline if line.startswith("*")] == [
        f"* {day} Mar 2019" for day in ("09", "11", "13")
    ]
    assert lines[-1].endswith(": 297 messages, 3 rows to correct.")


def test_demo_prints_no_key(shown: tuple[str, str]) -> None:
    """Every key of the stand-in is a JSON Web Token, as Kustomer's are, and those begin alike."""
    assert "eyJ" not in "".join(shown)


def test_file_of_the_demo_is_one_as_offices_write_it() -> None:
    """With a byte-order mark, semicolons, CRLF, line breaks in quotes and letters beyond ASCII; and it is 300 rows."""
    text = demo_import.as_csv().decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=";"))
    assert text.startswith("\ufeff")
    assert text.count("\r\n") == 301
    assert "Jürgen Weiß" in text
    assert len(rows) == 300
    assert {tuple(row) for row in rows} == {tuple(demo_import.COLUMNS.values())}
    assert any("\n" in row["Body"] and ";" in row["Body"] for row in rows)
