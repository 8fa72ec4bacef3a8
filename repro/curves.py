"""Deletion and insertion: does the answer need the image tokens that a map marks? (Petsiuk et al. 2018, RISE)

An image token is deleted by the mean embedding of its picture's tokens in its place. That keeps the number of
tokens and their positions, which a mask would not: without them, attention goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from repro.models.lvlm import Lvlm, Prompt


def token_heat(heat: np.ndarray, prompt: Prompt) -> np.ndarray:
    """Heat [rows, columns] of the grid as heat of the image tokens [n_image]; 0 for tokens that cover no cell."""
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
    """Probability of an answer as more and more image tokens are deleted.

    Args:
        answer: its token ids, at least one; the probability is that of all of them, teacher forced.
        order: a permutation of the image tokens, the first to go first.
        steps: points of the curve, at least 2, evenly spaced from no token to all.
        insert: all tokens are deleted at first and come back in this order.

    Returns:
        float64 [steps].

    Raises:
        ValueError: an empty answer, another order, or fewer than two steps.
    """
    image = torch.from_numpy(prompt.segments.image).to(lvlm.device)
    if len(answer) == 0 or steps < 2 or sorted(order) != list(range(len(image))):
        raise ValueError(
            f"a curve needs an answer, 2 steps or more and an order of {len(image)} image tokens; given are "
            f"{len(answer)} answer tokens, {steps} steps and an order of {len(order)}"
        )
    place = torch.empty(len(image), dtype=torch.int64, device=lvlm.device)
    place[torch.tensor(list(order), device=lvlm.device)] = torch.arange(len(image), device=lvlm.device)
    counts = torch.linspace(0, len(image), steps, device=lvlm.device).round()
    touched = place < counts[:, None]
    gone = ~touched if insert else touched
    with torch.inference_mode():
        whole = lvlm.embed(lvlm.sequence(prompt, answer[:-1]), prompt.image_inputs)
        rows = whole.repeat(steps, 1, 1)
        own = whole[:, image]
        rows[:, image] = torch.where(gone[..., None], own.mean(dim=1, keepdim=True), own)
        hidden = lvlm.hidden_states(rows, lvlm.positions(prompt, len(answer) - 1))[:, -len(answer) :]
        likely = lvlm.head(hidden).double().log_softmax(dim=-1)
        ids = torch.tensor(list(answer), device=lvlm.device).expand(steps, -1)
        return likely.gather(-1, ids[..., None]).sum(dim=(1, 2)).exp().cpu().numpy()
