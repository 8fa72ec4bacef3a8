"""Are the published layouts of the models that transformers lacks read right, and any other refused?"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from repro.attention import attention_shares
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.cam import llava_cam
from repro.models import load_model
from repro.models.card import VICUNA
from repro.models.llava import CLIPImageProcessor
from repro.models.loading import CheckpointError, load_tokenizer
from repro.models.qwen_vl import read_tokenizer
from repro.models.shikra import merge
from repro.models.weights import published_tensors
from repro.protocols import find_task
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.conformance


@pytest.fixture
def directory(request, name):
    """The checkpoint directory of the model that a test gets by ``name``."""
    return request.getfixturevalue(name.removesuffix("-vl"))[0]


@pytest.mark.parametrize("name", ["intern-vl", "shikra"])
def test_a_tokenizer_of_another_size_is_refused(directory, name, monkeypatch):
    def with_one_more(path):
        tokenizer = load_tokenizer(path)
        tokenizer.add_tokens(["one more"])
        return tokenizer

    monkeypatch.setattr(f"repro.models.{name.replace('-', '_')}.load_tokenizer", with_one_more)
    with pytest.raises(CheckpointError, match="the tokenizer has .* tokens, config.json says"):
        load_model(name, directory)


@pytest.mark.parametrize(
    ("name", "way"), [("intern-vl", "InternViT-6B-224px"), ("shikra", "repro.models.shikra DELTA")]
)
def test_a_release_without_its_tower_says_where_it_is(directory, name, way):
    (directory / "vision_tower" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=f"vision_tower/config.json is missing: .*{way}"):
        load_model(name, directory)


@pytest.mark.parametrize(
    "content", [b"", b"IQ==\n", b"IQ== 0\nIQ== 0\n", b"!!! 0\n", b"IQ== zero\n", b"IQ== 5\n"]
)
def test_a_spoilt_vocabulary_is_refused(tmp_path, content):
    (tmp_path / "qwen.tiktoken").write_bytes(content)
    with pytest.raises(CheckpointError, match="qwen.tiktoken"):
        read_tokenizer(tmp_path / "qwen.tiktoken")


def test_chat_and_raw_prompts_are_told_apart_by_the_checkpoint(qwen):
    directory, recorded = qwen
    picture = Image.fromarray(recorded["pixels"])
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"seq_length": 2048}))
    raw = load_model("qwen-vl", directory)
    assert raw.prompt(picture, "What? Answer:").text == "<img></img>What? Answer:"
    stop = raw.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>", "<|im_start|>"])
    assert set(raw.stop_ids) == {stop[0]}
    (directory / "generation_config.json").write_text(json.dumps({"chat_format": "chatml"}))
    chat = load_model("qwen-vl", directory)
    prompt = chat.prompt(picture, "What?")
    assert prompt.text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nPicture 1: <img></img>\n"
        "What?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert len(prompt.segments.image) == 256 and set(chat.stop_ids) == set(stop)
    # A protocol with a template of its own has it for both.
    template = find_task("lmms-eval", "qwen-vl", BENCHMARKS["pope"]).template
    assert chat.prompt(picture, "What?", template).text == "Picture 1: <img></img>\nWhat?"


def test_tensors_that_do_not_fit_are_named_as_published(qwen, store):
    directory, _ = qwen
    tensors = {name: tensor.clone() for name, tensor in published_tensors(directory).items()}
    config = json.loads((directory / "config.json").read_text())
    (directory / "model.safetensors.index.json").unlink()
    spoilt = dict(tensors)
    del spoilt["transformer.h.1.mlp.w2.weight"]
    store(directory, config, spoilt)
    with pytest.raises(CheckpointError, match="missing: transformer.h.1.mlp.w2.weight"):
        load_model("qwen-vl", directory)
    store(directory, config, tensors | {"transformer.h.0.extra.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match="surplus: transformer.h.0.extra.weight"):
        load_model("qwen-vl", directory)
    store(directory, config, tensors | {"transformer.ln_f.weight": torch.ones(7)})
    with pytest.raises(CheckpointError, match="misshapen: transformer.ln_f.weight"):
        load_model("qwen-vl", directory)


def test_an_index_and_its_shards_must_agree(qwen):
    directory, _ = qwen
    index = directory / "model.safetensors.index.json"
    place = json.loads(index.read_text())["weight_map"]
    first = next(iter(place.values()))
    for shard, said in (
        (first, "do not agree on transformer.extra"),
        ("../elsewhere.safetensors", "elsewhere"),
    ):
        changed = place | {"transformer.extra": shard}
        index.write_text(json.dumps({"metadata": {}, "weight_map": changed}))
        with pytest.raises(CheckpointError, match=said):
            load_model("qwen-vl", directory)


def test_a_vocabulary_whose_token_has_no_parts_is_refused(tmp_path):
    tokens = [*(bytes([i]) for i in range(256)), b"ab", b"abc", b"xyz"]
    lines = (base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens))
    (tmp_path / "qwen.tiktoken").write_bytes(b"".join(lines))
    with pytest.raises(
        CheckpointError, match="qwen.tiktoken.*holds b'xyz', but not the tokens it is merged from"
    ):
        read_tokenizer(tmp_path / "qwen.tiktoken")


@pytest.mark.parametrize("name", ["llava-1.5", "shikra", "intern-vl"])
def test_a_checkpoint_of_another_family_is_refused(qwen, name):
    directory, _ = qwen
    with pytest.raises(CheckpointError, match="config.json is of model_type 'qwen'"):
        load_model(name, directory)


def test_the_two_layouts_called_llava_are_told_apart(intern):
    directory, _ = intern
    with pytest.raises(CheckpointError, match="names no CLIP"):
        load_model("llava-1.5", directory)
    with pytest.raises(CheckpointError, match="names no InternViT"):
        load_model("intern-vl", Path(__file__).parents[2] / "fixtures" / "llava-1.5")


def test_a_later_intern_vl_which_reads_448_pixels_is_refused(intern):
    file = intern[0] / "config.json"
    settings = json.loads(file.read_text()) | {"mm_vision_tower": "OpenGVLab/InternViT-6B-448px-V1-0"}
    file.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=f"{file} is of a later InternVL-Chat, which reads 448 pixels"):
        load_model("intern-vl", intern[0])


@pytest.mark.parametrize("shape", [(1, 26, 48), (17,)])
def test_positions_of_neither_side_are_refused(intern, store, shape):
    directory, _ = intern
    config = json.loads((directory / "config.json").read_text())
    name = "model.vision_tower.vision_tower.embeddings.position_embedding"
    store(directory, config, published_tensors(directory) | {name: torch.ones(shape)})
    with pytest.raises(CheckpointError, match=re.escape(f"misshapen: {name} (the model's is [1, 17, 48])")):
        load_model("intern-vl", directory)


@pytest.mark.parametrize(
    ("name", "file", "key", "value", "expected"),
    [
        ("qwen-vl", "config.json", "hidden_size", "4096", "a whole number above 0"),
        ("qwen-vl", "config.json", "num_hidden_layers", -2, "a whole number above 0"),
        ("qwen-vl", "config.json", "layer_norm_epsilon", True, "a number above 0"),
        ("qwen-vl", "config.json", "use_logn_attn", "yes", "true or false"),
        ("qwen-vl", "config.json", "visual", 3, "an object"),
        ("intern-vl", "config.json", "num_attention_heads", 4.0, "a whole number above 0"),
        ("intern-vl", "config.json", "mm_vision_select_layer", 4, "a whole number below 0"),
        ("intern-vl", "vision_tower/config.json", "hidden_act", None, "a text"),
        ("shikra", "config.json", "vocab_size", 0, "a whole number above 0"),
        ("shikra", "vision_tower/config.json", "vision_config", [], "an object"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(directory, name, file, key, value, expected):
    settings = json.loads((directory / file).read_text())
    (directory / file).write_text(json.dumps(settings | {key: value}))
    with pytest.raises(CheckpointError) as found:
        load_model(name, directory)
    assert f"{directory / file}: {key} is {value!r}; expected {expected}" in str(found.value)


def test_a_wrong_number_of_queries_is_named(qwen):
    file = qwen[0] / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"visual": settings["visual"] | {"n_queries": "36"}}))
    with pytest.raises(CheckpointError, match=f"{file}: n_queries is '36'; expected a whole number above 0"):
        load_model("qwen-vl", qwen[0])


@pytest.mark.parametrize("name", ["qwen-vl", "intern-vl", "shikra"])
def test_a_token_of_the_model_in_a_question_is_refused(directory, name):
    token = {"qwen-vl": "<|im_end|>", "intern-vl": "</s>", "shikra": "<im_patch>"}[name]
    lvlm = load_model(name, directory)
    with pytest.raises(ValueError, match=re.escape(f"the question holds {token!r}") + ".*'Is .* it"):
        lvlm.prompt(Image.new("RGB", (8, 8)), f"Is {token} it?")


@pytest.mark.parametrize("name", ["qwen-vl", "shikra"])
def test_an_answer_that_holds_the_image_token_is_no_image(directory, name, generated, picture):
    lvlm = load_model(name, directory)
    prompt = lvlm.prompt(picture(50, 30), "Is it?")
    token = lvlm.image_token_id

    def insist(module, args, logits):
        chosen = torch.arange(logits.shape[-1]) == token
        return logits + 1e4 * chosen

    handle = lvlm.head.register_forward_hook(insist)
    try:
        out = generated(lvlm, 3, input_ids=prompt.input_ids, **prompt.image_inputs)
        assert out.sequences[0, -3:].tolist() == [token] * 3
        # Rounding of logits near 1e4 aside, what is said of the other tokens must agree.
        others = torch.arange(out.logits[0].shape[-1]) != token
        forced = lvlm.logits(prompt, [token] * 2)[-3:, others]
        np.testing.assert_allclose(forced, torch.cat(out.logits)[:, others], rtol=0, atol=1e-5)
    finally:
        handle.remove()


@pytest.mark.parametrize("holders", [("base",), ("delta",), ("base", "delta")])
def test_rotary_frequencies_of_old_conversions_are_left_aside(shikra_parts, store, tmp_path, holders):
    delta, base, tower = shikra_parts
    merge(delta, base, tower, tmp_path / "plain")
    config = json.loads((delta / "config.json").read_text())
    for path, settings, shards in ((base, {}, 1), (delta, config, 3)):
        if path.name in holders:
            tensors = {name: tensor.clone() for name, tensor in published_tensors(path).items()}
            tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
            store(path, settings, tensors, shards)
    merge(delta, base, tower, tmp_path / "out")
    plain, merged = (load_model("shikra", tmp_path / name).model for name in ("plain", "out"))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), merged.parameters(), strict=True))


def test_biases_of_the_vision_towers_queries_keys_and_values_are_read(intern, store):
    directory, _ = intern
    config = json.loads((directory / "config.json").read_text())
    tower = json.loads((directory / "vision_tower" / "config.json").read_text())
    tensors = {name: tensor.clone() for name, tensor in published_tensors(directory).items()}
    biases = {
        name.replace("weight", "bias"): torch.randn(len(tensor))
        for name, tensor in tensors.items()
        if name.endswith("attn.qkv.weight")
    }
    store(directory, config, tensors | biases)
    (directory / "vision_tower" / "config.json").write_text(json.dumps(tower | {"qkv_bias": True}))
    layers = load_model("intern-vl", directory).model.vision_tower.encoder.layer
    for number, layer in enumerate(layers):
        read = torch.cat([getattr(layer.attention, f"{x}_proj").bias for x in "qkv"])
        assert torch.equal(
            read, biases[f"model.vision_tower.vision_tower.encoder.layers.{number}.attn.qkv.bias"]
        )


def test_missing_settings_are_named(qwen, intern):
    for name, (directory, _), key, file in (
        ("qwen-vl", qwen, "seq_length", "config.json"),
        ("intern-vl", intern, "qk_normalization", "vision_tower/config.json"),
    ):
        path = directory / file
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({k: value for k, value in settings.items() if k != key}))
        with pytest.raises(CheckpointError, match=f"config.json lacks {key}"):
            load_model(name, directory)


def test_a_prompt_beyond_the_length_qwen_was_trained_at_is_refused(qwen):
    lvlm = load_model("qwen-vl", qwen[0])
    with pytest.raises(ValueError, match="beyond 288"):
        lvlm.prompt(Image.new("RGB", (8, 8)), "long " * 40)


@pytest.mark.parametrize("name", ["qwen-vl", "intern-vl", "shikra"])
def test_instruments_work_on_what_transformers_lacks(directory, name, picture):
    lvlm = load_model(name, directory)
    # With the answers the longer one just fits into Qwen-VL's seq_length; the shorter one is padded to its length.
    questions = ("Is it?", "What is it that you see now?")
    prompts = [lvlm.prompt(picture(50, 30, seed), question) for seed, question in enumerate(questions)]
    for prompt, one in zip(prompts, sweep(lvlm, prompts, 2), strict=True):
        assert prompt.text.count(lvlm.card.placeholder) == (name != "qwen-vl")
        for after in range(lvlm.n_layers + 1):
            with truncated(lvlm, after):
                np.testing.assert_allclose(one.logits[after], lvlm.logits(prompt)[-1], rtol=0, atol=1e-5)
                assert one.answers[after] == lvlm.answer(prompt, 2)
    np.testing.assert_allclose(attention_shares(lvlm, prompts[0], [5]).raw.sum(-1), 1, atol=1e-5)
    assert llava_cam(lvlm, prompts[0], [5, 6]).shape == (lvlm.n_layers, *prompts[0].grid)


@pytest.mark.parametrize(
    ("name", "side", "colour", "mean", "std"),
    [
        ("intern-vl", 84, (123, 116, 103), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ("shikra", 56, (255, 255, 255), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    ],
)
def test_pictures_are_padded_and_prepared_as_the_authors_do(
    directory, name, side, colour, mean, std, picture, tmp_path
):
    """A square of their colour (expand2square), then CLIP's preparation with their mean and deviation."""
    lvlm = load_model(name, directory)
    image = picture(50, 30)
    square = Image.new("RGB", (50, 50), colour)
    square.paste(image, (0, 10))
    prepare = CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=mean,
        image_std=std,
    )
    expected = prepare(images=square, return_tensors="pt")["pixel_values"]

    prompt = lvlm.prompt(image, "What is it?")

    torch.testing.assert_close(prompt.image_inputs["pixel_values"], expected)
    opening = VICUNA.partition("<image>")[0]
    tail = "<image>\nWhat is it? ASSISTANT:" if name == "intern-vl" else "<image> What is it? ASSISTANT:"
    assert prompt.text == opening + tail
    if name == "shikra":
        tokens = lvlm.tokenizer.convert_ids_to_tokens(prompt.input_ids[0].tolist())
        first = tokens.index("<im_patch>")
        assert tokens[first - 1] == "<im_start>" and tokens[first + 16] == "<im_end>"
        assert tokens[first : first + 16] == ["<im_patch>"] * 16
        # The paper's scripts show what CLIP's own processor cuts out.
        image.save(tmp_path / "picture.png")
        asked = Item("1", tmp_path / "picture.png", "Is it?", True)
        opera = find_task("opera", lvlm.card.name, BENCHMARKS["pope"]).prompt(lvlm, asked)
        cropped = prepare(images=image, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(opera.image_inputs["pixel_values"], cropped)
        assert opera.text == opening.replace(" USER:", "USER:") + "<image> Is it? ASSISTANT:"
    moved = lvlm.with_noise(prompt, torch.ones(1, 3, side, side))["pixel_values"]
    difference = (moved - prompt.image_inputs["pixel_values"])[0, :, 0, 0]
    torch.testing.assert_close(difference, 1 / torch.tensor(std), atol=1e-4, rtol=0)
