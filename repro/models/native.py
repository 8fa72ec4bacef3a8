"""Models that transformers has completely, with a decoder of the usual build: a card is enough to add one.

Requirements: ``AutoModelForImageTextToText`` knows the card's ``model_type``; the decoder is
``model.language_model`` and the head ``lm_head``; ``get_image_features`` returns the features of an image, and one
token id stands for each.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from repro.models.card import ModelCard
from repro.models.images import read_image
from repro.models.loading import load_tokenizer
from repro.models.lvlm import Lvlm
from repro.models.processors import load_image_processor
from repro.models.prompts import Prompt
from repro.models.weights import load_checkpoint
from repro.segments import Segments


@dataclass(frozen=True)
class Parts:
    """A processor. transformers' own classes also require a video processor, and that requires torchvision."""

    image_processor: Any
    tokenizer: Any


class Native(Lvlm):
    """A model behind ``AutoModelForImageTextToText``, as its card describes it."""

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Self:
        model = load_checkpoint(AutoModelForImageTextToText, path, dtype, device)
        return cls(card, model, Parts(load_image_processor(path), load_tokenizer(path)), path)

    def prompt_text(self, question: str, template: str) -> str:
        """The complete prompt; ValueError unless it holds one image placeholder."""
        text = template.format(question=question)
        if (count := text.count(self.card.placeholder)) != 1:
            raise ValueError(
                f"the prompt holds {count} image placeholders {self.card.placeholder!r} for 1 image: "
                f"the template brings the one it needs, so the question must hold none: {question!r}"
            )
        return text

    def preprocess(self, image: Image.Image) -> dict[str, Tensor]:
        """The inputs that the image processor makes from an image and that the model reads."""
        outputs = self.processor.image_processor(image, return_tensors="pt", **self.card.image_settings)
        inputs = _accepted(self.model.get_image_features, outputs.to(self.device))
        return inputs | {"pixel_values": inputs["pixel_values"].to(self.model.dtype)}

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        text, image = self.prompt_text(question, template), read_image(image)
        ids = self.tokenizer(text).input_ids
        if (count := ids.count(self.image_token_id)) != 1:
            raise ValueError(
                f"the tokenizer of {self.path} makes {count} image tokens {self.image_token_id} of "
                f"{self.card.placeholder!r}, not 1"
            )
        inputs = self.preprocess(image)
        grid, cells = self.grid_cells(image, inputs)
        start = ids.index(self.image_token_id)
        ids[start : start + 1] = [self.image_token_id] * len(cells)
        input_ids = torch.tensor([ids], device=self.device)
        types = {}
        if "mm_token_type_ids" in inspect.signature(self.model.forward).parameters:
            # transformers 5 finds the image for the rotary positions by them.
            types["mm_token_type_ids"] = torch.isin(input_ids, torch.tensor(self.image_token_ids)).int()
        return Prompt(
            input_ids=input_ids,
            image_inputs=inputs,
            segments=Segments.from_image_mask(np.asarray(ids) == self.image_token_id),
            grid=grid,
            image=image.resize(self.tower_size(inputs), Image.Resampling.BICUBIC),
            text=text,
            cells=cells,
            sequence_inputs=types,
        )

    def tower_size(self, inputs: dict[str, Tensor]) -> tuple[int, int]:
        """Width and height of the complete image as the vision tower sees it."""
        if "image_grid_thw" in inputs:
            patch = self.processor.image_processor.patch_size
            _, height, width = (inputs["image_grid_thw"][0] * patch).tolist()
        else:
            height, width = inputs["pixel_values"].shape[-2:]
        return width, height

    def grid_cells(self, image: Image.Image, inputs: dict[str, Tensor]) -> tuple[tuple[int, int], np.ndarray]:
        """The grid over an image, and for each of its tokens the cell it covers, -1 if it covers none.

        Tiles are finer than the grid of the complete image: their tokens go to the cell that holds their centre.
        """
        if "image_grid_thw" in inputs:
            blocks = inputs["image_grid_thw"][0] // self.processor.image_processor.merge_size
            rows, columns = blocks[1:].tolist()
            return (rows, columns), np.arange(rows * columns)
        if "image_sizes" in inputs:
            return self._cells_of_anyres(inputs["image_sizes"][0].tolist())
        side, tiles = self.tile_side, len(inputs["pixel_values"])
        return (side, side), np.arange(side * side) if tiles == 1 else self._cells_of_tiles(image)

    @cached_property
    def tile_side(self) -> int:
        """Rows and columns of the tokens of one tile."""
        blank = self.preprocess(Image.new("RGB", (16, 16)))
        with torch.inference_mode():
            return isqrt(len(self.features({"pixel_values": blank["pixel_values"][:1]})))

    def _cells_of_tiles(self, image: Image.Image) -> np.ndarray:
        """Cells of the tokens of tiles, found by cutting an image whose colours encode the place of each pixel."""
        width, height = image.size
        colours = np.zeros((height, width, 3))
        colours[..., 0] = (np.arange(width) + 0.5) / width
        colours[..., 1] = (np.arange(height)[:, None] + 0.5) / height
        ramp = Image.fromarray((255 * colours).round().astype(np.uint8))
        preparation, side = self.processor.image_processor, self.tile_side
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preparation.image_mean, preparation.image_std))
        tiles = self.preprocess(ramp)["pixel_values"].float().cpu() * std + mean
        column, row, _ = (F.adaptive_avg_pool2d(tiles, side) * side).long().clamp(0, side - 1).unbind(1)
        return (row * side + column).flatten().numpy()

    def _cells_of_anyres(self, size: list[int]) -> tuple[tuple[int, int], np.ndarray]:
        """``grid_cells`` of an image of this (height, width) in the any-resolution tiles of LLaVA-1.6 and later.

        The complete image comes first; then its tiles put together, without their padding, each row closed by a
        newline. LLaVA-OneVision shrinks them if there are many.
        """
        config = self.model.config
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        high, wide = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, vision.image_size)
        rows, columns = unpad_image(torch.zeros(1, high * side, wide * side), size).shape[1:]
        most = getattr(config, "vision_aspect_ratio", "anyres_max_").removeprefix("anyres_max_")
        ratio = (rows * columns / (int(most) * side**2)) ** 0.5 if most else 0
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        row = ((np.arange(rows) + 0.5) * side // rows).astype(int)
        column = ((np.arange(columns) + 0.5) * side // columns).astype(int)
        tiles = np.concatenate([row[:, None] * side + column, np.full((rows, 1), -1)], axis=1)
        return (side, side), np.concatenate([np.arange(side * side), tiles.reshape(-1)])

    def features(self, image_inputs: dict[str, Tensor]) -> Tensor:
        features = self.model.get_image_features(**image_inputs)
        # transformers 5 wraps the features of all images; alone they are one tensor, or one per image.
        return torch.cat(tuple(getattr(features, "pooler_output", features)))

    def with_noise(self, prompt: Prompt, noise: Tensor) -> dict[str, Tensor]:
        # Flat patches hold channel, frame, row and column; an image is the same in all frames.
        if noise.dim() == 3:
            frames = self.processor.image_processor.temporal_patch_size
            noise = noise.view(*noise.shape[:2], 3, frames, -1)
            noise = noise[:, :, :, :1].expand_as(noise)
        return super().with_noise(prompt, noise)


def _accepted(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that ``function`` names as its parameters."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in names}
