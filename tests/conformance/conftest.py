"""Small checkpoints in the published layouts of models that transformers lacks, and what several modules share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.benchmarks import chair
from repro.benchmarks.benchmark import DataError

if TYPE_CHECKING:
    import torch
    from PIL import Image

RECORDED = Path(__file__).with_name("published_code")


def random_tensors(shapes: dict[str, list[int]], seed: int, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights that any numpy draws alike: matrices of unit gain, biases of 0.1, scales of 1 +- 0.1."""
    import numpy as np
    import torch

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


@pytest.fixture(scope="session")
def suite_imported() -> None:
    """What a run of the suite imports, for tests with pytester, which forgets modules first imported within it."""
    for name in (
        "nltk",
        "repro.audit.agreement",
        "repro.golden",
        "repro.report.audit",
        "repro.report.index",
        "sklearn.datasets",
    ):
        import_module(name)


@pytest.fixture(scope="session")
def store() -> Callable[..., Path]:
    """Writes a checkpoint directory and returns it."""
    from safetensors.torch import save_file

    def write(directory: Path, config: dict, tensors: dict[str, torch.Tensor], shards: int = 1) -> Path:
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
        index = {"metadata": {}, "weight_map": place}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        return directory

    return write


@pytest.fixture(scope="session")
def store_tokenizer() -> Callable[..., dict[str, int]]:
    """Writes a byte-level tokenizer and returns its vocabulary; by default a stand-in for LLaMA's.

    Special tokens come first, then all bytes, then tokens without use up to ``size``, then added tokens.
    Every text begins with the BOS token, where there is one.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    from repro.models.qwen_vl import byte_letters

    def write(
        directory: Path,
        special: tuple[str, ...] = ("<unk>", "<s>", "</s>"),
        added: tuple[str, ...] = (),
        size: int = 0,
        bos_token: str | None = "<s>",
        **settings: object,
    ) -> dict[str, int]:
        tokens = [*special, *byte_letters().values()]
        tokens += [f"unused-{i}" for i in range(size - len(tokens) - len(added))]
        vocabulary = {token: i for i, token in enumerate([*tokens, *added])}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([*special, *added])
        if bos_token:
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{bos_token} $A", special_tokens=[(bos_token, vocabulary[bos_token])]
            )
        directory.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(directory / "tokenizer.json"))
        known = {"bos_token": bos_token, "eos_token": "</s>", "unk_token": "<unk>"}
        known |= {"model_input_names": ["input_ids", "attention_mask"]}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | known | settings
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
        return vocabulary

    return write


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """Draws a picture of random pixels."""
    import numpy as np
    from PIL import Image

    def draw(width: int, height: int, seed: int = 0) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return draw


@pytest.fixture
def qwen(tmp_path, store):
    """Qwen-VL's directory, and what the authors' code computed from it."""
    import numpy as np
    import torch

    described = json.loads((RECORDED / "qwen-vl.json").read_text())
    recorded = np.load(RECORDED / "qwen-vl.npz")
    tensors = random_tensors(described["shapes"], 5)
    # The resampler's positions are fixed sines in the authors' code, and stored with the weights.
    tensors["transformer.visual.attn_pool.pos_embed"] = torch.from_numpy(recorded["pos_embed"])
    directory = store(tmp_path / "qwen-vl", described["config"], tensors, shards=2)
    shutil.copyfile(RECORDED / "qwen.tiktoken", directory / "qwen.tiktoken")
    (directory / "generation_config.json").write_text(json.dumps({"chat_format": "raw"}))
    return directory, recorded


@pytest.fixture
def intern(tmp_path, store, store_tokenizer):
    """InternVL-Chat's directory, and what the authors' code computed from it."""
    import numpy as np

    described = json.loads((RECORDED / "intern-vl.json").read_text())
    directory = store(tmp_path / "intern-vl", described["config"], random_tensors(described["shapes"], 6))
    (directory / "vision_tower").mkdir()
    (directory / "vision_tower" / "config.json").write_text(json.dumps(described["vision_config"]))
    store_tokenizer(directory, size=described["config"]["vocab_size"])
    return directory, np.load(RECORDED / "intern-vl.npz")


@pytest.fixture
def shikra_parts(tmp_path, store, store_tokenizer):
    """Shikra's delta, base and tower as published."""
    import torch

    described = json.loads((RECORDED / "shikra.json").read_text())
    config, vision = described["config"], described["vision_config"]
    delta = store(tmp_path / "delta", config, random_tensors(described["delta_shapes"], 10, 0.5), shards=3)
    store_tokenizer(delta, added=("<im_patch>", "<im_start>", "<im_end>"), size=config["vocab_size"])
    base = store(tmp_path / "base", {}, random_tensors(described["base_shapes"], 9, 0.5))
    tensors = random_tensors(described["vision_shapes"], 8)
    positions = len(tensors["vision_model.embeddings.position_embedding.weight"])
    # As published: the half that reads texts, and the positions' numbers.
    tensors |= {
        "logit_scale": torch.ones(1),
        "vision_model.embeddings.position_ids": torch.arange(positions)[None],
    }
    tower = store(tmp_path / "tower", {"vision_config": vision}, tensors)
    return delta, base, tower


@pytest.fixture
def shikra(shikra_parts, tmp_path):
    """Shikra's merged directory, and what the authors' code computed from its parts."""
    import numpy as np

    from repro.models.shikra import merge

    merge(*shikra_parts, tmp_path / "shikra")
    return tmp_path / "shikra", np.load(RECORDED / "shikra.npz")


@pytest.fixture(scope="session")
def need_nltk_data() -> Callable[[str], None]:
    """Skips without NLTK's data, which exact CHAIR needs; fails where a variable names data to test it on."""

    def need(variable: str) -> None:
        try:
            chair.require_nltk_data()
        except DataError as error:
            if place := os.environ.get(variable):
                pytest.fail(f"{variable}={place}: {error}", pytrace=False)
            pytest.skip(str(error))

    return need
