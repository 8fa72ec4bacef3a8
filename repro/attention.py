"""Attention shares of the answer, per layer (Eqs. 7-8, Fig. 2).

The model runs once with ordinary SDPA attention. In the same pass, the softmax rows of the chosen queries are
formed and reduced at once to a mass per segment; no S x S map is ever stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.models.attending import Attending
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import NotAdmitted
from repro.segments import NAMES


@dataclass(frozen=True)
class Shares:
    """Attention mass by segment.

    Attributes:
        raw: float32 [N, rows, 4] over system, image, user, answer; sums to 1 along the last axis. Row 0 is the
            last prompt position (it predicts the first answer token), row i the i-th answer token.
    """

    raw: np.ndarray

    @property
    def paper(self) -> np.ndarray:
        """Eq. 7: [N, rows, 3] over system, image, user, renormalised to sum to 1.

        Eq. 7 as printed omits the answer tokens already generated, so it holds for answer rows only after this
        renormalisation. NaN for rows without mass on the prompt.
        """
        prompt = self.raw[..., :3]
        with np.errstate(invalid="ignore"):
            return prompt / prompt.sum(axis=-1, keepdims=True)


def attention_shares(lvlm: Lvlm, prompt: Prompt, answer: Sequence[int] = ()) -> Shares:
    """Shares of the last prompt row and of every answer row, at every layer, mean over query heads.

    The paper's text takes the mean over heads (Eq. 9); its notebook, since deleted, took the maximum.

    Args:
        answer: token ids of the answer, teacher forced; rows follow in their order.

    Raises ValueError if the attention is not finite (NaN or infinite weights or activations).
    """
    lvlm.admit("shares", prove_shares)
    labels = torch.from_numpy(prompt.segments.with_answer(len(answer))).to(lvlm.device, torch.int64)
    segments = torch.nn.functional.one_hot(labels, len(NAMES)).float()
    rows = torch.arange(len(prompt.segments) - 1, len(labels), device=lvlm.device)
    shares: list[Tensor] = []

    def record(attending: Attending) -> None:
        dropped = len(labels) - attending.key.shape[2]
        columns = segments
        if dropped:  # by truncation, all of them before the rows
            assert lvlm.truncation is not None and lvlm.truncation.stay is not None
            columns = segments[lvlm.truncation.stay[0]]
        missing = len(labels) - attending.query.shape[2]
        probabilities = attending.softmax_rows((rows - missing).to(attending.query.device))[0]
        shares.append(probabilities.to(lvlm.device) @ columns)

    with torch.inference_mode(), lvlm.observed(record):
        lvlm.forward([prompt], answer, last=len(rows))
    raw = torch.stack(shares).cpu().numpy()
    if not np.isfinite(raw).all():
        layer = int(np.argwhere(~np.isfinite(raw))[0][0]) + 1
        raise ValueError(
            f"attention of layer {layer} is not finite: weights or activations are NaN or infinite"
        )
    return Shares(raw)


def prove_shares(lvlm: Lvlm) -> str:
    """That the probed row of three layers is the softmax of the model's own eager code, and its output too.

    Raises NotAdmitted, with the difference, if not, and for layers that do not attend.
    """
    others = [i + 1 for i, module in enumerate(lvlm.attention_modules) if module is None]
    if others:
        raise NotAdmitted(
            f"layers {', '.join(map(str, others))} do not attend ({type(lvlm.layers[others[0] - 1]).__name__})"
        )
    if isinstance(error := lvlm.probe_error, str):
        raise NotAdmitted(error)
    if not lvlm.watchable:
        raise NotAdmitted("the model gives other logits while its attention is observed")
    # Probabilities of some hundred keys; those of half precision are rounded by the model's own code.
    most = max(1e-5, 4 * torch.finfo(lvlm.computes_in).eps)
    if not error <= most:
        raise NotAdmitted(f"attention differs from the model's own by {error:.2g}; rounding is {most:.2g}")
    return f"equal to the model's own softmax within {error:.1e}"
