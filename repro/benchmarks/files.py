"""Reading data files: whatever is wrong becomes a ``DataError`` that says what, where, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from repro.benchmarks.benchmark import DataError, Item


def read_text(path: Path) -> str:
    """The UTF-8 text of a file; ``DataError`` if it is missing, unreadable or in another encoding."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"missing file {path}: put the published file there, or point the data directory elsewhere"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8; expected the published UTF-8 text: download it again"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; expected a readable file") from None


def _parse(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataError(
            f"{path}, line {line}, column {error.colno}: not JSON ({error.msg}); expected the published "
            "file: it may be cut short, download it again"
        ) from None
    except (ValueError, RecursionError) as error:  # numbers or brackets without end
        raise DataError(f"{path}, from line {first_line}: {error}; expected the published file") from None


def read_json(path: Path, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """The object, or the list, of a JSON file."""
    value = _parse(read_text(path), path, 1)
    if not isinstance(value, kind):
        expected = "a JSON object" if kind is dict else "a list"
        raise DataError(f"{path}: holds a {type(value).__name__}; expected {expected}: check the file")
    return value


def read_json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with its place ("FILE, line N"); blank lines are passed over."""
    rows = []
    # Not splitlines(): it also cuts at characters that JSON allows inside a string.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            value = _parse(line, path, number)
            where = f"{path}, line {number}"
            if not isinstance(value, dict):
                raise DataError(
                    f"{where}: holds a {type(value).__name__}; expected a JSON object a line: check it"
                )
            rows.append((where, value))
    return rows


def field(row: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """``row[key]``; ``DataError`` if the row is no object, lacks the key or holds another type there."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: holds a {type(row).__name__}; expected an object with {key!r}: check the file"
        )
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
    """``folder / name`` for a name from a data file; ``DataError`` if it would lead out of the folder."""
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
    seen = set()
    for one in ids:
        if one in seen:
            raise DataError(f"{where}: id {one} comes twice; expected each id once: remove one of the rows")
        seen.add(one)
