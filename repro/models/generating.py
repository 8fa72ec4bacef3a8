"""Greedy answers by a model's own ``generate``, and the settings that it obeys."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from repro.models.card import ModelCard
from repro.models.prompts import Answer, Prompt


class Generating:
    """A model that answers; see ``repro.models.lvlm.Lvlm`` for its parts."""

    card: ModelCard
    model: Any
    tokenizer: Any
    #: The language model with its head, which ``generate`` calls token by token.
    generator: Any

    @property
    def generation_config(self) -> Any:
        """Settings of ``generate``."""
        return self.model.generation_config

    def answer(self, prompt: Prompt, max_new_tokens: int) -> Answer:
        """The greedy answer, by the model's own ``generate``."""
        return self.decode(self.generate(prompt, max_new_tokens)[0])

    def generate(self, prompt: Prompt, max_new_tokens: int) -> tuple[list[int], Tensor]:
        """Ids of the greedy answer and the logits [tokens, vocabulary] that it was chosen by.

        Raises ValueError for settings that are not supported, see ``logits_processors``.
        """
        self._check_settings()
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=prompt.input_ids,
                attention_mask=torch.ones_like(prompt.input_ids),
                **prompt.sequence_inputs,
                **prompt.image_inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # InstructBLIP's own setting would change greedy answers
                return_dict_in_generate=True,
                output_logits=True,
            )
        logits = torch.cat(out.logits).float()
        return out.sequences[0, -len(logits) :].tolist(), logits

    def logits_processors(self, prompt: Prompt, max_new_tokens: int) -> Any:
        """What the checkpoint's settings of ``generate`` do to the logits before the greatest is taken.

        Such as ``min_new_tokens``, ``suppress_tokens`` or ``bad_words_ids``: transformers' own processors, called
        with ids [B, T + tokens so far] and logits [B, vocabulary]. Those of sampling and beams do not count, nor
        does ``repetition_penalty``, as in ``generate``.

        Raises ValueError for ``stop_strings``, which only ``generate`` with a tokenizer obeys.
        """
        self._check_settings()
        settings = copy.deepcopy(self.generation_config)
        settings.update(do_sample=False, num_beams=1, repetition_penalty=1.0, max_new_tokens=max_new_tokens)
        length = len(prompt.segments)
        if settings.min_new_tokens:
            settings.min_length = length + settings.min_new_tokens
        settings.max_length = length + max_new_tokens
        self.generator._prepare_special_tokens(settings, device=self.model.device)
        return self.generator._get_logits_processor(
            generation_config=settings,
            input_ids_seq_length=length,
            encoder_input_ids=prompt.input_ids,
            prefix_allowed_tokens_fn=None,
            logits_processor=LogitsProcessorList(),
            device=str(self.model.device),
            model_kwargs={},
        )

    def _check_settings(self) -> None:
        if stop := getattr(self.generation_config, "stop_strings", None):
            raise ValueError(
                f"{self.card.name}: generation_config.json has stop_strings {stop!r}, which are not supported: "
                "remove the setting, and cut answers when they are read"
            )

    @property
    def head(self) -> Any:
        """Module from normed hidden states [..., width] to logits [..., vocabulary]."""
        return self.generator.get_output_embeddings()

    def text_logits(self, ids: Tensor) -> Tensor:
        """Logits [B, T, vocabulary] of texts without an image, of ids [B, T]."""
        return self.generator(input_ids=ids, use_cache=False).logits

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer, from the model's generation settings."""
        stop = self.generation_config.eos_token_id
        return frozenset([stop] if isinstance(stop, int) else stop or [])

    def decode(self, ids: Sequence[int]) -> Answer:
        """An ``Answer`` from generated ids."""
        return Answer(tuple(ids), self.tokenizer.decode(ids, skip_special_tokens=True).strip())
