"""What is kept of a model before an upgrade: how its prompts run, what that varies by, and every answer."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro.benchmarks.benchmark import Item
from repro.evaluation.environment import environment, now
from repro.evaluation.flow import spread
from repro.evaluation.results import NAME as RESULTS
from repro.evaluation.results import Results, Row, revision_of, versions
from repro.evaluation.run import begin, evaluate, item_digests
from repro.gate.noise import noise
from repro.gate.stages import REFUSED, Reading, read
from repro.models.images import read_image
from repro.models.lvlm import Lvlm
from repro.models.prompts import Prompt
from repro.models.rounding import UNSAID, apart
from repro.protocols.task import Task
from repro.reading import write_file

#: Raised with every change of what a record holds.
SCHEMA = 1
#: Items whose way through the model is kept, and those that noise is measured on.
READ, VARIED, AGAIN = 24, 4, 60
#: Prompts that are swept at once.
BATCH = 24
#: Of tripwires between passes that add in other orders, in last digits: 64 times the 64 of one pass.
LOOSE = 64
#: Factors by which the image of the first items is made wider and higher.
SHAPES = ((2.3, 1), (1, 1.7), (3, 3), (0.6, 0.55))


class GateError(ValueError):
    """A record that cannot be compared with; the message says what differs and what to do."""


@dataclass(frozen=True, eq=False)
class Record:
    """One model on the chosen items of one benchmark.

    Attributes:
        about: model, revision, model_type, layers, dtype, device, benchmark, protocol, data, created, versions.
        items: their ids; ``digests`` of question and image.
        parts: by metric, float64 [n, N + 1, 2].
        answers: texts [n][N + 1]; ``ids`` their token ids, as texts.
        read: which items the readings are of.
        readings: of each of those, with its recorded answer; then of the first with images of other shapes.
        noise: see ``repro.gate.noise``.
        varied: of how many items asked again in other batches how many scores changed, at any layer.
        trouble: what must hold of any model and does not.
    """

    about: dict[str, Any]
    items: list[str]
    digests: list[tuple[str, str]]
    parts: Mapping[str, np.ndarray]
    answers: list[list[str]]
    ids: list[list[str]]
    read: list[int]
    readings: list[Reading]
    noise: dict[str, np.ndarray]
    varied: tuple[int, int]
    trouble: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its file."""
        return name_of(self.about["model"], self.about["benchmark"], self.about["protocol"])


def name_of(model: str, benchmark: str, protocol: str) -> str:
    """Of the file of a record, without its suffix."""
    return f"{model}-{benchmark}-{protocol}"


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """About ``count`` of the items, evenly from each stratum."""
    strata: dict[str, list[Item]] = {}
    for item in items:
        strata.setdefault(item.stratum, []).append(item)
    each = -(-count // len(strata))
    return [item for members in strata.values() for item in spread(members, each)]


def measure(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    directory: Path,
    before: Record | None = None,
    progress: bool = True,
) -> Record:
    """Ask a model the items, and read some of them on their way through it.

    Args:
        directory: of the results file, in which an interrupted measurement goes on.
        before: the record to be compared with: its items are read, with its answers, and noise is its own.

    Raises ValueError for items that cannot be asked; ResultsError as ``Results`` does.
    """
    digests = item_digests(lvlm, task, items)
    with closing(Results(directory / RESULTS, new=True)) as results:
        run = begin(results, lvlm, task, items)
        evaluation = evaluate(lvlm, task, items, run, BATCH, progress)
        if evaluation.failed:
            raise ValueError("; ".join(list(evaluation.failed.values())[:5]))
        rows = run.known(digests, lvlm.n_layers + 1)
        results.finish([run.number])
    ordered = [rows[item.id] for item in items]
    where = sorted(spread(range(len(items)), READ)) if before is None else before.read
    if before is None:
        answers = [ordered[i][-1].ids for i in where]
    else:
        answers = [tuple(json.loads(before.ids[i][-1])) for i in where]
    readings, prompts = readings_of(lvlm, task, [items[i] for i in where], answers)
    return Record(
        about=_about(lvlm, task, items) | {"grid": list(prompts[0].grid) if prompts[0].spatial else None},
        items=[item.id for item in items],
        digests=[digests[item.id] for item in items],
        parts=evaluation.parts,
        answers=[[row.answer for row in layers] for layers in ordered],
        ids=[[json.dumps(row.ids) for row in layers] for layers in ordered],
        read=list(where),
        readings=readings,
        noise=noise(lvlm, prompts[:VARIED], answers[:VARIED]) if before is None else before.noise,
        varied=_asked_again(lvlm, task, items, ordered) if before is None else before.varied,
        trouble=tripwires(lvlm, prompts[:2], answers[:2]),
    )


def readings_of(
    lvlm: Lvlm,
    task: Task,
    items: Sequence[Item],
    answers: Sequence[Sequence[int]],
    only_prompts: bool = False,
) -> tuple[list[Reading], list[Prompt]]:
    """Readings of items, and of the first of them with their image in other shapes; the prompts of the items.

    Data may happen to hold images of one size only, which no processor resizes.
    """
    prompts = [task.prompt(lvlm, item) for item in items]
    shaped = []
    for item, (wide, high) in zip(items, SHAPES, strict=False):
        assert item.image is not None, "an item that was asked has an image"
        image = read_image(item.image)
        size = (max(1, round(wide * image.width)), max(1, round(high * image.height)))
        resized: Any = image.resize(size)  # prompts read open images as well
        shaped.append(replace(item, image=resized))
    readings = [read(lvlm, *pair, only_prompt=only_prompts) for pair in zip(prompts, answers, strict=True)]
    for item, answer in zip(shaped, answers, strict=False):
        try:
            prompt = task.prompt(lvlm, item)
        except ValueError:  # too long with so large an image
            readings.append({REFUSED: np.ones(1, np.int8)})
        else:
            readings.append(read(lvlm, prompt, answer, only_prompt=only_prompts))
    return readings, prompts


def _asked_again(
    lvlm: Lvlm, task: Task, items: Sequence[Item], before: Sequence[Sequence[Row]]
) -> tuple[int, int]:
    """Some items in other batches: how many, and how many of them are scored otherwise at any layer."""
    places = spread(range(len(items)), AGAIN)
    again = evaluate(lvlm, task, [items[i] for i in places], batch_size=5, progress=False)
    changed = 0
    for place, i in enumerate(places):
        changed += any(
            tuple(again.parts[name][place, layer]) != tuple(row.score.get(name, (0.0, 0.0)))
            for layer, row in enumerate(before[i])
            for name in again.parts
        )
    return len(places), changed


def tripwires(lvlm: Lvlm, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> list[str]:
    """What does not hold, of what must hold of any model, with or without a record."""
    trouble = []
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = lvlm.logits(prompt)[-1]
        size = float(logits.float().abs()[logits > UNSAID].max())
        rounding = 64 * torch.finfo(lvlm.computes_in).eps * size
        pixels = lvlm.pixel_name(prompt)
        blank = {**prompt.image_inputs, pixels: torch.zeros_like(prompt.image_inputs[pixels])}
        with torch.inference_mode():
            without = lvlm.forward([prompt], image_inputs=blank, last=1)[0, -1]
        if apart(without, logits) <= rounding:
            trouble.append("a blank image gives the same logits: the image does not reach the answer")
        if len(answer) > 1:
            followed = lvlm.logits(prompt, answer[:1])[len(prompt.segments) - 1]
            if apart(followed, logits) > LOOSE * rounding:
                trouble.append(
                    "what follows the prompt changes what its last token predicts: causality is lost"
                )
        generated, decoded = lvlm.generate(prompt, 4)
        rows = lvlm.logits(prompt, generated[:-1])[-len(generated) :]
        if apart(rows, decoded.to(rows.device)) > LOOSE * rounding:
            trouble.append(
                "tokens decoded with a cache have other logits than in one pass: the cache is wrong"
            )
        if lvlm.generate(prompt, 4)[0] != generated:
            trouble.append("an answer depends on what was asked before: state leaks from call to call")
    if lvlm.batches and len(prompts) > 1:
        pair = [prompts[0], replace(prompts[0], image_inputs=prompts[1].image_inputs)]
        shapes = [{name: value.shape for name, value in prompt.image_inputs.items()} for prompt in pair]
        if shapes[0] == shapes[1]:
            alone = torch.stack([lvlm.logits(prompt)[-1] for prompt in pair])
            with torch.inference_mode():
                together = lvlm.forward(pair, last=1)[:, -1]
            if apart(together, alone) > LOOSE * rounding:
                trouble.append(
                    "a batch gives other logits than its prompts alone: images or masks are mixed up"
                )
    return list(dict.fromkeys(trouble))


def _about(lvlm: Lvlm, task: Task, items: Sequence[Item]) -> dict[str, Any]:
    """What a record says of its model, its items and where it was made; see ``Record``."""
    benchmark = task.benchmark
    return {
        "schema": SCHEMA,
        "model": task.model,
        "revision": revision_of(lvlm.path),
        "model_type": lvlm.model.config.model_type,
        "layers": lvlm.n_layers,
        "dtype": str(lvlm.computes_in),
        "benchmark": benchmark.name,
        "protocol": task.protocol,
        "data": benchmark.describe(items),
        "mode": benchmark.mode or "",
        "created": now(),
        "environment": environment() | versions() | {"threads": str(torch.get_num_threads())},
        "admission": [f"{name}: {note}" for name, note in lvlm.admission.items()],
    }


def save(record: Record, directory: Path) -> Path:
    """Write a record's file, complete or not at all."""
    path = directory / f"{record.name}.npz"
    arrays = {f"parts/{name}": values for name, values in record.parts.items()}
    arrays |= {f"noise/{stage}": values for stage, values in record.noise.items()}
    for number, reading in enumerate(record.readings):
        arrays |= {f"reading/{number}/{stage}": values for stage, values in reading.items()}
    content = {
        name: value for name, value in asdict(record).items() if name not in ("parts", "noise", "readings")
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
            named: dict[str, dict[str, np.ndarray]] = {"parts": {}, "noise": {}}
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
            return Record(
                **content,
                parts=named["parts"],
                noise=named["noise"],
                readings=[readings[i] for i in range(len(readings))],
            )
    except GateError:
        raise
    except Exception as error:  # zipfile, numpy and json each have their own
        raise GateError(
            f"{path} is no record, or damaged ({type(error).__name__}: {error}): record it anew"
        ) from error
