"""From items to rows, figures and the record: what is counted is what was asked."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import repro.evaluation.run as running
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.benchmarks.miniworld import asked_boxes
from repro.cliff import held_out
from repro.evaluation.answers import replay, sources
from repro.evaluation.breakdown import HEADER, PAIRED, by_cap, by_category, by_kind, by_stratum
from repro.evaluation.flow import coverage, energy_inside, spread
from repro.evaluation.run import begin, evaluate, limited, right_answer
from repro.models import load_model
from repro.protocols import find_task
from repro.scores import aggregate
from repro.table1 import heat_sections

pytestmark = pytest.mark.invariant


def test_a_limit_takes_the_first_of_each_stratum_and_kind(tmp_path):
    items = [Item(str(i), tmp_path, "", None, stratum="ab"[i % 2], kind="xy"[i // 2 % 2]) for i in range(40)]
    kept = limited(items, 2)
    assert [item.id for item in kept] == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert limited(items, None) == items


def test_there_is_one_row_per_item_and_layer(lvlm, evaluation):
    result, results = evaluation
    [run] = results.runs()
    rows = list(results.rows(run.number))
    keys = {(row.item, row.layer) for row in rows}
    expected = {(item.id, layer) for item in result.items for layer in range(lvlm.n_layers + 1)}
    assert keys == expected and len(rows) == len(expected)
    index = {item.id: i for i, item in enumerate(result.items)}
    for row in rows:
        assert row.score["accuracy"] == tuple(result.parts["accuracy"][index[row.item], row.layer])
        assert row.probability == result.probability[index[row.item], row.layer]


def test_results_replayed_score_as_the_run_did(evaluation):
    result, results = evaluation
    [source] = sources(results.path)
    again = replay(source, MINIWORLD, allow_missing=True)
    assert [item.id for item in again.items] == [item.id for item in result.items]
    np.testing.assert_array_equal(again.parts["accuracy"], result.parts["accuracy"])


def test_the_baseline_is_what_the_model_generates(lvlm, evaluation):
    result, _ = evaluation
    for item, answer in zip(result.items[:3], result.answers[:3], strict=True):
        prompt = result.task.prompt(lvlm, item)
        assert lvlm.answer(prompt, max_new_tokens=len(answer.ids)) == answer


def test_rows_and_figures_carry_the_protocol(evaluation):
    result, results = evaluation
    lvlm, protocol = load_model("llava-1.5"), "lmms-eval"
    task = find_task(protocol, "llava-1.5", result.benchmark)
    run = begin(results, lvlm, task, result.items[:2])
    other = evaluate(lvlm, task, result.items[:2], run, progress=False)
    assert (result.task.protocol, other.task.protocol) == ("official", protocol)
    assert {one.number: one.protocol for one in results.runs()}[run.number] == protocol
    source = next(one for one in sources(results.path) if one.run.number == run.number)
    assert replay(source, MINIWORLD, allow_missing=True).task.protocol == protocol
    results.finish([run.number])
    asked = task.prompt(lvlm, other.items[0])
    assert other.prompt(lvlm, 0).text == asked.text
    assert lvlm.answer(asked, max_new_tokens=len(other.answers[0].ids)) == other.answers[0]


def test_a_protocol_says_how_categories_are_averaged():
    """Three categories, of which one is smaller: the mean of three and the figure of all differ."""
    said = [("random", True), ("random", False), ("popular", True), ("popular", True), ("adversarial", False)]
    items = [Item(str(i), Path(), "", True, stratum=stratum) for i, (stratum, _) in enumerate(said)]
    answers = [["Yes" if yes else "No"] for _, yes in said]
    values, tables = {}, {}
    for protocol in ("official", "opera", "lmms-eval"):
        task = find_task(protocol, "llava-1.5", BENCHMARKS["pope"])
        scored = [task.score(item, answer) for item, [answer] in zip(items, answers, strict=True)]
        parts = {name: np.array([[row[name]] for row in scored]) for name in scored[0]}
        evaluation = running.Evaluation(task, items, parts, [], np.zeros((5, 1)))
        values[protocol] = float(evaluation.scores("accuracy").values[0])
        [(tables[protocol], header, rows)] = by_stratum(evaluation)
        shown = {row[0]: row[header.index("accuracy")] for row in rows}
        assert shown == {
            "adversarial": "0.0",
            "popular": "100.0",
            "random": "50.0",
            "mean of these": "50.0",
            "all at once": "60.0",
        }
        assert protocol in tables[protocol]
    assert values == pytest.approx({"official": 0.5, "opera": 0.5, "lmms-eval": 0.6})


def test_scores_of_each_kind_of_question_stand_at_every_layer():
    """Two questions about colours and one about numbers; of one kind alone there is no table."""
    kinds = ["color", "color", "count"]
    items = [Item(str(i), Path(), "", "x", kind=kind) for i, kind in enumerate(kinds)]
    right = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 1]])
    parts = {"accuracy": np.stack([right, np.ones_like(right)], axis=-1).astype(float)}
    task = find_task("official", "llava-1.5", BENCHMARKS["textvqa"])
    [(title, header, rows)] = by_kind(running.Evaluation(task, items, parts, [], np.zeros((3, 3))))
    assert "by kind of question" in title and header == ["kind", "n", "L = 0", "L = 1", "L = 2"]
    assert rows == [["color", 2, "0.0", "50.0", "100.0"], ["count", 1, "100.0", "0.0", "100.0"]]
    alone = {"accuracy": parts["accuracy"][:2]}
    assert by_kind(running.Evaluation(task, items[:2], alone, [], np.zeros((2, 3)))) == []


def test_scores_stand_with_interval_and_flips(evaluation):
    """Of the half that reports, as in Table 1."""
    result, _ = evaluation
    [row] = [dict(zip(HEADER + PAIRED, row, strict=False)) for row in by_category(result, 0.03)]
    assert row["by"] == "images resampled" and "McNemar p" not in row  # a mean of soft scores
    held = held_out(result.scores())
    assert (row["of"], row["n"], row["cliff layer"]) == (
        "all",
        "4",
        f"{held.cliff.layer} of {len(result.probability[0]) - 1}",
    )
    assert (row["score"], row["at the cliff"]) == (f"{100 * held.baseline:.2f}", f"{100 * held.score:.2f}")
    scores = result.scores().halves()[1].parts[..., 0]
    better, worse = (
        int((sign * (scores[:, held.cliff.layer] - scores[:, -1]) > 0).sum()) for sign in (1, -1)
    )
    assert row["better, worse"] == f"{better}, {worse}"


def test_more_objects_made_up_is_worse():
    """CHAIR_s of 40 captions by hand: at L = 0 ten name what is not there, at L = 1 two of these and one other."""
    items = [Item(f"{i}", Path("val2014", f"{i}.jpg"), "", None) for i in range(40)]
    wrong = np.zeros((40, 2))
    wrong[:20, 0] = 1
    wrong[:4, 1] = wrong[30, 1] = 1
    ones = np.ones_like(wrong)
    parts = {"CHAIR_s": np.stack([wrong, ones], axis=-1), "CHAIR_i": np.stack([wrong, ones], axis=-1)}
    parts["recall"] = np.stack([1 - wrong, ones], axis=-1)
    task = find_task("official", "llava-1.5", BENCHMARKS["chair"])
    evaluation = running.Evaluation(task, items, parts, [], np.zeros((40, 2)))
    held = held_out(evaluation.scores())
    table = [dict(zip(HEADER + PAIRED, row, strict=False)) for row in by_category(evaluation, 0.03)]
    rows = {row["metric"][:-2]: row for row in table}
    reporting = evaluation.scores().halves()[1].parts[..., 0]
    change = reporting[:, held.cliff.layer] - reporting[:, 1]
    up, down = int((change > 0).sum()), int((change < 0).sum())
    assert rows["CHAIR_s"]["better, worse"] == f"{down}, {up}" and rows["CHAIR_s"]["by"] == "images resampled"
    assert rows["recall"]["better, worse"] == f"{down}, {up}"


def test_captions_are_scored_as_a_lower_cap_would_have_cut_them():
    lvlm, benchmark = load_model("llava-1.5"), BENCHMARKS["chair"]
    items, task = limited(benchmark.load(MINIWORLD), 4), find_task("official", "llava-1.5", benchmark)
    result = evaluate(lvlm, task, items, progress=False)
    [(_, header, rows)] = by_cap(lvlm, result)
    table = {(row[0][:-2], row[1]): dict(zip(header, row, strict=True)) for row in rows}
    longest = max(len(answer.ids) for answer in result.answers)
    assert longest > 16
    whole = result.scores("recall").values[-1]
    assert table["recall", f"whole, at most {longest}"]["score (%)"] == f"{100 * whole:.1f}"
    shorter = [lvlm.answer(task.prompt(lvlm, item), max_new_tokens=16).text for item in items]
    parts = np.array(
        [benchmark.score(item, text)["recall"] for item, text in zip(items, shorter, strict=True)]
    )
    expected = aggregate(parts, np.array(["", "", "", ""]))
    assert table["recall", 16]["score (%)"] == f"{100 * expected:.1f}" != f"{100 * whole:.1f}"
    assert table["recall", 16]["captions cut"] == sum(len(answer.ids) > 16 for answer in result.answers)


def test_where_the_data_lie_does_not_matter(evaluation):
    result, _ = evaluation
    moved = [
        dataclasses.replace(item, image=Path("/elsewhere", *item.image.parts[-3:])) for item in result.items
    ]
    assert dataclasses.replace(result, items=moved).images == result.images
    assert len(set(result.images)) == len({item.image for item in result.items})


def test_batches_of_one_and_of_many_agree(lvlm, evaluation):
    result, _ = evaluation
    alone = evaluate(lvlm, result.task, result.items, batch_size=1, progress=False)
    assert alone.answers == result.answers
    np.testing.assert_array_equal(alone.parts["accuracy"], result.parts["accuracy"])
    # 1e-5: ten times the noise measured between batch sizes.
    np.testing.assert_allclose(alone.probability, result.probability, atol=1e-5)


def test_scarce_memory_makes_smaller_batches_and_no_difference(lvlm, evaluation, monkeypatch, swept):
    result, _ = evaluation
    monkeypatch.setattr(running, "budget", lambda device: 0)
    alone = evaluate(lvlm, result.task, result.items, progress=False)
    assert swept == [1] * len(result.items)
    assert alone.answers == result.answers


def test_coverage_counts_pixels():
    covered = coverage([(8, 16, 12, 8)], (48, 48), (6, 6))
    expected = np.zeros((6, 6))
    expected[2, 1], expected[2, 2] = 1.0, 0.5
    np.testing.assert_allclose(covered, expected)
    # Overlapping boxes cover a pixel once.
    np.testing.assert_allclose(coverage([(8, 16, 12, 8)] * 2, (48, 48), (6, 6)), expected)


def test_energy_is_all_inside_half_inside_or_undefined():
    covered = np.array([[1.0, 0.0], [0.5, 0.0]])
    heat = np.array([[[1, 0], [0, 0]], [[1, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 0]]], dtype=float)
    np.testing.assert_allclose(energy_inside(heat, covered), [1.0, 0.5, 0.5, np.nan])


def test_spread_is_even_and_never_repeats():
    assert spread(list(range(5)), 9) == [0, 1, 2, 3, 4]
    chosen = spread(list(range(100)), 7)
    assert chosen[0] == 0 and chosen[-1] == 99 and len(set(chosen)) == 7


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_boxes_are_those_of_what_is_asked(name):
    boxes = json.loads((MINIWORLD / "boxes.json").read_text())
    found = 0
    for item in BENCHMARKS[name].load(MINIWORLD)[:200]:
        known = boxes[item.image.relative_to(MINIWORLD).as_posix()]
        asked = asked_boxes(item, MINIWORLD)
        found += bool(asked)
        if name == "pope":
            subject = item.question.split("Is there a ")[1].split(" in the image")[0]
            assert asked == ([known[subject]] if item.reference else [])
        elif name == "textvqa":
            assert asked == [known["number"]]
        elif name == "chair":
            assert len(asked) == len(set(known) - {"number"})
        elif item.kind == "count":
            assert asked == []
        else:
            assert len(asked) == 1
    assert found > 50


# The image tokens of InstructBLIP have no place in the picture.
@pytest.mark.without("instructblip")
def test_boxes_are_of_the_file_in_whatever_size_the_model_sees_it(lvlm, evaluation, monkeypatch):
    whole, _ = evaluation
    right = {"accuracy": np.ones_like(whole.parts["accuracy"][:2])}
    result = dataclasses.replace(whole, items=whole.items[:2], parts=right)
    boxes = partial(asked_boxes, directory=MINIWORLD)
    x, y, width, height = boxes(result.items[0])[0]
    found, prompt = {}, lvlm.prompt
    for wide, high in ((48, 48), (24, 96)):

        def seen(*args, size=(wide, high)):
            asked = prompt(*args)
            return dataclasses.replace(asked, image=asked.image.resize(size))

        monkeypatch.setattr(lvlm, "prompt", seen)
        (row,), (found[wide],) = heat_sections(lvlm, result, boxes)
        assert row.boxes == [(x * wide / 48, y * high / 48, width * wide / 48, height * high / 48)]
        assert row.image.shape == (high, wide, 3)

    np.testing.assert_array_equal(found[24].energy, found[48].energy)
    covered = width * height / 48**2
    assert found[24].area_share == found[48].area_share == pytest.approx(covered, abs=1e-6)


def test_every_object_of_a_caption_is_framed():
    """No object is asked about: a frame around the first of them alone would say so."""
    lvlm, chair = load_model("llava-1.5"), BENCHMARKS["chair"]
    boxes = partial(asked_boxes, directory=MINIWORLD)
    items = [item for item in chair.load(MINIWORLD)[:20] if len(boxes(item)) > 2][:2]
    task = find_task("official", "llava-1.5", chair)
    parts = {metric.name: np.zeros((2, lvlm.n_layers + 1, 2)) for metric in chair.metrics}  # nothing made up
    answers = [lvlm.answer(task.prompt(lvlm, item), max_new_tokens=3) for item in items]
    result = running.Evaluation(task, items, parts, answers, np.zeros((2, lvlm.n_layers + 1)))
    (row,), (pointing,) = heat_sections(lvlm, result, boxes)
    assert row.boxes == [tuple(box) for box in boxes(items[0])] and len(row.boxes) > 2
    covered = [coverage(boxes(item), (48, 48), row.heat.shape[1:]).mean() for item in items]
    assert pointing.area_share == pytest.approx(np.mean(covered))


def test_right_answers_are_said_in_words():
    """As published: a letter with its choice, yes or no, what annotators wrote, the objects of an image."""
    first = {name: BENCHMARKS[name].load(MINIWORLD)[0] for name in BENCHMARKS}
    science = first["scienceqa"]
    choice = science.choices["ABCDE".index(science.reference)]
    assert right_answer(science) == f"{science.reference}: {choice}"
    assert right_answer(first["pope"]) == ("yes" if first["pope"].reference else "no")
    assert right_answer(first["textvqa"]).split(", ") == list(dict.fromkeys(first["textvqa"].reference))
    assert right_answer(first["chair"]).split(", ") == sorted(first["chair"].reference.objects)
