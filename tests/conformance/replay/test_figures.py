"""Recorded answers are matched to their questions by id and scored as the official scripts do."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from repro.benchmarks import chair
from repro.benchmarks.benchmark import DataError
from repro.cliff import compare
from repro.evaluation.answers import replay
from repro.protocols import ProtocolError
from repro.protocols.official import SHORT_ANSWER
from repro.report.replay import HEADER, rows
from repro.statistics import wilson
from repro.text import percent_interval

pytestmark = pytest.mark.conformance

CATEGORIES = ["adversarial", "popular", "random"]


def test_pope_gets_the_figures_of_llavas_script(published, shown):
    directory, figures = published
    scored = replay(directory / "llava-1.5-13b" / "pope_answers.jsonl", directory)
    assert shown(scored, "F1") == pytest.approx(figures["pope"], abs=0.0051)
    assert scored.title == f"POPE {len(scored.items)}"


def test_scienceqa_gets_the_figures_of_llavas_script(published, shown):
    directory, figures = published
    scored = replay(directory / "llava-1.5-13b" / "scienceqa_answers.jsonl", directory)
    assert shown(scored, "accuracy") == pytest.approx(figures["scienceqa"], abs=0.0051)


@pytest.mark.parametrize("model", ["llava-1.5", "instructblip", "shikra"])
def test_chair_gets_the_figures_of_operas_script(published, model, shown, need_nltk_data):
    directory, figures = published
    if os.environ.get("REPRO_DATA"):
        # The published figures are those of exact mode.
        need_nltk_data("REPRO_DATA")
    scored = replay(directory / "chair" / "captions" / f"{model}.greedy.jsonl", directory)
    sentences, instances = figures["chair"][model]
    assert shown(scored, "CHAIR_s") == {"all": pytest.approx(sentences, abs=0.051)}
    assert shown(scored, "CHAIR_i") == {"all": pytest.approx(instances, abs=0.051)}


def test_the_order_of_answers_does_not_matter(made, change):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    before = rows(replay(path, made))
    change(path, lambda values: list(reversed(values)))
    assert rows(replay(path, made)) == before


def test_the_version_of_the_questions_is_found_by_text(made):
    scored = replay(made / "llava-1.5-13b" / "pope_answers.jsonl", made)
    assert all("imange" in item.question for item in scored.items)
    (made / "pope" / "version-b" / "coco_pope_popular.json").unlink()
    with pytest.raises(DataError, match="missing file .*version-b/coco_pope_popular.json"):
        replay(made / "llava-1.5-13b" / "pope_answers.jsonl", made)


@pytest.mark.usefixtures("problems")
def test_answers_to_the_image_questions_alone_are_scored_alone(made, change, shown):
    path = made / "llava-1.5-13b" / "scienceqa_answers.jsonl"
    change(path, lambda values: [value for value in values if "<image>" in value["prompt"]])
    scored = replay(path, made)
    assert len(scored.items) == 15 and list(shown(scored, "accuracy")) == ["all"]


def test_answers_without_a_prompt_are_matched_by_id(made, change):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    before = rows(replay(path, made))
    change(path, lambda values: [{key: value[key] for key in ("question_id", "text")} for value in values])
    assert rows(replay(path, made)) == before


def test_a_sample_of_images_says_what_is_missing(made, write, change, refused):
    path = made / "chair" / "captions" / "llava-1.5.greedy.jsonl"
    numbers = [json.loads(line)["image_id"] for line in path.read_text().splitlines()]
    write(made / "chair" / "image_ids.txt", "".join(f"{number}\n" for number in numbers))
    assert len(replay(path, made).items) == 20
    change(path, lambda values: values[1:])
    refused(path, made, f"1 questions without an answer: '{numbers[0]}'")


def test_the_mode_of_chair_is_in_the_title(made, monkeypatch):
    path = made / "chair" / "captions" / "llava-1.5.greedy.jsonl"
    monkeypatch.setattr(chair, "lemmas", lambda caption, mode: ["cat"])
    for mode, other in (("approx", "exact"), ("exact", "approx")):
        monkeypatch.setattr(chair, "best", lambda mode=mode: mode)
        assert replay(path, made, chair_mode=other).title == f"CHAIR ({other})"
        scored = replay(path, made)
        assert scored.title == f"CHAIR ({mode})"
        assert {item.reference.mode for item in scored.items} == {mode}


def test_llavas_textvqa_answers_are_told_apart_by_image_and_first_line(tmp_path, write):
    questions = ["what is written?", "Who made it?"]
    published = [
        {"image_id": "ab", "question_id": i, "question": question, "answers": [str(i)] * 10}
        for i, question in enumerate(questions)
    ]
    write(tmp_path / "textvqa" / "TextVQA_0.5.1_val.json", json.dumps({"data": published}))
    answers = [
        {
            "question_id": "ab",
            "prompt": f"{question.capitalize()}\nReference OCR token: x{SHORT_ANSWER}",
            "text": str(i),
        }
        for i, question in reversed(list(enumerate(questions)))
    ]
    write(tmp_path / "answers.jsonl", answers)
    scored = replay(tmp_path / "answers.jsonl", tmp_path)
    assert [part[0] for part in scored.parts["accuracy"][:, 0]] == [1, 1]
    assert scored.title == "TextVQA 2"


@pytest.mark.parametrize(
    "prompt",
    [
        "{} Answer the question using a single word or phrase.",
        "{} \nAnswer the question using a single word or phrase.",
        "{}\r\nReference OCR token: x\r\nAnswer the question using a single word or phrase.",
        "<image>\n{}\nAnswer the question using a single word or phrase.",
        "USER: <image>\nBriefly: {} ASSISTANT:",
    ],
)
def test_textvqas_questions_are_found_in_any_prompt_around_them(tmp_path, write, prompt):
    """Also where a question is the beginning, or the end, of another one about the image."""
    questions = [
        "what is written",
        "What is written  on the sign?",
        "is written on the sign?",
        "Who made it?",
    ]
    published = [
        {"image_id": "ab", "question_id": i, "question": question, "answers": [str(i)] * 10}
        for i, question in enumerate(questions)
    ]
    write(tmp_path / "textvqa" / "TextVQA_0.5.1_val.json", json.dumps({"data": published}))
    answers = [
        {"question_id": "ab", "prompt": prompt.format(question.capitalize()), "text": str(i)}
        for i, question in reversed(list(enumerate(questions)))
    ]
    write(tmp_path / "answers.jsonl", answers)
    scored = replay(tmp_path / "answers.jsonl", tmp_path)
    assert scored.parts["accuracy"][:, 0, 0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("odd", ["<b>No</b>", "No\x00", "\x1b[31mNo", "\u202eNo", "\ud800", "No\u2028no", ""])
def test_markup_and_control_characters_are_answers_like_others(made, odd, change):
    """They are read as the official rules read them, take no row of the file apart, and reach no terminal."""
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: [value | {"text": odd} for value in values])
    scored = replay(path, made)
    assert len(scored.items) == 120
    # None of them has the word No between blanks, so all read as yes.
    right = np.array([item.reference for item in scored.items])
    np.testing.assert_array_equal(scored.parts["accuracy"][:, 0, 0], right)
    assert all(cell.isprintable() for row in rows(scored) for cell in row)


@pytest.mark.parametrize(
    ("protocol", "said", "expected"),
    [
        ("official", "It isn't", "yes"),
        ("opera", "It isn't", "no"),
        ("lmms-eval", "It isn't", None),
        ("official", "Yes ### no", "no"),
        ("opera", "Yes ### no", "yes"),
    ],
)
def test_answers_are_read_and_scored_by_the_protocol_asked_for(made, change, protocol, said, expected):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: [row | {"text": said} for row in values])
    scored = replay(path, made, protocol=protocol)
    assert [part[0, 0] for part in scored.parts["accuracy"]] == [
        float(expected == ("yes" if item.reference else "no")) for item in scored.items
    ]
    assert {row[HEADER.index("of")] for row in rows(scored)} == {
        *CATEGORIES,
        "all" if protocol == "lmms-eval" else "mean of 3",
    }


def test_a_protocol_that_does_not_define_what_was_asked_scores_nothing(made):
    path = made / "llava-1.5-13b" / "scienceqa_answers.jsonl"
    with pytest.raises(ProtocolError, match="opera does not define scienceqa"):
        replay(path, made, protocol="opera")


def test_intervals_are_wilsons_for_shares_and_resample_images_otherwise(made):
    scored = replay(made / "llava-1.5-13b" / "pope_answers.jsonl", made)
    table = {(row[3], row[4]): dict(zip(HEADER, row, strict=True)) for row in rows(scored)}
    share = table["popular", "accuracy ↑"]
    right = round(float(share["score"]) / 100 * 40)
    assert (share["by"], share["95 % interval"]) == ("Wilson", percent_interval(wilson(right, 40), 2))
    twice = scored.scores().at(0, 0)
    by_image, by_item = (
        percent_interval(compare(scores).score_interval(0), 2)
        for scores in (twice, replace(twice, images=None))
    )
    mean = table["mean of 3", "accuracy ↑"]
    assert mean["by"] == table["popular", "F1 ↑"]["by"] == "images resampled"
    assert mean["95 % interval"] == by_image != by_item
