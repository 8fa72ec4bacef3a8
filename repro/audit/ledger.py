"""The ledger: a paper, its claims, the verdict on each, and evidence that a test recomputes.

Two columns are kept apart: the verdict is about the paper and its models; what miniatures show is about small
models of the same architectures and never decides a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from num2words import num2words

from repro.models.lvlm import Lvlm

#: ``undefined``: the text does not say enough to check it. ``not measured here``: it takes the published models.
Verdict = Literal["holds", "contradicted", "undefined", "not measured here"]
#: ``in part``: the other cases are open; ``inconclusive``: all are. ``compared``: another method, no claim.
Outcome = Literal[
    "as claimed", "in part as claimed", "mixed", "in part not", "not as claimed", "inconclusive", "compared"
]
#: The miniature of a name, loaded once.
Load = Callable[[str], Lvlm]


@dataclass(frozen=True)
class Finding:
    """What a check or an experiment finds.

    Attributes:
        supports: the verdict or outcome; None of a check where what the text states decides (``Claim.stated``).
        numbers: by name.
        words: what the evidence quotes beside them, by name.
        evidence: for people, with the numbers and where they come from.
    """

    supports: Verdict | Outcome | None
    numbers: Mapping[str, float]
    words: Mapping[str, object] = field(default_factory=dict)
    evidence: str = ""


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger. As a decorator it gets the function that checks it; without one it is a reading.

    Attributes:
        id: short and stable, for links and for the properties of test reports.
        where: section, equation, figure or table of the paper.
        statement: what the paper says, in our words.
        quantity: what is compared with what.
        verdict: recorded; ``check`` must support it.
        evidence: template, filled with the numbers and words of the finding by their names; ``{reading}`` is what
            the text states and leaves out, ``{paper}`` the paper.
        stated: what a measurement must know -> where the text states it; None where it does not. Decides, if any:
            a claim that leaves out what no choice of ours can fill in (of which model, on what, by which measure)
            is ``undefined``, one that says as much ``not measured here``. Prompts, usual subsets and tolerances,
            which a measurement can try in turn, are none of these, and released code says nothing of scores.
        numbers: of a reading.
        takes: published models that measuring it takes.
        outcome, experiment: recorded, and what recomputes it on miniatures; None where nothing is to be measured.
        pretrained: recorded of ``PRETRAINED``, by the same experiment; None where that says nothing of one model.
        figure: anchor of the figure in the report that shows it, or empty.
        compute: numbers and words without a model, of the paper given.
    """

    id: str
    where: str
    statement: str
    quantity: str
    verdict: Verdict
    evidence: str
    stated: Mapping[str, str | None] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    outcome: Outcome | None = None
    pretrained: Outcome | None = None
    experiment: Callable[[Any, Load], Finding] | None = None
    figure: str = ""
    compute: Callable[[Any], Finding] | None = None

    def __call__(self, compute: Callable[[Any], Finding]) -> Claim:
        return replace(self, compute=compute)

    def check(self, paper: Paper) -> Finding:
        """The evidence computed anew, and the verdict it supports."""
        finding = self.compute(paper) if self.compute else Finding(None, self.numbers)
        supports, numbers, words = finding.supports, dict(finding.numbers), dict(finding.words)
        if self.stated:
            stated = [f"{what} ({where})" for what, where in self.stated.items() if where is not None]
            missing = [what for what, where in self.stated.items() if where is None]
            supports = "undefined" if missing else "not measured here"
            numbers |= {"things to state": len(self.stated), "stated": len(stated)}
            parts = (("Stated", stated), ("Missing", missing))
            words["reading"] = " ".join(f"{word}: {'; '.join(named)}." for word, named in parts if named)
        return Finding(supports, numbers, words, self.evidence.format_map(numbers | words | {"paper": paper}))


@dataclass(frozen=True)
class Cell:
    """One row of a paper's table.

    Attributes:
        model, benchmark, metric: our names; what the row is compared with.
        label: the metric as printed.
        baseline, at_cliff: percent, two decimals as printed; None where the table has a dash.
    """

    model: str
    benchmark: str
    metric: str
    label: str
    baseline: float | None = None
    at_cliff: float | None = None


@dataclass(frozen=True)
class StatedLayer:
    """A cliff layer of the text: the last layer that sees the image.

    Attributes:
        model, benchmark: our names.
        layers: the layers it can mean; three in a row stand for "around" the middle one.
        place: where, and in which words when they leave more than one.
    """

    model: str
    benchmark: str
    layers: tuple[int, ...]
    place: str

    @property
    def text(self) -> str:
        """The layers in words."""
        return f"about {self.layers[1]}" if len(self.layers) == 3 else " or ".join(map(str, self.layers))


@dataclass(frozen=True, eq=False)
class Paper:
    """A paper that is audited. What it does not name here is no part of its audit, whatever else is registered.

    Attributes:
        citation, title: as it is cited.
        models: our names of its models, whose miniatures the experiments run.
        benchmarks: our names of its benchmarks.
        names: its own names of models and benchmarks, by ours.
        items: by benchmark, how many items are behind a number.
        n_layers: decoder layers of every model.
        table: its Table 1.
        cliffs: the cliff layers of its text.
        claims: the ledger.
    """

    citation: str
    title: str
    models: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, int] = field(default_factory=dict)
    n_layers: int = 0
    table: tuple[Cell, ...] = ()
    cliffs: tuple[StatedLayer, ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def table_models(self) -> tuple[str, ...]:
        """The models of the table, in its order."""
        return tuple(dict.fromkeys(cell.model for cell in self.table))

    def pairs(self, benchmark: str, metric: str) -> dict[str, tuple[float, float]]:
        """Baseline and score at the cliff layer by model, for the rows of the table that have them."""
        return {
            cell.model: (cell.baseline, cell.at_cliff)
            for cell in self.table
            if (cell.benchmark, cell.metric) == (benchmark, metric)
            and cell.baseline is not None
            and cell.at_cliff is not None
        }

    def place(self, cell: Cell) -> str:
        """Where the paper has a row."""
        return f"Table 1, {self.names[cell.model]}, {self.names[cell.benchmark]}, {cell.label}"

    def in_words(self, layer: StatedLayer) -> str:
        """A benchmark and its cliff layer, in the paper's words."""
        return f"{self.names[layer.benchmark]} {layer.text}"

    @property
    def layers(self) -> str:
        """All cliff layers of the text, in the paper's words."""
        return listed(map(self.in_words, self.cliffs))


def subjects(models: Sequence[str]) -> str:
    """What was measured: "six miniatures", or the name of the only model."""
    return models[0] if len(models) == 1 else f"{num2words(len(models))} miniatures"


def listed(parts: Iterable[object]) -> str:
    """ "a, b and c"; empty for nothing."""
    words = [str(part) for part in parts]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
