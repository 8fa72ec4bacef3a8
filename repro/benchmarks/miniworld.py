"""The miniature benchmarks: where things are in their pictures, which tells where heat should fall.

The scenes are drawn by ``fixtures/scenes.py``: 2 to 5 objects, shapes with the names of COCO categories, and
sometimes a two-digit number.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from repro.benchmarks.benchmark import Item
from repro.benchmarks.scienceqa import LETTERS

#: The miniature benchmarks, in the published layouts, with ``boxes.json``: where things are in each picture.
DIRECTORY = Path(__file__).resolve().parents[2] / "fixtures" / "miniworld"
#: Names of the objects.
SHAPES = ("donut", "kite", "pizza", "banana", "bowl", "frisbee", "book", "scissors", "umbrella", "bottle")
#: x, y, width, height in pixels.
Box = tuple[int, int, int, int]


def asked_boxes(item: Item, directory: Path) -> list[Box]:
    """Boxes of what an item of the miniature benchmarks asks about: ground truth for heat maps.

    The number for TextVQA; every object for a caption; otherwise the objects named in the question, or in
    the right choice where the question names none. Empty where nothing asked about is in the picture.

    Args:
        item: of a miniature benchmark.
        directory: that holds it, with ``boxes.json``.
    """
    boxes = _boxes_of(item, directory)
    asked = item.question
    if "number" in asked:
        names = ["number"]
    elif asked.startswith("Please describe"):
        names = objects_of(item, directory)
    else:
        names = [name for name in SHAPES if name in asked]
        if not names and item.choices:
            right = item.choices[LETTERS.index(item.reference)]
            names = [name for name in SHAPES if name in right]
    return [boxes[name] for name in names if name in boxes]


def objects_of(item: Item, directory: Path) -> list[str]:
    """The objects in the picture of an item of the miniature benchmarks; a number is none. See ``asked_boxes``."""
    return [name for name in _boxes_of(item, directory) if name != "number"]


def _boxes_of(item: Item, directory: Path) -> dict[str, Box]:
    if not isinstance(item.image, Path):
        return {}
    return _boxes(directory)[item.image.relative_to(directory).as_posix()]


@cache
def _boxes(directory: Path) -> dict[str, dict[str, Box]]:
    return json.loads((directory / "boxes.json").read_text(encoding="utf-8"))
