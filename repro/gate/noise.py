"""What the same model on the same prompt differs by, when nothing changed but the order of additions.

Nothing is called a difference that is not above this. It is measured where a record is made, not guessed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from repro.gate.stages import Reading, largest_and_mean, read
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import raise_if_passing

#: A stage differs from its noise times this on: other machines round in more ways than one machine can try.
FACTOR = 8
#: Of relative distances, what rounding may add where none was measured, in last digits of float32.
DIGITS = 64
#: Least tolerances of distances that are no relative ones.
LEAST = {"shares": 1e-5, "heat": 1e-4}


@contextmanager
def _other_threads() -> Iterator[None]:
    """Within the context, torch has one thread, or two if it had one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def other_kernel(lvlm: Lvlm) -> AbstractContextManager[Any]:
    """Within the context, the model attends by another implementation than its own."""
    own = getattr(lvlm.decoder.config, "_attn_implementation", "")
    return lvlm.kernel("eager" if own != "eager" else "sdpa")


def noise(lvlm: Lvlm, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """The largest distance at each stage between readings of the same prompts in different ways.

    In reverse order; in a batch of three, where the model gives the same in a batch; with another attention
    kernel; with another number of threads; with the last digit of every pixel another, which shows how much the
    model makes of rounding in its image tower.
    """
    pairs = list(zip(prompts, answers, strict=True))
    first = [read(lvlm, *pair) for pair in pairs]
    ways: list[tuple[Callable[[], AbstractContextManager[Any]], int]] = [
        (nullcontext, 1),
        (_other_threads, 1),
        (partial(other_kernel, lvlm), 1),
    ]
    if lvlm.batches:
        ways.append((nullcontext, 3))
    found: list[tuple[Reading, Reading]] = []
    for context, copies in ways:
        with context():
            try:
                again = [read(lvlm, *pair, copies) for pair in reversed(pairs)]
            except Exception as error:  # a kernel that this model does not have
                raise_if_passing(error)
                continue
            found += zip(first, reversed(again), strict=True)
    rounded = [(_rounded(lvlm, prompt), answer) for prompt, answer in pairs]
    found += zip(first, [read(lvlm, *pair) for pair in rounded], strict=True)
    return {stage: values[0] for stage, values in largest_and_mean(found).items()}


def _rounded(lvlm: Lvlm, prompt: Prompt) -> Prompt:
    """A prompt whose pixels are one digit up or down."""
    name = lvlm.pixel_name(prompt)
    pixels = prompt.image_inputs[name]
    up = torch.randint(0, 2, pixels.shape, generator=torch.Generator().manual_seed(0)).to(pixels)
    digit = torch.finfo(pixels.dtype).eps
    return replace(prompt, image_inputs={**prompt.image_inputs, name: pixels * (1 + digit * (2 * up - 1))})


def tolerances(measured: Mapping[str, np.ndarray], dtype: torch.dtype) -> dict[str, np.ndarray]:
    """From which distance on a stage differs: a multiple of its noise, or of that of any layer before it."""
    digit = torch.finfo(dtype).eps
    least = DIGITS * torch.finfo(torch.float32).eps
    return {
        stage: np.maximum(max(LEAST.get(stage, least), digit), FACTOR * np.maximum.accumulate(values))
        for stage, values in measured.items()
    }
