"""Figures 3-4: the LLaVA-CAM of one item per task, at every layer, over the image."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from repro.evaluation.measured import HeatRow
from repro.report.figures import DPI, WIDTH, drawable, house_style

_MARGIN, _GAP, _LABEL, _HEAD = 0.06, 0.05, 0.15, 0.8  # inches
_PIXELS = 220  # longest side of an image before it is drawn; a cell is never shown larger
_LINE = 44  # characters of a question per line


def _columns(layers: int) -> int:
    # Five cells across a phone are 68 CSS pixels each; for models of more layers that gets too tall.
    return 5 if layers <= 15 else 6


def _fitted(image: np.ndarray) -> Image.Image:
    """The image at drawing size: large ones shrunk smoothly, small ones in visible square pixels."""
    original = Image.fromarray(image)
    scale = _PIXELS / max(original.size)
    size = (max(1, round(original.width * scale)), max(1, round(original.height * scale)))
    return original.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map over the greyed image.

    Args:
        image: uint8 [H, W, 3].
        heat: [h, w] in [0, 1], upsampled bilinearly; not finite counts as 0.

    Returns:
        uint8 [H, W, 3]: the paler grey image where heat is 0, the colour map where it is 1.
    """
    height, width = image.shape[:2]
    tokens = Image.fromarray(np.nan_to_num(np.asarray(heat, dtype=np.float32), posinf=0, neginf=0))
    dense = np.clip(np.asarray(tokens.resize((width, height), Image.Resampling.BILINEAR)), 0, 1)
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[..., None] / 255
    colour = matplotlib.colormaps["inferno"](dense)[..., :3]
    weight = 0.85 * dense[..., None] ** 0.75
    return np.rint(255 * ((1 - weight) * (0.25 + 0.7 * grey) + weight * colour)).astype(np.uint8)


class _Cells:
    """Places one row's image and maps on axes that cover the figure, in inches from the top left."""

    def __init__(self, axes: Axes, row: HeatRow, top: float) -> None:
        self.axes, self.row, self.top = axes, row, top
        self.columns = _columns(len(row.heat))
        self.size = (WIDTH - 2 * _MARGIN - (self.columns - 1) * _GAP) / self.columns
        self.image = np.asarray(_fitted(np.asarray(row.image)))
        height, width = self.image.shape[:2]
        self.wide, self.high = width / max(height, width), height / max(height, width)

    def _top(self, line: int) -> float:
        return self.top + _HEAD + _GAP + line * (self.size * self.high + _LABEL + _GAP)

    @property
    def bottom(self) -> float:
        return self._top(-(-len(self.row.heat) // self.columns))

    def _show(self, image: np.ndarray, left: float, top: float, size: float) -> None:
        left += size * (1 - self.wide) / 2
        right, bottom = left + size * self.wide, top + size * self.high
        self.axes.imshow(image, extent=(left, right, bottom, top), aspect="auto", zorder=2)
        scale = (right - left) / np.asarray(self.row.image).shape[1]
        frame = Rectangle((left, top), right - left, bottom - top, transform=self.axes.transData)
        for box in self.row.boxes:
            x, y, w, h = (scale * float(value) for value in box)
            for colour, thickness in (("black", 1.8), ("white", 0.8)):
                outline = Rectangle((left + x, top + y), w, h, fill=False, ec=colour, lw=thickness, zorder=3)
                self.axes.add_patch(outline)
                outline.set_clip_path(frame)

    def draw(self) -> None:
        """Draw the image, its question and answer, and the maps of layers 1...N."""
        row, axes = self.row, self.axes
        self._show(self.image, _MARGIN, self.top, _HEAD)
        left = _MARGIN + _HEAD + 0.1
        question = textwrap.wrap("Q: " + drawable(row.question, 300), _LINE, max_lines=3, placeholder="…")
        answer = textwrap.wrap("A: " + drawable(row.answer, 120), _LINE, max_lines=1, placeholder="…")
        heading = drawable(row.benchmark, 34)
        axes.text(left, self.top, heading, va="top", fontweight="bold", parse_math=False)
        body = "\n".join(question + answer)
        axes.text(left, self.top + 0.17, body, va="top", fontsize=8, linespacing=1.25, parse_math=False)
        for index, heat in enumerate(np.asarray(row.heat)):
            line, column = divmod(index, self.columns)
            x = _MARGIN + column * (self.size + _GAP)
            y = self._top(line) + _LABEL
            centre = x + self.size / 2
            axes.text(centre, y - 0.03, f"layer {index + 1}", ha="center", fontsize=7)
            self._show(overlay(self.image, heat), x, y, self.size)
            if note := _note(heat, last=index == len(row.heat) - 1):
                middle = y + self.size * self.high / 2
                frame = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
                text = axes.text(centre, middle, note, ha="center", va="center", zorder=4, bbox=frame)
                text.set_fontsize(8.4 * self.size)


def _note(heat: np.ndarray, last: bool) -> str:
    """The meaning of a map without visible heat; empty if there is heat to see."""
    if not np.isfinite(heat).all():
        return "undefined"
    if np.any(heat):
        return "should be\nzero" if last else ""
    return "zero by\nconstruction" if last else "zero"


def _scale(axes: Axes, top: float) -> None:
    ramp = np.linspace(0, 1, 128, dtype=np.float32)[None]
    scale = overlay(np.full((1, 128, 3), 140, dtype=np.uint8), ramp)
    axes.imshow(scale, extent=(_MARGIN + 0.12, 1.4, top + 0.13, top), aspect="auto", zorder=2)
    axes.text(_MARGIN, top + 0.065, "0", va="center", fontsize=8)
    axes.text(1.44, top + 0.065, "1: the layer's strongest cell", va="center", fontsize=8)


@house_style()
def figures3_4(heats: Sequence[HeatRow]) -> Figure:
    """LLaVA-CAM at every layer, one block per item: the image with question and answer, then N maps.

    Layer N is labelled as zero by construction, or as an error if it is not zero. ValueError for no heat maps.
    """
    if not heats:
        raise ValueError("there are no heat maps to draw")
    figure = Figure(figsize=(WIDTH, 1.0), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    bottom = _MARGIN
    for row in heats:
        cells = _Cells(axes, row, bottom)
        cells.draw()
        bottom = cells.bottom + 0.14
    _scale(axes, bottom)
    bottom += 0.2
    figure.set_size_inches(WIDTH, bottom)
    axes.set(xlim=(0, WIDTH), ylim=(bottom, 0))
    axes.set_axis_off()
    return figure
