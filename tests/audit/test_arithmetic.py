"""Do the functions that judge printed numbers agree with trying everything out, where that can be done?"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind_from_stats

from repro.audit import arithmetic as a

pytestmark = pytest.mark.audit

examples = settings(max_examples=40)
readings = st.sampled_from(list(a.READINGS))
small = st.builds(a.Questions, st.integers(1, 6), st.integers(0, 6))
large = st.builds(a.Questions, st.integers(200, 1500), st.integers(200, 1500))


def as_printed(numerator, denominator, reading: str) -> tuple:
    """What a program can print for a share, as hundredths of a percent: halves go down in one, up in the other.

    Integers only, or integer arrays.
    """
    unit = 1000 if reading == "padded" else 10_000
    if reading == "truncated":
        down = up = unit * numerator // denominator
    else:
        up = (2 * unit * numerator + denominator) // (2 * denominator)
        down = -((denominator - 2 * unit * numerator) // (2 * denominator))
    return down * (10_000 // unit), up * (10_000 // unit)


def prints(share: Fraction, reading: str) -> set[int]:
    return set(as_printed(share.numerator, share.denominator, reading))


class Confusion(NamedTuple):
    """Answers to yes-or-no questions, counted; yes is the positive class."""

    true_yes: int
    false_yes: int
    false_no: int
    true_no: int

    @property
    def accuracy(self) -> Fraction:
        return Fraction(self.true_yes + self.true_no, sum(self))

    @property
    def f1(self) -> Fraction:
        return Fraction(2 * self.true_yes, 2 * self.true_yes + self.false_yes + self.false_no)


def tables_of(asked: a.Questions) -> list[Confusion]:
    """All confusion tables of a set."""
    return [
        Confusion(tp, asked.no - tn, asked.yes - tp, tn)
        for tp in range(asked.yes + 1)
        for tn in range(asked.no + 1)
    ]


def wrong(table: Confusion) -> int:
    return table.false_yes + table.false_no


def of(table: Confusion) -> a.Questions:
    """The set that a table is of."""
    return a.Questions(table.true_yes + table.false_no, table.false_yes + table.true_no)


def draw_table(draw, asked: a.Questions) -> Confusion:
    tp, tn = draw(st.integers(0, asked.yes)), draw(st.integers(0, asked.no))
    return Confusion(tp, asked.no - tn, asked.yes - tp, tn)


# Granularity


@examples
@given(st.integers(1, 1200), st.integers(0, 10_000), readings)
@example(32, 313, "rounded")  # 1/32 is 3.125 %
@example(4, 2500, "truncated")
@example(2500, 0, "padded")
@example(2500, 10_000, "padded")
def test_counts_are_those_that_print_the_number(n, units, reading):
    for one in {units, *prints(Fraction(units * n // 10_000, n), reading), max(0, units - 1)}:
        expected = [k for k in range(n + 1) if one in prints(Fraction(k, n), reading)]
        assert list(a.counts(one / 100, n, reading)) == expected


def test_power_counts_the_numbers_that_can_be_printed():
    for n in (7, 32, 4241):
        possible = set().union(*(prints(Fraction(k, n), "rounded") for k in range(n + 1)))
        assert a.power(n) == pytest.approx(100 * len(possible) / 10_001)
    # Five decimals' worth of items, such as TextVQA's 5000 scores in tenths, can have any number.
    assert a.power(50_000) == 100


def test_sizes_are_those_that_every_number_is_possible_of():
    # Thirds and sevenths need 21; 14.2 is a seventh cut to one decimal, no rounded one.
    assert a.sizes([33.33, 66.67, 14.29], range(1, 50), ["rounded"]) == [21, 42]
    assert a.sizes([33.3], [3], ["rounded"]) == []
    assert a.sizes([33.3], [3]) == [3]
    assert a.sizes([66.66, 33.33], [3], ["truncated"]) == [3]


@pytest.mark.parametrize("printed", [84.705, 100.01, -1])
def test_what_is_no_printed_number_is_refused(printed):
    with pytest.raises(ValueError, match="two decimals"):
        a.counts(printed, 10)


# Accuracy and F1


@examples
@given(small)
def test_f1_of_an_accuracy_lies_where_the_formula_says(asked):
    n = sum(asked)
    for errors in range(n + 1):
        found = [100 * float(table.f1) for table in tables_of(asked) if wrong(table) == errors]
        low, high = a.f1_range(100 * (1 - errors / n), 100 * asked.yes / n)
        assert (low, high) == pytest.approx((min(found), max(found)), abs=1e-9)


@pytest.mark.parametrize(("half", "splits"), [(1, 1), (1, 3), (2, 2), (2, 3), (3, 2)])
def test_the_lowest_mean_f1_is_the_formula(half, splits):
    tables = tables_of(a.Questions(half, half))
    lowest: dict[int, Fraction] = {}
    for chosen in itertools.product(tables, repeat=splits):
        errors = sum(map(wrong, chosen))
        mean = sum((table.f1 for table in chosen), Fraction(0)) / splits
        lowest[errors] = min(mean, lowest.get(errors, mean))
    for errors, mean in lowest.items():
        accuracy = 100 * (1 - errors / (2 * half * splits))
        assert a.mean_f1_at_least(accuracy, splits) == pytest.approx(100 * float(mean), abs=1e-9)


@pytest.mark.parametrize(
    "splits", [[a.Questions(2, 2)] * 3, [a.Questions(3, 2), a.Questions(2, 2)], [a.Questions(4, 1)]]
)
def test_no_mean_f1_lies_beyond_the_bounds(splits):
    """With as many yes as no, or more; the lower bound is for splits of equal size, in whatever number."""
    yes = max(100 * asked.yes / sum(asked) for asked in splits)
    slack = 1e-9
    reached = False
    for chosen in itertools.product(*map(tables_of, splits)):
        accuracy, f1 = (100 * float(mean(chosen, what)) for what in ("accuracy", "f1"))
        assert a.mean_f1_at_least(accuracy, len(splits)) - slack <= f1
        assert f1 <= a.mean_f1_at_most(accuracy, yes) + slack
        reached = reached or 0 < 100 - accuracy and f1 > a.mean_f1_at_most(accuracy, yes) - slack
    assert reached


@pytest.mark.parametrize("reading", a.READINGS)
def test_answers_to_pope_never_contradict_what_they_print(reading):
    """Drawn from all that print a pair: one category or all, or the three categories' mean, in either edition."""
    draw = np.random.default_rng(0)
    means = [[a.POPE[n], a.POPE[3000], a.POPE[3000]] for n in (2910, 3000)]
    for splits in [[asked] for asked in a.POPE.values()] + means:
        for wrong_share in (0.01, 0.06, 0.15, 0.3, 0.6):
            for _ in range(20):
                chosen = []
                for asked in splits:
                    # All sorts of divisions of the errors, the most unequal too.
                    errors = min(sum(asked), int(sum(asked) * wrong_share * 3 * draw.beta(0.3, 0.6)))
                    fewest, most = max(0, errors - asked.no), min(asked.yes, errors)
                    false_no = fewest + int((most - fewest) * draw.choice([0, 1, draw.random()]))
                    true_yes, false_yes = asked.yes - false_no, errors - false_no
                    chosen.append(Confusion(true_yes, false_yes, false_no, asked.no - false_yes))
                pairs = itertools.product(
                    *(prints(mean(chosen, what), reading) for what in ("accuracy", "f1"))
                )
                assert not any(a.contradict(accuracy / 100, f1 / 100) for accuracy, f1 in pairs)


@pytest.mark.parametrize(
    ("accuracy", "f1", "impossible"),
    [(94.01, 92.50, True), (94.01, 92.60, False), (84.70, 89.90, False), (84.70, 90.00, True)],
)
def test_a_pair_outside_of_the_bounds_contradicts_itself(accuracy, f1, impossible):
    assert a.contradict(accuracy, f1) == impossible


@examples
@given(st.data())
def test_the_yes_needed_are_those_of_the_table(data):
    table = draw_table(data.draw, data.draw(small))
    accuracy, f1 = 100 * float(table.accuracy), 100 * float(table.f1)
    if wrong(table) == 0:
        with pytest.raises(ValueError, match="open"):
            a.yes_needed(accuracy, f1)
        return
    low, high = a.yes_needed(accuracy, f1)
    share = 100 * of(table).yes / sum(table)
    assert low - 1e-9 <= share <= high + 1e-9
    assert (share == pytest.approx(low, abs=1e-9)) == (table.false_no == 0)
    assert (share == pytest.approx(high, abs=1e-9)) == (table.false_yes == 0)


def test_no_share_of_yes_makes_up_for_an_f1_far_above_the_accuracy():
    with pytest.raises(ValueError, match="no set"):
        a.yes_needed(40, 60)


@examples
@given(small, readings)
def test_there_is_a_table_if_and_only_if_one_prints_both(asked, reading):
    pairs = {
        pair
        for table in tables_of(asked)
        for pair in itertools.product(prints(table.accuracy, reading), prints(table.f1, reading))
    }
    accuracies, scores = (sorted({pair[i] for pair in pairs}) for i in (0, 1))
    for accuracy, f1 in itertools.product(accuracies, around(scores)):
        assert a.has_table(accuracy / 100, f1 / 100, asked, reading) == ((accuracy, f1) in pairs)


@examples
@given(st.data(), large, readings)
def test_what_a_large_table_prints_has_a_table(data, asked, reading):
    table = draw_table(data.draw, asked)
    accuracy, f1 = max(prints(table.accuracy, reading)), max(prints(table.f1, reading))
    assert a.has_table(accuracy / 100, f1 / 100, asked, reading)


@pytest.mark.parametrize(("f1", "possible"), [(6.1, False), (6.2, True), (6.3, True), (6.4, False)])
def test_a_half_is_rounded_either_way(f1, possible):
    """One right of 31, and F1 = 2 / 32, which is 6.25 %."""
    assert a.has_table(3.2, f1, a.Questions(1, 30), "padded") == possible


def mean(tables, what: str) -> Fraction:
    return sum((getattr(table, what) for table in tables), Fraction(0)) / len(tables)


def around(units) -> list[int]:
    """Printed numbers and those beside them."""
    return sorted({one + more for one in units for more in (-1, 0, 1) if 0 <= one + more <= 10_000})


# Significance


@examples
@given(st.integers(1, 9999), st.integers(1, 9999), st.integers(2, 9000))
def test_unpaired_z_is_welchs_statistic_of_zeros_and_ones(before, after, n):
    p = np.array([before, after]) / 10_000
    # The sample's own variance, p (1 - p) n / (n - 1), over n - 1 for n: the z of the population's.
    deviation = np.sqrt(p * (1 - p))
    expected = ttest_ind_from_stats(p[1], deviation[1], n, p[0], deviation[0], n, equal_var=False).statistic
    assert a.unpaired_z(before / 100, after / 100, n) == pytest.approx(expected, abs=1e-9)


def test_most_flips_is_the_last_significant_number():
    for net in (*range(-8, 9), 15):
        significant = [0]
        for pairs in range(net * net):
            flips = abs(net) + 2 * pairs
            tail = sum(math.comb(flips, k) for k in range(abs(net) + pairs, flips + 1))
            if 2 * tail / 2**flips < 0.05:
                significant.append(flips)
        assert a.most_flips(net) == max(significant)


@examples
@given(st.data(), st.integers(1, 9000))
def test_net_changes_hold_every_pair_of_counts(data, n):
    before, after = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    printed = [min(prints(Fraction(k, n), "rounded")) for k in (before, after)]
    nets = a.net_changes(printed[0] / 100, printed[1] / 100, n)
    assert after - before in nets
    # Both are off by at most half a unit of the last decimal.
    change = Fraction(printed[1] - printed[0], 10_000)
    for net in (nets.start - 1, nets.start, nets.stop - 1, nets.stop):
        assert (abs(Fraction(net, n) - change) <= Fraction(1, 10_000)) == (net in nets)


# Selection


def best_of(n: int, layers: int, flips: float) -> dict[int, float]:
    """Exact distribution of the largest net change of several layers."""
    net = np.array([1.0])
    for _ in range(n):
        net = np.convolve(net, (flips / 2, 1 - flips, flips / 2))
    below = np.cumsum(net) ** layers
    return dict(zip(range(-n, n + 1), np.diff(below, prepend=0.0), strict=True))


@pytest.mark.parametrize(("n", "layers", "flips"), [(20, 1, 0.3), (30, 4, 0.1), (200, 10, 0.03)])
def test_selection_effect_is_the_exact_one_within_its_noise(n, layers, flips):
    draws = 10_000
    exact = best_of(n, layers, flips)
    nets, odds = np.array(list(exact)), np.array(list(exact.values()))
    gain = (nets * odds).sum()
    spread = math.sqrt((nets**2 * odds).sum() - gain**2)
    seen = a.selection_effect(n, layers, 100 * flips, seed=3, draws=draws)
    assert seen.gain * n / 100 == pytest.approx(gain, abs=4 * spread / math.sqrt(draws))
    noise = 4 * math.sqrt(0.025 * 0.975 / draws)
    assert odds[nets < seen.low * n / 100 - 1e-6].sum() <= 0.025 + noise
    assert odds[nets <= seen.low * n / 100 + 1e-6].sum() >= 0.025 - noise
    assert odds[nets > seen.high * n / 100 + 1e-6].sum() <= 0.025 + noise
    assert odds[nets >= seen.high * n / 100 - 1e-6].sum() >= 0.025 - noise


def test_a_seed_fixes_the_simulation():
    assert a.selection_effect(100, 5, 10, seed=1, draws=50) == a.selection_effect(
        100, 5, 10, seed=1, draws=50
    )
    assert a.selection_effect(100, 5, 10, seed=1, draws=50) != a.selection_effect(
        100, 5, 10, seed=2, draws=50
    )
