"""Heat maps of all layers over one picture, for a page: the picture once, the maps side by side in one image."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from PIL import Image

from repro.report.pages import data_uri

#: Pixels of the longer side of one map, drawn over the picture in any size.
SIDE = 48
#: Steps of heat, of which an image needs as many colours.
STEPS = 32


@dataclass(frozen=True)
class Heat:
    """What the page draws.

    Attributes:
        key: its name on the page.
        label: for who does not see it; untrusted.
        picture, maps: addresses of the images.
        size: width and height in units of the drawing.
        boxes: x, y, width, height in the same units.
        notes: by layer, what a map without heat means.
    """

    key: str
    label: str
    picture: Markup
    maps: Markup
    size: tuple[int, int]
    layers: int
    boxes: Sequence[tuple[float, float, float, float]]
    notes: Sequence[str]


def heat_of(
    key: str,
    label: str,
    picture: bytes,
    heat: np.ndarray,
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> Heat:
    """Maps over an encoded picture that they cover edge to edge.

    Args:
        heat: [N, h, w] in [0, 1]; not finite counts as 0.
        boxes: x, y, width and height as fractions of the picture's.
    """
    with Image.open(io.BytesIO(picture)) as image:
        size = size_of_map(*image.size)
    framed = [tuple(round(v * size[i % 2], 1) for i, v in enumerate(box)) for box in boxes]
    empty = [not np.any(np.nan_to_num(layer)) for layer in heat]
    notes = [": no heat" if nothing else "" for nothing in empty]
    return Heat(key, label, data_uri(picture), maps(heat, size), size, len(heat), framed, notes)  # type: ignore[arg-type]


def size_of_map(width: int, height: int) -> tuple[int, int]:
    """Width and height in pixels of a map in these proportions."""
    scale = SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def maps(heat: np.ndarray, size: tuple[int, int]) -> Markup:
    """The address of a PNG of maps side by side, each of a width and a height in pixels.

    In matplotlib's inferno, the more opaque the hotter, as in ``cam_figure.overlay``.

    Args:
        heat: [N, h, w] in [0, 1]; not finite counts as 0.
    """
    layers = np.nan_to_num(np.asarray(heat, dtype=np.float32), posinf=0, neginf=0)
    dense = np.hstack(
        [np.asarray(Image.fromarray(layer).resize(size, Image.Resampling.BILINEAR)) for layer in layers]
    )
    indices = np.rint(np.clip(dense, 0, 1) * (STEPS - 1)).astype(np.uint8)
    steps = np.linspace(0, 1, STEPS)
    image = Image.fromarray(indices, "P")
    image.putpalette((255 * matplotlib.colormaps["inferno"](steps)[:, :3]).astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=(255 * 0.85 * steps**0.75).astype(np.uint8).tobytes(), optimize=True)
    return data_uri(file.getvalue())
