"""Text files as rows of cells: how the text is encoded, what separates the cells, what quotes them.

Files are read as spreadsheets and statistics programs write them; nothing is asked. Of comma,
semicolon, tab and | the delimiter is the one that splits the header and the first rows alike, in
the order given where several do.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import NamedTuple

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}

_FIRST_ROWS = 20  # lines that the choice of the delimiter looks at
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Row(NamedTuple):
    """The cells of a row, and the line of the file in which it begins, counted from 1."""

    line: int
    cells: list[str]


def read_rows(path: Path) -> tuple[list[Row], str]:
    """The rows that are not blank, cells without the spaces around them; and the delimiter.

    Raises:
        ValueError: the file cannot be read, is no text, or has a quote that is not closed.
    """
    lines = list(io.StringIO(_text(path), newline=""))
    # Excel's first line may be no row, but name the delimiter.
    named = re.fullmatch(r'"?sep=([^\w\s"]|\t)"?', lines[0].rstrip("\r\n"), re.I) if lines else None
    before = 1 if named else 0
    delimiter = named[1] if named else _delimiter(lines[:_FIRST_ROWS])
    # Strict, or a quote that is not closed would swallow what follows.
    reader = csv.reader(lines[before:], delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, line = [], before + 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append(Row(line, cells))
            line = before + reader.line_num + 1
    except csv.Error as error:
        if "limit" in str(error):
            fault = f"a cell of more than {csv.field_size_limit()} characters"
        else:
            fault = "a quote that is not closed at the end of its cell"
        raise ValueError(
            f"line {line} of {path} has {fault}: close the quote, write a quote inside of quotes "
            "twice, and separate the columns by commas."
        ) from None
    return rows, delimiter


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: check its path.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): give a readable CSV file.") from error
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} of {path} is no {encoding.upper()} text: save the table as CSV UTF-8."
        ) from None
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes, so it is no text: save it as CSV UTF-8.")
    return text


def _delimiter(lines: list[str]) -> str:
    """The first of those that give the header most cells, rather those that rows agree with."""

    def fitness(delimiter: str) -> tuple[bool, bool, int]:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        try:
            widths = [len(cells) for cells in reader if any(map(str.strip, cells))]
        except csv.Error:  # a cell longer than the reader takes
            widths = []
        header = widths[0] if widths else 0
        # Rows may have names of their own, or a delimiter at the end.
        alike = len(set(widths[1:])) == 1 and widths[1] - header in (0, 1)
        return header > 1, alike, header

    return max(DELIMITERS, key=fitness)
