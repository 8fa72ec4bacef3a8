"""Which printed figures can be what they say: arithmetic that needs no model and no data.

Figures go in and come out in percent; a printed one has two decimals, as in Table 1 of arXiv 2406.06579. Whether
it is possible is decided with integers and fractions, never by rounding.

A printed figure is read in one of three ways:

- ``rounded``: the figure is within half a unit of the last decimal, either half-way point included, as halves are
  rounded up, down or to even by different programs;
- ``truncated``: later decimals were cut off;
- ``padded``: it was rounded to one decimal and printed with a zero behind, which a last digit of 0 alone allows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, lcm
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

#: A p below this is called significant.
LEVEL = 0.05
READINGS = ("rounded", "truncated", "padded")
#: Above what floats add up to by error, below any difference between shares of different counts that matter here;
#: what it lets through is decided by fractions.
_SLACK = 1e-10


class Questions(NamedTuple):
    """How many yes-or-no questions a set has: at least one with answer yes."""

    yes: int
    no: int


#: A category of POPE: 500 images, 6 questions each. ``POPE_RANDOM`` is the random one of the files that LLaVA and
#: OPERA use (AoiDragon/POPE at e3e3926), in which 90 questions with answer no are missing.
POPE, POPE_RANDOM = Questions(1500, 1500), Questions(1500, 1410)
#: All categories together, or one: the questions a figure of POPE can be of, by their number.
POPE_POOLED = {
    2910: POPE_RANDOM,
    3000: POPE,
    8910: Questions(4500, 4410),
    9000: Questions(4500, 4500),
}
#: The three categories whose figures can be averaged, by the number of questions in all.
POPE_MEANS = {8910: (POPE_RANDOM, POPE, POPE), 9000: (POPE, POPE, POPE)}
#: Items that a figure of a benchmark can be of. POPE: a category or all, in either edition; ScienceQA: the test
#: questions with an image, or all; CHAIR: the sample of OPERA's script, and other usual ones of COCO val2014.
SIZES = {"pope": tuple(POPE_POOLED), "scienceqa": (2017, 4241), "chair": (500, 1000, 5000)}


class Confusion(NamedTuple):
    """Answers to yes-or-no questions, counted; yes is the positive class."""

    true_yes: int
    false_yes: int
    false_no: int
    true_no: int

    @property
    def accuracy(self) -> Fraction:
        """(TP + TN) / n, a share."""
        return Fraction(self.true_yes + self.true_no, sum(self))

    @property
    def f1(self) -> Fraction:
        """2 TP / (2 TP + FP + FN), a share: the harmonic mean of precision and recall, without its 0 / 0."""
        return Fraction(2 * self.true_yes, 2 * self.true_yes + self.false_yes + self.false_no)


@dataclass(frozen=True)
class Window:
    """The shares in [0, 1] that a printed figure can stand for: low to high, ``closed`` if high is one of them."""

    low: Fraction
    high: Fraction
    closed: bool

    def holds(self, share: Fraction) -> bool:
        return self.low <= share and (share < self.high or (self.closed and share == self.high))

    def integers(self, scale: int) -> range:
        """Integers i of which i / scale is in the window."""
        last = floor(self.high * scale) if self.closed else ceil(self.high * scale) - 1
        return range(ceil(self.low * scale), last + 1)


def window(printed: float, reading: str = "rounded") -> Window | None:
    """What a printed figure can stand for in one of ``READINGS``; None if it cannot be read so.

    Raises ValueError for a figure of more than two decimals, outside 0 to 100, and for another reading.
    """
    units = round(100 * printed)
    if not 0 <= units <= 10_000 or abs(100 * printed - units) > 1e-6:
        raise ValueError(f"{printed} is no percentage of two decimals")
    if reading == "rounded":
        return Window(Fraction(2 * units - 1, 20_000), Fraction(2 * units + 1, 20_000), True)
    if reading == "truncated":
        return Window(Fraction(units, 10_000), Fraction(units + 1, 10_000), False)
    if reading == "padded":
        if units % 10:
            return None
        return Window(Fraction(units - 5, 10_000), Fraction(units + 5, 10_000), True)
    raise ValueError(f"reading {reading!r}; expected one of {', '.join(READINGS)}")


# Granularity


def counts(printed: float, n: int, reading: str = "rounded") -> range:
    """Right answers of n that give the printed figure; empty: no n items can have it.

    The GRIM test of Brown & Heathers 2017 (Social Psychological and Personality Science 8, 363-369), for means of
    0 and 1: a share of n items is k / n. Of n = 10 000 or more, every figure of two decimals is possible.
    """
    shares = window(printed, reading)
    if shares is None:
        return range(0)
    possible = shares.integers(n)
    return range(max(0, possible.start), max(0, min(n + 1, possible.stop)))


def power(n: int) -> float:
    """Percent of the 10 001 figures 0.00 to 100.00 that n items can have, rounded: how little a pass means."""
    return sum(bool(counts(units / 100, n)) for units in range(10_001)) / 100.01


def sizes(
    printed: Iterable[float], candidates: Iterable[int], readings: Sequence[str] = READINGS
) -> list[int]:
    """The candidates of which every one of the printed figures is possible, in one or another of the readings."""
    figures = list(printed)
    return [n for n in candidates if all(any(counts(one, n, way) for way in readings) for one in figures)]


# Accuracy and F1


def f1_range(accuracy: float, yes: float = 50.0) -> tuple[float, float]:
    """Lowest and highest F1 that go with an accuracy, ``yes`` being the percentage of questions with answer yes.

    With the shares E = FP + FN of wrong answers and P of yes, F1 = 2 TP / (2 TP + E) grows with TP = P - FN; FN is
    at most min(P, E) and at least E - (1 - P). On a balanced set (P = 1/2) and for E <= 1/2, F1 therefore lies in
    [(1 - 2E) / (1 - E), 1 / (1 + E)]: all errors are no's, or all are yes's.
    """
    wrong, positive = 1 - accuracy / 100, yes / 100
    ends = (positive - min(positive, wrong), positive - max(0.0, wrong - (1 - positive)))
    low, high = (100 * 2 * tp / (2 * tp + wrong) if tp else 0.0 for tp in ends)
    return low, high


def mean_f1_at_least(accuracy: float, splits: int) -> float:
    """The lowest mean F1 of several balanced splits of equal size that goes with a mean accuracy.

    ``f1_range``'s lower end g(E) = (1 - 2E) / (1 - E) is concave in E on [0, 1/2] and 0 beyond, so the errors
    lower the mean the most together: in as many splits as they fill to E = 1/2, and the rest in one more.
    """
    wrong = splits * (1 - accuracy / 100)
    full = min(splits, int(2 * wrong))
    if full == splits:
        return 0.0
    low, _ = f1_range(100 * (1 - (wrong - full / 2)))
    return (low + 100 * (splits - full - 1)) / splits


def yes_needed(accuracy: float, f1: float) -> tuple[float, float]:
    """Least and greatest percentage of questions with answer yes at which an accuracy and an F1 go together.

    F1 = 2 TP / (2 TP + E) fixes TP = F1 E / (2 (1 - F1)); the questions with answer yes are TP + FN, and FN is 0
    to E. Raises ValueError where TP + E exceeds all questions, and for figures of 100, which fix nothing.
    """
    wrong, score = 1 - accuracy / 100, f1 / 100
    if not 0 < wrong or not score < 1:
        raise ValueError("a figure of 100 leaves the share open")
    positive = score * wrong / (2 * (1 - score))
    if positive + wrong > 1 + _SLACK:
        raise ValueError(f"no set has accuracy {accuracy} and F1 {f1}")
    return 100 * positive, 100 * (positive + wrong)


def table_with(accuracy: float, f1: float, asked: Questions, reading: str = "rounded") -> Confusion | None:
    """A confusion table whose accuracy and F1 both give the printed figures; None if there is none.

    For each number of wrong answers w that the accuracy allows (one or two below n = 10 000), F1 >= a is
    TP >= a w / (2 (1 - a)), which leaves an interval of TP: no search over tables.
    """
    scores = window(f1, reading)
    if scores is None:
        return None
    for right in counts(accuracy, sum(asked), reading):
        wrong = sum(asked) - right
        tables = [_table(asked, wrong, tp) for tp in _true_yes(asked, wrong, scores)]
        if tables:
            return tables[0]
    return None


def tables_with(
    accuracy: float, f1: float, splits: Sequence[Questions], reading: str = "rounded"
) -> tuple[Confusion, ...] | None:
    """Three confusion tables, one per split, whose *mean* accuracy and mean F1 give the printed figures, or None.

    Every division of the wrong answers among the splits is looked at, the most even first, and given up at once
    if the sum of the lowest F1s is too high or that of the highest too low. What is left is searched whole.
    """
    scores, accuracies = window(f1, reading), window(accuracy, reading)
    if scores is None or accuracies is None:
        return None
    total = Window(3 * scores.low, 3 * scores.high, scores.closed)
    for wrong in _divisions(accuracies, total, splits):
        found = _fill(total, splits, wrong)
        if found is not None:
            return found
    return None


def _table(asked: Questions, wrong: int, true_yes: int) -> Confusion:
    false_no = asked.yes - true_yes
    return Confusion(true_yes, wrong - false_no, false_no, asked.no - (wrong - false_no))


def _allowed(asked: Questions, wrong: int) -> range:
    """The true positives that w wrong answers leave possible."""
    return range(asked.yes - min(asked.yes, wrong), asked.yes - max(0, wrong - asked.no) + 1)


def _true_yes(asked: Questions, wrong: int, scores: Window) -> range:
    """The true positives at which F1 is in the window, given w wrong answers."""
    possible = _allowed(asked, wrong)
    if wrong == 0:
        return possible if scores.holds(Fraction(1)) else range(0)

    def at(score: Fraction) -> Fraction:
        return score * wrong / (2 * (1 - score))

    first = max(possible.start, ceil(at(scores.low))) if scores.low < 1 else possible.stop
    stop = possible.stop
    if scores.high < 1:
        stop = min(stop, floor(at(scores.high)) + 1 if scores.closed else ceil(at(scores.high)))
    return range(first, max(first, stop))


def _divisions(
    accuracies: Window, total: Window, splits: Sequence[Questions]
) -> Iterator[tuple[int, int, int]]:
    """Wrong answers of three splits that give a mean accuracy, and F1s that may sum to ``total``."""
    n = [sum(asked) for asked in splits]
    # In these units, of which one answer of split i counts steps[i], all accuracies are integers.
    unit = lcm(*n)
    steps = [unit // one for one in n]
    scores = Window(3 * accuracies.low, 3 * accuracies.high, accuracies.closed).integers(unit)
    low, high = zip(*(_f1_ends(asked) for asked in splits), strict=True)
    if not scores:
        return
    even = scores.start // 3
    # What the other two give at most, and nothing at least.
    reachable = range(scores.start - 2 * unit, scores.stop)
    second = np.arange(n[1] + 1)
    second = second[np.argsort(np.abs(second * steps[1] - even), kind="stable")]
    candidates = [right for right in range(n[0] + 1) if right * steps[0] in reachable]
    for first in sorted(candidates, key=lambda right: abs(right * steps[0] - even)):
        sums = first * steps[0] + second * steps[1]
        least = -((sums - scores.start) // steps[2])
        for third in (least + more for more in range(len(scores) // steps[2] + 1)):
            fits = (third >= 0) & (third <= n[2]) & (sums + third * steps[2] < scores.stop)
            right = (np.array([first]), second[fits], third[fits])
            wrong = [n[i] - right[i] for i in range(3)]
            lowest, highest = (sum(end[i][wrong[i]] for i in range(3)) for end in (low, high))
            fits = (lowest <= float(total.high) + _SLACK) & (highest >= float(total.low) - _SLACK)
            for b, c in zip(wrong[1][fits], wrong[2][fits], strict=True):
                yield int(wrong[0][0]), int(b), int(c)


def _f1_ends(asked: Questions) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest F1 of 0...n wrong answers: two float64 [n + 1]."""
    ends = np.array(
        [(yes[0], yes[-1]) for yes in (_allowed(asked, wrong) for wrong in range(sum(asked) + 1))]
    )
    low, high = (2 * ends / (2 * ends + np.arange(len(ends))[:, None])).T
    return low, high


def _fill(total: Window, splits: Sequence[Questions], wrong: Sequence[int]) -> tuple[Confusion, ...] | None:
    """Tables of three splits with so many wrong answers whose F1s sum to ``total``; None if there are none."""
    tables = [
        [_table(asked, w, tp) for tp in _allowed(asked, w)] for asked, w in zip(splits, wrong, strict=True)
    ]
    first, second, third = (np.array([float(table.f1) for table in some]) for some in tables)
    for i, score in enumerate(first):
        starts = np.searchsorted(third, float(total.low) - _SLACK - score - second)
        stops = np.searchsorted(third, float(total.high) + _SLACK - score - second, side="right")
        for j in np.flatnonzero(starts < stops):
            for k in range(starts[j], stops[j]):
                found = tables[0][i], tables[1][j], tables[2][k]
                if total.holds(sum((table.f1 for table in found), Fraction(0))):
                    return found
    return None


# Significance


def unpaired_z(baseline: float, at_cliff: float, n: int) -> float:
    """Difference of two accuracies of n items over its standard error, as if of different items (Wald).

    The error of each is sqrt(p (1 - p) / n), the most that scores between 0 and 1 with mean p can have. Scores
    of 0 and 1 only are assumed, and items independent of each other; POPE asks six questions about an image and
    repeats those with answer yes in each category, so its errors are larger and its z smaller than this.
    ZeroDivisionError where neither figure leaves an error (0 and 100).
    """
    before, after = baseline / 100, at_cliff / 100
    return (after - before) / ((before * (1 - before) + after * (1 - after)) / n) ** 0.5


def paired_p(gains: int, losses: int) -> float:
    """Two-sided p of McNemar's exact test (McNemar 1947, Psychometrika 12, 153-157).

    Without an effect, each item that flips between the two runs is a gain or a loss with probability 1/2.
    """
    return float(binomtest(gains, gains + losses).pvalue)


def net_changes(baseline: float, at_cliff: float, n: int) -> range:
    """Gains minus losses, in items, that two printed accuracies of n items leave possible, each being rounded."""
    before, after = window(baseline), window(at_cliff)
    assert before is not None and after is not None
    return range(ceil(n * (after.low - before.high)), floor(n * (after.high - before.low)) + 1)


def most_flips(net: int) -> int:
    """The most items that may flip for a net change to be significant: ``paired_p`` < 0.05; 0 if it never is.

    The best case has |net| flips, all one way. Each further pair of flips is a gain and a loss and raises p: with
    S_m the sum of m fair signs, P(S_{m+2} >= d) - P(S_m >= d) = (P(S_m = d - 2) - P(S_m = d)) / 4 > 0.
    """
    d = abs(net)
    # At d^2 flips the change is one standard error.
    pairs = bisect_left(range(d * d), LEVEL, key=lambda more: paired_p(d + more, more))
    return d + 2 * (pairs - 1) if pairs else 0


# Selection


@dataclass(frozen=True)
class Selection:
    """What the best of several layers gains when none changes anything, in points of accuracy.

    Attributes:
        gain: expected difference to the baseline.
        low, high: between them lie 95 % of the differences.
        improved: percent of the draws in which the best layer is above the baseline.
    """

    gain: float
    low: float
    high: float
    improved: float


def selection_effect(n: int, layers: int, flips: float, seed: int = 0, draws: int = 10_000) -> Selection:
    """Take the best of several layers on the items it is then reported on, by simulation.

    At each layer every item flips with ``flips`` percent, a gain or a loss with probability 1/2, independently of
    the others. The net changes are about normal with standard deviation sqrt(flips / n), and the expected best is
    that times the mean of the largest of ``layers`` normal deviates (1.54 for ten). Layers that flip the same
    items gain less (Slepian's inequality): for a real model, where neighbours are alike, it is an upper figure.
    """
    generator = np.random.default_rng(seed)
    flipped = generator.binomial(n, flips / 100, size=(draws, layers))
    best = 100 * (2 * generator.binomial(flipped, 0.5) - flipped).max(axis=1) / n
    low, high = np.quantile(best, (0.025, 0.975))
    return Selection(float(best.mean()), float(low), float(high), float(100 * (best > 0).mean()))
