"""Miniature benchmarks and recorded scores for the experiments, and how cases make an outcome."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache

import numpy as np

from repro.audit.ledger import Finding, Outcome
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.benchmarks.miniworld import DIRECTORY
from repro.evaluation.recorded import recorded_ids, recorded_parts
from repro.evaluation.scored import Scored
from repro.models import find_card
from repro.protocols import find_task
from repro.statistics import mean_interval

#: Whether a case is as claimed, for certain; None where its interval leaves it open.
Case = bool | None


@cache
def items_of(benchmark: str) -> list[Item]:
    """All items of a miniature benchmark."""
    return BENCHMARKS[benchmark].load(DIRECTORY)


@cache
def record_of(model: str, benchmark: str) -> Scored:
    """The scores of a model at L = 0...N, by the benchmark's first metric, for the items recorded of it."""
    task = find_task("official", model, BENCHMARKS[benchmark])
    items = items_of(benchmark)
    if find_card(model).extra:  # recorded in part
        known = recorded_ids(model, task.benchmark)
        items = [item for item in items if item.id in known]
    parts = recorded_parts(model, task.benchmark, [item.id for item in items])
    return Scored(task, items, {task.benchmark.metrics[0].name: parts})


def above(low: float, high: float, bound: float = 0.0) -> Case:
    """Whether what an interval is of lies above a bound; open where the bound is inside."""
    return True if low > bound else False if high < bound else None


def positive(values: np.ndarray) -> Case:
    """Whether the mean of [items] is above 0, by its 95 % interval."""
    _, low, high = mean_interval(values)
    return above(float(low), float(high))


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


def shown(cases: Sequence[Case], numbers: Mapping[str, float], **words: object) -> Finding:
    """What an experiment shows, with the number of cases on either side; ValueError where there are none."""
    yes, no, open_cases = (cases.count(case) for case in (True, False, None))
    counts = {"cases": len(cases), "cases as claimed": yes, "cases not as claimed": no}
    words["tally"] = f"Of {len(cases)} cases {yes} are as claimed for certain, {no} not, {open_cases} open."
    return Finding(outcome_of(cases), {**numbers, **counts}, words)


def percent(value: float) -> str:
    """A share for the evidence: 0.314 -> "31.4 %"."""
    return f"{100 * value:.1f} %"


def span(values: Iterable[float], shown_as: Callable[[float], str] = percent) -> str:
    """The least and the greatest: "0.1 % to 31.4 %"; the only one alone."""
    ordered = sorted(values)
    if len(ordered) == 1:
        return shown_as(ordered[0])
    return f"{shown_as(ordered[0])} to {shown_as(ordered[-1])}"
