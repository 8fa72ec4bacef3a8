"""Cliff layers of the miniatures, from the recorded scores of all items at every layer; no model is run.

A cliff layer is of the benchmark's first metric, on all items (Table 1 chooses it on half of them), margin 3
points. Intervals of 95 % and resamples draw images.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np

from repro.audit.experiments.common import MODELS, Case, Record, percent, record_of, shown
from repro.audit.ledger import Load, Shown
from repro.benchmarks import BENCHMARKS
from repro.cliff import MARGIN as LOSS
from repro.cliff import cliff_draws
from repro.statistics import flips, mcnemar, mean_interval, wilson

#: From the earliest cliff layer to the latest (Sections 3.2 and 4.2).
CLAIMED_ORDER = ("scienceqa", "textvqa", "pope", "chair")
#: A claim holds of a model where so many of its resamples show it.
SURE = 0.95
#: Largest difference of two cliff layers, as parts of the decoder, that counts as none: one layer of the
#: shallowest miniature, the least that all of them can show.
MARGIN = 1 / 6
#: What makes image tokens of image features.
PROJECTORS = {
    "llava-1.5": "MLP",
    "llava-1.6": "MLP",
    "intern-vl": "MLP",
    "shikra": "linear",
    "instructblip": "Q-Former",
    "qwen-vl": "resampler",
}


def draws_of(record: Record, seed: int) -> np.ndarray:
    """Cliff layers of 2000 resamples of the images."""
    return cliff_draws(
        record.parts, record.strata, record.higher_is_better, seed=seed, clusters=record.images
    )


def cliff_order(load: Load) -> Shown:
    """Sections 3.2 and 4.2: the cliff comes first in ScienceQA, then in TextVQA, POPE and captions.

    Measure: in how many of 2000 resamples a miniature's cliff layers stand in that order, strictly; each
    benchmark resampled by itself. Holds of a model where 95 % do, does not where 5 % do. Resamples of images
    say nothing of other trainings: between seeds of LLaVA-1.5's miniature the order changes (README).
    """
    held, alone, frequent = [], [], []
    figures: dict[str, float] = {}
    found: Counter[tuple[str, ...]] = Counter()
    for model in MODELS:
        records = {name: record_of(model, name) for name in CLAIMED_ORDER}
        for name, record in records.items():
            low, high = record.cliff.interval
            figures |= {f"{model} {name} cliff, low": low, f"{model} {name} cliff": high}
        layers = np.stack([draws_of(record, seed) for seed, record in enumerate(records.values())], axis=1)
        as_claimed = float(ordered(layers).mean())
        held.append(True if as_claimed >= SURE else False if as_claimed <= 1 - SURE else None)
        alone.append(float(ordered(np.delete(layers, CLAIMED_ORDER.index("pope"), axis=1)).mean()))
        # Stable, so that layers that tie keep the order claimed.
        orders = Counter(map(tuple, np.argsort(layers, axis=1, kind="stable").tolist()))
        [(order, count)] = orders.most_common(1)
        found[tuple(BENCHMARKS[CLAIMED_ORDER[i]].title for i in order)] += 1
        frequent.append(count / len(layers))
        figures |= {
            f"{model} order as claimed": as_claimed,
            f"{model} order as claimed without POPE": alone[-1],
            f"{model} most frequent order": frequent[-1],
        }
    usual, models = found.most_common(1)[0]
    chances = [figures[f"{model} order as claimed"] for model in MODELS]
    evidence = (
        f"The cliff layers stand in the order claimed, strictly, in {percent(min(chances))} to "
        f"{percent(max(chances))} of 2000 resamples of the images (six miniatures, all items). The most "
        f"frequent order of {models} miniatures is {' <= '.join(usual)} ({percent(min(frequent))} to "
        f"{percent(max(frequent))}); without POPE the order is as claimed in {percent(min(alone))} to "
        f"{percent(max(alone))}."
    )
    return shown(held, evidence, figures)


def ordered(layers: np.ndarray) -> np.ndarray:
    """Where layers rise strictly from left to right: bool [draws] of int [draws, benchmarks]."""
    return np.all(np.diff(layers, axis=1) > 0, axis=1)


def projectors(load: Load) -> Shown:
    """Section 4.3: where the image stops to matter does not depend on the type of projector.

    Measure: the cliff layer over the number of layers, 2000 resamples of the images. A case, two models with
    other projectors on one benchmark, holds where the 95 % interval of their difference lies within
    ``MARGIN`` on both sides, so that a wide interval is no evidence; they are apart where it lies beyond.
    Pairs with MLPs both show what differs without a projector's doing.
    """
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    held = []
    lines = []
    figures: dict[str, float] = {}
    for name, benchmark in BENCHMARKS.items():
        depths = {}
        for seed, model in enumerate(MODELS):
            record = record_of(model, name)
            depths[model] = draws_of(record, seed) / record.n_layers
        for one, two in combinations(MODELS, 2):
            low, high = np.percentile(depths[one] - depths[two], [2.5, 97.5])
            equal, apart = -MARGIN <= low and high <= MARGIN, low > MARGIN or high < -MARGIN
            alike = PROJECTORS[one] == PROJECTORS[two]
            counts[alike]["equal" if equal else "apart" if apart else "open"] += 1
            if not alike:
                held.append(True if equal else False if apart else None)
        for model, drawn in depths.items():
            low, high = np.percentile(drawn, [2.5, 97.5])
            figures |= {f"{model} {name}, low": low, f"{model} {name}, high": high}
        ends = [figures[f"{model} {name}, {end}"] for model in MODELS for end in ("low", "high")]
        lines.append(f"{benchmark.title} {min(ends):.2f} to {max(ends):.2f}")
    others, mlps = counts[False], counts[True]
    for kind, count in (("other projectors", others), ("MLPs", mlps)):
        figures[f"pairs with {kind}"] = count.total()
        figures |= {f"{which} with {kind}": count[which] for which in ("equal", "open", "apart")}
    evidence = (
        f"Of {others.total()} pairs of miniatures with other projectors (MLP, linear, Q-Former, resampler; four "
        f"benchmarks, all items) the cliff layers are the same to {MARGIN:.2f} of the decoder, one layer of "
        f"six, for certain, in {others['equal']}, further apart for certain in {others['apart']}, and "
        f"{others['open']} are open; of {mlps.total()} pairs with MLPs {mlps['equal']}, {mlps['apart']} and "
        f"{mlps['open']}. Ends of the 95 % intervals, as parts of the decoder: {'; '.join(lines)}. Five of the "
        "decoders are made of LLaVA-1.5's layers, which favours the claim."
    )
    return shown(held, evidence, figures)


def retrospective(load: Load) -> Shown:
    """Sections 3.3 and 4.2: the last layer looks back at the image before the final answer.

    Measure: scores that change from L = N - 1 to L = N, all items, when the last layer alone does or does not
    see the image. Holds where more scores rise than fall, by McNemar's exact test at 5 % over the number of
    cases (Bonferroni); does not where they rise by less than the cliff layer's margin on average, for
    certain.
    """
    cases = [(model, name) for model in MODELS for name in BENCHMARKS]
    gained, lost, items, smallest = 0, 0, 0, 1.0
    held: list[Case] = []
    for model, name in cases:
        goodness = record_of(model, name).goodness
        up, down = flips(goodness[:, -2], goodness[:, -1])
        p = mcnemar(up, down)
        most = mean_interval(goodness[:, -1] - goodness[:, -2])[2]
        held.append(True if up > down and p < 0.05 / len(cases) else False if most < LOSS else None)
        gained, lost, items, smallest = gained + up, lost + down, items + len(goodness), min(smallest, p)
    low, high = wilson(gained + lost, items)
    figures = {
        "answers": items,
        "better with the last layer": gained,
        "worse with the last layer": lost,
        "smallest p": smallest,
    }
    evidence = (
        f"When the last layer sees the image too, {gained} of {items} answers score better and {lost} worse "
        f"({percent((gained + lost) / items)} change, 95 % interval {percent(low)} to {percent(high)}, "
        "questions taken as independent; six miniatures, four benchmarks). Smallest p of McNemar's test in "
        f"{len(cases)} cases: {smallest:.3f}; significant in {held.count(True)}, and a gain of 3 points "
        f"excluded in {held.count(False)}."
    )
    return shown(held, evidence, figures)
