"""How a model is asked a benchmark's items, and how its answers are read and scored: one ``Task`` for each pair.

- ``official``: as each model's authors do it. A card names the style its model was tuned on; models without a card
  are asked by protocol ``chat``.
- ``opera``: as the scripts that the paper released do it. They are OPERA's: POPE and CHAIR, for three models.
- ``chat``: any chat model, by its chat template and with lmms-eval's wordings.
- ``lmms-eval``: as the tasks and model classes of lmms-eval do it.

All decode greedily. OPERA's commands have ``--beam 5``, and LAVIS uses five beams; the paper says greedy.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from repro.benchmarks.benchmark import Benchmark
from repro.models.card import CHAT, REGISTRY
from repro.protocols import chat, lmms_eval, official, opera
from repro.protocols.task import Task


def _official() -> Iterable[Task]:
    yield from official.tasks()
    yield from (task for task in chat.tasks() if REGISTRY[task.model].style == CHAT)


#: Tasks by the protocol's name, for all models registered at the time of the call.
PROTOCOLS: dict[str, Callable[[], Iterable[Task]]] = {
    "official": _official,
    "chat": chat.tasks,
    "opera": opera.tasks,
    "lmms-eval": lmms_eval.tasks,
}


class ProtocolError(ValueError):
    """A benchmark that a protocol does not define for a model."""


def tasks_of(protocol: str) -> dict[tuple[str, str], Task]:
    """The tasks of a protocol by the names of model and benchmark."""
    return {(task.model, task.benchmark.name): task for task in PROTOCOLS[protocol]()}


def find_task(protocol: str, model: str, benchmark: Benchmark) -> Task:
    """The task of a benchmark, in any mode, and a model under a protocol.

    Raises:
        ProtocolError: there is no such protocol, or it does not define this; the message lists what it defines.
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
