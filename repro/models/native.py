"""Models that transformers has whole, with a decoder of the usual build: a card is enough for one.

What is asked of them: ``AutoModelForImageTextToText`` knows the card's ``model_type``; the decoder is
``model.language_model`` and the head ``lm_head``; ``get_image_features`` gives the features of a picture, and one
token id stands for each of them.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModelForImageTextToText
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from repro.models.card import ModelCard
from repro.models.loading import load_checkpoint, load_part, load_tokenizer
from repro.models.lvlm import Lvlm, Prompt
from repro.models.pictures import read_image
from repro.segments import Segments

#: Pictures are prepared with PIL also where torchvision is installed, whose resizing differs.
WITH_PIL = {"backend": "pil"} if hasattr(transformers, "CLIPImageProcessorPil") else {"use_fast": False}


@dataclass(frozen=True)
class Parts:
    """What is used of a processor. transformers' own classes also want a video processor, and that torchvision."""

    image_processor: Any
    tokenizer: Any


class Native(Lvlm):
    """A model behind ``AutoModelForImageTextToText``, as its card describes it."""

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Native:
        model = load_checkpoint(AutoModelForImageTextToText, path, dtype, device)
        preparation = load_part(AutoImageProcessor, path, "preprocessor_config.json", **WITH_PIL)
        return cls(card, model, Parts(preparation, load_tokenizer(path)), path)

    @property
    def decoder(self) -> Any:
        return self.model.model.language_model

    @property
    def head(self) -> nn.Module:
        return self.model.lm_head

    @property
    def image_token_id(self) -> int:
        return self.model.config.image_token_id

    def wording(self, question: str, template: str) -> str:
        """The whole prompt as text; ValueError unless it holds one image placeholder."""
        text = template.format(question=question)
        found = text.count(self.card.placeholder)
        if found != 1:
            raise ValueError(
                f"the prompt holds {found} image placeholders {self.card.placeholder!r} for 1 image: "
                f"the template brings the one it needs, so the question must hold none: {question!r}"
            )
        return text

    def prepared(self, picture: Image.Image) -> dict[str, Tensor]:
        """What the image processor makes of a picture and the model reads."""
        made = self.processor.image_processor(picture, return_tensors="pt", **self.card.image_settings)
        read = inspect.signature(self.model.get_image_features).parameters
        inputs = {key: value.to(self.device) for key, value in made.items() if key in read}
        return inputs | {"pixel_values": inputs["pixel_values"].to(self.model.dtype)}

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        text, picture = self.wording(question, template), read_image(image)
        ids = self.tokenizer(text).input_ids
        if ids.count(self.image_token_id) != 1:
            raise ValueError(
                f"the tokenizer of {self.path} makes {ids.count(self.image_token_id)} image tokens "
                f"{self.image_token_id} of {self.card.placeholder!r}, not 1"
            )
        inputs = self.prepared(picture)
        grid, cells = self.places(picture, inputs)
        at = ids.index(self.image_token_id)
        ids[at : at + 1] = [self.image_token_id] * len(cells)
        return Prompt(
            input_ids=torch.tensor([ids], device=self.device),
            image_inputs=inputs,
            segments=Segments.from_image_mask(np.asarray(ids) == self.image_token_id),
            grid=grid,
            image=picture.resize(self.seen_size(inputs), Image.Resampling.BICUBIC),
            text=text,
            cells=cells,
        )

    def seen_size(self, inputs: dict[str, Tensor]) -> tuple[int, int]:
        """Width and height of the whole picture as the vision tower sees it."""
        if "image_grid_thw" in inputs:
            _, rows, columns = (
                inputs["image_grid_thw"][0] * self.processor.image_processor.patch_size
            ).tolist()
            return columns, rows
        height, width = inputs["pixel_values"].shape[-2:]
        return width, height

    def places(self, picture: Image.Image, inputs: dict[str, Tensor]) -> tuple[tuple[int, int], np.ndarray]:
        """The grid over a picture, and for each of its tokens the cell it covers, -1 where it covers none.

        Tiles are finer than the grid of the whole picture: their tokens go to the cell that holds their centre.
        """
        if "image_grid_thw" in inputs:
            blocks = inputs["image_grid_thw"][0] // self.processor.image_processor.merge_size
            rows, columns = blocks[1:].tolist()
            return (rows, columns), np.arange(rows * columns)
        if "image_sizes" in inputs:
            return self._places_of_anyres(inputs["image_sizes"][0].tolist())
        side, tiles = self.tile_side, len(inputs["pixel_values"])
        cells = np.arange(side * side) if tiles == 1 else self._places_of_tiles(picture)
        return (side, side), cells

    @cached_property
    def tile_side(self) -> int:
        """Rows and columns of the tokens of one tile."""
        blank = self.prepared(Image.new("RGB", (16, 16)))
        with torch.inference_mode():
            return isqrt(len(self.features({"pixel_values": blank["pixel_values"][:1]})))

    def _places_of_tiles(self, picture: Image.Image) -> np.ndarray:
        """Where tiles were cut, seen by cutting a picture whose colours say where a pixel is."""
        width, height = picture.size
        colours = np.zeros((height, width, 3))
        colours[..., 0] = (np.arange(width) + 0.5) / width
        colours[..., 1] = (np.arange(height)[:, None] + 0.5) / height
        ramp = Image.fromarray((255 * colours).round().astype(np.uint8))
        preparation, side = self.processor.image_processor, self.tile_side
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preparation.image_mean, preparation.image_std))
        seen = self.prepared(ramp)["pixel_values"].float().cpu() * std + mean
        column, row, _ = (F.adaptive_avg_pool2d(seen, side) * side).long().clamp(0, side - 1).unbind(1)
        return (row * side + column).flatten().numpy()

    def _places_of_anyres(self, size: list[int]) -> tuple[tuple[int, int], np.ndarray]:
        """For the any-resolution tiles of LLaVA-1.6 and after, and a picture of this (height, width).

        The whole picture comes first; then its tiles put together, without their padding, each row closed by a
        newline. LLaVA-OneVision shrinks them where there are many.
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
        finer = np.concatenate([row[:, None] * side + column, np.full((rows, 1), -1)], axis=1)
        return (side, side), np.concatenate([np.arange(side * side), finer.reshape(-1)])

    def features(self, image_inputs: dict[str, Tensor]) -> Tensor:
        found = self.model.get_image_features(**image_inputs)
        # transformers 5 wraps the features of all images; alone they are one tensor, or one per image.
        return torch.cat(tuple(getattr(found, "pooler_output", found)))

    def positions(self, prompt: Prompt, after: int = 0) -> Tensor | None:
        place = getattr(self.model.model, "get_rope_index", None)
        if place is None:
            return None
        given = self.generation_inputs(prompt)
        given = {key: given[key] for key in inspect.signature(place).parameters if key in given}
        at = place(prompt.input_ids, **given)[0]
        # A prompt ends with text, whose three positions are one and go on by one each.
        return torch.cat([at, at[..., -1:] + torch.arange(1, after + 1, device=at.device)], dim=-1)

    def generation_inputs(self, prompt: Prompt) -> dict[str, Tensor]:
        if "mm_token_type_ids" not in inspect.signature(self.model.forward).parameters:
            return prompt.image_inputs
        # transformers 5 finds the image for the rotary positions by them.
        return prompt.image_inputs | {"mm_token_type_ids": (prompt.input_ids == self.image_token_id).int()}

    def with_noise(self, prompt: Prompt, noise: Tensor) -> dict[str, Tensor]:
        if (
            noise.dim() == 3
        ):  # patches lie flat: channel, frame, row and column; a picture is the same in all frames
            frames = self.processor.image_processor.temporal_patch_size
            noise = noise.view(*noise.shape[:2], 3, frames, -1)
            noise = noise[:, :, :, :1].expand_as(noise)
        return super().with_noise(prompt, noise)

    def batched(self, prompts: list[Prompt]) -> dict[str, Tensor]:
        pixels = [prompt.image_inputs["pixel_values"] for prompt in prompts]
        if (
            pixels[0].dim() == 5
        ):  # [1, tiles, 3, H, W]; the model knows from the size how many tiles are a picture's
            most = max(one.shape[1] for one in pixels)
            padded = [F.pad(one, (0, 0, 0, 0, 0, 0, 0, most - one.shape[1])) for one in pixels]
            prompts = [
                replace(prompt, image_inputs={**prompt.image_inputs, "pixel_values": one})
                for prompt, one in zip(prompts, padded, strict=True)
            ]
        return super().batched(prompts)
