"""Do the models that transformers lacks give what their authors' code gives?

The arrays were recorded by the authors' code (Qwen-VL-Chat's modeling_qwen.py and visual.py; InternVL's
internvl_chat_llava; Shikra's mllm/models/shikra) under transformers 4.31.0 and torch 2.13.0 in float32, on small
configurations with weights drawn as ``random_tensors`` draws them, and token ids by tiktoken 0.12.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
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
from repro.evaluation.run import make_prompt
from repro.models import load_model
from repro.models.card import VICUNA
from repro.models.llava import CLIPImageProcessor
from repro.models.loading import CheckpointError, load_tokenizer, published_tensors
from repro.models.qwen_vl import byte_letters, read_tokenizer
from repro.models.shikra import merge
from repro.protocols import find_task
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.conformance

RECORDED = Path(__file__).with_name("published_code")
#: Rounding of another order of operations; the measured differences are below 5e-6.
TOLERANCE = 1e-5


def random_tensors(shapes: dict[str, list[int]], seed: int, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights that any numpy draws alike: matrices of unit gain, biases of 0.1, scales of 1 +- 0.1."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name in sorted(shapes):
        drawn = rng.standard_normal(shapes[name], dtype=np.float32)
        if drawn.ndim > 1:
            drawn = drawn / np.float32(np.prod(drawn.shape[1:]) ** 0.5)
        elif name.endswith("bias"):
            drawn = drawn * np.float32(0.1)
        else:
            drawn = 1 + drawn * np.float32(0.1)
        tensors[name] = torch.from_numpy(drawn * np.float32(gain))
    return tensors


def store(directory: Path, config: dict, tensors: dict[str, torch.Tensor], shards: int = 1) -> Path:
    """A checkpoint directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, directory / "model.safetensors")
        return directory
    place = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number::shards]}
        place |= dict.fromkeys(part, file)
        save_file(part, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return directory


def store_tokenizer(directory: Path, vocabulary: int, added: tuple[str, ...] = ()) -> None:
    """A byte-level stand-in for LLaMA's tokenizer: <unk>, <s>, </s>, all bytes, and added tokens at the end."""
    letters = ["<unk>", "<s>", "</s>", *byte_letters().values()]
    letters += [f"unused-{i}" for i in range(vocabulary - len(letters) - len(added))]
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", *added])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"unk_token": "<unk>"}))


@pytest.fixture
def qwen(tmp_path):
    described, recorded = (
        json.loads((RECORDED / "qwen-vl.json").read_text()),
        np.load(RECORDED / "qwen-vl.npz"),
    )
    tensors = random_tensors(described["shapes"], 5)
    # The resampler's positions are fixed sines in the authors' code, and stored with the weights.
    tensors["transformer.visual.attn_pool.pos_embed"] = torch.from_numpy(recorded["pos_embed"])
    directory = store(tmp_path / "qwen-vl", described["config"], tensors, shards=2)
    shutil.copyfile(RECORDED / "qwen.tiktoken", directory / "qwen.tiktoken")
    (directory / "generation_config.json").write_text(json.dumps({"chat_format": "raw"}))
    return directory, recorded


@pytest.fixture
def intern(tmp_path):
    described = json.loads((RECORDED / "intern-vl.json").read_text())
    directory = store(tmp_path / "intern-vl", described["config"], random_tensors(described["shapes"], 6))
    (directory / "vision_tower").mkdir()
    (directory / "vision_tower" / "config.json").write_text(json.dumps(described["vision_config"]))
    store_tokenizer(directory, described["config"]["vocab_size"])
    return directory, np.load(RECORDED / "intern-vl.npz")


@pytest.fixture
def shikra_parts(tmp_path):
    """Delta, base and tower as published, and what the authors' code computed from them."""
    described = json.loads((RECORDED / "shikra.json").read_text())
    config, vision = described["config"], described["vision_config"]
    delta = store(tmp_path / "delta", config, random_tensors(described["delta_shapes"], 10, 0.5), shards=3)
    store_tokenizer(delta, config["vocab_size"], ("<im_patch>", "<im_start>", "<im_end>"))
    base = store(tmp_path / "base", {}, random_tensors(described["base_shapes"], 9, 0.5))
    tensors = random_tensors(described["vision_shapes"], 8)
    tower = store(tmp_path / "tower", {"vision_config": vision}, tensors | {"logit_scale": torch.ones(1)})
    return delta, base, tower, np.load(RECORDED / "shikra.npz")


def same(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_qwen_vl_features_logits_and_answers(qwen):
    directory, recorded = qwen
    lvlm = load_model("qwen-vl", directory)
    prompt = lvlm.prompt(Image.fromarray(recorded["pixels"]), "Is it?")
    same(lvlm.model.image_features(**prompt.image_inputs), recorded["features"])
    # The long prompt is longer than seq_length: log-n attention and dynamic NTK positions are at work.
    assert len(recorded["short_ids"]) < lvlm.model.config.published["seq_length"] < len(recorded["long_ids"])
    for name in ("short", "long"):
        ids = torch.from_numpy(recorded[f"{name}_ids"])[None]
        same(lvlm.model(input_ids=ids, **prompt.image_inputs).logits[0, -40:], recorded[f"{name}_logits"])
        out = lvlm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **prompt.image_inputs,
            max_new_tokens=3,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert out.sequences[0, ids.shape[1] :].tolist() == recorded[f"{name}_next"].tolist()
        for logits, expected in zip(out.logits[1:], recorded[f"{name}_next_logits"], strict=False):
            same(logits[0], expected)


@torch.inference_mode()
def test_intern_vl_features_and_logits(intern):
    directory, recorded = intern
    lvlm = load_model("intern-vl", directory)
    pixels = torch.from_numpy(recorded["pixels"])
    same(lvlm.model.image_features(pixels), recorded["features"])
    # The authors' code marks the place of the image by -200.
    before, after = np.split(recorded["ids"], np.flatnonzero(recorded["ids"] == -200))
    ids = [*before, *[lvlm.image_token_id] * lvlm.n_image, *after[1:]]
    same(lvlm.model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0], recorded["logits"])


@torch.inference_mode()
def test_shikra_from_delta_and_base(shikra_parts, tmp_path):
    delta, base, tower, recorded = shikra_parts
    merge(delta, base, tower, tmp_path / "merged")
    lvlm = load_model("shikra", tmp_path / "merged")
    pixels, ids = torch.from_numpy(recorded["pixels"]), torch.from_numpy(recorded["ids"])[None]
    same(lvlm.model.image_features(pixels), recorded["features"])
    same(lvlm.model(input_ids=ids, pixel_values=pixels).logits[0], recorded["logits"])


def test_a_killed_merge_goes_on_behind_its_last_shard(shikra_parts, tmp_path):
    delta, base, tower, _ = shikra_parts
    merge(delta, base, tower, tmp_path / "whole")
    first, second, third = sorted((tmp_path / "whole").glob("*.safetensors"))
    (tmp_path / "part").mkdir()
    shutil.copyfile(first, tmp_path / "part" / first.name)
    (tmp_path / "part" / "partial").write_bytes(second.read_bytes()[:100])
    stamp = (tmp_path / "part" / first.name).stat().st_mtime_ns
    merge(delta, base, tower, tmp_path / "part")
    assert (tmp_path / "part" / first.name).stat().st_mtime_ns == stamp
    assert not (tmp_path / "part" / "partial").exists()
    whole, part = published_tensors(tmp_path / "whole"), published_tensors(tmp_path / "part")
    assert whole.keys() == part.keys() and all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_base_that_does_not_fit_is_refused(shikra_parts, tmp_path):
    delta, base, tower, _ = shikra_parts
    tensors = {name: tensor.clone() for name, tensor in published_tensors(base).items()}
    store(base, {}, tensors | {"model.norm.weight": torch.ones(7)})
    with pytest.raises(
        CheckpointError, match=r"model.norm.weight is \[64\] in the delta and \[7\] in the base"
    ):
        merge(delta, base, tower, tmp_path / "out")
    store(base, {}, {name: tensor for name, tensor in tensors.items() if name != "model.norm.weight"})
    with pytest.raises(CheckpointError, match="model.norm.weight is not in the base"):
        merge(delta, base, tower, tmp_path / "other")
    store(base, {}, {name: tensor.half() for name, tensor in tensors.items()})
    with pytest.raises(CheckpointError, match="float32 in the delta and torch.float16 in the base"):
        merge(delta, base, tower, tmp_path / "third")
    with pytest.raises(CheckpointError, match="one of the sources"):
        merge(delta, base, tower, base)


def test_a_merge_does_not_go_on_from_another_base(shikra_parts, tmp_path):
    delta, base, tower, _ = shikra_parts
    merge(delta, base, tower, tmp_path / "out")
    tensors = {name: tensor + 1 for name, tensor in published_tensors(base).items()}
    store(base, {}, tensors)
    with pytest.raises(CheckpointError, match="made from other files"):
        merge(delta, base, tower, tmp_path / "out")


def test_qwen_tokens_are_those_of_tiktoken():
    tokenizer = read_tokenizer(RECORDED / "qwen.tiktoken")
    for case in json.loads((RECORDED / "qwen-vl-tokens.json").read_text()):
        assert tokenizer(case["text"]).input_ids == case["ids"], case["text"]


@pytest.mark.parametrize("model_type", ["llama", "llava", "shikra"])
def test_llama_tokens_are_those_of_sentencepiece(tmp_path, model_type):
    """Whatever config.json says: transformers 5 chooses the class of an AutoTokenizer by it."""
    shutil.copyfile(RECORDED / "llama-tokenizer.model", tmp_path / "tokenizer.model")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in (
        "A chat between a user and an assistant. USER: ",
        "\nWhat color is the kite?\nA. red\nB. blue\nAnswer with the option's letter. ASSISTANT:",
        "Where? 12 naïve 猫\t!",
    ):
        assert tokenizer(text).input_ids == [pieces.bos_id(), *pieces.encode(text)], text


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
    assert len(raw.stop_ids) == 1
    (directory / "generation_config.json").write_text(json.dumps({"chat_format": "chatml"}))
    chat = load_model("qwen-vl", directory)
    prompt = chat.prompt(picture, "What?")
    assert prompt.text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nPicture 1: <img></img>\n"
        "What?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert len(prompt.segments.image) == 256 and len(chat.stop_ids) == 3
    # A protocol with a template of its own has it for both.
    template = find_task("lmms-eval", "qwen-vl", "pope").template
    assert chat.prompt(picture, "What?", template).text == "Picture 1: <img></img>\nWhat?"


def test_tensors_that_do_not_fit_are_named_as_published(qwen):
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
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": place | {"transformer.extra": next(iter(place.values()))}})
    )
    with pytest.raises(CheckpointError, match="do not agree on transformer.extra"):
        load_model("qwen-vl", directory)
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": place | {"transformer.extra": "../elsewhere.safetensors"}})
    )
    with pytest.raises(CheckpointError, match="elsewhere"):
        load_model("qwen-vl", directory)


@pytest.mark.parametrize("name", ["llava-1.5", "shikra", "intern-vl"])
def test_a_checkpoint_of_another_family_is_refused(qwen, name):
    directory, _ = qwen
    with pytest.raises(CheckpointError, match="config.json is of model_type 'qwen'"):
        load_model(name, directory)


def test_the_two_layouts_called_llava_are_told_apart(intern):
    directory, _ = intern
    with pytest.raises(CheckpointError, match="no vision_config"):
        load_model("llava-1.5", directory)
    with pytest.raises(CheckpointError, match="names no InternViT"):
        load_model("intern-vl", Path(__file__).parents[2] / "fixtures" / "llava-1.5")


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
def test_instruments_work_on_what_transformers_lacks(request, tmp_path, name):
    if name == "shikra":
        delta, base, tower, _ = request.getfixturevalue("shikra_parts")
        directory = tmp_path / "merged"
        merge(delta, base, tower, directory)
    else:
        directory, _ = request.getfixturevalue(name.removesuffix("-vl"))
    lvlm = load_model(name, directory)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 50, 3), dtype=np.uint8)
    # With the answers the longer one just fits into Qwen-VL's seq_length; the shorter one is padded to its length.
    questions = ("Is it?", "What is it that you see now?")
    prompts = [lvlm.prompt(Image.fromarray(p), q) for p, q in zip(pixels, questions, strict=True)]
    for prompt, one in zip(prompts, sweep(lvlm, prompts, 2), strict=True):
        assert prompt.text.count(lvlm.card.placeholder) == (name != "qwen-vl")
        for after in range(lvlm.n_layers + 1):
            with truncated(lvlm, after):
                same(torch.from_numpy(one.logits[after]), lvlm.logits(prompt)[-1].numpy())
                assert one.answers[after] == lvlm.answer(prompt, 2)
    np.testing.assert_allclose(attention_shares(lvlm, prompts[0], [5]).raw.sum(-1), 1, atol=1e-5)
    assert llava_cam(lvlm, prompts[0], [5, 6]).shape == (lvlm.n_layers, *prompts[0].grid)


@pytest.mark.parametrize(
    ("name", "colour", "mean", "std"),
    [
        ("intern-vl", (123, 116, 103), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ("shikra", (255, 255, 255), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    ],
)
def test_pictures_are_padded_and_prepared_as_the_authors_do(request, tmp_path, name, colour, mean, std):
    """A square of their colour (expand2square), then CLIP's preparation with their mean and deviation."""
    if name == "shikra":
        delta, base, tower, _ = request.getfixturevalue("shikra_parts")
        merge(delta, base, tower, tmp_path / "merged")
        lvlm, side = load_model(name, tmp_path / "merged"), 56
    else:
        lvlm, side = load_model(name, request.getfixturevalue("intern")[0]), 84
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    square = Image.new("RGB", (50, 50), colour)
    square.paste(picture, (0, 10))
    prepare = CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=mean,
        image_std=std,
    )
    expected = prepare(images=square, return_tensors="pt")["pixel_values"]

    prompt = lvlm.prompt(picture, "What is it?")

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
        picture.save(tmp_path / "picture.png")
        asked = Item("1", tmp_path / "picture.png", "Is it?", True)
        opera = make_prompt(lvlm, BENCHMARKS["pope"], asked, "opera")
        cropped = prepare(images=picture, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(opera.image_inputs["pixel_values"], cropped)
        assert opera.text == opening.replace(" USER:", "USER:") + "<image> Is it? ASSISTANT:"
    moved = lvlm.with_noise(prompt, torch.ones(1, 3, side, side))["pixel_values"]
    difference = (moved - prompt.image_inputs["pixel_values"])[0, :, 0, 0]
    torch.testing.assert_close(difference, 1 / torch.tensor(std), atol=1e-4, rtol=0)
