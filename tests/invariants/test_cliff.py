"""Is the cliff layer what its definition says, and do its interval and its held-out score keep their word?"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.audit.experiments.common import record_of
from repro.cliff import Cliff, _highest_ranks, _stable, cliff_layer, compare, held_out
from repro.scores import Scores, choosing_half

pytestmark = pytest.mark.invariant

ONE_SIDED = 0.025


def accuracy_parts(right: np.ndarray) -> np.ndarray:
    """Parts [items, N + 1, 2] of an accuracy from 0/1 answers [items, N + 1]."""
    return np.stack([right, np.ones_like(right)], axis=-1).astype(float)


def one_stratum(parts: np.ndarray, higher_is_better: bool = True) -> Scores:
    return Scores(parts, np.zeros(len(parts), dtype=int), None, higher_is_better)


def answers(
    generator: np.random.Generator, items: int, effects: list[float], shared: bool = False
) -> np.ndarray:
    """0/1 answers [items, N + 1]: baseline accuracy 0.8, accuracy at L differs by exactly effects[L].

    Truncation turns 10 % of the wrong answers right and as many right ones wrong as the effect asks;
    ``shared`` lets the same items flip first at every layer.
    """
    gain, base = 0.1, 0.8
    lose = (gain * (1 - base) - np.array(effects)) / base
    right = generator.random((items, 1)) < base
    luck = generator.random((items, 1 if shared else len(effects)))
    return np.concatenate([np.where(right, luck >= lose, luck < gain), right], axis=1)


def first_lasting(passes: list[bool]) -> int:
    return min(L for L in range(len(passes)) if all(passes[L:]))


def ratio_of_sums(parts: np.ndarray, groups: list[list[int]], layer: int) -> float:
    """The score in plain Python; NaN where a denominator is 0."""
    values = []
    for group in groups:
        denominator = sum(parts[i, layer, 1] for i in group)
        values.append(sum(parts[i, layer, 0] for i in group) / denominator if denominator else math.nan)
    return sum(values) / len(values)


@st.composite
def small_samples(draw):
    """Five items in two strata, four layers, small counts; only the baseline is sure to be defined."""
    cell = st.tuples(st.integers(0, 2), st.integers(0, 2))
    cells = draw(st.lists(cell, min_size=20, max_size=20))
    parts = np.array(cells, dtype=float).reshape(5, 4, 2)
    parts[:, -1, 1] += 1
    parts[..., 0] = np.minimum(parts[..., 0], parts[..., 1])
    return parts


def assert_ends(values: list[float], low: float, high: float, replicates: int) -> None:
    """low and high are the 2.5 % quantiles of all resamples, undefined ones lying beyond either end.

    The share of draws below a true quantile scatters by its binomial standard error; four are allowed.
    """
    noise = 4 * math.sqrt(ONE_SIDED * (1 - ONE_SIDED) / replicates)
    for end, sign in ((low, 1), (high, -1)):
        ordered = np.array([-math.inf if math.isnan(value) else sign * value for value in values])
        assert (ordered < sign * end - 1e-9).mean() <= ONE_SIDED + noise
        assert (ordered <= sign * end + 1e-9).mean() >= ONE_SIDED - noise


@settings(max_examples=25, deadline=None, derandomize=True)
@given(small_samples(), st.booleans(), st.sampled_from([0.05, 0.25, 0.5]))
def test_small_samples_agree_with_enumeration(parts, higher_is_better, margin):
    """All 2^2 * 3^3 resamples of five items, one by one, against the drawn ones."""
    strata, replicates = np.array(["a", "a", "b", "b", "b"]), 4000
    sign = 1 if higher_is_better else -1
    sample = Scores(parts, strata, None, higher_is_better)
    cliff = cliff_layer(sample, margin, replicates=replicates)
    seen = compare(sample, replicates=replicates)
    samples = itertools.product(itertools.product([0, 1], repeat=2), itertools.product([2, 3, 4], repeat=3))
    table = [[ratio_of_sums(parts, list(groups), L) for L in range(4)] for groups in samples]
    scores = [ratio_of_sums(parts, [[0, 1], [2, 3, 4]], L) for L in range(4)]
    np.testing.assert_allclose(seen.score, scores, rtol=1e-12)
    np.testing.assert_allclose(seen.difference, [sign * (s - scores[3]) for s in scores], atol=1e-12)

    for L in range(4):
        assert_ends([row[L] for row in table], seen.score_low[L], seen.score_high[L], replicates)
    for L in range(3):
        assert_ends([sign * (row[L] - row[3]) for row in table], seen.low[L], seen.high[L], replicates)
    assert seen.low[3] == seen.high[3] == 0

    decision = [bool(low > -margin + 1e-9) for low in seen.low]
    assert cliff.non_inferior.tolist() == decision
    assert cliff.layer == cliff.interval[1] == first_lasting(decision)
    assert cliff.interval[0] <= first_lasting([bool(high > -margin + 1e-9) for high in seen.high])
    np.testing.assert_array_equal(cliff.low, seen.low)
    np.testing.assert_array_equal(cliff.high, seen.high)
    np.testing.assert_array_equal(cliff.difference, seen.difference)


def same(a: Cliff, b: Cliff) -> bool:
    arrays = [(a.low, b.low), (a.high, b.high), (a.difference, b.difference)]
    return (a.layer, a.interval) == (b.layer, b.interval) and all(np.array_equal(x, y) for x, y in arrays)


def captions(generator: np.random.Generator, items: int = 80, layers: int = 6) -> np.ndarray:
    """Parts of a CHAIR_i: mentions and hallucinated ones among them, fewer hallucinated late."""
    mentions = generator.poisson(3, (items, layers))
    rate = np.linspace(0.5, 0.2, layers)
    return np.stack([generator.binomial(mentions, rate), mentions], axis=-1).astype(float)


def test_order_of_items_does_not_matter():
    generator = np.random.default_rng(1)
    parts, strata = captions(generator), np.repeat(["a", "b"], [30, 50])
    order = generator.permutation(80)
    items = Scores(parts, strata, np.array([f"item {i}" for i in range(80)]), False)
    unnamed = replace(items, images=None)
    assert same(cliff_layer(unnamed), cliff_layer(unnamed.where(order)))
    one = held_out(items)
    other = held_out(items.where(order))
    assert same(one.cliff, other.cliff)
    assert (one.score, one.difference, one.low) == (other.score, other.difference, other.low)


def test_an_error_rate_is_its_complement():
    parts, strata = captions(np.random.default_rng(2)), np.repeat([0, 1], 40)
    complement = np.stack([parts[..., 1] - parts[..., 0], parts[..., 1]], axis=-1)
    wrong, right = Scores(parts, strata, None, False), Scores(complement, strata)
    errors, successes = compare(wrong), compare(right)
    np.testing.assert_allclose(errors.difference, successes.difference, atol=1e-12)
    assert errors.difference[0] < -0.1, "a higher error rate must come out as worse"
    assert cliff_layer(wrong).layer > 0
    assert cliff_layer(replace(wrong, higher_is_better=True)).layer == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0.001, 0.4), st.floats(0.001, 0.4))
def test_a_wider_margin_never_moves_the_cliff_later(seed, one, other):
    parts = accuracy_parts(answers(np.random.default_rng(seed), 60, [-0.4, -0.2, -0.2, -0.05, 0.0]))
    narrow, wide = (cliff_layer(one_stratum(parts), margin=m, replicates=200) for m in sorted((one, other)))
    assert wide.layer <= narrow.layer
    assert wide.interval[0] <= narrow.interval[0]
    assert narrow.non_inferior[-1] and wide.non_inferior[-1], "the baseline is never worse than itself"
    assert (wide.non_inferior >= narrow.non_inferior).all()


@pytest.mark.parametrize("step", [0, 1, 4, 7])
def test_a_step_is_found_exactly(step):
    parts = accuracy_parts(np.tile(np.arange(8) >= step, (50, 1)))
    cliff = cliff_layer(one_stratum(parts))
    assert (cliff.layer, cliff.interval) == (step, (step, step))
    assert cliff.non_inferior.tolist() == [step <= L for L in range(8)]


def test_a_late_dip_moves_the_cliff_behind_it():
    parts = accuracy_parts(np.tile([1, 1, 0, 1, 1], (50, 1)))
    cliff = cliff_layer(one_stratum(parts))
    assert (cliff.layer, cliff.interval) == (3, (3, 3))
    assert cliff.non_inferior.tolist() == [True, True, False, True, True]


def test_layers_that_agree_cost_the_interval_nothing():
    """Three layers that lose alike, and three that lose nothing, are one chance to err, not six."""
    right = answers(np.random.default_rng(8), 300, [-0.2, 0.0])
    parts = accuracy_parts(right[:, [0, 0, 0, 1, 1, 1]])
    high = compare(one_stratum(parts)).high[0]
    for margin, low in ((-high, 3), (-high + 1e-6, 0)):
        cliff = cliff_layer(one_stratum(parts), margin=margin, replicates=2000)
        assert cliff.interval == (low, 3) and cliff.borderline


def test_a_loss_of_exactly_the_margin_fails_whatever_its_rounding():
    for base in range(3, 101):
        # Two kinds of items whose numbers cannot vary: every resample has the same two scores.
        parts = np.tile([[base - 3, 100.0], [base, 100.0]], (5, 1, 1))
        assert cliff_layer(one_stratum(parts), replicates=40).layer == 1


def test_paired_intervals_match_the_normal_formula():
    """Mean over two strata of ratios of sums, against the linearised standard error; 5 % for 4000 draws."""
    generator = np.random.default_rng(3)
    parts, strata = captions(generator, 2000, 4), np.repeat([0, 1], [500, 1500])
    parts[:, 1] = parts[:, 3]
    parts[:, 2, 0] = np.maximum(parts[:, 3, 0] - (generator.random(2000) < 0.1), 0)
    parts[:, 2, 1] = parts[:, 3, 1]
    seen = compare(Scores(parts, strata), replicates=4000)
    for L in (0, 2):
        variance = 0.0
        for stratum in (0, 1):
            chosen = parts[strata == stratum]
            ratio = chosen.sum(axis=0)[:, 0] / chosen.sum(axis=0)[:, 1]
            share = (chosen[..., 0] - ratio * chosen[..., 1]) / chosen.sum(axis=0)[:, 1]
            variance += ((share[:, L] - share[:, 3]) ** 2).sum() / 4
        expected = 2 * 1.959964 * math.sqrt(variance)
        assert seen.high[L] - seen.low[L] == pytest.approx(expected, rel=0.05)
    assert seen.low[1] == seen.high[1] == 0, "answers that never differ have no paired uncertainty"
    assert seen.score_low[1] < seen.score[1] < seen.score_high[1]


def test_resamples_keep_the_strata():
    """A stratum of two would be missing from an eighth of the resamples if it were not drawn on its own."""
    parts = accuracy_parts(answers(np.random.default_rng(4), 60, [-0.2, 0.0]))
    seen = compare(Scores(parts, np.repeat([0, 1], [2, 58])))
    assert np.isfinite([seen.low, seen.high]).all()


@pytest.mark.parametrize(
    ("model", "name"), [("llava-1.5", "scienceqa"), ("llava-1.6", "chair"), ("qwen-vl", "chair")]
)
def test_another_seed_moves_no_cliff(model, name):
    """Recorded scores whose cliff 2000 draws leave to the seed."""
    choosing = record_of(model, name).scores().halves()[0]
    few = {cliff_layer(choosing, replicates=2000, seed=seed).interval for seed in range(20)}
    assert len(few) > 1
    assert len({cliff_layer(choosing, seed=seed).interval for seed in range(6)}) == 1


def test_a_limit_on_the_margin_is_borderline():
    """Both ends: a layer's own limit, and the joint one. Not far away, some more draws decide."""
    soft = np.random.default_rng(10).random((100, 1))  # no ties, so a limit may lie anywhere
    scores = one_stratum(np.stack([np.hstack([soft - 0.3, np.ones_like(soft)]), np.ones((100, 2))], axis=-1))
    many = compare(scores, replicates=100_000, seed=1)
    own, joint = -float(many.low[0]), -float(many.high[0])
    for limit in (own, joint):
        cliff = cliff_layer(scores, margin=limit)
        assert cliff.borderline
        for margin in (limit - 0.004, limit + 0.004):
            decided = cliff_layer(scores, margin=margin)
            assert not decided.borderline
            assert decided.interval == cliff_layer(scores, margin=margin, seed=1).interval
    assert cliff_layer(scores, margin=own, replicates=2000).borderline, "so many, and the doubt is said"
    step = accuracy_parts(np.tile(np.arange(8) >= 4, (50, 1)))
    assert not cliff_layer(one_stratum(step)).borderline


def test_what_is_clear_takes_no_more_draws():
    scores = one_stratum(accuracy_parts(answers(np.random.default_rng(11), 300, [-0.4, -0.2, 0.02])))
    assert same(cliff_layer(scores), cliff_layer(scores, replicates=2000))


def test_an_undefined_score_is_inferior():
    parts = captions(np.random.default_rng(5), 60, 5)
    parts[:, 0] = 0
    parts[:, 1:] = parts[:, 4:]
    parts[1:, 2] = 0  # one caption alone mentions anything: a third of the resamples are undefined
    cliff = cliff_layer(one_stratum(parts, False))
    assert math.isnan(cliff.difference[0]) and math.isfinite(cliff.difference[2])
    assert np.isneginf(cliff.low[[0, 2]]).all() and np.isposinf(cliff.high[[0, 2]]).all()
    assert cliff.non_inferior.tolist() == [False, True, False, True, True]
    assert (cliff.layer, cliff.interval) == (3, (0, 3))


def test_the_baseline_is_never_worse_than_itself():
    """Not even where a third of the resamples leave its score undefined."""
    parts = captions(np.random.default_rng(9), 60, 3)
    parts[1:, 2] = 0
    parts[0, 2] = [1, 4]
    cliff = cliff_layer(one_stratum(parts, False))
    assert cliff.low[2] == cliff.difference[2] == cliff.high[2] == 0
    assert (cliff.layer, cliff.non_inferior.tolist()) == (2, [False, False, True])


# The hard truths: losses just inside the margin at many layers, each a chance to shut out the true cliff;
# the same with flips shared between layers; and a layer that loses exactly the margin, so that stopping
# there is wrong as often as the test allows.
@pytest.mark.parametrize(
    ("effects", "truth", "shared"),
    [
        ([-0.3, -0.1, -0.05] + [-0.028] * 12, 3, False),
        ([-0.3, -0.1, -0.05, -0.028, -0.028, -0.028, -0.005, 0], 3, True),
        ([-0.3, -0.1, -0.03, 0.02, 0.02], 3, False),
    ],
    ids=["noisy plateau", "shared flips", "exactly the margin"],
)
def test_the_interval_covers_the_true_cliff(effects, truth, shared):
    runs, covered, early = 200, 0, 0
    for run in range(runs):
        right = answers(np.random.default_rng(1000 + run), 200, effects, shared)
        parts = accuracy_parts(right)
        cliff = cliff_layer(one_stratum(parts), replicates=200, seed=run)
        covered += cliff.interval[0] <= truth <= cliff.interval[1]
        early += cliff.layer < truth
    # Nominal 95 % and 2.5 %, three binomial standard errors of 200 runs: 0.046 and 0.033.
    assert covered / runs >= 0.95 - 0.046
    assert early / runs <= ONE_SIDED + 0.033


def test_held_out_score_is_not_flattered():
    """Pure noise: no layer differs from the baseline. The choosing half likes its choice, the other does not.

    A margin of two standard errors of a difference makes about half of the layers pass by luck.
    """
    chosen, reported, moved = [], [], 0
    ids = np.array([f"item {i}" for i in range(400)])
    for run in range(150):
        generator = np.random.default_rng(2000 + run)
        parts = accuracy_parts(generator.random((400, 6)) < 0.6)
        result = held_out(replace(one_stratum(parts), images=ids), margin=0.1, replicates=200)
        chosen.append(result.cliff.difference[result.cliff.layer])
        reported.append(result.difference)
        moved += result.cliff.layer < 5
    assert moved > 50, "the choice must be a choice for this test to mean anything"
    error = np.std(reported, ddof=1) / math.sqrt(len(reported))
    assert abs(np.mean(reported)) < 3 * error
    assert np.mean(chosen) > 5 * error


def test_held_out_reports_the_other_half():
    parts = accuracy_parts(answers(np.random.default_rng(6), 200, [-0.4, -0.02, 0.0]))
    strata, names = np.repeat(["a", "b"], [80, 120]), np.array([f"item {i}" for i in range(200)])
    choosing = choosing_half(strata, names)
    result = held_out(Scores(parts, strata, names), margin=0.1, seed=3)
    chosen = cliff_layer(Scores(parts[choosing], strata[choosing], names[choosing]), margin=0.1, seed=3)
    assert same(result.cliff, chosen)
    other = compare(Scores(parts[~choosing], strata[~choosing], names[~choosing]), seed=3)
    at = result.cliff.layer
    assert 0 < at < 3
    assert (result.baseline, result.score) == (other.score[3], other.score[at])
    ends = (other.difference[at], other.low[at], other.high[at])
    assert (result.difference, result.low, result.high) == ends
    assert (result.chosen_on, result.reported_on) == (100, 100)


@pytest.mark.parametrize(("short", "stable"), [(17, True), (30, False), (70, False), (84, True)])
def test_a_layer_is_decided_four_standard_errors_from_where_it_turns(short, stable):
    """Of 2000 resamples 50 may fall short, give or take 4 sqrt(50 (1 - 50 / 2000)) = 28."""
    gains = np.zeros((2000, 2))
    gains[:short, 0] = -1
    assert _stable(gains, _highest_ranks(gains), 0.95, 0.03) == stable


def test_one_resample_in_each_tail_is_enough():
    # (1 - 0.9) / 2 * 20 comes out just below 1.
    assert cliff_layer(one_stratum(accuracy_parts(np.ones((8, 3)))), level=0.9, replicates=20).layer == 0
