"""The one interface every instrument works through: a loaded model and the prompts it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from repro.models.card import ModelCard
from repro.segments import Segments

#: Called after the attention of every decoder layer with (layer index from 0, query [B, H, Q, D],
#: key [B, Hkv, K, D], mask as the layer got it, scaling).
Observer = Callable[[int, Tensor, Tensor, Tensor | None, float], None]
#: Stands in for the decoder's attention: (layer index from 0, query, key, value, scaling) -> [B, H, Q, D].
Attention = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Prompt:
    """One image and one question, ready for the model.

    Attributes:
        input_ids: int64 [1, T], the image already expanded to its tokens.
        image_inputs: what the vision tower reads, e.g. ``pixel_values`` [1, 3, H, W], normalised.
        segments: S, I, U of the T positions.
        grid: rows and columns of the map that image tokens form over the picture.
        image: the picture as the vision tower sees it (RGB, before normalisation).
        text: the whole prompt as a string.
        cells: for each image token the cell of the grid that it covers, counted in reading order, -1 where it
            covers none (a newline); None where tokens are the cells.
        spatial: whether image tokens have a place in the picture; the queries of a Q-Former have none.
    """

    input_ids: Tensor
    image_inputs: dict[str, Tensor]
    segments: Segments
    grid: tuple[int, int]
    image: Image.Image
    text: str
    cells: np.ndarray | None = None
    spatial: bool = True


@dataclass(frozen=True)
class Answer:
    """Generated token ids, the closing token included where one came, and the decoded text, stripped."""

    ids: tuple[int, ...]
    text: str


@dataclass
class _Attending:
    """Who watches, and who replaces, the attention of the decoder layers of one model."""

    observers: list[Observer] = field(default_factory=list)
    replacement: Attention | None = None


def _dispatch(module, query, key, value, attention_mask, scaling=None, **kwargs):
    attending: _Attending = module.repro_attending
    if attending.replacement is not None:
        out = attending.replacement(module.layer_idx, query, key, value, scaling)
        return out.transpose(1, 2).contiguous(), None
    result = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    for observer in attending.observers:
        observer(module.layer_idx, query, key, attention_mask, scaling)
    return result


_INTERFACE = "repro"
AttentionInterface.register(_INTERFACE, _dispatch)
AttentionMaskInterface.register(_INTERFACE, sdpa_mask)


def read_image(source: str | Path | Image.Image) -> Image.Image:
    """An RGB picture from a file or from an open image; one clear error for a missing or corrupt file."""
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    try:
        with Image.open(source) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {source}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read the image {source}: {error}") from error


def middle_square(image: Image.Image, side: int) -> Image.Image:
    """The middle of a picture, whose shorter side becomes ``side`` pixels: what CLIP's processor cuts out."""
    short = min(image.size)
    width, height = (side * length // short for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))


class Lvlm:
    """A model, its processor and the parts the instruments need.

    Families subclass it and say where the parts are. ``decoder`` has ``layers``, ``norm`` and
    ``rotary_emb``; ``head`` turns normed hidden states into logits.
    """

    #: ``model_type`` of the configurations this family reads.
    model_type: ClassVar[str]

    def __init__(self, card: ModelCard, model: nn.Module, processor: Any, path: Path):
        self.card, self.processor, self.path = card, processor, path
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = getattr(processor, "tokenizer", processor)
        #: The truncation in force, a ``repro.truncation.Cut``, or None.
        self.truncation: Any = None

    # What a family says of itself.

    @classmethod
    @contextmanager
    def whole(cls, path: Path) -> Iterator[Path]:
        """The directory that ``load`` reads, for one that may hold a checkpoint in the parts it is published in."""
        yield path

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Lvlm:
        """Read a checkpoint directory; see ``repro.models.load_model`` for the errors."""
        raise NotImplementedError

    @property
    def decoder(self) -> Any:
        """The language model: ``layers``, ``norm``, ``rotary_emb``, ``config``."""
        raise NotImplementedError

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """Hidden states [..., width] to logits [..., vocabulary]."""
        raise NotImplementedError

    @property
    def image_token_id(self) -> int:
        """Id of the placeholder that stands for one image token."""
        raise NotImplementedError

    def prompt(self, image: str | Path | Image.Image, question: str, template: str | None = None) -> Prompt:
        """The prompt of one picture and one question, in another template or in the card's."""
        raise NotImplementedError

    @property
    def crop_side(self) -> int:
        """Pixels of the square that CLIP's processor would cut out; ValueError where that is not its processor."""
        raise ValueError(f"{self.card.name} has no way to crop a picture")

    def embed(self, input_ids: Tensor, image_inputs: dict[str, Tensor]) -> Tensor:
        """Input embeddings [B, T, width] with image features in place of the placeholders."""
        raise NotImplementedError

    def batched(self, prompts: list[Prompt]) -> dict[str, Tensor]:
        """Image inputs of several prompts as one batch."""
        return {
            key: torch.cat([prompt.image_inputs[key] for prompt in prompts])
            for key in prompts[0].image_inputs
        }

    def with_noise(self, prompt: Prompt, noise: Tensor) -> dict[str, Tensor]:
        """Image inputs of n noisy copies: ``noise`` [n, 3, H, W] in units of pixel values in [0, 1]."""
        raise NotImplementedError

    # What all families share.

    @property
    def embeddings(self) -> Any:
        """The module that embeds token ids."""
        return self.model.get_input_embeddings()

    @property
    def generation_config(self) -> Any:
        """Settings of ``generate``."""
        return self.model.generation_config

    @property
    def n_layers(self) -> int:
        """N, the number of decoder layers."""
        return len(self.decoder.layers)

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.decoder.config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def hidden_states(self, embeddings: Tensor) -> Tensor:
        """Normed last hidden states [B, T', width] of input embeddings [B, T, width] in one causal pass."""
        return self.decoder(inputs_embeds=embeddings, use_cache=False).last_hidden_state

    def logits(self, prompt: Prompt, answer: Sequence[int] = ()) -> Tensor:
        """Logits [T + len(answer), vocabulary] of the prompt followed by answer ids, teacher forced."""
        with torch.inference_mode():
            ids = self.sequence(prompt, answer)
            return self.model(input_ids=ids, **prompt.image_inputs, use_cache=False).logits[0]

    def sequence(self, prompt: Prompt, answer: Sequence[int] = ()) -> Tensor:
        """Token ids [1, T + len(answer)] of the prompt followed by the answer."""
        extra = torch.tensor([list(answer)], dtype=prompt.input_ids.dtype, device=self.device)
        return torch.cat([prompt.input_ids, extra], dim=1)

    def answer(self, prompt: Prompt, max_new_tokens: int) -> Answer:
        """The greedy answer, by the model's own ``generate``."""
        with torch.inference_mode():
            ids = self.model.generate(
                input_ids=prompt.input_ids,
                attention_mask=torch.ones_like(prompt.input_ids),
                **prompt.image_inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # InstructBLIP's own setting would change greedy answers
            )
        return self.decode(ids[0, prompt.input_ids.shape[1] :].tolist())

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer, from the model's generation settings."""
        stop = self.generation_config.eos_token_id
        return frozenset([stop] if isinstance(stop, int) else stop or [])

    def decode(self, ids: Sequence[int]) -> Answer:
        """An ``Answer`` from generated ids."""
        return Answer(tuple(ids), self.tokenizer.decode(ids, skip_special_tokens=True).strip())

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Within the context, ``observer`` is called after the attention of every decoder layer."""
        with self._attending() as attending:
            attending.observers.append(observer)
            try:
                yield
            finally:
                attending.observers.remove(observer)

    @contextmanager
    def attention_replaced(self, attention: Attention) -> Iterator[None]:
        """Within the context, decoder layers attend by ``attention``; observers are not called."""
        with self._attending() as attending:
            if attending.replacement is not None:
                raise RuntimeError("the decoder's attention is already replaced; leave that context first")
            attending.replacement = attention
            try:
                yield
            finally:
                attending.replacement = None

    @contextmanager
    def _attending(self) -> Iterator[_Attending]:
        """The decoder's attention goes through ``_dispatch``; the outermost context restores it."""
        modules = [layer.self_attn for layer in self.decoder.layers]
        if hasattr(modules[0], "repro_attending"):
            yield modules[0].repro_attending
            return
        attending, before = _Attending(), self.decoder.config._attn_implementation
        for module in modules:
            module.repro_attending = attending
        self.decoder.config._attn_implementation = _INTERFACE
        try:
            yield attending
        finally:
            self.decoder.config._attn_implementation = before
            for module in modules:
                del module.repro_attending
