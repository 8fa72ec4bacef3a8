"""Scores of items at every truncation layer, in one record with all that resampling and halving need.

A metric is a ratio of sums. Each answer adds a numerator and a denominator, its *part*; the sums are divided
within each stratum, and the ratios averaged over strata. Accuracy adds (1 or 0, 1), F1 adds (2 TP, 2 TP + FP +
FN), CHAIR_i adds (hallucinated mentions, mentions).
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

#: Fewest images of which each half has two, which can be resampled.
FEW = 4
Labels = Sequence[str] | np.ndarray


class TooFew(ValueError):
    """Too few items or images to resample or to halve."""


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of n items, each scored at m layers (truncated after L = 0...N: m = N + 1).

    Attributes:
        parts: float64 [n, m, 2], numerators and denominators; the last layer is the baseline.
        strata: [n], any labels: ratios are formed within a stratum, then averaged.
        images: [n], the image of each item; questions about the same image are resampled together. None: items are
            resampled one by one.
        higher_is_better: False for an error rate such as CHAIR_i.

    Raises ValueError for other shapes, parts that are not finite, and negative denominators.
    """

    parts: np.ndarray
    strata: np.ndarray
    images: np.ndarray | None = None
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        parts, strata = np.asarray(self.parts, dtype=np.float64), np.asarray(self.strata)
        images = None if self.images is None else np.asarray(self.images)
        if parts.ndim != 3 or parts.shape[2] != 2:
            raise ValueError(f"parts must have the shape [items, N + 1, 2], not {list(parts.shape)}")
        for name, labels in (("strata", strata), ("images", images)):
            if labels is not None and labels.shape != parts.shape[:1]:
                raise ValueError(f"{name} must have the shape [{len(parts)}], not {list(labels.shape)}")
        if not np.isfinite(parts).all():
            raise ValueError("parts must be finite; an item without an answer has to be scored or left out")
        if (parts[..., 1] < 0).any():
            raise ValueError("denominators must not be negative")
        for name, value in (("parts", parts), ("strata", strata), ("images", images)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.parts)

    def where(self, items: np.ndarray) -> Self:
        """Some of the items: bool [n], or their indices."""
        images = None if self.images is None else self.images[items]
        return replace(self, parts=self.parts[items], strata=self.strata[items], images=images)

    def at(self, *layers: int) -> Self:
        """Some of the layers, in this order; the last of them becomes the baseline."""
        return replace(self, parts=self.parts[:, list(layers)])

    @property
    def values(self) -> np.ndarray:
        """The metric at each layer, float64 [m]; not finite where a denominator is 0."""
        return aggregate(self.parts, self.strata)

    @property
    def goodness(self) -> np.ndarray:
        """Numerator of each item, float64 [n, m]; for error rates 1 - numerator, so that higher is better."""
        return self.parts[..., 0] if self.higher_is_better else 1 - self.parts[..., 0]

    def gain(self, values: np.ndarray) -> np.ndarray:
        """value(L) - value(N) of metric values [..., m], positive = better; 0 at the baseline, defined or not."""
        difference = values - values[..., -1:] if self.higher_is_better else values[..., -1:] - values
        difference[..., -1] = 0
        return difference

    def halves(self) -> tuple[Self, Self]:
        """The items that choose a layer, and those that report its score; errors as in ``choosing_half``."""
        if self.images is None:
            raise ValueError("halves are of images: give the image of each item")
        choosing = choosing_half(self.strata, self.images)
        return self.where(choosing), self.where(~choosing)


def mean_of_ratios(total: np.ndarray, axis: int) -> np.ndarray:
    """Metric values from the sums of parts [..., strata, ..., 2], averaged over the ``axis`` of the strata.

    Not finite where a denominator is 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total[..., 0] / total[..., 1]).mean(axis=axis)


def aggregate(parts: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Metric values [...] from parts [items, ..., 2] and the stratum of each item [items], any labels."""
    sums = np.stack([parts[strata == label].sum(axis=0) for label in np.unique(strata)])
    return mean_of_ratios(sums, axis=0)


def choosing_half(strata: Labels, images: Labels) -> np.ndarray:
    """Which items choose (bool [items]): the first half of the images, rounded down, by SHA-256 of their names.

    The others report. Images that occur in the same strata are halved together, so that each half has its share of
    every stratum; sets of strata with fewer than four such images are halved as one. The order of the items does
    not matter, and a few added items move few others.

    Raises ValueError for lengths that differ, TooFew for a stratum that has fewer than two images in a half.
    """
    strata = np.asarray(strata)
    if len(images) != len(strata):
        raise ValueError(f"{len(images)} image names for {len(strata)} items")
    strata_of: dict[str, set[str]] = defaultdict(set)
    for name, stratum in zip(images, strata, strict=True):
        strata_of[str(name)].add(str(stratum))
    images_in: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, labels in strata_of.items():
        images_in[tuple(sorted(labels))].append(name)
    # Single images that a stratum lacks, e.g. under a limit, are halved together.
    alone = [name for names in images_in.values() if len(names) < FEW for name in names]
    groups = [names for names in images_in.values() if len(names) >= FEW] + [alone]
    choosing: set[str] = set()
    for names in groups:
        names.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        choosing.update(names[: len(names) // 2])
    for stratum in sorted(set(strata.tolist()), key=str):
        own = {name for name, labels in strata_of.items() if str(stratum) in labels}
        name, fewest = repr(str(stratum)), min(len(own & choosing), len(own - choosing))
        require(name, len(own), FEW, "images", "two halves need")
        require(name, fewest, FEW // 2, "images", "each half needs")
    return np.array([str(name) in choosing for name in images])


def require(stratum: str, count: int, least: int, units: str, purpose: str) -> None:
    """TooFew, naming the stratum, unless it has ``least`` units."""
    if count < least:
        raise TooFew(f"stratum {stratum}: {purpose} at least {least} {units}, not {count}")
