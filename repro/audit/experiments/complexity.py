"""Cliff layers against the complexity of the scene and of the question, from the recorded scores; no model is run.

The cliff layer of few items is too uncertain to compare groups by, so every item has its own: the smallest L
from which on it scores as at the baseline. Only items that are right at the baseline count: of the others
nothing is lost. Intervals are 95 % for all comparisons together (Bonferroni): scenes for every model and
benchmark, and hops for every model.
"""

import numpy as np
from scipy.stats import linregress, t, ttest_ind

from repro.audit.experiments.common import above, record_of, shown, span
from repro.audit.ledger import Finding, Load, Paper
from repro.benchmarks.miniworld import DIRECTORY, objects_of
from repro.cliff import first_lasting

#: Kinds of ScienceQA questions that differ in hops: an object's colour, and the price of that colour.
ONE_HOP, TWO_HOPS = "color", "price"


def own_layers(goodness: np.ndarray) -> np.ndarray:
    """The smallest L from which on an item scores as at the baseline: int [n], of scores [n, N + 1]."""
    return first_lasting(np.abs(goodness - goodness[:, -1:]) < 1e-9)


def slope(
    layers: np.ndarray, objects: np.ndarray, images: np.ndarray, level: float
) -> tuple[float, float, float]:
    """Layers per further object in the scene, by least squares, and the ends of its interval.

    Args:
        layers, objects, images: [n], one per item. Questions about one image count as one, by their mean.
    """
    names = np.unique(images)
    x, y = ([values[images == name].mean() for name in names] for values in (objects, layers))
    line = linregress(x, y)
    half = t.ppf((1 + level) / 2, len(names) - 2) * line.stderr
    return float(line.slope), float(line.slope - half), float(line.slope + half)


def complexity(paper: Paper, load: Load) -> Finding:
    """Section 4.2: the more complex the task, the earlier the cliff layer.

    Measure: an item's own layer (see the file) against the number of objects in its scene (slope over
    images), for each benchmark; and ScienceQA's two-hop questions less its one-hop questions (Welch's t). All
    items. A case, a model and either comparison, holds where the interval lies below 0, and does not where it
    lies above.
    """
    level = 1 - 0.05 / (len(paper.models) * (len(paper.benchmarks) + 1))
    slopes, hops, shares = [], [], []
    numbers: dict[str, float] = {}
    for model in paper.models:
        for name in paper.benchmarks:
            record = record_of(model, name)
            goodness, images = record.scores().goodness, np.array(record.images)
            right, own = goodness[:, -1] > 0, own_layers(goodness)
            objects = np.array([len(objects_of(item, DIRECTORY)) for item in record.items])
            slopes.append(slope(own[right], objects[right], images[right], level))
            numbers[f"{model} {name}, layers per object"] = slopes[-1][0]
            if name == "scienceqa":
                kinds = np.array([item.kind for item in record.items])
                one_hop, two_hops = (own[right & (kinds == kind)] for kind in (ONE_HOP, TWO_HOPS))
                ends = ttest_ind(two_hops, one_hop, equal_var=False).confidence_interval(level)
                hops.append((float(two_hops.mean() - one_hop.mean()), float(ends.low), float(ends.high)))
                shares.append(float(right[kinds == TWO_HOPS].mean()))

    def sides(of: list[tuple[float, float, float]]) -> str:
        fewer, more = sum(high < 0 for *_, high in of), sum(low > 0 for _, low, _ in of)
        return f"below 0 in {fewer} of {len(of)}, above in {more}"

    return shown(
        [above(-high, -low) for _, low, high in (*slopes, *hops)],
        numbers,
        per_object=span([mean for mean, *_ in slopes], "{:+.2f}".format),
        slopes=sides(slopes),
        per_hop=span([mean for mean, *_ in hops], "{:+.2f}".format),
        hops=sides(hops),
        right=span(shares),
    )
