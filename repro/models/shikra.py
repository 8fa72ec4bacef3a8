"""Shikra: CLIP vision tower, linear projector, LLaMA decoder; published as a delta over LLaMA-7B.

    python -m repro.models.shikra DELTA BASE TOWER OUT

adds ``shikras/shikra-7b-delta-v1`` to LLaMA-7B, once, and copies ``openai/clip-vit-large-patch14`` next to it.
After shikras/shikra: mllm/models/shikra/shikra.py and apply_delta.py, config/_base_/model/shikra.py.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from repro.models import assembled, weights
from repro.models.anatomy import first_output
from repro.models.card import ModelCard
from repro.models.loading import CheckpointError, load_tokenizer, read_json, require

NAMES = {
    "model.mm_projector.*": ("mm_projector.*",),
    "model.*": ("model.*",),
    "lm_head.weight": ("lm_head.weight",),
    "vision_model.*": ("vision_tower.*",),
}
MERGE = "merge delta, LLaMA and CLIP once: python -m repro.models.shikra DELTA LLAMA CLIP OUT"
PATCH, START, END = "<im_patch>", "<im_start>", "<im_end>"
#: Tensors of a merged checkpoint that LLaMA lacks, or has with fewer rows (Shikra adds three tokens).
ADDED = ("model.mm_projector.weight", "model.mm_projector.bias")
LONGER = ("model.embed_tokens.weight", "lm_head.weight")


class ShikraForCausalLM(assembled.ReadsImages, LlamaForCausalLM):
    """The model; ``config.vision`` configures the tower, ``config.image_token_id`` is the id of <im_patch>."""

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        tower = CLIPVisionModel(CLIPVisionConfig(**config.vision))
        # transformers 5 has no inner model
        self.vision_tower = getattr(tower, "vision_model", tower)
        self.mm_projector = nn.Linear(config.vision["hidden_size"], config.hidden_size)

    def patches(self, pixel_values: Tensor) -> Tensor:
        # Not by output_hidden_states, which the inner model of transformers 5.0 and 5.1 does not obey.
        states: list[Tensor] = []
        layer = self.vision_tower.encoder.layers[self.config.mm_vision_select_layer]
        handle = layer.register_forward_hook(lambda _, args, output: states.append(first_output(output)))
        try:
            self.vision_tower(pixel_values)
        finally:
            handle.remove()
        return states[0][:, 1:]


class Shikra(assembled.Assembled):
    """A merged Shikra: delta plus LLaMA, with CLIP's published files in ``vision_tower/``."""

    margins = (1.0, 1.0, 1.0)

    @classmethod
    def check(cls, card: ModelCard, path: Path) -> None:
        super().check(card, path / "delta" if (path / "delta").is_dir() else path)

    @classmethod
    @contextmanager
    def loadable(cls, path: Path) -> Iterator[Path]:
        """``path``, or ``merge`` of ``delta/``, ``base/`` and ``tower/`` if it holds these.

        They are merged each time they are loaded, which suits small models.
        """
        if not (path / "delta").is_dir():
            yield path
            return
        with TemporaryDirectory() as folder:
            merge(path / "delta", path / "base", path / "tower", Path(folder))
            try:
                yield Path(folder)
            except CheckpointError as error:  # with the names of the original files
                message = str(error).replace(str(Path(folder, "vision_tower")), str(path / "tower"))
                raise CheckpointError(message.replace(folder, str(path / "delta"))) from error

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Self:
        tower = path / "vision_tower"
        vision = assembled.clip_settings(tower / "config.json", MERGE)
        published = read_json(path / "config.json")
        require(published, path / "config.json", assembled.LLAMA_SETTINGS)
        tokenizer = load_tokenizer(path)
        assembled.check_vocabulary(tokenizer, published, path)
        if absent := [token for token in (PATCH, START, END) if token not in tokenizer.get_vocab()]:
            raise CheckpointError(f"the tokenizer in {path} has no {', '.join(absent)}: it is not Shikra's")
        tensors = weights.published_tensors(path)
        if ADDED[0] not in tensors:
            raise CheckpointError(f"{path} holds no {ADDED[0]}: it is not a merged Shikra, see {__name__}")
        tensors |= assembled.clip_tensors(tower, MERGE)
        patch_id = tokenizer.convert_tokens_to_ids(PATCH)
        config = assembled.llama_config(published, vision=vision, image_token_id=patch_id)
        model = weights.load_renamed(ShikraForCausalLM, config, tensors, path, NAMES, dtype, device)
        lvlm = cls(card, model, tokenizer, path)
        lvlm.side = vision["image_size"]
        lvlm.n_image = (vision["image_size"] // vision["patch_size"]) ** 2
        return lvlm

    def tokens(self, question: str, template: str) -> tuple[str, list[int]]:
        if self.card.placeholder not in question:
            question = f"{self.card.placeholder} {question}"
        text = template.format(question=question)
        before, after = text.split(self.card.placeholder, 1)
        ids = leading_ids(self.tokenizer, before, self.n_image)
        return text, ids + self.tokenizer(after.lstrip(), add_special_tokens=False).input_ids


def leading_ids(tokenizer: Any, before: str, n_image: int) -> list[int]:
    """Ids of the text before an image, and of the image between its start and end tokens.

    The authors' tokenizer drops the spaces on both sides of such tokens. Later ones keep them or not, depending on
    the version and the layout of the tokenizer's files, so the image's tokens are inserted as ids.
    """
    start, patch, end = tokenizer.convert_tokens_to_ids([START, PATCH, END])
    return [*tokenizer(before.rstrip()).input_ids, start, *[patch] * n_image, end]


def merged(name: str, delta: Tensor, base: Mapping[str, Tensor]) -> Tensor:
    """A tensor of the model from its delta (``apply_delta.py``); CheckpointError if the two do not fit."""
    if name not in base:
        if name in ADDED:
            return delta
        raise CheckpointError(f"the delta's {name} is not in the base: the base must be LLaMA-7B")
    tensor = base[name]
    longer = name in LONGER and delta.shape[1:] == tensor.shape[1:] and len(delta) > len(tensor)
    if delta.shape != tensor.shape and not longer:
        raise CheckpointError(
            f"{name} is {list(delta.shape)} in the delta and {list(tensor.shape)} in the base: the base must be "
            "LLaMA-7B"
        )
    total = delta.clone()
    total[: len(tensor)] += tensor.to(delta.dtype)
    return total


def merge(delta: Path, base: Path, tower: Path, out: Path) -> None:
    """Write delta + base to ``out``, by shard; after an interruption, continue after the last full shard.

    Args:
        delta, base: checkpoint directories with safetensors; the sum has the delta's dtype.
        tower: CLIP's checkpoint directory, copied into ``out/vision_tower``.

    Raises CheckpointError if a file is missing or damaged, or delta and base do not fit.
    """
    if out.resolve() in (delta.resolve(), base.resolve(), tower.resolve()):
        raise CheckpointError(f"{out} is one of the sources: name another directory")
    tower_files = [tower / "config.json", *weights.shards_of(tower), *tower.glob(weights.INDEX)]
    if not tower_files[0].is_file():
        raise CheckpointError(f"{tower_files[0]} is missing: get openai/clip-vit-large-patch14 as published")
    base_tensors = weights.published_tensors(base)
    if absent := sorted(set(base_tensors) - set(weights.published_tensors(delta))):
        raise CheckpointError(f"the delta lacks {', '.join(absent[:5])}: {delta} is not Shikra's delta")

    def merged_shard(file: Path) -> dict[str, Tensor]:
        return {
            name: merged(name, tensor, base_tensors) for name, tensor in weights.stored_tensors(file).items()
        }

    out.mkdir(parents=True, exist_ok=True)
    for file in tqdm(weights.shards_of(delta), desc="merging", unit="shard"):
        weights.write_shard(out / file.name, [file, *weights.shards_of(base)], partial(merged_shard, file))
    for file in delta.iterdir():
        if file.suffix in (".json", ".model") and file.is_file():
            shutil.copyfile(file, out / file.name)
    (out / "vision_tower").mkdir(exist_ok=True)
    for file in tower_files:
        shutil.copyfile(file, out / "vision_tower" / file.name)


if __name__ == "__main__":
    weights.run_command(merge, __doc__, "delta", "base", "tower", "out")
