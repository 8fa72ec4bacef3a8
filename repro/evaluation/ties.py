"""Answers that hang on rounding: in half precision the first of two nearly equal tokens may be either."""

import numpy as np
import torch

from repro.evaluation.flow import spread
from repro.evaluation.measured import RecordedTable
from repro.evaluation.run import Evaluation
from repro.models.lvlm import Lvlm
from repro.sweep import sweep
from repro.truncation import truncated

#: Items that are answered again by one truncated run per layer, and tokens of these answers.
ITEMS, TOKENS = 4, 8
HEADER = [
    "items",
    "answers",
    "answers that differ",
    "noise of logits",
    "near ties",
    "near ties at the baseline",
]


def near_ties(lvlm: Lvlm, evaluation: Evaluation) -> list[RecordedTable]:
    """How much of the answers is rounding, of a model in half precision; nothing in float32.

    A sweep and one truncated run per layer differ by rounding alone: the largest difference of their first logits,
    and at least a last digit of the greatest one, is the noise. A first token is a near tie if its rival is within
    twice that.
    """
    if lvlm.computes_in == torch.float32:
        return []
    indices = spread(range(len(evaluation.items)), ITEMS)
    differ, noise, first = 0, 0.0, []
    for index in indices:
        prompt = evaluation.prompt(lvlm, index)
        tokens = min(TOKENS, evaluation.task.max_new_tokens, lvlm.room(prompt))
        [swept] = sweep(lvlm, [prompt], tokens)
        first.append(swept.logits)
        for after, answer in enumerate(swept.answers):
            with truncated(lvlm, after):
                ids, logits = lvlm.generate(prompt, tokens)
            differ += tuple(ids) != answer.ids
            noise = max(noise, float(abs(logits[0].cpu().numpy() - swept.logits[after]).max()))
    noise = max(noise, torch.finfo(lvlm.computes_in).eps * float(np.max(first)))
    ties = tied(np.stack(first), noise)
    baseline = [evaluation.items[i].id for i, tie in zip(indices, ties[:, -1], strict=True) if tie]
    title = (
        f"{evaluation.benchmark.title}, protocol {evaluation.task.protocol}: rounding in {lvlm.computes_in}"
    )
    row = [len(indices), ties.size, differ, f"{noise:.2g}", int(ties.sum()), ", ".join(baseline) or "none"]
    return [(title.replace("torch.", ""), HEADER, [row])]


def tied(logits: np.ndarray, noise: float) -> np.ndarray:
    """Whether the two greatest of logits [..., vocabulary] are within twice the noise: bool [...]."""
    second, greatest = np.moveaxis(np.partition(logits, -2)[..., -2:], -1, 0)
    return greatest - second <= 2 * noise
