"""Reading and checking data files: errors are a ``DataError`` that says what is wrong, where, and what to do."""

import hashlib
import json
import reprlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from repro.benchmarks.benchmark import DataError, Item
from repro.reading import read_file

#: x, y, width, height in pixels of an image file.
Box = tuple[float, float, float, float]


def read_bytes(path: Path) -> bytes:
    """The content of a file; ``DataError`` if it is missing or unreadable."""
    try:
        return read_file(path)
    except FileNotFoundError:
        message = f"missing file {path}: put the published file there, or point the data directory elsewhere"
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}; expected a readable file"
    raise DataError(message)


def read_text(path: Path) -> str:
    """The UTF-8 text of a file without its BOM; ``DataError`` if it is missing, unreadable or not UTF-8."""
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        way = "save it as UTF-8" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "download it again"
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8; expected the published UTF-8 text: {way}"
        ) from None


def _parse(text: str, path: Path, first_line: int, following: Sequence[str] = ()) -> Any:
    """The value of a text; ``following`` are the lines behind it, which it should not need."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataError(
            f"{path}, line {line}, column {error.colno}: not JSON ({error.msg}); "
            f"{_expected(text, error, following)}"
        ) from None
    except (ValueError, RecursionError) as error:  # endless numbers or brackets
        raise DataError(f"{path}, from line {first_line}: {error}; expected the published file") from None


def _expected(text: str, error: json.JSONDecodeError, following: Sequence[str]) -> str:
    """What was expected in place of a text that is not JSON, and what to do."""
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        if following and _is_json("\n".join((text, *following))):
            return "expected an object on each line, not over several: `jq -c . FILE` writes it so"
        return "expected the published file: it may be cut short, download it again"
    if error.msg == "Extra data":
        return "expected a single JSON value: use the published file, unconverted"
    first = text.lstrip().partition("\n")[0]
    if first[0] not in "{[" and ("," in first or "\t" in first):
        return f"expected JSON, not a table that begins {first!r:.60}: use the published file, unconverted"
    return "expected the published file: use it unconverted and unedited"


def _is_json(text: str) -> bool:
    """Whether a text begins with a JSON value."""
    try:
        json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def read_json(path: Path, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """The object, or the list, of a JSON file."""
    value = _parse(read_text(path), path, 1)
    _require(value, kind, path, "a JSON object" if kind is dict else "a list")
    return value


def _require(value: Any, kind: type, where: Path | str, expected: str) -> None:
    if not isinstance(value, kind):
        raise DataError(f"{where}: holds a {type(value).__name__}; expected {expected}: check the file")


def read_json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, or of a JSON list, each with its place; blank lines are skipped.

    A place is "FILE, line N", in a list "FILE, row N", counted from 1.
    """
    text, rows = read_text(path), []
    if text.lstrip().startswith("["):
        values = _parse(text, path, 1)
        if all(isinstance(value, dict) for value in values):
            return [(f"{path}, row {number}", value) for number, value in enumerate(values, 1)]
    # Not splitlines(), which also splits at characters that JSON allows inside a string.
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            value, where = _parse(line, path, number, lines[number:]), f"{path}, line {number}"
            _require(value, dict, where, "a JSON object on each line")
            rows.append((where, value))
    return rows


def question_files(name: str, data: Path, answers: Path) -> list[Path]:
    """The files of a name in the folder of recorded answers and in those of the data directory, each once."""
    paths = [answers / name, *sorted(data.glob(f"*/{name}"))]
    return list({path.resolve(): path for path in paths if path.is_file()}.values())


def field(row: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """``row[key]``; ``DataError`` if the row is no object, lacks the key or holds another type there."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
    _require(row, dict, where, f"an object with {key!r}")
    if key not in row:
        raise DataError(
            f"{where}: no {key!r}, only {', '.join(map(repr, sorted(row))) or 'an empty object'}; expected "
            f"{key!r} ({expected}): use the published file, unconverted"
        )
    value = row[key]
    # JSON's true and false are ints to Python, but never an id or an index.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        # Of nested values repr() shows all, or fails.
        raise DataError(f"{where}: {key!r} is {reprlib.repr(value)}; expected {expected}: correct the row")
    return value


def strings(row: Any, key: str, where: str) -> tuple[str, ...]:
    """``row[key]`` as a list of strings."""
    values = field(row, key, list, where)
    for value in values:
        if not isinstance(value, str):
            raise DataError(
                f"{where}: {key!r} holds {reprlib.repr(value)}; expected strings only: correct the row"
            )
    return tuple(values)


def box(row: Any, key: str, where: str) -> Box:
    """``row[key]`` as a box."""
    values: Any = field(row, key, list, where)
    if len(values) != 4 or not all(type(value) in (int, float) and 0 <= value < 1e6 for value in values):
        raise DataError(
            f"{where}: {key!r:.60} is {reprlib.repr(values)}; expected x, y, width and height in pixels: "
            "correct it, or remove the file to have no heat compared with boxes"
        )
    return values


def inside(folder: Path, name: str, where: str) -> Path:
    """``folder / name`` for a name from a data file; ``DataError`` if it leads out of the folder."""
    _require_text(name, f"{where}: image name")
    parts = PurePosixPath(name).parts
    foreign = "\\" in name or bool(PureWindowsPath(name).drive) or "\0" in name
    if not parts or foreign or name.startswith("/") or ".." in parts:
        raise DataError(
            f"{where}: image name {name!r} leads outside {folder}; expected a plain relative name: "
            "do not use this file unless you trust its source"
        )
    return folder / name


def checked(items: Sequence[Item], where: Path | str) -> list[Item]:
    """The items; ``DataError`` if there are none, two share an id, or a text cannot be written."""
    if not items:
        raise DataError(f"{where}: no rows to ask; expected at least one image question: check the file")
    for item in items:
        for text in (item.id, item.question, item.hint, item.kind, *item.choices):
            _require_text(text, f"{where}: {item.id!r:.60}")
    unique((item.id for item in items), str(where))
    return list(items)


def _require_text(text: str, where: str) -> None:
    """``DataError`` for half of a surrogate pair, which JSON can spell and no file, console or tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: character {error.start} of {text!r:.100} is half of a surrogate pair; expected text: use "
            "the published file, or remove the row"
        ) from None


def unique(ids: Iterable[object], where: str) -> None:
    """``DataError`` naming the first id that comes twice."""
    for id, count in Counter(ids).items():
        if count > 1:
            raise DataError(f"{where}: id {id} comes twice; expected each id once: remove one of the rows")


def digest(lines: Iterable[str]) -> str:
    """Identifies a collection of lines in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
