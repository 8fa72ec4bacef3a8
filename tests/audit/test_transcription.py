"""Is the paper's data what the paper prints?

Verdicts cannot tell: with 84.71 in place of 84.70 nearly all of them would stand, on evidence that is not the
paper's. So the numbers are here once more, as plain rows read off the paper on their own. A number that changes in
one place is reported by its cell, and the suite is red until somebody has looked at the paper and changed both.
"""

from __future__ import annotations

import re

import pytest

from repro.audit import released
from repro.audit.claims import PAPER
from repro.audit.paper import FILE, WithoutImage

pytestmark = pytest.mark.audit

#: Model, benchmark, metric, baseline, i-f cliff layer.
ROWS = """
LLaVA1.5       POPE    Acc ↑      84.70 85.51
LLaVA1.5       POPE    F1-score ↑ 85.50 85.99
LLaVA1.5       SQA     Acc ↑      65.00 66.48
LLaVA1.5       TextVQA Acc ↑      59.34 60.02
LLaVA1.5       CHAIR   CHAIR_s ↓  13.80 13.80
Qwen-VL        POPE    Acc ↑      80.81 81.13
Qwen-VL        POPE    F1-score ↑ 77.29 77.82
Qwen-VL        SQA     Acc ↑      67.12 67.67
Qwen-VL        TextVQA Acc ↑      60.60 60.73
Qwen-VL        CHAIR   CHAIR_i ↓  12.50 12.50
Instruct-Blip2 POPE    Acc ↑      84.85 85.44
Instruct-Blip2 POPE    F1-score ↑ 85.40 85.40
Instruct-Blip2 SQA     Acc ↑      60.50 60.50
Instruct-Blip2 TextVQA Acc ↑      50.10 50.62
Instruct-Blip2 CHAIR   CHAIR_s ↓  24.50 22.80
Shikra         POPE    Acc ↑      75.41 76.34
Shikra         POPE    F1-score ↑ 78.52 79.16
Shikra         SQA     Acc ↑      45.80 46.70
Shikra         TextVQA Acc ↑      -     -
Shikra         CHAIR   CHAIR_s ↓  12.50 12.50
Intern-VL      POPE    Acc ↑      94.01 94.58
Intern-VL      POPE    F1-score ↑ 86.31 87.21
Intern-VL      SQA     Acc ↑      66.20 66.85
Intern-VL      TextVQA Acc ↑      57.00 58.18
Intern-VL      CHAIR   CHAIR_s ↓  12.90 12.90
"""
#: Other numbers and words of the text, by the name of their data.
STATED = {
    "n_layers": 32,
    "figure_5_tokens": 576,
    "image_tokens": {"llava-1.5": 576, "qwen-vl": 256},
    "image_ids": (35, 611),
    "projectors_compared": 3,
    "scienceqa_questions": 21208,
    "k_values": (0,),
    "share_after": 3,
    "share_limit": 2.0,
    "weights": (0.0, 20.0),
    "figure_2_drops": (1, 5),
    "figure_2_level": (6, 31),
    "figure_2_rises": 32,
    "without_image": WithoutImage(47.5, 1, None, None),
    "figure_5_models": ("llava-1.5", "intern-vl", "qwen-vl"),
    "projectors_named": ("Linear", "MLP", "Cross-attention", "Q-former"),
    "projectors": {
        "llava-1.5": "MLP",
        "qwen-vl": "Cross-attention",
        "intern-vl": "MLP",
        "instructblip": "MLP",
        "shikra": "Linear",
    },
    "replicated": "model",
    "decoding": "greedy",
    "gpu": "A100",
    "symbols": ("z_answer", "z_c", "A_k", "alpha_k"),
    "defined": ("z_answer", "A_k"),
    "noise_power": {"Eq. 4": 0.5, "the text under it": 1.0},
    "equation_8": (("j",), ("i", "j"), "j"),
    "cliff_words": {
        "Section 1": "the first sparse layer",
        "Section 1 again": "the deeper layer where the image ceases to contribute to the answer",
        "Figure 5": "a layer from which truncating no longer affects the accuracy",
    },
    "flow_words": {
        "Abstract": "diversify",
        "Sections 1 and 4.2": "diverge",
        "Sections 3.2 and 3.3": "disperse",
        "Section 1 again": "become sparse",
    },
}
#: Numbers of the released code and of what others published, likewise.
RELEASED = {
    "MASKED": {"llava-1.5": (36, 576), "qwen-vl": (6, 258)},
    "IMAGE_TOKENS": {"llava-1.5": 576, "intern-vl": 576, "qwen-vl": 256, "shikra": 256, "instructblip": 32},
    "PATCHES": {"llava-1.5": (336, 14), "qwen-vl": (448, 28)},
    "AGG_LAYER": {"llava-1.5": 22, "qwen-vl": 2},
    "CAM_IMAGE": (34, 576),
    "CAM_PROMPTS": {"the demo's prompt": 48, "its ScienceQA prompt": 159},
    "CAM_RELU_GRADIENTS": True,
    "CAM_THRESHOLD": 0.5,
    "CAM_SAMPLES": 1,
    "CAM_NOISE": 0.1,
    "CAPTIONS": 500,
    "CAPTION_TOKENS": 512,
    "INTERN_VL_F1": 86.4,
    "SCIENCEQA_SPLITS": {"train": 12726, "val": 4241, "test": 4241},
    "SCIENCEQA_WITH_IMAGE": 2017,
    "PUBLISHED": {
        ("llava-1.5", "scienceqa"): 66.8,
        ("llava-1.5", "textvqa"): 58.2,
        ("instructblip", "scienceqa"): 60.5,
        ("instructblip", "textvqa"): 50.1,
        ("intern-vl", "scienceqa"): 66.2,
        ("intern-vl", "textvqa"): 57.0,
        ("qwen-vl", "scienceqa"): 67.1,
        ("qwen-vl", "textvqa"): 63.8,
    },
}
#: What the paper has: sections, numbered figures and equations, its one table.
PLACES = {
    *(
        f"Section {number}"
        for number in ("1", "2", "3", "3.1", "3.2", "3.3", "3.4", "4", "4.1", "4.2", "4.3", "5")
    ),
    *("Section A.1", "Section A.2", "Table 1", "Abstract"),
    *(f"Figure {number}" for number in range(1, 10)),
    *(f"Eq. {number}" for number in range(1, 14)),
}
#: The models that Sections 1 and 4.3 say the pattern was verified in.
VERIFIED = {"llava-1.5", "intern-vl", "qwen-vl", "shikra", "instructblip", "llava-1.6"}
#: Of which claims the text leaves out what a measurement must know; of the others that name what it must know it
#: does not.
LEAVES_OUT = {
    *(
        "selection",
        "baselines",
        "cliff-definition",
        "complexity",
        "retrospective",
        "share-below-2",
        "share-shape",
    ),
    *("share-ordering", "flow-converges", "cam-module", "cam-reveals", "cam-contribution", "cost", "greedy"),
    "projector-independence",
}
#: LLaVA-1.5's cliff layers; "around layer 30" is any of three.
LAYERS = {"scienceqa": (12,), "textvqa": (18,), "pope": (22, 24), "chair": (29, 30, 31)}


COLUMNS = ("baseline", "i-f cliff layer")


def printed() -> dict[str, float | None]:
    """Cell -> number of the rows above."""
    cells: dict[str, float | None] = {}
    for row in ROWS.strip().split("\n"):
        model, benchmark, metric, arrow, *numbers = row.split()
        for column, number in zip(COLUMNS, numbers, strict=True):
            cell = f"Table 1, {model}, {benchmark}, {metric} {arrow}, {column}"
            cells[cell] = None if number == "-" else float(number)
    return cells


def test_table_1_is_as_printed():
    expected = printed()
    found = {
        f"{PAPER.place(cell)}, {column}": number
        for cell in PAPER.table
        for column, number in zip(COLUMNS, (cell.baseline, cell.at_cliff), strict=True)
    }
    assert list(found) == list(expected)
    changed = [
        f"{cell}: {found[cell]} in {FILE}, {number} here"
        for cell, number in expected.items()
        if found[cell] != number
    ]
    assert not changed, "changed paper value: " + "; ".join(changed)


@pytest.mark.parametrize("name", STATED)
def test_the_texts_numbers_are_as_printed(name):
    found, here = getattr(PAPER, name), STATED[name]
    assert found == here, f"changed paper value: {name}: {found} in {FILE}, {here} here"


@pytest.mark.parametrize("name", RELEASED)
def test_the_numbers_of_others_are_as_published(name):
    found, here = getattr(released, name), RELEASED[name]
    assert found == here, f"changed number: {name}: {found} in repro/audit/released.py, {here} here"


def places(text: str) -> set[str]:
    """The places that a citation names: "Sections 3.2 and 4.2" -> Section 3.2, Section 4.2."""
    found = set()
    for kind, numbers in re.findall(
        r"(Section|Figure|Table|Eq)s?\.? ((?:[A\d][.\d]*(?:-\d+)?(?:, | and )?)+)", text
    ):
        for number in re.findall(r"[A\d][.\d]*", numbers):
            found.add(f"{kind}{'.' if kind == 'Eq' else ''} {number.rstrip('.')}")
    return found


def test_citations_are_of_places_that_the_paper_has():
    cited = [where for claim in PAPER.claims for where in claim.stated.values() if where is not None]
    for where in (*cited, *(claim.where for claim in PAPER.claims)):
        assert places(where) <= PLACES, where
        assert places(where) or "Abstract" in where, where


def test_what_the_text_leaves_out_is_as_read():
    found = {claim.id for claim in PAPER.claims if None in claim.stated.values()}
    assert found == LEAVES_OUT


def test_cliff_layers_are_as_printed():
    found = {one.benchmark: one.layers for one in PAPER.cliffs if one.model == "llava-1.5"}
    assert found == LAYERS, f"changed paper value: cliff layers: {found}"
    assert len(PAPER.cliffs) == len(LAYERS)


def test_all_names_are_the_papers():
    assert {cell.model for cell in PAPER.table} | {cell.benchmark for cell in PAPER.table} == set(PAPER.names)


def test_its_models_and_benchmarks_are_pinned():
    """Whatever else is registered."""
    assert set(PAPER.models) == VERIFIED and len(PAPER.models) == len(VERIFIED)
    assert PAPER.benchmarks == ("pope", "scienceqa", "textvqa", "chair") == tuple(PAPER.items)
