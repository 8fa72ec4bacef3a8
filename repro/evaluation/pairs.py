"""Two sides' answers to the same items, one beside the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repro.benchmarks.benchmark import Item, image_names
from repro.cliff import UndefinedScore, cliff_layer
from repro.protocols.task import Task
from repro.scores import Scores, TooFew


@dataclass(frozen=True, eq=False)
class Side:
    """Answers to n items at L = 0...N.

    Attributes:
        parts: by metric, float64 [n, N + 1, 2].
        answers: texts [n][N + 1]; ``ids`` their token ids, of which only equality matters.
    """

    parts: Mapping[str, np.ndarray]
    answers: Sequence[Sequence[str]]
    ids: Sequence[Sequence[str]]


def cliff_of(scores: Scores) -> tuple[int, int, int] | None:
    """The cliff layer and the ends of its interval; None where the score is undefined or items are too few."""
    try:
        cliff = cliff_layer(scores)
    except (UndefinedScore, TooFew):
        return None
    return cliff.layer, *cliff.interval


def flips(task: Task, items: Sequence[Item], before: Side, after: Side) -> list[dict[str, Any]]:
    """Items whose untruncated answer or score is another, with both answers at every L: those that lost first."""
    goodness = [task.scores(items, side.parts).goodness[:, -1] for side in (before, after)]
    found = []
    for i, item in enumerate(items):
        if before.ids[i][-1] == after.ids[i][-1] and goodness[0][i] == goodness[1][i]:
            continue
        found.append(
            {
                "item": item.id,
                "image": image_names([item])[0],
                "picture": item.image,
                "question": task.ask(item),
                "reference": str(item.reference),
                "before": list(before.answers[i]),
                "after": list(after.answers[i]),
                "gain": float(goodness[1][i] - goodness[0][i]),
            }
        )
    return sorted(found, key=lambda flip: flip["gain"])
