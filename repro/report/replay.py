"""Replayed answers as rows of a table: each figure with its interval, and what truncation changes."""

from __future__ import annotations

from repro.evaluation.answers import Replay
from repro.report.tables import FIGURES, figures
from repro.report.text import visible

HEADER = ["answers", "questions", "protocol", *FIGURES]


def rows(replay: Replay) -> list[list[str]]:
    """A row per figure; see ``repro.report.tables.figures``."""
    names = [visible(replay.answers, 60), replay.title, replay.protocol]
    return [[*names, *row] for row in figures(replay)]
