"""From an evaluation to the sections of the report, and to and from a file, so that workers can hand them over."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from repro.cliff import MARGIN, HeldOut, compare, halves, held_out
from repro.evaluation.flow import Box, coverage, energy_inside, heat_maps, mean_shares, spread
from repro.evaluation.run import Evaluation
from repro.models.lvlm import Lvlm, read_image
from repro.protocols import find_task
from repro.report.data import Curve, HeatRow, Pointing, RecordedTable, Shares, TableRow
from repro.report.tables import tables

#: Items behind Figure 2 and behind the pointing figures: enough for intervals of a few points.
FLOW_ITEMS = 60
#: Items boxes are known for -> boxes in pixels of their image file, which the model may see larger or smaller.
Boxes = Callable[[Any], Sequence[Box]]


@dataclass(frozen=True, eq=False)
class Measured:
    """All that one model on one benchmark adds to the report.

    ``checkpoint`` is the directory of a checkpoint the user named, empty for a shipped miniature.
    """

    checkpoint: str
    table: list[TableRow]
    curves: list[Curve]
    shares: list[Shares]
    heats: list[HeatRow]
    pointing: list[Pointing]
    recorded: list[RecordedTable]


def cliff_of(evaluation: Evaluation, margin: float = MARGIN) -> HeldOut:
    """The cliff layer by the benchmark's first metric, chosen on half of the images, reported on the other."""
    metric = evaluation.benchmark.metrics[0]
    parts = evaluation.parts[metric.name]
    return held_out(parts, evaluation.strata, evaluation.images, metric.higher_is_better, margin)


def table_rows(evaluation: Evaluation, held: HeldOut) -> list[TableRow]:
    """One row per metric; its scores are from the images that had no part in choosing the layer."""
    rows = []
    strata, images = np.array(evaluation.strata), np.array(evaluation.images)
    reporting = ~halves(strata, evaluation.images)
    for metric in evaluation.benchmark.metrics:
        seen = compare(
            evaluation.parts[metric.name][reporting],
            strata[reporting],
            metric.higher_is_better,
            clusters=images[reporting].tolist(),
        )
        at, sign = held.cliff.layer, 1 if metric.higher_is_better else -1
        interval = sorted((sign * float(seen.low[at]), sign * float(seen.high[at])))
        rows.append(
            TableRow(
                model=evaluation.model,
                benchmark=evaluation.benchmark.title,
                metric=metric.name,
                higher_is_better=metric.higher_is_better,
                n=held.reported_on,
                baseline=float(seen.score[-1]),
                baseline_interval=(float(seen.score_low[-1]), float(seen.score_high[-1])),
                cliff=at,
                cliff_interval=held.cliff.interval,
                at_cliff=float(seen.score[at]),
                at_cliff_interval=(float(seen.score_low[at]), float(seen.score_high[at])),
                difference=float(seen.score[at] - seen.score[-1]),
                difference_interval=(interval[0], interval[1]),
                n_layers=len(seen.score) - 1,
                chosen_on=held.chosen_on,
                protocol=evaluation.protocol,
                data=evaluation.data,
            )
        )
    return rows


def curves(evaluation: Evaluation, held: HeldOut) -> list[Curve]:
    """Figure 5, one curve per metric, all items; the cliff layer is the first metric's."""
    drawn = []
    for metric in evaluation.benchmark.metrics:
        seen = compare(
            evaluation.parts[metric.name],
            evaluation.strata,
            metric.higher_is_better,
            clusters=evaluation.images,
        )
        sign = 1 if metric.higher_is_better else -1
        decides = metric is evaluation.benchmark.metrics[0]
        drawn.append(
            Curve(
                benchmark=evaluation.benchmark.title,
                metric=metric.name,
                score=seen.score,
                low=seen.score_low,
                high=seen.score_high,
                cliff=held.cliff.layer,
                cliff_interval=held.cliff.interval,
                non_inferior=held.cliff.non_inferior if decides else seen.low > -held.cliff.margin,
                chance=None,
                probability=evaluation.probability.mean(axis=0) if decides else None,
                limit=float(seen.score[-1] - sign * held.cliff.margin),
                n=len(evaluation.items),
            )
        )
    return drawn


def mean_shares_of(lvlm: Lvlm, evaluation: Evaluation) -> Shares:
    """Figure 2 of one benchmark."""
    raw, paper = mean_shares(lvlm, evaluation, FLOW_ITEMS)
    half = 1.96 * paper.std(axis=0, ddof=1) / np.sqrt(len(paper))
    mean = paper.mean(axis=0)
    return Shares(evaluation.benchmark.title, mean, mean - half, mean + half, raw.mean(axis=0), n=len(paper))


def heat_sections(lvlm: Lvlm, evaluation: Evaluation, boxes: Boxes) -> tuple[list[HeatRow], list[Pointing]]:
    """Figures 3-4 for the first item with boxes answered as wanted, and the pointing of up to FLOW_ITEMS.

    Items whose baseline answer scores nothing are left out: their heat explains a mistake. Nothing where image
    tokens have no place in the picture. Boxes are of square pictures, which no model pads: what the model sees is
    the whole file, in another size.
    """
    metric = evaluation.benchmark.metrics[0]
    part = evaluation.parts[metric.name][:, -1, 0]
    right = part > 0 if metric.higher_is_better else part == 0
    known = [i for i, item in enumerate(evaluation.items) if right[i] and boxes(item)]
    chosen = spread(known, FLOW_ITEMS)
    if not chosen:
        return [], []
    if not evaluation.prompt(lvlm, chosen[0]).spatial:
        return [], []
    maps = heat_maps(lvlm, evaluation, chosen)
    energy, area = [], []
    for i, heat in zip(chosen, maps, strict=True):
        item = evaluation.items[i]
        assert item.image is not None, "an item with boxes was asked about a picture"
        covered = coverage(boxes(item), read_image(item.image).size, heat.shape[1:])
        energy.append(energy_inside(heat, covered))
        area.append(covered.mean())
    points = np.stack(energy)
    known_at = np.isfinite(points).sum(axis=0)
    mean, half = np.full(points.shape[1], np.nan), np.full(points.shape[1], np.nan)
    for layer in np.flatnonzero(known_at > 1):
        values = points[np.isfinite(points[:, layer]), layer]
        mean[layer], half[layer] = values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    first = evaluation.items[chosen[0]]
    prompt = evaluation.prompt(lvlm, chosen[0])
    task = find_task(evaluation.protocol, evaluation.model, evaluation.benchmark.name)
    assert first.image is not None, "an item with boxes was asked about a picture"
    wide, high = np.array(prompt.image.size) / read_image(first.image).size
    x, y, width, height = boxes(first)[0]
    row = HeatRow(
        benchmark=evaluation.benchmark.title,
        question=task.ask(first).replace("\n", " "),
        answer=evaluation.answers[chosen[0]].text,
        image=np.asarray(prompt.image),
        heat=maps[0],
        box=(x * wide, y * high, width * wide, height * high),
    )
    title = evaluation.benchmark.title
    return [row], [Pointing(title, mean, mean - half, mean + half, float(np.mean(area)), len(chosen))]


def measure(lvlm: Lvlm, evaluation: Evaluation, held: HeldOut, boxes: Boxes | None) -> Measured:
    """Everything the report shows of one model on one benchmark; ``boxes=None`` leaves the pointing out."""
    shipped = lvlm.path == lvlm.card.miniature
    heats, pointing = heat_sections(lvlm, evaluation, boxes) if boxes else ([], [])
    return Measured(
        checkpoint="" if shipped else str(lvlm.path),
        table=table_rows(evaluation, held),
        curves=curves(evaluation, held),
        shares=[mean_shares_of(lvlm, evaluation)],
        heats=heats,
        pointing=pointing,
        recorded=tables(lvlm, evaluation),
    )


def save(measured: Measured, path: Path) -> None:
    """Write to an npz file: arrays as they are, everything else as one JSON text; nothing is pickled."""
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"a{len(arrays)}"] = value
            return {"array": f"a{len(arrays) - 1}"}
        if isinstance(value, np.generic):
            return value.item()
        if hasattr(value, "__dataclass_fields__"):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    text = json.dumps(plain(measured))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".partial")
    with whole.open("wb") as file:
        np.savez(file, allow_pickle=False, text=np.array(text), **arrays)
    whole.replace(path)


def load(path: Path) -> Measured:
    """Read what ``save`` wrote."""
    with np.load(path, allow_pickle=False) as arrays:

        def restored(value: Any) -> Any:
            if isinstance(value, dict) and list(value) == ["array"]:
                return arrays[value["array"]]
            if isinstance(value, dict):
                return {key: restored(v) for key, v in value.items()}
            return tuple(restored(v) for v in value) if isinstance(value, list) else value

        content = restored(json.loads(str(arrays["text"])))
    kinds = {"table": TableRow, "curves": Curve, "shares": Shares, "heats": HeatRow, "pointing": Pointing}
    made = {name: [kind(**row) for row in content[name]] for name, kind in kinds.items()}
    return Measured(
        checkpoint=content["checkpoint"], **made, recorded=[tuple(table) for table in content["recorded"]]
    )
