"""Cliff layers of the miniatures, from the recorded scores of all items at every layer; no model is run.

A cliff layer is of the benchmark's first metric, on all items (Table 1 chooses it on half of them), margin 3
points. Intervals of 95 % and resamples draw images.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np

from repro.audit.experiments.common import MODELS, Record, outcome_of, percent, record_of
from repro.audit.ledger import Load, Shown
from repro.benchmarks import BENCHMARKS
from repro.cliff import cliff_draws
from repro.statistics import flips, mcnemar, wilson

#: From the earliest cliff layer to the latest (Sections 3.2 and 4.2).
CLAIMED_ORDER = ("scienceqa", "textvqa", "pope", "chair")
#: A claim holds of a model where so many of its resamples show it.
SURE = 0.95
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
    benchmark resampled by itself. Holds of a model where 95 % do. Resamples of images say nothing of other
    trainings: between seeds of LLaVA-1.5's miniature the order changes (README).
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
        held.append(as_claimed >= SURE)
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
    return Shown(outcome_of(held), evidence, figures)


def ordered(layers: np.ndarray) -> np.ndarray:
    """Where layers rise strictly from left to right: bool [draws] of int [draws, benchmarks]."""
    return np.all(np.diff(layers, axis=1) > 0, axis=1)


def depths(record: Record) -> tuple[float, float]:
    """Which part of the decoder the image is needed for, (low, high) in [0, 1], by the cliff layer's interval.

    That L layers are enough and L - 1 are not says that the need ends in ((L - 1) / N, L / N].
    """
    low, high = record.cliff.interval
    return max(low - 1, 0) / record.n_layers, high / record.n_layers


def projectors(load: Load) -> Shown:
    """Section 4.3: where the image stops to matter does not depend on the type of projector.

    Measure: the part of the decoder in which the need for the image ends, by the 95 % interval of the cliff
    layer (the miniatures have 6 to 10 layers). A case, two models with other projectors on one benchmark,
    holds where the parts overlap; it would hold of ever wider intervals. Pairs with MLPs both show what
    differs without a projector's doing.
    """
    others: list[bool] = []
    alike: list[bool] = []
    lines = []
    figures: dict[str, float] = {}
    for name, benchmark in BENCHMARKS.items():
        spans = {model: depths(record_of(model, name)) for model in MODELS}
        for one, two in combinations(MODELS, 2):
            overlap = max(spans[one][0], spans[two][0]) < min(spans[one][1], spans[two][1])
            (alike if PROJECTORS[one] == PROJECTORS[two] else others).append(overlap)
        for model, (low, high) in spans.items():
            figures |= {f"{model} {name}, low": low, f"{model} {name}, high": high}
        lows, highs = zip(*spans.values(), strict=True)
        lines.append(
            f"{benchmark.title} {min(lows):.2f}-{min(highs):.2f} (lowest) to "
            f"{max(lows):.2f}-{max(highs):.2f} (highest)"
        )
    figures |= {
        "pairs with other projectors": len(others),
        "apart with other projectors": len(others) - sum(others),
        "pairs with MLPs": len(alike),
        "apart with MLPs": len(alike) - sum(alike),
    }
    evidence = (
        "Part of the decoder in which the image stops to matter, ends of the 95 % intervals of six "
        f"miniatures, all items: {'; '.join(lines)}. Intervals of models with other projectors (MLP, linear, "
        f"Q-Former, resampler) lie apart in {len(others) - sum(others)} of {len(others)} pairs, those of "
        f"models with MLPs in {len(alike) - sum(alike)} of {len(alike)}. Five of the decoders are made of "
        "LLaVA-1.5's layers, which favours the claim; overlap of wide intervals is no evidence of equality."
    )
    return Shown(outcome_of(others), evidence, figures)


def retrospective(load: Load) -> Shown:
    """Sections 3.3 and 4.2: the last layer looks back at the image before the final answer.

    Measure: scores that change from L = N - 1 to L = N, all items, when the last layer alone does or does not
    see the image. Holds where more scores rise than fall, by McNemar's exact test at 5 % over the number of
    cases (Bonferroni).
    """
    cases = [(model, name) for model in MODELS for name in BENCHMARKS]
    held, gained, lost, items, smallest = [], 0, 0, 0, 1.0
    for model, name in cases:
        goodness = record_of(model, name).goodness
        up, down = flips(goodness[:, -2], goodness[:, -1])
        p = mcnemar(up, down)
        held.append(up > down and p < 0.05 / len(cases))
        gained, lost, items, smallest = gained + up, lost + down, items + len(goodness), min(smallest, p)
    low, high = wilson(gained + lost, items)
    figures = {
        "answers": items,
        "better with the last layer": gained,
        "worse with the last layer": lost,
        "smallest p": smallest,
        "cases": len(cases),
        "cases as claimed": sum(held),
    }
    evidence = (
        f"When the last layer sees the image too, {gained} of {items} answers score better and {lost} worse "
        f"({percent((gained + lost) / items)} change, 95 % interval {percent(low)} to {percent(high)}, "
        "questions taken as independent; six miniatures, four benchmarks). Smallest p of McNemar's test in "
        f"{len(cases)} cases: {smallest:.3f}; significant in {sum(held)}."
    )
    return Shown(outcome_of(held), evidence, figures)
