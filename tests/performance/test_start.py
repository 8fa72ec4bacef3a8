"""How long pytest takes to start here, and beside this package elsewhere, over pytest in an empty project.

CPU time of processes of their own, in turns; see ``test_ratios.py``.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

pytestmark = pytest.mark.performance

ROOT = Path(__file__).resolve().parents[2]
LIGHT = "tests/invariants/test_segments.py"
TURNS = 5


def seconds(directory: Path, *arguments: str) -> float:
    """CPU time of pytest in a directory."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env=environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=300,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture
def elsewhere(tmp_path):
    """An empty project but for a test."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "tests" / "invariants").mkdir(parents=True)
    (tmp_path / LIGHT).write_text("def test():\n    pass\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--markers"], ["--model", "nonsense"], ["--collect-only", "-q", LIGHT]],
    ids=" ".join,
)
def test_starting(arguments, elsewhere, figure):
    """Where the entry point is kept out, an empty project is bare pytest."""

    def ratio() -> float:
        return seconds(ROOT, *arguments) / seconds(elsewhere, "-p", "no:repro", *arguments)

    ratio()
    measured = median(ratio() for _ in range(TURNS))
    figure(f"pytest {' '.join(arguments)} / bare pytest", measured, at_most=1.5)


def test_another_project(elsewhere, figure):
    def ratio() -> float:
        return seconds(elsewhere, "-q") / seconds(elsewhere, "-p", "no:repro", "-q")

    ratio()
    figure("another project's pytest / bare pytest", median(ratio() for _ in range(TURNS)), at_most=1.5)
