"""One model on one benchmark: answers at every truncation layer, the cliff layer, all that the report shows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from repro.admission import Admitted, admission
from repro.attention import attention_shares
from repro.benchmarks import coco, find_benchmark, miniworld
from repro.benchmarks.benchmark import Benchmark, Item, image_names
from repro.benchmarks.files import Box
from repro.cliff import MARGIN, HeldOut, UndefinedScore, compare, held_out
from repro.evaluation.breakdown import tables
from repro.evaluation.flow import coverage, energy_inside, heat_maps, mean_shares, seen_part, spread
from repro.evaluation.measured import (
    Curve,
    HeatRow,
    ItemFlow,
    MeanShares,
    Measured,
    Pointing,
    TableRow,
    save,
)
from repro.evaluation.results import NAME, Results
from repro.evaluation.run import Evaluation, Progress, begin, evaluate, limited
from repro.evaluation.shards import Shard, measure_shard
from repro.models.images import read_image, thumbnail
from repro.models.lvlm import Lvlm
from repro.models.rounding import NotAdmitted
from repro.protocols import find_task
from repro.protocols.task import Task
from repro.scores import TooFew, choosing_half

#: Items behind Figure 2 and behind the pointing: enough for intervals of a few points.
FLOW_ITEMS = 60
#: Further items with heat maps, for the list of items: those whose score is another at the cliff layer.
FLIPPED = 12
#: Failed items that a message names, at most.
SHOWN = 20
#: Item -> boxes in pixels of its image file, which the model may see larger or smaller; empty if none are known.
Boxes = Callable[[Item], Sequence[Box]]
#: Boxes in what a model sees of an image, and the width and height of that, all in pixels of the image file.
Framed = tuple[list[Box], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Table1:
    """The result of ``table1``.

    Attributes:
        evaluation: every answer and score.
        held: the cliff layer and the score at it, each from its own half of the images.
        measured: all that the report shows; ``path`` is its file.
        run: number of the run in ``results.sqlite``.
    """

    evaluation: Evaluation
    held: HeldOut
    measured: Measured
    path: Path
    run: int


def table1(
    lvlm: Lvlm,
    benchmark: Benchmark | str,
    data: Path = miniworld.DIRECTORY,
    *,
    protocol: str = "official",
    margin: float = MARGIN,
    limit: int | None = None,
    report: Path = Path("report"),
    resume: bool = True,
    progress: bool | Progress = True,
) -> Table1:
    """Measure a model on a benchmark at every truncation layer.

    Answers go to ``report/results.sqlite`` as they come, and an interrupted run continues from there; what the
    report shows goes to ``report/measured/``.

    Args:
        benchmark: the benchmark or its name.
        data: directory of the benchmarks, in the published layouts.
        protocol: the wording of questions, decoding, reading and scoring.
        margin: largest loss that counts as none, in units of the score.
        limit: most items of each stratum and kind.
        progress: show items/s and the time left on stderr, or call this instead; see ``evaluate``.

    Raises:
        DataError: the data cannot be used.
        NotAdmitted: image tokens cannot be truncated exactly in this model; the message has the reason.
        ProtocolError: the protocol does not define the benchmark for the model.
        TooFew, UndefinedScore: too few images for two halves; no baseline to compare with.
        ResultsError, OSError: results cannot be written.
    """
    task, items, admitted = prepared(lvlm, benchmark, data, protocol, limit)
    benchmark = task.benchmark
    boxes = known_boxes(benchmark, data, items) if admitted["cam"].admitted else None
    with closing(Results(report / NAME, new=True)) as results:
        run = begin(results, lvlm, task, items, resume)
        evaluation = evaluate(lvlm, task, items, run, progress=progress)
    name = f"{task.model}-{benchmark.name}-{task.protocol}"
    path = report / "measured" / f"{name}.npz"
    try:
        held = held_out(evaluation.scores(), margin)
        measured = measure(lvlm, evaluation, held, boxes, admitted)
        save(measured, path)
    except (UndefinedScore, TooFew, OSError) as error:
        text = f"{name}: {error}; the answers are in {report / NAME}. {failures(evaluation)}"
        raise type(error)(text) from error
    return Table1(evaluation, held, measured, path, run.number)


def prepared(
    lvlm: Lvlm, benchmark: Benchmark | str, data: Path, protocol: str, limit: int | None
) -> tuple[Task, list[Item], dict[str, Admitted]]:
    """What ``table1`` is about to answer, looked at before anything long starts; its errors."""
    benchmark = find_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    task = find_task(protocol, lvlm.card.name, benchmark)
    admitted = {outcome.instrument: outcome for outcome in admission(lvlm)}
    for instrument in ("prompt", "truncation"):
        if instrument in admitted and not admitted[instrument].admitted:
            raise NotAdmitted(f"{lvlm.card.name} cannot be truncated: {admitted[instrument].note}")
    loaded = benchmark.load(data)
    items = limited(loaded, limit)
    try:
        halve(items)
    except TooFew as error:
        raise TooFew(f"too few images of {benchmark.title}: {error}{least_limit(loaded, limit)}") from None
    return task, items, admitted


def known_boxes(benchmark: Benchmark, data: Path, items: Sequence[Item]) -> Boxes | None:
    """Boxes of what items are about: of the miniatures, or COCO's for POPE and CHAIR; None if none are there."""
    if (data / "boxes.json").is_file():
        miniworld.read_boxes(data)
        return partial(miniworld.asked_boxes, directory=data)
    if benchmark.name not in ("pope", "chair") or (path := coco.find_instances(data)) is None:
        return None
    boxes = coco.read_boxes(path, benchmark, items)
    return lambda item: boxes.get(item.id, [])


def shard_of_table1(
    lvlm: Lvlm,
    benchmark: Benchmark | str,
    data: Path,
    shard: Shard,
    *,
    protocol: str = "official",
    limit: int | None = None,
    report: Path = Path("report"),
    progress: bool = True,
) -> Path:
    """The answers of one shard alone, into ``report/shards/``; see ``table1``, which goes on from their merge."""
    task, items, _ = prepared(lvlm, benchmark, data, protocol, limit)
    return measure_shard(lvlm, task, items, shard, report, progress)


def halve(items: Sequence[Item]) -> np.ndarray:
    """Which items choose the cliff layer; TooFew if they do not make two halves."""
    return choosing_half([item.stratum for item in items], image_names(items))


def least_limit(items: Sequence[Item], limit: int | None) -> str:
    """The next limit above ``limit`` that leaves enough images for two halves, in words; empty if none does."""
    for larger in range(limit + 1, len(items) + 1) if limit is not None else ():
        try:
            halve(limited(items, larger))
        except TooFew:
            continue
        return f"; --limit {larger} is the least"
    return ""


def failures(evaluation: Evaluation) -> str:
    """How many items failed, with the reasons of the first ones."""
    reasons = list(evaluation.failed.values())
    count = len(evaluation.items) + len(reasons)
    return f"{len(reasons)} of {count} items failed\n" + "\n".join(reasons[:SHOWN])


def measure(
    lvlm: Lvlm,
    evaluation: Evaluation,
    held: HeldOut,
    boxes: Boxes | None,
    admitted: Mapping[str, Admitted] = MappingProxyType({}),
) -> Measured:
    """Everything the report shows of one model on one benchmark that its instruments are admitted to.

    Args:
        boxes: None: heat maps, and no pointing.
        admitted: by instrument; one that is not in it is known.
    """
    refused = {name for name, outcome in admitted.items() if not outcome.admitted}
    shipped = lvlm.path == lvlm.card.miniature
    maps: dict[int, np.ndarray] = {}
    heats, pointing = ([], []) if "cam" in refused else heat_sections(lvlm, evaluation, boxes, maps)
    return Measured(
        checkpoint="" if shipped else str(lvlm.path),
        table=table_rows(evaluation, held),
        curves=curves(evaluation, held),
        shares=[] if "shares" in refused else [shares_of(lvlm, evaluation)],
        heats=heats,
        pointing=pointing,
        recorded=tables(lvlm, evaluation, held),
        admission=[str(one) for one in admitted.values() if not (lvlm.known and one.admitted)],
        flows=flows(lvlm, evaluation, held.cliff.layer, maps, refused),
    )


def flows(
    lvlm: Lvlm, evaluation: Evaluation, cliff: int, maps: dict[int, np.ndarray], refused: Collection[str]
) -> list[ItemFlow]:
    """Shares and heat of the items that have heat maps, by index, and of ``FLIPPED`` that flip at the cliff."""
    goodness = evaluation.scores().goodness
    flipped = np.flatnonzero(goodness[:, cliff] != goodness[:, -1]).tolist()[:FLIPPED]
    indices = sorted({*maps, *flipped}) or spread(range(len(evaluation.items)), FLOW_ITEMS)
    if maps:  # the instrument is admitted, and image tokens have places
        missing = [i for i in flipped if i not in maps]
        maps = maps | dict(zip(missing, heat_maps(lvlm, evaluation, missing), strict=True))
    seen = []
    for i in indices:
        shares, heat, picture = np.empty((0, 4)), np.empty((0, 0, 0), np.uint8), b""
        if "shares" not in refused:
            prompt, ids = evaluation.prompt(lvlm, i), evaluation.answers[i].ids[:-1]
            shares = attention_shares(lvlm, prompt, ids).raw.mean(axis=1)
        if i in maps:
            heat = np.rint(255 * np.nan_to_num(maps[i])).astype(np.uint8)
            picture = thumbnail(evaluation.prompt(lvlm, i).image)
        seen.append(ItemFlow(evaluation.items[i].id, shares, heat, np.frombuffer(picture, np.uint8)))
    return seen


def table_rows(evaluation: Evaluation, held: HeldOut) -> list[TableRow]:
    """One row per metric, with scores from the images that had no part in choosing the layer."""
    rows = []
    task, at = evaluation.task, held.cliff.layer
    for metric in evaluation.benchmark.metrics:
        compared = compare(evaluation.scores(metric.name).halves()[1])
        difference, interval = compared.change(at)
        rows.append(
            TableRow(
                model=task.model,
                benchmark=evaluation.benchmark.title,
                metric=metric.name,
                higher_is_better=metric.higher_is_better,
                n=held.reported_on,
                baseline=float(compared.score[-1]),
                baseline_interval=compared.score_interval(-1),
                cliff=at,
                cliff_interval=held.cliff.interval,
                at_cliff=float(compared.score[at]),
                at_cliff_interval=compared.score_interval(at),
                difference=difference,
                difference_interval=interval,
                n_layers=len(compared.score) - 1,
                chosen_on=held.chosen_on,
                margin=held.cliff.margin,
                protocol=task.protocol,
                data=evaluation.data,
                caveat=held.caveat,
            )
        )
    return rows


def curves(evaluation: Evaluation, held: HeldOut) -> list[Curve]:
    """Figure 5, one curve per metric, all items; the cliff layer is the first metric's."""
    margin, panels = held.cliff.margin, []
    for metric in evaluation.benchmark.metrics:
        compared = compare(evaluation.scores(metric.name))
        decides = metric is evaluation.benchmark.metrics[0]
        panels.append(
            Curve(
                benchmark=evaluation.benchmark.title,
                metric=metric.name,
                score=compared.score,
                low=compared.score_low,
                high=compared.score_high,
                cliff=held.cliff.layer,
                cliff_interval=held.cliff.interval,
                non_inferior=held.cliff.non_inferior if decides else compared.non_inferior(margin),
                probability=evaluation.probability.mean(axis=0) if decides else None,
                limit=compared.worst_allowed(margin),
                n=len(evaluation.items),
                caveat=held.caveat,
            )
        )
    return panels


def shares_of(lvlm: Lvlm, evaluation: Evaluation) -> MeanShares:
    """Figure 2 of one benchmark."""
    raw, paper = mean_shares(lvlm, evaluation, FLOW_ITEMS)
    half = 1.96 * paper.std(axis=0, ddof=1) / np.sqrt(len(paper))
    mean = paper.mean(axis=0)
    title = evaluation.benchmark.title
    return MeanShares(title, mean, mean - half, mean + half, raw.mean(axis=0), n=len(paper))


def heat_sections(
    lvlm: Lvlm, evaluation: Evaluation, boxes: Boxes | None, maps: dict[int, np.ndarray] | None = None
) -> tuple[list[HeatRow], list[Pointing]]:
    """Figures 3-4 for the first item with boxes and a right answer, and the pointing of up to FLOW_ITEMS items.

    Items whose baseline answer scores 0 are left out: their heat explains a mistake. Empty if image tokens have no
    place in the image. Without boxes there are heat maps of any right answers, and no pointing.

    Args:
        maps: receives the heat maps, by index of the item.
    """
    right = evaluation.scores().goodness[:, -1] > 0
    usable = [i for i, item in enumerate(evaluation.items) if right[i] and (boxes is None or boxes(item))]
    indices = spread(usable, FLOW_ITEMS)
    if not indices or not evaluation.prompt(lvlm, indices[0]).spatial:
        return [], []
    maps = {} if maps is None else maps
    maps |= zip(indices, heat_maps(lvlm, evaluation, indices), strict=True)
    seen = cache(partial(seen_part, lvlm))  # most images of a benchmark have the size of others
    framed = {i: boxes_seen(evaluation.items[i], boxes, seen) for i in indices} if boxes else {}
    row = heat_row(lvlm, evaluation, indices[0], maps[indices[0]], framed.get(indices[0]))
    if boxes is None:
        return [row], []
    energy, area = [], []
    for index, heat in maps.items():
        covered = coverage(*framed[index], heat.shape[1:])
        energy.append(energy_inside(heat, covered))
        area.append(covered.mean())
    return [row], [pointing_of(evaluation.benchmark.title, np.stack(energy), float(np.mean(area)))]


def pointing_of(title: str, energy: np.ndarray, area_share: float) -> Pointing:
    """Mean and interval per layer of the heat inside the boxes [items, N], NaN where a map is all zero."""
    defined = np.isfinite(energy)
    mean, half = np.full((2, energy.shape[1]), np.nan)
    for layer in np.flatnonzero(defined.sum(axis=0) > 1):
        values = energy[defined[:, layer], layer]
        mean[layer], half[layer] = values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return Pointing(title, mean, mean - half, mean + half, area_share, len(energy))


def heat_row(
    lvlm: Lvlm, evaluation: Evaluation, index: int, heat: np.ndarray, framed: Framed | None
) -> HeatRow:
    """The maps [N, h, w] of one item over the image as the model sees it, with its boxes, if any are known."""
    item, prompt = evaluation.items[index], evaluation.prompt(lvlm, index)
    boxes, size = framed or ([], prompt.image.size)
    wide, high = np.array(prompt.image.size) / size
    return HeatRow(
        benchmark=evaluation.benchmark.title,
        question=evaluation.task.ask(item).replace("\n", " "),
        answer=evaluation.answers[index].text,
        image=np.asarray(prompt.image),
        heat=heat,
        boxes=[(x * wide, y * high, width * wide, height * high) for x, y, width, height in boxes],
    )


def boxes_seen(
    item: Item, boxes: Boxes, seen: Callable[[tuple[int, int]], tuple[int, int, int, int]]
) -> Framed:
    """An item's boxes in what the model sees of its image.

    Args:
        seen: what it sees of an image of a size, see ``seen_part``.
    """
    assert item.image is not None, "an item with boxes has an image"
    left, top, width, height = seen(read_image(item.image).size)
    return [(x - left, y - top, wide, high) for x, y, wide, high in boxes(item)], (width, height)
