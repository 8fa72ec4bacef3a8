"""The interface every instrument works through: a loaded model and the prompts it reads."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GenerationMixin

from repro.models.anatomy import Layers, NoLayers, find_layers, find_roles
from repro.models.attending import Attending, ObservableAttention, Removal
from repro.models.card import ModelCard
from repro.models.generating import Generating
from repro.models.prompts import Prompt, batched, extended
from repro.models.rounding import UNSAID, NotAdmitted, apart, raise_if_passing
from repro.models.weights import check_directory
from repro.segments import IMAGE


class Lvlm(ObservableAttention, Generating):
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
        #: What instruments proved of themselves on this model, or why they are refused.
        self.admission: dict[str, str | NotAdmitted] = {}
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

    #: Whether no row before the image sees it.
    causal = True
    #: What ``token_type_ids`` say of an answer; None: the same as of the prompt's last token.
    answer_type: int | None = None
    #: Whether instruments must prove themselves on the model before their first use.
    proves = False
    #: The instrument that is proving itself, and those that it needs.
    _proving: tuple[str, ...] = ()
    #: Whether a sweep's branches can ride with the prompt through the model's layers.
    packs = True
    #: Whether prompts of one batch give what each gives alone.
    batches = True

    # The admission of instruments, on models without a card.

    def admit(self, instrument: str, proof: Callable[[Self], str]) -> None:
        """Have an instrument prove itself on this model, once, if the model is of a kind that is not known.

        Args:
            proof: gives what was shown; raises NotAdmitted, or what the instrument raises, if it is wrong here.

        Prompts come first: nothing is admitted on a model that reads them in a way that is not known. A proof runs
        on the untouched model, also where the instrument is first used on a truncated or observed one.

        Raises NotAdmitted if the proof failed; and whatever went wrong for lack of memory or of a device, which
        says nothing of the instrument.
        """
        if not self.proves or instrument in self._proving:
            return
        if instrument != "prompt":
            self.admit("prompt", type(self).prove_prompt)
        if instrument not in self.admission:
            self._proving = (*self._proving, instrument)
            try:
                with self.undisturbed():
                    self.admission[instrument] = proof(self)
            except NotAdmitted as error:
                self.admission[instrument] = error
            except Exception as error:  # of the model's own code
                raise_if_passing(error)
                self.admission[instrument] = NotAdmitted(f"{type(error).__name__}: {error}")
            finally:
                self._proving = self._proving[:-1]
        outcome = self.admission[instrument]
        if isinstance(outcome, NotAdmitted):
            raise NotAdmitted(f"{instrument} is refused for {self.card.name}: {outcome}")

    def prove_prompt(self) -> str:
        """What was shown of the model's prompts; raises NotAdmitted if they are not read as is known."""
        raise NotImplementedError

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Within the context, passes are the model's own: truncated, observed and replaced by nobody."""
        truncation, self.truncation = self.truncation, None
        try:
            with self.unobserved():
                yield
        finally:
            self.truncation = truncation

    @cached_property
    def trial_prompts(self) -> tuple[Prompt, Prompt, Prompt]:
        """Prompts longer than the model's window where its context allows.

        Of an image, of another of its shape with the same question, and of one of another shape.
        """
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None) or 0
        words = 8 if window > self.context // 2 else max(8, window)
        asked = " ".join(["What is in this image?"] * (1 + words // 5))
        return (
            self.prompt(image := _noise(64, 48), asked),
            self.prompt(image.transpose(Image.Transpose.ROTATE_180), asked),
            self.prompt(_noise(40, 72), f"{asked} Is it red?"),
        )

    @cached_property
    def tolerance(self) -> float:
        """Largest difference of logits that is rounding: some last digits, more where another batch moves more.

        That is ten times what another batch moves, and at most eight times the least: what is above is no
        rounding, and ``batches`` becomes False.
        """
        prompt = self.trial_prompts[0]
        with self.undisturbed(), torch.inference_mode():
            single = self.logits(prompt)
            size = float(single[-1].float().abs()[single[-1] > UNSAID].max())
            last_digits = torch.finfo(self.computes_in).eps * size
            least = last_digits * (64 if self.computes_in == torch.float32 else 4)
            if not self.batches:
                return least
            try:
                noise = apart(self.forward([prompt] * 3), single.expand(3, -1, -1))
            except Exception as error:  # of the model's own code, which joins images in another way
                raise_if_passing(error)
                noise = float("inf")
        self.batches = noise <= 8 * least
        return min(max(10 * noise, least), 8 * least) if self.batches else least

    @property
    def n_layers(self) -> int:
        """N, the number of decoder layers."""
        return len(self.layers)

    @cached_property
    def anatomy(self) -> Layers:
        """The decoder layers and which of their arguments run over the sequence."""
        try:
            return find_layers(self.model, self.try_pass)
        except NoLayers:
            # Some compute only the last rows in their later layers, if only these are asked for.
            self.keeps_rows = False
            return find_layers(self.model, self.try_pass)

    @cached_property
    def watchable(self) -> bool:
        """Whether the model gives the same logits while its attention is observed."""
        prompt = self.trial_prompts[0]
        with self.undisturbed():
            plain = self.logits(prompt)[-1]
            with self.observed(lambda attending: None):
                return apart(self.logits(prompt)[-1], plain) <= self.tolerance

    @cached_property
    def attention_modules(self) -> list[nn.Module | None]:
        """For each layer the module that attends, None for one that does something else."""
        modules: list[nn.Module | None] = [None] * self.n_layers

        def record(attending: Attending) -> None:
            modules[attending.layer] = attending.module

        with self.undisturbed(), self.observed(record):
            self.try_pass()
        return modules

    @cached_property
    def roles(self) -> list[dict[str, nn.Module]]:
        """For each layer its parts by their roles, see ``repro.models.anatomy.ROLES``."""
        with self.undisturbed():
            return find_roles(self.layers, self.try_pass)

    def try_pass(self, more: int = 0) -> None:
        """One pass over a grey image and a question, followed by so many more text tokens."""
        prompt = self.prompt(Image.new("RGB", (64, 48), "grey"), "What is it?")
        text = [int(prompt.input_ids[0, -1])] * more
        with torch.inference_mode():
            self.forward([prompt], text, last=1)

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

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.decoder.config.max_position_embeddings

    def room(self, prompt: Prompt) -> int:
        """Longest answer to a prompt, in tokens."""
        return self.context - len(prompt.segments)

    def check_room(self, length: int) -> None:
        """ValueError if so many tokens leave no room for an answer."""
        if length >= self.context:
            raise ValueError(
                f"a prompt of {length} tokens leaves no room for an answer within {self.context}"
            )

    @property
    def computes_in(self) -> torch.dtype:
        """Number type of the decoder layers; some models keep other parts in float32."""
        return next(self.layers[0].parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    def logits(self, prompt: Prompt, answer: Sequence[int] = ()) -> Tensor:
        """Logits [T + len(answer), vocabulary] of the prompt followed by answer ids, teacher forced."""
        with torch.inference_mode():
            return self.forward([prompt], answer)[0]

    def forward(
        self,
        prompts: Sequence[Prompt],
        answer: Sequence[int] = (),
        image_inputs: Mapping[str, Tensor] | None = None,
        last: int = 0,
    ) -> Tensor:
        """Logits [B, T', vocabulary] of the model's own pass over prompts, each followed by the same answer ids.

        Shorter prompts are padded on the right, where the model's mask hides what it holds.

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

    def inputs(self, prompts: Sequence[Prompt], answer: Sequence[int] = ()) -> dict[str, Tensor]:
        """Ids, attention mask and whatever else runs over the sequence: int64 [B, T'] each.

        Token types of an answer are those of the prompt's last token, which is text, or ``answer_type``.
        """
        longest = max(len(prompt.segments) for prompt in prompts)
        rows = []
        for prompt in prompts:
            ids = self.sequence(prompt, answer)
            sequences = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | dict(
                prompt.sequence_inputs
            )
            more = longest + len(answer)
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
        in_answer = answers & torch.isin(ids, torch.tensor(self.image_token_ids, device=ids.device))
        if not in_answer.any():
            yield ids
            return

        def embed(module: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
            if args[0].shape != ids.shape:
                return out
            return torch.where(in_answer[..., None], module.forward(ids), out)

        handle = self.embeddings.register_forward_hook(embed)
        try:
            yield ids.masked_fill(in_answer, 0)
        finally:
            handle.remove()

    @cached_property
    def keeps_rows(self) -> bool:
        """Whether the head can be asked for the last rows only, with the layers computing all."""
        return "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def sequence(self, prompt: Prompt, answer: Sequence[int] = ()) -> Tensor:
        """Token ids [1, T + len(answer)] of the prompt followed by the answer."""
        extra = torch.tensor([list(answer)], dtype=prompt.input_ids.dtype, device=self.device)
        return torch.cat([prompt.input_ids, extra], dim=1)


def _noise(width: int, height: int) -> Image.Image:
    """Blocks of random colours."""
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
