"""One model on one benchmark, recorded before an upgrade or compared after it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro.benchmarks import find_benchmark
from repro.benchmarks.benchmark import Benchmark, Item
from repro.evaluation.digests import weights_of
from repro.evaluation.flow import sample
from repro.evaluation.run import item_digests
from repro.gate.compare import Outcome, check_comparable, compare, settled, stages_of
from repro.gate.record import GateError, Record, ask, inputs_of, load, measure, measure_again, name_of, save
from repro.gate.verdict import where_it_began
from repro.models.lvlm import Lvlm
from repro.paired import MARGIN, items_for
from repro.protocols import find_task
from repro.protocols.task import Task

#: Items that are asked first: where no stage moved and none of their answers changed, the others are not asked.
FIRST = 60


def record(
    lvlm: Lvlm,
    benchmark: Benchmark | str,
    data: Path,
    directory: Path,
    *,
    protocol: str = "official",
    margin: float = MARGIN,
    count: int | None = None,
    report: Path = Path("report"),
    **settings: Any,
) -> Path:
    """Measure a model as it is trusted, and write the record that later ones are compared with.

    Args:
        directory: of the records; one of the same model, benchmark and protocol is replaced, once all is measured.
        margin, count: largest loss that will count as none; items, by default as many as it needs.
        report: holds the answers, from which an interrupted measurement goes on.
        settings: ``resume`` and ``progress``, see ``repro.gate.record.ask``.

    Raises GateError for a model that fails a tripwire, of which no record is kept; DataError, ProtocolError,
    ResultsError and OSError as ``repro.table1.table1`` does.
    """
    task = _task(lvlm, benchmark, protocol)
    directory.mkdir(parents=True, exist_ok=True)
    (probe := directory / f".{os.getpid()}.probe").touch()  # before anything long starts
    probe.unlink()
    items = sample(task.benchmark.load(data), count or items_for(margin))
    measured = measure(lvlm, task, items, report, **settings)
    if measured.trouble:
        raise GateError(f"nothing is recorded of this model: {'; '.join(measured.trouble)}")
    return save(measured, directory)


def check(
    lvlm: Lvlm,
    benchmark: Benchmark | str,
    data: Path,
    directory: Path,
    *,
    protocol: str = "official",
    margin: float = MARGIN,
    decisions: int = 1,
    report: Path = Path("report"),
    **settings: Any,
) -> Outcome:
    """Measure a model on the items of its record, and say what changed.

    Args:
        decisions: comparisons of this gate, which together call a loss what is none as rarely as one.

    Raises GateError for a record that is missing, damaged, or of something else; and as ``record`` does.
    """
    task = _task(lvlm, benchmark, protocol)
    before = load(directory / f"{name_of(task.model, task.benchmark.name, task.protocol)}.npz")
    _check_depth(before, lvlm)
    by_id = {item.id: item for item in task.benchmark.load(data)}
    if missing := [item for item in before.items if item not in by_id]:
        raise GateError(
            f"{len(missing)} of {len(before.items)} recorded items are not in {data}, the first is {missing[0]}: "
            "use the data of the record"
        )
    items = [by_id[item] for item in before.items]
    check_comparable(before, task, items, item_digests(lvlm, task, items))
    purpose = f"against {before.about['created']}"
    first = sample(items, FIRST)
    try:
        after = measure_again(lvlm, task, items, before)
        after = replace(after, **ask(lvlm, task, items, first, report, purpose, **settings))
        if len(first) < len(items) and not settled(before, after):
            after = replace(after, **ask(lvlm, task, items, items, report, purpose, **settings))
            first = items
    except (RuntimeError, ValueError, IndexError) as error:
        # Where prompts no longer fit the model, they say more than the model's error.
        raise GateError(
            f"{before.name} cannot be asked any more: {error}; {_prompts(lvlm, task, items, before)}"
        ) from error
    return compare(before, after, task, first, margin, decisions)


def _check_depth(before: Record, lvlm: Lvlm) -> None:
    """GateError if the recorded weights are now found to be another model."""
    now = (lvlm.model.config.model_type, lvlm.n_layers)
    recorded = (before.about["model_type"], before.about["layers"])
    if now != recorded and before.about["weights"] == weights_of(lvlm.path):
        raise GateError(
            f"{before.name}: the weights are those of the record, a {recorded[0]} of {recorded[1]} layers, "
            f"and are now a {now[0]} of {now[1]} layers: look at where the model's decoder layers are"
        )


def _prompts(lvlm: Lvlm, task: Task, items: Sequence[Item], before: Record) -> str:
    """What differs in prompts and pixels, in words."""
    try:
        inputs = inputs_of(lvlm, task, items)
    except (RuntimeError, ValueError, IndexError) as error:
        return f"prompts cannot be made: {error}"
    stages, _ = stages_of(replace(before, readings=[]), replace(before, inputs=inputs, readings=[]))
    return where_it_began([stage for stage in stages if stage.beyond])


def _task(lvlm: Lvlm, benchmark: Benchmark | str, protocol: str) -> Task:
    """The benchmark, or the one of this name, put to the model under the protocol."""
    benchmark = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    return find_task(protocol, lvlm.card.name, benchmark)
