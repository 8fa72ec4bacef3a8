"""TextVQA is scored as the m4c evaluator of mmf and LLaVA does, and for Qwen-VL as its own VQAEval does."""

import json
from pathlib import Path

import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.benchmarks.textvqa import normalise, score_vqa_eval

pytestmark = pytest.mark.conformance

VECTORS = json.loads((Path(__file__).parent / "vectors" / "textvqa.json").read_text())
TEXTVQA = BENCHMARKS["textvqa"]


def score(answers, answer, by=TEXTVQA.score):
    numerator, denominator = by(Item("1", Path(), "", tuple(answers)), answer)["accuracy"]
    assert denominator == 1
    return numerator


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['id']}-{case['rule']}")
def test_answers_are_normalised_and_scored_as_recorded(case):
    expected = case["expected"]
    assert normalise(case["prediction"]) == expected["normalized_prediction"]
    assert [normalise(answer) for answer in case["answers"]] == expected["normalized_answers"]
    found = score(case["answers"], case["prediction"])
    assert found == pytest.approx(expected["m4c_score"], abs=1e-12)
    # lmms-eval has the same rule.
    assert found == pytest.approx(expected["lmms_eval_score"], abs=1e-12)
    found = score(case["answers"], case["prediction"], score_vqa_eval)
    assert found == pytest.approx(expected["qwen_vqaeval_score"], abs=1e-12)


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
        ("m. " * 33, "m " * 32 + "m."),  # only 32 full stops go
        ("7.", "7"),
    ],
)
def test_quirks_of_the_official_normaliser(answer, normal):
    assert normalise(answer) == normal.strip()


@pytest.mark.parametrize(
    ("answers", "answer", "expected"),
    [
        (["stop"] * 10, "stop", 1),  # without distinct ids the script would drop all ten together
        (["Stop"] * 10, "Stop", 0),  # capitals of the annotators match nothing
        (["stop!"] * 10, "stop!", 0),  # equal answers keep their marks, which the model's lose
        (["stop! go"] * 9 + ["x"], "stop! go", 1),  # ... unless they differ
        (["stop!"] * 9 + ["stop"], "stop!", 0.3),  # ... and then one at the end leaves a blank
        (["the end"] * 9 + ["end"], "the end", 0.3),  # articles stay in theirs and go from the model's
        (["1,000 m-p-h"] * 9 + ["x"], "1,000 m-p-h", 1),  # a comma between digits deletes every mark
        (["1000 mph"] * 9 + ["x"], "1,000 m-p-h", 1),
    ],
)
def test_quirks_of_qwens_scorer(answers, answer, expected):
    assert score(answers, answer, score_vqa_eval) == expected


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
