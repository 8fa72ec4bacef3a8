"""What is said of a model before and after an upgrade, and in which sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from scipy.stats import fisher_exact

from repro.gate import Verdict
from repro.gate.record import Record, changed_scores
from repro.gate.stages import STAGES
from repro.paired import Difference

#: Stages that weights have no part in.
INPUTS = ("prompt", "pixels", "positions", "masks")
#: Of other weights, how far information flow may move on average: attention mass, 1 - cosine of heat, and the
#: distance that one layer adds to hidden states, relative to them.
FLOW = {"shares": 0.02, "heat": 0.1, "layers": 0.05}
#: Below which p value other answers are no noise.
RARE = 0.01


@dataclass(frozen=True)
class Stage:
    """A stage or one layer of it.

    Attributes:
        layer: from 1; 0 for a stage without layers.
        distance, mean: the largest of any item (of heat the median) and their mean, see ``distances``.
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


@dataclass(frozen=True)
class Compared:
    """All that a verdict is made of."""

    before: Record
    after: Record
    stages: list[Stage]
    scores: list[Difference]
    curve: list[Difference]
    same_weights: bool
    margin: float
    flipped: int
    chosen: int

    @property
    def by_score(self) -> Verdict:
        """Of the metric that decides; "worse" also for another that is, at a level for all of them together."""
        if any(one.verdict(self.margin) == "worse" for one in self.scores):
            return "worse"
        return self.scores[0].verdict(self.margin)

    def verdict(self) -> tuple[Verdict, str]:
        """The verdict and its sentence: the score first, then what moved."""
        before, after, stages = self.before, self.after, self.stages
        beyond = [stage for stage in stages if stage.beyond]
        where = self._where(beyond)
        points = "; ".join(
            one.summary
            for number, one in enumerate(self.scores)
            if number == 0 or one.verdict(self.margin) == "worse"
        )
        if self.by_score == "cannot tell":
            points = f"{points}: {self.scores[0].what_shows(self.margin)}"
        if after.trouble:
            return (
                "worse" if self.by_score == "worse" else "changed"
            ), f"{after.trouble[0]}; {where}; {points}"
        if self.by_score == "worse":
            return "worse", f"{points}; {where}"
        n = len(after.items)
        asked = f" (of {n} of {self.chosen} items: nothing asked for more)" if n < self.chosen else ""
        gone = self._gone()
        if stages and not gone and before.ids == after.ids and not any(stage.distance for stage in stages):
            return "identical", f"every stage, every answer and every score is equal bit by bit{asked}"
        unexplained = self._unexplained()
        # Of few items, flips of chance and a loss look alike.
        few = self.by_score == "cannot tell" and self.scores[0].gained + self.scores[0].lost > 0
        if self.same_weights and stages and not (beyond or gone or unexplained or few):
            flips = f"{self.flipped} of {len(after.items)} answers are others"
            return "same within noise", f"no stage moved beyond noise; {flips}{asked}"
        moved = gone or _moved(stages, self.curve, self.same_weights, self.margin)
        if moved or unexplained:
            return "changed", f"{moved or unexplained}; {where}; {points}"
        return self.by_score, f"{points}; {where}"

    def _where(self, beyond: Sequence[Stage]) -> str:
        """Where it began, and what else is not as it was recorded."""
        about = [record.about for record in (self.before, self.after)]
        where = where_it_began(beyond)
        kinds = [f"a {one['model_type']} of {one['layers']} layers" for one in about]
        if kinds[0] != kinds[1]:
            where = f"another model ({' → '.join(kinds)}), whose stages are not compared"
        elif not self.stages:
            where = "only answers were kept, so where it began is not known"
        elif not self.same_weights:
            where = f"other weights; {where}"
        if about[0]["dtype"] != about[1]["dtype"]:
            where = f"computed in {about[1]['dtype']}, recorded in {about[0]['dtype']}; {where}"
        return where

    def _gone(self) -> str:
        """A stage of the same weights that can no longer be read; empty if none is."""
        left = {stage.stage for stage in self.stages}
        lost = [
            stage for stage in STAGES if stage not in left and any(stage in r for r in self.before.readings)
        ]
        return f"{lost[0]} can no longer be read" if lost and self.same_weights and self.stages else ""

    def _unexplained(self) -> str:
        """More scores or answers of the same weights are others than when items were asked again; empty if not."""
        if not self.same_weights or not self.stages:
            return ""
        asked, *varied = self.before.varied
        scored = changed_scores(self.before.parts, self.after.parts)
        told = sum(one[-1] != other[-1] for one, other in zip(self.before.ids, self.after.ids, strict=True))
        n = len(self.after.items)
        for what, changed, chance in (("scores", scored, varied[0]), ("answers", told, varied[1])):
            table = [[changed, n - changed], [chance, asked - chance]]
            if float(fisher_exact(table, "greater").pvalue) < RARE / 2:
                return f"{changed} of {n} {what} changed, more than noise explains"
        return ""


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


def _moved(stages: Sequence[Stage], curve: Sequence[Difference], same_weights: bool, margin: float) -> str:
    """What moved of the way from image to answer, though no score need be worse; empty if nothing did."""
    if same_weights:
        return "the weights are the same and a stage moved" if any(stage.beyond for stage in stages) else ""
    for stage in stages:
        if stage.stage in INPUTS and stage.beyond:
            return f"{stage.title} differs, which weights have no part in"
    for layer, one in enumerate(curve[:-1]):
        if one.lowest > margin or one.highest < -margin:
            return f"truncated after {layer} the score moved by {one.in_points}"
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
