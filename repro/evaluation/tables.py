"""Tables of text, as VLMEvalKit writes its answers: tab-separated, or the first sheet of an Excel file."""

import csv
import re
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

from repro.benchmarks.benchmark import DataError
from repro.benchmarks.files import read_bytes, read_text

#: Bytes of a sheet, unpacked.
LARGEST = 2**28
_SHEET, _STRINGS = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"


def read_table(path: Path) -> list[tuple[str, dict[str, str]]]:
    """The rows of a .tsv or .xlsx file, by the names in its first one, each with its place.

    Raises:
        DataError: it cannot be read, or is none.
    """
    try:
        if path.suffix == ".tsv":
            csv.field_size_limit(LARGEST)
            lines = list(csv.reader(StringIO(read_text(path), newline=""), delimiter="\t"))
            cells = [dict(enumerate(line)) for line in lines]
        else:
            cells = list(_sheet(read_bytes(path)))
    except (BadZipFile, KeyError, IndexError, ValueError, ElementTree.ParseError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: no table ({error}); save it as .tsv, tab-separated text in UTF-8") from None
    names = cells[0] if cells else {}
    return [
        (f"{path}, row {number}", {name: row.get(i, "") for i, name in names.items()})
        for number, row in enumerate(cells[1:], 2)
        if any(row.values())
    ]


def _sheet(content: bytes) -> Iterator[dict[int, str]]:
    """The rows of a workbook's first sheet: texts by column."""
    with ZipFile(BytesIO(content)) as book:
        strings = [_text(entry) for entry in _xml(book, _STRINGS)] if _STRINGS in book.namelist() else []
        for row in _xml(book, _SHEET).findall(".//{*}row"):
            cells = {}
            for cell in row:
                value = cell.find("{*}v")
                text = _text(cell) if value is None else value.text or ""
                cells[_column(cell.get("r", ""))] = strings[int(text)] if cell.get("t") == "s" else text
            yield cells


def _xml(book: ZipFile, name: str) -> ElementTree.Element:
    """A part of a workbook; ValueError if it is too large, or defines entities, which may grow without end."""
    if book.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} has more than {LARGEST} bytes")
    content = book.read(name)
    if b"<!" in content[:1000]:
        raise ValueError(f"{name} has a document type")
    return ElementTree.fromstring(content)


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.findall(".//{*}t"))


def _column(reference: str) -> int:
    """The number of a column, from a cell's reference: A1 is in column 1, AA1 in column 27."""
    number = 0
    for letter in re.match("[A-Z]*", reference)[0]:  # type: ignore[index]
        number = 26 * number + ord(letter) - 64
    return number
