"""LLaVA-1.5: CLIP vision tower, two-layer MLP projector, Llama decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from repro.models.card import ModelCard
from repro.models.llava_release import load_release
from repro.models.loading import check_shapes, load_checkpoint, load_part, load_tokenizer, read_json
from repro.models.lvlm import Prompt
from repro.models.native import Native
from repro.models.pictures import read_image
from repro.segments import Segments

# transformers 5 has a class of its own for machines without torchvision, transformers 4 only the one.
CLIPImageProcessor = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Centre the picture on a square of its longer side (LLaVA, llava/mm_utils.py, expand2square)."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


class Llava(Native):
    """``LlavaForConditionalGeneration`` from ``llava-hf/llava-1.5-7b-hf``, or from its authors' release."""

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Llava:
        preparation, settings = path, {}
        if "vision_config" in read_json(path / "config.json"):
            model: Any = load_checkpoint(LlavaForConditionalGeneration, path, dtype, device)
            tokenizer = load_tokenizer(path)
            settings = read_json(path / "processor_config.json")
            check_shapes(settings, path / "processor_config.json")
        else:
            model, tokenizer = load_release(path, dtype, device)
            preparation = path / "vision_tower"
        processor = LlavaProcessor(
            image_processor=load_part(CLIPImageProcessor, preparation, "preprocessor_config.json"),
            tokenizer=tokenizer,
            patch_size=settings.get("patch_size", model.config.vision_config.patch_size),
            # CLIP's class token counts as additional and is dropped by the "default" strategy.
            num_additional_image_tokens=settings.get("num_additional_image_tokens", 1),
            vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        )
        return cls(card, model, processor, path)

    @property
    def crop_side(self) -> int:
        return self.model.config.vision_config.image_size

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        text = self.wording(question, template)
        preparation = self.processor.image_processor
        red, green, blue = (int(255 * m) for m in preparation.image_mean)
        picture = pad_to_square(read_image(image), (red, green, blue))
        inputs = self.processor(images=picture, text=text, return_tensors="pt").to(self.device)
        ids = inputs["input_ids"]
        is_image = ids[0] == self.image_token_id
        vision = self.model.config.vision_config
        rows = vision.image_size // vision.patch_size
        if int(is_image.sum()) != rows * rows:
            raise ValueError(
                f"the prompt holds {int(is_image.sum())} image tokens, the vision tower gives {rows * rows}: "
                f"patch_size or num_additional_image_tokens in {self.path / 'processor_config.json'} is wrong"
            )
        pixels = inputs["pixel_values"].to(self.model.dtype)
        side = preparation.crop_size["height"]
        return Prompt(
            input_ids=ids,
            image_inputs={"pixel_values": pixels},
            segments=Segments.from_image_mask(is_image.cpu().numpy()),
            grid=(rows, rows),
            image=picture.resize((side, side), Image.Resampling(preparation.resample)),
            text=text,
        )
