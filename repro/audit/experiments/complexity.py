"""Cliff layers against the complexity of the scene and of the question, from the recorded scores; no model is run.

The cliff layer of few items is too uncertain to compare groups by, so every item has its own: the smallest L
from which on it scores as at the baseline. Only items that are right at the baseline count: of the others
nothing is lost. Intervals are 95 % for all ``CASES`` together (Bonferroni).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import linregress, t, ttest_ind

from repro.audit.experiments.common import DATA, MODELS, Record, above, percent, record_of, shown
from repro.audit.ledger import Load, Shown
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import objects_of
from repro.cliff import first_lasting

#: Kinds of ScienceQA questions that differ in hops: an object's colour, and the price of that colour.
ONE_HOP, TWO_HOPS = "color", "price"
#: Comparisons: scenes for every benchmark, and hops.
CASES = len(MODELS) * (len(BENCHMARKS) + 1)
LEVEL = 1 - 0.05 / CASES


def own_layers(goodness: np.ndarray) -> np.ndarray:
    """The smallest L from which on an item scores as at the baseline: int [n], of scores [n, N + 1]."""
    return first_lasting(np.abs(goodness - goodness[:, -1:]) < 1e-9)


def slope(layers: np.ndarray, objects: np.ndarray, images: np.ndarray) -> tuple[float, float, float]:
    """Layers per further object in the scene, by least squares, and the ends of its interval.

    Args:
        layers, objects, images: [n], one per item. Questions about one image count as one, by their mean.
    """
    names = np.unique(images)
    x, y = ([values[images == name].mean() for name in names] for values in (objects, layers))
    line = linregress(x, y)
    half = t.ppf((1 + LEVEL) / 2, len(names) - 2) * line.stderr
    return float(line.slope), float(line.slope - half), float(line.slope + half)


def right(record: Record) -> np.ndarray:
    """Which items count: bool [n]."""
    return record.goodness[:, -1] > 0


def complexity(load: Load) -> Shown:
    """Section 4.2: the more complex the task, the earlier the cliff layer.

    Measure: an item's own layer (see the file) against the number of objects in its scene (slope over
    images), for each benchmark; and ScienceQA's two-hop questions less its one-hop questions (Welch's t). All
    items. A case, a model and either comparison, holds where the interval lies below 0, and does not where it
    lies above.
    """
    slopes, hops, figures, shares = [], [], {}, []
    for model in MODELS:
        for name in BENCHMARKS:
            record = record_of(model, name)
            chosen, own = right(record), own_layers(record.goodness)
            objects = np.array([len(objects_of(item, DATA)) for item in record.items])
            slopes.append(slope(own[chosen], objects[chosen], np.array(record.images)[chosen]))
            figures[f"{model} {name}, layers per object"] = slopes[-1][0]
        record = record_of(model, "scienceqa")
        chosen, own = right(record), own_layers(record.goodness)
        kinds = np.array([item.kind for item in record.items])
        one, two = (own[chosen & (kinds == kind)] for kind in (ONE_HOP, TWO_HOPS))
        interval = ttest_ind(two, one, equal_var=False).confidence_interval(LEVEL)
        hops.append((two.mean() - one.mean(), interval.low, interval.high))
        shares.append(chosen[kinds == TWO_HOPS].mean())
        figures[f"{model}, layers of two hops less one"] = float(hops[-1][0])
    fewer, more = (np.array(found) for found in (slopes, hops))
    earlier = [above(-high, -low) for _, low, high in np.concatenate([fewer, more])]
    evidence = (
        "By each item's own layer (the first from which on it scores as at the baseline), all items right at "
        f"the baseline: with every further object in the scene it comes {fewer[:, 0].min():+.2f} to "
        f"{fewer[:, 0].max():+.2f} layers later (six miniatures, four benchmarks; interval below 0 in "
        f"{int((fewer[:, 2] < 0).sum())} of {len(fewer)}, above in {int((fewer[:, 1] > 0).sum())}). For two "
        f"hops (price) it comes {more[:, 0].min():+.2f} to {more[:, 0].max():+.2f} layers later than for one "
        f"(color): below 0 in {int((more[:, 2] < 0).sum())} of {len(more)}, above in "
        f"{int((more[:, 1] > 0).sum())}; of the two-hop questions {percent(min(shares))} to "
        f"{percent(max(shares))} are right, of three choices."
    )
    return shown(earlier, evidence, figures)
