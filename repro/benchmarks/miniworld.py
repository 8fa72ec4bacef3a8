"""The miniature benchmarks: where things are in their images, which says where heat should fall.

The scenes are drawn by ``fixtures/scenes.py``: 2 to 5 objects, shapes with the names of COCO categories, and
sometimes a two-digit number.
"""

from functools import cache
from pathlib import Path

from repro.benchmarks.benchmark import Item
from repro.benchmarks.files import Box, box, field, read_json
from repro.benchmarks.scienceqa import LETTERS

#: The miniature benchmarks in the published layouts, and ``boxes.json``: where things are in each image.
DIRECTORY = Path(__file__).resolve().parents[2] / "fixtures" / "miniworld"
#: Names of the objects.
SHAPES = ("donut", "kite", "pizza", "banana", "bowl", "frisbee", "book", "scissors", "umbrella", "bottle")


def asked_boxes(item: Item, directory: Path) -> list[Box]:
    """Boxes of what a question is about, the ground truth for heat maps; empty if that is not in the image.

    The number for TextVQA; every object for a caption; otherwise the objects named in the question, or in
    the right choice if the question names none.

    Args:
        item: of a miniature benchmark.
        directory: where the benchmarks and ``boxes.json`` are.
    """
    boxes = _boxes_of(item, directory)
    if "number" in item.question:
        names = ["number"]
    elif item.question.startswith("Please describe"):
        names = objects_of(item, directory)
    else:
        names = [name for name in SHAPES if name in item.question]
        if not names and item.choices:
            right = item.choices[LETTERS.index(item.reference)]
            names = [name for name in SHAPES if name in right]
    return [boxes[name] for name in names if name in boxes]


def objects_of(item: Item, directory: Path) -> list[str]:
    """The objects in the image of an item, a number not included; see ``asked_boxes``."""
    return [name for name in _boxes_of(item, directory) if name != "number"]


def _boxes_of(item: Item, directory: Path) -> dict[str, Box]:
    if not isinstance(item.image, Path):
        return {}
    return read_boxes(directory).get(item.image.relative_to(directory).as_posix(), {})


@cache
def read_boxes(directory: Path) -> dict[str, dict[str, Box]]:
    """``boxes.json`` of a directory: by image and name of a thing; ``DataError`` for anything else there."""
    path = directory / "boxes.json"
    boxes: dict[str, dict[str, Box]] = {}
    for image, things in read_json(path).items():
        where = f"{path}, image {image!r:.60}"
        boxes[image] = {}
        for name in field({"things": things}, "things", dict, where):
            boxes[image][name] = box(things, name, where)
    return boxes
