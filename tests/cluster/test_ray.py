"""Do shards come out of a Ray cluster as of one process, whatever dies? GPUs are simulated; needs ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from repro.evaluation.cluster import TRIES, ClusterError, measure_all
from repro.evaluation.results import NAME, Results
from repro.evaluation.shards import FOLDER
from tests.cluster.stub import SHARD, Stub

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster():
    """Four CPUs and two GPUs that are not there."""
    import ray

    here = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=4, num_gpus=2, log_to_driver=False, include_dashboard=False, runtime_env=here)
    yield
    ray.shutdown()


def test_time_falls_with_the_actors(cluster, tmp_path, record_property):
    """Starting actors takes seconds; from the second half of the shards on, time is work over actors."""
    for actors in (1, 2, 4):
        folder = tmp_path / str(actors)
        folder.mkdir()
        files = measure_all(8, Stub, (folder,), gpus=0, actors=actors)
        ends = sorted(file.stat().st_mtime for file in files)
        rate = 7 / (ends[-1] - ends[0]) if actors == 1 else 4 / (ends[-1] - ends[3])
        record_property("ray", f"{actors} actors: {rate:.2f} shards/s, each alone {1 / SHARD:.2f}")
        print(f"{actors} actors: {rate:.2f} shards a second")
        assert len(files) == 8 and len({file.read_text() for file in files}) == actors
        assert rate > 0.6 * actors / SHARD


def test_every_actor_has_a_gpu_of_its_own(cluster, tmp_path):
    files = measure_all(4, Stub, (tmp_path,), gpus=1)
    used = {tuple(file.read_text().split()) for file in files}
    assert {gpu for _, gpu in used} == {"0", "1"} and len(used) == 2


def test_an_actor_has_as_many_gpus_as_its_model_takes(cluster, tmp_path):
    files = measure_all(3, Stub, (tmp_path,), gpus=2)
    [(_, gpus)] = {tuple(file.read_text().split()) for file in files}
    assert sorted(gpus.split(",")) == ["0", "1"]


def test_an_actor_that_dies_is_replaced_and_its_shard_done_again(cluster, tmp_path):
    files = measure_all(4, Stub, (tmp_path, 1), gpus=0, actors=2)
    assert {file.name for file in files} == {f"{k}-of-4" for k in range(1, 5)}
    assert len(list(tmp_path.glob("*-try-*"))) == 5


def test_a_shard_on_which_every_actor_dies_is_told(cluster, tmp_path):
    with pytest.raises(ClusterError, match=f"shard 2/4: {TRIES} actors died on it"):
        measure_all(4, Stub, (tmp_path, 99), gpus=0, actors=2)


def test_a_cluster_without_what_a_replica_needs_is_told(cluster, tmp_path):
    with pytest.raises(ClusterError, match="the Ray cluster has 2 GPUs; a replica needs 4"):
        measure_all(4, Stub, (tmp_path,), gpus=4)
    assert not list(tmp_path.iterdir())


def test_a_killed_driver_goes_on_with_the_rows_of_one_process(tmp_path):
    given = ["-m", "table1", "--model", "qwen-vl", "--benchmark", "scienceqa", "--limit", "30", "-q"]

    def start(report: Path, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pytest", *given, "--report", str(report), *more]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)

    driver = start(tmp_path / "ray", "--executor", "ray")
    while driver.poll() is None and not list((tmp_path / "ray" / FOLDER).glob("*.sqlite")):
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    done = {file: file.stat().st_mtime for file in (tmp_path / "ray" / FOLDER).glob("*.sqlite")}
    assert done and not (tmp_path / "ray" / NAME).exists()
    assert start(tmp_path / "ray", "--executor", "ray").wait() == 0
    assert all(file.stat().st_mtime == at for file, at in done.items())
    assert start(tmp_path / "one").wait() == 0
    rows = []
    for report in ("ray", "one"):
        with closing(Results(tmp_path / report / NAME)) as results:
            rows.append(list(results.rows(results.runs()[-1].number)))
    assert rows[0] == rows[1] and rows[0]
