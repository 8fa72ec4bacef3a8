"""The model types that have a small checkpoint, and what is special about each."""

from __future__ import annotations

from .fixed import FIXED
from .kind import Kind
from .native import NATIVE

__all__ = ["KINDS", "Kind"]

KINDS: dict[str, Kind] = FIXED | NATIVE
