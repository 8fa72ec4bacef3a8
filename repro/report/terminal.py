"""Plugins of pytest that show the results of a session's tests, from all workers, when it ends.

What draws and writes is imported only if there is something to show.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.chair import BY_MODE
from repro.evaluation.results import NAME as RESULTS
from repro.evaluation.results import Results, ResultsError
from repro.models.card import REGISTRY

if TYPE_CHECKING:
    from repro.evaluation.measured import Measured


class Summary:
    """Table 1 and the report of what the tests measured; runs of a session that came to its end are finished."""

    def __init__(self) -> None:
        self.measured: set[Path] = set()
        self.runs: set[int] = set()
        self.trouble = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.measured |= {Path(str(value)) for name, value in report.user_properties if name == "measured"}
        self.runs |= {int(str(value)) for name, value in report.user_properties if name == "run"}

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A session that was broken off leaves its runs open, for the next to go on."""
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if self.runs and ended and not session.shouldstop and not session.shouldfail:
            try:
                with closing(Results(session.config.getoption("--report") / RESULTS)) as results:
                    results.finish(sorted(self.runs))
            except ResultsError as error:
                self.trouble = f"the runs are not marked as finished, and go on the next time: {error}"
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        if not self.measured:
            return
        from repro.evaluation.measured import load
        from repro.report.index import build, write_report
        from repro.report.table import table_lines

        parts = sorted(map(load, self.measured), key=_table_order)
        terminalreporter.section("Table 1")
        for line in table_lines(parts):
            terminalreporter.write_line(line)
        _write(partial(write_report, build(parts, _command(config))), terminalreporter, config)
        if self.trouble:
            terminalreporter.write_line(self.trouble, red=True)


class Gates:
    """What became of the models of a gate, in the terminal and as a page."""

    def __init__(self) -> None:
        self.outcomes: set[Path] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.outcomes |= {Path(str(value)) for name, value in report.user_properties if name == "gate"}

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        if not self.outcomes:
            return
        from repro.report.gate import gate_lines, load_outcomes, write_gate

        outcomes = load_outcomes(sorted(self.outcomes))
        terminalreporter.section("Gate")
        for line in gate_lines(outcomes):
            terminalreporter.write_line(line)
        _write(partial(write_gate, outcomes, _command(config)), terminalreporter, config)


class Replays:
    """The rows of replayed answers."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.notes: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "replayed" and report.when == "call":
                rows, notes = json.loads(str(value))
                self.rows += rows
                self.notes += notes

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.rows:
            return
        from repro.evaluation.breakdown import PAIRED
        from repro.report.replay import HEADER
        from repro.text import columns

        terminalreporter.section("Table 1, recorded answers")
        header = (HEADER + PAIRED)[: max(map(len, self.rows))]
        for line in [*columns([header, *self.rows]), *self.notes]:
            terminalreporter.write_line(line)


class Ledger:
    """What became of the paper's claims, in the terminal and as a page."""

    def __init__(self) -> None:
        self.properties: list[dict[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = {name: str(value) for name, value in report.user_properties}
        if report.when == "call" and "claim" in properties:
            self.properties.append(properties)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        if not self.properties:
            return
        from repro.audit.claims import PAPER
        from repro.report.audit import broken_line, build_audit, entries, ledger_lines, write_audit

        ledger = entries(PAPER.claims, self.properties)
        terminalreporter.section("Audit of the paper's claims")
        for line in ledger_lines(ledger):
            terminalreporter.write_line(line)
        if broken := broken_line(ledger):
            terminalreporter.write_line(broken, red=True)
        _write(partial(write_audit, build_audit(PAPER, ledger, _command(config))), terminalreporter, config)


def _command(config: pytest.Config) -> str:
    return shlex.join(["pytest", *map(str, config.invocation_params.args)])


def _write(
    write: Callable[[Path], Path], terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    from repro.report.pages import ReportError

    try:
        page = write(config.getoption("--report"))
    except ReportError as error:
        terminalreporter.write_line(f"the report is not written: {error}", red=True)
        return
    terminalreporter.write_line(f"report: {page}")


def _table_order(part: Measured) -> tuple[int, int]:
    from repro.report.table import model_of

    titles = [benchmark.title for benchmark in (*BENCHMARKS.values(), *BY_MODE.values())]
    return list(REGISTRY).index(model_of(part)), titles.index(part.table[0].benchmark)
