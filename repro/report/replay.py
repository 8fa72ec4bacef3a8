"""Replayed answers as rows of a table: each figure with its interval, and what truncation changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from repro.benchmarks.benchmark import Item, Metric, aggregate
from repro.cliff import compare, halves, held_out
from repro.evaluation.answers import Replay
from repro.evaluation.run import image_names
from repro.report.sections import MARGIN
from repro.report.text import percent, percent_interval, points, points_interval, visible
from repro.statistics import flips, mcnemar, wilson

HEADER = ["answers", "questions", "protocol", "of", "metric", "n", "score", "95 % interval", "by"]
#: Further columns of the suite's own files, which have an answer at every truncation layer.
PAIRED = ["cliff layer", "at the cliff", "difference", "better, worse", "McNemar p"]


def rows(replay: Replay) -> list[list[str]]:
    """A row per figure: the columns of ``HEADER``, and of ``PAIRED`` where there are answers at several layers.

    As in Table 1, the cliff layer comes from one half of the images, the figures from the other.

    Raises ValueError for answers at several layers to questions too few for two halves.
    """
    strata, images = np.array(replay.task.strata(replay.items)), np.array(image_names(replay.items))
    layers = next(iter(replay.parts.values())).shape[1]
    kept, at = np.ones(len(strata), dtype=bool), 0
    if layers > 1:
        metric = replay.benchmark.metrics[0]
        held = held_out(replay.parts[metric.name], strata, images.tolist(), metric.higher_is_better, MARGIN)
        kept, at = ~halves(strata, images.tolist()), held.cliff.layer
    made = []
    for name, members in groups(replay.items, replay.task.pooled):
        chosen = kept & members
        where = strata[chosen], images[chosen].tolist()
        for metric in replay.benchmark.metrics:
            pair = replay.parts[metric.name][chosen][:, [at, -1]]
            row = [visible(replay.answers, 60), replay.title, replay.protocol, name]
            row += _figure(metric, pair, *where)
            if layers > 1:
                row += [f"{at} of {layers - 1}", *_change(metric, pair, *where)]
            made.append(row)
    return made


def groups(items: Sequence[Item], pooled: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Names and members (bool [items]): each category and their mean, or those with an image and all.

    Where metrics are ``pooled``, all categories at once in place of their mean.
    """
    strata = np.array([item.stratum for item in items])
    pictured = np.array([item.image is not None for item in items])
    names = list(dict.fromkeys(strata.tolist()))
    everything = np.ones(len(items), dtype=bool)
    if len(names) > 1:
        yield from ((name, strata == name) for name in names)
        yield "all" if pooled else f"mean of {len(names)}", everything
        return
    if pictured.any() and not pictured.all():
        yield "with an image", pictured
    yield "all", everything


def _plain(pair: np.ndarray) -> bool:
    """Whether answers are right or wrong, and each counts once."""
    return bool((pair[..., 1] == 1).all() and np.isin(pair[..., 0], (0, 1)).all())


def _figure(metric: Metric, pair: np.ndarray, strata: np.ndarray, images: list[str]) -> list[str]:
    """Metric, items, score of the second of a pair of parts [items, 2, 2], interval and its name."""
    n, interval, by = len(pair), None, "Wilson"
    if _plain(pair) and len(np.unique(strata)) == 1:
        interval = wilson(int(pair[:, 1, 0].sum()), n)
    else:
        by = "images resampled"
        try:
            seen = compare(pair, strata, metric.higher_is_better, clusters=images)
        except ValueError:  # too few of them to resample, or no score
            pass
        else:
            interval = float(seen.score_low[1]), float(seen.score_high[1])
    score = percent(float(aggregate(pair, strata)[1]), 2)
    name = f"{metric.name} {'↑' if metric.higher_is_better else '↓'}"
    return [name, str(n), score, percent_interval(interval, 2), by]


def _change(metric: Metric, pair: np.ndarray, strata: np.ndarray, images: list[str]) -> list[str]:
    """Score of the first of a pair, its difference to the second, flips and McNemar's p where they are defined."""
    seen = compare(pair, strata, metric.higher_is_better, clusters=images)
    ends = sorted((1 if metric.higher_is_better else -1) * float(end[0]) for end in (seen.low, seen.high))
    told = [
        percent(float(seen.score[0]), 2),
        f"{points(float(seen.score[0] - seen.score[1]))} {points_interval((ends[0], ends[1]))}",
    ]
    if not (pair[..., 1] == 1).all():
        return told
    rises, falls = flips(pair[:, 1, 0], pair[:, 0, 0])
    gained, lost = (rises, falls) if metric.higher_is_better else (falls, rises)
    told.append(f"{gained}, {lost}")
    return [*told, f"{mcnemar(gained, lost):.3g}"] if _plain(pair) else told
