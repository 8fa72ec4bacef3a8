"""Has every claim of the paper an entry, and would its verdict turn if the facts were otherwise?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from repro.audit import arithmetic, released, structure
from repro.audit.claims import PAPER, table1
from repro.audit.ledger import Cell, StatedLayer
from repro.audit.paper import TEXT, WithoutImage
from repro.audit.released import Code, Span
from repro.audit.replayed import Chair

pytestmark = pytest.mark.audit

BY_ID = {claim.id: claim for claim in PAPER.claims}
#: Claims that what the text states decides.
READ = [claim.id for claim in PAPER.claims if claim.stated]
#: Where the paper contradicts itself or leaves something out, and the entries on it.
INCONSISTENCIES = {
    1: ("POPE's cliff layer is 24 and 22", {"cliff-pope"}),
    2: ("below 2 %, weights up to 0.2, drop until layer 5 and rise at 32", {"share-range"}),
    3: ("the cliff layer has no definition", {"cliff-definition", "no-impact"}),
    4: ("576 tokens in all models", {"truncated-576"}),
    5: ("ids 35-611", {"image-ids"}),
    6: ("CHAIR_i for one model, CHAIR_s for the others", {"chair-label"}),
    7: ("six models, of which five in Table 1 and three in Figure 5", {"models-verified"}),
    8: ("three types of projectors, four names", {"projector-types"}),
    9: ("different values of K: 0", {"k-values"}),
    10: ("the model replicated is called model", {"model-replicated"}),
    11: ("47.5 % of something; layer = 1", {"without-image", "layer-1"}),
    12: ("enhances or equals; diverges, disperses", {"improvement", "equal-or-better", "flow-converges"}),
    13: (
        "symbols and indices of Eqs. 2, 4, 8, 10",
        {"equations-1-3", "equation-4", "equation-8", "equation-10"},
    ),
}
#: What the paper claims that can be tested, and the entries on it.
TESTABLE = {
    1: ("image share below 2 %", {"share-below-2"}),
    2: ("shape of Figure 2", {"share-shape"}),
    3: ("order of the shares", {"share-ordering"}),
    4: ("shares sum to 1", {"equation-7"}),
    5: ("576 and 256 tokens, and where", {"image-tokens", "released-span-llava", "released-span-qwen"}),
    6: ("cliff layers", {"cliff-layers"}),
    7: ("their order", {"cliff-order", "complexity"}),
    8: ("layer 32 looks back", {"retrospective", "cam-last-layer"}),
    9: ("Table 1", {"table-1", "pope-intern-vl", "pope-others", "baselines"}),
    10: ("at the cliff as good or better", {"equal-or-better", "improvement", "selection"}),
    11: ("47.5 % without an image", {"without-image"}),
    12: ("maps are clearest behind the post-attention norm", {"cam-module"}),
    13: ("independent of the projector", {"projector-independence"}),
    14: ("greedy search, an A100, 21,208 questions", {"greedy", "gpu", "scienceqa-questions"}),
}
#: Entries beyond those: granularity, the released demo, and what heat maps and truncation are good for.
FURTHER = {
    *(f"granularity-{name}" for name in ("pope", "scienceqa", "textvqa", "chair")),
    *("cam-rows", "cam-steps", "cam-reveals", "cam-contribution", "cost", "released-code"),
}


def test_every_inconsistency_and_every_claim_has_an_entry():
    assert list(INCONSISTENCIES) == list(range(1, 14)) and list(TESTABLE) == list(range(1, 15))
    topics = [entries for _, entries in (*INCONSISTENCIES.values(), *TESTABLE.values())]
    assert all(topics) and set().union(FURTHER, *topics) == set(BY_ID)


def table(**changes: tuple[float, float]) -> dict[str, tuple[Cell, ...]]:
    """Table 1 with other scores in the rows of these models and labels, as ``model__benchmark__label``."""
    cells = (
        replace(cell, baseline=changed[0], at_cliff=changed[1])
        if (changed := changes.get(f"{cell.model} {cell.benchmark} {cell.label}"))
        else cell
        for cell in TEXT.table
    )
    return {"table": tuple(cells)}


def stated(*layers: int) -> dict[str, tuple[StatedLayer, ...]]:
    """One cliff layer, of LLaVA-1.5 on POPE."""
    return {"cliffs": (StatedLayer("llava-1.5", "pope", layers, ""),)}


INTERN_VL = "intern-vl pope Acc ↑"
#: What the paper would have to say otherwise, and the verdict it would turn.
OTHERWISE = [
    ("pope-intern-vl", table(**{INTERN_VL: (86.40, 87.30)}), "holds"),
    # A mean of three categories may have it, one table of all has not.
    ("pope-intern-vl", table(**{INTERN_VL: (89.00, 87.30)}), "undefined"),
    ("pope-others", table(**{"shikra pope Acc ↑": (94.01, 94.58)}), "contradicted"),
    ("pope-others", table(**{"shikra pope Acc ↑": (82.50, 76.34)}), "undefined"),
    # 93.07 % are no whole number of 8910 questions, unless cut off.
    ("granularity-pope", table(**{INTERN_VL: (93.07, 94.58)}), "undefined"),
    # No captions of 500, 1000 or 5000 are 12.51 %.
    ("granularity-chair", table(**{"shikra chair CHAIR_s ↓": (12.51, 12.51)}), "undefined"),
    ("granularity-textvqa", {"items": {"textvqa": 50}}, "undefined"),
    # 1311 of 2017, in all rows.
    (
        "granularity-scienceqa",
        table(**{f"{model} scienceqa Acc ↑": (65.00, 65.00) for model in TEXT.table_models}),
        "holds",
    ),
    ("equal-or-better", table(**{"shikra chair CHAIR_s ↓": (12.50, 12.51)}), "contradicted"),
    ("improvement", table(**{"shikra scienceqa Acc ↑": (5.00, 95.00)}), "holds"),
    ("cliff-pope", stated(22), "holds"),
    ("no-impact", stated(9), "holds"),
    ("no-impact", stated(32), "contradicted"),
    ("without-image", {"without_image": WithoutImage(47.5, 1, "llava-1.5", "pope")}, "not measured here"),
    ("share-range", {"weights": (0.0, 2.0)}, "holds"),
    ("equation-8", {"equation_8": (("i",), ("i", "j"), "j")}, "holds"),
    ("equation-10", {"image_tokens": {"llava-1.5": -1}}, "holds"),
    ("equations-1-3", {"defined": TEXT.symbols}, "holds"),
    ("equation-4", {"noise_power": {"Eq. 4": 1.0, "the text under it": 1.0}}, "holds"),
    ("image-tokens", {"image_tokens": {"llava-1.5": 575, "qwen-vl": 256}}, "contradicted"),
    ("truncated-576", {"figure_5_models": ("llava-1.5", "intern-vl")}, "holds"),
    ("image-ids", {"image_ids": (35, 610)}, "holds"),
    ("image-ids", {"image_ids": (35, 612)}, "contradicted"),
    ("layer-1", {"without_image": WithoutImage(47.5, 0, None, None)}, "holds"),
    ("k-values", {"k_values": (0, 64)}, "holds"),
    ("models-verified", {"models": ("llava-1.5", "shikra")}, "holds"),
    ("projector-types", {"projectors": {"instructblip": "Q-former"}}, "holds"),
    ("model-replicated", {"replicated": "LLaVA-1.5-7B"}, "holds"),
    ("gpu", {"gpu_memory": (24, 80)}, "contradicted"),
    ("scienceqa-questions", {"scienceqa_questions": 21_207}, "contradicted"),
]
#: What files and the architecture would have to give otherwise.
MEASURED_OTHERWISE = [
    ("chair-label", table1, "replayed", lambda model, words=None: Chair(13.8, 4.0), "holds"),
    # Not even the shortest captions would have so few.
    ("chair-label", table1, "longest", lambda model, sentences: 0, "contradicted"),
    ("cam-last-layer", structure, "reached", lambda *rows: ([576] * 10, 0), "holds"),
    ("cam-last-layer", structure, "heat", lambda: np.ones((10, 6, 6)), "holds"),
    ("equation-7", structure, "answer_sums", lambda: np.ones((10, 5)), "holds"),
    ("cam-rows", released, "CAM_PROMPTS", {"a prompt": 34 + 576}, "holds"),
    ("released-span-llava", released, "MASKED", {"llava-1.5": Span(35, 576)}, "holds"),
    ("released-span-qwen", released, "MASKED", {"qwen-vl": Span(6, 256)}, "holds"),
    ("released-code", released, "CODE", {"all of it": Code("all.py")}, "holds"),
]


@pytest.mark.parametrize(("name", "changes", "verdict"), OTHERWISE, ids=[o[0] for o in OTHERWISE])
def test_another_text_would_turn_the_verdict(name, changes, verdict):
    assert BY_ID[name].check(replace(PAPER, **changes)).supports == verdict != BY_ID[name].verdict


@pytest.mark.parametrize(
    ("name", "module", "data", "value", "verdict"), MEASURED_OTHERWISE, ids=[o[0] for o in MEASURED_OTHERWISE]
)
def test_other_facts_would_turn_the_verdict(name, module, data, value, verdict, monkeypatch):
    monkeypatch.setattr(module, data, value)
    assert BY_ID[name].check(PAPER).supports == verdict != BY_ID[name].verdict


@pytest.mark.parametrize("name", READ)
def test_what_the_text_leaves_out_decides_between_undefined_and_not_measured(name):
    claim = BY_ID[name]
    everything = dict.fromkeys(claim.stated, "Section 5")
    assert replace(claim, stated=everything).check(PAPER).supports == "not measured here"
    for what in everything:
        found = replace(claim, stated=everything | {what: None}).check(PAPER)
        assert found.supports == "undefined" and f"Missing: {what}." in found.evidence


@pytest.mark.parametrize(
    ("accuracy", "f1", "columns"),
    [
        # One possible pair does not make up for the other.
        ((86.90, 94.58), (86.31, 87.21), 1),
        ((94.01, 87.30), (86.31, 87.21), 1),
        # An F1 above what the accuracy leaves is as impossible as one below.
        ((84.70, 84.70), (90.00, 90.00), 2),
        # No share of yes reconciles these.
        ((70.00, 70.00), (86.31, 87.21), 2),
    ],
)
def test_each_impossible_pair_of_accuracy_and_f1_is_enough(accuracy, f1, columns):
    rows = {INTERN_VL: accuracy, "intern-vl pope F1-score ↑": f1}
    found = BY_ID["pope-intern-vl"].check(replace(PAPER, **table(**rows)))
    assert (found.supports, found.numbers["columns"]) == ("contradicted", columns)


def test_one_part_without_code_is_enough(monkeypatch):
    for absent in (Code(None), Code("a.py", "stops")):
        monkeypatch.setattr(released, "CODE", {"all": Code("all.py"), "the rest": absent})
        assert BY_ID["released-code"].check(PAPER).supports == "contradicted"


def test_every_verdict_is_turned_by_one_of_these():
    turned = {name for name, *_ in (*OTHERWISE, *MEASURED_OTHERWISE)}
    assert turned | set(READ) | {"cam-steps"} == set(BY_ID)


def test_a_demo_that_follows_the_equations_would_turn_the_verdict(monkeypatch):
    for data, value in (("CAM_RELU_GRADIENTS", False), ("CAM_THRESHOLD", None)):
        assert BY_ID["cam-steps"].check(PAPER).supports == "contradicted"
        monkeypatch.setattr(released, data, value)
    assert BY_ID["cam-steps"].check(PAPER).supports == "contradicted"
    monkeypatch.setattr(released, "CAM_SAMPLES", 50)
    assert BY_ID["cam-steps"].check(PAPER).supports == "holds"


#: Numbers that are quoted, by entry.
QUOTED = {
    "table-1": {"numbers": 48, "models": 5},
    "granularity-pope": {"of 3000: impossible however read": 8, "of 9000: impossible if rounded": 1},
    "granularity-scienceqa": {"of 2017: impossible however read": 1, "of 4241: impossible however read": 2},
    "granularity-chair": {"of 500: impossible however read": 3, "of 5000: impossible however read": 0},
    "chair-label": {
        "LLaVA1.5: CHAIR_s replayed": 45.00,
        "LLaVA1.5: CHAIR_i replayed": 12.73,
        "LLaVA1.5: words at which CHAIR_s is as printed": 44,
        "Instruct-Blip2: CHAIR_s replayed": 58.80,
        "Instruct-Blip2: CHAIR_i replayed": 23.68,
        "Shikra: CHAIR_s replayed": 55.80,
        "Shikra: CHAIR_i replayed": 15.40,
    },
    "equal-or-better": {"better": 18, "equal": 6},
    "improvement": {
        "z: LLaVA1.5, POPE, n = 8910": 1.52,
        "z: Instruct-Blip2, CHAIR, n = 5000": -2.00,
        "most flips: LLaVA1.5, POPE, n = 8910": 1349,
        "most flips: Instruct-Blip2, CHAIR, n = 500": 0,
    },
    "selection": {"printed gains": 13, "not above": 7, "SQA: mean gain": 0.59},
    "baselines": {
        "baselines that end in 0": 15,
        "at the cliff layer": 8,
        "published numbers": 8,
        "equal to published numbers": 4,
    },
    "released-code": {"parts": 12, "without code": 6, "not as committed": 5},
    "no-impact": {"in the deeper half": 3},
    "equation-4": {"Eq. 4": 0.32, "the text under it": 0.10},
    "equation-10": {"row": 611, "last image token": 611},
    "cam-last-layer": {"image tokens reached, other layers": 576, "image tokens reached, last layer": 0},
    "cam-rows": {"the demo's prompt: first patch": 14, "its ScienceQA prompt: patches reached": 128},
    "image-ids": {"ids": 577},
    "released-span-llava": {
        "the released code's prompt: visible image tokens": 2,
        "LLaVA's own vicuna_v1: hidden other tokens": 1,
    },
    "released-span-qwen": {"ChatML: visible image tokens": 12, "ChatML: hidden other tokens": 14},
    "cost": {"SQA: percent of token-layers": 50.63, "CHAIR: percent of token-layers": 5.71},
}


@pytest.mark.parametrize("name", QUOTED)
def test_numbers_are_those_that_are_quoted(name):
    found = BY_ID[name].check(PAPER).numbers
    assert {key: found[key] for key in QUOTED[name]} == pytest.approx(QUOTED[name], abs=0.0051)


@pytest.mark.parametrize("name", ["pope", "scienceqa", "chair"])
def test_the_evidence_on_granularity_names_every_number_of_items(name):
    found = BY_ID[f"granularity-{name}"].check(PAPER)
    sizes = {key.split(":")[0].removeprefix("of ") for key in found.numbers}
    for n in sizes:
        rounded, never = (
            found.numbers[f"of {n}: impossible {how}"] for how in ("if rounded", "however read")
        )
        assert f"{n}: {rounded} ({never}), " in found.words["granularity"]
    assert len(sizes) > 1


def test_sizes_that_two_scores_on_pope_fit():
    """Of 9000 questions InstructBLIP's baseline is possible only if its scores were cut off."""
    assert arithmetic.fits(84.85, 85.40) == [2910, 8910, 9000]
    assert arithmetic.fits(94.01, 86.31) == []
