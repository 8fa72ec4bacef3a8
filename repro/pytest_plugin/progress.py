"""Progress of a session on the terminal: what every worker has done, although pytest captures output.

A cell, a model on a benchmark, keeps a small file in a folder of the session; the controller shows them all.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from repro.reading import write_file
from repro.text import printable

#: Seconds between two lines where the terminal cannot replace one, as in a log.
SPARSE = 30.0


class Cell:
    """What ``evaluate`` calls as items get done."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started, self.path = folder, time.time(), folder / "none"

    def __call__(self, title: str, done: int, total: int, known: int) -> None:
        self.path = self.folder / f"{os.getpid()}.json"
        state = {"title": title, "done": done, "total": total, "known": known, "started": self.started}
        write_file(self.path, json.dumps(state).encode())

    def end(self) -> None:
        """Nothing is left to show."""
        self.path.unlink(missing_ok=True)


def line_of(state: dict[str, Any], now: float) -> str:
    """Items done, items per second and the time left of one cell."""
    done, total, fresh = state["done"], state["total"], state["done"] - state["known"]
    line = f"{state['title']}: {done} of {total} items"
    if state["known"]:
        line += f" ({state['known']} from before)"
    if fresh > 0 and now > state["started"]:
        rate = fresh / (now - state["started"])
        left = int((total - done) / rate)
        line += f", {rate:.1f} items/s, {left // 60}:{left % 60:02d} left"
    return line


class Board:
    """Shows the cells of all workers on the terminal of the controller, from a thread of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="repro-progress-"))
        self.over = threading.Event()
        # pytest captures later; what is written here reaches the terminal all the same.
        self.terminal = os.fdopen(os.dup(sys.__stderr__.fileno()), "w") if sys.__stderr__ else None
        self.thread = threading.Thread(target=self._show, daemon=True)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["progress"] = str(self.folder)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if not session.config.getoption("--collect-only"):
            self.thread.start()

    def pytest_unconfigure(self) -> None:
        self.over.set()
        if self.thread.is_alive():
            self.thread.join(timeout=5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def lines(self) -> list[str]:
        """A line per cell that is being measured."""
        lines = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                lines.append(line_of(json.loads(path.read_bytes()), time.time()))
            except (OSError, ValueError):  # it has just ended
                continue
        return lines

    def _show(self) -> None:
        terminal, shown, last = self.terminal, False, time.monotonic()
        if terminal is None:
            return
        live = terminal.isatty()
        while not self.over.wait(0.5):
            lines = [printable(line) for line in self.lines()]
            if live and (lines or shown):
                width = shutil.get_terminal_size().columns - 1
                start = "" if shown else "\n"
                terminal.write(f"{start}\r\x1b[K{' | '.join(lines)[:width]}")
                shown = bool(lines)
            elif not live and lines and time.monotonic() - last >= SPARSE:
                terminal.write("".join(f"\n{line}" for line in lines) + "\n")
                last = time.monotonic()
            terminal.flush()
        if shown:
            terminal.write("\r\x1b[K")
            terminal.flush()
