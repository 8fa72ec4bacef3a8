"""The table of ``-m fullsize`` at the end of a run."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            if name != "fullsize":
                continue
            title, rows = value
            terminalreporter.write_sep("-", f"{title}: seconds, peak of resident memory (GiB)")
            for step, seconds, peak, note in rows:
                terminalreporter.write_line(f"{step:32} {seconds:8.1f} {peak:8.2f}  {note}")
