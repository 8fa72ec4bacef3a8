"""Scores broken down: with intervals and flips by category, by kind of question, by length of caption."""

from collections.abc import Iterator, Sequence

import numpy as np

from repro.benchmarks.benchmark import Item, Metric
from repro.cliff import HeldOut, compare, held_out
from repro.evaluation.measured import RecordedTable
from repro.evaluation.run import Evaluation
from repro.evaluation.scored import Scored
from repro.evaluation.ties import near_ties
from repro.models.lvlm import Lvlm
from repro.scores import Scores, aggregate, choosing_half
from repro.statistics import flips, mcnemar, wilson
from repro.text import arrow, margin_points, percent, percent_interval, points, points_interval

#: Columns of ``by_category``, and further ones if there are answers at every truncation layer.
HEADER = ["of", "metric", "n", "score", "95 % interval", "by"]
PAIRED = ["cliff layer", "at the cliff", "difference", "better, worse", "McNemar p"]
#: Lengths in tokens at which captions are cut; published scores are of 64 and of 512.
CAPS = (16, 32, 64, 128, 256, 512)


def tables(lvlm: Lvlm, evaluation: Evaluation, held: HeldOut) -> list[RecordedTable]:
    """All tables of one model on one benchmark, whose cliff layer is held out."""
    margin = held.cliff.margin
    title = f"{evaluation.benchmark.title}, protocol {evaluation.task.protocol}"
    failed = [list(pair) for pair in evaluation.failed.items()]
    caveat = f", cliff layer: {held.caveat}" if held.caveat else ""
    rows = by_category(evaluation, margin)
    return [
        *([(f"{title}: items that failed", ["item", "why"], failed)] if failed else []),
        (f"{title}: Table 1 by category, margin {margin_points(margin)}{caveat}", HEADER + PAIRED, rows),
        *by_stratum(evaluation),
        *by_kind(evaluation),
        *by_cap(lvlm, evaluation),
        *near_ties(lvlm, evaluation),
    ]


def by_category(scored: Scored, margin: float) -> list[list[str]]:
    """A row per score: the columns of ``HEADER``, and of ``PAIRED`` if there are answers at several layers.

    As in Table 1, the cliff layer comes from one half of the images, the scores from the other.

    Raises ValueError for answers at several layers to questions too few for two halves.
    """
    first = scored.scores()
    layers = first.parts.shape[1]
    reporting, at = np.ones(len(first), dtype=bool), 0
    if layers > 1:
        at = held_out(first, margin).cliff.layer
        reporting = ~choosing_half(first.strata, scored.images)
    rows = []
    for name, members in groups(scored.items, scored.task.pooled):
        for metric in scored.benchmark.metrics:
            pair = scored.scores(metric.name).where(reporting & members).at(at, -1)
            row = [name, *_score(metric, pair)]
            if layers > 1:
                row += [f"{at} of {layers - 1}", *_change(metric, pair)]
            rows.append(row)
    return rows


def labelled(metric: Metric) -> str:
    """A metric's name with the arrow of its direction."""
    return f"{metric.name} {arrow(metric.higher_is_better)}"


def groups(items: Sequence[Item], pooled: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Names and members (bool [items]): each category and their mean, or items with an image and all.

    If metrics are ``pooled``, all categories at once in place of their mean.
    """
    strata = np.array([item.stratum for item in items])
    with_image = np.array([item.image is not None for item in items])
    names = list(dict.fromkeys(strata.tolist()))
    every = np.ones(len(items), dtype=bool)
    if len(names) > 1:
        yield from ((name, strata == name) for name in names)
        yield "all" if pooled else f"mean of {len(names)}", every
        return
    if with_image.any() and not with_image.all():
        yield "with an image", with_image
    yield "all", every


def _is_share(metric: Metric, scores: Scores) -> bool:
    """Whether the metric is a share of right answers in which each item counts once."""
    return metric.share and bool((scores.parts[..., 1] == 1).all())


def _score(metric: Metric, pair: Scores) -> list[str]:
    """Metric, number of items, the second score of a pair of layers, its interval and the interval's name."""
    interval, method = None, "Wilson"
    if _is_share(metric, pair) and len(np.unique(pair.strata)) == 1:
        interval = wilson(int(pair.parts[:, 1, 0].sum()), len(pair))
    else:
        method = "images resampled"
        try:
            interval = compare(pair).score_interval(1)
        except ValueError:  # too few images to resample, or no score
            pass
    score = percent(float(pair.values[1]), 2)
    return [labelled(metric), str(len(pair)), score, percent_interval(interval, 2), method]


def _change(metric: Metric, pair: Scores) -> list[str]:
    """The first score of a pair, its difference to the second, flips and McNemar's p if they are defined."""
    compared = compare(pair)
    difference, interval = compared.change(0)
    cells = [percent(float(compared.score[0]), 2), f"{points(difference)} {points_interval(interval)}"]
    if not (pair.parts[..., 1] == 1).all():
        return cells
    gained, lost = flips(pair.goodness[:, 1], pair.goodness[:, 0])
    cells.append(f"{gained}, {lost}")
    return [*cells, f"{mcnemar(gained, lost):.3g}"] if _is_share(metric, pair) else cells


def by_kind(evaluation: Evaluation) -> list[RecordedTable]:
    """The first metric at every L for each kind of question; empty for fewer than two kinds."""
    kind_of = np.array([item.kind for item in evaluation.items])
    if len(set(kind_of)) < 2:
        return []
    name = evaluation.benchmark.metrics[0].name
    parts, rows = evaluation.parts[name], []
    for kind in np.unique(kind_of):
        total = parts[kind_of == kind].sum(axis=0)
        rows.append([str(kind), int((kind_of == kind).sum()), *map(percent, total[:, 0] / total[:, 1])])
    header = ["kind", "n", *(f"L = {layer}" for layer in range(parts.shape[1]))]
    return [
        (f"{evaluation.benchmark.title}: {name} (%) by kind of question, truncated after L", header, rows)
    ]


def by_stratum(evaluation: Evaluation) -> list[RecordedTable]:
    """Every metric and detail of the baseline for each stratum, their mean, and all items at once.

    Empty for fewer than two strata.
    """
    strata = np.array([item.stratum for item in evaluation.items])
    if len(set(strata)) < 2:
        return []
    names = evaluation.benchmark.metric_names
    parts = np.stack([evaluation.parts[name][:, -1] for name in names], axis=1)
    pooled = np.zeros(len(strata))
    rows: list[list[object]] = []
    for stratum in np.unique(strata):
        own = strata == stratum
        rows.append([str(stratum), int(own.sum()), *map(percent, aggregate(parts[own], pooled[own]))])
    rows.append(["mean of these", len(strata), *map(percent, aggregate(parts, strata))])
    rows.append(["all at once", len(strata), *map(percent, aggregate(parts, pooled))])
    title = f"{evaluation.benchmark.title}, protocol {evaluation.task.protocol}: baseline (%) by category"
    return [(title, ["category", "n", *names], rows)]


def by_cap(lvlm: Lvlm, evaluation: Evaluation) -> list[RecordedTable]:
    """Scores of the baseline captions cut after so many tokens: those of a lower cap, from one run.

    A greedy caption of at most n tokens is the beginning of a longer one. Differences are to the uncut captions.
    """
    if not evaluation.benchmark.captions:
        return []
    task, answers = evaluation.task, evaluation.answers
    longest = max(len(answer.ids) for answer in answers)
    caps = [cap for cap in CAPS if cap < longest] + [longest]
    scored = [
        [task.score(item, task.read(lvlm.decode(answer.ids[:cap]).text)) for cap in caps]
        for item, answer in zip(evaluation.items, answers, strict=True)
    ]
    rows: list[list[object]] = []
    for metric in evaluation.benchmark.metrics:
        parts = np.array([[part[metric.name] for part in row] for row in scored], float)
        scores = task.scores(evaluation.items, {metric.name: parts}, metric.name)
        for i, cap in enumerate(caps):
            compared = compare(scores.at(i, -1))
            shown = cap if cap < longest else f"whole, at most {longest}"
            cut = sum(len(answer.ids) > cap for answer in answers)
            score, interval = percent(float(compared.score[0])), percent_interval(compared.score_interval(0))
            rows.append([labelled(metric), shown, cut, score, interval])
    title = f"{evaluation.benchmark.title}, protocol {task.protocol}: captions cut after so many tokens"
    return [(title, ["metric", "tokens", "captions cut", "score (%)", "95 % interval"], rows)]
