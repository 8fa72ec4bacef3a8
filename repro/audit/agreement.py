"""Do measured scores agree with a paper's, within the error that the number of items leaves to both?

**Tolerance.** A measured score m agrees with a printed one p where |m - p| <= 1.96 sqrt(SE_m^2 + SE_p^2), the
two-sided 95 % limit for a difference of independent scores. It is wide rather than narrow where both come from
the same questions, whose difficulty they share.

- SE_m: half of the width of the measured 95 % bootstrap interval (``repro.cliff``, images resampled), over 1.96.
- SE_p of an accuracy: sqrt(p (1 - p) / n), n being the benchmark's item count (``Paper.items``).
- SE_p of F1, CHAIR_i and TextVQA's soft score: SE_m sqrt(n_m / n). The paper gives no spread, so the spread is the
  one measured on n_m items.
"""

from dataclasses import dataclass

import numpy as np

from repro.audit.ledger import Cell, Paper
from repro.cliff import Comparison, HeldOut, compare
from repro.evaluation.run import Evaluation

Z = 1.96
#: Each item is right or wrong, and nothing between.
ACCURACIES = {("pope", "accuracy"), ("scienceqa", "accuracy")}


@dataclass(frozen=True)
class Compared:
    """Whether a measured number agrees with the paper's, and a line with all that decides it."""

    agrees: bool
    line: str


def cells_of(paper: Paper, model: str, benchmark: str) -> list[Cell]:
    """The rows of the table with scores for a model on a benchmark."""
    return [
        cell
        for cell in paper.table
        if (cell.model, cell.benchmark) == (model, benchmark) and cell.baseline is not None
    ]


def tolerance(printed: float, items: int, half: float, n: int, accuracy: bool) -> float:
    """Largest difference that still agrees; see this module.

    Args:
        printed: the paper's score in [0, 1], of ``items`` items.
        half: half of the width of the 95 % interval measured on n items.
        accuracy: each item is right or wrong.
    """
    measured = half / Z
    of_paper = (printed * (1 - printed) / items) ** 0.5 if accuracy else measured * (n / items) ** 0.5
    return float(Z * (measured**2 + of_paper**2) ** 0.5)


def compared(paper: Paper, evaluation: Evaluation, held: HeldOut) -> list[Compared]:
    """Every number the paper has for the model on the benchmark, beside the measured one.

    The baseline is measured on all items. The score at the cliff layer is that of the half that had no part in
    choosing the layer; the paper's layer was chosen on the items that its score is of.
    """
    lines = []
    model, name = evaluation.task.model, evaluation.benchmark.name
    for cell in cells_of(paper, model, name):
        scores = evaluation.scores(cell.metric)
        reporting = compare(scores.halves()[1])
        assert cell.baseline is not None and cell.at_cliff is not None
        for which, comparison, at, n, printed in (
            ("baseline", compare(scores), -1, len(scores), cell.baseline),
            ("at the cliff layer", reporting, held.cliff.layer, held.reported_on, cell.at_cliff),
        ):
            lines.append(_score(paper, cell, which, comparison, at, n, printed))
    low, high = held.cliff.interval
    for stated in paper.cliffs:
        if (stated.model, stated.benchmark) == (model, name):
            agrees = any(low <= layer <= high for layer in stated.layers)
            line = (
                f"cliff layer: measured {held.cliff.layer} on {held.chosen_on} items, 95 % interval [{low}, "
                f"{high}]; the paper's is {' or '.join(map(str, stated.layers))} ({stated.place}), "
            )
            lines.append(Compared(agrees, line + ("inside" if agrees else "OUTSIDE")))
    return lines


def _score(
    paper: Paper, cell: Cell, which: str, comparison: Comparison, at: int, n: int, printed: float
) -> Compared:
    score, low, high = (
        100 * float(value) for value in (comparison.score[at], *comparison.score_interval(at))
    )
    items = paper.items[cell.benchmark]
    accuracy = (cell.benchmark, cell.metric) in ACCURACIES
    allowed = 100 * tolerance(printed / 100, items, (high - low) / 200, n, accuracy)
    # An undefined score or interval agrees with nothing.
    agrees = bool(np.isfinite(allowed)) and abs(score - printed) <= allowed
    return Compared(
        agrees,
        f"{cell.metric}, {which}: measured {score:.2f} % on {n} items, 95 % interval [{low:.2f}, "
        f"{high:.2f}]; the paper's is {printed:.2f} % on {items} ({paper.place(cell)}); difference "
        f"{score - printed:+.2f} points, tolerance {allowed:.2f}{'' if agrees else ', EXCEEDED'}",
    )


def compare_with_paper(paper: Paper, evaluation: Evaluation, held: HeldOut) -> None:
    """AssertionError unless every number agrees with the paper's; its message has a line for each of them."""
    rows = compared(paper, evaluation, held)
    if differing := sum(not row.agrees for row in rows):
        first = (
            f"{evaluation.task.model} on {evaluation.benchmark.title}, protocol {evaluation.task.protocol}: "
            f"{differing} of {len(rows)} figures do not agree with the paper's (tolerance: 1.96 standard "
            "errors of the difference)"
        )
        raise AssertionError("\n".join([first, *(row.line for row in rows)]))
