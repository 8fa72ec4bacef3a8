"""ScienceQA is read and scored as LLaVA's eval_science_qa.py does, and by lmms-eval's rule as that does."""

import json
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import DataError, Item
from repro.benchmarks.scienceqa import chosen_letter, load_all, score_internvl, score_lmms_eval

pytestmark = pytest.mark.conformance

VECTORS = json.loads((Path(__file__).parent / "vectors" / "scienceqa.json").read_text())
SCIENCEQA = BENCHMARKS["scienceqa"]


@pytest.mark.parametrize("case", VECTORS["parse_cases"], ids=lambda case: case["id"])
def test_answers_are_read_and_scored_as_recorded(case):
    assert (chosen_letter(case["text"]) or "FAILED") == case["expected"]["llava_parsed"]
    item = Item("1", Path(), "", case["gold_letter"], choices=tuple(case["choices"]))
    assert SCIENCEQA.score(item, case["text"]) == {"accuracy": (case["expected"]["llava_correct"], 1)}
    assert score_internvl(item, case["text"]) == {"accuracy": (case["expected"]["internvl_correct"], 1)}
    assert score_lmms_eval(item, case["text"]) == {"accuracy": (case["expected"]["lmms_eval_exact_match"], 1)}


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


@pytest.mark.parametrize(
    ("answer", "official", "lmms_eval"),
    [
        ("A.", 0, 1),
        ("a", 0, 1),
        ("a.", 0, 0),
        ("A. red", 1, 1),
        ("The answer is A.", 1, 0),
        ("A.red", 0, 1),
        ("", 0, 0),
    ],
)
def test_what_one_evaluator_reads_the_other_may_not(answer, official, lmms_eval):
    item = Item("1", Path(), "", "A")
    assert SCIENCEQA.score(item, answer) == {"accuracy": (official, 1)}
    assert score_lmms_eval(item, answer) == {"accuracy": (lmms_eval, 1)}


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [("(B)", "B"), ("(B", None), ("(b)", None), ("It is 2", "A"), ("2", None), ("", None)],
)
def test_internvl_takes_a_choice_by_its_name_and_a_letter_in_brackets(answer, chosen):
    for letter in "AB":
        item = Item("1", Path(), "", letter, choices=("2", "3"))
        assert score_internvl(item, answer) == {"accuracy": (letter == chosen, 1)}


def test_the_two_figures_differ_by_the_questions_without_an_image(tmp_path):
    """Of the published 4241 questions 2017 have one."""
    folder = tmp_path / "scienceqa"
    folder.mkdir()
    common = {"question": "Which?", "choices": ["x", "y"], "hint": ""}
    problems = {
        str(i): {**common, "answer": i % 2, "image": "image.png" if i < 2017 else None} for i in range(4241)
    }
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": list(problems)}))
    every, with_image = load_all(tmp_path), SCIENCEQA.load(tmp_path)
    assert (len(every), len(with_image)) == (4241, 2017)
    assert [item for item in every if item.image is not None] == with_image

    def accuracy(items):
        return sum(SCIENCEQA.score(item, "B")["accuracy"][0] for item in items) / len(items)

    assert (accuracy(with_image), accuracy(every)) == (1008 / 2017, 2120 / 4241)


def test_a_file_without_image_questions_is_refused_where_only_those_count(tmp_path):
    folder = tmp_path / "scienceqa"
    folder.mkdir()
    problem = {"question": "Which?", "choices": ["x", "y"], "answer": 0, "hint": "", "image": None}
    (folder / "problems.json").write_text(json.dumps({"1": problem}))
    (folder / "pid_splits.json").write_text(json.dumps({"test": ["1"]}))
    assert [item.image for item in load_all(tmp_path)] == [None]
    with pytest.raises(DataError, match="no rows to ask"):
        SCIENCEQA.load(tmp_path)


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
    # Answers recorded elsewhere may be to these, or to all of the split.
    own, every = SCIENCEQA.questions(tmp_path, tmp_path / "answers.jsonl")
    assert (set(own.items), set(every.items)) == ({"3"}, {"3", "4"})
    assert every.title == "ScienceQA 2" and every.source == folder
