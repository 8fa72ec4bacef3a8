"""Runs of the suite's own results files, replayed: matched by id and digest, with what truncation changes."""

import itertools
import json
import random
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from repro.benchmarks.benchmark import DataError
from repro.benchmarks.pope import POPE
from repro.cliff import held_out
from repro.evaluation.answers import MAX_CHARACTERS, replay, sources
from repro.evaluation.breakdown import PAIRED
from repro.evaluation.export import export
from repro.evaluation.results import Configuration, Results, ResultsError, Row
from repro.evaluation.run import question_digest
from repro.models import find_card
from repro.protocols import find_task
from repro.report.replay import HEADER, notes, rows

pytestmark = pytest.mark.conformance

CATEGORIES = ("adversarial", "popular", "random")
#: Questions of category random that get a wrong answer where the image is seen by one layer, and by two.
WRONG = {1: (7, 47), 2: (63,)}


@pytest.fixture
def data(tmp_path):
    """POPE of two questions an image and category."""
    (tmp_path / "pope").mkdir()
    for category in CATEGORIES:
        asked = [
            {
                "question_id": i,
                "image": f"{i // 2}.jpg",
                "text": f"{category} {i}?",
                "label": ("no", "yes")[i % 2],
            }
            for i in range(160)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in asked)
        (tmp_path / "pope" / f"coco_pope_{category}.json").write_text(lines)
    return tmp_path


def store(data, model="llava-1.5", protocol="official", says="{}", edit=list, dataset="pope"):
    """A results file of a run at L = 0, 1, 2, every second image wrong at 0: what ``replay`` takes."""
    card, task = find_card(model), find_task(protocol, model, POPE)
    answers = []
    for item, layer in itertools.product(POPE.load(data), range(3)):
        i = int(item.id.rpartition("-")[2])
        wrong = i % 4 < 2 if layer == 0 else item.stratum == "random" and i in WRONG[layer]
        said = says.format("Yes" if item.reference != wrong else "No")
        digest = question_digest(card, task, item)
        answers.append(Row(item.id, digest, "", layer, 0, said, (1,), {"accuracy": (1.0, 1.0)}, 0.5))
    random.Random(2).shuffle(answers)
    results = Results(data / "results.sqlite", new=True)
    run = results.begin(Configuration(model, "r", dataset, protocol, {}, {}))
    run.write(edit(answers))
    return sources(results.path)[-1]


def refused(source, data, *said, **options):
    with pytest.raises(DataError) as error:
        replay(source, data, **options)
    for part in (str(source.path), *said):
        assert part in str(error.value), error.value
    assert len(str(error.value)) < 1500


def test_a_run_gets_the_cliff_layer_and_what_truncation_changes(data):
    scored = replay(store(data), data)
    assert scored.scores().values == pytest.approx([0.5, 1 - 2 / 160 / 3, 1 - 1 / 160 / 3])
    table = [dict(zip(HEADER + PAIRED, row, strict=False)) for row in rows(scored)]
    assert [row["of"] for row in table[::2]] == [*CATEGORIES, "mean of 3"]
    # The images of the wrong answers are among the half that reports.
    mean, f1 = table[-2:]
    assert (mean["answers"], mean["metric"], mean["n"]) == (
        "results.sqlite, run 1, llava-1.5",
        "accuracy ↑",
        "240",
    )
    assert (mean["cliff layer"], mean["score"], mean["at the cliff"]) == ("1 of 2", "99.58", "99.17")
    assert mean["difference"].startswith("−0.4 [")
    assert (mean["better, worse"], mean["McNemar p"]) == ("1, 2", "1")
    assert f1["metric"] == "F1 ↑" and "better, worse" not in f1


def test_notes_of_a_run_say_what_was_scored_and_the_margin_of_its_cliff_layer(data):
    scored = replay(store(data), data)
    named = "results.sqlite, run 1, llava-1.5"
    assert notes(scored, 0.02) == [f"{named}: {scored.data}", f"{named}: margin 2 points"]
    assert held_out(scored.scores(), 0.02).caveat == ""


def test_each_run_of_a_file_stands_for_itself(data):
    store(data)
    store(data, "shikra", says="The answer is {} .")
    first, second = sources(data / "results.sqlite")
    assert str(first) != str(second)
    assert replay(first, data).answers == str(first)
    # Shikra's answers are read as the model words them.
    expected = [0.5, 1 - 2 / 160 / 3, 1 - 1 / 160 / 3]
    assert replay(second, data).scores().values == pytest.approx(expected)


def test_a_run_is_scored_by_its_own_protocol(data):
    """With a full stop lmms-eval reads no answer; its metrics are of all categories at once."""
    scored = replay(store(data, protocol="lmms-eval"), data, protocol="opera")
    assert scored.task.protocol == "lmms-eval"
    table = [dict(zip(HEADER, row, strict=False)) for row in rows(scored)]
    assert {row["protocol"] for row in table} == {"lmms-eval"}
    assert [row["of"] for row in table[::2]] == [*CATEGORIES, "all"]
    assert table[-2]["by"] == "Wilson"  # a share of all answers, no mean of three
    right = np.array([0.5, 1 - 2 / 480, 1 - 1 / 480])
    assert scored.scores().values == pytest.approx(right)
    stopped = store(data, "llava-1.6", protocol="lmms-eval", says="{}.")
    assert not replay(stopped, data).parts["accuracy"][..., 0].any()


def test_an_answer_missing_at_a_layer_leaves_its_item_out(data):
    run = store(data, edit=lambda answers: [a for a in answers if (a.item, a.layer) != ("popular-7", 1)])
    refused(run, data, "1 questions without an answer: 'popular-7'")
    assert len(replay(run, data, allow_missing=True).items) == 479


def test_a_run_of_other_questions_is_refused_whatever_is_allowed(data):
    run = store(data)
    path = data / "pope" / "coco_pope_popular.json"
    path.write_text(path.read_text().replace("popular 7?", "Popular 7!"))
    for allowed in (False, True):
        refused(run, data, "3 answers whose prompt asks something else", "L = 0", allow_missing=allowed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"layer": 10**12}, "answers at 4 layers, but not at 0 to 3"),
        ({"answer": "x" * (MAX_CHARACTERS + 1)}, f"has {MAX_CHARACTERS + 1} characters"),
        ({"item": "popular-9999"}, "1 unknown ids: 'popular-9999'"),
    ],
)
def test_a_row_that_cannot_be_is_refused(data, changed, said):
    run = store(data, edit=lambda answers: [replace(answers[0], **changed), *answers[1:]])
    refused(run, data, said)


def test_a_run_killed_at_once_has_nothing_to_score(data):
    refused(store(data, edit=lambda answers: []), data, "run 1", "holds no answers")


def test_a_run_of_something_unknown_is_refused(data):
    refused(store(data, dataset="vqav2"), data, "run 1", "'vqav2'")


def test_rows_that_kept_image_tokens_are_another_experiment(data):
    run = store(data, edit=lambda answers: [*answers, replace(answers[0], keep=3, answer="Maybe")])
    assert len(replay(run, data).items) == 480


def test_markup_and_control_characters_reach_no_terminal(data):
    scored = replay(store(data, says="<script>\x1b[31m{}"), data)
    assert all(cell.isprintable() for row in rows(scored) for cell in row)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "results.sqlite").write_text("no data base " * 100)
    with pytest.raises(DataError, match="is no SQLite file"):
        sources(tmp_path / "results.sqlite")


@pytest.mark.parametrize(
    "damaged", ["{", "[]", "3", "{}x", "[" * 100_000, '{"accuracy": [1]}', '{"a": ["x", 1]}']
)
@pytest.mark.parametrize(
    ("table", "column"),
    [("answers", "score"), ("answers", "ids"), ("runs", "settings"), ("runs", "versions")],
)
def test_damaged_cells_are_refused(data, damaged, table, column):
    if (column, damaged) == ("ids", "[]") or table == "runs" and damaged.endswith("]}"):
        return  # nothing says that these are damaged
    store(data)
    damage(data / "results.sqlite", table, column, damaged)
    with pytest.raises(DataError, match="results.sqlite, run 1.* is damaged") as error:
        replay(sources(data / "results.sqlite")[-1], data)
    assert len(str(error.value)) < 500
    with pytest.raises(ResultsError, match="is damaged"):
        export(Results(data / "results.sqlite"), data / "out.parquet")
    assert not list(data.glob("out.parquet*"))


@pytest.mark.parametrize(
    ("column", "damaged"),
    [
        ("layer", "two"),
        ("layer", -1),
        ("probability", "x"),
        ("answer", b"\xff"),
        ("item", b"\xff"),
        ("ids", f"[{2**40}]"),
    ],
)
def test_cells_of_another_type_are_refused(data, column, damaged):
    store(data)
    damage(data / "results.sqlite", "answers", column, damaged)
    if column != "ids":  # which no score reads
        with pytest.raises(DataError, match="results.sqlite, run 1.* is damaged"):
            replay(sources(data / "results.sqlite")[-1], data)
    with pytest.raises(ResultsError, match="is damaged"):
        export(Results(data / "results.sqlite"), data / "out.parquet")


def damage(path, table, column, value):
    """Put a value in the place of another one, past the suite's own code."""
    where = " WHERE item = 'popular-7' AND layer = 1" if table == "answers" else ""
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))
