"""InstructBLIP: EVA-CLIP tower, a Q-Former that reads image and question, Vicuna decoder.

Its 32 image tokens are queries without a place in the image, and stand before the BOS token: S is empty. The
Q-Former reads the end of a long question, as in salesforce/LAVIS, blip2_vicuna_instruct.py; the decoder reads all.
"""

from pathlib import Path
from typing import Any, Self

import torch
import transformers
from PIL import Image
from tokenizers import AddedToken
from transformers import AutoTokenizer, InstructBlipForConditionalGeneration, InstructBlipProcessor

from repro.models.card import ModelCard
from repro.models.images import read_image
from repro.models.loading import load_part, load_tokenizer
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.weights import load_checkpoint
from repro.segments import Segments

# transformers 5 has another class for machines without torchvision, transformers 4 only this one.
ImageProcessor = getattr(transformers, "BlipImageProcessorPil", None) or transformers.BlipImageProcessor

#: Most tokens of a question that the Q-Former reads: LAVIS's max_txt_len.
QFORMER_TOKENS = 128


class InstructBlip(Lvlm):
    """``InstructBlipForConditionalGeneration`` in the layout of ``Salesforce/instructblip-vicuna-7b``."""

    decoder_name = "language_model.model"

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Self:
        # The Q-Former of transformers 4 has no SDPA; only the decoder is measured.
        model: Any = load_checkpoint(
            InstructBlipForConditionalGeneration, path, dtype, device, attention="eager"
        )
        model.language_model.set_attn_implementation("sdpa")
        processor: Any = InstructBlipProcessor(
            image_processor=load_part(ImageProcessor, path, "preprocessor_config.json"),
            tokenizer=load_tokenizer(path),
            qformer_tokenizer=load_part(AutoTokenizer, path / "qformer_tokenizer", "tokenizer.json"),
            num_query_tokens=model.config.num_query_tokens,
        )
        # The processor needs the token itself; the tokenizer's settings may give it the text.
        processor.image_token = AddedToken(card.placeholder, normalized=False, special=True)
        processor.qformer_tokenizer.truncation_side = "left"
        return cls(card, model, processor, path)

    @property
    def tokenizers(self) -> tuple[Any, ...]:
        return self.tokenizer, self.processor.qformer_tokenizer

    @property
    def generation_config(self) -> Any:
        return self.model.language_model.generation_config

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        image, text = read_image(image), template.format(question=question)
        inputs = self.processor(images=image, text=text, return_tensors="pt").to(self.device)
        longest = min(QFORMER_TOKENS, self.model.config.qformer_config.max_position_embeddings)
        tokenizer = self.processor.qformer_tokenizer
        read = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").to(self.device)
        is_image = (inputs["input_ids"][0] == self.image_token_id).cpu().numpy()
        queries = self.model.config.num_query_tokens
        if is_image.sum() != queries:
            raise ValueError(
                f"the prompt holds {is_image.sum()} image tokens, the Q-Former gives {queries}: the question must "
                f"hold no {self.card.placeholder!r}: {question!r}"
            )
        size = self.processor.image_processor.size
        return Prompt(
            input_ids=inputs["input_ids"],
            image_inputs={
                "pixel_values": inputs["pixel_values"].to(self.model.dtype),
                "qformer_input_ids": read["input_ids"],
                "qformer_attention_mask": read["attention_mask"],
            },
            segments=Segments.from_image_mask(is_image),
            grid=(1, queries),
            image=image.resize((size["width"], size["height"]), Image.Resampling.BICUBIC),
            text=text,
            spatial=False,
        )
