"""Reading and checking data files: errors are a ``DataError`` that says what is wrong, where, and what to do."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from repro.benchmarks.benchmark import DataError, Item


def read_text(path: Path) -> str:
    """The UTF-8 text of a file; ``DataError`` if it is missing, unreadable or in another encoding."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = f"missing file {path}: put the published file there, or point the data directory elsewhere"
    except UnicodeDecodeError as error:
        message = (
            f"{path}: byte {error.start} is not UTF-8; expected the published UTF-8 text: download it again"
        )
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}; expected a readable file"
    raise DataError(message)


def _parse(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataError(
            f"{path}, line {line}, column {error.colno}: not JSON ({error.msg}); expected the published "
            "file: it may be cut short, download it again"
        ) from None
    except (ValueError, RecursionError) as error:  # endless numbers or brackets
        raise DataError(f"{path}, from line {first_line}: {error}; expected the published file") from None


def read_json(path: Path, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """The object, or the list, of a JSON file."""
    value = _parse(read_text(path), path, 1)
    _require(value, kind, path, "a JSON object" if kind is dict else "a list")
    return value


def _require(value: Any, kind: type, where: Path | str, expected: str) -> None:
    if not isinstance(value, kind):
        raise DataError(f"{where}: holds a {type(value).__name__}; expected {expected}: check the file")


def read_json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with its place ("FILE, line N"); blank lines are skipped."""
    rows = []
    # Not splitlines(), which also splits at characters that JSON allows inside a string.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            value, where = _parse(line, path, number), f"{path}, line {number}"
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
        raise DataError(f"{where}: {key!r} is {value!r}; expected {expected}: correct the row")
    return value


def strings(row: Any, key: str, where: str) -> tuple[str, ...]:
    """``row[key]`` as a list of strings."""
    values = field(row, key, list, where)
    for value in values:
        if not isinstance(value, str):
            raise DataError(f"{where}: {key!r} holds {value!r}; expected strings only: correct the row")
    return tuple(values)


def inside(folder: Path, name: str, where: str) -> Path:
    """``folder / name`` for a name from a data file; ``DataError`` if it leads out of the folder."""
    parts = PurePosixPath(name).parts
    foreign = "\\" in name or bool(PureWindowsPath(name).drive) or "\0" in name
    if not parts or foreign or name.startswith("/") or ".." in parts:
        raise DataError(
            f"{where}: image name {name!r} leads outside {folder}; expected a plain relative name: "
            "do not use this file unless you trust its source"
        )
    return folder / name


def checked(items: Sequence[Item], where: Path | str) -> list[Item]:
    """The items; ``DataError`` if there are none or two share an id."""
    if not items:
        raise DataError(f"{where}: no rows to ask; expected at least one image question: check the file")
    unique((item.id for item in items), str(where))
    return list(items)


def unique(ids: Iterable[object], where: str) -> None:
    """``DataError`` naming the first id that comes twice."""
    for id, count in Counter(ids).items():
        if count > 1:
            raise DataError(f"{where}: id {id} comes twice; expected each id once: remove one of the rows")


def digest(lines: Iterable[str]) -> str:
    """Identifies a collection of lines in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
