"""Are scores halved by image, the same way wherever and in whatever order they come?"""

from __future__ import annotations

import numpy as np
import pytest

from repro.scores import choosing_half

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
