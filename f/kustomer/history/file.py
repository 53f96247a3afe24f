"""Kustomer history file.

Shared by the import of old messages, not run by itself: reads a file as offices and databases write it, CSV or a JSON
object a line, row by row, in the same memory however long it is.
"""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, NamedTuple, NoReturn

CHUNK_BYTES = 1 << 16
# 10,240 characters of a text are recorded; a row a hundred times as long is no message, and is never held whole.
LONGEST_ROW = 1_000_000


class WrongFile(Exception):
    """The file as a whole can't be read; the text says what it is and what to do, and quotes nothing of it."""


class Record(NamedTuple):
    """One row: ``row`` is its number, ``value`` what it holds by name; None if there is a ``problem`` with it.

    Of JSON lines the number is the line's in an editor, of a CSV the row's in a spreadsheet, where the header is 1 and
    a line break in quotes begins no row.
    """

    row: int
    value: dict[str, Any] | None
    problem: str | None


class Records:
    """The rows of a file, in its order, once through. ``columns`` are a CSV's headings as written, else None."""

    def __init__(self, rows: Iterator[Record], columns: list[str] | None) -> None:
        self._rows, self.columns = rows, columns

    def __iter__(self) -> Iterator[Record]:
        return self._rows

    def __next__(self) -> Record:
        return next(self._rows)


def records(file: BinaryIO, name: str = "") -> Records:
    """Return the rows of ``file``, which must be open for seeking; it is read anew from its start, and left open.

    What the file is its content tells; ``name`` counts where that leaves it open. CSV has commas, semicolons or tabs,
    told by its first line. Text is UTF-8 or UTF-16, and all of it may be gzipped. Raise WrongFile, here or while the
    rows are read, for a file that is something else, or is broken so that it is unknown where its rows end.
    """
    chunks = _chunks(file)
    head = next(chunks, b"")
    lines = _lines(_texts(chain([head], chunks), _encoding(head)))
    number, first = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), (0, ""))
    if not number:
        raise WrongFile("The file is empty: give one with a row for each message.")
    if _is_json(first, name):
        return Records(_json_records(chain([first], lines), number), None)
    if sep := re.fullmatch('(?i)"?sep=([,;|\t])"?', first):  # Excel's own hint, which it doesn't show as a row
        table, first = _Table(sep[1]), next(lines, "")
    else:
        table = _Table(max(",;\t", key=lambda each: len(_Table(each).apart(first)[0])))
    rows = table.rows(chain([first], lines), number)
    _, columns = next(rows)
    if isinstance(columns, str):
        raise WrongFile(f"The file's first row, which names the columns, {columns}.")
    return Records(_table_records(rows, columns), columns)


# How files begin: https://en.wikipedia.org/wiki/List_of_file_signatures
_GZIP = b"\x1f\x8b"
_SAVE = "open it and save the sheet as CSV UTF-8"
_UNPACK = "unpack it, or pack the file with gzip"
_NO_TEXT = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an Excel workbook (.xls, or one with a password)", _SAVE),
    b"PK\3\4": ("a zip archive", "unpack it, and give the file in it"),
    b"PK\5\6": ("an empty zip archive", "pack the file again, best with gzip"),
    _GZIP: ("packed with gzip twice", "unpack it once"),
    b"BZh": ("packed with bzip2", _UNPACK),
    b"\xfd7zXZ\0": ("packed with xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!": ("a rar archive", _UNPACK),
    b"%PDF-": ("a PDF", "export the messages as CSV or as JSON lines"),
    b"PAR1": ("a Parquet file", "export the messages as CSV or as JSON lines"),
    b"SQLite format 3\0": ("an SQLite database", "export the messages as CSV or as JSON lines"),
    codecs.BOM_UTF32_LE: ("text in UTF-32", "save it in UTF-8"),
    codecs.BOM_UTF32_BE: ("text in UTF-32", "save it in UTF-8"),
}
# What a zip archive holds that is a workbook of Excel, LibreOffice or Numbers.
_SHEETS = re.compile(rb"xl/|\[Content_Types\]\.xml|opendocument\.spreadsheet|Index/Document\.iwa")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of the file, unpacked; raise WrongFile where a gzip is cut off or damaged."""
    file.seek(0)
    packed = file.read(2) == _GZIP
    file.seek(0)
    source = gzip.GzipFile(fileobj=file, mode="rb") if packed else file
    try:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk
    except EOFError:
        raise WrongFile("The gzip file is cut off: copy or export it again.") from None
    except (gzip.BadGzipFile, zlib.error):
        raise WrongFile("The gzip file is damaged: copy or export it again.") from None


def _encoding(head: bytes) -> str:
    """Return in which encoding a file that begins so is; raise WrongFile where it is no text at all."""
    for start, (what, to_do) in _NO_TEXT.items():
        if head.startswith(start):
            if start.startswith(b"PK") and _SHEETS.search(head):
                what, to_do = "a workbook (.xlsx, .ods or .numbers)", _SAVE
            raise WrongFile(f"The file is {what}: {to_do}.")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark the zeros tell, as what a file begins with is ASCII: a heading's name, or {"
    if re.match(rb"([^\0]\0){2}", head):
        return "utf-16-le"
    if re.match(rb"(\0[^\0]){2}", head):
        return "utf-16-be"
    if b"\0" in head[:1_000].partition(b"\n")[0]:
        raise WrongFile("The file is no text: export the messages as CSV or as JSON lines.")
    return "utf-8-sig"


def _texts(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Yield what the bytes say, each line end (CRLF, LF or CR, as in an editor) as one ``\\n``."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    before = 0
    for chunk in chain(chunks, [b""]):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line = 1 + before + len(re.findall(rb"\r\n?|\n", error.object[: error.start]))
            raise _not_decoded(encoding, line) from None
        before += text.count("\n")
        yield text


def _not_decoded(encoding: str, line: int) -> WrongFile:
    if encoding.startswith("utf-16"):
        return WrongFile("The file is UTF-16 that is cut off or damaged: copy or export it again, best in UTF-8.")
    return WrongFile(
        f"The file is not UTF-8 (line {line:,}), but likely Windows-1252, which Excel's plain CSV is too: save it as "
        "CSV UTF-8, or convert it with iconv -f WINDOWS-1252 -t UTF-8."
    )


class _TooLong(str):
    """The beginning of a line too long to be held; ``odd`` tells whether the whole has an odd number of quotes."""

    odd: bool


def _too_long(line: str, dropped: int) -> _TooLong:
    found = _TooLong(line[:_KEPT])
    found.odd = (dropped + line.count('"')) % 2 == 1
    return found


# What is kept of a line that is too long: enough to tell a web page or a JSON array by.
_KEPT = 1_000


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a text without their ends; str.splitlines would know more ends than editors do."""
    rest = ""
    dropped: int | None = None  # how many quotes were in what was dropped of this line
    for text in texts:
        lines = (rest + text).split("\n")
        rest = lines.pop()
        if lines and (dropped is not None or len(lines[0]) > LONGEST_ROW):
            lines[0], dropped = _too_long(lines[0], dropped or 0), None
        if len(rest) > LONGEST_ROW:
            rest, dropped = rest[:_KEPT], (dropped or 0) + rest.count('"', _KEPT)
        yield from lines
    if rest:
        yield rest if dropped is None else _too_long(rest, dropped)


_ROW_TOO_LONG = f"is longer than {LONGEST_ROW:,} characters: shorten its text, or attach it as a file"


def _is_json(first: str, name: str) -> bool:
    """Tell by its first line whether a file is JSON lines, else CSV; raise WrongFile where it is neither."""
    start = first.strip()
    if start.startswith("<"):
        what = "a web page" if re.match(r"(?i)<(!doctype )?html|<head", start) else "XML"
        raise WrongFile(f"The file is {what}: export the messages as CSV or as JSON lines, and give what was saved.")
    if start.startswith("["):
        raise WrongFile("The file is one JSON array: write each object on a line of its own, as jq -c '.[]' does.")
    if start.startswith("{"):
        if start[-1] in "{[" and not isinstance(first, _TooLong):
            raise WrongFile("The file has JSON over several lines: write each object on one line, as jq -c . does.")
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
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _NotJson("has the same name twice in one object")
    return found


# JSON as the standard has it: raises ValueError, or RecursionError for what is nested too deeply.
decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_name_twice).decode


def _json_records(lines: Iterator[str], number: int) -> Iterator[Record]:
    for row, line in enumerate(lines, number):
        try:
            value = decode(line)
        except (ValueError, RecursionError) as error:
            if problem := _not_json(line, error):
                yield Record(row, None, problem)
            continue
        if isinstance(value, dict):
            yield Record(row, value, None)
        else:
            yield Record(row, None, 'must be a JSON object, such as {"messageId": "1"}')


def _not_json(line: str, error: Exception) -> str | None:
    """Return what is wrong with a line, without quoting it; None for a blank one."""
    if isinstance(line, _TooLong):
        return _ROW_TOO_LONG
    if not line.strip():
        return None
    if isinstance(error, RecursionError):
        return "is nested too deeply: use fewer levels"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg.partition(':')[0]} (character {error.pos + 1:,})"
    return str(error) if isinstance(error, _NotJson) else "has a number in it that is too long"


_QUOTE = 'has a quote inside a quoted text: write it twice, as in "a 5"" disk"'
# What a quoted cell holds: a quote in it is written twice.
_QUOTED = '[^"]*+(?:""[^"]*+)*+'
_OPEN = re.compile(f'"{_QUOTED}').fullmatch
_CLOSED = re.compile(f'({_QUOTED})" *').match


class _Table:
    """Takes the lines of a CSV apart by ``separator``.

    A quote counts at the start of a cell only, as in spreadsheets. Python's csv isn't used, as its limit for the length
    of a cell is the whole process's, and it doesn't tell a quote that is never closed.
    """

    def __init__(self, separator: str) -> None:
        self.separator = separator
        each = re.escape(separator)
        # A cell in quotes, a plain one, or a quote that isn't closed in this line or is followed by something.
        self._cell = re.compile(f'(?s)(?:"({_QUOTED})" *+|([^"{each}][^{each}]*+|)){each}|(.+)')

    def apart(self, line: str) -> tuple[list[str], str]:
        """Return the cells of a line, and the rest of it from a quote on that is not closed as it should be."""
        found = self._cell.findall(line + self.separator)
        rest = found.pop()[2][:-1] if found[-1][2] else ""
        return [plain or quoted.replace('""', '"') for quoted, plain, _ in found], rest

    def rows(self, lines: Iterator[str], number: int) -> Iterator[tuple[int, list[str] | str]]:
        """Yield each row with its number: its cells, or what is wrong with it."""
        # The lines that a quoted cell takes besides are not enumerated: they are no rows.
        for row, line in enumerate(lines, number):
            if '"' not in line and not isinstance(line, _TooLong):
                yield row, line.split(self.separator)
            elif not isinstance(line, _TooLong):
                yield row, self._quoted(line, lines, row)
            elif line.odd:
                raise _never_closed(row)
            else:
                yield row, _ROW_TOO_LONG

    def _quoted(self, line: str, lines: Iterator[str], row: int) -> list[str] | str:
        """Return the cells of a row with quotes in it, which may go on over further lines."""
        cells, rest = self.apart(line)
        room = LONGEST_ROW - len(line)
        while rest:
            if not _OPEN(rest):
                return _QUOTE  # in this line only, so that the next one is a row again
            held = [rest[1:]]
            after = _closed(held, lines, room)
            # Something behind the quote tells that it is another cell's, and opens that.
            if after is None or not after.startswith((self.separator, "\n")):
                raise _never_closed(row)
            text = "\n".join(held)
            cells.append(text.replace('""', '"'))
            room -= len(text) + len(after)
            more, rest = self.apart(after[1:-1]) if after != "\n" else ([], "")
            cells += more
        return cells


def _closed(held: list[str], lines: Iterator[str], room: int) -> str | None:
    """Add to ``held`` the lines of a quoted cell, and return what is behind its quote up to and with the line's end.

    Return None where no quote comes within ``room`` characters.
    """
    for line in lines:
        room -= len(line) + 1
        if room < 0 or isinstance(line, _TooLong):
            return None
        if '"' in line and (found := _CLOSED(line)):
            held.append(found[1])
            return f"{line[found.end() :]}\n"
        held.append(line)
    return None


def _never_closed(row: int) -> WrongFile:
    return WrongFile(
        f"The file's row {row:,} opens a quote that is not closed, at least not as it should be: close it, and write "
        f"quotes inside a quoted text twice. A row has at most {LONGEST_ROW:,} characters."
    )


def _table_records(rows: Iterator[tuple[int, list[str] | str]], columns: list[str]) -> Iterator[Record]:
    width = len(columns)
    for row, cells in rows:
        if isinstance(cells, str):
            yield Record(row, None, cells)
        elif len(cells) > width and any(map(str.strip, cells[width:])):
            more = f"has {len(cells):,} cells, the header only {width:,}"
            yield Record(row, None, f"{more}: a text with the separator in it must stand in quotes")
        elif "\0" in "".join(cells):
            yield Record(row, None, "has a NUL character in it: export the file again")
        elif any(map(str.strip, cells)):
            # A spreadsheet may leave out the separators of empty cells at a row's end.
            yield Record(row, dict(zip(columns, cells, strict=False)), None)
