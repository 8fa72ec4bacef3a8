"""Is the model behind the one interface transformers' own, and is it left as it was found?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor
from transformers.utils import is_torchvision_available

from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.models import load_model
from repro.models.processors import WITH_PIL
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.invariant

#: Of logits and embeddings, relative to the largest; measured 5e-7 in float32, here times 20.
TOLERANCE = 1e-5
NEW_TOKENS = 4


def test_the_model_is_frozen_and_in_evaluation_mode(lvlm):
    assert not any(module.training for module in lvlm.model.modules())
    assert not any(parameter.requires_grad for parameter in lvlm.model.parameters())
    assert lvlm.n_layers == lvlm.decoder.config.num_hidden_layers


# transformers has no processor for these; test_published_code.py compares with their authors' code.
@pytest.mark.without("qwen-vl", "shikra", "intern-vl")
def test_prompts_are_those_of_transformers_own_processor(lvlm, prompts, pictures):
    processor = AutoProcessor.from_pretrained(lvlm.path, local_files_only=True)
    if is_torchvision_available():  # a processor takes it then by itself, and it resizes otherwise than PIL
        processor.image_processor = AutoImageProcessor.from_pretrained(lvlm.path, **WITH_PIL)
    for prompt, picture in zip(prompts, pictures, strict=True):
        expected = processor(images=picture, text=prompt.text, return_tensors="pt")

        assert torch.equal(prompt.input_ids.cpu(), expected["input_ids"])
        assert torch.equal(prompt.image_inputs["pixel_values"].cpu(), expected["pixel_values"])


def test_the_answer_is_the_models_own(lvlm, prompts, generate, close, about):
    for prompt in prompts:
        ids, logits = generate(lvlm, prompt, NEW_TOKENS)
        found = lvlm.answer(prompt, NEW_TOKENS)

        with about("generate's ids are not its greatest logits, or Lvlm.answer's are others"):
            assert found.ids == ids == tuple(logits.argmax(axis=-1))
        assert found.text == lvlm.tokenizer.decode(ids, skip_special_tokens=True).strip()
        with about("one pass over the prompt and generate's prefill give other logits for the first token"):
            close(lvlm.logits(prompt)[-1], logits[0], TOLERANCE)
        with about("decoding with a cache and one pass over prompt and answer give other logits"):
            close(lvlm.logits(prompt, ids[:-1])[-len(ids) :], logits, TOLERANCE)


def test_logits_and_those_of_decoder_and_head_are_the_models_own(lvlm, prompt, answer, decoder_inputs, close):
    ids = lvlm.sequence(prompt, answer)
    given = decoder_inputs(lvlm, lambda: lvlm.model(input_ids=ids, **prompt.image_inputs))
    with torch.inference_mode():
        expected = lvlm.model(input_ids=ids, **prompt.image_inputs).logits[0]
        hidden = lvlm.decoder(inputs_embeds=given["inputs_embeds"], use_cache=False).last_hidden_state

    close(lvlm.logits(prompt, answer), expected, TOLERANCE)
    close(lvlm.head(hidden)[0], expected, TOLERANCE)


# InternVL-Chat's vocabulary has no image token that an answer could hold.
@pytest.mark.without("intern-vl")
def test_an_answer_that_holds_the_image_token_is_no_image(lvlm, prompt, generate, close):
    """Teacher forced, decoded, swept and truncated alike."""
    token = lvlm.image_token_id

    def insist(module, args, logits):
        return logits + 1e4 * (torch.arange(logits.shape[-1], device=logits.device) == token)

    handle = lvlm.head.register_forward_hook(insist)
    try:
        ids, logits = generate(lvlm, prompt, NEW_TOKENS)
        assert ids == (token,) * NEW_TOKENS
        others = np.arange(logits.shape[1]) != token
        close(lvlm.logits(prompt, ids[:-1])[-len(ids) :].cpu()[:, others], logits[:, others], TOLERANCE)
        [swept] = sweep(lvlm, [prompt], NEW_TOKENS)
        for after, answer in enumerate(swept.answers):
            assert answer.ids == ids
            with truncated(lvlm, after):
                _, decoded = generate(lvlm, prompt, NEW_TOKENS)
                forced = lvlm.logits(prompt, ids[:-1])[-len(ids) :].cpu()
                close(forced[:, others], decoded[:, others], TOLERANCE)
                np.testing.assert_allclose(attention_shares(lvlm, prompt, ids).raw.sum(-1), 1, atol=1e-5)
        assert np.isfinite(llava_cam(lvlm, prompt, ids)).all()
    finally:
        handle.remove()


def test_a_batch_is_embedded_as_its_prompts_alone(lvlm, prompts, decoder_inputs, close):
    def embedded(ids, image_inputs):
        given = decoder_inputs(lvlm, lambda: lvlm.model(input_ids=ids, **image_inputs))
        return given["inputs_embeds"]

    length = min(len(prompt.segments) for prompt in prompts)
    ids = torch.cat([prompt.input_ids[:, :length] for prompt in prompts])
    together = embedded(ids, lvlm.batched(prompts))
    alone = torch.cat([embedded(p.input_ids[:, :length], p.image_inputs) for p in prompts])

    close(together, alone, TOLERANCE)
    assert not torch.equal(together[0], together[1])


def test_loading_twice_gives_the_same_logits(lvlm, prompt, model_name):
    again = load_model(model_name, lvlm.path, lvlm.model.dtype, lvlm.device)

    assert torch.equal(again.logits(prompt), lvlm.logits(prompt))


def test_later_tokens_never_change_earlier_rows(lvlm, prompt, answer, decoder_inputs):
    whole = lvlm.sequence(prompt, answer)

    def every_layer(ids):
        given = decoder_inputs(lvlm, lambda: lvlm.model(input_ids=ids, **prompt.image_inputs))
        embedded = given["inputs_embeds"]
        with torch.inference_mode():
            out = lvlm.decoder(inputs_embeds=embedded, use_cache=False, output_hidden_states=True)
            return [*(hidden[0] for hidden in out.hidden_states), lvlm.head(out.last_hidden_state)[0]]

    plain = every_layer(whole)
    assert len(plain) == lvlm.n_layers + 2
    for position in range(int(prompt.segments.image[-1]) + 1, whole.shape[1], 3):
        ids = whole.clone()
        ids[0, position] = answer[0] if ids[0, position] != answer[0] else answer[1]
        for before, after in zip(plain, every_layer(ids), strict=True):
            assert torch.equal(before[:position], after[:position])
            assert not torch.equal(before[position], after[position])


def test_noise_is_in_units_of_pixel_values(lvlm, close):
    """A grey that is 20 of 255 steps brighter is the darker grey with noise of 20/255 everywhere."""
    dark, bright = (lvlm.prompt(Image.new("RGB", (64, 64), (v, v, v)), "What is it?") for v in (100, 120))
    expected = bright.image_inputs["pixel_values"]

    found = lvlm.with_noise(dark, torch.full((2, *expected.shape[1:]), 20 / 255))["pixel_values"]

    close(found, expected.expand(2, *expected.shape[1:]), TOLERANCE)


class Untouched:
    """That a model carries nothing of an instrument: compared with the model as it was first seen."""

    def __init__(self, lvlm):
        self.lvlm = lvlm
        self.before = self.traces()

    def traces(self):
        hooks = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
        model, config = self.lvlm.model, self.lvlm.decoder.config
        assert config._attn_implementation == "sdpa" and self.lvlm.truncation is None
        assert not any(hasattr(module, "repro_attending") for module in model.modules())
        return [len(getattr(module, name)) for module in model.modules() for name in hooks]

    def check(self):
        assert self.traces() == self.before


@pytest.fixture
def untouched(lvlm):
    return Untouched(lvlm)


def test_nothing_is_left_behind_by_any_instrument(lvlm, prompt, answer, untouched):
    attention_shares(lvlm, prompt, answer)
    untouched.check()
    llava_cam(lvlm, prompt, answer)
    untouched.check()
    sweep(lvlm, [prompt], 2, keep=2)
    untouched.check()
    for mode in ("drop", "mask"):
        with truncated(lvlm, 2, keep=2, mode=mode):
            lvlm.answer(prompt, 2)
            with pytest.raises(AssertionError):
                untouched.check()
        untouched.check()


def test_nothing_is_left_behind_by_an_error_inside_a_context(lvlm, prompt, untouched):
    contexts = (
        lambda: truncated(lvlm, 2, keep=2),
        lambda: lvlm.observed(lambda _: None),
        lambda: lvlm.attention_replaced(lambda _: None),
    )
    for context in contexts:
        with pytest.raises(ZeroDivisionError), context():
            1 / 0  # noqa: B018
        untouched.check()


def test_nothing_is_left_behind_by_an_error_inside_the_model(lvlm, prompt, answer, untouched, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    def generating():
        with truncated(lvlm, 2, keep=2):
            lvlm.answer(prompt, 2)

    monkeypatch.setattr(lvlm.decoder.layers[4].mlp, "forward", fail)
    for instrument in (
        generating,
        lambda: attention_shares(lvlm, prompt, answer),
        lambda: llava_cam(lvlm, prompt, answer),
        lambda: sweep(lvlm, [prompt], 2),
    ):
        with pytest.raises(ZeroDivisionError):
            instrument()
        untouched.check()


def test_attention_is_replaced_once_at_a_time(lvlm, untouched):
    with lvlm.attention_replaced(lambda _: None):
        with pytest.raises(RuntimeError, match="already replaced"), lvlm.attention_replaced(lambda _: None):
            pass
    untouched.check()


def test_several_observers_see_the_same(lvlm, prompt, untouched):
    first, second = [], []
    with lvlm.observed(lambda attending: first.append(attending.layer)):
        with lvlm.observed(lambda attending: second.append(attending.layer)):
            lvlm.logits(prompt)
        lvlm.logits(prompt)

    assert first == 2 * second == 2 * list(range(lvlm.n_layers))
    untouched.check()


def test_an_inner_context_ends_inside_an_outer_one(lvlm, prompt, untouched):
    called = []
    inner_contexts = (
        lambda: lvlm.observed(lambda _: called.append("observer")),
        lambda: lvlm.attention_replaced(lambda _: called.append("replacement")),
    )
    with lvlm.observed(lambda _: None):
        for context in inner_contexts:
            with pytest.raises(ZeroDivisionError), context():
                1 / 0  # noqa: B018
        lvlm.logits(prompt)

    assert called == []
    untouched.check()
