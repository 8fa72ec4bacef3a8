"""Attention shares of the answer on system, image and user tokens, per layer (Eqs. 7-9, Fig. 2).

Measured on each model and benchmark, ``IMAGES`` images each, evenly spaced over the items recorded. Share
of an item: Eq. 7, mean over heads (Eq. 9), mean over the rows that predict the tokens of the baseline answer.
Intervals are 95 %, Student's t over images, each layer by itself. A *case* is one layer of one model on one
benchmark.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from repro.attention import attention_shares
from repro.audit.experiments.common import Case, every, percent, positive, record_of, shown, span
from repro.audit.ledger import Finding, Load, Paper, subjects
from repro.evaluation.flow import mean_shares, spread
from repro.evaluation.run import evaluate
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.segments import SYSTEM, USER, Segments

IMAGES = 8
SYSTEM_SHARE, IMAGE_SHARE, USER_SHARE = range(3)
#: The paper's bound, and the layer after which it is to hold (Section 1).
BOUND, AFTER = 0.02, 3
#: Layers of the paper's model, and where its shares are flat (caption of Fig. 2).
DEPTH, FLAT = 32, (6, 31)
#: The share may change by this much over all flat layers: as much as the paper says is left of it.
STABLE = 0.02


@dataclass(frozen=True, eq=False)
class Measured:
    """One model on one benchmark.

    Attributes:
        model: its name.
        shares: float [n, N, 3], Eq. 7 over system, image, user.
        first: float [n, N], share of the prompt's first token where the system has more than one, else 0.
        tokens: share of image tokens among the prompt's tokens.
        has_system: whether there are system tokens.
    """

    model: str
    shares: np.ndarray
    first: np.ndarray
    tokens: float
    has_system: bool


def first_share(lvlm: Lvlm, prompt: Prompt, answer: Sequence[int]) -> np.ndarray:
    """Share [N] of the prompt's first token, a system token, as the shares of segments."""
    # It is left as the only system token, and the others are counted to the user.
    labels = np.where(prompt.segments.labels == SYSTEM, USER, prompt.segments.labels)
    labels[0] = SYSTEM
    alone = replace(prompt, segments=Segments(labels))
    return attention_shares(lvlm, alone, answer).paper[..., SYSTEM_SHARE].mean(axis=1)


@cache
def measure(paper: Paper, load: Load) -> list[Measured]:
    """All models and benchmarks; kept, as three experiments read it."""
    cells = []
    for model in paper.models:
        lvlm = load(model)
        for name in paper.benchmarks:
            record = record_of(model, name)
            evaluation = evaluate(lvlm, record.task, spread(record.items, IMAGES), progress=False)
            shares = mean_shares(lvlm, evaluation, IMAGES)[1]
            segments = evaluation.prompt(lvlm, 0).segments
            first = np.zeros(shares.shape[:2])
            if len(segments.system) > 1:
                for i, answer in enumerate(evaluation.answers):
                    first[i] = first_share(lvlm, evaluation.prompt(lvlm, i), answer.ids[:-1])
            tokens = len(segments.image) / len(segments)
            cells.append(Measured(model, shares, first, tokens, len(segments.system) > 0))
    return cells


def larger(share: np.ndarray, other: np.ndarray) -> list[Case]:
    """Of each layer whether one share [items, layers] is larger than the other on average."""
    return list(map(positive, (share - other).T))


def image_share(paper: Paper, load: Load) -> Finding:
    """Section 1: after the third layer, image tokens get less than 2 % of the attention.

    Measure: image share (see the file). A case, a layer after the third, holds where the interval lies below
    2 %, and does not where it lies above.
    """
    cells = measure(paper, load)
    late = [cell.shares[:, AFTER:, IMAGE_SHARE] for cell in cells]
    means = np.concatenate([share.mean(axis=0) for share in late])
    tokens = [cell.tokens for cell in cells]
    return shown(
        [case for share in late for case in larger(np.full_like(share, BOUND), share)],
        {},
        images=IMAGES,
        means=span(means),
        tokens=span(tokens),
    )


def share_ordering(paper: Paper, load: Load) -> Finding:
    """Section 3.3 and Fig. 2: system tokens get the most attention, image tokens less than either other.

    Measure: paired differences of shares (see the file) in the layers after the third but the last, which
    Fig. 2 excepts. A case holds where the intervals show system > user, system > image and user > image, and
    does not where one of them shows the opposite. The prompts of InstructBLIP have no system tokens, so it
    has no case; there only whether image < user is counted.
    """
    cases: list[Case] = []
    most: list[Case] = []
    least: list[Case] = []
    greatest, firsts, systems = 0, [], []
    cells = measure(paper, load)
    for cell in cells:
        system, image, user = np.moveaxis(cell.shares[:, AFTER:-1], -1, 0)
        lowest = larger(user, image)
        if cell.has_system:
            over_image = larger(system, image)
            lowest = list(map(every, lowest, over_image))
            first = list(map(every, larger(system, user), over_image))
            most += first
            cases += map(every, first, lowest)
        least += lowest
        greatest += larger(image, np.maximum(system, user)).count(True)
        if cell.first.any():
            firsts.append(cell.first[:, AFTER:-1].mean())
            systems.append(system.mean())
    sink = float(np.sum(firsts) / np.sum(systems))
    return shown(
        cases,
        {
            "system gets the most": most.count(True),
            "cases with or without system tokens": len(least),
            "image gets the least": least.count(True),
            "image gets the most": greatest,
        },
        images=IMAGES,
        sink=percent(sink),
        prompted=subjects(list(dict.fromkeys(cell.model for cell in cells if cell.has_system))),
        spoken=subjects(list(dict.fromkeys(cell.model for cell in cells if cell.first.any()))),
    )


def scaled(n_layers: int) -> np.ndarray:
    """Where layers 1...N stand among 32: float [N], layer 1 at 1 and layer N at 32, evenly spaced."""
    return np.linspace(1, DEPTH, n_layers)


def share_shape(paper: Paper, load: Load) -> Finding:
    """Caption of Fig. 2: the image share falls in layers 1-5, is flat in 6-31 and rises at 32, with the user's.

    Measure: image share (see the file), layers 1...N spread evenly over 1...32. Four parts per model and
    benchmark: it falls (first flat layer - layer 1, interval below 0), is stable (slope of the least-squares
    line through the flat layers x their span, interval within +-2 points), and image and user shares rise
    (layer N - layer N - 1, intervals above 0). A part does not hold where its interval lies on the other
    side.
    """
    parts: dict[str, list[Case]] = {"falls": [], "stable": [], "rises": [], "user rises": []}
    changes = []
    for cell in measure(paper, load):
        image, user = cell.shares[..., IMAGE_SHARE], cell.shares[..., USER_SHARE]
        place = scaled(image.shape[1])
        flat = (place >= FLAT[0]) & (place <= FLAT[1])
        change = image[:, flat][:, 0] - image[:, 0]
        changes.append(float(change.mean()))
        centred = place[flat] - place[flat].mean()
        drift = image[:, flat] @ centred / (centred**2).sum() * np.ptp(place[flat])
        parts["falls"].append(positive(-change))
        parts["stable"].append(every(positive(drift + STABLE), positive(STABLE - drift)))
        parts["rises"].append(positive(image[:, -1] - image[:, -2]))
        parts["user rises"].append(positive(user[:, -1] - user[:, -2]))
    return shown(
        list(map(every, *parts.values())),
        {f"cells, {name}": own.count(True) for name, own in parts.items()},
        images=IMAGES,
        changes=span([100 * change for change in changes], "{:+.1f}".format),
    )
