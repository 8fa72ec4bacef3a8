"""Cliff layers, from the recorded scores at every layer; no model is run.

A cliff layer is of the benchmark's first metric, on all recorded items (Table 1 chooses it on half of them), with
a margin of 3 points. Intervals of 95 % and resamples draw images.
"""

from collections import Counter
from itertools import combinations

import numpy as np

from repro.audit.experiments.common import Case, percent, record_of, shown, span
from repro.audit.ledger import Finding, Load, Paper
from repro.benchmarks import BENCHMARKS
from repro.cliff import MARGIN as LOSS  # the default: ``--margin`` does not change what is audited
from repro.cliff import cliff_draws, cliff_layer
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


def ordered(layers: np.ndarray) -> np.ndarray:
    """Where layers rise strictly from left to right: bool [draws] of int [draws, benchmarks]."""
    return np.all(np.diff(layers, axis=1) > 0, axis=1)


def cliff_order(paper: Paper, load: Load) -> Finding:
    """Sections 3.2 and 4.2: the cliff comes first in ScienceQA, then in TextVQA, POPE and captions.

    Measure: in how many of 2000 resamples a miniature's cliff layers stand in that order, strictly; each
    benchmark resampled by itself. Holds of a model where 95 % do, does not where 5 % do. Resamples of images
    say nothing of other trainings: between seeds of LLaVA-1.5's miniature the order changes.
    """
    claimed, alone, likeliest = [], [], []
    numbers: dict[str, float] = {}
    usual: Counter[str] = Counter()
    for model in paper.models:
        drawn = []
        for seed, name in enumerate(CLAIMED_ORDER):
            scores = record_of(model, name).scores()
            low, high = cliff_layer(scores, LOSS).interval
            numbers |= {f"{model} {name} cliff, low": low, f"{model} {name} cliff": high}
            drawn.append(cliff_draws(scores, LOSS, seed=seed))
        layers = np.stack(drawn, axis=1)
        claimed.append(float(ordered(layers).mean()))
        alone.append(float(ordered(np.delete(layers, CLAIMED_ORDER.index("pope"), axis=1)).mean()))
        # Stable, so that layers that tie keep the order claimed.
        orders = Counter(map(tuple, np.argsort(layers, axis=1, kind="stable").tolist()))
        [(order, count)] = orders.most_common(1)
        likeliest.append(count / len(layers))
        usual[" <= ".join(BENCHMARKS[CLAIMED_ORDER[i]].title for i in order)] += 1
        numbers[f"{model} order as claimed"] = claimed[-1]
    [(title, models)] = usual.most_common(1)
    return shown(
        [True if share >= SURE else False if share <= 1 - SURE else None for share in claimed],
        numbers,
        claimed=span(claimed),
        likeliest=span(likeliest),
        alone=span(alone),
        order=title,
        models=models,
        of=len(paper.models),
    )


def projectors(paper: Paper, load: Load) -> Finding:
    """Section 4.3: where the image stops to matter does not depend on the type of projector.

    Measure: the cliff layer over the number of layers, 2000 resamples of the images. A case, two models with
    other projectors on one benchmark, holds where the 95 % interval of their difference lies within
    ``MARGIN`` on both sides, so that a wide interval is no evidence; they are apart where it lies beyond.
    Pairs with MLPs both show what differs without a projector's doing.
    """
    cases: dict[str, list[Case]] = {"other projectors": [], "MLPs": []}
    lines = []
    numbers: dict[str, float] = {}
    for name in paper.benchmarks:
        depths = {}
        for seed, model in enumerate(paper.models):
            scores = record_of(model, name).scores()
            depths[model] = cliff_draws(scores, LOSS, seed=seed) / (scores.parts.shape[1] - 1)
        for first, second in combinations(paper.models, 2):
            low, high = np.percentile(depths[first] - depths[second], [2.5, 97.5])
            equal, apart = -MARGIN <= low and high <= MARGIN, low > MARGIN or high < -MARGIN
            kind = "MLPs" if PROJECTORS[first] == PROJECTORS[second] else "other projectors"
            cases[kind].append(True if equal else False if apart else None)
        ends = np.percentile([*depths.values()], [2.5, 97.5], axis=1)
        lines.append(f"{BENCHMARKS[name].title} {span(ends.ravel(), '{:.2f}'.format)}")
    for kind, own in cases.items():
        counts = {
            "pairs": len(own),
            "equal": own.count(True),
            "apart": own.count(False),
            "open": own.count(None),
        }
        numbers |= {f"{word} with {kind}": count for word, count in counts.items()}
    return shown(cases["other projectors"], numbers, margin=MARGIN, lines="; ".join(lines))


def retrospective(paper: Paper, load: Load) -> Finding:
    """Sections 3.3 and 4.2: the last layer looks back at the image before the final answer.

    Measure: scores that change from L = N - 1 to L = N when the last layer alone does or does not
    see the image. Holds where more scores rise than fall, by McNemar's exact test at 5 % over the number of
    cases (Bonferroni); does not where they rise by less than ``LOSS`` on average, for certain.
    """
    pairs = [(model, name) for model in paper.models for name in paper.benchmarks]
    gained, lost, items, smallest = 0, 0, 0, 1.0
    cases: list[Case] = []
    for model, name in pairs:
        before, after = record_of(model, name).scores().goodness[:, -2:].T
        up, down = flips(before, after)
        p = mcnemar(up, down)
        most = mean_interval(after - before)[2]
        cases.append(True if up > down and p < 0.05 / len(pairs) else False if most < LOSS else None)
        gained, lost, items, smallest = gained + up, lost + down, items + len(after), min(smallest, p)
    return shown(
        cases,
        {
            "answers": items,
            "better with the last layer": gained,
            "worse with the last layer": lost,
            "smallest p": smallest,
        },
        changed=percent((gained + lost) / items),
        interval=span(wilson(gained + lost, items)),
    )
