"""Intervals and tests for a share of right answers, and for two sets of answers to the same questions.

Scores that are not plain shares, such as F1, a soft accuracy or CHAIR_i, get their intervals by resampling images:
``repro.cliff.compare``, which also gives the paired interval of a difference.
"""

import numpy as np
from scipy.stats import binomtest, t


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of ``right`` in ``n`` independent answers.

    The shares p that a two-sided z test does not reject: |right / n - p| <= z sqrt(p (1 - p) / n), z the normal
    quantile of (1 + level) / 2; without continuity correction (Wilson 1927, JASA 22). Questions about the same
    image are not independent: with several per image the interval is too narrow.

    Raises ValueError unless 0 <= right <= n, n >= 1 and 0 <= level <= 1.
    """
    interval = binomtest(right, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over axis 0 of [n, ...] independent values, and the ends of its interval by Student's t, n - 1 degrees.

    Each interval has its own coverage: among many, some miss. Raises ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval of a mean needs at least 2 values, not {len(values)}")
    mean = values.mean(axis=0)
    half = t.ppf((1 + level) / 2, len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def flips(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """How many scores [items] rise and how many fall from ``before`` to ``after``: wrong to right, right to wrong.

    Differences below 1e-9 do not count. Raises ValueError for shapes that differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"scores of other items: {list(before.shape)} and {list(after.shape)}")
    return int((after - before > 1e-9).sum()), int((before - after > 1e-9).sum())


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p value of McNemar's test: do right answers turn wrong as often as wrong ones turn right?

    If nothing changed, gained is binomial(n, 1/2) among n = gained + lost flips: p = min(1, 2 P(X <= min)), and 1
    without flips (McNemar 1947, Psychometrika 12; exact by the binomial distribution). For answers that are right
    or wrong; questions about the same image are taken as independent.
    """
    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
