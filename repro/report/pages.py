"""What the pages of the report share: rendering, writing, links, and the facts about a session."""

import base64
import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from repro import text
from repro.reading import write_file

INDEX, AUDIT = "index.html", "audit.html"
#: Characters of a name, of a question or an answer, and of anything else.
NAME, _QUOTE, _ANY = 60, 300, 4000
#: A link from page to page; shown while its target exists. No text can look like it: its "<" is escaped.
_LINK = re.compile(rb'(<a href="(index|audit)\.html(?:#([^"]*))?")(?: hidden)?>')


class ReportError(OSError):
    """The report cannot be written; the message names the place, the reason and the way out."""


def _finalize(value: Any) -> Any:
    """Applied to whatever a template prints, before it is escaped: nothing invisible, nothing endless."""
    return value if isinstance(value, Markup) else text.visible(value, _ANY)


@cache
def _templates() -> jinja2.Environment:
    """All templates, each compiled once."""
    templates = jinja2.Environment(
        autoescape=True, finalize=_finalize, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, loader=jinja2.PackageLoader("repro.report", ""),
    )  # fmt: skip
    templates.filters["csv"] = csv_uri
    templates.filters["enumerated"] = lambda values: [[i, value] for i, value in enumerate(values)]
    templates.filters["name"] = lambda value: text.visible(value, NAME)
    templates.filters["quote"] = lambda value: text.visible(value, _QUOTE)
    return templates


def render(template: str, **values: Any) -> bytes:
    """A page from the template of this name."""
    page = _templates().get_template(template).render(text=text, script=script(), **values)
    return page.encode()


@cache
def script() -> tuple[Markup, Markup]:
    """The script of all pages, and its digest: a page's policy allows this script and no other."""
    source = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    return Markup(source), Markup(base64.b64encode(sha256(source.encode()).digest()).decode())


def data_uri(image: bytes) -> Markup:
    """A PNG or JPEG as an address that holds it, for pages without files beside them."""
    kind = "jpeg" if image.startswith(b"\xff\xd8") else "png"
    return Markup(f"data:image/{kind};base64," + base64.b64encode(image).decode())


def csv_uri(rows: Sequence[Sequence[object]]) -> Markup:
    """Rows as an address that holds them as CSV; no cell can start a formula of a spreadsheet."""

    def cell(value: object) -> str:
        shown = str(value)
        formula = shown[:1] in ("=", "@", "\t", "\r") or (
            shown[:1] in ("+", "-") and not shown[1:2].isdigit()
        )
        return text.visible(f"'{shown}" if formula else shown, _ANY)

    file = StringIO()
    csv.writer(file).writerows([[cell(value) for value in row] for row in rows])
    return Markup("data:text/csv;charset=utf-8," + quote(file.getvalue()))


def _failure(directory: Path, error: Exception) -> ReportError:
    reason = getattr(error, "strerror", None) or str(error)
    existing = next(filter(os.path.lexists, (directory, *directory.parents)))
    if not os.path.isdir(existing):
        reason = f"{str(existing)!r} is not a directory"
    return ReportError(
        f"cannot write the report to {str(directory)!r}: {reason}; pass another directory with --report"
    )


def check_writable(directory: str | Path) -> None:
    """Check, before long work starts, that a report can be written; creates ``directory`` if missing.

    Raises:
        ReportError: a file is in the way, permission is missing, or the disk is full or read-only.
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
    """Write a page and its files, remove stale ones, and link the pages; ReportError as in ``check_writable``."""
    try:
        for name, data in files.items():
            write_file(directory / name, data)
        for name in stale:
            (directory / name).unlink(missing_ok=True)
        _link(directory)
    except OSError as error:
        raise _failure(directory, error) from error


def _link(directory: Path) -> None:
    """Show the links between pages whose target exists and hide the others, whichever was written first."""
    pages = {name: path.read_bytes() for name in (INDEX, AUDIT) if (path := directory / name).is_file()}

    def shown_or_hidden(link: re.Match[bytes]) -> bytes:
        start, page, anchor = link.groups()
        target = pages.get(f"{page.decode()}.html")
        exists = target is not None and (not anchor or b' id="%b"' % anchor in target)
        return start + (b">" if exists else b" hidden>")

    for name, page in pages.items():
        if (linked := _LINK.sub(shown_or_hidden, page)) != page:
            write_file(directory / name, linked)
