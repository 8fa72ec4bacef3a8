"""POPE is read and scored as LLaVA's eval_pope.py does."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item, aggregate
from repro.benchmarks.pope import says_yes

pytestmark = pytest.mark.conformance

VECTORS = json.loads((Path(__file__).parent / "vectors" / "pope.json").read_text())
POPE = BENCHMARKS["pope"]


def figures(answers, labels, strata=None):
    """Accuracy and F1 of answers to questions whose labels are yes or no."""
    items = [Item(str(i), Path(), "", label == "yes") for i, label in enumerate(labels)]
    scored = [POPE.score(item, answer) for item, answer in zip(items, answers, strict=True)]
    parts = np.array([[row[metric.name] for metric in POPE.metrics] for row in scored])
    return aggregate(parts, np.array(strata or [""] * len(items)))


@pytest.mark.parametrize("case", VECTORS["parse_cases"], ids=lambda case: case["id"])
def test_answers_are_read_as_recorded(case):
    assert ("yes" if says_yes(case["text"]) else "no") == case["expected"]["pope_llava"]


@pytest.mark.parametrize(
    ("answer", "yes"),
    [("No, sir", False), ("", True), ("NO", True), ("It isn't", True), ("Yes, a bus, not a truck", False)],
)
def test_quirks_of_the_official_reading(answer, yes):
    assert says_yes(answer) is yes


@pytest.mark.parametrize("case", VECTORS["metric_cases"], ids=lambda case: case["name"])
def test_accuracy_and_f1_are_as_recorded(case):
    accuracy, f1 = figures(case["texts"], case["labels"])
    expected = case["expected"]["pope_llava"]
    if "error" in expected:
        # Without a true positive the official script divides by zero; F1 is 0 here.
        assert f1 == 0
    else:
        assert (accuracy, f1) == pytest.approx((expected["accuracy"], expected["f1"]), abs=1e-12)


def test_the_figure_is_the_mean_of_categories_not_the_pooled_one():
    case = VECTORS["averaging_case"]
    answers, labels, strata = [], [], []
    for category, count in case["per_category"].items():
        for key, answer, label in (
            ("TP", "Yes", "yes"),
            ("FP", "Yes", "no"),
            ("TN", "No", "no"),
            ("FN", "No", "yes"),
        ):
            answers += [answer] * count[key]
            labels += [label] * count[key]
            strata += [category] * count[key]
    mean = case["mean_of_categories"]
    assert figures(answers, labels, strata) == pytest.approx([mean["accuracy"], mean["f1"]], abs=1e-12)
    pooled = case["pooled"]
    assert figures(answers, labels) == pytest.approx([pooled["accuracy"], pooled["f1"]], abs=1e-12)


def test_the_published_answers_of_the_13b_model_have_the_published_f1():
    """LLaVA-1.5-13B's counts per category, rescored: mean F1 85.95, published 85.9."""
    real = VECTORS["known_real_result"]
    answers, labels, strata = [], [], []
    for category, count in real["per_category"].items():
        answers += ["Yes"] * (count["TP"] + count["FP"]) + ["No"] * (count["TN"] + count["FN"])
        labels += ["yes"] * count["TP"] + ["no"] * (count["FP"] + count["TN"]) + ["yes"] * count["FN"]
        strata += [category] * (len(answers) - len(strata))
    assert figures(answers, labels, strata)[1] == pytest.approx(real["mean_f1"], abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_f1_is_that_of_scikit_learn(pairs):
    labels = ["yes" if label else "no" for label, _ in pairs]
    answers = ["Yes" if said else "No" for _, said in pairs]
    if any(label or said for label, said in pairs):
        expected = f1_score([label for label, _ in pairs], [said for _, said in pairs], zero_division=0)
        assert figures(answers, labels)[1] == pytest.approx(expected)


def test_questions_are_taken_as_published(tmp_path):
    (tmp_path / "pope").mkdir()
    for category in ("random", "popular", "adversarial"):
        row = {
            "question_id": 7,
            "image": f"{category}.jpg",
            "text": "Is there a cat in the imange?",
            "label": "no",
        }
        (tmp_path / "pope" / f"coco_pope_{category}.json").write_text(json.dumps(row) + "\n\n")
    items = POPE.load(tmp_path)
    assert sorted(item.stratum for item in items) == ["adversarial", "popular", "random"]
    assert len({item.id for item in items}) == 3
    for item in items:
        assert item.question == "Is there a cat in the imange?"
        assert item.image == tmp_path / "coco" / "val2014" / f"{item.stratum}.jpg"
        assert item.reference is False
