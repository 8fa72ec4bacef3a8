"""Set-up: models, projectors, data and decoding."""

from __future__ import annotations

import json

from repro.audit.claims.text import listed
from repro.audit.experiments import cliffs
from repro.audit.ledger import Claim, Finding
from repro.audit.needs import need
from repro.audit.paper import (
    CLIFF_LAYERS,
    DECODING,
    FIGURE_5_MODELS,
    GPU,
    GPU_MEMORY,
    PRINTED,
    PROJECTORS,
    PROJECTORS_COMPARED,
    PROJECTORS_NAMED,
    REPLICATED,
    SCIENCEQA_QUESTIONS,
    TABLE_1,
    VERIFIED_MODELS,
)
from repro.audit.released import CODE, OPERA_DECODING, SCIENCEQA_SPLITS, SCIENCEQA_WITH_IMAGE
from repro.audit.stated import standing
from repro.models.card import REGISTRY


def models() -> Finding:
    measured = {cell.model for cell in TABLE_1}
    missing = [model for model in VERIFIED_MODELS if model not in measured | set(FIGURE_5_MODELS)]
    placed = {one.model for one in CLIFF_LAYERS}
    return Finding(
        "contradicted" if missing else "holds",
        f"{len(VERIFIED_MODELS)} models are named; Table 1 has {len(measured)} and Figure 5 "
        f"{len(FIGURE_5_MODELS)}, and {listed(missing)} is in neither. Numbers of cliff layers are "
        f'given for {listed(PRINTED[model] for model in sorted(placed))} alone. "{PRINTED["instructblip"]}" is '
        "InstructBLIP by the reference.",
        {
            "named": len(VERIFIED_MODELS),
            "in Table 1": len(measured),
            "in Figure 5": len(FIGURE_5_MODELS),
            "with a cliff layer": len(placed),
        },
    )


def projector_types() -> Finding:
    """The published architecture of InstructBLIP is that of its miniature's configuration."""
    card = REGISTRY["instructblip"]
    assert card.miniature is not None
    queried = "qformer_config" in json.loads((card.miniature / "config.json").read_text(encoding="utf-8"))
    stated = PROJECTORS["instructblip"]
    types = {*PROJECTORS.values(), "Q-former"} if queried else {*PROJECTORS.values()}
    return Finding(
        "contradicted" if queried and stated != "Q-former" else "holds",
        f"{PROJECTORS_COMPARED} types are said to be compared; the paragraph before names "
        f"{len(PROJECTORS_NAMED)}, {listed(PROJECTORS_NAMED)}. InstructBLIP's is called {stated}, but its "
        f"published configuration has a Q-Former; with it the models have {len(types)} types.",
        {"said": PROJECTORS_COMPARED, "named": len(PROJECTORS_NAMED), "of the models": len(types)},
    )


def projector_independence() -> Finding:
    single = [kind for kind in PROJECTORS.values() if list(PROJECTORS.values()).count(kind) == 1]
    takes = need(tuple(PROJECTORS))
    left = standing("projector-independence")
    return Finding(
        left.verdict,
        f"{listed(single)} are types of one model each, and models differ in vision tower, decoder and data "
        f"too. {left.text} {takes.text}",
        {"types with one model": len(single), **takes.figures, **left.figures},
    )


def replicated() -> Finding:
    return Finding(
        "undefined" if REPLICATED == "model" else "holds",
        f'The sentence says "{REPLICATED}" where the name should be. Missing: checkpoints and versions.',
        {},
    )


def decoding() -> Finding:
    left = standing("greedy")
    scripts = "ask for OPERA's decoding, a beam search" if OPERA_DECODING else "decode greedily"
    return Finding(
        left.verdict,
        f"The released evaluation scripts of POPE and CHAIR {scripts}, and take the number of beams from the "
        "command line without a default. With one beam that ends in an assertion for Shikra and "
        "InstructBLIP, and "
        "LLaVA's generate does not take these arguments: they are not what gave the figures. The demo of "
        "heat maps is "
        f"greedy. {left.text}",
        left.figures,
    )


def gpu() -> Finding:
    needed = need(tuple(PROJECTORS)).figures["GPU memory, GB"]
    return Finding(
        "holds" if needed <= min(GPU_MEMORY) else "contradicted",
        f"An {GPU} has {' or '.join(map(str, GPU_MEMORY))} GB. At half precision the largest model with the "
        "keys "
        f"and values of a whole sweep takes {needed:.0f} GB.",
        {"GB needed": needed},
    )


def released() -> Finding:
    absent = [part for part, code in CODE.items() if code.file is None]
    stopped = {part: code for part, code in CODE.items() if code.stops}
    whole = [part for part, code in CODE.items() if code.file is not None and not code.stops]
    said = "; ".join(f"{part} ({code.file}) {code.stops}" for part, code in stopped.items())
    return Finding(
        "contradicted" if absent or stopped else "holds",
        f"Of {len(CODE)} parts of the method and its evaluation {len(absent)} have no code in any commit: "
        f"{listed(absent)}. {len(stopped)} have code that does not do it as committed: {said}. "
        f"{len(whole)}, {listed(whole)}, has code that was not run here; the rows it reads are another "
        "entry.",
        {"parts": len(CODE), "without code": len(absent), "not as committed": len(stopped)},
    )


def scienceqa() -> Finding:
    total = sum(SCIENCEQA_SPLITS.values())
    said = listed(f"{n} {split}" for split, n in SCIENCEQA_SPLITS.items())
    return Finding(
        "holds" if total == SCIENCEQA_QUESTIONS else "contradicted",
        f"{said} are {total}. Of the {SCIENCEQA_SPLITS['test']} test questions {SCIENCEQA_WITH_IMAGE} have "
        "an "
        "image; which were asked the text does not say.",
        {"questions": total, "test": SCIENCEQA_SPLITS["test"], "test, with an image": SCIENCEQA_WITH_IMAGE},
    )


CLAIMS = (
    Claim(
        id="models-verified",
        where="Sections 1 and 4.3, Table 1, Figure 5",
        statement=f"The pattern was verified in {len(VERIFIED_MODELS)} models, each with its cliff layers.",
        quantity="models named against models with figures and with cliff layers",
        verdict="contradicted",
        check=models,
    ),
    Claim(
        id="projector-types",
        where="Section 4.3",
        statement=f"{PROJECTORS_COMPARED} types of projectors were compared, InstructBLIP's as an MLP.",
        quantity="types named against types of the models",
        verdict="contradicted",
        check=projector_types,
    ),
    Claim(
        id="projector-independence",
        where="Section 4.3",
        statement="That the flow converges in shallow layers does not depend on the type of the projector.",
        quantity="cliff layer and shares by type of projector",
        verdict="undefined",
        check=projector_independence,
        outcome="mixed",
        experiment=cliffs.projectors,
    ),
    Claim(
        id="model-replicated",
        where="Section 4.1",
        statement=f'The experiments replicate "{REPLICATED}".',
        quantity="the name of a model",
        verdict="undefined",
        check=replicated,
    ),
    Claim(
        id="greedy",
        where="Section 4.1; released evaluation scripts",
        statement=f"Answers come from {DECODING} search.",
        quantity="decoding of the released evaluation scripts",
        verdict="undefined",
        check=decoding,
    ),
    Claim(
        id="released-code",
        where="Abstract",
        statement="The paper's source code can be accessed: that of all of the method and its evaluation.",
        quantity="parts of the method and its evaluation against the released files",
        verdict="contradicted",
        check=released,
    ),
    Claim(
        id="gpu",
        where="Section 4.1",
        statement=f"The experiments fit on an {GPU}, on which they ran.",
        quantity="memory needed against memory there",
        verdict="holds",
        check=gpu,
    ),
    Claim(
        id="scienceqa-questions",
        where="Section 4.1",
        statement=f"ScienceQA has {SCIENCEQA_QUESTIONS} questions.",
        quantity="questions of the published splits",
        verdict="holds",
        check=scienceqa,
    ),
)
