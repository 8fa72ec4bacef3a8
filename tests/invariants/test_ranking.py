"""The image tokens that stay are those that a row attends to most, or drawn once by chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.ranking import top_image_tokens
from repro.truncation import truncated

pytestmark = pytest.mark.invariant

SOME = 5


@pytest.mark.parametrize("ranking_row", ["last_prompt", "last_image"])
def test_the_tokens_kept_are_those_the_ranking_row_attends_to_most(
    lvlm, prompt, eager_attention, ranking_row
):
    image = prompt.segments.image
    row = image[-1] if ranking_row == "last_image" else len(prompt.segments) - 1
    attention = eager_attention(prompt, [])[:, row, image]
    for after in range(1, lvlm.n_layers):
        with truncated(lvlm, after, keep=SOME, ranking_row=ranking_row) as cut:
            lvlm.logits(prompt)
        kept = np.isin(image, cut.stay[0].cpu().numpy())

        assert kept.sum() == SOME
        assert attention[after - 1][kept].min() >= attention[after - 1][~kept].max()


@pytest.mark.parametrize("cuts", [[(0, "last_prompt")] * 2, [(2, "random"), (3, "random")]])
def test_a_random_choice_is_fixed(lvlm, prompt, cuts):
    stays = []
    for seed, (after, ranking_row) in enumerate(cuts):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        with truncated(lvlm, after, keep=SOME, ranking_row=ranking_row) as cut:
            lvlm.logits(prompt)
        stays.append(cut.stay)
        assert torch.equal(torch.get_rng_state(), before)

    assert torch.equal(*stays)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_the_top_tokens_are_the_largest_in_order_of_position(ranks, keep):
    found = top_image_tokens(torch.tensor([ranks]), len(ranks), keep)[0].tolist()

    assert found == [i for i, rank in enumerate(ranks) if rank >= len(ranks) - keep]


def test_the_prompts_last_row_ranks_whatever_follows_it(lvlm, prompt, answer, close):
    for after in range(1, lvlm.n_layers):
        with truncated(lvlm, after, keep=SOME) as cut:
            plain = lvlm.logits(prompt)[-1]
            stay = cut.stay.clone()
            forced = lvlm.logits(prompt, answer)
            assert torch.equal(cut.stay[:, : stay.shape[1]], stay)
        close(forced[-len(answer) - 1], plain)
