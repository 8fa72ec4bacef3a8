"""Data sets of the hub: read from its cache as the files of the authors are, and nothing is downloaded."""

import io
import json
import socket

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from PIL import Image

from repro.benchmarks import BENCHMARKS, chair, pope, scienceqa, textvqa
from repro.benchmarks.benchmark import DataError
from repro.benchmarks.hub import HUB
from repro.evaluation.run import limited
from repro.models import load_model
from repro.models.card import FIXTURES
from repro.models.images import read_image
from repro.protocols import find_task

pytestmark = pytest.mark.conformance

MINIWORLD = FIXTURES / "miniworld"
TEXT = datasets.Value("string")
TEXTS = datasets.Sequence(TEXT)
FEATURES = {
    "pope": dict.fromkeys(
        ("id", "question_id", "question", "answer", "image_source", "category"), datasets.Value("string")
    )
    | {"image": datasets.Image()},
    "scienceqa": {
        "image": datasets.Image(),
        "question": TEXT,
        "choices": TEXTS,
        "answer": datasets.Value("int8"),
        "hint": TEXT,
        "skill": TEXT,
    },
    "textvqa": {
        "image_id": TEXT,
        "question_id": datasets.Value("int32"),
        "question": TEXT,
        "image": datasets.Image(),
        "answers": TEXTS,
        "ocr_tokens": TEXTS,
    },
    "chair": {"image": datasets.Image(), "question_id": datasets.Value("int64"), "gt_object": TEXTS},
}


def without(row, key):
    return {k: v for k, v in row.items() if k != key}


def png(red=200):
    """An image as published rows hold it."""
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 10, 20)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "image.png"}


POPE = [
    {
        "id": str(i),
        "question_id": "1",
        "question": f"Is there a {thing} in the imange?",
        "answer": answer,
        "image_source": f"COCO_val2014_{i:012}",
        "category": category,
        "image": png(i),
    }
    for i, (category, thing, answer) in enumerate(
        [("adversarial", "cat", "no"), ("popular", "dog", "yes"), ("random", "bus", "no")]
    )
]
SCIENCEQA = [
    {
        "image": image,
        "question": "Which?",
        "choices": ["x", "y"],
        "answer": i % 2,
        "hint": "Look.",
        "skill": "Compare",
    }
    for i, image in enumerate([png(0), None, png(2)])
]
TEXTVQA = [
    {
        "image_id": "0a",
        "question_id": 34602,
        "question": "who?",
        "image": png(),
        "answers": ["x"] * 10,
        "ocr_tokens": [],
    }
]
CHAIR = [{"image": png(), "question_id": 226988, "gt_object": ["cat", "dining table"]}]
ROWS = {"pope": POPE, "scienceqa": SCIENCEQA, "textvqa": TEXTVQA, "chair": CHAIR}
REPOSITORIES = {
    "pope": [pope.REPOSITORY],
    "scienceqa": list(scienceqa.REPOSITORIES),
    "textvqa": [textvqa.REPOSITORY],
    "chair": [chair.REPOSITORY],
}
UNPINNED = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Writes a data set into a cache as the hub's is: below a hidden folder, and its files are links.

    The network is out of reach.
    """
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / ".cache" / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")

    def refuse(*args):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    def write(name, rows=None, features=None, repository=None, owner=0, revision=None, shards=1):
        repository = repository or REPOSITORIES[name][0]
        folder = tmp_path / ".cache" / "hub" / f"datasets--{repository.ids[owner].replace('/', '--')}"
        revision = revision or repository.revision or UNPINNED
        if repository.revision is None:
            (folder / "refs").mkdir(parents=True, exist_ok=True)
            (folder / "refs" / "main").write_text(revision, encoding="utf-8")
        rows = ROWS[name] if rows is None else rows
        paths = []
        for i in range(shards):
            path = folder / "snapshots" / revision / f"{repository.files}-{i:05}-of-{shards:05}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = {key: kind for key, kind in (features or FEATURES[name]).items() if key in rows[0]}
            part = datasets.Dataset.from_list(rows[i::shards], features=datasets.Features(columns))
            blob = folder / "blobs" / str(len(list(folder.glob("blobs/*"))))
            blob.parent.mkdir(exist_ok=True)
            part.to_parquet(blob)
            path.symlink_to(blob)
            paths.append(path)
        return paths

    return write


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rows_of_the_hub_are_the_items_of_the_files(cache, tmp_path, name):
    cache(name)
    files = tmp_path / "files"
    for category, row in zip(pope.CATEGORIES, POPE, strict=True):
        path = files / "pope" / f"coco_pope_{category}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = row["image_source"] + ".jpg"
        line = {"question_id": 1, "image": image, "text": row["question"], "label": row["answer"]}
        path.write_text(json.dumps(line), encoding="utf-8")
    problems = {
        f"data/test-{i}": row | {"image": row["image"] and "image.png"} for i, row in enumerate(SCIENCEQA)
    }
    written = {
        "scienceqa/problems.json": problems,
        "scienceqa/pid_splits.json": {"test": list(problems)},
        "textvqa/TextVQA_0.5.1_val.json": {"data": [without(row, "image") for row in TEXTVQA]},
        "coco/annotations/instances_val2014.json": {
            "images": [{"id": 226988, "file_name": "COCO_val2014_000000226988.jpg"}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dining table"}],
            "annotations": [{"image_id": 226988, "category_id": number} for number in (1, 2)],
        },
        "coco/annotations/captions_val2014.json": {"annotations": []},
    }
    for place, value in written.items():
        if name == "scienceqa" or not place.startswith("scienceqa"):
            path = files / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value), encoding="utf-8")
    (files / "chair").mkdir()
    (files / "chair" / "image_ids.txt").write_text("226988", encoding="utf-8")

    offline, hub = BENCHMARKS[name].load(files), BENCHMARKS[name].load(HUB)

    def told(items):
        return [
            (
                one.id,
                one.image.parts[-2:],
                one.question,
                one.reference,
                one.stratum,
                one.kind,
                one.hint,
                one.choices,
            )
            for one in items
        ]

    assert told(hub) == told(offline)


def test_all_scienceqa_questions_keep_those_without_an_image(cache):
    cache("scienceqa")
    assert [item.image is None for item in scienceqa.load_all(HUB)] == [False, True, False]
    assert [item.id for item in scienceqa.load(HUB)] == ["data/test-0", "data/test-2"]


def test_a_null_image_may_be_an_empty_structure(cache):
    (path,) = cache("scienceqa")
    table = pq.read_table(path)
    images = [row["image"] or {"bytes": None, "path": None} for row in SCIENCEQA]
    column = pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(table.set_column(table.column_names.index("image"), "image", column), path)
    assert len(scienceqa.load(HUB)) == 2


def test_code_beside_the_files_is_not_run(cache):
    (path,) = cache("pope")
    for place in (path.parent / "data.py", path.parents[1] / "POPE.py"):
        place.write_text("raise SystemExit('run')", encoding="utf-8")
    assert len(pope.load(HUB)) == 3


def test_answers_may_be_stored_as_class_labels(cache):
    features = FEATURES["scienceqa"] | {"answer": datasets.ClassLabel(names=["A", "B", "C", "D", "E"])}
    cache("scienceqa", features=features)
    assert [item.reference for item in scienceqa.load_all(HUB)] == ["A", "B", "A"]


@pytest.mark.parametrize("repository", scienceqa.REPOSITORIES, ids=lambda one: one.files)
def test_every_publication_of_scienceqa_is_found(cache, repository):
    cache("scienceqa", repository=repository, owner=len(repository.ids) - 1)
    first = scienceqa.load(HUB)[0]
    assert first.id == f"{repository.files}-0"
    assert str(first.image.repository).startswith(repository.ids[-1])


@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("name", ["pope", "textvqa"])
def test_both_owners_are_found(cache, name, owner):
    cache(name, owner=owner)
    repository = REPOSITORIES[name][0]
    (source,) = {item.image.repository for item in BENCHMARKS[name].load(HUB)}
    assert source == f"{repository.ids[owner]} at {repository.revision[:7]}"


def test_an_image_is_decoded_when_it_is_asked_for_and_not_before(cache, monkeypatch):
    cache("pope")
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *args: pytest.fail("an image was opened"))
        items = pope.load(HUB)
    assert [read_image(item.image).getpixel((0, 0)) for item in items] == [(i, 10, 20) for i in range(3)]


def test_a_model_is_asked_the_same_as_by_the_files(cache):
    asked = limited(pope.load(MINIWORLD), 2)
    lines = [
        {
            "question_id": item.id.partition("-")[2],
            "question": item.question,
            "answer": "yes" if item.reference else "no",
            "image_source": item.image.stem,
            "category": item.stratum,
            "image": {"bytes": item.image.read_bytes(), "path": None},
        }
        for item in asked
    ]
    cache("pope", lines)
    lvlm, hub = load_model("llava-1.5"), pope.load(HUB)
    for item, other in zip(asked, hub, strict=True):
        prompt, again = (
            find_task("official", "llava-1.5", pope.POPE).prompt(lvlm, row) for row in (item, other)
        )
        assert prompt.text == again.text
        assert prompt.image_inputs["pixel_values"].equal(again.image_inputs["pixel_values"])


def test_a_corrupt_image_is_an_error_of_its_item_only(cache):
    broken = {"bytes": png()["bytes"][:40], "path": None}
    cache("pope", [POPE[0] | {"image": broken}, *POPE[1:]])
    first, second, _ = pope.load(HUB)
    assert read_image(second.image).size == (6, 4)
    with pytest.raises(ValueError, match=r"COCO_val2014_000000000000\.jpg .lmms-lab-encoder/POPE.*row 0"):
        read_image(first.image)


def test_rows_of_several_files_are_read_in_order(cache):
    cache("pope", shards=3)
    assert [item.stratum for item in pope.load(HUB)] == ["adversarial", "popular", "random"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_missing_is_named_with_the_command_that_gets_it(cache, name):
    with pytest.raises(DataError) as error:
        BENCHMARKS[name].load(HUB)
    message = str(error.value)
    for repository in REPOSITORIES[name]:
        for part in (*repository.ids, repository.revision or "main", repository.files):
            assert part in message
    first = REPOSITORIES[name][0]
    revision = f" --revision {first.revision}" if first.revision else ""
    assert f"\n    hf download --repo-type dataset {first.ids[0]}{revision} --include" in message


def test_another_revision_is_not_taken_for_the_pinned_one(cache):
    other = "f" * 40
    cache("pope", revision=other)
    with pytest.raises(DataError, match=f"there is lmms-lab-encoder/POPE at {other}, without these files"):
        pope.load(HUB)


def test_an_unpinned_data_set_names_the_commit_it_is_from(cache):
    cache("chair")
    (item,) = BENCHMARKS["chair"].load(HUB)
    assert item.image.repository == f"tsunghanwu/mscoco_chair at {UNPINNED[:7]}"


def test_a_missing_shard_is_named(cache):
    paths = cache("pope", shards=3)
    paths[1].unlink()
    with pytest.raises(
        DataError, match=r"no file 00001-of-00003 of data/test; .*`hf download --repo-type dataset"
    ):
        pope.load(HUB)


@pytest.mark.parametrize("keep", [0, 10, -10])
def test_a_truncated_file_is_named(cache, keep):
    (path,) = cache("pope")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="cannot read .*expected whole parquet files") as error:
        pope.load(HUB)
    assert str(path.parent) in str(error.value)


def test_text_in_another_encoding_is_refused(cache):
    (path,) = cache("pope")
    table = pq.read_table(path)
    latin = pa.array([b"Is there a caf\xe9 in the image?"] * 3).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("question"), "question", latin), path)
    with pytest.raises(DataError, match="row 0: not UTF-8"):
        pope.load(HUB)


def changed(name, **values):
    return [ROWS[name][0] | values, *ROWS[name][1:]]


@pytest.mark.parametrize(
    ("name", "rows", "kinds", "said"),
    [
        (
            "pope",
            [without(row, "answer") for row in POPE],
            {},
            ["row 0", "no 'answer'"],
        ),
        ("pope", [without(row, "image") for row in POPE], {}, ["expected 'image'"]),
        (
            "pope",
            [row | {"image": "a.png"} for row in POPE],
            {"image": TEXT},
            ["expected 'image' with the bytes"],
        ),
        ("pope", changed("pope", image=None), {}, ["row 0", "no image"]),
        (
            "pope",
            changed("pope", image={"path": "/etc/passwd", "bytes": None}),
            {},
            ["row 0", "path of a file"],
        ),
        ("pope", changed("pope", answer="Yes"), {}, ["row 0", "'Yes'", "expected 'yes' or 'no'"]),
        ("pope", changed("pope", question=None), {}, ["row 0", "'question' is None"]),
        ("pope", changed("pope", category="easy"), {}, ["row 0", "'easy'", "adversarial, popular, random"]),
        ("pope", [POPE[0], POPE[0]], {}, ["id adversarial-1 comes twice"]),
        ("scienceqa", changed("scienceqa", answer=2), {}, ["row 0", "answer is 2", "0 to 1"]),
        ("scienceqa", changed("scienceqa", answer=-1), {}, ["row 0", "answer is -1"]),
        ("scienceqa", changed("scienceqa", choices=["x"]), {}, ["row 0", "1 choices"]),
        ("scienceqa", [SCIENCEQA[1]], {}, ["no rows to ask"]),
        ("textvqa", changed("textvqa", answers=["x"] * 9), {}, ["row 0", "9 answers"]),
        ("textvqa", [TEXTVQA[0], TEXTVQA[0]], {}, ["id 34602 comes twice"]),
        ("chair", changed("chair", gt_object=["moon"]), {}, ["row 0", "'moon'"]),
        (
            "chair",
            [CHAIR[0] | {"question_id": "x1"}],
            {"question_id": TEXT},
            ["row 0", "'x1'", "COCO image id"],
        ),
        ("chair", [CHAIR[0], CHAIR[0]], {}, ["id 226988 comes twice"]),
    ],
)
def test_bad_content_is_refused(cache, name, rows, kinds, said):
    cache(name, rows, features=FEATURES[name] | kinds)
    with pytest.raises(DataError) as error:
        BENCHMARKS[name].load(HUB)
    for part in said:
        assert part in str(error.value)
