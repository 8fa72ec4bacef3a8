"""A run that is killed at any moment, and started again, ends with the rows of an unbroken one."""

import subprocess
import sys
from pathlib import Path

import pytest

from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD

pytestmark = pytest.mark.invariant

#: Measures in a child of its own, which is killed after a random time and started again, until so many kills are
#: over. A file that gets whole is compared with the unbroken run's, and the next begins empty.
DRIVER = """
import os, random, signal, sys, time
from pathlib import Path

import torch

torch.set_num_threads(1)  # a fork copies no other threads
from repro.benchmarks import BENCHMARKS
from repro.evaluation.results import Results
from repro.evaluation.run import begin, evaluate, limited
from repro.models import load_model
from repro.protocols import find_task

folder, data, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
lvlm = load_model("llava-1.5")
tasks = []
for benchmark in (BENCHMARKS["pope"], BENCHMARKS["textvqa"]):
    tasks.append((find_task("official", "llava-1.5", benchmark), limited(benchmark.load(data), 24)))


def measure(path):
    results = Results(path, new=True)
    runs = []
    for task, items in tasks:
        runs.append(begin(results, lvlm, task, items))
        assert not evaluate(lvlm, task, items, runs[-1], batch_size=8, progress=False).failed
    results.finish([run.number for run in runs])
    results.close()


def rows(path):
    results = Results(path)
    found = [(r.dataset, r.finished is not None, list(results.rows(r.number))) for r in results.runs()]
    results.close()
    return found


measure(folder / "unbroken.sqlite")
started = time.perf_counter()
measure(folder / "again.sqlite")
whole = time.perf_counter() - started
unbroken = rows(folder / "unbroken.sqlite")
draw = random.Random(0)
killed = resumed = compared = 0
broken = folder / "broken.sqlite"
while killed < kills or broken.exists():
    child = os.fork()
    if child == 0:
        try:
            measure(broken)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    if killed < kills:
        time.sleep(draw.uniform(0, whole / 2))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        killed += 1
        continue
    assert os.WEXITSTATUS(status) == 0
    assert rows(broken) == unbroken
    compared += 1
    broken.unlink()
print(killed, compared, sum(len(found) for _, _, found in unbroken))
"""


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.performance)])
def test_a_killed_run_ends_as_an_unbroken_one(tmp_path, kills):
    command = [sys.executable, "-c", DRIVER, tmp_path, MINIWORLD, str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    killed, compared, rows = map(int, done.stdout.split())
    assert killed == kills and compared >= 1 and rows > 500
