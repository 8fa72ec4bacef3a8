"""Figures 2 and 5 of arXiv 2406.06579 and the pointing figure; ``cam_figure`` draws Figures 3-4.

All figures are one column wide, so that their text is readable on a phone. They are plain
``matplotlib.figure.Figure`` objects: neither pyplot's global state nor a user's matplotlibrc plays a part.
"""

import io
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from repro.evaluation.measured import Curve, MeanShares, Pointing
from repro.report.panels import benchmark_colours
from repro.text import cliff_interval, layer, visible

WIDTH = 4.2  # inches
DPI = 160
_TITLE, _NUMBERS, _FOOT = 0.42, 0.25, 1.75  # inches above and below a panel, and for the legend
#: Okabe and Ito's palette: distinguishable with any kind of colour vision.
SEGMENT_COLOURS = {"system": "#0072B2", "image": "#D55E00", "user": "#009E73", "answer": "#666666"}
_SEGMENT_MARKERS = {"system": "s", "image": "o", "user": "^"}
_INK, _MUTED, _SECOND, _SPAN = "#222222", "#777777", "#8A5A00", "#EDE6CF"
_STYLE = {
    "font.family": "DejaVu Sans",  # part of matplotlib, so every machine draws the same
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": 8.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}


#: Context manager and decorator: matplotlib's defaults and these settings, whatever the user's matplotlibrc says.
house_style = partial(style.context, ["default", _STYLE])


@cache
def _glyphs() -> set[int]:
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
    return set.intersection(*(set(FT2Font(str(fonts / name)).get_charmap()) for name in names))


def drawable(text: object, limit: int) -> str:
    """``text`` as a figure can show it: see ``visible``; characters missing in the font become an empty box.

    Draw the result with ``parse_math=False``, or dollar signs turn it into mathtext.
    """
    return "".join(c if ord(c) in _glyphs() else "□" for c in visible(text, limit))


@house_style()
def png(figure: Figure) -> bytes:
    """The figure as a PNG; the same figure gives the same bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    file = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(
        file, "PNG"
    )  # without date and version
    return file.getvalue()


def _panels(count: int, height: float, content: str) -> tuple[Figure, list[Axes]]:
    """Panels one below the other, each with room for its title and the numbers of its layers."""
    if not count:
        raise ValueError(f"there are no {content} to draw")
    figure = Figure(figsize=(WIDTH, height * count + _FOOT), dpi=DPI)
    panels = figure.subplots(count, 1, squeeze=False)[:, 0]
    sides = {"left": 0.12, "right": 0.88, "top": 1 - _TITLE / figure.get_figheight()}
    figure.subplots_adjust(
        **sides,
        bottom=_FOOT / figure.get_figheight(),
        hspace=(_TITLE + _NUMBERS) / (height - _TITLE - _NUMBERS),
    )
    return figure, list(panels)


def _title(axes: Axes, name: str, right: str) -> None:
    """A panel's name, untrusted, and its result at a glance; on two lines if one is too short."""
    left = drawable(name, 36)
    if len(left) > 18:
        left += "\n"
    axes.set_title(left, loc="left", fontweight="bold", parse_math=False)
    axes.set_title(right, loc="right", fontsize=8, color=_INK, parse_math=False)


def _layers(axes: Axes, first: int, last: int) -> None:
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=11, integer=True, steps=[1, 2, 4, 5, 10]))


def _legend(figure: Figure, entries: Mapping[str, Line2D | Patch]) -> None:
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="lower left",
        bbox_to_anchor=(0, 0),
        ncols=1,
        handlelength=2.4,
    )


def _sample(**look: Any) -> Line2D:
    """A line for the legend."""
    return Line2D([], [], **look)


def _percent(values: object) -> np.ndarray:
    # The ends of an interval may be infinite if a resample's score is undefined.
    return 100 * np.clip(np.asarray(values, dtype=float), 0, 1)


def _score_limits(axes: Axes, drawn: list[np.ndarray]) -> None:
    """At least 10 points high, so that a difference of a few tenths does not look like a drop."""
    values = np.concatenate([np.ravel(part) for part in drawn])
    values = values[np.isfinite(values)]
    if not values.size:
        axes.set_ylim(0, 100)
        return
    low, high = values.min(), values.max()
    slack = max(0.06 * (high - low), (10 - (high - low)) / 2)
    low = min(max(low - slack, -2.0), 92.0)
    axes.set_ylim(low, max(min(high + slack, 102.0), low + 10))


def _curve_panel(axes: Axes, curve: Curve, colour: str, entries: dict[str, Line2D | Patch]) -> None:
    score, low, high = (_percent(values) for values in (curve.score, curve.low, curve.high))
    drawn, steps = [score, low, high], np.arange(len(score))
    entries["score, with its interval (filled: non-inferior to baseline)"] = _sample(color=_INK, marker="o")
    background = axes
    if curve.probability is not None:
        background = axes.twinx()
        background.plot(steps, _percent(curve.probability), color=_SECOND, lw=0.9)
        background.set_ylim(-2, 102)
        background.grid(False)
        background.tick_params(axis="y", labelsize=7, labelcolor=_SECOND, color=_SECOND)
        axes.set_zorder(background.get_zorder() + 1)  # the score stays on top
        axes.patch.set_visible(False)
        entries["mean probability of the baseline answer's first token, % (right axis)"] = _sample(
            color=_SECOND, lw=0.9
        )
    if curve.cliff_interval is not None:
        start, end = curve.cliff_interval
        background.axvspan(start - 0.2, end + 0.2, color=_SPAN, lw=0, zorder=0)
        entries["interval of the cliff layer"] = Patch(color=_SPAN)
    look: dict[str, Any] = {"color": _INK, "lw": 1.1, "ls": (0, (5, 2))}
    if curve.cliff is not None:
        axes.axvline(curve.cliff, zorder=1, **look)
        entries["cliff layer"] = _sample(**look)
    for name, value, dashes in (
        ("baseline", float(curve.score[-1]), "-"),
        ("worst score the margin allows", curve.limit, (0, (1.5, 1.5))),
    ):
        if np.isfinite(value):
            look = {"color": _MUTED, "lw": 0.9, "ls": dashes}
            drawn.append(_percent(value))
            axes.axhline(float(drawn[-1]), zorder=1, **look)
            entries[name] = _sample(**look)
    axes.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0, zorder=2)
    axes.plot(steps, score, color=colour, zorder=3)
    good = np.asarray(curve.non_inferior, dtype=bool)
    for mask, face in ((good, colour), (~good, "white")):
        axes.plot(steps[mask], score[mask], ls="", marker="o", mec=colour, mfc=face, zorder=4)
    _score_limits(axes, drawn)
    axes.set_ylabel("score, %")
    _layers(axes, 0, len(score) - 1)
    cliff = f"cliff {layer(curve.cliff)} {cliff_interval(curve.cliff_interval, curve.caveat)}"
    _title(axes, f"{curve.benchmark} {curve.metric}", f"{cliff}, n = {curve.n}")


@house_style()
def figure5(curves: Sequence[Curve], colours: Mapping[str, str] | None = None) -> Figure:
    """Score against truncation layer, one panel per curve (Figure 5); ValueError for no curves.

    Args:
        colours: by benchmark, as from ``benchmark_colours``.
    """
    figure, panels = _panels(len(curves), 1.7, "curves")
    colours = colours or benchmark_colours(curve.benchmark for curve in curves)
    entries: dict[str, Line2D | Patch] = {}
    for axes, curve in zip(panels, curves, strict=True):
        _curve_panel(axes, curve, colours[curve.benchmark], entries)
    panels[-1].set_xlabel("L: the image is seen by layers 1…L (0: by none)")
    _legend(figure, entries)
    return figure


@house_style()
def figure2(shares: Sequence[MeanShares]) -> Figure:
    """Attention shares of system, image and user tokens per layer, one panel per benchmark (Figure 2).

    ValueError for no shares.
    """
    figure, panels = _panels(len(shares), 1.7, "attention shares")
    entries: dict[str, Line2D | Patch] = {}
    for axes, part in zip(panels, shares, strict=True):
        layers = np.arange(1, len(part.mean) + 1)
        for column, name in enumerate(("system", "image", "user")):
            look: dict[str, Any] = {"color": SEGMENT_COLOURS[name], "marker": _SEGMENT_MARKERS[name]}
            low, high = (_percent(np.asarray(ends)[:, column]) for ends in (part.low, part.high))
            axes.fill_between(layers, low, high, color=look["color"], alpha=0.18, lw=0)
            axes.plot(layers, _percent(np.asarray(part.mean)[:, column]), markersize=3.2, **look)
            entries[f"{name} tokens"] = _sample(markersize=3.2, **look)
        answer = _percent(np.asarray(part.raw)[:, 3])
        if np.nansum(answer) > 0:
            look = {"color": SEGMENT_COLOURS["answer"], "lw": 1.0, "ls": (0, (2, 1.5))}
            axes.plot(layers, answer, **look)
            entries["earlier answer tokens (share before Eq. 7)"] = _sample(**look)
        axes.set_ylim(-2, 102)
        axes.set_ylabel("attention, %")
        _layers(axes, 1, len(layers))
        _title(axes, part.benchmark, f"n = {part.n}")
    panels[-1].set_xlabel("layer")
    _legend(figure, entries)
    return figure


@house_style()
def figure_pointing(pointing: Sequence[Pointing], colours: Mapping[str, str] | None = None) -> Figure:
    """Share of the CAM inside the boxes per layer, against their share of the area.

    ValueError for nothing to draw.
    """
    figure, panels = _panels(len(pointing), 1.5, "pointing results")
    colours = colours or benchmark_colours(part.benchmark for part in pointing)
    entries: dict[str, Line2D | Patch] = {}
    ceiling = 1.0
    for axes, part in zip(panels, pointing, strict=True):
        layers = np.arange(1, len(part.energy) + 1)
        colour = colours[part.benchmark]
        energy, low, high = (_percent(values) for values in (part.energy, part.low, part.high))
        axes.fill_between(layers, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(layers, energy, color=colour, marker="o")
        entries["heat inside the boxes, with its interval"] = _sample(color=_INK, marker="o")
        if np.isfinite(part.area_share):
            look: dict[str, Any] = {"color": _MUTED, "lw": 1.0, "ls": (0, (4, 2))}
            axes.axhline(float(_percent(part.area_share)), **look)
            entries["the boxes' share of the area"] = _sample(**look)
        values = np.concatenate([energy, high, [_percent(part.area_share)]])
        ceiling = max(ceiling, np.max(values, initial=0, where=np.isfinite(values)))
        axes.set_ylabel("heat in box, %")
        _layers(axes, 1, len(layers))
        _title(axes, part.benchmark, f"n = {part.n}")
    for axes in panels:
        axes.set_ylim(-0.03 * ceiling, 1.08 * ceiling)
    panels[-1].set_xlabel("layer")
    _legend(figure, entries)
    return figure
