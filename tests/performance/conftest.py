"""The table of measured ratios at the end of a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Note a measured ratio for the table; assert it, unless it is only there to compare with."""

    def check(name: str, measured: float, at_most: float | None = None) -> None:
        record_property("figure", [name, measured, at_most])
        assert at_most is None or measured <= at_most, (
            f"{name}: {measured:.3f}; at most {at_most:.3f} allowed"
        )

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if not rows:
        return
    terminalreporter.write_sep("-", "figures: CPU time of one thread as a ratio, or memory where it says so")
    width = max(len(name) for name, _, _ in rows)
    terminalreporter.write_line(f"{'figure':{width}}  {'measured':>8}  {'at most':>8}")
    for name, measured, at_most in rows:
        limit = "" if at_most is None else f"{at_most:.3f}"
        terminalreporter.write_line(f"{name:{width}}  {measured:8.3f}  {limit:>8}")
