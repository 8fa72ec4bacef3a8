"""Which printed numbers can be what they say: arithmetic that needs no model and no data.

Numbers go in and come out in percent; a printed one has two decimals. Whether it can be a share of so many items
is decided with integers and fractions, never by rounding.

A printed number is read in one of three ways:

- ``rounded``: the share is within half a unit of the last decimal, either half-way point included, as halves are
  rounded up, down or to even by different programs;
- ``truncated``: later decimals were cut off;
- ``padded``: it was rounded to one decimal and printed with a zero behind, which a last digit of 0 alone allows.
"""

from bisect import bisect_left
from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor, sqrt
from typing import NamedTuple

import numpy as np

from repro.statistics import mcnemar

#: A p below this is called significant.
LEVEL = 0.05
#: By reading, how far a share may lie from what is printed, in units of its last decimal. No share of fewer than a
#: million items lies between what is cut off and one unit.
READINGS = {
    "rounded": (Fraction(-1, 2), Fraction(1, 2)),
    "truncated": (Fraction(0), 1 - Fraction(1, 10**8)),
    "padded": (Fraction(-5), Fraction(5)),
}
#: Points by which a printed number may differ from the share, however read.
_READING_ERROR = 0.05
#: Above what floats add up to by error.
_SLACK = 1e-10


class Questions(NamedTuple):
    """How many yes-or-no questions a set has: at least one with answer yes."""

    yes: int
    no: int


#: The questions a score on POPE can be of, by their number. A category has 500 images, 6 questions each; in the
#: random one of the files that LLaVA and OPERA use (AoiDragon/POPE at e3e3926) 90 with answer no are missing. All
#: three together, or one.
POPE = {
    2910: Questions(1500, 1410),
    3000: Questions(1500, 1500),
    8910: Questions(4500, 4410),
    9000: Questions(4500, 4500),
}
#: The largest share of yes among them, in percent; none is below 50.
MOST_YES = max(100 * questions.yes / sum(questions) for questions in POPE.values())
#: Items that a score can be of, by benchmark. POPE: a category or all, in either edition; ScienceQA: the test
#: questions with an image, or all; CHAIR: the sample of OPERA's script, and other usual ones of COCO val2014.
SIZES = {"pope": tuple(POPE), "scienceqa": (2017, 4241), "chair": (500, 1000, 5000)}


def window(printed: float, reading: str = "rounded") -> tuple[Fraction, Fraction] | None:
    """The least and greatest share in [0, 1] that a printed number can stand for; None if it cannot be read so.

    Raises ValueError for a number of more than two decimals, or outside 0 to 100.
    """
    units = round(100 * printed)
    if not 0 <= units <= 10_000 or abs(100 * printed - units) > 1e-6:
        raise ValueError(f"{printed} is no percentage of two decimals")
    if reading == "padded" and units % 10:
        return None
    low, high = READINGS[reading]
    return (units + low) / 10_000, (units + high) / 10_000


# Granularity


def counts(printed: float, n: int, reading: str = "rounded") -> range:
    """Right answers of n that give the printed number; empty: no n items can have it.

    The GRIM test of Brown & Heathers 2017 (Social Psychological and Personality Science 8, 363-369), for means of
    0 and 1: a share of n items is k / n. Of n = 10 000 or more, every number of two decimals is possible.
    """
    if (shares := window(printed, reading)) is None:
        return range(0)
    low, high = shares
    return range(max(0, ceil(low * n)), max(0, min(n, floor(high * n)) + 1))


def power(n: int) -> float:
    """Percent of the 10 001 numbers 0.00 to 100.00 that n items can have, rounded: how little a pass means."""
    return sum(bool(counts(units / 100, n)) for units in range(10_001)) / 100.01


def impossible(printed: Iterable[float], n: int, readings: Iterable[str] = READINGS) -> list[float]:
    """The printed numbers that n items cannot have, in one or another of the readings."""
    return [number for number in printed if not any(counts(number, n, reading) for reading in readings)]


def sizes(
    printed: Iterable[float], candidates: Iterable[int], readings: Iterable[str] = READINGS
) -> list[int]:
    """The candidates of which every one of the printed numbers is possible, in one or another of the readings."""
    numbers = list(printed)
    return [n for n in candidates if not impossible(numbers, n, readings)]


# Accuracy and F1


def f1_range(accuracy: float, yes: float = 50.0) -> tuple[float, float]:
    """Lowest and highest F1 that go with an accuracy where ``yes`` percent of the questions have answer yes.

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
    lower the mean the most together: in as many splits as they fill to E = 1/2, and the rest in one more. With
    more yes than no the lower end of a split is higher.
    """
    wrong = splits * (1 - accuracy / 100)
    full = min(splits, int(2 * wrong))
    if full == splits:
        return 0.0
    low, _ = f1_range(100 * (1 - (wrong - full / 2)))
    return (low + 100 * (splits - full - 1)) / splits


def mean_f1_at_most(accuracy: float, yes: float) -> float:
    """What the mean F1 of any splits with at most ``yes`` percent of yes never exceeds at a mean accuracy.

    ``f1_range``'s upper end lies below 1 - E / (1 + P): up to E = 1 - P it is convex, and the line its chord;
    beyond it falls faster. The line is as high for the mean of several E, and higher for more yes.
    """
    return 100 * (1 - (1 - accuracy / 100) / (1 + yes / 100))


def contradict(accuracy: float, f1: float) -> bool:
    """Whether no answers to POPE's questions print both, pooled or as means of three categories, however read."""
    low = mean_f1_at_least(accuracy - _READING_ERROR, 3) - _READING_ERROR
    high = mean_f1_at_most(accuracy + _READING_ERROR, MOST_YES) + _READING_ERROR
    return not low <= f1 <= high


def fits(accuracy: float, f1: float) -> list[int]:
    """The sizes of POPE at which one table of answers prints both."""
    return [
        n
        for n, questions in POPE.items()
        if any(has_table(accuracy, f1, questions, reading) for reading in READINGS)
    ]


def has_table(accuracy: float, f1: float, questions: Questions, reading: str = "rounded") -> bool:
    """Whether some answers to yes-or-no questions have an accuracy and an F1 that both print so.

    For each number of wrong answers that the accuracy allows (one or two below 10 000 questions), F1 grows with
    the true positives, of which the first to reach the printed F1 is looked at.
    """
    if (scores := window(f1, reading)) is None:
        return False
    low, high = scores
    for right in counts(accuracy, sum(questions), reading):
        wrong = sum(questions) - right
        true_yes = range(
            questions.yes - min(questions.yes, wrong), questions.yes - max(0, wrong - questions.no) + 1
        )

        def score(tp: int, wrong: int = wrong) -> Fraction:
            return Fraction(2 * tp, 2 * tp + wrong)

        first = bisect_left(true_yes, low, key=score)
        if first < len(true_yes) and score(true_yes[first]) <= high:
            return True
    return False


def yes_needed(accuracy: float, f1: float) -> tuple[float, float]:
    """Least and greatest percentage of questions with answer yes at which an accuracy and an F1 go together.

    F1 = 2 TP / (2 TP + E) fixes TP = F1 E / (2 (1 - F1)); the questions with answer yes are TP + FN, and FN is 0
    to E. Raises ValueError where TP + E exceeds all questions, and for numbers of 100, which fix nothing.
    """
    wrong, score = 1 - accuracy / 100, f1 / 100
    if not 0 < wrong or not score < 1:
        raise ValueError("a number of 100 leaves the share open")
    positive = score * wrong / (2 * (1 - score))
    if positive + wrong > 1 + _SLACK:
        raise ValueError(f"no set has accuracy {accuracy} and F1 {f1}")
    return 100 * positive, 100 * (positive + wrong)


# Significance


def unpaired_z(baseline: float, at_cliff: float, n: int) -> float:
    """Difference of two accuracies of n items over its standard error, as if of different items (Wald).

    The error of each is sqrt(p (1 - p) / n), the most that scores between 0 and 1 with mean p can have. Scores
    of 0 and 1 only are assumed, and items independent of each other; POPE asks six questions about an image and
    repeats those with answer yes in each category, so its errors are larger and its z smaller than this.
    ZeroDivisionError where neither number leaves an error (0 and 100).
    """
    before, after = baseline / 100, at_cliff / 100
    return (after - before) / sqrt((before * (1 - before) + after * (1 - after)) / n)


def net_changes(baseline: float, at_cliff: float, n: int) -> range:
    """Gains minus losses, in items, that two printed accuracies of n items leave possible, each being rounded."""
    before, after = window(baseline), window(at_cliff)
    assert before is not None and after is not None
    return range(ceil(n * (after[0] - before[1])), floor(n * (after[1] - before[0])) + 1)


def most_flips(net: int) -> int:
    """The most items that may flip for a net change to be significant by McNemar's exact test; 0 if it never is.

    The best case has |net| flips, all one way. Each further pair of flips is a gain and a loss and raises p: with
    S_m the sum of m fair signs, P(S_{m+2} >= d) - P(S_m >= d) = (P(S_m = d - 2) - P(S_m = d)) / 4 > 0.
    """
    d = abs(net)
    # At d^2 flips the change is one standard error.
    pairs = bisect_left(range(d * d), LEVEL, key=lambda more: mcnemar(d + more, more))
    return d + 2 * (pairs - 1) if pairs else 0


# Selection


class Selection(NamedTuple):
    """What the best of several layers gains when none changes anything, in points of accuracy.

    Attributes:
        gain: expected difference to the baseline.
        low, high: between them lie 95 % of the differences.
    """

    gain: float
    low: float
    high: float


def selection_effect(n: int, layers: int, flips: float, seed: int = 0, draws: int = 10_000) -> Selection:
    """Take the best of several layers on the items it is then reported on, by simulation.

    At each layer every item flips with ``flips`` percent, a gain or a loss with probability 1/2, independently of
    the others. The net changes are about normal with standard deviation sqrt(flips / n), and the expected best is
    that times the mean of the largest of ``layers`` normal deviates (1.54 for ten). Layers that flip the same
    items gain less (Slepian's inequality): for a real model, where neighbours are alike, it is an upper bound.
    """
    generator = np.random.default_rng(seed)
    flipped = generator.binomial(n, flips / 100, size=(draws, layers))
    best = 100 * (2 * generator.binomial(flipped, 0.5) - flipped).max(axis=1) / n
    low, high = np.quantile(best, (0.025, 0.975))
    return Selection(float(best.mean()), float(low), float(high))
