"""Are scores halved by image, the same way wherever and in whatever order they come?"""

from __future__ import annotations

import numpy as np
import pytest

from repro.scores import TooFew, choosing_half

pytestmark = pytest.mark.invariant


def test_halves_are_stable_and_balanced():
    strata = np.repeat(["a", "b", "c"], [5, 40, 155])
    ids = [f"item {i}" for i in range(200)]
    choosing = choosing_half(strata, ids)
    assert [int(choosing[strata == name].sum()) for name in "abc"] == [2, 20, 77]
    order = np.random.default_rng(7).permutation(200)
    np.testing.assert_array_equal(choosing_half(strata[order], [ids[i] for i in order]), choosing[order])
    assert int((choosing_half(strata[:-4], ids[:-4]) != choosing[:-4]).sum()) <= 4, (
        "four items move at most four"
    )
    # Written down once: another platform or version must split the same items the same way.
    assert "".join(map(str, choosing_half(np.zeros(16), ids[:16]).astype(int))) == "0010100111101100"


def test_an_image_is_never_split_between_the_halves():
    strata, names = np.tile(["a", "b"], 40), np.repeat([f"image {i}" for i in range(20)], 4)
    choosing = choosing_half(strata, names)
    assert choosing.sum() == 40
    for name in set(names):
        assert len(set(choosing[names == name])) == 1


def test_images_that_not_every_stratum_has_are_halved_as_one():
    """As under a limit over strata of which one lacks some of the images, POPE's random one for example."""
    strata = np.repeat(["a", "b"], 12)
    names = [f"image {i}" for i in [*range(12), 0, *range(2, 13)]]
    choosing = choosing_half(strata, names)
    shared = choosing_half(["ab"] * 11, [f"image {i}" for i in (0, *range(2, 12))])
    assert [bool(choosing[i]) for i in (0, *range(2, 12))] == shared.tolist()
    for stratum in "ab":
        assert 4 <= choosing[strata == stratum].sum() <= 7
    # Every image is alone in what it lacks: they are halved, and each half has two of each stratum.
    choosing = choosing_half(
        np.repeat(["a", "b", "c"], 6), [f"image {i}" for i in (*range(6), *range(1, 7), *range(2, 8))]
    )
    assert 2 <= min(choosing.reshape(3, 6).sum(axis=1)) and max(choosing.reshape(3, 6).sum(axis=1)) <= 4


def test_a_stratum_of_too_few_images_is_named():
    with pytest.raises(TooFew, match="stratum 'b': two halves need at least 4 images, not 3"):
        choosing_half(["a"] * 8 + ["b"] * 3, [f"image {i}" for i in (*range(8), 0, 1, 8)])
    with pytest.raises(TooFew, match="stratum 'b': each half needs at least 2 images, not 1"):
        # Six images in one group, of which three of b's four come to the same half.
        choosing_half(["b"] * 4 + ["c"] * 4, [f"image {i}" for i in (0, 1, 2, 3, 2, 3, 4, 5)])
