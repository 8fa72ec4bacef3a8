"""The model types that have a small checkpoint, and what is special about each."""

from __future__ import annotations

from .fixed import FIXED
from .kind import Kind
from .native import NATIVE
from .with_torchvision import TORCHVISION

__all__ = ["KINDS", "TORCHVISION", "Kind"]

KINDS: dict[str, Kind] = FIXED | NATIVE | TORCHVISION
