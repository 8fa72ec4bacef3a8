"""Does the sweep give each prompt what it would get alone, one truncation layer at a time?"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import transformers

from repro import packed
from repro.packed import PackedPass
from repro.sweep import _penalised, layer_by_layer, layout, memory_of, sweep
from repro.truncation import truncated

pytestmark = pytest.mark.invariant

NEW_TOKENS = 5


@pytest.mark.parametrize(
    ("keep", "ranking_row"), [(0, "last_prompt"), (5, "last_prompt"), (5, "last_image"), (5, "random")]
)
def test_a_batch_equals_its_prompts_alone(lvlm, prompts, keep, ranking_row, close):
    together = sweep(lvlm, prompts, NEW_TOKENS, keep=keep, ranking_row=ranking_row)

    assert len(together) == len(prompts)
    for prompt, one in zip(prompts, together, strict=True):
        (alone,) = sweep(lvlm, [prompt], NEW_TOKENS, keep=keep, ranking_row=ranking_row)
        close(one.logits, alone.logits)
        assert one.answers == alone.answers
        assert one.logits.shape[0] == len(one.answers) == lvlm.n_layers + 1


def test_the_last_row_is_the_untouched_model(lvlm, prompts, close):
    for prompt, one in zip(prompts, sweep(lvlm, prompts, NEW_TOKENS), strict=True):
        close(one.logits[-1], lvlm.logits(prompt)[-1])
        assert one.answers[-1] == lvlm.answer(prompt, NEW_TOKENS)


def test_answers_are_cut_off_as_generate_cuts_them(lvlm, prompt):
    whole = sweep(lvlm, [prompt], 7)[0].answers
    for after in range(lvlm.n_layers + 1):
        with truncated(lvlm, after):
            assert whole[after] == lvlm.answer(prompt, 7)
    for longest in (1, 2):
        cut = sweep(lvlm, [prompt], longest)[0].answers
        assert cut[-1] == lvlm.answer(prompt, longest)
        assert [one.ids for one in cut] == [one.ids[:longest] for one in whole]


def test_every_stop_id_ends_an_answer(lvlm, prompts, monkeypatch):
    """Tokens that the model says where nothing ends its answers are made to end them, beside its own."""
    own = lvlm.stop_ids
    monkeypatch.setattr(lvlm.generation_config, "eos_token_id", None)
    free = sweep(lvlm, prompts, NEW_TOKENS)
    stop = {*own, free[0].answers[-1].ids[1], free[1].answers[-1].ids[2]}
    monkeypatch.setattr(lvlm.generation_config, "eos_token_id", sorted(stop))

    stopped = sweep(lvlm, prompts, NEW_TOKENS)

    for prompt, before, after in zip(prompts, free, stopped, strict=True):
        for whole, cut in zip(before.answers, after.answers, strict=True):
            end = next((i + 1 for i, token in enumerate(whole.ids) if token in stop), NEW_TOKENS)
            assert cut.ids == whole.ids[:end]
        assert after.answers[-1] == lvlm.answer(prompt, NEW_TOKENS)
    assert len(stopped[0].answers[-1].ids) <= 2 and len(stopped[1].answers[-1].ids) <= 3


@pytest.fixture
def ended(lvlm, prompts, monkeypatch):
    """Answers without an end, and where each is cut by a token that ends some of them early and others late."""
    longest = 40
    monkeypatch.setattr(lvlm.generation_config, "eos_token_id", None)
    free = sweep(lvlm, prompts, longest)
    ids = np.array([[one.ids for one in swept.answers] for swept in free])  # [prompts, N + 1, tokens]

    def ends(token):
        return np.where((found := ids == token).any(axis=-1), found.argmax(axis=-1) + 1, longest)

    def early_and_late(token):
        return min((ends(token)[0] <= 8).sum(), (ends(token)[0] > 32).sum())

    stop = max(sorted(set(ids.ravel().tolist())), key=early_and_late)
    monkeypatch.setattr(lvlm.generation_config, "eos_token_id", stop)
    assert early_and_late(stop) > 0
    return longest, ids, ends(stop)


def test_an_answer_that_has_ended_is_computed_and_kept_no_longer(lvlm, prompts, ended, monkeypatch):
    """Of each answer all tokens but the last are read; as room grows, keys of ended answers go."""
    longest, ids, ends = ended
    monkeypatch.setattr(packed, "ROOM", 2)
    rows, dropped = [], []

    def count(module, args, kwargs):
        hidden = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        rows.append(hidden.shape[0] if hidden.shape[1] == 1 else 0)

    make_room = PackedPass.make_room

    def watched(self, going):
        before, room = self.owner.tolist(), self.room
        make_room(self, going)
        if room < self.room:
            assert set(self.owner.tolist()) <= set(going.tolist())
            dropped.append(len(before) + len(going) - len(self.owner))

    monkeypatch.setattr(PackedPass, "make_room", watched)
    handle = lvlm.layers[0].register_forward_pre_hook(count, with_kwargs=True)
    try:
        (swept,) = sweep(lvlm, prompts[:1], longest)
    finally:
        handle.remove()
    assert [one.ids for one in swept.answers] == [
        tuple(whole[:end]) for whole, end in zip(ids[0], ends[0], strict=True)
    ]
    assert sum(rows) == (ends[0] - 1).sum()
    assert sum(dropped) > 0


@pytest.mark.parametrize(("keep", "penalty"), [(0, 1.0), (3, 1.3)])
def test_answers_that_go_on_are_as_if_none_had_ended(lvlm, prompts, ended, keep, penalty, monkeypatch):
    """Of prompts in one batch, whose answers end at different places; two of them against one run per layer."""
    longest, *_ = ended
    monkeypatch.setattr(packed, "ROOM", 2)
    together = sweep(lvlm, prompts, longest, keep, "random", penalty)
    for prompt, swept in zip(prompts[:2], together[:2], strict=True):
        assert swept.answers == layer_by_layer(lvlm, prompt, longest, keep, "random", penalty).answers


def test_logits_that_are_not_finite_are_put_down_to_their_own_layer(lvlm, prompts, ended, monkeypatch):
    """After answers of other layers have ended."""
    longest, _, ends = ended
    last = int(ends[0].argmax())
    decode = PackedPass.decode

    def spoilt(self, ids, going):
        logits = decode(self, ids, going)
        if len(going) <= lvlm.n_layers and last in going.tolist():
            logits[0, going.tolist().index(last)] = float("nan")
        return logits

    monkeypatch.setattr(PackedPass, "decode", spoilt)
    with pytest.raises(ValueError, match=f"logits of prompt 0, truncated after {last}, are not finite"):
        sweep(lvlm, prompts[:1], longest)


def test_a_penalty_divides_the_logits_of_tokens_already_given(lvlm, prompt, monkeypatch):
    """Against one step after another, at every layer; the prompt's own tokens are not counted."""
    monkeypatch.setattr(lvlm.generation_config, "eos_token_id", None)
    # Enough steps for every miniature to come back to a token.
    penalty, steps = 30.0, 12
    (free,), (swept,) = (sweep(lvlm, [prompt], steps, repetition_penalty=p) for p in (1.0, penalty))

    for after in range(lvlm.n_layers + 1):
        ids: list[int] = []
        with truncated(lvlm, after):
            while len(ids) < steps:
                logits = lvlm.logits(prompt, ids)[-1].clone()
                for token in set(ids):
                    logits[token] *= penalty if logits[token] < 0 else 1 / penalty
                ids.append(int(logits.argmax()))
        assert swept.answers[after].ids == tuple(ids)
    assert swept.answers != free.answers
    np.testing.assert_array_equal(swept.logits, free.logits)


def test_a_penalty_makes_negative_logits_smaller():
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0]])
    found = _penalised(logits, torch.tensor([[0, 1, 0]]), 1.5)
    torch.testing.assert_close(found, torch.tensor([[2 / 1.5, -3.0, 1.0, -1.0]]))


def test_without_a_stop_id_answers_run_to_the_limit(lvlm, prompt, monkeypatch):
    monkeypatch.setattr(lvlm.generation_config, "eos_token_id", None)

    (swept,) = sweep(lvlm, [prompt], 3)

    assert lvlm.stop_ids == frozenset()
    assert [len(one.ids) for one in swept.answers] == [3] * (lvlm.n_layers + 1)


def test_a_sweep_repeats_itself(lvlm, prompts):
    first, second = (sweep(lvlm, prompts, 2, keep=3) for _ in range(2))

    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
        assert one.answers == other.answers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"keep": -1}, "keep must be from 0 to .* not -1"),
        ({"keep": 10_000}, "keep must be from 0 to the prompt's .* image tokens, not 10000"),
        ({"ranking_row": "first"}, "ranking_row must be .* not 'first'"),
        ({"prompts": []}, "at least one prompt"),
    ],
)
def test_settings_out_of_range_are_refused(lvlm, prompt, arguments, message):
    with pytest.raises(ValueError, match=message):
        sweep(lvlm, **{"prompts": [prompt], "max_new_tokens": 1, **arguments})


def test_images_at_different_positions_are_not_swept_together(lvlm, prompt, shifted):
    assert layout(prompt) != layout(shifted)

    with pytest.raises(ValueError, match="image tokens at the same positions"):
        sweep(lvlm, [prompt, shifted], 1)


def test_weights_that_are_not_a_number_are_refused(broken, prompts):
    with pytest.raises(ValueError, match="logits of prompt 0, truncated after 0, are not finite"):
        sweep(broken, prompts, 2)


@pytest.mark.parametrize("longest", [3, 20])
def test_the_memory_of_a_sweep_is_what_it_holds(lvlm, prompt, monkeypatch, longest):
    runs, module = [], sys.modules["repro.sweep"]

    class Kept(module.PackedPass):
        def __init__(self, *args):
            super().__init__(*args)
            runs.append(self)

    monkeypatch.setattr(module, "PackedPass", Kept)
    monkeypatch.setattr(lvlm.generation_config, "eos_token_id", -1)  # every answer takes all its tokens
    sweep(lvlm, [prompt], longest)
    (run,) = runs
    assert memory_of(lvlm, prompt, longest) == sum(tensor.nbytes for tensor in (*run.keys, *run.values))


@pytest.mark.parametrize(
    "settings",
    [
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 5},
        {"min_length": 500},
        {"suppress_tokens": "most likely"},
        {"bad_words_ids": "most likely"},
        {"forced_eos_token_id": 7},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_generate_that_bind_tokens_bind_the_sweep(lvlm, prompts, monkeypatch, settings):
    past_vocabulary = lvlm.image_token_id >= lvlm.head.out_features
    if "no_repeat_ngram_size" in settings and past_vocabulary and transformers.__version__.startswith("4."):
        pytest.skip("transformers 4 bans an image token that its own logits do not have, and stops")
    plain = [lvlm.answer(prompt, 6).ids for prompt in prompts[:2]]
    for name, value in settings.items():
        value = {"suppress_tokens": [plain[0][0]], "bad_words_ids": [[plain[0][0]]]}.get(name, value)
        monkeypatch.setattr(lvlm.generation_config, name, value)
    bound = [lvlm.answer(prompt, 6).ids for prompt in prompts[:2]]
    if "suppress_tokens" in settings:  # others bind only some answers
        assert bound != plain
    for prompt, answer in zip(prompts[:2], bound, strict=True):
        [swept] = sweep(lvlm, [prompt], 6)
        assert swept.answers[-1].ids == answer
        with truncated(lvlm, 1):
            assert swept.answers[1] == lvlm.answer(prompt, 6)


def test_stop_strings_are_refused_by_name(lvlm, prompt, monkeypatch):
    monkeypatch.setattr(lvlm.generation_config, "stop_strings", ["."])
    with pytest.raises(ValueError, match="stop_strings"):
        sweep(lvlm, [prompt], 2)
