"""Methods to compare with the cliff layer: VTW's choice of a layer, and FastV's choice of tokens."""

from __future__ import annotations

import numpy as np

from repro.audit.experiments.common import MODELS, Case, above, items_of, percent, record_of, shown
from repro.audit.ledger import Load, Shown
from repro.benchmarks import BENCHMARKS
from repro.cliff import compare
from repro.evaluation.flow import spread
from repro.evaluation.run import batches
from repro.models.lvlm import Lvlm
from repro.protocols import find_task
from repro.statistics import mean_interval
from repro.sweep import sweep
from repro.truncation import RankingRow
from repro.withdrawal import CALIBRATION, DEFAULT_ETA, ETA, divergence, withdrawal_layer

#: On what the published search for VTW's layer is made.
PUBLISHED_CALIBRATION = "scienceqa"
#: FastV's layer, and the parts of the image tokens that its paper keeps (R = 50 % and 75 % are dropped).
FASTV_LAYER, KEPT = 2, (0.5, 0.25)
#: Where the image is still needed after that layer, so that it matters which tokens stay.
FASTV_BENCHMARK, FASTV_ITEMS = "textvqa", 20


def divergences_of(lvlm: Lvlm, benchmark: str) -> np.ndarray:
    """VTW's divergence [items, N + 1] of the calibration items of a benchmark, evenly spaced."""
    items = spread(items_of(benchmark), CALIBRATION)
    swept = [
        divergence(one.logits)
        for batch in batches(lvlm, BENCHMARKS[benchmark], items, CALIBRATION, "official")
        for one in sweep(lvlm, [prompt for _, prompt in batch], 1)
    ]
    return np.stack(swept)


def vtw(load: Load) -> Shown:
    """VTW (arXiv 2405.05803): the layer after which image tokens may go is found by one token of 20 prompts.

    Measure: its layer (see ``repro.withdrawal``), calibrated on each benchmark by itself, against the cliff
    layer's 95 % interval, and what truncating there costs, from the recorded scores of all items (images
    resampled). As published, calibrated on ScienceQA for all benchmarks, it is reported too. The first token
    may be the same in all answers: captions start with "The", numbers with a blank, Shikra's with "The answer is".
    """
    inside, early, late, zero = 0, 0, 0, 0
    costs: list[float] = []
    published: list[float] = []
    figures: dict[str, float] = {}
    for model in MODELS:
        lvlm, eta = load(model), ETA.get(model, DEFAULT_ETA)
        layers = {name: withdrawal_layer(divergences_of(lvlm, name), eta) for name in BENCHMARKS}
        for name, layer in layers.items():
            record = record_of(model, name)
            low, high = record.cliff.interval
            lost = compare(record.parts, record.strata, record.higher_is_better, clusters=record.images)
            inside += low <= layer <= high
            early, late, zero = early + (layer < low), late + (layer > high), zero + (layer == 0)
            costs.append(-100 * float(lost.difference[layer]))
            published.append(-100 * float(lost.difference[layers[PUBLISHED_CALIBRATION]]))
            figures |= {
                f"{model} {name}, VTW": layer,
                f"{model} {name}, cliff, low": low,
                f"{model} {name}, cliff": high,
                f"{model} {name}, points lost": costs[-1],
                f"{model} {name}, points lost, low": -100 * float(lost.high[layer]),
                f"{model} {name}, points lost, high": -100 * float(lost.low[layer]),
            }
    figures |= {
        "cases": len(costs),
        "inside": inside,
        "too early": early,
        "at layer 0": zero,
        "too late": late,
        "most points lost": max(costs),
        "most points lost, as published": max(published),
    }
    evidence = (
        f"VTW's layer lies in the cliff layer's interval in {inside} of {len(costs)} cases (six "
        f"miniatures, four benchmarks; {CALIBRATION} items each), behind it in {late} and before it in "
        f"{early}, of these in {zero} at layer 0: no layer sees the image. Truncating there costs "
        f"{min(costs):.1f} to {max(costs):.1f} points (all items); with the layer found on ScienceQA, as "
        f"published, up to {max(published):.1f}."
    )
    return Shown("compared", evidence, figures)


def goodness_with(lvlm: Lvlm, part: float, ranking_row: RankingRow) -> np.ndarray:
    """Scores [items] of ``FASTV_BENCHMARK`` where a part of the image tokens stays after ``FASTV_LAYER``."""
    benchmark, items = BENCHMARKS[FASTV_BENCHMARK], spread(items_of(FASTV_BENCHMARK), FASTV_ITEMS)
    task, scores = find_task("official", lvlm.card.name, FASTV_BENCHMARK), np.zeros(FASTV_ITEMS)
    for batch in batches(lvlm, benchmark, items, FASTV_ITEMS, "official"):
        keep = round(part * len(batch[0][1].segments.image))
        swept = sweep(lvlm, [prompt for _, prompt in batch], task.max_new_tokens, keep, ranking_row)
        for (i, _), one in zip(batch, swept, strict=True):
            answer = task.read(one.answers[FASTV_LAYER].text)
            scores[i] = task.score(items[i], answer)[benchmark.metrics[0].name][0]
    return scores


def fastv(load: Load) -> Shown:
    """FastV (arXiv 2403.06764): after layer 2, half of the image tokens suffice, the most attended (Eqs. 9-12).

    Measure: TextVQA's soft accuracy of ``FASTV_ITEMS`` items with 50 and 25 % of the image tokens kept after
    layer 2, by head-mean attention of the last prompt row; less the baseline, none kept (both recorded), and
    the same number kept at random (one draw of places for all). Mean over the six miniatures item by item, 95
    % interval by Student's t over items. Ranked tokens contribute where they beat random ones for certain.
    """
    chosen = spread(range(len(items_of(FASTV_BENCHMARK))), FASTV_ITEMS)
    records = [record_of(model, FASTV_BENCHMARK).goodness[chosen] for model in MODELS]
    baseline = np.mean([one[:, -1] for one in records], axis=0)
    none = np.mean([one[:, FASTV_LAYER] for one in records], axis=0)
    figures = {"baseline": baseline.mean(), "0 % kept": none.mean()}
    lines = []
    held: list[Case] = []
    for part in KEPT:
        ranked, random = (
            np.mean([goodness_with(load(model), part, row) for model in MODELS], axis=0)
            for row in ("last_prompt", "random")
        )
        told = []
        for name, other in (("the baseline", baseline), ("0 % kept", none), ("random", random)):
            mean, low, high = (100 * float(value) for value in mean_interval(ranked - other))
            told.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] to {name}")
            key = f"{part:.0%} ranked - {name}"
            figures |= {key: mean, f"{key}, low": low, f"{key}, high": high}
        held.append(above(low, high))
        figures |= {f"{part:.0%} ranked": ranked.mean(), f"{part:.0%} random": random.mean()}
        lines.append(f"{part:.0%} kept: {percent(ranked.mean())}, {', '.join(told)}")
    evidence = (
        f"TextVQA, {FASTV_ITEMS} items, mean of six miniatures, truncated after layer {FASTV_LAYER} of 6 to "
        f"10; baseline {percent(baseline.mean())}, 0 % kept {percent(none.mean())}. {'. '.join(lines)} "
        "(points)."
    )
    return shown(held, evidence, figures)
