"""Set-up: models, projectors, data and decoding."""

from __future__ import annotations

import json

from repro.audit import released
from repro.audit.experiments import cliffs
from repro.audit.ledger import Claim, Finding, listed
from repro.audit.needs import need
from repro.audit.paper import TEXT, Text
from repro.models.card import REGISTRY

TYPES = list(TEXT.projectors.values())
#: Types of projectors that one model has.
SINGLE = [kind for kind in TYPES if TYPES.count(kind) == 1]


@Claim(
    id="models-verified",
    where="Sections 1 and 4.3, Table 1, Figure 5",
    statement=f"The pattern was verified in {len(TEXT.models)} models, each with its cliff layers.",
    quantity="models named against models with scores and with cliff layers",
    verdict="contradicted",
    evidence="{named} models are named; Table 1 has {in Table 1} and Figure 5 {in Figure 5}, and {missing} "
    'is in neither. Numbers of cliff layers are given for {placed} alone. "{instructblip}" is InstructBLIP '
    "by the reference.",
)
def models_verified(paper: Text) -> Finding:
    measured, placed = set(paper.table_models), {stated.model for stated in paper.cliffs}
    missing = [model for model in paper.models if model not in measured | set(paper.figure_5_models)]
    return Finding(
        "contradicted" if missing else "holds",
        {
            "named": len(paper.models),
            "in Table 1": len(measured),
            "in Figure 5": len(paper.figure_5_models),
            "with a cliff layer": len(placed),
        },
        {
            "missing": listed(missing),
            "placed": listed(paper.names[model] for model in sorted(placed)),
            "instructblip": paper.names["instructblip"],
        },
    )


@Claim(
    id="projector-types",
    where="Section 4.3",
    statement=f"{TEXT.projectors_compared} types of projectors were compared, InstructBLIP's as an MLP.",
    quantity="types named against types of the models",
    verdict="contradicted",
    evidence="{said} types are said to be compared; the paragraph before names {named}, {names}. "
    "InstructBLIP's is called {stated}, but its published configuration has a Q-Former; with it the models "
    "have {of the models} types.",
)
def projector_types(paper: Text) -> Finding:
    """The published architecture of InstructBLIP is that of its miniature's configuration."""
    miniature = REGISTRY["instructblip"].miniature
    assert miniature is not None
    queried = "qformer_config" in json.loads((miniature / "config.json").read_text(encoding="utf-8"))
    stated = paper.projectors["instructblip"]
    types = {*paper.projectors.values(), *(["Q-former"] if queried else [])}
    return Finding(
        "contradicted" if queried and stated != "Q-former" else "holds",
        {
            "said": paper.projectors_compared,
            "named": len(paper.projectors_named),
            "of the models": len(types),
        },
        {"names": listed(paper.projectors_named), "stated": stated},
    )


@Claim(
    id="model-replicated",
    where="Section 4.1",
    statement=f'The experiments replicate "{TEXT.replicated}".',
    quantity="the name of a model",
    verdict="undefined",
    evidence='The sentence says "{paper.replicated}" where the name should be. Missing: checkpoints and versions.',
)
def model_replicated(paper: Text) -> Finding:
    return Finding("undefined" if paper.replicated == "model" else "holds", {})


@Claim(
    id="released-code",
    where="Abstract",
    statement="The paper's source code can be accessed: that of all of the method and its evaluation.",
    quantity="parts of the method and its evaluation against the released files",
    verdict="contradicted",
    evidence="Read as the code behind the method and its scores. Of {parts} parts of the method and its "
    "evaluation {without code} have no code in any commit: {absent}. {not as committed} have code that does "
    "not do it as committed: {stopped}. {complete}, {listed}, has code that was not run here; the rows it "
    "reads are another entry.",
)
def released_code(paper: Text) -> Finding:
    absent = [part for part, code in released.CODE.items() if code.file is None]
    stopped = [f"{part} ({code.file}) {code.stops}" for part, code in released.CODE.items() if code.stops]
    complete = [part for part, code in released.CODE.items() if code.file is not None and not code.stops]
    return Finding(
        "contradicted" if absent or stopped else "holds",
        {"parts": len(released.CODE), "without code": len(absent), "not as committed": len(stopped)},
        {
            "absent": listed(absent),
            "stopped": "; ".join(stopped),
            "complete": len(complete),
            "listed": listed(complete),
        },
    )


@Claim(
    id="gpu",
    where="Section 4.1",
    statement=f"The experiments fit on an {TEXT.gpu}, on which they ran.",
    quantity="memory needed against memory there",
    verdict="holds",
    evidence="An {paper.gpu} has {sizes} GB. At half precision the largest model with the keys and values "
    "of a whole sweep takes {GB needed:.0f} GB.",
)
def gpu(paper: Text) -> Finding:
    needed = need(paper, tuple(paper.projectors)).memory_gb
    return Finding(
        "holds" if needed <= min(paper.gpu_memory) else "contradicted",
        {"GB needed": needed},
        {"sizes": " or ".join(map(str, paper.gpu_memory))},
    )


@Claim(
    id="scienceqa-questions",
    where="Section 4.1",
    statement=f"ScienceQA has {TEXT.scienceqa_questions} questions.",
    quantity="questions of the published splits",
    verdict="holds",
    evidence="{splits} are {questions}. Of the {test} test questions {test, with an image} have an image; "
    "which were asked the text does not say.",
)
def scienceqa_questions(paper: Text) -> Finding:
    splits = released.SCIENCEQA_SPLITS
    total = sum(splits.values())
    return Finding(
        "holds" if total == paper.scienceqa_questions else "contradicted",
        {"questions": total, "test": splits["test"], "test, with an image": released.SCIENCEQA_WITH_IMAGE},
        {"splits": listed(f"{n} {split}" for split, n in splits.items())},
    )


CLAIMS = (
    models_verified,
    projector_types,
    Claim(
        id="projector-independence",
        where="Section 4.3",
        statement="That the flow converges in shallow layers does not depend on the type of the projector.",
        quantity="cliff layer and shares by type of projector",
        verdict="undefined",
        evidence=f"{listed(SINGLE)} are types of one model each, and models differ in vision tower, decoder "
        "and data too. {reading}",
        stated={
            "models and projectors": "Section 4.3",
            "a number for convergence": None,
            "how much it may differ between types and still be called independent": None,
        },
        numbers={"types with one model": len(SINGLE)},
        takes=tuple(TEXT.projectors),
        outcome="in part as claimed",
        experiment=cliffs.projectors,
    ),
    model_replicated,
    # What ``pope_eval.py`` (204-206) and ``chair_eval.py`` pass to ``generate``.
    Claim(
        id="greedy",
        where="Section 4.1; released evaluation scripts",
        statement=f"Answers come from {TEXT.decoding} search.",
        quantity="decoding of the released evaluation scripts",
        verdict="undefined",
        evidence="The released evaluation scripts of POPE and CHAIR ask for OPERA's decoding, a beam "
        "search, and take the number of beams from the command line without a default. With one beam that "
        "ends in an assertion for Shikra and InstructBLIP, and LLaVA's generate does not take these "
        "arguments: they are not what gave the scores. The demo of heat maps is greedy. {reading}",
        stated={"the decoding": "Section 4.1", "code that produced the scores": None},
    ),
    released_code,
    gpu,
    scienceqa_questions,
)
