"""Do models that are a card alone give what transformers' own processors and ``generate`` give?

Small checkpoints with random weights, in the published layouts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
)

from repro.attention import attention_shares
from repro.cam import llava_cam
from repro.models import load_model
from repro.models.card import REGISTRY
from repro.models.loading import CheckpointError
from repro.models.qwen_vl import byte_letters
from repro.sweep import sweep
from repro.truncation import truncated

pytestmark = pytest.mark.conformance

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
README = Path(__file__).resolve().parents[2] / "README.md"
EXAMPLE = re.compile(r"<!-- adding a model -->\n```python\n(.*?)```\n<!-- /adding a model -->", re.DOTALL)
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QUESTION = "What is it?"


def store_tokenizer(directory, **named):
    """A byte-level tokenizer with ChatML's tokens and some that transformers' processors know by name."""
    special = [*CHATML, *named.values()]
    vocabulary = {letter: i for i, letter in enumerate([*special, *byte_letters().values()])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    settings |= {"model_input_names": ["input_ids", "attention_mask"]}
    write_json(
        directory / "tokenizer_config.json", **settings, pad_token="<|endoftext|>", extra_special_tokens=named
    )
    return vocabulary


def write_json(path, **content):
    path.write_text(json.dumps(content))


def decoder(vocabulary, **settings) -> dict:
    return {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": vocabulary["<|im_end|>"],
        "pad_token_id": vocabulary["<|endoftext|>"],
        **settings,
    }


VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
PREPARATION = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True}
PREPARATION |= {"resample": 3, "rescale_factor": 1 / 255, "image_mean": MEAN, "image_std": STD}


@pytest.fixture(scope="module")
def llava_onevision(tmp_path_factory):
    directory = tmp_path_factory.mktemp("llava-onevision")
    vocabulary = store_tokenizer(directory, image_token="<image>", video_token="<video>")
    torch.manual_seed(2)
    config = LlavaOnevisionConfig(
        vision_config={
            **VISION,
            "model_type": "siglip_vision_model",
            "image_size": 16,
            "patch_size": 4,
            "vision_use_head": False,
        },
        text_config=Qwen2Config(**decoder(vocabulary)),
        image_token_index=vocabulary["<image>"],
        video_token_index=vocabulary["<video>"],
        image_grid_pinpoints=[[16, 16], [16, 32], [32, 16], [32, 32], [16, 48], [48, 16]],
        vision_aspect_ratio="anyres_max_2",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_processor_type="LlavaOnevisionImageProcessor",
        size={"height": 16, "width": 16},
        image_grid_pinpoints=config.image_grid_pinpoints,
        do_pad=True,
        **PREPARATION,
    )
    lvlm = load_model("llava-onevision", directory)
    settings = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    return lvlm, settings | {"vision_aspect_ratio": "anyres_max_2"}, {}


@pytest.fixture(scope="module")
def internvl3(tmp_path_factory):
    directory = tmp_path_factory.mktemp("internvl3")
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
    }
    vocabulary = store_tokenizer(directory, **named, video_token="<video>")
    torch.manual_seed(3)
    config = InternVLConfig(
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [4, 4], "initializer_range": 0.3},
        text_config=Qwen2Config(**decoder(vocabulary)),
        image_token_id=vocabulary["<IMG_CONTEXT>"],
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    InternVLForConditionalGeneration(config).save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_processor_type="GotOcr2ImageProcessorFast",
        size={"height": 32, "width": 32},
        # As published; transformers' processor and the authors' scripts cut tiles nonetheless.
        crop_to_patches=False,
        max_patches=12,
        **PREPARATION,
    )
    return load_model("internvl3", directory), {"image_seq_length": 16}, {"max_patches": 6}


@pytest.fixture(scope="module")
def qwen2_5_vl(tmp_path_factory):
    directory = tmp_path_factory.mktemp("qwen2.5-vl")
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    named |= {"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"}
    vocabulary = store_tokenizer(directory, **named)
    torch.manual_seed(4)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.3,
        },
        text_config={**decoder(vocabulary), "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_processor_type="Qwen2VLImageProcessor",
        min_pixels=16 * 16,
        max_pixels=40 * 40,
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        **PREPARATION,
    )
    return load_model("qwen2.5-vl", directory), {}, {}


FAMILIES = ["llava_onevision", "internvl3", "qwen2_5_vl"]


@pytest.fixture(params=FAMILIES)
def built(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def family(built):
    return built[0]


@pytest.fixture
def process(built, monkeypatch):
    """transformers' own processor: picture, text -> tensors. Its video processor, not used, wants torchvision."""
    lvlm, settings, given = built
    monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda *_: None)
    made = getattr(transformers, PROCESSORS[lvlm.card.model_type])(
        image_processor=lvlm.processor.image_processor,
        tokenizer=lvlm.processor.tokenizer,
        video_processor=None,
        **settings,
    )
    return lambda image, text: made(images=image, text=text, return_tensors="pt", **given)


PROCESSORS = {
    "llava_onevision": "LlavaOnevisionProcessor",
    "internvl": "InternVLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
}


def picture(width, height, seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def close(actual, expected):
    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    torch.testing.assert_close(actual, expected, rtol=0, atol=3e-5 * float(expected.abs().max()))


SIZES = [(40, 20), (20, 40), (64, 64), (16, 16), (100, 20), (20, 100), (31, 17), (90, 60), (70, 10)]


@pytest.mark.parametrize("size", SIZES)
def test_prompts_are_those_of_transformers_own_processor(family, process, size):
    image = picture(*size)
    prompt = family.prompt(image, QUESTION)
    expected = process(image, prompt.text.replace("<img><IMG_CONTEXT></img>", "<IMG_CONTEXT>"))
    assert torch.equal(prompt.input_ids, expected["input_ids"])
    for key, value in prompt.image_inputs.items():
        torch.testing.assert_close(value, expected[key])


@torch.inference_mode()
def test_logits_and_answers_are_those_of_transformers(family, process):
    image = picture(40, 20)
    prompt = family.prompt(image, QUESTION)
    given = process(image, prompt.text.replace("<img><IMG_CONTEXT></img>", "<IMG_CONTEXT>"))
    expected = family.model(**given).logits[0]
    embedded = family.embed(prompt.input_ids, prompt.image_inputs)
    hidden = family.hidden_states(embedded, family.positions(prompt))
    close(family.head(hidden)[0], expected)
    close(family.logits(prompt), expected)
    ids = family.model.generate(**given, do_sample=False, max_new_tokens=5)[0, prompt.input_ids.shape[1] :]
    assert family.answer(prompt, 5).ids == tuple(ids.tolist())


@pytest.mark.parametrize("keep", [0, 3])
def test_a_batch_of_other_pictures_and_questions_is_swept_as_each_is_truncated(family, keep):
    prompts = [
        family.prompt(picture(40, 20, 1), QUESTION),
        family.prompt(picture(40, 20, 2), "How many objects are in this image?"),
    ]
    swept = sweep(family, prompts, 3, keep=keep)
    for prompt, one in zip(prompts, swept, strict=True):
        assert (
            np.abs(np.diff(one.logits, axis=0)).max(axis=1).min() > 0.01
        )  # the image matters at every layer
        for after in range(family.n_layers + 1):
            for mode in ("drop", "mask"):
                with truncated(family, after, keep=keep, mode=mode):
                    close(one.logits[after], family.logits(prompt)[-1].numpy())
                    assert one.answers[after] == family.answer(prompt, 3)


def test_shares_and_maps(family):
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
    assert torch.equal(family.features(noisy)[: len(dark.cells)], family.features(noisy)[len(dark.cells) :])
    for found in noisy["pixel_values"].chunk(2):
        torch.testing.assert_close(found, expected)


@torch.inference_mode()
def test_pictures_of_several_shapes_are_one_batch(family):
    prompts = [family.prompt(picture(*size), QUESTION) for size in ((40, 20), (16, 16), (20, 60))]
    single = torch.cat([family.features(prompt.image_inputs) for prompt in prompts])
    close(family.features(family.batched(prompts)), single)


@pytest.mark.parametrize("size", SIZES)
def test_tokens_of_any_resolution_lie_where_they_were_cut(llava_onevision, size):
    prompt = llava_onevision[0].prompt(picture(*size), QUESTION)
    rows, columns = prompt.grid
    base, tiles = prompt.cells[: rows * columns], prompt.cells[rows * columns :]
    assert base.tolist() == list(range(rows * columns))
    width = int(np.flatnonzero(tiles == -1)[0]) + 1
    finer = tiles.reshape(-1, width)
    assert (finer[:, -1] == -1).all() and (finer[:, :-1] >= 0).all()
    for line, cells in enumerate(finer[:, :-1]):
        assert set(cells // columns) == {int((line + 0.5) / len(finer) * rows)}
    for column, cells in enumerate(finer[:, :-1].T):
        assert set(cells % columns) == {int((column + 0.5) / (width - 1) * columns)}


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((40, 20), (1, 2)), ((20, 40), (2, 1)), ((64, 64), (2, 2)), ((100, 20), (1, 5)), ((96, 64), (2, 3))],
)
def test_tokens_of_tiles_lie_where_they_were_cut(internvl3, size, tiles):
    """Rows and columns of tiles as InternVL cuts such pictures; the whole picture comes last."""
    prompt = internvl3[0].prompt(picture(*size), QUESTION)
    assert prompt.grid == (4, 4)
    expected = []
    for tile_row in range(tiles[0]):
        for tile_column in range(tiles[1]):
            rows = (tile_row + (np.arange(4) + 0.5) / 4) * 4 // tiles[0]
            columns = (tile_column + (np.arange(4) + 0.5) / 4) * 4 // tiles[1]
            expected += (rows[:, None] * 4 + columns).astype(int).flatten().tolist()
    assert prompt.cells.tolist() == expected + list(range(16))


@pytest.mark.parametrize(("size", "grid"), [((40, 24), (3, 5)), ((16, 32), (4, 2))])
def test_positions_of_qwen2_5_vl_are_time_row_and_column(qwen2_5_vl, size, grid):
    """An image token's are where the image begins plus its row and column; text goes on from the largest."""
    lvlm = qwen2_5_vl[0]
    prompt = lvlm.prompt(picture(*size), QUESTION)
    assert prompt.grid == grid and prompt.image.size == (grid[1] * 8, grid[0] * 8)
    time, row, column = lvlm.positions(prompt, 2)[:, 0].tolist()
    start, end = prompt.segments.image[0], prompt.segments.image[-1] + 1
    assert time[:start] == row[:start] == column[:start] == list(range(start))
    assert time[start:end] == [start] * (end - start)
    assert row[start:end] == [start + i // grid[1] for i in range(end - start)]
    assert column[start:end] == [start + i % grid[1] for i in range(end - start)]
    after = list(range(start + max(grid), start + max(grid) + len(time) - end))
    assert time[end:] == row[end:] == column[end:] == after


def test_instruments_run_at_the_positions_of_qwen2_5_vl(qwen2_5_vl):
    lvlm, placed = qwen2_5_vl[0], []
    prompt = lvlm.prompt(picture(40, 24), QUESTION)
    handle = lvlm.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: placed.append(kwargs.get("position_ids")), with_kwargs=True
    )
    attention_shares(lvlm, prompt, [7, 8])
    llava_cam(lvlm, prompt, [7, 8])
    handle.remove()
    assert torch.equal(placed[0], lvlm.positions(prompt, 2))
    assert torch.equal(placed[1], lvlm.positions(prompt, 1))


def test_pictures_of_one_number_of_tokens_and_other_shapes_are_swept_together(qwen2_5_vl):
    lvlm = qwen2_5_vl[0]
    prompts = [lvlm.prompt(picture(*size), QUESTION) for size in ((16, 24), (24, 16))]
    assert prompts[0].grid == (3, 2) and prompts[1].grid == (2, 3)
    for prompt, one in zip(prompts, sweep(lvlm, prompts, 3), strict=True):
        for after in range(lvlm.n_layers + 1):
            with truncated(lvlm, after):
                close(one.logits[after], lvlm.logits(prompt)[-1].numpy())
                assert one.answers[after] == lvlm.answer(prompt, 3)


def test_one_tile_is_the_whole_picture(internvl3):
    assert internvl3[0].prompt(picture(16, 16), QUESTION).cells.tolist() == list(range(16))


def test_features_that_are_not_as_many_as_image_tokens_are_refused(family):
    prompt = family.prompt(picture(16, 16), QUESTION)
    n = len(prompt.cells)
    with pytest.raises(ValueError, match=f"hold {n - 1} image tokens, the model gives {n} features"):
        family.embed(prompt.input_ids[:, prompt.segments.image[0] + 1 :], prompt.image_inputs)


def test_a_placeholder_in_the_question_is_refused(family):
    with pytest.raises(ValueError, match="the question must hold none"):
        family.prompt(picture(16, 16), f"What is {family.card.placeholder}?")


def test_a_tokenizer_without_the_image_token_is_refused(family, tmp_path):
    for file in family.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    stored = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(stored.replace(family.card.placeholder, "<other>"))
    lvlm = load_model(family.card.name, tmp_path)
    with pytest.raises(ValueError, match=f"makes 0 image tokens .* of '{family.card.placeholder}', not 1"):
        lvlm.prompt(picture(16, 16), QUESTION)


@pytest.mark.parametrize("damage", ["missing", "surplus", "misshapen"])
def test_tensors_that_do_not_fit_are_named(family, tmp_path, damage):
    for file in family.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    norm = "layers.0.post_attention_layernorm.weight"
    name = next(name for name in tensors if name.endswith(norm))
    tensor = tensors.pop(name)
    if damage != "missing":
        tensors |= {name: tensor, "more": tensor.clone()} if damage == "surplus" else {name: tensor[:-1]}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=damage) as error:
        load_model(family.card.name, tmp_path)
    assert ("more" if damage == "surplus" else norm) in str(error.value)


def test_another_kind_of_model_is_refused(llava_onevision):
    with pytest.raises(CheckpointError, match="'llava_onevision'; expected 'internvl'"):
        load_model("internvl3", llava_onevision[0].path)


@pytest.fixture
def place_of_the_example(tmp_path, monkeypatch):
    """The working directory in which the README's example finds its checkpoint and its picture."""
    directory = tmp_path / "models" / "llava-interleave-qwen-7b-hf"
    directory.mkdir(parents=True)
    vocabulary = store_tokenizer(directory, image_token="<image>")
    torch.manual_seed(0)
    tower = {"model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4, "vision_use_head": False}
    config = LlavaConfig(
        vision_config={**VISION, **tower},
        text_config=Qwen2Config(**decoder(vocabulary)),
        image_token_index=vocabulary["<image>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    LlavaForConditionalGeneration(config).save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_processor_type="SiglipImageProcessor",
        size={"height": 16, "width": 16},
        **PREPARATION,
    )
    picture(30, 20).save(tmp_path / "kite.png")
    monkeypatch.chdir(tmp_path)
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.usefixtures("place_of_the_example")
def test_the_example_of_at_most_40_lines_sweeps_a_model_it_adds(capsys):
    [example] = EXAMPLE.findall(README.read_text(encoding="utf-8"))
    assert len(example.splitlines()) <= 40
    found: dict = {}
    exec(compile(example, str(README), "exec"), found)
    lvlm, prompt = found["lvlm"], found["prompt"]
    assert len(prompt.segments.image) == 16
    answers = []
    for layer in range(lvlm.n_layers + 1):
        with truncated(lvlm, layer):
            answers.append(lvlm.answer(prompt, 8).text)
    assert len(set(answers)) > 1
    lines = [f"truncated after layer {layer}: {text}" for layer, text in enumerate(answers)]
    assert capsys.readouterr().out == "\n".join(lines) + "\n"
