"""Methods to compare with the cliff layer: VTW's choice of a layer, and FastV's choice of tokens."""

import numpy as np

from repro.audit.experiments.common import Case, percent, positive, record_of, shown, span
from repro.audit.ledger import Finding, Load, Paper
from repro.cliff import cliff_layer, compare
from repro.evaluation.flow import spread
from repro.evaluation.run import batches
from repro.models.lvlm import Lvlm
from repro.ranking import RankingRow
from repro.statistics import mean_interval
from repro.sweep import sweep
from repro.withdrawal import CALIBRATION, DEFAULT_ETA, ETA, divergence, withdrawal_layer

#: On what the published search for VTW's layer is made.
PUBLISHED_CALIBRATION = "scienceqa"
#: FastV's layer, and the parts of the image tokens that its paper keeps (R = 50 % and 75 % are dropped).
FASTV_LAYER, KEPT = 2, (0.5, 0.25)
#: Where the image is still needed after that layer, so that it matters which tokens stay.
FASTV_BENCHMARK, FASTV_ITEMS = "textvqa", 20
ROWS: tuple[RankingRow, ...] = ("last_prompt", "random")


def vtw_layer(lvlm: Lvlm, benchmark: str) -> int:
    """VTW's layer, calibrated on items of a benchmark, evenly spaced."""
    record = record_of(lvlm.card.name, benchmark)
    divergences = [
        divergence(swept.logits)
        for batch in batches(lvlm, record.task, spread(record.items, CALIBRATION), CALIBRATION)
        for swept in sweep(lvlm, [prompt for _, prompt in batch], 1)
    ]
    return withdrawal_layer(np.stack(divergences), ETA.get(lvlm.card.name, DEFAULT_ETA))


def vtw(paper: Paper, load: Load) -> Finding:
    """VTW (arXiv 2405.05803): the layer after which image tokens may go is found by one token of 20 prompts.

    Measure: its layer (see ``repro.withdrawal``), calibrated on each benchmark by itself, against the cliff
    layer's 95 % interval, and what truncating there costs, from the recorded scores (images
    resampled). As published, calibrated on ScienceQA for all benchmarks, it is reported too. The first token
    may be the same in all answers: captions start with "The", numbers with a blank, Shikra's with "The answer is".
    """
    layers, early, late, costs, published = [], [], [], [], []
    for model in paper.models:
        by_benchmark = {name: vtw_layer(load(model), name) for name in paper.benchmarks}
        for name, layer in by_benchmark.items():
            scores = record_of(model, name).scores()
            low, high = cliff_layer(scores).interval
            lost = compare(scores)
            layers.append(layer)
            early.append(layer < low)
            late.append(layer > high)
            costs.append(-100 * float(lost.difference[layer]))
            published.append(-100 * float(lost.difference[by_benchmark[PUBLISHED_CALIBRATION]]))
    numbers = {
        "cases": len(layers),
        "inside": len(layers) - sum(early) - sum(late),
        "too early": sum(early),
        "at layer 0": layers.count(0),
        "too late": sum(late),
    }
    words = {"calibration": CALIBRATION, "costs": span(costs, "{:.1f}".format), "most": max(published)}
    return Finding("compared", numbers, words)


def goodness_with(lvlm: Lvlm, part: float, ranking_row: RankingRow) -> np.ndarray:
    """Scores [items] of ``FASTV_BENCHMARK`` where a part of the image tokens stays after ``FASTV_LAYER``."""
    record = record_of(lvlm.card.name, FASTV_BENCHMARK)
    items, task = spread(record.items, FASTV_ITEMS), record.task
    scores = np.zeros(FASTV_ITEMS)
    for batch in batches(lvlm, task, items, FASTV_ITEMS):
        keep = round(part * len(batch[0][1].segments.image))
        swept = sweep(lvlm, [prompt for _, prompt in batch], task.max_new_tokens, keep, ranking_row)
        for (i, _), result in zip(batch, swept, strict=True):
            answer = task.read(result.answers[FASTV_LAYER].text)
            scores[i] = task.score(items[i], answer)[task.benchmark.metrics[0].name][0]
    return scores


def fastv(paper: Paper, load: Load) -> Finding:
    """FastV (arXiv 2403.06764): after layer 2, half of the image tokens suffice, the most attended (Eqs. 9-12).

    Measure: TextVQA's soft accuracy of ``FASTV_ITEMS`` items with 50 and 25 % of the image tokens kept after
    layer 2, by head-mean attention of the last prompt row; less the baseline, none kept (both recorded), and
    the same number kept at random (one draw of places for all). Mean over the models item by item, 95
    % interval by Student's t over items. Ranked tokens contribute where they beat random ones for certain.
    """
    recorded = [record_of(model, FASTV_BENCHMARK).scores().goodness for model in paper.models]
    records = [goodness[spread(range(len(goodness)), FASTV_ITEMS)] for goodness in recorded]
    baseline, none = np.mean([goodness[:, [-1, FASTV_LAYER]] for goodness in records], axis=0).T
    cases: list[Case] = []
    lines = []
    for part in KEPT:
        ranked, random = (
            np.mean([goodness_with(load(model), part, row) for model in paper.models], axis=0) for row in ROWS
        )
        cases.append(positive(ranked - random))
        line = f"{part:.0%} kept: {percent(ranked.mean())}"
        for name, other in (("the baseline", baseline), ("0 % kept", none), ("random", random)):
            mean, low, high = 100 * np.array(mean_interval(ranked - other))
            line += f", {mean:+.1f} [{low:+.1f}, {high:+.1f}] to {name}"
        lines.append(line)
    return shown(
        cases,
        {},
        items=FASTV_ITEMS,
        layer=FASTV_LAYER,
        depths=span([goodness.shape[1] - 1 for goodness in recorded], str),
        baseline=percent(baseline.mean()),
        none=percent(none.mean()),
        lines=". ".join(lines),
    )
