"""A file is read as offices and databases write it, row by row; what can't be read is named, and nothing is guessed."""

import csv
import gzip
import io
import json
import resource
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from f.kustomer.history import file
from f.kustomer.history.file import LONGEST_ROW, Record, WrongFile, records

HEADER = "messageId,text\n"


def read(content: str | bytes, name: str = "") -> list[Record]:
    """Return every row of a file with this content."""
    return list(records(io.BytesIO(content.encode() if isinstance(content, str) else content), name))


def values(content: str | bytes) -> list[tuple[int, Any]]:
    """Return every row's number and value; the test fails where one has a problem."""
    found = read(content)
    assert [each.problem for each in found] == [None] * len(found)
    return [(each.row, each.value) for each in found]


def wrong(content: str | bytes) -> str:
    """Return why a file is refused as a whole; the test fails where it isn't."""
    with pytest.raises(WrongFile) as raised:
        read(content)
    return str(raised.value)


ROWS = [(2, {"messageId": "1", "text": "Grüße, Ada"}), (3, {"messageId": "2", "text": 'a 5" disk\nis lost'})]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_csv_reads_the_same_however_it_was_saved(
    separator: str, line_end: str, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    """What Excel, LibreOffice, a Mac of old and a database call CSV."""
    lines = ["messageId,text", '1,"Grüße, Ada"', '2,"a 5"" disk', 'is lost"', ""]
    lines = [line.replace(",", separator, 1) for line in lines]
    assert values(pack(line_end.join(lines).encode(encoding))) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
def test_json_lines_are_numbered_as_in_an_editor(encoding: str, line_end: str) -> None:
    """Blank lines count, and what only Unicode calls a line end is none."""
    lines = ["", '{"messageId": 1}', "  ", '{"text": "Gr\u2028üße\x85"}']
    assert values(line_end.join(lines).encode(encoding)) == [(2, {"messageId": 1}), (4, {"text": "Gr\u2028üße\x85"})]


@pytest.mark.parametrize("name", ["old.csv", "old.json", "old.xlsx", "old.csv.gz", ""])
def test_the_content_beats_the_name(name: str) -> None:
    """People rename files, and storages have no names."""
    assert read('{"text": "a,b"}', name) == [Record(1, {"text": "a,b"}, None)]
    assert read("messageId,text\n1,a", name) == [Record(2, {"messageId": "1", "text": "a"}, None)]
    assert read(gzip.compress(b"messageId,text\n1,a", mtime=0), name)[0].row == 2


@pytest.mark.parametrize("name", ["old.ndjson", "old.JSONL", "old.json.gz"])
def test_the_name_counts_where_the_first_line_tells_nothing(name: str) -> None:
    """One broken first line makes no CSV of JSON lines."""
    assert [(each.row, each.value) for each in read('null\n{"a": 1}', name)] == [(1, None), (2, {"a": 1})]
    assert records(io.BytesIO(b"messageId\n1")).columns == ["messageId"]


def test_the_columns_are_a_csvs_headings_as_they_are_written() -> None:
    """A byte-order mark is no part of the first one, however it is quoted."""
    assert records(io.BytesIO(b'\xef\xbb\xbf"Message ID"; text ;"a;b"\r\n')).columns == ["Message ID", " text ", "a;b"]
    assert records(io.BytesIO(b"{}")).columns is None


def test_a_header_alone_has_no_rows() -> None:
    """An export of nothing is no fault."""
    assert read(HEADER) == read("messageId,text") == []


def test_all_members_of_a_gzip_are_read() -> None:
    """Packed files that were joined with cat are one file, even in the middle of a row."""
    assert values(gzip.compress(HEADER.encode() + b"1,a\n2,", mtime=0) + gzip.compress(b"b\n3,c", mtime=0)) == [
        (2, {"messageId": "1", "text": "a"}),
        (3, {"messageId": "2", "text": "b"}),
        (4, {"messageId": "3", "text": "c"}),
    ]


def test_rows_are_numbered_as_in_a_spreadsheet() -> None:
    """A line break in quotes begins no row, and an empty row counts but is none."""
    assert [row for row, _ in values(HEADER + '1,"a\n\nb"\n\n,\n2,c\n')] == [2, 5]


def test_the_separator_that_excel_notes_is_believed_and_is_no_row() -> None:
    """Excel writes sep=; so that it can read the file everywhere, and doesn't show it."""
    assert values("sep=;\nmessageId,text;b\n1;2") == [(2, {"messageId,text": "1", "b": "2"})]


@pytest.mark.parametrize("hint", ["sep=;", '"sep=;"', "sep=;;;;", "SEP=;;"])
def test_excels_hint_is_known_however_it_was_saved_again(hint: str) -> None:
    """With the separators of empty cells behind it."""
    assert records(io.BytesIO(f"{hint}\na;b;c\n".encode())).columns == ["a", "b", "c"]


SEVEN = "messageId,threadId,sentAt,email,text,direction,channel\n"


@pytest.mark.parametrize(
    ("cell", "is_text"),
    [
        ('"On Monday, you wrote:\n> a, b, c, d, e, f, g\nok"', True),
        ('"Dear Ada,\nplums, pears, figs, nuts, jam, tea, ham,\nEve"', True),
        ('"a\n2,t,2020-01-31T09:30:00Z,bob@example.com,b,in,email\n"', False),
        ('"a\n2,t,2020-01-31T09:30:00Z,bob@example.com,""b, c"",in,email\nd"', False),
        ('"a\n,,,,,,\n"', False),
    ],
)
def test_rows_that_a_quote_has_swallowed_are_no_part_of_a_message(cell: str, is_text: bool) -> None:
    """A quote that was only text makes two strangers' texts a part of somebody's message: that row is refused."""
    before, told, after = read(f"{SEVEN}0,,,,,,\n1,t,2020,ada@example.com,{cell},in,email\n3,,,,,,")
    assert (before.problem, after.problem) == (None, None)
    assert (told.problem is None) == is_text
    assert is_text or "further rows in a quoted text" in str(told.problem)


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman", "gbk", "shift_jis"])
def test_no_encoding_is_guessed(encoding: str) -> None:
    """Converting from the wrong one garbles texts for good."""
    text = "1,ß\n" if encoding in ("cp1252", "mac_roman") else "1,中\n"
    told = wrong(HEADER.encode() + text.encode(encoding))
    assert "(line 2): save it as CSV UTF-8" in told
    assert "indows" not in told


def test_separators_in_a_quoted_heading_do_not_count() -> None:
    """The one that separates headings is meant, not the most frequent one."""
    assert records(io.BytesIO(b'"a,b,c,d";e\n')).columns == ["a,b,c,d", "e"]


def test_cells_that_a_spreadsheet_leaves_out_or_adds_at_a_rows_end_are_empty() -> None:
    """Excel writes either, depending on what is below."""
    assert values(HEADER + "1\n2,b,, \n") == [(2, {"messageId": "1"}), (3, {"messageId": "2", "text": "b"})]


def test_rows_in_which_there_are_blanks_only_are_no_rows() -> None:
    """A spreadsheet writes them where cells below the table were touched."""
    assert values(HEADER + "1,b\n , \n\t,\n2,c\n") == [
        (2, {"messageId": "1", "text": "b"}),
        (5, {"messageId": "2", "text": "c"}),
    ]


def test_the_file_is_read_from_its_start_and_stays_open() -> None:
    """It is read once to check it and once to send it."""
    file = io.BytesIO(gzip.compress(HEADER.encode() + b"1,a\n", mtime=0))
    file.seek(7)
    assert [each.row for each in records(file)] == [each.row for each in records(file)] == [2]
    assert not file.closed


def a_zip(*names: str) -> bytes:
    """Return a zip archive with files of these names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b" \r\n\r\n", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(HEADER.encode() * 99, mtime=0)[:-9], "gzip file that is cut off"),
        (gzip.compress(HEADER.encode(), mtime=0) + b"more", "gzip file that is damaged"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"\xff" * 99, "gzip file that is damaged"),
        (gzip.compress(gzip.compress(b"a", mtime=0), mtime=0), "gzip twice"),
        (a_zip("old.csv"), "a zip archive"),
        (gzip.compress(a_zip("old.csv"), mtime=0), "a zip archive"),
        (a_zip(), "a zip archive"),
        (a_zip("[Content_Types].xml", "xl/workbook.xml"), "a workbook"),
        (a_zip("Index/Document.iwa"), "a workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "a workbook"),
        (b"%PDF-1.7\n", "no text"),
        (b"BZh91AY", "packed: unpack it"),
        (b"PAR1\x15\x04", "no text"),
        (b"MZ\0\0\0\1\0\0\0", "no text"),
        ("a,b".encode("utf-32"), "UTF-32"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\n  <html lang='en'>" + b"x" * LONGEST_ROW, "a web page"),
        (b"<?xml version='1.0'?>", "XML"),
        (b'[{"messageId": 1},\n{"messageId": 2}]', "one JSON array"),
        (b'[{"messageId": 1}, "' + b"x" * 2 * LONGEST_ROW, "one JSON array"),
        (b'{\n  "messageId": 1\n}', "JSON over several lines"),
        (b'{"messages": [\n{}]}', "JSON over several lines"),
        ("messageId,text\n1,a\n2,Grüße".encode("cp1252"), "not UTF-8 (line 3): save it as CSV UTF-8"),
        (b'{"a": 1}\r\n{"a": "\x80"}', "not UTF-8 (line 2): save it as CSV UTF-8"),
        ("messageId,text".encode("utf-16")[:-1], "UTF-16 that is cut off"),
        (HEADER + '1,a\n2,"b\n3,c', "row 3 that can't be taken apart"),
        (HEADER + '1,"a,b\n2,"c",d\n', "row 2 that can't be taken apart"),
        (HEADER + '1,"' + "a\n" * (LONGEST_ROW // 2 + 1) + '"', "row 2 that can't be taken apart"),
        (HEADER + "1," + "a" * 2 * LONGEST_ROW, "row 2 that is longer than 1,000,000"),
        (HEADER + "1,x\n2,x\n" + "," * 2 * LONGEST_ROW, "row 4 that is longer than 1,000,000"),
        (HEADER + '1,a\n2,"a "b" c"\n3,c', "row 3 that can't be taken apart"),
        (HEADER + '1,a\n"2"x,c\n', "row 3 that can't be taken apart"),
        (HEADER + '1,"' + "a" * LONGEST_ROW + '\n"', "row 2 that is longer than 1,000,000"),
        (HEADER + '1,"\n' + "a" * LONGEST_ROW + '"', "row 2 that is longer than 1,000,000"),
        ('"a" b,c\n1,2', "row 1 that can't be taken apart"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # a zip holds the time when it was packed
)
def test_a_file_that_cannot_be_read_is_named(content: str | bytes, named: str) -> None:
    """The text says what it is; what is broken in the middle of the file refuses it too."""
    assert named in wrong(content)


def test_a_fault_far_into_the_file_is_found_once_the_rows_before_it_are_read() -> None:
    """The line is an editor's, so that one can go there."""
    rows = iter(records(io.BytesIO(b"messageId,text\n" + b"1,a\n" * 100_000 + b"2,\xfc\n")))
    assert next(rows).row == 2
    with pytest.raises(WrongFile, match="line 100,002"):
        list(rows)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{messageId: 1}", "is not JSON: Expecting property name enclosed in double quotes (character 2)"),
        ('{"a": 1} {"a": 2}', "is not JSON: Extra data (character 10)"),
        ('{"a": "\0"}', "is not JSON: Invalid control character at (character 8)"),
        ('{"a": "b', "is not JSON: Unterminated string starting at (character 7)"),
        ("null", "must be a JSON object"),
        ('["a"]', "must be a JSON object"),
        ('{"a": NaN}', "has NaN or Infinity in it"),
        ('{"a": [-Infinity]}', "has NaN or Infinity in it"),
        ('{"a": 1e999}', "has a number in it that is too large"),
        ('{"a": ' + "1" * 5_000 + "}", "has a number in it that is too long"),
        ('{"a": 1, "a": 1}', "has the same name twice"),
        ('{"a": {"b": 1, "b": 2}}', "has the same name twice"),
        ('{"a": ' + "[" * 100_000, "is nested too deeply"),
        ('{"a": "' + "b" * LONGEST_ROW + '"}', "is longer than 1,000,000 characters"),
    ],
)
def test_a_wrong_line_of_json_is_told_and_stops_nothing(line: str, problem: str) -> None:
    """The lines before and after it are read."""
    before, told, after = read(f'{{"b": 1}}\n{line}\n{{"b": 2}}')
    assert (before.value, after) == ({"b": 1}, Record(3, {"b": 2}, None))
    assert (told.row, told.value) == (2, None)
    assert told.problem is not None
    assert told.problem.startswith(problem)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1,a,b", "has 3 cells, the header only 2"),
        ("1,a\0", "has a NUL character"),
        ('1,"' + 'a""\n' * 2 + '",b', "has 3 cells"),
    ],
)
def test_a_wrong_row_of_a_csv_is_told_and_stops_nothing(line: str, problem: str) -> None:
    """The rows before and after it are read."""
    before, told, after = read(f"{HEADER}0,x\n{line}\n2,y\n")
    assert (before.value, after) == ({"messageId": "0", "text": "x"}, Record(4, {"messageId": "2", "text": "y"}, None))
    assert (told.row, told.value) == (3, None)
    assert told.problem is not None
    assert told.problem.startswith(problem)


def test_a_cell_longer_than_the_limit_of_pythons_csv_is_read_and_the_limit_left_alone() -> None:
    """That limit is the whole process's, in which other scripts run too."""
    limit = csv.field_size_limit()
    text = '"\n' + "a" * 2 * limit
    quoted = text.replace('"', '""')
    assert values(f'{HEADER}1,"{quoted}"\n') == [(2, {"messageId": "1", "text": text})]
    assert csv.field_size_limit() == limit


def test_quotes_in_the_middle_of_a_cell_are_text() -> None:
    """As in every spreadsheet."""
    assert values(HEADER + '1,a 5" disk\n2,b\n') == [
        (2, {"messageId": "1", "text": 'a 5" disk'}),
        (3, {"messageId": "2", "text": "b"}),
    ]


# No half characters, which no encoding has; no NUL, which is told; line breaks are all one inside a cell.
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), max_size=9) | st.text(
    '",;\n\t a', max_size=9
)


@given(data=st.data(), chunk=st.integers(4, 40), pack=st.sampled_from([bytes, gzip.compress]))
def test_what_a_csv_writer_writes_is_read_as_it_was(
    data: st.DataObject, chunk: int, pack: Callable[[bytes], bytes]
) -> None:
    """However the chunks fall that the file is read in."""
    separator, line_end = data.draw(st.sampled_from(",;\t")), data.draw(st.sampled_from(["\r\n", "\n", "\r"]))
    width = data.draw(st.integers(2, 5))
    rows = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=9))
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=separator, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    columns = [f"c{index}" for index in range(width)]
    # Lines of a text that look like rows are another test's.
    assume(all(cell.count(separator) < width - 1 or "\n" not in cell for row in rows for cell in row))
    writer.writerows([columns, *rows])
    content = written.getvalue().encode(data.draw(st.sampled_from(["utf-8-sig", "utf-16"])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "BLOCK_BYTES", chunk)
        found = values(pack(content))
    kept = [(number, row) for number, row in enumerate(rows, 2) if "".join(row).strip()]
    numbered = [(number, dict(zip(columns, row, strict=True))) for number, row in kept]
    assert found == numbered


@given(st.text('",\nab', max_size=30))
def test_a_csv_in_which_nothing_is_told_is_what_pythons_csv_reads_in_it(text: str) -> None:
    """What is read differently is never read silently."""
    content = f"x,y,z,x2,y2,z2\n{text}"
    try:
        found = read(content)
    except WrongFile:
        return
    plain = [row for row in csv.reader(io.StringIO(content, newline="")) if "".join(row).strip()][1:]
    if all(each.problem is None for each in found):
        assert [list(each.value.values()) for each in found if each.value is not None] == [row[:6] for row in plain]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=6), st.integers(4, 40))
def test_json_lines_are_read_as_they_were_written(rows: list[dict[str, Any]], chunk: int) -> None:
    """However the chunks fall that the file is read in."""
    content = "\n".join(json.dumps(row) for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "BLOCK_BYTES", chunk)
        assert values(content) == list(enumerate(rows, 1))


@given(st.binary(max_size=60) | st.text('{}[]",:;\t\r\nsep=1a\ufeff', max_size=60).map(str.encode), st.booleans())
@settings(max_examples=300)
def test_whatever_the_bytes_only_wrong_file_is_raised(content: bytes, is_packed: bool) -> None:
    """Each row has a value or a problem, and numbers only rise."""
    found: list[Record] = []
    with suppress(WrongFile):
        found = read(gzip.compress(content, mtime=0) if is_packed else content)
    assert all((each.value is None) != (each.problem is None) for each in found)
    assert [each.row for each in found] == sorted({each.row for each in found})


def peak(file: io.BytesIO) -> tuple[int, int]:
    """Return how many rows there are until the end or a fault, and how many bytes reading them took at most."""
    count = 0
    tracemalloc.start()
    with suppress(WrongFile):
        for count, _ in enumerate(records(file), 1):  # noqa: B007 - it is returned
            pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, most


def packed(parts: list[bytes]) -> io.BytesIO:
    """Return a gzip of these parts."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as pack:
        for part in parts:
            pack.write(part)
    return file


def resident(file: io.BytesIO) -> tuple[int, int]:
    """Return how many rows a file has, and how many bytes of memory this process had at most while they were read."""
    count, most = 0, 0
    for count, _ in enumerate(records(file), 1):
        if count % 1_000 == 1:
            most = max(most, int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    return count, most


@pytest.mark.parametrize("row", [b'{"messageId": "1", "text": "Hello"}\n', b'1,"Hello,\nAda"\n'])
def test_memory_stays_flat_from_ten_thousand_to_three_hundred_thousand_rows(row: bytes) -> None:
    """What is held is a chunk and its rows."""
    header = HEADER.encode() if row.startswith(b"1") else b""
    short, base = resident(packed([header, row * 10_000]))
    long, most = resident(packed([header, *[row * 10_000] * 30]))
    assert (short, long) == (10_000, 300_000)
    assert most < base + 4_000_000


@pytest.mark.parametrize(
    ("start", "filling", "rows"),
    [
        (b'{"messageId": "', b"a", 1),
        (b"messageId,text\n1,", b"a", 0),
        (b"messageId,text\n1,", b",", 0),
        (b'messageId,text\n1,"\n', b"a", 0),
        (b'messageId,text\n1,"', b"\n", 0),
        (b"", b"\n", 0),
    ],
)
def test_a_gzip_bomb_takes_no_more_memory_than_a_long_row(start: bytes, filling: bytes, rows: int) -> None:
    """What is packed in ten kilobytes may unpack to any length without a line's or a cell's end."""
    count, most = peak(packed([start, *[filling * 1_000_000] * (3 if filling == b"\n" else 100)]))
    assert count == rows
    assert most < 15_000_000
