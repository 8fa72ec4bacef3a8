"""Deletion and insertion curves begin and end where they must, and need what they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro.curves import deletion_curve, token_heat
from repro.models import load_model

pytestmark = pytest.mark.invariant


def probability(lvlm, prompt, answer, gone, embedded):
    """Of an answer, with the image tokens of these places deleted from the embeddings, token by token."""
    embedded = embedded.clone()
    image = torch.from_numpy(prompt.segments.image)
    mean = embedded[0, image].mean(dim=0)
    for place in gone:
        embedded[0, image[place]] = mean
    logits = lvlm.head(lvlm.decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state)[0]
    first = len(prompt.segments) - 1
    return np.prod([float(logits[first + i].softmax(-1)[token]) for i, token in enumerate(answer)])


def test_a_curve_is_that_of_one_run_for_each_point(lvlm, prompt, decoder_inputs):
    answer = lvlm.answer(prompt, 3).ids
    ids = lvlm.sequence(prompt, answer[:-1])
    given = decoder_inputs(lvlm, lambda: lvlm.model(input_ids=ids, **prompt.image_inputs))
    n = len(prompt.segments.image)
    order = np.random.default_rng(0).permutation(n).tolist()
    counts = [0, round(n / 3), round(2 * n / 3), n]
    with torch.inference_mode():
        deleted, restored = (
            [probability(lvlm, prompt, answer, part, given["inputs_embeds"]) for part in parts]
            for parts in ([order[:count] for count in counts], [order[count:] for count in counts])
        )
    np.testing.assert_allclose(deletion_curve(lvlm, prompt, answer, order, steps=4), deleted, atol=1e-5)
    found = deletion_curve(lvlm, prompt, answer, order, steps=4, insert=True)
    np.testing.assert_allclose(found, restored, atol=1e-5)


def test_a_curve_refuses_what_is_no_order(lvlm, prompt):
    order = list(range(len(prompt.segments.image)))
    for answer, given, steps in (
        ((), order, 7),
        ((3,), order[1:], 7),
        ((3,), [0, *order[:-1]], 7),
        ((3,), order, 1),
    ):
        with pytest.raises(ValueError, match="a curve needs an answer, 2 steps or more and an order of"):
            deletion_curve(lvlm, prompt, answer, given, steps)


def test_heat_of_cells_is_heat_of_the_tokens_that_cover_them(lvlm, prompt):
    heat = np.arange(1.0, 1 + np.prod(prompt.grid)).reshape(prompt.grid)
    tokens = token_heat(heat, prompt)
    assert len(tokens) == len(prompt.segments.image)
    if prompt.cells is None:
        assert tokens.tolist() == heat.ravel().tolist()
    else:
        for token, cell in zip(tokens, prompt.cells, strict=True):
            assert token == (heat.ravel()[cell] if cell >= 0 else 0)


def test_a_curve_may_be_the_first_thing_that_is_asked_of_a_model(lvlm, prompt):
    fresh = load_model(lvlm.card.name, lvlm.path, lvlm.model.dtype, lvlm.device)
    order = list(range(len(prompt.segments.image)))
    answer = lvlm.answer(prompt, 1).ids
    expected = deletion_curve(lvlm, prompt, answer, order, steps=3)
    np.testing.assert_array_equal(deletion_curve(fresh, prompt, answer, order, steps=3), expected)
    usual = deletion_curve(fresh, prompt, answer, order)
    assert len(usual) == 7 and usual[[0, 3, 6]] == pytest.approx(expected, abs=1e-5)
