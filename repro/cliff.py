"""The cliff layer: from which layer on the image no longer matters (arXiv 2406.06579, Sec. 4.2).

All functions read the *parts* of one metric [items, N + 1, 2], the numerator and denominator each item adds
when the image is visible to L = 0...N layers (L = N is the baseline), and the *strata* [items]. The score is
the mean over strata of the ratio of sums, ``repro.benchmarks.benchmark.mean_of_ratios``.

**Resampling.** Items are drawn with replacement within each stratum (Efron & Tibshirani 1993, ch. 13), one
drawn sample for all layers: the same items answer at L and at N, so their common difficulty cancels in the
difference, as in a paired test. Intervals are percentile intervals: they need no formula per metric, stay
within its range, and allow for skew.

**Clusters.** Questions about one image succeed or fail together. Where *clusters* [items] name the images, whole
images are drawn, with all their questions in whatever strata, and whole images go to either half.

**Undefined scores.** A ratio without a denominator (CHAIR_i when no caption mentions an object) is NaN. It
shows nothing, so it counts as inferior; in a resample it could be anything, so it pushes both ends of an
interval outwards, to -inf and inf once more such resamples come than a tail holds.

**A limit.** Where no item's parts differ between L and N, every resample has the difference 0 and the
interval shrinks to the point 0, however few the items. For accuracy it then only shows that fewer than about
3.7 / items of the answers change (97.5 %, one-sided): below ``unchanged_is_evidence`` (122 items for a margin of
0.03) "nothing changed" is no evidence of non-inferiority yet. The report says where that is so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np
from scipy.stats import rankdata

from repro.benchmarks.benchmark import mean_of_ratios

#: Largest loss that still counts as no loss, in units of the score (3 points).
MARGIN = 0.03
#: A difference this close to the margin lies on it: 0.97 - 1 must not pass where 0.47 - 0.5 fails.
_ROUNDING = 1e-9


class UndefinedScore(ValueError):
    """A baseline without a score."""


class TooFew(ValueError):
    """Too few items or images to resample or to halve."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores at every truncation layer, and what truncation costs. All arrays are [N + 1], index = L.

    Attributes:
        score: the metric; NaN where undefined.
        score_low, score_high: its bootstrap interval.
        difference: score(L) - score(N), its sign turned where lower is better, so positive = better.
        low, high: its paired bootstrap interval; 0 at L = N.
        level: two-sided level of both intervals.
    """

    score: np.ndarray
    score_low: np.ndarray
    score_high: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float


@dataclass(frozen=True, eq=False)
class Cliff:
    """The cliff layer with its interval; see ``cliff_layer``. Arrays are [N + 1], index = L.

    Attributes:
        layer: smallest L such that every L' >= L is non-inferior.
        interval: (low, high) layers; high is ``layer``, low the earliest the data do not exclude.
        non_inferior: the decision for each L on its own.
        difference, low, high: as in ``Comparison``.
        margin, level: what the decision was made with.
    """

    layer: int
    interval: tuple[int, int]
    non_inferior: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    margin: float
    level: float


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The cliff layer chosen on one half of the items, its score taken on the other.

    Attributes:
        cliff: the choice, from the choosing half.
        chosen_on, reported_on: items in either half.
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


def unchanged_is_evidence(margin: float, level: float = 0.95) -> int:
    """How many items it takes for "no answer changed" to mean that the loss is below ``margin``.

    Of n items none changes with probability (1 - p)^n where a share p of all answers would; that is below
    (1 - level) / 2 from n = ln((1 - level) / 2) / ln(1 - p) on (see "A limit" above).
    """
    return ceil(log((1 - level) / 2) / log(1 - margin))


def compare(
    parts: np.ndarray,
    strata: Sequence[str] | np.ndarray,
    higher_is_better: bool = True,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> Comparison:
    """The score at every truncation layer and its paired difference to the baseline.

    Args:
        parts: [items, N + 1, 2], finite, denominators >= 0.
        strata: [items], any labels; at least two items in each.
        higher_is_better: False for an error rate such as CHAIR_i.
        level: two-sided level of the intervals.
        replicates: resamples; at least one must fall into each tail.
        seed: of the resampling; the order of the items does not matter.
        clusters: [items], what each item is drawn together with; None: every item by itself.

    Raises ValueError for arguments other than described, UndefinedScore for a baseline without a score.
    """
    scores, draws = _resample(parts, strata, clusters, level, replicates, seed)
    score_low, score_high = _ends(draws, level)
    low, high = _ends(_difference(draws, higher_is_better), level)
    return Comparison(scores, score_low, score_high, _difference(scores, higher_is_better), low, high, level)


def cliff_layer(
    parts: np.ndarray,
    strata: Sequence[str] | np.ndarray,
    higher_is_better: bool = True,
    margin: float = MARGIN,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> Cliff:
    """The smallest L from which on no truncation does worse than the baseline by ``margin`` or more.

    L is non-inferior where the lower end of the two-sided interval of score(L) - score(N) is above -margin:
    a one-sided test at (1 - level) / 2, i.e. 2.5 %, the custom of non-inferiority trials. Walking down from
    L = N to the first failure needs no correction for many layers: to stop below the true cliff (the layer
    an unlimited supply of items would give), the truly inferior layer just before it must pass.

    So ``layer`` is itself an upper confidence bound of the true cliff, and the upper end of ``interval``. The
    lower end is the layer after the last one proven inferior, by an upper limit of at most -margin. There
    every layer is a chance to err, so the limits hold for all layers at once: draws of one rank, the lowest
    that any layer exceeds in at most (1 - level) / 2 of the resamples (balanced simultaneous limits, Beran
    1988, JASA 83). From the same resamples, both ends satisfy low <= layer <= high and cover the true cliff
    with a probability of about ``level`` or more. The spread of the layers found in single resamples does
    not: of many noisy layers one falls short in nearly every resample, and lifts its layer above the truth.

    Args:
        parts, strata, higher_is_better, level, replicates, seed, clusters: as in ``compare``.
        margin: largest loss, in units of the score, that still counts as no loss; > 0.

    Raises ValueError as ``compare`` does, or for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, not {margin}")
    scores, draws = _resample(parts, strata, clusters, level, replicates, seed)
    drawn = _difference(draws, higher_is_better)
    low, high = _ends(drawn, level)
    non_inferior = _above(low, margin)
    layer = int(first_lasting(non_inferior))
    earliest = int(first_lasting(_above(_joint_upper(drawn, level), margin)))
    difference = _difference(scores, higher_is_better)
    return Cliff(layer, (earliest, layer), non_inferior, difference, low, high, margin, level)


def cliff_draws(
    parts: np.ndarray,
    strata: Sequence[str] | np.ndarray,
    higher_is_better: bool = True,
    margin: float = 0.03,
    replicates: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> np.ndarray:
    """The layer that each single resample puts the cliff at: int [replicates], to compare benchmarks or models.

    The smallest L from which on score(L) - score(N) of the resample stays above -margin. No interval of the cliff
    layer: see ``cliff_layer`` for why these lie too high where many layers are noisy. Arguments and errors are
    those of ``cliff_layer``.
    """
    draws = _resample(parts, strata, clusters, 0.95, replicates, seed)[1]
    return first_lasting(_above(_difference(draws, higher_is_better), margin))


def held_out(
    parts: np.ndarray,
    strata: Sequence[str] | np.ndarray,
    clusters: Sequence[str],
    higher_is_better: bool = True,
    margin: float = MARGIN,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> HeldOut:
    """Choose the cliff layer on one half of the items and report its score on the other.

    A layer chosen because it looked good looks too good on the items that chose it, not on the others.
    ``clusters`` [items] decide the halves; arguments and errors are those of ``cliff_layer`` and ``halves``.
    """
    parts, strata = _checked(parts, strata)
    choosing, names = halves(strata, clusters), np.asarray(clusters)
    one, other = choosing, ~choosing
    cliff = cliff_layer(
        parts[one], strata[one], higher_is_better, margin, level, replicates, seed, names[one].tolist()
    )
    report = compare(
        parts[other], strata[other], higher_is_better, level, replicates, seed, names[other].tolist()
    )
    at = cliff.layer
    values = (report.score[-1], report.score[at], report.difference[at], report.low[at], report.high[at])
    return HeldOut(cliff, int(choosing.sum()), int((~choosing).sum()), *map(float, values))


def halves(strata: Sequence[str] | np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Which items choose (bool [items]): the first half of the clusters, rounded down, by SHA-256 of the name.

    The others report. Clusters found in the same strata are halved together, so that each half has its share of
    every stratum. The order of the items does not matter, and a few added items move few others. Raises
    ValueError for lengths that differ, or fewer than four clusters of one kind.
    """
    strata = np.asarray(strata)
    if len(clusters) != len(strata):
        raise ValueError(f"{len(clusters)} cluster names for {len(strata)} items")
    found: dict[str, set[str]] = {}
    for name, stratum in zip(clusters, strata, strict=True):
        found.setdefault(str(name), set()).add(str(stratum))
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name, where in found.items():
        kinds.setdefault(tuple(sorted(where)), []).append(name)
    choosing: set[str] = set()
    for kind, names in kinds.items():
        _require(" and ".join(map(repr, kind)), len(names), 4, "clusters (images)", "two halves need")
        names.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        choosing.update(names[: len(names) // 2])
    return np.array([str(name) in choosing for name in clusters])


def _checked(parts: np.ndarray, strata: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, or a ValueError that says what is wrong with them."""
    parts, strata = np.asarray(parts, dtype=np.float64), np.asarray(strata)
    if parts.ndim != 3 or parts.shape[2] != 2:
        raise ValueError(f"parts must have the shape [items, N + 1, 2], not {list(parts.shape)}")
    if strata.shape != parts.shape[:1]:
        raise ValueError(f"strata must have the shape [{len(parts)}], not {list(strata.shape)}")
    if min(parts.shape) < 2:
        raise ValueError(f"needs at least 2 items and 2 layers (L = 0 and N), not {parts.shape[:2]}")
    if not np.isfinite(parts).all():
        raise ValueError("parts must be finite; an item without an answer has to be scored or left out")
    if (parts[..., 1] < 0).any():
        raise ValueError("denominators must not be negative")
    for stratum, count in zip(*np.unique(strata, return_counts=True), strict=True):
        _require(repr(str(stratum)), count, 2, "items", "resampling needs")
    return parts, strata


def _require(stratum: str, count: int, least: int, units: str, purpose: str) -> None:
    if count < least:
        raise TooFew(f"stratum {stratum}: {purpose} at least {least} {units}, not {count}")


def _resample(
    parts: np.ndarray,
    strata: Sequence[str] | np.ndarray,
    clusters: Sequence[str] | None,
    level: float,
    replicates: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the sample [N + 1] and of its resamples [replicates, N + 1], NaN where undefined."""
    parts, strata = _checked(parts, strata)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    if _tail(level, replicates) < 1:
        raise ValueError(f"{replicates} replicates are too few for a level of {level}")
    units, drawn_within = _units(parts, strata, clusters)
    # Units with equal parts are one kind: few kinds make the products small, and their sorted order makes
    # the draws independent of the order of the items.
    rows = np.column_stack([drawn_within, units.reshape(len(units), -1)])
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    group, kind_parts = kinds[:, 0], kinds[:, 1:].reshape(len(kinds), *units.shape[1:])
    weights = np.empty((1 + replicates, len(kinds)))
    weights[0] = counts
    generator = np.random.default_rng(seed)
    for code in np.unique(group):
        size = counts[group == code]
        weights[1:, group == code] = generator.multinomial(size.sum(), size / size.sum(), size=replicates)
    scores = mean_of_ratios(np.tensordot(weights, kind_parts, axes=1), axis=1)
    scores[~np.isfinite(scores)] = np.nan
    if np.isnan(scores[0, -1]):
        raise UndefinedScore(
            "the score of the baseline is undefined: the denominators of a stratum sum to 0, as where no answer "
            "says yes or no, or names an object"
        )
    return scores[0], scores[1:]


def _units(
    parts: np.ndarray, strata: np.ndarray, clusters: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn as a whole: parts by stratum [units, strata, N + 1, 2], and the group each is drawn within.

    A unit is a cluster, or an item where there are none; units found in the same strata form a group.
    """
    codes = np.unique(strata, return_inverse=True)[1]
    if clusters is not None and len(clusters) != len(parts):
        raise ValueError(f"{len(clusters)} cluster names for {len(parts)} items")
    names = np.arange(len(parts)) if clusters is None else np.asarray(clusters)
    unit = np.unique(names, return_inverse=True)[1]
    units = np.zeros((unit.max() + 1, codes.max() + 1, *parts.shape[1:]))
    np.add.at(units, (unit, codes), parts)
    found = np.zeros(units.shape[:2], dtype=bool)
    found[unit, codes] = True
    within = np.unique(found, axis=0, return_inverse=True)[1].reshape(-1)
    if np.bincount(within).min() < 2:
        raise TooFew("resampling needs at least 2 clusters in the same strata; a single one never varies")
    return units, within


def _difference(scores: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """score(L) - score(N) of [..., N + 1], positive = better; 0 at the baseline, defined or not."""
    difference = scores - scores[..., -1:] if higher_is_better else scores[..., -1:] - scores
    difference[..., -1] = 0
    return difference


def _tail(level: float, replicates: int) -> int:
    """Resamples to leave out at each end of a percentile interval."""
    return int((1 - level) / 2 * replicates + _ROUNDING)


def _ends(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends [N + 1] of the percentile intervals of draws [replicates, N + 1]; NaN counts against both."""
    skip = _tail(level, len(draws))
    low = np.sort(np.where(np.isnan(draws), -np.inf, draws), axis=0)[skip]
    high = np.sort(np.where(np.isnan(draws), np.inf, draws), axis=0)[-1 - skip]
    return low, high


def _joint_upper(draws: np.ndarray, level: float) -> np.ndarray:
    """Upper limits [N + 1] that all layers keep to together, except in one tail of the draws."""
    draws = np.where(np.isnan(draws), np.inf, draws)
    # Ties share the lowest rank: a layer that never changes exceeds no limit.
    highest = np.sort(rankdata(draws, method="min", axis=0).max(axis=1))
    return np.sort(draws, axis=0)[int(highest[-1 - _tail(level, len(draws))]) - 1]


def _above(difference: np.ndarray, margin: float) -> np.ndarray:
    """Where a difference is above -margin; an undefined one is not."""
    return difference > -margin + _ROUNDING


def first_lasting(passes: np.ndarray) -> np.ndarray:
    """Smallest L of bool [..., N + 1] from which on all entries are True, the last always being so."""
    return passes.shape[-1] - np.cumprod(passes[..., ::-1], axis=-1).sum(axis=-1)
