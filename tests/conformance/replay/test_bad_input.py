"""Recorded answers that do not fit their questions, or are none, are refused with what is wrong and where."""

import json
import os
import shutil

import pytest

from repro.evaluation.answers import replay
from repro.report.replay import rows

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("name", ["pope_answers.jsonl", "scienceqa_answers.jsonl"])
def test_an_answer_recorded_for_another_prompt_is_refused_whatever_is_allowed(made, name, change, refused):
    path = made / "llava-1.5-13b" / name

    def swap(values):
        values[4]["prompt"], values[9]["prompt"] = values[9]["prompt"], values[4]["prompt"]
        return values

    change(path, swap)
    for allowed in (False, True):
        refused(
            path,
            made,
            "2 answers whose prompt asks something else",
            "line 5",
            "line 10",
            allow_missing=allowed,
        )


def test_choices_in_another_order_are_another_question(made, problems, write, refused, shown):
    path = made / "llava-1.5-13b" / "scienceqa_answers.jsonl"
    assert set(shown(replay(path, made), "accuracy")) == {"with an image", "all"}
    problems["7"]["choices"] = ["other", "7"]
    write(made / "scienceqa" / "problems.json", json.dumps(problems))
    refused(path, made, "1 answers whose prompt asks something else")


def test_missing_answers_are_listed_and_refused_unless_allowed(made, change, refused):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    gone = {3, 20_000_011}
    change(path, lambda values: [value for value in values if value["question_id"] not in gone])
    refused(path, made, "2 questions without an answer: '3', '20000011'", "--allow-missing")
    scored = replay(path, made, allow_missing=True)
    assert len(scored.items) == 118 and scored.notes == ["2 questions without an answer: '3', '20000011'"]


def test_unknown_ids_are_listed_and_refused_unless_allowed(made, change, refused):
    path = made / "chair" / "captions" / "shikra.greedy.jsonl"
    before = rows(replay(path, made))
    change(path, lambda values: [*values, {"image_id": 7, "caption": "A cat."}])
    refused(path, made, "1 unknown ids: '7'", "--allow-missing")
    scored = replay(path, made, allow_missing=True)
    assert rows(scored) == before and scored.notes == ["1 unknown ids: '7'"]


def test_long_lists_of_ids_are_cut_and_counted(made, change, refused):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: values[:70])
    message = refused(path, made, "50 questions without an answer", "and 30 more")
    assert len(message) < 1500


@pytest.mark.parametrize("allowed", [False, True])
def test_an_id_that_comes_twice_is_refused_whatever_is_allowed(made, allowed, change, refused):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: [*values, values[2] | {"text": "Maybe"}])
    refused(path, made, "1 answers to what has one already", "line 121", allow_missing=allowed)


def test_questions_in_another_spelling_are_named(made, change, refused):
    """POPE's later version has "image" for "imange"; another object is another question."""
    path, texts = made / "llava-1.5-13b" / "pope_answers.jsonl", "Is there a adversarial thing 1 in the "
    said = (
        f"spelled otherwise, such as '{texts}imange?' for '{texts}image?': the answers are to another version"
    )
    shutil.copytree(made / "pope" / "version-a", made / "later" / "pope")
    refused(path, made / "later", "no answer belongs to any", said)
    shutil.rmtree(made / "pope" / "version-a")
    file = made / "pope" / "version-b" / "coco_pope_adversarial.json"
    for text, expected in ((f"{texts}image?", True), ("Is there a adversarial king 1 in the imange?", False)):
        change(file, lambda values, text=text: [values[0] | {"text": text}, *values[1:]])
        message = refused(path, made, "1 unknown ids: '1'", "--allow-missing")
        assert (said in message) == ("spelled" in message) == expected


def test_answers_that_fit_two_benchmarks_are_not_guessed_at(tmp_path, write, refused):
    row = {"image_id": "ab", "question_id": 1, "question": "Who?", "answers": ["x"] * 10}
    problem = {"question": "Who?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": "image.png"}
    write(tmp_path / "textvqa" / "TextVQA_0.5.1_val.json", json.dumps({"data": [row]}))
    write(tmp_path / "scienceqa" / "problems.json", json.dumps({"1": problem}))
    write(tmp_path / "scienceqa" / "pid_splits.json", json.dumps({"test": ["1"]}))
    path = tmp_path / "answers.jsonl"
    write(path, [{"question_id": 1, "text": "x"}])
    refused(path, tmp_path, "alike", "--benchmark")
    assert replay(path, tmp_path, ["textvqa"]).parts["accuracy"].tolist() == [[[1, 1]]]
    assert replay(path, tmp_path, ["scienceqa"]).parts["accuracy"].tolist() == [[[0, 1]]]


def test_without_their_questions_answers_are_not_scored(made, tmp_path, change, refused):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    refused(path, made, "no questions found", "--data", names=["textvqa"])
    refused(path, made, "no answer belongs to any questions found", "ScienceQA 30", names=["scienceqa"])
    refused(made / "chair" / "captions" / "shikra.greedy.jsonl", made / "pope", "no questions found")
    change(path, lambda values: [value | {"question_id": "x"} for value in values])
    refused(path, made, "no answer belongs to any questions found", "POPE 120", allow_missing=True)


ROW = {"question_id": 1, "prompt": "Is it?", "text": "Yes"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(ROW) + "\n" + json.dumps(ROW)[:-9], ["line 2", "not JSON", "cut short"]),
        ("\n", ["no rows"]),
        ("[1]", ["line 1", "list"]),
        (json.dumps({"id": 1, "answer": "Yes"}), ["line 1", "'answer', 'id'", "'question_id' and 'text'"]),
        (json.dumps({"question_id": 1, "image": "a.jpg", "text": "Is it?"}), ["line 1", "question file"]),
        (json.dumps(ROW) + "\n" + json.dumps({"image_id": 1, "caption": ""}), ["line 2", "'question_id'"]),
        (json.dumps(ROW | {"question_id": None}), ["line 1", "None", "int or str"]),
        (json.dumps(ROW | {"text": None}), ["line 1", "'text'", "expected str"]),
        (json.dumps(ROW | {"prompt": 3}), ["line 1", "'prompt'"]),
        (json.dumps(ROW | {"text": "x" * 10_000_000}), ["line 1", "10000000 characters", "100000"]),
    ],
)
def test_a_file_that_holds_no_recorded_answers_is_refused(tmp_path, content, said, refused):
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    message = refused(path, tmp_path, *said)
    assert len(message) < 1000


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_refused(tmp_path, encoding, refused):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(json.dumps(ROW | {"text": "né"}, ensure_ascii=False).encode(encoding))
    refused(path, tmp_path, "UTF-8")


@pytest.mark.parametrize("rewritten", ["BOM", "list", "list on a line"])
def test_answers_rewritten_by_another_program_are_read(made, rewritten):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    before, text = rows(replay(path, made)), path.read_text()
    values = [json.loads(line) for line in text.splitlines()]
    lists = json.dumps(values, indent=None if "line" in rewritten else 2)
    path.write_text(text if rewritten == "BOM" else lists, "utf-8-sig" if rewritten == "BOM" else "utf-8")
    assert rows(replay(path, made)) == before


def test_odd_ids_are_spelled_out(made, change, refused):
    path = made / "llava-1.5-13b" / "pope_answers.jsonl"
    change(path, lambda values: [*values, values[0] | {"question_id": "\x1b[31m\u202e"}])
    assert refused(path, made, r"'\x1b[31m\u202e'").isprintable()


@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "xlsx"])
def test_only_regular_files_hold_answers(tmp_path, refused, suffix):
    os.mkfifo(tmp_path / f"answers.{suffix}")
    refused(tmp_path / f"answers.{suffix}", tmp_path, "is no regular file")
