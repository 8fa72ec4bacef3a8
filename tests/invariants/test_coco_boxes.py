"""Boxes of real data: COCO's own, and where they are in what a model sees of an image that is not square."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from repro.benchmarks import BENCHMARKS, coco
from repro.benchmarks.benchmark import DataError, Item
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.benchmarks.miniworld import asked_boxes
from repro.evaluation.flow import coverage, seen_part
from repro.evaluation.run import evaluate
from repro.models import load_model
from repro.models.images import middle_square
from repro.protocols import find_task
from repro.table1 import heat_sections, known_boxes

pytestmark = pytest.mark.invariant

NAMES = ["COCO_val2014_000000000042.jpg", "COCO_val2014_000000000073.jpg"]
#: As published, but for the segmentations, which are shorter.
PUBLISHED = {
    "info": {"description": "COCO 2014 Dataset", "year": 2014},
    "images": [
        {"license": 5, "file_name": NAMES[0], "coco_url": "", "height": 48, "width": 64, "id": 42},
        {"license": 3, "file_name": NAMES[1], "coco_url": "", "height": 64, "width": 48, "id": 73},
    ],
    "licenses": [{"url": "", "id": 5, "name": ""}],
    "annotations": [
        {
            "segmentation": [[1.0, 2.0, 9.5, 2.0, 9.5, 12.25]],
            "area": 43.6,
            "iscrowd": crowd,
            "image_id": image,
            "bbox": box,
            "category_id": category,
            "id": number,
        }
        for number, (image, category, crowd, box) in enumerate(
            [
                (42, 67, 0, [1.5, 2.0, 8.0, 10.25]),
                (42, 67, 1, [0.0, 0.0, 64.0, 48.0]),
                (42, 77, 0, [30.0, 20.0, 4.0, 4.0]),
                (42, 67, 0, [40.0, 8.0, 6.0, 7.0]),
                (73, 77, 1, [5.0, 5.0, 9.0, 9.0]),
            ]
        )
    ],
    "categories": [
        {"supercategory": "furniture", "id": 67, "name": "dining table"},
        {"supercategory": "electronic", "id": 77, "name": "cell phone"},
    ],
}
TABLES, PHONE = [[1.5, 2.0, 8.0, 10.25], [40.0, 8.0, 6.0, 7.0]], [[30.0, 20.0, 4.0, 4.0]]


@pytest.fixture
def data(tmp_path):
    """A directory with two images, and a function that writes the file into one of the places it may be in."""
    images = tmp_path / "coco" / "val2014"
    images.mkdir(parents=True)
    for row in PUBLISHED["images"]:
        Image.new("RGB", (row["width"], row["height"])).save(images / row["file_name"])

    def write(content, place="coco/annotations"):
        path = tmp_path / place / coco.NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return tmp_path, write


def asked(directory, *questions):
    return [
        Item(str(number), directory / "coco" / "val2014" / NAMES[which], text, True)
        for number, (which, text) in enumerate(questions)
    ]


@pytest.mark.parametrize("place", ["coco/annotations", "annotations", "."])
def test_boxes_are_of_the_object_that_is_asked_about(data, place):
    directory, write = data
    write(PUBLISHED, place)
    items = asked(
        directory,
        (0, "Is there a dining table in the image?"),
        (0, "Is there a cell phone in the imange?"),
        (1, "Is there a cell phone in the image?"),  # of which the file has a crowd alone
        (0, "Is there an apple in the image?"),
        (0, "Is there a unicorn in the image?"),
        (0, "What is on the table?"),
    )
    boxes = known_boxes(BENCHMARKS["pope"], directory, items)
    assert [boxes(item) for item in items] == [TABLES, PHONE, [], [], [], []]


def test_boxes_of_a_caption_are_those_of_every_object(data):
    directory, write = data
    write(PUBLISHED)
    items = asked(directory, (0, "Please describe this image in detail."), (1, "Please describe it."))
    boxes = known_boxes(BENCHMARKS["chair"], directory, items)
    assert [boxes(item) for item in items] == [[*TABLES, *PHONE], []]


def test_no_other_benchmark_reads_the_file(data):
    directory, write = data
    assert known_boxes(BENCHMARKS["pope"], directory, []) is None
    write("damaged")
    for name in ("textvqa", "scienceqa"):
        assert known_boxes(BENCHMARKS[name], directory, []) is None


def changed(name, index, /, **values):
    rows = [dict(row) for row in PUBLISHED[name]]
    rows[index] |= values
    return PUBLISHED | {name: [{k: v for k, v in row.items() if v is not None} for row in rows]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(PUBLISHED)[:900], "cut short, download it again"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ([PUBLISHED], "holds a list; expected a JSON object"),
        ({"images": PUBLISHED["images"]}, "no 'categories'"),
        (changed("images", 0, file_name=None), "image 0: no 'file_name'"),
        (changed("images", 0, file_name="other.jpg"), f"no image {NAMES[0]}, nor 0 others of POPE"),
        (changed("images", 0, width=640), f"{NAMES[0]} is 64 x 48; expected 640 x 48"),
        (changed("categories", 1, name="unicorn"), "'unicorn' is none of the 80 COCO classes"),
        (changed("annotations", 2, category_id=5), "annotation 2: no category 5"),
        (changed("annotations", 2, image_id=5), "annotation 2: no image 5"),
        (changed("annotations", 2, iscrowd=None), "annotation 2: no 'iscrowd'"),
        (changed("annotations", 2, bbox=None), "annotation 2: no 'bbox'"),
        (
            changed("annotations", 2, bbox=[1, 2, 3]),
            "annotation 2: 'bbox' is [1, 2, 3]; expected x, y, width",
        ),
        (changed("annotations", 2, bbox=[1, 2, 3, float("nan")]), "annotation 2: 'bbox' is [1, 2, 3, nan]"),
    ],
)
def test_a_file_that_is_not_as_published_is_refused(data, content, said):
    directory, write = data
    path = write(content)
    with pytest.raises(DataError) as error:
        known_boxes(BENCHMARKS["pope"], directory, asked(directory, (0, "Is there a cat in the image?")))
    assert str(path) in str(error.value) and said in str(error.value)


def test_an_image_that_cannot_be_read_is_left_to_its_item(data):
    directory, write = data
    write(PUBLISHED)
    items = asked(directory, (0, "Is there a cell phone in the image?"))
    items[0].image.write_bytes(b"no image")
    assert known_boxes(BENCHMARKS["pope"], directory, items)(items[0]) == PHONE


@pytest.mark.parametrize("size", [(48, 48), (640, 480), (427, 640), (500, 375), (640, 200)])
@pytest.mark.without("instructblip")
def test_what_a_model_sees_of_an_image_is_read_off_it(lvlm, size):
    long = max(size)
    left, top = ((side - long) // 2 for side in size)
    padded = lvlm.card.name in ("llava-1.5", "shikra", "intern-vl")
    expected = (left, top, long, long) if padded else (0, 0, *size)
    # A pixel of the miniatures' towers is as wide as many of a large image.
    tolerance = 0 if size == (48, 48) else 0.006 * long
    np.testing.assert_allclose(seen_part(lvlm, size), expected, atol=tolerance)


def test_of_a_cropped_image_its_middle_is_seen():
    cropping = SimpleNamespace(prompt=lambda image, text: SimpleNamespace(image=middle_square(image, 336)))
    np.testing.assert_allclose(seen_part(cropping, (640, 480)), (80, 0, 480, 480), atol=1)
    # Of boxes that reach out of it, the part inside counts.
    covered = coverage([(-80, -8, 160, 24), (-50, 0, 20, 20)], (480, 480), (3, 3))
    np.testing.assert_allclose(covered[0, 0], 80 * 16 / 160**2)
    assert covered.sum() == covered[0, 0]


def answered(lvlm, name, directory, count=4):
    """Answers of one token, taken to be right."""
    task = find_task("official", lvlm.card.name, BENCHMARKS[name])
    items = [item for item in BENCHMARKS[name].load(directory) if asked_boxes(item, directory)][:count]
    result = evaluate(lvlm, dataclasses.replace(task, max_new_tokens=1), items, progress=False)
    right = float(result.benchmark.higher_is_better(result.benchmark.metrics[0].name))
    parts = {metric: np.full_like(parts, [right, 1.0]) for metric, parts in result.parts.items()}
    return dataclasses.replace(result, parts=parts)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_figures_of_the_miniatures_as_of_real_data(name, tmp_path):
    """POPE and CHAIR point as by the miniatures' own boxes; the others have their heat maps alone."""
    lvlm = load_model("llava-1.5")
    (tmp_path / "coco").symlink_to(MINIWORLD / "coco")
    result = answered(lvlm, name, MINIWORLD)
    boxes = known_boxes(BENCHMARKS[name], tmp_path, result.items)
    (row,), pointing = heat_sections(lvlm, result, boxes)
    own, [expected] = heat_sections(lvlm, result, partial(asked_boxes, directory=MINIWORLD))
    assert row.image.shape == (*lvlm.prompt(result.items[0].image, "?").image.size, 3) and row.heat.any()
    if name in ("textvqa", "scienceqa"):
        assert boxes is None and not pointing and not row.boxes
    else:
        np.testing.assert_array_equal(pointing[0].energy, expected.energy)
        assert sorted(row.boxes) == sorted(own[0].boxes) and row.boxes


def test_boxes_of_a_padded_image_are_where_the_model_sees_them(tmp_path):
    """A wide image: its box moves down by the margin, in the figure and under the heat."""
    lvlm, name = load_model("llava-1.5"), "pope"
    wide = tmp_path / "wide.png"
    Image.new("RGB", (96, 48), "white").save(wide)
    result = answered(lvlm, name, MINIWORLD, count=2)
    items = [dataclasses.replace(item, image=wide) for item in result.items]
    result = dataclasses.replace(result, items=items)
    (row,), (pointing,) = heat_sections(lvlm, result, lambda item: [(0.0, 0.0, 48.0, 24.0)])
    side = row.image.shape[0]
    np.testing.assert_allclose(row.boxes, [(0, side / 4, side / 2, side / 4)], atol=0.6)
    assert pointing.area_share == pytest.approx(1 / 8, abs=0.01)
