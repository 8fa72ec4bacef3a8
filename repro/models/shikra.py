"""Shikra: CLIP vision tower, linear projector, LLaMA decoder; published as a delta over LLaMA-7B.

    python -m repro.models.shikra DELTA BASE TOWER OUT

adds ``shikras/shikra-7b-delta-v1`` to LLaMA-7B, once, and puts ``openai/clip-vit-large-patch14`` beside it.
After shikras/shikra: mllm/models/shikra/shikra.py and apply_delta.py, config/_base_/model/shikra.py.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from repro.models.assembled import (
    LLAMA_SETTINGS,
    Assembled,
    ReadsImages,
    check_vocabulary,
    clip_settings,
    clip_tensors,
    llama_config,
)
from repro.models.card import ModelCard
from repro.models.llava import pad_to_square
from repro.models.loading import (
    CheckpointError,
    load_renamed,
    load_tokenizer,
    published_tensors,
    read_json,
    require,
    shards_of,
    written,
)

NAMES = {
    "model.mm_projector.*": ("mm_projector.*",),
    "model.*": ("model.*",),
    "lm_head.weight": ("lm_head.weight",),
    "vision_model.*": ("vision_tower.*",),
}
MERGE = "merge delta, LLaMA and CLIP once: python -m repro.models.shikra DELTA LLAMA CLIP OUT"
PATCH, START, END = "<im_patch>", "<im_start>", "<im_end>"
#: Tensors of a merged checkpoint that LLaMA has not, or has with fewer rows (Shikra adds three tokens).
ADDED = ("model.mm_projector.weight", "model.mm_projector.bias")
LONGER = ("model.embed_tokens.weight", "lm_head.weight")


class ShikraForCausalLM(ReadsImages, LlamaForCausalLM):
    """The model; ``config.vision`` configures the tower, ``config.image_token`` is the id of <im_patch>."""

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        tower = CLIPVisionModel(CLIPVisionConfig(**config.vision))
        # transformers 5 has no inner model any more
        self.vision_tower = getattr(tower, "vision_model", tower)
        self.mm_projector = nn.Linear(config.vision["hidden_size"], config.hidden_size)
        self.image_token_id = config.image_token

    def patches(self, pixel_values: Tensor) -> Tensor:
        """Features [B, n_image, width of the tower] that the projector reads."""
        states = self.vision_tower(pixel_values, output_hidden_states=True).hidden_states
        return states[self.config.mm_vision_select_layer][:, 1:]

    def image_features(self, pixel_values: Tensor) -> Tensor:
        return self.mm_projector(self.patches(pixel_values))


class Shikra(Assembled):
    """A merged Shikra: delta plus LLaMA, with CLIP's published files in ``vision_tower/``."""

    mean, std = tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD)

    @classmethod
    def check(cls, card: ModelCard, path: Path) -> None:
        super().check(card, path / "delta" if (path / "delta").is_dir() else path)

    @classmethod
    @contextmanager
    def whole(cls, path: Path) -> Iterator[Path]:
        """``path``; where it holds ``delta/``, ``base/`` and ``tower/`` instead, what ``merge`` makes of them.

        That is for small models: it is done again at every loading.
        """
        if not (path / "delta").is_dir():
            yield path
            return
        with TemporaryDirectory() as folder:
            merge(path / "delta", path / "base", path / "tower", Path(folder))
            try:
                yield Path(folder)
            except CheckpointError as error:  # it names the files as they were given
                said = str(error).replace(str(Path(folder, "vision_tower")), str(path / "tower"))
                raise CheckpointError(said.replace(folder, str(path / "delta"))) from error

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Shikra:
        vision = clip_settings(path / "vision_tower" / "config.json", MERGE)
        published = read_json(path / "config.json")
        require(published, path / "config.json", LLAMA_SETTINGS)
        tokenizer = load_tokenizer(path)
        check_vocabulary(tokenizer, published, path)
        if absent := [token for token in (PATCH, START, END) if token not in tokenizer.get_vocab()]:
            raise CheckpointError(f"the tokenizer in {path} has no {', '.join(absent)}: it is not Shikra's")
        tensors = published_tensors(path)
        if ADDED[0] not in tensors:
            raise CheckpointError(f"{path} holds no {ADDED[0]}: it is not a merged Shikra, see {__name__}")
        tensors |= clip_tensors(path / "vision_tower", MERGE)
        config = llama_config(published, vision=vision, image_token=tokenizer.convert_tokens_to_ids(PATCH))
        model = load_renamed(ShikraForCausalLM, config, tensors, path, NAMES, dtype, device)
        lvlm = cls(card, model, tokenizer, path)
        lvlm.n_image = (vision["image_size"] // vision["patch_size"]) ** 2
        return lvlm

    @property
    def crop_side(self) -> int:
        return self.model.config.vision["image_size"]

    def prepare(self, image: Image.Image) -> Image.Image:
        side = self.model.config.vision["image_size"]
        return pad_to_square(image, (255, 255, 255)).resize((side, side), Image.Resampling.BICUBIC)

    def tokens(self, question: str, template: str) -> tuple[str, list[int]]:
        if self.card.placeholder not in question:
            question = f"{self.card.placeholder} {question}"
        text = template.format(question=question)
        before, behind = text.split(self.card.placeholder, 1)
        return text, [
            *leading_ids(self.tokenizer, before, self.n_image),
            *self.tokenizer(behind.lstrip(), add_special_tokens=False).input_ids,
        ]


def leading_ids(tokenizer: Any, before: str, n_image: int) -> list[int]:
    """Ids of the text before an image, and of the image between its start and its end.

    The tokenizer its authors ran drops the blanks on both sides of such tokens, which later ones keep or not by
    version and by the layout of the tokenizer's files; so the image's tokens are put in as ids.
    """
    start, patch, end = tokenizer.convert_tokens_to_ids([START, PATCH, END])
    return [*tokenizer(before.rstrip()).input_ids, start, *[patch] * n_image, end]


def merged(name: str, delta: Tensor, base: Mapping[str, Tensor]) -> Tensor:
    """A tensor of the model from its delta (``apply_delta.py``); CheckpointError where the two do not fit."""
    if name not in base:
        if name in ADDED:
            return delta
        raise CheckpointError(f"the delta's {name} is not in the base: the base must be LLaMA-7B")
    below = base[name]
    longer = name in LONGER and delta.shape[1:] == below.shape[1:] and len(delta) > len(below)
    if delta.shape != below.shape and not longer:
        raise CheckpointError(
            f"{name} is {list(delta.shape)} in the delta and {list(below.shape)} in the base: the base must be "
            "LLaMA-7B"
        )
    made = delta.clone()
    made[: len(below)] += below.to(delta.dtype)
    return made


def merge(delta: Path, base: Path, tower: Path, out: Path) -> None:
    """Write delta + base to ``out``, shard by shard; a merge that is killed goes on behind its last whole shard.

    Args:
        delta, base: checkpoint directories with safetensors; the sum has the delta's dtype.
        tower: CLIP's checkpoint directory, copied into ``out/vision_tower``.

    Raises:
        CheckpointError: a file is missing or damaged, or delta and base do not fit.
    """
    if out.resolve() in (delta.resolve(), base.resolve(), tower.resolve()):
        raise CheckpointError(f"{out} is one of the sources: name another directory")
    seen = [tower / "config.json", *shards_of(tower), *tower.glob("model.safetensors.index.json")]
    if not seen[0].is_file():
        raise CheckpointError(f"{seen[0]} is missing: get openai/clip-vit-large-patch14 as it is published")
    below = published_tensors(base)
    if absent := sorted(set(below) - set(published_tensors(delta))):
        raise CheckpointError(f"the delta lacks {', '.join(absent[:5])}: {delta} is not Shikra's delta")
    out.mkdir(parents=True, exist_ok=True)
    for file in tqdm(shards_of(delta), desc="merging", unit="shard"):
        made = written(out / file.name, [file, *shards_of(base)])
        if made is None:
            continue
        above = published_tensors(delta, file.name)
        # No name for the merged tensors: it would keep them in memory while the next shard is merged.
        save_file(
            {name: merged(name, tensor, below) for name, tensor in above.items()},
            out / "partial",
            metadata=made,
        )
        (out / "partial").replace(out / file.name)
    for file in delta.iterdir():
        if file.suffix in (".json", ".model") and file.is_file():
            shutil.copyfile(file, out / file.name)
    (out / "vision_tower").mkdir(exist_ok=True)
    for file in seen:
        shutil.copyfile(file, out / "vision_tower" / file.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("delta", "base", "tower", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    try:
        merge(arguments.delta, arguments.base, arguments.tower, arguments.out)
    except CheckpointError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
