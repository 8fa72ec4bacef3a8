"""The report as one self-contained HTML page, with its figures as PNG files beside it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from repro import text
from repro.evaluation.environment import environment, now
from repro.evaluation.measured import Curve, HeatRow, MeanShares, Measured, Pointing, RecordedTable, TableRow
from repro.evaluation.results import Recorded
from repro.models.images import thumbnail
from repro.report.cam_figure import figures3_4
from repro.report.figures import figure2, figure5, figure_pointing, png
from repro.report.heat import Heat, heat_of
from repro.report.items import ItemPage
from repro.report.pages import INDEX, NAME, check_writable, render, write
from repro.report.panels import Panel, benchmark_colours, curve_panels, pointing_panels, share_panels
from repro.report.sentences import listed, pointing_sentence, shares_sentence, summaries
from repro.report.table import TABLE_1, model_of, notes

#: Every figure a report may have.
FILES = ("figure-5-truncation.png", "figure-2-shares.png", "figures-3-4-cam.png", "pointing.png")
#: Pixels of a picture under its heat maps.
_SIDE = 160


@dataclass(frozen=True, eq=False)
class Report:
    """Everything the page shows; a section whose list is empty is left out.

    Attributes:
        title: heading of the page.
        command: the command line that produced it.
        created: ISO 8601 date and time, printed unchanged.
        environment: versions and settings.
        table, curves, shares, heats, pointing: the sections, in this order.
        notes: sentences on what was measured.
        recorded: further tables.
        runs: of the results file beside the page.
        lists: pages of items beside it.
    """

    title: str
    command: str
    created: str
    environment: dict[str, str] = field(default_factory=dict)
    table: Sequence[TableRow] = ()
    curves: Sequence[Curve] = ()
    shares: Sequence[MeanShares] = ()
    heats: Sequence[HeatRow] = ()
    pointing: Sequence[Pointing] = ()
    notes: Sequence[str] = ()
    recorded: Sequence[RecordedTable] = ()
    runs: Sequence[Recorded] = ()
    lists: Sequence[ItemPage] = ()


def build(
    parts: Sequence[Measured], command: str, runs: Sequence[Recorded] = (), lists: Sequence[ItemPage] = ()
) -> Report:
    """The report of everything measured in one session.

    If it is of several models, the model's name precedes every benchmark's in figures and tables.
    """
    several = len({model_of(part) for part in parts}) > 1
    sections: dict[str, list[Any]] = defaultdict(list)
    for part in parts:
        prefix = f"{model_of(part)}: " if several else ""
        sections["table"] += part.table
        for name in ("curves", "shares", "heats", "pointing"):
            sections[name] += [replace(row, benchmark=prefix + row.benchmark) for row in getattr(part, name)]
        sections["recorded"] += [(prefix + title, header, rows) for title, header, rows in part.recorded]
    return Report(
        title="Where information flows: Table 1 and its figures",
        command=command,
        created=now(),
        environment=environment(),
        notes=notes(parts),
        runs=runs,
        lists=lists,
        **sections,
    )


@dataclass(frozen=True)
class _Section:
    """A figure of the page: the question it answers, the answers, and the numbers behind it.

    Attributes:
        answers: benchmark and answer.
        key: looks and meanings of what is drawn, see ``parts.html.j2``.
        file, data: the same figure as PNG.
    """

    anchor: str
    heading: str
    question: str
    answers: Sequence[tuple[str, str]]
    caption: str
    key: Sequence[tuple[str, str]]
    file: str
    data: bytes
    panels: Sequence[Panel] = ()
    heats: Sequence[tuple[HeatRow, Heat]] = ()
    numbers: RecordedTable | None = None


def _headed(name: str, n: int) -> str:
    return f"{text.visible(name, NAME)}, n = {n}"


def _cells(means: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> list[str]:
    intervals = zip(means, lows, highs, strict=True)
    return [f"{text.percent(mean)} {text.percent_interval((low, high))}" for mean, low, high in intervals]


def _by_layer(
    title: str, first: int, columns: Sequence[tuple[str, list[str]]], name: str = "layer"
) -> RecordedTable:
    """A row per layer from ``first`` on; columns of fewer layers end early."""
    heads, cells = zip(*columns, strict=True)
    rows = [[str(i), *row] for i, row in enumerate(zip_longest(*cells, fillvalue=""), first)]
    return title, [name, *heads], rows


def _figure5(report: Report, colours: dict[str, str]) -> _Section:
    columns: list[tuple[str, list[str]]] = []
    for curve in report.curves:
        head = _headed(f"{curve.benchmark} {curve.metric}", curve.n)
        marks = ("●" if good else "○" for good in curve.non_inferior)
        cells = zip(_cells(curve.score, curve.low, curve.high), marks, strict=True)
        columns.append((f"{head}, %", [f"{cell} {mark}" for cell, mark in cells]))
        if curve.probability is not None:
            name = f"{head}: probability of the baseline answer's first token, %"
            columns.append((name, list(map(text.percent, curve.probability))))
    answers = [
        (curve.benchmark, f"from layer {text.layer(curve.cliff)} of {len(curve.score) - 1} on {_interval(curve)}")
        for curve in {curve.benchmark: curve for curve in reversed(report.curves)}.values()
    ][::-1]  # fmt: skip
    falls = {row.metric: not row.higher_is_better for row in report.table}
    return _Section(
        "figure-5",
        "Figure 5: score against truncation layer",
        "From which layer on does the score no longer need the image?",
        answers,
        "The image tokens are seen by layers 1 to L and by no layer after (Eqs. 9–13); the rightmost point, "
        "L = N, is the untouched baseline of all items. Filled points are non-inferior to it; the cliff layer "
        "is the first from which on that holds, judged by the benchmark's first metric. The line of the right "
        "axis is the mean probability that the truncated model begins the baseline's answer: of its first "
        "token, which says little about a long answer, as all captions may begin alike.",
        [("dot", "score with its interval; filled: non-inferior to the baseline"), ("baseline", "baseline"),
         ("limit", "worst score the margin allows"), ("cliff", "cliff layer"), ("span", "its interval"),
         ("second", "probability of the baseline answer's first token, right axis")],
        FILES[0],
        png(figure5(report.curves, colours)),
        curve_panels(report.curves, [falls.get(curve.metric, False) for curve in report.curves]),
        numbers=_by_layer("Score in percent, [interval], ● non-inferior, ○ not; by L", 0, columns, "L"),
    )  # fmt: skip


def _interval(curve: Curve) -> str:
    return text.cliff_interval(curve.cliff_interval, curve.caveat)


def _figure2(report: Report, colours: dict[str, str]) -> _Section:
    columns: list[tuple[str, list[str]]] = []
    for part in report.shares:
        head = _headed(part.benchmark, part.n)
        for k, segment in enumerate(("system", "image", "user")):
            columns.append(
                (f"{head}: {segment}, %", _cells(part.mean[:, k], part.low[:, k], part.high[:, k]))
            )
        raw = [" / ".join(map(text.percent, values)) for values in part.raw]
        columns.append((f"{head} before Eq. 7: system / image / user / answer, %", raw))
    return _Section(
        "figure-2",
        "Figure 2: what the answer attends to",
        "Where does the answer look at the image?",
        listed(report.shares, shares_sentence),
        "Share of the answer's attention on system, image and user tokens in each layer, mean over heads and "
        "items (Eqs. 7–8). The three are rescaled to sum to 100 %, as Eq. 7 asks; the table also holds the "
        "shares before that, answer tokens included.",
        [("image", "image tokens"), ("system", "system tokens"), ("user", "user tokens"),
         ("answer", "earlier answer tokens, share before Eq. 7")],
        FILES[1],
        png(figure2(report.shares)),
        share_panels(report.shares),
        numbers=_by_layer("Share of attention in percent [interval], by layer", 1, columns),
    )  # fmt: skip


def _figures3_4(report: Report, colours: dict[str, str]) -> _Section:
    heats = []
    for number, row in enumerate(report.heats):
        image = np.asarray(row.image)
        high, wide = image.shape[:2]
        boxes = [(x / wide, y / high, w / wide, h / high) for x, y, w, h in row.boxes]
        label = text.visible(f"{row.benchmark}: {row.question}", 2 * NAME)
        picture = thumbnail(Image.fromarray(image), _SIDE)
        heats.append((row, heat_of(f"heat-{number}", label, picture, np.asarray(row.heat), boxes)))
    return _Section(
        "figures-3-4",
        "Figures 3–4: LLaVA-CAM at every layer",
        "Which places of the image does the answer depend on? One right answer of each benchmark, layer by layer:",
        [],
        "Where the answer's logits depend on the image, layer by layer (Eqs. 1–5), on the first item with a "
        "right answer; frames hold what the question is about, every object for a caption. Each map is scaled to "
        "its own maximum, so compare places within a layer, not brightness between layers; the last layer is zero "
        "by construction, because nothing after it passes information from image tokens to the answer.",
        [],
        FILES[2],
        png(figures3_4(report.heats)),
        heats=heats,
    )


def _pointing(report: Report, colours: dict[str, str]) -> _Section:
    columns = []
    for part in report.pointing:
        area = f"box {text.percent(part.area_share)} % of the area"
        head = f"{_headed(part.benchmark, part.n)}, {area}, heat inside, %"
        columns.append((head, _cells(part.energy, part.low, part.high)))
    return _Section(
        "pointing",
        "Does the CAM point at the object?",
        "Does the heat point at the object?",
        listed(report.pointing, pointing_sentence),
        "Share of the LLaVA-CAM heat (Eqs. 1–5) that falls inside the boxes of what the question is about, "
        "every object for a caption. Heat spread evenly over the image would lie on the dashed line, the boxes' "
        "share of the area; where a map is all zero, as in the last layer, there is no share. Yes: the interval "
        "lies above the line; no: below; undecided: across it.",
        [("dot", "heat inside the boxes, with its interval"), ("limit", "the boxes' share of the area")],
        FILES[3],
        png(figure_pointing(report.pointing, colours)),
        pointing_panels(report.pointing),
        numbers=_by_layer("Heat inside the boxes in percent [interval], by layer", 1, columns),
    )


def _sections(report: Report) -> list[_Section]:
    rows: tuple[TableRow | Curve | Pointing, ...] = (*report.table, *report.curves, *report.pointing)
    colours = benchmark_colours(row.benchmark for row in rows)
    sections = (
        (report.curves, _figure5),
        (report.pointing, _pointing),
        (report.shares, _figure2),
        (report.heats, _figures3_4),
    )
    return [section(report, colours) for values, section in sections if values]


def _all_items(report: Report) -> list[str]:
    """Of each row of Table 1, the baseline of all items, which Figure 5 shows; empty where it has none."""
    curves = {(curve.benchmark, curve.metric): curve for curve in report.curves}
    shown = []
    for row in report.table:
        names = (f"{row.model}: {row.benchmark}", row.benchmark)
        curve = next((curves[name, row.metric] for name in names if (name, row.metric) in curves), None)
        shown.append(f"all {curve.n} items: {text.percent(curve.score[-1])}" if curve is not None else "")
    return shown


def _subjects(report: Report) -> dict[str, str]:
    def names(rows: Iterable[TableRow]) -> str:
        return ", ".join(text.visible(name, NAME) for name in dict.fromkeys(row.benchmark for row in rows))

    models = dict.fromkeys(row.model for row in report.table)
    return {model: names(row for row in report.table if row.model == model) for model in models}


def _run_rows(runs: Sequence[Recorded]) -> RecordedTable:
    """What each run is of, by digests: the weights, the items, and the code that decides an answer."""
    header = [
        "run",
        "model",
        "benchmark",
        "protocol",
        "n",
        "weights",
        "items",
        "code",
        "dtype",
        "device",
        "started",
    ]
    rows = [
        [run.number, run.model, run.dataset, run.protocol, run.settings.get("n", ""), run.revision[:16],
         str(run.settings.get("items", ""))[:16], run.versions.get("repro", "")[:16],
         run.settings.get("dtype", ""), run.settings.get("device", ""), run.started]
        for run in runs
    ]  # fmt: skip
    return "Runs, with the first 16 digits of SHA-256 of weights, items and code", header, rows


def write_report(report: Report, directory: str | Path, pages: dict[str, bytes] | None = None) -> Path:
    """Write ``index.html``, whose path is returned, and its figures; the same report gives the same bytes.

    The PNG files beside the page are for reuse. A figure that an earlier report left and this one does not have is
    removed. The directory is created if missing; ReportError as in ``check_writable``.

    Args:
        pages: further pages, by name: those of items.
    """
    directory = Path(directory)
    check_writable(directory)
    sections = _sections(report)
    files = {section.file: section.data for section in sections}
    page = render(
        "index.html.j2",
        report=report,
        sections=sections,
        subjects=_subjects(report),
        summaries=summaries(report.table),
        columns=TABLE_1,
        csv_rows=lambda rows, columns: [[column.line(row) for column in columns] for row in rows],
        everywhere=_all_items(report),
        runs=_run_rows(report.runs),
    )
    write(directory, {**files, **(pages or {}), INDEX: page}, stale=set(FILES) - set(files))
    return directory / INDEX
