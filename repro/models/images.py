"""Reading, padding and cropping of RGB images."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from repro.reading import read_file


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

    Raises ValueError for values without a known range.
    """
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


def pad_to_square(image: Image.Image, colour: Sequence[float]) -> Image.Image:
    """Centre the image on a square of its longer side (LLaVA, llava/mm_utils.py, expand2square).

    Args:
        colour: of the margins, red, green and blue in [0, 1].
    """
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * channel) for channel in colour))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def middle_square(image: Image.Image, side: int) -> Image.Image:
    """The middle of an image whose shorter side is resized to ``side`` pixels, as CLIP's processor crops it."""
    short = min(image.size)
    width, height = (side * length // short for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))
