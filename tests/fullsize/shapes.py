"""Random checkpoints in the published layouts and sizes, written tensor by tensor.

Configurations are those of ``fixtures/published``. Words are those of LLaVA-1.5's miniature, followed by tokens
without use up to the published vocabulary.
"""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any

import torch

from repro.models import qwen_vl
from repro.models.card import FIXTURES, REGISTRY
from repro.models.skeleton import skeleton
from repro.models.weights import renamed

CLIP = {
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 336},
}
QWEN = {
    "image_mean": CLIP["image_mean"],
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": CLIP["image_std"],
    "max_pixels": 12845056,
    "merge_size": 2,
    "min_pixels": 3136,
    "patch_size": 14,
    "temporal_patch_size": 2,
}
#: Special tokens of Qwen2.5 from the end of its vocabulary on.
QWEN_SPECIAL = [
    "endoftext",
    "im_start",
    "im_end",
    "object_ref_start",
    "object_ref_end",
    "box_start",
    "box_end",
]
QWEN_SPECIAL += [
    "quad_start",
    "quad_end",
    "vision_start",
    "vision_end",
    "vision_pad",
    "image_pad",
    "video_pad",
]


@dataclass(frozen=True)
class Layout:
    """How a checkpoint is published.

    Attributes:
        shards: files on the hub.
        names: beginnings of names in the model -> in the files; the first that fits counts.
        words: ids of the vocabulary before the special tokens, which follow.
        preparation: ``preprocessor_config.json``.
    """

    shards: int
    names: dict[str, str]
    words: int
    special: list[str]
    preparation: dict[str, Any]


LAYOUTS = {
    "llava-1.5": Layout(
        3,
        {
            "lm_head.": "language_model.lm_head.",
            "model.language_model.": "language_model.model.",
            "model.vision_tower.": "vision_tower.vision_model.",
            "model.": "",
        },
        32000,
        ["<image>", "<pad>"],
        CLIP,
    ),
    "qwen2.5-vl": Layout(
        5,
        {"model.language_model.": "model.", "model.visual.": "visual."},
        151643,
        [f"<|{name}|>" for name in QWEN_SPECIAL],
        QWEN,
    ),
    "qwen-vl": Layout(10, {}, 151643, qwen_vl.SPECIAL, {}),
}
#: Qwen-VL's names: of a tensor in the model -> in the files, where some are fused.
QWEN_NAMES = {part: (name,) for name, parts in qwen_vl.NAMES.items() for part in parts}


def published_name(name: str, layout: Layout) -> str:
    """The name of a tensor of the model in the files."""
    if not layout.names:
        return renamed(name, QWEN_NAMES)[0]
    if "vision_tower.vision_model." in name:  # transformers 4
        name = name.replace("vision_tower.vision_model.", "vision_tower.")
    start = next((start for start in layout.names if name.startswith(start)), "")
    return layout.names.get(start, "") + name[len(start) :]


def configuration(name: str, **decoder: int) -> dict[str, Any]:
    """The published configuration, with other settings of its decoder."""
    settings = json.loads((FIXTURES / "published" / name / "config.json").read_text())
    settings.get("text_config", settings).update(decoder)
    settings["torch_dtype"] = settings["dtype"] = "bfloat16"
    return settings


def tensors_of(name: str, directory: Path) -> dict[str, list[int]]:
    """Shapes by published name, of the configuration in a directory."""
    shapes: dict[str, list[int]] = {}
    for key, tensor in skeleton(REGISTRY[name], directory).state_dict().items():
        published = published_name(key, LAYOUTS[name])
        before, *_ = shapes.get(published, [0])  # of the parts of a fused tensor
        shapes[published] = [before + tensor.shape[0], *tensor.shape[1:]]
    return shapes


def size_of(name: str, settings: dict[str, Any], directory: Path) -> int:
    """Bytes of the weights in bfloat16; leaves the configuration in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(settings, indent=2))
    return 2 * sum(map(prod, tensors_of(name, directory).values()))


def write(name: str, settings: dict[str, Any], directory: Path) -> int:
    """Write a checkpoint; returns the bytes of its weights. Holds one tensor at a time."""
    layout, total = LAYOUTS[name], size_of(name, settings, directory)
    shards: list[dict[str, list[int]]] = [{} for _ in range(layout.shards)]
    filled = 0
    for key, shape in tensors_of(name, directory).items():
        shards[filled * layout.shards // total][key] = shape
        filled += 2 * prod(shape)
    files = [f"model-{i + 1:05}-of-{layout.shards:05}.safetensors" for i in range(layout.shards)]
    draw = torch.Generator().manual_seed(0)
    pool = (0.02 * torch.randn(1 << 22, generator=draw)).bfloat16()
    for file, shapes in zip(files, shards, strict=True):
        _write_shard(directory / file, shapes, pool)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {key: file for file, shapes in zip(files, shards, strict=True) for key in shapes},
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    if name == "qwen-vl":
        _write_tiktoken(directory / "qwen.tiktoken", layout.words)
        (directory / "generation_config.json").write_text(json.dumps({"chat_format": "chatml"}))
        return total
    (directory / "preprocessor_config.json").write_text(json.dumps(layout.preparation))
    if name == "llava-1.5":
        shutil.copyfile(FIXTURES / name / "processor_config.json", directory / "processor_config.json")
        patch = settings["vision_config"]["patch_size"]
        text = (directory / "processor_config.json").read_text()
        (directory / "processor_config.json").write_text(json.dumps(json.loads(text) | {"patch_size": patch}))
    _write_tokenizer(directory, layout)
    return total


def _write_shard(file: Path, shapes: dict[str, list[int]], pool: torch.Tensor) -> None:
    """One file of safetensors: its header, then tensors as they are drawn from the pool."""
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for number, (name, shape) in enumerate(shapes.items()):
            opened.write(_drawn(name, shape, pool.roll(number * 9973)).view(torch.uint8).numpy().tobytes())


def _drawn(name: str, shape: list[int], pool: torch.Tensor) -> torch.Tensor:
    """Random matrices, scales of 1 and biases of 0."""
    count = prod(shape)
    if len(shape) > 1 or "embedding" in name:
        return pool.repeat(-(-count // len(pool)))[:count]
    return torch.full([count], float(name.endswith("weight")), dtype=torch.bfloat16)


def _write_tiktoken(file: Path, words: int) -> None:
    """The miniature's words, and after them tokens of two and of three bytes."""
    lines = (FIXTURES / "qwen-vl" / "qwen.tiktoken").read_bytes().splitlines()
    known = {base64.b64decode(line.split()[0]): None for line in lines}
    for length in (2, 3):
        known |= dict.fromkeys(map(bytes, islice(product(range(256), repeat=length), words)))
    ranked = enumerate(islice(known, words))
    file.write_bytes(b"\n".join(base64.b64encode(token) + b" %d" % rank for rank, token in ranked))


def _write_tokenizer(directory: Path, layout: Layout) -> None:
    """The miniature's words, tokens without use, and the special tokens."""
    source = json.loads((FIXTURES / "llava-1.5" / "tokenizer.json").read_text())
    words = source["model"]["vocab"]
    words |= {f"unused-{i}": i for i in range(len(words), layout.words)}
    plain = {key: False for key in ("single_word", "lstrip", "rstrip", "normalized")} | {"special": True}
    kept = [token for token in source["added_tokens"] if token["content"] in words]
    added = [{"id": layout.words + i, "content": text, **plain} for i, text in enumerate(layout.special)]
    if "<image>" not in layout.special:
        source["post_processor"] = None
    (directory / "tokenizer.json").write_text(json.dumps(source | {"added_tokens": kept + added}))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "</s>"}
    settings |= {"bos_token": "<s>", "pad_token": layout.special[1], "clean_up_tokenization_spaces": False}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
