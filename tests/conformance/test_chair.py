"""CHAIR finds objects and hallucinations as OPERA's chair.py, which the paper uses, does."""

import json
import subprocess
import sys
from pathlib import Path

import nltk
import numpy as np
import pytest

from repro.benchmarks import BENCHMARKS, chair, find_benchmark
from repro.benchmarks.benchmark import DataError, Item
from repro.benchmarks.chair_words import CLASS_OF
from repro.scores import aggregate

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((Path(__file__).parent / "vectors" / "chair.json").read_text())
CASES = {case["id"]: case for case in VECTORS["cases"]}
#: Captions that the approximate mode reads differently, and why. Ground truths agree on all recorded images.
DIFFERENT = {
    "chair-030": "'sinking' is tagged as a verb, whose lemma 'sink' is an object; the table has nouns only",
    "chair-049": "'tying' is tagged as a verb, whose lemma 'tie' is an object; the table has nouns only",
}


#: What each mode must read as recorded.
READINGS = [(name, "approx") for name in CASES if name not in DIFFERENT] + [(name, "exact") for name in CASES]


@pytest.fixture(params=["approx", "exact"])
def mode(request, need_nltk_data):
    """How words become lemmas."""
    if request.param == "exact":
        need_nltk_data("NLTK_DATA")
    return request.param


def truth(case, mode):
    image = VECTORS["images"].get(str(case["image_id"]))
    objects = image["expected_objects"]["opera_nltk"] if image else []
    return chair.GroundTruth(frozenset(objects), mode)


def check(found, case):
    """The mentions are the recorded ones, hallucinated ones included."""
    expected = case["expected"]["opera_nltk"]
    assert [mention.word for mention in found] == expected["mscoco_words"]
    assert [mention.object for mention in found] == expected["node_words"]
    assert [mention.index for mention in found] == expected["indices"]
    wrong = [mention for mention in found if mention.object not in truth(case, "approx").objects]
    assert [[mention.word, mention.object] for mention in wrong] == expected["hallucinated"]
    assert [mention.index for mention in wrong] == expected["hallucination_indices"]


@pytest.mark.parametrize(("name", "mode"), READINGS, indirect=["mode"])
def test_mentions_are_as_recorded(name, mode):
    check(chair.mentions(chair.lemmas(CASES[name]["caption"], mode)), CASES[name])


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_listed_captions_do_differ(name):
    with pytest.raises(AssertionError):
        check(chair.mentions(chair.lemmas(CASES[name]["caption"], "approx")), CASES[name])


@pytest.mark.parametrize(("name", "mode"), READINGS, indirect=["mode"])
def test_scores_are_as_recorded(name, mode):
    case = CASES[name]
    parts = chair.score(Item("1", Path(), "", truth(case, mode)), case["caption"])
    expected = case["expected"]["opera_nltk"]
    assert parts["CHAIR_s"] == (expected["CHAIRs"], 1)
    # The official script shows 0 for a caption without objects, or an image without; they count for nothing.
    for metric, key in (("CHAIR_i", "CHAIRi"), ("recall", "Recall")):
        numerator, denominator = parts[metric]
        assert numerator == pytest.approx(expected[key] * denominator, abs=1e-12)
    assert parts["CHAIR_i"][1] == len(expected["node_words"])
    assert parts["recall"][1] == len(truth(case, mode).objects)


@pytest.mark.parametrize("mode", ["exact"], indirect=True)
@pytest.mark.parametrize("name", CASES)
def test_words_are_merged_as_recorded(name, mode):
    words, _ = chair.merged(chair.lemmas(CASES[name]["caption"], mode))
    assert words == CASES[name]["expected"]["opera_nltk"]["raw_words"]


@pytest.mark.parametrize("name", CASES)
def test_recorded_words_give_the_recorded_objects(name):
    """The rules after the lemmatiser, whatever NLTK data is there: the recorded words are already merged."""
    expected = CASES[name]["expected"]["opera_nltk"]
    found = chair.mentions(expected["raw_words"])
    assert [mention.word for mention in found] == expected["mscoco_words"]
    assert [mention.object for mention in found] == expected["node_words"]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A motor bike and a cheesecake.", []),  # a leading blank in the published list
        ("An iPhone.", []),  # a capital in the published list
        ("A stove top oven.", ["stove", "oven"]),
        ("The seat of the toilet.", ["toilet"]),
        ("A bow tie and a bow.", ["tie", "bow"]),
        ("Men and vases.", []),  # WordNet has "men" and "vas"
        ("An orange wall.", ["orange"]),
        ("A cat.A dog.", ["dog"]),  # no blank after the full stop hides the cat
        ("A cat. A dog! Two buses?\n\nThree mice", ["cat", "dog", "bus", "mouse"]),
        ("Baby animals, passenger jets and train tracks.", ["jet"]),
    ],
)
def test_quirks_of_the_official_rules(caption, words, mode):
    assert [mention.word for mention in chair.mentions(chair.lemmas(caption, mode))] == words


def test_positions_are_off_after_the_toilet_and_seat_rule_as_in_the_official_script():
    found = chair.mentions(["a", "seat", "near", "the", "toilet", "and", "a", "cat"])
    assert [(mention.word, mention.index) for mention in found] == [("toilet", 3), ("cat", 6)]


def test_the_vocabulary_is_that_of_coco():
    assert list(dict.fromkeys(CLASS_OF.values())) == VECTORS["categories"]
    assert len(CLASS_OF) == 401


@pytest.fixture
def data(tmp_path):
    """The recorded images as a COCO data directory, with one that has no annotation."""
    categories = [{"id": i, "name": name} for i, name in enumerate(VECTORS["categories"], 1)]
    ids = {row["name"]: row["id"] for row in categories}
    numbers = [*map(int, VECTORS["images"]), 999]
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in numbers]
    instances, captions = [], []
    for number, image in VECTORS["images"].items():
        instances += [{"image_id": int(number), "category_id": ids[name]} for name in image["instances"]]
        captions += [{"image_id": int(number), "caption": caption} for caption in image["captions"]]
    folder = tmp_path / "coco" / "annotations"
    folder.mkdir(parents=True)
    for name, rows in (("instances", instances), ("captions", captions)):
        value = {"images": images, "categories": categories, "annotations": rows}
        (folder / f"{name}_val2014.json").write_text(json.dumps(value))
    (tmp_path / "chair").mkdir()
    (tmp_path / "chair" / "image_ids.txt").write_text("\n".join(map(str, reversed(numbers))))
    return tmp_path


def test_ground_truth_joins_instances_and_captions(data, mode):
    items = chair.load(data, mode)
    assert [item.id for item in items] == ["999", *reversed(VECTORS["images"])]
    for item in items:
        image = VECTORS["images"].get(item.id)
        assert sorted(item.reference.objects) == (image["expected_objects"]["opera_nltk"] if image else [])
        assert item.reference.mode == mode
        assert item.question == "Please describe this image in detail."
        assert item.image == data / "coco" / "val2014" / f"{item.id}.jpg"


def test_the_sample_may_come_from_train2014(data):
    folder = data / "coco" / "annotations"
    instances = {
        "images": [{"id": 5, "file_name": "5.jpg"}],
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [{"image_id": 5, "category_id": 17}],
    }
    captions = {"annotations": [{"image_id": 5, "caption": "Two dogs."}]}
    (folder / "instances_train2014.json").write_text(json.dumps(instances))
    (folder / "captions_train2014.json").write_text(json.dumps(captions))
    (data / "chair" / "image_ids.txt").write_text("5\n101\n")
    first, second = BENCHMARKS["chair"].load(data)
    assert first.image == data / "coco" / "train2014" / "5.jpg"
    assert first.reference.objects == {"cat", "dog"}
    assert second.image == data / "coco" / "val2014" / "101.jpg"


def test_an_empty_caption_counts_as_a_caption_without_mentions():
    references = [chair.GroundTruth(frozenset({"cat"}), "approx")] * 2
    scored = [
        chair.score(Item("1", Path(), "", r), a) for r, a in zip(references, ("", "A dog."), strict=True)
    ]
    parts = np.array([[row[metric.name] for metric in chair.CHAIR.metrics] for row in scored])
    assert scored[0] == {"CHAIR_s": (0, 1), "CHAIR_i": (0, 0), "recall": (0, 1)}
    assert aggregate(parts, np.array(["", ""])) == pytest.approx([0.5, 1, 0])


def test_the_two_modes_cannot_be_confused():
    assert list(chair.BY_MODE) == ["approx", "exact"] and chair.BY_MODE["approx"] is chair.CHAIR
    for mode, benchmark in chair.BY_MODE.items():
        assert (benchmark.name, benchmark.mode) == ("chair", mode) and mode in benchmark.title
        assert find_benchmark("chair", mode) is benchmark
    assert BENCHMARKS["chair"] is chair.CHAIR


def test_an_answer_is_read_as_its_ground_truth_was(monkeypatch):
    asked = []
    monkeypatch.setattr(chair, "lemmas", lambda caption, mode: asked.append(mode) or ["cat"])
    for mode in ("approx", "exact"):
        chair.score(Item("1", Path(), "", chair.GroundTruth(frozenset(), mode)), "A cat.")
    assert asked == ["approx", "exact"]


@pytest.fixture
def no_nltk_data(monkeypatch):
    """NLTK finds neither punctuation nor taggers."""

    def missing(*_):
        raise LookupError

    monkeypatch.setattr(nltk, "pos_tag", missing)
    monkeypatch.setattr(nltk, "word_tokenize", missing)
    chair.require_nltk_data.cache_clear()


def test_exact_mode_names_the_missing_data(no_nltk_data, tmp_path):
    with pytest.raises(DataError, match="punkt_tab, averaged_perceptron_tagger_eng.* not found.*NLTK_DATA"):
        chair.BY_MODE["exact"].load(tmp_path)


@pytest.mark.parametrize(
    ("damaged", "path", "content"),
    [
        ("wordnet", "corpora/wordnet.zip", b""),
        ("wordnet", "corpora/wordnet.zip", b"PK\x03\x04 cut short"),
        ("wordnet", "corpora/wordnet/data.noun", b""),  # without lexnames
        ("punkt_tab", "tokenizers/punkt_tab.zip", b""),
        ("punkt_tab", "tokenizers/punkt_tab/english/README", b""),
        ("averaged_perceptron_tagger_eng", "taggers/averaged_perceptron_tagger_eng.zip", b""),
        (
            "averaged_perceptron_tagger_eng",
            "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json",
            b"{",
        ),
    ],
)
def test_damaged_data_of_nltk_are_named(tmp_path, damaged, path, content):
    """In a process of its own: NLTK keeps what it has loaded."""
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(content)
    code = (
        "import nltk; from repro.benchmarks import chair; from repro.benchmarks.benchmark import DataError\n"
        f"nltk.data.path[:] = [{str(tmp_path)!r}]\n"
        "try: chair.require_nltk_data()\n"
        "except DataError as error: print(error)\n"
        "print(chair.best())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert damaged in done.stdout and done.stdout.endswith("approx\n")


@pytest.mark.parametrize("variable", ["NLTK_DATA", "REPRO_DATA"])
@pytest.mark.parametrize(("place", "outcome"), [(None, pytest.skip), ("/data/nltk", pytest.fail)])
def test_missing_data_fails_where_data_are_named_and_else_skips(
    no_nltk_data, need_nltk_data, monkeypatch, variable, place, outcome
):
    monkeypatch.delenv(variable, raising=False)
    if place:
        monkeypatch.setenv(variable, place)
    with pytest.raises(
        outcome.Exception, match="nltk_data to tokenizers/punkt_tab, taggers/av.*NLTK_DATA to it"
    ):
        need_nltk_data(variable)
