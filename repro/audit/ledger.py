"""The ledger: what a claim of the paper is, the verdict on it, and evidence that a test recomputes.

Two columns are kept apart: the verdict is about the paper and its models; what miniatures show is about small
models of the same architectures and never decides a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from repro.models.lvlm import Lvlm

#: ``undefined``: the text does not say enough to check it. ``not measured here``: it takes the published models.
Verdict = Literal["holds", "contradicted", "undefined", "not measured here"]
#: ``inconclusive``: every interval leaves it open. ``compared``: of another method, which claims nothing here.
Outcome = Literal["as claimed", "not as claimed", "mixed", "inconclusive", "compared"]
#: The miniature of a name, loaded once.
Load = Callable[[str], Lvlm]


@dataclass(frozen=True)
class Finding:
    """What the evidence says that needs no model.

    Attributes:
        verdict: the one it supports; for ``undefined`` the evidence says what is missing, for
            ``not measured here`` what a measurement would take.
        evidence: for people, with figures and where they come from.
        figures: the numbers in it, by name.
    """

    verdict: Verdict
    evidence: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Shown:
    """What an experiment on miniatures shows.

    Attributes:
        outcome: whether they behave as the paper claims of its models.
        evidence: for people, with figures, intervals, and on what they were measured.
        figures: the numbers in it, by name.
    """

    outcome: Outcome
    evidence: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger.

    Attributes:
        id: short and stable, for links and for the properties of test reports.
        where: section, equation, figure or table of the paper.
        statement: what the paper says, in our words.
        quantity: what is compared with what.
        verdict: recorded; ``check`` must support it.
        check: recomputes the evidence, without a model.
        outcome, experiment: recorded, and what recomputes it on miniatures; None where nothing is to be measured.
        figure: anchor of the figure in the report that shows it, or empty.
    """

    id: str
    where: str
    statement: str
    quantity: str
    verdict: Verdict
    check: Callable[[], Finding]
    outcome: Outcome | None = None
    experiment: Callable[[Load], Shown] | None = None
    figure: str = ""
