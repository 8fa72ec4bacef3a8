"""POPE is read and scored by three rules: LLaVA's eval_pope.py, OPERA's pope_eval.py and lmms-eval's."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.benchmarks.pope import (
    says_yes,
    says_yes_lmms_eval,
    says_yes_opera,
    score,
    score_lmms_eval,
    score_opera,
)
from repro.scores import aggregate

pytestmark = pytest.mark.conformance

VECTORS = json.loads((Path(__file__).parent / "vectors" / "pope.json").read_text())
POPE = BENCHMARKS["pope"]


SCORES = {"pope_llava": score, "opera_paper": score_opera, "lmms_eval": score_lmms_eval}


def figures(answers, labels, strata=None, score=score, names=("accuracy", "F1")):
    """Accuracy and F1, or others, of answers to questions whose labels are yes or no."""
    items = [Item(str(i), Path(), "", label == "yes") for i, label in enumerate(labels)]
    scored = [score(item, answer) for item, answer in zip(items, answers, strict=True)]
    parts = np.array([[row[name] for name in names] for row in scored])
    return aggregate(parts, np.array(strata or [""] * len(items)))


@pytest.mark.parametrize("case", VECTORS["parse_cases"], ids=lambda case: case["id"])
def test_answers_are_read_as_recorded(case):
    expected = case["expected"]
    assert ("yes" if says_yes(case["text"]) else "no") == expected["pope_llava"]
    assert ("yes" if says_yes_opera(case["text"]) else "no") == expected["opera_paper"]
    read = {"yes": True, "no": False}.get(expected["lmms_eval_prediction"])
    assert says_yes_lmms_eval(case["text"]) is read
    for label in ("yes", "no"):
        [accuracy] = figures([case["text"]], [label], score=score_lmms_eval, names=["accuracy"])
        assert accuracy == expected[f"lmms_eval_correct_if_{label}"]


@pytest.mark.parametrize(
    ("answer", "official", "opera", "lmms_eval"),
    [
        ("No, sir", False, False, None),
        ("", True, True, None),
        ("NO", True, False, False),
        ("Nope", True, True, None),
        ("no!", True, True, None),
        ("No\nThere is none", True, True, None),
        ("It isn't", True, False, None),
        ("Yes, a bus, not a truck", False, False, None),
        ("A kitchen. There is no oven", True, False, None),
        ("Yes.", True, True, None),
        (" YES\n", True, True, True),
    ],
)
def test_quirks_of_the_three_readings(answer, official, opera, lmms_eval):
    assert (says_yes(answer), says_yes_opera(answer), says_yes_lmms_eval(answer)) == (
        official,
        opera,
        lmms_eval,
    )


def test_full_stops_make_lmms_evals_accuracy_and_f1_disagree():
    """What it cannot read is wrong for the accuracy and nothing for F1."""
    answers, labels = ["Yes", "Yes.", "No.", "No."], ["yes", "yes", "no", "no"]
    assert figures(answers, labels, score=score_lmms_eval) == pytest.approx([0.25, 1])
    assert figures(answers, labels) == pytest.approx([1, 1])


def test_lmms_evals_yes_ratio_is_that_of_the_right_answers():
    answers, labels = ["Yes", "Yes", "Yes", "Yes"], ["yes", "no", "no", "no"]
    assert figures(answers, labels, score=score_lmms_eval, names=["yes ratio"]) == 0.25
    assert figures(answers, labels, names=["yes ratio"]) == 1


@pytest.mark.parametrize("answers", [["Yes.", "Maybe", ""], ["No", "no", "No"], ["Yes.", "No", "yes!"]])
def test_lmms_evals_ratios_are_0_where_nothing_can_be_divided(answers):
    """As in its ``tasks/pope/utils.py``, whether no answer is yes or none can be read."""
    labels, names = ["yes", "no", "no"], ["F1", "precision", "recall"]
    assert figures(answers, labels, score=score_lmms_eval, names=names).tolist() == [0, 0, 0]
    # One readable answer counts alone.
    mixed = [*answers[:2], "yes"]
    assert figures(mixed, labels, score=score_lmms_eval, names=["precision"]).tolist() == [0]
    assert figures(
        [*answers, "Yes"], [*labels, "yes"], score=score_lmms_eval, names=["precision"]
    ).tolist() == [1]


@pytest.mark.parametrize("case", VECTORS["metric_cases"], ids=lambda case: case["name"])
@pytest.mark.parametrize("evaluator", SCORES)
def test_every_figure_is_as_recorded(case, evaluator):
    names = ("accuracy", "precision", "recall", "F1", "yes ratio")
    found = figures(case["texts"], case["labels"], score=SCORES[evaluator], names=names)
    expected = case["expected"][evaluator]
    if "error" in expected:
        # Without a true positive the official scripts divide by zero; F1 is 0 here.
        assert found[names.index("F1")] == 0
        return
    ratio = "yes_ratio_of_ground_truth" if evaluator == "lmms_eval" else "yes_ratio"
    wanted = [expected[name] for name in ("accuracy", "precision", "recall", "f1", ratio)]
    # A precision without any positive answer is undefined here, where lmms-eval says 0.
    assert np.nan_to_num(found) == pytest.approx(wanted, abs=1e-12)


def test_figures_of_categories_their_mean_and_the_pooled_one_are_as_recorded():
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
    names = ("accuracy", "precision", "recall", "F1", "yes ratio")
    keys = ("accuracy", "precision", "recall", "f1", "yes_ratio")
    for category, count in case["per_category"].items():
        own = [i for i, stratum in enumerate(strata) if stratum == category]
        found = figures([answers[i] for i in own], [labels[i] for i in own], names=names)
        assert found == pytest.approx([count[key] for key in keys], abs=1e-12)
    mean, pooled = case["mean_of_categories"], case["pooled"]
    found = figures(answers, labels, strata, names=names)
    assert found == pytest.approx([mean[key] for key in keys], abs=1e-12)
    assert figures(answers, labels, names=names) == pytest.approx([pooled[key] for key in keys], abs=1e-12)


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
