"""Kustomer history file.

Shared by the import of old messages, not run by itself: reads a file as offices and databases write it, CSV or a JSON
object a line, row by row, in the same memory however long it is.
"""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, NamedTuple, NoReturn

BLOCK_BYTES = 1 << 16
# 10,240 characters of a text are recorded; a row a hundred times as long is no message, and is never held whole.
LONGEST_ROW = 1_000_000
_TOO_LONG = f"is longer than {LONGEST_ROW:,} characters: shorten its text, or attach it as a file"


class WrongFile(Exception):
    """The file as a whole can't be read; the text says what is wrong with it and what to do, and quotes nothing."""


class Record(NamedTuple):
    """One row: ``row`` is its number, ``value`` what it holds by name; None if there is a ``problem`` with it.

    Of JSON lines the number is the line's in an editor, of a CSV the row's in a spreadsheet, where the header is 1 and
    a line break in quotes begins no row.
    """

    row: int
    value: dict[str, Any] | None
    problem: str | None


class Records:
    """The rows of a file, in its order, once through.

    ``columns`` are a CSV's headings as written, else None; ``odd_header`` says what is odd about them, if anything is.
    """

    def __init__(self, rows: Iterator[Record], columns: list[str] | None = None, odd_header: str = "") -> None:
        self._rows, self.columns, self.odd_header = rows, columns, odd_header

    def __iter__(self) -> Iterator[Record]:
        return self._rows


def records(file: BinaryIO, name: str = "") -> Records:
    """Return the rows of ``file``, which must be open for seeking; it is read anew from its start, and left open.

    What the file is its content tells; ``name`` counts where that leaves it open. CSV has commas, semicolons or tabs,
    told by its first line. Text is UTF-8 or UTF-16, and all of it may be gzipped. Raise WrongFile, here or while the
    rows are read, for a file that is something else, or is broken so that it is unknown where its rows end.
    """
    chunks = _chunks(file)
    head = next(chunks, b"")
    lines = _lines(_decoded_texts(chain([head], chunks), _encoding(head)))
    number, first = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), (0, ""))
    if not number:
        raise WrongFile("is empty: give one with a row for each message")
    if _is_json(first, name):
        return Records(_json_records(chain([first], lines), number))
    # Excel's own hint, which it doesn't show as a row; saved again, it has the separators of empty cells behind it.
    if hint := re.fullmatch(r'(?i)"?sep=([,;|\t])"?\1*', first):
        separator, first = hint[1], next(lines, "")
    else:
        separator = max(",;\t", key=lambda each: _headings(first[:_KEPT], each))
    rows = _table(chain([first], lines), separator, number)
    _, columns = next(rows)
    second = next(rows, None)
    again = chain([second] if second else [], rows)
    return Records(_table_records(again, columns, separator), columns, _odd_header(columns, second))


# How files begin: https://en.wikipedia.org/wiki/List_of_file_signatures
_GZIP = b"\x1f\x8b"
_SHEET = "a workbook: open it and save the sheet as CSV UTF-8"
_NO_TEXT = (
    # A zip archive that holds what a workbook of Excel, LibreOffice or Numbers does.
    (rb"(?s)PK\x03\x04.*(xl/|\[Content_Types\]\.xml|opendocument\.spreadsheet|Index/Document\.iwa)", _SHEET),
    (rb"\xd0\xcf\x11\xe0", _SHEET),
    (rb"PK[\x03\x05]", "a zip archive: unpack it, and give the file in it"),
    (_GZIP, "packed with gzip twice: unpack it once"),
    (rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "packed: unpack it, or pack the file with gzip"),
    (rb"%PDF-|PAR1|SQLite format 3", "no text: export the messages as CSV or as JSON lines"),
    (re.escape(codecs.BOM_UTF32_LE) + b"|" + re.escape(codecs.BOM_UTF32_BE), "text in UTF-32: save it in UTF-8"),
)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of the file, unpacked; raise WrongFile where a gzip is cut off or damaged."""
    file.seek(0)
    packed = file.read(2) == _GZIP
    file.seek(0)
    source = gzip.GzipFile(fileobj=file, mode="rb") if packed else file
    try:
        while chunk := source.read(BLOCK_BYTES):
            yield chunk
    except EOFError:
        raise WrongFile("is a gzip file that is cut off: copy or export it again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise WrongFile("is a gzip file that is damaged: copy or export it again") from None


def _encoding(head: bytes) -> str:
    """Return in which encoding a file that begins so is; raise WrongFile where it is no text at all."""
    for start, what in _NO_TEXT:
        if re.match(start, head):
            raise WrongFile(f"is {what}")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark the zeros tell, as what a file begins with is ASCII: a heading's name, or {"
    if re.match(rb"([^\0]\0){2}", head):
        return "utf-16-le"
    if re.match(rb"(\0[^\0]){2}", head):
        return "utf-16-be"
    if b"\0" in head[:1_000].partition(b"\n")[0]:
        raise WrongFile("is no text: export the messages as CSV or as JSON lines")
    return "utf-8-sig"


def _decoded_texts(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Yield what the bytes say, each line end (CRLF, LF or CR, as in an editor) as one ``\\n``."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    before = 0
    for chunk in chain(chunks, [b""]):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line = 1 + before + len(re.findall(rb"\r\n?|\n", error.object[: error.start]))
            where = f"not UTF-8 (line {line:,})" if encoding == "utf-8-sig" else "UTF-16 that is cut off or damaged"
            raise WrongFile(f"is {where}: save it as CSV UTF-8, or export it again in UTF-8") from None
        before += text.count("\n")
        yield text


class _TooLong(str):
    """The beginning of a line too long to be held."""


# What is kept of a line that is too long: enough to tell a web page or a JSON array by.
_KEPT = 1_000


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a text without their ends; str.splitlines would know more ends than editors do."""
    rest = ""
    cut = False  # whether more of this line was there than is held
    for text in texts:
        lines = (rest + text).split("\n")
        rest = lines.pop()
        if lines and (cut or len(lines[0]) > LONGEST_ROW):
            lines[0], cut = _TooLong(lines[0][:_KEPT]), False
        if len(rest) > LONGEST_ROW:
            rest, cut = rest[:_KEPT], True
        yield from lines
    if rest:
        yield _TooLong(rest) if cut else rest


def _is_json(first: str, name: str) -> bool:
    """Tell by its first line whether a file is JSON lines, else CSV; raise WrongFile where it is neither."""
    start = first.strip()
    if start.startswith("<"):
        what = "a web page" if re.match(r"(?i)<(!doctype )?html|<head", start) else "XML"
        raise WrongFile(f"is {what}: export the messages as CSV or as JSON lines, and give what was saved")
    if start.startswith("["):
        raise WrongFile("is one JSON array: write each object on a line of its own, as jq -c '.[]' does")
    if start.startswith("{"):
        if start[-1] in "{[" and not isinstance(first, _TooLong):
            raise WrongFile("has JSON over several lines: write each object on one line, as jq -c . does")
        return True
    named = re.search(r"(?i)\.(ndjson|jsonl|json)(\.gz)?$", name)
    return bool(named) and not re.search("[,;\t]", start)


class _NotJson(ValueError):
    """What is valid JSON to Python only; the text says so."""


def _no_constant(_: str) -> NoReturn:
    raise _NotJson("has NaN or Infinity in it, which is no JSON: write null")


def _finite(number: str) -> float:
    value = float(number)
    if value - value:  # infinite
        raise _NotJson("has a number in it that is too large")
    return value


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _NotJson("has the same name twice in one object")
    return value


# JSON as the standard has it: raises ValueError, or RecursionError for what is nested too deeply.
decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_name_twice).decode


def _json_records(lines: Iterator[str], number: int) -> Iterator[Record]:
    for row, line in enumerate(lines, number):
        try:
            value = decode(line)
        except (ValueError, RecursionError) as error:
            if problem := _line_problem(line, error):
                yield Record(row, None, problem)
            continue
        if isinstance(value, dict):
            yield Record(row, value, None)
        else:
            yield Record(row, None, 'must be a JSON object, such as {"messageId": "1"}')


def _line_problem(line: str, error: Exception) -> str | None:
    """Return what is wrong with a line, without quoting it; None for a blank one."""
    if isinstance(line, _TooLong):
        return _TOO_LONG
    if not line.strip():
        return None
    if isinstance(error, RecursionError):
        return "is nested too deeply: use fewer levels"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg.partition(':')[0]} (character {error.pos + 1:,})"
    return str(error) if isinstance(error, _NotJson) else "has a number in it that is too long"


def _headings(line: str, separator: str) -> int:
    """Count the cells of a line; one whose quoted text goes on in the next line counts as far as it goes."""
    return len(next(csv.reader([line], delimiter=separator), []))


def _table(lines: Iterable[str], separator: str, number: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV with its number; raise WrongFile at the first one that can't be taken apart."""
    row, room = number, LONGEST_ROW

    def fed() -> Iterator[str]:
        nonlocal room
        for line in lines:
            room -= len(line)
            if room < 0 or isinstance(line, _TooLong):
                raise WrongFile(f"has a row {row:,} that {_TOO_LONG}, and close its quotes")
            yield f"{line}\n"

    reader = csv.reader(fed(), delimiter=separator, strict=True)
    while True:
        # The limit for a cell is the whole process's, in which other scripts may run: it is another one in here only.
        others = csv.field_size_limit(LONGEST_ROW)
        try:
            cells = next(reader, None)
        except csv.Error:
            raise WrongFile(
                f"has a row {row:,} that can't be taken apart: a quote in it is not closed, or stands inside a quoted "
                'text, where it must be written twice, as in "a 5"" disk"'
            ) from None
        finally:
            csv.field_size_limit(others)
        if cells is None:
            return
        yield row, cells
        row, room = row + 1, LONGEST_ROW


def _odd_header(columns: list[str], second: tuple[int, list[str]] | None) -> str:
    """Say what the first row looks like where it is no header of these columns, else nothing."""
    names = [each for each in columns if each.strip()]
    cells = [each for each in second[1] if each.strip()] if second else []
    if len(names) == 1 and names[0].count("|") > 1:
        return "has a first row with | between its columns: save it with commas, semicolons or tabs between them"
    if len(names) < len(cells):
        shape = f"has {len(names)} cells in its first row, and {len(cells)} in the second one"
        return f"{shape}: its first row must name the columns, so take out a title above it"
    if len(names) == 1:
        return "has one column only: save it as CSV UTF-8, with commas, semicolons or tabs between the columns"
    return ""


def _table_records(rows: Iterable[tuple[int, list[str]]], columns: list[str], separator: str) -> Iterator[Record]:
    width = len(columns)
    # Between words a separator has a blank behind it, between cells it has none.
    between_cells = re.compile(f"{re.escape(separator)}(?! )").findall
    for row, cells in rows:
        if len(cells) > width and any(map(str.strip, cells[width:])):
            more = f"has {len(cells):,} cells, the header only {width:,}"
            yield Record(row, None, f"{more}: a text with the separator in it must stand in quotes")
        elif "\0" in "".join(cells):
            yield Record(row, None, "has a NUL character in it: export the file again")
        elif any(
            len(between_cells(line)) >= width - 1 > 0 for cell in cells if "\n" in cell for line in cell.split("\n")[1:]
        ):
            rows_in_it = "has further rows in a quoted text, as it seems"
            yield Record(row, None, f"{rows_in_it}: a quote at the start of a cell must be closed, or written twice")
        elif any(map(str.strip, cells)):
            # A spreadsheet may leave out the separators of empty cells at a row's end.
            yield Record(row, dict(zip(columns, cells, strict=False)), None)
