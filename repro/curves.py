"""Deletion and insertion: does the answer need the image tokens that a map marks? (Petsiuk et al. 2018, RISE)

An image token is deleted by replacing it with the mean embedding of its image's tokens. That keeps the number of
tokens and their positions, which a mask would not: without them, attention goes elsewhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.models.anatomy import Arguments, replaced
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt


def token_heat(heat: np.ndarray, prompt: Prompt) -> np.ndarray:
    """Heat of the image tokens [n_image] from heat of the grid [rows, columns]; 0 for tokens without a cell."""
    flat = heat.reshape(-1)
    if prompt.cells is None:
        return flat
    return np.where(prompt.cells >= 0, flat[prompt.cells], 0.0)


def deletion_curve(
    lvlm: Lvlm,
    prompt: Prompt,
    answer: Sequence[int],
    order: Sequence[int],
    steps: int = 7,
    insert: bool = False,
) -> np.ndarray:
    """Probability of an answer as more and more image tokens are deleted: float64 [steps].

    Args:
        answer: its token ids, at least one; the probability is that of all of them together, teacher forced.
        order: a permutation of the image tokens, in the order of deletion.
        steps: points of the curve, at least 2, evenly spaced from no token to all.
        insert: instead, all tokens are deleted at first and return in this order.

    Raises ValueError for an empty answer, another order, or fewer than two steps.
    """
    image = torch.from_numpy(prompt.segments.image).to(lvlm.device)
    if len(answer) == 0 or steps < 2 or sorted(order) != list(range(len(image))):
        raise ValueError(
            f"a curve needs an answer, 2 steps or more and an order of {len(image)} image tokens; got "
            f"{len(answer)} answer tokens, {steps} steps and an order of {len(order)}"
        )
    rank = torch.tensor(list(order), device=lvlm.device).argsort()
    counts = torch.linspace(0, len(image), steps, device=lvlm.device).round()
    deleted = (rank < counts[:, None]) ^ insert
    with torch.inference_mode():
        with _deleted(lvlm, image, deleted):
            logits = lvlm.forward([prompt] * steps, answer[:-1], last=len(answer))
        log_probabilities = logits.double().log_softmax(dim=-1)
        ids = torch.tensor(list(answer), device=lvlm.device).expand(steps, -1)
        return log_probabilities.gather(-1, ids[..., None]).sum(dim=(1, 2)).exp().cpu().numpy()


@contextmanager
def _deleted(lvlm: Lvlm, image: Tensor, deleted: Tensor) -> Iterator[None]:
    """Within the context, row b of a batch has the image tokens ``deleted[b]`` replaced as they enter layer 1."""
    anatomy = lvlm.anatomy  # learnt by passes of its own, before this one

    def replace(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        place, hidden, axis = anatomy.hidden(0, args, kwargs)
        tokens = hidden.index_select(axis, image)
        mixed = torch.where(deleted[..., None], tokens.mean(dim=axis, keepdim=True), tokens)
        new = {place: hidden.index_copy(axis, image, mixed)}
        return replaced(args, new), replaced(kwargs, new)

    handle = lvlm.layers[0].register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
