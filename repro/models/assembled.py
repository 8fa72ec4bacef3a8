"""Models that transformers has no class for: a causal decoder it has, and the way of the image into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlamaConfig

from repro.models.loading import (
    COUNT,
    FROM_LAST,
    NUMBER,
    OBJECT,
    CheckpointError,
    check_shapes,
    published_tensors,
    read_json,
    require,
)
from repro.models.lvlm import Lvlm, Prompt
from repro.models.pictures import read_image
from repro.segments import Segments


class ReadsImages:
    """Put before a causal language model of transformers, makes it read one image per prompt.

    The ids of a prompt hold ``image_token_id`` once per image token; ``generate`` and ``forward`` take the
    ``pixel_values`` beside them and put the features of ``image_features`` in their place.
    """

    image_token_id: int
    get_input_embeddings: Callable[[], nn.Module]

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Features [B, n_image, width of the decoder] of pixels [B, 3, H, W]."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.get_input_embeddings()(input_ids)
            cache = kwargs.get("past_key_values")
            # transformers 4 gives the pixels again with each token of the answer, which may be the image's.
            if pixel_values is not None and (cache is None or cache.get_seq_length() == 0):
                features = self.image_features(pixel_values).to(inputs_embeds.dtype)
                is_image = (input_ids == self.image_token_id)[..., None]
                inputs_embeds = inputs_embeds.masked_scatter(is_image, features)
        return super().forward(  # type: ignore[misc]  # of the language model
            inputs_embeds=inputs_embeds, logits_to_keep=logits_to_keep, **kwargs
        )


class Assembled(Lvlm):
    """An adapter for such a model: one square image, normalised pixel values, a fixed number of image tokens.

    Families say ``n_image`` and ``prepare`` (the picture as the vision tower sees it), and keep ``mean`` and
    ``std`` of the normalisation.
    """

    n_image: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def prepare(self, image: Image.Image) -> Image.Image:
        """The square RGB picture the vision tower reads, before normalisation."""
        raise NotImplementedError

    @property
    def decoder(self) -> Any:
        return self.model.model

    @property
    def head(self) -> nn.Module:
        return self.model.lm_head

    @property
    def image_token_id(self) -> int:
        return self.model.image_token_id

    @property
    def pixel_std(self) -> tuple[float, ...]:
        return self.std

    def tokens(self, question: str, template: str) -> tuple[str, list[int]]:
        """The whole prompt as text, and its ids with the image expanded to its tokens."""
        raise NotImplementedError

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        picture = self.prepare(read_image(image))
        text, ids = self.tokens(question, template)
        input_ids = torch.tensor([ids], device=self.device)
        is_image = np.asarray(ids) == self.image_token_id
        if is_image.sum() != self.n_image:
            raise ValueError(
                f"the prompt holds {is_image.sum()} image tokens, the vision tower gives {self.n_image}: the "
                f"template brings those it needs, so the question must hold none: {question!r}"
            )
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        pixels = (pixels - _channels(self.mean)) / _channels(self.std)
        side = int(self.n_image**0.5)
        return Prompt(
            input_ids=input_ids,
            image_inputs={"pixel_values": pixels.to(self.device, self.model.dtype)},
            segments=Segments.from_image_mask(is_image),
            grid=(side, side),
            image=picture,
            text=text,
        )

    def features(self, image_inputs: dict[str, Tensor]) -> Tensor:
        return self.model.image_features(**image_inputs).flatten(0, 1)


#: What a published configuration must say of a LLaMA decoder and of the layer of the tower that it reads.
LLAMA_SETTINGS = dict.fromkeys(
    ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), COUNT
) | {"rms_norm_eps": NUMBER, "mm_vision_select_layer": FROM_LAST}


#: What CLIP's published configuration says of its own vision tower; the rest is as transformers sets it.
VISION_SETTINGS = dict.fromkeys(("hidden_size", "image_size", "patch_size"), COUNT)


def tower_config(file: Path, whence: str) -> dict[str, Any]:
    """The configuration of a vision tower, which no release has in its own directory; ``whence`` it is to come."""
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: {whence}")
    settings = read_json(file)
    check_shapes(settings, file)
    return settings


def clip_settings(file: Path, whence: str) -> dict[str, Any]:
    """Settings of CLIP's vision tower, from a configuration of its own or of the whole CLIP."""
    found = tower_config(file, whence)
    if "vision_config" in found:
        require(found, file, {"vision_config": OBJECT})
        found = found["vision_config"]
    require(found, file, VISION_SETTINGS)
    return found


def clip_tensors(path: Path, whence: str) -> dict[str, Tensor]:
    """CLIP's vision tower from its published files, which hold its text half too; ``whence`` they are to come."""
    try:
        found = published_tensors(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {whence}") from None
    return {name: tensor for name, tensor in found.items() if name.startswith("vision_model.")}


def check_vocabulary(tokenizer: Any, published: dict[str, Any], path: Path) -> None:
    """CheckpointError unless the tokenizer has as many tokens as the embeddings have rows."""
    if len(tokenizer) != published["vocab_size"]:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens, config.json says {published['vocab_size']}: they "
            "are of different checkpoints, or the tokenizer's file is damaged"
        )


def llama_config(published: dict[str, Any], **beside: Any) -> LlamaConfig:
    """The decoder's configuration from a published one, with what the rest of the model needs beside it."""
    settings = {key: value for key, value in published.items() if key not in ("model_type", "architectures")}
    return LlamaConfig(**settings | beside)


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
