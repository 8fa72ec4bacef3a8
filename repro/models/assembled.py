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

from repro.models.lvlm import Lvlm, Prompt, read_image
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

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None) -> Tensor:
        """Input embeddings [B, T, width]; ids without image tokens (decoding) need no pixels."""
        embedded = self.get_input_embeddings()(input_ids)
        is_image = (input_ids == self.image_token_id)[..., None]
        if not is_image.any():
            return embedded
        assert pixel_values is not None, "ids with image tokens need pixel_values"
        return embedded.masked_scatter(is_image, self.image_features(pixel_values).to(embedded.dtype))

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
            inputs_embeds = self.embed(input_ids, pixel_values)
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

    def tokens(self, question: str, template: str | None) -> tuple[str, list[int]]:
        """The whole prompt as text, and its ids with the image expanded to its tokens."""
        raise NotImplementedError

    def prompt(self, image: str | Path | Image.Image, question: str, template: str | None = None) -> Prompt:
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

    def embed(self, input_ids: Tensor, image_inputs: dict[str, Tensor]) -> Tensor:
        return self.model.embed(input_ids, **image_inputs)

    def with_noise(self, prompt: Prompt, noise: Tensor) -> dict[str, Tensor]:
        pixels = prompt.image_inputs["pixel_values"]
        return {"pixel_values": pixels + (noise / _channels(self.std)).to(pixels)}


def llama_config(published: dict[str, Any], **beside: Any) -> LlamaConfig:
    """The decoder's configuration from a published one, with what the rest of the model needs beside it."""
    settings = {key: value for key, value in published.items() if key not in ("model_type", "architectures")}
    return LlamaConfig(**settings | beside)


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
