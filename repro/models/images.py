"""Reading, padding and cropping of RGB images."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from repro.reading import read_file

#: Most pixels of an image: Pillow's own limit for one that is no attack.
MOST = 89_478_485
#: Pixels that are prepared at once.
BAND = 1 << 24
#: Pixels of the longer side of a picture in a list of items.
SIDE = 112


class Encoded(Protocol):
    """An encoded image that is not a file, e.g. in a row of a data set on the hub."""

    def read_bytes(self) -> bytes:
        """The encoded image."""
        ...


def read_image(source: str | Path | Encoded | Image.Image) -> Image.Image:
    """An RGB image from a file or an open image; FileNotFoundError or ValueError where there is none to read."""
    if isinstance(source, Image.Image):
        return to_rgb(source)
    try:
        content = read_file(Path(source)) if isinstance(source, str | Path) else source.read_bytes()
        with Image.open(BytesIO(content)) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {source}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read the image {source}: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An image in 8-bit RGB. Values of 16 bits are scaled, where Pillow's own conversion makes them white.

    Raises ValueError for values without a known range, and for an image too large to prepare.
    """
    if image.width * image.height > MOST:
        raise ValueError(f"{image.width} x {image.height} pixels, expected at most {MOST}: make it smaller")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(
                f"values from {values.min()} to {values.max()}, expected 16 bits: convert it to 8 bits"
            )
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its values are floating-point numbers without a known range: convert it to 8 bits")
    return image.convert("RGB")


def pad_to_square(image: Image.Image, colour: Sequence[float], side: int, resample: int) -> Image.Image:
    """Centre the image on a square of its longer side (LLaVA, llava/mm_utils.py, expand2square), and resize it.

    A large square is never held whole: its rows are shrunk in bands, each to the same pixels.

    Args:
        colour: of the margins, red, green and blue in [0, 1].
        side, resample: of the result, and Pillow's filter.
    """
    length, margin = max(image.size), tuple(int(255 * channel) for channel in colour)
    left, top = (length - image.width) // 2, (length - image.height) // 2
    if length * length <= BAND:
        square = Image.new("RGB", (length, length), margin)
        square.paste(image, (left, top))
        return square.resize((side, side), resample)
    rows = max(1, BAND // length)
    narrow = Image.new("RGB", (side, length))
    for first in range(0, length, rows):
        band = Image.new("RGB", (length, min(rows, length - first)), margin)
        band.paste(image, (left, top - first))
        narrow.paste(band.resize((side, band.height), resample), (0, first))
    return narrow.resize((side, side), resample)


def middle_square(image: Image.Image, side: int) -> Image.Image:
    """The middle of an image whose shorter side is resized to ``side`` pixels, as CLIP's processor crops it."""
    short = min(image.size)
    width, height = (side * length // short for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))


def thumbnail(image: Image.Image, side: int = SIDE) -> bytes:
    """A small copy, encoded as PNG or as JPEG, whichever is shorter; smaller images keep their size."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    encoded = []
    for kind in ("png", "jpeg"):
        data = BytesIO()
        small.save(data, kind, quality=80)
        encoded.append(data.getvalue())
    return min(encoded, key=len)
