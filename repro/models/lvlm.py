"""The interface every instrument works through: a loaded model and the prompts it reads."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationMixin

from repro.models.anatomy import CACHE_NAMES
from repro.models.attending import Removal
from repro.models.card import ModelCard
from repro.models.generating import Generating
from repro.models.prompts import Prompt, batched, extended
from repro.models.proving import Proving
from repro.models.rounding import raise_if_passing
from repro.models.weights import check_directory
from repro.segments import IMAGE


class _Embedded(Exception):
    """A pass has reached its embedding, with this token."""

    def __init__(self, token: int):
        super().__init__()
        self.token = token


class Lvlm(Proving, Generating):
    """A model, its processor and the parts the instruments need; families say where the parts are."""

    #: Dotted name of the language model in the model.
    decoder_name = "model.language_model"

    def __init__(self, card: ModelCard, model: Any, processor: Any, path: Path):
        self.card, self.processor, self.path = card, processor, path
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = getattr(processor, "tokenizer", processor)
        #: The language model with its head, which ``generate`` calls token by token.
        self.generator: Any = model
        if type(model).generate is not GenerationMixin.generate and hasattr(model, "language_model"):
            self.generator = model.language_model
        #: Module that embeds token ids.
        self.embeddings: Any = model.get_input_embeddings()
        #: The current truncation.
        self.truncation: Removal | None = None
        self.find_parts()

    # Families override these.

    def find_parts(self) -> None:
        """Set ``decoder``, which has a ``config``, ``layers`` and ``image_token_ids``."""
        #: The language model.
        self.decoder: Any = attrgetter(self.decoder_name)(self.model)
        self.layers = self.decoder.layers
        #: Ids that stand for image tokens in a prompt.
        self.image_token_ids: tuple[int, ...] = (self.model.config.image_token_id,)

    @classmethod
    def check(cls, card: ModelCard, path: Path) -> None:
        """CheckpointError unless the directory holds a configuration of the card's type, and safetensors."""
        check_directory(path, card.model_type)

    @classmethod
    def dtype(cls, card: ModelCard, path: Path) -> str:
        """What real weights are read as on a GPU, a name in torch."""
        return card.dtype

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

    @property
    def checked_tokens(self) -> set[str]:
        """Tokens that ``build_prompt`` checks a question for by itself: Shikra allows its placeholder there."""
        return {self.card.placeholder}

    @property
    def tokenizers(self) -> tuple[Any, ...]:
        """All tokenizers that read a question."""
        return (self.tokenizer,)

    def batched(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Image inputs of several prompts as one batch."""
        return batched([prompt.image_inputs for prompt in prompts])

    def pixel_name(self, prompt: Prompt) -> str:
        """Which of the image inputs holds the pixels."""
        return next(name for name, value in prompt.image_inputs.items() if value.is_floating_point())

    def with_noise(self, prompt: Prompt, noise: Tensor) -> dict[str, Tensor]:
        """Image inputs of n copies with ``noise`` [n, *shape of the pixel values], for pixel values in [0, 1]."""
        pixels = prompt.image_inputs["pixel_values"]
        # Normalisation is affine, so noise on [0, 1] is noise / std on normalised pixels.
        std = torch.tensor(self.pixel_std, device=self.device).view(3, 1, 1)
        noisy = [pixels + scaled.view_as(pixels) for scaled in (noise.to(self.device) / std).to(pixels)]
        return batched([{**prompt.image_inputs, "pixel_values": copy} for copy in noisy])

    # All families share these.

    @property
    def image_token_id(self) -> int:
        """Id of every image token in a prompt."""
        return self.image_token_ids[0]

    @cached_property
    def rotates_by_image(self) -> bool:
        """Whether rotary positions of an answer follow from those of the image."""
        return any(hasattr(module, "rope_deltas") for module in self.model.modules())

    @property
    def rope_deltas(self) -> Tensor | None:
        """By how much rotary positions behind the last pass's prompts differ from their number, int64 [B, 1]."""
        found = [module.rope_deltas for module in self.model.modules() if hasattr(module, "rope_deltas")]
        return next((deltas for deltas in found if deltas is not None), None)

    @cached_property
    def counts_in_cache(self) -> bool:
        """Whether a pass wants to be told the place of its tokens in the cache, as in transformers 4."""
        return "cache_position" in inspect.signature(self.generator.forward).parameters

    @cached_property
    def cache_argument(self) -> str:
        """Name under which a pass takes a cache."""
        named = inspect.signature(self.generator.forward).parameters
        return next((name for name in CACHE_NAMES if name in named), CACHE_NAMES[-1])

    #: Whether a card says what is published of the model.
    known = True

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
        if tokens := sorted(token for token in special - self.checked_tokens if token in question):
            raise ValueError(
                f"the question holds {tokens[0]!r}, which {self.card.name} reads as a token of its own and not as "
                f"text: {question!r}"
            )
        return self.build_prompt(image, question, template or self.template)

    @property
    def pixel_std(self) -> Sequence[float]:
        """Divisor of the pixel values of each channel, in normalisation."""
        return self.processor.image_processor.image_std

    def room(self, prompt: Prompt) -> int:
        """Longest answer to a prompt, in tokens."""
        return self.context - len(prompt.segments)

    def check_room(self, length: int) -> None:
        """ValueError if so many tokens leave no room for an answer."""
        if length >= self.context:
            raise ValueError(
                f"a prompt of {length} tokens leaves no room for an answer within {self.context}"
            )

    def logits(self, prompt: Prompt, answer: Sequence[int] = ()) -> Tensor:
        """Logits [T + len(answer), vocabulary] of the prompt followed by answer ids, teacher forced."""
        if (
            len(answer) and "token_type_ids" in prompt.sequence_inputs
        ):  # of an answer they are to be found out
            self.admit("prompt", type(self).prove_prompt)
        with torch.inference_mode():
            return self.forward([prompt], answer)[0]

    def forward(
        self,
        prompts: Sequence[Prompt],
        answer: Sequence[int] | Sequence[Sequence[int]] = (),
        image_inputs: Mapping[str, Tensor] | None = None,
        last: int = 0,
    ) -> Tensor:
        """Logits [B, T', vocabulary] of the model's own pass over prompts, followed by answer ids.

        The answer is the same for all, or each has its own, of one length. Shorter prompts are padded on the
        right, where the model's mask hides what it holds.

        Args:
            image_inputs: those of the batch; default: those of the prompts.
            last: only so many of the last rows; 0: all.
        """
        inputs = self.inputs(prompts, answer)
        if self.truncation is not None:
            is_image = [p.segments.labels == IMAGE for p in prompts]
            length = inputs["input_ids"].shape[1]
            padded = np.stack([np.pad(row, (0, length - len(row))) for row in is_image])
            self.truncation.is_image = torch.from_numpy(padded).to(self.device)
            self.truncation.last = torch.tensor([len(p.segments) - 1 for p in prompts], device=self.device)
            self.truncation.announced = True
        keep = {"logits_to_keep": last} if last and self.keeps_rows else {}
        images = self.batched(list(prompts)) if image_inputs is None else dict(image_inputs)
        try:
            with self._answers_embedded(inputs["input_ids"], [len(p.segments) for p in prompts]) as ids:
                out = self.model(**inputs | {"input_ids": ids}, **images, **keep, use_cache=False)
        finally:
            if self.truncation is not None:
                self.truncation.announced = False
        logits = out.logits if isinstance(out.logits, Tensor) else out[0]
        return logits[:, -last:] if last else logits

    def inputs(
        self, prompts: Sequence[Prompt], answer: Sequence[int] | Sequence[Sequence[int]] = ()
    ) -> dict[str, Tensor]:
        """Ids, attention mask and whatever else runs over the sequence: int64 [B, T'] each.

        Token types of an answer are those of the prompt's last token, which is text, or ``answer_type``.
        """
        longest = max(len(prompt.segments) for prompt in prompts)
        answers = torch.as_tensor(answer, dtype=torch.int64).expand(len(prompts), -1).tolist()
        rows = []
        for prompt, own in zip(prompts, answers, strict=True):
            ids = self.sequence(prompt, own)
            sequences = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | dict(
                prompt.sequence_inputs
            )
            more = longest + len(own)
            rows.append(
                {name: extended(name, values, more, self.answer_type) for name, values in sequences.items()}
            )
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    @contextmanager
    def _answers_embedded(self, ids: Tensor, lengths: Sequence[int]) -> Iterator[Tensor]:
        """Ids under which an image token in an answer stands for no image; it is embedded as in ``generate``."""
        answers = (
            torch.arange(ids.shape[1], device=ids.device) >= torch.tensor(lengths, device=ids.device)[:, None]
        )
        image = torch.tensor(self.image_token_ids, device=ids.device)
        in_answer = answers & torch.isin(ids, image)
        if not in_answer.any():
            yield ids
            return
        for token in ids[in_answer].unique().tolist():
            if token not in self._embedded:
                self._embedded[token] = self._embedded_as(token)
            ids = ids.masked_fill(in_answer & (ids == token), self._embedded[token])
        # The model embeds it as itself: the id is hidden from what looks for images.
        hidden = in_answer & torch.isin(ids, image)

        def embed(module: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
            if args[0].shape != ids.shape:
                return out
            return torch.where(hidden[..., None], module.forward(ids), out)

        handle = self.embeddings.register_forward_hook(embed)
        try:
            yield ids.masked_fill(hidden, 0)
        finally:
            handle.remove()

    @cached_property
    def _embedded(self) -> dict[int, int]:
        """By image token, what ``_embedded_as`` found of it."""
        return {}

    def _embedded_as(self, token: int) -> int:
        """The id under which ``generate`` embeds an image token of its answer: some models take padding's."""

        def stop(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Embedded(int(next(iter((*args, *kwargs.values())))))

        handle = self.embeddings.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with self.undisturbed(), torch.inference_mode():
                self.generator(input_ids=torch.tensor([[token]], device=self.device), use_cache=False)
        except _Embedded as embedded:
            return embedded.token
        except Exception as error:  # of the model's own code, which reads no such token alone
            raise_if_passing(error)
        finally:
            handle.remove()
        return token

    @cached_property
    def keeps_rows(self) -> bool:
        """Whether the head can be asked for the last rows only, with the layers computing all."""
        return "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def sequence(self, prompt: Prompt, answer: Sequence[int] = ()) -> Tensor:
        """Token ids [1, T + len(answer)] of the prompt followed by the answer."""
        extra = torch.tensor([list(answer)], dtype=prompt.input_ids.dtype, device=self.device)
        return torch.cat([prompt.input_ids, extra], dim=1)
