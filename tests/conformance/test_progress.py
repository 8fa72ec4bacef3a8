"""What is done reaches the terminal although pytest captures output, from workers, too."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repro.pytest_plugin.progress import Board, Cell, line_of

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]


def test_a_line_has_items_done_items_per_second_and_the_time_left():
    state = {"title": "llava-1.5 pope", "done": 140, "total": 600, "known": 20, "started": 100.0}
    shown = "llava-1.5 pope: 140 of 600 items (20 from before), 4.0 items/s, 1:55 left"
    assert line_of(state, 130.0) == shown
    assert line_of(state | {"done": 20}, 130.0) == "llava-1.5 pope: 20 of 600 items (20 from before)"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_for_all_cells_which_goes_when_they_end(monkeypatch):
    board = Board()
    board.terminal = terminal = Terminal()
    one, other = Cell(board.folder), Cell(board.folder)
    one("a pope", 3, 10, 0)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    other("b \x1bchair", 1, 5, 0)
    assert len(board.lines()) == 2
    waited = iter([False, True])
    monkeypatch.setattr(board.over, "wait", lambda seconds: next(waited))
    board._show()
    assert " | " in terminal.getvalue() and "a pope: 3 of 10 items" in terminal.getvalue()
    assert "b ␛chair: 1 of 5 items" in terminal.getvalue() and terminal.getvalue().endswith("\r\x1b[K")
    one.end()
    other.end()
    assert board.lines() == []
    board.pytest_unconfigure()
    assert not board.folder.exists()


@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_progress_of_a_test_reaches_stderr(pytester, workers):
    pytester.makepyfile(
        dense="import repro.pytest_plugin.progress as p\np.SPARSE = 0.0\n",
        test_it="""
        import time

        def test_it(progress):
            progress("llava-1.5 pope", 3, 10, 0)
            time.sleep(2)
        """,
    )
    command = [sys.executable, "-m", "pytest", "-p", "repro.pytest_plugin.suite", "-p", "dense", *workers]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{pytester.path}"}
    done = subprocess.run(
        command, cwd=pytester.path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "llava-1.5 pope: 3 of 10 items" in done.stderr and "3 of 10" not in done.stdout
