"""Passes over trial prompts, and what two of them show of most models, of the others several: what is rounding."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from repro.models.anatomy import Arguments, find_batch_axis, find_roles, replaced
from repro.models.attending import Attending
from repro.models.layered import Layered
from repro.models.prompts import Prompt
from repro.models.rounding import UNSAID, apart, raise_if_passing

#: Tokens that a proof decodes behind a trial prompt, at most.
ROOM = 4


@dataclass(frozen=True)
class Reading:
    """One pass over B prompts of T tokens.

    Attributes:
        entering, last: what enters the first layer and the last, float32 [B, T, width].
        logits: [B, T, vocabulary].
    """

    entering: Tensor
    last: Tensor
    logits: Tensor


class Trials(Layered):
    """A model that is tried out; see ``repro.models.lvlm.Lvlm`` for its parts."""

    #: Whether prompts of one batch give what each gives alone.
    batches = True

    @cached_property
    def trial_prompts(self) -> tuple[Prompt, Prompt, Prompt]:
        """Prompts longer than the model's window where its context allows.

        Of an image, of another of its shape with the same question, and of one of another shape.
        """
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None) or 0
        words = 8 if window > self.context // 2 else max(8, window)
        asked = " ".join(["What is in this image?"] * (1 + words // 5))
        with suppress(ValueError):  # too long for the model
            prompts = self._trial_prompts(asked, f"{asked} Is it red?")
            if all(len(prompt.segments) + ROOM <= self.context for prompt in prompts):
                return prompts
        return self._trial_prompts("Is it?", "Is it red?")

    def _trial_prompts(self, asked: str, other: str) -> tuple[Prompt, Prompt, Prompt]:
        return (
            self.prompt(image := _noise(64, 48), asked),
            self.prompt(image.transpose(Image.Transpose.ROTATE_180), asked),
            self.prompt(_noise(40, 72), other),
        )

    @cached_property
    def tolerance(self) -> float:
        """Largest difference of logits that is rounding: some last digits, more where another batch moves more.

        That is ten times what another batch moves, in half precision also twice what a last digit in every layer
        does, and at most eight times the least: what is above is no rounding, and ``batches`` becomes False.
        """
        self._settle()
        return self.tolerance

    @cached_property
    def watchable(self) -> bool:
        """Whether the model gives the same logits while its attention is observed."""
        self._settle()
        return self.watchable

    @cached_property
    def probe_error(self) -> float | str:
        """How far probed rows of three layers are from the softmax of the model's eager code; what that raised."""
        self._settle()
        return self.probe_error

    def _settle(self) -> tuple[Reading, bool]:
        """Set ``tolerance``, ``watchable``, ``probe_error`` and ``batches``.

        A prompt that is observed is compared with itself unobserved, in a batch, and followed by a token. Only
        where that differs each of the three is looked at by itself.

        Returns:
            The first two trial prompts, and whether nothing differed.
        """
        prompt, other, _ = self.trial_prompts
        with self.undisturbed():
            watched = self._watched()
            if watched is not None and (batch := self._batch(prompt, other)) is not None:
                noise, least = _spread(batch.logits[::2, :-1], watched.logits), self._least(watched)
                if noise <= 8 * least and (batch.entering[0] != batch.entering[1]).any():
                    self.watchable, self.tolerance = True, self._tolerance_from(least, 10 * noise, watched)
                    return Reading(*(part[:2] for part in (batch.entering, batch.last, batch.logits))), True
            single = self.reading([prompt])
            self.tolerance = self._tolerance_from(self._least(single), 0, single)
            if self.batches:
                self._measure_noise(prompt, single)
            self.watchable = watched is not None and (
                apart(watched.logits[0, -1], single.logits[0, -1]) <= self.tolerance
            )
            beside = self.reading([other])
        pairs = [(getattr(single, name), getattr(beside, name)) for name in ("entering", "last", "logits")]
        return Reading(*map(torch.cat, pairs)), False

    def _watched(self) -> Reading | None:
        """The first trial prompt while its attention is observed; None if that fails. Sets ``probe_error``."""
        _ = self.anatomy  # learnt by passes of its own, before this one
        modules: list[nn.Module | None] = [None] * self.n_layers
        worst: list[float] = [0.0]
        errors: list[str] = []

        def compare(attending: Attending) -> None:
            modules[attending.layer] = attending.module
            if errors or attending.layer not in (0, self.n_layers // 2, self.n_layers - 1):
                return
            rows = torch.tensor([attending.query.shape[2] - 1], device=attending.query.device)
            try:
                own = attending.eager_weights()[:, :, rows].float().mean(dim=1)
                distance = (attending.softmax_rows(rows) - own[..., : attending.key.shape[2]]).abs().max()
                worst.append(float(distance) if torch.isfinite(distance) else np.inf)
            except Exception as error:  # of the model's own code
                raise_if_passing(error)
                errors.append(f"{type(error).__name__}: {error}")

        readings: list[Reading] = []
        try:
            with self.observed(compare):
                roles = find_roles(self.layers, lambda: readings.append(self.reading(self.trial_prompts[:1])))
        except Exception as error:  # of the model's own code
            raise_if_passing(error)
            self.probe_error = f"{type(error).__name__}: {error}"
            return None
        self.attention_modules, self.roles = modules, roles
        self.probe_error = errors[0] if errors else max(worst)
        return readings[0]

    def _batch(self, prompt: Prompt, other: Prompt) -> Reading | None:
        """Two prompts of one shape, the first twice, followed by a token; None if that fails."""
        try:
            return self.reading([prompt, other, prompt], [int(prompt.input_ids[0, -1])])
        except Exception as error:  # of the model's own code, which joins images in another way
            raise_if_passing(error)
            return None

    def _least(self, reading: Reading) -> float:
        """Least rounding of logits: some last digits of the largest."""
        last = reading.logits[0, -1].float()
        size = float(last.abs()[last > UNSAID].max())
        return torch.finfo(self.computes_in).eps * size * (64 if self.computes_in == torch.float32 else 4)

    def _measure_noise(self, prompt: Prompt, single: Reading) -> None:
        """Set ``batches`` and ``tolerance`` by what a batch makes of a prompt's logits."""
        least = self._least(single)
        try:
            with torch.inference_mode():
                noise = _spread(self.forward([prompt] * 3), single.logits)
        except Exception as error:  # of the model's own code, which joins images in another way
            raise_if_passing(error)
            noise = np.inf
        self.batches = noise <= 8 * least
        if self.batches:
            self.tolerance = max(self.tolerance, min(10 * noise, 8 * least))

    def _tolerance_from(self, least: float, noise: float, reading: Reading) -> float:
        """The tolerance of logits: ``noise``, but from ``least`` to eight times that.

        In half precision at least twice what a last digit in every layer makes of a reading's logits.
        """
        if self.computes_in != torch.float32:
            noise = max(noise, 2 * _spread(self._moved_by_digits(), reading.logits))
        return min(max(noise, least), 8 * least)

    def _moved_by_digits(self) -> Tensor:
        """Logits of the first trial prompt, the input of each layer moved by a last digit, up or down by chance.

        So does every layer's own rounding, which adds up with their number; the same rounding in a batch shows
        nothing of it.
        """
        digit, draw = torch.finfo(self.computes_in).eps, torch.Generator().manual_seed(0)

        def move(layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            place, hidden, _ = self.anatomy.hidden(layer, args, kwargs)
            up = torch.randint(0, 2, hidden.shape, generator=draw).to(hidden)
            new = {place: hidden * (1 + digit * (2 * up - 1))}
            return replaced(args, new), replaced(kwargs, new)

        _ = self.anatomy  # learnt by passes of its own, before this one
        with ExitStack() as hooks, torch.inference_mode():
            for index, layer in enumerate(self.layers):
                hooks.callback(layer.register_forward_pre_hook(partial(move, index), with_kwargs=True).remove)
            return self.forward([self.trial_prompts[0]])

    def reading(self, prompts: Sequence[Prompt], answer: Sequence[int] = ()) -> Reading:
        """One pass over prompts of one length, each followed by the same answer."""
        anatomy = self.anatomy
        seen: list[Tensor] = []

        def record(layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            _, hidden, axis = anatomy.hidden(layer, args, kwargs)
            batch = len(prompts)
            if batch == 1:
                rows = hidden.movedim(axis, 0)[None]
            elif (along := find_batch_axis(hidden, axis, batch)) is None or hidden.shape[along] != batch:
                raise ValueError(f"hidden states {list(hidden.shape)} have no axis for {batch} prompts")
            else:
                rows = hidden.movedim((along, axis), (0, 1))
            seen.append(rows.flatten(2).float())

        with ExitStack() as hooks, torch.inference_mode():
            for layer in (0, self.n_layers - 1):
                hook = self.layers[layer].register_forward_pre_hook(partial(record, layer), with_kwargs=True)
                hooks.callback(hook.remove)
            logits = self.forward(prompts, answer)
        return Reading(seen[0], seen[-1], logits)


def _spread(some: Tensor, logits: Tensor) -> float:
    """How far the logits [B, T, vocabulary] of a batch are from those of one prompt; infinite in other shapes."""
    return apart(some, logits.expand_as(some)) if some.shape[1:] == logits.shape[1:] else np.inf


def _noise(width: int, height: int) -> Image.Image:
    """Blocks of random colours."""
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
