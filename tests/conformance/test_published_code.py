"""Do the models that transformers lacks give what their authors' code gives?

The arrays were recorded by the authors' code (Qwen-VL-Chat's modeling_qwen.py and visual.py; InternVL's
internvl_chat_llava; Shikra's mllm/models/shikra) under transformers 4.31.0 and torch 2.13.0 in float32, on small
configurations with weights drawn as ``random_tensors`` of conftest.py draws them. Token ids are those of tiktoken
0.12, and for Shikra of the sentencepiece tokenizer of transformers 4.31.0, which its authors load, over the
miniature's files and prompts as their code joins them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repro.models import load_model
from repro.models.qwen_vl import read_tokenizer
from repro.models.weights import published_tensors

pytestmark = pytest.mark.conformance

RECORDED = Path(__file__).with_name("published_code")
#: Rounding of another order of operations; the measured differences are below 5e-6.
TOLERANCE = 1e-5


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
@pytest.mark.parametrize("resized", [False, True])
def test_intern_vl_features_and_logits(intern, store, resized):
    """``resized``: the positions stored for 84 pixels, not for 56: the release has those of 336, not of 224."""
    directory, recorded = intern
    if resized:
        tensors = published_tensors(directory)
        positions = tensors["model.vision_tower.vision_tower.embeddings.position_embedding"]
        assert positions.shape[1] == 1 + 4 * 4
        grid = positions[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        grid = torch.nn.functional.interpolate(grid, size=6, mode="bicubic", align_corners=False)
        tensors["model.vision_tower.vision_tower.embeddings.position_embedding"] = torch.cat(
            [positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1
        ).contiguous()
        store(directory, json.loads((directory / "config.json").read_text()), tensors)
    lvlm = load_model("intern-vl", directory)
    assert lvlm.model.vision_tower.embeddings.position_embeddings.shape[1] == 1 + (
        6 * 6 if resized else 4 * 4
    )
    pixels = torch.from_numpy(recorded["pixels"])
    same(lvlm.model.image_features(pixels), recorded["features"])
    # The authors' code marks the place of the image by -200.
    before, after = np.split(recorded["ids"], np.flatnonzero(recorded["ids"] == -200))
    ids = [*before, *[lvlm.image_token_id] * lvlm.n_image, *after[1:]]
    same(lvlm.model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0], recorded["logits"])


@torch.inference_mode()
def test_shikra_features_and_logits_from_delta_and_base(shikra):
    directory, recorded = shikra
    lvlm = load_model("shikra", directory)
    pixels, ids = torch.from_numpy(recorded["pixels"]), torch.from_numpy(recorded["ids"])[None]
    same(lvlm.model.image_features(pixels), recorded["features"])
    same(lvlm.model(input_ids=ids, pixel_values=pixels).logits[0], recorded["logits"])


def test_qwen_tokens_are_those_of_tiktoken():
    tokenizer = read_tokenizer(RECORDED / "qwen.tiktoken")
    for case in json.loads((RECORDED / "qwen-vl-tokens.json").read_text()):
        assert tokenizer(case["text"]).input_ids == case["ids"], case["text"]


def test_shikra_tokens_are_those_of_the_tokenizer_its_authors_run():
    """Its files are of 2023: added_tokens.json, and nothing on how the blanks around such tokens are read."""
    lvlm = load_model("shikra")
    delta = lvlm.path / "delta"
    assert (delta / "added_tokens.json").is_file()
    assert "added_tokens_decoder" not in json.loads((delta / "tokenizer_config.json").read_text())
    for case in json.loads((RECORDED / "shikra-tokens.json").read_text()):
        prompt = lvlm.prompt(Image.new("RGB", (48, 48)), case["question"])
        assert prompt.input_ids[0].tolist() == case["ids"], case["question"]
