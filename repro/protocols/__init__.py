"""How a benchmark's items are put to a model, and its answers read and scored: one ``Task`` for each pair.

- ``official``: as each model's authors do it. A card names the style its model was tuned on.
- ``opera``: as the scripts the paper released do it. They are OPERA's: POPE and CHAIR, for three models.
- ``lmms-eval``: as the tasks and model classes of lmms-eval do it.

Decoding is greedy under all of them. OPERA's commands say ``--beam 5``, and LAVIS uses five beams; the paper says
greedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from repro.benchmarks.benchmark import Benchmark
from repro.protocols import lmms_eval, official, opera
from repro.protocols.task import Task

#: By name what gives the tasks: of ``official`` those of all models registered by then.
PROTOCOLS: dict[str, Callable[[], Iterable[Task]]] = {
    "official": official.tasks,
    "opera": opera.tasks,
    "lmms-eval": lmms_eval.tasks,
}


class ProtocolError(ValueError):
    """A benchmark that a protocol does not define for a model."""


def tasks_of(protocol: str) -> dict[tuple[str, str], Task]:
    """All that a protocol defines, by the names of model and benchmark."""
    return {(task.model, task.benchmark.name): task for task in PROTOCOLS[protocol]()}


def find_task(protocol: str, model: str, benchmark: Benchmark) -> Task:
    """What a protocol does with a benchmark, in whatever mode, and a model of this name.

    Raises:
        ProtocolError: there is no such protocol, or it does not define this; the message lists what it does.
    """
    if protocol not in PROTOCOLS:
        raise ProtocolError(f"no protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}")
    tasks = tasks_of(protocol)
    if (task := tasks.get((model, benchmark.name))) is None:
        models, benchmarks = (", ".join(dict.fromkeys(names)) for names in zip(*tasks, strict=True))
        raise ProtocolError(
            f"protocol {protocol} does not define {benchmark.name} for {model}; it defines {benchmarks} for "
            f"{models}"
        )
    return replace(task, benchmark=benchmark)
