"""Models that transformers has no class for: its causal decoder, and a way for the image into it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from repro.models.anatomy import cache_in
from repro.models.images import pad_to_square, read_image
from repro.models.loading import CheckpointError, Kind, check_shapes, read_json, require
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.weights import published_tensors
from repro.segments import Segments

#: Settings of a published configuration for a LLaMA decoder and the layer of the tower that it reads.
LLAMA_SETTINGS = dict.fromkeys(
    ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), Kind.COUNT
) | {"rms_norm_eps": Kind.NUMBER, "mm_vision_select_layer": Kind.FROM_LAST}
#: Settings that CLIP's published configuration states of its vision tower; the rest are transformers' defaults.
VISION_SETTINGS = dict.fromkeys(("hidden_size", "image_size", "patch_size"), Kind.COUNT)


class ReadsImages:
    """Put before a causal language model of transformers, makes it read one image per prompt.

    The ids of a prompt hold ``config.image_token_id`` once per image token. ``generate`` and ``forward`` also take
    ``pixel_values`` and put the features of ``image_features`` in place of these tokens.
    """

    config: Any
    get_input_embeddings: Callable[[], nn.Module]
    mm_projector: nn.Module

    def patches(self, pixel_values: Tensor) -> Tensor:
        """Features [B, n_image, width of the tower] that the projector reads, of pixels [B, 3, H, W]."""
        raise NotImplementedError

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Features [B, n_image, width of the decoder] of pixels [B, 3, H, W]."""
        return self.mm_projector(self.patches(pixel_values))

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
            cache = cache_in(kwargs)
            # transformers 4 passes the pixels again with each token of the answer, which may be the image token.
            if pixel_values is not None and (cache is None or cache.get_seq_length() == 0):
                features = self.image_features(pixel_values).to(inputs_embeds.dtype)
                is_image = (input_ids == self.config.image_token_id)[..., None]
                inputs_embeds = inputs_embeds.masked_scatter(is_image, features)
        return super().forward(  # type: ignore[misc]  # of the language model
            inputs_embeds=inputs_embeds, logits_to_keep=logits_to_keep, **kwargs
        )


class Assembled(Lvlm):
    """An adapter for such a model: one square image, normalised pixel values, a fixed number of image tokens.

    Families set:
        side, n_image: pixels of a side of the square that the vision tower reads, and its image tokens.
        margins: colour that pads the image to a square, in [0, 1]; None if the image is stretched to a square.
        mean, pixel_std: of the normalisation; default: CLIP's.
    """

    decoder_name = "model"
    side: int
    n_image: int
    margins: Sequence[float] | None
    mean, pixel_std = tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD)

    @property
    def crop_side(self) -> int:
        return super().crop_side if self.margins is None else self.side

    def tokens(self, question: str, template: str) -> tuple[str, list[int]]:
        """The complete prompt as text, and its ids with the image expanded to its tokens."""
        raise NotImplementedError

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        image = read_image(image)
        if self.margins is None:
            image = image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        else:
            image = pad_to_square(image, self.margins, self.side, Image.Resampling.BICUBIC)
        text, ids = self.tokens(question, template)
        is_image = np.asarray(ids) == self.image_token_id
        if is_image.sum() != self.n_image:
            raise ValueError(
                f"the prompt holds {is_image.sum()} image tokens, the vision tower gives {self.n_image}: the "
                f"template brings those it needs, so the question must hold none: {question!r}"
            )
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.pixel_std))
        side = int(self.n_image**0.5)
        return Prompt(
            input_ids=torch.tensor([ids], device=self.device),
            image_inputs={"pixel_values": ((pixels - mean) / std).to(self.device, self.model.dtype)},
            segments=Segments.from_image_mask(is_image),
            grid=(side, side),
            image=image,
            text=text,
        )


def tower_settings(file: Path, source: str) -> dict[str, Any]:
    """Settings of a vision tower, which no release has in its own directory; ``source`` says where to get them."""
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: {source}")
    settings = read_json(file)
    check_shapes(settings, file)
    return settings


def clip_settings(file: Path, source: str) -> dict[str, Any]:
    """Settings of CLIP's vision tower, from its own configuration or from that of the complete CLIP."""
    settings = tower_settings(file, source)
    if "vision_config" in settings:
        require(settings, file, {"vision_config": Kind.OBJECT})
        settings = settings["vision_config"]
    require(settings, file, VISION_SETTINGS)
    return settings


def clip_tensors(path: Path, source: str) -> dict[str, Tensor]:
    """CLIP's vision tower from its published files, which also hold its text half; ``source`` as above."""
    try:
        tensors = published_tensors(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {source}") from None
    return {name: tensor for name, tensor in tensors.items() if name.startswith("vision_model.")}


def check_values(settings: dict[str, Any], file: Path | str, **values: str) -> None:
    """CheckpointError unless the settings have these values, the only ones that the family is known with."""
    for key, value in values.items():
        if settings.get(key) != value:
            raise CheckpointError(f"{file}: {key} is {settings.get(key)!r}; expected {value!r}")


def check_vocabulary(tokenizer: Any, published: dict[str, Any], path: Path) -> None:
    """CheckpointError unless the tokenizer has as many tokens as the embeddings have rows."""
    if len(tokenizer) != published["vocab_size"]:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens, config.json says {published['vocab_size']}: they "
            "are of different checkpoints, or the tokenizer's file is damaged"
        )


def add_image_token(model: Any) -> int:
    """Append a row to the embeddings of a vocabulary without an image token; sets and returns its id.

    The head gets no row for it, so no answer can hold it.
    """
    weight = model.get_input_embeddings().weight
    extended = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
    model.set_input_embeddings(nn.Embedding.from_pretrained(extended))
    model.config.image_token_id = len(weight)
    return len(weight)


def llama_config(published: dict[str, Any], **more: Any) -> LlamaConfig:
    """The decoder's configuration from a published one, with ``more`` settings for the rest of the model."""
    settings = {key: value for key, value in published.items() if key not in ("model_type", "architectures")}
    return LlamaConfig(**settings | more)
