"""Which cells of Table 1 are marked, and do the marks follow the numbers?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from repro.audit.marks import marks
from repro.audit.paper import TEXT

pytestmark = pytest.mark.audit


def marked(paper=TEXT, kind="impossible") -> dict:
    """Numbers with a mark, by model, label and column, with its n."""
    return {
        (cell.model, cell.label, column): (getattr(cell, column), mark.n)
        for (cell, column), mark in marks(paper).items()
        if mark.kind == kind
    }


def changed(model: str, label: str, baseline: float):
    """The paper with another baseline in its table's first row of a model and label."""
    table = list(TEXT.table)
    at = next(i for i, cell in enumerate(table) if (cell.model, cell.label) == (model, label))
    table[at] = replace(table[at], baseline=baseline)
    return replace(TEXT, table=tuple(table))


def test_impossible_are_intern_vls_pope_scores():
    assert marked() == {
        ("intern-vl", "Acc ↑", "baseline"): (94.01, None),
        ("intern-vl", "Acc ↑", "at_cliff"): (94.58, None),
        ("intern-vl", "F1-score ↑", "baseline"): (86.31, None),
        ("intern-vl", "F1-score ↑", "at_cliff"): (87.21, None),
    }


def test_the_mark_follows_the_numbers():
    """Near the published F1 of 86.4, Intern-VL's accuracy is possible; LLaVA's is not near Intern-VL's."""
    assert len(marked(changed("intern-vl", "Acc ↑", 94.00))) == 4
    assert {column for _, _, column in marked(changed("intern-vl", "Acc ↑", 86.90))} == {"at_cliff"}
    more = marked(changed("llava-1.5", "Acc ↑", 94.00)).keys() - marked().keys()
    assert more == {("llava-1.5", "Acc ↑", "baseline"), ("llava-1.5", "F1-score ↑", "baseline")}


def test_granularity_marks_shares_that_the_usual_size_cannot_have():
    found = marked(kind="granularity")
    assert {key: value for key, value in found.items() if key[1] == "Acc ↑"} == {
        ("qwen-vl", "Acc ↑", "baseline"): (67.12, 2017),
        ("instructblip", "Acc ↑", "baseline"): (60.50, 2017),
        ("instructblip", "Acc ↑", "at_cliff"): (60.50, 2017),
        ("shikra", "Acc ↑", "baseline"): (45.80, 2017),
        ("intern-vl", "Acc ↑", "baseline"): (66.20, 2017),
        ("intern-vl", "Acc ↑", "at_cliff"): (66.85, 2017),
    }
    # Qwen-VL's 12.50 is labelled CHAIR_i, a share of objects named.
    assert {key: value for key, value in found.items() if key[1] != "Acc ↑"} == {
        ("instructblip", "CHAIR_s ↓", "baseline"): (24.50, 500),
        ("shikra", "CHAIR_s ↓", "baseline"): (12.50, 500),
        ("shikra", "CHAIR_s ↓", "at_cliff"): (12.50, 500),
        ("intern-vl", "CHAIR_s ↓", "baseline"): (12.90, 500),
        ("intern-vl", "CHAIR_s ↓", "at_cliff"): (12.90, 500),
    }


def test_a_mark_says_how_else_the_number_is_possible():
    why = {getattr(cell, column): mark.why for (cell, column), mark in marks(TEXT).items()}
    assert why[67.12] == "No whole number of 2017 is 67.12 %; possible of 2017 if cut off."
    assert why[66.20].endswith("of 2017 if rounded to one decimal or of 4241 if rounded to one decimal.")
    assert why[66.85].endswith("possible of 4241.")
    assert why[94.58] == (
        "Accuracy 94.58 leaves F1 94.27 to 94.86 (a mean of three categories at least 93.53), printed is 87.21."
    )
