"""The instruments over many items: attention shares, and where the heat of LLaVA-CAM falls."""

from collections.abc import Sequence
from math import ceil, floor
from typing import TypeVar

import numpy as np
from PIL import Image

from repro.attention import attention_shares
from repro.benchmarks.benchmark import Item
from repro.benchmarks.files import Box
from repro.cam import llava_cam
from repro.evaluation.run import Evaluation
from repro.models.lvlm import Lvlm

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
        boxes: x, y, width, height in pixels of an image of ``size`` (width, height); a pixel counts if it is
            touched.
        grid: rows and columns of the image tokens, which span the image.
    """
    inside = np.zeros((size[1], size[0]))
    for x, y, width, height in boxes:
        left, top = max(0, floor(x)), max(0, floor(y))
        inside[top : max(0, ceil(y + height)), left : max(0, ceil(x + width))] = 1.0
    rows = (np.arange(size[1]) * grid[0]) // size[1]
    columns = (np.arange(size[0]) * grid[1]) // size[0]
    summed, count = np.zeros(grid), np.zeros(grid)
    np.add.at(summed, (rows[:, None], columns[None]), inside)
    np.add.at(count, (rows[:, None], columns[None]), 1.0)
    return summed / count


def seen_part(lvlm: Lvlm, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What of an image of this width and height the model sees: x, y, width, height in pixels of its file.

    x and y are negative where the image gets margins, positive where it is cropped. Read off two images whose
    colours say where a pixel is, in red and green, and whether it is one of the image's, in blue.
    """
    colours = np.zeros((size[1], size[0], 3), np.uint8)
    colours[..., 0] = np.rint(255 * (np.arange(size[0]) + 0.5) / size[0])
    colours[..., 1] = np.rint(255 * (np.arange(size[1])[:, None] + 0.5) / size[1])
    without = np.asarray(lvlm.prompt(Image.fromarray(colours), "?").image).astype(float)
    colours[..., 2] = 255
    seen = np.asarray(lvlm.prompt(Image.fromarray(colours), "?").image).astype(float)
    inside = seen[..., 2] - without[..., 2] > 250
    places = [np.flatnonzero(inside.any(axis=axis)) for axis in (0, 1)]
    # Resampling bends the ramps at their ends.
    columns, rows = (found[2:-2] if len(found) > 5 else found for found in places)
    ends = []
    for axis, (at, length) in enumerate(zip((columns, rows), size, strict=True)):
        ramp = seen[np.ix_(rows, columns)][..., axis].mean(axis=axis) / 255
        slope, start = np.polyfit((at + 0.5) / seen.shape[1 - axis], ramp, 1)
        ends.append((round(start * length), round((start + slope) * length)))
    (left, right), (top, bottom) = ends
    return left, top, right - left, bottom - top


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
