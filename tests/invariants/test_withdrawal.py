"""Does VTW's criterion give what running each truncation by itself gives?"""

from __future__ import annotations

import numpy as np
import pytest
from torch.nn import functional as F

from repro.sweep import sweep
from repro.truncation import truncated
from repro.withdrawal import divergence, withdrawal_layer

pytestmark = pytest.mark.invariant


def test_the_divergence_is_that_of_one_run_per_layer(lvlm, prompts):
    """By PyTorch's own divergence, called as the released code calls it."""
    expected = np.zeros((len(prompts), lvlm.n_layers + 1))
    for i, prompt in enumerate(prompts):
        whole = lvlm.logits(prompt)[-1:].double().log_softmax(dim=1)
        for after in range(lvlm.n_layers + 1):
            with truncated(lvlm, after):
                cut = lvlm.logits(prompt)[-1:].double().softmax(dim=1)
            expected[i, after] = float(F.kl_div(whole, cut, reduction="batchmean"))

    found = divergence(np.stack([one.logits for one in sweep(lvlm, prompts, 1)]))

    # Shikra's first token is "The" whatever it sees, so there is little to compare.
    floor = 1e-8
    assert (found[:, -1] == 0).all() and found.max() > 50 * floor
    # Logits differ by up to 3e-5 of the largest.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=floor)


def test_the_divergence_weights_by_the_truncated_model():
    """Two words: 1/2 and 1/2 truncated, 1/4 and 3/4 untouched."""
    logits = np.log([[[0.5, 0.5], [0.25, 0.75]]])

    assert divergence(logits)[0, 0] == pytest.approx(np.log(2) / 2 + np.log(2 / 3) / 2)


def test_the_layer_is_the_first_that_passes():
    mean = np.array([0.5, 0.2, 0.01, 0.3, 0.001, 0.0])
    items = np.stack([mean * 0.5, mean * 1.5])
    for eta, layer in ((1.0, 0), (0.2, 1), (0.1, 2), (0.005, 4), (0.0001, 5), (0.0, 5)):
        assert withdrawal_layer(items, eta) == layer
    # Rounding may leave more than 0 at the baseline itself.
    assert withdrawal_layer(items + 1.0, 0.1) == 5


@pytest.mark.parametrize(
    ("divergences", "eta", "words"),
    [
        (np.zeros(3), 0.1, r"\[items, N \+ 1\], not \[3\]"),
        (np.zeros((0, 3)), 0.1, r"\[items, N \+ 1\], not \[0, 3\]"),
        (np.zeros((2, 3)), -0.1, "at least 0, not -0.1"),
        (np.zeros((2, 3)), float("nan"), "at least 0, not nan"),
    ],
)
def test_unusable_divergences_are_named(divergences, eta, words):
    with pytest.raises(ValueError, match=words):
        withdrawal_layer(divergences, eta)
