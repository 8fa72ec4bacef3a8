"""Are attention shares the model's own attention, and does measuring them leave the model as it was?"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from repro.attention import Shares, attention_shares, prove_shares
from repro.models.attending import Attending
from repro.models.rounding import NotAdmitted
from repro.truncation import truncated

pytestmark = pytest.mark.invariant

#: A sum of some hundred float32 probabilities; measured 9e-7, here times 20.
SHARE_TOLERANCE = 2e-5


@pytest.mark.parametrize("digits", [3.5, 4.5])
def test_four_last_digits_of_half_precision_are_rounding_and_more_are_not(digits):
    dtype = torch.bfloat16
    asked = SimpleNamespace(attention_modules=[1], watchable=True, computes_in=dtype)
    asked.probe_error = digits * torch.finfo(dtype).eps
    if digits < 4:
        assert "equal to the model's own softmax" in prove_shares(asked)
    else:
        with pytest.raises(NotAdmitted, match="attention differs from the model's own by 0.035"):
            prove_shares(asked)


def naive_rows(query, key, mask, scaling, rows):
    """``Attending.softmax_rows`` in float64, one head and one row at a time."""
    query, key = query.double().numpy(), key.double().numpy()
    batch, heads, length, _ = query.shape
    keys, group = key.shape[2], heads // key.shape[1]
    out = np.zeros((batch, len(rows), keys))
    for b in range(batch):
        for r, row in enumerate(rows):
            for h in range(heads):
                scores = np.array([query[b, h, row] @ key[b, h // group, k] for k in range(keys)]) * scaling
                if mask is None:
                    scores[row + keys - length + 1 :] = -np.inf
                else:
                    part = mask[b % len(mask), h % mask.shape[1], row].numpy()
                    scores = np.where(part, scores, -np.inf) if part.dtype == bool else scores + part
                weight = np.exp(scores - scores.max())
                out[b, r] += weight / weight.sum() / heads
    return out


@given(
    shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 2]), st.sampled_from([1, 3]), st.integers(1, 6)),
    cached=st.integers(0, 4),
    kind=st.sampled_from(["none", "boolean", "additive"]),
    shared=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**16),
)
def test_rows_equal_a_naive_softmax(shape, cached, kind, shared, seed):
    batch, key_heads, group, length = shape
    keys = length + cached
    rng = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, key_heads * group, length, 8, generator=rng)
    key = torch.randn(batch, key_heads, keys, 8, generator=rng)
    rows = torch.randperm(length, generator=rng)[: 1 + seed % length]
    mask = None
    if kind != "none":
        seen = torch.rand(
            1 if shared[0] else batch, 1 if shared[1] else key_heads * group, length, keys, generator=rng
        )
        mask = seen < 0.6
        mask[..., 0] = True
        if kind == "additive":
            mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)

    attending = Attending(
        layer=0,
        query=query,
        key=key,
        value=key,
        mask=mask,
        scaling=0.4,
        causal=True,
        settings={},
        function=sdpa_attention_forward,
        module=torch.nn.Identity(),
    )
    found = attending.softmax_rows(rows)

    assert found.dtype == torch.float32
    np.testing.assert_allclose(
        found.numpy(), naive_rows(query, key, mask, 0.4, rows.tolist()), rtol=0, atol=SHARE_TOLERANCE
    )


def test_shares_are_a_distribution_in_every_layer_and_row(lvlm, prompts, answer):
    for prompt in prompts:
        raw = attention_shares(lvlm, prompt, answer).raw

        assert raw.shape == (lvlm.n_layers, len(answer) + 1, 4)
        assert (raw >= 0).all()
        np.testing.assert_allclose(raw.sum(axis=-1), 1, rtol=0, atol=SHARE_TOLERANCE)
        assert (raw[:, 0, 3] == 0).all(), "the last prompt row precedes the answer"
        assert (raw[:, 1:, 3] > 0).all(), "an answer row attends at least to itself"


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=6))
def test_the_papers_shares_leave_the_answer_out(rows):
    raw = np.array(rows, dtype=np.float32)[None]
    paper = Shares(raw).paper[0]

    for row, share in zip(raw[0], paper, strict=True):
        if row[:3].sum() == 0:
            assert np.isnan(share).all()
        else:
            assert share.sum() == pytest.approx(1, abs=SHARE_TOLERANCE)
            np.testing.assert_allclose(share * row[:3].sum(), row[:3], rtol=0, atol=SHARE_TOLERANCE)


def test_shares_equal_eager_attention_summed_by_segment(lvlm, prompts, answer, eager_attention):
    for prompt in prompts:
        labels = prompt.segments.with_answer(len(answer))
        rows = eager_attention(prompt, answer)[:, len(prompt.segments) - 1 :]
        expected = np.stack([rows[..., labels == segment].sum(axis=-1) for segment in range(4)], axis=-1)

        found = attention_shares(lvlm, prompt, answer).raw

        np.testing.assert_allclose(found, expected, rtol=0, atol=SHARE_TOLERANCE)


def test_a_probe_does_not_move_the_logits(lvlm, prompt, answer):
    plain = lvlm.logits(prompt, answer)
    seen = []

    with lvlm.observed(lambda attending: seen.append(attending.layer)):
        probed = lvlm.logits(prompt, answer)

    assert seen == list(range(lvlm.n_layers))
    assert torch.equal(plain, probed)
    assert torch.equal(plain, lvlm.logits(prompt, answer))


class SquareMaps(TorchDispatchMode):
    """Counts the floating tensors made whose last two axes are both ``length``."""

    def __init__(self, length: int):
        super().__init__()
        self.length, self.found, self.made = length, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, torch.Tensor) and part.is_floating_point():
                self.made += 1
                self.found += part.ndim > 1 and tuple(part.shape[-2:]) == (self.length, self.length)
        return out


def test_no_square_map_is_ever_formed(lvlm, prompt, answer):
    with SquareMaps(len(prompt.segments) + len(answer)) as watch:
        attention_shares(lvlm, prompt, answer)

    assert watch.made > 10 * lvlm.n_layers
    assert watch.found == 0


def test_shares_of_earlier_rows_do_not_depend_on_later_answer_tokens(lvlm, prompt, answer):
    plain = attention_shares(lvlm, prompt, answer).raw
    for index in range(len(answer)):
        other = list(answer)
        other[index] = answer[index - 1] if answer[index - 1] != answer[index] else answer[index - 2]
        changed = attention_shares(lvlm, prompt, other).raw

        np.testing.assert_allclose(
            changed[:, : index + 1], plain[:, : index + 1], rtol=0, atol=SHARE_TOLERANCE
        )
        assert abs(changed[:, index + 1] - plain[:, index + 1]).max() > 10 * SHARE_TOLERANCE


@pytest.mark.parametrize("keep", [0, 3])
def test_shares_of_a_truncated_model_agree_between_dropping_and_masking(lvlm, prompt, answer, keep):
    for after in range(lvlm.n_layers + 1):
        found = {}
        for mode in ("drop", "mask"):
            with truncated(lvlm, after, keep=keep, mode=mode):
                found[mode] = attention_shares(lvlm, prompt, answer).raw

        np.testing.assert_allclose(found["drop"], found["mask"], rtol=0, atol=SHARE_TOLERANCE)
        if keep == 0:
            assert (found["drop"][after:, :, 1] == 0).all()


def test_weights_that_are_not_a_number_are_named_by_layer(broken, prompt):
    with pytest.raises(ValueError, match="attention of layer 4 is not finite"):
        attention_shares(broken, prompt)
