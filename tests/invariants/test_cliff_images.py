"""Items of one image are drawn together, and what a cliff layer cannot be read from is named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from repro.cliff import cliff_layer, compare, held_out
from repro.scores import Scores
from tests.invariants.test_cliff import accuracy_parts, answers

pytestmark = pytest.mark.invariant

GOOD = accuracy_parts(np.ones((8, 3)))


@pytest.mark.parametrize("sizes", [[60], [3, 57]])
def test_one_image_per_item_changes_nothing(sizes):
    """Not even where a stratum is small: resamples keep it."""
    parts = accuracy_parts(answers(np.random.default_rng(8), 60, [-0.3, 0.0]))
    strata, names = np.repeat(range(len(sizes)), sizes), [f"image {i:02}" for i in range(60)]
    alone, named = compare(Scores(parts, strata)), compare(Scores(parts, strata, np.array(names)))
    np.testing.assert_array_equal(alone.low, named.low)
    np.testing.assert_array_equal(alone.high, named.high)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (["a"] * 8, "at least 2 images"),
        (["a", *"bbccddd"], None),
        (["a"] * 7, r"images must have the shape \[8\]"),
    ],
)
def test_unusable_images_are_named(images, words):
    if words is None:
        assert compare(Scores(GOOD, np.zeros(8), images)).score[0] == 1
        return
    for analyse in (compare, cliff_layer):
        with pytest.raises(ValueError, match=words):
            analyse(Scores(GOOD, np.zeros(8), images))


def test_repeated_questions_do_not_narrow_the_interval_of_their_image():
    """Every item asked four times, in two strata: as one image they weigh as one, by themselves as four."""
    parts = accuracy_parts(answers(np.random.default_rng(9), 100, [-0.2, 0.0]))
    names = [f"image {i}" for i in range(100)]
    once = compare(Scores(parts, np.zeros(100), names))
    four, strata = np.concatenate([parts] * 4), np.repeat(["a", "b"], 200)
    together, apart = compare(Scores(four, strata, names * 4)), compare(Scores(four, strata))
    np.testing.assert_allclose(together.low, once.low, atol=1e-12)
    np.testing.assert_allclose(together.high, once.high, atol=1e-12)
    assert (apart.high - apart.low)[0] < 0.6 * (once.high - once.low)[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parts": GOOD[..., 0]}, "shape"),
        ({"parts": np.ones((8, 3, 3))}, "shape"),
        ({"parts": GOOD[:1], "strata": [0]}, "at least 2 items"),
        ({"parts": GOOD[:, :1]}, "2 layers"),
        ({"parts": GOOD * np.nan}, "finite"),
        ({"parts": -GOOD}, "negative"),
        ({"parts": GOOD * [1, 0]}, "baseline is undefined"),
        ({"strata": np.zeros(7)}, r"shape \[8\]"),
        ({"strata": [0] * 7 + [1]}, "stratum '1'"),
        ({"margin": 0.0}, "margin"),
        ({"margin": math.nan}, "margin"),
        ({"level": 0.0}, "level"),
        ({"level": 1.0}, "level"),
        ({"replicates": 39}, "replicates"),
    ],
)
def test_unusable_arguments_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        scores = {name: change.pop(name, value) for name, value in (("parts", GOOD), ("strata", np.zeros(8)))}
        cliff_layer(Scores(**scores), **change)


@pytest.mark.parametrize(
    ("strata", "ids", "words"),
    [
        ([0] * 8, "abcdefg", r"shape \[8\]"),
        ([0] * 8, None, "image of each item"),
        ([0] * 8, "aabbccaa", "at least 4"),
        ([0] * 5 + [1] * 3, "abcdefgh", "at least 4"),
    ],
)
def test_unusable_halves_are_named(strata, ids, words):
    with pytest.raises(ValueError, match=words):
        held_out(Scores(GOOD, strata, None if ids is None else list(ids)))
