"""Table 1 by Ray: a replica of the model per actor; an actor that has nothing to do takes the next shard.

Truth stays in the files of ``repro.evaluation.shards``, in a directory that all machines share: what is complete
is not done again, and an actor that dies loses no batch that it had written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from repro.benchmarks.benchmark import Benchmark
from repro.evaluation.run import configuration_of
from repro.evaluation.shards import ClusterError, Shard, merge, stem_of
from repro.models import load_model
from repro.models.lvlm import Lvlm
from repro.models.placing import place
from repro.table1 import prepared, shard_of_table1

#: Shards of a benchmark, at most; and how often one is tried whose actors die.
SHARDS, TRIES = 64, 3


def measure_all(
    count: int, replica: type, arguments: Sequence[Any], gpus: int, actors: int = 0
) -> list[Path]:
    """Have actors measure ``count`` shards; their files.

    Args:
        replica: made from ``arguments`` by every actor, and called with each of its shards: gives a shard's file.
        gpus: of an actor; 0: on CPUs, one of which each takes.
        actors: how many; 0: as many as the cluster has room for.

    Joins the cluster of RAY_ADDRESS, or starts one of this machine.

    Raises ClusterError for a cluster without what one actor needs, and for a shard whose actors die repeatedly.
    """
    import ray
    from ray.exceptions import RayActorError

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    kind = "GPU" if gpus else "CPU"
    there = int(ray.cluster_resources().get(kind, 0)) // max(1, gpus)
    if not there:
        raise ClusterError(
            f"the Ray cluster has {int(ray.cluster_resources().get(kind, 0))} {kind}s; a replica needs "
            f"{max(1, gpus)}: join one that has them by RAY_ADDRESS, or leave --executor out"
        )
    wanted = {"num_gpus": gpus, "num_cpus": 1, "max_restarts": 0}
    make = ray.remote(replica).options(**wanted).remote
    waiting = [Shard(number, count) for number in range(count, 0, -1)]
    tries = dict.fromkeys(waiting, 0)
    idle = [make(*arguments) for _ in range(min(actors or there, there, count))]
    busy: dict[Any, tuple[Any, Shard]] = {}
    files = []
    while waiting or busy:
        while waiting and idle:
            actor, shard = idle.pop(), waiting.pop()
            busy[actor.measure.remote(shard)] = actor, shard
        [done], _ = ray.wait(list(busy))
        actor, shard = busy.pop(done)
        try:
            files.append(ray.get(done))
            idle.append(actor)
        except RayActorError as error:
            tries[shard] += 1
            if tries[shard] == TRIES:
                raise ClusterError(f"shard {shard}: {TRIES} actors died on it, the last: {error}") from None
            waiting.append(shard)
            idle.append(make(*arguments))
    for actor in idle:
        ray.kill(actor)
    return files


class Replica:
    """A model on one actor, and what ``shard_of_table1`` takes beside it."""

    def __init__(self, loading: Sequence[Any], work: tuple[Benchmark, Path], settings: Mapping[str, Any]):
        self.lvlm, self.work, self.settings = load_model(*loading), work, settings

    def measure(self, shard: Shard) -> Path:
        """The file of a shard."""
        return shard_of_table1(self.lvlm, *self.work, shard, **self.settings, progress=False)


def answers_by_ray(lvlm: Lvlm, benchmark: Benchmark, data: Path, **settings: Any) -> None:
    """Have a cluster answer what ``table1``, given the same arguments, then finds answered.

    Raises ClusterError and ResultsError, and ``table1``'s errors before anything long starts.
    """
    task, items, _ = prepared(lvlm, benchmark, data, settings["protocol"], settings["limit"])
    count = min(SHARDS, -(-len(items) // 24))
    device = lvlm.device
    loading = (lvlm.card.name, lvlm.path.resolve(), lvlm.computes_in, device.type)
    settings["report"] = settings["report"].resolve()
    gpus = len(lvlm.devices) if device.type == "cuda" else 0
    lvlm.model.to("cpu")  # its GPUs are the actors'
    torch.cuda.empty_cache()
    try:
        measure_all(count, Replica, (loading, (benchmark, data.resolve()), settings), gpus)
    finally:
        place(lvlm.model, device)
    list(merge(settings["report"], stem_of(configuration_of(lvlm, task, items))))
