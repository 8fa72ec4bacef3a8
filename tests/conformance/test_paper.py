"""Do measured figures agree with the paper's when they should, and only then?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repro.audit.agreement import Z, cells_of, compare_with_paper, compared, tolerance
from repro.audit.claims import PAPER
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item, image_names
from repro.cliff import held_out
from repro.evaluation.run import Evaluation
from repro.models.card import REGISTRY
from repro.protocols import find_task
from repro.scores import choosing_half

pytestmark = pytest.mark.conformance

LAYERS = 32


def test_every_cell_has_a_model_a_benchmark_and_a_metric_of_ours():
    for cell in PAPER.table:
        assert cell.model in REGISTRY
        assert cell.metric in [metric.name for metric in BENCHMARKS[cell.benchmark].metrics]
    assert set(PAPER.items) == set(PAPER.benchmarks) <= set(BENCHMARKS)
    assert set(PAPER.table_models) <= set(PAPER.models) <= set(REGISTRY)
    assert cells_of(PAPER, "llava-1.6", "pope") == [] and cells_of(PAPER, "shikra", "textvqa") == []


def made(benchmark: str, cliff: int, n: int = 2000, **values: float) -> Evaluation:
    """A LLaVA-1.5 whose metrics have these values at every L from the cliff layer on, and a bad one before.

    Which items are right is drawn, and as many in either half; every item has a picture of its own.
    """
    rng = np.random.default_rng(0)
    items = [Item(str(i), Path(f"folder/{i}.png"), "", None) for i in range(n)]
    chosen = BENCHMARKS[benchmark]
    choosing = choosing_half([item.stratum for item in items], image_names(items))
    parts = {}
    for metric in chosen.metrics:
        order = np.empty(n)
        for half in (choosing, ~choosing):
            order[half] = rng.permutation(half.sum()) / half.sum()
        value = values.get(metric.name, 0.5)
        seen = np.full((n, LAYERS + 1), 0.02 if metric.higher_is_better else 0.98)
        seen[:, cliff:] = value
        parts[metric.name] = np.stack([order[:, None] < seen, np.ones_like(seen)], axis=-1).astype(float)
    task = find_task("official", "llava-1.5", chosen)
    return Evaluation(task, items, parts, [], np.zeros((n, LAYERS + 1)))


def test_figures_like_the_papers_agree():
    for evaluation in (
        made("scienceqa", 12, accuracy=0.65),
        made("textvqa", 18, accuracy=0.60),
        made("pope", 22, n=9000, accuracy=0.85, F1=0.855),
        made("pope", 24, n=9000, accuracy=0.85, F1=0.855),
        # The row that is labelled CHAIR_s has the size of CHAIR_i, and is compared with that.
        made("chair", 30, CHAIR_s=0.45, CHAIR_i=0.138),
    ):
        compare_with_paper(PAPER, evaluation, held_out(evaluation.scores()))


def test_a_score_outside_of_the_tolerance_is_told_with_all_that_decides_it():
    evaluation = made("scienceqa", 12, accuracy=0.615)
    with pytest.raises(AssertionError) as error:
        compare_with_paper(PAPER, evaluation, held_out(evaluation.scores()))
    first, baseline, at_cliff, layer = str(error.value).splitlines()
    assert (
        "llava-1.5 on ScienceQA (IMG), protocol official: " in first and " of 3 figures do not agree" in first
    )
    assert "measured 61.50 % on 2000 items, 95 % interval [" in baseline
    assert "the paper's is 65.00 % on 2017 (Table 1, LLaVA1.5, SQA, Acc ↑)" in baseline
    assert "difference -3.50 points, tolerance " in baseline and baseline.endswith(", EXCEEDED")
    allowed = float(baseline.partition("tolerance ")[2].partition(",")[0])
    exact = 196 * (0.615 * 0.385 / 2000 + 0.65 * 0.35 / 2017) ** 0.5
    assert allowed == pytest.approx(exact, rel=0.06)  # 2000 resamples
    assert "on 1000 items" in at_cliff and "66.48 %" in at_cliff
    assert layer.startswith(
        "cliff layer: measured 12 on 1000 items, 95 % interval [12, 12]; the paper's is 12"
    )


@pytest.mark.parametrize(
    ("name", "metric", "changes"),
    [
        ("pope", "F1", {"accuracy": 0.85, "F1": 0.83}),
        ("chair", "CHAIR_i", {"CHAIR_s": 0.138, "CHAIR_i": 0.2}),
    ],
)
def test_each_metric_is_compared_for_itself(name, metric, changes):
    evaluation = made(name, 30 if name == "chair" else 22, n=9000, **changes)
    odd = [one.line for one in compared(PAPER, evaluation, held_out(evaluation.scores())) if not one.agrees]
    assert [line.partition(",")[0] for line in odd] == [metric, metric]


def test_fewer_items_allow_more():
    def allowed(n: int) -> float:
        [line, *_] = compared(
            evaluation := made("textvqa", 18, n, accuracy=0.6), held_out(evaluation.scores())
        )
        return float(line.line.partition("tolerance ")[2].partition(",")[0])

    # The paper's share of the error has to be guessed from the measured spread, which does not depend on n.
    for n in (500, 5000):
        exact = 196 * (0.24 / n + 0.24 / PAPER.items["textvqa"]) ** 0.5
        assert allowed(n) == pytest.approx(exact, rel=0.06)


@pytest.mark.parametrize(("name", "layer"), [("scienceqa", 13), ("textvqa", 17), ("pope", 23)])
def test_another_cliff_layer_is_told(name, layer):
    values = {"scienceqa": 0.65, "textvqa": 0.6, "pope": 0.85}
    evaluation = made(name, layer, n=9000, accuracy=values[name], F1=0.855)
    [odd] = [one.line for one in compared(PAPER, evaluation, held_out(evaluation.scores())) if not one.agrees]
    assert odd.startswith(f"cliff layer: measured {layer} ") and odd.endswith("OUTSIDE")


def test_a_score_that_may_be_undefined_agrees_with_nothing():
    """Two captions of each half mention an object: in some resamples none does."""
    evaluation = made("chair", 30, n=500, CHAIR_s=0.45)
    choosing = choosing_half([""] * 500, evaluation.images)
    mentions = np.zeros((500, LAYERS + 1, 2))
    for half in (choosing, ~choosing):
        mentions[np.flatnonzero(half)[:2]] = (0.138, 1.0)
    evaluation.parts["CHAIR_i"] = mentions
    baseline, at_cliff, _ = compared(PAPER, evaluation, held_out(evaluation.scores()))
    assert "measured 13.80 %" in at_cliff.line and "tolerance inf" in at_cliff.line
    assert not at_cliff.agrees


@pytest.mark.parametrize(("n", "items", "truth"), [(8910, 8910, 0.85), (1000, 2017, 0.6), (4000, 500, 0.14)])
def test_the_tolerance_holds_95_in_100_figures_of_the_same_truth(n, items, truth):
    rng = np.random.default_rng(0)
    measured, printed = rng.binomial(n, truth, 4000) / n, rng.binomial(items, truth, 4000) / items
    for accuracy in (True, False):
        allowed = [
            tolerance(p, items, Z * (m * (1 - m) / n) ** 0.5, n, accuracy)
            for m, p in zip(measured, printed, strict=True)
        ]
        assert np.mean(np.abs(measured - printed) <= allowed) == pytest.approx(0.95, abs=0.015)
