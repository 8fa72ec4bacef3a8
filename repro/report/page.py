"""The report as one self-contained HTML page, with its figures as PNG files beside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from repro import text
from repro.evaluation.measured import Curve, HeatRow, MeanShares, Pointing, RecordedTable, TableRow
from repro.report.cam_figure import figures3_4
from repro.report.columns import NAME, TABLE_1
from repro.report.figures import benchmark_colours, figure2, figure5, figure_pointing, png
from repro.report.pages import INDEX, check_writable, render, write

#: Every figure a report may have.
FILES = ("figure-5-truncation.png", "figure-2-shares.png", "figures-3-4-cam.png", "pointing.png")


@dataclass(frozen=True, eq=False)
class Report:
    """Everything the page shows; a section whose list is empty is left out.

    Attributes:
        title: heading of the page.
        command: the command line that produced it.
        created: ISO 8601 date and time, printed as given.
        environment: versions and settings.
        table, curves, shares, heats, pointing: the sections, in the order given.
        notes: sentences on what was measured on what, shown first.
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


@dataclass(frozen=True)
class _Section:
    """A figure and what belongs to it: caption, alternative text, the numbers behind it."""

    anchor: str
    heading: str
    caption: str
    alt: str
    file: str
    figure: Callable[[], Figure]
    numbers: RecordedTable | None = None
    quotes: Sequence[HeatRow] = ()
    max_bytes: int = 200_000
    data: bytes = b""

    @property
    def uri(self) -> Markup:
        return Markup("data:image/png;base64," + base64.b64encode(self.data).decode())

    @property
    def pixels(self) -> tuple[int, int]:
        return int.from_bytes(self.data[16:20], "big"), int.from_bytes(self.data[20:24], "big")  # IHDR


def _listed(names: Sequence[str]) -> str:
    return ", ".join(text.visible(name, NAME) for name in dict.fromkeys(names))


def _headed(name: str, n: int | None) -> str:
    name = text.visible(name, NAME)
    return name if n is None else f"{name}, n = {n}"


def _interval_cell(mean: float, low: float, high: float) -> str:
    return f"{text.percent(mean)} {text.percent_interval((low, high))}"


def _by_layer(
    title: str, first: int, columns: Sequence[tuple[str, Sequence[str]]], name: str = "layer"
) -> RecordedTable:
    """One line per layer from ``first`` on; columns of fewer layers end early."""
    longest = max(len(cells) for _, cells in columns)
    rows = [
        [str(first + i), *(cells[i] if i < len(cells) else "" for _, cells in columns)]
        for i in range(longest)
    ]
    return title, [name, *(head for head, _ in columns)], rows


def _figure5(report: Report, colours: dict[str, str]) -> _Section:
    def cells(curve: Curve) -> list[str]:
        values = zip(curve.score, curve.low, curve.high, curve.non_inferior, strict=True)
        return [f"{_interval_cell(s, low, high)} {'●' if good else '○'}" for s, low, high, good in values]

    columns: list[tuple[str, Sequence[str]]] = []
    for curve in report.curves:
        head = _headed(f"{curve.benchmark} {curve.metric}", curve.n)
        columns.append((f"{head}, %", cells(curve)))
        if curve.probability is not None:
            columns.append((f"{head}: probability, %", [text.percent(p) for p in curve.probability]))
    cliffs = "; ".join(
        f"{_listed([f'{c.benchmark} {c.metric}'])}: baseline {text.percent(c.score[-1])} %, "
        f"cliff layer {text.layer(c.cliff)} {text.layer_interval(c.cliff_interval)}"
        for c in report.curves
    )
    return _Section(
        "figure-5",
        "Figure 5: score against truncation layer",
        "The image tokens are seen by layers 1 to L and by no layer after (Eqs. 9–13); the rightmost point, "
        "L = N, is the untouched baseline. Filled points are non-inferior to the baseline; the cliff layer "
        "is the first from which on that holds, judged by the benchmark's first metric.",
        f"Line charts of the score at every truncation layer. {cliffs}.",
        FILES[0],
        lambda: figure5(report.curves, colours),
        _by_layer("Score in percent, [interval], ● non-inferior, ○ not; by L", 0, columns, "L"),
    )


def _figure2(report: Report) -> _Section:
    columns: list[tuple[str, Sequence[str]]] = []
    for part in report.shares:
        head = _headed(part.benchmark, part.n)
        for k, segment in enumerate(("system", "image", "user")):
            values = zip(part.mean[:, k], part.low[:, k], part.high[:, k], strict=True)
            columns.append((f"{head}: {segment}, %", [_interval_cell(*v) for v in values]))
        raw = [" / ".join(text.percent(value) for value in values) for values in part.raw]
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
        lambda: figure2(report.shares),
        _by_layer("Share of attention in percent [interval], by layer", 1, columns),
    )


def _figures3_4(report: Report) -> _Section:
    return _Section(
        "figures-3-4",
        "Figures 3–4: LLaVA-CAM at every layer",
        "Where the answer's logits depend on the image, layer by layer (Eqs. 1–5); the frame is the object "
        "asked about. Each map is scaled to its own maximum, so compare places within a layer, not "
        "brightness between layers; the last layer is zero by construction, because nothing after it passes "
        "information from image tokens to the answer.",
        f"Heat maps over the picture at every layer for {_listed([row.benchmark for row in report.heats])}.",
        FILES[2],
        lambda: figures3_4(report.heats),
        quotes=report.heats,
        max_bytes=800_000,
    )


def _pointing(report: Report, colours: dict[str, str]) -> _Section:
    def head(part: Pointing) -> str:
        area = f"box {text.percent(part.area_share)} % of the area"
        return f"{_headed(part.benchmark, part.n)}, {area}, heat inside, %"

    columns = [
        (head(part), [_interval_cell(*v) for v in zip(part.energy, part.low, part.high, strict=True)])
        for part in report.pointing
    ]
    return _Section(
        "pointing",
        "Does the CAM point at the object?",
        "Share of the LLaVA-CAM heat (Eqs. 1–5) that falls inside the box of the object asked about. Heat "
        "spread evenly over the picture would lie on the dashed line, the box's share of the area; where a "
        "map is all zero, as in the last layer, there is no share.",
        "Line charts of the heat inside the object's box per layer for "
        f"{_listed([part.benchmark for part in report.pointing])}.",
        FILES[3],
        lambda: figure_pointing(report.pointing, colours),
        _by_layer("Heat inside the box in percent [interval], by layer", 1, columns),
    )


def _sections(report: Report) -> list[_Section]:
    colours = benchmark_colours(
        [row.benchmark for row in report.table]
        + [curve.benchmark for curve in report.curves]
        + [part.benchmark for part in report.pointing]
    )
    sections = []
    if report.curves:
        sections.append(_figure5(report, colours))
    if report.shares:
        sections.append(_figure2(report))
    if report.heats:
        sections.append(_figures3_4(report))
    if report.pointing:
        sections.append(_pointing(report, colours))
    return [replace(section, data=png(section.figure(), section.max_bytes)) for section in sections]


def write_report(report: Report, directory: str | Path) -> Path:
    """Write ``index.html`` and its figures; the same report gives the same bytes.

    The page holds its figures itself; the PNG files beside it are for reuse. A figure this report does
    not have is removed if an earlier one left it there.

    Args:
        directory: created if missing.

    Returns:
        Path of ``index.html``.

    Raises:
        ReportError: as in ``check_writable``.
    """
    directory = Path(directory)
    check_writable(directory)
    sections = _sections(report)
    subjects = {
        model: _listed([row.benchmark for row in report.table if row.model == model])
        for model in dict.fromkeys(row.model for row in report.table)
    }
    files = {section.file: section.data for section in sections}
    page = render("index.html.j2", report=report, sections=sections, subjects=subjects, columns=TABLE_1)
    write(directory, {**files, INDEX: page}, stale=set(FILES) - set(files))
    return directory / INDEX
