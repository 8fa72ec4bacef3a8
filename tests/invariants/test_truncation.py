"""Do dropping, masking and the sweep truncate alike, and does nothing of the image get past the cut?"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro.models import load_model
from repro.models.anatomy import cache_in
from repro.packed import PackedPass
from repro.segments import Segments
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.invariant

#: Of hidden states, relative to the largest, which spread less: measured 3e-8, here times 30.
HIDDEN_TOLERANCE = 1e-6
NEW_TOKENS = 3
SOME = 5
#: Image tokens kept (-1: all) and the row that ranks them.
CUTS = [
    (0, "last_prompt"),
    (SOME, "last_prompt"),
    (SOME, "last_image"),
    (SOME, "random"),
    (-1, "last_prompt"),
]


def sweep_with_logits(lvlm, prompts, **settings):
    """A sweep, and the logits [steps, B, N + 1, vocabulary] it chose its tokens by; NaN of ended answers."""
    assert lvlm.anatomy  # learnt by passes of its own, before the head is watched
    steps, going, decode = [], [torch.arange(lvlm.n_layers + 1)], PackedPass.decode

    def watched(self, ids, alive):
        going.append(alive.cpu())
        return decode(self, ids, alive)

    def note(module, inputs, output):
        whole = torch.full((len(prompts), lvlm.n_layers + 1, output.shape[-1]), torch.nan)
        whole[:, going[-1]] = output.float().cpu().view(len(prompts), len(going[-1]), -1)
        steps.append(whole)

    handle = lvlm.head.register_forward_hook(note)
    PackedPass.decode = watched
    try:
        return sweep(lvlm, prompts, NEW_TOKENS, **settings), torch.stack(steps).numpy()
    finally:
        PackedPass.decode = decode
        handle.remove()


@pytest.fixture
def three_ways_agree(generate, close, about):
    """``generate`` under both modes against the sweep: every answer and every step's logits, at every L."""

    def check(lvlm, prompt, keep, ranking_row):
        (swept,), logits = sweep_with_logits(lvlm, [prompt], keep=keep, ranking_row=ranking_row)
        for after in range(lvlm.n_layers + 1):
            for mode in ("drop", "mask"):
                with truncated(lvlm, after, keep=keep, mode=mode, ranking_row=ranking_row):
                    ids, expected = generate(lvlm, prompt, NEW_TOKENS)
                with about(f"the sweep and generate under truncated(after={after}, mode={mode!r}) differ"):
                    close(swept.logits[after], expected[0])
                    close(logits[: len(ids), 0, after], expected)
                    assert swept.answers[after].ids == ids

    return check


@pytest.mark.parametrize(("keep", "ranking_row"), CUTS)
def test_dropping_masking_and_the_sweep_agree(lvlm, prompt, three_ways_agree, keep, ranking_row):
    keep = len(prompt.segments.image) if keep == -1 else keep

    three_ways_agree(lvlm, prompt, keep, ranking_row)


@pytest.fixture(scope="module")
def rearranged(prompt):
    """The same tokens in other orders: no system before the image; the image in two spans."""
    system, image, user = prompt.segments.system, prompt.segments.image, prompt.segments.user
    half = len(image) // 2
    orders = [image, system, user], [system, image[:half], user[:2], image[half:], user[2:]]
    made = []
    for order in orders:
        order = np.concatenate(order)
        segments = Segments.from_image_mask(np.isin(order, image))
        made.append(replace(prompt, input_ids=prompt.input_ids[:, order], segments=segments))
    return made


@pytest.mark.parametrize("keep", [0, SOME])
def test_the_three_ways_agree_wherever_the_image_stands(lvlm, rearranged, three_ways_agree, keep):
    for one in rearranged:
        three_ways_agree(lvlm, one, keep, "last_image")


@pytest.fixture(scope="module")
def grouped(lvlm):
    """The model with two query heads per key head: attention anew, with random weights."""
    made = load_model(lvlm.card.name, lvlm.path, lvlm.model.dtype, lvlm.device)
    config = made.decoder.config
    config.num_key_value_heads = config.num_attention_heads // 2
    torch.manual_seed(0)
    for index, layer in enumerate(made.decoder.layers):
        attention = type(layer.self_attn)(config, index).to(lvlm.device, lvlm.model.dtype)
        for parameter in attention.parameters():
            # Wide enough that attention is far from uniform.
            torch.nn.init.normal_(parameter, std=0.1)
        layer.self_attn = attention.eval().requires_grad_(False)
    return made


def test_the_three_ways_agree_under_grouped_query_attention(grouped, prompt, three_ways_agree):
    three_ways_agree(grouped, prompt, SOME, "last_prompt")


@pytest.mark.parametrize("mode", ["drop", "mask"])
def test_the_last_layer_or_every_token_kept_is_the_untouched_model(lvlm, prompt, mode, close):
    plain = lvlm.logits(prompt)
    with truncated(lvlm, lvlm.n_layers, mode=mode):
        assert torch.equal(lvlm.logits(prompt), plain)
    for after in range(lvlm.n_layers):
        with truncated(lvlm, after, keep=len(prompt.segments.image), mode=mode):
            close(lvlm.logits(prompt), plain)


@pytest.mark.parametrize("mode", ["drop", "mask"])
def test_truncated_before_the_first_layer_no_image_matters(lvlm, prompt, pictures, mode):
    blind, seeing = [], []
    for picture in pictures:
        other = replace(prompt, image_inputs=lvlm.prompt(picture, "What is the number?").image_inputs)
        seeing.append(lvlm.logits(other)[-1])
        with truncated(lvlm, 0, mode=mode):
            blind.append(lvlm.logits(other)[-1])

    assert all(torch.equal(one, blind[0]) for one in blind[1:])
    assert not any(torch.equal(one, seeing[0]) for one in seeing[1:])


@contextmanager
def layers_watched(lvlm):
    """What every decoder layer gets (hidden, mask, rotary), and the keys it attends to, call by call.

    Hooks run in the order of their registration, so inside ``truncated`` these see what it left.
    """
    calls = []

    def got(index):
        def hook(module, args, kwargs):
            calls.append([index, args[0], kwargs.get("attention_mask"), kwargs["position_embeddings"]])

        return hook

    def attended(attending):
        assert calls[-1][0] == attending.layer
        calls[-1].append(attending.key)

    layers = lvlm.decoder.layers
    handles = [layer.register_forward_pre_hook(got(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        with lvlm.observed(attended):
            yield calls
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("keep", [0, SOME])
def test_nothing_of_the_image_is_left_after_the_cut(lvlm, prompt, generate, keep):
    total, n_image = len(prompt.segments), len(prompt.segments.image)
    width = lvlm.decoder.config.hidden_size
    every = torch.arange(total + NEW_TOKENS, device=lvlm.device)[None]
    rotary = lvlm.decoder.rotary_emb(torch.zeros(1, 1, width, device=lvlm.device), every)
    for after in range(lvlm.n_layers + 1):
        with truncated(lvlm, after, keep=keep) as cut, layers_watched(lvlm) as calls:
            generate(lvlm, prompt, NEW_TOKENS)
        assert len(calls) % lvlm.n_layers == 0 and len(calls) > 0
        for number, (index, hidden, mask, position, key) in enumerate(calls):
            step = number // lvlm.n_layers
            seen = every[0, :total] if index < after else cut.stay[0]
            if index >= after:
                kept = np.intersect1d(seen.cpu().numpy(), prompt.segments.image)
                assert len(seen) == total - n_image + keep and len(kept) == keep
            at = seen if step == 0 else every[0, total + step - 1 : total + step]

            assert hidden.shape[1] == len(at)
            assert key.shape[2] == len(seen) + step
            assert mask is None or mask.shape[-2:] == (len(at), len(seen) + step)
            for found, full in zip(position, rotary, strict=True):
                assert torch.equal(found[0], full[0, at])


@pytest.mark.parametrize("keep", [0, SOME])
def test_the_key_value_cache_holds_no_removed_token(lvlm, prompt, generated, keep):
    total, n_image = len(prompt.segments), len(prompt.segments.image)
    for after in range(lvlm.n_layers + 1):
        with truncated(lvlm, after, keep=keep):
            out = generated(lvlm, NEW_TOKENS, input_ids=prompt.input_ids, **prompt.image_inputs)
            cache = cache_in(out)
            new = out.sequences.shape[1] - total - 1  # the last token is never fed back
            # The model counts positions by it.
            assert {cache.get_seq_length(layer) for layer in range(lvlm.n_layers)} == {total + new}

        expected = [
            total + new if layer < after else total - n_image + keep + new for layer in range(lvlm.n_layers)
        ]
        for held in ("keys", "values"):
            assert [getattr(layer, held).shape[-2] for layer in cache.layers] == expected
        assert [cache.get_seq_length(layer) for layer in range(lvlm.n_layers)] == expected


def test_masking_hides_every_image_key_after_the_cut(lvlm, prompt, generate):
    image = torch.from_numpy(prompt.segments.image)
    others = torch.from_numpy(np.concatenate([prompt.segments.system, prompt.segments.user]))
    for after in range(lvlm.n_layers):
        with truncated(lvlm, after, mode="mask"), layers_watched(lvlm) as calls:
            generate(lvlm, prompt, NEW_TOKENS)
        for number, (index, hidden, mask, _, key) in enumerate(calls):
            if index < after:
                continue
            step = number // lvlm.n_layers
            rows = others if step == 0 else torch.tensor([0])
            hidden_keys = mask[0, 0][rows][:, image]

            assert hidden.shape[1] == (1 if step else len(prompt.segments))
            assert key.shape[2] == mask.shape[-1] == len(prompt.segments) + step
            assert not (hidden_keys if mask.dtype == torch.bool else hidden_keys == 0).any()


def test_system_tokens_do_not_depend_on_the_cut(lvlm, shifted, close):
    # Shifted, because InstructBLIP's own prompts have no token before the image.
    system = torch.from_numpy(shifted.segments.system)
    assert len(system) > 0

    def system_states():
        with layers_watched(lvlm) as calls:
            lvlm.logits(shifted)
        return torch.stack([call[1][0][system] for call in calls]).cpu().numpy()

    plain = system_states()
    for after in range(lvlm.n_layers):
        for mode in ("drop", "mask"):
            with truncated(lvlm, after, keep=SOME, mode=mode):
                close(system_states(), plain, HIDDEN_TOLERANCE)


@pytest.mark.parametrize("mode", ["drop", "mask"])
@pytest.mark.parametrize("keep", [0, SOME])
def test_a_left_padded_batch_answers_as_its_prompts_alone(
    lvlm, prompts, generate, generated, mode, keep, close
):
    pair = prompts[:2]
    width = max(len(one.segments) for one in pair)
    ids = torch.full((2, width), lvlm.generation_config.pad_token_id, device=lvlm.device)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(pair):
        ids[row, width - len(one.segments) :] = one.input_ids[0]
        mask[row, width - len(one.segments) :] = 1
    for after in range(0, lvlm.n_layers + 1, 2):
        with truncated(lvlm, after, keep=keep, mode=mode):
            out = generated(lvlm, NEW_TOKENS, input_ids=ids, attention_mask=mask, **lvlm.batched(pair))
        for row, one in enumerate(pair):
            with truncated(lvlm, after, keep=keep, mode=mode):
                alone, logits = generate(lvlm, one, NEW_TOKENS)
            together = torch.stack(out.logits)[: len(alone), row].cpu().numpy()
            close(together, logits)
            assert tuple(out.sequences[row, width:].tolist()[: len(alone)]) == alone


def cached(lvlm, prompt):
    """Logits [vocabulary] of the last row of the model's own pass over a prompt, and its cache."""
    out = lvlm.model(input_ids=prompt.input_ids, **prompt.image_inputs, use_cache=True)
    # InstructBLIP hands on what its language model gives.
    return out.logits[0, -1], cache_in(getattr(out, "language_model_outputs", out))


@pytest.mark.parametrize("mode", ["drop", "mask"])
def test_decoding_by_hand_equals_generate(lvlm, prompt, generate, mode, close):
    for after in (0, 1, lvlm.n_layers):
        with truncated(lvlm, after, mode=mode), torch.inference_mode():
            ids, expected = generate(lvlm, prompt, NEW_TOKENS)
            first, cache = cached(lvlm, prompt)
            steps = [first]
            for token in ids[:-1]:
                given = torch.tensor([[token]], device=lvlm.device)
                steps.append(lvlm.generator(input_ids=given, **{lvlm.cache_argument: cache}).logits[0, -1])

        close(torch.stack(steps), expected)


@pytest.mark.parametrize("mode", ["drop", "mask"])
def test_an_answer_fed_at_once_behind_the_cache_equals_one_pass(lvlm, prompt, answer, mode, close):
    rest = torch.tensor([answer], device=lvlm.device)
    for after in range(lvlm.n_layers + 1):
        with truncated(lvlm, after, mode=mode), torch.inference_mode():
            _, cache = cached(lvlm, prompt)
            in_two = lvlm.generator(input_ids=rest, **{lvlm.cache_argument: cache}).logits[0]
            in_one = lvlm.logits(prompt, answer)[-len(answer) :]

        close(in_two, in_one)


def test_a_truncated_model_is_not_truncated_again(lvlm, prompt):
    with truncated(lvlm, 2):
        with pytest.raises(RuntimeError, match="truncated already"), truncated(lvlm, 3):
            pass
        with pytest.raises(RuntimeError, match="truncated already"):
            sweep(lvlm, [prompt], 1)
        assert lvlm.truncation.after == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"after": -1}, "after must be a layer from 0 .* not -1"),
        ({"after": 10_000}, "after must be a layer from 0 .* not 10000"),
        ({"after": 1, "keep": -1}, "keep must be from 0 .* not -1"),
        ({"after": 1, "mode": "hide"}, "mode must be 'drop' or 'mask', not 'hide'"),
        ({"after": 1, "ranking_row": "first"}, "ranking_row must be .* not 'first'"),
    ],
)
def test_settings_out_of_range_are_refused(lvlm, arguments, message):
    with pytest.raises(ValueError, match=message), truncated(lvlm, **arguments):
        pass


def test_more_tokens_kept_than_the_image_has_are_refused(lvlm, prompt):
    n_image = len(prompt.segments.image)
    message = f"keep must be from 0 to the prompt's {n_image} image tokens, not {n_image + 1}"
    with pytest.raises(ValueError, match=message), truncated(lvlm, 1, keep=n_image + 1):
        lvlm.logits(prompt)


def test_text_without_an_image_is_refused(lvlm):
    ids = torch.tensor([[5, 6, 7]], device=lvlm.device)
    with pytest.raises(ValueError, match="no image token"), truncated(lvlm, 1):
        lvlm.text_logits(ids)


def test_logits_of_a_truncated_model_are_of_the_tokens_that_stay(lvlm, prompt):
    """A removed token predicts nothing; a masked one, and one that every layer sees, does."""
    whole, image = len(prompt.segments), len(prompt.segments.image)
    rows = {}
    for mode in ("drop", "mask"):
        for after in (0, lvlm.n_layers - 1, lvlm.n_layers):
            with truncated(lvlm, after, mode=mode):
                rows[mode, after] = len(lvlm.logits(prompt))
    last = lvlm.n_layers
    assert [rows["drop", after] for after in (0, last - 1, last)] == [whole - image, whole - image, whole]
    assert [rows["mask", after] for after in (0, last - 1, last)] == [whole] * 3
