"""Replayed answers as rows of a table: each score with its interval, and the change by truncation."""

from repro.cliff import MARGIN, held_out
from repro.evaluation.answers import Replay
from repro.evaluation.breakdown import HEADER as SCORES
from repro.evaluation.breakdown import by_category
from repro.text import margin_points, visible

HEADER = ["answers", "questions", "protocol", *SCORES]


def rows(replay: Replay, margin: float = MARGIN) -> list[list[str]]:
    """A row per score; see ``repro.evaluation.breakdown.by_category``."""
    names = [visible(replay.answers, 60), replay.title, replay.task.protocol]
    return [[*names, *row] for row in by_category(replay, margin)]


def notes(replay: Replay, margin: float = MARGIN) -> list[str]:
    """What was scored, what was left out, and the margin if a cliff layer was chosen."""
    scores = replay.scores()
    paired = scores.parts.shape[1] > 1
    caveat = held_out(scores, margin).caveat if paired else ""
    return [
        f"{replay.answers}: {replay.data}",
        *([f"{replay.answers}: margin {margin_points(margin)}"] if paired else []),
        *([f"{replay.answers}: cliff layer: {caveat}"] if caveat else []),
        *(f"{replay.answers}: left out {note}" for note in replay.notes),
    ]
