"""CHAIR of greedy captions that OPERA published, from every mention of an object in them.

``fixtures/published_chair.npz`` holds the mentions of 500 captions of each model, at most 512 tokens long
(shikiw/OPERA at 61426ef), as the official rules find them (mode ``exact``). ``fixtures/record_chair.py`` wrote it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repro.audit.released import CAPTIONS
from repro.benchmarks import chair
from repro.evaluation.answers import read_answers, replay
from repro.golden import Arrays
from repro.models.card import FIXTURES

FILE = FIXTURES / "published_chair.npz"
MODELS = ("llava-1.5", "instructblip", "shikra")
FIELDS = ("caption", "word", "wrong")


class Chair(NamedTuple):
    """Percent of captions with an object that is not in the image, and of mentions."""

    sentences: float
    instances: float


def mentions(captions: Path, data: Path) -> Arrays:
    """Every mention of an object in the captions of a model, in order.

    Args:
        captions: JSON lines of OPERA.
        data: the directory of the ground truth.

    Returns:
        arrays [m] by the names of ``FIELDS``: of which caption (uint16, from 0), at which of its words and marks
        (uint16, from 0), and whether the object is not in the image (bool).

    Raises:
        DataError: a file that cannot be used, or NLTK's data is missing.
    """
    texts = {row.id: row.text for row in read_answers(captions)[1]}
    rows = [
        (i, mention.index, mention.object not in item.reference.objects)
        for i, item in enumerate(replay(captions, data, chair_mode="exact").items)
        for mention in chair.mentions(chair.lemmas(texts[item.id], "exact"))
    ]
    columns = zip(*rows, strict=True)
    kinds = (np.uint16, np.uint16, np.bool_)
    return {name: np.array(c, kind) for name, c, kind in zip(FIELDS, columns, kinds, strict=True)}


@cache
def stored(model: str) -> Arrays:
    """The mentions in a model's captions, as ``mentions`` gives them."""
    with np.load(FILE, allow_pickle=False) as arrays:
        return {name: arrays[f"{model} {name}"] for name in FIELDS}


def replayed(model: str, words: int | None = None) -> Chair:
    """CHAIR of a model's captions, cut off after so many words and marks; None: whole."""
    caption, word, wrong = (stored(model)[name] for name in FIELDS)
    kept = np.full(len(word), True) if words is None else word < words
    wrong = kept & wrong
    return Chair(
        100 * len(np.unique(caption[wrong])) / CAPTIONS,
        100 * float(wrong.sum() / kept.sum()) if kept.any() else 0.0,
    )


def longest(model: str, sentences: float) -> int:
    """After how many words and marks captions would have to be cut for CHAIR_s to be at most ``sentences`` (%)."""
    words = 0
    while words <= stored(model)["word"].max() and replayed(model, words + 1).sentences <= sentences:
        words += 1
    return words
