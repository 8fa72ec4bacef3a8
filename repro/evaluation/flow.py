"""The instruments over many items: attention shares, and where the heat of LLaVA-CAM falls."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from repro.attention import attention_shares
from repro.benchmarks.benchmark import Item
from repro.cam import llava_cam
from repro.evaluation.run import Evaluation
from repro.models.lvlm import Lvlm

Box = tuple[int, int, int, int]
T = TypeVar("T")


def spread(values: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the values, evenly spaced."""
    if len(values) <= count:
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, count).round().astype(int)]


def mean_shares(lvlm: Lvlm, evaluation: Evaluation, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of ``count`` items with the baseline answer, averaged over the rows that predict its tokens.

    Returns:
        raw [n, N, 4] over system, image, user, answer, and Eq. 7's [n, N, 3].
    """
    raw, paper = [], []
    for i in spread(range(len(evaluation.items)), count):
        # The row of the last token predicts no token of the answer.
        shares = attention_shares(lvlm, evaluation.prompt(lvlm, i), evaluation.answers[i].ids[:-1])
        raw.append(shares.raw.mean(axis=1))
        paper.append(shares.paper.mean(axis=1))
    return np.stack(raw), np.stack(paper)


def coverage(boxes: Sequence[Box], size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """How much of each grid cell the boxes cover: float64 [rows, columns] in [0, 1].

    Args:
        boxes: x, y, width, height in pixels of an image of ``size`` (width, height).
        grid: rows and columns of the image tokens, which span the image.
    """
    inside = np.zeros((size[1], size[0]))
    for x, y, width, height in boxes:
        inside[y : y + height, x : x + width] = 1.0
    rows = (np.arange(size[1]) * grid[0]) // size[1]
    columns = (np.arange(size[0]) * grid[1]) // size[0]
    summed, count = np.zeros(grid), np.zeros(grid)
    np.add.at(summed, (rows[:, None], columns[None]), inside)
    np.add.at(count, (rows[:, None], columns[None]), 1.0)
    return summed / count


def energy_inside(heat: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Share of the heat [N, rows, columns] that falls on covered cells: [N]; NaN for a layer without heat."""
    with np.errstate(invalid="ignore"):
        return (heat * covered).sum(axis=(1, 2)) / heat.sum(axis=(1, 2))


def heat_maps(lvlm: Lvlm, evaluation: Evaluation, indices: Sequence[int]) -> list[np.ndarray]:
    """LLaVA-CAM [N, rows, columns] of the baseline answer of each item, without its closing token."""
    maps = []
    for i in indices:
        ids = evaluation.answers[i].ids
        answer = ids[:-1] if len(ids) > 1 and ids[-1] in lvlm.stop_ids else ids
        maps.append(llava_cam(lvlm, evaluation.prompt(lvlm, i), answer, samples=4))
    return maps


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """About ``count`` of the items, evenly from each stratum, of an image one in each stratum at most.

    Other images wherever there are enough, as answers about one image may all change together; now this question
    of an image, now that, as benchmarks ask in a fixed order of right answers.
    """
    strata: dict[str, dict[object, list[Item]]] = {}
    for item in items:
        strata.setdefault(item.stratum, {}).setdefault(item.image, []).append(item)
    each = -(-count // len(strata))
    seen: set[object] = set()
    chosen = []
    for images in strata.values():
        fresh = {image: asked for image, asked in images.items() if image not in seen}
        places = list(enumerate((fresh if len(fresh) >= each else images).values()))
        picked = [asked[number % len(asked)] for number, asked in spread(places, each)]
        seen |= {item.image for item in picked}
        chosen += picked
    return chosen
