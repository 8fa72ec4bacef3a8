"""Answers belong to the questions that the most of them match, and to none where that is not clear."""

import json

import pytest

from repro.evaluation.answers import replay
from repro.protocols.official import SHORT_ANSWER

pytestmark = pytest.mark.conformance

CATEGORIES = ("adversarial", "popular", "random")


@pytest.fixture
def pope(tmp_path, write):
    """POPE of 30 questions a category, ScienceQA of 20 whose ids are among POPE's; answers by category."""
    answers = {}
    for start, category in enumerate(CATEGORIES):
        # As in the published files, a category's positive questions are the other categories' as well.
        texts = [f"Is there a {'cat' if i % 2 else category} {i}?" for i in range(1, 31)]
        labels = ["yes" if (i + start) % 3 == 0 else "no" for i in range(1, 31)]
        rows = [
            {"question_id": i, "image": f"{i}.jpg", "text": text, "label": label}
            for i, (text, label) in enumerate(zip(texts, labels, strict=True), 1)
        ]
        write(tmp_path / "pope" / f"coco_pope_{category}.json", rows)
        answers[category] = [
            {"question_id": row["question_id"], "prompt": row["text"] + SHORT_ANSWER, "text": row["label"]}
            for row in rows
        ]
        for answer in answers[category]:
            answer["text"] = answer["text"].capitalize()
    problem = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": "image.png"}
    problems = {str(i): problem for i in range(1, 21)}
    write(tmp_path / "scienceqa" / "problems.json", json.dumps(problems))
    write(tmp_path / "scienceqa" / "pid_splits.json", json.dumps({"test": list(problems)}))
    return tmp_path, answers


def without_prompts(rows):
    return [{key: value for key, value in row.items() if key != "prompt"} for row in rows]


@pytest.mark.parametrize("category", CATEGORIES)
def test_one_category_of_pope_under_its_own_ids_is_scored_as_that_category(pope, write, category):
    directory, answers = pope
    write(directory / "answers.jsonl", answers[category])
    scored = replay(directory / "answers.jsonl", directory)
    assert scored.title == f"POPE {category} 30" and not scored.notes
    assert {item.stratum for item in scored.items} == {category}
    assert scored.parts["accuracy"][..., 0].all()


@pytest.mark.parametrize("count", [16, 29])
def test_a_killed_run_is_scored_by_its_questions_and_not_by_shorter_ones(pope, write, refused, count):
    directory, answers = pope
    write(directory / "answers.jsonl", answers["popular"][:count])
    refused(
        directory / "answers.jsonl", directory, "POPE popular 30", f"{30 - count} questions without an answer"
    )
    scored = replay(directory / "answers.jsonl", directory, allow_missing=True)
    assert (scored.title, len(scored.items)) == ("POPE popular 30", count)
    assert scored.parts["accuracy"][..., 0].all()


def test_most_of_llavas_answers_are_scored_by_llavas_questions(made, change, refused):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda rows: sorted(rows, key=lambda row: row["question_id"])[:53])
    refused(path, made, "POPE 120", "67 questions without an answer")
    scored = replay(path, made, allow_missing=True)
    assert (scored.title, len(scored.items)) == ("POPE 120", 53)


def test_one_category_under_llavas_ids_is_scored_as_that_category(made, change):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda rows: [row for row in rows if row["question_id"] > 20_000_000])
    scored = replay(path, made)
    assert scored.title == "POPE popular 40" and not scored.notes
    assert {item.stratum for item in scored.items} == {"popular"}


def test_answers_of_which_most_belong_to_nothing_are_refused_whatever_is_allowed(pope, write, refused):
    directory, answers = pope
    strangers = [{"question_id": 1000 + i, "prompt": "Why?", "text": "No"} for i in range(31)]
    write(directory / "answers.jsonl", answers["popular"] + strangers)
    said = ("only 30 of 61 answers belong to POPE popular 30", "31 unknown ids")
    refused(directory / "answers.jsonl", directory, *said, allow_missing=True)
    write(directory / "answers.jsonl", answers["popular"] + strangers[1:])
    assert len(replay(directory / "answers.jsonl", directory, allow_missing=True).items) == 30


def test_answers_that_fit_several_questions_alike_are_refused_with_their_names(pope, write, refused):
    directory, answers = pope
    write(directory / "answers.jsonl", without_prompts(answers["popular"]))
    names = [f"POPE {category} 30" for category in CATEGORIES]
    refused(directory / "answers.jsonl", directory, "30 of 30 answers", *names, allow_missing=True)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_without_prompts_is_scored_by_the_one_named(pope, write, refused, category):
    """By the option, or by the file's name; the name of two categories, or of none, names none."""
    directory, answers = pope
    rows = without_prompts(answers[category])
    write(directory / "answers.jsonl", rows)
    refused(directory / "answers.jsonl", directory, f"--benchmark pope:{category}", allow_missing=True)
    write(directory / f"llava_POPE_{category}.jsonl", rows)
    for path, names in (("answers.jsonl", [f"pope:{category}"]), (f"llava_POPE_{category}.jsonl", ["pope"])):
        scored = replay(directory / path, directory, names)
        assert scored.title == f"POPE {category} 30"
        assert scored.parts["accuracy"][..., 0].all()
    write(directory / "popular-or-random.jsonl", rows)
    refused(directory / "popular-or-random.jsonl", directory, "alike", allow_missing=True)


def test_a_files_name_says_nothing_against_the_prompts(pope, write):
    directory, answers = pope
    write(directory / "random.jsonl", answers["popular"])
    assert replay(directory / "random.jsonl", directory).title == "POPE popular 30"


def test_a_category_that_was_not_asked_is_refused(pope, write, refused):
    directory, answers = pope
    write(directory / "answers.jsonl", answers["popular"])
    refused(
        directory / "answers.jsonl",
        directory,
        "15 answers whose prompt asks something else",
        names=["pope:random"],
    )
