"""What the experiments are made on: the miniatures, their data sets, and their recorded scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from repro.audit.ledger import Outcome, Shown
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Benchmark, Item
from repro.cliff import Cliff, cliff_layer
from repro.evaluation.recorded import recorded_parts
from repro.evaluation.run import image_names
from repro.models.card import FIXTURES, REGISTRY

#: Models that have a miniature.
MODELS = tuple(name for name, card in REGISTRY.items() if card.miniature is not None)
#: The miniature data sets.
DATA = FIXTURES / "miniworld"


@dataclass(frozen=True, eq=False)
class Record:
    """Recorded scores of a miniature on a benchmark, by its first metric.

    Attributes:
        model, benchmark: whose, and of what.
        items: the n items.
        strata, images: of each item; questions about one image are resampled together.
        parts: [n, N + 1, 2], numerators and denominators at L = 0...N.
    """

    model: str
    benchmark: Benchmark
    items: Sequence[Item]
    strata: Sequence[str]
    images: Sequence[str]
    parts: np.ndarray

    @property
    def n_layers(self) -> int:
        """N."""
        return self.parts.shape[1] - 1

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return self.benchmark.metrics[0].higher_is_better

    @property
    def goodness(self) -> np.ndarray:
        """Score of each item at each layer, higher = better, float64 [n, N + 1] in [0, 1]."""
        score = self.parts[..., 0].astype(np.float64)
        return score if self.higher_is_better else 1 - score

    @property
    def cliff(self) -> Cliff:
        """The cliff layer with its 95 % interval, on all items, images resampled."""
        return cliff_layer(self.parts, self.strata, self.higher_is_better, clusters=self.images)


@cache
def items_of(benchmark: str) -> list[Item]:
    """All items of a miniature data set."""
    return BENCHMARKS[benchmark].load(DATA)


@cache
def record_of(model: str, benchmark: str) -> Record:
    """The record of all items."""
    items, asked = items_of(benchmark), BENCHMARKS[benchmark]
    strata, ids = [item.stratum for item in items], [item.id for item in items]
    return Record(model, asked, items, strata, image_names(items), recorded_parts(model, asked, ids))


#: Whether a case is as claimed, for certain; None where its interval leaves it open.
Case = bool | None


def above(low: float, high: float, bound: float = 0.0) -> Case:
    """Whether what an interval is of lies above a bound; open where the bound is inside."""
    return True if low > bound else False if high < bound else None


def every(*cases: Case) -> Case:
    """Whether all of several are so: False where one is not, open where one is and none is not."""
    return False if False in cases else None if None in cases else True


def outcome_of(cases: Collection[Case]) -> Outcome:
    """All cases as claimed, all not, both among them, or only open ones; "in part" where others are open."""
    if not cases:
        raise ValueError("an outcome needs at least one case")
    if True in cases and False in cases:
        return "mixed"
    if None not in cases:
        return "as claimed" if True in cases else "not as claimed"
    return "in part as claimed" if True in cases else "in part not" if False in cases else "inconclusive"


def shown(cases: Sequence[Case], evidence: str, figures: Mapping[str, float]) -> Shown:
    """What an experiment shows, with the number of cases on either side; ValueError where there are none."""
    counts = {
        "cases": len(cases),
        "cases as claimed": cases.count(True),
        "cases not as claimed": cases.count(False),
        "cases open": cases.count(None),
    }
    told = (
        f" Of {len(cases)} cases {counts['cases as claimed']} are as claimed for certain, "
        f"{counts['cases not as claimed']} not, {counts['cases open']} open."
    )
    numbers = {name: float(value) for name, value in {**figures, **counts}.items()}
    return Shown(outcome_of(cases), evidence + told, numbers)


def percent(value: float) -> str:
    """A share for the evidence: 0.314 -> "31.4 %"."""
    return f"{100 * value:.1f} %"
