"""Intervals and tests agree with their definitions, worked out by brute force."""

from fractions import Fraction
from itertools import product
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, ttest_1samp

from repro.cliff import unchanged_is_evidence
from repro.statistics import flips, mcnemar, mean_interval, wilson

pytestmark = pytest.mark.invariant

SHARES = st.integers(1, 4000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(SHARES, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_keeps_the_shares_that_a_z_test_keeps(share, level):
    right, n = share
    low, high = wilson(right, n, level)
    z = NormalDist().inv_cdf((1 + level) / 2)

    def kept(p):
        return abs(right / n - p) <= z * sqrt(p * (1 - p) / n)

    grid = np.linspace(0, 1, 2001)
    inside = (grid >= low + 1e-9) & (grid <= high - 1e-9)
    outside = (grid < low - 1e-9) | (grid > high + 1e-9)
    assert all(kept(p) for p in grid[inside]) and not any(kept(p) for p in grid[outside])


def test_wilson_gives_the_worked_figures():
    """1445 of ScienceQA's 2017 image questions, by the closed formula."""
    z, n, p = NormalDist().inv_cdf(0.975), 2017, 1445 / 2017
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(1445, n) == pytest.approx((centre - half, centre + half), abs=1e-12)
    for right, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError):
            wilson(right, n)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    n = gained + lost
    tail = Fraction(sum(comb(n, k) for k in range(min(gained, lost) + 1)), 2**n)
    assert mcnemar(gained, lost) == pytest.approx(float(min(1, 2 * tail)), abs=1e-12)


@pytest.mark.parametrize("n", range(1, 11))
def test_mcnemar_counts_the_ways_that_are_as_lopsided(n):
    """Every assignment of n flips to either side, one by one."""
    for lost in range(n + 1):
        ways = [sum(sides) for sides in product((0, 1), repeat=n)]
        extreme = sum(abs(2 * way - n) >= abs(2 * lost - n) for way in ways)
        assert mcnemar(n - lost, lost) == pytest.approx(extreme / 2**n)


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])] * 2), max_size=30))
def test_flips_count_both_ways(pairs):
    before, after = np.array(pairs, dtype=float).reshape(-1, 2).T
    rises = sum(b < a for b, a in pairs)
    falls = sum(b > a for b, a in pairs)
    assert flips(before, after) == (rises, falls)
    assert flips(after, before) == (falls, rises)


def test_flips_are_of_the_same_items():
    with pytest.raises(ValueError, match="other items"):
        flips(np.zeros(3), np.zeros(1))
    assert flips(np.array([0.1 + 0.2]), np.array([0.3])) == (0, 0)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_a_mean_is_that_of_a_t_test(level):
    values = np.random.default_rng(0).normal(size=(7, 3, 2))
    mean, low, high = mean_interval(values, level)
    for column in np.ndindex(3, 2):
        tested = ttest_1samp(values[:, *column], 0.0)
        assert tested.confidence_interval(level) == pytest.approx((low[column], high[column]), abs=1e-12)
        assert mean[column] == pytest.approx(sum(values[:, *column]) / 7, abs=1e-12)
    with pytest.raises(ValueError, match="at least 2 values, not 1"):
        mean_interval(values[:1])


def test_few_items_without_a_change_are_no_evidence():
    """By the binomial distribution: a share of 3 % leaves n items unchanged with probability 0.97^n."""
    n = unchanged_is_evidence(0.03)
    assert n == 122 and binom.pmf(0, n, 0.03) <= 0.025 < binom.pmf(0, n - 1, 0.03)
