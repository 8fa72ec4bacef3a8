"""A data file that cannot be used is refused with what is wrong, where, and what was expected."""

import json
import os

import pytest
from PIL import Image

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import DataError
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.benchmarks.miniworld import read_boxes
from repro.models.images import read_image

pytestmark = pytest.mark.conformance

POPE = "pope/coco_pope_popular.json"
PROBLEMS, SPLITS = "scienceqa/problems.json", "scienceqa/pid_splits.json"
TEXT = "textvqa/TextVQA_0.5.1_val.json"
INSTANCES, CAPTIONS = "coco/annotations/instances_val2014.json", "coco/annotations/captions_val2014.json"
SAMPLE = "chair/image_ids.txt"
QUESTION = {"question_id": 1, "image": "a.jpg", "text": "Is there a cat in the image?", "label": "yes"}
PROBLEM = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": "image.png"}
TEXT_ROW = {"image_id": "a", "question_id": 1, "question": "who?", "answers": ["x"] * 10}


@pytest.fixture
def data(tmp_path):
    """The smallest valid data directory."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")

    for category in ("random", "popular", "adversarial"):
        write(f"pope/coco_pope_{category}.json", QUESTION)
    write(PROBLEMS, {"11": PROBLEM})
    write(SPLITS, {"test": ["11"]})
    write(TEXT, {"data": [TEXT_ROW]})
    write(SAMPLE, "7\n")
    write(
        INSTANCES,
        {
            "images": [{"id": 7, "file_name": "7.jpg"}],
            "categories": [{"id": 17, "name": "cat"}],
            "annotations": [{"image_id": 7, "category_id": 17}],
        },
    )
    write(CAPTIONS, {"annotations": [{"image_id": 7, "caption": "A cat."}]})
    return tmp_path, write


def without(row, key):
    return {k: v for k, v in row.items() if k != key}


def coco(**changed):
    value = {
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [],
    }
    return value | changed


def test_the_valid_directory_is_read(data):
    directory, _ = data
    assert {name: len(one.load(directory)) for name, one in BENCHMARKS.items()} == {
        "pope": 3,
        "scienceqa": 1,
        "textvqa": 1,
        "chair": 1,
    }


@pytest.mark.parametrize(
    ("which", "name"),
    [("pope", POPE), ("scienceqa", PROBLEMS), ("scienceqa", SPLITS), ("textvqa", TEXT)]
    + [("chair", name) for name in (INSTANCES, CAPTIONS, SAMPLE)],
)
def test_a_missing_or_garbled_file_is_named(data, which, name):
    directory, _ = data
    path = directory / name
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8") as error:
        BENCHMARKS[which].load(directory)
    assert str(path) in str(error.value)
    path.unlink()
    with pytest.raises(DataError, match="missing file") as error:
        BENCHMARKS[which].load(directory)
    assert str(path) in str(error.value)
    path.mkdir()
    with pytest.raises(DataError, match="cannot read") as error:
        BENCHMARKS[which].load(directory)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("which", "name", "content", "said"),
    [
        # not JSON, or not the JSON expected
        ("pope", POPE, json.dumps(QUESTION) + "\n{", ["line 2", "not JSON"]),
        ("pope", POPE, "[1]", ["line 1", "list", "JSON object"]),
        ("scienceqa", PROBLEMS, '{\n"11": }', ["line 2, column 7", "not JSON"]),
        ("scienceqa", SPLITS, "[]", ["list", "JSON object"]),
        ("textvqa", TEXT, '{"data": [', ["not JSON"]),
        ("chair", CAPTIONS, "", ["line 1", "not JSON"]),
        # a missing key
        ("pope", POPE, without(QUESTION, "label"), ["line 1", "no 'label'"]),
        ("scienceqa", PROBLEMS, {"11": without(PROBLEM, "hint")}, ["problem 11", "no 'hint'"]),
        ("scienceqa", PROBLEMS, {"11": 3}, ["problem 11", "holds a int"]),
        ("scienceqa", SPLITS, {"train": ["11"]}, ["no 'test'"]),
        ("textvqa", TEXT, {"rows": []}, ["no 'data'", "'rows'"]),
        ("textvqa", TEXT, {"data": [without(TEXT_ROW, "image_id")]}, ["row 0", "no 'image_id'"]),
        ("chair", INSTANCES, without(coco(), "categories"), ["no 'categories'"]),
        ("chair", INSTANCES, coco(annotations=[{"image_id": 7}]), ["annotation 0", "no 'category_id'"]),
        ("chair", CAPTIONS, {"annotations": [{"image_id": 7}]}, ["annotation 0", "no 'caption'"]),
        # nothing to ask
        ("pope", POPE, "\n\n", ["no rows"]),
        ("scienceqa", SPLITS, {"test": []}, ["no rows"]),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"image": None}}, ["no rows", "image question"]),
        ("textvqa", TEXT, {"data": []}, ["no rows"]),
        ("chair", SAMPLE, "\n", ["no rows"]),
        # values out of range
        ("pope", POPE, QUESTION | {"label": "Yes"}, ["line 1", "'Yes'", "expected 'yes' or 'no'"]),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"answer": 2}}, ["problem 11", "answer is 2", "0 to 1"]),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"answer": -1}}, ["problem 11", "answer is -1"]),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"answer": "B"}}, ["problem 11", "'B'", "expected int"]),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"answer": True}}, ["problem 11", "True", "expected int"]),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"choices": ["x"]}}, ["problem 11", "1 choices"]),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"choices": ["x", 2]}}, ["problem 11", "strings only"]),
        ("scienceqa", SPLITS, {"test": ["11", "12"]}, ["no problem 12"]),
        ("textvqa", TEXT, {"data": [TEXT_ROW | {"answers": ["x"] * 9}]}, ["question_id 1", "9 answers"]),
        ("textvqa", TEXT, {"data": [TEXT_ROW | {"answers": ["x"] * 9 + [1]}]}, ["question_id 1", "strings"]),
        ("chair", SAMPLE, "7\nCOCO_7\n", ["line 2", "COCO_7"]),
        ("chair", SAMPLE, "7\n8\n", ["no image 8"]),
        ("chair", INSTANCES, coco(annotations=[{"image_id": 7, "category_id": 1}]), ["no category 1"]),
        ("chair", INSTANCES, coco(categories=[{"id": 1, "name": "moon"}]), ["category 0", "'moon'"]),
        # an id that comes twice
        ("pope", POPE, f"{json.dumps(QUESTION)}\n{json.dumps(QUESTION)}", ["id popular-1 comes twice"]),
        ("scienceqa", SPLITS, {"test": ["11", "11"]}, ["id 11 comes twice"]),
        ("textvqa", TEXT, {"data": [TEXT_ROW, TEXT_ROW]}, ["id 1 comes twice"]),
        ("chair", SAMPLE, "7\n7\n", ["id 7 comes twice"]),
        # a name that leads out of the image folder
        *[
            ("pope", POPE, QUESTION | {"image": name}, ["line 1", "leads outside"])
            for name in ("/etc/passwd", "../a.jpg", "x/../../a.jpg", "..\\a.jpg", "C:a.jpg", "")
        ],
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"image": "../x.png"}}, ["problem 11", "leads outside"]),
        ("textvqa", TEXT, {"data": [TEXT_ROW | {"image_id": "../a"}]}, ["question_id 1", "leads outside"]),
        ("chair", INSTANCES, coco(images=[{"id": 7, "file_name": "/7.jpg"}]), ["image 0", "leads outside"]),
    ],
)
def test_bad_content_is_refused(data, which, name, content, said):
    directory, write = data
    write(name, content)
    with pytest.raises(DataError) as error:
        BENCHMARKS[which].load(directory)
    message = str(error.value)
    place = {SAMPLE: SAMPLE, SPLITS: "scienceqa/"}.get(name, name)
    for part in (str(directory / place), *said):
        assert part.rstrip("/") in message


def test_an_image_name_cannot_hold_a_null_character(data):
    directory, write = data
    write(POPE, QUESTION | {"image": "a\0.jpg"})
    with pytest.raises(DataError, match="leads outside"):
        BENCHMARKS["pope"].load(directory)


def test_a_problem_id_cannot_lead_out_of_the_image_folder(data):
    directory, write = data
    write(PROBLEMS, {"../../11": PROBLEM})
    write(SPLITS, {"test": ["../../11"]})
    with pytest.raises(DataError, match="leads outside"):
        BENCHMARKS["scienceqa"].load(directory)


def test_a_bom_is_no_part_of_a_file(data):
    directory, _ = data
    expected = {name: one.load(directory) for name, one in BENCHMARKS.items()}
    for name in (POPE, PROBLEMS, SPLITS, TEXT, INSTANCES, CAPTIONS, SAMPLE):
        path = directory / name
        path.write_text(path.read_text(), "utf-8-sig")
    assert {name: one.load(directory) for name, one in BENCHMARKS.items()} == expected


def test_rows_as_one_list_are_read(data):
    directory, write = data
    expected = BENCHMARKS["pope"].load(directory)
    (directory / POPE).write_text(json.dumps([QUESTION], indent=2))
    assert BENCHMARKS["pope"].load(directory) == expected
    write(POPE, [QUESTION, without(QUESTION, "label")])
    with pytest.raises(DataError, match="popular.json, row 2: no 'label'"):
        BENCHMARKS["pope"].load(directory)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("which", "name", "content", "said"),
    [
        *(("chair", name, POINTER, "pointer of Git LFS") for name in (INSTANCES, SAMPLE)),
        ("pope", POPE, POINTER, "pointer of Git LFS"),
        (
            "pope",
            POPE,
            "question_id,image,text,label\n1,a.jpg,Is it?,yes\n",
            "a table that begins 'question_id",
        ),
        ("textvqa", TEXT, "question_id\tanswer\n1\tx\n", "a table that begins"),
        ("pope", POPE, json.dumps(QUESTION, indent=2), "an object on each line, not over several"),
        ("pope", POPE, json.dumps(QUESTION).replace(", ", ",\n", 1), "an object on each line"),
        ("textvqa", TEXT, json.dumps({"data": [TEXT_ROW]}) * 2, "a single JSON value"),
        ("textvqa", TEXT, json.dumps({"data": [TEXT_ROW]}).replace(":", "=", 1), "unedited"),
    ],
)
def test_a_file_in_another_form_is_not_called_cut_short(data, which, name, content, said):
    directory, _ = data
    (directory / name).write_text(content)
    with pytest.raises(DataError) as error:
        BENCHMARKS[which].load(directory)
    assert str(directory / name) in str(error.value) and said in str(error.value)
    assert "cut short" not in str(error.value)


@pytest.fixture(params=["pipe", "device", "link to a pipe", "link to a device"])
def endless(request, tmp_path):
    """Puts something in a file's place that has no end, or waits for one."""

    def put(path):
        path.unlink(missing_ok=True)
        if "device" in request.param:
            path.symlink_to("/dev/zero")
        elif "link" in request.param:
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to(tmp_path / "pipe")
        else:
            os.mkfifo(path)

    return put


@pytest.mark.parametrize(("which", "name"), [("pope", POPE), ("textvqa", TEXT), ("chair", SAMPLE)])
def test_only_regular_files_are_data(data, endless, which, name):
    directory, _ = data
    endless(directory / name)
    with pytest.raises(DataError, match=f"{name}: is no regular file"):
        BENCHMARKS[which].load(directory)


def test_only_regular_files_are_pictures(tmp_path, endless):
    endless(tmp_path / "picture.png")
    for source in (tmp_path / "picture.png", str(tmp_path / "picture.png")):
        with pytest.raises(ValueError, match="picture.png: .*is no regular file"):
            read_image(source)


def test_a_file_of_another_size_than_can_be_meant_is_refused(data, tmp_path):
    directory, _ = data
    for path in (directory / POPE, tmp_path / "picture.png"):
        with path.open("wb") as file:
            file.truncate(2**40)  # takes no place on the disk
    with pytest.raises(DataError, match="has 1099511627776 bytes"):
        BENCHMARKS["pope"].load(directory)
    with pytest.raises(ValueError, match="has 1099511627776 bytes"):
        read_image(tmp_path / "picture.png")


def test_a_link_to_a_regular_file_is_read(data, tmp_path):
    directory, _ = data
    (directory / POPE).rename(tmp_path / "elsewhere")
    (directory / POPE).symlink_to(tmp_path / "elsewhere")
    assert len(BENCHMARKS["pope"].load(directory)) == 3
    Image.new("RGB", (3, 2)).save(tmp_path / "picture.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "picture.png")
    assert read_image(tmp_path / "link.png").size == (3, 2)


HALF = "\ud800"


@pytest.mark.parametrize(
    ("which", "name", "content"),
    [
        ("pope", POPE, QUESTION | {"text": f"Is there a {HALF}?"}),
        ("pope", POPE, QUESTION | {"question_id": HALF}),
        ("pope", POPE, QUESTION | {"image": f"{HALF}.jpg"}),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"choices": ["x", HALF]}}),
        ("scienceqa", PROBLEMS, {"11": PROBLEM | {"hint": HALF}}),
        ("textvqa", TEXT, {"data": [TEXT_ROW | {"question": HALF}]}),
        ("textvqa", TEXT, {"data": [TEXT_ROW | {"image_id": HALF}]}),
        ("chair", INSTANCES, coco(images=[{"id": 7, "file_name": HALF}])),
    ],
)
def test_half_of_a_surrogate_pair_is_no_text(data, which, name, content):
    directory, write = data
    write(name, content)
    with pytest.raises(DataError, match="half of a surrogate pair") as error:
        BENCHMARKS[which].load(directory)
    str(error.value).encode()
    assert str(directory / name.split("/")[0]) in str(error.value)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"data":['])
@pytest.mark.parametrize(("which", "name"), [("pope", POPE), ("textvqa", TEXT), ("scienceqa", PROBLEMS)])
def test_brackets_without_end_are_refused(data, which, name, opening):
    directory, _ = data
    (directory / name).write_text(opening * 100_000)
    with pytest.raises(DataError, match=name):
        BENCHMARKS[which].load(directory)


@pytest.mark.parametrize("depth", [10, 300, 900, 3000, 20_000])
def test_a_nested_value_in_a_strings_place_is_refused(data, depth):
    directory, _ = data
    row = json.dumps(QUESTION).replace('"yes"', "[" * depth + "]" * depth)
    (directory / POPE).write_text(row)
    with pytest.raises(DataError, match=POPE) as error:
        BENCHMARKS["pope"].load(directory)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("garbage", "not JSON"),
        ("[1]", "list"),
        ({"a.png": 3}, "a.png"),
        ({"a.png": {"cat": "x"}}, "cat"),
        ({"a.png": {"cat": [1, 2, 3]}}, "x, y, width and height"),
        ({"a.png": {"cat": [1, 2, 3, "4"]}}, "x, y, width and height"),
        ({"a.png": {"cat": [1, 2, 3, float("nan")]}}, "x, y, width and height"),
    ],
)
def test_boxes_are_checked_as_they_are_read(tmp_path, content, said):
    path = tmp_path / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError) as error:
        read_boxes(tmp_path)
    assert str(path) in str(error.value) and said in str(error.value)


def test_boxes_of_the_miniatures_are_read():
    boxes = read_boxes(MINIWORLD)
    assert boxes and all(len(box) == 4 for things in boxes.values() for box in things.values())
