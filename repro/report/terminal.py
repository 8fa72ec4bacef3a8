"""Plugins of pytest that show the results of a session's tests, from all workers, when it ends.

What draws and writes is imported only if there is something to show.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.chair import BY_MODE
from repro.evaluation.results import NAME as RESULTS
from repro.evaluation.results import Results, ResultsError, size_line
from repro.models.card import REGISTRY
from repro.text import columns, printable, visible

if TYPE_CHECKING:
    from repro.evaluation.measured import Measured
    from repro.evaluation.results import Recorded
    from repro.report.audit import Entry


#: Markers of tests that record something under --snapshot-update.
RECORDING = frozenset({"golden", "table1"})
#: Characters of a reason in a line.
REASON = 160


class Summary:
    """Table 1 and the report of what the tests measured.

    Runs of a session that came to its end are finished, once its report is written.
    """

    def __init__(self) -> None:
        self.measured: dict[Path, int | None] = {}
        self.resumed: list[str] = []
        self.recording = False
        self.parts: list[Measured] = []
        self.page: Written | None = None
        self.size = ""
        self.trouble = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = {name: str(value) for name, value in report.user_properties}
        if report.when == "call" and "resumed" in properties:
            self.resumed.append(properties["resumed"])
        self.recording |= not RECORDING.isdisjoint(report.keywords)
        if "measured" in properties:
            run = properties.get("run")
            self.measured[Path(properties["measured"])] = int(run) if run else None

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A session that was broken off, or whose report fails, leaves its runs open, for the next to go on."""
        if self.measured:
            self._report(session)
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        runs = sorted(run for run in self.measured.values() if run)
        if runs and ended and not session.shouldstop and not session.shouldfail:
            try:
                if self.page and self.page.failed:
                    raise ResultsError("their report is not written")
                with closing(Results(session.config.getoption("--report") / RESULTS)) as results:
                    results.finish(runs)
                    self.size = size_line(results)
            except ResultsError as error:
                open_ = f"the runs are not marked as finished, and go on the next time: {error}"
                self.trouble = "; ".join(filter(None, (self.trouble, open_)))
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _report(self, session: pytest.Session) -> None:
        """Write the report, with a page of items for each run whose answers can be read."""
        from repro.evaluation.measured import load
        from repro.report.index import build, write_report
        from repro.report.items import ItemPage, Pictures, item_page

        measured = sorted(
            ((load(path), run) for path, run in self.measured.items()), key=lambda pair: _table_order(pair[0])
        )
        self.parts = [part for part, _ in measured]
        runs: list[Recorded] = []
        lists: list[ItemPage] = []
        pages: dict[str, bytes] = {}
        option = session.config.getoption
        pictures = Pictures(option("--data"))
        try:
            with closing(Results(option("--report") / RESULTS)) as results:
                known = {run.number: run for run in results.runs()}
                for part, number in measured:
                    if number in known:
                        runs.append(known[number])
                        page, content = item_page(results, known[number], part, pictures)
                        lists.append(page)
                        pages[page.file] = content
        except ResultsError as error:
            self.trouble = f"there are no pages of items: {error}"
        report = build(self.parts, _command(session.config), runs, lists)
        self.page = _write(partial(write_report, report, pages=pages), session)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
    ) -> None:
        results = config.getoption("--report") / RESULTS
        if (
            exitstatus == pytest.ExitCode.INTERRUPTED
            and not config.getoption("--answers")
            and results.is_file()
        ):
            kept = f"broken off: {results} has the answers so far, and the same command goes on from them"
            _line(terminalreporter, kept)
            for line in _open_runs(results):
                _line(terminalreporter, line)
            _line(
                terminalreporter,
                f"to go on: {shlex.join(['pytest', *map(str, config.invocation_params.args)])}",
            )
        if config.getoption("update_snapshots", False) and not self.recording:
            nothing = (
                "--snapshot-update: nothing is recorded, as no test was run that records anything: choose"
            )
            _line(terminalreporter, f"{nothing} -m golden or -m table1", red=True)
        for line in self.resumed:
            _line(terminalreporter, f"resumed: {line} were answered before and are used again")
        if not self.page:
            return
        from repro.report.table import table_lines

        terminalreporter.section("Table 1")
        for line in table_lines(self.parts):
            _line(terminalreporter, line)
        self.page.show(terminalreporter)
        if self.size:
            kept = "those no longer wanted are removed by python -m repro.evaluation.prune"
            _line(terminalreporter, f"results: {self.size}; {kept}")
        if self.trouble:
            _line(terminalreporter, self.trouble, red=True)


def _open_runs(path: Path) -> list[str]:
    """What each unfinished run holds; nothing of a file that cannot be read."""
    try:
        with closing(Results(path)) as results:
            counts, runs = results.counts(), [run for run in results.runs() if not run.finished]
            return [
                f"kept: {run.model} on {run.dataset}, {counts.get(run.number, 0)} of {run.settings.get('n')} items"
                for run in runs
            ]
    except ResultsError:
        return []


class Reasons:
    """A line for each test that failed, which begins with the reason, in place of pytest's with its long names."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        failed = [r for key in ("failed", "error") for r in terminalreporter.stats.get(key, [])]
        if failed:
            terminalreporter.section("What failed, and why")
        for report in failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            said = crash.message if crash else str(report.longrepr or "no reason")
            reason = visible(said.removeprefix("Failed: ").strip().partition("\n")[0], REASON)
            _line(terminalreporter, f"{reason}  [{report.nodeid}]", red=True)


class Gates:
    """What became of the models of a gate, in the terminal and as a page."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.paths: set[Path] = set()
        self.failed: dict[str, str] = {}
        self.lines: list[str] = []
        self.page: Written | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """What an earlier session wrote is no answer to this one."""
        if self.wanted and not session.config.getoption("--collect-only"):
            for name in ("gate.html", "gate.json", "gate.md"):
                with suppress(OSError):  # what cannot be written is said in the end
                    (session.config.getoption("--report") / name).unlink()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        paths = {Path(str(value)) for name, value in report.user_properties if name == "gate"}
        self.paths |= paths
        if self.wanted and report.failed and "::test_gate[" in report.nodeid and not paths:
            self.failed[report.nodeid.partition("[")[2].rstrip("]")] = report.longreprtext.strip()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self.paths and not self.failed:
            return
        from repro.report.gate import gate_lines, load_outcomes, write_gate

        outcomes = load_outcomes(sorted(self.paths))
        self.lines = gate_lines(outcomes, self.failed)
        write = partial(write_gate, outcomes, _command(session.config), failed=self.failed)
        self.page = _write(write, session)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.page:
            return
        terminalreporter.section("Gate")
        for line in self.lines:
            _line(terminalreporter, line)
        self.page.show(terminalreporter)


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

        terminalreporter.section("Table 1, recorded answers")
        header = (HEADER + PAIRED)[: max(map(len, self.rows))]
        for line in [*columns([header, *self.rows]), *self.notes]:
            _line(terminalreporter, line)


class Ledger:
    """What became of the paper's claims, in the terminal and as a page."""

    def __init__(self) -> None:
        self.properties: list[dict[str, str]] = []
        self.entries: list[Entry] = []
        self.page: Written | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = {name: str(value) for name, value in report.user_properties}
        if report.when == "call" and "claim" in properties:
            self.properties.append(properties)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self.properties:
            return
        from repro.audit.claims import PAPER
        from repro.report.audit import build_audit, entries, write_audit

        self.entries = entries(PAPER.claims, self.properties)
        audit = build_audit(PAPER, self.entries, _command(session.config))
        self.page = _write(partial(write_audit, audit), session)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.page:
            return
        from repro.report.audit import broken_line, ledger_lines

        terminalreporter.section("Audit of the paper's claims")
        for line in ledger_lines(self.entries):
            _line(terminalreporter, line)
        if broken := broken_line(self.entries):
            _line(terminalreporter, broken, red=True)
        self.page.show(terminalreporter)


@dataclass(frozen=True)
class Written:
    """What became of a page: a line for the terminal, and whether writing failed."""

    line: str
    failed: bool

    def show(self, terminalreporter: pytest.TerminalReporter) -> None:
        _line(terminalreporter, self.line, red=self.failed)


def _line(terminalreporter: pytest.TerminalReporter, line: str, red: bool = False) -> None:
    """A line with names from outside: no control character of theirs reaches the terminal."""
    terminalreporter.write_line(printable(line), red=red)


def _command(config: pytest.Config) -> str:
    """The command line with DIR for places of this machine."""
    arguments = [_PLACE.sub("DIR", str(argument)) for argument in config.invocation_params.args]
    return shlex.join(["pytest", *arguments])


#: An absolute path, behind an option or a model's name, too.
_PLACE = re.compile(r"(?:(?<==)|(?<=^))(?:/|~|[A-Za-z]:\\).*$")


def _write(write: Callable[[Path], Path], session: pytest.Session) -> Written:
    """Write a page; one that cannot be written fails the session."""
    from repro.report.pages import ReportError

    try:
        return Written(f"report: {write(session.config.getoption('--report'))}", failed=False)
    except ReportError as error:
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return Written(f"the report is not written: {error}", failed=True)


def _table_order(part: Measured) -> tuple[int, int]:
    from repro.report.table import model_of

    titles = [benchmark.title for benchmark in (*BENCHMARKS.values(), *BY_MODE.values())]
    return list(REGISTRY).index(model_of(part)), titles.index(part.table[0].benchmark)
