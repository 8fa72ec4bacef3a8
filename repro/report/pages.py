"""What the pages of the report share: the way they are rendered, where they are written, and their links."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from repro import text
from repro.report.columns import NAME

INDEX, AUDIT = "index.html", "audit.html"
#: Characters of a question or an answer, and of anything else that is no name.
_QUOTE, _ANY = 300, 4000
#: A link from page to page; shown while its target is there. No text can look so: its "<" is escaped.
_LINK = re.compile(rb'(<a href="(index|audit)\.html(?:#([^"]*))?")(?: hidden)?>')


class ReportError(OSError):
    """The report cannot be written; the message names the place, the reason and the way out."""


def _finalize(value: Any) -> Any:
    """Whatever a template prints passes here before it is escaped: nothing invisible, nothing endless."""
    return value if isinstance(value, Markup) else text.visible(value, _ANY)


def _source(template: str) -> str:
    return resources.files("repro.report").joinpath(template).read_text(encoding="utf-8")


def render(template: str, **values: Any) -> bytes:
    """A page from the template of this name."""
    environment = jinja2.Environment(
        autoescape=True, finalize=_finalize, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, loader=jinja2.FunctionLoader(_source),
    )  # fmt: skip
    environment.filters["name"] = lambda value: text.visible(value, NAME)
    environment.filters["quote"] = lambda value: text.visible(value, _QUOTE)
    return environment.get_template(template).render(text=text, **values).encode()


def _reason(directory: Path, error: Exception) -> str:
    for place in (directory, *directory.parents):
        if os.path.lexists(place):
            if not os.path.isdir(place):
                return f"{str(place)!r} is not a directory"
            break
    return getattr(error, "strerror", None) or str(error)


def _failure(directory: Path, error: Exception) -> ReportError:
    return ReportError(
        f"cannot write the report to {str(directory)!r}: {_reason(directory, error)}; "
        "pass another directory with --report"
    )


def _replace(path: Path, data: bytes) -> None:
    """Write under another name first, so that a reader, or a crash, never meets half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(directory: str | Path) -> None:
    """Make sure, before long work starts, that a report can be written; creates ``directory`` if missing.

    Raises:
        ReportError: a file stands in the way, permission is missing, or the disk is full or read-only.
    """
    directory = Path(directory)
    probe = directory / f".{INDEX}.{os.getpid()}.probe"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for page in (INDEX, AUDIT):
            if (directory / page).is_dir():
                raise IsADirectoryError(0, f"{page} in it is a directory")
        probe.write_bytes(b"\n")
        probe.unlink()
    except (OSError, ValueError) as error:
        raise _failure(directory, error) from error


def write(directory: Path, files: Mapping[str, bytes], stale: Iterable[str] = ()) -> None:
    """Write a page and what lies beside it, remove what is stale, and link the pages that are there.

    Raises:
        ReportError: as in ``check_writable``.
    """
    try:
        for name, data in files.items():
            _replace(directory / name, data)
        for name in stale:
            (directory / name).unlink(missing_ok=True)
        _link(directory)
    except OSError as error:
        raise _failure(directory, error) from error


def _link(directory: Path) -> None:
    """Show the links between pages whose target is there and hide the others, whichever was written first."""
    pages = {name: path.read_bytes() for name in (INDEX, AUDIT) if (path := directory / name).is_file()}

    def told(link: re.Match[bytes]) -> bytes:
        start, page, anchor = link.groups()
        target = pages.get(f"{page.decode()}.html")
        there = target is not None and (not anchor or b' id="%b"' % anchor in target)
        return start + (b">" if there else b" hidden>")

    for name, page in pages.items():
        if (linked := _LINK.sub(told, page)) != page:
            _replace(directory / name, linked)
