"""The functions under their newer name."""

from ..functional import (
    InterpolationMode,
    crop,
    grayscale_to_rgb,
    normalize,
    pad,
    pil_to_tensor,
    resize,
    to_dtype,
    to_tensor,
)

__all__ = [
    "InterpolationMode",
    "crop",
    "grayscale_to_rgb",
    "normalize",
    "pad",
    "pil_to_tensor",
    "resize",
    "to_dtype",
    "to_tensor",
]
