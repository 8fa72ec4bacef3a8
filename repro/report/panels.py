"""Figures 2, 5 and the pointing as small panels for a page: points of lines in SVG, on shared axes.

The page draws them in any width and in the colours of the reader; ``repro.report.figures`` draws the same as PNG.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from repro.evaluation.measured import Curve, MeanShares, Pointing
from repro.report.pages import NAME
from repro.text import arrow, cliff_interval, layer, visible

#: The drawing, and the part of it within the axes: left, top, right, bottom.
SIZE = (320, 176)
LEFT, TOP, RIGHT, BOTTOM = 34.0, 8.0, 288.0, 142.0
#: Paul Tol's "muted", for benchmarks: no colour in common with the segments.
_PALETTE = ("#332288", "#AA4499", "#117733", "#882255", "#999933", "#44AA99", "#CC6677", "#88CCEE")


def benchmark_colours(benchmarks: Iterable[str]) -> dict[str, str]:
    """One colour per benchmark in order of first appearance; eight before they repeat."""
    unique = dict.fromkeys(benchmarks)
    return {name: _PALETTE[i % len(_PALETTE)] for i, name in enumerate(unique)}


@dataclass(frozen=True)
class Line:
    """A line or an area: its class, its points as SVG has them, its colour of the benchmark if it has one."""

    look: str
    points: str
    colour: str = ""


@dataclass
class Panel:
    """One drawing.

    Attributes:
        title, note, label: untrusted; ``label`` is for who does not see it.
        ticks, levels: positions and numbers of the horizontal and vertical axis.
        lines, areas, dots: what is drawn; a dot has its place, and whether it is filled.
        right: heading of the right axis, which has the same numbers; empty: there is none.
        span, cliff: the interval of the cliff layer as x and width, and its x.
    """

    title: str
    note: str
    label: str
    ticks: list[tuple[str, str]]
    levels: list[tuple[str, str]]
    horizontal: str
    lines: list[Line] = field(default_factory=list)
    areas: list[Line] = field(default_factory=list)
    dots: list[tuple[str, str, bool]] = field(default_factory=list)
    colour: str = ""
    right: str = ""
    span: tuple[str, str] | None = None
    cliff: str = ""


class Axes:
    """Places of layers ``first``...``last`` and of fractions up to ``ceiling``."""

    def __init__(self, first: int, last: int, ceiling: float = 1.0) -> None:
        self.first, self.last, self.ceiling = first, last, ceiling

    def x(self, position: float) -> float:
        return LEFT + (position - self.first + 0.4) / (self.last - self.first + 0.8) * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        return BOTTOM - min(max(value / self.ceiling, 0.0), 1.0) * (BOTTOM - TOP)

    def points(
        self, values: Sequence[float] | np.ndarray, positions: np.ndarray | None = None
    ) -> list[tuple[str, str, int]]:
        """Places of the values that are finite, with their index; at successive layers unless at ``positions``."""
        at = self.first + np.arange(len(values)) if positions is None else positions
        return [
            (f"{self.x(float(at[i])):.1f}", f"{self.y(float(value)):.1f}", i)
            for i, value in enumerate(values)
            if np.isfinite(value)
        ]

    def line(
        self,
        look: str,
        values: Sequence[float] | np.ndarray,
        colour: str = "",
        positions: np.ndarray | None = None,
    ) -> Line:
        return Line(look, " ".join(f"{x},{y}" for x, y, _ in self.points(values, positions)), colour)

    def area(self, look: str, low: np.ndarray, high: np.ndarray, colour: str = "") -> Line:
        ends = [*self.points(np.nan_to_num(high, posinf=1, neginf=0, nan=np.nan)),
                *self.points(np.nan_to_num(low, posinf=1, neginf=0, nan=np.nan))[::-1]]  # fmt: skip
        return Line(look, " ".join(f"{x},{y}" for x, y, _ in ends), colour)

    def level(self, look: str, value: float) -> Line:
        """A horizontal line; without points if there is no value."""
        if not np.isfinite(value):
            return Line(look, "")
        return Line(look, f"{LEFT},{self.y(value):.1f} {RIGHT},{self.y(value):.1f}")

    def panel(self, title: str, note: str, label: str, horizontal: str, **more: object) -> Panel:
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if (self.last - self.first) / s <= 11)
        numbers = [n for n in range(self.first, self.last + 1) if n % step == 0 or n == self.first]
        ticks = [(f"{self.x(n):.1f}", str(n)) for n in numbers]
        top = round(100 * self.ceiling)
        levels = [(f"{self.y(part * self.ceiling):.1f}", f"{top * part:g}") for part in (0, 0.5, 1)]
        names = (visible(title, NAME), visible(note, 2 * NAME), visible(label, 400))
        return Panel(*names, ticks, levels, horizontal, **more)  # type: ignore[arg-type]


def curve_panels(curves: Sequence[Curve], lower: Sequence[bool]) -> list[Panel]:
    """Figure 5; ``lower``: of which curves a lower score is better."""
    axes = Axes(0, max(len(curve.score) for curve in curves) - 1)
    colours = benchmark_colours(curve.benchmark for curve in curves)
    panels = []
    for curve, falls in zip(curves, lower, strict=True):
        cliff = (
            f"cliff {layer(curve.cliff)} {cliff_interval(curve.cliff_interval, curve.caveat)}, n = {curve.n}"
        )
        name = f"{curve.benchmark} {curve.metric} {arrow(not falls)}"
        better = "lower is better, " if falls else ""
        panel = axes.panel(name, better + cliff, f"{name}: {cliff}", "L: layers that see the image")
        panel.colour = colours[curve.benchmark]
        panel.areas = [axes.area("interval", curve.low, curve.high, panel.colour)]
        if curve.probability is not None:
            panel.lines.append(axes.line("second", curve.probability))
            panel.right = "probability"
        panel.lines += [axes.level("baseline", float(curve.score[-1])), axes.level("limit", curve.limit)]
        panel.lines.append(axes.line("main", curve.score, panel.colour))
        panel.dots = [(x, y, bool(curve.non_inferior[i])) for x, y, i in axes.points(curve.score)]
        if curve.cliff_interval is not None:
            start, end = (axes.x(v) for v in (curve.cliff_interval[0] - 0.3, curve.cliff_interval[1] + 0.3))
            panel.span = (f"{start:.1f}", f"{end - start:.1f}")
        if curve.cliff is not None:
            panel.cliff = f"{axes.x(curve.cliff):.1f}"
        panels.append(panel)
    return panels


def share_panel(
    title: str, note: str, raw: np.ndarray, eq7: np.ndarray, ends: Sequence[np.ndarray] = ()
) -> Panel:
    """Shares [N, 3] of system, image and user tokens after Eq. 7, and of answer tokens, from ``raw`` [N, 4]."""
    axes = Axes(1, len(eq7))
    names = ("system", "image", "user")
    label = f"{title}: attention on the image by layer, {', '.join(f'{100 * v:.0f} %' for v in eq7[:, 1])}"
    panel = axes.panel(title, note, label, "layer")
    if ends:
        panel.areas = [axes.area(f"{n} interval", ends[0][:, k], ends[1][:, k]) for k, n in enumerate(names)]
    panel.lines = [axes.line(name, eq7[:, k]) for k, name in enumerate(names)]
    if np.nansum(raw[:, 3]) > 0:
        panel.lines.append(axes.line("answer", raw[:, 3]))
    return panel


def share_panels(shares: Sequence[MeanShares]) -> list[Panel]:
    """Figure 2."""
    return [share_panel(p.benchmark, f"n = {p.n}", p.raw, p.mean, (p.low, p.high)) for p in shares]


def pointing_panels(pointing: Sequence[Pointing]) -> list[Panel]:
    """Heat in the boxes, against their share of the area."""
    values = np.concatenate([np.ravel([part.energy, part.high]) for part in pointing])
    highest = max(
        [*values[np.isfinite(values)], *(p.area_share for p in pointing if p.area_share > 0)], default=1
    )
    axes = Axes(1, max(len(part.energy) for part in pointing), min(1.0, np.ceil(10 * highest) / 10) or 1.0)
    colours = benchmark_colours(part.benchmark for part in pointing)
    panels = []
    for part in pointing:
        colour = colours[part.benchmark]
        label = (
            f"{part.benchmark}: heat in the boxes by layer, against {100 * part.area_share:.0f} % of the area"
        )
        panel = axes.panel(part.benchmark, f"n = {part.n}", label, "layer")
        panel.colour = colour
        panel.areas = [axes.area("interval", part.low, part.high, colour)]
        panel.lines = [axes.level("limit", part.area_share), axes.line("main", part.energy, colour)]
        panel.dots = [(x, y, True) for x, y, _ in axes.points(part.energy)]
        panels.append(panel)
    return panels
