"""COCO's annotations, and its boxes of what a question or a caption is about.

Boxes are read from ``instances_val2014.json``, as published, in one of ``PLACES`` under the data directory. A box
of a crowd (``iscrowd``) frames many objects with what is between them, and is left out.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repro.benchmarks.benchmark import Benchmark, DataError, HubImage, Item
from repro.benchmarks.chair_words import CLASS_OF
from repro.benchmarks.files import Box, box, field, read_json

#: Where people have the file; CHAIR reads its own in the first.
PLACES = ("coco/annotations", "annotations", ".")
NAME = "instances_val2014.json"
#: Part of the names of the images it is of.
SPLIT = "COCO_val2014_"


class Annotations:
    """A file of COCO annotations."""

    def __init__(self, path: Path):
        self.path, self.content = path, read_json(path)

    def rows(self, key: str, row_name: str) -> Iterator[tuple[str, Any]]:
        """The rows of a list in the file, each with its place."""
        for i, row in enumerate(field(self.content, key, list, str(self.path))):
            yield f"{self.path}, {row_name} {i}", row

    def objects(self) -> Iterator[tuple[str, Any, str]]:
        """The annotated objects of a file of instances: place, row with its ``image_id``, class."""
        classes = {}
        for where, row in self.rows("categories", "category"):
            name = field(row, "name", str, where)
            if name not in CLASS_OF:
                raise DataError(f"{where}: {name!r} is none of the 80 COCO classes: use the published file")
            classes[field(row, "id", int, where)] = CLASS_OF[name]
        for where, row in self.rows("annotations", "annotation"):
            field(row, "image_id", int, where)
            if (category := field(row, "category_id", int, where)) not in classes:
                raise DataError(
                    f"{where}: no category {category}; expected one the file lists: check the file"
                )
            yield where, row, classes[category]


def find_instances(directory: Path) -> Path | None:
    """The file of boxes under a data directory, if it has one."""
    paths = (directory / place / NAME for place in PLACES)
    return next((path for path in paths if path.is_file()), None)


def read_boxes(path: Path, benchmark: Benchmark, items: Sequence[Item]) -> dict[str, list[Box]]:
    """By id of an item, the boxes of every object of a caption, or of the object that a question of POPE names.

    Items without one are left out.

    Raises:
        DataError: the file is damaged or of another layout, does not have the items' images, or is of images of
            another size.
    """
    instances = Annotations(path)
    wanted = {item.image.name: item.image for item in items if item.image}
    names, ids = {}, set()
    for where, row in instances.rows("images", "image"):
        ids.add(id := field(row, "id", int, where))
        if (name := field(row, "file_name", str, where)) in wanted:
            names[id] = name
            _check_size(wanted[name], row, where)
    if missing := sorted(name for name in wanted.keys() - set(names.values()) if name.startswith(SPLIT)):
        raise DataError(
            f"{path}: no image {missing[0]}, nor {len(missing) - 1} others of {benchmark.title}; expected all of "
            "val2014: use the published file"
        )
    boxes: dict[str, dict[str, list[Box]]] = {name: {} for name in names.values()}
    for where, row, category in instances.objects():
        if (id := row["image_id"]) not in ids:
            raise DataError(f"{where}: no image {id}; expected one the file lists: use the published file")
        if id in names and not field(row, "iscrowd", int, where):
            boxes[names[id]].setdefault(category, []).append(box(row, "bbox", where))
    asked = {}
    for item in items:
        objects = boxes.get(item.image.name, {}) if item.image else {}
        if not benchmark.captions:
            objects = {name: objects[name] for name in objects if name == asked_class(item.question)}
        if framed := [frame for frames in objects.values() for frame in frames]:
            asked[item.id] = framed
    return asked


def asked_class(question: str) -> str | None:
    """The COCO class that a question of POPE asks about; None for other questions."""
    named = re.search("Is there an? (.+?) in the ima", question)
    return CLASS_OF.get(named[1].lower()) if named else None


def _check_size(image: Path | HubImage, row: Any, where: str) -> None:
    """``DataError`` for an image file of another size than the row states; one that cannot be read fails later."""
    size = field(row, "width", int, where), field(row, "height", int, where)
    if not isinstance(image, Path):
        return
    from PIL import Image  # where a size is needed: every start of pytest imports this module

    try:
        with Image.open(image) as opened:
            actual = opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return
    if actual != size:
        raise DataError(
            f"{where}: {image} is {actual[0]} x {actual[1]}; expected {size[0]} x {size[1]}, in which its boxes "
            "are: use COCO's own images"
        )
