"""Deletion and insertion: does the answer need the image tokens that a map marks? (Petsiuk et al. 2018, RISE)

An image token is deleted by replacing it with the mean embedding of its image's tokens. That keeps the number of
tokens and their positions, which a mask would not: without them, attention goes elsewhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.models.anatomy import Arguments, first_output, replaced
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import NotAdmitted, apart


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

    Raises ValueError for an empty answer, another order, or fewer than two steps; NotAdmitted for a model whose
    image reaches later layers in other ways than through its tokens at layer 1.
    """
    lvlm.admit("deletion", prove_deletion)
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
        parts = []
        for rows in deleted.split(steps if lvlm.batches else 1):
            with _deleted(lvlm, image, rows):
                parts.append(lvlm.forward([prompt] * len(rows), answer[:-1], last=len(answer)))
        logits = torch.cat(parts)
        log_probabilities = logits.double().log_softmax(dim=-1)
        ids = torch.tensor(list(answer), device=lvlm.device).expand(steps, -1)
        return log_probabilities.gather(-1, ids[..., None]).sum(dim=(1, 2)).exp().cpu().numpy()


def prove_deletion(lvlm: Lvlm) -> str:
    """That of two images whose tokens are all replaced by the same, nothing reaches the logits.

    Raises NotAdmitted, with the difference, if something does.
    """
    both = lvlm.trial_prompts[:2]
    image = torch.from_numpy(both[0].segments.image).to(lvlm.device)
    together = [both] if lvlm.batches else [[one] for one in both]
    every = torch.ones(len(together[0]), len(image), dtype=torch.bool, device=lvlm.device)
    with torch.inference_mode(), _deleted(lvlm, image, every, 0.0):
        left = apart(*torch.cat([lvlm.forward(prompts)[:, -1] for prompts in together]))
    if not left <= lvlm.tolerance:
        raise NotAdmitted(
            f"with every image token replaced, logits of two images still differ by {left:.2g}; rounding is "
            f"{lvlm.tolerance:.2g}"
        )
    return f"nothing of the image is left, within {left:.1e}"


@contextmanager
def _deleted(lvlm: Lvlm, image: Tensor, deleted: Tensor, by: float | None = None) -> Iterator[None]:
    """Within the context, row b of a batch has the image tokens ``deleted[b]`` replaced as they enter layer 1.

    And what a model adds to them between later layers.

    Args:
        by: the value put in all places; None: the mean of the image's tokens.
    """
    anatomy = lvlm.anatomy  # learnt by passes of its own, before this one

    before: list[Any] = [None]  # output of the layer before

    def record(module: Any, args: tuple[Any, ...], output: Any) -> None:
        before[0] = first_output(output)

    def replace(index: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        place, hidden, axis = anatomy.hidden(index, args, kwargs)
        left = before[0] if index else None
        if hidden is left:
            return args, kwargs
        tokens = (hidden if left is None else hidden - left).index_select(axis, image)
        substitute = tokens.mean(dim=axis, keepdim=True) if by is None else tokens.new_tensor(by)
        chosen = deleted.view(len(deleted), -1, *[1] * (-axis - 1))
        mixed = torch.where(chosen, substitute, tokens)
        if left is not None:
            mixed = left.index_select(axis, image) + mixed
        new = {place: hidden.index_copy(axis, image, mixed)}
        return replaced(args, new), replaced(kwargs, new)

    with ExitStack() as hooks:
        for index, layer in enumerate(lvlm.layers):
            hook = layer.register_forward_pre_hook(partial(replace, index), with_kwargs=True)
            hooks.callback(hook.remove)
            hooks.callback(layer.register_forward_hook(record).remove)
        yield
