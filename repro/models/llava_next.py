"""LLaVA-1.6: LLaVA with any-resolution tiles; the whole picture once, then its tiles, rows closed by a newline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from repro.models.llava import Llava
from repro.models.lvlm import Prompt, read_image
from repro.segments import Segments


class LlavaNext(Llava):
    """``LlavaNextForConditionalGeneration`` in the layout of ``llava-hf/llava-v1.6-vicuna-7b-hf``."""

    model_type = "llava_next"
    architecture = LlavaNextForConditionalGeneration
    processor_class = LlavaNextProcessor
    # As for CLIP's: transformers 5 has a class of its own for machines without torchvision.
    image_processor_class = (
        getattr(transformers, "LlavaNextImageProcessorPil", None) or transformers.LlavaNextImageProcessor
    )

    def prompt(self, image: str | Path | Image.Image, question: str, template: str | None = None) -> Prompt:
        text = self.wording(question, template)
        picture = read_image(image)
        inputs = self.processor(images=picture, text=text, return_tensors="pt").to(self.device)
        is_image = (inputs["input_ids"][0] == self.image_token_id).cpu().numpy()
        cells = self.cells(inputs["image_sizes"][0])
        if is_image.sum() != len(cells):
            raise ValueError(
                f"the prompt holds {is_image.sum()} image tokens, the picture gives {len(cells)}: patch_size or "
                f"num_additional_image_tokens in {self.path / 'processor_config.json'} is wrong"
            )
        side = self.model.config.vision_config.image_size
        return Prompt(
            input_ids=inputs["input_ids"],
            image_inputs={
                "pixel_values": inputs["pixel_values"].to(self.model.dtype),
                "image_sizes": inputs["image_sizes"],
            },
            segments=Segments.from_image_mask(is_image),
            grid=self.base_grid,
            image=picture.resize((side, side), Image.Resampling.BICUBIC),
            text=text,
            cells=cells,
        )

    @property
    def base_grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of the whole picture."""
        vision = self.model.config.vision_config
        rows = vision.image_size // vision.patch_size
        return rows, rows

    def cells(self, size: Tensor) -> np.ndarray:
        """Where each image token of a picture of this (height, width) lies in the base grid; -1 for a newline.

        Tiles are finer than the base grid: their tokens go to the cell that their centre falls into.
        """
        config, (rows, columns) = self.model.config, self.base_grid
        high, wide = get_anyres_image_grid_shape(
            size.tolist(), config.image_grid_pinpoints, config.vision_config.image_size
        )
        tiles = unpad_image(torch.zeros(1, high * rows, wide * columns), size.tolist()).shape[1:]
        row = ((np.arange(tiles[0]) + 0.5) * rows // tiles[0]).astype(int)
        column = ((np.arange(tiles[1]) + 0.5) * columns // tiles[1]).astype(int)
        finer = row[:, None] * columns + column[None]
        finer = np.concatenate([finer, np.full((len(finer), 1), -1)], axis=1)
        return np.concatenate([np.arange(rows * columns), finer.reshape(-1)])

    def batched(self, prompts: list[Prompt]) -> dict[str, Tensor]:
        pixels = [prompt.image_inputs["pixel_values"] for prompt in prompts]
        most = max(one.shape[1] for one in pixels)
        padded = [F.pad(one, (0, 0, 0, 0, 0, 0, 0, most - one.shape[1])) for one in pixels]
        sizes = [prompt.image_inputs["image_sizes"] for prompt in prompts]
        return {"pixel_values": torch.cat(padded), "image_sizes": torch.cat(sizes)}

    def with_noise(self, prompt: Prompt, noise: Tensor) -> dict[str, Tensor]:
        std = torch.tensor(self.processor.image_processor.image_std, device=self.device).view(3, 1, 1)
        pixels = prompt.image_inputs["pixel_values"]
        return {
            "pixel_values": pixels + (noise.to(self.device) / std).to(pixels.dtype),
            "image_sizes": prompt.image_inputs["image_sizes"].expand(len(noise), -1),
        }
