"""The interface every instrument works through: a loaded model and the prompts it reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from repro.models.attending import ObservableAttention, Removal
from repro.models.card import ModelCard
from repro.models.weights import check_directory
from repro.segments import Segments


@dataclass(frozen=True)
class Prompt:
    """One image and one question, ready for the model.

    Attributes:
        input_ids: int64 [1, T], the image already expanded to its tokens.
        image_inputs: what the vision tower reads, e.g. ``pixel_values`` [1, 3, H, W], normalised.
        segments: S, I, U of the T positions.
        grid: rows and columns of the map that image tokens form over the image.
        image: as the vision tower sees it (RGB, before normalisation).
        text: the complete prompt as a string.
        cells: for each image token the grid cell it covers, counted in reading order, -1 for none (a newline);
            None if tokens and cells are the same.
        spatial: whether image tokens have a place in the image; the queries of a Q-Former have none.
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
    """Generated token ids, including the token that ended the answer, if any, and the decoded text, stripped."""

    ids: tuple[int, ...]
    text: str


class Lvlm(ObservableAttention):
    """A model, its processor and the parts the instruments need; families say where the parts are."""

    #: Dotted names of language model and head in the model.
    decoder_name, head_name = "model.language_model", "lm_head"

    def __init__(self, card: ModelCard, model: Any, processor: Any, path: Path):
        self.card, self.processor, self.path = card, processor, path
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = getattr(processor, "tokenizer", processor)
        #: The language model: ``layers``, ``norm``, ``rotary_emb``, ``config``.
        self.decoder: Any = attrgetter(self.decoder_name)(model)
        #: Module from normed hidden states [..., width] to logits [..., vocabulary].
        self.head: Any = attrgetter(self.head_name)(model)
        #: Module that embeds token ids.
        self.embeddings: Any = self.decoder.get_input_embeddings()
        #: Id of every image token in a prompt.
        self.image_token_id: int = self.model.config.image_token_id
        #: N, the number of decoder layers.
        self.n_layers = len(self.decoder.layers)
        #: The current truncation.
        self.truncation: Removal | None = None

    # Families override these.

    @classmethod
    def check(cls, card: ModelCard, path: Path) -> None:
        """CheckpointError unless the directory holds a configuration of the card's type, and safetensors."""
        check_directory(path, card.model_type)

    @classmethod
    @contextmanager
    def loadable(cls, path: Path) -> Iterator[Path]:
        """The directory that ``load`` reads, for one that may hold a checkpoint in separately published parts."""
        yield path

    @classmethod
    def load(cls, card: ModelCard, path: Path, dtype: torch.dtype, device: torch.device) -> Self:
        """Read a checkpoint directory; see ``repro.models.load_model`` for the errors."""
        raise NotImplementedError

    @property
    def template(self) -> str:
        """The complete prompt, with ``{question}`` and the card's placeholder for the image."""
        return self.card.template

    @property
    def crop_side(self) -> int:
        """Pixels of the square that CLIP's processor would crop; ValueError if the model has another processor."""
        raise ValueError(f"{self.card.name} has no way to crop an image")

    def build_prompt(self, image: str | Path | Image.Image, question: str, template: str) -> Prompt:
        """``prompt`` for a question that holds none of the model's own tokens."""
        raise NotImplementedError

    def features(self, image_inputs: dict[str, Tensor]) -> Tensor:
        """Embeddings of the image tokens of B prompts, [B * n_image, width]."""
        raise NotImplementedError

    @property
    def tokenizers(self) -> tuple[Any, ...]:
        """All tokenizers that read a question."""
        return (self.tokenizer,)

    def batched(self, prompts: list[Prompt]) -> dict[str, Tensor]:
        """Image inputs of several prompts as one batch, padded with zeros at the end of axis 1.

        That is where images have different numbers of tiles, which the model knows from their sizes, and where
        texts of a Q-Former have different lengths, which their masks hold.
        """
        batch = {}
        for key in prompts[0].image_inputs:
            tensors = [prompt.image_inputs[key] for prompt in prompts]
            if (axes := tensors[0].dim()) > 1:
                longest = max(tensor.shape[1] for tensor in tensors)
                tensors = [F.pad(t, (*(0, 0) * (axes - 2), 0, longest - t.shape[1])) for t in tensors]
            batch[key] = torch.cat(tensors)
        return batch

    def with_noise(self, prompt: Prompt, noise: Tensor) -> dict[str, Tensor]:
        """Image inputs of n copies with ``noise`` [n, *shape of the pixel values], for pixel values in [0, 1]."""
        pixels = prompt.image_inputs["pixel_values"]
        # Normalisation is affine, so noise on [0, 1] is noise / std on normalised pixels.
        std = torch.tensor(self.pixel_std, device=self.device).view(3, 1, 1)
        noisy = [pixels + scaled.view_as(pixels) for scaled in (noise.to(self.device) / std).to(pixels)]
        return self.batched(
            [replace(prompt, image_inputs={**prompt.image_inputs, "pixel_values": copy}) for copy in noisy]
        )

    def positions(self, prompt: Prompt, after: int = 0) -> Tensor | None:
        """Rotary positions of the prompt and the next ``after`` tokens, [3, 1, T + after]: time, row, column.

        None if a token's position is its index in the sequence, as in most decoders.
        """
        return None

    def generation_inputs(self, prompt: Prompt) -> dict[str, Tensor]:
        """Arguments of ``generate`` besides the ids."""
        return prompt.image_inputs

    # All families share these.

    def prompt(self, image: str | Path | Image.Image, question: str, template: str | None = None) -> Prompt:
        """The prompt of one image and one question.

        Args:
            template: the complete prompt, with ``{question}`` and the card's placeholder; default: ``template``.

        Raises:
            ValueError: the image cannot be read, the prompt is too long, or the question holds what the model does
                not read as text: a token such as "</s>" could end the prompt, a placeholder stand for an image.
            FileNotFoundError: there is no such image.
        """
        special = {token for tokenizer in self.tokenizers for token in tokenizer.get_added_vocab()}
        # Families check the placeholder: Shikra allows it in the question.
        if tokens := sorted(token for token in special - {self.card.placeholder} if token in question):
            raise ValueError(
                f"the question holds {tokens[0]!r}, which {self.card.name} reads as a token of its own and not as "
                f"text: {question!r}"
            )
        return self.build_prompt(image, question, template or self.template)

    def embed(self, input_ids: Tensor, image_inputs: dict[str, Tensor]) -> Tensor:
        """Input embeddings [B, T, width] with image features at the image tokens of the prompts.

        An answer may hold the image token's id too. It is embedded there like any other id, as in ``generate``.
        """
        features = self.features(image_inputs)
        is_image = input_ids == self.image_token_id
        own = is_image & (is_image.cumsum(dim=1) <= len(features) // len(input_ids))
        # A prompt ends with text, so an image token right after the last feature is surplus.
        surplus = is_image[:, 1:] & ~own[:, 1:] & own[:, :-1]
        if own.sum() != len(features) or surplus.any():
            raise ValueError(
                f"the prompts hold {int(is_image.sum())} image tokens, the model gives {len(features)} features"
            )
        in_answer = is_image & ~own
        # Under another id, so that a truncation, which watches the ids, does not count them as the image's.
        embedded = self.embeddings(input_ids.masked_fill(in_answer, 0))
        embedded = torch.where(in_answer[..., None], self.embeddings.weight[self.image_token_id], embedded)
        return embedded.masked_scatter(own[..., None], features.to(embedded.dtype))

    @property
    def pixel_std(self) -> Sequence[float]:
        """Divisor of the pixel values of each channel, in normalisation."""
        return self.processor.image_processor.image_std

    @property
    def generation_config(self) -> Any:
        """Settings of ``generate``."""
        return self.model.generation_config

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.decoder.config.max_position_embeddings

    def room(self, prompt: Prompt) -> int:
        """Longest answer to a prompt, in tokens."""
        return self.context - len(prompt.segments)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    def hidden_states(self, embeddings: Tensor, positions: Tensor | None = None) -> Tensor:
        """Normed last hidden states [B, T', width] of input embeddings [B, T, width] in one causal pass.

        ``positions`` are those of the method of this name.
        """
        places = {} if positions is None else {"position_ids": positions.expand(-1, len(embeddings), -1)}
        return self.decoder(inputs_embeds=embeddings, use_cache=False, **places).last_hidden_state

    def logits(self, prompt: Prompt, answer: Sequence[int] = ()) -> Tensor:
        """Logits [T + len(answer), vocabulary] of the prompt followed by answer ids, teacher forced."""
        with torch.inference_mode():
            embedded = self.embed(self.sequence(prompt, answer), prompt.image_inputs)
            return self.head(self.hidden_states(embedded, self.positions(prompt, len(answer))))[0]

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
                **self.generation_inputs(prompt),
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
