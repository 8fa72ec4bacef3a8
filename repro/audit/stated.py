"""What a claim must say to be checked, and where the text of arXiv 2406.06579 says it.

A claim that leaves out what no choice of ours can fill in is ``undefined``: of which model, on what, by which
measure. One that says as much, and is about the published models, is ``not measured here``. Prompts, usual
subsets and tolerances, which a measurement can try in turn, decide neither. What the released code does
decides claims about that code, and their statements name it; of the figures it says nothing, as most of it
does not run as committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from repro.audit.ledger import Verdict

#: Of a claim: what it must say -> where the text does; None where it does not.
STATED: dict[str, Mapping[str, str | None]] = {
    "table-1": {"models": "Table 1", "data sets": "Table 1", "metrics": "Table 1", "decoding": "Section 4.1"},
    "selection": {
        "the items on which the layer was chosen": None,
        "the scores at the other layers, as numbers": None,
    },
    "baselines": {"whether they were run or quoted": None},
    "cliff-definition": {"which of its descriptions it is, where they name different layers": None},
    "cliff-order": {
        "model": "Sections 3.2 and 4.2; panel A of Figure 5",
        "tasks": "Section 4.2",
        "measure": "Figure 5, accuracy when truncated there",
    },
    "cliff-layers": {
        "model": "Sections 3.2 and 4.2; panel A of Figure 5",
        "layers": "Section 4.2",
        "measure": "Figure 5, accuracy when truncated there",
    },
    "complexity": {
        "tasks": "Section 4.2",
        "a measure of complexity that is independent of the layers": None,
        "items that differ in it alone": None,
    },
    "retrospective": {"layer": "Section 4.2", "the model": None, "what would show that it looks back": None},
    "share-below-2": {
        "row": "Figure 2, the answer's",
        "mean over heads": "Eq. 9, for the ranking",
        "the model": None,
        "the items": None,
    },
    "share-shape": {"layers": "Figure 2", "the model": None, "the items": None, "a spread over them": None},
    "share-ordering": {"layers": "Figure 2", "the model": None, "the items": None},
    "flow-converges": {
        "a number that is small where the flow converges and large where it does not": None,
        "from which value on it has": None,
    },
    "cam-module": {
        "the module": "Section A.1",
        "the maps of other modules": None,
        "a score, such as the share of the heat inside the object's box": None,
    },
    "cam-reveals": {
        "a test that a map of something else would fail (Adebayo et al. 2018: weights drawn anew)": None,
        "on how many items, by which measure": None,
    },
    "cam-contribution": {
        "what becomes of the answer when what the maps mark is taken away (Petsiuk et al. 2018: as the "
        "hottest "
        "image tokens are deleted or inserted, against a random order)": None,
    },
    "cost": {"whether tokens are removed or masked": None, "what was simplified, and by how much": None},
    "projector-independence": {
        "models and projectors": "Section 4.3",
        "a number for convergence": None,
        "how much it may differ between types and still be called independent": None,
    },
    "greedy": {"the decoding": "Section 4.1", "code that produced the figures": None},
}


class Standing(NamedTuple):
    """What the text leaves of a claim.

    Attributes:
        verdict: ``undefined`` where something is missing.
        text: a sentence or two for the evidence.
        figures: the numbers of things needed and stated.
    """

    verdict: Verdict
    text: str
    figures: dict[str, float]


def standing(claim: str) -> Standing:
    """What the text says, and leaves out, of what a claim must say."""
    needed = STATED[claim]
    said = [f"{what} ({where})" for what, where in needed.items() if where is not None]
    missing = [what for what, where in needed.items() if where is None]
    parts = [("Stated", said), ("Missing", missing)]
    return Standing(
        "undefined" if missing else "not measured here",
        " ".join(f"{word}: {'; '.join(found)}." for word, found in parts if found),
        {"things to state": len(needed), "stated": len(said)},
    )
