"""What changed between a record and a measurement of today, where it began, and whether it matters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from repro.benchmarks.benchmark import Item
from repro.cliff import UndefinedScore
from repro.evaluation.pairs import Side, cliff_of, flips
from repro.gate import FAILING, Verdict
from repro.gate.noise import tolerances
from repro.gate.record import GateError, Record
from repro.gate.stages import REFUSED, STAGES, largest_and_mean
from repro.gate.verdict import Compared, Stage
from repro.paired import Difference, curve, difference
from repro.protocols.task import Task
from repro.scores import TooFew

#: Flips that are kept.
SHOWN = 200


@dataclass(frozen=True, eq=False)
class Outcome:
    """The comparison of one model on one benchmark.

    Attributes:
        sentence: where it began and what it means, in words.
        stages: in order.
        left_out: stages that one side does not have.
        by_score: the verdict of the scores alone, which another verdict may stand before.
        scores: every metric of the untruncated model, the one that decides first.
        values: the deciding metric truncated after L = 0...N, before and after.
        curve: its difference at each L; empty for models of different depth.
        cliffs: cliff layers before and after, each with its interval, None where there is none.
        flips: items with another score or answer: question, reference, both answers at every L.
        shares: mean attention before and after, [N, 4] each.
        heat: of one item at the layer where it moved most: layer, before and after, [rows, columns] each.
        before, after: what is said of either side.
        decisions: of the gate that this is one of.
    """

    name: str
    verdict: Verdict
    by_score: Verdict
    sentence: str
    margin: float
    decisions: int
    same_weights: bool
    stages: list[Stage]
    left_out: list[str]
    scores: list[Difference]
    values: list[list[float]]
    curve: list[Difference]
    cliffs: list[tuple[int, int, int] | None]
    flips: list[dict[str, Any]]
    flipped: int
    shares: list[list[list[float]]]
    heat: dict[str, Any]
    trouble: list[str]
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    @property
    def failing(self) -> list[Verdict]:
        """Verdicts for which a gate stays shut; a change does not hide that its loss cannot be told."""
        verdicts = {self.verdict, self.by_score} if self.verdict == "changed" else {self.verdict}
        return [verdict for verdict in FAILING if verdict in verdicts]


def check_comparable(
    before: Record, task: Task, items: Sequence[Item], digests: dict[str, tuple[str, str]]
) -> None:
    """GateError unless a record is of the same protocol, data, questions and images."""
    same = {
        "model": task.model,
        "benchmark": task.benchmark.name,
        "protocol": task.protocol,
        "data": task.benchmark.describe(items),
        "mode": task.benchmark.mode or "",
    }
    for name, value in same.items():
        if before.about[name] != value:
            raise GateError(
                f"the record's {name} is {before.about[name]!r}, today's is {value!r}: use the same"
            )
    for number, what in enumerate(("question or its wording", "image")):
        other = [
            item
            for item, pair in zip(before.items, before.digests, strict=True)
            if digests[item][number] != pair[number]
        ]
        if other:
            raise GateError(
                f"{len(other)} of {len(before.items)} items have another {what} than recorded, the first is "
                f"{other[0]}: use the data and the wording of the record, or record anew"
            )


def compare(
    before: Record, after: Record, task: Task, items: Sequence[Item], margin: float, decisions: int = 1
) -> Outcome:
    """What became of a model.

    Args:
        items: those of both records, in their order.
        margin: largest loss of score that counts as none.
        decisions: comparisons of this gate, which together err as rarely as one.
    """
    alike = all(before.about[name] == after.about[name] for name in ("model_type", "layers"))
    stages, left_out = stages_of(before, after) if alike else ([], list(STAGES))
    chosen, before = len(before.items), before.of(after.items)
    scores = _scores(before, after, task, items, margin, decisions)
    scored = [task.scores(items, record.parts) for record in (before, after)]
    along = (
        curve(scores[0].metric, scored[0], scored[1], margin, decisions)
        if before.about["layers"] == after.about["layers"]
        else []
    )
    same_weights = before.about["weights"] == after.about["weights"]
    sides = [Side(record.parts, record.answers, record.ids) for record in (before, after)]
    others = flips(task, items, *sides)
    decided = Compared(before, after, stages, scores, along, same_weights, margin, len(others), chosen)
    verdict, sentence = decided.verdict()
    return Outcome(
        name=before.name,
        verdict=verdict,
        by_score=decided.by_score,
        sentence=sentence,
        margin=margin,
        decisions=decisions,
        same_weights=same_weights,
        stages=stages,
        left_out=left_out,
        scores=scores,
        values=[side.values.tolist() for side in scored],
        curve=along,
        cliffs=[cliff_of(side) for side in scored],
        flips=others[:SHOWN],
        flipped=len(others),
        shares=[_mean_shares(record) for record in (before, after)],
        heat=_heat(before, after) if alike else {},
        trouble=after.trouble,
        before=before.about,
        after=after.about,
    )


def settled(before: Record, after: Record) -> bool:
    """Whether the items asked so far say enough: the same weights, no stage that moved, no answer that changed."""
    if before.about["weights"] != after.about["weights"] or after.trouble:
        return False
    stages, left_out = stages_of(before, after)
    moved = any(stage in reading for reading in before.readings for stage in left_out)
    return not (moved or any(one.beyond for one in stages)) and before.of(after.items).ids == after.ids


def stages_of(before: Record, after: Record) -> tuple[list[Stage], list[str]]:
    """Every stage that both records have, in order, and the names of the others."""
    pairs = list(zip(before.all_readings, after.all_readings, strict=True))
    found = largest_and_mean(pairs)
    limits = tolerances(before.noise, getattr(torch, before.about["dtype"].removeprefix("torch.")))
    stages = []
    for stage, values in found.items():
        if any(stage in one and stage not in other and REFUSED not in other for one, other in pairs):
            values = np.full((2, *values[0].shape), np.inf)
        limit = limits.get(stage, np.zeros(1))
        if limit.shape != values[0].shape:
            limit = np.full(values[0].shape, limit.max())
        for number, (largest, mean, most) in enumerate(zip(*values, limit, strict=True)):
            layer = number + 1 if len(limit) > 1 else 0
            stages.append(Stage(stage, layer, float(largest), float(mean), float(most)))
    return stages, [stage for stage in STAGES if stage not in found]


def _scores(
    before: Record, after: Record, task: Task, items: Sequence[Item], margin: float, decisions: int
) -> list[Difference]:
    """Every metric of the untruncated model, the deciding one first; of the others those that are defined."""
    found: list[Difference] = []
    metrics = task.benchmark.metrics
    for metric in metrics:
        pair = [task.scores(items, record.parts, metric.name).at(-1) for record in (before, after)]
        try:
            found.append(difference(metric.name, pair[0], pair[1], margin, decisions * len(metrics)))
        except (UndefinedScore, TooFew):
            if not found:
                raise
    return found


def _mean_shares(record: Record) -> list[list[float]]:
    """Attention shares [N, 4] by segment, averaged over the items that were read; empty if they are refused."""
    shares = [reading["shares"] for reading in record.readings if "shares" in reading]
    return np.mean(shares, axis=0).round(5).tolist() if shares else []


def _heat(before: Record, after: Record) -> dict[str, Any]:
    """The maps of the first item that was read, if its image tokens have a place in the image."""
    pair = [reading.get("heat") for record in (before, after) for reading in record.readings[:1]]
    grid = before.about["grid"]
    if grid is None or grid != after.about["grid"] or len(pair) != 2 or pair[0] is None or pair[1] is None:
        return {}
    maps = [one.astype(np.float64).reshape(len(one), *grid) for one in pair if one is not None]
    layer = int(np.abs(maps[0] - maps[1]).max(axis=(1, 2)).argmax())
    return {"layer": layer + 1} | {
        side: one[layer].round(4).tolist() for side, one in zip(("before", "after"), maps, strict=True)
    }
