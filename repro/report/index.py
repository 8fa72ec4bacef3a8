"""The report as one self-contained HTML page, with its figures as PNG files beside it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from repro import text
from repro.evaluation.environment import environment, now
from repro.evaluation.measured import Curve, HeatRow, MeanShares, Measured, Pointing, RecordedTable, TableRow
from repro.report.cam_figure import figures3_4
from repro.report.figures import benchmark_colours, figure2, figure5, figure_pointing, png
from repro.report.pages import INDEX, NAME, check_writable, data_uri, render, write
from repro.report.table import TABLE_1, model_of, notes

#: Every figure a report may have.
FILES = ("figure-5-truncation.png", "figure-2-shares.png", "figures-3-4-cam.png", "pointing.png")


@dataclass(frozen=True, eq=False)
class Report:
    """Everything the page shows; a section whose list is empty is left out.

    Attributes:
        title: heading of the page.
        command: the command line that produced it.
        created: ISO 8601 date and time, printed unchanged.
        environment: versions and settings.
        table, curves, shares, heats, pointing: the sections, in this order.
        notes: sentences on what was measured, shown first.
        recorded: further tables.
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


def build(parts: Sequence[Measured], command: str) -> Report:
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
        **sections,
    )


@dataclass(frozen=True)
class _Section:
    """A figure as PNG, its caption, alternative text and the numbers behind it."""

    anchor: str
    heading: str
    caption: str
    alt: str
    file: str
    data: bytes
    numbers: RecordedTable | None = None
    quotes: Sequence[HeatRow] = ()

    @property
    def uri(self) -> Markup:
        return data_uri(self.data)

    @property
    def pixels(self) -> tuple[int, int]:
        return int.from_bytes(self.data[16:20], "big"), int.from_bytes(self.data[20:24], "big")  # IHDR


def _listed(names: Iterable[str]) -> str:
    return ", ".join(text.visible(name, NAME) for name in dict.fromkeys(names))


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
    cliffs = "; ".join(
        f"{_listed([f'{c.benchmark} {c.metric}'])}: baseline {text.percent(c.score[-1])} %, "
        f"cliff layer {text.layer(c.cliff)} {text.cliff_interval(c.cliff_interval, c.caveat)}"
        for c in report.curves
    )
    return _Section(
        "figure-5",
        "Figure 5: score against truncation layer",
        "The image tokens are seen by layers 1 to L and by no layer after (Eqs. 9–13); the rightmost point, "
        "L = N, is the untouched baseline. Filled points are non-inferior to the baseline; the cliff layer "
        "is the first from which on that holds, judged by the benchmark's first metric. The line of the right "
        "axis is the mean probability that the truncated model begins the baseline's answer: of its first "
        "token, which says little about a long answer, as all captions may begin alike.",
        f"Line charts of the score at every truncation layer. {cliffs}.",
        FILES[0],
        png(figure5(report.curves, colours)),
        _by_layer("Score in percent, [interval], ● non-inferior, ○ not; by L", 0, columns, "L"),
    )


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
    ends = "; ".join(
        f"{_listed([part.benchmark])}: image share {text.percent(part.mean[0, 1])} % in layer 1, "
        f"{text.percent(part.mean[-1, 1])} % in layer {len(part.mean)}"
        for part in report.shares
    )
    return _Section(
        "figure-2",
        "Figure 2: what the answer attends to",
        "Share of the answer's attention on system, image and user tokens in each layer, mean over heads and "
        "items (Eqs. 7–8). The three are rescaled to sum to 100 %, as Eq. 7 asks; the table also holds the "
        "shares before that, answer tokens included.",
        f"Line charts of the attention on system, image and user tokens per layer. {ends}.",
        FILES[1],
        png(figure2(report.shares)),
        _by_layer("Share of attention in percent [interval], by layer", 1, columns),
    )


def _figures3_4(report: Report, colours: dict[str, str]) -> _Section:
    return _Section(
        "figures-3-4",
        "Figures 3–4: LLaVA-CAM at every layer",
        "Where the answer's logits depend on the image, layer by layer (Eqs. 1–5); frames hold what the "
        "question is about, every object for a caption. Each map is scaled to its own maximum, so compare places "
        "within a layer, not brightness between layers; the last layer is zero by construction, because nothing "
        "after it passes information from image tokens to the answer.",
        f"Heat maps over the image at every layer for {_listed(row.benchmark for row in report.heats)}.",
        FILES[2],
        png(figures3_4(report.heats), 800_000),
        quotes=report.heats,
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
        "Share of the LLaVA-CAM heat (Eqs. 1–5) that falls inside the boxes of what the question is about, "
        "every object for a caption. Heat spread evenly over the image would lie on the dashed line, the boxes' "
        "share of the area; where a "
        "map is all zero, as in the last layer, there is no share.",
        "Line charts of the heat inside the boxes per layer for "
        f"{_listed(part.benchmark for part in report.pointing)}.",
        FILES[3],
        png(figure_pointing(report.pointing, colours)),
        _by_layer("Heat inside the boxes in percent [interval], by layer", 1, columns),
    )


def _sections(report: Report) -> list[_Section]:
    rows: tuple[TableRow | Curve | Pointing, ...] = (*report.table, *report.curves, *report.pointing)
    colours = benchmark_colours(row.benchmark for row in rows)
    sections = (
        (report.curves, _figure5),
        (report.shares, _figure2),
        (report.heats, _figures3_4),
        (report.pointing, _pointing),
    )
    return [section(report, colours) for values, section in sections if values]


def write_report(report: Report, directory: str | Path) -> Path:
    """Write ``index.html``, whose path is returned, and its figures; the same report gives the same bytes.

    The page embeds its figures; the PNG files beside it are for reuse. A figure that an earlier report left and
    this one does not have is removed. The directory is created if missing; ReportError as in ``check_writable``.
    """
    directory = Path(directory)
    check_writable(directory)
    sections = _sections(report)
    subjects = {
        model: _listed(row.benchmark for row in report.table if row.model == model)
        for model in dict.fromkeys(row.model for row in report.table)
    }
    files = {section.file: section.data for section in sections}
    page = render("index.html.j2", report=report, sections=sections, subjects=subjects, columns=TABLE_1)
    write(directory, {**files, INDEX: page}, stale=set(FILES) - set(files))
    return directory / INDEX
