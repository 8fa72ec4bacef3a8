"""A recorded evaluation is compared with what is measured, and damage to it is noticed."""

import json
from pathlib import Path

import numpy as np
import pytest

import repro.evaluation.recorded as recorded
import repro.evaluation.run as running
from repro.benchmarks import BENCHMARKS
from repro.benchmarks.benchmark import Item
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.benchmarks.miniworld import asked_boxes
from repro.cliff import held_out
from repro.evaluation.measured import Measured, load, save
from repro.protocols import find_task
from repro.report.table import notes
from repro.table1 import measure

pytestmark = pytest.mark.invariant


def test_what_is_measured_survives_its_file(lvlm, evaluation, tmp_path):
    result, _ = evaluation
    parts = np.random.default_rng(0).random((8, lvlm.n_layers + 1, 1)) < 0.9
    result.parts["accuracy"][:] = np.concatenate([parts, np.ones_like(parts)], axis=-1)
    held = held_out(result.scores())
    measured = measure(lvlm, result, held, lambda item: asked_boxes(item, MINIWORLD))
    save(measured, tmp_path / "measured.npz")
    again = load(tmp_path / "measured.npz")
    assert again.table == measured.table
    assert "TextVQA: 8 questions (no published version)." in notes([again])
    assert json.dumps(again.recorded) == json.dumps(measured.recorded)
    for name in Measured.__dataclass_fields__:
        assert len(getattr(again, name)) == len(getattr(measured, name))
    np.testing.assert_array_equal(again.shares[0].raw, measured.shares[0].raw)
    placed = result.prompt(lvlm, 0).spatial
    assert len(measured.heats) == len(measured.pointing) == placed
    for one, other in zip(again.heats, measured.heats, strict=True):
        np.testing.assert_array_equal(one.heat, other.heat)
    for one, other in zip(again.pointing, measured.pointing, strict=True):
        np.testing.assert_array_equal(one.energy, other.energy)
        # The last layer's map is empty by construction, so nothing of it can point.
        assert np.isnan(one.energy[-1])
    assert measured.flows
    for one, other in zip(again.flows, measured.flows, strict=True):
        np.testing.assert_array_equal(one.heat, other.heat)
        assert other.heat.max(initial=0) == 255 * placed  # a map's maximum is one


@pytest.mark.parametrize("damage", ["garbage", "empty", "cut", "flipped", "names", "shape", "strings"])
def test_a_damaged_record_says_so(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(recorded, "RECORDS", tmp_path)
    path = recorded.record_path("llava-1.5", BENCHMARKS["pope"])
    pope = BENCHMARKS["pope"]
    good = {name: np.ones((2, 11, 2), dtype=np.float32) for name in ("parts", *pope.metric_names[1:])}
    good |= {"ids": np.array(["1", "2"]), "texts": np.full((2, 11), "yes"), "probability": np.ones((2, 11))}
    np.savez_compressed(path, **good)
    assert recorded.recorded_parts("llava-1.5", BENCHMARKS["pope"], ["2"]).shape == (1, 11, 2)
    whole = path.read_bytes()
    if damage in ("garbage", "empty", "cut"):
        path.write_bytes({"garbage": b"not an archive", "empty": b"", "cut": whole[:-40]}[damage])
    elif damage == "flipped":
        path.write_bytes(whole.replace(whole[60:70], bytes(10)))
    else:
        change = {"names": {"other": good["texts"]}, "shape": {"parts": np.ones((3, 11, 2))}}
        change["strings"] = {"parts": good["ids"]}
        kept = ("ids",) if damage == "names" else tuple(good)
        np.savez_compressed(path, **{name: good[name] for name in kept} | change[damage])
    with pytest.raises(AssertionError, match="is damaged.*restore it from version control") as caught:
        recorded.recorded_parts("llava-1.5", BENCHMARKS["pope"], ["2"])
    assert str(path) in str(caught.value) and "pickle" not in str(caught.value)


def test_a_disk_that_is_full_leaves_the_old_record(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RECORDS", tmp_path)
    task = find_task("official", "llava-1.5", BENCHMARKS["textvqa"])
    items = [Item(str(i), Path(f"{i}.jpg"), "", ("7",) * 10) for i in range(2)]
    parts = {name: np.ones((2, 11, 2)) for name in task.benchmark.metric_names}
    texts = [["7"] * 11] * 2
    result = running.Evaluation(task, items, parts, [], np.zeros((2, 11)), texts=texts)
    recorded.compare_with_record(result, update=True)
    old = recorded.record_path("llava-1.5", task.benchmark).read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    result.parts["accuracy"][:] = 0
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        recorded.compare_with_record(result, update=True)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [old]


def test_the_record_notices_changed_answers(lvlm, evaluation, tmp_path, monkeypatch):
    result, _ = evaluation
    monkeypatch.setattr(recorded, "RECORDS", tmp_path)
    with pytest.raises(AssertionError, match="no record"):
        recorded.compare_with_record(result)
    recorded.compare_with_record(result, update=True)
    recorded.compare_with_record(result)
    result.parts["accuracy"][3, 4, 0] += 0.3
    answers = 8 * (lvlm.n_layers + 1)
    with pytest.raises(AssertionError, match=rf"1 of {answers} answers .* by layer L: \{{4: 1\}}") as caught:
        recorded.compare_with_record(result)
    start = f"item {result.items[3].id}, L = 4: recorded accuracy "
    line = next(line for line in str(caught.value).splitlines() if start in line)
    assert line.count(repr(result.texts[3][4])) == 2, "both answers"
    recorded.compare_with_record(result, update=True)
    result.probability[2] += 0.01
    with pytest.raises(AssertionError, match=f"{lvlm.n_layers + 1} of {answers} probabilities"):
        recorded.compare_with_record(result)


def test_a_record_of_some_items_is_compared_on_those(lvlm, evaluation, tmp_path, monkeypatch):
    """Where it may be one; any other that lacks items is refused."""
    result, _ = evaluation
    monkeypatch.setattr(recorded, "RECORDS", tmp_path)
    recorded.compare_with_record(result.of([1, 3, 5]), update=True)
    assert recorded.recorded_ids(result.task.model, result.benchmark) == {
        result.items[i].id for i in (1, 3, 5)
    }
    with pytest.raises(AssertionError, match="knows nothing of items"):
        recorded.compare_with_record(result)
    recorded.compare_with_record(result, in_part=True)
    changed = result.of(range(8))
    changed.parts["accuracy"][2] += 0.3
    recorded.compare_with_record(changed, in_part=True)
    changed.parts["accuracy"][3] += 0.3
    with pytest.raises(AssertionError, match=f"{lvlm.n_layers + 1} of {3 * (lvlm.n_layers + 1)} answers"):
        recorded.compare_with_record(changed, in_part=True)
