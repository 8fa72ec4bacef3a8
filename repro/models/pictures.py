"""Pictures as files hold them, in RGB."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError


class Encoded(Protocol):
    """What holds an encoded image without being a file, e.g. a row of a data set on the hub."""

    def read_bytes(self) -> bytes:
        """The encoded image."""
        ...


def read_image(source: str | Path | Encoded | Image.Image) -> Image.Image:
    """An RGB picture from a file or from an open image; one clear error for a missing or corrupt file."""
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    try:
        with Image.open(source if isinstance(source, str | Path) else BytesIO(source.read_bytes())) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {source}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read the image {source}: {error}") from error


def middle_square(image: Image.Image, side: int) -> Image.Image:
    """The middle of a picture, whose shorter side becomes ``side`` pixels: what CLIP's processor cuts out."""
    short = min(image.size)
    width, height = (side * length // short for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))
