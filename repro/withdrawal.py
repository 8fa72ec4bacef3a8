"""VTW's criterion for the layer after which image tokens can be removed, to compare with the cliff layer.

Visual Tokens Withdrawal (arXiv 2405.05803) drops all image tokens after a layer K, which is truncation with k = 0.
It chooses K without answers: the first layer after which withdrawal leaves the distribution of the first answer
token close to the untruncated one, on average over a few prompts. After github.com/lzhxmu/VTW at 34a4199:
``llava/model/language_model/VTW.py`` (divergence) and ``lmms-evaluation/lmms_eval/__main__.py`` (thresholds; the
search starts at K = 5 of 32 or 40 layers, and 5 is added back to the resulting index).
"""

import numpy as np
from scipy.special import log_softmax

#: Published thresholds in nats, by our model names; ``DEFAULT_ETA``, also theirs, for every other model.
ETA = {"llava-1.6": 1e-4}
DEFAULT_ETA = 3e-3
#: Items of the published calibration (``--limit 20``, on ScienceQA's questions with an image).
CALIBRATION = 20


def divergence(logits: np.ndarray) -> np.ndarray:
    """KL(truncated after L || untruncated) of a distribution over the vocabulary, in nats.

    The released code passes the untruncated log-probabilities as input and the others as target of PyTorch's
    ``KLDivLoss``, which weights by the target.

    Args:
        logits: [..., N + 1, vocabulary], axis -2 over L = 0...N, as ``Sweep.logits``.

    Returns float64 [..., N + 1], >= 0 up to rounding and 0 at L = N.
    """
    log = log_softmax(logits.astype(np.float64), axis=-1)
    return (np.exp(log) * (log - log[..., -1:, :])).sum(axis=-1)


def withdrawal_layer(divergences: np.ndarray, eta: float = DEFAULT_ETA) -> int:
    """The smallest L at which the mean divergence is at most ``eta``; later layers may exceed it again.

    N if no other passes (the released code raises an IndexError). All L are tried, from 0: the published start at
    5 would leave out most layers of a small model.

    Args:
        divergences: [items, N + 1], from ``divergence``.
        eta: threshold in nats, >= 0.

    Raises ValueError for another shape, no items, or a negative threshold.
    """
    if divergences.ndim != 2 or not divergences.size:
        raise ValueError(f"divergences must have the shape [items, N + 1], not {list(divergences.shape)}")
    if not eta >= 0:
        raise ValueError(f"eta must be at least 0, not {eta}")
    passes = divergences.mean(axis=0) <= eta
    passes[-1] = True
    return int(passes.argmax())
