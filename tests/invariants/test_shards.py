"""Do shards that are measured apart give, once merged, the rows of one process? Whatever is killed on the way?"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from repro.benchmarks import BENCHMARKS
from repro.benchmarks.miniworld import DIRECTORY
from repro.evaluation import run as evaluating
from repro.evaluation.cluster import ClusterError, measure_all
from repro.evaluation.results import NAME, Results, ResultsError
from repro.evaluation.run import answer_items, begin, limited
from repro.evaluation.shards import FOLDER, Shard, main, measure_shard, merge
from repro.models import load_model
from repro.protocols import find_task
from repro.sweep import Sweep
from repro.table1 import shard_of_table1

pytestmark = pytest.mark.invariant

#: Of 24 items each.
BATCHES = 5


@pytest.fixture(scope="module")
def work():
    """A model, a task and items of several batches."""
    lvlm = load_model("qwen-vl")
    task = find_task("official", "qwen-vl", BENCHMARKS["scienceqa"])
    items = limited(task.benchmark.load(DIRECTORY), None)[: 24 * BATCHES - 4]
    return lvlm, task, items


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """In place of a sweep: answers that follow from the prompt and its place in its batch; a log of batches."""
    log = tmp_path / "swept.log"

    def sweep(lvlm, prompts, *_, **__):
        with log.open("a") as file:
            file.write(f"{len(prompts)}\n")
        layers = lvlm.n_layers + 1
        swept = []
        for place, prompt in enumerate(prompts):
            ids = [int(prompt.input_ids.sum()) % 200 + 1, place + 1]
            swept.append(Sweep(np.ones((layers, 4000), np.float32), (lvlm.decode(ids),) * layers))
        return swept

    monkeypatch.setattr(evaluating, "sweep", sweep)
    return log


def rows_of(path: Path) -> list:
    with closing(Results(path)) as results:
        [run] = results.runs()
        return list(results.rows(run.number))


def shards(work, report: Path, count: int) -> list[Path]:
    return [measure_shard(*work, Shard(k, count), report, progress=False) for k in range(1, count + 1)]


@pytest.fixture
def expected(work, stub, tmp_path):
    """The rows of one process."""
    with closing(Results(tmp_path / "one.sqlite", new=True)) as results:
        answer_items(*work, begin(results, *work), progress=False)
    stub.unlink()
    return rows_of(tmp_path / "one.sqlite")


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_merged_shards_are_the_rows_of_one_process(work, stub, expected, tmp_path, count):
    shards(work, tmp_path, count)
    [line] = merge(tmp_path)
    assert rows_of(tmp_path / NAME) == expected and f"{len(expected)} rows of {count} shards" in line
    # Merging again changes nothing, and the complete run has nothing left to answer.
    assert list(merge(tmp_path)) == [line]
    stub.unlink()
    with closing(Results(tmp_path / NAME)) as results:
        answer_items(*work, begin(results, *work), progress=False)
    assert not stub.exists() and rows_of(tmp_path / NAME) == expected


def in_a_process(work, report: Path, shard: Shard, killed_after: int = 0, seconds: float = 0.0):
    """Measure a shard in a process of its own, which kills itself after so many batches."""

    def measure() -> None:
        sweep, done = evaluating.sweep, 0

        def slow(*args, **settings):
            nonlocal done
            if killed_after and done == killed_after:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(seconds)
            done += 1
            return sweep(*args, **settings)

        evaluating.sweep = slow
        measure_shard(*work, shard, report, progress=False)

    process = get_context("fork").Process(target=measure)
    process.start()
    return process


def test_a_killed_shard_is_no_shard_yet_and_goes_on(work, stub, expected, tmp_path):
    process = in_a_process(work, tmp_path, Shard(1, 2), killed_after=2)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [partial] = (tmp_path / FOLDER).glob("*.partial")
    with pytest.raises(ResultsError, match="holds no complete shard"):
        list(merge(tmp_path))
    before = len(stub.read_text().split())
    shards(work, tmp_path, 2)
    after = len(stub.read_text().split()) - before
    assert not partial.exists() and before == 2
    total = len(stub.read_text().split())
    list(merge(tmp_path))
    assert rows_of(tmp_path / NAME) == expected
    # Nothing was answered twice.
    stub.unlink()
    shards(work, tmp_path / "other", 2)
    assert len(stub.read_text().split()) == total == before + after


def test_two_processes_on_one_shard_answer_it_once(work, stub, expected, tmp_path):
    two = [in_a_process(work, tmp_path, Shard(1, 1), seconds=0.05) for _ in range(2)]
    for process in two:
        process.join()
    assert [process.exitcode for process in two] == [0, 0]
    answered = stub.read_text().split()
    list(merge(tmp_path))
    assert rows_of(tmp_path / NAME) == expected
    assert sum(map(int, answered)) == len(work[2])


def test_shards_that_do_not_belong_together_are_refused(work, stub, tmp_path):
    one, two, three = shards(work, tmp_path / "a", 3)
    report = tmp_path / "b"

    def refused(match: str, *files: Path) -> None:
        shutil.rmtree(report, ignore_errors=True)
        (report / FOLDER).mkdir(parents=True)
        for file in files:
            shutil.copy(file, report / FOLDER / file.name)
        with pytest.raises(ResultsError, match=match):
            list(merge(report))
        assert not (report / NAME).exists()

    refused("shards 1, 3 are missing", two)
    [whole] = shards(work, tmp_path / "c", 1)
    refused("of 1 and of 3 of one run, which overlap", one, two, three, whole)

    overlapping = shutil.copy(one, tmp_path / two.name)
    refused("both have item", one, Path(overlapping), three)

    other = Path(shutil.copy(two, tmp_path / two.name))
    with closing(sqlite3.connect(other)) as opened, opened:
        opened.execute("UPDATE runs SET settings = json_set(settings, '$.dtype', 'torch.bfloat16')")
    refused("of different configurations: their settings are .*bfloat16", one, other, three)

    with closing(sqlite3.connect(other)) as opened, opened:
        opened.execute("DELETE FROM runs")
    refused("holds 0 runs; expected the one of a shard", one, other, three)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/0", "-1/3"])
def test_what_is_no_shard_is_told(text):
    with pytest.raises(ValueError, match="expected K/N with K from 1 to N"):
        Shard.read(text)


def test_a_shard_is_every_nth_batch(work, stub):
    lvlm, task, items = work
    parts = [
        {items[i].id for batch in evaluating.batches(lvlm, task, items, 24, part=(k, 3)) for i, _ in batch}
        for k in range(3)
    ]
    assert set.union(*parts) == {item.id for item in items} and sum(map(len, parts)) == len(items)
    assert all(not one & other for one, other in pairwise(parts))


def test_merging_is_a_command_that_says_what_it_did_or_what_is_missing(
    work, stub, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["shards", str(tmp_path)])
    assert main() == 1 and "holds no complete shard" in capsys.readouterr().err
    shards(work, tmp_path, 2)
    assert main() == 0 and "rows of 2 shards" in capsys.readouterr().out


def test_a_shard_of_table_1_is_a_file_beside_the_others(work, stub, tmp_path):
    lvlm, task, _ = work
    shard = Shard(2, 2)
    path = shard_of_table1(lvlm, task.benchmark, DIRECTORY, shard, limit=12, report=tmp_path, progress=False)
    assert path.is_file() and path.parent == tmp_path / FOLDER and path.name.endswith("2-of-2.sqlite")
    asked = {row.item for row in rows_of(path)}
    assert asked and len(asked) == sum(map(int, stub.read_text().split()))


@pytest.mark.parametrize(
    ("gpus", "says"), [(0, "has 0 CPUs; a replica needs 1"), (2, "has 1 GPUs; a replica needs 2")]
)
def test_a_cluster_without_room_for_one_replica_is_refused(monkeypatch, gpus, says):
    ray, exceptions = ModuleType("ray"), ModuleType("ray.exceptions")
    ray.is_initialized, ray.cluster_resources = lambda: True, lambda: {"GPU": 1.0}
    exceptions.RayActorError = RuntimeError
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    with pytest.raises(ClusterError, match=says):
        measure_all(4, object, (), gpus)
