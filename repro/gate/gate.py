"""One model on one benchmark, recorded before an upgrade or compared after it."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

from repro.benchmarks import find_benchmark
from repro.benchmarks.benchmark import Benchmark, Item
from repro.evaluation.results import revision_of
from repro.evaluation.run import item_digests
from repro.gate.compare import Outcome, check_comparable, compare, stages_of, where_it_began
from repro.gate.record import GateError, Record, load, measure, name_of, readings_of, sample, save
from repro.gate.verdict import MARGIN, items_for
from repro.models.images import read_image
from repro.models.lvlm import Lvlm
from repro.protocols import find_task
from repro.protocols.task import Task

#: Flips whose image is shown, and its longer side in pixels.
PICTURES, SIDE = 24, 160
#: Folder of a report for the outcomes of a gate.
FOLDER = "gate"


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
    progress: bool = True,
) -> Path:
    """Measure a model as it is trusted, and write the record that later ones are compared with.

    Args:
        directory: of the records; one of the same model, benchmark and protocol is replaced, once all is measured.
        margin, count: largest loss that will count as none; items, by default as many as it needs.
        report: holds the answers, from which an interrupted measurement goes on.

    Raises DataError, ProtocolError, ResultsError and OSError as ``repro.table1.table1`` does.
    """
    task = _task(lvlm, benchmark, protocol)
    directory.mkdir(parents=True, exist_ok=True)
    (probe := directory / f".{os.getpid()}.probe").touch()  # before anything long starts
    probe.unlink()
    items = sample(task.benchmark.load(data), count or items_for(margin))
    return save(measure(lvlm, task, items, report, progress=progress), directory)


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
    progress: bool = True,
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
    try:
        after = measure(lvlm, task, items, report, before, progress)
    except (RuntimeError, ValueError, IndexError) as error:
        # Where prompts no longer fit the model, they say more than the model's error.
        raise GateError(
            f"{before.name} cannot be asked any more: {error}; {_prompts(lvlm, task, items, before)}"
        ) from error
    outcome = compare(before, after, task, items, margin, decisions)
    for flip in outcome.flips[:PICTURES]:
        flip["picture"] = _thumbnail(by_id[flip["item"]])
    return outcome


def _check_depth(before: Record, lvlm: Lvlm) -> None:
    """GateError if the recorded weights are now found to be another model."""
    now = (lvlm.model.config.model_type, lvlm.n_layers)
    recorded = (before.about["model_type"], before.about["layers"])
    if now != recorded and before.about["revision"] == revision_of(lvlm.path):
        raise GateError(
            f"{before.name}: the weights are those of the record, a {recorded[0]} of {recorded[1]} layers, "
            f"and are now a {now[0]} of {now[1]} layers: look at where the model's decoder layers are"
        )


def _prompts(lvlm: Lvlm, task: Task, items: Sequence[Item], before: Record) -> str:
    """What differs in prompts and pixels, in words."""
    try:
        read = [items[i] for i in before.read]
        readings, _ = readings_of(lvlm, task, read, [()] * len(read), only_prompts=True)
    except (RuntimeError, ValueError, IndexError) as error:
        return f"prompts cannot be made: {error}"
    stages, _ = stages_of(before, replace(before, readings=readings))
    return where_it_began([stage for stage in stages if stage.beyond])


def _task(lvlm: Lvlm, benchmark: Benchmark | str, protocol: str) -> Task:
    """The benchmark, or the one of this name, put to the model under the protocol."""
    benchmark = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    return find_task(protocol, lvlm.card.name, benchmark)


def write_outcome(outcome: Outcome, report: Path) -> Path:
    """An outcome as JSON; numbers that are not finite become null."""
    content = plain(asdict(outcome))
    path = report / FOLDER / f"{outcome.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, allow_nan=False) + "\n")
    return path


def plain(value: Any) -> Any:
    """Values as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _thumbnail(item: Item) -> str:
    """The image of an item as PNG in base 64."""
    assert item.image is not None, "an item that was asked has an image"
    image = read_image(item.image)
    image.thumbnail((SIDE, SIDE))
    data = BytesIO()
    image.save(data, "png")
    return base64.b64encode(data.getvalue()).decode()
