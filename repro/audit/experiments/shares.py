"""Attention shares of the answer on system, image and user tokens, per layer (Eqs. 7-9, Fig. 2).

Measured on six miniatures and four benchmarks, ``IMAGES`` pictures each, evenly spaced over the items. Share
of an item: Eq. 7, mean over heads (Eq. 9), mean over the rows that predict the tokens of the baseline answer.
Intervals are 95 %, Student's t over pictures, each layer by itself. A *case* is one layer of one model on one
benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from repro.attention import attention_shares
from repro.audit.experiments.common import MODELS, Case, above, every, items_of, percent, shown
from repro.audit.ledger import Load, Shown
from repro.benchmarks import BENCHMARKS
from repro.evaluation.flow import mean_shares, spread
from repro.evaluation.run import evaluate, make_prompt
from repro.models.lvlm import Lvlm, Prompt
from repro.segments import SYSTEM, USER, Segments
from repro.statistics import mean_interval

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
        shares: float [n, N, 3], Eq. 7 over system, image, user.
        first: float [n, N], share of the prompt's first token where the system has more than one, else 0.
        tokens: share of image tokens among the prompt's tokens.
        has_system: whether there are system tokens.
    """

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
def measured(load: Load) -> dict[tuple[str, str], Measured]:
    """All models and benchmarks; kept, as three experiments read it."""
    found = {}
    for model in MODELS:
        lvlm = load(model)
        for name, benchmark in BENCHMARKS.items():
            evaluation = evaluate(lvlm, benchmark, spread(items_of(name), IMAGES), progress=False)
            shares = mean_shares(lvlm, evaluation, IMAGES)[1]
            prompts = [make_prompt(lvlm, benchmark, item) for item in evaluation.items]
            segments = prompts[0].segments
            first = np.zeros(shares.shape[:2])
            if len(segments.system) > 1:
                answers = [answer.ids[:-1] for answer in evaluation.answers]
                first[:] = [first_share(lvlm, *one) for one in zip(prompts, answers, strict=True)]
            found[model, name] = Measured(
                shares, first, len(segments.image) / len(segments), len(segments.system) > 0
            )
    return found


def image_share(load: Load) -> Shown:
    """Section 1: after the third layer, image tokens get less than 2 % of the attention.

    Measure: image share (see the file). A case, a layer after the third, holds where the interval lies below
    2 %, and does not where it lies above.
    """
    means, tokens = [], []
    below: list[Case] = []
    for cell in measured(load).values():
        mean, low, high = mean_interval(cell.shares[:, AFTER:, IMAGE_SHARE])
        below += [above(-most, -least, -BOUND) for least, most in zip(low, high, strict=True)]
        means += mean.tolist()
        tokens.append(cell.tokens)
    figures = {
        "lowest mean": min(means),
        "highest mean": max(means),
        "lowest share of the prompt's tokens": min(tokens),
        "highest share of the prompt's tokens": max(tokens),
    }
    evidence = (
        f"In layers 4 to N image tokens get {percent(min(means))} to {percent(max(means))} of the attention "
        f"(means of {IMAGES} images per benchmark; six miniatures, four benchmarks; a case is a layer). Image "
        f"tokens are {percent(min(tokens))} to {percent(max(tokens))} of these prompts, and 90 % of LLaVA-1.5's."
    )
    return shown(below, evidence, figures)


def _larger(one: np.ndarray, other: np.ndarray) -> list[Case]:
    """Of each layer whether one share [items, layers] is larger than the other on average."""
    _, low, high = mean_interval(one - other)
    return [above(*ends) for ends in zip(low, high, strict=True)]


def share_ordering(load: Load) -> Shown:
    """Section 3.3 and Fig. 2: system tokens get the most attention, image tokens less than either other.

    Measure: paired differences of shares (see the file) in the layers after the third but the last, which
    Fig. 2 excepts. A case holds where the intervals show system > user, system > image and user > image, and
    does not where one of them shows the opposite. The prompts of InstructBLIP have no system tokens, so it
    has no case; there only whether image < user is counted.
    """
    held: list[Case] = []
    most: list[Case] = []
    least: list[Case] = []
    greatest: list[bool] = []
    firsts, systems = [], []
    for cell in measured(load).values():
        system, image, user = np.moveaxis(cell.shares[:, AFTER:-1], -1, 0)
        lowest = _larger(user, image)
        if cell.has_system:
            over_image = _larger(system, image)
            lowest = [every(*one) for one in zip(lowest, over_image, strict=True)]
            first = [every(*one) for one in zip(_larger(system, user), over_image, strict=True)]
            most += first
            held += [every(*one) for one in zip(first, lowest, strict=True)]
        least += lowest
        greatest += (mean_interval(image - np.maximum(system, user))[1] > 0).tolist()
        if cell.first.any():
            firsts.append(cell.first[:, AFTER:-1].mean())
            systems.append(system.mean())
    sink = float(np.sum(firsts) / np.sum(systems))
    figures = {
        "system gets the most": most.count(True),
        "cases with or without system tokens": len(least),
        "image gets the least": least.count(True),
        "image gets the most": sum(greatest),
        "first token's part of the system share": sink,
    }
    evidence = (
        "A case is a layer between the third and the last, of a model on a benchmark "
        f"({IMAGES} images each; five miniatures with system tokens). System tokens get the most in "
        f"{most.count(True)}. Of all six miniatures' {len(least)} cases, image tokens get less than the others in "
        f"{least.count(True)} and more in {sum(greatest)}. Of the system share {percent(sink)} is the first "
        "token's (four miniatures whose prompts have a system message)."
    )
    return shown(held, evidence, figures)


def scaled(n_layers: int) -> np.ndarray:
    """Where layers 1...N stand among 32: float [N], layer 1 at 1 and layer N at 32, evenly spaced."""
    return np.linspace(1, DEPTH, n_layers)


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Low and high end of the 95 % interval of the mean of [items]."""
    _, low, high = mean_interval(values)
    return float(low), float(high)


def share_shape(load: Load) -> Shown:
    """Caption of Fig. 2: the image share falls in layers 1-5, is flat in 6-31 and rises at 32, with the user's.

    Measure: image share (see the file), layers 1...N spread evenly over 1...32. Four parts per model and
    benchmark: it falls (first flat layer - layer 1, interval below 0), is stable (slope of the least-squares
    line through the flat layers x their span, interval within +-2 points), and image and user shares rise
    (layer N - layer N - 1, intervals above 0). A part does not hold where its interval lies on the other
    side.
    """
    parts: dict[str, list[Case]] = {"falls": [], "stable": [], "rises": [], "user rises": []}
    falls = []
    for cell in measured(load).values():
        image, user = cell.shares[..., IMAGE_SHARE], cell.shares[..., USER_SHARE]
        place = scaled(image.shape[1])
        flat = (place >= FLAT[0]) & (place <= FLAT[1])
        fall = image[:, 0] - image[:, flat][:, 0]
        parts["falls"].append(above(*_ends(fall)))
        falls.append(-float(fall.mean()))
        centred = place[flat] - place[flat].mean()
        slopes = image[:, flat] @ centred / (centred**2).sum()
        low, high = _ends(slopes * np.ptp(place[flat]))
        parts["stable"].append(every(above(low, high, -STABLE), above(-high, -low, -STABLE)))
        for name, share in (("rises", image), ("user rises", user)):
            parts[name].append(above(*_ends(share[:, -1] - share[:, -2])))
    whole = [every(*cell) for cell in zip(*parts.values(), strict=True)]
    figures = {
        **{f"cells, {name}": held.count(True) for name, held in parts.items()},
        "lowest change from layer 1": min(falls),
        "highest change from layer 1": max(falls),
    }
    evidence = (
        f"In {len(whole)} cells (six miniatures, four benchmarks; {IMAGES} images each) the image share falls "
        f"after layer 1 in {parts['falls'].count(True)}, is stable within 2 points over the layers that stand for "
        f"6-31 in {parts['stable'].count(True)}, and rises at the last in {parts['rises'].count(True)} (the "
        f"user's in {parts['user rises'].count(True)}). From layer 1 to the first flat layer it changes by "
        f"{100 * min(falls):+.1f} to {100 * max(falls):+.1f} points."
    )
    return shown(whole, evidence, figures)
