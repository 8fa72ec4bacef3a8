"""CHAIR of greedy captions that OPERA published, from every mention of an object in them.

``fixtures/published_chair.npz`` holds the mentions of 500 captions of each model, at most 512 tokens long
(shikiw/OPERA at 61426ef), as the official rules find them (mode ``exact``). ``fixtures/record_chair.py`` wrote it.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from repro.audit.released import CAPTIONS
from repro.golden import Arrays
from repro.models.card import FIXTURES

FILE = FIXTURES / "published_chair.npz"
MODELS = ("llava-1.5", "instructblip", "shikra")
FIELDS = ("caption", "word", "wrong")


class Chair(NamedTuple):
    """Percent of captions with an object that is not in the image, and of mentions."""

    sentences: float
    instances: float


@cache
def stored(model: str) -> Arrays:
    """Every mention of an object in a model's captions, in order.

    Returns:
        arrays [m] by the names of ``FIELDS``: of which caption (uint16, from 0), at which of its words and marks
        (uint16, from 0), and whether the object is not in the image (bool).
    """
    with np.load(FILE, allow_pickle=False) as arrays:
        return {name: arrays[f"{model} {name}"] for name in FIELDS}


def replayed(model: str, words: int | None = None) -> Chair:
    """CHAIR of a model's captions, cut off after so many words and marks; None: in full."""
    caption, word, wrong = (stored(model)[name] for name in FIELDS)
    counted = np.full(len(word), True) if words is None else word < words
    wrong = counted & wrong
    return Chair(
        100 * len(np.unique(caption[wrong])) / CAPTIONS,
        100 * float(wrong.sum() / counted.sum()) if counted.any() else 0.0,
    )


def longest(model: str, sentences: float) -> int:
    """After how many words and marks captions would have to be cut for CHAIR_s to be at most ``sentences`` (%)."""
    words = 0
    while words <= stored(model)["word"].max() and replayed(model, words + 1).sentences <= sentences:
        words += 1
    return words
