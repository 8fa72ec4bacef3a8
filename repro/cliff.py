"""The cliff layer: from which layer on the image no longer matters (arXiv 2406.06579, Sec. 4.2).

All functions read ``Scores``: parts of one metric at L = 0...N, where L layers see the image and L = N is the
baseline.

**Resampling.** Items are drawn with replacement within each stratum (Efron & Tibshirani 1993, ch. 13), the same
sample for all layers: the same items answer at L and at N, so their common difficulty cancels in the difference,
as in a paired test. Intervals are percentile intervals: they need no formula per metric, stay within its range,
and allow for skew.

**Images.** Questions about the same image succeed or fail together. If the scores name the images, images are
drawn, with all their questions in whatever strata, and all questions about an image go to the same half.

**Undefined scores.** A ratio without a denominator (CHAIR_i when no caption mentions an object) is NaN. It shows
nothing, so it counts as inferior; in a resample it could be anything, so it pushes both ends of an interval
outwards, to -inf and inf as soon as there are more such resamples than a tail holds.

**Draws.** A decision that hangs on the seed is none: draws go on until another seed would decide the same, or
up to ``MOST``. Whether a limit lies above the margin depends on how many draws fall short of it, a count with a
known Monte Carlo error: it must be ``CERTAIN`` errors away from where the decision turns, or close calls must not
matter to the layer. A cliff that is still undecided after ``MOST`` draws is *borderline*.

**A limit.** If no item's parts differ between L and N, every resample has the difference 0 and the interval
shrinks to the point 0, however few the items. For accuracy it then only shows that fewer than about 3.7 / items
of the answers change (97.5 %, one-sided): below ``unchanged_is_evidence`` (122 items for a margin of 3 points)
"nothing changed" is not yet evidence of non-inferiority. The report says where that is so.
"""

from dataclasses import dataclass
from math import ceil, log

import numpy as np
from scipy.stats import rankdata

from repro.scores import Scores, TooFew, mean_of_ratios, require

#: Largest loss that still counts as no loss, in units of the score (3 points), unless ``--margin`` says otherwise.
MARGIN = 0.03
#: Resamples of an interval; of a cliff layer the first ones.
REPLICATES = 2000
#: Resamples after which an undecided cliff layer counts as borderline.
MOST = 100_000
#: Monte Carlo standard errors by which a decision must be clear.
CERTAIN = 4.0
#: What is said of a cliff layer that another seed could move, or that too few items chose (see "A limit" above).
BORDERLINE, TOO_FEW = "borderline", "too few items"
#: A difference this close to the margin lies on it: 0.97 - 1 must not pass where 0.47 - 0.5 fails.
_ROUNDING = 1e-9


class UndefinedScore(ValueError):
    """A baseline without a score."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores at every truncation layer, and the cost of truncation. All arrays are [N + 1], index = L.

    Attributes:
        score: the metric; NaN if undefined.
        score_low, score_high: its bootstrap interval.
        difference: score(L) - score(N), with the opposite sign if lower is better, so positive = better.
        low, high: its paired bootstrap interval; 0 at L = N.
        higher_is_better: direction of the metric.
    """

    score: np.ndarray
    score_low: np.ndarray
    score_high: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    higher_is_better: bool

    def score_interval(self, layer: int) -> tuple[float, float]:
        """Interval of score(L)."""
        return float(self.score_low[layer]), float(self.score_high[layer])

    def change(self, layer: int) -> tuple[float, tuple[float, float]]:
        """score(L) - score(N) in the metric's own direction, as tables print it, and its interval."""
        low, high = float(self.low[layer]), float(self.high[layer])
        interval = (low, high) if self.higher_is_better else (-high, -low)
        return float(self.score[layer] - self.score[-1]), interval

    def worst_allowed(self, margin: float) -> float:
        """The score that is worse than the baseline by the margin."""
        return float(self.score[-1] - margin if self.higher_is_better else self.score[-1] + margin)

    def non_inferior(self, margin: float) -> np.ndarray:
        """Where the lower end of the paired interval is above -margin: bool [N + 1]."""
        return _above(self.low, margin)


@dataclass(frozen=True, eq=False)
class Cliff:
    """The cliff layer with its interval; see ``cliff_layer``. Arrays are [N + 1], index = L.

    Attributes:
        layer: smallest L such that every L' >= L is non-inferior.
        interval: (low, high) layers; high is ``layer``, low the earliest that the data do not exclude.
        non_inferior: the decision for each single L.
        difference, low, high: as in ``Comparison``.
        margin: the margin of the decision.
        borderline: whether ``interval`` could be another with another seed.
    """

    layer: int
    interval: tuple[int, int]
    non_inferior: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    margin: float
    borderline: bool


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The cliff layer chosen on one half of the items, its score measured on the other.

    Attributes:
        cliff: the choice, from the choosing half.
        chosen_on, reported_on: number of items in each half.
        baseline, score: the metric at L = N and at ``cliff.layer``, reporting half.
        difference, low, high: score - baseline, positive = better, and its paired interval, same half.
    """

    cliff: Cliff
    chosen_on: int
    reported_on: int
    baseline: float
    score: float
    difference: float
    low: float
    high: float

    @property
    def caveat(self) -> str:
        """Why the cliff layer says little: "too few items" or "borderline"; empty if it says something."""
        if self.chosen_on < unchanged_is_evidence(self.cliff.margin):
            return TOO_FEW
        return BORDERLINE if self.cliff.borderline else ""


def unchanged_is_evidence(margin: float, level: float = 0.95) -> int:
    """How many items it takes for "no answer changed" to mean that the loss is below ``margin``.

    If a share p of all answers changes, none of n items does with probability (1 - p)^n, which is below
    (1 - level) / 2 from n = ln((1 - level) / 2) / ln(1 - p) on (see "A limit" above).
    """
    return ceil(log((1 - level) / 2) / log(1 - margin))


def compare(scores: Scores, level: float = 0.95, replicates: int = REPLICATES, seed: int = 0) -> Comparison:
    """The score at every truncation layer and its paired difference to the baseline.

    Args:
        scores: at least two items per stratum, and two images that occur in the same strata.
        level: two-sided level of the intervals.
        replicates: resamples; at least one must fall into each tail.
        seed: of the resampling; the order of the items does not matter.

    Raises ValueError for arguments other than described, UndefinedScore for a baseline without a score.
    """
    resampler = _Resampler(scores, level, replicates, seed)
    values, draws = resampler.values, resampler.draw(replicates)
    score_ends, ends = _ends(draws, level), _ends(scores.gain(draws), level)
    return Comparison(values, *score_ends, scores.gain(values), *ends, scores.higher_is_better)


def cliff_layer(
    scores: Scores, margin: float = MARGIN, level: float = 0.95, replicates: int | None = None, seed: int = 0
) -> Cliff:
    """The smallest L from which on no truncation is worse than the baseline by ``margin`` or more.

    L is non-inferior if the lower end of the two-sided interval of score(L) - score(N) is above -margin: a
    one-sided test at (1 - level) / 2, i.e. 2.5 %, the custom of non-inferiority trials. Going down from L = N to
    the first failure needs no correction for many layers: to stop below the true cliff (the layer that an
    unlimited supply of items would give), the truly inferior layer just before it must pass.

    So ``layer`` is itself an upper confidence bound of the true cliff, and the upper end of ``interval``. The
    lower end is the layer after the last one proven inferior, by an upper limit of at most -margin. There every
    layer is a chance to err, so the limits hold for all layers at once: draws of the same rank, the lowest that
    any layer exceeds in at most (1 - level) / 2 of the resamples (balanced simultaneous limits, Beran 1988, JASA
    83). From the same resamples, both ends satisfy low <= layer <= high and cover the true cliff with a
    probability of about ``level`` or more. The spread of the layers of single resamples does not: among many
    noisy layers one fails in nearly every resample, and lifts its layer above the truth.

    Args:
        scores, level, seed: as in ``compare``.
        replicates: resamples; None: as many as the decision takes (see "Draws" above).
        margin: largest loss, in units of the score, that still counts as no loss; > 0.

    Raises ValueError as ``compare`` does, and for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, not {margin}")
    first = REPLICATES if replicates is None else replicates
    resampler = _Resampler(scores, level, first, seed)
    draws = resampler.draw(first)
    while True:
        gains = scores.gain(draws)
        highest = _highest_ranks(gains)
        borderline = not _stable(gains, highest, level, margin)
        if replicates is not None or not borderline or len(draws) >= MOST:
            break
        batches = min(len(draws), MOST - len(draws)) // first
        draws = np.concatenate([draws, *(resampler.draw(first) for _ in range(batches))])
    low, high = _ends(gains, level)
    non_inferior = _above(low, margin)
    layer = int(first_lasting(non_inferior))
    earliest = int(first_lasting(_above(_joint_upper(gains, highest, level), margin)))
    difference = scores.gain(resampler.values)
    return Cliff(layer, (earliest, layer), non_inferior, difference, low, high, margin, borderline)


def cliff_draws(
    scores: Scores, margin: float = MARGIN, replicates: int = REPLICATES, seed: int = 0
) -> np.ndarray:
    """The cliff layer of each single resample: int [replicates], to compare benchmarks or models.

    The smallest L from which on score(L) - score(N) of the resample stays above -margin. Not an interval of the
    cliff layer: see ``cliff_layer`` for why these are too high if many layers are noisy. Arguments and errors as
    in ``cliff_layer``.
    """
    draws = _Resampler(scores, 0.95, replicates, seed).draw(replicates)
    return first_lasting(_above(scores.gain(draws), margin))


def held_out(
    scores: Scores, margin: float = MARGIN, level: float = 0.95, replicates: int | None = None, seed: int = 0
) -> HeldOut:
    """Choose the cliff layer on one half of the images and report its score on the other.

    A layer chosen for a good score scores too well on the items that chose it, but not on the others. Arguments
    and errors as in ``cliff_layer`` and ``Scores.halves``.
    """
    choosing, reporting = scores.halves()
    cliff = cliff_layer(choosing, margin, level, replicates, seed)
    report = compare(reporting, level, REPLICATES if replicates is None else replicates, seed)
    at = cliff.layer
    values = (report.score[-1], report.score[at], report.difference[at], report.low[at], report.high[at])
    return HeldOut(cliff, len(choosing), len(reporting), *map(float, values))


class _Resampler:
    """Draws resamples of scores, each call new ones.

    Attributes:
        values: metric values of the sample itself [N + 1], NaN where undefined.

    Raises ValueError as ``compare`` does, for ``replicates`` resamples, and UndefinedScore.
    """

    def __init__(self, scores: Scores, level: float, replicates: int, seed: int) -> None:
        if min(scores.parts.shape) < 2:
            raise ValueError(
                f"needs at least 2 items and 2 layers (L = 0 and N), not {scores.parts.shape[:2]}"
            )
        for stratum, count in zip(*np.unique(scores.strata, return_counts=True), strict=True):
            require(repr(str(stratum)), count, 2, "items", "resampling needs")
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {level}")
        if _tail(level, replicates) < 1:
            raise ValueError(f"{replicates} replicates are too few for a level of {level}")
        units, groups = _units(scores)
        # Units with equal parts are of one kind: few kinds make the products small, and their sorted order makes
        # the draws independent of the order of the items.
        rows = np.column_stack([groups, units.reshape(len(units), -1)])
        kinds, self._counts = np.unique(rows, axis=0, return_counts=True)
        self._group, self._parts = kinds[:, 0], kinds[:, 1:].reshape(len(kinds), *units.shape[1:])
        self._generator = np.random.default_rng(seed)
        self.values = self._scored(self._counts[None].astype(float))[0]
        if np.isnan(self.values[-1]):
            raise UndefinedScore(
                "the score of the baseline is undefined: the denominators of a stratum sum to 0, as where no "
                "answer says yes or no, or names an object"
            )

    def draw(self, replicates: int) -> np.ndarray:
        """Metric values of new resamples [replicates, N + 1], NaN where undefined."""
        weights = np.empty((replicates, len(self._counts)))
        for code in np.unique(self._group):
            size = self._counts[self._group == code]
            drawn = self._generator.multinomial(size.sum(), size / size.sum(), size=replicates)
            weights[:, self._group == code] = drawn
        return self._scored(weights)

    def _scored(self, weights: np.ndarray) -> np.ndarray:
        values = mean_of_ratios(np.tensordot(weights, self._parts, axes=1), axis=1)
        values[~np.isfinite(values)] = np.nan
        return values


def _units(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """The units of drawing: parts by stratum [units, strata, N + 1, 2], and the group that each is drawn within.

    A unit is an image, or an item if images are not named; units that occur in the same strata form a group.
    """
    codes = np.unique(scores.strata, return_inverse=True)[1]
    names = np.arange(len(scores)) if scores.images is None else scores.images
    unit = np.unique(names, return_inverse=True)[1]
    units = np.zeros((unit.max() + 1, codes.max() + 1, *scores.parts.shape[1:]))
    np.add.at(units, (unit, codes), scores.parts)
    occurs = np.zeros(units.shape[:2], dtype=bool)
    occurs[unit, codes] = True
    groups = np.unique(occurs, axis=0, return_inverse=True)[1].reshape(-1)
    if np.bincount(groups).min() < 2:
        raise TooFew("resampling needs at least 2 images in the same strata; a single one never varies")
    return units, groups


def _tail(level: float, replicates: int) -> int:
    """Resamples outside of each end of a percentile interval."""
    return int((1 - level) / 2 * replicates + _ROUNDING)


def _ends(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends [N + 1] of the percentile intervals of draws [replicates, N + 1]; NaN counts against both."""
    skip = _tail(level, len(draws))
    low = np.sort(np.where(np.isnan(draws), -np.inf, draws), axis=0)[skip]
    high = np.sort(np.where(np.isnan(draws), np.inf, draws), axis=0)[-1 - skip]
    return low, high


def _highest_ranks(draws: np.ndarray) -> np.ndarray:
    """The highest rank that any layer has in each of the draws [replicates, N + 1]; NaN ranks highest."""
    # Ties share the lowest rank: a layer that never changes exceeds no limit.
    return rankdata(np.where(np.isnan(draws), np.inf, draws), method="min", axis=0).max(axis=1)


def _joint_upper(draws: np.ndarray, highest: np.ndarray, level: float) -> np.ndarray:
    """Upper limits [N + 1] that no layer exceeds, except in one tail of the draws, by their highest ranks."""
    draws = np.where(np.isnan(draws), np.inf, draws)
    return np.sort(draws, axis=0)[int(np.sort(highest)[-1 - _tail(level, len(draws))]) - 1]


def _stable(gains: np.ndarray, highest: np.ndarray, level: float, margin: float) -> bool:
    """Whether the ends of the cliff's interval are clear of the Monte Carlo error of ``gains``."""
    count, tail = len(gains), _tail(level, len(gains))
    above = _above(gains, margin)  # NaN is not: it counts against a lower limit
    short = (~above).sum(axis=0)
    binomial = CERTAIN * np.sqrt(tail * (1 - tail / count))
    # The lower limit is above the margin while at most a tail falls short of it.
    layer = _clear(tail + 0.5 - short, binomial)
    # A joint upper limit is above the margin while more than a tail has a layer of higher rank than what falls
    # short here. How many draws fall short varies too, and moves that number by as many as there are on each.
    proven = (~(above | np.isnan(gains))).sum(axis=0)
    beyond = (highest[:, None] > proven).sum(axis=0)
    ratio = beyond / np.maximum(count - proven, 1)
    return layer and _clear(
        beyond - tail - 0.5, np.hypot(binomial, CERTAIN * ratio * np.sqrt(proven * (1 - proven / count)))
    )


def _clear(surplus: np.ndarray, error: np.ndarray | float) -> bool:
    """Whether the first lasting layer is the same if every surplus [N + 1] is smaller or larger by its error."""
    surely, possibly = surplus > error, surplus > -error
    surely[-1] = possibly[-1] = True  # the baseline is never worse than itself
    return bool(first_lasting(surely) == first_lasting(possibly))


def _above(difference: np.ndarray, margin: float) -> np.ndarray:
    """Where a difference is above -margin; an undefined one is not."""
    return difference > -margin + _ROUNDING


def first_lasting(passes: np.ndarray) -> np.ndarray:
    """Smallest L of bool [..., N + 1] from which on all entries are True; the last entry always is."""
    return passes.shape[-1] - np.cumprod(passes[..., ::-1], axis=-1).sum(axis=-1)
