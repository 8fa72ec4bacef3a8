"""LLaVA-1.5: CLIP vision tower, two-layer MLP projector, Llama decoder."""

from pathlib import Path
from typing import Any, Self

import torch
import transformers
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from repro.models.card import ModelCard
from repro.models.images import pad_to_square, read_image
from repro.models.llava_release import load_release
from repro.models.loading import CheckpointError, check_shapes, load_part, load_tokenizer, read_json
from repro.models.native import Native
from repro.models.prompts import Prompt
from repro.models.weights import load_checkpoint
from repro.segments import Segments

# transformers 5 has another class for machines without torchvision, transformers 4 only this one.
CLIPImageProcessor = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor


class Llava(Native):
    """``LlavaForConditionalGeneration`` from ``llava-hf/llava-1.5-7b-hf``, or from its authors' release."""

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Self:
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
            patch_size=settings.get("patch_size") or model.config.vision_config.patch_size,
            # CLIP's class token counts as additional and is dropped by the "default" strategy.
            num_additional_image_tokens=settings.get("num_additional_image_tokens", 1),
            vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        )
        if not processor.image_processor.do_resize:
            raise CheckpointError(f"{preparation}: do_resize is false; expected true: get the published file")
        return cls(card, model, processor, path)

    @property
    def crop_side(self) -> int:
        return self.model.config.vision_config.image_size

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        text = self.prompt_text(question, template)
        preparation = self.processor.image_processor
        side = preparation.size["shortest_edge"]
        image = pad_to_square(read_image(image), preparation.image_mean, side, preparation.resample)
        inputs = self.processor(images=image, text=text, return_tensors="pt").to(self.device)
        is_image = (inputs["input_ids"][0] == self.image_token_id).cpu().numpy()
        vision = self.model.config.vision_config
        rows = vision.image_size // vision.patch_size
        if is_image.sum() != rows * rows:
            raise ValueError(
                f"the prompt holds {is_image.sum()} image tokens, the vision tower gives {rows * rows}: "
                f"patch_size or num_additional_image_tokens in {self.path / 'processor_config.json'} is wrong"
            )
        return Prompt(
            input_ids=inputs["input_ids"],
            image_inputs={"pixel_values": inputs["pixel_values"].to(self.model.dtype)},
            segments=Segments.from_image_mask(is_image),
            grid=(rows, rows),
            image=image,
            text=text,
        )
