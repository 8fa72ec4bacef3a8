"""What must hold of any model, with or without a record."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from repro.gate.noise import DIGITS, FACTOR
from repro.gate.stages import distances, read_inputs, read_pass
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import UNSAID, apart

#: Relative to the largest logit, what passes that add in other orders may differ by, in last digits of float32.
LOOSE = 64 * DIGITS


def tripwires(
    lvlm: Lvlm, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]], noise: Mapping[str, np.ndarray]
) -> list[str]:
    """What does not hold of the first prompt and the first about another image, in words.

    ``noise`` is what ``repro.gate.noise`` measured.
    """
    pixels = [read_inputs(prompt)["pixels"] for prompt in prompts]
    other = next((i for i, values in enumerate(pixels) if not np.array_equal(values, pixels[0])), 0)
    prompts, answers = [prompts[0], prompts[other]], [answers[0], answers[other]]
    trouble = _of_images(lvlm, prompts, answers)
    relative = float(noise["logits"].max()) if "logits" in noise else 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = lvlm.logits(prompt)[-1]
        said = logits.float()[logits > UNSAID]
        # Noise is relative to the norm of all logits; of a single one it may be all of it.
        allowed = max(
            LOOSE * torch.finfo(torch.float32).eps * float(said.abs().max()),
            FACTOR * min(1, 4 / len(said) ** 0.5) * relative * float(said.norm()),
        )
        if len(answer) > 1:
            followed = lvlm.logits(prompt, answer[:1])[len(prompt.segments) - 1]
            if apart(followed, logits) > allowed:
                trouble.append(
                    "what follows the prompt changes what its last token predicts: causality is lost"
                )
        generated, decoded = lvlm.generate(prompt, 4)
        rows = lvlm.logits(prompt, generated[:-1])[-len(generated) :]
        if apart(rows, decoded.to(rows.device)) > allowed:
            trouble.append(
                "tokens decoded with a cache have other logits than in one pass: the cache is wrong"
            )
        if lvlm.generate(prompt, 4)[0] != generated:
            trouble.append("an answer depends on what was asked before: state leaks from call to call")
    if lvlm.batches and (swapped := _with_images_of(prompts[0], prompts[-1])) is not None:
        pair = [prompts[0], swapped]
        alone = torch.stack([lvlm.logits(prompt)[-1] for prompt in pair])
        with torch.inference_mode():
            together = lvlm.forward(pair, last=1)[:, -1]
        if apart(together, alone) > allowed:
            trouble.append("a batch gives other logits than its prompts alone: images or masks are mixed up")
    return list(dict.fromkeys(trouble))


def _of_images(lvlm: Lvlm, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> list[str]:
    """What does not hold of images blanked, and exchanged for another item's."""
    trouble, deaf = [], {"a blank image": 0, "another item's image": 0}
    for prompt, other, answer in zip(prompts, reversed(prompts), answers, strict=True):
        pixels = lvlm.pixel_name(prompt)
        values = prompt.image_inputs[pixels]
        blank = replace(prompt, image_inputs={**prompt.image_inputs, pixels: torch.zeros_like(values)})
        own = read_pass(lvlm, prompt, answer, 1)
        for what, changed in zip(deaf, (blank, _with_images_of(prompt, other)), strict=True):
            if changed is None or _equal(values, changed.image_inputs[pixels]):
                continue
            apart_by = distances(own, read_pass(lvlm, changed, answer, 1))
            if apart_by["text embeddings"].any():
                trouble.append(f"{what} changes embeddings that are no image token's: places are mixed up")
            if not apart_by["logits"].any():
                deaf[what] += 1
    trouble += [
        f"{what} gives the same logits: the image does not reach the answer"
        for what, count in deaf.items()
        if count == len(prompts)
    ]
    return trouble


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _with_images_of(prompt: Prompt, other: Prompt) -> Prompt | None:
    """A prompt about another's images, if they have its shapes."""
    shapes = [{name: value.shape for name, value in one.image_inputs.items()} for one in (prompt, other)]
    return replace(prompt, image_inputs=other.image_inputs) if shapes[0] == shapes[1] else None
