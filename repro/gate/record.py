"""What is kept of a model before an upgrade: how its prompts run, what that varies by, and every answer."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro.benchmarks.benchmark import Item
from repro.evaluation.digests import revision_of, versions, weights_of
from repro.evaluation.environment import circumstances, environment, now
from repro.evaluation.flow import spread
from repro.evaluation.results import NAME as RESULTS
from repro.evaluation.results import Results
from repro.evaluation.run import Progress, begin, evaluate, item_digests
from repro.gate.noise import noise, other_kernel
from repro.gate.stages import REFUSED, Reading, read, read_inputs
from repro.gate.tripwires import tripwires
from repro.models.images import read_image
from repro.models.lvlm import Lvlm
from repro.models.rounding import raise_if_passing
from repro.protocols.task import Task
from repro.reading import write_file

#: Raised with every change of what a record holds.
SCHEMA = 2
#: Items whose way through the model is kept, those that noise is measured on, and those that are asked twice.
READ, VARIED, AGAIN = 16, 3, 48
#: What a record says of its model, its items and where it was made.
ABOUT = {
    "schema", "model", "revision", "weights", "model_type", "layers", "dtype", "benchmark", "protocol", "data",
    "mode", "grid", "created", "environment", "admission",
}  # fmt: skip
#: Prompts that are swept at once, and when they are asked again.
BATCH, OTHER_BATCH = 24, 17
#: Factors by which the image of the first items is made wider and higher.
SHAPES = ((2.3, 1), (1, 1.7), (3, 3), (0.6, 0.55))


class GateError(ValueError):
    """A record that cannot be compared with; the message says what differs and what to do."""


@dataclass(frozen=True, eq=False)
class Record:
    """One model on the chosen items of one benchmark.

    Attributes:
        about: what ``_about`` says of model, items and environment.
        items: ids of those that were asked; ``digests`` of question and image.
        parts: by metric, float64 [n, N + 1, 2].
        answers: texts [n][N + 1]; ``ids`` their token ids, as texts.
        inputs: of all chosen items, what the model is given: prompt [m, 16], pixels [m, 1, 65].
        read: which of all the readings are of.
        readings: of each of those, with its recorded answer; then of the first with images of other shapes.
        noise: see ``repro.gate.noise``.
        varied: items asked again in other batches by another kernel; how many of them changed a score at any
            layer, and how many the tokens of their answer.
        trouble: what must hold of any model and does not, see ``repro.gate.tripwires``.
    """

    about: dict[str, Any]
    items: list[str]
    digests: list[tuple[str, str]]
    parts: Mapping[str, np.ndarray]
    answers: list[list[str]]
    ids: list[list[str]]
    inputs: dict[str, np.ndarray]
    read: list[int]
    readings: list[Reading]
    noise: dict[str, np.ndarray]
    varied: tuple[int, int, int]
    trouble: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its file."""
        return name_of(self.about["model"], self.about["benchmark"], self.about["protocol"])

    @property
    def all_readings(self) -> list[Reading]:
        """Of the inputs of every item, and the others."""
        each = [
            dict(zip(self.inputs, values, strict=True)) for values in zip(*self.inputs.values(), strict=True)
        ]
        return each + self.readings

    def of(self, items: Sequence[str]) -> "Record":
        """The record with the answers of some items only."""
        at = [self.items.index(item) for item in items]
        return replace(
            self,
            items=list(items),
            digests=[self.digests[i] for i in at],
            parts={name: values[at] for name, values in self.parts.items()},
            answers=[self.answers[i] for i in at],
            ids=[self.ids[i] for i in at],
        )


def name_of(model: str, benchmark: str, protocol: str) -> str:
    """Of the file of a record, without its suffix."""
    return f"{model}-{benchmark}-{protocol}"


def measure(lvlm: Lvlm, task: Task, items: Sequence[Item], directory: Path, **settings: Any) -> Record:
    """Ask a model the items, read some of them on their way through it, and measure what that varies by.

    Args:
        directory: of the results file, in which an interrupted measurement goes on.
        settings: ``resume`` and ``progress``, see ``ask``.

    Raises ValueError for items that cannot be asked; ResultsError as ``Results`` does.
    """
    answered = ask(lvlm, task, items, items, directory, "record", **settings)
    read = sorted(spread(range(len(items)), READ))
    answers = [tuple(json.loads(answered["ids"][i][-1])) for i in read]
    way = read_items(lvlm, task, items, read, answers)
    prompts = [task.prompt(lvlm, items[i]) for i in read[:VARIED]]
    varied_by = noise(lvlm, prompts, answers[:VARIED])
    trouble = tripwires(lvlm, prompts, answers, varied_by)
    varied = _asked_again(lvlm, task, items, answered)
    return Record(read=read, noise=varied_by, varied=varied, trouble=trouble, **answered, **way)


def measure_again(lvlm: Lvlm, task: Task, items: Sequence[Item], before: Record) -> Record:
    """What of a record needs no answers: the same items read, with its answers; it has none of its own."""
    answers = [tuple(json.loads(before.ids[i][-1])) for i in before.read]
    way = read_items(lvlm, task, items, before.read, answers)
    prompts = [task.prompt(lvlm, items[i]) for i in before.read[:VARIED]]
    return replace(before, trouble=tripwires(lvlm, prompts, answers, before.noise), **way)


def ask(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    asked: Sequence[Item],
    directory: Path,
    purpose: str,
    resume: bool = True,
    progress: bool | Progress = True,
) -> dict[str, Any]:
    """Those of a record's values that answers give, of the asked among all items.

    Args:
        purpose: what the answers are for: those of another are not gone on with.
        resume: go on with an interrupted measurement, one in the same environment and for the same purpose.
    """
    digests = item_digests(lvlm, task, asked)
    with closing(Results(directory / RESULTS, new=True)) as results:
        run = begin(results, lvlm, task, items, resume, {"purpose": purpose, **circumstances(lvlm)})
        evaluation = evaluate(lvlm, task, asked, run, BATCH, progress)
        if evaluation.failed:
            raise ValueError("; ".join(list(evaluation.failed.values())[:5]))
        rows = run.known(digests, lvlm.n_layers + 1)
        if len(asked) == len(items):
            results.finish([run.number])
    ordered = [rows[item.id] for item in asked]
    return {
        "about": _about(lvlm, task, items),
        "items": [item.id for item in asked],
        "digests": [digests[item.id] for item in asked],
        "parts": evaluation.parts,
        "answers": [[row.answer for row in layers] for layers in ordered],
        "ids": [[json.dumps(row.ids) for row in layers] for layers in ordered],
    }


def read_items(
    lvlm: Lvlm, task: Task, items: Sequence[Item], chosen: Sequence[int], answers: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Those of a record's values that reading gives: inputs of all items, readings of the chosen ones.

    The first are read with their image in other shapes as well: data may happen to hold images of one size only,
    which no processor resizes.
    """
    readings = [
        read(lvlm, task.prompt(lvlm, items[i]), answer) for i, answer in zip(chosen, answers, strict=True)
    ]
    for i, (wide, high), answer in zip(chosen, SHAPES, answers, strict=False):
        source: Any = items[i].image  # an item that was asked has one
        image = read_image(source)
        size = (max(1, round(wide * image.width)), max(1, round(high * image.height)))
        resized: Any = image.resize(size)  # prompts read open images as well
        try:
            prompt = task.prompt(lvlm, replace(items[i], image=resized))
        except ValueError:  # too long with so large an image
            readings.append({REFUSED: np.ones(1, np.int8)})
        else:
            readings.append(read(lvlm, prompt, answer))
    return {"inputs": inputs_of(lvlm, task, items), "readings": readings}


def inputs_of(lvlm: Lvlm, task: Task, items: Sequence[Item]) -> dict[str, np.ndarray]:
    """What the model is given about each item: prompt uint8 [n, 16], pixels float32 [n, 1, 65]."""
    each = [read_inputs(task.prompt(lvlm, item)) for item in items]
    return {stage: np.stack([one[stage] for one in each]) for stage in each[0]}


def _asked_again(
    lvlm: Lvlm, task: Task, items: Sequence[Item], answered: Mapping[str, Any]
) -> tuple[int, int, int]:
    """Some items in other batches, by another attention kernel; see ``Record.varied``."""
    places = spread(range(len(items)), AGAIN)
    chosen = [items[i] for i in places]
    with ExitStack() as context:
        try:
            context.enter_context(other_kernel(lvlm))
            lvlm.logits(task.prompt(lvlm, chosen[0]))
        except Exception as error:  # a kernel that this model does not have
            raise_if_passing(error)
            context.close()
        again = evaluate(lvlm, task, chosen, batch_size=OTHER_BATCH, progress=False)
    scored = changed_scores(answered["parts"], again.parts, places)
    ids = [json.dumps(answer.ids) for answer in again.answers]
    told = sum(new != answered["ids"][i][-1] for new, i in zip(ids, places, strict=True))
    return len(places), scored, told


def changed_scores(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    places: Sequence[int] | slice = slice(None),
) -> int:
    """Items of which any score at any layer is another; ``places`` those of the first that the second has."""
    return int(
        np.any([(before[name][places] != after[name]).any(axis=(1, 2)) for name in after], axis=0).sum()
    )


def _about(lvlm: Lvlm, task: Task, items: Sequence[Item]) -> dict[str, Any]:
    """What a record says of its model, its items and where it was made."""
    benchmark, prompt = task.benchmark, task.prompt(lvlm, items[0])
    return {
        "schema": SCHEMA,
        "model": task.model,
        "revision": revision_of(lvlm.path),
        "weights": weights_of(lvlm.path),
        "model_type": lvlm.model.config.model_type,
        "layers": lvlm.n_layers,
        "dtype": str(lvlm.computes_in),
        "benchmark": benchmark.name,
        "protocol": task.protocol,
        "data": benchmark.describe(items),
        "mode": benchmark.mode or "",
        "grid": list(prompt.grid) if prompt.spatial else None,
        "created": now(),
        "environment": environment() | versions() | {"threads": str(torch.get_num_threads())},
        "admission": [f"{name}: {note}" for name, note in lvlm.admission.items()],
    }


def save(record: Record, directory: Path) -> Path:
    """Write a record's file, complete or not at all."""
    path = directory / f"{record.name}.npz"
    arrays = {f"parts/{name}": values for name, values in record.parts.items()}
    arrays |= {f"noise/{stage}": values for stage, values in record.noise.items()}
    arrays |= {f"inputs/{stage}": values for stage, values in record.inputs.items()}
    for number, reading in enumerate(record.readings):
        arrays |= {f"reading/{number}/{stage}": values for stage, values in reading.items()}
    content = {
        name: getattr(record, name)
        for name in ("about", "items", "digests", "answers", "ids", "read", "varied", "trouble")
    }
    directory.mkdir(parents=True, exist_ok=True)
    data = BytesIO()
    np.savez_compressed(data, allow_pickle=False, content=np.array(json.dumps(content)), **arrays)
    write_file(path, data.getvalue())
    return path


def load(path: Path) -> Record:
    """Read what ``save`` wrote; GateError that names the file if it is something else, or of another schema."""
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.npz"))
        raise GateError(
            f"no record {path.name} in {path.parent}, which holds {', '.join(there) or 'none'}: record it first, "
            "in the environment that is trusted"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = json.loads(str(arrays["content"]))
            schema = content["about"]["schema"]
            if schema != SCHEMA:
                raise GateError(f"{path} has schema {schema}, this version reads {SCHEMA}: record it anew")
            named: dict[str, Any] = {"parts": {}, "noise": {}, "inputs": {}}
            readings: dict[int, Reading] = {}
            for name in arrays.files:
                kind, _, rest = name.partition("/")
                if kind == "reading":
                    number, _, stage = rest.partition("/")
                    readings.setdefault(int(number), {})[stage] = arrays[name]
                elif kind in named:
                    named[kind][rest] = arrays[name]
            content["digests"] = [tuple(pair) for pair in content["digests"]]
            content["varied"] = tuple(content["varied"])
            record = Record(**content, **named, readings=[readings[i] for i in range(len(readings))])
            _check_complete(record)
            return record
    except GateError:
        raise
    except Exception as error:  # zipfile, numpy and json each have their own
        raise GateError(
            f"{path} is no record, or damaged ({type(error).__name__}: {error}): record it anew"
        ) from error


def _check_complete(record: Record) -> None:
    """ValueError unless everything that a comparison needs is there, in the shape it needs."""
    n, layers = len(record.items), record.about["layers"]
    if n == 0 or not record.parts or any(part.shape != (n, layers + 1, 2) for part in record.parts.values()):
        raise ValueError(f"scores are not those of {n} items at {layers + 1} layers")
    texts = [*record.answers, *record.ids]
    if len(texts) != 2 * n or {len(each) for each in texts} != {layers + 1} or len(record.digests) != n:
        raise ValueError(f"answers are not those of {n} items at {layers + 1} layers")
    if not record.read or not all(0 <= i < n for i in record.read):
        raise ValueError("readings are of items that it does not have")
    shaped = min(len(SHAPES), len(record.read))
    if len(record.readings) != len(record.read) + shaped or {len(v) for v in record.inputs.values()} != {n}:
        raise ValueError("readings of items are missing")
    expected = {"prompt", "pixels", "image features", "text embeddings", "masks", "layers", "logits"}
    for reading in [*record.readings[: len(record.read)], record.noise]:
        if lacking := expected - reading.keys():
            raise ValueError(f"{', '.join(sorted(lacking))} missing")
    if not getattr(torch, record.about["dtype"].removeprefix("torch.")).is_floating_point:
        raise ValueError(f"{record.about['dtype']} is no number type of weights")
    if absent := ABOUT - record.about.keys():
        raise ValueError(f"{', '.join(sorted(absent))} missing")
