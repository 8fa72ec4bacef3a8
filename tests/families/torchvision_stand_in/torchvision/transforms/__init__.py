"""Where transformers looks for the names of interpolations."""

from .functional import InterpolationMode

__all__ = ["InterpolationMode"]
