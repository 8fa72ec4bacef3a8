"""Does the gate call a loss a loss, and nothing a loss that is none?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from repro.gate.noise import tolerances
from repro.gate.stages import distances, sketch
from repro.paired import MARGIN, difference, items_for, level_of
from repro.scores import Scores


def scores(right):
    """Accuracy of items on images of their own."""
    parts = np.stack([right, np.ones(len(right))], axis=-1)[:, None].astype(float)
    return Scores(parts, np.zeros(len(right), int), np.arange(len(right)))


def pair(generator, n, lost=0.0, flipping=0.0):
    """Right answers before and after: a share is lost, and a share differs by chance, either way alike."""
    right = generator.random(n) < 0.8
    before, after = (right ^ (generator.random(n) < flipping / 2) for _ in range(2))
    return scores(before), scores(after & (generator.random(n) >= lost / 0.8))


@pytest.mark.faults
@pytest.mark.parametrize("decisions", [1, 4, 24])
def test_no_difference_is_rarely_called_one(decisions):
    """2,000 pairs of runs of which 0.4 % of the answers flip by chance, at the number of items recommended."""
    generator = np.random.default_rng(0)
    n = items_for(MARGIN)
    verdicts = [
        difference("accuracy", *pair(generator, n, flipping=0.004), MARGIN, decisions).verdict(MARGIN)
        for _ in range(2000)
    ]
    # A gate fails for any of its decisions; that every one is not worse is harder the more there are.
    assert verdicts.count("worse") / 2000 <= 0.05 / decisions
    if decisions == 1:
        assert sum(verdict in ("worse", "cannot tell") for verdict in verdicts) / 2000 <= 0.05


@pytest.mark.faults
def test_a_loss_of_twice_the_margin_is_found():
    """In at least 90 % of 500 pairs of runs."""
    generator = np.random.default_rng(1)
    n = items_for(MARGIN)
    found = [
        difference("accuracy", *pair(generator, n, lost=2 * MARGIN, flipping=0.004), MARGIN)
        for _ in range(500)
    ]
    assert sum(one.verdict(MARGIN) in ("worse", "cannot tell") for one in found) / 500 >= 0.99
    assert sum(one.verdict(MARGIN) == "worse" for one in found) / 500 >= 0.9


def clustered(generator, images, questions, lost=0.0, flipping=0.0):
    """As ``pair``, several questions per image, whose answers are lost and flip all together."""

    def each(shape):
        return np.repeat(generator.random(shape), questions)

    right = each(images) < 0.8
    before, after = (right ^ (each(images) < flipping / 2) for _ in range(2))
    after &= each(images) >= lost / 0.8
    image = np.repeat(np.arange(images), questions)
    return [replace(scores(answers), images=image) for answers in (before, after)]


@pytest.mark.faults
@pytest.mark.parametrize("questions", [3, 6])
def test_questions_about_one_image_that_change_together_are_no_more_evidence_than_one(questions):
    """2,000 pairs without a difference, 500 with twice the margin lost, at the number of images recommended."""
    generator = np.random.default_rng(questions)
    images = items_for(MARGIN)

    def verdicts(count, **lost):
        pairs = (clustered(generator, images, questions, flipping=0.004, **lost) for _ in range(count))
        return [difference("accuracy", *one, MARGIN).verdict(MARGIN) for one in pairs]

    unchanged = verdicts(2000)
    assert sum(verdict in ("worse", "cannot tell") for verdict in unchanged) / 2000 <= 0.05
    assert unchanged.count("better") / 2000 <= 0.05
    assert verdicts(500, lost=2 * MARGIN).count("worse") / 500 >= 0.9


@pytest.mark.faults
def test_an_interval_covers_the_truth():
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(500):
        one = difference("accuracy", *pair(generator, 400, lost=0.02, flipping=0.01), MARGIN)
        truth = -0.02 / 0.8 * (0.8 * 0.995 + 0.2 * 0.005)
        covered += one.low <= truth <= one.high
    assert covered / 500 >= 0.93


@pytest.mark.invariant
def test_flips_are_counted_both_ways():
    before, after = np.array([1, 1, 1, 0, 0] * 8, bool), np.array([1, 0, 1, 1, 0] * 8, bool)
    one = difference("accuracy", scores(before), scores(after), MARGIN)
    assert (one.gained, one.lost, one.n, one.gain, one.p) == (8, 8, 40, 0.0, 1.0)
    assert one.verdict(MARGIN) == "cannot tell" and one.needed > 40


@pytest.mark.invariant
def test_an_error_rate_gets_worse_upwards():
    before, after = np.zeros(400, bool), np.arange(400) < 40
    pair_of_rates = [replace(scores(right), higher_is_better=False) for right in (before, after)]
    one = difference("CHAIR", *pair_of_rates, MARGIN)
    assert one.verdict(MARGIN) == "worse" and one.gain == pytest.approx(-0.1) and one.lost == 40
    assert one.in_points == f"-10.0 points [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


@pytest.mark.invariant
def test_decisions_share_one_level():
    assert level_of(1) == 0.95 and level_of(10) == pytest.approx(0.995)


@pytest.mark.invariant
def test_distances_of_sketches_are_those_of_tensors():
    import torch

    generator = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(50):
        one = torch.randn(40, 96, generator=generator)
        other = one + 0.01 * torch.randn(40, 96, generator=generator)
        ratios.append(np.linalg.norm(sketch(one) - sketch(other)) / float((one - other).norm()))
    assert np.mean(ratios) == pytest.approx(1, abs=0.03) and 0.7 < min(ratios) and max(ratios) < 1.3
    single = torch.zeros(40, 96)
    single[7, 5] = 3.0
    assert np.linalg.norm(sketch(single)) == pytest.approx(3)


@pytest.mark.invariant
def test_readings_of_other_sizes_and_values_that_are_no_numbers_are_never_alike():
    one = {"layers": np.ones((3, 64), np.float32), "pixels": np.ones(65, np.float32)}
    other = {"layers": one["layers"].copy(), "pixels": np.ones(64, np.float32)}
    other["layers"][1, 0] = np.nan
    found = distances(one, other)
    assert found["layers"].tolist() == [0, np.inf, 0] and np.isinf(found["pixels"]).all()


@pytest.mark.invariant
def test_a_tolerance_grows_with_depth_and_never_below_rounding():
    import torch

    limits = tolerances({"layers": np.array([0, 1e-4, 1e-6]), "pixels": np.zeros(1)}, torch.float32)
    assert limits["layers"].tolist() == pytest.approx([64 * 2**-23, 8e-4, 8e-4])
    assert limits["pixels"] == pytest.approx(64 * 2**-23)
