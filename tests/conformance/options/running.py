"""Runs of the suite within a test, and what they said."""

import errno
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


ONE = ("--model", "llava-1.5")


def said(result: pytest.RunResult) -> str:
    return "\n".join([*result.outlines, *result.errlines])


def audited(pytester: pytest.Pytester, report: Path) -> pytest.RunResult:
    """A few claims of the audit."""
    chosen = ROOT / "tests" / "audit" / "test_ledger.py"
    fixed = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider"]
    arguments = ["-m", "audit", "-k", "verdict and cliff", "--report", report, chosen]
    return pytester.runpytest_inprocess(*map(str, [*fixed, *arguments]))


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
