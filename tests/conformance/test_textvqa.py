"""TextVQA is scored as the m4c evaluator of mmf and LLaVA does."""

import json
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.benchmarks.textvqa import normalise

pytestmark = pytest.mark.conformance

VECTORS = json.loads((Path(__file__).parent / "vectors" / "textvqa.json").read_text())
TEXTVQA = BENCHMARKS["textvqa"]


def score(answers, answer):
    numerator, denominator = TEXTVQA.score(Item("1", Path(), "", tuple(answers)), answer)["accuracy"]
    assert denominator == 1
    return numerator


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['id']}-{case['rule']}")
def test_answers_are_normalised_and_scored_as_recorded(case):
    expected = case["expected"]
    assert normalise(case["prediction"]) == expected["normalized_prediction"]
    assert [normalise(answer) for answer in case["answers"]] == expected["normalized_answers"]
    assert score(case["answers"], case["prediction"]) == pytest.approx(expected["m4c_score"], abs=1e-12)


@pytest.mark.parametrize("agree", range(11))
def test_the_score_is_the_mean_over_annotators_left_out(agree):
    answers = ["stop"] * agree + ["exit"] * (10 - agree)
    others = [agree - (answer == "stop") for answer in answers]
    assert score(answers, "stop") == pytest.approx(sum(min(1, n / 3) for n in others) / 10, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("a-b - c", "ab c"),  # one hyphen at a blank deletes them all, before "a" could be an article
        ("b-a", "b"),
        ("x -y z-w", "x y zw"),
        ("An apple, the pear", "apple pear"),
        ("3.5 m.", "3.5 m"),
        (".5", ".5"),
        ("None", "0"),
        ("Im", "im"),
        ("'ows'at", "'ow's'at"),
        ("cant\nstop", "can't stop"),
        ("x\r\ny", "x y"),
        ("don?t", "don't"),
    ],
)
def test_quirks_of_the_official_normaliser(answer, normal):
    assert normalise(answer) == normal


def test_questions_are_taken_as_published(tmp_path):
    images = tmp_path / "textvqa" / "train_images"
    images.mkdir(parents=True)
    (images / "b.png").touch()
    rows = [
        {"image_id": "a", "question_id": 1, "question": "what does USPS mean?", "answers": ["x"] * 10},
        {"image_id": "b", "question_id": 2, "question": "Who?", "answers": ["y"] * 10},
    ]
    (tmp_path / "textvqa" / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": rows}))
    first, second = TEXTVQA.load(tmp_path)
    assert first.question == "what does USPS mean?"
    assert (first.id, first.image, second.image) == ("1", images / "a.jpg", images / "b.png")
    assert TEXTVQA.score(second, "Y.") == {"accuracy": (1, 1)}
