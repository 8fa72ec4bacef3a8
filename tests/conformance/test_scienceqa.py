"""ScienceQA is asked, read and scored as LLaVA's model_vqa_science.py and eval_science_qa.py do."""

import json
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.benchmarks.scienceqa import chosen_letter

pytestmark = pytest.mark.conformance

VECTORS = json.loads((Path(__file__).parent / "vectors" / "scienceqa.json").read_text())
SCIENCEQA = BENCHMARKS["scienceqa"]


@pytest.mark.parametrize("case", VECTORS["parse_cases"], ids=lambda case: case["id"])
def test_answers_are_read_and_scored_as_recorded(case):
    assert (chosen_letter(case["text"]) or "FAILED") == case["expected"]["llava_parsed"]
    item = Item("1", Path(), "", case["gold_letter"])
    assert SCIENCEQA.score(item, case["text"]) == {"accuracy": (case["expected"]["llava_correct"], 1)}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("The answer is Carp.", "C"),  # the script's full stop matches any character
        ("The answer is B", None),  # ... but needs one
        ("A. ", "A"),
        ("A.", None),
        ("", None),
        ("ABC", None),
    ],
)
def test_quirks_of_the_official_reading(answer, letter):
    assert chosen_letter(answer) == letter


def test_only_image_questions_of_the_test_split_are_asked(tmp_path):
    folder = tmp_path / "scienceqa"
    folder.mkdir()
    common = {"question": "Which?", "choices": ["x", "y", "z"], "answer": 2, "hint": "", "skill": "Maps"}
    problems = {
        "3": {**common, "image": "image.png"},
        "4": {**common, "image": None},
        "5": {**common, "image": "image.png"},
    }
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"train": ["5"], "test": ["4", "3"]}))
    (item,) = SCIENCEQA.load(tmp_path)
    assert (item.id, item.reference, item.kind) == ("3", "C", "Maps")
    assert item.image == folder / "images" / "test" / "3" / "image.png"
    assert (item.question, item.hint, item.choices) == ("Which?", "", ("x", "y", "z"))
