"""The report's further tables: figures with intervals and flips, by category, by kind, by length of caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from repro.benchmarks.benchmark import Item, Metric, aggregate
from repro.cliff import MARGIN, compare, halves, held_out
from repro.evaluation.answers import Replay
from repro.evaluation.run import Evaluation, image_names
from repro.models.lvlm import Lvlm
from repro.report.data import RecordedTable
from repro.report.text import percent, percent_interval, points, points_interval
from repro.statistics import flips, mcnemar, wilson

#: Columns of ``figures``, and further ones where there are answers at every truncation layer.
FIGURES = ["of", "metric", "n", "score", "95 % interval", "by"]
PAIRED = ["cliff layer", "at the cliff", "difference", "better, worse", "McNemar p"]
#: Lengths in tokens at which captions are cut; published figures are of 64 and of 512.
CAPS = (16, 32, 64, 128, 256, 512)


def tables(lvlm: Lvlm, evaluation: Evaluation) -> list[RecordedTable]:
    """All there are of one model on one benchmark."""
    title = f"{evaluation.benchmark.title}, protocol {evaluation.protocol}"
    paired = (f"{title}: figures of Table 1 by category", FIGURES + PAIRED, figures(evaluation))
    return [
        *failures(evaluation),
        paired,
        *by_stratum(evaluation),
        *by_kind(evaluation),
        *by_cap(lvlm, evaluation),
    ]


def failures(evaluation: Evaluation) -> list[RecordedTable]:
    """Items that could not be asked, and why."""
    if not evaluation.failed:
        return []
    title = f"{evaluation.benchmark.title}, protocol {evaluation.protocol}: items that failed"
    return [(title, ["item", "why"], [list(one) for one in evaluation.failed.items()])]


def figures(scored: Evaluation | Replay) -> list[list[str]]:
    """A row per figure: the columns of ``FIGURES``, and of ``PAIRED`` where there are answers at several layers.

    As in Table 1, the cliff layer comes from one half of the images, the figures from the other.

    Raises ValueError for answers at several layers to questions too few for two halves.
    """
    strata, images = np.array(scored.task.strata(scored.items)), np.array(image_names(scored.items))
    layers = next(iter(scored.parts.values())).shape[1]
    kept, at = np.ones(len(strata), dtype=bool), 0
    if layers > 1:
        metric = scored.benchmark.metrics[0]
        held = held_out(scored.parts[metric.name], strata, images.tolist(), metric.higher_is_better, MARGIN)
        kept, at = ~halves(strata, images.tolist()), held.cliff.layer
    made = []
    for name, members in groups(scored.items, scored.task.pooled):
        chosen = kept & members
        where = strata[chosen], images[chosen].tolist()
        for metric in scored.benchmark.metrics:
            pair = scored.parts[metric.name][chosen][:, [at, -1]]
            row = [name, *_figure(metric, pair, *where)]
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


def _plain(metric: Metric, pair: np.ndarray) -> bool:
    """Whether the metric is a share of right answers, of which each counts once."""
    return metric.share and bool((pair[..., 1] == 1).all())


def _figure(metric: Metric, pair: np.ndarray, strata: np.ndarray, images: list[str]) -> list[str]:
    """Metric, items, score of the second of a pair of parts [items, 2, 2], interval and its name."""
    n, interval, by = len(pair), None, "Wilson"
    if _plain(metric, pair) and len(np.unique(strata)) == 1:
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
    return [*told, f"{mcnemar(gained, lost):.3g}"] if _plain(metric, pair) else told


def by_kind(evaluation: Evaluation) -> list[RecordedTable]:
    """The first metric at every L for each kind of question by itself, where there are kinds."""
    kinds = sorted({item.kind for item in evaluation.items})
    if len(kinds) < 2:
        return []
    name = evaluation.benchmark.metrics[0].name
    parts, kind = evaluation.parts[name], np.array([item.kind for item in evaluation.items])
    header = ["kind", "n", *(f"L = {layer}" for layer in range(parts.shape[1]))]
    rows = []
    for one in kinds:
        total = parts[kind == one].sum(axis=0)
        rows.append([one, int((kind == one).sum()), *map(percent, total[:, 0] / total[:, 1])])
    return [
        (f"{evaluation.benchmark.title}: {name} (%) by kind of question, truncated after L", header, rows)
    ]


def by_stratum(evaluation: Evaluation) -> list[RecordedTable]:
    """Every metric and detail of the baseline for each stratum by itself, their mean, and all items at once."""
    strata = np.array([item.stratum for item in evaluation.items])
    if len(set(strata)) < 2:
        return []
    names = evaluation.benchmark.figures
    parts = np.stack([evaluation.parts[name][:, -1] for name in names], axis=1)
    pooled = np.zeros(len(strata))
    rows: list[list[object]] = []
    for one in np.unique(strata):
        own = strata == one
        rows.append([str(one), int(own.sum()), *map(percent, aggregate(parts[own], pooled[own]))])
    rows.append(["mean of these", len(strata), *map(percent, aggregate(parts, strata))])
    rows.append(["all at once", len(strata), *map(percent, aggregate(parts, pooled))])
    title = f"{evaluation.benchmark.title}, protocol {evaluation.protocol}: baseline (%) by category"
    return [(title, ["category", "n", *names], rows)]


def by_cap(lvlm: Lvlm, evaluation: Evaluation) -> list[RecordedTable]:
    """CHAIR of the baseline captions cut after so many tokens: what a lower cap would have given, from one run.

    A greedy caption of at most n tokens is the beginning of a longer one. Differences are to the whole captions.
    """
    if not evaluation.benchmark.name.startswith("chair"):
        return []
    lengths = [len(answer.ids) for answer in evaluation.answers]
    caps = [cap for cap in CAPS if cap < max(lengths)]
    scored = [
        [
            evaluation.task.score(item, evaluation.task.read(lvlm.decode(answer.ids[:cap]).text))
            for cap in (*caps, None)
        ]
        for item, answer in zip(evaluation.items, evaluation.answers, strict=True)
    ]
    rows: list[list[object]] = []
    for metric in evaluation.benchmark.metrics:
        parts = np.array([[part[metric.name] for part in row] for row in scored], float)
        cut = [np.stack([parts[:, i], parts[:, -1]], axis=1) for i in range(len(caps) + 1)]
        for cap, pair in zip((*caps, f"whole, at most {max(lengths)}"), cut, strict=True):
            seen = compare(pair, evaluation.strata, metric.higher_is_better, clusters=evaluation.images)
            name = f"{metric.name} {'↑' if metric.higher_is_better else '↓'}"
            interval = percent_interval((float(seen.score_low[0]), float(seen.score_high[0])))
            cut_short = sum(length > cap for length in lengths) if isinstance(cap, int) else 0
            rows.append([name, cap, cut_short, percent(float(seen.score[0])), interval])
    title = f"{evaluation.benchmark.title}, protocol {evaluation.protocol}: captions cut after so many tokens"
    return [(title, ["metric", "tokens", "captions cut", "score (%)", "95 % interval"], rows)]
