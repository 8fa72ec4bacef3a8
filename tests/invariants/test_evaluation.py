"""From items to rows, figures and the record: what is counted is what was asked."""

import dataclasses
import json
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import repro.evaluation.recorded as recorded
import repro.evaluation.run as running
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item, aggregate
from repro.benchmarks.miniworld import asked_boxes
from repro.cliff import halves, held_out
from repro.evaluation.answers import replay, sources
from repro.evaluation.flow import coverage, energy_inside, spread
from repro.evaluation.results import Results
from repro.evaluation.run import begin, evaluate, limited, make_prompt
from repro.models import load_model
from repro.models.card import FIXTURES
from repro.protocols import PROTOCOLS, ProtocolError, find_task
from repro.report.build import notes
from repro.report.sections import Measured, heat_sections, load, measure, save
from repro.report.tables import FIGURES, PAIRED, by_cap, by_stratum, figures
from repro.sweep import sweep

pytestmark = pytest.mark.invariant

MINIWORLD = FIXTURES / "miniworld"


@pytest.fixture(scope="module")
def evaluation(lvlm, tmp_path_factory):
    """Eight scenes of TextVQA, with the results file of the run."""
    items = limited(BENCHMARKS["textvqa"].load(MINIWORLD), 8)
    results = Results(tmp_path_factory.mktemp("run") / "results.sqlite", new=True)
    run = begin(results, lvlm, BENCHMARKS["textvqa"], items)
    return evaluate(lvlm, BENCHMARKS["textvqa"], items, run, progress=False), results


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
        prompt = make_prompt(lvlm, result.benchmark, item)
        assert lvlm.answer(prompt, max_new_tokens=len(answer.ids)) == answer


def test_rows_and_figures_carry_the_protocol(evaluation):
    result, results = evaluation
    lvlm, benchmark, protocol = load_model("llava-1.5"), result.benchmark, "lmms-eval"
    run = begin(results, lvlm, benchmark, result.items[:2], protocol)
    other = evaluate(lvlm, benchmark, result.items[:2], run, progress=False, protocol=protocol)
    assert (result.protocol, other.protocol) == ("official", protocol)
    assert {one.number: one.protocol for one in results.runs()}[run.number] == protocol
    source = next(one for one in sources(results.path) if one.run.number == run.number)
    assert replay(source, MINIWORLD, allow_missing=True).protocol == protocol
    results.finish([run.number])
    asked = make_prompt(lvlm, other.benchmark, other.items[0], "lmms-eval")
    assert other.prompt(lvlm, 0).text == asked.text
    assert lvlm.answer(asked, max_new_tokens=len(other.answers[0].ids)) == other.answers[0]
    with pytest.raises(ProtocolError, match="opera does not define textvqa"):
        evaluate(lvlm, result.benchmark, result.items, progress=False, protocol="opera")


@pytest.fixture
def swept(monkeypatch):
    """Counts the prompts that are swept."""
    counted = []

    def sweep_and_count(lvlm, prompts, *args, **settings):
        counted.append(len(prompts))
        return sweep(lvlm, prompts, *args, **settings)

    monkeypatch.setattr(running, "sweep", sweep_and_count)
    return counted


def same(one, other):
    assert one.items == other.items and one.answers == other.answers
    np.testing.assert_array_equal(one.parts["accuracy"], other.parts["accuracy"])
    np.testing.assert_array_equal(one.probability, other.probability)


def test_what_is_known_is_not_asked_again(lvlm, evaluation, swept, tmp_path):
    result, _ = evaluation
    benchmark, items = result.benchmark, result.items
    results = Results(tmp_path / "results.sqlite", new=True)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_probability", broken_off(running._probability, after=5))
        evaluate(lvlm, benchmark, items, begin(results, lvlm, benchmark, items), batch_size=2, progress=False)
    swept.clear()
    whole = evaluate(
        lvlm, benchmark, items, begin(results, lvlm, benchmark, items), batch_size=2, progress=False
    )
    assert swept == [2, 2]  # of four batches two had been written
    fresh = evaluate(lvlm, benchmark, items, batch_size=2, progress=False)
    same(whole, fresh)
    swept.clear()
    same(evaluate(lvlm, benchmark, items, begin(results, lvlm, benchmark, items), progress=False), fresh)
    assert swept == []


def broken_off(function, after):
    """The function, interrupted at a call after so many."""
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) > after:
            raise KeyboardInterrupt
        return function(*args)

    return interrupted


def test_other_items_numbers_and_lengths_are_other_runs(lvlm, evaluation, tmp_path, monkeypatch):
    result, _ = evaluation
    results, made = Results(tmp_path / "results.sqlite", new=True), []

    def number(items=result.items, protocol="official"):
        return begin(results, lvlm, result.benchmark, items, protocol).number

    first = number()
    made.append(number(result.items[:2]))
    for field, value in (("max_new_tokens", 3),):
        task = find_task("official", lvlm.card.name, result.benchmark.name)
        with monkeypatch.context() as patch:
            patch.setattr(
                running, "find_task", lambda *names, t=task: dataclasses.replace(t, **{field: value})
            )
            made.append(number())
    with monkeypatch.context() as patch:
        patch.setattr(type(lvlm.model), "dtype", "float16")
        made.append(number())
    with monkeypatch.context() as patch:
        patch.setattr(running, "versions", lambda: {"torch": "0"})
        made.append(number())
    with monkeypatch.context() as patch:
        patch.setattr(running, "revision_of", lambda path: "other weights")
        made.append(number())
    assert len({first, *made}) == 6 and number() == first


def test_a_question_that_changed_is_asked_again(lvlm, evaluation, swept):
    result, results = evaluation
    benchmark, items = result.benchmark, list(result.items)
    items[0] = dataclasses.replace(items[0], question="What is the price?")
    items[1] = dataclasses.replace(items[1], reference=("7",) * 10)
    other = evaluate(lvlm, benchmark, items, begin(results, lvlm, benchmark, items), progress=False)
    assert sum(swept) == len(items)  # the batch they belong to
    assert other.answers[2:] == result.answers[2:]
    evaluate(lvlm, benchmark, result.items, begin(results, lvlm, benchmark, result.items), progress=False)


def test_an_item_that_cannot_be_asked_fails_alone_and_is_asked_again(lvlm, evaluation, tmp_path, swept):
    result, _ = evaluation
    benchmark, items = result.benchmark, list(result.items)
    corrupt = tmp_path / "train_images" / items[3].image.name
    corrupt.parent.mkdir()
    # A header that says 30000 x 30000 pixels.
    size = (30000).to_bytes(4)
    header = items[3].image.read_bytes()[:16] + size + size + items[3].image.read_bytes()[24:29]
    corrupt.write_bytes(header + zlib.crc32(header[12:29]).to_bytes(4) + items[3].image.read_bytes()[33:])
    items[3] = dataclasses.replace(items[3], image=corrupt)
    own = sorted(set(lvlm.tokenizer.get_added_vocab()) - {lvlm.card.placeholder})[0]
    items[5] = dataclasses.replace(items[5], question=f"{own} What is the number?")
    results = Results(tmp_path / "results.sqlite", new=True)
    part = evaluate(lvlm, benchmark, items, begin(results, lvlm, benchmark, items), progress=False)
    assert set(part.failed) == {items[3].id, items[5].id}
    assert str(corrupt) in part.failed[items[3].id] and repr(own) in part.failed[items[5].id]
    assert part.items == [item for i, item in enumerate(items) if i not in (3, 5)]
    assert len(part.answers) == len(part.probability) == len(part.parts["accuracy"]) == len(items) - 2
    swept.clear()
    corrupt.write_bytes(result.items[3].image.read_bytes())
    mended = evaluate(lvlm, benchmark, items, begin(results, lvlm, benchmark, items), progress=False)
    assert set(mended.failed) == {items[5].id} and mended.answers[3] == result.answers[3]
    with pytest.raises(ValueError, match=f"no item could be asked; the first: item {items[5].id}: "):
        evaluate(lvlm, benchmark, [items[5]], progress=False)


def test_a_run_obeys_its_task(monkeypatch, tmp_path):
    """Wording, length, penalty, reading and score; see test_prompts.py for the picture and the template."""
    seen = []

    def score(item, said):
        seen.append(said)
        return {"CHAIR_s": (0.25, 0.5)}

    lvlm, chair = load_model("llava-1.5"), BENCHMARKS["chair"]
    task = find_task("official", "llava-1.5", "chair")
    task = dataclasses.replace(task, max_new_tokens=12, score=score, read=lambda text: f"read: {text}")
    answers = {}
    for penalty in (1.0, 1e6):
        made = dataclasses.replace(task, repetition_penalty=penalty)
        monkeypatch.setitem(PROTOCOLS, "made", lambda made=made: {("llava-1.5", "chair"): made})
        seen.clear()
        result = evaluate(lvlm, chair, chair.load(MINIWORLD)[:2], progress=False, protocol="made")
        answers[penalty] = [answer.ids for answer in result.answers]
        assert {f"read: {answer.text}" for answer in result.answers} <= set(seen)
        assert all(said.startswith("read: ") for said in seen) and len(seen) == 2 * (lvlm.n_layers + 1)
        assert (result.parts["CHAIR_s"] == [0.25, 0.5]).all()
    assert [len(ids) for ids in answers[1.0]] == [12, 12]
    assert any(len(set(ids)) < 12 for ids in answers[1.0])
    assert all(len(set(ids)) == len(ids) for ids in answers[1e6])


def test_a_protocol_says_how_categories_are_averaged():
    """Three categories, of which one is smaller: the mean of three and the figure of all differ."""
    said = [("random", True), ("random", False), ("popular", True), ("popular", True), ("adversarial", False)]
    items = [Item(str(i), Path(), "", True, stratum=stratum) for i, (stratum, _) in enumerate(said)]
    answers = [["Yes" if yes else "No"] for _, yes in said]
    figures, tables = {}, {}
    for protocol in ("official", "opera", "lmms-eval"):
        task = find_task(protocol, "llava-1.5", "pope")
        scored = [task.score(item, answer) for item, [answer] in zip(items, answers, strict=True)]
        parts = {name: np.array([[row[name]] for row in scored]) for name in scored[0]}
        held = running.Evaluation(
            "llava-1.5", BENCHMARKS["pope"], protocol, items, [], parts, np.zeros((5, 1))
        )
        figures[protocol] = float(aggregate(parts["accuracy"], np.array(held.strata))[0])
        [(tables[protocol], header, rows)] = by_stratum(held)
        shown = {row[0]: row[header.index("accuracy")] for row in rows}
        assert shown == {
            "adversarial": "0.0",
            "popular": "100.0",
            "random": "50.0",
            "mean of these": "50.0",
            "all at once": "60.0",
        }
        assert protocol in tables[protocol]
    assert figures == pytest.approx({"official": 0.5, "opera": 0.5, "lmms-eval": 0.6})


def test_figures_stand_with_interval_and_flips(evaluation):
    """Of the half that reports, as in Table 1."""
    result, _ = evaluation
    [row] = [dict(zip(FIGURES + PAIRED, row, strict=True)) for row in figures(result)]
    held = held_out(result.parts["accuracy"], result.strata, result.images)
    assert (row["of"], row["n"], row["cliff layer"]) == (
        "all",
        "4",
        f"{held.cliff.layer} of {len(result.probability[0]) - 1}",
    )
    assert (row["score"], row["at the cliff"]) == (f"{100 * held.baseline:.2f}", f"{100 * held.score:.2f}")
    reporting = ~halves(result.strata, result.images)
    scores = result.parts["accuracy"][reporting][..., 0]
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
    made = running.Evaluation(
        "llava-1.5", BENCHMARKS["chair"], "official", items, [], parts, np.zeros((40, 2))
    )
    held = held_out(parts["CHAIR_s"], made.strata, made.images, higher_is_better=False)
    reporting = ~halves(made.strata, made.images)
    rows = {
        row["metric"][:-2]: row
        for row in (dict(zip(FIGURES + PAIRED, r, strict=False)) for r in figures(made))
    }
    up, down = (
        int((sign * (wrong[reporting, held.cliff.layer] - wrong[reporting, 1]) > 0).sum()) for sign in (1, -1)
    )
    assert rows["CHAIR_s"]["better, worse"] == f"{down}, {up}" and rows["CHAIR_s"]["by"] == "images resampled"
    assert rows["recall"]["better, worse"] == f"{down}, {up}"


def test_captions_are_scored_as_a_lower_cap_would_have_cut_them():
    lvlm, benchmark = load_model("llava-1.5"), BENCHMARKS["chair"]
    items = limited(benchmark.load(MINIWORLD), 4)
    result = evaluate(lvlm, benchmark, items, progress=False)
    [(_, header, rows)] = by_cap(lvlm, result)
    table = {(row[0][:-2], row[1]): dict(zip(header, row, strict=True)) for row in rows}
    longest = max(len(answer.ids) for answer in result.answers)
    assert longest > 16
    whole = aggregate(result.parts["recall"][:, -1], np.array(result.strata))
    assert table["recall", f"whole, at most {longest}"]["score (%)"] == f"{100 * whole:.1f}"
    shorter = [lvlm.answer(make_prompt(lvlm, benchmark, item), max_new_tokens=16).text for item in items]
    parts = np.array(
        [benchmark.score(item, text)["recall"] for item, text in zip(items, shorter, strict=True)]
    )
    expected = aggregate(parts, np.array(result.strata))
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
    alone = evaluate(lvlm, result.benchmark, result.items, batch_size=1, progress=False)
    assert alone.answers == result.answers
    np.testing.assert_array_equal(alone.parts["accuracy"], result.parts["accuracy"])
    # 1e-5: ten times the noise measured between batch sizes.
    np.testing.assert_allclose(alone.probability, result.probability, atol=1e-5)


def test_scarce_memory_makes_smaller_batches_and_no_difference(lvlm, evaluation, monkeypatch, swept):
    result, _ = evaluation
    monkeypatch.setattr(running, "budget", lambda device: 0)
    alone = evaluate(lvlm, result.benchmark, result.items, progress=False)
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


def test_what_is_measured_survives_its_file(lvlm, evaluation, tmp_path):
    result, _ = evaluation
    parts = np.random.default_rng(0).random((8, lvlm.n_layers + 1, 1)) < 0.9
    result.parts["accuracy"][:] = np.concatenate([parts, np.ones_like(parts)], axis=-1)
    held = held_out(result.parts["accuracy"], result.strata, result.images)
    measured = measure(lvlm, result, held, lambda item: asked_boxes(item, MINIWORLD))
    save(measured, tmp_path / "measured.npz")
    again = load(tmp_path / "measured.npz")
    assert again.table == measured.table
    assert "TextVQA: 8 questions (no published version)." in notes([again])
    assert json.dumps(again.recorded) == json.dumps(measured.recorded)
    for name in Measured.__dataclass_fields__:
        assert len(getattr(again, name)) == len(getattr(measured, name))
    np.testing.assert_array_equal(again.shares[0].raw, measured.shares[0].raw)
    placed = make_prompt(lvlm, result.benchmark, result.items[0]).spatial
    assert len(measured.heats) == len(measured.pointing) == placed
    for one, other in zip(again.heats, measured.heats, strict=True):
        np.testing.assert_array_equal(one.heat, other.heat)
    for one, other in zip(again.pointing, measured.pointing, strict=True):
        np.testing.assert_array_equal(one.energy, other.energy)
        # The last layer's map is empty by construction, so nothing of it can point.
        assert np.isnan(one.energy[-1])


# The image tokens of InstructBLIP have no place in the picture.
@pytest.mark.without("instructblip")
def test_boxes_are_of_the_file_in_whatever_size_the_model_sees_it(lvlm, evaluation, monkeypatch):
    whole, _ = evaluation
    right = {"accuracy": np.ones_like(whole.parts["accuracy"])}
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
        assert row.box == (x * wide / 48, y * high / 48, width * wide / 48, height * high / 48)
        assert row.image.shape == (high, wide, 3)

    np.testing.assert_array_equal(found[24].energy, found[48].energy)
    covered = width * height / 48**2
    assert found[24].area_share == found[48].area_share == pytest.approx(covered, abs=1e-6)


def test_the_record_notices_changed_answers(lvlm, evaluation, tmp_path, monkeypatch):
    result, _ = evaluation
    monkeypatch.setattr(recorded, "RECORDS", tmp_path)
    with pytest.raises(AssertionError, match="no record"):
        recorded.compare_with_record(result)
    recorded.compare_with_record(result, update=True)
    recorded.compare_with_record(result)
    result.parts["accuracy"][3, 4, 0] += 0.3
    answers = 8 * (lvlm.n_layers + 1)
    with pytest.raises(AssertionError, match=rf"1 of {answers} answers .* by layer L: \{{4: 1\}}"):
        recorded.compare_with_record(result)
