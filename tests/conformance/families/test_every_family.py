"""Do all families of transformers give what its own processors and ``generate`` give, on any checkpoint?"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.models import load_model
from repro.models.card import REGISTRY
from repro.models.loading import CheckpointError
from repro.segments import IMAGE, Segments
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.conformance

QUESTION = "What is it?"
SIZES = [(40, 20), (20, 40), (64, 64), (16, 16), (100, 20), (20, 100), (31, 17), (90, 60), (70, 10)]
#: Those that are a card alone.
NATIVE = pytest.mark.parametrize(
    "family", ["llava_next", "llava_onevision", "internvl3", "qwen2_5_vl"], indirect=True
)


def features(family, image_inputs):
    """Of all images, one row per image token."""
    found = family.model.get_image_features(**image_inputs)
    # transformers 5 wraps them; alone they are one tensor, one per image, or the first of several.
    found = getattr(found, "pooler_output", found)
    if family.card.family == "instructblip":
        found = found[0] if isinstance(found, tuple) else found
        return found.flatten(0, 1)
    return torch.cat(tuple(found))


@pytest.mark.parametrize("size", SIZES)
def test_prompts_are_those_of_transformers_own_processor(family, process, picture, size):
    image = picture(*size)
    prompt = family.prompt(image, QUESTION)
    expected = process(image, prompt.text)
    assert torch.equal(prompt.input_ids, expected["input_ids"])
    for key, value in prompt.image_inputs.items():
        torch.testing.assert_close(value, expected[key])


@torch.inference_mode()
def test_logits_and_answers_are_those_of_transformers(family, process, generated, picture, close):
    image = picture(40, 20)
    prompt = family.prompt(image, QUESTION)
    given = process(image, prompt.text)
    expected = family.model(**given).logits[0]
    close(family.logits(prompt), expected)
    ids = generated(family, 5, **given).sequences[0, prompt.input_ids.shape[1] :]
    assert family.answer(prompt, 5).ids == tuple(ids.tolist())


def test_answers_are_greedy_whatever_the_checkpoint_says(family, picture):
    prompt = family.prompt(picture(40, 20), QUESTION)
    ids = list(family.answer(prompt, 5).ids)
    for i in range(len(ids)):
        assert int(family.logits(prompt, ids[:i])[-1].argmax()) == ids[i]


@pytest.mark.parametrize("keep", [0, 3])
def test_a_batch_of_other_pictures_and_questions_is_swept_as_each_is_truncated(family, picture, close, keep):
    prompts = [
        family.prompt(picture(40, 20, 1), QUESTION),
        family.prompt(picture(40, 20, 2), "How many objects are in this image?"),
    ]
    swept = sweep(family, prompts, 3, keep=keep)
    for prompt, one in zip(prompts, swept, strict=True):
        # The image matters at every layer.
        assert np.abs(np.diff(one.logits, axis=0)).max(axis=1).min() > 0.01
        for after in range(family.n_layers + 1):
            for mode in ("drop", "mask"):
                with truncated(family, after, keep=keep, mode=mode):
                    close(one.logits[after], family.logits(prompt)[-1].numpy())
                    assert one.answers[after] == family.answer(prompt, 3)


def test_shares_and_maps(family, picture):
    prompt = family.prompt(picture(40, 20), QUESTION)
    shares = attention_shares(family, prompt, [7, 8])
    np.testing.assert_allclose(shares.raw.sum(-1), 1, atol=1e-5)
    heat = llava_cam(family, prompt, [7, 8], samples=2)
    assert heat.shape == (family.n_layers, *prompt.grid)
    assert heat.min() >= 0 and not heat[-1].any()
    assert set(heat.max(axis=(1, 2)).tolist()) == {0.0, 1.0}


def test_noise_is_in_units_of_pixel_values(family):
    """A grey that is 20 of 255 steps brighter is the darker grey with noise of 20/255 everywhere."""
    dark, bright = (family.prompt(Image.new("RGB", (40, 20), (v, v, v)), QUESTION) for v in (100, 120))
    expected = bright.image_inputs["pixel_values"]
    padding = dark.image_inputs["pixel_values"] == expected
    noise = torch.full((2, *expected.shape), 20 / 255).masked_fill(padding, 0)
    noisy = family.with_noise(dark, noise)
    first, second = features(family, noisy).chunk(2)
    assert len(first) == len(dark.segments.image) and torch.equal(first, second)
    for found in noisy["pixel_values"].chunk(2):
        torch.testing.assert_close(found, expected)


@torch.inference_mode()
def test_pictures_of_several_shapes_are_one_batch(family, picture, close):
    prompts = [family.prompt(picture(*size), QUESTION) for size in ((40, 20), (16, 16), (20, 60))]
    single = torch.cat([features(family, prompt.image_inputs) for prompt in prompts])
    close(features(family, family.batched(prompts)), single)


def test_an_answer_that_holds_the_image_token_is_no_image(family, picture, decoder_inputs, close):
    prompt = family.prompt(picture(40, 20), QUESTION)
    forced = family.logits(prompt, [family.image_token_id, 7])
    close(forced[: len(prompt.segments)], family.logits(prompt))
    given = decoder_inputs(family, lambda: family.logits(prompt, [family.image_token_id]))
    assert torch.equal(given["inputs_embeds"][0, -1], family.embeddings.weight[family.image_token_id])


# transformers' InstructBLIP does not compare them.
@NATIVE
def test_features_that_are_not_as_many_as_image_tokens_are_refused(family, picture):
    prompt = family.prompt(picture(16, 16), QUESTION)
    n, start = len(prompt.segments.image), int(prompt.segments.image[0]) + 1
    one_less = replace(
        prompt,
        input_ids=prompt.input_ids[:, start:],
        segments=Segments.from_image_mask(prompt.segments.labels[start:] == IMAGE),
        sequence_inputs={name: values[:, start:] for name, values in prompt.sequence_inputs.items()},
    )
    message = f"[Ii]mage features and image tokens do not match.* tokens: {n - 1}, features:? {n}"
    with pytest.raises(ValueError, match=message):
        family.logits(one_less)


def test_a_token_of_the_model_in_a_question_is_refused(family, picture):
    token = family.tokenizer.eos_token
    with pytest.raises(ValueError) as error:
        family.prompt(picture(16, 16), f"Is {token} it?")
    assert f"the question holds {token!r}" in str(error.value) and f"'Is {token} it?'" in str(error.value)


@pytest.mark.parametrize("damage", ["missing", "surplus", "misshapen"])
def test_tensors_that_do_not_fit_are_named(family, tmp_path, damage):
    directory = shutil.copytree(family.path, tmp_path / "damaged")
    tensors = load_file(directory / "model.safetensors")
    norm = "layers.0.post_attention_layernorm.weight"
    name = next(name for name in tensors if name.endswith(norm))
    tensor = tensors.pop(name)
    if damage != "missing":
        tensors |= {name: tensor, "more": tensor.clone()} if damage == "surplus" else {name: tensor[:-1]}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=damage) as error:
        load_model(family.card.name, directory)
    assert ("more" if damage == "surplus" else norm) in str(error.value)


def test_a_placeholder_in_the_question_is_refused(family, picture):
    with pytest.raises(ValueError, match="the question must hold (none|no '<image>'): 'What is"):
        family.prompt(picture(16, 16), f"What is {family.card.placeholder}?")


@NATIVE
def test_a_tokenizer_without_the_image_token_is_refused(family, tmp_path, picture):
    directory = shutil.copytree(family.path, tmp_path / "changed")
    stored = (directory / "tokenizer.json").read_text()
    (directory / "tokenizer.json").write_text(stored.replace(family.card.placeholder, "<other>"))
    lvlm = load_model(family.card.name, directory)
    with pytest.raises(ValueError, match=f"makes 0 image tokens .* of '{family.card.placeholder}', not 1"):
        lvlm.prompt(picture(16, 16), QUESTION)


@pytest.fixture
def directory(name, request, tmp_path):
    """A copy of a checkpoint of the model that a test gets by ``name``, to be spoilt."""
    whole = REGISTRY[name].miniature or request.getfixturevalue(name.replace("-", "_").replace(".", "_")).path
    return shutil.copytree(whole, tmp_path / "damaged")


@pytest.mark.parametrize("content", ['{"eos_token_id": 2,', "[2]"])
@pytest.mark.parametrize("name", REGISTRY)
def test_settings_of_generate_that_cannot_be_read_are_refused(name, directory, content):
    """transformers goes on without them, and so without the tokens that end an answer."""
    [file] = directory.rglob("generation_config.json")  # Shikra's lies with its delta
    file.write_text(content)
    with pytest.raises(CheckpointError) as error:
        load_model(name, directory)
    assert f"{file} is not valid JSON" in str(error.value) or f"{file} should hold a JSON" in str(error.value)


@pytest.mark.parametrize(
    ("name", "place", "changed", "said"),
    [
        ("llava-1.5", "config.json, vision_config", {"patch_size": 0}, "a whole number above 0"),
        (
            "llava-1.5",
            "config.json, text_config",
            {"num_key_value_heads": 3},
            "num_attention_heads, which is 4",
        ),
        ("llava-1.5", "processor_config.json", {"patch_size": 0}, "a whole number above 0"),
        ("llava-1.6", "config.json, vision_config", {"num_attention_heads": -4}, "a whole number above 0"),
        (
            "llava-1.6",
            "config.json, vision_config",
            {"patch_size": 9},
            "a divisor of image_size, which is 48",
        ),
        (
            "instructblip",
            "config.json, qformer_config",
            {"num_attention_heads": 7},
            "hidden_size, which is 96",
        ),
        ("qwen-vl", "config.json", {"num_attention_heads": 7}, "a divisor of hidden_size, which is 128"),
        ("qwen-vl", "config.json, visual", {"heads": 7}, "a divisor of width, which is 96"),
        ("qwen-vl", "config.json, visual", {"patch_size": 9}, "a divisor of image_size, which is 48"),
        ("shikra", "delta/config.json", {"num_attention_heads": 7}, "a divisor of hidden_size, which is 128"),
        ("shikra", "tower/config.json", {"num_attention_heads": 0}, "a whole number above 0"),
        ("intern-vl", "config.json", {"num_attention_heads": 7}, "a divisor of hidden_size, which is 128"),
        ("intern-vl", "vision_tower/config.json", {"patch_size": 9}, "a divisor of image_size, which is 32"),
        (
            "llava-onevision",
            "config.json, vision_config",
            {"num_attention_heads": 7},
            "hidden_size, which is 32",
        ),
        ("internvl3", "config.json, text_config", {"num_attention_heads": 0}, "a whole number above 0"),
        (
            "qwen2.5-vl",
            "config.json, vision_config",
            {"num_heads": 7},
            "a divisor of hidden_size, which is 32",
        ),
    ],
)
def test_settings_that_give_no_shapes_are_named(name, directory, place, changed, said):
    file, _, part = place.partition(", ")
    settings = json.loads((directory / file).read_text())
    (settings[part] if part else settings).update(changed)
    (directory / file).write_text(json.dumps(settings))
    [(key, value)] = changed.items()
    with pytest.raises(CheckpointError) as error:
        load_model(name, directory)
    assert f"{place}: {key} is {value}; expected " in str(error.value) and said in str(error.value)


@pytest.mark.parametrize("name", ["llava-onevision"])
def test_pictures_of_siglip_may_leave_a_margin(name, directory):
    """As published: 384 pixels in patches of 14."""
    settings = json.loads((directory / "config.json").read_text())
    settings["vision_config"]["image_size"] = 17
    (directory / "config.json").write_text(json.dumps(settings))
    assert load_model(name, directory).model.config.vision_config.image_size == 17


def test_another_kind_of_model_is_refused(llava_onevision):
    with pytest.raises(CheckpointError, match="'llava_onevision'; expected 'internvl'"):
        load_model("internvl3", llava_onevision.path)
