"""A model with decoder layers, and what passes of its own tell of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from repro.models.anatomy import Layers, NoLayers, find_layers, find_roles
from repro.models.attending import Attending, ObservableAttention, Removal
from repro.models.prompts import Prompt


class Layered(ObservableAttention):
    """See ``repro.models.lvlm.Lvlm`` for the parts of a model."""

    model: Any
    decoder: Any
    truncation: Removal | None
    keeps_rows: Any
    forward: Callable[..., Tensor]
    prompt: Callable[..., Prompt]

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

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.decoder.config.max_position_embeddings

    @property
    def computes_in(self) -> torch.dtype:
        """Number type of the decoder layers; some models keep other parts in float32."""
        return next(self.layers[0].parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights; of a model on several, that of its inputs and outputs."""
        return self.model.device

    @property
    def devices(self) -> list[torch.device]:
        """All devices that weights are on."""
        return list(dict.fromkeys(parameter.device for parameter in self.model.parameters()))

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
