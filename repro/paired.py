"""A loss, a gain or neither? Two sides' scores of the same items, compared in pairs."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from scipy.stats import norm

from repro.cliff import UndefinedScore, compare, unchanged_is_evidence
from repro.scores import Scores
from repro.statistics import flips, mcnemar

#: Largest loss of score that counts as none, unless ``--margin`` says otherwise.
MARGIN = 0.01
#: Of all decisions of one gate together, how often one may call a loss what is none.
LEVEL = 0.95
#: How often a gate without a difference may fail to show it, for the number of items that it recommends.
_MISSED = 0.01


@dataclass(frozen=True)
class Difference:
    """One metric before and after, on the same items.

    Attributes:
        before, after: its values.
        gain: after - before, positive = better; ``low`` and ``high`` the ends of its 95 % interval.
        lowest, highest: its ends at the level of all decisions together.
        gained, lost: items whose score rose, and fell.
        p: of McNemar's exact test on those.
        n, images: items, and the images that they are about.
        visible: the smallest loss that these would show with a probability of 90 %.
        needed: images that would show the margin to be kept, if as many answers change.
    """

    metric: str
    before: float
    after: float
    gain: float
    low: float
    high: float
    lowest: float
    highest: float
    gained: int
    lost: int
    p: float
    n: int
    images: int
    visible: float
    needed: int

    @property
    def in_points(self) -> str:
        """The difference with its interval, in words."""
        return f"{100 * self.gain:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"

    @property
    def summary(self) -> str:
        """Before, after and the difference, in words."""
        return f"{self.metric} {100 * self.before:.1f} → {100 * self.after:.1f} ({self.in_points})"

    def what_shows(self, margin: float) -> str:
        """What so many images show, and how many a margin needs, in words."""
        return (
            f"{self.images} images would show a loss of {100 * self.visible:.1f} points, a margin of "
            f"{100 * margin:g} needs about {self.needed}"
        )

    def verdict(self, margin: float) -> Literal["better", "not worse", "cannot tell", "worse"]:
        """By the intervals alone: worse if the wider lies below 0 and the loss may reach the margin.

        That each of several benchmarks is not worse needs no correction for their number: all of them have to be.
        """
        if self.low > -margin:
            return "better" if self.low > 0 else "not worse"
        return "worse" if self.highest < 0 else "cannot tell"


def level_of(decisions: int) -> float:
    """Of the interval of each of several decisions, so that together they err as rarely as one (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(1, decisions)


def difference(metric: str, before: Scores, after: Scores, margin: float, decisions: int = 1) -> Difference:
    """The paired difference of a score, images resampled.

    Args:
        before, after: of the same items in the same order, at one layer each: parts [n, 1, 2].
        decisions: how many are taken together, see ``level_of``.

    Where few answers change, resampling shows too little (see "A limit" in ``repro.cliff``): the interval reaches
    at least as far as so many unchanged images leave open, the share of all that may change without one of these
    doing so. Questions about one image are no evidence of their own: they may all change together.
    """
    parts = np.concatenate([after.parts, before.parts], axis=1)
    pair = Scores(parts, before.strata, before.images, before.higher_is_better)
    compared = compare(pair, LEVEL)
    score, gain = compared.score, float(compared.difference[0])
    rose, fell = flips(pair.goodness[:, 1], pair.goodness[:, 0])
    images = len(pair) if pair.images is None else len(np.unique(pair.images))
    left_open = _left_open(images, LEVEL)
    low, high = min(compared.low[0], gain - left_open), max(compared.high[0], gain + left_open)
    lowest, highest, level = low, high, level_of(decisions)
    if level > LEVEL:
        wider = compare(pair, level, max(2000, ceil(10 / (1 - level))))
        left_open = _left_open(images, level)
        lowest, highest = min(wider.low[0], gain - left_open), max(wider.high[0], gain + left_open)
    z = norm.ppf((1 + LEVEL) / 2)
    half = (high - low) / 2
    needed = (
        0 if not np.isfinite(half) else ceil(images * (half * (1 + norm.ppf(1 - _MISSED) / z) / margin) ** 2)
    )
    return Difference(
        metric=metric,
        before=float(score[1]),
        after=float(score[0]),
        gain=gain,
        low=float(low),
        high=float(high),
        lowest=float(lowest),
        highest=float(highest),
        gained=rose,
        lost=fell,
        p=mcnemar(rose, fell),
        n=len(pair),
        images=images,
        visible=float(half * (1 + norm.ppf(0.9) / z)),
        needed=unchanged_is_evidence(margin, LEVEL) if rose + fell == 0 else needed,
    )


def _left_open(n: int, level: float) -> float:
    """The share of answers that may change without one of n doing so: the inverse of ``unchanged_is_evidence``."""
    return 1 - ((1 - level) / 2) ** (1 / n)


def items_for(margin: float, changing: float = 0.004) -> int:
    """Items per benchmark, each about an image of its own, that show a margin to be kept.

    Where so large a share of the answers is ``changing`` by chance.

    So many that a difference of chance alone rarely reaches what an interval leaves open at least.
    """
    n = unchanged_is_evidence(margin, LEVEL)
    while norm.ppf(1 - _MISSED) * (changing / n) ** 0.5 + _left_open(n, LEVEL) > margin:
        n += ceil(n / 100)
    return n


def curve(metric: str, before: Scores, after: Scores, margin: float, decisions: int = 1) -> list[Difference]:
    """At every layer, each by a level at which all of them together err as rarely as one decision."""
    layers = before.parts.shape[1]
    found = []
    for layer in range(layers):
        try:
            pair = before.at(layer), after.at(layer)
            found.append(difference(metric, *pair, margin, decisions * layers))
        except UndefinedScore:  # of one layer: nothing can be said there
            found.append(_undefined(metric, len(before)))
    return found


def _undefined(name: str, n: int) -> Difference:
    """Of a layer whose score is undefined: anything is possible."""
    bounds = {"low": -np.inf, "high": np.inf, "lowest": -np.inf, "highest": np.inf, "visible": np.inf}
    nothing = {"before": np.nan, "after": np.nan, "gain": 0.0, "p": 1.0}
    return Difference(name, **nothing, **bounds, gained=0, lost=0, n=n, images=0, needed=0)
