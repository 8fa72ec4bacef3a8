"""What the two pages of the report share: rendering, writing, links, and the facts about a session."""

import os
import platform
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from repro import text

INDEX, AUDIT = "index.html", "audit.html"
#: Characters of a name, of a question or an answer, and of anything else.
NAME, _QUOTE, _ANY = 60, 300, 4000
#: A link from page to page; shown while its target exists. No text can look like it: its "<" is escaped.
_LINK = re.compile(rb'(<a href="(index|audit)\.html(?:#([^"]*))?")(?: hidden)?>')


class ReportError(OSError):
    """The report cannot be written; the message names the place, the reason and the way out."""


def now() -> str:
    """Date and time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, str]:
    """What the numbers depend on, besides the code and the data."""
    # Takes a second, which checking the directory at the start of a session should not cost.
    import torch

    return {
        **{name: version(name) for name in ("torch", "transformers", "numpy", "tokenizers")},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
    }


def _finalize(value: Any) -> Any:
    """Applied to whatever a template prints, before it is escaped: nothing invisible, nothing endless."""
    return value if isinstance(value, Markup) else text.visible(value, _ANY)


def render(template: str, **values: Any) -> bytes:
    """A page from the template of this name."""
    templates = jinja2.Environment(
        autoescape=True, finalize=_finalize, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, loader=jinja2.PackageLoader("repro.report", ""),
    )  # fmt: skip
    templates.filters["name"] = lambda value: text.visible(value, NAME)
    templates.filters["quote"] = lambda value: text.visible(value, _QUOTE)
    return templates.get_template(template).render(text=text, **values).encode()


def _failure(directory: Path, error: Exception) -> ReportError:
    reason = getattr(error, "strerror", None) or str(error)
    existing = next(filter(os.path.lexists, (directory, *directory.parents)))
    if not os.path.isdir(existing):
        reason = f"{str(existing)!r} is not a directory"
    return ReportError(
        f"cannot write the report to {str(directory)!r}: {reason}; pass another directory with --report"
    )


def _replace(path: Path, data: bytes) -> None:
    """Write under another name first, so that no reader and no crash leaves half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
            _replace(directory / name, data)
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
            _replace(directory / name, linked)
