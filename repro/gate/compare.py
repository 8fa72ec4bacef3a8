"""What changed between a record and a measurement of today, where it began, and whether it matters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import torch
from scipy.stats import fisher_exact

from repro.benchmarks.benchmark import Item, image_names
from repro.cliff import UndefinedScore, cliff_layer
from repro.gate.noise import tolerances
from repro.gate.record import GateError, Record
from repro.gate.stages import STAGES, largest_and_mean
from repro.gate.verdict import Difference, Verdict, difference
from repro.protocols.task import Task
from repro.scores import TooFew

#: Stages that weights have no part in.
INPUTS = ("prompt", "pixels", "positions", "masks")
#: Of other weights, how far information flow may move on average: attention mass, 1 - cosine of heat, and the
#: distance that one layer adds to hidden states, relative to them.
FLOW = {"shares": 0.02, "heat": 0.1, "layers": 0.05}
#: Below which p value other answers are no noise.
RARE = 0.01
#: Flips that are shown.
SHOWN = 200


@dataclass(frozen=True)
class Stage:
    """A stage or one layer of it.

    Attributes:
        layer: from 1; 0 for a stage without layers.
        distance, mean: the largest of any item and their mean, see ``repro.gate.stages.distances``.
        tolerance: what the largest may be by noise.
    """

    stage: str
    layer: int
    distance: float
    mean: float
    tolerance: float

    @property
    def beyond(self) -> bool:
        return not self.distance <= self.tolerance

    @property
    def title(self) -> str:
        """As a sentence begins with it."""
        if self.layer == 0:
            return self.stage
        return f"layer {self.layer}" if self.stage == "layers" else f"{self.stage} of layer {self.layer}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """The comparison of one model on one benchmark.

    Attributes:
        sentence: where it began and what it means, in words.
        stages: in order.
        left_out: stages that one side does not have.
        scores: every metric of the untruncated model, the one that decides first.
        curve: the deciding metric truncated after each L; empty for models of different depth.
        cliffs: cliff layers before and after, each with its interval, None where there is none.
        flips: items with another score or answer: question, reference, both answers at every L.
        shares: mean attention before and after, [N, 4] each.
        heat: of one item at the layer where it moved most: layer, before and after, [rows, columns] each.
        before, after: what is said of either side.
        decisions: of the gate that this is one of.
    """

    name: str
    verdict: Verdict
    sentence: str
    margin: float
    decisions: int
    same_weights: bool
    stages: list[Stage]
    left_out: list[str]
    scores: list[Difference]
    curve: list[Difference]
    cliffs: list[tuple[int, int, int] | None]
    flips: list[dict[str, Any]]
    flipped: int
    shares: list[list[list[float]]]
    heat: dict[str, Any]
    trouble: list[str]
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)


def check_comparable(
    before: Record, task: Task, items: Sequence[Item], digests: dict[str, tuple[str, str]]
) -> None:
    """GateError unless a record is of the same protocol, data, questions and images."""
    same = {
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
    scores = _scores(before, after, task, items, margin, decisions)
    curve = (
        _curve(before, after, task, items, margin, decisions)
        if before.about["layers"] == after.about["layers"]
        else []
    )
    same_weights = before.about["revision"] == after.about["revision"]
    flips = _flips(before, after, task, items)
    verdict, sentence = _decide(before, after, stages, scores, curve, same_weights, margin, len(flips))
    lost = [stage for stage in left_out if any(stage in reading for reading in before.readings)]
    if alike and same_weights and lost and verdict in ("identical", "same within noise"):
        verdict, sentence = "changed", f"{lost[0]} can no longer be read; {sentence}"
    return Outcome(
        name=before.name,
        verdict=verdict,
        sentence=sentence,
        margin=margin,
        decisions=decisions,
        same_weights=same_weights,
        stages=stages,
        left_out=left_out,
        scores=scores,
        curve=curve,
        cliffs=[_cliff(record, task, items) for record in (before, after)],
        flips=flips[:SHOWN],
        flipped=len(flips),
        shares=[_mean_shares(record) for record in (before, after)],
        heat=_heat(before, after) if alike else {},
        trouble=after.trouble,
        before=before.about,
        after=after.about,
    )


def stages_of(before: Record, after: Record) -> tuple[list[Stage], list[str]]:
    """Every stage that both records have, in order, and the names of the others."""
    found = largest_and_mean(list(zip(before.readings, after.readings, strict=True)))
    limits = tolerances(before.noise, getattr(torch, before.about["dtype"].removeprefix("torch.")))
    stages = []
    for stage, values in found.items():
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
    found = []
    for metric in task.benchmark.metrics:
        pair = [task.scores(items, record.parts, metric.name).at(-1) for record in (before, after)]
        try:
            found.append(difference(metric.name, pair[0], pair[1], margin, decisions))
        except (UndefinedScore, TooFew):
            if not found:
                raise
    return found


def _curve(
    before: Record, after: Record, task: Task, items: Sequence[Item], margin: float, decisions: int
) -> list[Difference]:
    """At every layer, each by a level at which all of them together err as rarely as one decision."""
    layers = before.about["layers"] + 1
    name = task.benchmark.metrics[0].name
    pairs = [task.scores(items, record.parts, name) for record in (before, after)]
    found = []
    for layer in range(layers):
        try:
            found.append(difference(name, pairs[0].at(layer), pairs[1].at(layer), margin, decisions * layers))
        except UndefinedScore:  # of one layer: nothing can be said there
            found.append(_undefined(name, len(items)))
    return found


def _undefined(name: str, n: int) -> Difference:
    """Of a layer whose score is undefined: anything is possible."""
    bounds = {"low": -np.inf, "high": np.inf, "lowest": -np.inf, "highest": np.inf, "visible": np.inf}
    nothing = {"before": np.nan, "after": np.nan, "gain": 0.0, "p": 1.0}
    return Difference(name, **nothing, **bounds, gained=0, lost=0, n=n, needed=0)


def _cliff(record: Record, task: Task, items: Sequence[Item]) -> tuple[int, int, int] | None:
    """The cliff layer of all items and the ends of its interval; None where the score is undefined."""
    try:
        cliff = cliff_layer(task.scores(items, record.parts))
    except (UndefinedScore, TooFew):
        return None
    return cliff.layer, *cliff.interval


def _mean_shares(record: Record) -> list[list[float]]:
    """Attention shares [N, 4] by segment, averaged over the items that were read; empty if they are refused."""
    shares = [reading["shares"] for reading in record.readings if "shares" in reading]
    return np.mean(shares, axis=0).round(5).tolist() if shares else []


def _heat(before: Record, after: Record) -> dict[str, Any]:
    """The maps of the first item that was read, if its image tokens have a place in the image."""
    pair = [record.readings[0].get("heat") for record in (before, after)]
    grid = before.about["grid"]
    if grid is None or grid != after.about["grid"] or pair[0] is None or pair[1] is None:
        return {}
    maps = [one.astype(np.float64).reshape(len(one), *grid) for one in pair if one is not None]
    layer = int(np.abs(maps[0] - maps[1]).max(axis=(1, 2)).argmax())
    return {"layer": layer + 1} | {
        side: one[layer].round(4).tolist() for side, one in zip(("before", "after"), maps, strict=True)
    }


def _flips(before: Record, after: Record, task: Task, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Items whose untruncated answer or its score is another, those with another score first."""
    name = task.benchmark.metrics[0].name
    sides = [task.scores(items, record.parts, name).goodness[:, -1] for record in (before, after)]
    found = []
    for i, item in enumerate(items):
        if before.ids[i][-1] == after.ids[i][-1] and sides[0][i] == sides[1][i]:
            continue
        found.append(
            {
                "item": item.id,
                "image": image_names([item])[0],
                "question": task.ask(item),
                "reference": str(item.reference),
                "before": before.answers[i],
                "after": after.answers[i],
                "gain": float(sides[1][i] - sides[0][i]),
            }
        )
    return sorted(found, key=lambda flip: flip["gain"])


def _decide(
    before: Record,
    after: Record,
    stages: Sequence[Stage],
    scores: Sequence[Difference],
    curve: Sequence[Difference],
    same_weights: bool,
    margin: float,
    flipped: int,
) -> tuple[Verdict, str]:
    """The verdict and its sentence: the score first, then what moved."""
    beyond = [stage for stage in stages if stage.beyond]
    decisive = scores[0]
    by_score = decisive.verdict(margin)
    points = (
        f"{decisive.metric} {100 * decisive.before:.1f} → {100 * decisive.after:.1f} ({_points(decisive)})"
    )
    where = where_it_began(beyond) if stages else "stages of models of other depth are not compared"
    if before.about["dtype"] != after.about["dtype"]:
        where = f"computed in {after.about['dtype']}, recorded in {before.about['dtype']}; {where}"
    if after.trouble:
        return ("worse" if by_score == "worse" else "changed"), f"{after.trouble[0]}; {where}; {points}"
    if by_score == "worse":
        return "worse", f"{points}; {where}"
    unequal = any(stage.distance for stage in stages) or before.ids != after.ids
    if stages and not unequal:
        return "identical", "every stage, every answer and every score is equal bit by bit"
    scored = sum((before.parts[name] != after.parts[name]).any(axis=(1, 2)) for name in before.parts) > 0
    within_noise = _within_noise(before, int(scored.sum()), len(before.items))
    # Of few items, flips of chance and a loss look alike.
    few = by_score == "cannot tell" and decisive.gained + decisive.lost > 0
    if same_weights and stages and not beyond and within_noise and not few:
        return (
            "same within noise",
            f"no stage moved beyond noise; {flipped} of {len(before.items)} answers are others",
        )
    moved = _moved(stages, curve, same_weights, margin)
    if moved:
        return "changed", f"{moved}; {where}; {points}"
    if same_weights and stages and not within_noise:
        return "changed", f"{int(scored.sum())} scores changed, more than noise explains; {where}; {points}"
    if by_score == "cannot tell":
        return by_score, (
            f"{points}: {decisive.n} items would show a loss of {100 * decisive.visible:.1f} points, a margin of "
            f"{100 * margin:g} needs about {decisive.needed}"
        )
    return by_score, f"{points}; {where}"


def _points(one: Difference) -> str:
    return f"{100 * one.gain:+.1f} points [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def where_it_began(beyond: Sequence[Stage]) -> str:
    """The first stage beyond noise, in a sentence."""
    if not beyond:
        return "no stage moved beyond noise"
    first = beyond[0]
    size = (
        f"relative {first.distance:.2g}, noise allows {first.tolerance:.1g}"
        if isfinite(first.distance)
        else "another"
    )
    before = "everything before is equal within noise; " if first.stage != next(iter(STAGES)) else ""
    return f"{first.title} differs ({size}); {before}look at {STAGES[first.stage]}"


def _within_noise(before: Record, changed: int, n: int) -> bool:
    """Whether as many scores may change by chance as when the same items were asked again."""
    asked, varied = before.varied
    return float(fisher_exact([[changed, n - changed], [varied, asked - varied]], "greater").pvalue) >= RARE


def _moved(stages: Sequence[Stage], curve: Sequence[Difference], same_weights: bool, margin: float) -> str:
    """What moved of the way from image to answer, though no score need be worse; empty if nothing did."""
    if same_weights:
        return "the weights are the same and a stage moved" if any(stage.beyond for stage in stages) else ""
    for stage in stages:
        if stage.stage in INPUTS and stage.beyond:
            return f"{stage.title} differs, which weights have no part in"
    for layer, one in enumerate(curve[:-1]):
        if one.lowest > margin or one.highest < -margin:
            return f"truncated after {layer} the score moved by {_points(one)}"
    added, last = [], 0.0
    for stage in stages:
        if stage.stage == "layers":
            added.append((stage.mean - last, stage))
            last = stage.mean
        elif stage.mean > FLOW.get(stage.stage, np.inf):
            return f"{stage.title} moved by {stage.mean:.2g}"
    if added and (largest := max(added, key=lambda pair: pair[0]))[0] > FLOW["layers"]:
        return f"{largest[1].title} moved hidden states by {largest[0]:.2g}, more than any other"
    return ""
